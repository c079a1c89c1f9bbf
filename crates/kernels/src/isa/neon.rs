//! The vector as four NEON registers.

use std::arch::aarch64::*;

use super::{LANES, Simd};

/// Proof that the processor has NEON.
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

impl Neon {
    /// # Safety
    /// The processor must have NEON.
    #[inline(always)]
    pub unsafe fn new() -> Neon {
        Neon(())
    }
}

type Quad = [float32x4_t; 4];

macro_rules! intrinsics {
    ($(fn $name:ident($($arg:ident),*) = $e:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: Quad),*) -> Quad {
            let quarter = |$($arg: float32x4_t),*| {
                // SAFETY: `self` proves that the processor has the instructions.
                unsafe { $e }
            };
            [quarter($($arg[0]),*), quarter($($arg[1]),*), quarter($($arg[2]),*), quarter($($arg[3]),*)]
        }
    )*};
}

impl Simd for Neon {
    type V = Quad;
    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> Quad {
        // SAFETY: `self` proves that the processor has the instruction.
        [unsafe { vdupq_n_f32(x) }; 4]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Quad {
        let x = x.as_ptr();
        // SAFETY: `self` proves the instruction, the reference that 16 floats can be read.
        unsafe { [vld1q_f32(x), vld1q_f32(x.add(4)), vld1q_f32(x.add(8)), vld1q_f32(x.add(12))] }
    }
    #[inline(always)]
    fn to_array(self, v: Quad) -> [f32; LANES] {
        let mut to = [0.0; LANES];
        self.store(v, &mut to);
        to
    }
    #[inline(always)]
    fn store(self, v: Quad, to: &mut [f32; LANES]) {
        let to = to.as_mut_ptr();
        // SAFETY: `self` proves the instruction, the reference that 16 floats can be written.
        unsafe {
            vst1q_f32(to, v[0]);
            vst1q_f32(to.add(4), v[1]);
            vst1q_f32(to.add(8), v[2]);
            vst1q_f32(to.add(12), v[3]);
        }
    }
    intrinsics! {
        fn add(a, b) = vaddq_f32(a, b);
        fn sub(a, b) = vsubq_f32(a, b);
        fn mul(a, b) = vmulq_f32(a, b);
        fn div(a, b) = vdivq_f32(a, b);
        fn fma(a, b, c) = vfmaq_f32(c, a, b);
        fn sqrt(a) = vsqrtq_f32(a);
        fn max(a, b) = vbslq_f32(vcgtq_f32(a, b), a, b);
        fn min(a, b) = vbslq_f32(vcltq_f32(a, b), a, b);
        fn select_less(a, b, yes, no) = vbslq_f32(vcltq_f32(a, b), yes, no);
        fn and(a, b) = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)));
        fn or(a, b) = vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)));
        fn integer_add(a, b) = vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)));
        fn integer_sub(a, b) = vreinterpretq_f32_u32(vsubq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)));
        fn integer_half(a) = vreinterpretq_f32_s32(vshrq_n_s32::<1>(vreinterpretq_s32_f32(a)));
        fn exponent_up(a) = vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(a)));
        fn exponent_down(a) = vreinterpretq_f32_u32(vshrq_n_u32::<23>(vreinterpretq_u32_f32(a)));
        fn integer_to_float(a) = vcvtq_f32_s32(vreinterpretq_s32_f32(a));
    }
}
