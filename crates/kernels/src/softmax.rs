//! The pieces of softmax over one row that losses and attention share. A row's maximum is exact, its sum is in the order of `reduce`.

use super::isa::{LANES, Simd};
use super::math::{exp_v, ln64};
use super::reduce::{fold, max_v};

/// Replaces `row` by exp(row·scale − max) and returns (max, sum); the sum is NaN if any element is NaN or +∞, or all are −∞.
#[inline(always)]
pub fn exp_row<S: Simd>(s: S, row: &mut [f32], scale: f32) -> (f32, f32) {
    let max = max_v(s, row) * scale;
    (max, exp_shifted(s, row, scale, max))
}

/// Replaces `row` by exp(row·scale − shift) and returns the sum.
#[inline(always)]
pub fn exp_shifted<S: Simd>(s: S, row: &mut [f32], scale: f32, shift: f32) -> f32 {
    let (vs, rest) = row.as_chunks_mut::<LANES>();
    let mut sum = s.splat(0.0);
    for v in vs {
        let e = exp_v(s, shifted(s, s.load(v), scale, shift));
        sum = s.add(sum, e);
        s.store(e, v);
    }
    if !rest.is_empty() {
        let e = exp_v(s, shifted(s, s.load_part(rest, f32::NEG_INFINITY), scale, shift));
        sum = s.add(sum, e);
        s.store_part(e, rest);
    }
    fold(s.to_array(sum))
}

/// x·scale − shift, rounded twice.
#[inline(always)]
fn shifted<S: Simd>(s: S, x: S::V, scale: f32, shift: f32) -> S::V {
    s.sub(s.mul(x, s.splat(scale)), s.splat(shift))
}

/// (max, sum) as [`exp_row`] finds them, the row left alone.
#[inline(always)]
pub fn sum_exp_v<S: Simd>(s: S, row: &[f32], scale: f32) -> (f32, f32) {
    let max = max_v(s, row) * scale;
    let (vs, rest) = row.as_chunks::<LANES>();
    let mut sum = s.splat(0.0);
    for v in vs {
        sum = s.add(sum, exp_v(s, shifted(s, s.load(v), scale, max)));
    }
    if !rest.is_empty() {
        sum = s.add(sum, exp_v(s, shifted(s, s.load_part(rest, f32::NEG_INFINITY), scale, max)));
    }
    (max, fold(s.to_array(sum)))
}

/// `row = (row·scale − max) − ln Σ exp(row·scale − max)`; `None` if the sum is no number.
#[inline(always)]
pub fn log_softmax_v<S: Simd>(s: S, row: &mut [f32], scale: f32) -> Option<()> {
    let (max, sum) = sum_exp_v(s, row, scale);
    if !sum.is_finite() {
        return None;
    }
    let ln_sum = s.splat(ln64(f64::from(sum)) as f32);
    let (vs, rest) = row.as_chunks_mut::<LANES>();
    for v in vs {
        s.store(s.sub(shifted(s, s.load(v), scale, max), ln_sum), v);
    }
    s.store_part(s.sub(shifted(s, s.load_part(rest, 0.0), scale, max), ln_sum), rest);
    Some(())
}
