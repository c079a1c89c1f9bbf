//! Where data comes from: `{ path = … }` on this machine, `{ git = … }` pinned by `slmops.lock` and fetched into a folder of the cache.
//!
//! The plan sees only a path. A remote source has one because its pin says which tree is meant, and because the tree's digest is checked
//! before the path is handed out.

pub mod git;
pub mod local;
pub mod pins;
pub mod spec;
pub mod tree;

pub use pins::{Fetch, locate, stale, update};
pub use spec::{Origin, Spec, Want};
