//! Root-mean-square normalisation of rows, forward and backward.

use rayon::prelude::*;

use super::isa::{LANES, clones};
use super::reduce::{dot_v, fold};

/// Rows whose weight gradients are summed one after another; the sums of the groups are then added in order.
const GROUP_ROWS: usize = 64;

/// `y = x · inv_rms · weight` with `inv_rms = 1 / √(mean x² + eps)`, for rows of `weight.len()`.
pub fn rms_forward(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32], inv_rms: &mut [f32]) {
    let d = weight.len();
    assert!(d > 0 && x.len() == y.len() && x.len() == inv_rms.len() * d, "rms_forward: shapes disagree");
    let group = GROUP_ROWS * d;
    x.par_chunks(group)
        .zip(y.par_chunks_mut(group))
        .zip(inv_rms.par_chunks_mut(GROUP_ROWS))
        .for_each(|((x, y), inv)| forward_rows(x, weight, eps, y, inv));
}

/// Adds to `dx` the gradient of the input and, if asked, to `dweight` that of the weight.
pub fn rms_backward(dy: &[f32], x: &[f32], weight: &[f32], inv_rms: &[f32], dx: &mut [f32], dweight: Option<&mut [f32]>) {
    let d = weight.len();
    assert!(d > 0 && x.len() == dy.len() && x.len() == dx.len() && x.len() == inv_rms.len() * d, "rms_backward: shapes disagree");
    let group = GROUP_ROWS * d;
    let groups = x.par_chunks(group).zip(dy.par_chunks(group)).zip(inv_rms.par_chunks(GROUP_ROWS));
    groups.clone().zip(dx.par_chunks_mut(group)).for_each(|(((x, dy), inv), dx)| backward_rows(dy, x, weight, inv, dx));
    let Some(dweight) = dweight else { return };
    assert_eq!(dweight.len(), d, "rms_backward: dweight");
    let partial: Vec<Vec<f32>> = groups
        .map(|((x, dy), inv)| {
            let mut sum = vec![0.0; d];
            weight_rows(dy, x, inv, &mut sum);
            sum
        })
        .collect();
    for sum in &partial {
        for (total, part) in dweight.iter_mut().zip(sum) {
            *total += *part;
        }
    }
}

clones! {
    fn forward_rows<S>(s, x: &[f32], weight: &[f32], eps: f32, y: &mut [f32], inv_rms: &mut [f32]) {
        let d = weight.len();
        let (weights, weight_rest) = weight.as_chunks::<LANES>();
        for ((x, y), inv_rms) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(inv_rms) {
            let inv = 1.0 / (dot_v(s, x, x) / d as f32 + eps).sqrt();
            *inv_rms = inv;
            let inv_v = s.splat(inv);
            let (xs, x_rest) = x.as_chunks::<LANES>();
            let (ys, y_rest) = y.as_chunks_mut::<LANES>();
            for ((x, y), w) in xs.iter().zip(ys).zip(weights) {
                s.store(s.mul(s.mul(s.load(x), inv_v), s.load(w)), y);
            }
            for ((x, y), w) in x_rest.iter().zip(y_rest).zip(weight_rest) {
                *y = x * inv * w;
            }
        }
    }

    fn backward_rows<S>(s, dy: &[f32], x: &[f32], weight: &[f32], inv_rms: &[f32], dx: &mut [f32]) {
        let d = weight.len();
        let (weights, weight_rest) = weight.as_chunks::<LANES>();
        for (((dy, x), dx), inv) in dy.chunks_exact(d).zip(x.chunks_exact(d)).zip(dx.chunks_exact_mut(d)).zip(inv_rms) {
            let (xs, x_rest) = x.as_chunks::<LANES>();
            let (dys, dy_rest) = dy.as_chunks::<LANES>();
            let (dxs, dx_rest) = dx.as_chunks_mut::<LANES>();
            let mut sum = s.splat(0.0);
            for ((x, dy), w) in xs.iter().zip(dys).zip(weights) {
                sum = s.fma(s.mul(s.load(dy), s.load(w)), s.load(x), sum);
            }
            let mut lanes = s.to_array(sum);
            for (((lane, x), dy), w) in lanes.iter_mut().zip(x_rest).zip(dy_rest).zip(weight_rest) {
                *lane = (dy * w).mul_add(*x, *lane);
            }
            // dx = inv · (dy·w − x · mean(dy·w·x) · inv²)
            let c = -(fold(lanes) * inv * inv / d as f32);
            let (c_v, inv_v) = (s.splat(c), s.splat(*inv));
            for (((x, dy), dx), w) in xs.iter().zip(dys).zip(dxs).zip(weights) {
                let inner = s.fma(s.load(x), c_v, s.mul(s.load(dy), s.load(w)));
                s.store(s.fma(inner, inv_v, s.load(dx)), dx);
            }
            for (((x, dy), dx), w) in x_rest.iter().zip(dy_rest).zip(dx_rest).zip(weight_rest) {
                *dx = x.mul_add(c, dy * w).mul_add(*inv, *dx);
            }
        }
    }

    fn weight_rows<S>(s, dy: &[f32], x: &[f32], inv_rms: &[f32], sum: &mut [f32]) {
        let d = sum.len();
        let (sums, sum_rest) = sum.as_chunks_mut::<LANES>();
        for ((dy, x), inv) in dy.chunks_exact(d).zip(x.chunks_exact(d)).zip(inv_rms) {
            let inv_v = s.splat(*inv);
            let (xs, x_rest) = x.as_chunks::<LANES>();
            let (dys, dy_rest) = dy.as_chunks::<LANES>();
            for ((x, dy), sum) in xs.iter().zip(dys).zip(sums.iter_mut()) {
                s.store(s.fma(s.load(dy), s.mul(s.load(x), inv_v), s.load(sum)), sum);
            }
            for ((x, dy), sum) in x_rest.iter().zip(dy_rest).zip(sum_rest.iter_mut()) {
                *sum = dy.mul_add(x * inv, *sum);
            }
        }
    }
}
