//! The search for the scale (and minimum) of a small group of values, sixteen groups at a time. It minimises the weighted squared error: for a layer's output,
//! that is its expected error if the weights are the mean squares of the layer's inputs.
//!
//! Candidates lie around the scale that spans the group. Each gives levels, and these the least-squares fit; the best fit is then refined: levels to
//! the fit, fit to the levels.

use super::lanes::{Set, clamp, inverse, magnitude, nearest};
use crate::kernels::isa::Simd;

/// value ≈ scale · q − min with q in 0..=top.
#[derive(Clone, Copy, Debug)]
pub struct Affine<V> {
    pub scale: V,
    pub min: V,
}

/// Which minima a format can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Minimum {
    /// K blocks: 0 or more.
    Unsigned,
    Any,
}

/// How far candidates lie apart, and how many there are on each side of the spanning scale.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    /// In levels.
    pub width: f32,
    pub below: i32,
    pub above: i32,
}

/// The alternation of levels and fit converges in a few rounds; the cap only bounds it.
const REFINEMENTS: usize = 4;

/// The best scale and minimum found for each group.
#[inline(always)]
pub fn affine<S: Simd, const N: usize>(s: S, set: &Set<S, N>, top: f32, steps: Steps, minimum: Minimum) -> Affine<S::V> {
    let zero = s.splat(0.0);
    let (mut low, mut high) = (set.x[0], set.x[0]);
    for x in &set.x {
        low = s.min(*x, low);
        high = s.max(*x, high);
    }
    if minimum == Minimum::Unsigned {
        low = s.min(low, zero);
    }
    let range = s.sub(high, low);
    let per_range = inverse(s, range);
    let totals = totals(s, set);
    let mut best = Affine { scale: s.mul(range, s.splat(1.0 / top)), min: s.sub(zero, low) };
    let mut most = s.splat(0.0);
    for step in -steps.below..=steps.above {
        let inverse = s.mul(per_range, s.splat(top + steps.width * step as f32));
        let shift = s.mul(s.sub(zero, low), inverse);
        let (fit, gain) = fit_affine(s, totals, sums(s, set, inverse, shift, top), minimum);
        best.scale = s.select_less(most, gain, fit.scale, best.scale);
        best.min = s.select_less(most, gain, fit.min, best.min);
        most = s.max(gain, most);
    }
    for _ in 0..REFINEMENTS {
        let inverse = inverse(s, best.scale);
        let (fit, gain) = fit_affine(s, totals, sums(s, set, inverse, s.mul(best.min, inverse), top), minimum);
        best.scale = s.select_less(zero, gain, fit.scale, best.scale);
        best.min = s.select_less(zero, gain, fit.min, best.min);
    }
    best
}

/// Σw and Σw·x.
#[derive(Clone, Copy, Debug)]
pub struct Totals<V> {
    pub w: V,
    pub wx: V,
}

#[inline(always)]
pub fn totals<S: Simd, const N: usize>(s: S, set: &Set<S, N>) -> Totals<S::V> {
    let (mut w, mut wx) = (s.splat(0.0), s.splat(0.0));
    for i in 0..N {
        w = s.add(set.w[i], w);
        wx = s.fma(set.w[i], set.x[i], wx);
    }
    Totals { w, wx }
}

/// Σw·q, Σw·q² and Σw·q·x.
#[derive(Clone, Copy, Debug)]
pub struct Sums<V> {
    pub q: V,
    pub qq: V,
    pub qx: V,
}

/// Of the levels x · inverse + shift within 0..=top.
#[inline(always)]
pub fn sums<S: Simd, const N: usize>(s: S, set: &Set<S, N>, inverse: S::V, shift: S::V, top: f32) -> Sums<S::V> {
    let zero = s.splat(0.0);
    let mut sums = Sums { q: zero, qq: zero, qx: zero };
    for i in 0..N {
        let q = affine_level(s, set.x[i], inverse, shift, top);
        let wq = s.mul(set.w[i], q);
        sums.q = s.add(wq, sums.q);
        sums.qq = s.fma(wq, q, sums.qq);
        sums.qx = s.fma(wq, set.x[i], sums.qx);
    }
    sums
}

#[inline(always)]
pub fn affine_level<S: Simd>(s: S, x: S::V, inverse: S::V, shift: S::V, top: f32) -> S::V {
    nearest(s, clamp(s, s.fma(x, inverse, shift), 0.0, top))
}

/// Least squares for fixed levels, and by how much it lowers the error of nothing; that is 0 or less if there is no fit.
#[inline(always)]
fn fit_affine<S: Simd>(s: S, of: Totals<S::V>, sums: Sums<S::V>, minimum: Minimum) -> (Affine<S::V>, S::V) {
    let zero = s.splat(0.0);
    let product = s.mul(of.w, sums.qq);
    let determinant = s.sub(product, s.mul(sums.q, sums.q));
    let per = s.div(s.splat(1.0), determinant);
    let mut scale = s.mul(s.sub(s.mul(of.w, sums.qx), s.mul(sums.q, of.wx)), per);
    let mut min = s.mul(s.sub(s.mul(sums.q, sums.qx), s.mul(sums.qq, of.wx)), per);
    let mut gain = s.sub(s.mul(scale, sums.qx), s.mul(min, of.wx));
    gain = s.select_less(s.mul(product, s.splat(1e-6)), determinant, gain, zero);
    if minimum == Minimum::Unsigned {
        // A minimum below 0 becomes none, and the scale is fitted alone.
        let alone = s.div(sums.qx, sums.qq);
        let negative = min;
        gain = s.select_less(negative, zero, s.mul(alone, sums.qx), gain);
        scale = s.select_less(negative, zero, alone, scale);
        min = s.select_less(negative, zero, zero, min);
    }
    (Affine { scale, min }, s.select_less(zero, scale, gain, zero))
}

/// value ≈ scale · q with q in −top..top; the best scale found for each group. Its sign is free, as the levels reach one further down than up.
#[inline(always)]
pub fn symmetric<S: Simd, const N: usize>(s: S, set: &Set<S, N>, top: f32, steps: Steps) -> S::V {
    let zero = s.splat(0.0);
    let mut most = zero;
    for x in &set.x {
        most = s.select_less(magnitude(s, most), magnitude(s, *x), *x, most);
    }
    let per_most = inverse(s, most);
    let mut best = s.mul(most, s.splat(-1.0 / top));
    let mut best_gain = zero;
    for side in [-1.0, 1.0] {
        for step in -steps.below..=steps.above {
            let inverse = s.mul(per_most, s.splat(side * (top + steps.width * step as f32)));
            let (fit, gain) = fit_symmetric(s, set, inverse, top);
            best = s.select_less(best_gain, gain, fit, best);
            best_gain = s.max(gain, best_gain);
        }
    }
    for _ in 0..REFINEMENTS {
        let (fit, gain) = fit_symmetric(s, set, inverse(s, best), top);
        best = s.select_less(zero, gain, fit, best);
    }
    best
}

/// Least squares for the levels x · inverse, and by how much it lowers the error.
#[inline(always)]
fn fit_symmetric<S: Simd, const N: usize>(s: S, set: &Set<S, N>, inverse: S::V, top: f32) -> (S::V, S::V) {
    let (qq, qx) = symmetric_sums(s, set, inverse, top);
    let scale = s.div(qx, qq);
    (scale, s.select_less(s.splat(0.0), qq, s.mul(scale, qx), s.splat(0.0)))
}

/// Σw·q² and Σw·q·x.
#[inline(always)]
pub fn symmetric_sums<S: Simd, const N: usize>(s: S, set: &Set<S, N>, inverse: S::V, top: f32) -> (S::V, S::V) {
    let (mut qq, mut qx) = (s.splat(0.0), s.splat(0.0));
    for i in 0..N {
        let q = symmetric_level(s, set.x[i], inverse, top);
        let wq = s.mul(set.w[i], q);
        qq = s.fma(wq, q, qq);
        qx = s.fma(wq, set.x[i], qx);
    }
    (qq, qx)
}

#[inline(always)]
pub fn symmetric_level<S: Simd>(s: S, x: S::V, inverse: S::V, top: f32) -> S::V {
    nearest(s, clamp(s, s.mul(x, inverse), -top, top - 1.0))
}
