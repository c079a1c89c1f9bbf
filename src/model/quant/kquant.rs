//! The layouts of the K blocks: 256 values, groups of 16 or 32 with small integer scales, one or two f16 for all.

use half::f16;

use super::SUPER_BLOCK;
use super::grid::{Grid, Shape, affine_grid, symmetric_grid};
use super::lanes::{Cost, Set};
use super::search::Steps;
use crate::kernels::isa::{LANES, clones};
use crate::kernels::packed::BlockType;

const Q2K: Shape = Shape { top: 3.0, scale_top: 15.0, steps: Steps { width: 0.1, below: 8, above: 8 } };
const Q3K: Shape = Shape { top: 4.0, scale_top: 32.0, steps: Steps { width: 0.1, below: 12, above: 8 } };
const Q4K: Shape = Shape { top: 15.0, scale_top: 63.0, steps: Steps { width: 0.1, below: 10, above: 10 } };
const Q5K: Shape = Shape { top: 31.0, scale_top: 63.0, steps: Steps { width: 0.1, below: 8, above: 10 } };
const Q6K: Shape = Shape { top: 32.0, scale_top: 128.0, steps: Steps { width: 0.2, below: 5, above: 4 } };

/// Packs one set: sixteen groups.
pub fn pack(ty: BlockType, x: &[f32], importance: &[f32], cost: Cost, out: &mut [u8]) {
    // What is cheapest to a model was measured; see docs/compression.md.
    let cost = if ty == BlockType::Q6K && cost == Cost::Important { Cost::Given } else { cost };
    let grid = match ty {
        BlockType::Q2K => affine16(x, importance, cost, Q2K),
        BlockType::Q3K => symmetric16(x, importance, cost, Q3K),
        BlockType::Q4K => affine32(x, importance, cost, Q4K),
        BlockType::Q5K => affine32(x, importance, cost, Q5K),
        _ => symmetric16(x, importance, cost, Q6K),
    };
    let blocks = out.chunks_exact_mut(ty.block_bytes()).enumerate();
    for (index, out) in blocks {
        let (levels, _) = grid.levels[index * SUPER_BLOCK..].as_chunks::<SUPER_BLOCK>();
        let (Some(levels), first) = (levels.first(), index * 8) else { return };
        match ty {
            BlockType::Q2K => scales_q2k(&grid, out),
            BlockType::Q3K => scales_q3k(&grid, out),
            BlockType::Q4K | BlockType::Q5K => scales_q4k(&grid, first, out),
            _ => scales_q6k(&grid, out),
        }
        // Symmetric types store how far a level is above the lowest.
        let lowest = match ty {
            BlockType::Q3K => 4,
            BlockType::Q6K => 32,
            _ => 0,
        };
        put_levels(ty, &levels.map(|level| level.wrapping_add(lowest)), out);
    }
}

/// Writes the levels of one block, counted from the lowest, beside its scales.
pub fn put_levels(ty: BlockType, levels: &[u8; SUPER_BLOCK], out: &mut [u8]) {
    match ty {
        BlockType::Q2K => put_twos(levels, &mut out[16..80]),
        BlockType::Q3K => {
            put_bits(levels, 2, &mut out[..32]);
            put_twos(&levels.map(|level| level & 3), &mut out[32..96]);
        }
        BlockType::Q4K => put_fours(levels, &mut out[16..144]),
        BlockType::Q5K => {
            put_bits(levels, 4, &mut out[16..48]);
            put_fours(&levels.map(|level| level & 15), &mut out[48..176]);
        }
        _ => {
            let low = levels.map(|level| level & 15);
            // Values 0 to 31 of a half share their bytes with 64 to 95, and 32 to 63 with 96 to 127.
            for (half, low) in low.chunks_exact(128).enumerate() {
                for (i, byte) in out[64 * half..][..64].iter_mut().enumerate() {
                    *byte = low[i] | low[i + 64] << 4;
                }
            }
            put_twos(&levels.map(|level| level >> 4), &mut out[128..192]);
        }
    }
}

clones! {
    fn affine16<S>(s, x: &[f32], importance: &[f32], cost: Cost, shape: Shape) -> Grid {
        affine_grid::<S, 16>(s, &Set::new(s, x, importance, cost, 16), shape)
    }

    fn affine32<S>(s, x: &[f32], importance: &[f32], cost: Cost, shape: Shape) -> Grid {
        affine_grid::<S, 32>(s, &Set::new(s, x, importance, cost, 8), shape)
    }

    fn symmetric16<S>(s, x: &[f32], importance: &[f32], cost: Cost, shape: Shape) -> Grid {
        symmetric_grid::<S>(s, &Set::new(s, x, importance, cost, 16), shape)
    }
}

/// 16 bytes (scale | min << 4), 64 bytes of four 2-bit values, d, dmin. Groups of 16.
fn scales_q2k(grid: &Grid, out: &mut [u8]) {
    for (byte, (scale, min)) in out.iter_mut().zip(grid.scales.iter().zip(&grid.mins)) {
        *byte = *scale as u8 | (*min as u8) << 4;
    }
    put(out, 80, grid.d[0]);
    put(out, 82, grid.dmin[0]);
}

/// 32 bytes of third bits, 64 bytes of four 2-bit values, 12 bytes of sixteen 6-bit scales, d. Groups of 16.
fn scales_q3k(grid: &Grid, out: &mut [u8]) {
    out[96..108].fill(0);
    for (g, scale) in grid.scales.iter().enumerate() {
        let scale = (*scale as i8 + 32).cast_unsigned();
        out[96 + g % 8] |= (scale & 15) << (4 * (g / 8));
        out[104 + g % 4] |= (scale >> 4) << (2 * (g / 4));
    }
    put(out, 108, grid.d[0]);
}

/// d, dmin, 12 bytes of eight 6-bit scales and minima, then (Q5_K) 32 bytes of fifth bits and 128 bytes of two 4-bit values. Groups of 32. Scales and
/// minima of groups 0–3 lie in the low six bits of bytes 0–3 and 4–7; those of groups 4–7 as halves in bytes 8–11, their upper two bits above the former.
fn scales_q4k(grid: &Grid, first: usize, out: &mut [u8]) {
    put(out, 0, grid.d[first % LANES]);
    put(out, 2, grid.dmin[first % LANES]);
    let codes = |of: &[f32; LANES]| -> [u8; 8] { std::array::from_fn(|g| of[(first + g) % LANES] as u8) };
    let (scales, mins) = (codes(&grid.scales), codes(&grid.mins));
    for g in 0..4 {
        out[4 + g] = scales[g] | (scales[g + 4] >> 4) << 6;
        out[8 + g] = mins[g] | (mins[g + 4] >> 4) << 6;
        out[12 + g] = (scales[g + 4] & 15) | (mins[g + 4] & 15) << 4;
    }
}

/// 128 bytes of low halves, 64 bytes of four upper 2-bit parts, 16 signed scales, d. Groups of 16.
fn scales_q6k(grid: &Grid, out: &mut [u8]) {
    for (byte, scale) in out[192..208].iter_mut().zip(&grid.scales) {
        *byte = (*scale as i8).cast_unsigned();
    }
    put(out, 208, grid.d[0]);
}

/// In each half of the block, byte l holds values l, l + 32, l + 64 and l + 96.
fn put_twos(levels: &[u8; SUPER_BLOCK], out: &mut [u8]) {
    for (levels, out) in levels.chunks_exact(128).zip(out.chunks_exact_mut(32)) {
        for (l, byte) in out.iter_mut().enumerate() {
            *byte = levels[l] | levels[l + 32] << 2 | levels[l + 64] << 4 | levels[l + 96] << 6;
        }
    }
}

/// In each quarter of the block, byte l holds values l and l + 32.
fn put_fours(levels: &[u8; SUPER_BLOCK], out: &mut [u8]) {
    for (levels, out) in levels.chunks_exact(64).zip(out.chunks_exact_mut(32)) {
        for (l, byte) in out.iter_mut().enumerate() {
            *byte = levels[l] | levels[l + 32] << 4;
        }
    }
}

/// One bit of each value: byte l holds those of values l, l + 32 and so on.
fn put_bits(levels: &[u8; SUPER_BLOCK], bit: u32, out: &mut [u8]) {
    for (l, byte) in out.iter_mut().enumerate() {
        *byte = (0..8).fold(0, |bits, i| bits | (levels[l + 32 * i] >> bit & 1) << i);
    }
}

fn put(out: &mut [u8], at: usize, value: f32) {
    out[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
}
