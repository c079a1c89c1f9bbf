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
    #[error("`{}` is not a store of slmops: its VERSION file is not one of ours", path.display())]
    NotAStore { path: PathBuf },
    #[error("another slmops is using the store `{}`", path.display())]
    Busy { path: PathBuf },
    #[error("{0}")]
    Damaged(Damage),
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

/// Something in the store that is not what it was when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A record names an object that is not there.
    Missing {
        object: Digest,
    },
    /// The object has another size than was recorded.
    Cut {
        object: Digest,
        found_bytes: u64,
        expected_bytes: u64,
    },
    /// The object's content has another digest than its name.
    Changed {
        object: Digest,
        found: Digest,
    },
    Unreadable {
        object: Digest,
        error: String,
    },
    /// An action's record cannot be trusted.
    Record {
        key: Digest,
        why: String,
    },
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
            Damage::Unreadable { object, error } => write!(f, "object {} cannot be read: {error}", object.short()),
            Damage::Record { key, why } => write!(f, "the record of action {} {why}", key.short()),
        }
    }
}
