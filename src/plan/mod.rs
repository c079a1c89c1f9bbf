//! Manifest and kinds → a checked graph of sources and actions.

pub mod node;

pub use node::{Action, InputRef, Node, NodeId, Plan, Source};
