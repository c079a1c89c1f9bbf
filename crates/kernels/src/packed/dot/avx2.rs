//! Sixteen outputs in two registers, by way of sums of two products that fit sixteen bits.

use std::arch::x86_64::*;

use super::{Codes, Dot, Line, Size};
use crate::isa::avx2::Avx2;

/// Proof that the processor has AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub struct Pairs(Avx2);

impl Pairs {
    /// # Safety
    /// The processor must have AVX2 and FMA.
    #[inline(always)]
    pub unsafe fn new() -> Pairs {
        // SAFETY: the caller's promise.
        Pairs(unsafe { Avx2::new() })
    }
}

impl Dot for Pairs {
    type S = Avx2;
    const ROWS: usize = 2;
    const ROWS_OF_HALVES: usize = 2;
    const UNSIGNED: bool = false;

    #[inline(always)]
    fn simd(self) -> Avx2 {
        self.0
    }

    #[inline(always)]
    fn sums<C: Codes, const ROWS: usize, const VECTORS: usize>(
        self,
        codes: &[[Line; VECTORS]],
        q: &[[u32; ROWS]],
        start: &[f32; ROWS],
    ) -> [[(__m256, __m256); VECTORS]; ROWS] {
        // SAFETY: `self` proves the instructions, references that what is read is there.
        unsafe {
            let mut sums = [[(_mm256_setzero_ps(), _mm256_setzero_ps()); VECTORS]; ROWS];
            for v in 0..VECTORS {
                let low = eight_lanes::<C, ROWS, VECTORS>(codes, q, start, v, 0);
                let high = eight_lanes::<C, ROWS, VECTORS>(codes, q, start, v, 8);
                for (sums, (low, high)) in sums.iter_mut().zip(low.into_iter().zip(high)) {
                    sums[v] = (_mm256_castsi256_ps(low), _mm256_castsi256_ps(high));
                }
            }
            sums
        }
    }
}

/// The sums of the eight outputs from `first` on.
///
/// # Safety
/// The processor must have AVX2, and `first` be 0 or 8.
#[inline(always)]
unsafe fn eight_lanes<C: Codes, const ROWS: usize, const VECTORS: usize>(
    codes: &[[Line; VECTORS]],
    q: &[[u32; ROWS]],
    start: &[f32; ROWS],
    v: usize,
    first: usize,
) -> [__m256i; ROWS] {
    // SAFETY: the caller's promise; the eight floats read are within the line.
    unsafe {
        let load = |codes: &[Line; VECTORS]| _mm256_castps_si256(_mm256_load_ps(codes[v].0.as_ptr().add(first)));
        let mut sums = [_mm256_setzero_si256(); ROWS];
        for (sum, start) in sums.iter_mut().zip(start) {
            *sum = _mm256_castps_si256(_mm256_set1_ps(*start));
        }
        // How many sums of two products (at most 2 · 127 · code each) add up within sixteen bits.
        let steps = match C::SIZE {
            Size::Five => 4,
            Size::Six => 2,
            Size::Eight => {
                for (codes, q) in codes.iter().zip(q) {
                    let c = even_and_odd(load(codes));
                    for (sum, q) in sums.iter_mut().zip(q) {
                        let q = even_and_odd(_mm256_set1_epi32(q.cast_signed()));
                        let (even, odd) = (_mm256_madd_epi16(c[0], q[0]), _mm256_madd_epi16(c[1], q[1]));
                        *sum = _mm256_add_epi32(*sum, _mm256_add_epi32(even, odd));
                    }
                }
                return sums;
            }
        };
        let ones = _mm256_set1_epi16(1);
        for (codes, q) in codes.chunks_exact(steps).zip(q.chunks_exact(steps)) {
            for (r, sum) in sums.iter_mut().enumerate() {
                let mut short = _mm256_setzero_si256();
                for (codes, q) in codes.iter().zip(q) {
                    short = _mm256_add_epi16(short, _mm256_maddubs_epi16(load(codes), _mm256_set1_epi32(q[r].cast_signed())));
                }
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(short, ones));
            }
        }
        sums
    }
}

/// # Safety
/// The processor must have AVX2.
#[inline(always)]
unsafe fn even_and_odd(bytes: __m256i) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    unsafe { [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes)), _mm256_srai_epi16::<8>(bytes)] }
}
