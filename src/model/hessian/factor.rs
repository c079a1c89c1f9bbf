//! Cholesky factors in f64. Every element is one sum in a fixed order, so threads only share out the elements.

use rayon::prelude::*;

/// Columns of one step.
const PANEL: usize = 64;
const LANES: usize = 8;

/// The upper triangular U with (A + added · I)⁻¹ = Uᵀ · U for a symmetric A of n × n; nothing if that is not positive definite.
///
/// With rows and columns reversed, A = L · Lᵀ; reversed again, A = R · Rᵀ with R upper triangular, and U = R⁻¹. So no inverse is made that would have to be factored again.
pub fn of_inverse(a: &[f64], n: usize, added: f64) -> Option<Vec<f64>> {
    let mut lower: Vec<f64> = a.iter().rev().copied().collect();
    lower.iter_mut().step_by(n + 1).for_each(|diagonal| *diagonal += added);
    cholesky(&mut lower, n)?;
    let mut inverse = inverse_of_lower(&lower, n);
    inverse.reverse();
    Some(inverse)
}

/// L with A = L · Lᵀ, over A's lower half.
fn cholesky(a: &mut [f64], n: usize) -> Option<()> {
    for start in (0..n).step_by(PANEL) {
        let end = n.min(start + PANEL);
        let (above, below) = a.split_at_mut(end * n);
        for i in start..end {
            let (before, row) = above.split_at_mut(i * n);
            let row = &mut row[..n];
            for j in start..i {
                row[j] = (row[j] - dot(&row[..j], &before[j * n..j * n + j])) / before[j * n + j];
            }
            let square = row[i] - dot(&row[..i], &row[..i]);
            if !(square > 0.0 && square.is_finite()) {
                return None;
            }
            row[i] = square.sqrt();
        }
        below.par_chunks_mut(n).for_each(|row| {
            for j in start..end {
                row[j] = (row[j] - dot(&row[..j], &above[j * n..j * n + j])) / above[j * n + j];
            }
        });
    }
    Some(())
}

/// L⁻¹, lower triangular, with zeros above. A panel of its columns needs only itself.
fn inverse_of_lower(lower: &[f64], n: usize) -> Vec<f64> {
    let panels: Vec<Vec<f64>> = (0..n)
        .into_par_iter()
        .step_by(PANEL)
        .map(|start| {
            let width = PANEL.min(n - start);
            let mut panel = vec![0.0; n * width];
            for i in start..n {
                let (before, row) = panel.split_at_mut(i * width);
                let row = &mut row[..width];
                for (k, known) in before.chunks_exact(width).enumerate().skip(start) {
                    let factor = lower[i * n + k];
                    row.iter_mut().zip(known).for_each(|(value, known)| *value -= factor * known);
                }
                if i < start + width {
                    row[i - start] += 1.0;
                }
                row.iter_mut().for_each(|value| *value /= lower[i * n + i]);
            }
            panel
        })
        .collect();
    let mut inverse = vec![0.0; n * n];
    inverse.par_chunks_mut(n.max(1)).enumerate().for_each(|(i, row)| {
        for (panel, row) in panels.iter().zip(row.chunks_mut(PANEL)) {
            let width = row.len();
            row.copy_from_slice(&panel[i * width..(i + 1) * width]);
        }
    });
    inverse
}

/// Eight sums beside each other, added up at the end: an order that vectors can follow.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    let ((a, rest_a), (b, rest_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f64 = rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}
