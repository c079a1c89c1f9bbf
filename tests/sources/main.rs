//! Sources that are fetched over the network, against servers of our own on this machine.

mod hub;
mod models;
mod server;
mod space;
