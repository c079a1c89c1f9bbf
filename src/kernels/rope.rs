//! Rotary position embedding in the rotate-half convention of Hugging Face: element i turns with element i + head_dim / 2.

use rayon::prelude::*;

use super::isa::{LANES, clones};
use super::math;

/// Rows of one task.
const GROUP_ROWS: usize = 64;

/// Cosines and sines of every position, computed in f64 and rounded.
#[derive(Clone, Debug)]
pub struct Rope {
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
        let half = head_dim / 2;
        let turns: Vec<f64> = (0..half).map(|i| math::pow64(f64::from(theta), -2.0 * i as f64 / head_dim as f64)).collect();
        let angles = || (0..max_positions).flat_map(|position| turns.iter().map(move |turn| position as f64 * turn));
        Rope {
            half,
            cos: angles().map(|angle| math::cos64(angle) as f32).collect(),
            sin: angles().map(|angle| math::sin64(angle) as f32).collect(),
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

/// Turns each head of each row in place by the row's position; `x` holds `positions.len()` rows of `heads · head_dim`.
pub fn rope(x: &mut [f32], heads: usize, positions: &[u32], rope: &Rope, turn: Turn) {
    let head_dim = 2 * rope.half;
    let width = heads * head_dim;
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
            turn_row(row, cos, sin, sign);
        }
    });
}

/// [`rope`] for heads whose pairs lie two and two: element 2i turns with 2i + 1. They come out as halves, with the bits that [`rope`] gives halves.
pub fn rope_neighbours(x: &mut [f32], heads: usize, positions: &[u32], table: &Rope) {
    let head_dim = 2 * table.half;
    assert_eq!(x.len(), positions.len() * heads * head_dim, "rope_neighbours: shapes disagree");
    if x.is_empty() {
        return;
    }
    x.par_chunks_mut(GROUP_ROWS * heads * head_dim).for_each(|x| {
        let mut pairs = vec![0.0; head_dim];
        for head in x.chunks_exact_mut(head_dim) {
            pairs.copy_from_slice(head);
            let (low, high) = head.split_at_mut(table.half);
            for ((pair, low), high) in pairs.as_chunks::<2>().0.iter().zip(low).zip(high) {
                (*low, *high) = (pair[0], pair[1]);
            }
        }
    });
    rope(x, heads, positions, table, Turn::Forward);
}

clones! {
    /// One position's heads, each as long as `cos` and `sin` together.
    fn turn_row<S>(s, row: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
        let half = cos.len();
        let sign_v = s.splat(sign);
        for head in row.chunks_exact_mut(2 * half) {
            let (low, high) = head.split_at_mut(half);
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
