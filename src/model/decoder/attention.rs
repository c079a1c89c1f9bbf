//! Attention over sequences of different lengths: each is a problem of its own, so that no padding is computed and no row depends on
//! what else is in the batch.

use crate::kernels::attention::{AttentionShape, attention_backward, attention_forward};

use super::super::Config;

/// Heads, their size and how far they see; everything else is in the slices' lengths.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub window: Option<usize>,
    pub scale: Option<f32>,
}

impl Heads {
    /// Of each layer.
    pub fn of(config: &Config) -> Vec<Heads> {
        let (heads, kv_heads, scale) = (config.num_attention_heads, config.num_key_value_heads, config.attention_scale());
        let of = |layer| Heads { heads, kv_heads, head_dim: config.head_dim, window: config.layer_window(layer), scale };
        (0..config.num_hidden_layers).map(of).collect()
    }

    pub fn shape(self, seq: usize) -> AttentionShape {
        let Heads { heads, kv_heads, head_dim, window, scale } = self;
        AttentionShape { batch: 1, seq, heads, kv_heads, head_dim, window, scale }
    }

    fn q(self) -> usize {
        self.heads * self.head_dim
    }

    fn kv(self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// `out` and `lse` (a number for each row and head) of all sequences. `starts` are row numbers; the slices begin at the first of them.
pub fn forward(heads: Heads, starts: &[usize], q: &[f32], k: &[f32], v: &[f32], out: &mut [f32], lse: &mut [f32]) {
    let rows = |from: usize, to: usize| starts[to] - starts[from];
    match starts.len() {
        0 | 1 => {}
        2 if rows(0, 1) == 0 => {}
        2 => attention_forward(&heads.shape(rows(0, 1)), q, k, v, &[rows(0, 1)], out, lse),
        n => {
            let middle = n / 2;
            let at = rows(0, middle);
            let (q, k, v) = (q.split_at(at * heads.q()), k.split_at(at * heads.kv()), v.split_at(at * heads.kv()));
            let (out, lse) = (out.split_at_mut(at * heads.q()), lse.split_at_mut(at * heads.heads));
            rayon::join(
                || forward(heads, &starts[..=middle], q.0, k.0, v.0, out.0, lse.0),
                || forward(heads, &starts[middle..], q.1, k.1, v.1, out.1, lse.1),
            );
        }
    }
}

/// What the forward pass saw and made.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub out: &'a [f32],
    pub lse: &'a [f32],
    pub dout: &'a [f32],
}

impl<'a> Seen<'a> {
    fn split_at(self, heads: Heads, row: usize) -> (Seen<'a>, Seen<'a>) {
        let (q, k, v) = (self.q.split_at(row * heads.q()), self.k.split_at(row * heads.kv()), self.v.split_at(row * heads.kv()));
        let (out, dout) = (self.out.split_at(row * heads.q()), self.dout.split_at(row * heads.q()));
        let lse = self.lse.split_at(row * heads.heads);
        (
            Seen { q: q.0, k: k.0, v: v.0, out: out.0, lse: lse.0, dout: dout.0 },
            Seen { q: q.1, k: k.1, v: v.1, out: out.1, lse: lse.1, dout: dout.1 },
        )
    }
}

/// The gradients of q, k and v, which are overwritten.
pub fn backward(heads: Heads, starts: &[usize], seen: Seen, dq: &mut [f32], dk: &mut [f32], dv: &mut [f32]) {
    let rows = |from: usize, to: usize| starts[to] - starts[from];
    match starts.len() {
        0 | 1 => {}
        2 if rows(0, 1) == 0 => {}
        2 => {
            let Seen { q, k, v, out, lse, dout } = seen;
            attention_backward(&heads.shape(rows(0, 1)), q, k, v, &[rows(0, 1)], out, lse, dout, dq, dk, dv);
        }
        n => {
            let middle = n / 2;
            let at = rows(0, middle);
            let seen = seen.split_at(heads, at);
            let dq = dq.split_at_mut(at * heads.q());
            let (dk, dv) = (dk.split_at_mut(at * heads.kv()), dv.split_at_mut(at * heads.kv()));
            rayon::join(
                || backward(heads, &starts[..=middle], seen.0, dq.0, dk.0, dv.0),
                || backward(heads, &starts[middle..], seen.1, dq.1, dk.1, dv.1),
            );
        }
    }
}
