//! The Hessian of a layer's squared error in one matrix's weights: Σ x·xᵀ of what the matrix is multiplied with (the same for every row of it). What is changed in one weight can then be
//! made good in the others, which is what SparseGPT and GPTQ do.

mod factor;
#[cfg(test)]
pub mod tests;

use rayon::prelude::*;

use super::ModelError;
use super::decoder::Gather;
use crate::kernels::gemm::{Mat, Write, matmul};

/// Gathered from a matrix's inputs: products in f32 for the rows of one pass, their sum in f64 and in the text's order.
#[derive(Clone, Debug, Default)]
pub struct Hessian {
    pub columns: usize,
    /// How many x were added up.
    pub rows: u64,
    /// Columns × columns.
    sums: Vec<f64>,
    product: Vec<f32>,
}

impl Gather for Hessian {
    /// The sums, a pass's products, and the three squares and a half that the factor and what is carried on take.
    fn bytes(columns: usize) -> u64 {
        Hessian::square(columns).saturating_mul(5)
    }

    fn add(&mut self, x: &[f32], columns: usize) {
        let rows = x.len() / columns;
        self.columns = columns;
        self.rows += rows as u64;
        self.sums.resize(columns * columns, 0.0);
        self.product.resize(columns * columns, 0.0);
        matmul(Mat::new(x, rows, columns).t(), Mat::new(x, rows, columns), &mut self.product, Write::Set);
        self.sums.par_chunks_mut(columns).zip(self.product.par_chunks(columns)).for_each(|(sums, products)| {
            sums.iter_mut().zip(products).for_each(|(sum, product)| *sum += f64::from(*product));
        });
    }
}

impl Hessian {
    /// Bytes of a matrix of f64 with so many columns and rows.
    fn square(columns: usize) -> u64 {
        (columns as u64).saturating_mul(columns as u64).saturating_mul(8)
    }

    /// Σx² of each column.
    pub fn diagonal(&self) -> Vec<f64> {
        self.sums.iter().step_by(self.columns + 1).copied().collect()
    }

    /// Of weights that are off by `error`, Σ (x · error)²: what it adds to the squared error of the matrix's output.
    pub fn cost(&self, error: &[f64]) -> f64 {
        let product = |row: &[f64]| row.iter().zip(error).map(|(h, e)| h * e).sum::<f64>();
        self.sums.chunks_exact(self.columns.max(1)).zip(error).map(|(row, e)| e * product(row)).sum()
    }

    /// The upper triangular U with H⁻¹ = Uᵀ · U, row-major, where `damp` times the mean of H's diagonal was added to the diagonal. Row c of U says how an error in column c is
    /// made good in the columns behind it: by −error · U[c, j] / U[c, c].
    pub fn inverse_factor(&self, damp: f64) -> Result<Factor, ModelError> {
        let diagonal = self.diagonal();
        if diagonal.iter().any(|sum| !sum.is_finite()) {
            return Err(ModelError::NotFinite("what goes into a matrix".to_string()));
        }
        let mean = diagonal.iter().sum::<f64>() / self.columns.max(1) as f64;
        // Inputs that are never anything but 0: no error matters, and any positive diagonal says so.
        let added = if mean > 0.0 { damp * mean } else { 1.0 };
        let upper = factor::of_inverse(&self.sums, self.columns, added);
        let upper = upper.ok_or_else(|| ModelError::Input(format!("a Hessian is not positive definite with `damp` {damp}: raise it")))?;
        Ok(Factor { columns: self.columns, upper })
    }
}

/// See [`Hessian::inverse_factor`].
#[derive(Clone, Debug)]
pub struct Factor {
    pub columns: usize,
    upper: Vec<f64>,
}

impl Factor {
    /// A row; before the diagonal it is zero.
    pub fn row(&self, index: usize) -> &[f64] {
        &self.upper[index * self.columns..(index + 1) * self.columns]
    }
}
