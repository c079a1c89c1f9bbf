//! What values weigh, and how much a conversation may make.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::value::{Object, ObjectRepr, Value};
use minijinja::{Error, State};

use super::refused;

/// Bytes of all values together that one conversation may make; most are gone again soon.
const ALLOWANCE: u64 = 256 << 20;
/// Of a value, beside its text.
pub const VALUE: u64 = 32;
/// The longest number, written out.
const FLOAT: u64 = 400;
/// Bytes read for one that is made.
pub const READING: u64 = 16;
/// A letter of a text in a list may be written as `\u{7f}`.
const ESCAPED: u64 = 6;
const MAX_NESTED: usize = 32;

/// How much a conversation has made so far.
#[derive(Debug, Default)]
pub struct Made(AtomicU64);

impl Object for Made {}

/// How a value's parts are counted.
#[derive(Clone, Copy)]
struct Scale {
    /// Of a text, and of one within a list or a table.
    text: fn(u64) -> u64,
    nested: fn(u64) -> u64,
    /// Whether nothing in it may change later, or hold what lies deeper than can be seen.
    plain: bool,
}

impl Made {
    pub fn of(state: &State) -> Arc<Made> {
        state.get_or_set_temp_object(" made", Made::default)
    }

    pub fn add(&self, weight: u64) -> Result<(), Error> {
        let before = self.0.fetch_add(weight.min(ALLOWANCE + 1), Ordering::Relaxed);
        if before.saturating_add(weight) > ALLOWANCE {
            return Err(refused(format!("it makes more than {} MiB of texts and lists", ALLOWANCE >> 20)));
        }
        Ok(())
    }

    /// Counts a value and all that is in it, what is shared as often as it stands there; returns the weight.
    pub fn weigh(&self, value: &Value) -> Result<u64, Error> {
        self.count(value, 0, Scale { text: |len| len, nested: |len| len, plain: false })
    }

    /// As it becomes text.
    pub fn write(&self, value: &Value) -> Result<u64, Error> {
        self.count(value, 0, Scale { text: |len| len, nested: |len| ESCAPED * len, plain: false })
    }

    /// Texts in lists are shared, not made.
    pub fn shape(&self, value: &Value) -> Result<u64, Error> {
        self.count(value, 0, Scale { text: |_| 0, nested: |_| 0, plain: false })
    }

    /// What stays for later.
    pub fn keep(&self, value: &Value) -> Result<u64, Error> {
        self.count(value, 0, Scale { text: |_| 0, nested: |_| 0, plain: true })
    }

    pub fn read(&self, value: &Value) -> Result<u64, Error> {
        self.count(value, 0, Scale { text: |len| len / READING, nested: |len| len / READING, plain: false })
    }

    /// A text is gone through, a list or a table only asked for one of its values.
    pub fn ask(&self, value: &Value) -> Result<u64, Error> {
        if value.as_object().is_some() { Ok(0) } else { self.read(value) }
    }

    fn count(&self, value: &Value, depth: usize, scale: Scale) -> Result<u64, Error> {
        if depth > MAX_NESTED {
            return Err(refused(format!("its values are nested more than {MAX_NESTED} deep")));
        }
        let text =
            value.as_str().map_or(0, |text| if depth == 0 { (scale.text)(text.len() as u64) } else { (scale.nested)(text.len() as u64) });
        let number = if value.is_number() && !value.is_integer() { FLOAT } else { 0 };
        let mut weight = VALUE + text + number;
        self.add(weight)?;
        let Some(object) = value.as_object() else { return Ok(weight) };
        let name = object.type_name();
        if scale.plain && ["::Namespace", "::Macro", "::Loop"].iter().any(|kind| name.ends_with(kind)) {
            return Err(refused("a namespace, a macro or a loop is kept in another value".to_string()));
        }
        match object.repr() {
            ObjectRepr::Map => {
                for (key, value) in object.try_iter_pairs().into_iter().flatten() {
                    // Keys are compared with each other.
                    weight += self.count(&key, depth + 1, Scale { text: |len| len, nested: |len| len, ..scale })?;
                    weight += self.count(&value, depth + 1, scale)?;
                }
            }
            ObjectRepr::Seq | ObjectRepr::Iterable => {
                for item in value.try_iter()? {
                    weight += self.count(&item, depth + 1, scale)?;
                }
            }
            _ => {}
        }
        Ok(weight)
    }

    /// What the engine would make anew each time that it is looked at is made once.
    pub fn made(&self, value: Value) -> Result<Value, Error> {
        match value.as_str() {
            Some(_) => self.weigh(&value)?,
            None => self.shape(&value)?,
        };
        match value.as_object().map(|object| object.repr()) {
            Some(ObjectRepr::Iterable) => Ok(value.try_iter()?.collect()),
            _ => Ok(value),
        }
    }
}
