//! Matrix products in single precision with one defined order of summation.
//!
//! Threads, blocks and vectors divide the *result*; no sum is ever divided other than into its chunks. [`block`] is what one thread does.

mod block;
mod pack;
#[cfg(test)]
mod tests;
mod tile;

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::isa::LANES;
use pack::Buffers;

/// k is summed in chunks of this size: each an FMA chain from zero, the chunks added in order.
pub const CHUNK: usize = 256;

/// A view of a row-major matrix, perhaps read transposed. `rows` and `cols` are those of the stored matrix.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub cols: usize,
    pub stride: usize,
    pub transposed: bool,
}

impl<'a> Mat<'a> {
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Mat<'a> {
        Mat::strided(data, rows, cols, cols)
    }

    /// Rows of `cols` elements that begin `stride` apart.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Mat<'a> {
        let end = if rows == 0 || cols == 0 { 0 } else { (rows - 1) * stride + cols };
        assert!(stride >= cols && data.len() >= end, "matrix: {} elements do not hold {rows} × {cols}", data.len());
        Mat { data, rows, cols, stride, transposed: false }
    }

    /// The transpose, as a view.
    #[must_use]
    pub fn t(self) -> Mat<'a> {
        Mat { transposed: !self.transposed, ..self }
    }

    /// Rows and columns as they are read.
    pub fn shape(&self) -> (usize, usize) {
        if self.transposed { (self.cols, self.rows) } else { (self.rows, self.cols) }
    }

    /// The view of some rows and columns, as they are read.
    pub(super) fn part(&self, rows: Range<usize>, cols: Range<usize>) -> Mat<'a> {
        let (rows, cols) = if self.transposed { (cols, rows) } else { (rows, cols) };
        let data = if rows.is_empty() || cols.is_empty() { &[] } else { &self.data[rows.start * self.stride + cols.start..] };
        Mat { data, rows: rows.len(), cols: cols.len(), ..*self }
    }

    /// From the first element to the last, with what lies between the rows.
    pub(super) fn stored(&self) -> &'a [f32] {
        if self.data.is_empty() { &[] } else { &self.data[..(self.rows - 1) * self.stride + self.cols] }
    }

    /// A stored row.
    #[inline(always)]
    pub(super) fn row(&self, i: usize) -> &'a [f32] {
        &self.data[i * self.stride..][..self.cols]
    }
}

/// Whether a product replaces what is there or adds to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Set,
    Add,
}

/// Products with fewer multiplications than this stay on one thread.
const SPLIT_FROM: usize = 1 << 17;

/// `c = a·b` or `c += a·b`; `c` is m × n, dense.
pub fn matmul(a: Mat, b: Mat, c: &mut [f32], write: Write) {
    let ((m, k), (k_b, n)) = (a.shape(), b.shape());
    assert!(k == k_b && c.len() == m * n, "matmul: {m} × {k} by {k_b} × {n} into {}", c.len());
    if c.is_empty() {
        return;
    }
    let threads = if m.saturating_mul(n).saturating_mul(k) < SPLIT_FROM { 1 } else { rayon::current_num_threads() };
    let (row_blocks, col_blocks) = grid(m, n, threads);
    let (rows, cols) = (m.div_ceil(row_blocks), n.div_ceil(col_blocks).next_multiple_of(LANES));
    let run = |i: usize, j: usize, c: &mut [&mut [f32]]| {
        let (first, last) = (j * cols, n.min((j + 1) * cols));
        serial(a.part(i * rows..i * rows + c.len(), 0..k), b.part(0..k, first..last), c, write);
    };
    let mut blocks: Vec<_> = c.chunks_mut(rows * n).map(|c| columns(c, n, cols)).collect();
    if threads == 1 {
        blocks.iter_mut().flatten().for_each(|c| run(0, 0, c));
        return;
    }
    blocks.par_iter_mut().enumerate().for_each(|(i, c)| c.par_iter_mut().enumerate().for_each(|(j, c)| run(i, j, c)));
}

/// The product of one thread: `rows` are those of the result.
pub(super) fn serial(a: Mat, b: Mat, rows: &mut [&mut [f32]], write: Write) {
    if a.shape().1 == 0 && write == Write::Set {
        rows.iter_mut().for_each(|row| row.fill(0.0));
    }
    BUFFERS.with_borrow_mut(|buffers| block::product(a, b, rows, write, buffers));
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Cuts a dense matrix of `width` columns into blocks of `cols` columns: for each block its rows.
pub(super) fn columns(data: &mut [f32], width: usize, cols: usize) -> Vec<Vec<&mut [f32]>> {
    let mut blocks: Vec<Vec<&mut [f32]>> = (0..width.div_ceil(cols)).map(|_| Vec::with_capacity(data.len() / width)).collect();
    for row in data.chunks_mut(width) {
        for (block, part) in blocks.iter_mut().zip(row.chunks_mut(cols)) {
            block.push(part);
        }
    }
    blocks
}

/// How many blocks of rows and of columns keep all threads busy with the least packing. The bits do not depend on it.
fn grid(m: usize, n: usize, threads: usize) -> (usize, usize) {
    // Per step of k a block costs its area, and, much less, its rows of A and its columns of B to pack.
    let cost = |rows: usize, cols: usize| {
        let (rows, cols) = (m.div_ceil(rows), n.div_ceil(cols));
        rows.saturating_mul(cols).saturating_add(4 * rows + 10 * cols)
    };
    (1..=threads)
        .map(|rows| (rows.min(m), threads.div_ceil(rows).min(n.div_ceil(LANES))))
        .min_by_key(|(rows, cols)| (cost(*rows, *cols), *rows))
        .unwrap_or((1, 1))
}
