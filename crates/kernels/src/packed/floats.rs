//! The product with weights in plain floats of any width: the bits of the product with the widened weights.
//!
//! For many rows of x some outputs at a time are widened and multiplied by [`gemm`](crate::gemm). For a few rows, where reading the weights is all the work, they
//! go through registers only.

use std::cell::RefCell;

use super::dot::{Dot, clones};
use super::panel::STRIPE;
use super::words::Words;
use super::{BlockType, Packed, share};
use crate::gemm::{CHUNK, Mat, Write, serial};
use crate::isa::{Isa, LANES, Simd};

/// As many rows of x at most go through registers.
const FEW: usize = 8;

/// Floats that are widened at a time, at most (but a stripe at least): half a second-level cache of one MiB.
const WIDENED: usize = 1 << 18;

/// Values of k that are taken from the rows of weights at a time.
const STEP: usize = 2 * LANES;

/// Vectors of outputs whose sums grow side by side.
const VECTORS: usize = STRIPE / LANES;

#[derive(Debug, Default)]
struct Buffers {
    wide: Vec<f32>,
    /// The last rows, made up to a whole stripe.
    rows: Vec<u8>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// As [`super::matmul_packed`], for m rows that are not empty.
pub fn product(isa: Isa, x: &[f32], m: usize, w: Packed, y: &mut [f32], write: Write) {
    let bounds = |parts: usize| (0..=parts).map(|i| i * m / parts).collect();
    share(y, m, w, m, bounds, |part, w, rows| {
        let x = &x[part.start * w.cols..part.end * w.cols];
        if m <= FEW { few(isa, x, w, rows, write) } else { many(isa, x, w, rows, write) }
    });
}

fn many(isa: Isa, x: &[f32], w: Packed, rows: &mut [&mut [f32]], write: Write) {
    let x = Mat::new(x, rows.len(), w.cols);
    let outputs = (WIDENED / w.cols.max(1) / STRIPE * STRIPE).max(STRIPE);
    // Taken, not borrowed: the product below has its own buffers, but it is none of this file's business how it works.
    let mut buffers = BUFFERS.take();
    for first in (0..w.rows).step_by(outputs) {
        let part = w.part(first..w.rows.min(first + outputs));
        let size = part.rows * part.cols;
        buffers.wide.resize(buffers.wide.len().max(size), 0.0);
        let wide = &mut buffers.wide[..size];
        widen(isa, part, wide);
        let mut to: Vec<&mut [f32]> = rows.iter_mut().map(|row| &mut row[first..first + part.rows]).collect();
        serial(x, Mat::new(wide, part.rows, part.cols).t(), &mut to, write);
    }
    BUFFERS.set(buffers);
}

fn few(isa: Isa, x: &[f32], w: Packed, rows: &mut [&mut [f32]], write: Write) {
    BUFFERS.with_borrow_mut(|buffers| {
        let stride = w.row_bytes();
        for first in (0..w.rows).step_by(STRIPE) {
            let bytes = w.stripe(first, STRIPE, &mut buffers.rows);
            let mut stripe = Stripe { ty: w.ty, bytes, stride, x, cols: w.cols, rows, first, write };
            few_rows(isa, &mut stripe);
        }
    });
}

/// [`STRIPE`] outputs for a few rows of x.
struct Stripe<'a, 'b> {
    ty: BlockType,
    bytes: &'a [u8],
    stride: usize,
    x: &'a [f32],
    cols: usize,
    rows: &'a mut [&'b mut [f32]],
    /// The first output's column in the rows of the result.
    first: usize,
    write: Write,
}

clones! {
    fn widen<D>(d, w: Packed<'_>, to: &mut [f32]) {
        match w.ty {
            BlockType::F16 => widen_all::<D, F16>(d, w.bytes, to),
            BlockType::Bf16 => widen_all::<D, Bf16>(d, w.bytes, to),
            _ => widen_all::<D, F32>(d, w.bytes, to),
        }
    }

    fn few_rows<D>(d, stripe: &mut Stripe<'_, '_>) {
        match stripe.ty {
            BlockType::F16 => by_rows::<D, F16>(d, stripe),
            BlockType::Bf16 => by_rows::<D, Bf16>(d, stripe),
            _ => by_rows::<D, F32>(d, stripe),
        }
    }
}

/// How sixteen weights are read.
trait Float {
    const BYTES: usize;
    /// From the first `BYTES · LANES` bytes.
    fn load<S: Words>(s: S, bytes: &[u8]) -> S::V;
}

struct F32;
struct F16;
struct Bf16;

impl Float for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    fn load<S: Words>(s: S, bytes: &[u8]) -> S::V {
        let (words, _) = bytes.as_chunks::<4>();
        let mut lanes = [0.0; LANES];
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = f32::from_le_bytes(*word);
        }
        s.load(&lanes)
    }
}

impl Float for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    fn load<S: Words>(s: S, bytes: &[u8]) -> S::V {
        s.half(s.load(&pairs(bytes)))
    }
}

impl Float for Bf16 {
    const BYTES: usize = 2;
    #[inline(always)]
    fn load<S: Words>(s: S, bytes: &[u8]) -> S::V {
        s.shift_left(s.load(&pairs(bytes)), 16)
    }
}

/// Sixteen bits in each lane.
#[inline(always)]
fn pairs(bytes: &[u8]) -> [f32; LANES] {
    let (pairs, _) = bytes.as_chunks::<2>();
    let mut lanes = [0.0; LANES];
    for (lane, pair) in lanes.iter_mut().zip(pairs) {
        *lane = f32::from_bits(u32::from(u16::from_le_bytes(*pair)));
    }
    lanes
}

#[inline(always)]
fn widen_all<D: Dot, F: Float>(d: D, bytes: &[u8], to: &mut [f32]) {
    let s = d.simd();
    let (whole, rest) = to.as_chunks_mut::<LANES>();
    let mut bytes = bytes.chunks_exact(F::BYTES * LANES);
    for (to, bytes) in whole.iter_mut().zip(&mut bytes) {
        s.store(F::load(s, bytes), to);
    }
    s.store_part(load_part::<D, F>(d, bytes.remainder()), rest);
}

/// Fewer than sixteen weights, then zeros.
#[inline(always)]
fn load_part<D: Dot, F: Float>(d: D, bytes: &[u8]) -> <D::S as Simd>::V {
    let mut padded = [0; 4 * LANES];
    padded[..bytes.len()].copy_from_slice(bytes);
    F::load(d.simd(), &padded[..F::BYTES * LANES])
}

#[inline(always)]
fn by_rows<D: Dot, F: Float>(d: D, stripe: &mut Stripe) {
    match stripe.rows.len() {
        1 => outputs::<D, F, 1>(d, stripe),
        2 => outputs::<D, F, 2>(d, stripe),
        3 => outputs::<D, F, 3>(d, stripe),
        4 => outputs::<D, F, 4>(d, stripe),
        5 => outputs::<D, F, 5>(d, stripe),
        6 => outputs::<D, F, 6>(d, stripe),
        7 => outputs::<D, F, 7>(d, stripe),
        8 => outputs::<D, F, 8>(d, stripe),
        _ => {}
    }
}

#[inline(always)]
fn outputs<D: Dot, F: Float, const ROWS: usize>(d: D, stripe: &mut Stripe) {
    let s = d.simd();
    let cols = stripe.cols;
    let mut square = Square([0.0; LANES * STEP]);
    let mut x = [[0.0; STEP]; ROWS];
    for chunk in (0..cols).step_by(CHUNK) {
        let end = cols.min(chunk + CHUNK);
        let mut sums = [[s.splat(0.0); VECTORS]; ROWS];
        for k in (chunk..end).step_by(STEP) {
            let steps = STEP.min(end - k);
            for (r, x) in x.iter_mut().enumerate() {
                x[..steps].copy_from_slice(&stripe.x[r * cols + k..][..steps]);
            }
            for v in 0..VECTORS {
                let weights = &stripe.bytes[v * LANES * stripe.stride + k * F::BYTES..];
                if steps == STEP {
                    fill::<D, F>(d, weights, stripe.stride, &mut square);
                    for half in 0..2 {
                        ahead::<D, F>(d, stripe, k, v, half);
                        step(s, &square, &x, half, &mut sums, v);
                    }
                } else {
                    fill_part::<D, F>(d, weights, stripe.stride, steps, &mut square);
                    step_part(s, &square, &x, steps, &mut sums, v);
                }
            }
        }
        let write = if chunk == 0 { stripe.write } else { Write::Add };
        for (row, sums) in stripe.rows.iter_mut().zip(&sums) {
            super::tile::add(s, &mut row[stripe.first..], sums, write);
        }
    }
}

/// [`STEP`] weights of each of sixteen rows.
#[repr(C, align(64))]
struct Square([f32; LANES * STEP]);

#[inline(always)]
fn fill<D: Dot, F: Float>(d: D, bytes: &[u8], stride: usize, to: &mut Square) {
    let s = d.simd();
    let (lines, _) = to.0.as_chunks_mut::<LANES>();
    let size = LANES * F::BYTES;
    assert!(bytes.len() >= (LANES - 1) * stride + 2 * size);
    for i in 0..LANES {
        let row = &bytes[i * stride..][..2 * size];
        s.store(F::load(s, &row[..size]), &mut lines[2 * i]);
        s.store(F::load(s, &row[size..]), &mut lines[2 * i + 1]);
    }
}

/// Fewer than [`STEP`] weights of each row, then zeros.
#[inline(always)]
fn fill_part<D: Dot, F: Float>(d: D, bytes: &[u8], stride: usize, steps: usize, to: &mut Square) {
    let s = d.simd();
    let (lines, _) = to.0.as_chunks_mut::<LANES>();
    for i in 0..LANES {
        let row = &bytes[i * stride..][..steps * F::BYTES];
        let (first, last) = row.split_at(row.len().min(LANES * F::BYTES));
        s.store(load_part::<D, F>(d, first), &mut lines[2 * i]);
        s.store(load_part::<D, F>(d, last), &mut lines[2 * i + 1]);
    }
}

/// The products of half of the values of k.
#[inline(always)]
fn step<S: Simd, const ROWS: usize>(
    s: S,
    square: &Square,
    x: &[[f32; STEP]; ROWS],
    half: usize,
    sums: &mut [[S::V; VECTORS]; ROWS],
    v: usize,
) {
    let columns = s.transpose(&square.0[half * LANES..], STEP);
    for (j, column) in columns.iter().enumerate() {
        for (sums, x) in sums.iter_mut().zip(x) {
            sums[v] = s.fma(s.splat(x[half * LANES + j]), *column, sums[v]);
        }
    }
}

/// The products of fewer values of k.
#[inline(always)]
fn step_part<S: Simd, const ROWS: usize>(
    s: S,
    square: &Square,
    x: &[[f32; STEP]; ROWS],
    steps: usize,
    sums: &mut [[S::V; VECTORS]; ROWS],
    v: usize,
) {
    for k in 0..steps {
        let mut column = [0.0; LANES];
        for (lane, row) in column.iter_mut().zip(square.0.chunks_exact(STEP)) {
            *lane = row[k];
        }
        let column = s.load(&column);
        for (sums, x) in sums.iter_mut().zip(x) {
            sums[v] = s.fma(s.splat(x[k]), column, sums[v]);
        }
    }
}

/// Asks for what the next stripe will read in this place of its order.
#[inline(always)]
fn ahead<D: Dot, F: Float>(d: D, stripe: &Stripe, k: usize, v: usize, half: usize) {
    let size = LANES * LANES * F::BYTES;
    let done = ((k / STEP * VECTORS + v) * 2 + half) * size;
    let next = stripe.bytes.as_ptr().wrapping_add(STRIPE * stripe.stride + done);
    for line in (0..size).step_by(64) {
        d.simd().prefetch_bytes(next.wrapping_add(line));
    }
}
