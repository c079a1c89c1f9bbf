//! JSON in the order in which it is written, as Python's `json` reads it: a template may print a message or walk over its keys.

use minijinja::Error;
use minijinja::value::Value;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::jinja::{Dict, list, unsure};

#[derive(Clone, Debug)]
pub enum Data {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Data>),
    Table(Vec<(String, Data)>),
}

/// Floats are compared by their bits.
impl PartialEq for Data {
    fn eq(&self, other: &Data) -> bool {
        match (self, other) {
            (Data::Null, Data::Null) => true,
            (Data::Bool(a), Data::Bool(b)) => a == b,
            (Data::Int(a), Data::Int(b)) => a == b,
            (Data::Float(a), Data::Float(b)) => a.to_bits() == b.to_bits(),
            (Data::Text(a), Data::Text(b)) => a == b,
            (Data::List(a), Data::List(b)) => a == b,
            (Data::Table(a), Data::Table(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Data {}

impl Data {
    pub fn text(&self) -> Option<&str> {
        match self {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Bytes of all texts in it, about: what it takes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Data::Text(text) => text.len(),
            Data::List(items) => items.iter().map(Data::bytes).sum(),
            Data::Table(fields) => fields.iter().map(|(name, value)| name.len() + value.bytes()).sum(),
            Data::Null | Data::Bool(_) | Data::Int(_) | Data::Float(_) => size_of::<Data>(),
        }
    }

    pub fn get(&self, key: &str) -> Option<&Data> {
        match self {
            Data::Table(fields) => fields.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    pub fn noun(&self) -> &'static str {
        match self {
            Data::Null => "null",
            Data::Bool(_) => "a boolean",
            Data::Int(_) | Data::Float(_) => "a number",
            Data::Text(_) => "a string",
            Data::List(_) => "a list",
            Data::Table(_) => "a table",
        }
    }

    /// As a template sees it.
    pub fn value(&self) -> Result<Value, Error> {
        Ok(match self {
            Data::Null => Value::from(()),
            Data::Bool(bool) => Value::from(*bool),
            Data::Int(int) => i64::try_from(*int).map_or_else(|_| Value::from(*int), Value::from),
            Data::Float(float) if float.abs() >= EXACT || *float == 0.0 && float.is_sign_negative() => unsure(),
            Data::Float(float) => Value::from(*float),
            Data::Text(text) => Value::from(text.as_str()),
            Data::List(items) => list(items.iter().map(Data::value).collect::<Result<_, _>>()?)?,
            Data::Table(fields) => table(fields.iter().map(|(name, value)| (name.as_str(), value)))?,
        })
    }

    /// The same as serde's own values, which sort their keys.
    pub fn sorted(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// A dict of a template.
pub fn table<'a>(fields: impl Iterator<Item = (&'a str, &'a Data)>) -> Result<Value, Error> {
    let pairs = fields.map(|(name, value)| Ok((Value::from(name), value.value()?))).collect::<Result<_, Error>>()?;
    Ok(Value::from_object(Dict::of_texts(pairs)?))
}

impl From<&str> for Data {
    fn from(text: &str) -> Data {
        Data::Text(text.to_string())
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Data::Null => serializer.serialize_unit(),
            Data::Bool(bool) => serializer.serialize_bool(*bool),
            Data::Int(int) => match i64::try_from(*int) {
                Ok(int) => serializer.serialize_i64(int),
                Err(_) => serializer.serialize_i128(*int),
            },
            Data::Float(float) => serializer.serialize_f64(*float),
            Data::Text(text) => serializer.serialize_str(text),
            Data::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Data::Table(fields) => {
                let mut table = serializer.serialize_map(Some(fields.len()))?;
                fields.iter().try_for_each(|(name, value)| table.serialize_entry(name, value))?;
                table.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Data, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

/// From here on serde reads integers as floats, as it does `-0`: how Python would print them cannot be told.
const EXACT: f64 = 9_223_372_036_854_775_808.0;

impl<'de> Visitor<'de> for Reader {
    type Value = Data;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Data, E> {
        Ok(Data::Null)
    }

    fn visit_bool<E>(self, bool: bool) -> Result<Data, E> {
        Ok(Data::Bool(bool))
    }

    fn visit_i64<E>(self, int: i64) -> Result<Data, E> {
        Ok(Data::Int(i128::from(int)))
    }

    fn visit_u64<E>(self, int: u64) -> Result<Data, E> {
        Ok(Data::Int(i128::from(int)))
    }

    fn visit_f64<E>(self, float: f64) -> Result<Data, E> {
        Ok(Data::Float(float))
    }

    fn visit_str<E>(self, text: &str) -> Result<Data, E> {
        Ok(Data::Text(text.to_string()))
    }

    fn visit_string<E>(self, text: String) -> Result<Data, E> {
        Ok(Data::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Data, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Data::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Data, A::Error> {
        let mut fields: Vec<(String, Data)> = Vec::new();
        let mut places = std::collections::BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, Data>()? {
            // As in Python: the first place, the last value.
            match places.entry(name) {
                std::collections::btree_map::Entry::Vacant(place) => {
                    fields.push((place.key().clone(), value));
                    place.insert(fields.len() - 1);
                }
                std::collections::btree_map::Entry::Occupied(place) => {
                    if let Some(field) = fields.get_mut(*place.get()) {
                        field.1 = value;
                    }
                }
            }
        }
        Ok(Data::Table(fields))
    }
}
