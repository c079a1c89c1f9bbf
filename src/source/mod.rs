//! Where data comes from: `{ path = … }` on this machine; `{ git = … }`, `{ hf = … }`, `{ url = … }` and `{ oci = … }` pinned by `slmops.lock` and fetched into a folder of the
//! cache.
//!
//! The plan sees only a path. A remote source has one because its pin says which tree is meant, and because the tree's digest is checked
//! before the path is handed out. A source that is pinned and here never asks the network.

pub mod blobs;
pub mod entry;
pub mod error;
pub mod git;
pub mod http;
pub mod hub;
pub mod limits;
pub mod local;
pub mod netrc;
pub mod noted;
pub mod oci;
pub mod origin;
pub mod out;
pub mod pins;
pub mod remote;
pub mod spec;
pub mod tree;
pub mod unpack;
pub mod web;

pub use error::FetchError;
pub use limits::Limits;
pub use origin::{Origin, Want};
pub use pins::{Fetch, Reach, locate, stale, update};
pub use remote::{News, Remote, Token, Watch};
pub use spec::Spec;
