//! Events → a live view on a terminal, plain lines elsewhere, JSON lines for programs. Readers of one stream.

mod json;
mod live;
mod plain;
mod said;
mod table;
mod words;

pub use json::JsonLines;
pub use live::{Colors, Live};
pub use plain::{Plain, Quiet};
pub use table::Table;
