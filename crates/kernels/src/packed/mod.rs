//! Products with weights as a file stores them: plain floats of any width, or the blocks of GGUF. The bytes are borrowed (mapped, say) and never unpacked as a
//! whole.
//!
//! Weights in plain floats give the bits of [`super::matmul`] on the widened weights. With quantized weights the rows of x are quantized too (blocks of 32,
//! eight bits), so that the sums within a block are exact integers; `docs/numerics.md` has the definition. A row of the result depends on no other row.

mod activations;
mod block_type;
mod dot;
mod floats;
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

use std::ops::Range;

use rayon::prelude::*;

use super::gemm::{Write, columns};
use super::isa;
pub use block_type::{BlockType, SUPER_BLOCK, UnknownType};
use formats::Kind;
use panel::STRIPE;

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
    pub fn part(&self, rows: Range<usize>) -> Packed<'a> {
        let size = self.row_bytes();
        Packed { rows: rows.len(), bytes: &self.bytes[rows.start * size..rows.end * size], ..*self }
    }

    /// The values of one row.
    pub fn row_into(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols, "row {row} of {} × {} into {}", self.rows, self.cols, out.len());
        values::unpack(self.ty, self.part(row..row + 1).bytes, out);
    }

    /// The bytes of so many rows from `first` on, made up with zeros in `padded` if there are fewer.
    fn stripe<'b>(&self, first: usize, rows: usize, padded: &'b mut Vec<u8>) -> &'b [u8]
    where
        'a: 'b,
    {
        let stride = self.row_bytes();
        let bytes = &self.bytes[first * stride..];
        if let Some(bytes) = bytes.get(..rows * stride) {
            return bytes;
        }
        padded.clear();
        padded.extend_from_slice(bytes);
        padded.resize(rows * stride, 0);
        padded
    }

    fn row_bytes(&self) -> usize {
        self.cols / self.ty.block_values() * self.ty.block_bytes()
    }
}

/// `y = x·wᵀ` or `y += x·wᵀ`; x is m × `w.cols`, y m × `w.rows`, both dense.
pub fn matmul_packed(x: &[f32], w: Packed, y: &mut [f32], write: Write) {
    let m = x.len().checked_div(w.cols).unwrap_or(y.len() / w.rows.max(1));
    assert!(x.len() == m * w.cols && y.len() == m * w.rows, "matmul_packed: {} by {} × {} into {}", x.len(), w.rows, w.cols, y.len());
    if y.is_empty() {
        return;
    }
    if w.cols == 0 {
        if write == Write::Set {
            y.fill(0.0);
        }
        return;
    }
    let isa = isa::current();
    match Kind::of(w.ty) {
        Some(kind) => quantized::product(isa, kind, x, w, y, write),
        None => floats::product(isa, x, m, w, y, write),
    }
}

/// Products with fewer multiplications than this stay on one thread.
const SPLIT_FROM: usize = 1 << 20;

/// Shares y (m × `w.rows`) out among threads: stripes of outputs, and if those are too few also the rows, in `units` that are not divided. `bounds` cuts them into so many
/// parts: the first row of each and the number of rows. `run` gets a part of the rows, its weights and its place in y.
fn share<B, F>(y: &mut [f32], m: usize, w: Packed, units: usize, bounds: B, run: F)
where
    B: FnOnce(usize) -> Vec<usize>,
    F: Fn(Range<usize>, Packed, &mut [&mut [f32]]) + Sync,
{
    let work = m.saturating_mul(w.rows).saturating_mul(w.cols);
    let threads = if work < SPLIT_FROM { 1 } else { rayon::current_num_threads() };
    let cols = w.rows.div_ceil(STRIPE).div_ceil(threads) * STRIPE;
    let parts = (threads / w.rows.div_ceil(cols)).clamp(1, units.max(1));
    let mut blocks = Vec::with_capacity(threads);
    let mut rest = y;
    for rows in bounds(parts).windows(2).map(|b| b[0]..b[1]) {
        let part = rest.split_off_mut(..rows.len() * w.rows).unwrap_or_default();
        blocks.extend(columns(part, w.rows, cols).into_iter().enumerate().map(|(j, block)| (rows.clone(), j * cols, block)));
    }
    let each = |(rows, first, block): &mut (Range<usize>, usize, Vec<&mut [f32]>)| {
        run(rows.clone(), w.part(*first..w.rows.min(*first + cols)), block);
    };
    if threads == 1 { blocks.iter_mut().for_each(each) } else { blocks.par_iter_mut().for_each(each) }
}
