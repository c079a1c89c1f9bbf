//! SwiGLU: `silu(gate) · up`, forward and backward.

use rayon::prelude::*;

use super::isa::{LANES, Simd, clones};
use super::math::sigmoid_v;

/// Elements of one task.
const BLOCK: usize = 1 << 13;

/// `y = gate · sigmoid(gate) · up`.
pub fn swiglu_forward(gate: &[f32], up: &[f32], y: &mut [f32]) {
    assert!(gate.len() == up.len() && gate.len() == y.len(), "swiglu_forward: shapes disagree");
    gate.par_chunks(BLOCK).zip(up.par_chunks(BLOCK)).zip(y.par_chunks_mut(BLOCK)).for_each(|((gate, up), y)| forward(gate, up, y));
}

/// Sets the gradients of gate and up.
pub fn swiglu_backward(dy: &[f32], gate: &[f32], up: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    let n = dy.len();
    assert!(gate.len() == n && up.len() == n && dgate.len() == n && dup.len() == n, "swiglu_backward: shapes disagree");
    let inputs = dy.par_chunks(BLOCK).zip(gate.par_chunks(BLOCK)).zip(up.par_chunks(BLOCK));
    let outputs = dgate.par_chunks_mut(BLOCK).zip(dup.par_chunks_mut(BLOCK));
    inputs.zip(outputs).for_each(|(((dy, gate), up), (dgate, dup))| backward(dy, gate, up, dgate, dup));
}

#[inline(always)]
fn forward_v<S: Simd>(s: S, gate: S::V, up: S::V) -> S::V {
    s.mul(s.mul(gate, sigmoid_v(s, gate)), up)
}

/// (dgate, dup) with silu′(g) = σ · (1 + g · (1 − σ)).
#[inline(always)]
fn backward_v<S: Simd>(s: S, dy: S::V, gate: S::V, up: S::V) -> (S::V, S::V) {
    let one = s.splat(1.0);
    let sigma = sigmoid_v(s, gate);
    let slope = s.mul(sigma, s.fma(gate, s.sub(one, sigma), one));
    (s.mul(s.mul(dy, up), slope), s.mul(dy, s.mul(gate, sigma)))
}

clones! {
    fn forward<S>(s, gate: &[f32], up: &[f32], y: &mut [f32]) {
        let (gates, gate_rest) = gate.as_chunks::<LANES>();
        let (ups, up_rest) = up.as_chunks::<LANES>();
        let (ys, y_rest) = y.as_chunks_mut::<LANES>();
        for ((gate, up), y) in gates.iter().zip(ups).zip(ys) {
            s.store(forward_v(s, s.load(gate), s.load(up)), y);
        }
        s.store_part(forward_v(s, s.load_part(gate_rest, 0.0), s.load_part(up_rest, 0.0)), y_rest);
    }

    fn backward<S>(s, dy: &[f32], gate: &[f32], up: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
        let (dys, dy_rest) = dy.as_chunks::<LANES>();
        let (gates, gate_rest) = gate.as_chunks::<LANES>();
        let (ups, up_rest) = up.as_chunks::<LANES>();
        let (dgates, dgate_rest) = dgate.as_chunks_mut::<LANES>();
        let (dups, dup_rest) = dup.as_chunks_mut::<LANES>();
        for ((((dy, gate), up), dgate), dup) in dys.iter().zip(gates).zip(ups).zip(dgates).zip(dups) {
            let (a, b) = backward_v(s, s.load(dy), s.load(gate), s.load(up));
            s.store(a, dgate);
            s.store(b, dup);
        }
        let (a, b) = backward_v(s, s.load_part(dy_rest, 0.0), s.load_part(gate_rest, 0.0), s.load_part(up_rest, 0.0));
        s.store_part(a, dgate_rest);
        s.store_part(b, dup_rest);
    }
}
