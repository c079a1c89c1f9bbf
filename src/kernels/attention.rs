//! Causal attention with grouped key heads and an optional window, forward, backward and for one cached query.

use rayon::prelude::*;

use super::math::{exp, ln};
use super::reduce;

/// Sizes of an attention. Query heads `g·(heads/kv_heads) ..` share key head g. With a window w, a query at i sees the keys i−w+1 ..= i.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    pub batch: usize,
    pub seq: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub window: Option<usize>,
}

impl AttentionShape {
    fn scale(&self) -> f32 {
        (1.0 / (self.head_dim as f64).sqrt()) as f32
    }

    fn first_key(&self, i: usize) -> usize {
        self.window.map_or(0, |window| (i + 1).saturating_sub(window))
    }
}

/// Σ over an index range, in chunks that begin at multiples of 256: each an FMA chain from zero, added in order.
fn chunked(range: std::ops::Range<usize>, pair: impl Fn(usize) -> (f32, f32)) -> f32 {
    let mut sum = 0.0;
    let mut first = range.start;
    while first < range.end {
        let end = range.end.min((first / 256 + 1) * 256);
        sum += (first..end).fold(0.0f32, |acc, i| {
            let (a, b) = pair(i);
            a.mul_add(b, acc)
        });
        first = end;
    }
    sum
}

#[expect(clippy::too_many_arguments, reason = "the tensors of an attention")]
pub fn attention_forward(shape: &AttentionShape, q: &[f32], k: &[f32], v: &[f32], lengths: &[usize], out: &mut [f32], lse: &mut [f32]) {
    let AttentionShape { seq, heads, kv_heads, head_dim, .. } = *shape;
    out.fill(0.0);
    lse.fill(0.0);
    out.par_chunks_mut(heads * head_dim).enumerate().for_each(|(row, out)| {
        let (b, i) = (row / seq, row % seq);
        if i < lengths[b] {
            let keys = b * seq * kv_heads * head_dim..;
            let q = &q[row * heads * head_dim..][..heads * head_dim];
            one(shape, i, q, &k[keys.clone()], &v[keys], out);
        }
    });
    for (index, lse) in lse.iter_mut().enumerate() {
        let (b, h, i) = (index / seq / heads, index / seq % heads, index % seq);
        if i < lengths[b] {
            let g = h / (heads / kv_heads);
            let q = &q[((b * seq + i) * heads + h) * head_dim..][..head_dim];
            let (max, p) = scores(shape, i, g, q, &k[b * seq * kv_heads * head_dim..]);
            *lse = max + ln(reduce::sum(&p));
        }
    }
}

/// Max and exp(score − max) of the keys 0..=i, 0 for those before the window.
fn scores(shape: &AttentionShape, i: usize, g: usize, q: &[f32], k: &[f32]) -> (f32, Vec<f32>) {
    let (kv_heads, head_dim) = (shape.kv_heads, shape.head_dim);
    let first = shape.first_key(i);
    let key = |j: usize| &k[(j * kv_heads + g) * head_dim..][..head_dim];
    let s: Vec<f32> = (first..=i).map(|j| chunked(0..head_dim, |d| (q[d], key(j)[d])) * shape.scale()).collect();
    let max = reduce::max(&s);
    let mut p = vec![0.0; first];
    p.extend(s.iter().map(|s| exp(s - max)));
    (max, p)
}

fn one(shape: &AttentionShape, i: usize, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
    let AttentionShape { heads, kv_heads, head_dim, .. } = *shape;
    for h in 0..heads {
        let g = h / (heads / kv_heads);
        let (_, p) = scores(shape, i, g, &q[h * head_dim..][..head_dim], k);
        let inv = 1.0 / reduce::sum(&p);
        for d in 0..head_dim {
            out[h * head_dim + d] = chunked(shape.first_key(i)..i + 1, |j| (p[j], v[(j * kv_heads + g) * head_dim + d])) * inv;
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the tensors of an attention")]
pub fn attention_backward(
    shape: &AttentionShape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    lengths: &[usize],
    out: &[f32],
    lse: &[f32],
    dout: &[f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let AttentionShape { batch, seq, heads, kv_heads, head_dim, .. } = *shape;
    dq.fill(0.0);
    dk.fill(0.0);
    dv.fill(0.0);
    for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
        let g = h / (heads / kv_heads);
        let qi = |i: usize| ((b * seq + i) * heads + h) * head_dim;
        let kj = |j: usize| ((b * seq + j) * kv_heads + g) * head_dim;
        for i in 0..lengths[b] {
            let delta = reduce::dot(&dout[qi(i)..][..head_dim], &out[qi(i)..][..head_dim]);
            for j in shape.first_key(i)..=i {
                let s = chunked(0..head_dim, |d| (q[qi(i) + d], k[kj(j) + d])) * shape.scale();
                let p = exp(s - lse[(b * heads + h) * seq + i]);
                let dp = chunked(0..head_dim, |d| (dout[qi(i) + d], v[kj(j) + d]));
                let ds = p * (dp - delta) * shape.scale();
                for d in 0..head_dim {
                    dq[qi(i) + d] += ds * k[kj(j) + d];
                    dk[kj(j) + d] += ds * q[qi(i) + d];
                    dv[kj(j) + d] += p * dout[qi(i) + d];
                }
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the tensors of an attention")]
pub fn attention_cached(
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    window: Option<usize>,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
) {
    let len = k.len() / (kv_heads * head_dim);
    let shape = AttentionShape { batch: 1, seq: len, heads, kv_heads, head_dim, window };
    one(&shape, len - 1, q, k, v, out);
}
