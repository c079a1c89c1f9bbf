//! The text of a key: a line for each field. It is kept with the result, and with it comes the answer to "what changed".

use super::{Sink, Subject, walk};
use crate::base::{Digest, Hasher};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRecord(Vec<(String, String)>);

impl KeyRecord {
    pub fn of(subject: &Subject) -> KeyRecord {
        let mut record = KeyRecord::default();
        walk(subject, &mut record);
        record
    }

    pub fn fields(&self) -> &[(String, String)] {
        &self.0
    }

    /// The key that these fields make.
    pub fn key(&self) -> Digest {
        let mut hasher = Hasher::new();
        for (name, value) in &self.0 {
            hasher.part(name.as_bytes());
            hasher.part(value.as_bytes());
        }
        hasher.finish()
    }

    /// `NAME <tab> VALUE` lines. Names and values quote what they hold, so there is no other tab or line end.
    pub fn encode(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name}\t{value}\n")).collect()
    }

    pub fn parse(text: &str) -> Option<KeyRecord> {
        let field = |line: &str| line.split_once('\t').map(|(name, value)| (name.to_string(), value.to_string()));
        text.lines().map(field).collect::<Option<_>>().map(KeyRecord)
    }
}

impl Sink for KeyRecord {
    fn field(&mut self, name: &str, value: &str) {
        self.0.push((name.to_string(), value.to_string()));
    }
}
