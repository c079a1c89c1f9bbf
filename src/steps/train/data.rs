//! Records → examples that fit the model, and which examples make up which batch.

use rayon::prelude::*;

use crate::base::memory;
use crate::kernels::rng;
use crate::model::{Encoder, Example, ModelError};
use crate::steps::Failure;
use crate::steps::dataset::record::{Record, Records};

/// What was made of a dataset.
#[derive(Clone, Debug, Default)]
pub struct Examples {
    pub examples: Vec<Example>,
    /// Records without a completion, from which nothing is learned.
    pub without_completion: usize,
    /// Records that are longer than the limit.
    pub too_long: usize,
}

impl Examples {
    /// `2,000 examples; left out: 12 without a completion, 3 too long`
    pub fn summary(&self) -> String {
        let mut left_out = Vec::new();
        if self.without_completion > 0 {
            left_out.push(format!("{} without a completion", self.without_completion));
        }
        if self.too_long > 0 {
            left_out.push(format!("{} too long", self.too_long));
        }
        let note = if left_out.is_empty() { String::new() } else { format!("; left out: {}", left_out.join(", ")) };
        format!("{} examples{note}", self.examples.len())
    }
}

/// Encodes records. A pair or conversation longer than `max_length` tokens is left out; a text is cut into pieces of that length.
pub fn examples(records: &Records, encoder: Encoder, max_length: usize) -> Result<Examples, Failure> {
    let encode = |record: &Record| -> Result<Option<Example>, ModelError> {
        match record {
            Record::Pair { completion: None, .. } => Ok(None),
            Record::Pair { prompt, completion: Some(completion) } => encoder.pair(prompt, completion).map(Some),
            Record::Messages(chat) => encoder.conversation(chat).map(Some),
            Record::Text(text) => encoder.text(text).map(Some),
        }
    };
    // A token of four bytes stands for one byte or more, and is held twice while long texts are cut.
    let text: u64 = records.iter().map(Record::text_bytes).sum();
    memory::check(text.saturating_mul(4), "the tokens of the data")?;
    let encoded = records.par_iter().enumerate().map(|(index, record)| encode(record).map_err(|error| records.wrong(index, error)));
    let encoded: Vec<Option<Example>> = encoded.collect::<Result<_, Failure>>()?;
    let mut made = Examples::default();
    for (record, example) in records.iter().zip(encoded) {
        match (record, example) {
            (_, None) => made.without_completion += 1,
            (_, Some(example)) if example.scored.is_empty() => made.without_completion += 1,
            (Record::Text(_), Some(example)) => made.examples.extend(pieces(example, max_length)),
            (_, Some(example)) if example.tokens.len() > max_length => made.too_long += 1,
            (_, Some(example)) => made.examples.push(example),
        }
    }
    Ok(made)
}

/// A text in pieces of at most `max_length` tokens.
pub fn pieces(example: Example, max_length: usize) -> impl Iterator<Item = Example> {
    let piece = |tokens: &[u32]| Example::of(tokens[..1].to_vec(), &tokens[1..]);
    example.tokens.chunks(max_length).filter(|tokens| tokens.len() > 1).map(piece).collect::<Vec<_>>().into_iter()
}

/// The order of the examples: each epoch is a permutation of all of them, drawn from the seed; batches go on across epochs. The batch of a
/// step is thus a function of seed and step, and a resumed training needs to remember nothing else.
#[derive(Debug)]
pub struct Order {
    examples: usize,
    batch_size: usize,
    seed: u64,
    epoch: Option<u64>,
    permutation: Vec<usize>,
}

/// The stream of random numbers of the first epoch's order.
const ORDER: u64 = 0x6f72_6465_7200_0000;

impl Order {
    pub fn new(examples: usize, batch_size: usize, seed: u64) -> Order {
        Order { examples, batch_size, seed, epoch: None, permutation: Vec::with_capacity(examples) }
    }

    /// The examples of a step, counted from 1.
    pub fn batch(&mut self, step: u64, batch: &mut Vec<usize>) {
        batch.clear();
        let start = (step - 1) * self.batch_size as u64;
        for place in start..start + self.batch_size as u64 {
            self.enter(place / self.examples as u64);
            batch.push(self.permutation[(place % self.examples as u64) as usize]);
        }
    }

    fn enter(&mut self, epoch: u64) {
        if self.epoch != Some(epoch) {
            self.epoch = Some(epoch);
            self.permutation.clear();
            self.permutation.extend(0..self.examples);
            rng::shuffle(&mut self.permutation, self.seed, ORDER.wrapping_add(epoch));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_has_every_example_once_and_any_step_can_be_asked_first() {
        let mut order = Order::new(10, 4, 7);
        let mut batch = Vec::new();
        let steps: Vec<Vec<usize>> = (1..=10)
            .map(|step| {
                order.batch(step, &mut batch);
                batch.clone()
            })
            .collect();
        for epoch in steps.concat().chunks_exact(10) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(steps.concat()[..10], steps.concat()[10..20]);
        Order::new(10, 4, 7).batch(6, &mut batch);
        assert_eq!(batch, steps[5]);
        Order::new(10, 4, 8).batch(6, &mut batch);
        assert_ne!(batch, steps[5]);
        Order::new(3, 8, 7).batch(1, &mut batch);
        assert_eq!(batch.len(), 8);
    }
}
