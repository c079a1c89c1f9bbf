//! Git repositories: on this machine (a path or `file://`) and over HTTP. One bare repository for each URL, one folder of plain files for each pin.
//!
//! Files come out as git stores them: no filters, no line-end conversion, no attributes, so that a commit means the same bytes everywhere. Only
//! what Git LFS keeps elsewhere is put in its place.

mod error;
mod export;
pub mod lfs;
mod wire;

use std::fs;
use std::path::{Path, PathBuf};

use git2::{FetchOptions, ObjectType, Oid, Repository, build::RepoBuilder};

pub use error::GitError;
pub use export::{export, tree};

use super::http::{Address, Client};
use super::netrc;
use super::origin::Want;
use super::remote::{Remote, Secret};
use crate::base::Digest;

/// How a repository is reached.
pub struct Git<'a> {
    /// As written.
    url: &'a str,
    place: Place,
    client: &'a Client,
    secret: Option<Secret>,
    /// Its bare repository here.
    clone: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Here(PathBuf),
    Web(Address),
}

impl<'a> Git<'a> {
    /// `folder` is what relative paths start from.
    pub fn new(url: &'a str, folder: &Path, cache: &Path, client: &'a Client, remote: &Remote) -> Result<Git<'a>, GitError> {
        let place = place(url, folder)?;
        let (name, secret) = match &place {
            Place::Here(path) => (path.canonicalize().unwrap_or_else(|_| path.clone()).into_os_string().into_encoded_bytes(), None),
            Place::Web(address) => (address.to_string().into_bytes(), netrc::secret(remote, address)),
        };
        let clone = cache.join("git").join(Digest::of(&name).hex());
        Ok(Git { url, place, client, secret, clone })
    }

    /// The commit that is wanted, fetched.
    pub fn resolve(&self, want: &Want) -> Result<(Repository, Oid), GitError> {
        match &self.place {
            Place::Here(origin) => {
                let repository = self.mirror(origin)?;
                let name = match want {
                    Want::Head => "refs/slmops/head".to_string(),
                    Want::Branch(name) => format!("refs/heads/{name}"),
                    Want::Tag(name) => format!("refs/tags/{name}"),
                    Want::Rev(rev) => rev.clone(),
                };
                let commit = commit(&repository, &name).ok_or_else(|| GitError::NoRevision(want.text()))?;
                Ok((repository, commit))
            }
            Place::Web(address) => {
                let repository = self.bare()?;
                let commit = wire::fetch(self.client, address, self.secret.as_ref(), &repository, want)?;
                Ok((repository, commit))
            }
        }
    }

    /// The commit of a pin: from here if it is here.
    pub fn pinned(&self, rev: &str) -> Result<(Repository, Oid), GitError> {
        if let Ok(repository) = Repository::open_bare(&self.clone)
            && let Ok(oid) = Oid::from_str(rev)
            && repository.find_commit(oid).is_ok()
        {
            return Ok((repository, oid));
        }
        self.resolve(&Want::Rev(rev.to_string()))
    }

    /// The clone of a repository on this machine, with everything that it has now.
    fn mirror(&self, origin: &Path) -> Result<Repository, GitError> {
        if !origin.is_dir() {
            return Err(GitError::Missing(self.url.to_string()));
        }
        let origin = origin.canonicalize()?;
        let repository = match Repository::open_bare(&self.clone) {
            Ok(repository) => repository,
            Err(_) => {
                self.clear()?;
                RepoBuilder::new().bare(true).clone(&origin.to_string_lossy(), &self.clone)?
            }
        };
        {
            let mut remote = repository.remote_anonymous(&origin.to_string_lossy())?;
            let mut options = FetchOptions::new();
            options.prune(git2::FetchPrune::On);
            remote.fetch(
                &["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+HEAD:refs/slmops/head"],
                Some(&mut options),
                None,
            )?;
        }
        Ok(repository)
    }

    fn bare(&self) -> Result<Repository, GitError> {
        match Repository::open_bare(&self.clone) {
            Ok(repository) => Ok(repository),
            Err(_) => {
                self.clear()?;
                Ok(Repository::init_bare(&self.clone)?)
            }
        }
    }

    /// A clone that was cut short is made anew.
    fn clear(&self) -> Result<(), GitError> {
        if self.clone.exists() {
            fs::remove_dir_all(&self.clone)?;
        }
        fs::create_dir_all(self.clone.parent().unwrap_or(&self.clone))?;
        Ok(())
    }
}

/// The commit that a name stands for, as far as it is here.
fn commit(repository: &Repository, name: &str) -> Option<Oid> {
    let object = repository.revparse_single(name).ok()?;
    object.peel(ObjectType::Commit).ok().map(|commit| commit.id())
}

fn place(url: &str, folder: &Path) -> Result<Place, GitError> {
    if let Some(path) = url.strip_prefix("file://") {
        return Ok(Place::Here(PathBuf::from(path)));
    }
    if url.starts_with("https://") || url.starts_with("http://") {
        return Ok(Place::Web(Address::parse(url.trim_end_matches('/'))?));
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
    Ok(Place::Here(folder.join(url)))
}
