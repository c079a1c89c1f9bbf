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

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of the authors' own test suite (Random123, `kat_vectors`).
    #[test]
    fn philox_gives_the_known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(philox(pi, [0xa409_3822, 0x299f_31d0]), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn the_distributions_have_their_moments() {
        let n = 100_000;
        let moments = |f: &dyn Fn(u64) -> f64| {
            let (sum, squares) = (0..n).map(f).fold((0.0, 0.0), |(s, q), x| (s + x, q + x * x));
            (sum / n as f64, squares / n as f64)
        };
        let (mean, square) = moments(&|i| f64::from(normal(1, 2, i)));
        assert!(mean.abs() < 0.01 && (square - 1.0).abs() < 0.02, "{mean} {square}");
        let (mean, square) = moments(&|i| f64::from(uniform(1, 3, i)));
        assert!((mean - 0.5).abs() < 0.005 && (square - 1.0 / 3.0).abs() < 0.005, "{mean} {square}");
        let mut counts = [0; 7];
        (0..70_000).for_each(|i| counts[below(1, 4, i, 7) as usize] += 1);
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        assert_eq!((below(1, 4, 0, 0), below(1, 4, 0, 1)), (0, 0));
    }

    #[test]
    fn seeds_streams_and_indices_are_independent() {
        let all = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1 << 32, 0, 0), (0, 1 << 32, 0), (0, 0, 1 << 32)];
        let mut seen: Vec<u64> = all.iter().map(|(seed, stream, index)| bits(*seed, *stream, *index)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), all.len());
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..1000).collect();
        shuffle(&mut items, 1, 2);
        assert!(items.iter().enumerate().filter(|(i, item)| *i as u32 == **item).count() < 10);
        items.sort_unstable();
        assert_eq!(items, (0..1000).collect::<Vec<_>>());
        shuffle::<u32>(&mut [], 1, 2);
    }
}
