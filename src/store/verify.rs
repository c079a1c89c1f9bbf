//! Reading all of the store: what is damaged, and how much there is.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::base::{Digest, files};

use super::Store;
use super::error::{Damage, Result, StoreError, damage};
use super::reading;

/// What a full check came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    pub objects: u64,
    pub object_bytes: u64,
    pub actions: u64,
    /// Each is in quarantine now: the next build makes it again.
    pub damages: Vec<Damage>,
    /// What could not be looked at, and why. It stays where it is.
    pub unread: Vec<String>,
}

/// How much is in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub objects: u64,
    pub object_bytes: u64,
    pub actions: u64,
    pub action_bytes: u64,
    pub checkpoints: u64,
    pub checkpoint_bytes: u64,
    pub quarantined: u64,
    pub projects: u64,
}

impl Store {
    /// Reads every object and every record. `progress` hears of the bytes read so far.
    pub fn audit(&self, progress: &mut dyn FnMut(u64)) -> Result<Audit> {
        let mut audit = Audit::default();
        for (object, size_bytes) in self.listed("objects")? {
            audit.objects += 1;
            audit.object_bytes += size_bytes;
            let path = self.object_path(object);
            match reading::open(&path).and_then(|mut file| reading::digest(&mut file)) {
                Ok((found, _)) if found == object => {}
                Ok((found, _)) => audit.damages.push(Damage::Changed { object, found }),
                // Another process has just found it damaged, too.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => audit.unread.push(StoreError::io("read", &path, error).to_string()),
            }
            progress(audit.object_bytes);
        }
        audit.damages.iter().for_each(|damage| self.quarantine(damage));
        for (key, _) in self.listed("actions")? {
            audit.actions += 1;
            match self.read_record(key) {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(record))) => {
                    let checked = |(object, size_bytes)| damage(self.check_present(object, size_bytes)).transpose();
                    match record.objects().find_map(checked) {
                        // One damaged object is one finding, however many records name it.
                        Some(Ok(damage)) if !is_known(&audit.damages, &damage) => audit.damages.push(damage),
                        Some(Err(error)) => audit.unread.push(error.to_string()),
                        _ => {}
                    }
                }
                Ok(Err(damage)) => audit.damages.push(damage),
                Err(error) => audit.unread.push(error.to_string()),
            }
        }
        audit.damages.iter().for_each(|damage| self.quarantine(damage));
        Ok(audit)
    }

    pub fn contents(&self) -> Result<Contents> {
        let sum = |list: &[(Digest, u64)]| (list.len() as u64, list.iter().map(|(_, size)| size).sum());
        let (objects, object_bytes) = sum(&self.listed("objects")?);
        let (actions, action_bytes) = sum(&self.listed("actions")?);
        let checkpoints = self.checkpoints()?;
        let checkpoint_bytes = checkpoints.iter().map(|name| folder_bytes(&self.root().join("partial").join(name))).sum();
        Ok(Contents {
            objects,
            object_bytes,
            actions,
            action_bytes,
            checkpoints: checkpoints.len() as u64,
            checkpoint_bytes,
            quarantined: self.quarantined()?.len() as u64,
            projects: self.projects()?.len() as u64,
        })
    }

    /// Names and sizes of what is on the shelves of `objects` or `actions`, sorted. What is not ours is passed over.
    pub(super) fn listed(&self, folder: &str) -> Result<Vec<(Digest, u64)>> {
        let mut found = Vec::new();
        for shelf in self.names(folder)? {
            for name in self.names(&format!("{folder}/{shelf}"))? {
                let Ok(digest) = name.parse::<Digest>() else { continue };
                let path = self.shelf(folder, digest);
                match fs::symlink_metadata(&path) {
                    Ok(meta) => found.push((digest, meta.len())),
                    // On another shelf than its own, or gone meanwhile.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(StoreError::io("read", &path, error)),
                }
            }
        }
        Ok(found)
    }

    /// Names in `partial` that are ours.
    pub(super) fn checkpoints(&self) -> Result<Vec<String>> {
        Ok(self.names("partial")?.into_iter().filter(|name| name.parse::<Digest>().is_ok()).collect())
    }

    /// Names in `quarantine` that are ours.
    pub(super) fn quarantined(&self) -> Result<Vec<String>> {
        let is_ours = |name: &String| {
            let digest = name.strip_prefix("object-").or(name.strip_prefix("action-"));
            digest.is_some_and(|digest| digest.parse::<Digest>().is_ok())
        };
        Ok(self.names("quarantine")?.into_iter().filter(is_ours).collect())
    }

    pub(super) fn names(&self, folder: &str) -> Result<Vec<String>> {
        let path = self.root().join(folder);
        let names = match files::names(&path) {
            // A stray file on the shelves, or a store that was never written to.
            Err(error) if matches!(error.kind(), ErrorKind::NotADirectory | ErrorKind::NotFound) => Vec::new(),
            other => other.map_err(|error| StoreError::io("read", &path, error))?,
        };
        Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }
}

fn is_known(damages: &[Damage], new: &Damage) -> bool {
    let object = |damage: &Damage| match damage {
        Damage::Missing { object } | Damage::Cut { object, .. } | Damage::Changed { object, .. } => Some(*object),
        Damage::Record { .. } => None,
    };
    damages.iter().any(|damage| object(damage).is_some() && object(damage) == object(new))
}

/// Sizes of the regular files below a folder; what cannot be read counts nothing.
pub(super) fn folder_bytes(folder: &Path) -> u64 {
    let files = files::walk(folder).unwrap_or_default();
    files.iter().filter_map(|file| fs::symlink_metadata(folder.join(file)).ok()).map(|meta| meta.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::tree::{Entry, Mode, Tree};
    use super::super::{Durability, Lookup, Record};
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn each_damaged_object_and_record_is_found_once() {
        let space = tempfile::tempdir().unwrap();
        let store = Store::open(space.path()).unwrap();
        let mut keys = Vec::new();
        for (name, content) in [("good", "g"), ("flipped", "f"), ("flipped too", "f"), ("missing", "m"), ("cut", "c")] {
            let digest = store.put(content.as_bytes(), Durability::Batched).unwrap();
            let tree = Tree::new(vec![Entry { path: "f".into(), digest, size_bytes: 1, mode: Mode::Plain }]).unwrap();
            let key = Digest::of(name.as_bytes());
            let duration = std::time::Duration::ZERO;
            let record = Record { key, tree, log: None, key_text: String::new(), duration, producer: "test".into() };
            store.commit(&record, Durability::Batched).unwrap();
            keys.push(key);
        }
        let flipped = store.object_path(Digest::of(b"f"));
        fs::set_permissions(&flipped, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&flipped, "F").unwrap();
        fs::remove_file(store.object_path(Digest::of(b"m"))).unwrap();
        fs::write(store.shelf("actions", keys[4]), "slmops action 1\n").unwrap();
        fs::write(space.path().join("objects/stray"), "").unwrap();
        let audit = store.audit(&mut |_| {}).unwrap();
        assert_eq!((audit.objects, audit.actions, audit.damages.len()), (3, 5, 3), "{audit:?}");
        assert!(audit.damages.contains(&Damage::Changed { object: Digest::of(b"f"), found: Digest::of(b"F") }));
        assert!(audit.damages.contains(&Damage::Missing { object: Digest::of(b"m") }));
        assert!(audit.damages.iter().any(|damage| matches!(damage, Damage::Record { key, .. } if *key == keys[4])));
        assert!(matches!(store.lookup(keys[0]).unwrap(), Lookup::Hit(_)));
        assert!(matches!(store.lookup(keys[1]).unwrap(), Lookup::Damaged(_)));
        assert_eq!(store.contents().unwrap().quarantined, 2);
    }
}
