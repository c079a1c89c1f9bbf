//! Sums, dot products and maxima in one fixed order: element i goes to lane i mod 16, and the lanes are folded 16 → 8 → 4 → 2 → 1.

use super::isa::{LANES, Simd, clones};

/// Folds the lanes: lane j takes lane j + 8, then j + 4, j + 2, j + 1.
#[inline(always)]
pub fn fold(x: [f32; LANES]) -> f32 {
    let mut eight = [0.0; 8];
    for j in 0..8 {
        eight[j] = x[j] + x[j + 8];
    }
    let [a, b, c, d, e, f, g, h] = eight;
    let [a, b, c, d] = [a + e, b + f, c + g, d + h];
    (a + c) + (b + d)
}

/// Σ x·y, one FMA a lane.
#[inline(always)]
pub fn dot_v<S: Simd>(s: S, x: &[f32], y: &[f32]) -> f32 {
    let (xs, x_rest) = x.as_chunks::<LANES>();
    let (ys, y_rest) = y.as_chunks::<LANES>();
    let mut sum = s.splat(0.0);
    for (x, y) in xs.iter().zip(ys) {
        sum = s.fma(s.load(x), s.load(y), sum);
    }
    let mut lanes = s.to_array(sum);
    for ((lane, x), y) in lanes.iter_mut().zip(x_rest).zip(y_rest) {
        *lane = x.mul_add(*y, *lane);
    }
    fold(lanes)
}

/// Σ x.
#[inline(always)]
pub fn sum_v<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (xs, rest) = x.as_chunks::<LANES>();
    let mut sum = s.splat(0.0);
    for x in xs {
        sum = s.add(sum, s.load(x));
    }
    let mut lanes = s.to_array(sum);
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += *x;
    }
    fold(lanes)
}

/// The largest element that is not NaN as far as can be told; −∞ for none. NaN is found by the sums, not here.
#[inline(always)]
pub fn max_v<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (xs, rest) = x.as_chunks::<LANES>();
    let mut best = s.splat(f32::NEG_INFINITY);
    for x in xs {
        best = s.max(s.load(x), best);
    }
    let mut lanes = s.to_array(best);
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = if *x > *lane { *x } else { *lane };
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, |best, x| if x > best { x } else { best })
}

clones! {
    /// Σ x in the fixed order.
    pub fn sum<S>(s, x: &[f32]) -> f32 {
        sum_v(s, x)
    }

    /// Σ x·y in the fixed order. Both must have one length.
    pub fn dot<S>(s, x: &[f32], y: &[f32]) -> f32 {
        assert_eq!(x.len(), y.len());
        dot_v(s, x, y)
    }

    /// The largest element, NaN left out; −∞ for an empty slice.
    pub fn max<S>(s, x: &[f32]) -> f32 {
        max_v(s, x)
    }
}
