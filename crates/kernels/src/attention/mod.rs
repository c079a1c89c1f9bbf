//! Causal attention with grouped key heads and an optional window, forward, backward and for one cached query.
//!
//! Queries are taken 64 at a time against all keys they see, so no T × T matrix is kept. Every sum over keys has an order that the key's
//! index alone decides: chains of 256 keys from index 0 on for products, lane = index mod 16 for softmax. A cached query therefore gives
//! the bits of its row in [`attention_forward`].

mod head;

use rayon::prelude::*;

use super::gemm::{Mat, columns};
use head::{Gradients, Head};

/// Sizes of an attention. Query heads g·(heads / kv_heads) .. share key head g. With a window w, a query at i sees the keys i−w+1 ..= i. Scores are
/// multiplied by `scale`, or by 1/√head_dim if there is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    pub batch: usize,
    pub seq: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub window: Option<usize>,
    pub scale: Option<f32>,
}

impl AttentionShape {
    fn scale(&self) -> f32 {
        self.scale.unwrap_or((1.0 / (self.head_dim as f64).sqrt()) as f32)
    }

    /// Query heads of one key head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn check(&self, queries: &[&[f32]], keys: &[&[f32]], lengths: &[usize]) {
        assert!(self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads), "attention: {} heads over {}", self.heads, self.kv_heads);
        assert!(self.head_dim > 0 && self.window != Some(0), "attention: no head_dim or an empty window");
        let rows = self.batch * self.seq;
        assert!(queries.iter().all(|x| x.len() == rows * self.heads * self.head_dim), "attention: shapes of queries disagree");
        assert!(keys.iter().all(|x| x.len() == rows * self.kv_heads * self.head_dim), "attention: shapes of keys disagree");
        assert!(lengths.len() == self.batch && lengths.iter().all(|length| *length <= self.seq), "attention: lengths");
    }

    /// The rows of one sequence's head in a tensor of `heads` heads.
    fn view<'a>(&self, x: &'a [f32], heads: usize, batch: usize, head: usize, length: usize) -> Mat<'a> {
        let width = heads * self.head_dim;
        let first = (batch * self.seq * width + head * self.head_dim).min(x.len());
        Mat::strided(&x[first..], length, self.head_dim, width)
    }

    fn head<'a>(&self, q: &'a [f32], k: &'a [f32], v: &'a [f32], batch: usize, head: usize, length: usize) -> Head<'a> {
        let kv = head / self.group();
        Head {
            scale: self.scale(),
            window: self.window,
            q: self.view(q, self.heads, batch, head, length),
            k: self.view(k, self.kv_heads, batch, kv, length),
            v: self.view(v, self.kv_heads, batch, kv, length),
        }
    }
}

/// `out = softmax(q·kᵀ / √head_dim)·v` and `lse`, the logarithm of each softmax's denominator.
///
/// `q` and `out` are batch·seq × heads·head_dim, `k` and `v` batch·seq × kv_heads·head_dim, `lse` batch·heads × seq. A sequence has
/// `lengths[b]` real tokens; its rows beyond are 0 in `out` and `lse`, and are not read.
pub fn attention_forward(shape: &AttentionShape, q: &[f32], k: &[f32], v: &[f32], lengths: &[usize], out: &mut [f32], lse: &mut [f32]) {
    shape.check(&[q, out], &[k, v], lengths);
    let AttentionShape { batch, seq, heads, head_dim, .. } = *shape;
    assert_eq!(lse.len(), batch * heads * seq, "attention: lse");
    if seq == 0 {
        return;
    }
    let mut blocks = columns(out, heads * head_dim, head_dim);
    let mut rows: Vec<_> = blocks.iter_mut().map(|block| block.chunks_mut(seq)).collect();
    let tasks: Vec<_> = lse.chunks_mut(seq).enumerate().filter_map(|(i, lse)| Some((i, lse, rows.get_mut(i % heads)?.next()?))).collect();
    tasks.into_par_iter().for_each(|(i, lse, rows)| {
        let (batch, length) = (i / heads, lengths[i / heads]);
        let (real, beyond) = rows.split_at_mut(length);
        beyond.iter_mut().for_each(|row| row.fill(0.0));
        lse[length..].fill(0.0);
        shape.head(q, k, v, batch, i % heads, length).forward(real, lse);
    });
}

/// What the backward pass needs of the forward pass, and the gradient of its result.
#[derive(Clone, Copy, Debug)]
struct Saved<'a> {
    out: &'a [f32],
    lse: &'a [f32],
    dout: &'a [f32],
}

/// Sets the gradients of q, k and v; rows beyond the lengths get 0.
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
    shape.check(&[q, out, dout, dq], &[k, v, dk, dv], lengths);
    let AttentionShape { batch, seq, heads, kv_heads, head_dim, .. } = *shape;
    assert_eq!(lse.len(), batch * heads * seq, "attention: lse");
    if seq == 0 {
        return;
    }
    let saved = Saved { out, lse, dout };
    let mut dq = columns(dq, heads * head_dim, shape.group() * head_dim);
    let mut dk = columns(dk, kv_heads * head_dim, head_dim);
    let mut dv = columns(dv, kv_heads * head_dim, head_dim);
    let sequences = dq.iter_mut().zip(&mut dk).zip(&mut dv).enumerate().flat_map(|(kv, ((dq, dk), dv))| {
        let rows = dq.chunks_mut(seq).zip(dk.chunks_mut(seq)).zip(dv.chunks_mut(seq)).enumerate();
        rows.map(move |(batch, ((dq, dk), dv))| (batch, kv, Gradients { dq, dk, dv }))
    });
    let tasks: Vec<_> = sequences.collect();
    tasks.into_par_iter().for_each(|(batch, kv, gradients)| {
        shape.backward_group(q, k, v, saved, batch, kv, lengths[batch], gradients);
    });
}

impl AttentionShape {
    /// One sequence and key head: its query heads one after another, which is the order of the sums in dk and dv.
    #[expect(clippy::too_many_arguments, reason = "the tensors of an attention")]
    fn backward_group(
        &self,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        saved: Saved,
        batch: usize,
        kv: usize,
        length: usize,
        mut gradients: Gradients,
    ) {
        gradients.clear();
        for member in 0..self.group() {
            let head = kv * self.group() + member;
            let lse = &saved.lse[(batch * self.heads + head) * self.seq..][..length];
            let (out, dout) =
                (self.view(saved.out, self.heads, batch, head, length), self.view(saved.dout, self.heads, batch, head, length));
            self.head(q, k, v, batch, head, length).backward(out, dout, lse, member * self.head_dim, &mut gradients);
        }
    }
}

/// Query rows (heads × head_dim each) at the last of `shape.seq` positions, whose keys and values are `k` and `v`: the bits of those rows of
/// [`attention_forward`].
pub fn attention_cached(shape: &AttentionShape, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
    let AttentionShape { seq, heads, kv_heads, head_dim, window, .. } = *shape;
    shape.check(&[], &[k, v], &[seq]);
    let width = heads * head_dim;
    let rows = q.len() / width;
    assert!(
        q.len() == rows * width && out.len() == q.len() && (1..=seq).contains(&rows),
        "attention_cached: shapes of the queries disagree"
    );
    let head = |kv, q| {
        let (k, v) = (shape.view(k, kv_heads, 0, kv, seq), shape.view(v, kv_heads, 0, kv, seq));
        Head { scale: shape.scale(), window, q, k, v }
    };
    if rows > 1 {
        let mut blocks = columns(out, width, head_dim);
        blocks.par_iter_mut().enumerate().for_each(|(i, out)| {
            head(i / shape.group(), Mat::strided(&q[i * head_dim..], rows, head_dim, width)).last_queries(out);
        });
        return;
    }
    // All queries of a key head at once.
    let group = shape.group() * head_dim;
    for (kv, (q, out)) in q.chunks_exact(group).zip(out.chunks_exact_mut(group)).enumerate() {
        head(kv, Mat::new(q, shape.group(), head_dim)).last_query(&mut out.chunks_exact_mut(head_dim).collect::<Vec<_>>());
    }
}
