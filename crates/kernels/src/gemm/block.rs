//! What one thread does of a product: chunks of k, groups of columns whose panels fit the second-level cache, tiles of rows that fit the first.

use std::ops::Range;

use super::pack::{Buffers, ROW, columns_of_a, copy_rows_of_a, panels_of_b};
use super::tile::{self, Coming, Left, Panel};
use super::{CHUNK, Mat, Write};
use crate::isa::{LANES, Simd, clones};

/// Panels of B that are packed at a time: 256 KiB, whole lines of a few rows' width. A tile's rows of A stay in the first-level cache while they go by.
const PANELS_OF_B: usize = 8;

/// Rows of A that are packed at a time: some MiB, so that B is packed once for most products.
const BLOCK_ROWS: usize = 4096;

/// The same if B is packed whole and stays: about 600 KiB, which are still in the second-level cache when they are read.
const NEAR_ROWS: usize = 560;

/// Rows that begin a multiple of this many bytes apart share few sets of the first-level cache and push each other out: they are copied.
const COLLISION: usize = 2048;

/// The heights of the tiles that cover `rows`, as equal as can be.
#[inline(always)]
fn heights(rows: usize, most: usize) -> impl Iterator<Item = usize> {
    let tiles = rows.div_ceil(most).max(1);
    (0..tiles).map(move |i| rows / tiles + usize::from(i < rows % tiles))
}

/// A thread whose chunk's rows lie on more pages than this waits for their addresses: the values are copied in the order of their use.
const PAGES: usize = 64;
const PAGE: usize = 4096;

clones! {
    /// `rows = a·b` or `rows += a·b`, each chunk of k an FMA chain from zero that is then added. Without a k nothing is written.
    pub fn product<S>(s, a: Mat<'_>, b: Mat<'_>, rows: &mut [&mut [f32]], write: Write, buffers: &mut Buffers) {
        let ((m, k), (_, n)) = (a.shape(), b.shape());
        let all_panels = n <= PANELS_OF_B * S::TILE_VECTORS * LANES;
        let blocks = m.div_ceil(if all_panels { NEAR_ROWS } else { BLOCK_ROWS }).max(1);
        let block_rows = m.div_ceil(blocks).max(1);
        for chunk in (0..k).step_by(CHUNK) {
            let end = k.min(chunk + CHUNK);
            for (i, rows) in rows.chunks_mut(block_rows).enumerate() {
                let mine = i * block_rows..i * block_rows + rows.len();
                let parts = |ks: Range<usize>| (a.part(mine.clone(), ks.clone()), b.part(ks, 0..n));
                let (a, b) = parts(chunk..end);
                let (a_next, b_next) = parts(end..k.min(end + CHUNK));
                // What is read along k lies far away. Without that, A's rows are asked for by the tiles, and B has been read before.
                let coming = if a.transposed && blocks == 1 { Coming([a_next.stored(), b_next.stored()]) } else { Coming::default() };
                let write = if chunk == 0 { write } else { Write::Add };
                one_chunk(s, &a, &b, rows, write, buffers, coming, all_panels && i > 0);
            }
        }
    }
}

/// `packed` says that B's panels lie there already.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a product, and what it finds and leaves behind")]
fn one_chunk<S: Simd>(
    s: S,
    a: &Mat,
    b: &Mat,
    rows: &mut [&mut [f32]],
    write: Write,
    buffers: &mut Buffers,
    mut coming: Coming,
    packed: bool,
) {
    let (k, n) = b.shape();
    let Buffers { a: a_packed, tile: a_tile, panels } = buffers;
    let distance = a.stride * size_of::<f32>();
    let in_place = !distance.is_multiple_of(COLLISION) && (!a.transposed || k * distance <= PAGES * PAGE);
    let (vectors, width) = (S::TILE_VECTORS, S::TILE_VECTORS * LANES);
    // Copied once, if more than one group of panels goes by.
    let copied = !in_place && (a.transposed || n > PANELS_OF_B * width);
    let (a_data, stride) = match copied {
        true if a.transposed => (columns_of_a(s, a, k, heights(rows.len(), S::TILE_ROWS), a_packed), 0),
        true => (copy_rows_of_a(a, 0..rows.len(), k, a_packed.of(rows.len() * ROW)), ROW),
        false => (a.data, a.stride),
    };
    for first in (0..n).step_by(PANELS_OF_B * width) {
        let lines = (n - first).div_ceil(LANES).min(PANELS_OF_B * vectors);
        let (lines, _) = panels.of(k * lines * LANES).as_chunks_mut::<LANES>();
        if !packed {
            panels_of_b(s, b, k, first, vectors, lines);
        }
        let mut top = 0;
        for height in heights(rows.len(), S::TILE_ROWS) {
            let end = top + height;
            let last = lines.len().div_ceil(k * vectors) - 1;
            let next = if a.transposed { Default::default() } else { (&a_data[end % rows.len() * stride..], stride) };
            let here = match in_place || copied {
                _ if a.transposed => Default::default(),
                true => (&a_data[top * stride..], stride),
                false => (copy_rows_of_a(a, top..end, k, a_tile.of(height * ROW)), ROW),
            };
            for (i, lines) in lines.chunks(k * vectors).enumerate() {
                let panel = Panel { lines, vectors: lines.len() / k };
                let left = match (a.transposed, in_place) {
                    (false, _) => Left::Rows(here.0, here.1, if i == last { next } else { here }),
                    (true, true) => Left::Columns(&a_data[top..], stride),
                    (true, false) => Left::Columns(&a_data[top * k..end * k], height),
                };
                tile::write(s, left, panel, &mut rows[top..end], first + i * width, write, &mut coming);
            }
            top = end;
        }
    }
}
