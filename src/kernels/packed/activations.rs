//! Rows of x in eight bits: blocks of 32 along k with one scale each.

/// Values of an activation block.
pub const BLOCK: usize = 32;

/// Below this a block counts as zeros: 127 / top has to be a number.
const TINY: f32 = f32::from_bits((127 - 100) << 23);

/// Adding it leaves no bits for a fraction: the sum is rounded to the nearest whole number, halves to even, which its low bits hold.
const MAGIC: f32 = 12_582_912.0;

/// One block: x ≈ d · q. A block that is not finite has d = NaN.
pub fn quantize(x: &[f32; BLOCK]) -> (f32, [i8; BLOCK]) {
    // Magnitudes compare as their bits do, and NaN is above infinity.
    let top = f32::from_bits(x.iter().fold(0, |top, x| top.max(x.to_bits() & 0x7fff_ffff)));
    if !top.is_finite() {
        return (f32::NAN, [0; BLOCK]);
    }
    if top < TINY {
        return (0.0, [0; BLOCK]);
    }
    let scale = 127.0 / top;
    let mut q = [0; BLOCK];
    for (q, x) in q.iter_mut().zip(x) {
        *q = x.mul_add(scale, MAGIC).to_bits().wrapping_sub(MAGIC.to_bits()) as i8;
    }
    (top / 127.0, q)
}
