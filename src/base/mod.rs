//! What every room needs and nothing of what slmops does: diagnostics, digests, files, clocks, texts and JSON, cancellation, memory, units.

pub mod allocator;
pub mod cancel;
pub mod clock;
pub mod diagnostic;
pub mod digest;
pub mod exit;
pub mod files;
pub mod json;
pub mod memory;
pub mod output;
pub mod process;
pub mod remove;
pub mod rfc3339;
pub mod staged;
pub mod suggest;
pub mod text;
pub mod trouble;
pub mod units;

pub use cancel::Cancel;
pub use diagnostic::{Diagnostic, Place, SourceText, Span};
pub use digest::{Digest, Hasher};
pub use exit::Exit;
pub use remove::remove_all;
