//! What every room needs and nothing of what slmops does: diagnostics, digests, files, cancellation, units.

pub mod cancel;
pub mod diagnostic;
pub mod digest;
pub mod exit;
pub mod files;
pub mod rfc3339;
pub mod suggest;
pub mod units;

pub use cancel::Cancel;
pub use diagnostic::{Diagnostic, Place, SourceText, Span};
pub use digest::{Digest, Hasher};
pub use exit::Exit;
