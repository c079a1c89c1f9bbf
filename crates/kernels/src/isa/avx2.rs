//! The vector as two AVX2 registers.

use std::arch::x86_64::*;

use super::{LANES, Simd};

/// Proof that the processor has AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The processor must have AVX2 and FMA.
    #[inline(always)]
    pub unsafe fn new() -> Avx2 {
        Avx2(())
    }
}

/// Lanes 0 to 7 and lanes 8 to 15.
type Pair = (__m256, __m256);

macro_rules! intrinsics {
    ($(fn $name:ident($($arg:ident),*) = $e:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: Pair),*) -> Pair {
            // No closures: they would not inherit the instruction set before they are inlined.
            let low = {
                $(let $arg = $arg.0;)*
                // SAFETY: `self` proves that the processor has the instructions.
                unsafe { $e }
            };
            let high = {
                $(let $arg = $arg.1;)*
                // SAFETY: as above.
                unsafe { $e }
            };
            (low, high)
        }
    )*};
}

impl Simd for Avx2 {
    type V = Pair;
    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> Pair {
        // SAFETY: `self` proves that the processor has the instruction.
        let v = unsafe { _mm256_set1_ps(x) };
        (v, v)
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Pair {
        // SAFETY: `self` proves the instruction, the reference that 16 floats can be read.
        unsafe { (_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))) }
    }
    #[inline(always)]
    fn to_array(self, v: Pair) -> [f32; LANES] {
        let mut to = [0.0; LANES];
        self.store(v, &mut to);
        to
    }
    #[inline(always)]
    fn store(self, v: Pair, to: &mut [f32; LANES]) {
        // SAFETY: `self` proves the instruction, the reference that 16 floats can be written.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), v.0);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), v.1);
        }
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
    fn transpose(self, from: &[f32], stride: usize) -> [Pair; LANES] {
        assert!(from.len() >= 15 * stride + LANES);
        let mut columns = [self.splat(0.0); LANES];
        for part in 0..4 {
            // SAFETY: `self` proves the instructions; rows 0 to 15 have 16 floats at `i · stride`, which the length was checked for.
            unsafe {
                let from = from.as_ptr().add(4 * part);
                let (low, high) = (eight_by_four(from, stride), eight_by_four(from.add(8 * stride), stride));
                for j in 0..4 {
                    columns[4 * part + j] = (low[j], high[j]);
                }
            }
        }
        columns
    }
    intrinsics! {
        fn add(a, b) = _mm256_add_ps(a, b);
        fn sub(a, b) = _mm256_sub_ps(a, b);
        fn mul(a, b) = _mm256_mul_ps(a, b);
        fn div(a, b) = _mm256_div_ps(a, b);
        fn fma(a, b, c) = _mm256_fmadd_ps(a, b, c);
        fn sqrt(a) = _mm256_sqrt_ps(a);
        fn max(a, b) = _mm256_max_ps(a, b);
        fn min(a, b) = _mm256_min_ps(a, b);
        fn select_less(a, b, yes, no) = _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b));
        fn and(a, b) = _mm256_and_ps(a, b);
        fn or(a, b) = _mm256_or_ps(a, b);
        fn integer_add(a, b) = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
        fn integer_sub(a, b) = _mm256_castsi256_ps(_mm256_sub_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
        fn integer_half(a) = _mm256_castsi256_ps(_mm256_srai_epi32::<1>(_mm256_castps_si256(a)));
        fn exponent_up(a) = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(a)));
        fn exponent_down(a) = _mm256_castsi256_ps(_mm256_srli_epi32::<23>(_mm256_castps_si256(a)));
        fn integer_to_float(a) = _mm256_cvtepi32_ps(_mm256_castps_si256(a));
    }
}

/// Four columns of eight rows.
///
/// # Safety
/// The processor must have AVX2, and each row four floats at `i · stride`.
#[inline(always)]
unsafe fn eight_by_four(from: *const f32, stride: usize) -> [__m256; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut r = [_mm256_setzero_ps(); 4];
        for (i, r) in r.iter_mut().enumerate() {
            // Row i of both groups of four rows: the groups are the register's halves.
            let (low, high) = (_mm_loadu_ps(from.add(i * stride)), _mm_loadu_ps(from.add((i + 4) * stride)));
            *r = _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(low), high);
        }
        let (a, b) = (_mm256_castps_pd(_mm256_unpacklo_ps(r[0], r[1])), _mm256_castps_pd(_mm256_unpacklo_ps(r[2], r[3])));
        let (c, d) = (_mm256_castps_pd(_mm256_unpackhi_ps(r[0], r[1])), _mm256_castps_pd(_mm256_unpackhi_ps(r[2], r[3])));
        [
            _mm256_castpd_ps(_mm256_unpacklo_pd(a, b)),
            _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)),
            _mm256_castpd_ps(_mm256_unpacklo_pd(c, d)),
            _mm256_castpd_ps(_mm256_unpackhi_pd(c, d)),
        ]
    }
}
