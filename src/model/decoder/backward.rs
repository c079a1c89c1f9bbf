//! The backward pass: gradients of every tensor that learns, summed in a fixed order. Nothing is computed for what is frozen.

use std::ops::Range;

use crate::kernels::bias::{bias_backward, scale};
use crate::kernels::embedding::scatter_add;
use crate::kernels::gemm::{Mat, Write, matmul};
use crate::kernels::glu::{geglu_backward, swiglu_backward};
use crate::kernels::norm::rms_backward;
use crate::kernels::rope::Turn;

use super::super::{Activation, ModelError};
use super::attention::{self, Heads, Seen};
use super::forward::Numbers;
use super::places::{LayerPlaces, Place};
use super::turning::Turning;
use super::{Batch, Decoder, Front, Keep, Kept, Tail, Work, linear, put_rows, room};

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
    /// Of what a norm of heads, or one behind attention or MLP, is given.
    draw: Vec<f32>,
    /// What an adapter reduces its input to.
    low: Vec<f32>,
}

#[cfg(test)]
impl Buffers {
    pub(super) fn all(&self) -> Vec<&Vec<f32>> {
        let Buffers { all, wanted, scratch } = self;
        let Scratch { dnormed, dq, dk, dv, dglu, dgate, dup, draw, low } = scratch;
        vec![&all.dx, &all.dout, &wanted.dx, &wanted.dout, dnormed, dq, dk, dv, dglu, dgate, dup, draw, low]
    }
}

/// What all layers share.
struct Pass<'a> {
    numbers: Numbers<'a>,
    weights: &'a [f32],
    heads: &'a [Heads],
    turning: &'a Turning,
    batch: &'a Batch,
}

/// What of a layer's backward pass anybody needs.
#[derive(Clone, Copy)]
struct Needs {
    /// The gradient of its input: something below it learns.
    input: bool,
    /// Of its attention's output: so does something in its first half.
    attention: bool,
    /// Of its middle, between attention and MLP.
    middle: bool,
    /// Of what its last matrix is given.
    glu: bool,
}

impl Needs {
    fn of(places: &LayerPlaces, input: bool) -> Needs {
        let attention = input || places.first_half_learns();
        let middle = attention || places.mlp_input_learns();
        Needs { input, attention, middle, glu: middle || places.gate_or_up_learns() }
    }
}

impl Decoder {
    /// The backward pass of the last [`Decoder::forward`], which must not have kept [`Keep::Nothing`]. Returns the sum of the losses. Every
    /// tensor that learns has its gradient in `gradients` afterwards; those of frozen ones are left as they are.
    pub fn backward(&mut self, weights: &[f32], batch: &Batch, gradients: &mut [f32], loss: Loss) -> Result<f64, ModelError> {
        self.backward_adapted(weights, &[], batch, gradients, loss)
    }

    /// The same of [`Decoder::forward_adapted`]; `gradients` are those of the adapter.
    pub fn backward_adapted(
        &mut self,
        weights: &[f32],
        adapter: &[f32],
        batch: &Batch,
        gradients: &mut [f32],
        loss: Loss,
    ) -> Result<f64, ModelError> {
        assert!(self.keep != Keep::Nothing, "a backward pass after a forward pass that kept nothing");
        self.places.check_adapter(adapter)?;
        let total = self.head_backward(weights, gradients, loss)?;
        let Decoder { config, places, heads, turning, keep, kept, work, wanted_out, gradients: buffers, .. } = self;
        let pass = Pass { numbers: Numbers { config, weights: &weights, adapter }, weights, heads, turning, batch };
        let (d, q_size) = (config.hidden_size, config.query_size());
        for index in (places.lowest..kept.len()).rev() {
            let layer_places = &places.layers[index];
            let needs = Needs::of(layer_places, index > places.lowest || places.embed.learns);
            let Buffers { all, wanted, scratch } = &mut *buffers;
            let (kept, is_last) = (&kept[index], index + 1 == kept.len());
            let work = &mut work[places.work(index, *keep)];
            if *keep == Keep::Inputs && !is_last {
                work.recompute(&pass, (index, layer_places), kept, needs, scratch);
            }
            if is_last {
                work.tail.backward(&pass, layer_places, wanted_out, needs, gradients, (wanted, scratch));
                if needs.attention {
                    room(&mut all.dx, batch.rows(), d);
                    room(&mut all.dout, batch.rows(), q_size);
                    put_rows(&wanted.dx, d, &batch.wanted, &mut all.dx);
                    put_rows(&wanted.dout, q_size, &batch.wanted, &mut all.dout);
                }
            } else {
                work.tail.backward(&pass, layer_places, &kept.out, needs, gradients, (all, scratch));
            }
            if needs.attention {
                work.front.backward(&pass, (index, layer_places), kept, needs, gradients, (all, scratch));
            }
        }
        if places.embed.learns {
            let embed = &mut gradients[places.embed.range.clone()];
            // A tied embedding already holds the head's share.
            if !places.tied {
                embed.fill(0.0);
            }
            if let Some(factor) = config.embedding_scale() {
                scale(&mut buffers.all.dx, factor);
            }
            scatter_add(&buffers.all.dx, d, &batch.tokens, embed);
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
            if places.learns_below_head() {
                input_gradient(logits, vocab, head, d, &mut dnormed[start * d..end * d], Write::Set);
            }
            let write = if start == 0 { Write::Set } else { Write::Add };
            weight_gradient(logits, vocab, x, d, &places.head, gradients, write);
        }
        if !places.learns_below_head() {
            return Ok(total);
        }
        let wanted = &mut work.wanted;
        room(&mut wanted.dx, rows, d);
        wanted.dx.fill(0.0);
        let dnorm = zeroed(gradients, &places.norm);
        rms_backward(dnormed, last, &weights[places.norm.range.clone()], inv_norm, &mut wanted.dx, dnorm);
        Ok(total)
    }
}

impl Work {
    /// What the forward pass did not keep, to the same bits. The last layer's is still there.
    fn recompute(&mut self, pass: &Pass, (layer, places): (usize, &LayerPlaces), kept: &Kept, needs: Needs, scratch: &mut Scratch) {
        let low = &mut scratch.low;
        self.tail.activate(pass.numbers, places, &kept.x, &kept.out, low);
        if places.post2.is_some() {
            self.tail.finish(pass.numbers, places, &mut scratch.draw, low);
        }
        if needs.attention {
            self.front.forward(pass.numbers, places, &kept.x, (layer, &pass.batch.positions, pass.turning), low);
        }
    }
}

impl Tail {
    /// Turns `dx` from the gradient of the layer's output into that of its middle, and makes `dout`, as far as they are needed.
    fn backward(
        &self,
        pass: &Pass,
        places: &LayerPlaces,
        attended: &[f32],
        needs: Needs,
        gradients: &mut [f32],
        (flow, scratch): (&mut Flow, &mut Scratch),
    ) {
        let Numbers { config, .. } = pass.numbers;
        let (d, ff, q_size) = (config.hidden_size, config.intermediate_size, config.query_size());
        let rows = self.inv2.len();
        let Scratch { dnormed, dglu, dgate, dup, draw, low, .. } = scratch;
        let Flow { dx, dout } = flow;
        for (buffer, width) in [(&mut *dglu, ff), (&mut *dgate, ff), (&mut *dup, ff), (&mut *dnormed, d), (&mut *dout, q_size)] {
            room(buffer, rows, width);
        }
        let into = needs.glu.then_some((&mut dglu[..], Write::Set));
        let dmlp = pass.behind(places.post2.as_ref(), &self.mlp, &self.inv_mlp, dx, draw, gradients);
        pass.linear(&places.down, &self.glu, ff, dmlp, into, (gradients, low));
        if !needs.glu {
            return;
        }
        match config.hidden_act {
            Activation::Silu => swiglu_backward(dglu, &self.gate, &self.up, dgate, dup),
            Activation::GeluTanh => geglu_backward(dglu, &self.gate, &self.up, dgate, dup),
        }
        let into = needs.middle.then_some((&mut dnormed[..], Write::Set));
        pass.linear(&places.gate, &self.normed2, d, dgate, into, (gradients, low));
        let into = needs.middle.then_some((&mut dnormed[..], Write::Add));
        pass.linear(&places.up, &self.normed2, d, dup, into, (gradients, low));
        if !needs.middle {
            return;
        }
        rms_backward(dnormed, &self.middle, pass.weight(&places.norm2), &self.inv2, dx, zeroed(gradients, &places.norm2));
        let into = needs.attention.then_some((&mut dout[..], Write::Set));
        let dattended = pass.behind(places.post1.as_ref(), &self.attended, &self.inv_attended, dx, draw, gradients);
        pass.linear(&places.o, attended, q_size, dattended, into, (gradients, low));
    }
}

impl Front {
    /// Turns `dx` from the gradient of the layer's middle into that of its input.
    fn backward(
        &self,
        pass: &Pass,
        (layer, places): (usize, &LayerPlaces),
        kept: &Kept,
        needs: Needs,
        gradients: &mut [f32],
        (flow, scratch): (&mut Flow, &mut Scratch),
    ) {
        let Pass { numbers: Numbers { config, .. }, heads, turning, batch, .. } = pass;
        let (rows, d, q_size, kv_size) = (batch.rows(), config.hidden_size, config.query_size(), config.key_value_size());
        let Scratch { dnormed, dq, dk, dv, draw, low, .. } = scratch;
        for (buffer, width) in [(&mut *dq, q_size), (&mut *dk, kv_size), (&mut *dv, kv_size), (&mut *dnormed, d)] {
            room(buffer, rows, width);
        }
        let seen = Seen { q: &self.q, k: &self.k, v: &self.v, out: &kept.out, lse: &kept.lse, dout: &flow.dout };
        attention::backward(heads[layer], &batch.starts, seen, dq, dk, dv);
        turning.turn(layer, dq, config.num_attention_heads, &batch.positions, Turn::Backward);
        turning.turn(layer, dk, config.num_key_value_heads, &batch.positions, Turn::Backward);
        if let Some([of_q, of_k]) = &places.head_norms {
            for (dx, raw, inv, place) in [(&mut *dq, &self.raw_q, &self.inv_q, of_q), (&mut *dk, &self.raw_k, &self.inv_k, of_k)] {
                pass.behind(Some(place), raw, inv, dx, draw, gradients);
                std::mem::swap(dx, draw);
            }
        }
        for (place, dy) in places.biases.iter().flatten().zip([&*dq, &*dk, &*dv]) {
            if let Some(gradient) = zeroed(gradients, place) {
                bias_backward(dy, gradient);
            }
        }
        let norms = needs.input || places.norm1.learns;
        for (place, dy, write) in [(&places.q, dq, Write::Set), (&places.k, dk, Write::Add), (&places.v, dv, Write::Add)] {
            let into = norms.then_some((&mut dnormed[..], write));
            pass.linear(place, &self.normed1, d, dy, into, (gradients, low));
        }
        if norms {
            let norm1 = pass.weight(&places.norm1);
            rms_backward(dnormed, &kept.x, norm1, &self.inv1, &mut flow.dx, zeroed(gradients, &places.norm1));
        }
    }
}

impl<'a> Pass<'a> {
    fn weight(&self, place: &Place) -> &'a [f32] {
        &self.weights[place.range.clone()]
    }

    /// The gradient of what a norm was given, which is made in `draw`; if there is no norm, that of what came out.
    fn behind<'b>(
        &self,
        norm: Option<&Place>,
        raw: &[f32],
        inv: &[f32],
        dy: &'b [f32],
        draw: &'b mut Vec<f32>,
        gradients: &mut [f32],
    ) -> &'b [f32] {
        let Some(norm) = norm else { return dy };
        room(draw, dy.len(), 1);
        draw.fill(0.0);
        rms_backward(dy, raw, self.weight(norm), inv, draw, zeroed(gradients, norm));
        draw
    }

    /// Of `y = x · wᵀ`: the gradients of what learns in it, and that of `x` where somebody asks for it.
    fn linear(
        &self,
        place: &Place,
        x: &[f32],
        inputs: usize,
        dy: &[f32],
        into: Option<(&mut [f32], Write)>,
        (gradients, low): (&mut [f32], &mut Vec<f32>),
    ) {
        let outputs = place.range.len() / inputs;
        weight_gradient(dy, outputs, x, inputs, place, gradients, Write::Set);
        let dx = into.map(|(dx, write)| {
            input_gradient(dy, outputs, self.weight(place), inputs, dx, write);
            dx
        });
        if let Some(low_rank) = &place.low_rank {
            low_rank.backward(self.numbers.adapter, dy, x, dx, gradients, low);
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
