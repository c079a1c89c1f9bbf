//! The content-addressed store and the action cache. It knows digests, files and records; not what a step is.
//!
//! | place | holds |
//! |---|---|
//! | `objects/ab/DIGEST` | contents under their BLAKE3 digest, mode 0444 |
//! | `actions/ab/KEY` | a [`Record`] of each action that ended well |
//! | `partial/KEY/` | checkpoints of actions that have not |
//! | `latest/` | for each project, the last key of each step |
//! | `sources` | digests of files that have not been touched since |
//! | `quarantine/` | what was found damaged |
//! | `tmp/`, `locks/` | running processes |
//!
//! Everything appears by rename. A record may become visible before its objects are durable: after a power cut it is the checks on size, checksum
//! and content that tell, so the worst case is an action that runs again, never a wrong result. How much work may be lost is bounded by
//! [`Durability`].

mod action;
mod archive;
mod error;
mod gc;
mod latest;
mod object;
mod record;
mod session;
mod stat_cache;
mod tree;
mod verify;

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::base::{Digest, files};

pub use action::{Commit, KeyLock, Lookup};
pub use archive::Imported;
pub use error::{Damage, Result, StoreError};
pub use gc::{GcItem, GcPlan, GcRequest, Part};
pub use latest::Latest;
pub use object::Durability;
pub use record::Record;
pub use stat_cache::{Stamp, StatCache};
pub use tree::{Entry, Mode, Tree};
pub use verify::{Audit, Contents};

use object::{Fingerprint, Unsynced};
use session::Session;

/// Raised when an older slmops could not read what this one writes.
pub const STORE_FORMAT: u32 = 1;

const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of slmops. It may be deleted: see https://bford.info/cachedir/\n";

/// An open store. Shared by any number of processes; [`Store::open_alone`] is for those that delete.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    session: Session,
    /// Objects whose content was read and found right, and what they looked like then.
    verified: Mutex<BTreeMap<Digest, Fingerprint>>,
    unsynced: Mutex<Unsynced>,
    access: Access,
    _lock: File,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Shared,
    Alone,
}

impl Store {
    /// Opens or creates a store, and waits for a `gc` that is under way.
    pub fn open(root: &Path) -> Result<Store> {
        let (root, lock) = prepare(root)?;
        lock.lock_shared().map_err(|error| StoreError::io("lock", &root, error))?;
        Store::begin(root, lock, Access::Shared)
    }

    /// Opens a store for deleting from it: nobody else may have it open.
    pub fn open_alone(root: &Path) -> Result<Store> {
        let (root, lock) = prepare(root)?;
        match lock.try_lock() {
            Ok(()) => Store::begin(root, lock, Access::Alone),
            Err(TryLockError::WouldBlock) => Err(StoreError::Busy { path: root }),
            Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &root, error)),
        }
    }

    fn begin(root: PathBuf, lock: File, access: Access) -> Result<Store> {
        let tmp = root.join("tmp");
        session::sweep(&tmp)?;
        let session = Session::begin(&tmp)?;
        Ok(Store { root, session, verified: Mutex::default(), unsynced: Mutex::default(), access, _lock: lock })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file system's clock when the store was opened, in nanoseconds since 1970. Ages are counted from here.
    pub fn opened_ns(&self) -> i128 {
        self.session.started_ns
    }

    /// The file system's clock now: what a file written at this moment would be stamped with.
    pub fn now_ns(&self) -> Result<i128> {
        self.session.now_ns().map_err(|error| StoreError::io("write to", &self.root, error))
    }

    /// An empty folder that goes when the value is dropped.
    pub fn scratch(&self) -> Result<Scratch> {
        let path = self.session.fresh();
        fs::create_dir(&path).map_err(|error| StoreError::io("create", &path, error))?;
        Ok(Scratch { path })
    }

    /// Where the checkpoints of an action are.
    pub fn partial(&self, key: Digest) -> PathBuf {
        self.root.join("partial").join(key.hex())
    }

    /// `FOLDER/ab/DIGEST`
    fn shelf(&self, folder: &str, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join(folder).join(&hex[..2]).join(hex)
    }
}

/// A folder of an action under way.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now goes with the session, or with the next one's sweep.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Checks the version before anything is written; returns the store's path and its unlocked lock file.
fn prepare(root: &Path) -> Result<(PathBuf, File)> {
    let is_new = match fs::read_to_string(root.join("VERSION")) {
        Ok(text) => check_version(root, &text).map(|()| false)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(StoreError::NotAStore { path: root.into() }),
        Err(error) => return Err(StoreError::io("open the store", root, error)),
    };
    for folder in ["", "objects", "actions", "partial", "latest", "quarantine", "tmp", "locks", "locks/keys"] {
        let path = root.join(folder);
        fs::create_dir_all(&path).map_err(|error| StoreError::io("create", &path, error))?;
    }
    if is_new {
        write_new(&root.join("CACHEDIR.TAG"), TAG)?;
        write_new(&root.join("VERSION"), &format!("slmops store {STORE_FORMAT}\n"))?;
    }
    let root = root.canonicalize().map_err(|error| StoreError::io("open", root, error))?;
    let lock = session::open_lock(&root.join("locks/store"))?;
    Ok((root, lock))
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    files::write_atomic(path, text.as_bytes()).map_err(|error| StoreError::io("write", path, error))
}

fn check_version(root: &Path, text: &str) -> Result<()> {
    let found = text.strip_prefix("slmops store ").and_then(|rest| rest.trim_end().parse::<u32>().ok());
    match found {
        Some(STORE_FORMAT) => Ok(()),
        Some(found) if found > STORE_FORMAT => Err(StoreError::Newer { path: root.into(), found, known: STORE_FORMAT }),
        _ => Err(StoreError::NotAStore { path: root.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_or_foreign_store_is_left_alone() {
        let space = tempfile::tempdir().unwrap();
        let root = space.path();
        for (version, newer) in [("slmops store 2\n", true), ("something else\n", false), ("", false)] {
            fs::write(root.join("VERSION"), version).unwrap();
            let error = Store::open(root).unwrap_err();
            assert_eq!(matches!(error, StoreError::Newer { found: 2, .. }), newer, "{error}");
            assert_eq!(files::names(root).unwrap(), ["VERSION"], "nothing was written");
            assert_eq!(fs::read_to_string(root.join("VERSION")).unwrap(), version);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_the_environments_fault() {
        let space = tempfile::tempdir().unwrap();
        fs::write(space.path().join("file"), "").unwrap();
        let error = Store::open(&space.path().join("file/cache")).unwrap_err();
        assert!(error.to_string().starts_with("cannot "), "{error}");
    }

    #[test]
    fn it_is_shared_and_those_who_delete_wait_their_turn() {
        let space = tempfile::tempdir().unwrap();
        let first = Store::open(space.path()).unwrap();
        let second = Store::open(space.path()).unwrap();
        assert!(matches!(Store::open_alone(space.path()), Err(StoreError::Busy { .. })));
        drop((first, second));
        Store::open_alone(space.path()).unwrap();
        assert!(fs::read_to_string(space.path().join("CACHEDIR.TAG")).unwrap().starts_with("Signature: 8a477f597d28d172789f06886806bc55"));
    }
}
