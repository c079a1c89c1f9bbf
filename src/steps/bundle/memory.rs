//! How much memory a model will take on a device: calculated, not measured. `help.md` shows the same formula.

use crate::bundle::description::Memory;

/// Tokens that a runtime works on at once while it reads a prompt: llama.cpp's `n_ubatch`.
const BATCH: u64 = 512;
/// Activations are f32 in all runtimes.
const ACTIVATION_BYTES: u64 = 4;

/// The sizes of a decoder of the Llama family that its memory depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub vocabulary: u64,
    pub hidden: u64,
    pub intermediate: u64,
    pub layers: u64,
    pub heads: u64,
    pub kv_heads: u64,
    pub head_dim: u64,
    /// Tokens that it was made for.
    pub context: u64,
}

/// Bytes, at `context` tokens, with `cache_value_bytes` for each number of the KV cache.
///
/// Activations are those of the widest operation of a batch (logits, attention scores or the two halves of the gated layer) beside four
/// rows of the hidden state, since a runtime reuses its buffers from layer to layer. For Llama 3 8B at 8192 tokens that is 544 MiB.
pub fn estimate(shape: &Shape, weights_bytes: u64, cache_value_bytes: u64, context: u64) -> Memory {
    let product = |factors: &[u64]| factors.iter().fold(1u64, |product, factor| product.saturating_mul(*factor));
    let widest = shape.vocabulary.max(product(&[shape.heads, context])).max(product(&[2, shape.intermediate]));
    let row = widest.saturating_add(product(&[4, shape.hidden]));
    Memory {
        weights_bytes,
        cache_bytes: product(&[2, shape.layers, shape.kv_heads, shape.head_dim, context, cache_value_bytes]),
        activations_bytes: product(&[context.min(BATCH), ACTIVATION_BYTES, row]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_model_takes_what_is_known() {
        let shape = Shape {
            vocabulary: 128_256,
            hidden: 4096,
            intermediate: 14_336,
            layers: 32,
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
            context: 8192,
        };
        let memory = estimate(&shape, 4_900_000_000, 2, 8192);
        assert_eq!(memory.cache_bytes, 1 << 30);
        assert_eq!(memory.activations_bytes >> 20, 544);
        assert_eq!(memory.total_bytes(), 4_900_000_000 + (1 << 30) + memory.activations_bytes);
    }

    #[test]
    fn absurd_shapes_do_not_overflow() {
        let huge = u64::MAX / 2;
        let shape = Shape {
            vocabulary: huge,
            hidden: huge,
            intermediate: huge,
            layers: huge,
            heads: huge,
            kv_heads: huge,
            head_dim: huge,
            context: huge,
        };
        assert_eq!(estimate(&shape, huge, 4, huge).total_bytes(), u64::MAX);
    }
}
