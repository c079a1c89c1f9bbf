//! The product with quantized weights: outputs are shared out among threads in stripes, sums never.

use std::cell::RefCell;
use std::ops::Range;

use super::activations::Left;
use super::formats::Kind;
use super::panel::{self, DEPTH, Panel, STRIPE};
use super::tile::{self, Work};
use super::{Packed, share};
use crate::gemm::Write;
use crate::isa::Isa;

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
pub fn product(isa: Isa, kind: Kind, x: &[f32], w: Packed, y: &mut [f32], write: Write) {
    // Taken rather than borrowed: while this thread waits for others it may begin another product.
    let mut left = LEFT.take();
    left.fill(isa, x, w.cols, kind);
    let bounds = |parts: usize| (0..=parts).map(|i| left.first_row(i * left.tiles() / parts)).collect();
    share(y, x.len() / w.cols, w, left.tiles(), bounds, |part, w, rows| stripes(isa, kind, &left, part, w, rows, write));
    LEFT.set(left);
}

/// What one thread does: some outputs for some rows of x, which are whole tiles.
fn stripes(isa: Isa, kind: Kind, left: &Left, part: Range<usize>, w: Packed, rows: &mut [&mut [f32]], write: Write) {
    let tiles = left.tiles_of(part);
    BUFFERS.with_borrow_mut(|buffers| {
        let Buffers { panel, rows: padded } = buffers;
        panel.reserve();
        let (stride, values) = (w.row_bytes(), w.ty.block_values());
        for column in (0..w.rows).step_by(STRIPE) {
            let bytes = w.stripe(column, STRIPE, padded);
            for first in (0..w.cols).step_by(DEPTH) {
                let depth = DEPTH.min(w.cols - first);
                panel::fill(isa, w.ty, bytes, stride, first / values, depth / values, panel);
                let write = if first == 0 { write } else { Write::Add };
                tile::multiply(isa, kind, &mut Work { panel, first, depth, left, tiles: tiles.clone(), rows, column, write });
            }
        }
    });
}
