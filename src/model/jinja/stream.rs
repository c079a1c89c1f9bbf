//! What Python makes only when it is asked for it, and only once: the results of `map`, `select`, `unique` and their kind. Nothing fails before it is read, and nothing is read
//! twice.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{Object, ObjectRepr, Value};
use minijinja::{Error, State};

use super::call::Args;
use super::path::Path;
use super::run::{self, VALUE, raise, unsupported};
use super::value::{Key, Py, depth_over, list, py, truth, tuple, walk};
use super::{filters, tests};

#[derive(Debug)]
pub struct Stream {
    pub depth: u32,
    flow: Mutex<Flow>,
}

#[derive(Debug)]
enum Flow {
    Fresh(Value, Recipe),
    Running(From, Recipe),
    /// Somebody is reading it.
    Busy,
    Done,
    /// A loop has read it: Jinja2 reads it item by item, this reads all of it at once.
    Looped,
}

/// How items are made of those of the source.
#[derive(Debug)]
pub enum Recipe {
    Same,
    Map(Args),
    Choose(Choice),
    Unique { by: Path, seen: BTreeSet<Key> },
    Batch { size: i128, fill: Value },
    Slice { slices: i128, fill: Value },
    Items,
}

/// `select`, `reject`, `selectattr` and `rejectattr`.
#[derive(Debug)]
pub struct Choice {
    pub args: Args,
    pub of_attribute: bool,
    pub keeps: bool,
}

/// Where the source's items come from.
#[derive(Debug)]
enum From {
    Ready(std::vec::IntoIter<Value>),
    Stream(Value),
}

impl Stream {
    pub fn over(source: Value, recipe: Recipe) -> Result<Value, Error> {
        run::make(8 * VALUE)?;
        let depth = depth_over([&source])?;
        Ok(Value::from_object(Stream { depth, flow: Mutex::new(Flow::Fresh(source, recipe)) }))
    }

    /// Of items that are there.
    pub fn of(items: Vec<Value>) -> Result<Value, Error> {
        let depth = depth_over(&items)?;
        run::make(VALUE * (items.len() + 8))?;
        Ok(Value::from_object(Stream { depth, flow: Mutex::new(Flow::Running(From::Ready(items.into_iter()), Recipe::Same)) }))
    }

    fn swap(&self, flow: Flow) -> Flow {
        std::mem::replace(&mut self.flow.lock().unwrap_or_else(PoisonError::into_inner), flow)
    }

    pub fn next(&self, state: &State) -> Result<Option<Value>, Error> {
        let (mut from, mut recipe) = match self.swap(Flow::Busy) {
            Flow::Fresh(source, recipe) => match recipe.start(state, &source) {
                Ok(from) => (from, recipe),
                Err(error) => {
                    self.swap(Flow::Done);
                    return Err(error);
                }
            },
            Flow::Running(from, recipe) => (from, recipe),
            Flow::Busy => return raise("generator already executing"),
            Flow::Done => {
                self.swap(Flow::Done);
                return Ok(None);
            }
            Flow::Looped => {
                self.swap(Flow::Looped);
                return unsupported("the result of a filter such as `map` that is read again after a loop over it");
            }
        };
        let item = recipe.next(state, &mut from);
        self.swap(if matches!(item, Ok(Some(_))) { Flow::Running(from, recipe) } else { Flow::Done });
        item
    }

    /// All that is left.
    pub fn rest(&self, state: &State) -> Result<Vec<Value>, Error> {
        let mut items = Vec::new();
        while let Some(item) = self.next(state)? {
            run::make(VALUE)?;
            items.push(item);
        }
        Ok(items)
    }

    pub fn looped(&self, state: &State) -> Result<Vec<Value>, Error> {
        let items = self.rest(state)?;
        self.swap(Flow::Looped);
        Ok(items)
    }
}

impl Object for Stream {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

impl From {
    fn over(state: &State, source: &Value) -> Result<From, Error> {
        match py(source) {
            Py::Stream(_) => Ok(From::Stream(source.clone())),
            _ => Ok(From::Ready(walk(state, source)?.into_iter())),
        }
    }

    fn next(&mut self, state: &State) -> Result<Option<Value>, Error> {
        match self {
            From::Ready(items) => Ok(items.next()),
            From::Stream(stream) => match py(stream) {
                Py::Stream(stream) => stream.next(state),
                _ => Ok(None),
            },
        }
    }

    fn take(&mut self, state: &State, most: usize) -> Result<Vec<Value>, Error> {
        let mut items = Vec::new();
        while items.len() < most {
            let Some(item) = self.next(state)? else { break };
            items.push(item);
        }
        Ok(items)
    }
}

impl Recipe {
    fn start(&self, state: &State, source: &Value) -> Result<From, Error> {
        let empty = || Ok(From::Ready(Vec::new().into_iter()));
        match self {
            // They look at nothing that is false.
            Recipe::Map(_) | Recipe::Choose(_) if !truth(source)? => empty(),
            Recipe::Items => match py(source) {
                Py::Dict(_) => {
                    let view = super::value::View { dict: source.clone(), part: super::value::Part::Items };
                    Ok(From::Ready(view.items()?.into_iter()))
                }
                Py::Undefined => empty(),
                _ => raise("Can only get item pairs from a mapping."),
            },
            Recipe::Slice { slices, fill } => Ok(From::Ready(sliced(walk(state, source)?, *slices, fill)?.into_iter())),
            _ => From::over(state, source),
        }
    }

    fn next(&mut self, state: &State, from: &mut From) -> Result<Option<Value>, Error> {
        match self {
            Recipe::Same | Recipe::Items | Recipe::Slice { .. } => from.next(state),
            Recipe::Map(args) => match from.next(state)? {
                Some(item) => mapped(state, item, args).map(Some),
                None => Ok(None),
            },
            Recipe::Choose(choice) => {
                while let Some(item) = from.next(state)? {
                    if choice.takes(state, &item)? {
                        return Ok(Some(item));
                    }
                }
                Ok(None)
            }
            Recipe::Unique { by, seen } => {
                while let Some(item) = from.next(state)? {
                    if seen.insert(Key::of(&by.get(&item)?)?) {
                        return Ok(Some(item));
                    }
                }
                Ok(None)
            }
            Recipe::Batch { size, fill } => batch(state, from, *size, fill),
        }
    }
}

fn mapped(state: &State, item: Value, args: &Args) -> Result<Value, Error> {
    match (args.positional.split_first(), args.named.iter().find(|(name, _)| name == "attribute")) {
        (None, Some((_, attribute))) => {
            let default = args.named.iter().find(|(name, _)| name == "default").map(|(_, default)| default.clone());
            if let Some((unknown, _)) = args.named.iter().find(|(name, _)| name != "attribute" && name != "default") {
                return raise(format!("Unexpected keyword argument '{unknown}'"));
            }
            Path::new(Some(attribute))?.or(default.filter(|default| !default.is_none())).get(&item)
        }
        (Some((filter, rest)), _) => {
            let Some(name) = filter.as_str() else { return raise("map requires a filter's name") };
            filters::apply(state, name, item, Args { positional: rest.to_vec(), named: args.named.clone() })
        }
        (None, None) => raise("map requires a filter argument"),
    }
}

impl Choice {
    fn takes(&self, state: &State, item: &Value) -> Result<bool, Error> {
        let mut rest = self.args.positional.iter();
        let value = if self.of_attribute {
            let Some(attribute) = rest.next() else { return raise("Missing parameter for attribute name") };
            Path::new(Some(attribute))?.get(item)?
        } else {
            item.clone()
        };
        let holds = match rest.next() {
            None => truth(&value)?,
            Some(test) => {
                let Some(name) = test.as_str() else { return raise("a test has no such name") };
                tests::perform(state, name, &value, Args { positional: rest.cloned().collect(), named: self.args.named.clone() })?
            }
        };
        Ok(holds == self.keeps)
    }
}

fn batch(state: &State, from: &mut From, size: i128, fill: &Value) -> Result<Option<Value>, Error> {
    let Ok(size) = usize::try_from(size) else { return unsupported("`batch` of such a size") };
    if size == 0 {
        return unsupported("`batch` of size 0");
    }
    let mut items = from.take(state, size)?;
    if items.is_empty() {
        return Ok(None);
    }
    if items.len() < size && !fill.is_none() {
        run::make(VALUE.saturating_mul(size - items.len()))?;
        items.resize(size, fill.clone());
    }
    list(items).map(Some)
}

fn sliced(items: Vec<Value>, slices: i128, fill: &Value) -> Result<Vec<Value>, Error> {
    let Some(count) = usize::try_from(slices).ok().filter(|count| *count > 0) else { return unsupported("`slice` into such a number") };
    run::make(VALUE.saturating_mul(count))?;
    let (least, more) = (items.len() / count, items.len() % count);
    let mut parts = Vec::with_capacity(count);
    let mut items = items.into_iter();
    for number in 0..count {
        let mut part: Vec<Value> = items.by_ref().take(least + usize::from(number < more)).collect();
        if number >= more && !fill.is_none() {
            part.push(fill.clone());
        }
        parts.push(list(part)?);
    }
    Ok(parts)
}

/// A pair, as `groupby` and `dictsort` give it.
pub fn pair(key: Value, value: Value) -> Result<Value, Error> {
    tuple(vec![key, value])
}
