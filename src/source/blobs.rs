//! Fetched files by their digests, complete ones and beginnings, and the trees that are made of them. One file serves every tree that holds it.
//!
//! ```text
//! sources/blobs/sha256-9f86…          complete and checked when it was put here
//! sources/blobs/sha256-9f86….part     the beginning of one
//! sources/trees/KEY/…                 the files of one pin; hard links where they may be
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::FetchError;
use super::http::{Client, Expected, HttpError, Request, download};
use super::remote::News;
use super::tree;
use crate::base::{Digest, Hasher, files};

/// Files that are fetched at once.
const LANES: usize = 4;

/// One file that a tree needs.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Within the tree.
    pub path: PathBuf,
    /// As messages call it.
    pub name: String,
    pub request: Request,
    pub expected: Expected,
    pub is_executable: bool,
}

/// A file of a tree: where it goes and where its bytes are.
#[derive(Clone, Debug)]
pub struct Placed {
    pub path: PathBuf,
    pub blob: PathBuf,
    pub is_executable: bool,
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
        Ok(file)
    }

    /// Where the files of a pin stand.
    pub fn tree(&self, parts: &[&str]) -> PathBuf {
        let mut hasher = Hasher::new();
        parts.iter().for_each(|part| hasher.part(part.as_bytes()));
        self.cache.join("trees").join(hasher.finish().hex())
    }

    /// Fetches what is not here, several at a time. The first that fails, in the order of the list, is the one that is told.
    pub fn fetch(&self, client: &Client, wanted: &[Wanted]) -> Result<Vec<Placed>, FetchError> {
        fs::create_dir_all(self.folder())?;
        let next = AtomicUsize::new(0);
        let results: Mutex<Vec<(usize, Result<PathBuf, HttpError>)>> = Mutex::new(Vec::new());
        let lane = || {
            loop {
                let index = next.fetch_add(1, Ordering::SeqCst);
                let Some(one) = wanted.get(index) else { return };
                let result = self.obtain(client, &one.request, &one.name, &one.expected);
                if result.is_err() {
                    next.store(wanted.len(), Ordering::SeqCst);
                }
                results.lock().unwrap_or_else(|broken| broken.into_inner()).push((index, result));
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..LANES.min(wanted.len()) {
                scope.spawn(lane);
            }
        });
        let mut results = results.into_inner().unwrap_or_else(|broken| broken.into_inner());
        results.sort_by_key(|(index, _)| *index);
        let mut placed = Vec::with_capacity(wanted.len());
        for (one, (_, result)) in wanted.iter().zip(results) {
            placed.push(Placed { path: one.path.clone(), blob: result?, is_executable: one.is_executable });
        }
        Ok(placed)
    }

    /// One file, from here or from there, checked in either case.
    pub fn obtain(&self, client: &Client, request: &Request, name: &str, expected: &Expected) -> Result<PathBuf, HttpError> {
        let folder = self.folder();
        fs::create_dir_all(&folder)?;
        let stem = match expected {
            Expected::Sha256 { hex, .. } => format!("sha256-{hex}"),
            Expected::GitBlob { hex, .. } => format!("git-{hex}"),
            Expected::Anything => format!("url-{}", Digest::of(request.address.to_string().as_bytes()).hex()),
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
            if !is_at(&file, &part) {
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
        let mut copy = tempfile::Builder::new().prefix(".blob-").permissions(mode).tempfile_in(&folder)?;
        io::copy(&mut File::open(file)?, &mut copy)?;
        if !expected.is_met_by(copy.path())? {
            return Ok(None);
        }
        copy.persist(&done).map_err(|error| error.error)?;
        Ok(Some(done))
    }

    /// Whether a complete file is here and still what it was. One that has been touched is removed.
    fn has(&self, done: &Path, expected: &Expected) -> io::Result<bool> {
        if !done.is_file() {
            return Ok(false);
        }
        if expected.is_met_by(done)? {
            return Ok(true);
        }
        fs::remove_file(done)?;
        Ok(false)
    }

    /// Makes a tree of its files, whole or not at all; what stands at `target` is replaced.
    pub fn assemble(&self, target: &Path, placed: &[Placed]) -> io::Result<()> {
        self.build(target, |out| lay(placed, out))
    }

    /// The same for files that `write` puts into an empty folder.
    pub fn build<E: From<io::Error>>(&self, target: &Path, write: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
        let parent = target.parent().unwrap_or(self.cache);
        fs::create_dir_all(parent)?;
        let space = tempfile::Builder::new().prefix(".tree-").tempdir_in(parent)?;
        let out = space.path().join("content");
        fs::create_dir(&out)?;
        write(&out)?;
        Ok(put(&out, target)?)
    }

    fn folder(&self) -> PathBuf {
        self.cache.join("blobs")
    }
}

/// Puts files where they belong below a folder.
pub fn lay(placed: &[Placed], out: &Path) -> io::Result<()> {
    for file in placed {
        let to = out.join(&file.path);
        fs::create_dir_all(to.parent().unwrap_or(out))?;
        place(&file.blob, &to, file.is_executable)?;
    }
    Ok(())
}

/// Moves a finished tree to where it belongs. The same files that stand there already are left alone: somebody may be reading them.
pub fn put(out: &Path, target: &Path) -> io::Result<()> {
    if target.is_dir() && tree::digest(target)? == tree::digest(out)? {
        return Ok(());
    }
    if target.is_dir() {
        fs::remove_dir_all(target)?;
    } else if target.exists() {
        fs::remove_file(target)?;
    }
    fs::rename(out, target)
}

fn place(blob: &Path, to: &Path, is_executable: bool) -> io::Result<()> {
    // A link has one mode in all its places.
    if !is_executable && fs::hard_link(blob, to).is_ok() {
        return Ok(());
    }
    let mode = if is_executable { 0o755 } else { 0o644 };
    let mut target = OpenOptions::new().write(true).create_new(true).mode(mode).open(to)?;
    io::copy(&mut File::open(blob)?, &mut target)?;
    Ok(())
}

/// Whether a path still leads to a file that was opened before.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(opened), Ok(there)) = (file.metadata(), fs::metadata(path)) else { return false };
    (opened.dev(), opened.ino()) == (there.dev(), there.ino())
}
