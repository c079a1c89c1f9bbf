//! `.slmops-delivered.json`: by folder name, what slmops delivered to a `dist/`. Written before a delivery appears and durable by then, so that
//! nothing of ours is ever without an entry, whatever moment a process is killed at.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{DeployError, Result};
use crate::base::{Digest, files, output};

pub const FILE: &str = ".slmops-delivered.json";
/// The version that this slmops writes, and the newest that it reads.
const FORMAT: u64 = 1;
/// Of a record, in bytes. An entry takes a few hundred.
const MAX_BYTES: u64 = 16 << 20;

/// What was delivered under one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivered {
    /// The step that made it, for people.
    pub bundle: String,
    /// `PROJECT-VERSION-DEVICE`
    pub product: String,
    /// Digests of the folders' trees: of the delivery that is there and, from the moment before it is replaced, of the next one.
    pub trees: Vec<String>,
}

impl Delivered {
    pub fn has(&self, tree: Digest) -> bool {
        self.trees.contains(&tree.hex())
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    format: u64,
    bundles: BTreeMap<String, Delivered>,
}

#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    bundles: BTreeMap<String, Delivered>,
}

impl Record {
    /// The record of a `dist/`; empty if there is none. One that cannot be read is no empty one: it would have us forget what is ours.
    pub fn load(dist: &Path) -> Result<Record> {
        let path = dist.join(FILE);
        let refused = |why: String| DeployError::Record { path: path.clone(), why };
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Record { path, bundles: BTreeMap::new() }),
            Err(error) => return Err(DeployError::io("read", &path)(error)),
            Ok(meta) if !meta.is_file() => return Err(refused("is not a regular file".to_string())),
            Ok(_) => {}
        }
        let mut bytes = Vec::new();
        let read = files::open(&path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
        read.map_err(DeployError::io("read", &path))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(refused("is larger than any that slmops writes".to_string()));
        }
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| refused(format!("is damaged: {error}")))?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(FORMAT) => {}
            Some(found) if found > FORMAT => return Err(DeployError::NewerRecord { path, found, known: FORMAT }),
            _ => return Err(refused("is damaged: its format is unknown".to_string())),
        }
        let Text { bundles, .. } = serde_json::from_value(value).map_err(|error| refused(format!("is damaged: {error}")))?;
        // A name with more than one part would lead out of the folder.
        if let Some(name) = bundles.keys().find(|name| !is_plain(name)) {
            return Err(refused(format!("is damaged: `{}` is not a name", name.escape_debug())));
        }
        Ok(Record { path, bundles })
    }

    pub fn get(&self, name: &str) -> Option<&Delivered> {
        self.bundles.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Delivered)> {
        self.bundles.iter().map(|(name, delivered)| (name.as_str(), delivered))
    }

    /// Writes down what a name stands for from now on, durably.
    pub fn set(&mut self, name: &str, delivered: Delivered) -> Result<()> {
        if self.bundles.get(name) == Some(&delivered) {
            return Ok(());
        }
        self.bundles.insert(name.to_string(), delivered);
        self.save()
    }

    pub fn forget(&mut self, name: &str) -> Result<()> {
        if self.bundles.remove(name).is_some() { self.save() } else { Ok(()) }
    }

    fn save(&self) -> Result<()> {
        let text = Text { format: FORMAT, bundles: self.bundles.clone() };
        let failed = |error: io::Error| DeployError::io("write", &self.path)(error);
        let mut bytes = serde_json::to_vec_pretty(&text).map_err(|error| failed(error.into()))?;
        bytes.push(b'\n');
        let written = output::file(Path::new(""), &self.path, output::Existing::Replace).and_then(|output| output.write_all(&bytes));
        written.map_err(|error| failed(io::Error::other(error)))
    }
}

/// Whether this names an entry of a folder.
pub fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered() -> Delivered {
        Delivered { bundle: "release".into(), product: "p-1-d".into(), trees: vec![Digest::of(b"tree").hex()] }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let space = tempfile::tempdir().unwrap();
        let mut record = Record::load(space.path()).unwrap();
        record.set("p-1-d", delivered()).unwrap();
        record.set("p-1-e", delivered()).unwrap();
        record.forget("p-1-e").unwrap();
        let again = Record::load(space.path()).unwrap();
        assert_eq!(again.iter().collect::<Vec<_>>(), [("p-1-d", &delivered())]);
        assert!(again.get("p-1-d").unwrap().has(Digest::of(b"tree")));
        assert!(!again.get("p-1-d").unwrap().has(Digest::of(b"other")));
    }

    #[test]
    fn a_record_that_is_not_ours_is_neither_believed_nor_replaced() {
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join(FILE);
        let entry = r#"{"bundle": "b", "product": "p", "trees": []}"#;
        for text in [
            "".to_string(),
            "{}".to_string(),
            r#"{"format": 1, "bundles": 3}"#.to_string(),
            format!(r#"{{"format": 1, "bundles": {{"../x": {entry}}}}}"#),
            format!(r#"{{"format": 1, "bundles": {{"..": {entry}}}}}"#),
            format!(r#"{{"format": 1, "bundles": {{"a/b": {entry}}}}}"#),
            r#"{"format": 0, "bundles": {}}"#.to_string(),
            r#"{"format": 1, "bundles": {}, "more": 1}"#.to_string(),
        ] {
            fs::write(&path, &text).unwrap();
            assert!(matches!(Record::load(space.path()), Err(DeployError::Record { .. })), "{text}");
        }
        fs::write(&path, r#"{"format": 2, "what": "ever"}"#).unwrap();
        assert!(matches!(Record::load(space.path()), Err(DeployError::NewerRecord { found: 2, .. })));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(matches!(Record::load(space.path()), Err(DeployError::Record { .. })));
    }
}
