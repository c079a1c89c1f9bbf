//! Products with weights as a file stores them, row by row unpacked to f32.

use std::cell::RefCell;

use rayon::prelude::*;

use super::quant::{BlockType, dequantize};
use crate::kernels::gemm::{Mat, Write, matmul};

#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    pub ty: BlockType,
    pub rows: usize,
    pub cols: usize,
    pub bytes: &'a [u8],
}

impl<'a> Packed<'a> {
    pub fn new(ty: BlockType, rows: usize, cols: usize, bytes: &'a [u8]) -> Packed<'a> {
        assert_eq!(ty.bytes_for(rows * cols), Some(bytes.len()), "packed: {rows} × {cols} of {ty}");
        Packed { ty, rows, cols, bytes }
    }

    pub fn row_into(&self, row: usize, out: &mut [f32]) {
        let size = self.bytes.len() / self.rows;
        dequantize(self.ty, &self.bytes[row * size..(row + 1) * size], out).expect("a whole row");
    }
}

pub fn matmul_packed(x: &[f32], w: Packed, y: &mut [f32], write: Write) {
    thread_local! {
        static WIDE: RefCell<Vec<f32>> = RefCell::default();
    }
    let m = x.len() / w.cols;
    WIDE.with_borrow_mut(|wide| {
        wide.resize(w.rows * w.cols, 0.0);
        wide.par_chunks_exact_mut(w.cols).enumerate().for_each(|(row, out)| w.row_into(row, out));
        matmul(Mat::new(x, m, w.cols), Mat::new(wide, w.rows, w.cols).t(), y, write);
    });
}
