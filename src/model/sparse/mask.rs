//! Where a model's zeros are, so that a training leaves them as they are: a weight that is zero and never has a gradient stays zero under AdamW.

use rayon::prelude::*;

use super::is_prunable;
use crate::model::Weights;

/// Weights that one thread goes through.
const PIECE: usize = 1 << 10;

/// A bit for each weight, in the layout's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    words: Vec<u64>,
}

impl Mask {
    /// The zeros of what is pruned: of all linear layers.
    pub fn of(weights: &Weights) -> Mask {
        let mut words = vec![0u64; weights.data.len().div_ceil(64)];
        for tensor in weights.layout.tensors.iter().filter(|tensor| is_prunable(&tensor.name)) {
            for index in tensor.range.clone().filter(|index| weights.data[*index] == 0.0) {
                words[index / 64] |= 1 << (index % 64);
            }
        }
        Mask { words }
    }

    pub fn zeros(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Sets what the mask covers to zero: in weights, or in their gradient.
    pub fn clear(&self, values: &mut [f32]) {
        values.par_chunks_mut(64 * PIECE).zip(self.words.par_chunks(PIECE)).for_each(|(values, words)| {
            for (values, word) in values.chunks_mut(64).zip(words).filter(|(_, word)| **word != 0) {
                values.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 1).for_each(|(_, value)| *value = 0.0);
            }
        });
    }
}
