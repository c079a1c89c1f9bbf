//! Why a model cannot be read, written or run. Fragments fit "cannot open the model: {error}".

use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("cannot {doing} `{}`: {error}", path.display())]
    Io { doing: &'static str, path: PathBuf, error: std::io::Error },
    /// The file is not what its name promises: cut, mangled or made by hand.
    #[error("{what} is malformed: {why}")]
    Malformed { what: String, why: String },
    /// Well-formed, but not something that we can run.
    #[error("{what} is not supported: {why}")]
    Unsupported { what: String, why: String },
    #[error("{what} is {size}, over the limit of {limit}")]
    TooLarge { what: String, size: u64, limit: u64 },
    /// NaN or infinity came out of the arithmetic.
    #[error("{0} is not a finite number")]
    NotFinite(String),
    /// A sequence or token that the model cannot take.
    #[error("{0}")]
    Input(String),
    /// The caller asked to stop.
    #[error("stopped")]
    Stopped,
}

impl ModelError {
    pub fn io(doing: &'static str, path: &Path, error: std::io::Error) -> ModelError {
        ModelError::Io { doing, path: path.to_path_buf(), error }
    }

    pub fn malformed(what: impl Into<String>, why: impl ToString) -> ModelError {
        ModelError::Malformed { what: what.into(), why: why.to_string() }
    }

    pub fn unsupported(what: impl Into<String>, why: impl ToString) -> ModelError {
        ModelError::Unsupported { what: what.into(), why: why.to_string() }
    }
}

/// Reads a file whose size is checked before a byte of it is held.
pub fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, ModelError> {
    let size = std::fs::metadata(path).map_err(|error| ModelError::io("read", path, error))?.len();
    if size > limit {
        return Err(ModelError::TooLarge { what: format!("`{}`", path.display()), size, limit });
    }
    std::fs::read(path).map_err(|error| ModelError::io("read", path, error))
}
