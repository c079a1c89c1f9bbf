//! A few rows times a few vectors of columns of the result, held in registers while one chunk of k goes by.

use super::CHUNK;
use super::pack::{Line, Row};
use crate::kernels::isa::{LANES, Simd};

/// The rows of A that a tile reads.
#[derive(Clone, Copy)]
pub enum Left<'a> {
    /// One stored row for each row of the tile.
    Rows(&'a [Row]),
    /// For each k, a value for each row of the tile.
    Columns(&'a [f32]),
}

/// Adds the product of a chunk to `c`, the tile's rows, from column `first` on. `b` holds `vectors` lines for each k.
#[inline(always)]
pub fn add<S: Simd>(s: S, left: Left, b: &[Line], vectors: usize, c: &mut [&mut [f32]], first: usize) {
    if const { S::TILE_VECTORS == 2 } && vectors == 2 {
        heights::<S, 2>(s, left, b, c, first);
    } else {
        heights::<S, 1>(s, left, b, c, first);
    }
}

macro_rules! by_height {
    ($s:ident, $vectors:ident, $left:ident, $b:ident, $c:ident, $first:ident, $($height:literal)*) => {
        match $c.len() {
            $($height if const { $height <= S::TILE_ROWS } => tile::<S, $height, $vectors>($s, $left, $b, $c, $first),)*
            _ => {}
        }
    };
}

#[inline(always)]
fn heights<S: Simd, const VECTORS: usize>(s: S, left: Left, b: &[Line], c: &mut [&mut [f32]], first: usize) {
    by_height!(s, VECTORS, left, b, c, first, 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
}

#[inline(always)]
fn tile<S: Simd, const HEIGHT: usize, const VECTORS: usize>(s: S, left: Left, b: &[Line], c: &mut [&mut [f32]], first: usize) {
    let (b, _) = b.as_chunks::<VECTORS>();
    let sums = match left {
        Left::Rows(rows) => by_rows::<S, HEIGHT, VECTORS>(s, rows, b),
        Left::Columns(columns) => by_columns::<S, HEIGHT, VECTORS>(s, columns, b),
    };
    for (c, sums) in c.iter_mut().zip(&sums) {
        let c = &mut c[first..];
        let (whole, rest) = c.as_chunks_mut::<LANES>();
        let vectors = whole.len();
        for (v, sum) in sums.iter().enumerate() {
            match whole.get_mut(v) {
                Some(c) => s.store(s.add(s.load(c), *sum), c),
                None if v == vectors => s.store_part(s.add(s.load_part(rest, 0.0), *sum), rest),
                None => {}
            }
        }
    }
}

#[inline(always)]
fn by_rows<S: Simd, const HEIGHT: usize, const VECTORS: usize>(s: S, rows: &[Row], b: &[[Line; VECTORS]]) -> [[S::V; VECTORS]; HEIGHT] {
    let mut sums = [[s.splat(0.0); VECTORS]; HEIGHT];
    let Some(rows) = rows.first_chunk::<HEIGHT>() else { return sums };
    for p in 0..b.len().min(CHUNK) {
        let b = lines(s, &b[p]);
        for (sums, row) in sums.iter_mut().zip(rows) {
            let a = s.splat(row.0[p]);
            for (sum, b) in sums.iter_mut().zip(&b) {
                *sum = s.fma(a, *b, *sum);
            }
        }
    }
    sums
}

#[inline(always)]
fn by_columns<S: Simd, const HEIGHT: usize, const VECTORS: usize>(
    s: S,
    columns: &[f32],
    b: &[[Line; VECTORS]],
) -> [[S::V; VECTORS]; HEIGHT] {
    let mut sums = [[s.splat(0.0); VECTORS]; HEIGHT];
    let (columns, _) = columns.as_chunks::<HEIGHT>();
    for (a, b) in columns.iter().zip(b) {
        let b = lines(s, b);
        for (sums, a) in sums.iter_mut().zip(a) {
            let a = s.splat(*a);
            for (sum, b) in sums.iter_mut().zip(&b) {
                *sum = s.fma(a, *b, *sum);
            }
        }
    }
    sums
}

#[inline(always)]
fn lines<S: Simd, const VECTORS: usize>(s: S, b: &[Line; VECTORS]) -> [S::V; VECTORS] {
    let mut vectors = [s.splat(0.0); VECTORS];
    for (vector, line) in vectors.iter_mut().zip(b) {
        *vector = s.load(&line.0);
    }
    vectors
}
