//! Attention against its definition bit by bit, and what its masks promise.

use super::{bits, everywhere, random};
use crate::math::{exp, ln64};
use crate::*;

/// Σ a·b over indices, in chains of 256 from index 0 on.
fn chunked(range: std::ops::Range<usize>, pair: impl Fn(usize) -> (f32, f32)) -> f32 {
    let mut sum = 0.0;
    for chunk in range.start / 256..range.end.div_ceil(256) {
        let chain = |acc: f32, i| {
            let (a, b) = pair(i);
            a.mul_add(b, acc)
        };
        sum += (range.start.max(chunk * 256)..range.end.min(chunk * 256 + 256)).fold(0.0f32, chain);
    }
    sum
}

struct Tensors {
    shape: AttentionShape,
    lengths: Vec<usize>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Tensors {
    fn new(batch: usize, seq: usize, heads: usize, kv_heads: usize, head_dim: usize, window: Option<usize>) -> Tensors {
        let kv = batch * seq * kv_heads * head_dim;
        Tensors {
            shape: AttentionShape { batch, seq, heads, kv_heads, head_dim, window, scale: None },
            lengths: (0..batch).map(|b| seq - (3 * b).min(seq)).collect(),
            q: random(batch * seq * heads * head_dim, 1),
            k: random(kv, 2),
            v: random(kv, 3),
        }
    }

    fn forward(&self) -> (Vec<f32>, Vec<f32>) {
        let (mut out, mut lse) = (vec![f32::NAN; self.q.len()], vec![f32::NAN; self.shape.batch * self.shape.heads * self.shape.seq]);
        attention_forward(&self.shape, &self.q, &self.k, &self.v, &self.lengths, &mut out, &mut lse);
        (out, lse)
    }

    /// Forward results and gradients, one after another.
    fn all(&self) -> Vec<f32> {
        let (out, lse) = self.forward();
        let dout = random(self.q.len(), 4);
        let (mut dq, mut dk, mut dv) = (vec![f32::NAN; self.q.len()], vec![f32::NAN; self.k.len()], vec![f32::NAN; self.k.len()]);
        attention_backward(&self.shape, &self.q, &self.k, &self.v, &self.lengths, &out, &lse, &dout, &mut dq, &mut dk, &mut dv);
        [out, lse, dq, dk, dv].concat()
    }

    /// The same by the specification, element by element.
    fn defined(&self) -> Vec<f32> {
        let AttentionShape { batch, seq, heads, kv_heads, head_dim: d, window, .. } = self.shape;
        let scale = (1.0 / (d as f64).sqrt()) as f32;
        let (mut out, mut lse) = (vec![0.0f32; self.q.len()], vec![0.0; batch * heads * seq]);
        let dout = random(self.q.len(), 4);
        let (mut dq, mut dk, mut dv) = (vec![0.0; self.q.len()], vec![0.0; self.k.len()], vec![0.0; self.k.len()]);
        for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
            let at = |i: usize| ((b * seq + i) * heads + h) * d;
            let kv = |j: usize| ((b * seq + j) * kv_heads + h / (heads / kv_heads)) * d;
            let first = |i: usize| window.map_or(0, |w| (i + 1).saturating_sub(w));
            let (mut ps, mut dss) = (vec![vec![0.0f32; seq]; seq], vec![vec![0.0f32; seq]; seq]);
            for i in 0..self.lengths[b] {
                let score = |j: usize| chunked(0..d, |c| (self.q[at(i) + c], self.k[kv(j) + c])) * scale;
                let scores: Vec<f32> = (0..=i).map(|j| if j < first(i) { f32::NEG_INFINITY } else { score(j) }).collect();
                let max = reduce::max(&scores);
                let p: Vec<f32> = scores.iter().map(|s| exp(s - max)).collect();
                let sum = reduce::sum(&p);
                let norm = (f64::from(max) + ln64(f64::from(sum))) as f32;
                lse[(b * heads + h) * seq + i] = norm;
                for c in 0..d {
                    out[at(i) + c] = chunked(0..i + 1, |j| (p[j], self.v[kv(j) + c])) * (1.0 / sum);
                }
                let delta = reduce::dot(&out[at(i)..][..d], &dout[at(i)..][..d]);
                for j in first(i)..=i {
                    let dp = chunked(0..d, |c| (dout[at(i) + c], self.v[kv(j) + c]));
                    ps[i][j] = exp(scores[j] - norm);
                    dss[i][j] = ps[i][j] * (dp - delta) * scale;
                }
                for c in 0..d {
                    dq[at(i) + c] = chunked(0..i + 1, |j| (dss[i][j], self.k[kv(j) + c]));
                }
            }
            for (block, j) in (0..self.lengths[b]).step_by(64).flat_map(|block| (0..seq).map(move |j| (block, j))) {
                let queries = block..self.lengths[b].min(block + 64);
                for c in 0..d {
                    dk[kv(j) + c] += queries.clone().fold(0.0, |acc: f32, i| dss[i][j].mul_add(self.q[at(i) + c], acc));
                    dv[kv(j) + c] += queries.clone().fold(0.0, |acc: f32, i| ps[i][j].mul_add(dout[at(i) + c], acc));
                }
            }
        }
        [out, lse, dq, dk, dv].concat()
    }
}

#[test]
fn it_has_the_defined_bits() {
    for (batch, seq, heads, kv_heads, head_dim, window) in [
        (1, 1, 1, 1, 1, None),
        (3, 13, 4, 2, 8, None),
        (2, 67, 2, 1, 33, None),
        (1, 290, 2, 2, 16, None),
        (1, 290, 2, 1, 5, Some(20)),
        (1, 530, 1, 1, 4, Some(260)),
        (1, 20, 1, 1, 300, None),
    ] {
        let tensors = Tensors::new(batch, seq, heads, kv_heads, head_dim, window);
        let all = everywhere("attention", || tensors.all());
        assert_eq!(bits(&all), bits(&tensors.defined()), "{:?}", tensors.shape);
    }
}

#[test]
fn a_cached_query_has_the_bits_of_its_row() {
    for (seq, window) in [(300, None), (300, Some(7)), (530, Some(300)), (17, Some(1))] {
        let (heads, kv_heads, d) = (4, 2, 24);
        let tensors = Tensors::new(1, seq, heads, kv_heads, d, window);
        let (out, _) = tensors.forward();
        for i in [0, 1, 2, 15, 16, 63, 64, 255, 256, 257, seq - 1].into_iter().filter(|i| *i < seq) {
            let row = everywhere("cached", || {
                let mut row = vec![f32::NAN; heads * d];
                let keys = ..(i + 1) * kv_heads * d;
                let shape = AttentionShape { seq: i + 1, ..tensors.shape };
                attention_cached(&shape, &tensors.q[i * heads * d..][..heads * d], &tensors.k[keys], &tensors.v[keys], &mut row);
                row
            });
            assert_eq!(bits(&row), bits(&out[i * heads * d..][..heads * d]), "row {i} of {seq}, window {window:?}");
        }
    }
}

#[test]
fn cached_queries_have_the_bits_of_their_rows() {
    for (seq, window) in [(300, None), (300, Some(7)), (530, Some(300))] {
        let (heads, kv_heads, d) = (4, 2, 24);
        let tensors = Tensors::new(1, seq, heads, kv_heads, d, window);
        let (out, _) = tensors.forward();
        for count in [2, 63, 64, 65, 200, seq] {
            let queries = (seq - count) * heads * d..;
            let rows = everywhere("cached rows", || {
                let mut rows = vec![f32::NAN; count * heads * d];
                attention_cached(&tensors.shape, &tensors.q[queries.clone()], &tensors.k, &tensors.v, &mut rows);
                rows
            });
            assert_eq!(bits(&rows), bits(&out[queries.clone()]), "the last {count} of {seq}, window {window:?}");
        }
    }
}

#[test]
fn what_a_query_cannot_see_changes_nothing() {
    let mut tensors = Tensors::new(1, 90, 2, 1, 8, Some(10));
    let (before, _) = tensors.forward();
    // Query 40 sees the keys 31 to 40.
    for j in (0..31).chain(41..90) {
        tensors.k[j * 8..][..8].fill(50.0 - j as f32);
        tensors.v[j * 8..][..8].fill(-3.0);
    }
    let (after, _) = tensors.forward();
    assert_eq!(bits(&before[40 * 16..41 * 16]), bits(&after[40 * 16..41 * 16]));
    assert_ne!(bits(&before[39 * 16..40 * 16]), bits(&after[39 * 16..40 * 16]));
}

#[test]
fn rows_beyond_the_length_are_zero_and_unread() {
    let mut tensors = Tensors::new(2, 70, 2, 1, 8, None);
    tensors.lengths = vec![66, 0];
    let before = tensors.all();
    let width = 16;
    tensors.q[66 * width..].fill(f32::NAN);
    tensors.k[66 * 8..].fill(f32::NAN);
    tensors.v[66 * 8..].fill(f32::NAN);
    let after = tensors.all();
    // The gradient of the result is finite everywhere; only real rows of it are read.
    assert_eq!(bits(&before), bits(&after));
    assert!(after[66 * width..140 * width].iter().all(|x| x.to_bits() == 0));
}
