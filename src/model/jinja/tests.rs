//! Jinja2's tests: `value is name(…)`.

use minijinja::value::Value;
use minijinja::{Error, State};

use super::call::Args;
use super::letters::is_all;
use super::operate::{Operator, Relation, binary, equal, holds, is};
use super::print::str;
use super::run::{self, raise, unsupported};
use super::value::{Py, py};

/// By name.
#[rustfmt::skip]
const TESTS: &[&str] = &[
    "!=", "<", "<=", "==", ">", ">=", "boolean", "callable", "defined", "divisibleby", "eq", "equalto", "escaped", "even", "false",
    "filter", "float", "ge", "greaterthan", "gt", "in", "integer", "iterable", "le", "lessthan", "lower", "lt", "mapping", "ne", "none",
    "number", "odd", "sameas", "sequence", "string", "test", "true", "undefined", "upper",
];

/// The place of a test in the table.
pub fn place(name: &str) -> Option<usize> {
    TESTS.binary_search(&name).ok()
}

pub fn count() -> usize {
    TESTS.len()
}

pub fn perform_at(state: &State, place: usize, value: &Value, args: Args) -> Result<bool, Error> {
    match TESTS.get(place) {
        Some(name) => known(state, name, value, args),
        None => raise("No such test."),
    }
}

pub fn perform(state: &State, name: &str, value: &Value, args: Args) -> Result<bool, Error> {
    match place(name) {
        Some(_) => known(state, name, value, args),
        None => raise(format!("No test named '{name}'.")),
    }
}

fn relation(name: &str) -> Option<Relation> {
    Some(match name {
        "==" | "eq" | "equalto" => Relation::Eq,
        "!=" | "ne" => Relation::Ne,
        "<" | "lt" | "lessthan" => Relation::Lt,
        "<=" | "le" => Relation::Le,
        ">" | "gt" | "greaterthan" => Relation::Gt,
        ">=" | "ge" => Relation::Ge,
        "in" => Relation::In,
        _ => return None,
    })
}

fn known(state: &State, name: &str, value: &Value, args: Args) -> Result<bool, Error> {
    if let Some(relation) = relation(name) {
        let [Some(other)] = args.bind(name, [if name == "in" { "seq" } else { "" }], 1)? else { return raise("an argument is missing") };
        return holds(state, value, relation, &other);
    }
    match name {
        "divisibleby" => {
            let [Some(number)] = args.bind(name, ["num"], 1)? else { return raise("an argument is missing") };
            return leaves(value, &number, 0);
        }
        "sameas" => {
            let [Some(other)] = args.bind(name, ["other"], 1)? else { return raise("an argument is missing") };
            return same(value, &other);
        }
        _ => args.none(name)?,
    }
    let of = py(value);
    Ok(match name {
        "odd" => leaves(value, &Value::from(2), 1)?,
        "even" => leaves(value, &Value::from(2), 0)?,
        "defined" => !value.is_undefined(),
        "undefined" => value.is_undefined(),
        "filter" | "test" => match (of.text(), name) {
            (Some(text), "filter") => super::filters::place(text).is_some(),
            (Some(text), _) => place(text).is_some(),
            (None, _) => return unsupported(format!("`{name}` of a {}", of.noun())),
        },
        "none" => value.is_none(),
        "boolean" => matches!(of, Py::Bool(_)),
        "false" => matches!(of, Py::Bool(false)),
        "true" => matches!(of, Py::Bool(true)),
        "integer" => matches!(of, Py::Int(_)),
        "float" => matches!(of, Py::Float(_)),
        "number" => matches!(of, Py::Bool(_) | Py::Int(_) | Py::Float(_)),
        "string" => of.text().is_some(),
        "mapping" => matches!(of, Py::Dict(_)),
        "lower" => is_all(&str(value)?, "islower")?,
        "upper" => is_all(&str(value)?, "isupper")?,
        "escaped" => matches!(of, Py::Markup(_)),
        "callable" => matches!(of, Py::Undefined | Py::Macro(_) | Py::Method(_) | Py::Function(_) | Py::Loop(_)),
        "sequence" => match of {
            Py::Undefined => !run::is_strict(),
            _ => matches!(of, Py::Str(_) | Py::Markup(_) | Py::Items(_) | Py::Dict(_) | Py::Range(_)),
        },
        _ => match of {
            Py::Undefined if run::is_strict() => return raise("an undefined value is walked over"),
            Py::Other => return unsupported("`iterable` of such a value"),
            _ => !matches!(
                of,
                Py::None | Py::Bool(_) | Py::Int(_) | Py::Float(_) | Py::Namespace(_) | Py::Macro(_) | Py::Method(_) | Py::Function(_)
            ),
        },
    })
}

/// `value % divisor == rest`
fn leaves(value: &Value, divisor: &Value, rest: i64) -> Result<bool, Error> {
    equal(&binary(Operator::Rem, value, divisor)?, &Value::from(rest))
}

/// Which numbers and texts are the same object is CPython's own business.
fn same(a: &Value, b: &Value) -> Result<bool, Error> {
    match (py(a), py(b)) {
        (Py::None, Py::None) => Ok(true),
        (Py::Bool(a), Py::Bool(b)) => Ok(a == b),
        (Py::Int(_), Py::Int(_)) | (Py::Float(_), Py::Float(_)) | (Py::Str(_), Py::Str(_)) | (Py::Undefined, Py::Undefined) => {
            match equal(a, b) {
                Ok(false) => Ok(false),
                _ => unsupported("`sameas` of equal numbers or texts"),
            }
        }
        _ => Ok(is(a, b)),
    }
}
