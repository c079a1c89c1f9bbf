//! Sources that are fetched over the network, against servers of our own on this machine.

#![expect(clippy::disallowed_methods, reason = "a test knows what it has made")]

mod git;
mod hostile;
mod hub;
mod listings;
mod models;
mod program;
mod registry;
mod secrets;
mod server;
mod space;
mod tls;
mod web;
mod world;
