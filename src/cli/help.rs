//! `slmops help [KIND]`: the page of a step kind, with its fields as the checker knows them.

use std::fmt::Write;

use super::shell::{Shell, Stop};
use crate::base::{Diagnostic, Exit, suggest};
use crate::plan::common;
use crate::steps::{self, Arity, Field, KINDS, Kind, Need, Type};

/// The page about what can be read as a model.
const MODELS: &str = include_str!("../../docs/models.md");

/// The other tables of a manifest: their names, what they are, and their fields.
const TABLES: [(&str, &str, &[Field]); 4] = [
    ("project", "[project]: what the repository builds", common::PROJECT),
    ("source", "[source.NAME]: data and models that the steps begin with", common::SOURCE),
    ("device", "[device.NAME]: where bundles go, and what must fit there", common::DEVICE),
    ("step", "[KIND.NAME]: what every step may have besides the fields of its kind", common::STEP),
];

/// Explain a step kind and its fields
#[derive(Debug, clap::Args)]
pub struct Help {
    /// A step kind (`train`, `quantize` …), another table (`project`, `source`, `device`, `step`), a command, or `models`
    #[arg(value_name = "KIND")]
    topic: Option<String>,
}

impl Help {
    pub fn run(self, shell: &Shell) -> Result<Exit, Stop> {
        let Some(topic) = &self.topic else {
            shell.print(super::command().render_help().to_string())?;
            shell.print(overview())?;
            return Ok(Exit::Done);
        };
        if let Some(kind) = steps::kind(topic) {
            shell.print(page(kind))?;
            return Ok(Exit::Done);
        }
        if let Some((_, what, fields)) = TABLES.iter().find(|(name, ..)| name == topic) {
            let mut text = format!("{what}\n\nFields\n");
            describe(&mut text, fields, 1);
            shell.print(text)?;
            return Ok(Exit::Done);
        }
        if topic == "models" {
            shell.print(MODELS)?;
            return Ok(Exit::Done);
        }
        let mut command = super::command();
        if let Some(command) = command.find_subcommand_mut(topic) {
            shell.print(command.render_long_help().to_string())?;
            return Ok(Exit::Done);
        }
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.name()).chain(TABLES.map(|(name, ..)| name)).chain(["models"]).collect();
        let problem = Diagnostic::error(format!("there is no step kind or command `{topic}`"));
        Err(Stop::Diagnostics(vec![problem.maybe_help(suggest::help(topic, names.iter().copied()))]))
    }
}

fn overview() -> String {
    let mut text = String::from("\nStep kinds (`slmops help KIND`):\n");
    for kind in KINDS {
        let _infallible = writeln!(text, "  {:<12} {}", kind.name(), kind.summary());
    }
    text.push_str("\nThe other tables of a manifest (`slmops help NAME`):\n");
    for (name, what, _) in TABLES {
        let _infallible = writeln!(text, "  {name:<12} {what}");
    }
    text.push_str("\nWhich models can be read: `slmops help models`\n");
    text
}

fn page(kind: &dyn Kind) -> String {
    let mut text = format!("[{}.NAME]: {}\n\n{}\n\nFields\n", kind.name(), kind.summary(), kind.help().trim());
    describe(&mut text, kind.fields(), 1);
    text
}

fn describe(text: &mut String, fields: &[Field], depth: usize) {
    let indent = "  ".repeat(depth);
    for field in fields {
        let need = match field.need {
            Need::Required => "required".to_string(),
            Need::Optional => "optional".to_string(),
            Need::Default(value) => format!("default {value}"),
        };
        let _infallible = writeln!(text, "{indent}{}  ({}; {need})\n{indent}    {}", field.name, noun(&field.ty), field.doc);
        match &field.ty {
            Type::Table(inner) | Type::List(Type::Table(inner)) => describe(text, inner, depth + 2),
            _ => {}
        }
    }
}

/// What may stand in a field, in words.
fn noun(ty: &Type) -> String {
    match ty {
        Type::Bool => "true or false".to_string(),
        Type::Int(min, max) => format!("integer {}", range(&min.to_string(), &max.to_string(), *min == i64::MIN, *max == i64::MAX)),
        Type::Float(min, max) => format!("number {}", range(&min.to_string(), &max.to_string(), *min == f64::MIN, *max == f64::MAX)),
        Type::String => "string".to_string(),
        Type::Choice(names) => names.join(" | "),
        Type::Size => "size, as in \"1 MiB\"".to_string(),
        Type::Duration => "duration, as in \"10 min\"".to_string(),
        Type::Template => "template".to_string(),
        Type::List(inner) => format!("list of {}", noun(inner)),
        Type::Table(_) => "table".to_string(),
        Type::Map(inner) => format!("table NAME = {}", noun(inner)),
        Type::Ref(arity, artifacts) => {
            let what = artifacts.iter().map(|artifact| artifact.noun()).collect::<Vec<_>>().join(" or ");
            match arity {
                Arity::One => format!("name of {what}"),
                Arity::Each => format!("name or names of {what}; one step for each"),
                Arity::All => format!("name or names of {what}; together"),
            }
        }
        Type::NamedRefs(artifacts) => {
            format!("table NAME = name of {}", artifacts.iter().map(|artifact| artifact.noun()).collect::<Vec<_>>().join(" or "))
        }
        Type::Device(_) => "name or names of a [device.NAME]; one step for each".to_string(),
    }
}

fn range(min: &str, max: &str, open_below: bool, open_above: bool) -> String {
    match (open_below, open_above) {
        (true, true) => String::new(),
        (false, true) => format!("≥ {min}"),
        (true, false) => format!("≤ {max}"),
        (false, false) => format!("from {min} to {max}"),
    }
}
