//! Rotary position embedding in the rotate-half convention of Hugging Face: element i turns with element i + head_dim / 2.

use rayon::prelude::*;

use super::isa::{LANES, clones};
use super::math;

/// Rows, and heads, of one task.
const GROUP_ROWS: usize = 64;
const GROUP_HEADS: usize = 512;

/// Cosines and sines of every position, computed in f64 and rounded.
#[derive(Clone, Debug)]
pub struct Rope {
    head_dim: usize,
    /// Pairs that turn: the leading 2 · half elements of a head. Those behind stay as they are.
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// Which way to turn: the backward pass turns gradients back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Forward,
    Backward,
}

impl Rope {
    /// Tables for positions below `max_positions`: angle = position · theta^(−2i / head_dim). `head_dim` must be even.
    pub fn new(head_dim: usize, max_positions: usize, theta: f32) -> Rope {
        assert!(head_dim.is_multiple_of(2), "rope: head_dim must be even");
        let turns: Vec<f64> = (0..head_dim / 2).map(|i| math::pow64(f64::from(theta), -2.0 * i as f64 / head_dim as f64)).collect();
        Rope::of_turns(head_dim, &[(&turns, max_positions)], 1.0)
    }

    /// Tables of other angles: position · turn for each pair of a head's leading elements, for positions below the number beside the turns. Several
    /// tables lie behind each other, so that a row's number chooses one. Cosines and sines are multiplied by `magnitude`.
    pub fn of_turns(head_dim: usize, tables: &[(&[f64], usize)], magnitude: f64) -> Rope {
        let half = tables.first().map_or(0, |(turns, _)| turns.len());
        let fits = 2 * half <= head_dim && tables.iter().all(|(turns, _)| turns.len() == half);
        assert!(fits, "rope: {half} pairs in a head of {head_dim}");
        let of = |positions: usize, turns| (0..positions).flat_map(move |position| of_position(position, turns));
        let angles = || tables.iter().flat_map(|(turns, positions)| of(*positions, turns));
        Rope {
            head_dim,
            half,
            cos: angles().map(|angle| (math::cos64(angle) * magnitude) as f32).collect(),
            sin: angles().map(|angle| (math::sin64(angle) * magnitude) as f32).collect(),
        }
    }

    pub fn max_positions(&self) -> usize {
        self.cos.len().checked_div(self.half).unwrap_or(0)
    }

    fn row(&self, position: u32) -> (&[f32], &[f32]) {
        let row = position as usize * self.half..(position as usize + 1) * self.half;
        assert!(row.end <= self.cos.len(), "rope: position {position} is beyond the {} of the table", self.max_positions());
        (&self.cos[row.clone()], &self.sin[row])
    }
}

fn of_position(position: usize, turns: &[f64]) -> impl Iterator<Item = f64> {
    turns.iter().map(move |turn| position as f64 * turn)
}

/// Turns each head of each row in place by the row's position; `x` holds `positions.len()` rows of `heads · head_dim`.
pub fn rope(x: &mut [f32], heads: usize, positions: &[u32], rope: &Rope, turn: Turn) {
    let width = heads * rope.head_dim;
    assert_eq!(x.len(), positions.len() * width, "rope: shapes disagree");
    if x.is_empty() {
        return;
    }
    let sign = match turn {
        Turn::Forward => 1.0,
        Turn::Backward => -1.0,
    };
    x.par_chunks_mut(GROUP_ROWS * width).zip(positions.par_chunks(GROUP_ROWS)).for_each(|(x, positions)| {
        for (row, position) in x.chunks_exact_mut(width).zip(positions) {
            let (cos, sin) = rope.row(*position);
            turn_row(row, rope.head_dim, cos, sin, sign);
        }
    });
}

/// Heads whose pairs lie two and two, element 2i beside 2i + 1, as [`rope`] wants them: first all firsts, then all seconds.
pub fn neighbours_to_halves(x: &mut [f32], head_dim: usize) {
    assert!(head_dim > 0 && head_dim.is_multiple_of(2) && x.len().is_multiple_of(head_dim), "neighbours_to_halves: shapes disagree");
    x.par_chunks_mut(GROUP_HEADS * head_dim).for_each(|x| {
        let mut pairs = vec![0.0; head_dim];
        for head in x.chunks_exact_mut(head_dim) {
            pairs.copy_from_slice(head);
            let (low, high) = head.split_at_mut(head_dim / 2);
            for ((pair, low), high) in pairs.as_chunks::<2>().0.iter().zip(low).zip(high) {
                (*low, *high) = (pair[0], pair[1]);
            }
        }
    });
}

clones! {
    /// One position's heads, whose leading elements are as many as `cos` and `sin` together.
    fn turn_row<S>(s, row: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32], sign: f32) {
        let half = cos.len();
        let sign_v = s.splat(sign);
        for head in row.chunks_exact_mut(head_dim) {
            let (low, high) = head[..2 * half].split_at_mut(half);
            let (lows, low_rest) = low.as_chunks_mut::<LANES>();
            let (highs, high_rest) = high.as_chunks_mut::<LANES>();
            let (coss, cos_rest) = cos.as_chunks::<LANES>();
            let (sins, sin_rest) = sin.as_chunks::<LANES>();
            for (((low, high), cos), sin) in lows.iter_mut().zip(highs).zip(coss).zip(sins) {
                let (a, b, c, n) = (s.load(low), s.load(high), s.load(cos), s.mul(s.load(sin), sign_v));
                s.store(s.fma(a, c, s.sub(s.splat(0.0), s.mul(b, n))), low);
                s.store(s.fma(b, c, s.mul(a, n)), high);
            }
            for (((low, high), c), sin) in low_rest.iter_mut().zip(high_rest).zip(cos_rest).zip(sin_rest) {
                let (a, b, n) = (*low, *high, sin * sign);
                *low = a.mul_add(*c, 0.0 - b * n);
                *high = b.mul_add(*c, a * n);
            }
        }
    }
}
