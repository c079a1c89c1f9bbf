//! The deterministic tensor kernels: one written definition (`docs/numerics.md`), so that neither the processor nor the number of threads
//! can change a bit of a result.
//!
//! Slices are f32, row-major. Work is split over rayon threads by output, never within a sum. Shapes are the caller's to get right: a slice
//! of the wrong length is a bug and panics. Data that is not finite is not: the losses report it.

pub mod attention;
pub mod bias;
pub mod embedding;
pub mod gemm;
pub mod glu;
pub mod isa;
pub mod loss;
pub mod math;
pub mod norm;
pub mod optim;
pub mod packed;
pub mod pages;
pub mod reduce;
pub mod rng;
pub mod rope;
mod softmax;

pub use attention::{AttentionShape, attention_backward, attention_cached, attention_forward};
pub use bias::{add, bias_backward, bias_forward, scale};
pub use embedding::{gather, scatter_add};
pub use gemm::{Mat, Write, matmul};
pub use glu::{geglu_backward, geglu_forward, swiglu_backward, swiglu_forward};
pub use loss::{Divergence, NotFinite, Teacher, cross_entropy, distill, log_softmax_row, mix};
pub use norm::{rms_backward, rms_forward};
pub use optim::{AdamW, adamw, sum_squares};
pub use packed::{BlockType, Packed, matmul_packed};
pub use rope::{Rope, Turn, neighbours_to_halves, rope};

/// Raised whenever equal inputs would give other bits. It is part of the key of every step that computes with these kernels.
pub const NUMERICS_VERSION: u32 = 2;

#[cfg(test)]
mod tests;
