//! Matrix products in single precision with one defined order of summation.

use rayon::prelude::*;

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

    fn at(&self, row: usize, col: usize) -> f32 {
        if self.transposed { self.data[col * self.stride + row] } else { self.data[row * self.stride + col] }
    }
}

/// Whether a product replaces what is there or adds to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Set,
    Add,
}

/// `c = a·b` or `c += a·b`; `c` is m × n, dense.
pub fn matmul(a: Mat, b: Mat, c: &mut [f32], write: Write) {
    let ((m, k), (k_b, n)) = (a.shape(), b.shape());
    assert!(k == k_b && c.len() == m * n, "matmul: {m} × {k} by {k_b} × {n} into {}", c.len());
    if c.is_empty() {
        return;
    }
    if write == Write::Set {
        c.fill(0.0);
    }
    c.par_chunks_mut(n).enumerate().for_each(|(i, c)| {
        for (j, c) in c.iter_mut().enumerate() {
            for first in (0..k).step_by(CHUNK) {
                *c += (first..k.min(first + CHUNK)).fold(0.0, |sum: f32, p| a.at(i, p).mul_add(b.at(p, j), sum));
            }
        }
    });
}
