//! AdamW and the norm that clipping needs.

use rayon::prelude::*;

use super::isa::{LANES, Simd, clones};
use super::math;

/// Elements of one task; sums of squares are taken over blocks of this size, then added in order.
const BLOCK: usize = 1 << 14;

/// AdamW with decoupled weight decay (Loshchilov and Hutter, 2019), bias-corrected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    pub learning_rate: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub weight_decay: f32,
    /// Every gradient is multiplied by it first: below 1 where their norm is clipped.
    pub gradient_scale: f32,
}

/// What one step multiplies by, computed in f64 and rounded.
#[derive(Clone, Copy, Debug)]
struct Factors {
    decay: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    /// −learning_rate / (1 − beta1^step)
    step: f32,
    /// 1 / √(1 − beta2^step)
    correction2: f32,
    eps: f32,
    gradient: f32,
}

/// One step on parameters `p` with gradients `g`; `m` and `v` are the running moments and `step` counts from 1.
///
/// m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², p ← p(1 − lr·wd) − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + eps).
pub fn adamw(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], step: u64, cfg: &AdamW) {
    assert!(p.len() == g.len() && p.len() == m.len() && p.len() == v.len(), "adamw: shapes disagree");
    assert!(step > 0, "adamw: steps count from 1");
    let factors = factors(step, cfg);
    p.par_chunks_mut(BLOCK)
        .zip(g.par_chunks(BLOCK))
        .zip(m.par_chunks_mut(BLOCK))
        .zip(v.par_chunks_mut(BLOCK))
        .for_each(|(((p, g), m), v)| update(p, g, m, v, factors));
}

fn factors(step: u64, cfg: &AdamW) -> Factors {
    let (beta1, beta2, learning_rate) = (f64::from(cfg.beta1), f64::from(cfg.beta2), f64::from(cfg.learning_rate));
    let t = step as f64;
    Factors {
        decay: (1.0 - learning_rate * f64::from(cfg.weight_decay)) as f32,
        beta1: cfg.beta1,
        rest1: (1.0 - beta1) as f32,
        beta2: cfg.beta2,
        rest2: (1.0 - beta2) as f32,
        step: (-learning_rate / (1.0 - math::pow64(beta1, t))) as f32,
        correction2: (1.0 / (1.0 - math::pow64(beta2, t)).sqrt()) as f32,
        eps: cfg.eps,
        gradient: cfg.gradient_scale,
    }
}

#[inline(always)]
fn update_v<S: Simd>(s: S, p: S::V, g: S::V, m: S::V, v: S::V, f: &Factors) -> (S::V, S::V, S::V) {
    let g = s.mul(g, s.splat(f.gradient));
    let m = s.fma(s.splat(f.beta1), m, s.mul(s.splat(f.rest1), g));
    let v = s.fma(s.splat(f.beta2), v, s.mul(s.mul(s.splat(f.rest2), g), g));
    let denominator = s.fma(s.sqrt(v), s.splat(f.correction2), s.splat(f.eps));
    let p = s.fma(s.splat(f.step), s.div(m, denominator), s.mul(p, s.splat(f.decay)));
    (p, m, v)
}

clones! {
    fn update<S>(s, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], factors: Factors) {
        let (ps, p_rest) = p.as_chunks_mut::<LANES>();
        let (gs, g_rest) = g.as_chunks::<LANES>();
        let (ms, m_rest) = m.as_chunks_mut::<LANES>();
        let (vs, v_rest) = v.as_chunks_mut::<LANES>();
        for (((p, g), m), v) in ps.iter_mut().zip(gs).zip(ms).zip(vs) {
            let (a, b, c) = update_v(s, s.load(p), s.load(g), s.load(m), s.load(v), &factors);
            s.store(a, p);
            s.store(b, m);
            s.store(c, v);
        }
        let part = |x: &[f32]| s.load_part(x, 1.0);
        let (a, b, c) = update_v(s, part(p_rest), part(g_rest), part(m_rest), part(v_rest), &factors);
        s.store_part(a, p_rest);
        s.store_part(b, m_rest);
        s.store_part(c, v_rest);
    }

    /// One block: 16 f64 lanes, folded as in `reduce`. Squares of f32 are exact in f64.
    fn block_squares<S>(_s, x: &[f32]) -> f64 {
        let mut lanes = [0.0f64; LANES];
        let (xs, rest) = x.as_chunks::<LANES>();
        for x in xs {
            for (lane, x) in lanes.iter_mut().zip(x) {
                *lane += f64::from(*x) * f64::from(*x);
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane += f64::from(*x) * f64::from(*x);
        }
        let mut eight = [0.0; 8];
        for j in 0..8 {
            eight[j] = lanes[j] + lanes[j + 8];
        }
        let [a, b, c, d, e, f, g, h] = eight;
        let [a, b, c, d] = [a + e, b + f, c + g, d + h];
        (a + c) + (b + d)
    }
}

/// Σ x² in f64: blocks of 16,384 elements, each over 16 lanes, the blocks added in order.
pub fn sum_squares(x: &[f32]) -> f64 {
    let blocks: Vec<f64> = x.par_chunks(BLOCK).map(block_squares).collect();
    blocks.into_iter().fold(0.0, |sum, block| sum + block)
}
