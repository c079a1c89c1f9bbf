//! A process's own corner of `tmp/`, and locks that the kernel releases when their holder dies. A corner whose lock nobody holds is garbage.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::files;

use super::error::{Result, StoreError};

/// `tmp/NAME/` with `tmp/NAME.lock` held; both go with the process.
#[derive(Debug)]
pub struct Session {
    folder: PathBuf,
    lock_path: PathBuf,
    _lock: File,
    counter: AtomicU64,
    /// The file system's clock when the session began, in nanoseconds: what mtimes are compared with.
    pub started_ns: i128,
}

impl Session {
    pub fn begin(tmp: &Path) -> Result<Session> {
        let pid = std::process::id();
        for attempt in 0u32.. {
            let name = format!("{pid}-{attempt}");
            let lock_path = tmp.join(format!("{name}.lock"));
            let Some(lock) = try_lock_file(&lock_path)? else { continue };
            let folder = tmp.join(&name);
            remove_folder(&folder)?;
            fs::create_dir(&folder).map_err(|error| StoreError::io("create", &folder, error))?;
            let meta = fs::metadata(&folder).map_err(|error| StoreError::io("read", &folder, error))?;
            let started_ns = stamp_ns(meta.mtime(), meta.mtime_nsec());
            return Ok(Session { folder, lock_path, _lock: lock, counter: AtomicU64::new(0), started_ns });
        }
        Err(StoreError::Busy { path: tmp.to_path_buf() })
    }

    /// A name in this session's folder that nobody else uses.
    pub fn fresh(&self) -> PathBuf {
        self.folder.join(self.counter.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// The file system's clock: when a file written now would be stamped.
    pub fn now_ns(&self) -> io::Result<i128> {
        let path = self.fresh();
        File::create(&path)?;
        let meta = fs::metadata(&path)?;
        fs::remove_file(&path)?;
        Ok(stamp_ns(meta.mtime(), meta.mtime_nsec()))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Whatever stays is found by the next `sweep`.
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// Removes what dead processes left in `tmp/`; returns how many corners there were.
pub fn sweep(tmp: &Path) -> Result<usize> {
    let mut swept = 0;
    for folder in stale(tmp)? {
        let lock_path = folder.with_extension("lock");
        // Held while deleting, so that a new process with the same name waits its turn.
        let Some(_lock) = try_lock_file(&lock_path)? else { continue };
        remove_folder(&folder)?;
        let _ = fs::remove_file(&lock_path);
        swept += 1;
    }
    Ok(swept)
}

/// The corners that nobody holds.
pub fn stale(tmp: &Path) -> Result<Vec<PathBuf>> {
    let names = files::names(tmp).map_err(|error| StoreError::io("read", tmp, error))?;
    let mut corners: Vec<PathBuf> = names.iter().map(|name| tmp.join(name).with_extension("")).collect();
    corners.dedup();
    corners.retain(|corner| !is_held(&corner.with_extension("lock")));
    Ok(corners)
}

fn is_held(lock_path: &Path) -> bool {
    let Ok(file) = File::open(lock_path) else { return false };
    matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

/// An exclusive lock on a file that is created for it, or none if somebody holds it.
pub fn try_lock_file(path: &Path) -> Result<Option<File>> {
    loop {
        let file = open_lock(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", path, error)),
        }
        if is_still_at(&file, path) {
            return Ok(Some(file));
        }
    }
}

pub fn open_lock(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(|error| StoreError::io("open", path, error))
}

/// The previous holder may have unlinked the file between our open and our lock.
fn is_still_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

pub fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A plain file where a folder should be.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            fs::remove_file(folder).map_err(|error| StoreError::io("remove", folder, error))
        }
        Err(error) => Err(StoreError::io("remove", folder, error)),
    }
}

pub fn stamp_ns(seconds: i64, nanoseconds: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_process_is_swept_and_a_live_one_is_not() {
        let space = tempfile::tempdir().unwrap();
        let tmp = space.path();
        let live = Session::begin(tmp).unwrap();
        fs::write(live.fresh(), "mine").unwrap();
        // What a killed process leaves: folder and lock file, the lock itself gone.
        fs::create_dir_all(tmp.join("4000000-0/out")).unwrap();
        fs::write(tmp.join("4000000-0.lock"), "").unwrap();
        fs::create_dir(tmp.join("no-lock")).unwrap();
        fs::write(tmp.join("stray"), "").unwrap();
        assert_eq!(sweep(tmp).unwrap(), 3);
        let left = files::names(tmp).unwrap();
        let pid = std::process::id();
        assert_eq!(left, [format!("{pid}-0"), format!("{pid}-0.lock")].map(std::ffi::OsString::from));
        let second = Session::begin(tmp).unwrap();
        assert_ne!(second.folder, live.folder);
        drop((live, second));
        assert!(files::names(tmp).unwrap().is_empty());
    }
}
