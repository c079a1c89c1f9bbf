//! A model's weights with somebody who hears what goes into them. What is made of it, the caller says: sums of squares, or of products.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{Pairs, Place, Tensors};
use crate::kernels::gemm::Write;

/// What is gathered of a matrix's inputs.
pub trait Gather: Default + Send {
    /// Rows × columns, behind those that were there before.
    fn add(&mut self, x: &[f32], columns: usize);

    /// Bytes that it takes for so many columns, what is then made of it included.
    fn bytes(columns: usize) -> u64;
}

/// What has gone into some matrices.
#[derive(Debug)]
pub struct Inputs<G> {
    of: BTreeMap<usize, Mutex<G>>,
}

impl<G: Gather> Inputs<G> {
    /// Of the matrices with these numbers in the layout.
    pub fn of(places: impl IntoIterator<Item = usize>) -> Inputs<G> {
        Inputs { of: places.into_iter().map(|index| (index, Mutex::default())).collect() }
    }

    /// What was gathered of a matrix, which is then forgotten.
    pub fn take(&self, index: usize) -> Option<G> {
        self.of.get(&index).map(|gathered| std::mem::take(&mut *gathered.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn see(&self, place: &Place, x: &[f32]) {
        if let Some(gathered) = self.of.get(&place.index) {
            gathered.lock().unwrap_or_else(PoisonError::into_inner).add(x, place.columns);
        }
    }
}

/// The weights, as a forward pass takes them.
pub struct Watched<'a, W: ?Sized, G> {
    pub weights: &'a W,
    pub inputs: &'a Inputs<G>,
    /// A matrix whose product nobody wants: it is not made.
    pub idle: Option<usize>,
}

impl<W: Tensors + ?Sized, G: Gather> Tensors for Watched<'_, W, G> {
    fn rows(&self, place: &Place, ids: &[u32], out: &mut [f32]) {
        self.weights.rows(place, ids, out);
    }

    fn vector(&self, place: &Place) -> &[f32] {
        self.weights.vector(place)
    }

    fn linear(&self, place: &Place, x: &[f32], y: &mut [f32], write: Write) {
        self.inputs.see(place, x);
        if self.idle != Some(place.index) {
            self.weights.linear(place, x, y, write);
        }
    }

    fn pairs(&self) -> Pairs {
        self.weights.pairs()
    }
}
