//! Gated linear units, forward and backward: SwiGLU is `silu(gate) · up`, GeGLU `gelu(gate) · up` with the tanh approximation of gelu.
//!
//! Both gates are g·σ(h(g)): h(g) = g for silu; for gelu, since ½(1 + tanh z) = σ(2z), h(g) = 2√(2/π)·(g + 0.044715·g³) (Hendrycks and
//! Gimpel, 2016). Written so, small results of negative gates lose no digits to 1 + tanh.

use rayon::prelude::*;

use super::isa::{LANES, Simd, clones};
use super::math::sigmoid_v;

/// Elements of one task.
const BLOCK: usize = 1 << 13;

/// `y = gate · sigmoid(gate) · up`.
pub fn swiglu_forward(gate: &[f32], up: &[f32], y: &mut [f32]) {
    forward_with(silu_forward, gate, up, y);
}

/// Sets the gradients of gate and up.
pub fn swiglu_backward(dy: &[f32], gate: &[f32], up: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    backward_with(silu_backward, dy, gate, up, dgate, dup);
}

/// `y = ½ · gate · (1 + tanh(√(2/π) · (gate + 0.044715 · gate³))) · up`.
pub fn geglu_forward(gate: &[f32], up: &[f32], y: &mut [f32]) {
    forward_with(gelu_forward, gate, up, y);
}

/// Sets the gradients of gate and up.
pub fn geglu_backward(dy: &[f32], gate: &[f32], up: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    backward_with(gelu_backward, dy, gate, up, dgate, dup);
}

fn forward_with(block: fn(&[f32], &[f32], &mut [f32]), gate: &[f32], up: &[f32], y: &mut [f32]) {
    assert!(gate.len() == up.len() && gate.len() == y.len(), "a gated unit's forward pass: shapes disagree");
    gate.par_chunks(BLOCK).zip(up.par_chunks(BLOCK)).zip(y.par_chunks_mut(BLOCK)).for_each(|((gate, up), y)| block(gate, up, y));
}

type Backward = fn(&[f32], &[f32], &[f32], &mut [f32], &mut [f32]);

fn backward_with(block: Backward, dy: &[f32], gate: &[f32], up: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    let n = dy.len();
    assert!(gate.len() == n && up.len() == n && dgate.len() == n && dup.len() == n, "a gated unit's backward pass: shapes disagree");
    let inputs = dy.par_chunks(BLOCK).zip(gate.par_chunks(BLOCK)).zip(up.par_chunks(BLOCK));
    let outputs = dgate.par_chunks_mut(BLOCK).zip(dup.par_chunks_mut(BLOCK));
    inputs.zip(outputs).for_each(|(((dy, gate), up), (dgate, dup))| block(dy, gate, up, dgate, dup));
}

/// The h of a gate g·σ(h(g)), and g·h′(g).
trait Gate {
    fn inner<S: Simd>(s: S, gate: S::V) -> S::V;
    fn growth<S: Simd>(s: S, gate: S::V) -> S::V;
}

struct Silu;

impl Gate for Silu {
    #[inline(always)]
    fn inner<S: Simd>(_: S, gate: S::V) -> S::V {
        gate
    }

    #[inline(always)]
    fn growth<S: Simd>(_: S, gate: S::V) -> S::V {
        gate
    }
}

/// 2√(2/π), and 0.044715 times that.
const LINEAR: f32 = 1.595_769;
const CUBIC: f32 = 0.071_354_814;

/// Far beyond the gates at which σ(h) is exactly 0 or 1; keeps h finite.
const FAR: f32 = 16.0;

struct Gelu;

impl Gate for Gelu {
    #[inline(always)]
    fn inner<S: Simd>(s: S, gate: S::V) -> S::V {
        let gate = s.min(s.splat(FAR), s.max(s.splat(-FAR), gate));
        s.mul(gate, s.fma(s.splat(CUBIC), s.mul(gate, gate), s.splat(LINEAR)))
    }

    #[inline(always)]
    fn growth<S: Simd>(s: S, gate: S::V) -> S::V {
        let gate = s.min(s.splat(FAR), s.max(s.splat(-FAR), gate));
        s.mul(gate, s.fma(s.splat(3.0 * CUBIC), s.mul(gate, gate), s.splat(LINEAR)))
    }
}

#[inline(always)]
fn forward_v<S: Simd, G: Gate>(s: S, gate: S::V, up: S::V) -> S::V {
    s.mul(s.mul(gate, sigmoid_v(s, G::inner(s, gate))), up)
}

/// (dgate, dup) with gate′ = σ · (1 + g·h′ · (1 − σ)).
#[inline(always)]
fn backward_v<S: Simd, G: Gate>(s: S, dy: S::V, gate: S::V, up: S::V) -> (S::V, S::V) {
    let one = s.splat(1.0);
    let sigma = sigmoid_v(s, G::inner(s, gate));
    let slope = s.mul(sigma, s.fma(G::growth(s, gate), s.sub(one, sigma), one));
    (s.mul(s.mul(dy, up), slope), s.mul(dy, s.mul(gate, sigma)))
}

#[inline(always)]
fn forward<S: Simd, G: Gate>(s: S, gate: &[f32], up: &[f32], y: &mut [f32]) {
    let (gates, gate_rest) = gate.as_chunks::<LANES>();
    let (ups, up_rest) = up.as_chunks::<LANES>();
    let (ys, y_rest) = y.as_chunks_mut::<LANES>();
    for ((gate, up), y) in gates.iter().zip(ups).zip(ys) {
        s.store(forward_v::<S, G>(s, s.load(gate), s.load(up)), y);
    }
    s.store_part(forward_v::<S, G>(s, s.load_part(gate_rest, 0.0), s.load_part(up_rest, 0.0)), y_rest);
}

#[inline(always)]
fn backward<S: Simd, G: Gate>(s: S, dy: &[f32], gate: &[f32], up: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    let (dys, dy_rest) = dy.as_chunks::<LANES>();
    let (gates, gate_rest) = gate.as_chunks::<LANES>();
    let (ups, up_rest) = up.as_chunks::<LANES>();
    let (dgates, dgate_rest) = dgate.as_chunks_mut::<LANES>();
    let (dups, dup_rest) = dup.as_chunks_mut::<LANES>();
    for ((((dy, gate), up), dgate), dup) in dys.iter().zip(gates).zip(ups).zip(dgates).zip(dups) {
        let (a, b) = backward_v::<S, G>(s, s.load(dy), s.load(gate), s.load(up));
        s.store(a, dgate);
        s.store(b, dup);
    }
    let (a, b) = backward_v::<S, G>(s, s.load_part(dy_rest, 0.0), s.load_part(gate_rest, 0.0), s.load_part(up_rest, 0.0));
    s.store_part(a, dgate_rest);
    s.store_part(b, dup_rest);
}

clones! {
    fn silu_forward<S>(s, gate: &[f32], up: &[f32], y: &mut [f32]) {
        forward::<S, Silu>(s, gate, up, y);
    }

    fn silu_backward<S>(s, dy: &[f32], gate: &[f32], up: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
        backward::<S, Silu>(s, dy, gate, up, dgate, dup);
    }

    fn gelu_forward<S>(s, gate: &[f32], up: &[f32], y: &mut [f32]) {
        forward::<S, Gelu>(s, gate, up, y);
    }

    fn gelu_backward<S>(s, dy: &[f32], gate: &[f32], up: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
        backward::<S, Gelu>(s, dy, gate, up, dgate, dup);
    }
}
