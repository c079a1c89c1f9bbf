//! Copies of matrix blocks in the order in which tiles read them.

use super::{CHUNK, Mat};
use crate::kernels::isa::{LANES, Simd};

/// Sixteen values of one cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Line(pub [f32; LANES]);

/// One chunk of a row of A. The spare line spreads the rows over the sets of the cache.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Row(pub [f32; CHUNK + LANES]);

/// What one thread packs into; kept between products.
#[derive(Debug, Default)]
pub struct Buffers {
    /// A, if its rows are stored: a chunk of each.
    pub rows: Vec<Row>,
    /// A, if its columns are stored: for each panel and k, the panel's values.
    pub columns: Vec<f32>,
    /// One panel of B: for each k, one or two lines.
    pub panel: Vec<Line>,
}

/// A's stored rows, one chunk of k.
#[inline(always)]
pub fn rows_of_a(a: &Mat, k: usize, to: &mut Vec<Row>) {
    to.resize(a.rows.max(to.len()), Row([0.0; CHUNK + LANES]));
    for (i, to) in to.iter_mut().take(a.rows).enumerate() {
        to.0[..k].copy_from_slice(a.row(i));
    }
}

/// A's stored columns (A is read transposed), one chunk of k, panel after panel of the given heights.
#[inline(always)]
pub fn columns_of_a(a: &Mat, k: usize, heights: impl Iterator<Item = usize>, to: &mut Vec<f32>) {
    to.resize((a.cols * k).max(to.len()), 0.0);
    let mut first = 0;
    for height in heights {
        let panel = &mut to[first * k..(first + height) * k];
        for (p, to) in panel.chunks_exact_mut(height).enumerate() {
            to.copy_from_slice(&a.row(p)[first..first + height]);
        }
        first += height;
    }
}

/// Columns `first ..` of B for one chunk of k, `vectors` lines for each k; columns that B lacks are 0.
#[inline(always)]
pub fn panel_of_b<S: Simd>(s: S, b: &Mat, k: usize, first: usize, vectors: usize, to: &mut Vec<Line>) {
    to.resize((k * vectors).max(to.len()), Line::default());
    let to = &mut to[..k * vectors];
    if b.transposed {
        for v in 0..vectors {
            transposed(s, b, k, first + v * LANES, &mut to[v..], vectors);
        }
        return;
    }
    for (p, to) in to.chunks_exact_mut(vectors).enumerate() {
        let row = &b.row(p)[first..];
        for (v, line) in to.iter_mut().enumerate() {
            let values = row.get(v * LANES..).unwrap_or_default();
            match values.first_chunk::<LANES>() {
                Some(values) => s.store(s.load(values), &mut line.0),
                None => s.store(s.load_part(values, 0.0), &mut line.0),
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
            s.store(*values, &mut to[(p + j) * step].0);
        }
    }
    for j in 0..LANES {
        let Some(i) = Some(first + j).filter(|i| *i < b.rows) else {
            to.iter_mut().step_by(step).for_each(|line| line.0[j] = 0.0);
            continue;
        };
        for (p, value) in b.row(i).iter().enumerate().skip(whole) {
            to[p * step].0[j] = *value;
        }
    }
}
