//! Copies of matrix blocks in the order in which tiles read them.

use std::ops::Range;

use super::{CHUNK, Mat};
use crate::isa::{LANES, Simd};
use crate::pages::Room;

/// Rows that packing asks for ahead of its time: the processor foresees lines behind each other, not rows.
const AHEAD: usize = 4;

/// Panels of A that are packed side by side.
const PANELS_OF_A: usize = 16;

/// Sixteen values, of one cache line.
pub type Line = [f32; LANES];

/// Room of one copied row's chunk. The spare line spreads the rows over the sets of the cache.
pub const ROW: usize = CHUNK + LANES;

/// What one thread packs into; kept between products.
#[derive(Debug, Default)]
pub struct Buffers {
    /// A, if it cannot be read where it is: a chunk of each row or, if its columns are stored, for each panel and k the panel's values.
    pub a: Room,
    /// The rows of one tile.
    pub tile: Room,
    /// Some panels of B: for each k, one or two lines.
    pub panels: Room,
}

/// Some of A's stored rows, one chunk of k.
#[inline(always)]
pub fn copy_rows_of_a<'a>(a: &Mat, rows: Range<usize>, k: usize, to: &'a mut [f32]) -> &'a [f32] {
    for (i, to) in rows.zip(to.chunks_exact_mut(ROW)) {
        to[..k].copy_from_slice(a.row(i));
    }
    to
}

/// A's stored columns (A is read transposed), one chunk of k, panel after panel of the given heights.
#[inline(always)]
pub fn columns_of_a<'a, S: Simd>(s: S, a: &Mat, k: usize, heights: impl Iterator<Item = usize>, room: &'a mut Room) -> &'a [f32] {
    let packed = room.of(a.cols * k);
    let (mut to, mut first, mut heights) = (&mut *packed, 0, heights.peekable());
    while heights.peek().is_some() {
        // Row by row over some panels at a time: more of them would push each other out of the cache, fewer would use less of a row's lines.
        let mut panels: [(usize, &mut [f32]); PANELS_OF_A] = Default::default();
        let mut width = 0;
        for ((height, panel), next) in panels.iter_mut().zip(heights.by_ref()) {
            let (mine, rest) = to.split_at_mut(next * k);
            (*height, *panel, to) = (next, mine, rest);
            width += next;
        }
        for p in 0..k {
            ask_for(s, to_come(a, p, first, width));
            let mut row = &a.row(p)[first..];
            for (height, panel) in panels.iter_mut().take_while(|(height, _)| *height > 0) {
                let to = &mut panel[p * *height..];
                // A whole vector if there is one: what is too much of it is overwritten by the next step's.
                match (row.first_chunk::<LANES>(), to.first_chunk_mut::<LANES>()) {
                    (Some(row), Some(to)) => s.store(s.load(row), to),
                    _ => to[..*height].copy_from_slice(&row[..*height]),
                }
                row = &row[*height..];
            }
        }
        first += width;
    }
    packed
}

/// Asks for the cache lines of a part of a row; if it does not begin with a line it ends in one more.
#[inline(always)]
fn ask_for<S: Simd>(s: S, part: &[f32]) {
    for x in part.iter().step_by(LANES).chain(part.last()) {
        s.prefetch(std::ptr::from_ref(x));
    }
}

/// A part of the row that packing comes to after [`AHEAD`] others.
#[inline(always)]
fn to_come<'a>(from: &Mat<'a>, row: usize, first: usize, width: usize) -> &'a [f32] {
    let row = if row + AHEAD < from.rows { from.row(row + AHEAD) } else { &[] };
    &row[first.min(row.len())..row.len().min(first + width)]
}

/// Columns `first ..` of B for one chunk of k, in panels of at most `vectors` lines for each k, panel after panel; columns that B lacks are 0.
#[inline(always)]
pub fn panels_of_b<S: Simd>(s: S, b: &Mat, k: usize, first: usize, vectors: usize, to: &mut [Line]) {
    let lines = to.len() / k;
    if b.transposed {
        for (i, panel) in to.chunks_mut(k * vectors).enumerate() {
            let vectors_here = panel.len() / k;
            for v in 0..vectors_here {
                transposed(s, b, k, first + (i * vectors + v) * LANES, &mut panel[v..], vectors_here);
            }
        }
        return;
    }
    for p in 0..k {
        ask_for(s, to_come(b, p, first, lines * LANES));
        let row = &b.row(p)[first..];
        let mut values = row[..row.len().min(lines * LANES)].chunks(vectors * LANES);
        for panel in to.chunks_mut(k * vectors) {
            let vectors_here = panel.len() / k;
            let values = values.next().unwrap_or_default();
            for (v, line) in panel[p * vectors_here..(p + 1) * vectors_here].iter_mut().enumerate() {
                let values = values.get(v * LANES..).unwrap_or_default();
                match values.first_chunk::<LANES>() {
                    Some(values) => s.store(s.load(values), line),
                    None => s.store(s.load_part(values, 0.0), line),
                }
            }
        }
    }
}

/// Sixteen columns of B, which are stored as rows; their lines are `step` apart.
#[inline(always)]
fn transposed<S: Simd>(s: S, b: &Mat, k: usize, first: usize, to: &mut [Line], step: usize) {
    let whole = if first + LANES <= b.rows { k / LANES * LANES } else { 0 };
    for p in (0..whole).step_by(LANES) {
        let square = s.transpose(&b.data[first * b.stride + p..], b.stride);
        for (j, values) in square.iter().enumerate() {
            s.store(*values, &mut to[(p + j) * step]);
        }
    }
    for j in 0..LANES {
        let Some(i) = Some(first + j).filter(|i| *i < b.rows) else {
            to.iter_mut().step_by(step).for_each(|line| line[j] = 0.0);
            continue;
        };
        for (p, value) in b.row(i).iter().enumerate().skip(whole) {
            to[p * step][j] = *value;
        }
    }
}
