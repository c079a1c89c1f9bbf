//! slmops: a build system for small language models.
//!
//! One `slmops.toml` in, one reproducible bundle for each device out. The rooms below are listed in reading order; a room
//! imports only rooms above it (`tests/tidy.rs` holds them to it).
//!
//! | room | owns |
//! |---|---|
//! | [`base`] | diagnostics with spans, digests, atomic files, limits, exit codes |
//! | [`manifest`] | text → spanned tables, names, matrices, the lock file; knows no step kind |
//! | [`source`] | where data comes from; pins and fetches it |
//! | [`kernels`] | the deterministic tensor kernels |
//! | [`model`] | the decoder, its tokenizer and its file formats |
//! | [`store`] | the content-addressed store and the action cache |
//! | [`bundle`] | the bundle format: write, read, verify |
//! | [`sandbox`] | runs a foreign command on declared files, without network |
//! | [`steps`] | the step kinds, one folder each |
//! | [`plan`] | manifest and kinds → a checked graph |
//! | [`key`] | one walk of a node → its digest, its explanation, why it changed |
//! | [`engine`] | the scheduler and its events; the only async room |
//! | [`deploy`] | deliveries to `dist/`: what was delivered, and what may be replaced |
//! | [`report`] | events and results → terminal, JSON lines |
//! | [`cli`] | one file a command; the only room that prints and reads the environment |

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "a test knows what it has made"))]

pub mod base;
pub mod bundle;
pub mod cli;
pub mod deploy;
pub mod engine;
pub mod key;
pub mod manifest;
pub mod model;
pub mod plan;
pub mod report;
pub mod sandbox;
pub mod source;
pub mod steps;
pub mod store;

pub use slmops_kernels as kernels;
