//! For each project, the last key of each step and the one before it: what `explain` compares with and what `gc` keeps. One small file a project.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::{Digest, files};

use super::Store;
use super::error::{Result, StoreError};
use super::object::Durability;

const FORMAT: &str = "slmops latest 1 ";
/// Of a project of a million steps.
const MAX_BYTES: u64 = 1 << 30;

/// The last keys of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latest {
    pub key: Digest,
    /// The key before the last change.
    pub before: Option<Digest>,
}

impl Store {
    /// The last keys of a project by step. A list that is not ours is an empty one: it only explains, and says what `gc` keeps.
    pub fn latest(&self, project: &str) -> Result<BTreeMap<String, Latest>> {
        Ok(read(&self.latest_path(project))?.map_or_else(BTreeMap::new, |(_, steps)| steps))
    }

    /// Writes down new keys, if the store can be written to. Several builds of a project may do so at once.
    pub fn set_latest(&self, project: &str, keys: &BTreeMap<String, Digest>) -> Result<()> {
        if self.is_read_only() {
            return Ok(());
        }
        let lock_path = self.root.join("locks/latest");
        let lock = self.session()?.rights.open_lock(&lock_path).map_err(|error| StoreError::io("open", &lock_path, error))?;
        lock.lock().map_err(|error| StoreError::io("lock", &lock_path, error))?;
        let mut steps = self.latest(project)?;
        let mut changed = 0;
        for (step, key) in keys {
            let last = steps.get(step).copied();
            if last.is_some_and(|last| last.key == *key) {
                continue;
            }
            steps.insert(step.clone(), Latest { key: *key, before: last.map(|last| last.key) });
            changed += 1;
        }
        if changed == 0 {
            return Ok(());
        }
        self.publish_bytes(encode(project, &steps).as_bytes(), &self.latest_path(project), Durability::Batched)
    }

    /// Every project that was ever built here, with its keys.
    pub fn projects(&self) -> Result<BTreeMap<String, BTreeMap<String, Latest>>> {
        let folder = self.root.join("latest");
        let names = self.names("latest")?;
        let read = |name| read(&folder.join(name)).transpose();
        names.into_iter().filter_map(read).collect()
    }

    pub(super) fn latest_path(&self, project: &str) -> PathBuf {
        self.root.join("latest").join(&Digest::of(project.as_bytes()).hex()[..32])
    }
}

/// A list, if it is there and one of ours. One that cannot be read is an error: without it `gc` would delete what the project needs, and the next
/// list would forget it.
fn read(path: &Path) -> Result<Option<(String, BTreeMap<String, Latest>)>> {
    match files::read(path, MAX_BYTES) {
        Ok(bytes) => Ok(std::str::from_utf8(&bytes).ok().and_then(parse)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path, error)),
    }
}

fn encode(project: &str, steps: &BTreeMap<String, Latest>) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = format!("{FORMAT}{}\n", quoted(project));
    for (step, Latest { key, before }) in steps {
        let before = before.map_or("-".to_string(), |before| before.hex());
        text.push_str(&format!("{key} {before} {}\n", quoted(step)));
    }
    text
}

fn parse(text: &str) -> Option<(String, BTreeMap<String, Latest>)> {
    let (head, lines) = text.strip_prefix(FORMAT)?.split_once('\n')?;
    let step = |line: &str| {
        let (key, rest) = line.split_once(' ')?;
        let (before, name) = rest.split_once(' ')?;
        let before = if before == "-" { None } else { Some(before.parse().ok()?) };
        Some((serde_json::from_str(name).ok()?, Latest { key: key.parse().ok()?, before }))
    };
    Some((serde_json::from_str(head).ok()?, lines.lines().filter_map(step).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_two_keys_are_kept_for_each_project() {
        let space = tempfile::tempdir().unwrap();
        let store = Store::open(space.path()).unwrap();
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let set = |project: &str, key| store.set_latest(project, &BTreeMap::from([("odd\n\"name".to_string(), key)])).unwrap();
        set("/a", one);
        set("/a", two);
        set("/a", two);
        set("/b", one);
        assert_eq!(store.latest("/a").unwrap()["odd\n\"name"], Latest { key: two, before: Some(one) });
        assert_eq!(store.latest("/b").unwrap()["odd\n\"name"], Latest { key: one, before: None });
        assert_eq!(store.projects().unwrap().keys().collect::<Vec<_>>(), ["/a", "/b"]);
        std::fs::write(store.latest_path("/a"), b"\xff garbage").unwrap();
        assert!(store.latest("/a").unwrap().is_empty());
        assert_eq!(store.projects().unwrap().len(), 1);
        // What cannot be read is not the same as what is not there.
        std::fs::remove_file(store.latest_path("/a")).unwrap();
        std::fs::create_dir(store.latest_path("/a")).unwrap();
        assert!(store.latest("/a").is_err() && store.projects().is_err());
        assert!(store.set_latest("/a", &BTreeMap::from([("x".to_string(), one)])).is_err());
    }
}
