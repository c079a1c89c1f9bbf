//! Records of finished actions: looking one up, adding one, and the locks that let only one process at a time run an action.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW};

use crate::base::Digest;

use super::Store;
use super::error::{Damage, Result, StoreError, damage};
use super::object::Durability;
use super::record::{MAX_RECORD_BYTES, Record};
use super::session::{self, stamp_ns};

/// What the store knows of a key.
#[derive(Debug)]
pub enum Lookup {
    /// The record, and all its objects are there.
    Hit(Record),
    Miss,
    /// There was a result, but it cannot be used any more. What was damaged is now in quarantine.
    Damaged(Damage),
}

/// What became of a new record.
#[derive(Debug, PartialEq, Eq)]
pub enum Commit {
    Stored,
    /// The key already has a whole result with another content, which stays: this action is not reproducible.
    Differs(Box<Record>),
}

/// Held while an action runs.
#[derive(Debug)]
pub struct KeyLock {
    path: PathBuf,
    _file: File,
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // Unlinked before it is released: whoever opened it meanwhile sees that and starts over.
        let _ = fs::remove_file(&self.path);
    }
}

/// A hit's time of use is written at most this often, so that a no-op build writes nothing.
const USE_GRANULARITY: Duration = Duration::from_secs(24 * 3600);

impl Store {
    pub fn lookup(&self, key: Digest) -> Result<Lookup> {
        let record = match self.read_record(key)? {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(Lookup::Miss),
            Err(damage) => return Ok(self.set_aside(damage)),
        };
        for (object, size_bytes) in record.objects() {
            if let Some(damage) = damage(self.check_present(object, size_bytes))? {
                return Ok(self.set_aside(damage));
            }
        }
        Ok(Lookup::Hit(record))
    }

    fn set_aside(&self, damage: Damage) -> Lookup {
        self.quarantine(&damage);
        Lookup::Damaged(damage)
    }

    /// A record whether or not its objects are still there; none if it cannot be trusted.
    pub fn record(&self, key: Digest) -> Result<Option<Record>> {
        Ok(self.read_record(key)?.unwrap_or(None))
    }

    pub(super) fn read_record(&self, key: Digest) -> Result<std::result::Result<Option<Record>, Damage>> {
        let path = self.shelf("actions", key);
        let damaged = |why: &str| Ok(Err(Damage::Record { key, why: why.to_string() }));
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(None)),
            Err(error) => return Err(StoreError::io("open", &path, error)),
        };
        let meta = file.metadata().map_err(|error| StoreError::io("read", &path, error))?;
        if !meta.is_file() || meta.len() > MAX_RECORD_BYTES {
            return damaged("is not one of ours");
        }
        let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
        io::Read::read_to_end(&mut file, &mut bytes).map_err(|error| StoreError::io("read", &path, error))?;
        match Record::parse(&bytes) {
            Ok(record) if record.key == key => {
                self.mark_used(&file, &meta);
                Ok(Ok(Some(record)))
            }
            Ok(_) => damaged("belongs to another key"),
            Err(why) => damaged(why),
        }
    }

    /// The record's mtime is the time of its last use. A store that cannot be written to just does not remember.
    fn mark_used(&self, file: &File, meta: &fs::Metadata) {
        let age_ns = self.opened_ns() - stamp_ns(meta.mtime(), meta.mtime_nsec());
        let now = u64::try_from(self.opened_ns()).ok().map(|ns| UNIX_EPOCH + Duration::from_nanos(ns));
        if age_ns > USE_GRANULARITY.as_nanos() as i128
            && let Some(now) = now
            && file.set_modified(now).is_err()
        {
            // Another user's: those who may write to it may still set its time to the clock's.
            let clock = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
            let _ = rustix::fs::futimens(file, &Timestamps { last_access: clock, last_modification: clock });
        }
    }

    /// Adds a record whose objects are in the store, unless the key has a whole result already.
    pub fn commit(&self, record: &Record, durability: Durability) -> Result<Commit> {
        if let Lookup::Hit(earlier) = self.lookup(record.key)? {
            return Ok(if earlier.tree == record.tree { Commit::Stored } else { Commit::Differs(Box::new(earlier)) });
        }
        self.publish_bytes(record.encode().as_bytes(), &self.shelf("actions", record.key), durability)?;
        Ok(Commit::Stored)
    }

    /// The right to run an action, or none while another process (or thread) has it.
    pub fn try_lock_key(&self, key: Digest) -> Result<Option<KeyLock>> {
        let path = self.root.join("locks/keys").join(key.hex());
        Ok(session::try_lock_file(&path, self.session()?.rights)?.map(|file| KeyLock { path, _file: file }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::{Entry, Mode, Tree};
    use super::*;

    fn record(store: &Store, key: &[u8], content: &[u8]) -> Record {
        let digest = store.put(content, Durability::Batched).unwrap();
        let entry = Entry { path: "f".into(), digest, size_bytes: content.len() as u64, mode: Mode::Plain };
        Record {
            key: Digest::of(key),
            tree: Tree::new(vec![entry]).unwrap(),
            log: None,
            key_text: String::new(),
            duration: Duration::ZERO,
            producer: "test".into(),
        }
    }

    #[test]
    fn a_hit_needs_a_whole_record_and_all_its_objects() {
        let space = tempfile::tempdir().unwrap();
        let store = Store::open(space.path()).unwrap();
        let made = record(&store, b"k", b"content");
        let key = made.key;
        assert!(matches!(store.lookup(key).unwrap(), Lookup::Miss));
        assert_eq!(store.commit(&made, Durability::Now).unwrap(), Commit::Stored);
        assert!(matches!(store.lookup(key).unwrap(), Lookup::Hit(hit) if hit == made));
        // Another result for the same key does not silently replace the first.
        let other = record(&store, b"k", b"different");
        assert_eq!(store.commit(&other, Durability::Now).unwrap(), Commit::Differs(Box::new(made.clone())));
        // A truncated object is a miss with a reason, and is out of the way afterwards.
        let object = made.tree.entries()[0].digest;
        fs::remove_file(store.object_path(object)).unwrap();
        fs::write(store.object_path(object), b"cont").unwrap();
        assert!(matches!(store.lookup(key).unwrap(), Lookup::Damaged(Damage::Cut { found_bytes: 4, .. })));
        assert!(matches!(store.lookup(key).unwrap(), Lookup::Damaged(Damage::Missing { .. })));
        assert_eq!(store.commit(&other, Durability::Now).unwrap(), Commit::Stored);
        // So is a corrupt record; and one under another key's name.
        let path = store.shelf("actions", key);
        fs::write(&path, &other.encode()[..40]).unwrap();
        assert!(matches!(store.lookup(key).unwrap(), Lookup::Damaged(Damage::Record { .. })));
        assert!(matches!(store.lookup(key).unwrap(), Lookup::Miss));
        fs::write(&path, record(&store, b"other", b"x").encode()).unwrap();
        assert!(matches!(store.lookup(key).unwrap(), Lookup::Damaged(Damage::Record { .. })));
    }

    #[test]
    fn an_action_is_locked_by_one_at_a_time() {
        let space = tempfile::tempdir().unwrap();
        let (one, two) = (Store::open(space.path()).unwrap(), Store::open(space.path()).unwrap());
        let key = Digest::of(b"k");
        let held = one.try_lock_key(key).unwrap().unwrap();
        assert!(two.try_lock_key(key).unwrap().is_none());
        assert!(one.try_lock_key(key).unwrap().is_none());
        drop(held);
        assert!(two.try_lock_key(key).unwrap().is_some());
        assert!(crate::base::files::names(&space.path().join("locks/keys")).unwrap().is_empty());
    }

    #[test]
    fn using_an_old_record_marks_it_used() {
        let space = tempfile::tempdir().unwrap();
        let store = Store::open(space.path()).unwrap();
        let made = record(&store, b"k", b"content");
        store.commit(&made, Durability::Batched).unwrap();
        let path = store.shelf("actions", made.key);
        File::open(&path).unwrap().set_modified(UNIX_EPOCH).unwrap();
        store.lookup(made.key).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(stamp_ns(meta.mtime(), meta.mtime_nsec()), store.opened_ns());
    }
}
