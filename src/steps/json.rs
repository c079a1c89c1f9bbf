//! JSON schemas that answers are held against. What is JSON is [`crate::base::json`]'s business. Nothing is ever fetched.

use std::fmt;
use std::path::Path;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use super::Failure;
use crate::base::{files, json, text};
use crate::model::read_limited;

/// Published schemas are below 1 MiB.
const MAX_SCHEMA: u64 = 16 << 20;
/// Of a pattern within a schema.
const MAX_PATTERN: usize = 4 << 20;
const MAX_BACKTRACKS: usize = 1_000_000;

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
        if files::is_folder(path).map_err(|error| Failure::file("read", path, &error))? {
            return Err(Failure::new(format!("the JSON schema `{name}` is a folder")).help("name a source whose path is the schema's file"));
        }
        let bytes = read_limited(path, MAX_SCHEMA)?;
        let text = text::decode(&bytes).map_err(|error| Failure::new(format!("the JSON schema `{name}`, {error}")))?;
        Schema::new(&text).map_err(|why| Failure::new(format!("the JSON schema `{name}` {why}")))
    }

    /// An error goes on after "the schema".
    pub fn new(text: &str) -> Result<Schema, String> {
        let value = json::parse(text).map_err(|error| format!("cannot be read: {error}"))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_says_what_it_allows() {
        let schema = r#"{"type": "object", "required": ["id"], "properties": {"id": {"type": "integer", "minimum": 1}, "at": {"pattern": "^(?!x)"}}, "additionalProperties": false}"#;
        let schema = Schema::new(schema).unwrap();
        let allows = |text: &str| schema.allows(&json::parse(text).unwrap());
        assert!(allows(r#"{"id": 3}"#) && allows(r#"{"id": 3, "at": "y"}"#));
        for text in [r#"{"id": 0}"#, r#"{"id": "3"}"#, "{}", "[]", r#"{"id": 3, "more": 1}"#, r#"{"id": 3, "at": "x"}"#] {
            assert!(!allows(text), "{text}");
        }
        assert!(Schema::new("true").unwrap().allows(&Value::Null));
    }

    #[test]
    fn a_file_is_read_as_any_other_text() {
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join("a.json");
        let open = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Schema::open(&path).map_err(|failure| failure.message)
        };
        assert!(open(b"\xEF\xBB\xBF{\"type\":\r\n\"object\"}\r\n").is_ok());
        assert!(open(b"{\n\xFF}").unwrap_err().contains("the JSON schema `a.json`, line 2: byte 1 is not UTF-8"));
        assert!(open(b"\xFF\xFE{\0}\0").unwrap_err().contains("UTF-16"));
    }

    #[test]
    fn what_is_no_schema_is_told_at_its_place() {
        let said = |text: &str| Schema::new(text).unwrap_err();
        assert!(said("{").starts_with("cannot be read: not JSON: EOF"), "{}", said("{"));
        assert_eq!(said(r#"{"properties": {"a": true, "a": false}}"#), "cannot be read: duplicate key `a` at line 1 column 30");
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
