//! Elementary functions that give the same bits on every machine: our own f32 polynomials, and f64 through the pure-Rust `libm`.
//!
//! The vector forms are the definition; the scalar forms run them in one lane. Coefficients: Cephes `expf.c`, `logf.c`, `tanhf.c`.

use super::isa::Simd;
use super::isa::portable::Portable;

/// e^x: a degree-5 polynomial on [−ln 2 / 2, ln 2 / 2], scaled by 2^n in two steps so that subnormal results are rounded once. NaN stays NaN.
#[inline(always)]
pub fn exp_v<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.min(s.splat(89.0), s.max(s.splat(-104.0), x));
    // Adding 1.5 · 2^23 leaves the nearest integer in the low bits.
    let shift = s.splat(12_582_912.0);
    let n_bits = s.fma(x, s.splat(std::f32::consts::LOG2_E), shift);
    let n = s.sub(n_bits, shift);
    let r = s.fma(n, s.splat(-0.693_359_4), x);
    let r = s.fma(n, s.splat(2.121_944_4e-4), r);
    let mut p = s.splat(1.987_569_2e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = s.fma(p, r, s.splat(c));
    }
    let p = s.add(s.fma(p, s.mul(r, r), r), s.splat(1.0));
    let n = s.integer_sub(n_bits, shift);
    let half = s.integer_half(n);
    let bias = s.bits(127);
    let low = s.exponent_up(s.integer_add(half, bias));
    let high = s.exponent_up(s.integer_add(s.integer_sub(n, half), bias));
    s.mul(s.mul(p, low), high)
}

/// The natural logarithm. ln 0 = −∞; of negative numbers and NaN it is NaN.
#[inline(always)]
pub fn ln_v<S: Simd>(s: S, x: S::V) -> S::V {
    let tiny = s.splat(f32::MIN_POSITIVE);
    // Subnormals are scaled by 2^23 first, exactly.
    let scaled = s.select_less(x, tiny, s.mul(x, s.splat(8_388_608.0)), x);
    let shift = s.select_less(x, tiny, s.splat(-23.0), s.splat(0.0));
    // x = 2^e · m with m in [√½, √2).
    let offset = s.bits(0x3f35_04f3);
    let e_bits = s.exponent_down(s.integer_add(s.integer_sub(scaled, offset), s.bits(127 << 23)));
    let e = s.integer_sub(e_bits, s.bits(127));
    let m = s.integer_sub(scaled, s.exponent_up(e));
    let e = s.add(s.integer_to_float(e), shift);
    let f = s.sub(m, s.splat(1.0));
    let mut p = s.splat(7.037_683_6e-2);
    for c in
        [-1.151_461e-1, 1.167_699_9e-1, -1.242_014_1e-1, 1.424_932_3e-1, -1.666_805_7e-1, 2.000_071_5e-1, -2.499_999_4e-1, 3.333_333e-1]
    {
        p = s.fma(p, f, s.splat(c));
    }
    let f2 = s.mul(f, f);
    let y = s.mul(s.mul(p, f), f2);
    let y = s.fma(e, s.splat(-2.121_944_4e-4), y);
    let y = s.fma(f2, s.splat(-0.5), y);
    let y = s.fma(e, s.splat(0.693_359_4), s.add(f, y));
    ln_edges(s, x, y)
}

/// The arguments that the polynomial cannot serve: ±0, ∞, negative numbers, NaN.
#[inline(always)]
fn ln_edges<S: Simd>(s: S, x: S::V, y: S::V) -> S::V {
    let zero = s.splat(0.0);
    let y = s.select_less(zero, x, y, s.splat(f32::NEG_INFINITY));
    let y = s.select_less(x, zero, s.splat(f32::NAN), y);
    let y = s.select_less(s.splat(f32::MAX), x, s.splat(f32::INFINITY), y);
    // A NaN is less than nothing, and nothing is less than it.
    let ordered = s.select_less(x, s.splat(f32::INFINITY), s.splat(1.0), s.select_less(zero, x, s.splat(1.0), zero));
    s.select_less(zero, ordered, y, s.splat(f32::NAN))
}

/// 1 / (1 + e^−x), without loss for large negative x.
#[inline(always)]
pub fn sigmoid_v<S: Simd>(s: S, x: S::V) -> S::V {
    let e = exp_v(s, s.sub(s.splat(0.0), abs_v(s, x)));
    let numerator = s.select_less(x, s.splat(0.0), e, s.splat(1.0));
    s.div(numerator, s.add(s.splat(1.0), e))
}

/// The hyperbolic tangent: an odd polynomial below 0.625, 1 − 2 / (e^2|x| + 1) above.
#[inline(always)]
pub fn tanh_v<S: Simd>(s: S, x: S::V) -> S::V {
    let a = abs_v(s, x);
    let sign = s.and(x, s.bits(1 << 31));
    let e = exp_v(s, s.add(a, a));
    let far = s.sub(s.splat(1.0), s.div(s.splat(2.0), s.add(e, s.splat(1.0))));
    let z = s.mul(x, x);
    let mut p = s.splat(-5.704_988_7e-3);
    for c in [2.063_909e-2, -5.373_971_7e-2, 1.333_144_2e-1, -3.333_328_3e-1] {
        p = s.fma(p, z, s.splat(c));
    }
    let near = s.fma(s.mul(p, z), a, a);
    s.or(s.select_less(s.splat(0.625), a, far, near), sign)
}

#[inline(always)]
fn abs_v<S: Simd>(s: S, x: S::V) -> S::V {
    s.and(x, s.bits(0x7fff_ffff))
}

pub fn exp(x: f32) -> f32 {
    exp_v(Portable, [x; 16])[0]
}

pub fn ln(x: f32) -> f32 {
    ln_v(Portable, [x; 16])[0]
}

pub fn sigmoid(x: f32) -> f32 {
    sigmoid_v(Portable, [x; 16])[0]
}

pub fn tanh(x: f32) -> f32 {
    tanh_v(Portable, [x; 16])[0]
}

pub fn exp64(x: f64) -> f64 {
    libm::exp(x)
}

pub fn ln64(x: f64) -> f64 {
    libm::log(x)
}

pub fn sin64(x: f64) -> f64 {
    libm::sin(x)
}

pub fn cos64(x: f64) -> f64 {
    libm::cos(x)
}

pub fn pow64(x: f64, y: f64) -> f64 {
    libm::pow(x, y)
}

#[cfg(test)]
pub(super) mod tests;
