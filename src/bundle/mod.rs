//! The bundle format: an OCI image layout with one CNCF ModelPack manifest. [`write()`] makes one, [`open`] and [`verify`] read one, [`extract()`]
//! unpacks it. The room knows neither manifests nor steps, and not how a model is chosen.
//!
//! ```text
//! oci-layout
//! index.json                     one manifest, named by the version
//! blobs/sha256/…                 the manifest, the ModelPack config, and one blob for each file:
//!                                weights, tokenizer, README.md …, slmops-bundle.json
//! ```
//!
//! A bundle's identity is the SHA-256 of its manifest. All JSON is canonical (RFC 8785), layers are the files as they are, and no time, host
//! or path of the building machine is in it, so the same files give the same identity everywhere.

pub mod blob;
pub mod canonical;
pub mod description;
mod extract;
pub mod modelpack;
#[cfg(test)]
mod mutations;
pub mod oci;
pub mod paths;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use description::Description;
pub use extract::{ExtractError, extract};
pub use modelpack::Role;
pub use read::{Finding, Layer, Summary, cause, open, verify};
pub use write::{Content, Draft, DraftFile, WriteError, size_bytes, write};

/// `createdAt` where the project gives none: never the time of the build, which would give every build another digest.
pub const EPOCH: &str = "1970-01-01T00:00:00Z";
