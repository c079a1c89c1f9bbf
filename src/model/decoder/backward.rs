//! The backward pass: gradients of every tensor that learns, summed in a fixed order. Nothing is computed for what is frozen.

use std::ops::Range;

use crate::kernels::embedding::scatter_add;
use crate::kernels::gemm::{Mat, Write, matmul};
use crate::kernels::glu::swiglu_backward;
use crate::kernels::norm::rms_backward;
use crate::kernels::rope::{Rope, Turn, rope};

use super::super::ModelError;
use super::attention::{self, Heads, Seen};
use super::places::{LayerPlaces, Place};
use super::{Batch, Config, Decoder, Layer, Tail, linear, put_rows, room};

/// Computes the loss of some wanted rows from their logits, which it replaces by the loss's gradient.
pub type Loss<'a> = &'a mut dyn FnMut(Range<usize>, &mut [f32]) -> Result<f64, ModelError>;

/// Gradients of activations.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    all: Flow,
    wanted: Flow,
    scratch: Scratch,
}

/// The gradient that flows down: of a layer's output, then of its input; and of its attention's output.
#[derive(Debug, Default)]
struct Flow {
    dx: Vec<f32>,
    dout: Vec<f32>,
}

#[derive(Debug, Default)]
struct Scratch {
    dnormed: Vec<f32>,
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
    dglu: Vec<f32>,
    dgate: Vec<f32>,
    dup: Vec<f32>,
}

/// What all layers share.
struct Pass<'a> {
    config: &'a Config,
    heads: Heads,
    rope: &'a Rope,
    weights: &'a [f32],
    batch: &'a Batch,
}

/// What of a layer's backward pass anybody needs.
#[derive(Clone, Copy)]
struct Needs {
    /// Something below it learns.
    input: bool,
    /// So does something in its first half.
    attention: bool,
}

impl Decoder {
    /// The backward pass of the last [`Decoder::forward`] with [`super::Keep::All`]. Returns the sum of the losses. Every tensor that
    /// learns has its gradient in `gradients` afterwards; those of frozen ones are left as they are.
    pub fn backward(&mut self, weights: &[f32], batch: &Batch, gradients: &mut [f32], loss: Loss) -> Result<f64, ModelError> {
        let total = self.head_backward(weights, gradients, loss)?;
        let Decoder { config, places, heads, rope, layers, wanted_out, gradients: work, .. } = self;
        let pass = Pass { config, heads: *heads, rope, weights, batch };
        let (d, q_size) = (config.hidden_size, config.query_size());
        for (index, (layer, layer_places)) in layers.iter().zip(&places.layers).enumerate().skip(places.lowest).rev() {
            let input = index > places.lowest || places.embed.learns;
            let needs = Needs { input, attention: input || layer_places.first_half_learns() };
            let Buffers { all, wanted, scratch } = &mut *work;
            if index + 1 == layers.len() {
                layer.tail.backward(&pass, layer_places, wanted_out, needs, gradients, (wanted, scratch));
                if needs.attention {
                    room(&mut all.dx, batch.rows(), d);
                    room(&mut all.dout, batch.rows(), q_size);
                    put_rows(&wanted.dx, d, &batch.wanted, &mut all.dx);
                    put_rows(&wanted.dout, q_size, &batch.wanted, &mut all.dout);
                }
            } else {
                layer.tail.backward(&pass, layer_places, &layer.out, needs, gradients, (all, scratch));
            }
            if needs.attention {
                layer.first_half_backward(&pass, layer_places, needs, gradients, (all, scratch));
            }
        }
        if places.embed.learns {
            let embed = &mut gradients[places.embed.range.clone()];
            // A tied embedding already holds the head's share.
            if !places.tied {
                embed.fill(0.0);
            }
            scatter_add(&work.all.dx, d, &batch.tokens, embed);
        }
        Ok(total)
    }

    /// Loss, head and final norm: leaves the gradient of the last layer's wanted rows.
    fn head_backward(&mut self, weights: &[f32], gradients: &mut [f32], loss: Loss) -> Result<f64, ModelError> {
        let chunk_rows = self.head_rows();
        let Decoder { config, places, normed, logits, last, inv_norm, gradients: work, .. } = self;
        let (d, vocab, rows) = (config.hidden_size, config.vocab_size, inv_norm.len());
        let head = &weights[places.head.range.clone()];
        let dnormed = &mut work.scratch.dnormed;
        room(dnormed, rows, d);
        let mut total = 0.0;
        for start in (0..rows).step_by(chunk_rows) {
            let end = rows.min(start + chunk_rows);
            let x = &normed[start * d..end * d];
            room(logits, end - start, vocab);
            linear(x, d, head, vocab, logits, Write::Set);
            total += loss(start..end, logits)?;
            input_gradient(logits, vocab, head, d, &mut dnormed[start * d..end * d], Write::Set);
            let write = if start == 0 { Write::Set } else { Write::Add };
            weight_gradient(logits, vocab, x, d, &places.head, gradients, write);
        }
        let wanted = &mut work.wanted;
        room(&mut wanted.dx, rows, d);
        wanted.dx.fill(0.0);
        let dnorm = zeroed(gradients, &places.norm);
        rms_backward(dnormed, last, &weights[places.norm.range.clone()], inv_norm, &mut wanted.dx, dnorm);
        Ok(total)
    }
}

impl Tail {
    /// Turns `dx` from the gradient of the layer's output into that of its middle, and makes `dout`.
    fn backward(
        &self,
        pass: &Pass,
        places: &LayerPlaces,
        attended: &[f32],
        needs: Needs,
        gradients: &mut [f32],
        (flow, scratch): (&mut Flow, &mut Scratch),
    ) {
        let (d, ff, q_size) = (pass.config.hidden_size, pass.config.intermediate_size, pass.config.query_size());
        let rows = self.inv2.len();
        let weight = |place: &Place| &pass.weights[place.range.clone()];
        let Scratch { dnormed, dglu, dgate, dup, .. } = scratch;
        let Flow { dx, dout } = flow;
        for (buffer, width) in [(&mut *dglu, ff), (&mut *dgate, ff), (&mut *dup, ff), (&mut *dnormed, d), (&mut *dout, q_size)] {
            room(buffer, rows, width);
        }
        input_gradient(dx, d, weight(&places.down), ff, dglu, Write::Set);
        weight_gradient(dx, d, &self.glu, ff, &places.down, gradients, Write::Set);
        swiglu_backward(dglu, &self.gate, &self.up, dgate, dup);
        weight_gradient(dgate, ff, &self.normed2, d, &places.gate, gradients, Write::Set);
        weight_gradient(dup, ff, &self.normed2, d, &places.up, gradients, Write::Set);
        input_gradient(dgate, ff, weight(&places.gate), d, dnormed, Write::Set);
        input_gradient(dup, ff, weight(&places.up), d, dnormed, Write::Add);
        rms_backward(dnormed, &self.middle, weight(&places.norm2), &self.inv2, dx, zeroed(gradients, &places.norm2));
        weight_gradient(dx, d, attended, q_size, &places.o, gradients, Write::Set);
        if needs.attention {
            input_gradient(dx, d, weight(&places.o), q_size, dout, Write::Set);
        }
    }
}

impl Layer {
    /// Turns `dx` from the gradient of the layer's middle into that of its input.
    fn first_half_backward(
        &self,
        pass: &Pass,
        places: &LayerPlaces,
        needs: Needs,
        gradients: &mut [f32],
        (flow, scratch): (&mut Flow, &mut Scratch),
    ) {
        let Pass { config, heads, rope: table, weights, batch } = pass;
        let (rows, d, q_size, kv_size) = (batch.rows(), config.hidden_size, config.query_size(), config.key_value_size());
        let weight = |place: &Place| &weights[place.range.clone()];
        let Scratch { dnormed, dq, dk, dv, .. } = scratch;
        for (buffer, width) in [(&mut *dq, q_size), (&mut *dk, kv_size), (&mut *dv, kv_size), (&mut *dnormed, d)] {
            room(buffer, rows, width);
        }
        let seen = Seen { q: &self.q, k: &self.k, v: &self.v, out: &self.out, lse: &self.lse, dout: &flow.dout };
        attention::backward(*heads, &batch.starts, seen, dq, dk, dv);
        rope(dq, config.num_attention_heads, &batch.positions, table, Turn::Backward);
        rope(dk, config.num_key_value_heads, &batch.positions, table, Turn::Backward);
        weight_gradient(dq, q_size, &self.normed1, d, &places.q, gradients, Write::Set);
        weight_gradient(dk, kv_size, &self.normed1, d, &places.k, gradients, Write::Set);
        weight_gradient(dv, kv_size, &self.normed1, d, &places.v, gradients, Write::Set);
        if needs.input || places.norm1.learns {
            input_gradient(dq, q_size, weight(&places.q), d, dnormed, Write::Set);
            input_gradient(dk, kv_size, weight(&places.k), d, dnormed, Write::Add);
            input_gradient(dv, kv_size, weight(&places.v), d, dnormed, Write::Add);
            rms_backward(dnormed, &self.x, weight(&places.norm1), &self.inv1, &mut flow.dx, zeroed(gradients, &places.norm1));
        }
    }
}

/// `dx = dy · w`
fn input_gradient(dy: &[f32], outputs: usize, weight: &[f32], inputs: usize, dx: &mut [f32], write: Write) {
    matmul(Mat::new(dy, dy.len() / outputs, outputs), Mat::new(weight, outputs, inputs), dx, write);
}

/// `dw = dyᵀ · x`, unless the weight is frozen.
fn weight_gradient(dy: &[f32], outputs: usize, x: &[f32], inputs: usize, place: &Place, gradients: &mut [f32], write: Write) {
    if place.learns {
        let rows = dy.len() / outputs;
        matmul(Mat::new(dy, rows, outputs).t(), Mat::new(x, rows, inputs), &mut gradients[place.range.clone()], write);
    }
}

/// The gradient of a norm's weight, to be added to; nothing if it is frozen.
fn zeroed<'a>(gradients: &'a mut [f32], place: &Place) -> Option<&'a mut [f32]> {
    place.learns.then(|| {
        let gradient = &mut gradients[place.range.clone()];
        gradient.fill(0.0);
        gradient
    })
}
