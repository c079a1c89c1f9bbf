//! The vector as a plain array: the definition that the other instruction sets must agree with, and what runs where there is none.

use super::{LANES, Simd};

/// No instruction set beyond what the compiler assumes.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    let mut v = [0.0; LANES];
    for (i, lane) in v.iter_mut().enumerate() {
        *lane = f(i);
    }
    v
}

#[inline(always)]
fn each_integer(f: impl Fn(usize) -> u32) -> [f32; LANES] {
    each(|i| f32::from_bits(f(i)))
}

impl Simd for Portable {
    type V = [f32; LANES];
    const TILE_ROWS: usize = 4;
    const TILE_VECTORS: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::V {
        *x
    }
    #[inline(always)]
    fn to_array(self, v: Self::V) -> [f32; LANES] {
        v
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        each(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn sqrt(self, a: Self::V) -> Self::V {
        each(|i| a[i].sqrt())
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn select_less(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V {
        each(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn and(self, a: Self::V, b: Self::V) -> Self::V {
        each_integer(|i| a[i].to_bits() & b[i].to_bits())
    }
    #[inline(always)]
    fn or(self, a: Self::V, b: Self::V) -> Self::V {
        each_integer(|i| a[i].to_bits() | b[i].to_bits())
    }
    #[inline(always)]
    fn integer_add(self, a: Self::V, b: Self::V) -> Self::V {
        each_integer(|i| a[i].to_bits().wrapping_add(b[i].to_bits()))
    }
    #[inline(always)]
    fn integer_sub(self, a: Self::V, b: Self::V) -> Self::V {
        each_integer(|i| a[i].to_bits().wrapping_sub(b[i].to_bits()))
    }
    #[inline(always)]
    fn integer_half(self, a: Self::V) -> Self::V {
        each_integer(|i| ((a[i].to_bits() as i32) >> 1) as u32)
    }
    #[inline(always)]
    fn exponent_up(self, a: Self::V) -> Self::V {
        each_integer(|i| a[i].to_bits() << 23)
    }
    #[inline(always)]
    fn exponent_down(self, a: Self::V) -> Self::V {
        each_integer(|i| a[i].to_bits() >> 23)
    }
    #[inline(always)]
    fn integer_to_float(self, a: Self::V) -> Self::V {
        each(|i| a[i].to_bits() as i32 as f32)
    }
}
