//! Jinja2's filters, one table. Filters that none of the published templates uses and that cost much to match (`urlize`, `wordwrap`, …) are refused by name.

mod lists;
mod numbers;
mod texts;

use minijinja::value::Value;
use minijinja::{Error, State};

use super::access;
use super::call::Args;
use super::json;
use super::run::{raise, unsupported};
use super::value::truth;

pub use numbers::truncated;

type Filter = fn(&State, Value, Args) -> Result<Value, Error>;

/// By name.
const FILTERS: &[(&str, Filter)] = &[
    ("abs", numbers::abs),
    ("attr", attr),
    ("batch", lists::batch),
    ("capitalize", texts::cased),
    ("center", texts::center),
    ("count", lists::length),
    ("d", default),
    ("default", default),
    ("dictsort", lists::dictsort),
    ("e", texts::escape),
    ("escape", texts::escape),
    ("filesizeformat", numbers::filesizeformat),
    ("first", lists::first),
    ("float", numbers::float),
    ("forceescape", texts::forceescape),
    ("format", texts::format),
    ("groupby", lists::groupby),
    ("indent", texts::indent),
    ("int", numbers::int),
    ("items", lists::items),
    ("join", texts::join),
    ("last", lists::last),
    ("length", lists::length),
    ("list", lists::list),
    ("lower", texts::cased),
    ("map", lists::map),
    ("max", lists::max),
    ("min", lists::min),
    ("pprint", missing),
    ("random", missing),
    ("reject", lists::reject),
    ("rejectattr", lists::rejectattr),
    ("replace", texts::replace),
    ("reverse", lists::reverse),
    ("round", numbers::round),
    ("safe", texts::safe),
    ("select", lists::select),
    ("selectattr", lists::selectattr),
    ("slice", lists::slice),
    ("sort", lists::sort),
    ("string", texts::string),
    ("striptags", missing),
    ("sum", lists::sum),
    ("title", texts::title),
    ("tojson", tojson),
    ("trim", texts::trim),
    ("truncate", texts::truncate),
    ("unique", lists::unique),
    ("upper", texts::cased),
    ("urlencode", texts::urlencode),
    ("urlize", missing),
    ("wordcount", texts::wordcount),
    ("wordwrap", missing),
    ("xmlattr", texts::xmlattr),
];

/// The place of a filter in the table.
pub fn place(name: &str) -> Option<usize> {
    FILTERS.binary_search_by_key(&name, |(known, _)| known).ok()
}

pub fn count() -> usize {
    FILTERS.len()
}

/// `value|name(…)`.
pub fn apply(state: &State, name: &str, value: Value, args: Args) -> Result<Value, Error> {
    match place(name) {
        Some(place) => apply_at(state, place, value, args),
        None => raise(format!("No filter named '{name}'.")),
    }
}

/// The filter at a [`place`].
pub fn apply_at(state: &State, place: usize, value: Value, args: Args) -> Result<Value, Error> {
    match FILTERS.get(place) {
        // Several names are one function.
        Some((name @ ("capitalize" | "lower" | "upper"), _)) => texts::case(name, &value, args),
        Some((name, filter)) if *filter as usize == missing as Filter as usize => unsupported(format!("the filter `{name}`")),
        Some((_, filter)) => filter(state, value, args),
        None => raise("No such filter."),
    }
}

fn missing(_: &State, _: Value, _: Args) -> Result<Value, Error> {
    unsupported("this filter")
}

fn attr(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    let [Some(name)] = args.bind("attr", ["name"], 1)? else { return raise("attr() needs a name") };
    let Some(name) = name.as_str() else { return raise("attribute name must be string") };
    access::attribute_only(&value, name)
}

fn default(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    let [default, boolean] = args.bind("default", ["default_value", "boolean"], 0)?;
    let of_false = boolean.is_some_and(|boolean| boolean.is_true());
    let is_taken = value.is_undefined() || of_false && !truth(&value)?;
    Ok(if is_taken { default.unwrap_or(Value::from("")) } else { value })
}

fn tojson(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    json::filter(&value, args)
}
