//! The forward passes once more, plainly and in f64: what gradients are checked against.

use crate::math::{cos64, exp64, ln64, pow64, sin64};
use crate::{AttentionShape, Divergence};

/// Central differences of `f` at `x`, for the given elements.
pub fn differences(x: &[f32], elements: &[usize], f: &dyn Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut x = wide(x);
    let step = 1e-5;
    let mut at = |i: usize, offset: f64| {
        let old = x[i];
        x[i] = old + offset;
        let y = f(&x);
        x[i] = old;
        y
    };
    elements.iter().map(|i| (at(*i, step) - at(*i, -step)) / (2.0 * step)).collect()
}

pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

pub fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

pub fn rms(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let row = |row: &[f64]| {
        let inv = 1.0 / (dot(row, row) / row.len() as f64 + eps).sqrt();
        row.iter().zip(weight).map(|(x, w)| x * inv * w).collect::<Vec<_>>()
    };
    x.chunks(weight.len()).flat_map(row).collect()
}

pub fn rope(x: &[f64], heads: usize, head_dim: usize, positions: &[u32], theta: f64) -> Vec<f64> {
    let mut y = x.to_vec();
    for (head, y) in y.chunks_mut(head_dim).enumerate() {
        let position = f64::from(positions[head / heads]);
        for i in 0..head_dim / 2 {
            let angle = position * pow64(theta, -2.0 * i as f64 / head_dim as f64);
            let (a, b) = (y[i], y[i + head_dim / 2]);
            y[i] = a * cos64(angle) - b * sin64(angle);
            y[i + head_dim / 2] = b * cos64(angle) + a * sin64(angle);
        }
    }
    y
}

pub fn swiglu(gate: &[f64], up: &[f64]) -> Vec<f64> {
    gate.iter().zip(up).map(|(g, u)| g / (1.0 + exp64(-g)) * u).collect()
}

/// As it is defined, with tanh.
pub fn geglu(gate: &[f64], up: &[f64]) -> Vec<f64> {
    let gelu = |g: f64| 0.5 * g * (1.0 + libm::tanh((2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g * g * g)));
    gate.iter().zip(up).map(|(g, u)| gelu(*g) * u).collect()
}

pub fn attention(shape: &AttentionShape, q: &[f64], k: &[f64], v: &[f64], lengths: &[usize]) -> Vec<f64> {
    let AttentionShape { seq, heads, kv_heads, head_dim: d, .. } = *shape;
    let mut out = vec![0.0; q.len()];
    for (index, out) in out.chunks_mut(d).enumerate() {
        let (b, i, h) = (index / heads / seq, index / heads % seq, index % heads);
        if i >= lengths[b] {
            continue;
        }
        let g = h / (heads / kv_heads);
        let row = |j: usize| ((b * seq + j) * kv_heads + g) * d;
        let q = &q[index * d..][..d];
        let first = shape.window.map_or(0, |w| (i + 1).saturating_sub(w));
        let p: Vec<f64> = (first..=i).map(|j| exp64(dot(q, &k[row(j)..][..d]) / (d as f64).sqrt())).collect();
        let sum: f64 = p.iter().sum();
        for (j, p) in (first..=i).zip(&p) {
            for (out, v) in out.iter_mut().zip(&v[row(j)..][..d]) {
                *out += p / sum * v;
            }
        }
    }
    out
}

pub fn softmax(x: &[f64], temperature: f64) -> Vec<f64> {
    let max = x.iter().fold(f64::NEG_INFINITY, |max, x| max.max(*x));
    let e: Vec<f64> = x.iter().map(|x| exp64((x - max) / temperature)).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}

pub fn cross_entropy(logits: &[f64], target: usize) -> f64 {
    -ln64(softmax(logits, 1.0)[target])
}

fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| if *p > 0.0 { p * ln64(p / q) } else { 0.0 }).sum()
}

pub fn divergence(p: &[f64], q: &[f64], divergence: Divergence) -> f64 {
    let blend = |ratio: f32| -> Vec<f64> { p.iter().zip(q).map(|(p, q)| f64::from(ratio) * p + (1.0 - f64::from(ratio)) * q).collect() };
    match divergence {
        Divergence::ForwardKl => kl(p, q),
        Divergence::ReverseKl => kl(q, p),
        Divergence::Jsd { beta } => f64::from(beta) * kl(p, &blend(beta)) + (1.0 - f64::from(beta)) * kl(q, &blend(beta)),
        Divergence::SkewKl { alpha } => kl(p, &blend(alpha)),
    }
}

/// The probabilities of some ids and of all others together.
pub fn merged(p: &[f64], ids: &[u32]) -> Vec<f64> {
    let known: Vec<f64> = ids.iter().map(|id| p[*id as usize]).collect();
    let rest = p.iter().enumerate().filter(|(i, _)| !ids.contains(&(*i as u32))).map(|(_, p)| p).sum();
    known.into_iter().chain([rest]).collect()
}
