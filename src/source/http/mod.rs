//! HTTP as sources need it: redirects that do not carry secrets to other hosts, retries with patience, downloads that go on where they stopped.
//!
//! It knows no protocol above HTTP; [`super::hub`] and its like do.

pub mod address;
pub mod client;
pub mod download;
pub mod error;

pub use address::Address;
pub use client::{Client, Request, Response};
pub use download::{Expected, download};
pub use error::HttpError;
