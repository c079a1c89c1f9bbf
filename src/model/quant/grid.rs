//! The scales of K blocks: small integers times one f16 scale (and one f16 minimum) for all 256 values. Rounding the groups' scales to that grid is where
//! quality is lost, so their neighbours are tried, each with the minimum that suits it, and the shared scales are fitted again to what was chosen.

use super::SUPER_BLOCK;
use super::lanes::{Set, bytes, clamp, halves, inverse, nearest, share};
use super::search::{Affine, Minimum, Steps, affine, affine_level, sums, symmetric, symmetric_level, symmetric_sums, totals};
use crate::kernels::isa::{LANES, Simd};

/// Rounds of choosing small integers and fitting the shared scales to them.
const ROUNDS: usize = 3;

/// Of sixteen groups. value = d · scales[g] · q − dmin · mins[g], g the value's group; `d` and `dmin` stand at each group of their block.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    pub d: [f32; LANES],
    pub dmin: [f32; LANES],
    pub scales: [f32; LANES],
    pub mins: [f32; LANES],
    /// Group by group; those of symmetric types as two's complement.
    pub levels: [u8; 2 * SUPER_BLOCK],
}

/// The levels and small integers of a K type.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub top: f32,
    pub scale_top: f32,
    pub steps: Steps,
}

#[derive(Clone, Copy)]
struct Chosen<V> {
    scale: V,
    min: V,
    error: V,
}

/// Groups of `N` values with levels 0..=top and scales 0..=scale_top.
#[inline(always)]
pub fn affine_grid<S: Simd, const N: usize>(s: S, set: &Set<S, N>, shape: Shape) -> Grid {
    let lanes = SUPER_BLOCK / N;
    let ideal = affine(s, set, shape.top, shape.steps, Minimum::Unsigned);
    let per = s.splat(1.0 / shape.scale_top);
    let mut d = halves(s, s.mul(share(s, ideal.scale, lanes, f32::max), per));
    let mut dmin = halves(s, s.mul(share(s, ideal.min, lanes, f32::max), per));
    let zero = s.splat(0.0);
    let mut best = (Chosen { scale: zero, min: zero, error: s.splat(f32::INFINITY) }, d, dmin);
    for _ in 0..ROUNDS {
        let chosen = choose_affine(s, set, ideal, d, dmin, shape);
        let error = share(s, chosen.error, lanes, |a, b| a + b);
        let keep = |new, old| s.select_less(error, best.0.error, new, old);
        let chosen = Chosen { error, ..chosen };
        best = (
            Chosen { scale: keep(chosen.scale, best.0.scale), min: keep(chosen.min, best.0.min), error: keep(error, best.0.error) },
            keep(d, best.1),
            keep(dmin, best.2),
        );
        (d, dmin) = refit_affine(s, set, chosen, d, dmin, shape.top);
    }
    let (chosen, d, dmin) = best;
    let by = Affine { scale: s.mul(d, chosen.scale), min: s.mul(dmin, chosen.min) };
    let inverse = inverse(s, by.scale);
    let shift = s.mul(by.min, inverse);
    let mut levels = [zero; N];
    for (level, x) in levels.iter_mut().zip(&set.x) {
        *level = affine_level(s, *x, inverse, shift, shape.top);
    }
    let mut grid = Grid {
        d: s.to_array(d),
        dmin: s.to_array(dmin),
        scales: s.to_array(chosen.scale),
        mins: s.to_array(chosen.min),
        levels: [0; 2 * SUPER_BLOCK],
    };
    bytes(s, &levels, &mut grid.levels);
    grid
}

/// For every group the best of the integers around its ideal scale, each with the integer minimum that its levels want.
#[inline(always)]
fn choose_affine<S: Simd, const N: usize>(s: S, set: &Set<S, N>, ideal: Affine<S::V>, d: S::V, dmin: S::V, shape: Shape) -> Chosen<S::V> {
    let (inverse_d, inverse_dmin) = (inverse(s, d), inverse(s, dmin));
    let base = nearest(s, clamp(s, s.mul(ideal.scale, inverse_d), 0.0, shape.scale_top));
    let totals = totals(s, set);
    let per_w = inverse(s, totals.w);
    let mut best = Chosen { scale: s.splat(0.0), min: s.splat(0.0), error: s.splat(f32::INFINITY) };
    for step in [0.0, -1.0, 1.0] {
        let code = clamp(s, s.add(base, s.splat(step)), 0.0, shape.scale_top);
        let scale = s.mul(code, d);
        let inverse = inverse(s, scale);
        let sums = sums(s, set, inverse, s.mul(ideal.min, inverse), shape.top);
        let min = s.mul(s.sub(s.mul(scale, sums.q), totals.wx), per_w);
        let min = nearest(s, clamp(s, s.mul(min, inverse_dmin), 0.0, shape.scale_top));
        let error = affine_error(s, set, Affine { scale, min: s.mul(min, dmin) }, inverse, shape.top);
        best.scale = s.select_less(error, best.error, code, best.scale);
        best.min = s.select_less(error, best.error, min, best.min);
        best.error = s.min(error, best.error);
    }
    best
}

#[inline(always)]
fn affine_error<S: Simd, const N: usize>(s: S, set: &Set<S, N>, by: Affine<S::V>, inverse: S::V, top: f32) -> S::V {
    let shift = s.mul(by.min, inverse);
    let mut error = s.splat(0.0);
    for i in 0..N {
        let q = affine_level(s, set.x[i], inverse, shift, top);
        let gap = s.sub(s.sub(s.mul(by.scale, q), by.min), set.x[i]);
        error = s.fma(s.mul(set.w[i], gap), gap, error);
    }
    error
}

/// Least squares for d and dmin over each block, its integers and levels fixed.
#[inline(always)]
fn refit_affine<S: Simd, const N: usize>(s: S, set: &Set<S, N>, chosen: Chosen<S::V>, d: S::V, dmin: S::V, top: f32) -> (S::V, S::V) {
    let inverse = inverse(s, s.mul(chosen.scale, d));
    let sums = sums(s, set, inverse, s.mul(s.mul(chosen.min, dmin), inverse), top);
    let of = totals(s, set);
    let total = |v| share(s, v, SUPER_BLOCK / N, |a, b| a + b);
    let (scale, min) = (chosen.scale, chosen.min);
    let aa = total(s.mul(s.mul(scale, scale), sums.qq));
    let ab = total(s.mul(s.mul(scale, min), sums.q));
    let bb = total(s.mul(s.mul(min, min), of.w));
    let ax = total(s.mul(scale, sums.qx));
    let bx = total(s.mul(min, of.wx));
    // d·aa − dmin·ab = ax and d·ab − dmin·bb = bx
    let zero = s.splat(0.0);
    let product = s.mul(aa, bb);
    let determinant = s.sub(product, s.mul(ab, ab));
    let per = s.div(s.splat(1.0), determinant);
    let both = s.mul(s.sub(s.mul(ax, bb), s.mul(bx, ab)), per);
    let least = s.mul(s.sub(s.mul(ax, ab), s.mul(bx, aa)), per);
    let fits = s.min(s.min(both, least), s.sub(determinant, s.mul(product, s.splat(1e-5))));
    // All minima 0: the scale alone.
    let alone = s.div(ax, aa);
    let alone = s.select_less(zero, bb, d, s.select_less(zero, alone, alone, d));
    (halves(s, s.select_less(zero, fits, both, alone)), halves(s, s.select_less(zero, fits, least, dmin)))
}

/// Groups of 16 values with levels −top..top and scales −scale_top..scale_top.
#[inline(always)]
pub fn symmetric_grid<S: Simd>(s: S, set: &Set<S, 16>, shape: Shape) -> Grid {
    let ideal = symmetric(s, set, shape.top, shape.steps);
    let largest = share(s, ideal, LANES, |a, b| if a.abs() < b.abs() { b } else { a });
    let mut d = halves(s, s.mul(largest, s.splat(-1.0 / shape.scale_top)));
    let zero = s.splat(0.0);
    let mut best = (zero, s.splat(f32::INFINITY), d);
    for _ in 0..ROUNDS {
        let (code, error) = choose_symmetric(s, set, ideal, d, shape);
        let error = share(s, error, LANES, |a, b| a + b);
        let keep = |new, old| s.select_less(error, best.1, new, old);
        best = (keep(code, best.0), keep(error, best.1), keep(d, best.2));
        d = refit_symmetric(s, set, code, d, shape.top);
    }
    let (code, _, d) = best;
    let inverse = inverse(s, s.mul(d, code));
    let mut levels = [zero; 16];
    for (level, x) in levels.iter_mut().zip(&set.x) {
        *level = symmetric_level(s, *x, inverse, shape.top);
    }
    let none = [0.0; LANES];
    let mut grid = Grid { d: s.to_array(d), dmin: none, scales: s.to_array(code), mins: none, levels: [0; 2 * SUPER_BLOCK] };
    bytes(s, &levels, &mut grid.levels);
    grid
}

/// For every group the best of the three integers around its ideal.
#[inline(always)]
fn choose_symmetric<S: Simd>(s: S, set: &Set<S, 16>, ideal: S::V, d: S::V, shape: Shape) -> (S::V, S::V) {
    let bound = |v| clamp(s, v, -shape.scale_top, shape.scale_top - 1.0);
    let base = nearest(s, bound(s.mul(ideal, inverse(s, d))));
    let (mut best, mut least) = (s.splat(0.0), s.splat(f32::INFINITY));
    for step in [0.0, -1.0, 1.0] {
        let code = bound(s.add(base, s.splat(step)));
        let scale = s.mul(code, d);
        let inverse = inverse(s, scale);
        let mut error = s.splat(0.0);
        for i in 0..16 {
            let q = symmetric_level(s, set.x[i], inverse, shape.top);
            let gap = s.sub(s.mul(scale, q), set.x[i]);
            error = s.fma(s.mul(set.w[i], gap), gap, error);
        }
        best = s.select_less(error, least, code, best);
        least = s.min(error, least);
    }
    (best, least)
}

#[inline(always)]
fn refit_symmetric<S: Simd>(s: S, set: &Set<S, 16>, code: S::V, d: S::V, top: f32) -> S::V {
    let (qq, qx) = symmetric_sums(s, set, inverse(s, s.mul(code, d)), top);
    let total = |v| share(s, v, LANES, |a, b| a + b);
    let (aa, ax) = (total(s.mul(s.mul(code, code), qq)), total(s.mul(code, qx)));
    halves(s, s.select_less(s.splat(0.0), aa, s.div(ax, aa), d))
}
