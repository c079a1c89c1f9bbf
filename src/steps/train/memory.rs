//! What a training holds in memory, before it is asked for.

use super::run::Objective;
use super::settings::Training;
use crate::base::memory;
use crate::base::units::show_size;
use crate::model::Example;
use crate::model::decoder::{Decoder, Keep, Load};
use crate::steps::Failure;

/// Numbers kept of each weight that learns: its gradient and two moments, and its best value where there is validation.
const STATE: u64 = 3;

/// A training's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Gradient, moments, best weights, and the copy of all that a checkpoint is written from.
    pub state: u64,
    /// What a pass over the largest batch holds.
    pub pass: u64,
    pub batch: Load,
}

impl Estimate {
    /// Beyond the weights, which are there already. `parameters` are those that learn.
    pub fn of(
        parameters: usize,
        decoder: &Decoder,
        settings: &Training,
        (examples, validation): (&[Example], &[Example]),
        objective: &dyn Objective,
    ) -> Estimate {
        let kept = STATE + u64::from(!validation.is_empty());
        let checkpoint = kept;
        let batch = largest(examples, settings.batch_size);
        let validated = super::run::validation_load(validation);
        let pass = decoder.bytes(batch, settings.keep()).max(decoder.bytes(validated, Keep::Nothing));
        Estimate {
            state: (kept + checkpoint).saturating_mul(parameters as u64).saturating_mul(4),
            pass: pass.saturating_add(objective.bytes(batch)),
            batch,
        }
    }

    /// Fails if there is not so much memory.
    pub fn check(&self, settings: &Training) -> Result<(), Failure> {
        let Estimate { state, pass, batch } = self;
        let what = format!(
            "the training ({} for the optimizer and its checkpoint, {} for a batch of {} tokens)",
            show_size(*state),
            show_size(*pass),
            batch.rows
        );
        let hint = match (pass > state, settings.gradient_checkpointing) {
            (true, false) => "lower `batch_size` or `max_length`, or write `gradient_checkpointing = true`",
            (true, true) => "lower `batch_size` or `max_length`",
            (false, _) => "train a smaller model, or an adapter (`lora`)",
        };
        memory::check(state.saturating_add(*pass), &what).map_err(|shortage| Failure::from(shortage).help(hint))
    }
}

/// The most that a batch can hold: all examples, as often as they come whole, and the longest of them for the rest.
fn largest(examples: &[Example], batch_size: usize) -> Load {
    let Some(epochs) = batch_size.checked_div(examples.len()) else { return Load::default() };
    let rest = batch_size - epochs * examples.len();
    let most = |length: &dyn Fn(&Example) -> usize| {
        let mut lengths: Vec<usize> = examples.iter().map(length).collect();
        let all: usize = lengths.iter().sum();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        all.saturating_mul(epochs).saturating_add(lengths.iter().take(rest).sum())
    };
    Load { rows: most(&|example| example.tokens.len().saturating_sub(1)), wanted: most(&|example| example.scored_tokens()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_holds_the_longest_examples_as_often_as_they_come() {
        let example = |tokens: usize, scored: usize| Example::of(vec![0; tokens - scored], &vec![0; scored]);
        let examples = [example(5, 2), example(9, 1), example(3, 2)];
        assert_eq!(largest(&examples, 2), Load { rows: 12, wanted: 4 });
        assert_eq!(largest(&examples, 3), Load { rows: 14, wanted: 5 });
        assert_eq!(largest(&examples, 7), Load { rows: 36, wanted: 12 });
        assert_eq!(largest(&[], 7), Load::default());
        assert_eq!(largest(&examples, usize::MAX / 2).rows, usize::MAX);
    }
}
