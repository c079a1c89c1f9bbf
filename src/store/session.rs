//! A process's own corner of `tmp/`, and locks that the kernel releases when their holder dies. A corner whose lock nobody holds is garbage.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::{files, remove_all, staged};

use super::error::{Result, StoreError};
use super::place::Rights;

/// `tmp/PID-N/` with `tmp/PID-N.lock` held; both go with the process.
#[derive(Debug)]
pub struct Session {
    folder: PathBuf,
    lock_path: PathBuf,
    _lock: File,
    counter: AtomicU64,
    pub rights: Rights,
}

/// More than one process ever opens at a time, and less than would take long to try.
const MAX_SESSIONS: u32 = 4096;

impl Session {
    pub fn begin(tmp: &Path, rights: Rights) -> Result<Session> {
        let pid = std::process::id();
        let mut trouble = StoreError::Busy { path: tmp.to_path_buf() };
        for attempt in 0..MAX_SESSIONS {
            let name = format!("{pid}-{attempt}");
            let lock_path = tmp.join(format!("{name}.lock"));
            let lock = match try_lock_file(&lock_path, rights) {
                Ok(Some(lock)) => lock,
                Ok(None) => continue,
                Err(error) if fs::symlink_metadata(&lock_path).is_ok() => {
                    trouble = error;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let folder = tmp.join(&name);
            let created = remove_all(&folder).and_then(|()| rights.create_private_folder(&folder));
            match created {
                Ok(()) => return Ok(Session { folder, lock_path, _lock: lock, counter: AtomicU64::new(0), rights }),
                // What a killed process left there may be another user's, or more than can be removed: the next name will do.
                Err(error) if fs::symlink_metadata(&folder).is_ok() => trouble = StoreError::io("create", &folder, error),
                Err(error) => return Err(StoreError::io("create", &folder, error)),
            }
        }
        Err(trouble)
    }

    /// A name in this session's folder that nobody else uses.
    pub fn fresh(&self) -> PathBuf {
        self.folder.join(self.counter.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Whatever stays is found by the next `sweep`.
        let _ = remove_all(&self.folder);
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// Removes what a dead process left, and its lock. Nothing if the process lives after all.
pub fn sweep_corner(corner: &Path, rights: Rights) -> Result<()> {
    let lock_path = corner.with_extension("lock");
    // Held while deleting, so that a new process with the same name waits its turn.
    let Some(_lock) = try_lock_file(&lock_path, rights)? else { return Ok(()) };
    let removed = remove_all(corner).map_err(|error| StoreError::io("remove", corner, error));
    removed.and_then(|()| remove_all(&lock_path).map_err(|error| StoreError::io("remove", &lock_path, error)))
}

/// The corners that nobody holds. Entries of `tmp` that are not named as ours are passed over.
pub fn stale(tmp: &Path) -> Result<Vec<PathBuf>> {
    let names = files::names(tmp).map_err(|error| StoreError::io("read", tmp, error))?;
    let mut corners: Vec<PathBuf> = names.iter().filter_map(|name| corner_name(name.to_str()?)).map(|name| tmp.join(name)).collect();
    corners.sort();
    corners.dedup();
    corners.retain(|corner| !is_held(&corner.with_extension("lock")));
    Ok(corners)
}

/// `PID-N` of `PID-N` and `PID-N.lock`.
fn corner_name(name: &str) -> Option<&str> {
    let stem = name.strip_suffix(".lock").unwrap_or(name);
    let (pid, attempt) = stem.split_once('-')?;
    let is_number = |text: &str| matches!(text.len(), 1..=10) && text.bytes().all(|b| b.is_ascii_digit());
    (is_number(pid) && is_number(attempt)).then_some(stem)
}

/// One that cannot be opened may be held.
fn is_held(lock_path: &Path) -> bool {
    match File::open(lock_path) {
        Ok(file) => matches!(file.try_lock(), Err(TryLockError::WouldBlock)),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// An exclusive lock on a file that is created for it, or none if somebody holds it.
pub fn try_lock_file(path: &Path, rights: Rights) -> Result<Option<File>> {
    loop {
        let file = rights.open_lock(path).map_err(|error| StoreError::io("open", path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", path, error)),
        }
        // The previous holder may have unlinked the file between our open and our lock.
        if staged::is_still(&file, fs::metadata(path)).map_err(|error| StoreError::io("look at", path, error))? {
            return Ok(Some(file));
        }
    }
}

pub fn stamp_ns(seconds: i64, nanoseconds: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_process_is_swept_and_a_live_one_is_not_and_nothing_else_either() {
        let space = tempfile::tempdir().unwrap();
        let tmp = space.path();
        let rights = Rights::of(&fs::metadata(tmp).unwrap());
        let live = Session::begin(tmp, rights).unwrap();
        fs::write(live.fresh(), "mine").unwrap();
        // What a killed process leaves: folder and lock file, the lock itself gone.
        fs::create_dir_all(tmp.join("4000000-0/out")).unwrap();
        fs::write(tmp.join("4000000-0.lock"), "").unwrap();
        fs::create_dir(tmp.join("4000001-12")).unwrap();
        fs::write(tmp.join("4000002-0.lock"), "").unwrap();
        let foreign = ["4000000-0.txt", "4000000", "notes", "notes.lock", "1-2-3", "-1", "a-1"];
        foreign.iter().for_each(|name| fs::write(tmp.join(name), "").unwrap());
        let corners = stale(tmp).unwrap();
        assert_eq!(corners, ["4000000-0", "4000001-12", "4000002-0"].map(|name| tmp.join(name)));
        corners.iter().for_each(|corner| sweep_corner(corner, rights).unwrap());
        let pid = std::process::id();
        let left: Vec<_> = files::names(tmp).unwrap().into_iter().filter(|name| !foreign.iter().any(|one| name == one)).collect();
        assert_eq!(left, [format!("{pid}-0"), format!("{pid}-0.lock")].map(std::ffi::OsString::from));
        assert!(foreign.iter().all(|name| tmp.join(name).exists()));
        let second = Session::begin(tmp, rights).unwrap();
        assert_ne!(second.folder, live.folder);
        drop((live, second));
        assert_eq!(files::names(tmp).unwrap().len(), foreign.len());
    }
}
