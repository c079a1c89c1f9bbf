//! Sixteen groups of values at a time, lane g of every vector belonging to group g: sums run along a lane and never across, so neither the instruction
//! set nor the group's neighbours can change a bit of them.

use half::f16;

use crate::kernels::isa::{LANES, Simd};

/// Adding 1.5 · 2²³ leaves no bits for a fraction: the sum is rounded to a whole number (halves to even), which its lowest bits hold as two's
/// complement. Exact for |value| < 2²².
pub const MAGIC: f32 = 12_582_912.0;

/// Sixteen groups of `N` values and what an error of each value costs.
#[derive(Debug)]
pub struct Set<S: Simd, const N: usize> {
    pub x: [S::V; N],
    pub w: [S::V; N],
}

/// What the square of an error costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// The same for each value.
    Even,
    /// The value's importance.
    Given,
    /// The value's importance times √(2 r² + x²), r the root of the mean square.
    Important,
}

impl<S: Simd, const N: usize> Set<S, N> {
    /// `x` and `importance` hold 16 × N values, group by group; mean squares are over `lanes` groups each.
    #[inline(always)]
    pub fn new(s: S, x: &[f32], importance: &[f32], cost: Cost, lanes: usize) -> Set<S, N> {
        let mut set = Set { x: columns(s, x), w: [s.splat(1.0); N] };
        if cost == Cost::Even {
            return set;
        }
        set.w = columns(s, importance);
        if cost == Cost::Given {
            return set;
        }
        let mut square = s.splat(0.0);
        for x in &set.x {
            square = s.fma(*x, *x, square);
        }
        let mean = s.mul(share(s, square, lanes, |a, b| a + b), s.splat(1.0 / (lanes * N) as f32));
        let twice = s.add(mean, mean);
        for i in 0..N {
            let x = set.x[i];
            set.w[i] = s.mul(set.w[i], s.sqrt(s.fma(x, x, twice)));
        }
        set
    }
}

/// Value i of each group, for each i.
#[inline(always)]
pub fn columns<S: Simd, const N: usize>(s: S, groups: &[f32]) -> [S::V; N] {
    let mut columns = [s.splat(0.0); N];
    for (part, columns) in columns.chunks_exact_mut(LANES).enumerate() {
        columns.copy_from_slice(&s.transpose(&groups[part * LANES..], N));
    }
    columns
}

/// The reverse of [`columns`] for whole numbers, of which the lowest byte is kept.
#[inline(always)]
pub fn bytes<S: Simd, const N: usize>(s: S, columns: &[S::V; N], groups: &mut [u8]) {
    let mut values = [[0.0; LANES]; N];
    for (values, column) in values.iter_mut().zip(columns) {
        *values = s.to_array(s.add(*column, s.splat(MAGIC)));
    }
    for part in 0..N / LANES {
        let rows = s.transpose(values[part * LANES..].as_flattened(), LANES);
        for (group, row) in rows.iter().enumerate() {
            let row = s.to_array(*row);
            for (byte, value) in groups[group * N + part * LANES..][..LANES].iter_mut().zip(row) {
                *byte = value.to_bits() as u8;
            }
        }
    }
}

/// Halves to even.
#[inline(always)]
pub fn nearest<S: Simd>(s: S, v: S::V) -> S::V {
    s.sub(s.add(v, s.splat(MAGIC)), s.splat(MAGIC))
}

/// Within low..=high; `high` where it is NaN.
#[inline(always)]
pub fn clamp<S: Simd>(s: S, v: S::V, low: f32, high: f32) -> S::V {
    s.max(s.min(v, s.splat(high)), s.splat(low))
}

/// 1 / v, and 0 where that is beyond f32 or v is 0.
#[inline(always)]
pub fn inverse<S: Simd>(s: S, v: S::V) -> S::V {
    let tiny = s.splat(f32::MIN_POSITIVE);
    let inverse = s.div(s.splat(1.0), v);
    s.select_less(magnitude(s, v), tiny, s.splat(0.0), inverse)
}

#[inline(always)]
pub fn magnitude<S: Simd>(s: S, v: S::V) -> S::V {
    s.and(v, s.bits(0x7fff_ffff))
}

/// Combines `lanes` lanes each, and gives the result to all of them.
#[inline(always)]
pub fn share<S: Simd>(s: S, v: S::V, lanes: usize, combine: impl Fn(f32, f32) -> f32) -> S::V {
    let mut values = s.to_array(v);
    for part in values.chunks_exact_mut(lanes) {
        let all = part.iter().copied().reduce(&combine).unwrap_or(0.0);
        part.fill(all);
    }
    s.load(&values)
}

/// Rounded to f16, as the file keeps them; it holds no infinity.
#[inline(always)]
pub fn halves<S: Simd>(s: S, v: S::V) -> S::V {
    let mut values = s.to_array(v);
    for value in &mut values {
        *value = f16::from_f32(value.clamp(-65504.0, 65504.0)).to_f32();
    }
    s.load(&values)
}
