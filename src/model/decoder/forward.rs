//! The forward pass.

use crate::kernels::gemm::Write;
use crate::kernels::glu::swiglu_forward;
use crate::kernels::norm::rms_forward;
use crate::kernels::rope::{Turn, rope, rope_neighbours};

use super::super::ModelError;
use super::places::LayerPlaces;
use super::{Batch, Config, Decoder, Keep, Layer, Pairs, Tail, Tensors, attention, room, take_rows};

/// How a layer attends: from its queries, keys and values to `out` and, for a backward pass, `lse`.
pub(super) trait Attend {
    fn attend(&mut self, layer: usize, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32], lse: &mut [f32]);
}

/// Every row sees the rows before it in its own sequence.
struct Whole<'a> {
    heads: attention::Heads,
    starts: &'a [usize],
}

impl Attend for Whole<'_> {
    fn attend(&mut self, _: usize, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32], lse: &mut [f32]) {
        attention::forward(self.heads, self.starts, q, k, v, out, lse);
    }
}

impl Decoder {
    /// Runs whole sequences up to the normalised last activations of the wanted rows; [`Decoder::logits`] makes logits of them.
    pub fn forward(&mut self, weights: &dyn Tensors, batch: &Batch, keep: Keep) -> Result<(), ModelError> {
        let mut whole = Whole { heads: self.heads, starts: &batch.starts };
        self.forward_with(weights, batch, keep, &mut whole)
    }

    pub(super) fn forward_with(
        &mut self,
        weights: &dyn Tensors,
        batch: &Batch,
        keep: Keep,
        attend: &mut dyn Attend,
    ) -> Result<(), ModelError> {
        batch.check(&self.config)?;
        self.reach(batch);
        let (d, depth) = (self.config.hidden_size, self.layers.len());
        let mut x = std::mem::take(&mut self.layers[0].x);
        room(&mut x, batch.rows(), d);
        weights.rows(&self.places.embed, &batch.tokens, &mut x);
        self.layers[0].x = x;
        for index in 0..depth {
            let slot = if keep == Keep::All { index } else { 0 };
            self.first_half(weights, batch, index, slot, attend);
            self.second_half(weights, batch, index, slot);
            let next = match (index + 1 == depth, keep) {
                (true, _) => &mut self.last,
                (false, Keep::All) => &mut self.layers[index + 1].x,
                (false, Keep::Nothing) => &mut self.layers[0].x,
            };
            std::mem::swap(next, &mut self.spare);
        }
        let rows = batch.wanted.len();
        room(&mut self.normed, rows, d);
        room(&mut self.inv_norm, rows, 1);
        rms_forward(&self.last, weights.vector(&self.places.norm), self.config.rms_norm_eps, &mut self.normed, &mut self.inv_norm);
        Ok(())
    }

    /// Norm, projections, positions and attention of layer `index`, in the buffers of `slot`.
    fn first_half(&mut self, weights: &dyn Tensors, batch: &Batch, index: usize, slot: usize, attend: &mut dyn Attend) {
        let (config, places) = (&self.config, &self.places.layers[index]);
        let (rows, d, q_size, kv_size) = (batch.rows(), config.hidden_size, config.query_size(), config.key_value_size());
        let Layer { x, normed1, inv1, q, k, v, out, lse, .. } = &mut self.layers[slot];
        for (buffer, width) in [
            (&mut *normed1, d),
            (&mut *inv1, 1),
            (&mut *q, q_size),
            (&mut *k, kv_size),
            (&mut *v, kv_size),
            (&mut *out, q_size),
            (&mut *lse, config.num_attention_heads),
        ] {
            room(buffer, rows, width);
        }
        rms_forward(x, weights.vector(&places.norm1), config.rms_norm_eps, normed1, inv1);
        weights.linear(&places.q, normed1, q, Write::Set);
        weights.linear(&places.k, normed1, k, Write::Set);
        weights.linear(&places.v, normed1, v, Write::Set);
        for (x, heads) in [(&mut *q, config.num_attention_heads), (&mut *k, config.num_key_value_heads)] {
            match weights.pairs() {
                Pairs::Halves => rope(x, heads, &batch.positions, &self.rope, Turn::Forward),
                Pairs::Neighbours => rope_neighbours(x, heads, &batch.positions, &self.rope),
            }
        }
        attend.attend(index, q, k, v, out, lse);
    }

    /// From the attention's output to the layer's, which goes to `spare`. Of the last layer only the wanted rows.
    fn second_half(&mut self, weights: &dyn Tensors, batch: &Batch, index: usize, slot: usize) {
        let (config, places) = (&self.config, &self.places.layers[index]);
        let Layer { x, out, tail, .. } = &mut self.layers[slot];
        if index + 1 < self.places.layers.len() {
            return tail.forward(config, places, weights, x, out, &mut self.spare);
        }
        let (d, q_size) = (config.hidden_size, config.query_size());
        room(&mut self.wanted_x, batch.wanted.len(), d);
        room(&mut self.wanted_out, batch.wanted.len(), q_size);
        take_rows(x, d, &batch.wanted, &mut self.wanted_x);
        take_rows(out, q_size, &batch.wanted, &mut self.wanted_out);
        tail.forward(config, places, weights, &self.wanted_x, &self.wanted_out, &mut self.spare);
    }
}

impl Tail {
    fn forward(&mut self, config: &Config, places: &LayerPlaces, weights: &dyn Tensors, x: &[f32], out: &[f32], y: &mut Vec<f32>) {
        let (d, ff) = (config.hidden_size, config.intermediate_size);
        let rows = x.len() / d;
        let Tail { middle, normed2, inv2, gate, up, glu } = self;
        for (buffer, width) in
            [(&mut *middle, d), (&mut *normed2, d), (&mut *inv2, 1), (&mut *gate, ff), (&mut *up, ff), (&mut *glu, ff), (&mut *y, d)]
        {
            room(buffer, rows, width);
        }
        middle.copy_from_slice(x);
        weights.linear(&places.o, out, middle, Write::Add);
        rms_forward(middle, weights.vector(&places.norm2), config.rms_norm_eps, normed2, inv2);
        weights.linear(&places.gate, normed2, gate, Write::Set);
        weights.linear(&places.up, normed2, up, Write::Set);
        swiglu_forward(gate, up, glu);
        y.copy_from_slice(middle);
        weights.linear(&places.down, glu, y, Write::Add);
    }
}
