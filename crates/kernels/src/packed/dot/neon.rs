//! Sixteen outputs in four registers, by way of sixteen-bit products.

use std::arch::aarch64::*;

use super::{Codes, Dot, Line, Size};
use crate::isa::neon::Neon;

/// Proof that the processor has NEON.
#[derive(Clone, Copy, Debug)]
pub struct Long(Neon);

impl Long {
    /// # Safety
    /// The processor must have NEON.
    #[inline(always)]
    pub unsafe fn new() -> Long {
        // SAFETY: the caller's promise.
        Long(unsafe { Neon::new() })
    }
}

impl Dot for Long {
    type S = Neon;
    const ROWS: usize = 2;
    const ROWS_OF_HALVES: usize = 2;
    const UNSIGNED: bool = false;

    #[inline(always)]
    fn simd(self) -> Neon {
        self.0
    }

    #[inline(always)]
    fn sums<C: Codes, const ROWS: usize, const VECTORS: usize>(
        self,
        codes: &[[Line; VECTORS]],
        q: &[[u32; ROWS]],
        start: &[f32; ROWS],
    ) -> [[[float32x4_t; 4]; VECTORS]; ROWS] {
        // SAFETY: `self` proves the instructions; the four floats read are within the line.
        unsafe {
            let mut sums = [[[vdupq_n_f32(0.0); 4]; VECTORS]; ROWS];
            for v in 0..VECTORS {
                for part in 0..4 {
                    for r in 0..ROWS {
                        let start = vdupq_n_s32(start[r].to_bits().cast_signed());
                        let load = |codes: &[Line; VECTORS]| vreinterpretq_s8_f32(vld1q_f32(codes[v].0.as_ptr().add(4 * part)));
                        sums[r][v][part] = vreinterpretq_f32_s32(four_lanes::<C, ROWS>(codes.iter().map(load), q, r, start));
                    }
                }
            }
            sums
        }
    }
}

/// # Safety
/// The processor must have NEON.
#[inline(always)]
unsafe fn four_lanes<C: Codes, const ROWS: usize>(
    mut codes: impl Iterator<Item = int8x16_t>,
    q: &[[u32; ROWS]],
    r: usize,
    start: int32x4_t,
) -> int32x4_t {
    // How many products (at most 127 · code each) add up within sixteen bits.
    let steps = match C::SIZE {
        Size::Five => 8,
        Size::Six => 4,
        Size::Eight => 2,
    };
    // SAFETY: the caller's promise.
    unsafe {
        // Two products of an output's four are in each lane.
        let (mut low, mut high) = (vdupq_n_s32(0), vdupq_n_s32(0));
        for q in q.chunks(steps) {
            let (mut short_low, mut short_high) = (vdupq_n_s16(0), vdupq_n_s16(0));
            for (q, codes) in q.iter().zip(&mut codes) {
                let q = vreinterpretq_s8_s32(vdupq_n_s32(q[r].cast_signed()));
                short_low = vmlal_s8(short_low, vget_low_s8(codes), vget_low_s8(q));
                short_high = vmlal_high_s8(short_high, codes, q);
            }
            low = vpadalq_s16(low, short_low);
            high = vpadalq_s16(high, short_high);
        }
        vaddq_s32(start, vpaddq_s32(low, high))
    }
}
