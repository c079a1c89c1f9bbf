//! Logits of given sequences, for losses, perplexity and divergences.

use super::decoder::{Batch, Decoder, Keep, Tensors};
use super::{Model, ModelError};
use crate::base::memory;

/// Rows of one pass; a longer sequence runs alone.
const BATCH_ROWS: usize = 4096;
/// Logits of one pass (64 MiB), unless one sequence has more.
const BATCH_LOGITS: usize = 16 << 20;

/// A sequence whose tokens from `from` (at least 1) on are to be foretold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scored {
    pub tokens: Vec<u32>,
    pub from: usize,
}

impl<W: Tensors> Model<W> {
    /// Calls `each` with the number of each sequence, in order, and its logits: a row of the vocabulary's size for each of
    /// `tokens[from..]`, made from the tokens before it. Independent of what runs together.
    pub fn score(&self, sequences: &[Scored], each: &mut dyn FnMut(usize, &[f32])) -> Result<(), ModelError> {
        let vocab = self.config.vocab_size;
        let mut decoder = Decoder::new(&self.config)?;
        let mut batch = Batch::default();
        let mut collected: Vec<f32> = Vec::new();
        let mut first = 0;
        while first < sequences.len() {
            batch.clear();
            let mut next = first;
            for scored in &sequences[first..] {
                if scored.from == 0 {
                    return Err(ModelError::Input("a sequence cannot be scored from its first token on: nothing is before it".to_string()));
                }
                let (rows, wanted) = (scored.tokens.len().saturating_sub(1), scored.tokens.len().saturating_sub(scored.from));
                let full = batch.rows() + rows > BATCH_ROWS || (batch.wanted.len() + wanted).saturating_mul(vocab) > BATCH_LOGITS;
                if next > first && full {
                    break;
                }
                batch.push(&scored.tokens[..rows], (scored.from - 1).min(rows)..rows);
                next += 1;
            }
            collected.clear();
            let bytes = (batch.wanted.len() as u64).saturating_mul(vocab as u64).saturating_mul(4);
            if bytes > collected.capacity() as u64 * 4 {
                memory::check(bytes, &format!("the logits of {} tokens", batch.wanted.len()))?;
                collected.reserve_exact(batch.wanted.len() * vocab);
            }
            // On a worker thread, as in `generate`.
            rayon::scope(|_| {
                decoder.forward(&self.weights, &batch, Keep::Nothing)?;
                decoder.logits(&self.weights, &mut |_, logits| {
                    collected.extend_from_slice(logits);
                    Ok(())
                })
            })?;
            let mut rest = collected.as_slice();
            for (index, scored) in sequences.iter().enumerate().take(next).skip(first) {
                let (logits, after) = rest.split_at(scored.tokens.len().saturating_sub(scored.from) * vocab);
                each(index, logits);
                rest = after;
            }
            first = next;
        }
        Ok(())
    }
}
