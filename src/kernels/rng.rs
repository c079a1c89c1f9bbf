//! Random numbers as a function of (seed, stream, index): no state, so order, threads and interruption cannot matter.
//!
//! The function is Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011) with the index and the
//! stream as its counter and the seed as its key.

use super::math;

/// The four 32-bit words of one counter.
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut a, mut b, mut c, mut d] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let p = u64::from(a) * 0xD251_1F53;
        let q = u64::from(c) * 0xCD9E_8D57;
        [a, b, c, d] = [(q >> 32) as u32 ^ b ^ k0, q as u32, (p >> 32) as u32 ^ d ^ k1, p as u32];
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    [a, b, c, d]
}

fn words(seed: u64, stream: u64, index: u64) -> [u64; 2] {
    let [a, b, c, d] =
        philox([index as u32, (index >> 32) as u32, stream as u32, (stream >> 32) as u32], [seed as u32, (seed >> 32) as u32]);
    [u64::from(a) | u64::from(b) << 32, u64::from(c) | u64::from(d) << 32]
}

/// 64 random bits.
pub fn bits(seed: u64, stream: u64, index: u64) -> u64 {
    words(seed, stream, index)[0]
}

/// Uniform in [0, 1): a multiple of 2⁻²⁴.
pub fn uniform(seed: u64, stream: u64, index: u64) -> f32 {
    (bits(seed, stream, index) >> 40) as f32 * (1.0 / 16_777_216.0)
}

/// Normal with mean 0 and variance 1 (Box–Muller in f64, then rounded); at most about 8.6 from 0.
pub fn normal(seed: u64, stream: u64, index: u64) -> f32 {
    const SCALE: f64 = 1.0 / (1u64 << 53) as f64;
    let [u, v] = words(seed, stream, index);
    let u = ((u >> 11) + 1) as f64 * SCALE;
    let v = (v >> 11) as f64 * SCALE;
    ((-2.0 * math::ln64(u)).sqrt() * math::cos64(std::f64::consts::TAU * v)) as f32
}

/// Uniform among 0..n, off by at most n / 2⁶⁴; 0 for n = 0.
pub fn below(seed: u64, stream: u64, index: u64, n: u64) -> u64 {
    ((u128::from(bits(seed, stream, index)) * u128::from(n)) >> 64) as u64
}

/// Fisher–Yates from the last item down: item i changes places with `below(seed, stream, i, i + 1)`.
pub fn shuffle<T>(items: &mut [T], seed: u64, stream: u64) {
    for i in (1..items.len()).rev() {
        let j = below(seed, stream, i as u64, i as u64 + 1);
        items.swap(i, j as usize);
    }
}
