//! The scales of a K block: small integers times one f16 scale (and one f16 minimum) for all 256 values. Rounding the groups' scales to that grid is where
//! quality is lost, so their neighbours are tried and the shared scale is fitted again to what was chosen.

use half::f16;

use super::SUPER_BLOCK;
use super::search::{Affine, affine, affine_error, affine_level, inverse, symmetric, symmetric_error, symmetric_level};

/// Rounds of choosing small integers and fitting the shared scales to them.
const ROUNDS: usize = 3;

/// value = d · scales[g] · q − dmin · mins[g], g the value's group. Types with fewer than 16 groups leave the rest 0.
#[derive(Clone, Copy, Debug)]
pub struct AffineGrid {
    pub d: f16,
    pub dmin: f16,
    pub scales: [u8; 16],
    pub mins: [u8; 16],
    pub q: [u8; SUPER_BLOCK],
}

/// value = d · scales[g] · q, g the value's group of 16.
#[derive(Clone, Copy, Debug)]
pub struct SymmetricGrid {
    pub d: f16,
    pub scales: [i8; 16],
    pub q: [i8; SUPER_BLOCK],
}

/// Groups of `N` values with levels 0..=top and scales 0..=scale_top.
pub fn affine_grid<const N: usize>(x: &[f32; SUPER_BLOCK], top: u8, scale_top: u8) -> AffineGrid {
    let (groups, _) = x.as_chunks::<N>();
    let top = f32::from(top);
    let mut ideal = [Affine::default(); 16];
    ideal.iter_mut().zip(groups).for_each(|(ideal, group)| *ideal = affine(group, top));
    let most = |of: fn(&Affine) -> f32| ideal.iter().map(of).fold(0.0f32, f32::max);
    let mut d = f16::from_f32(most(|a| a.scale) / f32::from(scale_top));
    let mut dmin = f16::from_f32(most(|a| a.min) / f32::from(scale_top));
    let mut best = None;
    for _ in 0..ROUNDS {
        let (grid, error) = choose_affine::<N>(groups, &ideal, d, dmin, top, scale_top);
        (d, dmin) = refit_affine::<N>(x, &grid);
        if !keep(&mut best, grid, error) {
            break;
        }
    }
    best.map_or_else(|| choose_affine::<N>(groups, &ideal, d, dmin, top, scale_top).0, |(grid, _)| grid)
}

/// Groups of 16 values with levels −top..top and scales −scale_top..scale_top.
pub fn symmetric_grid(x: &[f32; SUPER_BLOCK], top: u8, scale_top: u8) -> SymmetricGrid {
    let (groups, _) = x.as_chunks::<16>();
    let top = f32::from(top);
    let mut ideal = [0.0f32; 16];
    ideal.iter_mut().zip(groups).for_each(|(ideal, group)| *ideal = symmetric(group, top));
    let largest = ideal.iter().fold(0.0f32, |most, &scale| if most.abs() < scale.abs() { scale } else { most });
    let mut d = f16::from_f32(largest / -f32::from(scale_top));
    let mut best = None;
    for _ in 0..ROUNDS {
        let (grid, error) = choose_symmetric(groups, &ideal, d, top, scale_top);
        d = refit_symmetric(x, &grid);
        if !keep(&mut best, grid, error) {
            break;
        }
    }
    best.map_or_else(|| choose_symmetric(groups, &ideal, d, top, scale_top).0, |(grid, _)| grid)
}

fn keep<T>(best: &mut Option<(T, f32)>, grid: T, error: f32) -> bool {
    let better = best.as_ref().is_none_or(|(_, least)| error < *least);
    if better {
        *best = Some((grid, error));
    }
    better
}

/// For every group the best of the nine integer pairs around its ideal.
fn choose_affine<const N: usize>(
    groups: &[[f32; N]],
    ideal: &[Affine; 16],
    d: f16,
    dmin: f16,
    top: f32,
    scale_top: u8,
) -> (AffineGrid, f32) {
    let mut grid = AffineGrid { d, dmin, scales: [0; 16], mins: [0; 16], q: [0; SUPER_BLOCK] };
    let (d, dmin) = (d.to_f32(), dmin.to_f32());
    let mut total = 0.0;
    for (g, (group, ideal)) in groups.iter().zip(ideal).enumerate() {
        let mut least = f32::INFINITY;
        for scale in around(ideal.scale * inverse(d), 0, i32::from(scale_top)) {
            for min in around(ideal.min * inverse(dmin), 0, i32::from(scale_top)) {
                let error = affine_error(group, Affine { scale: d * scale as f32, min: dmin * min as f32 }, top);
                if error < least {
                    least = error;
                    (grid.scales[g], grid.mins[g]) = (scale as u8, min as u8);
                }
            }
        }
        total += least;
        let (scale, min) = (d * f32::from(grid.scales[g]), dmin * f32::from(grid.mins[g]));
        let inverse = inverse(scale);
        for (q, &value) in grid.q[g * N..].iter_mut().zip(group) {
            *q = affine_level(value, min, inverse, top) as u8;
        }
    }
    (grid, total)
}

/// For every group the best of the three integers around its ideal.
fn choose_symmetric(groups: &[[f32; 16]], ideal: &[f32; 16], d: f16, top: f32, scale_top: u8) -> (SymmetricGrid, f32) {
    let mut grid = SymmetricGrid { d, scales: [0; 16], q: [0; SUPER_BLOCK] };
    let d = d.to_f32();
    let mut total = 0.0;
    for (g, (group, ideal)) in groups.iter().zip(ideal).enumerate() {
        let mut least = f32::INFINITY;
        for scale in around(ideal * inverse(d), -i32::from(scale_top), i32::from(scale_top) - 1) {
            let error = symmetric_error(group, d * scale as f32, top);
            if error < least {
                least = error;
                grid.scales[g] = scale as i8;
            }
        }
        total += least;
        let inverse = inverse(d * f32::from(grid.scales[g]));
        for (q, &value) in grid.q[g * 16..].iter_mut().zip(group) {
            *q = symmetric_level(value, inverse, top) as i8;
        }
    }
    (grid, total)
}

/// Least squares for d and dmin over the whole block, its integers fixed.
fn refit_affine<const N: usize>(x: &[f32; SUPER_BLOCK], grid: &AffineGrid) -> (f16, f16) {
    let (mut aa, mut ab, mut bb, mut ax, mut bx) = (0.0f64, 0.0f64, 0.0f64, 0.0f64, 0.0f64);
    for (i, &value) in x.iter().enumerate() {
        let a = f64::from(u32::from(grid.scales[i / N]) * u32::from(grid.q[i]));
        let b = -f64::from(grid.mins[i / N]);
        let value = f64::from(value);
        aa += a * a;
        ab += a * b;
        bb += b * b;
        ax += a * value;
        bx += b * value;
    }
    let determinant = aa * bb - ab * ab;
    if determinant > 0.0 {
        let d = (ax * bb - bx * ab) / determinant;
        let dmin = (bx * aa - ax * ab) / determinant;
        if d > 0.0 && dmin > 0.0 {
            return (f16::from_f32(d as f32), f16::from_f32(dmin as f32));
        }
    }
    // All minima 0, say: the scale alone.
    if aa > 0.0 && bb == 0.0 && ax > 0.0 { (f16::from_f32((ax / aa) as f32), grid.dmin) } else { (grid.d, grid.dmin) }
}

fn refit_symmetric(x: &[f32; SUPER_BLOCK], grid: &SymmetricGrid) -> f16 {
    let (mut aa, mut ax) = (0.0f64, 0.0f64);
    for (i, &value) in x.iter().enumerate() {
        let a = f64::from(i32::from(grid.scales[i / 16]) * i32::from(grid.q[i]));
        aa += a * a;
        ax += a * f64::from(value);
    }
    if aa > 0.0 { f16::from_f32((ax / aa) as f32) } else { grid.d }
}

/// The whole number nearest to `ideal` within low..=high, and its neighbours there.
fn around(ideal: f32, low: i32, high: i32) -> std::ops::RangeInclusive<i32> {
    let nearest = (ideal.clamp(low as f32, high as f32) + if ideal < 0.0 { -0.5 } else { 0.5 }) as i32;
    (nearest - 1).max(low)..=(nearest + 1).min(high)
}
