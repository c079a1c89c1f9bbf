//! Products with weights as a file stores them: plain floats of any width, or the blocks of GGUF. The bytes are borrowed (mapped, say) and never unpacked as a
//! whole.
//!
//! Weights in plain floats give the bits of [`super::matmul`] on the widened weights. With quantized weights the rows of x are quantized too (blocks of 32,
//! eight bits), so that the sums within a block are exact integers; `docs/numerics.md` has the definition. A row of the result depends on no other row.

mod activations;
mod block_type;
mod dot;
mod formats;
mod panel;
#[cfg(test)]
mod plain;
mod quantized;
#[cfg(test)]
pub(super) mod tests;
mod tile;
pub mod values;
mod words;

use super::gemm::{Mat, Write, matmul};
pub use block_type::{BlockType, SUPER_BLOCK};
use formats::Kind;

/// A matrix of packed rows, one after the other: `rows` outputs of `cols` values each. Its bytes may begin at any address.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    pub ty: BlockType,
    pub rows: usize,
    pub cols: usize,
    pub bytes: &'a [u8],
}

impl<'a> Packed<'a> {
    pub fn new(ty: BlockType, rows: usize, cols: usize, bytes: &'a [u8]) -> Packed<'a> {
        let size = ty.bytes_for(cols).and_then(|row| row.checked_mul(rows));
        assert!(size == Some(bytes.len()), "packed matrix: {} bytes are not {rows} × {cols} {ty}", bytes.len());
        Packed { ty, rows, cols, bytes }
    }

    /// The bytes of some rows.
    pub fn part(&self, rows: std::ops::Range<usize>) -> Packed<'a> {
        let size = self.row_bytes();
        Packed { rows: rows.len(), bytes: &self.bytes[rows.start * size..rows.end * size], ..*self }
    }

    /// The values of one row.
    pub fn row_into(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols, "row {row} of {} × {} into {}", self.rows, self.cols, out.len());
        values::unpack(self.ty, self.part(row..row + 1).bytes, out);
    }

    fn row_bytes(&self) -> usize {
        self.cols / self.ty.block_values() * self.ty.block_bytes()
    }
}

/// `y = x·wᵀ` or `y += x·wᵀ`; x is m × `w.cols`, y m × `w.rows`, both dense.
pub fn matmul_packed(x: &[f32], w: Packed, y: &mut [f32], write: Write) {
    let m = if w.cols == 0 { y.len() / w.rows.max(1) } else { x.len() / w.cols };
    assert!(x.len() == m * w.cols && y.len() == m * w.rows, "matmul_packed: {} by {} × {} into {}", x.len(), w.rows, w.cols, y.len());
    if y.is_empty() {
        return;
    }
    match Kind::of(w.ty) {
        Some(kind) if w.cols > 0 => quantized::product(kind, x, w, y, write),
        _ => floats(x, m, w, y, write),
    }
}

fn floats(x: &[f32], m: usize, w: Packed, y: &mut [f32], write: Write) {
    let mut wide = vec![0.0; w.rows * w.cols];
    values::unpack(w.ty, w.bytes, &mut wide);
    matmul(Mat::new(x, m, w.cols), Mat::new(&wide, w.rows, w.cols).t(), y, write);
}
