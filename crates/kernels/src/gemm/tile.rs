//! A few rows times a few vectors of columns of the result, held in registers while one chunk of k goes by.

use super::Write;
use super::pack::Line;
use crate::isa::{LANES, Simd};

/// Steps of k between two requests for a row of the result: 14 rows in 256 steps.
const STRETCH: usize = 16;

/// Cache lines of what is [`Coming`] that are asked for in one stretch.
const LINES: usize = 4;

/// Where a tile finds A.
#[derive(Clone, Copy)]
pub enum Left<'a> {
    /// One stored row for each row of the tile: from the first one's chunk of k on, and how far apart they begin. Then the rows that are read next.
    Rows(&'a [f32], usize, (&'a [f32], usize)),
    /// One stored row for each k, from the tile's first value on, and how far apart they begin.
    Columns(&'a [f32], usize),
}

/// What the thread reads after this chunk of k, and from further away than the near caches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Coming<'a>(pub [&'a [f32]; 2]);

impl Coming<'_> {
    #[inline(always)]
    fn ask<S: Simd>(&mut self, s: S) {
        let [now, later] = &mut self.0;
        if now.is_empty() {
            std::mem::swap(now, later);
        }
        let (soon, rest) = now.split_at(now.len().min(LINES * LANES));
        soon.iter().step_by(LANES).for_each(|x| s.prefetch(x));
        *now = rest;
    }
}

/// Some columns of B: `vectors` lines for each k.
#[derive(Clone, Copy)]
pub struct Panel<'a> {
    pub lines: &'a [Line],
    pub vectors: usize,
}

/// Writes the product of a chunk to `c`, the tile's rows, from column `first` on.
#[inline(always)]
pub fn write<S: Simd>(s: S, left: Left, b: Panel, c: &mut [&mut [f32]], first: usize, write: Write, coming: &mut Coming) {
    if const { S::TILE_VECTORS == 2 } && b.vectors == 2 {
        heights::<S, 2>(s, left, b.lines, c, first, write, coming);
    } else {
        heights::<S, 1>(s, left, b.lines, c, first, write, coming);
    }
}

macro_rules! by_height {
    ($s:ident, $vectors:ident, $left:ident, $b:ident, $c:ident, $first:ident, $write:ident, $coming:ident, $($height:literal)*) => {
        match $c.len() {
            $($height if const { $height <= S::TILE_ROWS } => tile::<S, $height, $vectors>($s, $left, $b, $c, $first, $write, $coming),)*
            _ => {}
        }
    };
}

#[inline(always)]
fn heights<S: Simd, const VECTORS: usize>(
    s: S,
    left: Left,
    b: &[Line],
    c: &mut [&mut [f32]],
    first: usize,
    write: Write,
    coming: &mut Coming,
) {
    by_height!(s, VECTORS, left, b, c, first, write, coming, 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
}

#[inline(always)]
fn tile<S: Simd, const HEIGHT: usize, const VECTORS: usize>(
    s: S,
    left: Left,
    b: &[Line],
    c: &mut [&mut [f32]],
    first: usize,
    write: Write,
    coming: &mut Coming,
) {
    let (b, _) = b.as_chunks::<VECTORS>();
    let sums = match left {
        Left::Rows(rows, stride, next) => {
            assert!(rows.len() >= (HEIGHT - 1) * stride + b.len());
            // SAFETY: the row is below HEIGHT and the step below the number of `b`.
            let a = |step, row| unsafe { *rows.get_unchecked(row * stride + step) };
            // A line of the next rows at each step: they begin far from each other, which the processor does not foresee.
            let (next, distance) = next;
            let ask = |stretch, p| s.prefetch(next.as_ptr().wrapping_add(stretch * distance + p * LANES));
            sums::<S, HEIGHT, VECTORS>(s, a, ask, b, c, first, &mut Coming::default())
        }
        Left::Columns(columns, stride) => {
            assert!(columns.len() >= (b.len().max(1) - 1) * stride + HEIGHT);
            // SAFETY: the row is below HEIGHT and the step below the number of `b`.
            let a = |step, row| unsafe { *columns.get_unchecked(step * stride + row) };
            sums::<S, HEIGHT, VECTORS>(s, a, |_, _| {}, b, c, first, coming)
        }
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

/// `a` gives A's value for a step of k and a row, `ask` may ask for something at each step. The rows of the result are asked for one by one
/// while the sums are made: all at once they would wait for each other.
#[inline(always)]
fn sums<S: Simd, const HEIGHT: usize, const VECTORS: usize>(
    s: S,
    a: impl Fn(usize, usize) -> f32,
    ask: impl Fn(usize, usize),
    b: &[[Line; VECTORS]],
    c: &[&mut [f32]],
    first: usize,
    coming: &mut Coming,
) -> [[S::V; VECTORS]; HEIGHT] {
    let mut sums = [[s.splat(0.0); VECTORS]; HEIGHT];
    for (stretch, b) in b.chunks(STRETCH).enumerate() {
        // A row that does not begin with a line ends in one more.
        let part = part(c.get(stretch), first, VECTORS);
        part.iter().step_by(LANES).chain(part.last()).for_each(|x| s.prefetch_to_write(x));
        coming.ask(s);
        for (p, b) in b.iter().enumerate() {
            ask(stretch, p);
            let b = lines(s, b);
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = s.splat(a(stretch * STRETCH + p, row));
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
        *vector = s.load(line);
    }
    vectors
}
