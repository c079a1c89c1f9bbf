//! The rooms of slmops that compute.

#[path = "../../../../src/base/mod.rs"]
pub mod base;
#[path = "../../../../src/model/mod.rs"]
pub mod model;

pub use slmops_kernels as kernels;
