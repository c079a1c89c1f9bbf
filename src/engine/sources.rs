//! Sources: what they hold, by digest. A step never reads them in place; it reads what the store has taken in under these digests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::memory::Growth;
use crate::base::{Exit, files};
use crate::key::Content;
use crate::steps::Failure;
use crate::store::{Entry, StatCache, Store, Tree};

/// What is kept of a file besides its path, and the text in which it is written down, about.
const FILE_BYTES: u64 = 512;

/// A source as it was when the build looked at it.
#[derive(Debug)]
pub struct Snapshot {
    /// As the manifest has it.
    pub path: PathBuf,
    pub content: Content,
    pub tree: Tree,
    /// The file or folder itself, links followed.
    real: PathBuf,
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
        let snapshot = Arc::new(self.take(path)?);
        self.seen.insert(path.to_path_buf(), snapshot.clone());
        Ok(snapshot)
    }

    /// A source may itself be a link; links within a folder are refused, because they would reach outside.
    fn take(&mut self, path: &Path) -> Result<Snapshot, Failure> {
        let real = path.canonicalize().map_err(|error| missing(path, &error))?;
        let kind = fs::metadata(&real).map_err(|error| missing(path, &error))?.file_type();
        if kind.is_file() {
            let name = path.file_name().or(real.file_name()).map_or(Path::new(""), Path::new);
            let tree = Tree::new(vec![self.entry(&real, name)?]).map_err(super::store_failure)?;
            return Ok(Snapshot { path: path.to_path_buf(), content: Content::File(tree.digest()), tree, real });
        }
        if !kind.is_dir() {
            return Err(user_fault(format!("`{}` is neither a file nor a folder", path.display())));
        }
        let (mut entries, mut held, mut failed) = (Vec::new(), Growth::default(), None);
        let visited = files::visit(&real, |relative| {
            let bytes = FILE_BYTES + relative.as_os_str().len() as u64;
            let shortage = held.add(bytes, &format!("the list of the files in `{}`", path.display())).map_err(Failure::from);
            let entry = shortage.and_then(|()| self.entry(&real.join(relative), relative));
            entry.map(|entry| entries.push(entry)).map_err(|failure| {
                failed = Some(failure);
                std::io::Error::other("one of them failed")
            })
        });
        if let Some(failure) = failed {
            return Err(failure);
        }
        visited.map_err(|error| missing(path, &error))?;
        let tree = Tree::new(entries).map_err(super::store_failure)?;
        Ok(Snapshot { path: path.to_path_buf(), content: Content::Folder(tree.digest()), tree, real })
    }

    fn entry(&mut self, file: &Path, relative: &Path) -> Result<Entry, Failure> {
        let content = self.cache.content(file).map_err(|error| missing(file, &error))?;
        let Some(path) = relative.to_str().map(str::to_string) else {
            return Err(user_fault(format!("`{}` has a name that is not UTF-8", file.display())));
        };
        Ok(Entry { path, digest: content.digest, size_bytes: content.size_bytes, mode: content.mode })
    }

    /// Keeps the digests for the next build.
    pub fn save(&mut self) -> Result<(), Failure> {
        self.cache.save(self.store).map_err(super::store_failure)
    }
}

impl Snapshot {
    /// Where a file of its tree lies.
    pub fn file(&self, entry: &Entry) -> PathBuf {
        match self.content {
            Content::File(_) => self.real.clone(),
            Content::Folder(_) => self.real.join(&entry.path),
        }
    }

    /// Where a step finds it, laid out in `folder`.
    pub fn within(&self, folder: &Path) -> PathBuf {
        match (self.content, self.tree.entries()) {
            (Content::File(_), [entry]) => folder.join(&entry.path),
            _ => folder.to_path_buf(),
        }
    }
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
