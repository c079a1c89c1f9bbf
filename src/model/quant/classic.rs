//! The 32-value blocks with one f16 scale (and, for `_1` types, one f16 minimum), sixteen blocks at a time. Without knowledge of what errors cost, the order
//! of operations in each block is that of ggml's reference, so that the bytes are too; with it, scale and minimum are searched for.

use half::f16;

use super::lanes::{Cost, Set, bytes, columns, halves, inverse, magnitude, nearest};
use super::search::{Affine, Minimum, Steps, affine, affine_level, symmetric, symmetric_level};
use crate::kernels::isa::{LANES, Simd, clones};
use crate::kernels::packed::BlockType;

/// Values of one block.
const BLOCK: usize = 32;

/// Values that are packed together.
pub const SET_VALUES: usize = LANES * BLOCK;

const FOUR: Steps = Steps { width: 0.1, below: 15, above: 10 };
const FIVE: Steps = Steps { width: 0.1, below: 12, above: 10 };

/// Sixteen blocks: scales, minima and the bytes of their levels.
struct Blocks {
    d: [f32; LANES],
    m: [f32; LANES],
    /// Of each block: 16 bytes of two 4-bit halves, or 32 signed bytes.
    levels: [u8; SET_VALUES],
    /// Fifth bits.
    fifth: [u32; LANES],
}

/// Packs one set. `importance` is looked at if errors differ in cost.
pub fn pack(ty: BlockType, x: &[f32], importance: &[f32], cost: Cost, out: &mut [u8]) {
    let blocks = match ty {
        BlockType::Q4_0 => symmetric_blocks(x, importance, cost, 8.0, FOUR),
        BlockType::Q5_0 => symmetric_blocks(x, importance, cost, 16.0, FIVE),
        BlockType::Q4_1 => affine_blocks(x, importance, cost, 15.0, FOUR),
        BlockType::Q5_1 => affine_blocks(x, importance, cost, 31.0, FIVE),
        _ => eight_bits(x),
    };
    let has_minimum = matches!(ty, BlockType::Q4_1 | BlockType::Q5_1);
    let has_fifth = matches!(ty, BlockType::Q5_0 | BlockType::Q5_1);
    let width = if ty == BlockType::Q8_0 { 32 } else { 16 };
    for (block, out) in out.chunks_exact_mut(ty.block_bytes()).enumerate() {
        let (d, mut rest) = out.split_at_mut(2);
        d.copy_from_slice(&f16::from_f32(blocks.d[block]).to_le_bytes());
        if has_minimum {
            let m = rest.split_off_mut(..2).unwrap_or_default();
            m.copy_from_slice(&f16::from_f32(blocks.m[block]).to_le_bytes());
        }
        if has_fifth {
            let fifth = rest.split_off_mut(..4).unwrap_or_default();
            fifth.copy_from_slice(&blocks.fifth[block].to_le_bytes());
        }
        rest.copy_from_slice(&blocks.levels[block * width..][..width]);
    }
}

/// Writes the levels of one block, counted from the lowest, beside its scale: those of Q8_0 from −127, of the others from the one that all bits 0 stand for.
pub fn put_levels(ty: BlockType, levels: &[u8], out: &mut [u8]) {
    if ty == BlockType::Q8_0 {
        out[2..].iter_mut().zip(levels).for_each(|(byte, level)| *byte = level.wrapping_sub(127));
        return;
    }
    let bytes = out.len() - BLOCK / 2;
    let (head, halves) = out.split_at_mut(bytes);
    let (low, high) = levels.split_at(BLOCK / 2);
    halves.iter_mut().zip(low.iter().zip(high)).for_each(|(byte, (low, high))| *byte = low & 15 | high << 4);
    if matches!(ty, BlockType::Q5_0 | BlockType::Q5_1) {
        let fifth = levels.iter().enumerate().fold(0u32, |bits, (i, level)| bits | u32::from(level >> 4) << i);
        head[bytes - 4..].copy_from_slice(&fifth.to_le_bytes());
    }
}

clones! {
    /// value = d · (q − top), top 8 or 16.
    fn symmetric_blocks<S>(s, x: &[f32], importance: &[f32], cost: Cost, top: f32, steps: Steps) -> Blocks {
        let mut levels = [s.splat(0.0); BLOCK];
        let d = match cost {
            Cost::Even => {
                let x = columns::<S, BLOCK>(s, x);
                let mut most = s.splat(0.0);
                for x in &x {
                    // The first of equals.
                    most = s.select_less(magnitude(s, most), magnitude(s, *x), *x, most);
                }
                let d = s.div(most, s.splat(-top));
                let id = reciprocal(s, d);
                for (level, x) in levels.iter_mut().zip(&x) {
                    *level = cut(s, s.add(s.mul(*x, id), s.splat(top + 0.5)), 2.0 * top - 1.0);
                }
                d
            }
            Cost::Given | Cost::Important => {
                let set = Set::<S, BLOCK>::new(s, x, importance, cost, 1);
                let d = halves(s, symmetric(s, &set, top, steps));
                let inverse = inverse(s, d);
                for (level, x) in levels.iter_mut().zip(&set.x) {
                    *level = s.add(symmetric_level(s, *x, inverse, top), s.splat(top));
                }
                d
            }
        };
        blocks(s, d, s.splat(0.0), &levels)
    }

    /// value = d · q + m, q up to top, 15 or 31.
    fn affine_blocks<S>(s, x: &[f32], importance: &[f32], cost: Cost, top: f32, steps: Steps) -> Blocks {
        let mut levels = [s.splat(0.0); BLOCK];
        let (d, m) = match cost {
            Cost::Even => {
                let x = columns::<S, BLOCK>(s, x);
                let (mut low, mut high) = (s.splat(f32::MAX), s.splat(f32::MIN));
                for x in &x {
                    low = s.min(*x, low);
                    high = s.max(*x, high);
                }
                let d = s.div(s.sub(high, low), s.splat(top));
                let id = reciprocal(s, d);
                for (level, x) in levels.iter_mut().zip(&x) {
                    *level = cut(s, s.add(s.mul(s.sub(*x, low), id), s.splat(0.5)), top);
                }
                (d, low)
            }
            Cost::Given | Cost::Important => {
                let set = Set::<S, BLOCK>::new(s, x, importance, cost, 1);
                let Affine { scale, min } = affine(s, &set, top, steps, Minimum::Any);
                let (d, min) = (halves(s, scale), halves(s, min));
                let inverse = inverse(s, d);
                let shift = s.mul(min, inverse);
                for (level, x) in levels.iter_mut().zip(&set.x) {
                    *level = affine_level(s, *x, inverse, shift, top);
                }
                (d, s.sub(s.splat(0.0), min))
            }
        };
        blocks(s, d, m, &levels)
    }

    /// value = d · q, q −127 to 127.
    fn eight_bits<S>(s, x: &[f32]) -> Blocks {
        let x = columns::<S, BLOCK>(s, x);
        let mut most = s.splat(0.0);
        for x in &x {
            most = s.max(magnitude(s, *x), most);
        }
        let d = s.div(most, s.splat(127.0));
        let id = reciprocal(s, d);
        let mut levels = [s.splat(0.0); BLOCK];
        for (level, x) in levels.iter_mut().zip(&x) {
            *level = round_away(s, s.mul(*x, id));
        }
        let mut blocks = Blocks { d: s.to_array(d), m: [0.0; LANES], levels: [0; SET_VALUES], fifth: [0; LANES] };
        bytes(s, &levels, &mut blocks.levels);
        blocks
    }
}

/// Joins levels as the file has them: value j in the low and value j + 16 in the high half of a byte, fifth bits apart.
#[inline(always)]
fn blocks<S: Simd>(s: S, d: S::V, m: S::V, levels: &[S::V; BLOCK]) -> Blocks {
    let zero = s.splat(0.0);
    let sixteen = s.splat(16.0);
    let mut joined = [zero; LANES];
    let mut fifth = [[0.0; LANES]; 2];
    for (half, fifth) in fifth.iter_mut().enumerate() {
        let (mut bits, mut bit) = (zero, 1.0);
        for (j, joined) in joined.iter_mut().enumerate() {
            let level = levels[half * LANES + j];
            let is_high = s.select_less(level, sixteen, zero, s.splat(1.0));
            bits = s.fma(is_high, s.splat(bit), bits);
            bit *= 2.0;
            let low = s.sub(level, s.mul(is_high, sixteen));
            *joined = if half == 0 { low } else { s.fma(low, sixteen, *joined) };
        }
        *fifth = s.to_array(bits);
    }
    let mut blocks = Blocks { d: s.to_array(d), m: s.to_array(m), levels: [0; SET_VALUES], fifth: [0; LANES] };
    for (bits, (low, high)) in blocks.fifth.iter_mut().zip(fifth[0].iter().zip(&fifth[1])) {
        *bits = *low as u32 | (*high as u32) << 16;
    }
    bytes(s, &joined, &mut blocks.levels);
    blocks
}

/// 1 / d; 0 if d is 0.
#[inline(always)]
fn reciprocal<S: Simd>(s: S, d: S::V) -> S::V {
    s.select_less(s.splat(0.0), magnitude(s, d), s.div(s.splat(1.0), d), s.splat(0.0))
}

/// Cuts off the fraction; the caller has added the half that makes this a rounding. What a vanishing scale makes of values (infinities, NaN) stays within the levels.
#[inline(always)]
fn cut<S: Simd>(s: S, v: S::V, top: f32) -> S::V {
    let v = s.min(s.max(v, s.splat(0.0)), s.splat(top + 0.5));
    let whole = nearest(s, v);
    s.min(s.select_less(v, whole, s.sub(whole, s.splat(1.0)), whole), s.splat(top))
}

/// Halves away from zero, as C's `roundf`. Within −127..=127.
#[inline(always)]
fn round_away<S: Simd>(s: S, v: S::V) -> S::V {
    let size = s.min(magnitude(s, v), s.splat(127.0));
    let whole = nearest(s, size);
    // The tie that went down to an even number.
    let whole = s.select_less(s.sub(size, whole), s.splat(0.5), whole, s.add(whole, s.splat(1.0)));
    s.or(whole, s.and(v, s.bits(0x8000_0000)))
}
