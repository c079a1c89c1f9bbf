//! The product with quantized weights: outputs are shared out among threads in stripes, sums never.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::Packed;
use super::activations::Left;
use super::formats::Kind;
use super::panel::{self, DEPTH, Panel, STRIPE};
use super::tile::{self, Work};
use crate::kernels::gemm::{Write, columns};

/// Products with fewer multiplications than this stay on one thread.
const SPLIT_FROM: usize = 1 << 20;

/// What one thread unpacks into; kept between products.
#[derive(Debug, Default)]
struct Buffers {
    panel: Panel,
    /// The last rows, made up to a whole stripe.
    rows: Vec<u8>,
}

thread_local! {
    static LEFT: RefCell<Left> = RefCell::default();
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// As [`super::matmul_packed`], for shapes that are known to fit and are not empty.
pub fn product(kind: Kind, x: &[f32], w: Packed, y: &mut [f32], write: Write) {
    // Taken rather than borrowed: while this thread waits for others it may begin another product.
    let mut left = LEFT.take();
    left.fill(x, w.cols, kind);
    let threads = if x.len().saturating_mul(w.rows) < SPLIT_FROM { 1 } else { rayon::current_num_threads() };
    if threads == 1 {
        let mut rows: Vec<&mut [f32]> = y.chunks_mut(w.rows).collect();
        stripes(kind, &left, 0..left.tiles(), w, &mut rows, write);
    } else {
        split(kind, &left, w, y, write, threads);
    }
    LEFT.set(left);
}

fn split(kind: Kind, left: &Left, w: Packed, y: &mut [f32], write: Write, threads: usize) {
    let stripes_each = w.rows.div_ceil(STRIPE).div_ceil(threads);
    let cols = stripes_each * STRIPE;
    // Too few outputs for all threads: the tiles of x are shared out as well.
    let parts = (threads / w.rows.div_ceil(cols)).clamp(1, left.tiles());
    let bounds: Vec<usize> = (0..=parts).map(|i| i * left.tiles() / parts).collect();
    let mut blocks = Vec::with_capacity(parts);
    let mut rest = y;
    for tiles in bounds.windows(2).map(|b| b[0]..b[1]) {
        let rows = left.first_row(tiles.end) - left.first_row(tiles.start);
        let part = rest.split_off_mut(..rows * w.rows).unwrap_or_default();
        blocks.extend(columns(part, w.rows, cols).into_iter().enumerate().map(|(j, block)| (tiles.clone(), j * cols, block)));
    }
    blocks.par_iter_mut().for_each(|(tiles, first, rows)| {
        let part = w.part(*first..w.rows.min(*first + cols));
        stripes(kind, left, tiles.clone(), part, rows, write);
    });
}

/// What one thread does: some outputs for some tiles of x.
fn stripes(kind: Kind, left: &Left, tiles: Range<usize>, w: Packed, rows: &mut [&mut [f32]], write: Write) {
    BUFFERS.with_borrow_mut(|buffers| {
        let Buffers { panel, rows: padded } = buffers;
        panel.reserve();
        let stride = w.row_bytes();
        for column in (0..w.rows).step_by(STRIPE) {
            let mut bytes = &w.bytes[column * stride..];
            if bytes.len() < STRIPE * stride {
                padded.clear();
                padded.extend_from_slice(bytes);
                padded.resize(STRIPE * stride, 0);
                bytes = padded;
            }
            for first in (0..w.cols).step_by(DEPTH) {
                let depth = DEPTH.min(w.cols - first);
                let values = w.ty.block_values();
                panel::fill(w.ty, &bytes[..STRIPE * stride], stride, first / values, depth / values, panel);
                let write = if first == 0 { write } else { Write::Add };
                tile::multiply(kind, &mut Work { panel, first, depth, left, tiles: tiles.clone(), rows, column, write });
            }
        }
    });
}
