//! Text → spanned tables, names, matrices, the lock file. It knows no step kind.
//!
//! [`load::load`] reads a manifest with what it includes and lays the chosen profile and `--set` over it; the result is one [`Table`] in which
//! every key and value still knows the file and line that it came from.

pub mod include;
pub mod load;
pub mod lock;
pub mod matrix;
pub mod names;
pub mod overlay;
pub mod read;
pub mod value;
pub mod workspace;

pub use load::{Manifest, Overrides};
pub use lock::{Lock, Pin, Protocol};
pub use names::Reference;
pub use value::{Data, Key, Table, Value};

/// The file that `slmops` looks for.
pub const FILE_NAME: &str = "slmops.toml";
/// Beside the root manifest.
pub const LOCK_NAME: &str = "slmops.lock";
