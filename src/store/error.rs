//! What can go wrong with a store: fragments that fit "cannot {do}: {error}".

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::Digest;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {doing} `{}`: {error}", path.display())]
    Io { doing: &'static str, path: PathBuf, error: io::Error },
    #[error("the store `{}` was written by a newer slmops (store format {found}, this slmops knows {known})", path.display())]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("`{}` is not a store of slmops: {why}", path.display())]
    NotAStore { path: PathBuf, why: String },
    /// What it holds can still be read.
    #[error("cannot write into the store `{}`: {error}", path.display())]
    NotWritable { path: PathBuf, error: io::Error },
    #[error("another slmops is using the store `{}`", path.display())]
    Busy { path: PathBuf },
    #[error("{0}")]
    Damaged(Damage),
    /// A source no longer holds what it held when its digest was taken.
    #[error("`{}` has changed since it was read", path.display())]
    Changed { path: PathBuf },
    /// By the user.
    #[error("stopped")]
    Stopped,
    /// What was to be taken into the store, or out of it, is not something that we take.
    #[error("`{}` {why}", path.display())]
    Refused { path: PathBuf, why: String },
}

impl StoreError {
    pub fn io(doing: &'static str, path: &Path, error: io::Error) -> StoreError {
        StoreError::Io { doing, path: path.to_path_buf(), error }
    }

    pub fn refused(path: impl Into<PathBuf>, why: impl Into<String>) -> StoreError {
        StoreError::Refused { path: path.into(), why: why.into() }
    }
}

pub type Result<T> = std::result::Result<T, StoreError>;

/// Tells damage from what could only not be looked at: a disk or a limit that fails says nothing about the content.
pub fn damage(checked: Result<()>) -> Result<Option<Damage>> {
    match checked {
        Ok(()) => Ok(None),
        Err(StoreError::Damaged(damage)) => Ok(Some(damage)),
        Err(error) => Err(error),
    }
}

/// Something in the store that is not what it was when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A record names an object that is not there.
    Missing { object: Digest },
    /// The object has another size than was recorded.
    Cut { object: Digest, found_bytes: u64, expected_bytes: u64 },
    /// The object's content has another digest than its name.
    Changed { object: Digest, found: Digest },
    /// An action's record cannot be trusted.
    Record { key: Digest, why: String },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Missing { object } => write!(f, "object {} is missing", object.short()),
            Damage::Cut { object, found_bytes, expected_bytes } => {
                write!(f, "object {} has {found_bytes} bytes instead of {expected_bytes}", object.short())
            }
            Damage::Changed { object, found } => {
                write!(f, "object {} has changed on disk (its content is now {})", object.short(), found.short())
            }
            Damage::Record { key, why } => write!(f, "the record of action {} {why}", key.short()),
        }
    }
}
