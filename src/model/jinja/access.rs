//! `of.name` and `of['name']`: attributes first or items first, as in transformers' sandbox. An attribute of Python's own types that is not supported is refused by its name, since
//! undefined would be a silent difference.

use minijinja::Error;
use minijinja::value::Value;

use super::call::Method;
use super::methods::{self, Attribute};
use super::operate::undefined;
use super::run::{raise, unsupported};
use super::value::{Py, Shape, py};

/// `of.name`.
pub fn attribute(of: &Value, name: &str) -> Result<Value, Error> {
    match own(of, name)? {
        Some(value) => Ok(value),
        None => Ok(by_key(of, &Value::from(name))?.unwrap_or(Value::UNDEFINED)),
    }
}

/// `of[key]`.
pub fn item(of: &Value, key: &Value) -> Result<Value, Error> {
    if let Some(value) = by_key(of, key)? {
        return Ok(value);
    }
    match key.as_str() {
        Some(name) => Ok(own(of, name)?.unwrap_or(Value::UNDEFINED)),
        None => Ok(Value::UNDEFINED),
    }
}

/// What `getattr` finds.
fn own(of: &Value, name: &str) -> Result<Option<Value>, Error> {
    match py(of) {
        Py::Undefined => return undefined(of),
        Py::Namespace(namespace) if !name.starts_with("__") => {
            return namespace.get(name);
        }
        Py::Loop(looped) => return looped_attribute(looped, name),
        Py::Items(items) if items.shape == Shape::Group => match name {
            "grouper" => return Ok(items.items.first().cloned()),
            "list" => return Ok(items.items.get(1).cloned()),
            _ => {}
        },
        Py::Macro(made) => {
            return match name {
                "name" => Ok(Some(made.name.as_deref().map_or(Value::from(()), Value::from))),
                _ => unsupported(format!("the attribute `{name}` of a macro")),
            };
        }
        _ => {}
    }
    match methods::find(py(of), name) {
        Attribute::Method => Ok(Some(Method::bound(of, name))),
        // The sandbox gives something undefined for what would change a list or shows what is inside of Python.
        Attribute::Unsafe => Ok(Some(Value::UNDEFINED)),
        Attribute::Unsupported => unsupported(format!("the attribute `{name}` of a {}", py(of).noun())),
        Attribute::Absent => Ok(None),
    }
}

fn looped_attribute(looped: &Value, name: &str) -> Result<Option<Value>, Error> {
    match name {
        "index" | "index0" | "revindex" | "revindex0" | "first" | "last" | "length" | "previtem" | "nextitem" => {
            looped.get_attr(name).map(Some)
        }
        "cycle" | "changed" => Ok(Some(Method::bound(looped, name))),
        // The engine counts other loops than Jinja2 does.
        "depth" | "depth0" => unsupported(format!("`{name}` of a loop that is not the innermost one")),
        _ if name.starts_with('_') => unsupported(format!("the attribute `{name}` of a loop")),
        _ => Ok(None),
    }
}

/// What `of[key]` finds.
fn by_key(of: &Value, key: &Value) -> Result<Option<Value>, Error> {
    match py(of) {
        Py::Undefined => undefined(of),
        Py::Dict(dict) => match py(key) {
            // Their lookup fails with a `TypeError`, which gives something undefined.
            Py::Items(items) if items.shape == Shape::List => Ok(None),
            Py::Dict(_) => Ok(None),
            _ => Ok(dict.get(key)?.cloned()),
        },
        Py::Items(items) => Ok(place(key, items.items.len()).and_then(|place| items.items.get(place).cloned())),
        Py::Str(text) => {
            let Some(index) = py(key).int() else { return Ok(None) };
            super::run::read(text.len())?;
            let letter = match usize::try_from(index) {
                Ok(index) => text.chars().nth(index),
                Err(_) => usize::try_from(-(index + 1)).ok().and_then(|index| text.chars().rev().nth(index)),
            };
            Ok(letter.map(Value::from))
        }
        Py::Range(range) => match place(key, range.len()).and_then(|place| range.at(place)) {
            Some(number) => super::value::int(Some(number)).map(Some),
            None => Ok(None),
        },
        Py::Markup(_) => unsupported("a letter of a text that is marked as safe"),
        _ => Ok(None),
    }
}

/// Negative ones count from the end.
fn place(key: &Value, length: usize) -> Option<usize> {
    let index = py(key).int()?;
    let index = if index < 0 { index + length as i128 } else { index };
    usize::try_from(index).ok().filter(|index| *index < length)
}

/// `of|attr('name')`: attributes alone.
pub fn attribute_only(of: &Value, name: &str) -> Result<Value, Error> {
    match py(of) {
        Py::Undefined if name.starts_with("__") => Ok(Value::UNDEFINED),
        Py::Undefined => raise("a value is undefined"),
        _ => Ok(own(of, name)?.unwrap_or(Value::UNDEFINED)),
    }
}
