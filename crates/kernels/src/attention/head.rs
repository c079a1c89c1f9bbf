//! One head of one sequence, 64 queries at a time.

use std::cell::RefCell;
use std::ops::Range;

use crate::gemm::{CHUNK, Mat, Write, serial};
use crate::isa::{LANES, clones};
use crate::math::ln64;
use crate::reduce::dot_v;
use crate::softmax::{exp_row, exp_shifted};

/// Queries of one block. The gradients of keys and values are summed block by block, so it is part of the specification.
const QUERIES: usize = 64;

/// The rows of one head: `q` of its queries, `k` and `v` of all keys.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub scale: f32,
    pub window: Option<usize>,
    pub q: Mat<'a>,
    pub k: Mat<'a>,
    pub v: Mat<'a>,
}

/// Where the gradients of one sequence and key head go. The rows of `dq` hold all query heads of the key head.
#[derive(Debug)]
pub struct Gradients<'a, 'b> {
    pub dq: &'a mut [&'b mut [f32]],
    pub dk: &'a mut [&'b mut [f32]],
    pub dv: &'a mut [&'b mut [f32]],
}

impl Gradients<'_, '_> {
    pub fn clear(&mut self) {
        for rows in [&mut *self.dq, &mut *self.dk, &mut *self.dv] {
            rows.iter_mut().for_each(|row| row.fill(0.0));
        }
    }
}

/// Matrices of one block of queries by keys; kept between calls.
#[derive(Default)]
struct Scratch {
    p: Vec<f32>,
    dp: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Head<'_> {
    /// Every query of the sequence.
    pub fn forward(&self, out: &mut [&mut [f32]], lse: &mut [f32]) {
        for (i, (out, lse)) in out.chunks_mut(QUERIES).zip(lse.chunks_mut(QUERIES)).enumerate() {
            let first = i * QUERIES;
            let rows = first..first + out.len();
            let sums = self.attend(self.q.part(rows.clone(), 0..self.q.cols), rows.clone(), rows, out);
            for (lse, (max, sum)) in lse.iter_mut().zip(sums) {
                *lse = (f64::from(max) + ln64(f64::from(sum))) as f32;
            }
        }
    }

    /// Queries (one row of `q` each) that all stand at the last key.
    pub fn last_query(&self, out: &mut [&mut [f32]]) {
        let last = self.k.rows - 1;
        self.attend(self.q, last..last + 1, std::iter::repeat(last), out);
    }

    /// Queries (one row of `q` each) that stand at the last keys, one after another.
    pub fn last_queries(&self, out: &mut [&mut [f32]]) {
        let before = self.k.rows - out.len();
        for (i, out) in out.chunks_mut(QUERIES).enumerate() {
            let rows = i * QUERIES..i * QUERIES + out.len();
            let positions = before + rows.start..before + rows.end;
            self.attend(self.q.part(rows, 0..self.q.cols), positions.clone(), positions, out);
        }
    }

    /// The queries at `positions`, all within `reach`; returns the maximum and the denominator of each softmax.
    fn attend(&self, q: Mat, reach: Range<usize>, positions: impl Iterator<Item = usize>, out: &mut [&mut [f32]]) -> Vec<(f32, f32)> {
        let keys = self.keys(&reach);
        SCRATCH.with_borrow_mut(|Scratch { p, .. }| {
            p.resize(out.len() * keys.len(), 0.0);
            serial(q, self.k.part(keys.clone(), 0..self.k.cols).t(), &mut rows(p, keys.len()), Write::Set);
            let sums: Vec<_> =
                positions.zip(p.chunks_exact_mut(keys.len())).map(|(i, p)| softmax(p, self.visible(i, &keys), self.scale)).collect();
            serial(Mat::new(p, out.len(), keys.len()), self.v.part(keys, 0..self.v.cols), out, Write::Set);
            for (out, (_, sum)) in out.iter_mut().zip(&sums) {
                let inverse = 1.0 / sum;
                out.iter_mut().for_each(|x| *x *= inverse);
            }
            sums
        })
    }

    /// Sets dq (the columns from `column` on), adds to dk and dv.
    pub fn backward(&self, out: Mat, dout: Mat, lse: &[f32], column: usize, to: &mut Gradients) {
        let (d, length) = (self.q.cols, lse.len());
        for first in (0..length).step_by(QUERIES) {
            let positions = first..length.min(first + QUERIES);
            let keys = self.keys(&positions);
            let (k, v) = (self.k.part(keys.clone(), 0..d), self.v.part(keys.clone(), 0..d));
            let (q, out, dout) =
                (self.q.part(positions.clone(), 0..d), out.part(positions.clone(), 0..d), dout.part(positions.clone(), 0..d));
            SCRATCH.with_borrow_mut(|Scratch { p, dp }| {
                p.resize(positions.len() * keys.len(), 0.0);
                dp.resize(positions.len() * keys.len(), 0.0);
                serial(q, k.t(), &mut rows(p, keys.len()), Write::Set);
                serial(dout, v.t(), &mut rows(dp, keys.len()), Write::Set);
                for (row, i) in positions.clone().enumerate() {
                    let span = row * keys.len()..(row + 1) * keys.len();
                    let row = Row { scale: self.scale, lse: lse[i], out: out.row(row), dout: dout.row(row) };
                    score_gradient(&mut p[span.clone()], &mut dp[span], self.visible(i, &keys), row);
                }
                let (p, dp) = (Mat::new(p, positions.len(), keys.len()), Mat::new(dp, positions.len(), keys.len()));
                let mut dq: Vec<_> = to.dq[positions].iter_mut().map(|row| &mut row[column..column + d]).collect();
                serial(dp, k, &mut dq, Write::Set);
                serial(dp.t(), q, &mut to.dk[keys.clone()], Write::Add);
                serial(p.t(), dout, &mut to.dv[keys], Write::Add);
            });
        }
    }

    /// The keys that some query of a block sees, from a chunk's beginning on.
    fn keys(&self, positions: &Range<usize>) -> Range<usize> {
        self.first_key(positions.start) / CHUNK * CHUNK..positions.end
    }

    fn first_key(&self, i: usize) -> usize {
        self.window.map_or(0, |window| (i + 1).saturating_sub(window))
    }

    /// The keys that query i sees, counted from the first of `keys`.
    fn visible(&self, i: usize, keys: &Range<usize>) -> Range<usize> {
        self.first_key(i) - keys.start..i + 1 - keys.start
    }
}

fn rows(data: &mut [f32], width: usize) -> Vec<&mut [f32]> {
    data.chunks_mut(width).collect()
}

/// What one query's row of score gradients depends on.
#[derive(Clone, Copy)]
struct Row<'a> {
    scale: f32,
    lse: f32,
    out: &'a [f32],
    dout: &'a [f32],
}

/// The whole vectors that hold what is visible: only they are computed, as what is 0 adds nothing to any lane.
#[inline(always)]
fn vectors(visible: &Range<usize>, len: usize) -> Range<usize> {
    visible.start / LANES * LANES..visible.end.next_multiple_of(LANES).min(len)
}

/// The scores' whole vectors, −∞ where not visible; what is outside becomes 0.
#[inline(always)]
fn masked<'a>(row: &'a mut [f32], visible: &Range<usize>, part: &Range<usize>) -> &'a mut [f32] {
    row[..part.start].fill(0.0);
    row[part.start..visible.start].fill(f32::NEG_INFINITY);
    row[visible.end..part.end].fill(f32::NEG_INFINITY);
    row[part.end..].fill(0.0);
    &mut row[part.clone()]
}

clones! {
    /// Scores become exp(score·scale − max), 0 where not visible.
    fn softmax<S>(s, row: &mut [f32], visible: Range<usize>, scale: f32) -> (f32, f32) {
        let part = vectors(&visible, row.len());
        exp_row(s, masked(row, &visible, &part), scale)
    }

    /// Scores `p` become probabilities and `dp`, their gradients, those of the unscaled scores: p·(dp − out·dout)·scale; 0 where not visible.
    fn score_gradient<S>(s, p: &mut [f32], dp: &mut [f32], visible: Range<usize>, row: Row<'_>) {
        let part = vectors(&visible, p.len());
        let p = masked(p, &visible, &part);
        exp_shifted(s, p, row.scale, row.lse);
        let delta = dot_v(s, row.out, row.dout);
        let (delta_v, scale_v) = (s.splat(delta), s.splat(row.scale));
        let (ps, p_rest) = p.as_chunks::<LANES>();
        let (dps, dp_rest) = dp[part].as_chunks_mut::<LANES>();
        for (p, dp) in ps.iter().zip(dps) {
            s.store(s.mul(s.mul(s.load(p), s.sub(s.load(dp), delta_v)), scale_v), dp);
        }
        for (p, dp) in p_rest.iter().zip(dp_rest) {
            *dp = p * (*dp - delta) * row.scale;
        }
        dp[..visible.start].fill(0.0);
        dp[visible.end..].fill(0.0);
    }
}
