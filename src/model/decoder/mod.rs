//! The decoder: a forward and a backward pass of the Llama family without a tape, in buffers that are used again and again.
//!
//! Rows are tokens, sequences lie behind each other without padding (`batch`), and only rows whose next token is asked for go through
//! the last layer's second half, the final norm and the head: full logits are never built. Every row's result is
//! independent of the other sequences in the batch. Knows nothing of losses, optimizers and texts.

mod attention;
mod backward;
mod batch;
pub mod cache;
mod forward;
mod layerwise;
mod low_rank;
mod places;
mod size;
mod tensors;
#[cfg(test)]
mod tests;
mod turning;
mod watched;

use std::ops::Range;

use rayon::prelude::*;

use crate::kernels::gemm::{Mat, Write, matmul};
use crate::kernels::pages;

pub use batch::Batch;
pub use layerwise::Layerwise;
pub use low_rank::LowRank;
pub use places::{Place, Places};
pub use size::Load;
pub use tensors::{Pairs, Tensors};
pub use watched::{Gather, Inputs, Watched};

use super::weights::Layout;
use super::{Adapter, Config, ModelError};
use attention::Heads;
use turning::Turning;

/// Logits are made for at most this many numbers at a time (16 MiB), in multiples of 256 rows.
const HEAD_CHUNK: usize = 4 << 20;

/// What is kept for a backward pass. Never of layers below which nothing learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    All,
    /// Each layer's input and what its attention made of it. The backward pass computes the rest again, one layer at a time, to the same
    /// bits. (An attention's result is as large as its input and would be the dearest part to compute again in a long sequence.)
    Inputs,
    Nothing,
}

/// Receives some wanted rows' logits: which of the wanted rows, and rows × vocabulary.
pub type EachLogits<'a> = &'a mut dyn FnMut(Range<usize>, &mut [f32]) -> Result<(), ModelError>;

/// Runs one model. Holds buffers, no weights.
#[derive(Debug)]
pub struct Decoder {
    pub config: Config,
    pub places: Places,
    /// Of each layer.
    heads: Vec<Heads>,
    turning: Turning,
    /// Of the last forward pass.
    keep: Keep,
    /// One for each layer; the first serves all those of which nothing is kept.
    kept: Vec<Kept>,
    work: Vec<Work>,
    /// The rows that are asked for, in the last layer: its input and what its attention made of it.
    wanted_x: Vec<f32>,
    wanted_out: Vec<f32>,
    /// Behind the last layer, and normalised.
    last: Vec<f32>,
    normed: Vec<f32>,
    inv_norm: Vec<f32>,
    logits: Vec<f32>,
    spare: Vec<f32>,
    /// What an adapter reduces its input to.
    low: Vec<f32>,
    gradients: backward::Buffers,
    /// Bytes that a pass may hold, as far as it was checked.
    checked: u64,
}

/// A layer's input and its attention's result: rows × width each.
#[derive(Debug, Default)]
struct Kept {
    x: Vec<f32>,
    out: Vec<f32>,
    lse: Vec<f32>,
}

/// What a layer computes on the way.
#[derive(Debug, Default)]
struct Work {
    front: Front,
    tail: Tail,
}

/// The first half of a layer, before its attention.
#[derive(Debug, Default)]
struct Front {
    normed1: Vec<f32>,
    inv1: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// Queries and keys before their norms, if those have any, and what these divide by.
    raw_q: Vec<f32>,
    raw_k: Vec<f32>,
    inv_q: Vec<f32>,
    inv_k: Vec<f32>,
}

/// The second half of a layer, behind its attention.
#[derive(Debug, Default)]
struct Tail {
    middle: Vec<f32>,
    normed2: Vec<f32>,
    inv2: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    glu: Vec<f32>,
    /// What attention and MLP give before their own norms, if they have any, and what these divide by.
    attended: Vec<f32>,
    inv_attended: Vec<f32>,
    mlp: Vec<f32>,
    inv_mlp: Vec<f32>,
}

impl Decoder {
    pub fn new(config: &Config) -> Result<Decoder, ModelError> {
        Decoder::with_frozen(config, &|_| false)
    }

    /// Tensors whose name `frozen` accepts get no gradient and cost no backward pass.
    pub fn with_frozen(config: &Config, frozen: &dyn Fn(&str) -> bool) -> Result<Decoder, ModelError> {
        Decoder::of(config, Places::of(config, &Layout::of(config)?, frozen)?)
    }

    /// Only the adapter learns. Its numbers are given to [`Decoder::forward_adapted`] and [`Decoder::backward_adapted`].
    pub fn with_adapter(config: &Config, adapter: &Adapter) -> Result<Decoder, ModelError> {
        Decoder::of(config, Places::adapted(config, &Layout::of(config)?, adapter)?)
    }

    fn of(config: &Config, places: Places) -> Result<Decoder, ModelError> {
        Ok(Decoder {
            config: config.clone(),
            places,
            heads: Heads::of(config),
            turning: Turning::of(config),
            keep: Keep::Nothing,
            kept: (0..config.num_hidden_layers).map(|_| Kept::default()).collect(),
            work: (0..config.num_hidden_layers).map(|_| Work::default()).collect(),
            wanted_x: Vec::new(),
            wanted_out: Vec::new(),
            last: Vec::new(),
            normed: Vec::new(),
            inv_norm: Vec::new(),
            logits: Vec::new(),
            spare: Vec::new(),
            low: Vec::new(),
            gradients: backward::Buffers::default(),
            checked: 0,
        })
    }

    /// Sequences of more tokens have to be read from their start again when they grow beyond it (see [`Decoder::advance`]).
    pub fn switch(&self) -> usize {
        self.turning.switch()
    }

    /// Rows of one piece of logits.
    pub fn head_rows(&self) -> usize {
        head_rows(self.config.vocab_size)
    }

    /// Calls `each` with the logits of the wanted rows of the last forward pass, some rows at a time.
    pub fn logits(&mut self, weights: &dyn Tensors, each: EachLogits) -> Result<(), ModelError> {
        let rows = self.inv_norm.len();
        let mut logits = std::mem::take(&mut self.logits);
        for start in (0..rows).step_by(self.head_rows()) {
            let chunk = start..rows.min(start + self.head_rows());
            self.logits_of(weights, chunk.clone(), &mut logits);
            each(chunk, &mut logits)?;
        }
        self.logits = logits;
        Ok(())
    }

    /// The logits of some of these rows, rows × vocabulary, for a caller that goes through them at the pace of another model.
    pub fn logits_of(&self, weights: &dyn Tensors, rows: Range<usize>, logits: &mut Vec<f32>) {
        let d = self.config.hidden_size;
        room(logits, rows.len(), self.config.vocab_size);
        weights.linear(&self.places.head, &self.normed[rows.start * d..rows.end * d], logits, Write::Set);
    }
}

/// Rows of one piece of logits for a vocabulary.
pub fn head_rows(vocab_size: usize) -> usize {
    (HEAD_CHUNK / vocab_size.max(1) / 256).max(1) * 256
}

/// `y = x · wᵀ` for a weight of `outputs` × `inputs`.
fn linear(x: &[f32], inputs: usize, weight: &[f32], outputs: usize, y: &mut [f32], write: Write) {
    let rows = x.len() / inputs;
    matmul(Mat::new(x, rows, inputs), Mat::new(weight, outputs, inputs).t(), y, write);
}

/// Room for `rows` × `width`; what it held is of no use.
fn room(buffer: &mut Vec<f32>, rows: usize, width: usize) {
    pages::room(buffer, rows * width);
}

/// Copies all, on all threads.
fn copy(from: &[f32], to: &mut [f32]) {
    const PIECE: usize = 1 << 16;
    to.par_chunks_mut(PIECE).zip(from.par_chunks(PIECE)).for_each(|(to, from)| to.copy_from_slice(from));
}

/// Copies rows by number.
fn take_rows(from: &[f32], width: usize, rows: &[usize], to: &mut [f32]) {
    for (row, to) in rows.iter().zip(to.chunks_exact_mut(width)) {
        to.copy_from_slice(&from[row * width..(row + 1) * width]);
    }
}

/// The reverse of [`take_rows`]; the other rows become zero.
fn put_rows(from: &[f32], width: usize, rows: &[usize], to: &mut [f32]) {
    to.fill(0.0);
    for (row, from) in rows.iter().zip(from.chunks_exact(width)) {
        to[row * width..(row + 1) * width].copy_from_slice(from);
    }
}
