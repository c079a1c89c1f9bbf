//! The files of a commit, written to a folder.

use std::io::Write;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid, Repository, Tree};

use super::lfs::{self, Stand};
use super::{Git, GitError};
use crate::source::blobs::Blobs;
use crate::source::entry;
use crate::source::error::FetchError;
use crate::source::out::Out;

/// Where the files of a pin stand.
pub fn tree(rev: &str, path: Option<&str>, blobs: Blobs) -> PathBuf {
    blobs.tree(&["git", rev, path.unwrap_or_default()])
}

/// Writes the files of a commit (or of a path in it) to where [`tree`] says. What stands there is replaced.
pub fn export(git: &Git, repository: &Repository, rev: Oid, path: Option<&str>, blobs: Blobs) -> Result<PathBuf, FetchError> {
    let target = tree(&rev.to_string(), path, blobs);
    blobs.build(&target, |folder| {
        let mut writer = Writer { repository, out: Out::new(folder, git.client.limits()), stands: Vec::new() };
        writer.commit(rev, path)?;
        let Writer { mut out, stands, .. } = writer;
        lfs::fetch(git, &stands, blobs, &mut out)
    })?;
    Ok(target)
}

struct Writer<'a> {
    repository: &'a Repository,
    out: Out<'a>,
    /// Pointers of Git LFS, which are not written.
    stands: Vec<Stand>,
}

impl Writer<'_> {
    fn commit(&mut self, rev: Oid, path: Option<&str>) -> Result<(), GitError> {
        let tree = self.repository.find_commit(rev)?.tree()?;
        let Some(path) = path else { return self.tree(&tree, "") };
        let missing = |_| GitError::NoPath { rev: rev.to_string(), path: path.to_string() };
        let found = tree.get_path(Path::new(path)).map_err(missing)?;
        let name = entry::file_name(path);
        match found.kind() {
            Some(ObjectType::Blob) => self.blob(found.id(), found.filemode(), name),
            Some(ObjectType::Tree) => self.tree(&self.repository.find_tree(found.id())?, name),
            _ => Err(GitError::Entry { name: path.to_string(), kind: "submodule" }),
        }
    }

    /// A loop, not a recursion: a path that is too deep is refused by its name.
    fn tree(&mut self, tree: &Tree, at: &str) -> Result<(), GitError> {
        if !at.is_empty() {
            self.out.folder(at)?;
        }
        let mut open = vec![(tree.id(), at.to_string())];
        while let Some((id, folder)) = open.pop() {
            self.check_size(id, &folder)?;
            for entry in &self.repository.find_tree(id)? {
                let bytes = entry.name_bytes();
                let Ok(name) = std::str::from_utf8(bytes) else {
                    return Err(GitError::Entry {
                        name: String::from_utf8_lossy(bytes).into_owned(),
                        kind: "file with a name that is not text",
                    });
                };
                // Such a name could otherwise pass for a path.
                if name.contains('/') {
                    return Err(GitError::Entry { name: name.to_string(), kind: "file with a slash in its name" });
                }
                let path = if folder.is_empty() { name.to_string() } else { format!("{folder}/{name}") };
                match entry.kind() {
                    Some(ObjectType::Tree) => {
                        self.out.folder(&path)?;
                        open.push((entry.id(), path));
                    }
                    Some(ObjectType::Blob) => self.blob(entry.id(), entry.filemode(), &path)?,
                    _ => return Err(GitError::Entry { name: path, kind: "submodule" }),
                }
            }
        }
        Ok(())
    }

    fn blob(&mut self, id: Oid, mode: i32, path: &str) -> Result<(), GitError> {
        let is_executable = match mode {
            0o100_644 | 0o100_664 => false,
            0o100_755 => true,
            0o120_000 => return Err(GitError::Entry { name: path.to_string(), kind: "symbolic link" }),
            _ => return Err(GitError::Entry { name: path.to_string(), kind: "file of an unknown mode" }),
        };
        self.check_size(id, path)?;
        let blob = self.repository.find_blob(id)?;
        match lfs::pointer(blob.content()) {
            Some(Ok(pointer)) if self.stands.len() < self.out.limits().listed => {
                self.stands.push(Stand { path: path.to_string(), pointer, is_executable });
                return Ok(());
            }
            Some(Ok(_)) => return Err(GitError::Stands(self.out.limits().listed)),
            Some(Err(why)) => return Err(GitError::Large { name: path.to_string(), why: why.to_string() }),
            None => {}
        }
        let content = blob.content();
        self.out.file(path, content.len() as u64, is_executable)?.write_all(content)?;
        Ok(())
    }

    /// An object is in memory as a whole: one that is too large is refused by what its header says. This holds for repositories on this machine, too.
    fn check_size(&self, id: Oid, path: &str) -> Result<(), GitError> {
        let limit_bytes = self.out.limits().git_object_bytes;
        let (size_bytes, _) = self.repository.odb()?.read_header(id)?;
        if size_bytes as u64 > limit_bytes {
            return Err(GitError::Size { name: path.to_string(), size_bytes: size_bytes as u64, limit_bytes });
        }
        Ok(())
    }
}
