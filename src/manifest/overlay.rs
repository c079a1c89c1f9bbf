//! `[profile.NAME]` and `--set train.teacher.max_steps=50`: fields laid over what the manifest says.
//!
//! Tables are merged, everything else is replaced. A field set here takes the place of a matrix over that field, and the other way round; a
//! source is replaced whole. Only what exists can be changed: a slip would otherwise declare a step that nobody meant.

use std::sync::Arc;

use super::read;
use super::value::{Data, Key, Table, Value};
use crate::base::diagnostic::MAX_SHOWN;
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
    for (key, value) in over {
        match key.text.as_str() {
            "slmops" | "include" | "workspace" | "profile" | "site" | "runtime" | "test" => {
                diagnostics.push(Diagnostic::error(format!("{what} cannot change `{}`", key.text)).at(&key.place, ""));
            }
            // A workspace's root may have none; it must not get one that way.
            "project" => match base.entry_mut("project") {
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
    if !base.get(&kind.text).is_some_and(|value| matches!(value.data, Data::Table(_))) {
        let names = base.names().filter(|name| !matches!(*name, "slmops" | "profile" | "workspace" | "include"));
        let help = if diagnostics.len() + misses.len() < MAX_SHOWN { suggest::nearest(&kind.text, names) } else { None };
        let help = help.map(|name| format!("did you mean `{name}`?"));
        misses.push(Miss(
            Diagnostic::error(format!("{what} changes `{}`, of which there is none", kind.text)).at(&kind.place, "").maybe_help(help),
        ));
        return;
    }
    let Some((_, Value { data: Data::Table(declared), .. })) = base.entry_mut(&kind.text) else { return };
    for (name, value) in over {
        if declared.get(&name.text).is_none() {
            let help = if diagnostics.len() + misses.len() < MAX_SHOWN { suggest::help(&name.text, declared.names()) } else { None };
            let message = format!("{what} changes `{}.{}`, which is not declared", kind.text, name.text);
            misses.push(Miss(Diagnostic::error(message).at(&name.place, "no such name").maybe_help(help)));
            continue;
        }
        let Some((_, target)) = declared.entry_mut(&name.text) else { continue };
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

/// A field and a matrix over it exclude each other: the later word wins. An axis that is a table may reach only some of a field's entries
/// (`matrix.arch.hidden_size`).
fn step(into: &mut Table, from: Table) {
    for (key, value) in from {
        if key.text == "matrix" {
            if let Data::Table(axes) = &value.data {
                into.retain(|field| axes.get(&field.text).is_none_or(|axis| matches!(axis.data, Data::Table(_))));
            }
            put(into, key, value);
        } else {
            if let Some((_, Value { data: Data::Table(axes), .. })) = into.entry_mut("matrix")
                && axes.get(&key.text).is_some()
            {
                axes.remove(&key.text);
            }
            put(into, key, value);
        }
    }
}

fn fields(into: &mut Value, value: Value) {
    match (&mut into.data, value.data) {
        (Data::Table(into), Data::Table(from)) => from.into_iter().for_each(|(key, value)| put(into, key, value)),
        (data, other) => {
            *data = other;
            into.place = value.place;
        }
    }
}

fn put(into: &mut Table, key: Key, value: Value) {
    match into.entry_mut(&key.text) {
        Some((_, old)) => fields(old, value),
        None => into.push(key, value),
    }
}

fn each(into: &mut Value, value: Value, mut f: impl FnMut(&mut Table, Key, Value)) {
    if let (Data::Table(into), Data::Table(from)) = (&mut into.data, value.data) {
        from.into_iter().for_each(|(key, value)| f(into, key, value));
    }
}

/// The entry of that name, made empty if there is none.
fn entry<'a>(base: &'a mut Table, key: &Key, like: &Value) -> &'a mut Value {
    base.or_insert_with(key, || Value { place: like.place.clone(), data: Data::Table(Table::default()) })
}
