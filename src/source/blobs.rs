//! Fetched files by their digests, complete ones and beginnings, and the trees that are made of them. One file serves every tree that holds it.
//!
//! ```text
//! sources/blobs/sha256-9f86…          complete and checked when it was put here
//! sources/blobs/sha256-9f86….part     the beginning of one
//! sources/trees/KEY/…                 the files of one pin; hard links where they may be
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::error::FetchError;
use super::http::{Client, Expected, HttpError, Request, download};
use super::remote::News;
use super::tree;
use crate::base::{Digest, Hasher, files, staged};

/// How the folder is called in which a tree is made.
const HALF_MADE: &str = ".tree-";
/// How a file is called while it is copied.
const HALF_COPIED: &str = ".blob-";
/// Files that are fetched at once.
const LANES: usize = 4;

/// One file to fetch.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// As messages call it.
    pub name: String,
    pub request: Request,
    pub expected: Expected,
}

/// A folder of fetched sources.
#[derive(Clone, Copy, Debug)]
pub struct Blobs<'a> {
    pub cache: &'a Path,
}

impl Blobs<'_> {
    /// Waits until nobody else fetches into this folder; lasts as long as what it returns.
    pub fn alone(&self) -> io::Result<File> {
        fs::create_dir_all(self.cache)?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(self.cache.join("lock"))?;
        file.lock()?;
        self.sweep()?;
        Ok(file)
    }

    /// Removes half-made trees and copies that a killed run has left. Whoever makes one holds the lock.
    fn sweep(&self) -> io::Result<()> {
        for tree in begun(&self.cache.join("trees"), HALF_MADE)? {
            fs::remove_dir_all(tree)?;
        }
        begun(&self.folder(), HALF_COPIED)?.into_iter().try_for_each(fs::remove_file)
    }

    /// Where the files of a pin stand.
    pub fn tree(&self, parts: &[&str]) -> PathBuf {
        let mut hasher = Hasher::new();
        parts.iter().for_each(|part| hasher.part(part.as_bytes()));
        self.cache.join("trees").join(hasher.finish().hex())
    }

    /// Fetches files that are not here, several at a time, and hands on each one's place. Of those that fail, the first in the list is reported.
    ///
    /// `wanted` makes what is needed for one file when its turn comes: of a million files not all is in memory at once.
    pub fn fetch(
        &self,
        client: &Client,
        files: usize,
        size_bytes: u64,
        wanted: impl Fn(usize) -> Result<Wanted, FetchError> + Sync,
        fetched: impl Fn(usize, PathBuf) -> Result<(), FetchError> + Sync,
    ) -> Result<(), FetchError> {
        fs::create_dir_all(self.folder())?;
        let (start, limit) = (Instant::now(), client.limits().time_for_source(files, size_bytes));
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<(usize, FetchError)>> = Mutex::new(None);
        let one = |client: &Client, index: usize| {
            let wanted = wanted(index)?;
            if start.elapsed() > limit {
                let why = format!("its files are not here in the time that {files} of them may take");
                return Err(HttpError::TooSlow { host: wanted.request.address.authority(), why }.into());
            }
            fetched(index, self.obtain(client, &wanted.request, &wanted.name, &wanted.expected)?)
        };
        let lane = || {
            let client = client.lane();
            loop {
                let index = next.fetch_add(1, Ordering::SeqCst);
                if index >= files {
                    return;
                }
                if let Err(error) = one(&client, index) {
                    next.store(files, Ordering::SeqCst);
                    let mut failed = failed.lock().unwrap_or_else(|broken| broken.into_inner());
                    if failed.as_ref().is_none_or(|(first, _)| index < *first) {
                        *failed = Some((index, error));
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..LANES.min(files) {
                // Where the system gives no further thread, those that there are take over its part.
                let _started = std::thread::Builder::new().spawn_scoped(scope, lane);
            }
            lane();
        });
        match failed.into_inner().unwrap_or_else(|broken| broken.into_inner()) {
            None => Ok(()),
            Some((_, error)) => Err(error),
        }
    }

    /// One file, from here or from there, checked in either case.
    pub fn obtain(&self, client: &Client, request: &Request, name: &str, expected: &Expected) -> Result<PathBuf, HttpError> {
        let folder = self.folder();
        fs::create_dir_all(&folder)?;
        let stem = match expected {
            Expected::Sha256 { hex, .. } => format!("sha256-{hex}"),
            Expected::GitBlob { hex, .. } => format!("git-{hex}"),
            Expected::Anything => format!("url-{}", Digest::of(request.address.url().as_bytes()).hex()),
        };
        let (done, part) = (folder.join(&stem), folder.join(format!("{stem}.part")));
        loop {
            if *expected != Expected::Anything && self.has(&done, expected)? {
                client.hear(&News::Found { bytes: fs::metadata(&done)?.len() });
                return Ok(done);
            }
            let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(&part)?;
            // Two builds that need the same file fetch it once: the other waits here and then finds it complete.
            file.lock()?;
            if !staged::is_still(&file, fs::metadata(&part))? {
                continue;
            }
            let sha256 = download(client, request, name, expected, &part, &mut file)?;
            let done = if *expected == Expected::Anything { folder.join(format!("sha256-{sha256}")) } else { done };
            fs::rename(&part, &done)?;
            files::sync_folder(&folder)?;
            let _none = fs::remove_file(part.with_extension("version"));
            return Ok(done);
        }
    }

    /// Takes a file of this machine in, if it is what it should be. A copy: the original may change.
    pub fn adopt(&self, file: &Path, sha256: &str, expected: &Expected) -> io::Result<Option<PathBuf>> {
        let folder = self.folder();
        fs::create_dir_all(&folder)?;
        let done = folder.join(format!("sha256-{sha256}"));
        if self.has(&done, expected)? {
            return Ok(Some(done));
        }
        let mode = fs::Permissions::from_mode(0o644);
        let mut copy = tempfile::Builder::new().prefix(HALF_COPIED).permissions(mode).tempfile_in(&folder)?;
        io::copy(&mut File::open(file)?, &mut copy)?;
        if !expected.is_met_by(copy.path())? {
            return Ok(None);
        }
        copy.persist(&done).map_err(|error| error.error)?;
        Ok(Some(done))
    }

    /// Whether a complete file is here and still what it was. One that has been touched is removed.
    fn has(&self, done: &Path, expected: &Expected) -> io::Result<bool> {
        if !files::is_file(done)? {
            return Ok(false);
        }
        if expected.is_met_by(done)? {
            return Ok(true);
        }
        fs::remove_file(done)?;
        Ok(false)
    }

    /// Makes a tree of what `write` puts into an empty folder, whole or not at all; what stands at `target` is replaced.
    pub fn build<E: From<io::Error>>(&self, target: &Path, write: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
        let parent = target.parent().unwrap_or(self.cache);
        fs::create_dir_all(parent)?;
        let space = tempfile::Builder::new().prefix(HALF_MADE).tempdir_in(parent)?;
        let out = space.path().join("content");
        fs::create_dir(&out)?;
        write(&out)?;
        Ok(put(&out, target)?)
    }

    fn folder(&self) -> PathBuf {
        self.cache.join("blobs")
    }
}

/// Refuses a source that has more bytes than a source may have, before the first of them is fetched.
pub fn refuse_too_large(client: &Client, name: &str, size_bytes: u64) -> Result<(), HttpError> {
    let limit_bytes = client.limits().source_bytes;
    if size_bytes > limit_bytes {
        return Err(HttpError::TooLarge { name: name.to_string(), size_bytes, limit_bytes });
    }
    Ok(())
}

/// Moves a finished tree to where it belongs. The same files that stand there already are left alone: somebody may be reading them.
pub fn put(out: &Path, target: &Path) -> io::Result<()> {
    match files::kind(target)? {
        Some(found) if found.is_dir() && tree::digest(target)? == tree::digest(out)? => return Ok(()),
        Some(found) if found.is_dir() => fs::remove_dir_all(target)?,
        Some(_) => fs::remove_file(target)?,
        None => {}
    }
    fs::rename(out, target)
}

/// What lies in a folder under names that begin so. Without the folder, nothing does.
fn begun(folder: &Path, prefix: &str) -> io::Result<Vec<PathBuf>> {
    let names = if files::is_folder(folder)? { files::names(folder)? } else { Vec::new() };
    Ok(names.into_iter().filter(|name| name.to_str().is_some_and(|name| name.starts_with(prefix))).map(|name| folder.join(name)).collect())
}
