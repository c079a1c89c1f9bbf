//! The deterministic tensor kernels.
