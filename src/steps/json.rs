//! Answers as JSON: read without doubt about what they mean, compared by value, held against a JSON schema. Nothing is ever fetched.

use std::fmt;
use std::path::Path;

use jsonschema::{PatternOptions, Validator};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::Failure;
use crate::model::read_limited;

/// Published schemas are below 1 MiB.
const MAX_SCHEMA: u64 = 16 << 20;
/// Of a pattern within a schema.
const MAX_PATTERN: usize = 4 << 20;
const MAX_BACKTRACKS: usize = 1_000_000;

/// The text as one JSON value; nothing if it is none, or if a key stands twice in an object, so that readers would differ about it.
pub fn parse(text: &str) -> Option<Value> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Unique.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok().map(|()| value)
}

/// Whether two values are the same in canonical form (RFC 8785): keys in any order, numbers by value.
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => equal_numbers(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b))),
        (a, b) => a == b,
    }
}

/// Whole numbers exactly, beyond what a double holds too.
fn equal_numbers(a: &Number, b: &Number) -> bool {
    if a.is_f64() || b.is_f64() { a.as_f64() == b.as_f64() } else { a == b }
}

/// A schema, ready to be asked. Drafts 4 to 2020-12, by its `$schema`; 2020-12 if it names none.
pub struct Schema(Validator);

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema")
    }
}

impl Schema {
    pub fn open(path: &Path) -> Result<Schema, Failure> {
        let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
        if path.is_dir() {
            return Err(Failure::new(format!("the JSON schema `{name}` is a folder")).help("name a source whose path is the schema's file"));
        }
        let bytes = read_limited(path, MAX_SCHEMA)?;
        let text = std::str::from_utf8(&bytes).map_err(|error| Failure::new(format!("the JSON schema `{name}` is not UTF-8: {error}")))?;
        let schema = Schema::new(text).map_err(|why| Failure::new(format!("the JSON schema `{name}` {why}")))?;
        Ok(schema)
    }

    /// An error goes on after "the schema".
    pub fn new(text: &str) -> Result<Schema, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
        if !value.is_object() && !value.is_boolean() {
            return Err("is no schema: it must be an object".to_string());
        }
        let patterns = PatternOptions::fancy_regex().size_limit(MAX_PATTERN).backtrack_limit(MAX_BACKTRACKS);
        let built = jsonschema::options().offline().with_pattern_options(patterns).build(&value);
        built.map(Schema).map_err(|error| {
            let message = error.to_string();
            match error.instance_path().as_str() {
                "" => format!("cannot be used: {message}"),
                pointer => format!("is wrong at `{pointer}`: {message}"),
            }
        })
    }

    pub fn allows(&self, value: &Value) -> bool {
        self.0.is_valid(value)
    }
}

/// Reads a value and refuses a key that stands twice.
struct Unique;

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Unique)? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<Key>()? {
            if map.contains_key(&key.0) {
                return Err(A::Error::custom("a key stands twice"));
            }
            map.insert(key.0, entries.next_value_seed(Unique)?);
        }
        Ok(map.into())
    }
}

#[derive(Deserialize)]
struct Key(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_by_what_they_mean() {
        let same = |a: &str, b: &str| equal(&parse(a).unwrap(), &parse(b).unwrap());
        assert!(same(r#"{"id": 4, "set": {"b": [1, 2.50], "a": null}}"#, r#"{"set":{"a":null,"b":[1.0,2.5]},"id":4e0}"#));
        assert!(same("\"\\u00e9\"", "\"é\"") && same("-0.0", "0"));
        for (a, b) in [("1", "\"1\""), ("[1,2]", "[2,1]"), ("{}", "{\"a\":null}"), ("9007199254740993", "9007199254740992"), ("true", "1")]
        {
            assert!(!same(a, b), "{a} {b}");
        }
    }

    #[test]
    fn what_readers_would_differ_about_is_no_value() {
        for text in ["{\"a\":1,\"a\":2}", "[{\"a\":{\"b\":1,\"b\":1}}]", "{} {}", "{", "", "nul", "1e999"] {
            assert!(parse(text).is_none(), "{text}");
        }
        assert!(parse(&"[".repeat(100_000)).is_none());
        assert_eq!(parse(" [1, \"x\"] ").unwrap(), serde_json::json!([1, "x"]));
    }

    #[test]
    fn a_schema_says_what_it_allows() {
        let schema = r#"{"type": "object", "required": ["id"], "properties": {"id": {"type": "integer", "minimum": 1}, "at": {"pattern": "^(?!x)"}}, "additionalProperties": false}"#;
        let schema = Schema::new(schema).unwrap();
        let allows = |text: &str| schema.allows(&parse(text).unwrap());
        assert!(allows(r#"{"id": 3}"#) && allows(r#"{"id": 3, "at": "y"}"#));
        for text in [r#"{"id": 0}"#, r#"{"id": "3"}"#, "{}", "[]", r#"{"id": 3, "more": 1}"#, r#"{"id": 3, "at": "x"}"#] {
            assert!(!allows(text), "{text}");
        }
        assert!(Schema::new("true").unwrap().allows(&Value::Null));
    }

    #[test]
    fn what_is_no_schema_is_told_at_its_place() {
        let said = |text: &str| Schema::new(text).unwrap_err();
        assert!(said("{").starts_with("is not JSON: EOF"), "{}", said("{"));
        assert!(said("[]").starts_with("is no schema"));
        let wrong = said(r#"{"properties": {"id": {"type": "integr"}}}"#);
        assert!(wrong.starts_with("is wrong at `/properties/id/type`: \"integr\""), "{wrong}");
        let pattern = said(r#"{"properties": {"id": {"pattern": "(a"}}}"#);
        assert!(pattern.contains("/properties/id/pattern"), "{pattern}");
        for elsewhere in ["https://example.com/a.json", "other.json", "file:///etc/passwd"] {
            let refused = said(&format!(r#"{{"$ref": "{elsewhere}"}}"#));
            assert!(refused.starts_with("cannot be used: "), "{refused}");
        }
        assert!(Schema::new(r##"{"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}"##).is_ok());
    }
}
