//! The squares of what goes into a matrix, added up column by column in f64 and in the text's order.

use rayon::prelude::*;

use crate::model::decoder::Gather;

/// Columns that one thread adds up.
const PIECE: usize = 64;

#[derive(Clone, Debug, Default)]
pub struct Squares {
    /// Σx² of each column.
    pub sums: Vec<f64>,
    pub rows: u64,
}

impl Gather for Squares {
    fn bytes(columns: usize) -> u64 {
        columns as u64 * 8
    }

    fn add(&mut self, x: &[f32], columns: usize) {
        self.sums.resize(columns, 0.0);
        self.rows += (x.len() / columns) as u64;
        self.sums.par_chunks_mut(PIECE).enumerate().for_each(|(piece, sums)| {
            for row in x.chunks_exact(columns) {
                for (sum, value) in sums.iter_mut().zip(&row[piece * PIECE..]) {
                    *sum += f64::from(*value) * f64::from(*value);
                }
            }
        });
    }
}
