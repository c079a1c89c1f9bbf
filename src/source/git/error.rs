//! Why a repository gives no files.

use crate::base::units;
use crate::source::http::HttpError;
use crate::source::http::said::plain;
use crate::source::out::OutError;

#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error(
        "this version of slmops has no {0} transport: it reads repositories over https, and those on this machine (a path or `file://`)"
    )]
    Transport(String),
    #[error("there is no repository `{0}`")]
    Missing(String),
    #[error("`{0}` is not a git repository")]
    NoRepository(String),
    #[error("{host} shows no repository there, or asks for a password (it answers {status})")]
    Refused { host: String, status: u16 },
    #[error("the repository has no {0}")]
    NoRevision(String),
    #[error("commit {rev} has no `{path}`")]
    NoPath { rev: String, path: String },
    #[error("`{}` is a {kind}, which a source cannot hold", plain(.name))]
    Entry { name: String, kind: &'static str },
    #[error("`{}` has {}: in git a file has at most {}", plain(.name), units::show_size(*.size_bytes), units::show_size(*.limit_bytes))]
    Size { name: String, size_bytes: u64, limit_bytes: u64 },
    #[error("its files cannot be used: {0}")]
    Out(#[from] OutError),
    #[error("it keeps more than {0} files in Git LFS")]
    Stands(usize),
    #[error("`{}` is kept by Git LFS, and its content is not to be had: {why}", plain(.name))]
    Large { name: String, why: String },
    #[error("{host} does not speak git as it should: {why}")]
    Protocol { host: String, why: String },
    #[error("{host} sends more than slmops takes: {why}")]
    TooMuch { host: String, why: String },
    #[error("git: {}", .0.message())]
    Git(#[from] git2::Error),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl GitError {
    pub fn help(&self) -> Option<String> {
        match self {
            GitError::Http(error) => error.help(),
            GitError::Refused { .. } => {
                Some("check the address; a password or token is taken from ~/.netrc (`machine HOST login NAME password TOKEN`)".to_string())
            }
            GitError::Size { .. } => Some("larger files belong into Git LFS, or next to the repository".to_string()),
            GitError::Large { .. } => {
                Some("`git lfs fetch --all` in a clone, and `git lfs push --all` from it, bring missing content back".to_string())
            }
            GitError::Git(_) => Some(
                "git's library does not give the cause: `git fsck` shows whether the repository is damaged, the kernel's log (`dmesg`) whether the disk is"
                    .to_string(),
            ),
            _ => None,
        }
    }

    /// Whether the manifest is not to blame.
    pub fn is_environment(&self) -> bool {
        match self {
            GitError::Http(error) => error.is_environment(),
            // What a manifest can get wrong has variants of its own. libgit2 says "not found" of whatever it could not read, too.
            GitError::Git(_) | GitError::Io(_) | GitError::Out(OutError::Io(_)) | GitError::Protocol { .. } => true,
            _ => false,
        }
    }
}

/// Whether reading failed, rather than what was read is not usable. libgit2 keeps no number of an error of the system, but says where it came from.
pub(super) fn is_of_the_system(error: &git2::Error) -> bool {
    use git2::{ErrorClass, ErrorCode};
    let is_named = matches!(error.code(), ErrorCode::NotFound | ErrorCode::InvalidSpec);
    !is_named && matches!(error.class(), ErrorClass::Os | ErrorClass::NoMemory | ErrorClass::Filesystem | ErrorClass::Thread)
}
