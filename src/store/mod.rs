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
mod intake;
mod latest;
mod layout;
mod object;
mod place;
mod reading;
mod record;
mod session;
mod stamp;
mod stat_cache;
mod sweep;
mod tree;
mod verify;

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs;

use crate::base::{Digest, clock, files, remove_all, trouble};

pub use action::{Commit, KeyLock, Lookup};
pub use archive::Imported;
pub use error::{Damage, Result, StoreError, damage};
pub use gc::{Fate, GcItem, GcPlan, GcProject, GcRequest, Owner, Part};
pub use latest::Latest;
pub use layout::{FIXED_TIME, Share, create_folder};
pub use object::Durability;
pub use place::STORE_FORMAT;
pub use record::Record;
pub use stamp::Stamp;
pub use stat_cache::{FileContent, StatCache};
pub use tree::{Entry, Mode, Tree};
pub use verify::{Audit, Contents};

use object::{Fingerprint, Unsynced};
use place::{Rights, Standing};
use session::Session;

/// An open store. Shared by any number of processes; [`Store::open_alone`] is for those that delete.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// Or why it cannot be written to.
    session: Result<Session>,
    opened_ns: i128,
    /// Objects whose content was read and found right, and what they looked like then.
    verified: Mutex<BTreeMap<Digest, Fingerprint>>,
    unsynced: Mutex<Unsynced>,
    syncing: Mutex<()>,
    /// Held while a source is copied, so that it is copied once.
    intake: Mutex<()>,
    warnings: Mutex<Vec<String>>,
    access: Access,
    _lock: Option<File>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Shared,
    Alone,
}

impl Store {
    /// Opens or creates a store, and waits for a `gc` that is under way. A store that cannot be written to is opened all the same: what it holds
    /// can be read ([`Store::is_read_only`]). A folder that is neither a store nor empty is refused and left as it is.
    pub fn open(root: &Path) -> Result<Store> {
        let prepared = Prepared::of(root)?;
        if let Some(lock) = &prepared.lock {
            lock.lock_shared().map_err(|error| StoreError::io("lock", &prepared.root, error))?;
        }
        Ok(Store::begin(prepared, Access::Shared))
    }

    /// Opens a store for deleting from it: nobody else may have it open.
    pub fn open_alone(root: &Path) -> Result<Store> {
        let prepared = Prepared::of(root)?;
        if let (Some(lock), Ok(_)) = (&prepared.lock, &prepared.rights) {
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(StoreError::Busy { path: prepared.root }),
                Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", &prepared.root, error)),
            }
        }
        let store = Store::begin(prepared, Access::Alone);
        store.session().map(drop)?;
        Ok(store)
    }

    fn begin(Prepared { root, rights, lock }: Prepared, access: Access) -> Store {
        let session = rights.and_then(|rights| Session::begin(&root.join("tmp"), rights));
        Store {
            root,
            session,
            opened_ns: clock::now_ns(),
            verified: Mutex::default(),
            unsynced: Mutex::default(),
            syncing: Mutex::default(),
            intake: Mutex::default(),
            warnings: Mutex::default(),
            access,
            _lock: lock,
        }
    }

    /// Fails if a folder holds something else than a store. One that is free becomes a store if that can be, so that what is put into it
    /// is known as ours.
    pub fn claim(root: &Path) -> Result<()> {
        if place::examine(root)? == Standing::Free {
            // If it cannot be made, whoever wants to write to it will say so.
            let _ = place::make(root, Standing::Free);
        }
        Ok(())
    }

    /// The means to write, or why there are none.
    fn session(&self) -> Result<&Session> {
        self.session.as_ref().map_err(|error| match error {
            StoreError::Io { error, .. } => {
                let error = trouble::copy(error);
                StoreError::NotWritable { path: self.root.clone(), error }
            }
            _ => StoreError::Busy { path: self.root.clone() },
        })
    }

    /// Whether it can only be read: it is on a read-only disk, say, or another user's.
    pub fn is_read_only(&self) -> bool {
        self.session.is_err()
    }

    /// Fails if the store cannot be written to.
    pub fn check_writable(&self) -> Result<()> {
        self.session().map(drop)
    }

    fn warn(&self, text: String) {
        object::lock(&self.warnings).push(text);
    }

    fn warn_if_failed(&self, result: Result<()>) {
        if let Err(error) = result {
            self.warn(format!("{error}; it is left in the store"));
        }
    }

    /// What went wrong without harm to a result, since this was last asked.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut object::lock(&self.warnings))
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// When the store was opened, in nanoseconds since 1970. Ages are counted from here.
    pub fn opened_ns(&self) -> i128 {
        self.opened_ns
    }

    /// An empty folder that goes when the value is dropped.
    pub fn scratch(&self) -> Result<Scratch> {
        let session = self.session()?;
        let path = session.fresh();
        session.rights.create_private_folder(&path).map_err(|error| StoreError::io("create", &path, error))?;
        Ok(Scratch { path })
    }

    /// Where the checkpoints of an action are.
    pub fn partial(&self, key: Digest) -> PathBuf {
        self.root.join("partial").join(key.hex())
    }

    /// The same, created if it is not there. None if another user's checkpoint is there from which this one cannot go on; it stays.
    pub fn create_partial(&self, key: Digest) -> Result<Option<PathBuf>> {
        let path = self.partial(key);
        self.session()?.rights.create_folder(&path).map_err(|error| StoreError::io("create", &path, error))?;
        if is_usable(&path) {
            return Ok(Some(path));
        }
        self.warn(format!("cannot use the checkpoint `{}`, which is another user's: the step begins anew", path.display()));
        Ok(None)
    }

    /// `FOLDER/ab/DIGEST`
    fn shelf(&self, folder: &str, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join(folder).join(&hex[..2]).join(hex)
    }
}

/// Whether a checkpoint's files can be read, and others put in their place.
fn is_usable(folder: &Path) -> bool {
    let can_change = fs::access(folder, fs::Access::READ_OK | fs::Access::WRITE_OK | fs::Access::EXEC_OK).is_ok();
    let can_read = |file: &PathBuf| reading::open(&folder.join(file)).is_ok();
    can_change && files::walk(folder).is_ok_and(|files| files.iter().all(can_read))
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
        let _ = remove_all(&self.path);
    }
}

/// A folder that is known to be a store, or free to become one.
struct Prepared {
    root: PathBuf,
    /// Or why it cannot be written to.
    rights: Result<Rights>,
    /// None if there is no lock file and none can be made.
    lock: Option<File>,
}

impl Prepared {
    fn of(root: &Path) -> Result<Prepared> {
        let standing = place::examine(root)?;
        let rights = place::make(root, standing);
        let root = match root.canonicalize() {
            Err(error) if rights.is_err() && error.kind() == io::ErrorKind::NotFound => {
                std::path::absolute(root).map_err(|error| StoreError::io("open", root, error))?
            }
            other => other.map_err(|error| StoreError::io("open", root, error))?,
        };
        let lock_path = root.join("locks/store");
        let lock = match &rights {
            Ok(rights) => rights.open_lock(&lock_path),
            Err(_) => File::open(&lock_path),
        };
        let (rights, lock) = match (rights, lock) {
            (Ok(_), Err(error)) => (Err(StoreError::io("open", &lock_path, error)), None),
            (rights, lock) => (rights, lock.ok()),
        };
        Ok(Prepared { root, rights, lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
