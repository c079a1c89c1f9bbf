//! Bytes in vectors: four of them in each of the sixteen lanes, a lane for each row of weights.

use crate::isa::portable::Portable;
use crate::isa::{LANES, Simd};

/// What [`Simd`] lacks for taking packed weights apart. The lanes' bits are u32.
pub trait Words: Simd {
    /// Sixteen bytes of each of sixteen rows that begin `stride` bytes apart, as columns: lane i of vector j is the jth four bytes of row i.
    fn columns(self, bytes: &[u8], stride: usize) -> [Self::V; 4];
    /// Logical; the bits of one byte move into the next.
    fn shift_right(self, v: Self::V, by: u32) -> Self::V;
    fn shift_left(self, v: Self::V, by: u32) -> Self::V;

    /// The lanes' low sixteen bits, which are f16, widened.
    #[inline(always)]
    fn half(self, v: Self::V) -> Self::V {
        let sign = self.shift_left(self.and(v, self.bits(0x8000)), 16);
        let rest = self.shift_left(self.and(v, self.bits(0x7fff)), 13);
        // The exponent's bias is 15 there and 127 here. Infinity and NaN need the step twice; subnormal numbers become normal ones by a subtraction. The
        // comparisons are made on normal numbers: some processors are slow with others.
        let step = self.bits(112 << 23);
        let number = self.integer_add(rest, step);
        let over = self.integer_add(number, step);
        let tiny = self.sub(self.integer_add(number, self.bits(1 << 23)), self.bits(113 << 23));
        let compared = self.integer_add(rest, self.bits(1 << 23));
        let value = self.select_less(compared, self.bits(0x20 << 23), number, over);
        let value = self.select_less(compared, self.bits(2 << 23), tiny, value);
        self.or(value, sign)
    }

    /// Asks for the line at an address, which need not be readable, to be brought near.
    #[inline(always)]
    fn prefetch_bytes(self, _at: *const u8) {}

    /// The largest magnitude of all lanes, compared as bits: infinity is above the numbers, NaN above all.
    #[inline(always)]
    fn top(self, a: Self::V, b: Self::V) -> f32 {
        let both = [self.to_array(a), self.to_array(b)];
        f32::from_bits(both.as_flattened().iter().fold(0, |top, x| top.max(x.to_bits() & 0x7fff_ffff)))
    }

    /// The lowest byte of each lane.
    #[inline(always)]
    fn low_bytes(self, v: Self::V) -> [u8; LANES] {
        let mut bytes = [0; LANES];
        for (byte, lane) in bytes.iter_mut().zip(self.to_array(v)) {
            *byte = lane.to_bits() as u8;
        }
        bytes
    }

    /// The sum of signed bytes.
    #[inline(always)]
    fn sum(self, bytes: [u8; LANES]) -> i32 {
        bytes.iter().map(|b| i32::from(b.cast_signed())).sum()
    }

    /// Every byte moved up by 128.
    #[inline(always)]
    fn flip(self, v: Self::V) -> Self::V {
        let top = self.bits(0x8080_8080);
        let rest = self.and(v, self.bits(0x7f7f_7f7f));
        self.or(rest, self.integer_sub(top, self.and(v, top)))
    }

    /// Bits 4·step to 4·step + 3 of each lane, as the bits 4 of its four bytes.
    #[inline(always)]
    fn spread(self, v: Self::V, step: u32) -> Self::V {
        let four = self.and(self.shift_right(v, 4 * step), self.bits(15));
        let even = self.or(self.shift_left(four, 4), self.shift_left(four, 18));
        let odd = self.or(self.shift_left(four, 11), self.shift_left(four, 25));
        self.and(self.or(even, odd), self.bits(0x1010_1010))
    }
}

impl Words for Portable {
    #[inline(always)]
    fn columns(self, bytes: &[u8], stride: usize) -> [Self::V; 4] {
        assert!(bytes.len() >= (LANES - 1) * stride + 16);
        let mut columns = [[0.0; LANES]; 4];
        for i in 0..LANES {
            let (words, _) = bytes[i * stride..][..16].as_chunks::<4>();
            for (column, word) in columns.iter_mut().zip(words) {
                column[i] = f32::from_bits(u32::from_le_bytes(*word));
            }
        }
        columns
    }
    #[inline(always)]
    fn shift_right(self, v: Self::V, by: u32) -> Self::V {
        v.map(|lane| f32::from_bits(lane.to_bits() >> by))
    }
    #[inline(always)]
    fn shift_left(self, v: Self::V, by: u32) -> Self::V {
        v.map(|lane| f32::from_bits(lane.to_bits() << by))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, Words};
    use crate::isa::Simd;
    use crate::isa::avx2::Avx2;
    use crate::isa::avx512::Avx512;

    impl Words for Avx512 {
        #[inline(always)]
        fn prefetch_bytes(self, at: *const u8) {
            // SAFETY: a prefetch reads nothing that a program can see and cannot fault, whatever its address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
        }
        #[inline(always)]
        fn columns(self, bytes: &[u8], stride: usize) -> [__m512; 4] {
            assert!(bytes.len() >= (LANES - 1) * stride + 16);
            let from = bytes.as_ptr();
            // SAFETY: `self` proves the instructions; each of the sixteen rows has 16 bytes at `i · stride`, which the length was checked for.
            unsafe {
                let quarter = |i: usize| _mm_loadu_si128(from.add(i * stride).cast());
                let mut r = [_mm512_setzero_si512(); 4];
                for (i, r) in r.iter_mut().enumerate() {
                    // Row i of each group of four rows: the groups are the register's quarters.
                    let v = _mm512_castsi128_si512(quarter(i));
                    let v = _mm512_inserti32x4::<1>(v, quarter(i + 4));
                    let v = _mm512_inserti32x4::<2>(v, quarter(i + 8));
                    *r = _mm512_inserti32x4::<3>(v, quarter(i + 12));
                }
                let (a, b) = (_mm512_unpacklo_epi32(r[0], r[1]), _mm512_unpacklo_epi32(r[2], r[3]));
                let (c, d) = (_mm512_unpackhi_epi32(r[0], r[1]), _mm512_unpackhi_epi32(r[2], r[3]));
                [
                    _mm512_castsi512_ps(_mm512_unpacklo_epi64(a, b)),
                    _mm512_castsi512_ps(_mm512_unpackhi_epi64(a, b)),
                    _mm512_castsi512_ps(_mm512_unpacklo_epi64(c, d)),
                    _mm512_castsi512_ps(_mm512_unpackhi_epi64(c, d)),
                ]
            }
        }
        #[inline(always)]
        fn shift_right(self, v: __m512, by: u32) -> __m512 {
            // SAFETY: `self` proves the instructions.
            unsafe { _mm512_castsi512_ps(_mm512_srlv_epi32(_mm512_castps_si512(v), _mm512_set1_epi32(by.cast_signed()))) }
        }
        #[inline(always)]
        fn shift_left(self, v: __m512, by: u32) -> __m512 {
            // SAFETY: `self` proves the instructions.
            unsafe { _mm512_castsi512_ps(_mm512_sllv_epi32(_mm512_castps_si512(v), _mm512_set1_epi32(by.cast_signed()))) }
        }
        #[inline(always)]
        fn top(self, a: __m512, b: __m512) -> f32 {
            // SAFETY: `self` proves the instructions.
            unsafe {
                let magnitude = |v| _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fff_ffff));
                let top = _mm512_max_epu32(magnitude(a), magnitude(b));
                largest(_mm256_max_epu32(_mm512_castsi512_si256(top), _mm512_extracti64x4_epi64::<1>(top)))
            }
        }
        #[inline(always)]
        fn low_bytes(self, v: __m512) -> [u8; LANES] {
            // SAFETY: `self` proves the instructions; both are 16 bytes for which any bits are a value.
            unsafe { std::mem::transmute(_mm512_cvtepi32_epi8(_mm512_castps_si512(v))) }
        }
        #[inline(always)]
        fn sum(self, bytes: [u8; LANES]) -> i32 {
            // SAFETY: `self` proves the instructions.
            unsafe { sum(bytes) }
        }
        #[inline(always)]
        fn flip(self, v: __m512) -> __m512 {
            // SAFETY: `self` proves the instructions.
            unsafe { _mm512_xor_ps(v, self.bits(0x8080_8080)) }
        }
        #[inline(always)]
        fn half(self, v: __m512) -> __m512 {
            // SAFETY: `self` proves the instructions.
            unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_castps_si512(v))) }
        }
    }

    impl Words for Avx2 {
        #[inline(always)]
        fn top(self, a: (__m256, __m256), b: (__m256, __m256)) -> f32 {
            // SAFETY: `self` proves the instructions.
            unsafe {
                let magnitude = |v| _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7fff_ffff));
                let low = _mm256_max_epu32(magnitude(a.0), magnitude(a.1));
                largest(_mm256_max_epu32(low, _mm256_max_epu32(magnitude(b.0), magnitude(b.1))))
            }
        }
        #[inline(always)]
        fn sum(self, bytes: [u8; LANES]) -> i32 {
            // SAFETY: `self` proves the instructions.
            unsafe { sum(bytes) }
        }
        #[inline(always)]
        fn prefetch_bytes(self, at: *const u8) {
            // SAFETY: a prefetch reads nothing that a program can see and cannot fault, whatever its address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
        }
        #[inline(always)]
        fn columns(self, bytes: &[u8], stride: usize) -> [(__m256, __m256); 4] {
            assert!(bytes.len() >= (LANES - 1) * stride + 16);
            let from = bytes.as_ptr();
            let mut columns = [(self.splat(0.0)); 4];
            // SAFETY: `self` proves the instructions; each of the sixteen rows has 16 bytes at `i · stride`, which the length was checked for.
            unsafe {
                let (low, high) = (eight_rows(from, stride), eight_rows(from.add(8 * stride), stride));
                for (column, pair) in columns.iter_mut().zip(low.into_iter().zip(high)) {
                    *column = pair;
                }
            }
            columns
        }
        #[inline(always)]
        fn shift_right(self, v: (__m256, __m256), by: u32) -> (__m256, __m256) {
            // SAFETY: `self` proves the instructions.
            unsafe {
                let by = _mm256_set1_epi32(by.cast_signed());
                (
                    _mm256_castsi256_ps(_mm256_srlv_epi32(_mm256_castps_si256(v.0), by)),
                    _mm256_castsi256_ps(_mm256_srlv_epi32(_mm256_castps_si256(v.1), by)),
                )
            }
        }
        #[inline(always)]
        fn shift_left(self, v: (__m256, __m256), by: u32) -> (__m256, __m256) {
            // SAFETY: `self` proves the instructions.
            unsafe {
                let by = _mm256_set1_epi32(by.cast_signed());
                (
                    _mm256_castsi256_ps(_mm256_sllv_epi32(_mm256_castps_si256(v.0), by)),
                    _mm256_castsi256_ps(_mm256_sllv_epi32(_mm256_castps_si256(v.1), by)),
                )
            }
        }
    }

    /// # Safety
    /// The processor must have AVX2.
    #[inline(always)]
    unsafe fn largest(v: __m256i) -> f32 {
        // SAFETY: the caller's promise.
        unsafe {
            let v = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
            let v = _mm_max_epu32(v, _mm_shuffle_epi32::<0b01_00_11_10>(v));
            let v = _mm_max_epu32(v, _mm_shuffle_epi32::<0b10_11_00_01>(v));
            _mm_cvtss_f32(_mm_castsi128_ps(v))
        }
    }

    /// # Safety
    /// The processor must have AVX2.
    #[inline(always)]
    unsafe fn sum(bytes: [u8; LANES]) -> i32 {
        // SAFETY: the caller's promise; both are 16 bytes for which any bits are a value.
        unsafe {
            let v: __m128i = std::mem::transmute(bytes);
            // Without sign they are 128 more each.
            let sums = _mm_sad_epu8(_mm_xor_si128(v, _mm_set1_epi8(-128)), _mm_setzero_si128());
            let sums = _mm_add_epi32(sums, _mm_unpackhi_epi64(sums, sums));
            _mm_cvtsi128_si32(sums) - 128 * 16
        }
    }

    /// Four columns of eight rows.
    ///
    /// # Safety
    /// The processor must have AVX2, and each row sixteen bytes at `i · stride`.
    #[inline(always)]
    unsafe fn eight_rows(from: *const u8, stride: usize) -> [__m256; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            let half = |i: usize| _mm_loadu_si128(from.add(i * stride).cast());
            let mut r = [_mm256_setzero_si256(); 4];
            for (i, r) in r.iter_mut().enumerate() {
                // Row i of both groups of four rows: the groups are the register's halves.
                *r = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(half(i)), half(i + 4));
            }
            let (a, b) = (_mm256_unpacklo_epi32(r[0], r[1]), _mm256_unpacklo_epi32(r[2], r[3]));
            let (c, d) = (_mm256_unpackhi_epi32(r[0], r[1]), _mm256_unpackhi_epi32(r[2], r[3]));
            [
                _mm256_castsi256_ps(_mm256_unpacklo_epi64(a, b)),
                _mm256_castsi256_ps(_mm256_unpackhi_epi64(a, b)),
                _mm256_castsi256_ps(_mm256_unpacklo_epi64(c, d)),
                _mm256_castsi256_ps(_mm256_unpackhi_epi64(c, d)),
            ]
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::{LANES, Words};
    use crate::isa::Simd;
    use crate::isa::neon::Neon;

    type Quad = [float32x4_t; 4];

    impl Words for Neon {
        #[inline(always)]
        fn columns(self, bytes: &[u8], stride: usize) -> [Quad; 4] {
            assert!(bytes.len() >= (LANES - 1) * stride + 16);
            let mut columns = [self.splat(0.0); 4];
            for part in 0..4 {
                // SAFETY: `self` proves the instructions; rows 4·part to 4·part + 3 have 16 bytes at `i · stride`, which the length was checked for.
                unsafe {
                    let row = |i: usize| vreinterpretq_u32_u8(vld1q_u8(bytes.as_ptr().add((4 * part + i) * stride)));
                    let (a, b) = (vtrn1q_u32(row(0), row(1)), vtrn1q_u32(row(2), row(3)));
                    let (c, d) = (vtrn2q_u32(row(0), row(1)), vtrn2q_u32(row(2), row(3)));
                    let wide = |v: uint32x4_t| vreinterpretq_u64_u32(v);
                    columns[0][part] = vreinterpretq_f32_u64(vtrn1q_u64(wide(a), wide(b)));
                    columns[1][part] = vreinterpretq_f32_u64(vtrn1q_u64(wide(c), wide(d)));
                    columns[2][part] = vreinterpretq_f32_u64(vtrn2q_u64(wide(a), wide(b)));
                    columns[3][part] = vreinterpretq_f32_u64(vtrn2q_u64(wide(c), wide(d)));
                }
            }
            columns
        }
        #[inline(always)]
        fn shift_right(self, v: Quad, by: u32) -> Quad {
            shift(v, -by.cast_signed())
        }
        #[inline(always)]
        fn shift_left(self, v: Quad, by: u32) -> Quad {
            shift(v, by.cast_signed())
        }
    }

    #[inline(always)]
    fn shift(mut v: Quad, by: i32) -> Quad {
        for v in &mut v {
            // SAFETY: NEON is part of every aarch64.
            *v = unsafe { vreinterpretq_f32_u32(vshlq_u32(vreinterpretq_u32_f32(*v), vdupq_n_s32(by))) };
        }
        v
    }
}
