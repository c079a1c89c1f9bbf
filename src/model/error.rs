//! Why a model cannot be read, written or run. Fragments fit "cannot open the model: {error}".

use std::path::{Path, PathBuf};

use crate::base::{files, memory};

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
    /// There is less memory than it takes.
    #[error(transparent)]
    Memory(#[from] memory::Shortage),
    /// The machine lacks something else: a thread.
    #[error("{0}")]
    Machine(String),
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

/// Whether a file that may be left out is there.
pub fn is_there(path: &Path) -> Result<bool, ModelError> {
    files::exists(path).map_err(|error| ModelError::io("read", path, error))
}

/// Reads a regular file whose size is checked before a byte of it is held.
pub fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, ModelError> {
    let file = files::open(path).map_err(|error| ModelError::io("read", path, error))?;
    let size = file.metadata().map_err(|error| ModelError::io("read", path, error))?.len();
    if size > limit {
        return Err(ModelError::TooLarge { what: format!("`{}`", path.display()), size, limit });
    }
    memory::check(size, &format!("`{}`", path.display()))?;
    let bytes = files::read(path, limit).map_err(|error| ModelError::io("read", path, error))?;
    if is_lfs_pointer(&bytes) { Err(ModelError::malformed(format!("`{}`", path.display()), LFS_POINTER)) } else { Ok(bytes) }
}

/// What Git LFS leaves in a file's place begins with this.
const LFS: &[u8] = b"version https://git-lfs.github.com/spec/";
pub const LFS_POINTER: &str = "it is Git LFS's pointer to the file and not the file itself; run `git lfs pull` where it was cloned";

pub fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(LFS)
}
