//! A text on its way through a model, one layer at a time: for what looks at a layer, or changes it before the next one sees what it gives. Holds what goes into the
//! next layer for all the text, and knows nothing of what is looked for.

use super::{Batch, Decoder, Keep, Load, Places, Tensors};
use crate::base::memory;
use crate::model::{Config, ModelError};

/// Tokens of one pass.
const BATCH_ROWS: usize = 2048;

pub struct Layerwise {
    decoder: Decoder,
    passes: Vec<Pass>,
    output: Vec<f32>,
}

struct Pass {
    batch: Batch,
    /// Rows × hidden size.
    input: Vec<f32>,
}

impl Layerwise {
    /// At the first layer's input.
    pub fn new(config: &Config, weights: &dyn Tensors, windows: &[Vec<u32>]) -> Result<Layerwise, ModelError> {
        let mut decoder = Decoder::new(config)?;
        let mut passes: Vec<Pass> = Vec::new();
        for window in windows {
            if passes.last().is_none_or(|pass| pass.batch.rows() + window.len() > BATCH_ROWS) {
                passes.push(Pass { batch: Batch::default(), input: Vec::new() });
            }
            if let Some(pass) = passes.last_mut() {
                pass.batch.push(window, 0..window.len());
            }
        }
        let tokens: u64 = windows.iter().map(|window| window.len() as u64).sum();
        memory::check(tokens.saturating_mul(config.hidden_size as u64 * 4), &format!("what a layer makes of {tokens} tokens"))?;
        for Pass { batch, input } in &mut passes {
            batch.check(config)?;
            decoder.embed(weights, batch, input);
        }
        let rows = passes.iter().map(|pass| pass.batch.rows()).max().unwrap_or(0);
        decoder.check_memory(Load { rows, wanted: rows }, Keep::Nothing)?;
        Ok(Layerwise { decoder, passes, output: Vec::new() })
    }

    pub fn places(&self) -> &Places {
        &self.decoder.places
    }

    /// Runs a layer over all the text and stays before it; `each` sees inputs and outputs, rows × hidden size.
    pub fn look(&mut self, weights: &dyn Tensors, layer: usize, each: &mut dyn FnMut(&[f32], &[f32])) {
        for Pass { batch, input } in &mut self.passes {
            // On a worker thread, as in `generate`.
            rayon::scope(|_| self.decoder.alone(weights, batch, layer, input, &mut self.output));
            each(input, &self.output);
        }
    }

    /// Runs a layer over all the text and goes on behind it.
    pub fn advance(&mut self, weights: &dyn Tensors, layer: usize) {
        for Pass { batch, input } in &mut self.passes {
            rayon::scope(|_| self.decoder.alone(weights, batch, layer, input, &mut self.output));
            std::mem::swap(input, &mut self.output);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Keep;
    use super::*;
    use crate::model::Weights;
    use crate::model::config::tests::of_each_family;

    /// Layer by layer and all at once: the same bits in every family.
    #[test]
    fn behind_the_last_layer_is_what_a_whole_pass_gives() {
        for config in of_each_family() {
            let weights = Weights::random(&config, 3).unwrap();
            let windows: Vec<Vec<u32>> = vec![(0..20).collect(), (5..14).collect()];
            let mut walk = Layerwise::new(&config, &weights, &windows).unwrap();
            for layer in 0..config.num_hidden_layers {
                let mut seen = 0;
                walk.look(&weights, layer, &mut |x, y| seen += usize::from(x != y));
                assert_eq!(seen, 1);
                walk.advance(&weights, layer);
            }
            let mut decoder = Decoder::new(&config).unwrap();
            let mut batch = Batch::default();
            windows.iter().for_each(|window| batch.push(window, 0..window.len()));
            decoder.forward(&weights, &batch, Keep::Nothing).unwrap();
            assert!(decoder.last == walk.passes[0].input, "{:?}", config.family);
        }
    }
}
