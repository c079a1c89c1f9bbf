//! A TOML document with a place for every key and value.

use std::collections::BTreeMap;
use std::sync::OnceLock;

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

/// Entries in the order in which they were written, each key once. Found by name at once, however many there are.
#[derive(Debug, Default)]
pub struct Table {
    entries: Vec<(Key, Value)>,
    /// Where each name stands; of large tables only, found at the first question.
    by_name: OnceLock<BTreeMap<String, usize>>,
}

/// Tables of fields are smaller: looking at every entry is quicker there than keeping an order.
const SMALL: usize = 32;

#[derive(Clone, Debug)]
pub struct Key {
    pub text: String,
    pub place: Place,
}

impl Table {
    pub fn new(entries: Vec<(Key, Value)>) -> Table {
        Table { entries, by_name: OnceLock::new() }
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.entry(name).map(|(_, value)| value)
    }

    pub fn entry(&self, name: &str) -> Option<(&Key, &Value)> {
        let (key, value) = self.entries.get(self.position(name)?)?;
        Some((key, value))
    }

    /// To change an entry's value. Its key stays as it is.
    pub fn entry_mut(&mut self, name: &str) -> Option<(&Key, &mut Value)> {
        let at = self.position(name)?;
        let (key, value) = self.entries.get_mut(at)?;
        Some((&*key, value))
    }

    /// The value of that name; `make` gives one if there is none.
    pub fn or_insert_with(&mut self, key: &Key, make: impl FnOnce() -> Value) -> &mut Value {
        let at = self.position(&key.text).unwrap_or_else(|| {
            self.push(key.clone(), make());
            self.entries.len() - 1
        });
        &mut self.entries[at].1
    }

    /// An entry behind the others; its name must be new.
    pub fn push(&mut self, key: Key, value: Value) {
        if let Some(places) = self.by_name.get_mut() {
            places.insert(key.text.clone(), self.entries.len());
        }
        self.entries.push((key, value));
    }

    /// In the place of the entry of that name, or behind the others.
    pub fn replace(&mut self, key: Key, value: Value) {
        match self.position(&key.text) {
            Some(at) => self.entries[at] = (key, value),
            None => self.push(key, value),
        }
    }

    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.position(name)?;
        self.by_name = OnceLock::new();
        Some(self.entries.remove(at).1)
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&Key) -> bool) {
        self.by_name = OnceLock::new();
        self.entries.retain(|(key, _)| keep(key));
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.entries.iter().map(|(key, _)| key.text.as_str())
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn position(&self, name: &str) -> Option<usize> {
        if self.entries.len() <= SMALL {
            return self.entries.iter().position(|(key, _)| key.text == name);
        }
        let places = self.by_name.get_or_init(|| {
            // Of a name that stands twice, which no parser lets through, the first counts, as in small tables.
            self.entries.iter().enumerate().rev().map(|(at, (key, _))| (key.text.clone(), at)).collect()
        });
        places.get(name).copied()
    }
}

/// The places are found anew if the copy needs them.
impl Clone for Table {
    fn clone(&self) -> Table {
        Table::new(self.entries.clone())
    }
}

impl IntoIterator for Table {
    type Item = (Key, Value);
    type IntoIter = std::vec::IntoIter<(Key, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl FromIterator<(Key, Value)> for Table {
    fn from_iter<I: IntoIterator<Item = (Key, Value)>>(entries: I) -> Table {
        Table::new(entries.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::SourceText;

    #[test]
    fn large_and_small_tables_find_the_same() {
        let place = Place::new(&Arc::new(SourceText::new("t", "")), 0..0);
        let key = |i: usize| Key { text: format!("k{}", i * 7919 % 1000), place: place.clone() };
        let value = |i: usize| Value { place: place.clone(), data: Data::Int(i as i64) };
        for count in [3, SMALL, SMALL + 1, 500] {
            let mut table: Table = (0..count).map(|i| (key(i), value(i))).collect();
            let holds = |table: &Table, i: usize, n: i64| matches!(table.get(&key(i).text), Some(Value { data: Data::Int(found), .. }) if *found == n);
            assert!((0..count).all(|i| holds(&table, i, i as i64)) && table.get("none").is_none());
            table.push(key(count), value(count));
            table.replace(key(1), value(77));
            table.or_insert_with(&key(count + 1), || value(5));
            assert!(holds(&table, count, count as i64) && holds(&table, 1, 77) && holds(&table, count + 1, 5));
            assert!(table.remove(&key(0).text).is_some() && table.get(&key(0).text).is_none());
            table.retain(|kept| kept.text != key(2).text);
            assert!(table.get(&key(2).text).is_none() && holds(&table, count, count as i64));
            assert_eq!(table.len(), count);
        }
    }
}
