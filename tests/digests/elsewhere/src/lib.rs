//! The rooms of slmops that compute.

#[path = "../../../../src/base/mod.rs"]
pub mod base;
#[path = "../../../../src/kernels/mod.rs"]
pub mod kernels;
#[path = "../../../../src/model/mod.rs"]
pub mod model;
