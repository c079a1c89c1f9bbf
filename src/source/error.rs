//! Why a source cannot be pinned or fetched, whatever it is spoken to by.

use std::io;

use super::git::GitError;
use super::http::HttpError;
use super::hub::HubError;
use super::oci::OciError;
use super::web::WebError;

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Hub(#[from] HubError),
    #[error(transparent)]
    Web(#[from] WebError),
    #[error(transparent)]
    Oci(#[from] OciError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl FetchError {
    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            FetchError::Git(error) => error.help(),
            FetchError::Http(error) => error.help(),
            FetchError::Hub(error) => error.help(),
            FetchError::Web(error) => error.help(),
            FetchError::Oci(error) => error.help(),
            FetchError::Io(_) => None,
        }
    }

    /// Whether the manifest is not to blame.
    pub fn is_environment(&self) -> bool {
        match self {
            FetchError::Git(error) => error.is_environment(),
            FetchError::Http(error) => error.is_environment(),
            FetchError::Hub(error) => error.is_environment(),
            FetchError::Oci(error) => error.is_environment(),
            FetchError::Web(error) => error.is_environment(),
            FetchError::Io(_) => true,
        }
    }
}
