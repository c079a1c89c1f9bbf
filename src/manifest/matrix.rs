//! `matrix.FIELD = […]`: the axes of a step and the tables that their values make of it.
//!
//! | written | axis |
//! |---|---|
//! | `matrix.type = ["Q8_0", "Q4_0"]` | the field `type` |
//! | `matrix.data.all = ["a", "b"]` | the field `data`, its values named |
//! | `matrix.arch.hidden_size = [32, 64]` | one entry of the table `arch` |
//! | `matrix.size.small = { arch = {…}, max_steps = 9 }` | `size` is no field: each named table sets several |

use crate::base::{Diagnostic, Place, suggest};

use super::names;
use super::value::{Data, Key, Table, Value};

/// What a name under `matrix` is to the step's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A field that holds a table with known entries.
    TableField,
    Field,
    NoField,
}

#[derive(Clone, Debug)]
pub struct Axis {
    /// `type`, `arch.hidden_size`
    pub name: String,
    pub place: Place,
    pub values: Vec<AxisValue>,
}

#[derive(Clone, Debug)]
pub struct AxisValue {
    /// As it is shown and picked: `Q8_0`.
    pub label: String,
    /// Which entries it sets, by their path from the step's table.
    pub sets: Vec<(Vec<Key>, Value)>,
}

/// Reads the table under `matrix`. `fields` are for "did you mean".
pub fn axes(matrix: &Value, target: &dyn Fn(&str) -> Target, fields: &[&str], diagnostics: &mut Vec<Diagnostic>) -> Vec<Axis> {
    let Data::Table(table) = &matrix.data else {
        let message = format!("`matrix` is a table of lists, not {}", matrix.data.noun());
        diagnostics.push(Diagnostic::error(message).at(&matrix.place, "").help("write `matrix.FIELD = [ … ]`"));
        return Vec::new();
    };
    let mut found = Vec::new();
    for (key, value) in table.iter() {
        match target(&key.text) {
            Target::NoField => match &value.data {
                Data::Table(named) if !named.is_empty() && named.iter().all(|(_, value)| matches!(value.data, Data::Table(_))) => {
                    found.push(settings(key, named, diagnostics));
                }
                _ => diagnostics.push(
                    Diagnostic::error(format!("unknown field `{}`", key.text))
                        .at(&key.place, "a matrix runs over a field of the step")
                        .maybe_help(suggest::help(&key.text, fields.iter().copied())),
                ),
            },
            Target::TableField => table_field(key, value, diagnostics, &mut found),
            Target::Field => found.extend(field(vec![key.clone()], value, diagnostics)),
        }
    }
    found.retain(|axis| check(axis, diagnostics));
    overlaps(&found, diagnostics);
    found
}

/// A list of values, or a table of named ones.
fn field(path: Vec<Key>, value: &Value, diagnostics: &mut Vec<Diagnostic>) -> Option<Axis> {
    let name = path.iter().map(|key| key.text.as_str()).collect::<Vec<_>>().join(".");
    let place = path.last().map_or(&value.place, |key| &key.place).clone();
    let one = |label: String, value: &Value| AxisValue { label, sets: vec![(path.clone(), value.clone())] };
    let values = match &value.data {
        Data::List(items) => items.iter().enumerate().map(|(i, item)| one(label(item, i), item)).collect(),
        Data::Table(named) => {
            named.iter().filter(|(key, _)| good(key, diagnostics)).map(|(key, value)| one(key.text.clone(), value)).collect()
        }
        other => {
            diagnostics.push(
                Diagnostic::error(format!("a matrix runs over a list, not {}", other.noun()))
                    .at(&value.place, "")
                    .help(format!("write `matrix.{name} = [ … ]`")),
            );
            return None;
        }
    };
    Some(Axis { name, place, values })
}

/// `matrix.arch` may name whole tables or run over entries of one, not both.
fn table_field(key: &Key, value: &Value, diagnostics: &mut Vec<Diagnostic>, found: &mut Vec<Axis>) {
    let Data::Table(named) = &value.data else {
        found.extend(field(vec![key.clone()], value, diagnostics));
        return;
    };
    let lists = named.iter().filter(|(_, value)| matches!(value.data, Data::List(_))).count();
    if lists == 0 {
        found.extend(field(vec![key.clone()], value, diagnostics));
    } else if lists == named.len() {
        found.extend(named.iter().filter_map(|(entry, value)| field(vec![key.clone(), entry.clone()], value, diagnostics)));
    } else {
        let help = format!("`matrix.{0}.NAME = {{ … }}` names whole tables, `matrix.{0}.ENTRY = [ … ]` runs over one entry", key.text);
        diagnostics.push(Diagnostic::error(format!("`matrix.{}` mixes lists and tables", key.text)).at(&key.place, "").help(help));
    }
}

fn settings(key: &Key, named: &Table, diagnostics: &mut Vec<Diagnostic>) -> Axis {
    let mut values = Vec::new();
    for (name, value) in named.iter().filter(|(name, _)| good(name, diagnostics)) {
        let Data::Table(sets) = &value.data else { continue };
        values.push(AxisValue {
            label: name.text.clone(),
            sets: sets.iter().map(|(key, value)| (vec![key.clone()], value.clone())).collect(),
        });
    }
    Axis { name: key.text.clone(), place: key.place.clone(), values }
}

fn good(key: &Key, diagnostics: &mut Vec<Diagnostic>) -> bool {
    match names::entry_fault(&key.text) {
        Some(fault) => {
            diagnostics.push(Diagnostic::error(format!("`{}` cannot name a value of a matrix", key.text)).at(&key.place, "").help(fault));
            false
        }
        None => true,
    }
}

fn check(axis: &Axis, diagnostics: &mut Vec<Diagnostic>) -> bool {
    if axis.values.is_empty() {
        diagnostics.push(Diagnostic::error(format!("`matrix.{}` has no values", axis.name)).at(&axis.place, "this makes no step at all"));
        return false;
    }
    let mut seen = std::collections::BTreeSet::new();
    for value in &axis.values {
        if !seen.insert(value.label.as_str()) {
            let place = value.sets.first().map_or(&axis.place, |(_, value)| &value.place);
            diagnostics
                .push(Diagnostic::error(format!("`{}` stands twice in `matrix.{}`", value.label, axis.name)).at(place, "again here"));
            return false;
        }
    }
    true
}

/// Two axes that set one entry would leave it to chance which of them wins.
fn overlaps(axes: &[Axis], diagnostics: &mut Vec<Diagnostic>) {
    let mut setters: Vec<(String, &Axis)> = Vec::new();
    for axis in axes {
        let mut own: Vec<String> = axis.values.iter().flat_map(|value| value.sets.iter().map(|(path, _)| joined(path))).collect();
        own.sort();
        own.dedup();
        for path in own {
            let below = |a: &str, b: &str| a == b || a.strip_prefix(b).is_some_and(|rest| rest.starts_with('.'));
            if let Some((_, other)) = setters.iter().find(|(known, _)| below(known, &path) || below(&path, known)) {
                diagnostics.push(
                    Diagnostic::error(format!("two axes of the matrix set `{path}`"))
                        .at(&axis.place, "this one")
                        .at(&other.place, "and this one"),
                );
            }
            setters.push((path, axis));
        }
    }
}

pub fn joined(path: &[Key]) -> String {
    path.iter().map(|key| key.text.as_str()).collect::<Vec<_>>().join(".")
}

/// How a value is shown and picked: numbers by value, short plain strings as they are, everything else by its place in the list.
pub fn label(value: &Value, index: usize) -> String {
    let plain = |text: &str| {
        !text.is_empty()
            && text.len() <= 60
            && !text.starts_with('#')
            && !text.contains(|c: char| c == ',' || c == '"' || c.is_whitespace() || c.is_control())
    };
    match &value.data {
        Data::Bool(value) => value.to_string(),
        Data::Int(value) => value.to_string(),
        Data::Float(value) => number(*value),
        Data::String(text) if plain(text) => text.clone(),
        _ => format!("#{}", index + 1),
    }
}

fn number(value: f64) -> String {
    let plain = format!("{value}");
    if plain.len() <= 12 { plain } else { format!("{value:e}") }
}

/// A step's table with one value of each axis put in, and without `matrix` and `exclude`.
pub fn substitute<'a>(table: &Table, values: impl Iterator<Item = &'a AxisValue>) -> Table {
    let kept = table.iter().filter(|(key, _)| key.text != "matrix" && key.text != "exclude");
    let mut out: Table = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
    for value in values {
        for (path, value) in &value.sets {
            put(&mut out, path, value);
        }
    }
    out
}

fn put(table: &mut Table, path: &[Key], value: &Value) {
    let Some((first, rest)) = path.split_first() else { return };
    if !rest.is_empty() {
        let below = table.or_insert_with(first, || Value { place: first.place.clone(), data: Data::Table(Table::default()) });
        if let Data::Table(inner) = &mut below.data {
            return put(inner, rest, value);
        }
    }
    table.replace(first.clone(), value.clone());
}

/// How many combinations there are, or `None` beyond what a machine counts.
pub fn combinations(axes: &[Axis]) -> Option<usize> {
    axes.iter().try_fold(1usize, |product, axis| product.checked_mul(axis.values.len()))
}

/// The `index`-th combination, as one value index for each axis; the last axis runs fastest.
pub fn combination(axes: &[Axis], mut index: usize) -> Vec<usize> {
    let mut picked = vec![0; axes.len()];
    for (slot, axis) in picked.iter_mut().zip(axes).rev() {
        *slot = index % axis.values.len();
        index /= axis.values.len();
    }
    picked
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::SourceText;
    use crate::manifest::read;

    fn axes_of(text: &str) -> (Vec<Axis>, Vec<Diagnostic>) {
        let (table, errors) = read::parse(&Arc::new(SourceText::new("t", text)));
        assert!(errors.is_empty(), "{errors:?}");
        let target = |name: &str| match name {
            "arch" => Target::TableField,
            "type" | "data" | "rate" => Target::Field,
            _ => Target::NoField,
        };
        let mut diagnostics = Vec::new();
        let axes = axes(table.get("matrix").unwrap(), &target, &["arch", "type", "data", "rate"], &mut diagnostics);
        (axes, diagnostics)
    }

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.values.iter().map(|value| value.label.as_str()).collect()
    }

    #[test]
    fn the_four_ways_to_write_an_axis() {
        let (axes, errors) = axes_of(
            "matrix.type = [\"Q8_0\", \"Q4_0\"]\nmatrix.data.all = [\"a\", \"b\"]\nmatrix.data.half = [\"a\"]\nmatrix.arch.width = [32, 64]\n\
             matrix.size.small = { max_steps = 9, seed = 1 }\nmatrix.size.big = { max_steps = 99 }",
        );
        assert!(errors.is_empty(), "{errors:?}");
        let shown: Vec<_> = axes.iter().map(|axis| (axis.name.as_str(), labels(axis))).collect();
        assert_eq!(
            shown,
            [
                ("type", vec!["Q8_0", "Q4_0"]),
                ("data", vec!["all", "half"]),
                ("arch.width", vec!["32", "64"]),
                ("size", vec!["small", "big"])
            ]
        );
        assert_eq!(combinations(&axes), Some(16));
        assert_eq!(combination(&axes, 0), [0, 0, 0, 0]);
        assert_eq!(combination(&axes, 9), [1, 0, 0, 1]);
    }

    #[test]
    fn numbers_are_shown_by_value_and_repeats_are_found() {
        let (axes, _) = axes_of("matrix.rate = [3e-3, 1e-10, 1.0]");
        assert_eq!(labels(&axes[0]), ["0.003", "0.0000000001", "1"]);
        assert_eq!(axes_of("matrix.rate = [3e-3, 0.003]").1.len(), 1);
        assert_eq!(axes_of("matrix.rate = []").1.len(), 1);
        assert_eq!(axes_of("matrix.rate = 3").1.len(), 1);
        assert_eq!(axes_of("matrix.typ = [3]").1.len(), 1);
        assert_eq!(axes_of("matrix.type = [3]\nmatrix.s.a = { type = 2 }").1.len(), 1);
    }

    #[test]
    fn values_are_put_in_place() {
        let (axes, _) = axes_of("matrix.arch.width = [32]\nmatrix.type = [\"x\"]");
        let (table, _) = read::parse(&Arc::new(SourceText::new("t", "matrix.type = [\"x\"]\narch = { depth = 2 }\n")));
        let out = substitute(&table, axes.iter().map(|axis| &axis.values[0]));
        assert_eq!(out.names().collect::<Vec<_>>(), ["arch", "type"]);
        let Data::Table(arch) = &out.get("arch").unwrap().data else { panic!() };
        assert_eq!(arch.names().collect::<Vec<_>>(), ["depth", "width"]);
    }
}
