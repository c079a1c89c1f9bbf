//! A TOML document with a place for every key and value.

use crate::base::Place;

#[derive(Clone, Debug)]
pub struct Value {
    pub place: Place,
    pub data: Data,
}

#[derive(Clone, Debug)]
pub enum Data {
    Bool(bool),
    Int(i64),
    Float(f64),
    String(String),
    List(Vec<Value>),
    Table(Table),
}

impl Data {
    /// The word for it in a message: `a string`.
    pub fn noun(&self) -> &'static str {
        match self {
            Data::Bool(_) => "a boolean",
            Data::Int(_) => "an integer",
            Data::Float(_) => "a number",
            Data::String(_) => "a string",
            Data::List(_) => "a list",
            Data::Table(_) => "a table",
        }
    }
}

/// Entries in the order in which they were written.
#[derive(Clone, Debug, Default)]
pub struct Table(pub Vec<(Key, Value)>);

#[derive(Clone, Debug)]
pub struct Key {
    pub text: String,
    pub place: Place,
}

impl Table {
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.entry(name).map(|(_, value)| value)
    }

    pub fn entry(&self, name: &str) -> Option<(&Key, &Value)> {
        self.0.iter().find(|(key, _)| key.text == name).map(|(key, value)| (key, value))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.iter().map(|(key, _)| key.text.as_str())
    }
}
