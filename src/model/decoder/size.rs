//! How much memory a decoder's buffers take, before they are asked for. What is counted here stands in `forward` and `backward`; a test holds the two together.

use super::{Decoder, Keep};
use crate::base::memory;
use crate::model::{Config, ModelError};

/// What a pass has to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Tokens that run.
    pub rows: usize,
    /// Those whose next token is asked for.
    pub wanted: usize,
}

impl Load {
    /// The larger of both, each for itself.
    #[must_use]
    pub fn max(self, other: Load) -> Load {
        Load { rows: self.rows.max(other.rows), wanted: self.wanted.max(other.wanted) }
    }
}

impl Decoder {
    /// Bytes of the buffers of a pass, the logits' among them.
    pub fn bytes(&self, load: Load, keep: Keep) -> u64 {
        let learning = self.config.num_hidden_layers - self.places.lowest.min(self.config.num_hidden_layers);
        let widths = Widths::of(&self.config);
        let (rows, wanted) = (load.rows as f64, load.wanted as f64);
        let (kept, worked) = match keep {
            Keep::All => (learning.max(1), learning.max(1)),
            Keep::Inputs => (learning.max(1), 1),
            Keep::Nothing => (1, 1),
        };
        let mut numbers = kept as f64 * rows * widths.kept + worked as f64 * rows * (widths.front + widths.tail);
        // The residual stream on its way, and its last rows.
        numbers += 3.0 * rows * widths.hidden + 4.0 * wanted * (widths.hidden + widths.query);
        numbers += wanted.min(self.head_rows() as f64) * self.config.vocab_size as f64;
        numbers += rows * widths.turning;
        if keep != Keep::Nothing {
            numbers += rows * widths.gradients + wanted * (widths.hidden + widths.query);
        }
        // A float that is too large becomes the largest integer.
        (numbers * 4.0) as u64
    }

    /// Fails if there is not so much memory. A pass that is no larger than one before it is not looked at again.
    pub(super) fn check_memory(&mut self, load: Load, keep: Keep) -> Result<(), ModelError> {
        let needed = self.bytes(load, keep);
        if needed > self.checked {
            let what = format!("a pass over {} tokens", load.rows);
            memory::check(needed - self.checked, &what)?;
            self.checked = needed;
        }
        Ok(())
    }
}

/// Numbers of each token, in what a pass holds.
struct Widths {
    hidden: f64,
    query: f64,
    /// Of a layer whose input and attention are kept.
    kept: f64,
    /// Of a layer's first half, and of its second.
    front: f64,
    tail: f64,
    gradients: f64,
    turning: f64,
}

impl Widths {
    fn of(config: &Config) -> Widths {
        let size = |size: usize| size as f64;
        let (hidden, ff) = (size(config.hidden_size), size(config.intermediate_size));
        let (query, key) = (size(config.query_size()), size(config.key_value_size()));
        let heads = size(config.num_attention_heads + config.num_key_value_heads);
        let head_norms = if config.features.query_key_norms { query + key + heads } else { 0.0 };
        let post_norms = if config.features.post_norms { 2.0 * hidden + 2.0 } else { 0.0 };
        Widths {
            hidden,
            query,
            kept: hidden + query + heads,
            front: hidden + 1.0 + query + 2.0 * key + head_norms,
            tail: 2.0 * hidden + 1.0 + 3.0 * ff + post_norms,
            gradients: 2.0 * hidden + 2.0 * query + 2.0 * key + 3.0 * ff + hidden.max(query),
            turning: 4.0 * size(config.head_dim),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{batch, every_feature, gradient_after, targets, untied, weights};
    use super::*;
    use crate::model::config::tests::tiny;
    use crate::model::decoder::Batch;

    impl Decoder {
        /// Bytes of all buffers.
        fn held(&self) -> u64 {
            let mut numbers = 0;
            let mut add = |buffers: &[&Vec<f32>]| numbers += buffers.iter().map(|buffer| buffer.capacity()).sum::<usize>();
            for kept in &self.kept {
                add(&[&kept.x, &kept.out, &kept.lse]);
            }
            for work in &self.work {
                let (front, tail) = (&work.front, &work.tail);
                add(&[&front.normed1, &front.inv1, &front.q, &front.k, &front.v, &front.raw_q, &front.raw_k, &front.inv_q, &front.inv_k]);
                add(&[&tail.middle, &tail.normed2, &tail.inv2, &tail.gate, &tail.up, &tail.glu]);
                add(&[&tail.attended, &tail.inv_attended, &tail.mlp, &tail.inv_mlp]);
            }
            add(&[&self.wanted_x, &self.wanted_out, &self.last, &self.normed, &self.inv_norm, &self.logits, &self.spare, &self.low]);
            add(&self.gradients.all());
            numbers as u64 * 4
        }
    }

    /// What is counted is what is held: no less, and not much more.
    #[test]
    fn the_estimate_is_what_a_pass_holds() {
        let mut configs = every_feature();
        configs.extend([tiny(), untied()]);
        for config in configs {
            for keep in [Keep::All, Keep::Inputs, Keep::Nothing] {
                let mut batch = batch(&config);
                (0..40).for_each(|i| batch.push(&[i as u32 % 7; 11], 3..9));
                let mut decoder = Decoder::new(&config).unwrap();
                run(&mut decoder, &config, &batch, keep);
                let load = Load { rows: batch.rows(), wanted: batch.wanted.len() };
                let (counted, held) = (decoder.bytes(load, keep), decoder.held());
                assert!(counted >= held && counted <= held + held / 2, "{config:?} {keep:?}: {counted} counted, {held} held");
            }
        }
    }

    fn run(decoder: &mut Decoder, config: &Config, batch: &Batch, keep: Keep) {
        let weights = weights(config);
        match keep {
            Keep::Nothing => {
                decoder.forward(&weights.data, batch, keep).unwrap();
                decoder.logits(&weights.data, &mut |_, _| Ok(())).unwrap();
            }
            _ => drop(gradient_after(decoder, &weights, &[], batch, &targets(config, batch), keep)),
        }
    }

    #[test]
    fn what_no_machine_holds_is_refused() {
        let config = Config { max_position_embeddings: 1 << 22, ..tiny() };
        let mut decoder = Decoder::new(&config).unwrap();
        let most = Load { rows: usize::MAX, wanted: usize::MAX };
        assert_eq!(decoder.bytes(most, Keep::All), u64::MAX);
        let refused = decoder.check_memory(most, Keep::All).unwrap_err();
        assert!(matches!(&refused, ModelError::Memory(shortage) if shortage.is_beyond_any_machine()), "{refused}");
    }
}
