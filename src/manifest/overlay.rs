//! `[profile.NAME]` and `--set train.teacher.max_steps=50`: fields laid over what the manifest says.
//!
//! Tables are merged, everything else is replaced. A field set here takes the place of a matrix over that field, and the other way round; a
//! source is replaced whole. Only what exists can be changed: a slip would otherwise declare a step that nobody meant.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::read;
use super::value::{Data, Key, Table, Value};
use crate::base::{Diagnostic, SourceText, suggest};

/// An override of something that the manifest does not declare. In a workspace another member may declare it.
pub struct Miss(pub Diagnostic);

/// `KEY=VALUE` as a table. A value that is no TOML is taken as a string: `--set train.t.tokenizer=words`.
pub fn parse_set(text: &str) -> Result<Table, Vec<Diagnostic>> {
    let source = Arc::new(SourceText::new("--set", text));
    let Some((key, value)) = text.split_once('=') else {
        return Err(vec![Diagnostic::error(format!("`--set {text}` has no `=`")).help("write `--set train.teacher.max_steps=50`")]);
    };
    let (table, errors) = read::parse(&source);
    if errors.is_empty() {
        return Ok(table);
    }
    let quoted = format!("{key}={}", super::lock::quoted(value.trim()));
    let (table, again) = read::parse(&Arc::new(SourceText::new("--set", quoted)));
    if again.is_empty() { Ok(table) } else { Err(errors) }
}

/// Lays `over` on a whole manifest. `what` says where it comes from: ``the profile `quick` ``.
pub fn apply(base: &mut Table, over: Table, what: &str, diagnostics: &mut Vec<Diagnostic>) -> Vec<Miss> {
    let mut misses = Vec::new();
    for (key, value) in over.0 {
        match key.text.as_str() {
            "slmops" | "include" | "workspace" | "profile" | "site" | "runtime" | "test" => {
                diagnostics.push(Diagnostic::error(format!("{what} cannot change `{}`", key.text)).at(&key.place, ""));
            }
            // A workspace's root may have none; it must not get one that way.
            "project" => match base.0.iter_mut().find(|(known, _)| known.text == "project") {
                Some((_, project)) => fields(project, value),
                None => misses.push(Miss(Diagnostic::error(format!("{what} changes `project`, which is not declared")).at(&key.place, ""))),
            },
            "defaults" => each(entry(base, &key, &value), value, |into, kind, value| fields(entry(into, &kind, &value), value)),
            _ => steps(base, key, value, what, diagnostics, &mut misses),
        }
    }
    misses
}

/// `KIND.NAME.FIELD`
fn steps(base: &mut Table, kind: Key, value: Value, what: &str, diagnostics: &mut Vec<Diagnostic>, misses: &mut Vec<Miss>) {
    let Data::Table(over) = value.data else {
        diagnostics.push(Diagnostic::error(format!("{what} changes fields of a step: `{}.NAME.FIELD`", kind.text)).at(&kind.place, ""));
        return;
    };
    let Some(Value { data: Data::Table(declared), .. }) = base.0.iter_mut().find(|(key, _)| key.text == kind.text).map(|(_, value)| value)
    else {
        let names: Vec<&str> = base.names().filter(|name| !matches!(*name, "slmops" | "profile" | "workspace" | "include")).collect();
        let help = suggest::nearest(&kind.text, names).map(|name| format!("did you mean `{name}`?"));
        misses.push(Miss(
            Diagnostic::error(format!("{what} changes `{}`, of which there is none", kind.text)).at(&kind.place, "").maybe_help(help),
        ));
        return;
    };
    let places: BTreeMap<String, usize> = declared.0.iter().enumerate().map(|(i, (key, _))| (key.text.clone(), i)).collect();
    for (name, value) in over.0 {
        let Some(at) = places.get(&name.text).copied() else {
            let help = suggest::help(&name.text, declared.names());
            let message = format!("{what} changes `{}.{}`, which is not declared", kind.text, name.text);
            misses.push(Miss(Diagnostic::error(message).at(&name.place, "no such name").maybe_help(help)));
            continue;
        };
        let (_, target) = &mut declared.0[at];
        if kind.text == "source" {
            *target = value;
            continue;
        }
        match (&mut target.data, value.data) {
            (Data::Table(into), Data::Table(from)) => step(into, from),
            (_, other) => {
                let message = format!("{what} changes fields: `{}.{}` cannot become {}", kind.text, name.text, other.noun());
                diagnostics.push(Diagnostic::error(message).at(&value.place, ""));
            }
        }
    }
}

/// A field and a matrix over it exclude each other: the later word wins.
fn step(into: &mut Table, from: Table) {
    for (key, value) in from.0 {
        if key.text == "matrix" {
            if let Data::Table(axes) = &value.data {
                into.0.retain(|(field, _)| {
                    !axes.names().any(|axis| axis == field.text) || matches!(axis_table(axes, &field.text), Some(true))
                });
            }
            put(into, key, value);
        } else {
            if let Some((_, Value { data: Data::Table(axes), .. })) = into.0.iter_mut().find(|(field, _)| field.text == "matrix") {
                axes.0.retain(|(axis, _)| axis.text != key.text);
            }
            put(into, key, value);
        }
    }
}

/// Whether an axis is a table, which may reach only some of a field's entries (`matrix.arch.hidden_size`).
fn axis_table(axes: &Table, name: &str) -> Option<bool> {
    axes.get(name).map(|value| matches!(value.data, Data::Table(_)))
}

fn fields(into: &mut Value, value: Value) {
    match (&mut into.data, value.data) {
        (Data::Table(into), Data::Table(from)) => from.0.into_iter().for_each(|(key, value)| put(into, key, value)),
        (data, other) => {
            *data = other;
            into.place = value.place;
        }
    }
}

fn put(into: &mut Table, key: Key, value: Value) {
    match into.0.iter_mut().find(|(known, _)| known.text == key.text) {
        Some((_, old)) => fields(old, value),
        None => into.0.push((key, value)),
    }
}

fn each(into: &mut Value, value: Value, mut f: impl FnMut(&mut Table, Key, Value)) {
    if let (Data::Table(into), Data::Table(from)) = (&mut into.data, value.data) {
        from.0.into_iter().for_each(|(key, value)| f(into, key, value));
    }
}

/// The entry of that name, made empty if there is none.
fn entry<'a>(base: &'a mut Table, key: &Key, like: &Value) -> &'a mut Value {
    let at = base.0.iter().position(|(known, _)| known.text == key.text).unwrap_or_else(|| {
        base.0.push((key.clone(), Value { place: like.place.clone(), data: Data::Table(Table::default()) }));
        base.0.len() - 1
    });
    &mut base.0[at].1
}
