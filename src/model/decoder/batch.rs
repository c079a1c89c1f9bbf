//! Sequences of different lengths behind each other, without padding: a row is a token.

use std::ops::Range;

use super::super::{Config, ModelError};

/// Sequences to run in one pass. Cleared and filled again without allocating.
#[derive(Clone, Debug)]
pub struct Batch {
    pub tokens: Vec<u32>,
    /// Of each row, within its sequence.
    pub positions: Vec<u32>,
    /// Where each sequence starts, and the end of the last one.
    pub starts: Vec<usize>,
    /// Ascending rows whose next token is asked for: only these pass through the last layer's second half and the head.
    pub wanted: Vec<usize>,
}

impl Default for Batch {
    fn default() -> Batch {
        Batch { tokens: Vec::new(), positions: Vec::new(), starts: vec![0], wanted: Vec::new() }
    }
}

impl Batch {
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.starts.truncate(1);
        self.wanted.clear();
    }

    /// Adds a sequence; `wanted` are places in it whose next token is asked for.
    pub fn push(&mut self, tokens: &[u32], wanted: Range<usize>) {
        let start = self.tokens.len();
        self.want(wanted);
        self.tokens.extend_from_slice(tokens);
        self.positions.extend(0..tokens.len() as u32);
        self.starts.push(start + tokens.len());
    }

    /// Asks for the token after these places of the sequence that is pushed next.
    pub fn want(&mut self, places: Range<usize>) {
        let start = self.tokens.len();
        self.wanted.extend(places.map(|place| start + place));
    }

    /// Adds the next token of a sequence whose earlier ones are in a cache.
    pub fn push_next(&mut self, token: u32, position: u32) {
        self.wanted.push(self.tokens.len());
        self.tokens.push(token);
        self.positions.push(position);
        self.starts.push(self.tokens.len());
    }

    /// Adds the tokens of a sequence from position `first` on, those before being in a cache; the last one's next token is asked for.
    pub fn push_rest(&mut self, tokens: &[u32], first: u32) {
        self.want(tokens.len().saturating_sub(1)..tokens.len());
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((first..).take(tokens.len()));
        self.starts.push(self.tokens.len());
    }

    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    pub fn sequences(&self) -> usize {
        self.starts.len() - 1
    }

    /// Tokens within the vocabulary, positions within the model's reach.
    pub fn check(&self, config: &Config) -> Result<(), ModelError> {
        if let Some(token) = self.tokens.iter().find(|token| **token as usize >= config.vocab_size) {
            return Err(ModelError::Input(format!("token {token} is not among the model's {}", config.vocab_size)));
        }
        if let Some(position) = self.positions.iter().max().filter(|position| **position as usize >= config.max_position_embeddings) {
            let (length, limit) = (position + 1, config.max_position_embeddings);
            return Err(ModelError::Input(format!("a sequence of {length} tokens is beyond the model's {limit}")));
        }
        Ok(())
    }
}
