//! A vector that is added to every row, its gradient, and the two plain operations of residual streams: adding and scaling.

use rayon::prelude::*;

/// Rows whose gradients are summed one after another; the sums of the groups are then added in order.
const GROUP_ROWS: usize = 64;
/// Elements of one task.
const BLOCK: usize = 1 << 14;

/// `y += bias` for rows of `bias.len()`.
pub fn bias_forward(bias: &[f32], y: &mut [f32]) {
    assert!(!bias.is_empty() && y.len().is_multiple_of(bias.len()), "bias_forward: shapes disagree");
    y.par_chunks_mut(GROUP_ROWS * bias.len()).for_each(|y| y.chunks_exact_mut(bias.len()).for_each(|row| add_row(bias, row)));
}

/// Adds to `dbias` the sum of the rows of `dy`.
pub fn bias_backward(dy: &[f32], dbias: &mut [f32]) {
    assert!(!dbias.is_empty() && dy.len().is_multiple_of(dbias.len()), "bias_backward: shapes disagree");
    let groups = dy.par_chunks(GROUP_ROWS * dbias.len());
    let partial: Vec<Vec<f32>> = groups
        .map(|dy| {
            let mut sum = vec![0.0; dbias.len()];
            dy.chunks_exact(sum.len()).for_each(|row| add_row(row, &mut sum));
            sum
        })
        .collect();
    partial.iter().for_each(|sum| add_row(sum, dbias));
}

/// `y += x`
pub fn add(x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "add: shapes disagree");
    y.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(y, x)| add_row(x, y));
}

/// `x *= factor`
pub fn scale(x: &mut [f32], factor: f32) {
    x.par_chunks_mut(BLOCK).for_each(|x| x.iter_mut().for_each(|x| *x *= factor));
}

/// One addition an element, so that no width of vectors can change it.
fn add_row(x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += *x;
    }
}
