//! `docs/reference.md`, written from the same descriptions as the schema: every kind with its page and its fields.

use std::fmt::Write;

use super::common;
use crate::steps::{Arity, Artifact, Field, Kind, Need, Type};

/// The whole page, in Markdown.
pub fn text(kinds: &[&'static dyn Kind]) -> String {
    let mut out = String::from(
        "<!-- Written by `UPDATE=1 cargo test --test schema`; edit the kinds' fields and help pages instead. -->\n# Reference of the manifest\n",
    );
    section(&mut out, "Top level", "What may stand at the top of `slmops.toml`.");
    out += "| name | what |\n|---|---|\n";
    for (name, doc) in common::TOP {
        line(&mut out, &[&format!("`{name}`"), doc]);
    }
    for kind in kinds {
        line(&mut out, &[&format!("[`{0}`](#{0})", kind.name()), kind.summary()]);
    }
    section(&mut out, "project", "`[project]`");
    fields(&mut out, common::PROJECT);
    section(&mut out, "source", "`[source]`, each `NAME = { … }`");
    fields(&mut out, common::SOURCE);
    section(&mut out, "device", "`[device.NAME]`");
    fields(&mut out, common::DEVICE);
    section(&mut out, "Every step", "Besides the fields of its kind, a step may have these.");
    fields(&mut out, common::STEP);
    line(&mut out, &["`matrix`", "table of lists", "", common::MATRIX_DOC]);
    line(&mut out, &["`exclude`", "list of tables", "", common::EXCLUDE_DOC]);
    for kind in kinds {
        out.push('\n');
        // The page brings its own heading, one level higher than it has here.
        let page = kind.help().trim();
        if page.starts_with("# ") {
            headings(&mut out, page);
        } else {
            let _ = writeln!(out, "## {}\n\n{page}", kind.name());
        }
        out.push('\n');
        fields(&mut out, kind.fields());
    }
    out
}

fn section(out: &mut String, title: &str, text: &str) {
    let _ = write!(out, "\n## {title}\n\n{text}\n\n");
}

/// A page one level deeper. A `#` within a code block is not a heading.
fn headings(out: &mut String, page: &str) {
    let mut in_code = false;
    for line in page.lines() {
        in_code ^= line.starts_with("```");
        if !in_code && line.starts_with('#') {
            out.push('#');
        }
        out.push_str(line);
        out.push('\n');
    }
}

fn fields(out: &mut String, fields: &[Field]) {
    out.push_str("| field | type | default | what |\n|---|---|---|---|\n");
    rows(out, "", fields);
}

fn rows(out: &mut String, prefix: &str, fields: &[Field]) {
    for field in fields {
        let name = format!("{prefix}{}", field.name);
        let default = match field.need {
            Need::Required => "**required**".to_string(),
            Need::Optional => String::new(),
            Need::Default(text) => format!("`{text}`"),
        };
        line(out, &[&format!("`{name}`"), &type_words(&field.ty), &default, field.doc]);
        if let Some((inner, join)) = inner(&field.ty) {
            rows(out, &format!("{name}{join}"), inner);
        }
    }
}

/// The fields within a field, and what leads to them.
fn inner(ty: &Type) -> Option<(&'static [Field], &'static str)> {
    match ty {
        Type::Table(fields) => Some((fields, ".")),
        Type::List(Type::Table(fields)) => Some((fields, "[].")),
        Type::Map(Type::Table(fields)) => Some((fields, ".NAME.")),
        _ => None,
    }
}

fn line(out: &mut String, cells: &[&str]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

fn type_words(ty: &Type) -> String {
    match ty {
        Type::Bool => "boolean".to_string(),
        Type::Int(min, max) => range("integer", (*min > i64::MIN).then(|| min.to_string()), (*max < i64::MAX).then(|| max.to_string())),
        Type::Float(min, max) => {
            let finite = |bound: f64| (bound.is_finite() && bound.abs() < f64::MAX).then(|| bound.to_string());
            range("number", finite(*min), finite(*max))
        }
        Type::String => "string".to_string(),
        Type::Choice(known) => known.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        Type::Size => "size (`\"1 MiB\"`, or bytes)".to_string(),
        Type::Duration => "duration (`\"10 min\"`, or seconds)".to_string(),
        Type::Template => "text with `{{ … }}`".to_string(),
        Type::List(inner) => format!("list of {}", type_words(inner)),
        Type::Table(_) => "table".to_string(),
        Type::Map(inner) => format!("table, NAME = {}", type_words(inner)),
        Type::Ref(arity, accepts) => format!("{} {}", artifacts(accepts), arity_words(*arity)),
        Type::NamedRefs(accepts) => format!("table, NAME = {}", artifacts(accepts)),
        Type::Device(arity) => format!("a device {}", arity_words(*arity)),
    }
}

fn range(word: &str, low: Option<String>, high: Option<String>) -> String {
    match (low, high) {
        (Some(low), Some(high)) => format!("{word}, {low} to {high}"),
        (Some(low), None) => format!("{word}, at least {low}"),
        (None, Some(high)) => format!("{word}, at most {high}"),
        (None, None) => word.to_string(),
    }
}

fn artifacts(accepts: &[Artifact]) -> String {
    accepts.iter().map(|artifact| artifact.noun()).collect::<Vec<_>>().join(" or ")
}

fn arity_words(arity: Arity) -> &'static str {
    match arity {
        Arity::One => "(exactly one)",
        Arity::Each => "(a list fans out: one step for each)",
        Arity::All => "(a list is taken together)",
    }
}
