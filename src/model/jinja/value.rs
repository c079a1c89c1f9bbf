//! Python's values: what a template's lists, tuples and dicts are, how they are hashed, and one view of any value.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use minijinja::value::{Enumerator, Object, ObjectRepr, Value, ValueKind};
use minijinja::{Error, State};

use super::call::{Function, Macro, Method};
use super::run::{self, Fault, MAX_DEPTH, VALUE, raise, unsupported};
use super::stream::Stream;

/// A list, or a tuple. Neither ever changes: the sandbox of transformers refuses what would change a list.
#[derive(Debug)]
pub struct Items {
    pub shape: Shape,
    pub items: Vec<Value>,
    depth: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    List,
    Tuple,
    /// A tuple of `groupby`, whose parts have names.
    Group,
}

/// A dict, in the order of its making.
#[derive(Debug)]
pub struct Dict {
    entries: Vec<(Value, Value)>,
    /// Of a dict with many keys.
    places: Option<BTreeMap<Key, usize>>,
    depth: u32,
}

/// `dict.keys()` and its kind.
#[derive(Debug)]
pub struct View {
    pub dict: Value,
    pub part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Keys,
    Values,
    Items,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub start: i128,
    pub stop: i128,
    pub step: i128,
}

/// The only value that changes.
#[derive(Debug, Default)]
pub struct Namespace {
    attributes: Mutex<Vec<(String, Value)>>,
}

/// Any value, as Python would see it.
#[derive(Clone, Copy)]
pub enum Py<'a> {
    Undefined,
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(&'a str),
    /// A text that is marked as safe (markupsafe's `Markup`).
    Markup(&'a str),
    Items(&'a Items),
    Dict(&'a Dict),
    View(&'a View),
    Range(&'a Range),
    Stream(&'a Stream),
    Namespace(&'a Namespace),
    Macro(&'a Macro),
    Method(&'a Method),
    Function(&'a Function),
    Loop(&'a Value),
    /// Nothing of a template's.
    Other,
}

pub fn py(value: &Value) -> Py<'_> {
    match value.kind() {
        ValueKind::Undefined => Py::Undefined,
        ValueKind::None => Py::None,
        ValueKind::Bool => Py::Bool(value.is_true()),
        ValueKind::Number if value.is_integer() => match value.as_i64() {
            Some(small) => Py::Int(i128::from(small)),
            None => i128::try_from(value.clone()).map_or(Py::Other, Py::Int),
        },
        ValueKind::Number => f64::try_from(value.clone()).map_or(Py::Other, Py::Float),
        ValueKind::String => match value.as_str() {
            Some(text) if value.is_safe() => Py::Markup(text),
            Some(text) => Py::Str(text),
            None => Py::Other,
        },
        _ => object(value),
    }
}

fn object(value: &Value) -> Py<'_> {
    if let Some(items) = value.downcast_object_ref() {
        Py::Items(items)
    } else if let Some(dict) = value.downcast_object_ref() {
        Py::Dict(dict)
    } else if let Some(stream) = value.downcast_object_ref() {
        Py::Stream(stream)
    } else if let Some(namespace) = value.downcast_object_ref() {
        Py::Namespace(namespace)
    } else if let Some(view) = value.downcast_object_ref() {
        Py::View(view)
    } else if let Some(range) = value.downcast_object_ref() {
        Py::Range(range)
    } else if let Some(made) = value.downcast_object_ref() {
        Py::Macro(made)
    } else if let Some(method) = value.downcast_object_ref() {
        Py::Method(method)
    } else if let Some(function) = value.downcast_object_ref() {
        Py::Function(function)
    } else if value.as_object().is_some_and(|object| object.type_name().ends_with("::Loop")) {
        Py::Loop(value)
    } else {
        Py::Other
    }
}

impl Py<'_> {
    /// As Python names the type.
    pub fn noun(self) -> &'static str {
        match self {
            Py::Undefined => "Undefined",
            Py::None => "NoneType",
            Py::Bool(_) => "bool",
            Py::Int(_) => "int",
            Py::Float(_) => "float",
            Py::Str(_) => "str",
            Py::Markup(_) => "Markup",
            Py::Items(Items { shape: Shape::List, .. }) => "list",
            Py::Items(_) => "tuple",
            Py::Dict(_) => "dict",
            Py::View(View { part: Part::Keys, .. }) => "dict_keys",
            Py::View(View { part: Part::Values, .. }) => "dict_values",
            Py::View(_) => "dict_items",
            Py::Range(_) => "range",
            Py::Stream(_) => "generator",
            Py::Namespace(_) => "Namespace",
            Py::Macro(_) => "Macro",
            Py::Method(_) => "method",
            Py::Function(_) => "function",
            Py::Loop(_) => "LoopContext",
            Py::Other => "object",
        }
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Py::Str(text) | Py::Markup(text) => Some(text),
            _ => None,
        }
    }

    /// A bool is a number, too.
    pub fn int(self) -> Option<i128> {
        match self {
            Py::Int(int) => Some(int),
            Py::Bool(bool) => Some(i128::from(bool)),
            _ => None,
        }
    }
}

/// How deep lists lie within a value: 0 for what holds nothing.
fn depth_of(value: &Value) -> Result<u32, Error> {
    match object_depth(value) {
        Some(depth) => Ok(depth),
        None if value.as_object().is_some() => match py(value) {
            // They change later, or hold what nobody can see the depth of.
            Py::Namespace(_) | Py::Macro(_) | Py::Loop(_) => unsupported(format!("a {} inside another value", py(value).noun())),
            _ => Ok(0),
        },
        None => Ok(0),
    }
}

fn object_depth(value: &Value) -> Option<u32> {
    match py(value) {
        Py::Items(items) => Some(items.depth),
        Py::Dict(dict) => Some(dict.depth),
        Py::Stream(stream) => Some(stream.depth),
        Py::View(view) => object_depth(&view.dict),
        Py::Method(method) => object_depth(&method.of),
        _ => None,
    }
}

/// The depth of what holds `values`.
pub fn depth_over<'a>(values: impl IntoIterator<Item = &'a Value>) -> Result<u32, Error> {
    let mut depth = 0;
    for value in values {
        if value.as_object().is_some() {
            depth = depth.max(depth_of(value)?);
        }
    }
    if depth >= MAX_DEPTH {
        return Err(Fault::TooMuch(format!("its values are nested more than {MAX_DEPTH} deep")).into());
    }
    Ok(depth + 1)
}

pub fn list(items: Vec<Value>) -> Result<Value, Error> {
    sequence(Shape::List, items)
}

pub fn tuple(items: Vec<Value>) -> Result<Value, Error> {
    sequence(Shape::Tuple, items)
}

pub fn sequence(shape: Shape, items: Vec<Value>) -> Result<Value, Error> {
    run::make(VALUE * (items.len() + 1))?;
    let depth = depth_over(&items)?;
    Ok(Value::from_object(Items { shape, items, depth }))
}

pub fn text(text: impl Into<String>) -> Result<Value, Error> {
    let text = text.into();
    run::make(VALUE + text.len())?;
    Ok(Value::from(text))
}

pub fn markup(text: String) -> Result<Value, Error> {
    run::make(VALUE + text.len())?;
    Ok(Value::from_safe_string(text))
}

/// Python's numbers have no end, these have 128 bits.
pub fn int(number: Option<i128>) -> Result<Value, Error> {
    match number {
        Some(number) => Ok(i64::try_from(number).map_or_else(|_| Value::from(number), Value::from)),
        None => unsupported("an integer of more than 128 bits"),
    }
}

impl Object for Items {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.items.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.items.len())
    }
}

/// What equal hashes are in Python: `1`, `1.0` and `true` are one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    None,
    Undefined,
    Int(i128),
    Float(u64),
    Text(Arc<str>),
    Tuple(Vec<Key>),
    Range(i128, i128, i128),
}

/// How many keys are looked through one by one.
const FEW: usize = 8;

impl Key {
    pub fn of(value: &Value) -> Result<Key, Error> {
        Ok(match py(value) {
            Py::None => Key::None,
            Py::Undefined if run::is_strict() => return raise("an undefined value cannot be a key"),
            Py::Undefined => Key::Undefined,
            Py::Bool(bool) => Key::Int(i128::from(bool)),
            Py::Int(int) => Key::Int(int),
            Py::Float(float) => Key::of_float(float)?,
            Py::Str(text) | Py::Markup(text) => {
                run::make(VALUE + text.len())?;
                Key::Text(value.to_str().unwrap_or_default())
            }
            Py::Items(items) if items.shape != Shape::List => {
                run::make(VALUE * items.items.len())?;
                Key::Tuple(items.items.iter().map(Key::of).collect::<Result<_, _>>()?)
            }
            Py::Range(range) => Key::Range(range.start, range.stop, range.step),
            Py::Items(_) | Py::Dict(_) | Py::View(_) => return raise(format!("unhashable type: '{}'", py(value).noun())),
            other => return unsupported(format!("a {} as a key", other.noun())),
        })
    }

    fn of_float(float: f64) -> Result<Key, Error> {
        match exact(float) {
            Some(int) => Ok(Key::Int(int)),
            None if float.is_nan() => unsupported("nan as a key"),
            None => Ok(Key::Float(float.to_bits())),
        }
    }
}

/// The integer that a float is, if it is one.
pub fn exact(float: f64) -> Option<i128> {
    (float.trunc() == float && float.abs() < 2f64.powi(126)).then_some(float as i128)
}

impl Dict {
    /// Of equal keys the first place and the last value stay.
    pub fn new(pairs: Vec<(Value, Value)>) -> Result<Dict, Error> {
        run::make(2 * VALUE * (pairs.len() + 1))?;
        let depth = depth_over(pairs.iter().map(|(_, value)| value))?.max(depth_over(pairs.iter().map(|(key, _)| key))?);
        let mut entries: Vec<(Value, Value)> = Vec::with_capacity(pairs.len());
        let mut places = BTreeMap::new();
        for (key, value) in pairs {
            match places.entry(Key::of(&key)?) {
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(entries.len());
                    entries.push((key, value));
                }
                std::collections::btree_map::Entry::Occupied(place) => {
                    if let Some(entry) = entries.get_mut(*place.get()) {
                        entry.1 = value;
                    }
                }
            }
        }
        let places = (entries.len() > FEW).then_some(places);
        Ok(Dict { entries, places, depth })
    }

    /// Of texts that differ from each other.
    pub fn of_texts(entries: Vec<(Value, Value)>) -> Result<Dict, Error> {
        if entries.len() > FEW {
            return Dict::new(entries);
        }
        run::make(2 * VALUE * (entries.len() + 1))?;
        let depth = depth_over(entries.iter().map(|(_, value)| value))?;
        Ok(Dict { entries, places: None, depth })
    }

    pub fn entries(&self) -> &[(Value, Value)] {
        &self.entries
    }

    pub fn get(&self, key: &Value) -> Result<Option<&Value>, Error> {
        if let (Some(text), None) = (key.as_str(), &self.places) {
            return self.get_text(text);
        }
        let key = Key::of(key)?;
        match &self.places {
            Some(places) => {
                run::read(VALUE)?;
                Ok(places.get(&key).and_then(|place| self.entries.get(*place)).map(|(_, value)| value))
            }
            None => {
                for (other, value) in &self.entries {
                    if Key::of(other)? == key {
                        return Ok(Some(value));
                    }
                }
                Ok(None)
            }
        }
    }

    pub fn get_text(&self, text: &str) -> Result<Option<&Value>, Error> {
        match &self.places {
            Some(_) => self.get(&Value::from(text)),
            None => {
                run::read(text.len())?;
                Ok(self.entries.iter().find(|(key, _)| key.as_str() == Some(text)).map(|(_, value)| value))
            }
        }
    }
}

impl Object for Dict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key).ok().flatten().cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.entries.iter().map(|(key, _)| key.clone()).collect())
    }

    fn is_true(self: &Arc<Self>) -> bool {
        !self.entries.is_empty()
    }
}

impl View {
    /// What it shows, one by one.
    pub fn items(&self) -> Result<Vec<Value>, Error> {
        let entries = self.dict.downcast_object_ref::<Dict>().map(Dict::entries).unwrap_or_default();
        run::make(VALUE * entries.len())?;
        match self.part {
            Part::Keys => Ok(entries.iter().map(|(key, _)| key.clone()).collect()),
            Part::Values => Ok(entries.iter().map(|(_, value)| value.clone()).collect()),
            Part::Items => entries.iter().map(|(key, value)| tuple(vec![key.clone(), value.clone()])).collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.dict.downcast_object_ref::<Dict>().map_or(0, |dict| dict.entries.len())
    }
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.len() > 0
    }
}

impl Range {
    pub fn len(&self) -> usize {
        let span = if self.step > 0 { self.stop - self.start } else { self.start - self.stop };
        let count = if span <= 0 { 0 } else { (span - 1) / self.step.abs() + 1 };
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    pub fn at(&self, index: usize) -> Option<i128> {
        (index < self.len()).then(|| self.start + index as i128 * self.step)
    }
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.len() > 0
    }
}

impl Namespace {
    pub fn get(&self, name: &str) -> Result<Option<Value>, Error> {
        run::read(name.len())?;
        let attributes = self.attributes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
    }

    pub fn set(&self, name: &str, value: Value) -> Result<(), Error> {
        if name.starts_with('_') {
            return raise(format!("a namespace has no attributes with an underscore in front: `{name}`"));
        }
        depth_over([&value])?;
        let mut attributes = self.attributes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(entry) = attributes.iter_mut().find(|(known, _)| known == name) {
            entry.1 = value;
            return Ok(());
        }
        if attributes.len() == MAX_ATTRIBUTES {
            return Err(Fault::TooMuch(format!("a namespace has more than {MAX_ATTRIBUTES} names")).into());
        }
        run::make(VALUE + name.len())?;
        attributes.push((name.to_string(), value));
        Ok(())
    }

    pub fn entries(&self) -> Vec<(String, Value)> {
        self.attributes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// They are looked through one by one.
const MAX_ATTRIBUTES: usize = 64;

impl Object for Namespace {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// What `for` and its kind walk over.
pub fn walk(state: &State, value: &Value) -> Result<Vec<Value>, Error> {
    Ok(match py(value) {
        Py::Undefined if run::is_strict() => return raise("an undefined value is walked over"),
        Py::Undefined => Vec::new(),
        Py::Items(items) => {
            run::make(VALUE * items.items.len())?;
            items.items.clone()
        }
        Py::Dict(dict) => {
            run::make(VALUE * dict.entries.len())?;
            dict.entries.iter().map(|(key, _)| key.clone()).collect()
        }
        Py::Str(text) | Py::Markup(text) => {
            run::make(VALUE * text.len())?;
            let letter = |letter: char| if value.is_safe() { Value::from_safe_string(letter.to_string()) } else { Value::from(letter) };
            text.chars().map(letter).collect()
        }
        Py::View(view) => view.items()?,
        Py::Range(range) => {
            run::make(VALUE * range.len())?;
            (0..range.len()).filter_map(|index| range.at(index)).map(|number| int(Some(number))).collect::<Result<_, _>>()?
        }
        Py::Stream(stream) => stream.rest(state)?,
        Py::Loop(_) | Py::Other => return unsupported(format!("a walk over a {}", py(value).noun())),
        other => return raise(format!("'{}' object is not iterable", other.noun())),
    })
}

/// Python's `len`, if it has one.
pub fn length(value: &Value) -> Result<Option<usize>, Error> {
    Ok(match py(value) {
        Py::Undefined if run::is_strict() => return raise("an undefined value has no length"),
        Py::Undefined => Some(0),
        Py::Str(text) | Py::Markup(text) => {
            run::read(text.len())?;
            Some(text.chars().count())
        }
        Py::Items(items) => Some(items.items.len()),
        Py::Dict(dict) => Some(dict.entries.len()),
        Py::View(view) => Some(view.len()),
        Py::Range(range) => Some(range.len()),
        Py::Loop(looped) => looped.get_attr("length")?.as_usize(),
        _ => None,
    })
}

/// As `if` sees it.
pub fn truth(value: &Value) -> Result<bool, Error> {
    match value.is_undefined() && run::is_strict() {
        true => raise("an undefined value is asked whether it is true"),
        false => Ok(value.is_true()),
    }
}

/// A number of which nobody knows how Python would write it: whatever is done with it is refused.
#[derive(Debug)]
struct Unsure;

impl Object for Unsure {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

pub fn unsure() -> Value {
    Value::from_object(Unsure)
}
