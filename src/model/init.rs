//! The weights before training: GPT-2's normal distribution, from counters, so that a tensor's numbers depend on the seed and its name only.

use rayon::prelude::*;

use crate::base::Digest;
use crate::kernels::rng;

use super::{Config, ModelError, Weights};

/// GPT-2's `initializer_range`.
const DEVIATION: f32 = 0.02;

impl Weights {
    /// Norms are 1, biases 0; matrices are normal with deviation 0.02; what is added to the residual stream is smaller by √(2 · layers), as in GPT-2.
    pub fn random(config: &Config, seed: u64) -> Result<Weights, ModelError> {
        let mut weights = Weights::zeros(config)?;
        let layout = weights.layout.clone();
        let residual = DEVIATION / (2.0 * config.num_hidden_layers as f32).sqrt();
        for tensor in &layout.tensors {
            let values = &mut weights.data[tensor.range.clone()];
            if tensor.shape.len() == 1 {
                values.fill(if tensor.name.ends_with(".bias") { 0.0 } else { 1.0 });
                continue;
            }
            let is_residual = tensor.name.ends_with("o_proj.weight") || tensor.name.ends_with("down_proj.weight");
            let deviation = if is_residual { residual } else { DEVIATION };
            let stream = stream(&tensor.name);
            values.par_iter_mut().enumerate().for_each(|(i, value)| *value = deviation * rng::normal(seed, stream, i as u64));
        }
        Ok(weights)
    }
}

/// A stream of random numbers of its own for each name.
pub fn stream(name: &str) -> u64 {
    let digest = Digest::of(name.as_bytes());
    digest.as_bytes().iter().take(8).fold(0, |stream, byte| stream << 8 | u64::from(*byte))
}
