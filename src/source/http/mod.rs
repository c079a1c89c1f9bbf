//! HTTP as sources need it: credentials that go to one server only, redirects, retries with patience, limits of time, downloads that go on where they
//! stopped.
//!
//! It knows no protocol above HTTP; [`super::hub`] and its like do.

pub mod address;
pub mod client;
pub mod credential;
pub mod download;
pub mod error;
pub mod pace;
pub mod proxy;
mod resolve;
pub mod said;

pub use address::Address;
pub use client::{Client, Request, Response};
pub use credential::{Credential, Secret};
pub use download::{Expected, download};
pub use error::HttpError;
pub use proxy::Proxies;
