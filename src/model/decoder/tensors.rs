//! Where a forward pass finds a model's numbers: in memory as f32, or as a file stores them.

use super::Place;
use crate::kernels::embedding::gather;
use crate::kernels::gemm::{Mat, Write, matmul};

/// How the numbers that rotary positions turn together lie in the query and key heads that a product with the weights makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// A head's first half with its second, as in a Hugging Face folder.
    Halves,
    /// Two and two, as in llama.cpp's files.
    Neighbours,
}

/// A model's tensors by their places. Matrices are outputs × inputs.
pub trait Tensors: Sync {
    /// The rows of a matrix that have these numbers.
    fn rows(&self, place: &Place, ids: &[u32], out: &mut [f32]);
    /// The weights of a norm.
    fn vector(&self, place: &Place) -> &[f32];
    /// `y = x · wᵀ`, or added to what is there.
    fn linear(&self, place: &Place, x: &[f32], y: &mut [f32], write: Write);
    fn pairs(&self) -> Pairs;
}

/// f32 in the layout's order.
impl<T: AsRef<[f32]> + Sync> Tensors for T {
    fn rows(&self, place: &Place, ids: &[u32], out: &mut [f32]) {
        gather(&self.as_ref()[place.range.clone()], place.columns, ids, out);
    }

    fn vector(&self, place: &Place) -> &[f32] {
        &self.as_ref()[place.range.clone()]
    }

    fn linear(&self, place: &Place, x: &[f32], y: &mut [f32], write: Write) {
        let (inputs, outputs) = (place.columns, place.range.len() / place.columns);
        let weight = Mat::new(&self.as_ref()[place.range.clone()], outputs, inputs);
        matmul(Mat::new(x, x.len() / inputs, inputs), weight.t(), y, write);
    }

    fn pairs(&self) -> Pairs {
        Pairs::Halves
    }
}
