//! Rows of x in eight bits: blocks of 32 along k with one scale each, in the order in which tiles read them.

use std::ops::Range;

use rayon::prelude::*;

use super::dot::{Size, clones};
use super::formats::Kind;
use super::words::Words;
use crate::isa::{Isa, LANES};

/// Values of an activation block.
pub const BLOCK: usize = 32;

/// Below this a block counts as zeros: 127 / top has to be a number.
const TINY: f32 = f32::from_bits((127 - 100) << 23);

/// Adding it leaves no bits for a fraction: the sum is rounded to the nearest whole number, halves to even, which its low bits hold.
const MAGIC: f32 = 12_582_912.0;

/// Values that one thread quantizes at least before others help.
const SPLIT_FROM: usize = 1 << 15;

/// One block: x ≈ d · q. A block that is not finite has d = NaN.
#[inline(always)]
pub fn quantize<S: Words>(s: S, x: &[f32; BLOCK]) -> (f32, [[u8; LANES]; 2]) {
    let (halves, _) = x.as_chunks::<LANES>();
    let (a, b) = (s.load(&halves[0]), s.load(&halves[1]));
    let top = s.top(a, b);
    if !top.is_finite() {
        return (f32::NAN, [[0; LANES]; 2]);
    }
    if top < TINY {
        return (0.0, [[0; LANES]; 2]);
    }
    let (scale, magic) = (s.splat(127.0 / top), s.splat(MAGIC));
    // The lowest byte of MAGIC's bits is 0, so that of the sum is the number's.
    (top / 127.0, [s.low_bytes(s.fma(a, scale, magic)), s.low_bytes(s.fma(b, scale, magic))])
}

/// Quantized rows, tile after tile. Within a tile of h rows everything is h values side by side.
#[derive(Debug, Default)]
pub struct Left {
    rows: usize,
    cols: usize,
    /// The most rows of a tile.
    most: usize,
    /// Four codes a word.
    q: Vec<u32>,
    /// For each block its scale.
    d: Vec<f32>,
    /// For each block two numbers, one for each sub-block of sixteen or else the first for all 32: what the sum of codes starts with, as i32 bits, or, for weights with
    /// minima, the sum of q.
    starts: Vec<f32>,
}

/// One tile.
#[derive(Clone, Copy, Debug)]
pub struct Tile<'a> {
    pub q: &'a [u32],
    pub d: &'a [f32],
    pub starts: &'a [f32],
}

struct TileMut<'a> {
    x: &'a [f32],
    q: &'a mut [u32],
    d: &'a mut [f32],
    starts: &'a mut [f32],
}

impl Left {
    /// Takes rows of `cols` values, for a product with weights of that kind.
    pub fn fill(&mut self, isa: Isa, x: &[f32], cols: usize, kind: Kind) {
        self.rows = x.len() / cols;
        self.cols = cols;
        most_rows(isa, kind, &mut self.most);
        self.q.resize(x.len() / 4, 0);
        self.d.resize(x.len() / BLOCK, 0.0);
        self.starts.resize(x.len() / BLOCK * 2, 0.0);
        let mut tiles: Vec<TileMut> = Vec::with_capacity(self.tiles());
        let (mut x, mut q, mut d, mut starts) = (x, &mut self.q[..], &mut self.d[..], &mut self.starts[..]);
        let (count, rows) = (self.rows.div_ceil(self.most), self.rows);
        for i in 0..count {
            let values = height(rows, count, i) * cols;
            tiles.push(TileMut {
                x: x.split_off(..values).unwrap_or_default(),
                q: q.split_off_mut(..values / 4).unwrap_or_default(),
                d: d.split_off_mut(..values / BLOCK).unwrap_or_default(),
                starts: starts.split_off_mut(..values / BLOCK * 2).unwrap_or_default(),
            });
        }
        if rows * cols < 2 * SPLIT_FROM {
            tiles.iter_mut().for_each(|tile| quantize_tile(isa, cols, kind, tile));
        } else {
            let tasks = SPLIT_FROM.div_ceil(self.most * cols);
            tiles.par_chunks_mut(tasks).for_each(|tiles| tiles.iter_mut().for_each(|tile| quantize_tile(isa, cols, kind, tile)));
        }
    }

    pub fn tiles(&self) -> usize {
        self.rows.div_ceil(self.most)
    }

    /// The first row of a tile; that of the tile after the last is the number of rows.
    pub fn first_row(&self, tile: usize) -> usize {
        let tiles = self.tiles();
        tile * (self.rows / tiles) + tile.min(self.rows % tiles)
    }

    /// The tiles that hold those rows, which are whole tiles.
    pub fn tiles_of(&self, rows: Range<usize>) -> Range<usize> {
        let tile = |row| (0..self.tiles()).find(|i| self.first_row(*i) >= row).unwrap_or(self.tiles());
        tile(rows.start)..tile(rows.end)
    }

    /// `depth` values of k of a tile, from `first` on; both are whole blocks.
    #[inline(always)]
    pub fn tile(&self, tile: usize, first: usize, depth: usize) -> Tile<'_> {
        let row = self.first_row(tile);
        let rows = self.first_row(tile + 1) - row;
        let (start, end) = (row * self.cols + rows * first, row * self.cols + rows * (first + depth));
        Tile {
            q: &self.q[start / 4..end / 4],
            d: &self.d[start / BLOCK..end / BLOCK],
            starts: &self.starts[start / BLOCK * 2..end / BLOCK * 2],
        }
    }
}

/// The heights of tiles are as equal as can be.
fn height(rows: usize, tiles: usize, i: usize) -> usize {
    rows / tiles + usize::from(i < rows % tiles)
}

clones! {
    fn most_rows<D>(_d, kind: Kind, most: &mut usize) {
        *most = if kind.halves { D::ROWS_OF_HALVES } else { D::ROWS };
    }

    fn quantize_tile<D>(d, cols: usize, kind: Kind, tile: &mut TileMut<'_>) {
        let s = d.simd();
        let rows = tile.x.len() / cols;
        let zero = if D::UNSIGNED && kind.size == Size::Eight { 128 } else { kind.zero };
        for (r, x) in tile.x.chunks_exact(cols).enumerate() {
            let (x, _) = x.as_chunks::<BLOCK>();
            for (i, x) in x.iter().enumerate() {
                let (d, q) = quantize(s, x);
                tile.d[i * rows + r] = d;
                let words = &mut tile.q[8 * i * rows..][..8 * rows];
                let (fours, _) = q.as_flattened().as_chunks::<4>();
                for (words, q) in words.chunks_exact_mut(rows).zip(fours) {
                    words[r] = u32::from_le_bytes(*q);
                }
                let (first, last) = (s.sum(q[0]), s.sum(q[1]));
                let sums = if kind.halves { [first, last] } else { [first + last, 0] };
                for (g, sum) in sums.into_iter().enumerate() {
                    tile.starts[(2 * i + g) * rows + r] = if kind.mins { sum as f32 } else { f32::from_bits((-zero * sum).cast_unsigned()) };
                }
            }
        }
    }
}
