//! A few rows times a few vectors of columns of the result, held in registers while one chunk of k goes by.

use super::Write;
use super::pack::{Line, ask_for};
use crate::kernels::isa::{LANES, Simd};

/// Steps of k between two requests for a row of the result: 14 rows in 256 steps.
const STRETCH: usize = 16;

/// The rows of A that a tile reads.
#[derive(Clone, Copy)]
pub enum Left<'a> {
    /// One stored row for each row of the tile: from the first one's chunk of k on, and how far apart they begin.
    Rows(&'a [f32], usize),
    /// For each k, a value for each row of the tile.
    Columns(&'a [f32]),
}

/// Writes the product of a chunk to `c`, the tile's rows, from column `first` on. `b` holds `vectors` lines for each k.
#[inline(always)]
pub fn write<S: Simd>(s: S, left: Left, b: &[Line], vectors: usize, c: &mut [&mut [f32]], first: usize, write: Write) {
    if const { S::TILE_VECTORS == 2 } && vectors == 2 {
        heights::<S, 2>(s, left, b, c, first, write);
    } else {
        heights::<S, 1>(s, left, b, c, first, write);
    }
}

macro_rules! by_height {
    ($s:ident, $vectors:ident, $left:ident, $b:ident, $c:ident, $first:ident, $write:ident, $($height:literal)*) => {
        match $c.len() {
            $($height if const { $height <= S::TILE_ROWS } => tile::<S, $height, $vectors>($s, $left, $b, $c, $first, $write),)*
            _ => {}
        }
    };
}

#[inline(always)]
fn heights<S: Simd, const VECTORS: usize>(s: S, left: Left, b: &[Line], c: &mut [&mut [f32]], first: usize, write: Write) {
    by_height!(s, VECTORS, left, b, c, first, write, 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
}

#[inline(always)]
fn tile<S: Simd, const HEIGHT: usize, const VECTORS: usize>(
    s: S,
    left: Left,
    b: &[Line],
    c: &mut [&mut [f32]],
    first: usize,
    write: Write,
) {
    let (b, _) = b.as_chunks::<VECTORS>();
    let sums = match left {
        Left::Rows(rows, stride) => by_rows::<S, HEIGHT, VECTORS>(s, rows, stride, b, c, first),
        Left::Columns(columns) => by_columns::<S, HEIGHT, VECTORS>(s, columns, b, c, first),
    };
    let zero = s.splat(0.0);
    for (c, sums) in c.iter_mut().zip(&sums) {
        let c = &mut c[first..];
        let (whole, rest) = c.as_chunks_mut::<LANES>();
        let vectors = whole.len();
        for (v, sum) in sums.iter().enumerate() {
            match whole.get_mut(v) {
                Some(c) => {
                    let before = if write == Write::Set { zero } else { s.load(c) };
                    s.store(s.add(before, *sum), c);
                }
                None if v == vectors => {
                    let before = if write == Write::Set { zero } else { s.load_part(rest, 0.0) };
                    s.store_part(s.add(before, *sum), rest);
                }
                None => {}
            }
        }
    }
}

// In both functions the rows of the result are asked for one by one while the sums are made: all at once they would wait for each other.

#[inline(always)]
fn by_rows<S: Simd, const HEIGHT: usize, const VECTORS: usize>(
    s: S,
    rows: &[f32],
    stride: usize,
    b: &[[Line; VECTORS]],
    c: &[&mut [f32]],
    first: usize,
) -> [[S::V; VECTORS]; HEIGHT] {
    let mut sums = [[s.splat(0.0); VECTORS]; HEIGHT];
    assert!(rows.len() >= (HEIGHT - 1) * stride + b.len());
    for (i, b) in b.chunks(STRETCH).enumerate() {
        ask_for(s, part(c.get(i), first, VECTORS));
        for (p, b) in b.iter().enumerate() {
            let b = lines(s, b);
            for (row, sums) in sums.iter_mut().enumerate() {
                // SAFETY: i · STRETCH + p is below the number of `b`, row below HEIGHT: the assertion above.
                let a = s.splat(unsafe { *rows.get_unchecked(row * stride + i * STRETCH + p) });
                for (sum, b) in sums.iter_mut().zip(&b) {
                    *sum = s.fma(a, *b, *sum);
                }
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
    c: &[&mut [f32]],
    first: usize,
) -> [[S::V; VECTORS]; HEIGHT] {
    let mut sums = [[s.splat(0.0); VECTORS]; HEIGHT];
    let (columns, _) = columns.as_chunks::<HEIGHT>();
    for (i, (columns, b)) in columns.chunks(STRETCH).zip(b.chunks(STRETCH)).enumerate() {
        ask_for(s, part(c.get(i), first, VECTORS));
        for (a, b) in columns.iter().zip(b) {
            let b = lines(s, b);
            for (sums, a) in sums.iter_mut().zip(a) {
                let a = s.splat(*a);
                for (sum, b) in sums.iter_mut().zip(&b) {
                    *sum = s.fma(a, *b, *sum);
                }
            }
        }
    }
    sums
}

/// The columns that a tile writes of a row, if there is that row.
#[inline(always)]
fn part<'a>(row: Option<&'a &mut [f32]>, first: usize, vectors: usize) -> &'a [f32] {
    row.map_or(&[], |row| &row[first..row.len().min(first + vectors * LANES)])
}

#[inline(always)]
fn lines<S: Simd, const VECTORS: usize>(s: S, b: &[Line; VECTORS]) -> [S::V; VECTORS] {
    let mut vectors = [s.splat(0.0); VECTORS];
    for (vector, line) in vectors.iter_mut().zip(b) {
        *vector = s.load(&line.0);
    }
    vectors
}
