//! The low-rank part of a matrix (Hu et al., "LoRA", 2021): `y += scale · (x · aᵀ) · bᵀ`, forward and backward. `x · aᵀ` is never kept: it costs
//! next to nothing to compute again.

use std::ops::Range;

use crate::kernels::gemm::{Mat, Write, matmul};

use super::room;

/// Where the two matrices of one adapted matrix lie among the adapter's numbers.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// rank × inputs
    pub a: Range<usize>,
    /// outputs × rank
    pub b: Range<usize>,
    pub rank: usize,
    pub scale: f32,
}

impl LowRank {
    fn a<'a>(&self, adapter: &'a [f32]) -> Mat<'a> {
        Mat::new(&adapter[self.a.clone()], self.rank, self.a.len() / self.rank)
    }

    fn b<'a>(&self, adapter: &'a [f32]) -> Mat<'a> {
        Mat::new(&adapter[self.b.clone()], self.b.len() / self.rank, self.rank)
    }

    /// `low = scale · (x · aᵀ)`
    fn reduce(&self, adapter: &[f32], x: Mat, low: &mut Vec<f32>) {
        room(low, x.rows, self.rank);
        matmul(x, self.a(adapter).t(), low, Write::Set);
        low.iter_mut().for_each(|value| *value *= self.scale);
    }

    /// Adds its part of the product to `y`. `low` is scratch.
    pub(super) fn forward(&self, adapter: &[f32], x: &[f32], y: &mut [f32], low: &mut Vec<f32>) {
        let inputs = self.a.len() / self.rank;
        let x = Mat::new(x, x.len() / inputs, inputs);
        self.reduce(adapter, x, low);
        matmul(Mat::new(low, x.rows, self.rank), self.b(adapter).t(), y, Write::Add);
    }

    /// Sets both gradients and, if asked for, adds to that of `x`. `low` is scratch.
    pub(super) fn backward(
        &self,
        adapter: &[f32],
        dy: &[f32],
        x: &[f32],
        dx: Option<&mut [f32]>,
        gradients: &mut [f32],
        low: &mut Vec<f32>,
    ) {
        let (inputs, outputs) = (self.a.len() / self.rank, self.b.len() / self.rank);
        let rows = dy.len() / outputs;
        let (x, dy) = (Mat::new(x, rows, inputs), Mat::new(dy, rows, outputs));
        self.reduce(adapter, x, low);
        matmul(dy.t(), Mat::new(low, rows, self.rank), &mut gradients[self.b.clone()], Write::Set);
        matmul(dy, self.b(adapter), low, Write::Set);
        low.iter_mut().for_each(|value| *value *= self.scale);
        let low = Mat::new(low, rows, self.rank);
        matmul(low.t(), x, &mut gradients[self.a.clone()], Write::Set);
        if let Some(dx) = dx {
            matmul(low, self.a(adapter), dx, Write::Add);
        }
    }
}
