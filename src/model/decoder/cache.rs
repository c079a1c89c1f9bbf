//! Keys and values of sequences that are being written, so that each further token costs one row.

use rayon::prelude::*;

use crate::kernels::attention::attention_cached;

use super::super::ModelError;
use super::attention::{self, Heads};
use super::forward::Attend;
use super::{Batch, Config, Decoder, Keep, Tensors};
use crate::base::memory;

/// A fixed number of slots, each for one sequence of at most `capacity` tokens.
#[derive(Debug)]
pub struct Cache {
    /// One for each layer.
    heads: Vec<Heads>,
    width: usize,
    capacity: usize,
    /// One for each layer: slots × capacity × width.
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

impl Cache {
    /// Fails if there is not so much memory.
    pub fn new(config: &Config, slots: usize, capacity: usize) -> Result<Cache, ModelError> {
        let bytes = (slots as u64).saturating_mul(capacity as u64).saturating_mul(Cache::token_bytes(config) as u64);
        memory::check(bytes, &format!("the cache for answers of {capacity} tokens"))?;
        let layer = || vec![0.0; slots * capacity * config.key_value_size()];
        let layers = || (0..config.num_hidden_layers).map(|_| layer()).collect();
        Ok(Cache { heads: Heads::of(config), width: config.key_value_size(), capacity, keys: layers(), values: layers() })
    }

    /// Bytes that one token of one sequence takes.
    pub fn token_bytes(config: &Config) -> usize {
        2 * 4 * config.num_hidden_layers * config.key_value_size()
    }

    /// Gives slot `to` the first tokens of slot `from`.
    pub fn copy(&mut self, from: usize, to: usize, tokens: usize) {
        let (stride, length) = (self.capacity * self.width, tokens * self.width);
        for layer in self.keys.iter_mut().chain(&mut self.values) {
            layer.copy_within(from * stride..from * stride + length, to * stride);
        }
    }

    /// Stores a layer's keys and values of one sequence's rows, from `position` on.
    fn store(&mut self, layer: usize, slot: usize, position: usize, k: &[f32], v: &[f32]) {
        let start = (slot * self.capacity + position) * self.width;
        self.keys[layer][start..start + k.len()].copy_from_slice(k);
        self.values[layer][start..start + v.len()].copy_from_slice(v);
    }
}

impl Decoder {
    /// Runs whole sequences, `slots[i]` being the cache slot of the batch's sequence i.
    pub fn prefill(&mut self, weights: &dyn Tensors, batch: &Batch, cache: &mut Cache, slots: &[usize]) -> Result<(), ModelError> {
        self.forward_with(weights, &[], batch, Keep::Nothing, &mut Prefill { starts: &batch.starts, cache, slots })
    }

    /// Runs further tokens of each sequence, whose earlier ones are in its slot (a batch of [`Batch::push_next`] and [`Batch::push_rest`]).
    pub fn advance(&mut self, weights: &dyn Tensors, batch: &Batch, cache: &mut Cache, slots: &[usize]) -> Result<(), ModelError> {
        self.turning.check_cached(batch)?;
        self.forward_with(weights, &[], batch, Keep::Nothing, &mut Advance { batch, cache, slots })
    }
}

struct Prefill<'a> {
    starts: &'a [usize],
    cache: &'a mut Cache,
    slots: &'a [usize],
}

impl Attend for Prefill<'_> {
    fn attend(&mut self, layer: usize, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32], lse: &mut [f32]) {
        let width = self.cache.width;
        for (rows, slot) in self.starts.windows(2).zip(self.slots) {
            let rows = rows[0] * width..rows[1] * width;
            self.cache.store(layer, *slot, 0, &k[rows.clone()], &v[rows]);
        }
        attention::forward(self.cache.heads[layer], self.starts, q, k, v, out, lse);
    }
}

struct Advance<'a> {
    batch: &'a Batch,
    cache: &'a mut Cache,
    slots: &'a [usize],
}

impl Attend for Advance<'_> {
    fn attend(&mut self, layer: usize, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32], _: &mut [f32]) {
        let heads = self.cache.heads[layer];
        let (width, size, capacity) = (self.cache.width, heads.heads * heads.head_dim, self.cache.capacity);
        let mut tasks = Vec::with_capacity(self.slots.len());
        let mut rest = out;
        for (rows, slot) in self.batch.starts.windows(2).zip(self.slots) {
            let (rows, position) = (rows[0]..rows[1], self.batch.positions[rows[0]] as usize);
            self.cache.store(layer, *slot, position, &k[rows.start * width..rows.end * width], &v[rows.start * width..rows.end * width]);
            let keys = slot * capacity * width..(slot * capacity + position + rows.len()) * width;
            let out = rest.split_off_mut(..rows.len() * size).unwrap_or_default();
            tasks.push((&q[rows.start * size..rows.end * size], keys, out));
        }
        let (all_keys, values) = (&self.cache.keys[layer], &self.cache.values[layer]);
        tasks.into_par_iter().for_each(|(q, keys, out)| {
            attention_cached(&heads.shape(keys.len() / width), q, &all_keys[keys.clone()], &values[keys], out);
        });
    }
}
