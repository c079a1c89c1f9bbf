//! Git repositories: on this machine (a path or `file://`) and over HTTP. One bare repository for each URL, one folder of plain files for each pin.
//!
//! Files come out as git stores them: no filters, no line-end conversion, no attributes, so that a commit means the same bytes everywhere. Only
//! what Git LFS keeps elsewhere is put in its place.

mod error;
mod export;
pub mod lfs;
mod pack;
mod wire;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use git2::{ConfigLevel, FetchOptions, ObjectType, Oid, Repository, build::RepoBuilder};

pub use error::GitError;
use error::is_of_the_system;
pub use export::{export, tree};

use super::http::{Address, Client, Credential};
use super::netrc;
use super::origin::Want;
use super::remote::Remote;
use crate::base::{Digest, files};

/// How a repository is reached.
pub struct Git<'a> {
    /// As written.
    url: &'a str,
    place: Place,
    client: &'a Client,
    credential: Option<Credential>,
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
        use_no_configuration()?;
        let place = place(url, folder)?;
        let (name, credential) = match &place {
            Place::Here(path) => (path.canonicalize().unwrap_or_else(|_| path.clone()).into_os_string().into_encoded_bytes(), None),
            Place::Web(address) => (address.url().into_bytes(), netrc::credential(remote, address)?),
        };
        let clone = cache.join("git").join(Digest::of(&name).hex());
        Ok(Git { url, place, client, credential, clone })
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
                let commit = commit(&repository, &name)?.ok_or_else(|| GitError::NoRevision(want.text()))?;
                Ok((repository, commit))
            }
            Place::Web(address) => {
                let repository = self.bare()?;
                let commit = wire::fetch(self.client, address, self.credential.as_ref(), &repository, want)?;
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
        if !files::is_folder(origin)? {
            return Err(GitError::Missing(self.url.to_string()));
        }
        let origin = origin.canonicalize()?;
        if !looks_like_repository(&origin)? {
            return Err(GitError::NoRepository(self.url.to_string()));
        }
        self.remove_stale_locks()?;
        let repository = match Repository::open_bare(&self.clone) {
            Ok(repository) => repository,
            Err(error) if is_of_the_system(&error) => return Err(error.into()),
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
        self.remove_stale_locks()?;
        match Repository::open_bare(&self.clone) {
            Ok(repository) => Ok(repository),
            Err(error) if is_of_the_system(&error) => Err(error.into()),
            Err(_) => {
                self.clear()?;
                Ok(Repository::init_bare(&self.clone)?)
            }
        }
    }

    /// Removes the lock files of git that a killed run has left: they would refuse every later fetch. Whoever works here holds the lock of all
    /// sources, so none of them belongs to a living process; and no reference of git's can have such a name.
    fn remove_stale_locks(&self) -> io::Result<()> {
        let is_lock = |path: &Path| path.extension().is_some_and(|extension| extension == "lock");
        let references = self.clone.join("refs");
        let within = if files::is_folder(&references)? { files::walk(&references)? } else { Vec::new() };
        let on_top = if files::is_folder(&self.clone)? { files::names(&self.clone)? } else { Vec::new() };
        let found = within.into_iter().map(|path| references.join(path)).chain(on_top.into_iter().map(|name| self.clone.join(name)));
        found.filter(|path| is_lock(path)).try_for_each(fs::remove_file)
    }

    /// A clone that was cut short is made anew.
    fn clear(&self) -> Result<(), GitError> {
        if files::exists(&self.clone)? {
            fs::remove_dir_all(&self.clone)?;
        }
        fs::create_dir_all(self.clone.parent().unwrap_or(&self.clone))?;
        Ok(())
    }
}

/// The commit that a name stands for, as far as it is here.
/// The files of git's configuration that belong to the user or the machine change nothing here: a commit means the same files everywhere. With them goes
/// `safe.directory`; it protects from commands that a repository's own configuration names, and libgit2 runs none.
fn use_no_configuration() -> Result<(), git2::Error> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    let set = || -> Result<(), git2::Error> {
        for level in [ConfigLevel::ProgramData, ConfigLevel::System, ConfigLevel::XDG, ConfigLevel::Global] {
            // SAFETY: libgit2 keeps these settings in global variables without a lock. They are set once, before this process has opened any repository.
            unsafe { git2::opts::set_search_path(level, "")? };
        }
        // SAFETY: as above.
        unsafe { git2::opts::set_verify_owner_validation(false) }
    };
    DONE.get_or_init(|| set().map_err(|error| error.message().to_string())).clone().map_err(|why| git2::Error::from_str(&why))
}

/// The commit of that name, if there is one.
fn commit(repository: &Repository, name: &str) -> Result<Option<Oid>, git2::Error> {
    match repository.revparse_single(name) {
        Ok(object) => Ok(object.peel(ObjectType::Commit).ok().map(|commit| commit.id())),
        Err(error) if is_of_the_system(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Whether a folder is a clone with its files, or a bare one. Whatever else keeps git from opening it is a fault of the machine or of the clone.
fn looks_like_repository(folder: &Path) -> io::Result<bool> {
    for name in [".git", "HEAD"] {
        match fs::symlink_metadata(folder.join(name)) {
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
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
