//! Sixteen outputs in one register: with the instruction made for it (VNNI), or by way of sixteen-bit pairs.

use std::arch::x86_64::*;

use super::{Codes, Dot, Line, Size};
use crate::isa::avx512::Avx512;

/// Proof that the processor has AVX-512 VNNI besides what [`Avx512`] proves.
#[derive(Clone, Copy, Debug)]
pub struct Vnni(Avx512);

impl Vnni {
    /// # Safety
    /// The processor must have AVX-512 F, BW, DQ, VL and VNNI, AVX2 and FMA.
    #[inline(always)]
    pub unsafe fn new() -> Vnni {
        // SAFETY: the caller's promise.
        Vnni(unsafe { Avx512::new() })
    }
}

impl Dot for Vnni {
    type S = Avx512;
    const ROWS: usize = 6;
    const ROWS_OF_HALVES: usize = 4;
    const UNSIGNED: bool = true;

    #[inline(always)]
    fn simd(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    fn sums<C: Codes, const ROWS: usize, const VECTORS: usize>(
        self,
        codes: &[[Line; VECTORS]],
        q: &[[u32; ROWS]],
        start: &[f32; ROWS],
    ) -> [[__m512; VECTORS]; ROWS] {
        // SAFETY: `self` proves the instructions, references that what is read is there.
        unsafe {
            let mut sums = [[_mm512_setzero_si512(); VECTORS]; ROWS];
            for (sums, start) in sums.iter_mut().zip(start) {
                *sums = [_mm512_castps_si512(_mm512_set1_ps(*start)); VECTORS];
            }
            for (codes, q) in codes.iter().zip(q) {
                for (sums, q) in sums.iter_mut().zip(q) {
                    let q = _mm512_set1_epi32(q.cast_signed());
                    for (sum, codes) in sums.iter_mut().zip(codes) {
                        let next = _mm512_dpbusd_epi32(*sum, _mm512_castps_si512(_mm512_load_ps(codes.0.as_ptr())), q);
                        *sum = in_this_order(next);
                    }
                }
            }
            as_floats(sums)
        }
    }
}

/// No instruction, but the compiler keeps the order in which such values come up. Otherwise it turns a tile's loops inside out, row by row, and has to put registers
/// aside: Q6_K took a fifth longer.
///
/// # Safety
/// The processor must have AVX-512 F.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn in_this_order(mut v: __m512i) -> __m512i {
    // SAFETY: the text is empty.
    unsafe { std::arch::asm!("/* {0} */", inout(zmm_reg) v, options(nomem, nostack, preserves_flags)) };
    v
}

/// Proof that the processor has what [`Avx512`] proves. Products go through sums of two that fit sixteen bits.
#[derive(Clone, Copy, Debug)]
pub struct Pairs(Avx512);

impl Pairs {
    /// # Safety
    /// The processor must have AVX-512 F, BW, DQ and VL, AVX2 and FMA.
    #[inline(always)]
    pub unsafe fn new() -> Pairs {
        // SAFETY: the caller's promise.
        Pairs(unsafe { Avx512::new() })
    }
}

impl Dot for Pairs {
    type S = Avx512;
    const ROWS: usize = 4;
    const ROWS_OF_HALVES: usize = 3;
    const UNSIGNED: bool = false;

    #[inline(always)]
    fn simd(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    fn sums<C: Codes, const ROWS: usize, const VECTORS: usize>(
        self,
        codes: &[[Line; VECTORS]],
        q: &[[u32; ROWS]],
        start: &[f32; ROWS],
    ) -> [[__m512; VECTORS]; ROWS] {
        // SAFETY: `self` proves the instructions, references that what is read is there.
        unsafe {
            let mut sums = [[_mm512_setzero_si512(); VECTORS]; ROWS];
            for (sums, start) in sums.iter_mut().zip(start) {
                *sums = [_mm512_castps_si512(_mm512_set1_ps(*start)); VECTORS];
            }
            // How many sums of two products (at most 2 · 127 · code each) add up within sixteen bits.
            let steps = match C::SIZE {
                Size::Five => 4,
                Size::Six => 2,
                Size::Eight => {
                    by_words(codes, q, &mut sums);
                    return as_floats(sums);
                }
            };
            let ones = _mm512_set1_epi16(1);
            for (codes, q) in codes.chunks_exact(steps).zip(q.chunks_exact(steps)) {
                for v in 0..VECTORS {
                    for r in 0..ROWS {
                        let mut short = _mm512_setzero_si512();
                        for step in 0..steps {
                            let c = _mm512_castps_si512(_mm512_load_ps(codes[step][v].0.as_ptr()));
                            let product = _mm512_maddubs_epi16(c, _mm512_set1_epi32(q[step][r].cast_signed()));
                            short = if step == 0 { product } else { _mm512_add_epi16(short, product) };
                        }
                        sums[r][v] = _mm512_add_epi32(sums[r][v], _mm512_madd_epi16(short, ones));
                    }
                }
            }
            as_floats(sums)
        }
    }
}

/// Signed codes: even and odd bytes apart, as words.
///
/// # Safety
/// The processor must have AVX-512 BW.
#[inline(always)]
unsafe fn by_words<const ROWS: usize, const VECTORS: usize>(
    codes: &[[Line; VECTORS]],
    q: &[[u32; ROWS]],
    sums: &mut [[__m512i; VECTORS]; ROWS],
) {
    // SAFETY: the caller's promise; references that what is read is there.
    unsafe {
        for (codes, q) in codes.iter().zip(q) {
            let mut c = [[_mm512_setzero_si512(); 2]; VECTORS];
            for (c, codes) in c.iter_mut().zip(codes) {
                *c = even_and_odd(_mm512_castps_si512(_mm512_load_ps(codes.0.as_ptr())));
            }
            for (sums, q) in sums.iter_mut().zip(q) {
                let q = even_and_odd(_mm512_set1_epi32(q.cast_signed()));
                for (sum, c) in sums.iter_mut().zip(&c) {
                    let (even, odd) = (_mm512_madd_epi16(c[0], q[0]), _mm512_madd_epi16(c[1], q[1]));
                    *sum = _mm512_add_epi32(*sum, _mm512_add_epi32(even, odd));
                }
            }
        }
    }
}

/// # Safety
/// The processor must have AVX-512 BW.
#[inline(always)]
unsafe fn even_and_odd(bytes: __m512i) -> [__m512i; 2] {
    // SAFETY: the caller's promise.
    unsafe { [_mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(bytes)), _mm512_srai_epi16::<8>(bytes)] }
}

/// # Safety
/// The processor must have AVX-512 F.
#[inline(always)]
unsafe fn as_floats<const ROWS: usize, const VECTORS: usize>(sums: [[__m512i; VECTORS]; ROWS]) -> [[__m512; VECTORS]; ROWS] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut floats = [[_mm512_setzero_ps(); VECTORS]; ROWS];
        for (floats, sums) in floats.iter_mut().zip(&sums) {
            for (float, sum) in floats.iter_mut().zip(sums) {
                *float = _mm512_castsi512_ps(*sum);
            }
        }
        floats
    }
}
