//! Models with zeros: which weights of a matrix go ([`score`]), how the others make good for them ([`sparsegpt`]), where the zeros are ([`Mask`]) and how many
//! ([`Ledger`]). Knows matrices, not how their inputs are gathered.

mod ledger;
mod mask;
pub mod score;
pub mod sparsegpt;
#[cfg(test)]
mod tests;

pub use ledger::{Ledger, TensorZeros};
pub use mask::Mask;

/// Which weights of a matrix may go together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pattern {
    /// Any, this share of them.
    Unstructured { ratio: f64, per: Per },
    /// So many of each group of neighbours in a row: 2:4, 4:8.
    Groups { zeros: usize, of: usize },
}

/// Within what weights are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// A row: all weights that one output has.
    Output,
    /// The whole matrix.
    Layer,
}

/// The linear layers of a decoder's layers: what is pruned. Embeddings, head and norms never are.
pub fn is_prunable(name: &str) -> bool {
    name.starts_with("model.layers.") && name.ends_with("_proj.weight")
}

/// Marks the `count` smallest; of equal ones the first.
fn mark_smallest(scores: &[f32], count: usize, marks: &mut [bool]) {
    marks.fill(false);
    if count == 0 {
        return;
    }
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    let count = count.min(order.len());
    let by_score = |a: &u32, b: &u32| scores[*a as usize].total_cmp(&scores[*b as usize]).then(a.cmp(b));
    order.select_nth_unstable_by(count - 1, by_score);
    order[..count].iter().for_each(|index| marks[*index as usize] = true);
}

/// How many of so many weights a share is.
fn share(ratio: f64, weights: usize) -> usize {
    ((ratio * weights as f64).round() as usize).min(weights)
}
