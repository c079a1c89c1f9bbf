//! GGUF: the file format of llama.cpp, read and written by our own code.
//!
//! [`read`] and [`write`] know the container only, [`llama`] which of a model's tensors is which in it, [`arch`] what is special to each of llama.cpp's
//! architectures, [`metadata`] how a configuration is said, [`tokens`] a tokenizer.

mod arch;
mod file_type;
pub mod llama;
mod metadata;
pub mod pack;
pub mod parts;
pub mod read;
mod tokens;
pub mod value;
pub mod write;

pub use file_type::{file_type_id, file_type_name};
pub use llama::{load, open_model, save};
pub use read::{Gguf, Header, TensorInfo};
pub use tokens::ends::of_llama_cpp_alone as ends_of_llama_cpp_alone;
pub use value::{Array, Value};
pub use write::{TensorPlan, Writer};

use std::path::Path;

use crate::base::memory::Shortage;
use crate::model::ModelError;
use crate::model::error::LFS_POINTER;
use crate::model::quant::QuantError;

/// What a file begins with.
pub const MAGIC: &[u8; 4] = b"GGUF";

/// Where tensors begin: at multiples of this, unless a file says otherwise.
pub const ALIGNMENT: usize = 32;

/// Why a GGUF file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Memory(#[from] Shortage),
    #[error("this is no GGUF file")]
    NotGguf,
    #[error("{LFS_POINTER}")]
    Pointer,
    #[error("it is part {number} of {count}: open the first one, `{first}`")]
    LaterPart { number: u64, count: u64, first: String },
    #[error("it is the first of {count} parts, and {why}")]
    Parts { count: u64, why: String },
    #[error("this GGUF file is big-endian; only little-endian ones are read")]
    BigEndian,
    #[error("GGUF version {0} is not known (2 and 3 are)")]
    Version(u32),
    #[error("the file ends within {what}")]
    Cut { what: &'static str },
    #[error("the file ends within tensor `{}`", shown(.name))]
    CutTensor { name: String },
    #[error("{found} {what}: more than the limit of {most}")]
    Limit { what: &'static str, found: u64, most: u64 },
    #[error("{what} is not UTF-8")]
    NotText { what: &'static str },
    #[error("`{}` stands there twice", shown(.0))]
    Twice(String),
    #[error("metadata entry `{}` has the unknown type {id}", shown(.key))]
    ValueType { key: String, id: u32 },
    #[error("tensor `{}` has type {id}, which slmops does not read", shown(.name))]
    TensorType { name: String, id: u32 },
    #[error("tensor `{}` has an impossible shape", shown(.name))]
    Shape { name: String },
    #[error("an alignment of {0} is not a power of two up to 2^20")]
    Alignment(u64),
    #[error("tensor `{}` begins at {offset}, not at {expected} where the one before it ends", shown(.name))]
    Offset { name: String, offset: u64, expected: usize },
    #[error("more tensors were written than planned")]
    Unplanned,
    #[error(transparent)]
    Quant(#[from] QuantError),
}

/// Opens a file, its name in every error.
pub fn open(path: &Path) -> Result<Gguf, ModelError> {
    Gguf::open(path).map_err(|error| named("open", path, error))
}

/// The error with the file's name in it.
pub fn named(doing: &'static str, path: &Path, error: GgufError) -> ModelError {
    match error {
        GgufError::Io(error) => ModelError::io(doing, path, error),
        GgufError::Memory(shortage) => ModelError::Memory(shortage),
        error => ModelError::malformed(format!("`{}`", path.display()), error),
    }
}

/// A name from the file, cut and with its control characters escaped, so that it cannot play tricks on a terminal.
fn shown(name: &str) -> String {
    name.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod packing_tests;
#[cfg(test)]
mod tests;
