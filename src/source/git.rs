//! Git repositories on this machine: `file://` URLs and paths. One bare clone for each URL, one folder of plain files for each pin.
//!
//! Files come out as git stores them: no filters, no line-end conversion, no attributes, so that a commit means the same bytes everywhere.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use git2::{FetchOptions, ObjectType, Oid, Repository, Tree, build::RepoBuilder};

use super::blobs::{self, Blobs};
use super::origin::Want;
use crate::base::Digest;

/// Enough for any data set; a hostile repository may hold more.
const MAX_FILES: usize = 1_000_000;
const MAX_DEPTH: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("this version of slmops has no {0} transport: it reads repositories on this machine (a path or `file://`)")]
    Transport(String),
    #[error("there is no repository `{0}`")]
    Missing(String),
    #[error("the repository has no {0}")]
    NoRevision(String),
    #[error("commit {rev} has no `{path}`")]
    NoPath { rev: String, path: String },
    #[error("`{0}` is a {1}, which a source cannot hold")]
    Entry(String, &'static str),
    #[error("git: {}", .0.message())]
    Git(#[from] git2::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Where a URL leads on this machine.
pub fn local_path(url: &str, folder: &Path) -> Result<PathBuf, GitError> {
    if let Some(path) = url.strip_prefix("file://") {
        return Ok(PathBuf::from(path));
    }
    if let Some((scheme, _)) = url.split_once("://") {
        return Err(GitError::Transport(scheme.to_string()));
    }
    // `host:path`, as ssh writes it; a colon behind a slash is part of a path.
    if let Some((host, _)) = url.split_once(':')
        && !host.contains('/')
    {
        return Err(GitError::Transport("ssh".to_string()));
    }
    Ok(folder.join(url))
}

/// The clone of a URL, with everything that its origin has now.
pub fn fetch(url: &str, folder: &Path, cache: &Path) -> Result<Repository, GitError> {
    let origin = local_path(url, folder)?;
    if !origin.is_dir() {
        return Err(GitError::Missing(url.to_string()));
    }
    let origin = origin.canonicalize()?;
    let clone = clone_folder(&origin, cache);
    let repository = match Repository::open_bare(&clone) {
        Ok(repository) => repository,
        Err(_) => {
            // A clone that was cut short is made anew.
            if clone.exists() {
                fs::remove_dir_all(&clone)?;
            }
            fs::create_dir_all(clone.parent().unwrap_or(cache))?;
            RepoBuilder::new().bare(true).clone(&origin.to_string_lossy(), &clone)?
        }
    };
    {
        let mut remote = repository.remote_anonymous(&origin.to_string_lossy())?;
        let mut options = FetchOptions::new();
        options.prune(git2::FetchPrune::On);
        remote.fetch(&["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+HEAD:refs/slmops/head"], Some(&mut options), None)?;
    }
    Ok(repository)
}

/// The commit that is wanted.
pub fn resolve(repository: &Repository, want: &Want) -> Result<Oid, GitError> {
    let name = match want {
        Want::Head => "refs/slmops/head".to_string(),
        Want::Branch(name) => format!("refs/heads/{name}"),
        Want::Tag(name) => format!("refs/tags/{name}"),
        Want::Rev(rev) => rev.clone(),
    };
    let none = |_| GitError::NoRevision(want.text());
    let object = repository.revparse_single(&name).map_err(none)?;
    Ok(object.peel_to_commit().map_err(none)?.id())
}

/// The commit of a pin, if the clone has it already.
pub fn find(url: &str, folder: &Path, cache: &Path, rev: &str) -> Option<(Repository, Oid)> {
    let origin = local_path(url, folder).ok()?.canonicalize().ok()?;
    let repository = Repository::open_bare(clone_folder(&origin, cache)).ok()?;
    let oid = Oid::from_str(rev).ok()?;
    repository.find_commit(oid).ok()?;
    Some((repository, oid))
}

/// Where the files of a pin stand.
pub fn tree(rev: &str, path: Option<&str>, blobs: Blobs) -> PathBuf {
    blobs.tree(&["git", rev, path.unwrap_or_default()])
}

/// Writes the files of a commit (or of a path in it) to where [`tree`] says. What stands there is replaced.
pub fn export(repository: &Repository, rev: Oid, path: Option<&str>, blobs: Blobs) -> Result<PathBuf, GitError> {
    let tree = repository.find_commit(rev)?.tree()?;
    let target = self::tree(&rev.to_string(), path, blobs);
    let parent = target.parent().unwrap_or(blobs.cache).to_path_buf();
    fs::create_dir_all(&parent)?;
    let space = tempfile::Builder::new().prefix(".tree-").tempdir_in(&parent)?;
    let out = space.path().join("content");
    match path {
        None => write_tree(repository, tree, &out)?,
        Some(path) => {
            let missing = |_| GitError::NoPath { rev: rev.to_string(), path: path.to_string() };
            let entry = tree.get_path(Path::new(path)).map_err(missing)?;
            fs::create_dir(&out)?;
            let out = blobs::within(out.clone(), Some(path));
            match entry.kind() {
                Some(ObjectType::Blob) => write_blob(repository, entry.id(), entry.filemode(), path, &out)?,
                Some(ObjectType::Tree) => write_tree(repository, repository.find_tree(entry.id())?, &out)?,
                _ => return Err(GitError::Entry(path.to_string(), "submodule")),
            }
        }
    }
    blobs::put(&out, &target)?;
    Ok(target)
}

fn write_tree<'r>(repository: &'r Repository, tree: Tree<'r>, out: &Path) -> Result<(), GitError> {
    fs::create_dir_all(out)?;
    let mut open = vec![(tree, out.to_path_buf(), 0usize)];
    let mut files = 0usize;
    while let Some((tree, folder, depth)) = open.pop() {
        for entry in &tree {
            let bytes = entry.name_bytes();
            let name =
                std::str::from_utf8(bytes).ok().filter(|name| !name.is_empty() && *name != ".." && *name != "." && !name.contains('/'));
            let Some(name) = name else {
                return Err(GitError::Entry(String::from_utf8_lossy(bytes).into_owned(), "file with a name that is not text"));
            };
            let path = folder.join(name);
            match entry.kind() {
                Some(ObjectType::Tree) if depth < MAX_DEPTH => {
                    fs::create_dir(&path)?;
                    open.push((repository.find_tree(entry.id())?, path, depth + 1));
                }
                Some(ObjectType::Blob) if files < MAX_FILES => {
                    files += 1;
                    write_blob(repository, entry.id(), entry.filemode(), name, &path)?;
                }
                Some(ObjectType::Commit) => return Err(GitError::Entry(name.to_string(), "submodule")),
                _ => return Err(GitError::Entry(name.to_string(), "tree beyond what is read")),
            }
        }
    }
    Ok(())
}

fn write_blob(repository: &Repository, id: Oid, mode: i32, name: &str, path: &Path) -> Result<(), GitError> {
    let executable = match mode {
        0o100_644 | 0o100_664 => false,
        0o100_755 => true,
        0o120_000 => return Err(GitError::Entry(name.to_string(), "symbolic link")),
        _ => return Err(GitError::Entry(name.to_string(), "file of an unknown mode")),
    };
    let blob = repository.find_blob(id)?;
    if blob.content().starts_with(b"version https://git-lfs.github.com/spec/") {
        return Err(GitError::Entry(name.to_string(), "pointer of Git LFS, not the file itself"));
    }
    let mode = if executable { 0o755 } else { 0o644 };
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(blob.content())?;
    Ok(())
}

fn clone_folder(origin: &Path, cache: &Path) -> PathBuf {
    cache.join("git").join(Digest::of(origin.as_os_str().as_encoded_bytes()).hex())
}
