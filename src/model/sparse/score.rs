//! Weights that go by their score alone: |w| (magnitude), or |w| · ‖x‖₂ of the column's inputs (Wanda; Sun et al., 2023). The others stay as they are.

use rayon::prelude::*;

use super::{Pattern, Per, mark_smallest, share};

/// Sets the weights of a matrix that have the smallest |w| · `norms` of their column to zero; without norms those with the smallest |w|.
pub fn prune(values: &mut [f32], columns: usize, pattern: Pattern, norms: Option<&[f32]>) {
    let score = |(column, value): (usize, &f32)| value.abs() * norms.map_or(1.0, |norms| norms[column]);
    let clear = |values: &mut [f32], marks: &[bool]| {
        values.iter_mut().zip(marks).filter(|(_, marked)| **marked).for_each(|(value, _)| *value = 0.0);
    };
    let by_row = |row: &mut [f32]| {
        let scores: Vec<f32> = row.iter().enumerate().map(score).collect();
        let mut marks = vec![false; row.len()];
        match pattern {
            Pattern::Unstructured { ratio, .. } => mark_smallest(&scores, share(ratio, columns), &mut marks),
            Pattern::Groups { zeros, of } => {
                scores.chunks(of).zip(marks.chunks_mut(of)).for_each(|(scores, marks)| mark_smallest(scores, zeros, marks));
            }
        }
        clear(row, &marks);
    };
    if let Pattern::Unstructured { ratio, per: Per::Layer } = pattern {
        let scores: Vec<f32> = values.par_chunks(columns).flat_map_iter(|row| row.iter().enumerate().map(score)).collect();
        let mut marks = vec![false; values.len()];
        mark_smallest(&scores, share(ratio, values.len()), &mut marks);
        clear(values, &marks);
        return;
    }
    values.par_chunks_mut(columns).for_each(by_row);
}

/// ‖x‖₂ of each column, from Σx².
pub fn norms(sums: &[f64]) -> Vec<f32> {
    sums.iter().map(|sum| sum.sqrt() as f32).collect()
}
