//! What becomes of every field of a model's files: used, harmless, refused, or told in a warning. One list a file, which the readers check and the table
//! of `docs/models.md` is compared with. Knows names and values that change nothing, not what the used ones mean.

mod class;
mod config;
mod generation;
mod gguf;
mod tokenizer;

use std::path::Path;

use serde_json::{Map, Value, json};

use super::error::{is_there, read_limited};
use super::{ModelError, folder};
use crate::base::json as strict;
use crate::model::gguf::{Array, Header, Value as GgufValue};

/// As large as a `tokenizer.json` may be.
const MAX_FILE: u64 = 128 << 20;
/// More than this many warnings about one file say no more.
const MAX_REMARKS: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A reader asks for it.
    Used,
    /// Whatever it says, the same tokens and logits follow.
    Harmless,
    /// An error, unless it says that there is nothing.
    Refused,
    /// A warning, unless it says that there is nothing.
    Told,
}

/// A field that other tools know, too.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub name: &'static str,
    pub fate: Fate,
    /// The value, as JSON, that says nothing, as null does; if it is empty, those are false, 0 and what is empty.
    pub neutral: &'static str,
    /// What it is, or why it is refused.
    pub about: &'static str,
}

const fn used(name: &'static str, about: &'static str) -> Key {
    Key { name, fate: Fate::Used, neutral: "", about }
}

const fn harmless(name: &'static str, about: &'static str) -> Key {
    Key { name, fate: Fate::Harmless, neutral: "", about }
}

const fn refused(name: &'static str, about: &'static str) -> Key {
    Key { name, fate: Fate::Refused, neutral: "", about }
}

const fn told(name: &'static str, about: &'static str) -> Key {
    Key { name, fate: Fate::Told, neutral: "", about }
}

impl Key {
    const fn unless(self, neutral: &'static str) -> Key {
        Key { neutral, ..self }
    }

    fn is_neutral(&self, value: &Value) -> bool {
        match serde_json::from_str::<Value>(self.neutral) {
            // Where a field has a default that is not nothing, 0 and false say something.
            Ok(neutral) => value.is_null() || same(&neutral, value),
            // An empty table of another part of a model stands for that part with its defaults.
            Err(_) if self.name.ends_with("_config") => matches!(value, Value::Null | Value::Bool(false)),
            Err(_) => says_nothing(value),
        }
    }
}

/// A file of a model that has fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    Config,
    Generation,
    Tokenizer,
    TokenizerConfig,
    Gguf,
}

impl File {
    pub const ALL: [File; 5] = [File::Config, File::Generation, File::Tokenizer, File::TokenizerConfig, File::Gguf];

    pub fn name(self) -> &'static str {
        match self {
            File::Config => "config.json",
            File::Generation => "generation_config.json",
            File::Tokenizer => "tokenizer.json",
            File::TokenizerConfig => "tokenizer_config.json",
            File::Gguf => "GGUF",
        }
    }

    /// In a GGUF file's list, `{arch}` stands for the architecture.
    pub fn keys(self) -> &'static [Key] {
        match self {
            File::Config => config::KEYS,
            File::Generation => generation::KEYS,
            File::Tokenizer => tokenizer::KEYS,
            File::TokenizerConfig => tokenizer::CONFIG_KEYS,
            File::Gguf => gguf::KEYS,
        }
    }

    fn key(self, name: &str) -> Option<&'static Key> {
        self.keys().iter().find(|key| key.name == name)
    }
}

/// Null, false, 0, and what is empty.
pub fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn same(one: &Value, other: &Value) -> bool {
    one == other || (one.is_number() && one.as_f64() == other.as_f64())
}

/// An error for the first field that is refused.
pub fn check(file: File, fields: &Map<String, Value>) -> Result<(), ModelError> {
    fields.iter().try_for_each(|(name, value)| check_one(file, name, value))
}

fn check_one(file: File, name: &str, value: &Value) -> Result<(), ModelError> {
    match file.key(name) {
        Some(key) if key.fate == Fate::Refused && !key.is_neutral(value) => {
            Err(ModelError::unsupported(format!("{}: {name} {}", file.name(), short(value)), key.about))
        }
        _ => Ok(()),
    }
}

/// The same of a GGUF file.
pub fn check_gguf(header: &Header, arch: &str) -> Result<(), ModelError> {
    for (name, value) in &header.metadata {
        let listed = listed(name, arch);
        if let Some(key) = File::Gguf.key(&listed).filter(|key| key.fate == Fate::Refused) {
            let value = json_of(value);
            if !key.is_neutral(&value) {
                return Err(ModelError::unsupported(format!("{name} = {}", short(&value)), key.about));
            }
        }
    }
    Ok(())
}

/// What a user should know of the fields of a model's files: a line for each that changes what other tools do and nothing here, and for each that is not known.
pub fn remarks(path: &Path) -> Result<Vec<String>, ModelError> {
    let mut found = Vec::new();
    if let Some(file) = folder::gguf_file(path)? {
        let file = super::gguf::open(&file)?;
        let arch = file.get("general.architecture").and_then(GgufValue::as_str).unwrap_or_default().to_string();
        for (name, value) in &file.header.metadata {
            found.extend(remark(File::Gguf, &listed(name, &arch), name, &json_of(value)));
        }
        return Ok(shortened(found));
    }
    let mut read = Vec::new();
    for file in [File::Config, File::Generation, File::Tokenizer, File::TokenizerConfig] {
        let fields = fields_of(&path.join(file.name()))?;
        found.extend(fields.iter().filter_map(|(name, value)| remark(file, name, name, value)));
        read.push(fields);
    }
    if let [config, _, tokenizer, beside] = read.as_slice() {
        // Before others that may be many.
        class::remark(config, beside, tokenizer).into_iter().for_each(|line| found.insert(0, line));
    }
    Ok(shortened(found))
}

/// None of a file that is missing or malformed: whoever needs it says so.
fn fields_of(path: &Path) -> Result<Map<String, Value>, ModelError> {
    if !is_there(path)? {
        return Ok(Map::new());
    }
    match strict::from_foreign_slice(&read_limited(path, MAX_FILE)?) {
        Ok(Value::Object(fields)) => Ok(fields),
        _ => Ok(Map::new()),
    }
}

fn remark(file: File, listed: &str, name: &str, value: &Value) -> Option<String> {
    let (shown, place) = (short_text(name), file.name());
    match file.key(listed) {
        Some(key) if key.fate == Fate::Told && !key.is_neutral(value) => {
            Some(format!("{place}: {shown} {} has no effect here: {}", short(value), key.about))
        }
        Some(_) => None,
        None if says_nothing(value) || is_kept_apart(file, listed) => None,
        None => Some(format!("{place}: {shown} {} is not a field that slmops knows, and has no effect", short(value))),
    }
}

/// Names that a file makes up itself.
fn is_kept_apart(file: File, name: &str) -> bool {
    match file {
        // A model's own tokens, such as `image_token`, and where its files lay.
        File::TokenizerConfig => name.ends_with("_token") || name.ends_with("_file"),
        File::Config => name.starts_with('_'),
        // Descriptions and the quantizing tool's notes.
        File::Gguf => ["general.", "quantize.", "tokenizer.chat_template."].iter().any(|prefix| name.starts_with(prefix)),
        File::Generation | File::Tokenizer => false,
    }
}

fn shortened(mut found: Vec<String>) -> Vec<String> {
    let more = found.len().saturating_sub(MAX_REMARKS);
    if more > 1 {
        found.truncate(MAX_REMARKS);
        found.push(format!("and {more} more fields that have no effect here"));
    }
    found
}

/// The name in the list of a file's key.
fn listed(name: &str, arch: &str) -> String {
    match name.strip_prefix(arch).filter(|_| !arch.is_empty()).and_then(|rest| rest.strip_prefix('.')) {
        Some(rest) => format!("{{arch}}.{rest}"),
        None => name.to_string(),
    }
}

/// A value as it is shown and compared; of a list, whether there is anything in it.
fn json_of(value: &GgufValue) -> Value {
    let number = |found: Option<u64>| found.map_or(Value::Null, Value::from);
    match value {
        GgufValue::Bool(flag) => json!(flag),
        GgufValue::String(text) => json!(text),
        GgufValue::F32(x) => json!(x),
        GgufValue::F64(x) => json!(x),
        GgufValue::I8(n) => json!(n),
        GgufValue::I16(n) => json!(n),
        GgufValue::I32(n) => json!(n),
        GgufValue::I64(n) => json!(n),
        GgufValue::Array(Array::I32(items)) => json!(items),
        GgufValue::Array(Array::U32(items)) => json!(items),
        GgufValue::Array(Array::F32(items)) => json!(items),
        GgufValue::Array(Array::Bool(items)) => json!(items),
        GgufValue::Array(Array::String(items)) => json!(items.iter().take(4).collect::<Vec<_>>()),
        GgufValue::Array(_) => json!(["…"]),
        other => number(other.as_u64()),
    }
}

/// A value from the file, not longer than a line.
fn short(value: &Value) -> String {
    short_text(&value.to_string())
}

fn short_text(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
