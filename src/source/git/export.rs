//! The files of a commit, written to a folder.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid, Repository, Tree};

use super::lfs::{self, Stand};
use super::{Git, GitError};
use crate::source::blobs::{self, Blobs};
use crate::source::entry;
use crate::source::error::FetchError;

/// Enough for any data set; a hostile repository may hold more.
const MAX_FILES: usize = 1_000_000;
const MAX_DEPTH: usize = 64;

/// Where the files of a pin stand.
pub fn tree(rev: &str, path: Option<&str>, blobs: Blobs) -> PathBuf {
    blobs.tree(&["git", rev, path.unwrap_or_default()])
}

/// Writes the files of a commit (or of a path in it) to where [`tree`] says. What stands there is replaced.
pub fn export(git: &Git, repository: &Repository, rev: Oid, path: Option<&str>, blobs: Blobs) -> Result<PathBuf, FetchError> {
    let target = tree(&rev.to_string(), path, blobs);
    blobs.build(&target, |out| {
        let mut writer = Writer { repository, out, stands: Vec::new() };
        writer.commit(rev, path)?;
        if writer.stands.is_empty() {
            return Ok(());
        }
        let placed = lfs::fetch(git, &writer.stands, blobs)?;
        Ok::<(), FetchError>(blobs::lay(&placed, out)?)
    })?;
    Ok(target)
}

struct Writer<'a> {
    repository: &'a Repository,
    out: &'a Path,
    /// Pointers of Git LFS, which are not written.
    stands: Vec<Stand>,
}

impl Writer<'_> {
    fn commit(&mut self, rev: Oid, path: Option<&str>) -> Result<(), GitError> {
        let tree = self.repository.find_commit(rev)?.tree()?;
        let Some(path) = path else { return self.tree(tree, Path::new("")) };
        let missing = |_| GitError::NoPath { rev: rev.to_string(), path: path.to_string() };
        let found = tree.get_path(Path::new(path)).map_err(missing)?;
        let name = Path::new(entry::file_name(path));
        match found.kind() {
            Some(ObjectType::Blob) => self.blob(found.id(), found.filemode(), name),
            Some(ObjectType::Tree) => self.tree(self.repository.find_tree(found.id())?, name),
            _ => Err(GitError::Entry(path.to_string(), "submodule")),
        }
    }

    fn tree(&mut self, tree: Tree, at: &Path) -> Result<(), GitError> {
        fs::create_dir_all(self.out.join(at))?;
        let mut open = vec![(tree.id(), at.to_path_buf(), 0usize)];
        let mut files = 0usize;
        while let Some((id, folder, depth)) = open.pop() {
            for entry in &self.repository.find_tree(id)? {
                let bytes = entry.name_bytes();
                let name =
                    std::str::from_utf8(bytes).ok().filter(|name| !name.is_empty() && *name != ".." && *name != "." && !name.contains('/'));
                let Some(name) = name else {
                    return Err(GitError::Entry(String::from_utf8_lossy(bytes).into_owned(), "file with a name that is not text"));
                };
                let path = folder.join(name);
                match entry.kind() {
                    Some(ObjectType::Tree) if depth < MAX_DEPTH => {
                        fs::create_dir(self.out.join(&path))?;
                        open.push((entry.id(), path, depth + 1));
                    }
                    Some(ObjectType::Blob) if files < MAX_FILES => {
                        files += 1;
                        self.blob(entry.id(), entry.filemode(), &path)?;
                    }
                    Some(ObjectType::Commit) => return Err(GitError::Entry(name.to_string(), "submodule")),
                    _ => return Err(GitError::Entry(name.to_string(), "tree beyond what is read")),
                }
            }
        }
        Ok(())
    }

    fn blob(&mut self, id: Oid, mode: i32, path: &Path) -> Result<(), GitError> {
        let name = || path.display().to_string();
        let is_executable = match mode {
            0o100_644 | 0o100_664 => false,
            0o100_755 => true,
            0o120_000 => return Err(GitError::Entry(name(), "symbolic link")),
            _ => return Err(GitError::Entry(name(), "file of an unknown mode")),
        };
        let blob = self.repository.find_blob(id)?;
        match lfs::pointer(blob.content()) {
            Some(Ok(pointer)) => {
                self.stands.push(Stand { path: path.to_path_buf(), pointer, is_executable });
                return Ok(());
            }
            Some(Err(why)) => return Err(GitError::Large { name: name(), why: why.to_string() }),
            None => {}
        }
        let mode = if is_executable { 0o755 } else { 0o644 };
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(self.out.join(path))?;
        file.write_all(blob.content())?;
        Ok(())
    }
}
