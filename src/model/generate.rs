//! Greedy generation: many prompts at once, each answered as if it were alone.

use std::ops::ControlFlow;

use super::decoder::cache::Cache;
use super::decoder::{Batch, Decoder};
use super::{Model, ModelError};

/// Memory for keys and values; fewer sequences run side by side when they are long.
const CACHE_BYTES: usize = 256 << 20;
const MAX_SLOTS: usize = 128;
/// Rows of one prefill.
const PREFILL_ROWS: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generate {
    /// An answer without end is cut here.
    pub max_new_tokens: usize,
}

impl Model {
    /// The tokens that follow each prompt, up to the end-of-text token, which is not among them. Answers do not depend on which prompts run
    /// together. `progress` hears how many prompts are answered and may stop the work.
    pub fn generate(
        &self,
        prompts: &[Vec<u32>],
        options: &Generate,
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<Vec<u32>>, ModelError> {
        let mut answers = vec![Vec::new(); prompts.len()];
        let limit = self.config.max_position_embeddings;
        for prompt in prompts {
            if prompt.is_empty() || prompt.len() > limit {
                return Err(ModelError::Input(format!("a prompt has {} tokens; the model takes 1 to {limit}", prompt.len())));
            }
        }
        if options.max_new_tokens == 0 || prompts.is_empty() {
            return Ok(answers);
        }
        // Prompts of like length run together: less waiting for the longest.
        let mut order: Vec<usize> = (0..prompts.len()).collect();
        order.sort_by_key(|index| prompts[*index].len());
        let longest = order.last().map_or(0, |index| prompts[*index].len());
        let capacity = limit.min(longest.saturating_add(options.max_new_tokens));
        let slots = (CACHE_BYTES / (capacity * Cache::token_bytes(&self.config))).clamp(1, MAX_SLOTS).min(prompts.len());
        let mut run = Run {
            model: self,
            decoder: Decoder::new(&self.config)?,
            cache: Cache::new(&self.config, slots, capacity),
            batch: Batch::default(),
            free: (0..slots).rev().collect(),
            active: Vec::new(),
            chosen: Vec::new(),
            slots: Vec::new(),
            max_new_tokens: options.max_new_tokens,
        };
        let mut waiting = order.as_slice();
        while !waiting.is_empty() || !run.active.is_empty() {
            waiting = run.admit(prompts, waiting, &mut answers)?;
            run.advance(&mut answers)?;
            let answered = prompts.len() - waiting.len() - run.active.len();
            if progress(answered).is_break() {
                return Err(ModelError::Stopped);
            }
        }
        Ok(answers)
    }
}

struct Run<'a> {
    model: &'a Model,
    decoder: Decoder,
    cache: Cache,
    batch: Batch,
    free: Vec<usize>,
    active: Vec<Active>,
    chosen: Vec<u32>,
    slots: Vec<usize>,
    max_new_tokens: usize,
}

/// A sequence that goes on: its last token is not in the cache yet.
#[derive(Clone, Copy, Debug)]
struct Active {
    prompt: usize,
    slot: usize,
    length: usize,
    last: u32,
}

impl Run<'_> {
    /// Starts as many of the waiting prompts as there are free slots, once enough are free to make a pass worth its while.
    fn admit<'w>(&mut self, prompts: &[Vec<u32>], waiting: &'w [usize], answers: &mut [Vec<u32>]) -> Result<&'w [usize], ModelError> {
        if !self.active.is_empty() && self.free.len() < (self.free.len() + self.active.len()).div_ceil(4) {
            return Ok(waiting);
        }
        let mut taken = 0;
        self.batch.clear();
        self.slots.clear();
        for index in waiting {
            let prompt = &prompts[*index];
            if taken > 0 && self.batch.rows() + prompt.len() > PREFILL_ROWS {
                break;
            }
            let Some(slot) = self.free.pop() else { break };
            self.batch.push(prompt, prompt.len() - 1..prompt.len());
            self.slots.push(slot);
            taken += 1;
        }
        if taken == 0 {
            return Ok(waiting);
        }
        self.decoder.prefill(&self.model.weights.data, &self.batch, &mut self.cache, &self.slots)?;
        self.choose()?;
        let (started, rest) = waiting.split_at(taken);
        for ((index, slot), token) in started.iter().zip(&self.slots).zip(&self.chosen) {
            let active = Active { prompt: *index, slot: *slot, length: prompts[*index].len(), last: *token };
            if self.goes_on(active, answers) {
                self.active.push(active);
            } else {
                self.free.push(*slot);
            }
        }
        Ok(rest)
    }

    /// One more token for every active sequence; those that end make room.
    fn advance(&mut self, answers: &mut [Vec<u32>]) -> Result<(), ModelError> {
        if self.active.is_empty() {
            return Ok(());
        }
        self.batch.clear();
        self.slots.clear();
        for active in &self.active {
            self.batch.push_next(active.last, active.length as u32);
            self.slots.push(active.slot);
        }
        self.decoder.advance(&self.model.weights.data, &self.batch, &mut self.cache, &self.slots)?;
        self.choose()?;
        let mut kept = 0;
        for i in 0..self.active.len() {
            let before = self.active[i];
            let after = Active { length: before.length + 1, last: self.chosen[i], ..before };
            if self.goes_on(after, answers) {
                self.active[kept] = after;
                kept += 1;
            } else {
                self.free.push(after.slot);
            }
        }
        self.active.truncate(kept);
        Ok(())
    }

    /// Writes the newest token down, unless it ends the answer; whether there is to be another.
    fn goes_on(&self, active: Active, answers: &mut [Vec<u32>]) -> bool {
        if Some(active.last) == self.model.config.eos_token_id {
            return false;
        }
        let answer = &mut answers[active.prompt];
        answer.push(active.last);
        answer.len() < self.max_new_tokens && active.length < self.model.config.max_position_embeddings
    }

    /// The likeliest token of each row, the lowest of equals.
    fn choose(&mut self) -> Result<(), ModelError> {
        let (vocab, chosen) = (self.model.config.vocab_size, &mut self.chosen);
        chosen.clear();
        self.decoder.logits(&self.model.weights.data, &mut |_, logits| {
            for row in logits.chunks_exact(vocab) {
                chosen.push(argmax(row).ok_or_else(|| ModelError::NotFinite("a logit".to_string()))?);
            }
            Ok(())
        })
    }
}

/// The place of the largest number, the first of equals; nothing if one is not finite.
pub fn argmax(row: &[f32]) -> Option<u32> {
    let mut best = 0;
    for (i, value) in row.iter().enumerate() {
        if !value.is_finite() {
            return None;
        }
        if *value > row[best] {
            best = i;
        }
    }
    (!row.is_empty()).then_some(best as u32)
}
