//! Filters of lists and dicts.

use std::collections::BTreeSet;

use minijinja::value::Value;
use minijinja::{Error, State};

use crate::model::jinja::call::{Args, length_of};
use crate::model::jinja::operate::{self, Operator, binary, compare, equal, lexical, sort as sorted};
use crate::model::jinja::path::Path;
use crate::model::jinja::run::{self, VALUE, raise, unsupported};
use crate::model::jinja::stream::{Choice, Recipe, Stream, pair};
use crate::model::jinja::value::{self, Py, Shape, py, sequence, text, walk};

fn is_set(value: Option<Value>) -> bool {
    value.is_some_and(|value| value.is_true())
}

pub fn length(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    args.none("length")?;
    Ok(Value::from(length_of(&value)?))
}

pub fn list(state: &State, value: Value, args: Args) -> Result<Value, Error> {
    args.none("list")?;
    value::list(walk(state, &value)?)
}

pub fn first(state: &State, value: Value, args: Args) -> Result<Value, Error> {
    args.none("first")?;
    match py(&value) {
        Py::Stream(stream) => Ok(stream.next(state)?.unwrap_or_default()),
        Py::Str(of) => Ok(of.chars().next().map(Value::from).unwrap_or_default()),
        _ => Ok(walk(state, &value)?.into_iter().next().unwrap_or_default()),
    }
}

pub fn last(state: &State, value: Value, args: Args) -> Result<Value, Error> {
    args.none("last")?;
    match py(&value) {
        Py::Str(of) => Ok(of.chars().next_back().map(Value::from).unwrap_or_default()),
        Py::Items(_) | Py::Dict(_) | Py::View(_) | Py::Range(_) | Py::Undefined => {
            Ok(walk(state, &value)?.into_iter().next_back().unwrap_or_default())
        }
        Py::Markup(_) => unsupported("`last` of a text that is marked as safe"),
        other => raise(format!("'{}' object is not reversible", other.noun())),
    }
}

pub fn reverse(state: &State, value: Value, args: Args) -> Result<Value, Error> {
    args.none("reverse")?;
    match py(&value) {
        Py::Str(of) => {
            run::make(of.len())?;
            text(of.chars().rev().collect::<String>())
        }
        Py::Markup(_) => unsupported("`reverse` of a text that is marked as safe"),
        Py::Stream(stream) => {
            let mut items = stream.rest(state)?;
            items.reverse();
            value::list(items)
        }
        _ => {
            let mut items = walk(state, &value)?;
            items.reverse();
            Stream::of(items)
        }
    }
}

pub fn items(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    args.none("items")?;
    Stream::over(value, Recipe::Items)
}

pub fn map(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    Stream::over(value, Recipe::Map(args))
}

fn choose(value: Value, args: Args, of_attribute: bool, keeps: bool) -> Result<Value, Error> {
    Stream::over(value, Recipe::Choose(Choice { args, of_attribute, keeps }))
}

pub fn select(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    choose(value, args, false, true)
}

pub fn reject(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    choose(value, args, false, false)
}

pub fn selectattr(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    choose(value, args, true, true)
}

pub fn rejectattr(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    choose(value, args, true, false)
}

pub fn unique(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    let [case_sensitive, attribute] = args.bind("unique", ["case_sensitive", "attribute"], 0)?;
    let by = Path::new(attribute.as_ref())?.folding(!is_set(case_sensitive));
    Stream::over(value, Recipe::Unique { by, seen: BTreeSet::new() })
}

fn count_and_fill(function: &str, names: [&str; 2], args: Args) -> Result<(i128, Value), Error> {
    let [Some(count), fill] = args.bind(function, names, 1)? else { return raise(format!("{function}() needs a number")) };
    let Some(count) = py(&count).int() else { return unsupported(format!("`{function}` by something other than a number")) };
    Ok((count, fill.unwrap_or(Value::from(()))))
}

pub fn batch(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    let (size, fill) = count_and_fill("batch", ["linecount", "fill_with"], args)?;
    Stream::over(value, Recipe::Batch { size, fill })
}

pub fn slice(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    let (slices, fill) = count_and_fill("slice", ["slices", "fill_with"], args)?;
    Stream::over(value, Recipe::Slice { slices, fill })
}

pub fn sort(state: &State, value: Value, args: Args) -> Result<Value, Error> {
    let [reverse, case_sensitive, attribute] = args.bind("sort", ["reverse", "case_sensitive", "attribute"], 0)?;
    let folds = !is_set(case_sensitive);
    let paths: Vec<Path> = Path::several(attribute.as_ref())?.into_iter().map(|path| path.folding(folds)).collect();
    let key = |item: Value| {
        let key = paths.iter().map(|path| path.get(&item)).collect::<Result<Vec<Value>, Error>>()?;
        run::make(VALUE * (key.len() + 1))?;
        Ok((key, item))
    };
    let keyed = walk(state, &value)?.into_iter().map(key).collect::<Result<Vec<_>, Error>>()?;
    let backwards = is_set(reverse);
    let mut less = |(a, _): &(Vec<Value>, Value), (b, _): &(Vec<Value>, Value)| {
        let order = if backwards { lexical(b, a)? } else { lexical(a, b)? };
        order.map_or_else(|| unsupported("nan in a sorted list"), |order| Ok(order.is_lt()))
    };
    value::list(sorted(keyed, &mut less)?.into_iter().map(|(_, item)| item).collect())
}

pub fn dictsort(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    let [case_sensitive, by, reverse] = args.bind("dictsort", ["case_sensitive", "by", "reverse"], 0)?;
    let by_value = match by.as_ref().map(|by| by.as_str()) {
        None | Some(Some("key")) => false,
        Some(Some("value")) => true,
        _ => return raise("You can only sort by either \"key\" or \"value\""),
    };
    let Py::Dict(dict) = py(&value) else { return raise(format!("'{}' has no items", py(&value).noun())) };
    let (path, backwards) = (Path::default().folding(!is_set(case_sensitive)), is_set(reverse));
    let key = |(key, value): &(Value, Value)| Ok((path.get(if by_value { value } else { key })?, pair(key.clone(), value.clone())?));
    let keyed = dict.entries().iter().map(key).collect::<Result<Vec<_>, Error>>()?;
    let mut less = |(a, _): &(Value, Value), (b, _): &(Value, Value)| if backwards { operate::less(b, a) } else { operate::less(a, b) };
    value::list(sorted(keyed, &mut less)?.into_iter().map(|(_, item)| item).collect())
}

pub fn groupby(state: &State, value: Value, args: Args) -> Result<Value, Error> {
    let [attribute, default, case_sensitive] = args.bind("groupby", ["attribute", "default", "case_sensitive"], 1)?;
    let path = Path::new(attribute.as_ref())?.or(default.filter(|default| !default.is_none()));
    let folds = !is_set(case_sensitive);
    let folding = path.clone().folding(folds);
    let key = |item: Value| Ok((folding.get(&item)?, item));
    let keyed = walk(state, &value)?.into_iter().map(key).collect::<Result<Vec<_>, Error>>()?;
    let keyed = sorted(keyed, &mut |(a, _), (b, _)| operate::less(a, b))?;
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for (key, item) in keyed {
        match groups.last_mut() {
            Some((last, items)) if equal(last, &key)? => items.push(item),
            _ => groups.push((key, vec![item])),
        }
    }
    let group = |(key, items): (Value, Vec<Value>)| {
        let name = match items.first() {
            Some(first) if folds => path.get(first)?,
            _ => key,
        };
        sequence(Shape::Group, vec![name, value::list(items)?])
    };
    value::list(groups.into_iter().map(group).collect::<Result<_, Error>>()?)
}

fn extreme(function: &str, state: &State, value: &Value, args: Args) -> Result<Value, Error> {
    let [case_sensitive, attribute] = args.bind(function, ["case_sensitive", "attribute"], 0)?;
    let path = Path::new(attribute.as_ref())?.folding(!is_set(case_sensitive));
    let mut best: Option<(Value, Value)> = None;
    for item in walk(state, value)? {
        let key = path.get(&item)?;
        let is_better = match &best {
            None => true,
            Some((known, _)) => {
                let order = compare(&key, known)?;
                order.is_some_and(|order| if function == "max" { order.is_gt() } else { order.is_lt() })
            }
        };
        if is_better {
            best = Some((key, item));
        }
    }
    Ok(best.map(|(_, item)| item).unwrap_or_default())
}

pub fn min(state: &State, value: Value, args: Args) -> Result<Value, Error> {
    extreme("min", state, &value, args)
}

pub fn max(state: &State, value: Value, args: Args) -> Result<Value, Error> {
    extreme("max", state, &value, args)
}

pub fn sum(state: &State, value: Value, args: Args) -> Result<Value, Error> {
    let [attribute, start] = args.bind("sum", ["attribute", "start"], 0)?;
    let path = Path::new(attribute.filter(|attribute| !attribute.is_none()).as_ref())?;
    let mut sum = start.unwrap_or(Value::from(0));
    if py(&sum).text().is_some() {
        return raise("sum() can't sum strings [use ''.join(seq) instead]");
    }
    // Newer Pythons carry what rounding loses.
    let (mut carried, mut lost) = (0.0, 0.0_f64);
    for item in walk(state, &value)? {
        let item = path.get(&item)?;
        let before = sum.clone();
        sum = binary(Operator::Add, &sum, &item)?;
        if let (Py::Float(total), Py::Float(part)) = (py(&sum), py(&item)) {
            let old = f64::try_from(before).unwrap_or(0.0);
            lost += if old.abs() >= part.abs() { (old - total) + part } else { (part - total) + old };
            carried = total;
        }
    }
    if lost != 0.0 && carried + lost != carried {
        return unsupported("`sum` of such fractions");
    }
    Ok(sum)
}
