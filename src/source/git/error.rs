//! Why a repository gives no files.

use crate::source::http::HttpError;

#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error(
        "this version of slmops has no {0} transport: it reads repositories over https, and those on this machine (a path or `file://`)"
    )]
    Transport(String),
    #[error("there is no repository `{0}`")]
    Missing(String),
    #[error("{host} shows no repository there, or asks for a password (it answers {status})")]
    Refused { host: String, status: u16 },
    #[error("the repository has no {0}")]
    NoRevision(String),
    #[error("commit {rev} has no `{path}`")]
    NoPath { rev: String, path: String },
    #[error("`{0}` is a {1}, which a source cannot hold")]
    Entry(String, &'static str),
    #[error("`{name}` is kept by Git LFS, and its content is not to be had: {why}")]
    Large { name: String, why: String },
    #[error("{host} does not speak git as it should: {why}")]
    Protocol { host: String, why: String },
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
            GitError::Large { .. } => {
                Some("`git lfs fetch --all` in a clone, and `git lfs push --all` from it, bring missing content back".to_string())
            }
            _ => None,
        }
    }

    /// Whether the manifest is not to blame.
    pub fn is_environment(&self) -> bool {
        match self {
            GitError::Http(error) => error.is_environment(),
            GitError::Io(_) | GitError::Protocol { .. } => true,
            _ => false,
        }
    }
}
