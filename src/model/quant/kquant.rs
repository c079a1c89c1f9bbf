//! The layouts of the K blocks: 256 values, groups of 16 or 32 with small integer scales, one or two f16 for all.

use half::f16;

use super::SUPER_BLOCK;
use super::grid::{affine_grid, symmetric_grid};
use crate::kernels::packed::values::six_place;

/// 16 bytes (scale | min << 4), 64 bytes of four 2-bit values, d, dmin. Groups of 16.
pub fn pack_q2k(x: &[f32; SUPER_BLOCK], out: &mut [u8; 84]) {
    let grid = affine_grid::<16>(x, 3, 15);
    for (byte, (scale, min)) in out.iter_mut().zip(grid.scales.iter().zip(&grid.mins)) {
        *byte = scale | min << 4;
    }
    out[16..80].copy_from_slice(&pack_twos(&grid.q));
    put(out, 80, grid.d);
    put(out, 82, grid.dmin);
}

/// 32 bytes of third bits, 64 bytes of four 2-bit values, 12 bytes of sixteen 6-bit scales, d. Groups of 16.
pub fn pack_q3k(x: &[f32; SUPER_BLOCK], out: &mut [u8; 110]) {
    let grid = symmetric_grid(x, 4, 32);
    let levels = grid.q.map(|q| (q + 4).cast_unsigned());
    for (i, level) in levels.iter().enumerate() {
        out[i % 32] |= (level >> 2) << (i / 32);
    }
    out[32..96].copy_from_slice(&pack_twos(&levels.map(|level| level & 3)));
    for (g, scale) in grid.scales.iter().enumerate() {
        let scale = (scale + 32).cast_unsigned();
        out[96 + g % 8] |= (scale & 15) << (4 * (g / 8));
        out[104 + g % 4] |= (scale >> 4) << (2 * (g / 4));
    }
    put(out, 108, grid.d);
}

/// d, dmin, 12 bytes of eight 6-bit scales and minima, 128 bytes of two 4-bit values. Groups of 32.
pub fn pack_q4k(x: &[f32; SUPER_BLOCK], out: &mut [u8; 144]) {
    let grid = affine_grid::<32>(x, 15, 63);
    put(out, 0, grid.d);
    put(out, 2, grid.dmin);
    out[4..16].copy_from_slice(&pack_sixes(&grid.scales, &grid.mins));
    out[16..].copy_from_slice(&pack_fours(&grid.q));
}

/// As Q4_K, with 32 bytes of fifth bits before the 4-bit values.
pub fn pack_q5k(x: &[f32; SUPER_BLOCK], out: &mut [u8; 176]) {
    let grid = affine_grid::<32>(x, 31, 63);
    put(out, 0, grid.d);
    put(out, 2, grid.dmin);
    out[4..16].copy_from_slice(&pack_sixes(&grid.scales, &grid.mins));
    for (i, level) in grid.q.iter().enumerate() {
        out[16 + i % 32] |= (level >> 4) << (i / 32);
    }
    out[48..].copy_from_slice(&pack_fours(&grid.q));
}

/// 128 bytes of low halves, 64 bytes of four upper 2-bit parts, 16 signed scales, d. Groups of 16.
pub fn pack_q6k(x: &[f32; SUPER_BLOCK], out: &mut [u8; 210]) {
    let grid = symmetric_grid(x, 32, 128);
    for (i, q) in grid.q.iter().enumerate() {
        let level = (q + 32).cast_unsigned();
        let place = six_place(i);
        out[place.low] |= (level & 15) << place.low_shift;
        out[128 + place.high] |= (level >> 4) << place.high_shift;
    }
    for (g, scale) in grid.scales.iter().enumerate() {
        out[192 + g] = scale.cast_unsigned();
    }
    put(out, 208, grid.d);
}

/// In each half of the block, byte l holds values l, l + 32, l + 64 and l + 96.
fn pack_twos(levels: &[u8; SUPER_BLOCK]) -> [u8; 64] {
    let mut bytes = [0u8; 64];
    for (i, level) in levels.iter().enumerate() {
        bytes[i / 128 * 32 + i % 32] |= level << (i % 128 / 32 * 2);
    }
    bytes
}

/// In each quarter of the block, byte l holds values l and l + 32.
fn pack_fours(levels: &[u8; SUPER_BLOCK]) -> [u8; 128] {
    let mut bytes = [0u8; 128];
    for (i, level) in levels.iter().enumerate() {
        bytes[i / 64 * 32 + i % 32] |= (level & 15) << (i % 64 / 32 * 4);
    }
    bytes
}

/// Scales and minima of groups 0–3 in the low six bits of bytes 0–3 and 4–7; those of groups 4–7 as halves in bytes 8–11, their upper two bits above the former.
fn pack_sixes(scales: &[u8; 16], mins: &[u8; 16]) -> [u8; 12] {
    let mut bytes = [0u8; 12];
    for g in 0..4 {
        bytes[g] = scales[g] | (scales[g + 4] >> 4) << 6;
        bytes[g + 4] = mins[g] | (mins[g + 4] >> 4) << 6;
        bytes[g + 8] = (scales[g + 4] & 15) | (mins[g + 4] & 15) << 4;
    }
    bytes
}

fn put(out: &mut [u8], at: usize, value: f16) {
    out[at..at + 2].copy_from_slice(&value.to_le_bytes());
}
