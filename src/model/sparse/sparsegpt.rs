//! SparseGPT (Frantar and Alistarh, 2023): column by column, a row's weights that matter least go, and those behind them are moved so that the row's output on the text changes least.

use rayon::prelude::*;

use super::{Pattern, mark_smallest, share};
use crate::model::hessian::Factor;

/// Prunes a matrix, whose inputs' Hessian has this factor. `block` columns are chosen among at a time; groups must not cross a block's end.
pub fn prune(values: &mut [f32], factor: &Factor, pattern: Pattern, block: usize) {
    let columns = factor.columns;
    let rows = values.len() / columns;
    let mut weights: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
    let mut done = 0;
    for start in (0..columns).step_by(block) {
        let end = columns.min(start + block);
        let width = end - start;
        let mut marks = vec![false; rows * width];
        if let Pattern::Unstructured { ratio, .. } = pattern {
            let scores: Vec<f32> = weights.par_chunks(columns).flat_map_iter(|row| (start..end).map(|c| score(row, factor, c))).collect();
            // What rounding leaves over goes to the next block, so that the whole matrix has its share.
            let count = share(ratio, rows * end) - done;
            done += count;
            mark_smallest(&scores, count, &mut marks);
        }
        weights.par_chunks_mut(columns).zip(marks.par_chunks_mut(width)).for_each(|(row, marks)| {
            let mut errors = vec![0.0; width];
            for column in start..end {
                choose_group(row, factor, pattern, column, start, marks);
                if !marks[column - start] {
                    continue;
                }
                let by = factor.row(column);
                let error = row[column] / by[column];
                errors[column - start] = error;
                row[column] = 0.0;
                make_good(&mut row[column + 1..end], error, &by[column + 1..end]);
            }
            for (column, error) in (start..end).zip(errors).filter(|(_, error)| *error != 0.0) {
                make_good(&mut row[end..], error, &factor.row(column)[end..]);
            }
        });
    }
    values.iter_mut().zip(&weights).for_each(|(value, weight)| *value = *weight as f32);
}

/// At the first column of a group: which of its weights go, as the columns before have left them.
fn choose_group(row: &[f64], factor: &Factor, pattern: Pattern, column: usize, start: usize, marks: &mut [bool]) {
    let Pattern::Groups { zeros, of } = pattern else { return };
    if column.is_multiple_of(of) {
        let end = row.len().min(column + of);
        let scores: Vec<f32> = (column..end).map(|column| score(row, factor, column)).collect();
        mark_smallest(&scores, zeros, &mut marks[column - start..end - start]);
    }
}

/// What it costs to set a weight to zero, the best made of it: w² / (H⁻¹ of the columns from here on)cc, up to a factor.
fn score(row: &[f64], factor: &Factor, column: usize) -> f32 {
    let ratio = row[column] / factor.row(column)[column];
    (ratio * ratio) as f32
}

fn make_good(weights: &mut [f64], error: f64, by: &[f64]) {
    weights.iter_mut().zip(by).for_each(|(weight, by)| *weight -= error * by);
}
