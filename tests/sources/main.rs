//! Sources that are fetched over the network, against servers of our own on this machine.

mod git;
mod hub;
mod models;
mod program;
mod registry;
mod server;
mod space;
mod tls;
mod web;
