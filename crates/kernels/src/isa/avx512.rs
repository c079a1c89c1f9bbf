//! The vector as one AVX-512 register.

use std::arch::x86_64::*;

use super::{LANES, Simd};

/// Proof that the processor has AVX-512 F, BW, DQ and VL, AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The processor must have AVX-512 F, BW, DQ and VL, AVX2 and FMA.
    #[inline(always)]
    pub unsafe fn new() -> Avx512 {
        Avx512(())
    }
}

macro_rules! intrinsics {
    ($(fn $name:ident($($arg:ident),*) = $e:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: __m512),*) -> __m512 {
            // SAFETY: `self` proves that the processor has the instructions.
            unsafe { $e }
        }
    )*};
}

impl Simd for Avx512 {
    type V = __m512;
    const TILE_ROWS: usize = 14;
    const TILE_VECTORS: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: `self` proves that the processor has the instruction.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m512 {
        // SAFETY: `self` proves the instruction, the reference that 16 floats can be read.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn to_array(self, v: __m512) -> [f32; LANES] {
        // SAFETY: both are 64 bytes for which any bits are a value.
        unsafe { std::mem::transmute(v) }
    }
    #[inline(always)]
    fn store(self, v: __m512, to: &mut [f32; LANES]) {
        // SAFETY: `self` proves the instruction, the reference that 16 floats can be written.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn prefetch(self, x: *const f32) {
        // SAFETY: a prefetch changes nothing that a program can see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(x.cast()) }
    }

    #[inline(always)]
    fn prefetch_to_write(self, x: &f32) {
        // SAFETY: a prefetch changes nothing that a program can see.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(std::ptr::from_ref(x).cast()) }
    }
    #[inline(always)]
    fn select_less(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes) }
    }
    #[inline(always)]
    fn transpose(self, from: &[f32], stride: usize) -> [__m512; LANES] {
        assert!(from.len() >= 15 * stride + LANES);
        let mut columns = [self.splat(0.0); LANES];
        for part in 0..4 {
            // SAFETY: `self` proves the instructions; rows 0 to 15 have 16 floats at `i · stride`, which the length was checked for.
            let four = unsafe { sixteen_by_four(from.as_ptr().add(4 * part), stride) };
            columns[4 * part..4 * part + 4].copy_from_slice(&four);
        }
        columns
    }
    intrinsics! {
        fn add(a, b) = _mm512_add_ps(a, b);
        fn sub(a, b) = _mm512_sub_ps(a, b);
        fn mul(a, b) = _mm512_mul_ps(a, b);
        fn div(a, b) = _mm512_div_ps(a, b);
        fn fma(a, b, c) = _mm512_fmadd_ps(a, b, c);
        fn sqrt(a) = _mm512_sqrt_ps(a);
        fn max(a, b) = _mm512_max_ps(a, b);
        fn min(a, b) = _mm512_min_ps(a, b);
        fn and(a, b) = _mm512_and_ps(a, b);
        fn or(a, b) = _mm512_or_ps(a, b);
        fn integer_add(a, b) = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
        fn integer_sub(a, b) = _mm512_castsi512_ps(_mm512_sub_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
        fn integer_half(a) = _mm512_castsi512_ps(_mm512_srai_epi32::<1>(_mm512_castps_si512(a)));
        fn exponent_up(a) = _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(a)));
        fn exponent_down(a) = _mm512_castsi512_ps(_mm512_srli_epi32::<23>(_mm512_castps_si512(a)));
        fn integer_to_float(a) = _mm512_cvtepi32_ps(_mm512_castps_si512(a));
    }
}

/// Four columns of sixteen rows.
///
/// # Safety
/// The processor must have AVX-512 F, and each row four floats at `i · stride`.
#[inline(always)]
unsafe fn sixteen_by_four(from: *const f32, stride: usize) -> [__m512; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut r = [_mm512_setzero_ps(); 4];
        for (i, r) in r.iter_mut().enumerate() {
            // Row i of each group of four rows: the groups are the register's quarters.
            let v = _mm512_castps128_ps512(_mm_loadu_ps(from.add(i * stride)));
            let v = _mm512_insertf32x4::<1>(v, _mm_loadu_ps(from.add((i + 4) * stride)));
            let v = _mm512_insertf32x4::<2>(v, _mm_loadu_ps(from.add((i + 8) * stride)));
            *r = _mm512_insertf32x4::<3>(v, _mm_loadu_ps(from.add((i + 12) * stride)));
        }
        let (a, b) = (_mm512_castps_pd(_mm512_unpacklo_ps(r[0], r[1])), _mm512_castps_pd(_mm512_unpacklo_ps(r[2], r[3])));
        let (c, d) = (_mm512_castps_pd(_mm512_unpackhi_ps(r[0], r[1])), _mm512_castps_pd(_mm512_unpackhi_ps(r[2], r[3])));
        [
            _mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
            _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)),
            _mm512_castpd_ps(_mm512_unpacklo_pd(c, d)),
            _mm512_castpd_ps(_mm512_unpackhi_pd(c, d)),
        ]
    }
}
