//! Sources: their digests, and whether they are still what they were. A step must not be recorded under the digest of data that it did not read.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::{Digest, Exit, files};
use crate::key::Content;
use crate::steps::Failure;
use crate::store::{Entry, Mode, Stamp, StatCache, Store, Tree};

/// A source as it was when the build looked at it.
#[derive(Debug)]
pub struct Snapshot {
    pub path: PathBuf,
    pub content: Content,
    /// Each file's stamp, in the tree's order.
    stamps: Vec<(PathBuf, Stamp)>,
    /// Whether equal stamps prove equal content. Not while a file is so young that a change need not show in its stamp.
    is_settled: AtomicBool,
}

/// The build's sources: each is read once, however many steps use it.
#[derive(Debug)]
pub struct Sources<'a> {
    store: &'a Store,
    cache: StatCache,
    seen: BTreeMap<PathBuf, Arc<Snapshot>>,
}

impl<'a> Sources<'a> {
    pub fn new(store: &'a Store) -> Sources<'a> {
        Sources { store, cache: StatCache::load(store), seen: BTreeMap::new() }
    }

    pub fn snapshot(&mut self, path: &Path) -> Result<Arc<Snapshot>, Failure> {
        if let Some(seen) = self.seen.get(path) {
            return Ok(seen.clone());
        }
        let cache = &mut self.cache;
        let mut known = |file: &Path, stamp: &Stamp| cache.get(file, stamp);
        let (snapshot, hashed) = take(self.store, path, &mut known)?;
        for (file, stamp, digest) in hashed {
            self.cache.insert(&file, stamp, digest);
        }
        let snapshot = Arc::new(snapshot);
        self.seen.insert(path.to_path_buf(), snapshot.clone());
        Ok(snapshot)
    }

    /// Keeps the digests for the next build.
    pub fn save(&mut self) -> Result<(), Failure> {
        self.cache.save(self.store).map_err(super::store_failure)
    }
}

impl Snapshot {
    /// Whether the source still holds what it held. Reads its data only where the stamps prove nothing.
    pub fn is_current(&self, store: &Store) -> bool {
        let Ok(stamps) = stamps(&self.path) else { return false };
        if self.is_settled.load(Ordering::SeqCst) && stamps == self.stamps {
            return true;
        }
        let Ok((now, _)) = take(store, &self.path, &mut |_, _| None) else { return false };
        let is_same = now.content == self.content;
        if is_same && now.stamps == self.stamps && now.is_settled.into_inner() {
            // It has grown old enough meanwhile: from here on a look suffices.
            self.is_settled.store(true, Ordering::SeqCst);
        }
        is_same
    }
}

/// Files that were read, for the stat cache.
type Hashed = Vec<(PathBuf, Stamp, Digest)>;

fn take(store: &Store, path: &Path, known: &mut dyn FnMut(&Path, &Stamp) -> Option<Digest>) -> Result<(Snapshot, Hashed), Failure> {
    let stamps = stamps(path)?;
    let is_file = path.is_file();
    let mut entries = Vec::with_capacity(stamps.len());
    let mut hashed = Vec::new();
    // Asked for once, before the first file is read.
    let mut now_ns = None;
    for (file, stamp) in &stamps {
        let digest = match known(file, stamp) {
            Some(digest) => digest,
            None => {
                let now = match now_ns {
                    Some(now) => now,
                    None => *now_ns.insert(store.now_ns().map_err(super::store_failure)?),
                };
                let (digest, _) = Digest::of_file(file).map_err(|error| Failure::file("read", file, &error))?;
                if stamp.is_settled(now) {
                    hashed.push((file.clone(), *stamp, digest));
                }
                digest
            }
        };
        let relative = if is_file { file.file_name().map(Path::new) } else { file.strip_prefix(path).ok() };
        entries.push(entry(file, relative.unwrap_or(file), stamp, digest)?);
    }
    let tree = Tree::new(entries).map_err(super::store_failure)?;
    let content = if is_file { Content::File(tree.digest()) } else { Content::Folder(tree.digest()) };
    // What was known had settled long ago; the rest was looked at now.
    let is_settled = AtomicBool::new(now_ns.is_none_or(|now| stamps.iter().all(|(_, stamp)| stamp.is_settled(now))));
    Ok((Snapshot { path: path.to_path_buf(), content, stamps, is_settled }, hashed))
}

fn entry(file: &Path, relative: &Path, stamp: &Stamp, digest: Digest) -> Result<Entry, Failure> {
    let meta = fs::metadata(file).map_err(|error| Failure::file("read", file, &error))?;
    let mode = if meta.permissions().mode() & 0o111 == 0 { Mode::Plain } else { Mode::Executable };
    let Some(path) = relative.to_str().map(str::to_string) else {
        return Err(user_fault(format!("`{}` has a name that is not UTF-8", file.display())));
    };
    Ok(Entry { path, digest, size_bytes: stamp.size_bytes, mode })
}

/// The files of a source in a fixed order. A source may itself be a link; links inside a folder are refused, because they would reach outside.
fn stamps(path: &Path) -> Result<Vec<(PathBuf, Stamp)>, Failure> {
    let meta = fs::metadata(path).map_err(|error| missing(path, &error))?;
    if meta.is_file() {
        return Ok(vec![(path.to_path_buf(), Stamp::of(&meta))]);
    }
    let inner = files::walk(path).map_err(|error| missing(path, &error))?;
    let stamp = |relative: PathBuf| {
        let file = path.join(relative);
        let meta = fs::symlink_metadata(&file).map_err(|error| missing(&file, &error))?;
        Ok((file, Stamp::of(&meta)))
    };
    inner.into_iter().map(stamp).collect()
}

fn missing(path: &Path, error: &std::io::Error) -> Failure {
    use std::io::ErrorKind::{NotADirectory, NotFound, Other};
    let failure = Failure::file("read", path, error);
    match error.kind() {
        NotFound | NotADirectory => Failure { exit: Exit::Usage, ..failure },
        Other if error.raw_os_error().is_none() => Failure { exit: Exit::Usage, ..failure },
        _ => failure,
    }
}

fn user_fault(message: String) -> Failure {
    Failure { exit: Exit::Usage, ..Failure::new(message) }
}
