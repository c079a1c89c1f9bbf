//! Text → spanned tables, names, matrices, the lock file. It knows no step kind.

pub mod value;

pub use value::{Data, Key, Table, Value};
