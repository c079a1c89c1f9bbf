//! The search for the scale (and minimum) of one small group of values. It minimises the plain squared error: with no knowledge of the
//! activations, that is the expected error of the layer's output.
//!
//! Candidates lie around the scale that spans the group; each is followed by the least-squares fit to the levels that it gives, and the best of them is
//! refined until it stands. Sums run in eight fixed lanes; nothing here depends on the machine.

const LANES: usize = 8;

/// Candidates on each side of the spanning scale, a tenth of a level apart.
const STEPS: i32 = 10;

/// The alternation of levels and fit converges in a few rounds; the cap only bounds it.
const REFINEMENTS: usize = 6;

/// value ≈ scale · q − min with q in 0..=top and both numbers at least 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Affine {
    pub scale: f32,
    pub min: f32,
}

/// The best scale and minimum found for one group.
pub fn affine<const N: usize>(x: &[f32; N], top: f32) -> Affine {
    let low = x.iter().fold(0.0f32, |low, &value| low.min(value));
    let high = x.iter().fold(f32::MIN, |high, &value| high.max(value));
    if high <= low {
        return Affine { scale: 0.0, min: -low };
    }
    let mut best = Affine { scale: (high - low) / top, min: -low };
    let mut best_error = affine_error(x, best, top);
    for step in -STEPS..=STEPS {
        let start = Affine { scale: (high - low) / (top + 0.1 * step as f32), min: -low };
        let fitted = fit_affine(x, start, top);
        keep_better(&mut best, &mut best_error, fitted, affine_error(x, fitted, top));
    }
    for _ in 0..REFINEMENTS {
        let fitted = fit_affine(x, best, top);
        if !keep_better(&mut best, &mut best_error, fitted, affine_error(x, fitted, top)) {
            break;
        }
    }
    best
}

/// value ≈ scale · q with q in −top..top; the best scale found for one group. Its sign is free, as the levels reach one further down than up.
pub fn symmetric<const N: usize>(x: &[f32; N], top: f32) -> f32 {
    let most = x.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    if most == 0.0 {
        return 0.0;
    }
    let mut best = most / (top - 1.0);
    let mut best_error = symmetric_error(x, best, top);
    for sign in [-1.0, 1.0] {
        for step in -STEPS..=STEPS {
            let fitted = fit_symmetric(x, sign * most / (top + 0.1 * step as f32), top);
            keep_better(&mut best, &mut best_error, fitted, symmetric_error(x, fitted, top));
        }
    }
    for _ in 0..REFINEMENTS {
        let fitted = fit_symmetric(x, best, top);
        if !keep_better(&mut best, &mut best_error, fitted, symmetric_error(x, fitted, top)) {
            break;
        }
    }
    best
}

/// The level of a value, halves to even. `inverse` is 0 where the scale is.
#[inline(always)]
pub fn affine_level(value: f32, min: f32, inverse: f32, top: f32) -> f32 {
    nearest(((value + min) * inverse).clamp(0.0, top))
}

#[inline(always)]
pub fn symmetric_level(value: f32, inverse: f32, top: f32) -> f32 {
    nearest((value * inverse).clamp(-top, top - 1.0))
}

/// Sum of squared differences of a group from what its nearest levels stand for.
pub fn affine_error<const N: usize>(x: &[f32; N], by: Affine, top: f32) -> f32 {
    let inverse = inverse(by.scale);
    let [error] = sums(x, |value| {
        let gap = by.scale * affine_level(value, by.min, inverse, top) - by.min - value;
        [gap * gap]
    });
    error
}

pub fn symmetric_error<const N: usize>(x: &[f32; N], scale: f32, top: f32) -> f32 {
    let inverse = inverse(scale);
    let [error] = sums(x, |value| {
        let gap = scale * symmetric_level(value, inverse, top) - value;
        [gap * gap]
    });
    error
}

pub fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { (1.0 / scale).clamp(f32::MIN, f32::MAX) }
}

fn fit_affine<const N: usize>(x: &[f32; N], by: Affine, top: f32) -> Affine {
    let inverse = inverse(by.scale);
    let [q, qq, qx, sum] = sums(x, |value| {
        let q = affine_level(value, by.min, inverse, top);
        [q, q * q, q * value, value]
    });
    let n = N as f32;
    let determinant = n * qq - q * q;
    if determinant <= 0.0 {
        return by;
    }
    let scale = (n * qx - q * sum) / determinant;
    let offset = (qq * sum - q * qx) / determinant;
    // The minimum is stored unsigned: a positive offset becomes none, and the scale is fitted alone.
    if offset > 0.0 { Affine { scale: (qx / qq).max(0.0), min: 0.0 } } else { Affine { scale: scale.max(0.0), min: -offset } }
}

fn fit_symmetric<const N: usize>(x: &[f32; N], scale: f32, top: f32) -> f32 {
    let inverse = inverse(scale);
    let [qq, qx] = sums(x, |value| {
        let q = symmetric_level(value, inverse, top);
        [q * q, q * value]
    });
    if qq > 0.0 { qx / qq } else { scale }
}

fn keep_better<T>(best: &mut T, best_error: &mut f32, other: T, error: f32) -> bool {
    let better = error < *best_error;
    if better {
        *best = other;
        *best_error = error;
    }
    better
}

/// Adding 1.5 · 2²³ leaves no bits for a fraction, so the sum is rounded to a whole number (halves to even); exact for |value| < 2²².
#[inline(always)]
fn nearest(value: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (value + MAGIC) - MAGIC
}

/// Sums of `terms` over the group: eight lanes, then halves onto halves.
#[inline(always)]
fn sums<const N: usize, const K: usize>(x: &[f32; N], terms: impl Fn(f32) -> [f32; K]) -> [f32; K] {
    let mut lanes = [[0.0f32; LANES]; K];
    let (groups, _) = x.as_chunks::<LANES>();
    for group in groups {
        for lane in 0..LANES {
            let terms = terms(group[lane]);
            for k in 0..K {
                lanes[k][lane] += terms[k];
            }
        }
    }
    lanes.map(|l| ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7])))
}
