//! The forward pass.

use crate::kernels::bias::{add, bias_forward, scale};
use crate::kernels::gemm::Write;
use crate::kernels::glu::{geglu_forward, swiglu_forward};
use crate::kernels::norm::rms_forward;
use crate::kernels::rope::{Turn, neighbours_to_halves};

use super::super::{Activation, ModelError};
use super::places::{LayerPlaces, Place};
use super::turning::Turning;
use super::{Batch, Config, Decoder, Front, Keep, Kept, Load, Pairs, Tail, Tensors, Work, attention, copy, room, take_rows};

/// How a layer attends: from its queries, keys and values to `out` and, for a backward pass, `lse`.
pub(super) trait Attend {
    fn attend(&mut self, layer: usize, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32], lse: &mut [f32]);
}

/// Every row sees the rows before it in its own sequence.
struct Whole<'a> {
    heads: &'a [attention::Heads],
    starts: &'a [usize],
}

impl Attend for Whole<'_> {
    fn attend(&mut self, layer: usize, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32], lse: &mut [f32]) {
        attention::forward(self.heads[layer], self.starts, q, k, v, out, lse);
    }
}

/// What all layers compute with.
#[derive(Clone, Copy)]
pub(super) struct Numbers<'a> {
    pub config: &'a Config,
    pub weights: &'a dyn Tensors,
    /// Empty if there is none.
    pub adapter: &'a [f32],
}

impl Numbers<'_> {
    /// `y = x · wᵀ`, with what an adapter adds. `low` is scratch.
    fn linear(&self, place: &Place, x: &[f32], y: &mut [f32], write: Write, low: &mut Vec<f32>) {
        self.weights.linear(place, x, y, write);
        if let Some(low_rank) = &place.low_rank {
            low_rank.forward(self.adapter, x, y, low);
        }
    }
}

impl Decoder {
    /// Runs whole sequences up to the normalised last activations of the wanted rows; [`Decoder::logits`] makes logits of them.
    pub fn forward(&mut self, weights: &dyn Tensors, batch: &Batch, keep: Keep) -> Result<(), ModelError> {
        self.forward_adapted(weights, &[], batch, keep)
    }

    /// The same with an adapter's numbers (see [`Decoder::with_adapter`]).
    pub fn forward_adapted(&mut self, weights: &dyn Tensors, adapter: &[f32], batch: &Batch, keep: Keep) -> Result<(), ModelError> {
        let heads = std::mem::take(&mut self.heads);
        let done = self.forward_with(weights, adapter, batch, keep, &mut Whole { heads: &heads, starts: &batch.starts });
        self.heads = heads;
        done
    }

    pub(super) fn forward_with(
        &mut self,
        weights: &dyn Tensors,
        adapter: &[f32],
        batch: &Batch,
        keep: Keep,
        attend: &mut dyn Attend,
    ) -> Result<(), ModelError> {
        batch.check(&self.config)?;
        self.places.check_adapter(adapter)?;
        self.check_memory(Load { rows: batch.rows(), wanted: batch.wanted.len() }, keep)?;
        self.turning.prepare(batch, self.config.max_position_embeddings);
        self.keep = keep;
        let (d, depth) = (self.config.hidden_size, self.kept.len());
        let mut x = std::mem::take(&mut self.kept[0].x);
        self.embed(weights, batch, &mut x);
        self.kept[0].x = x;
        for index in 0..depth {
            self.layer(weights, adapter, batch, index, attend);
            let next = if index + 1 == depth { &mut self.last } else { &mut self.kept[self.places.kept(index + 1, keep)].x };
            std::mem::swap(next, &mut self.spare);
        }
        let rows = batch.wanted.len();
        room(&mut self.normed, rows, d);
        room(&mut self.inv_norm, rows, 1);
        rms_forward(&self.last, weights.vector(&self.places.norm), self.config.rms_norm_eps, &mut self.normed, &mut self.inv_norm);
        Ok(())
    }

    /// What goes into the first layer.
    pub(super) fn embed(&self, weights: &dyn Tensors, batch: &Batch, x: &mut Vec<f32>) {
        room(x, batch.rows(), self.config.hidden_size);
        weights.rows(&self.places.embed, &batch.tokens, x);
        if let Some(factor) = self.config.embedding_scale() {
            scale(x, factor);
        }
    }

    /// One layer on its own, from its input `x` to its output `y`. Every row of the batch must be wanted.
    pub(super) fn alone(&mut self, weights: &dyn Tensors, batch: &Batch, index: usize, x: &mut Vec<f32>, y: &mut Vec<f32>) {
        self.turning.prepare(batch, self.config.max_position_embeddings);
        self.keep = Keep::Nothing;
        let heads = std::mem::take(&mut self.heads);
        std::mem::swap(&mut self.kept[0].x, x);
        self.layer(weights, &[], batch, index, &mut Whole { heads: &heads, starts: &batch.starts });
        std::mem::swap(&mut self.kept[0].x, x);
        std::mem::swap(&mut self.spare, y);
        self.heads = heads;
    }

    /// A layer, from its input to its output, which goes to `spare`. Of the last layer's second half only the wanted rows.
    fn layer(&mut self, weights: &dyn Tensors, adapter: &[f32], batch: &Batch, index: usize, attend: &mut dyn Attend) {
        let Decoder { config, places, turning, keep, kept, work, wanted_x, wanted_out, spare, low, .. } = self;
        let numbers = Numbers { config, weights, adapter };
        let (rows, q_size) = (batch.rows(), config.query_size());
        let Kept { x, out, lse } = &mut kept[places.kept(index, *keep)];
        let Work { front, tail } = &mut work[places.work(index, *keep)];
        let is_last = index + 1 == places.layers.len();
        let places = &places.layers[index];
        front.forward(numbers, places, x, (index, &batch.positions, turning), low);
        room(out, rows, q_size);
        room(lse, rows, config.num_attention_heads);
        attend.attend(index, &front.q, &front.k, &front.v, out, lse);
        let (x, out) = if is_last {
            room(wanted_x, batch.wanted.len(), config.hidden_size);
            room(wanted_out, batch.wanted.len(), q_size);
            take_rows(x, config.hidden_size, &batch.wanted, wanted_x);
            take_rows(out, q_size, &batch.wanted, wanted_out);
            (&*wanted_x, &*wanted_out)
        } else {
            (&*x, &*out)
        };
        tail.activate(numbers, places, x, out, low);
        tail.finish(numbers, places, spare, low);
    }
}

impl Front {
    /// Norm, projections, norms of heads and positions.
    pub(super) fn forward(
        &mut self,
        numbers: Numbers,
        places: &LayerPlaces,
        x: &[f32],
        (layer, positions, turning): (usize, &[u32], &Turning),
        low: &mut Vec<f32>,
    ) {
        let config = numbers.config;
        let (rows, d, q_size, kv_size) = (positions.len(), config.hidden_size, config.query_size(), config.key_value_size());
        let Front { normed1, inv1, q, k, v, .. } = self;
        for (buffer, width) in [(&mut *normed1, d), (&mut *inv1, 1), (&mut *q, q_size), (&mut *k, kv_size), (&mut *v, kv_size)] {
            room(buffer, rows, width);
        }
        rms_forward(x, numbers.weights.vector(&places.norm1), config.rms_norm_eps, normed1, inv1);
        numbers.linear(&places.q, normed1, q, Write::Set, low);
        numbers.linear(&places.k, normed1, k, Write::Set, low);
        numbers.linear(&places.v, normed1, v, Write::Set, low);
        if let Some(biases) = &places.biases {
            for (place, x) in biases.iter().zip([&mut *q, &mut *k, &mut *v]) {
                bias_forward(numbers.weights.vector(place), x);
            }
        }
        if numbers.weights.pairs() == Pairs::Neighbours {
            neighbours_to_halves(q, config.head_dim);
            neighbours_to_halves(k, config.head_dim);
        }
        if let Some(norms) = &places.head_norms {
            self.normalise_heads(numbers, norms);
        }
        turning.turn(layer, &mut self.q, config.num_attention_heads, positions, Turn::Forward);
        turning.turn(layer, &mut self.k, config.num_key_value_heads, positions, Turn::Forward);
    }

    fn normalise_heads(&mut self, numbers: Numbers, [of_q, of_k]: &[Place; 2]) {
        let (eps, head_dim) = (numbers.config.rms_norm_eps, numbers.config.head_dim);
        let queries = (&mut self.q, &mut self.raw_q, &mut self.inv_q, of_q);
        for (x, raw, inv, place) in [queries, (&mut self.k, &mut self.raw_k, &mut self.inv_k, of_k)] {
            std::mem::swap(x, raw);
            room(x, raw.len(), 1);
            room(inv, raw.len() / head_dim, 1);
            rms_forward(raw, numbers.weights.vector(place), eps, x, inv);
        }
    }
}

impl Tail {
    /// All that a backward pass needs, from the layer's input and its attention's output.
    pub(super) fn activate(&mut self, numbers: Numbers, places: &LayerPlaces, x: &[f32], out: &[f32], low: &mut Vec<f32>) {
        let config = numbers.config;
        let (d, ff) = (config.hidden_size, config.intermediate_size);
        let rows = x.len() / d;
        let Tail { middle, normed2, inv2, gate, up, glu, attended, inv_attended, .. } = self;
        for (buffer, width) in [(&mut *middle, d), (&mut *normed2, d), (&mut *inv2, 1), (&mut *gate, ff), (&mut *up, ff), (&mut *glu, ff)] {
            room(buffer, rows, width);
        }
        match &places.post1 {
            None => {
                copy(x, middle);
                numbers.linear(&places.o, out, middle, Write::Add, low);
            }
            Some(norm) => {
                room(attended, rows, d);
                room(inv_attended, rows, 1);
                numbers.linear(&places.o, out, attended, Write::Set, low);
                rms_forward(attended, numbers.weights.vector(norm), config.rms_norm_eps, middle, inv_attended);
                add(x, middle);
            }
        }
        rms_forward(middle, numbers.weights.vector(&places.norm2), config.rms_norm_eps, normed2, inv2);
        numbers.linear(&places.gate, normed2, gate, Write::Set, low);
        numbers.linear(&places.up, normed2, up, Write::Set, low);
        match config.hidden_act {
            Activation::Silu => swiglu_forward(gate, up, glu),
            Activation::GeluTanh => geglu_forward(gate, up, glu),
        }
    }

    /// The layer's output.
    pub(super) fn finish(&mut self, numbers: Numbers, places: &LayerPlaces, y: &mut Vec<f32>, low: &mut Vec<f32>) {
        let (rows, config) = (self.inv2.len(), numbers.config);
        room(y, rows, config.hidden_size);
        match &places.post2 {
            None => {
                copy(&self.middle, y);
                numbers.linear(&places.down, &self.glu, y, Write::Add, low);
            }
            Some(norm) => {
                room(&mut self.mlp, rows, config.hidden_size);
                room(&mut self.inv_mlp, rows, 1);
                numbers.linear(&places.down, &self.glu, &mut self.mlp, Write::Set, low);
                rms_forward(&self.mlp, numbers.weights.vector(norm), config.rms_norm_eps, y, &mut self.inv_mlp);
                add(&self.middle, y);
            }
        }
    }
}
