//! `sparsity.json`: how many zeros a model's matrices have, counted in the weights as they are written. Its presence says that the zeros are meant.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::is_prunable;
use crate::model::{ModelError, Weights, is_there, read_limited};

const FILE: &str = "sparsity.json";
const MAX_LEDGER: u64 = 16 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// 1
    pub format: u32,
    /// Of all linear layers: embeddings, head and norms are never pruned and not counted.
    pub weights: u64,
    pub zeros: u64,
    pub ratio: f64,
    /// The same pattern in all that have zeros, or `mixed`.
    pub pattern: String,
    pub note: String,
    /// In the layout's order.
    pub tensors: Vec<TensorZeros>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorZeros {
    /// As Hugging Face names it.
    pub name: String,
    pub rows: usize,
    pub columns: usize,
    pub zeros: u64,
    pub ratio: f64,
    /// The strictest that holds: `2:4`, `4:8`, `unstructured`, or `dense` without a zero.
    pub pattern: String,
}

const NOTE: &str = "Zeros are stored like other values: the files are as large as before until something compresses them, and no kernel here skips zeros, so nothing runs faster.";

impl Ledger {
    pub fn of(weights: &Weights) -> Ledger {
        let tensors: Vec<TensorZeros> =
            weights.iter().filter(|(name, ..)| is_prunable(name)).filter_map(|(name, shape, values)| count(name, shape, values)).collect();
        let zeros = tensors.iter().map(|tensor| tensor.zeros).sum();
        let total = tensors.iter().map(|tensor| (tensor.rows * tensor.columns) as u64).sum();
        let mut patterns: Vec<&str> = tensors.iter().map(|tensor| tensor.pattern.as_str()).filter(|pattern| *pattern != "dense").collect();
        patterns.dedup();
        let pattern = match patterns.as_slice() {
            [] => "dense",
            [only] => only,
            _ => "mixed",
        };
        Ledger {
            format: 1,
            weights: total,
            zeros,
            ratio: share(zeros, total),
            pattern: pattern.to_string(),
            note: NOTE.to_string(),
            tensors,
        }
    }

    /// That of a model's folder, if it has one.
    pub fn read(folder: &Path) -> Result<Option<Ledger>, ModelError> {
        let path = folder.join(FILE);
        if !is_there(&path)? {
            return Ok(None);
        }
        let wrong = |why: String| ModelError::malformed(format!("`{}`", path.display()), why);
        let ledger: Ledger = serde_json::from_slice(&read_limited(&path, MAX_LEDGER)?).map_err(|error| wrong(error.to_string()))?;
        match ledger.format {
            1 => Ok(Some(ledger)),
            other => Err(wrong(format!("format {other} is not known"))),
        }
    }

    pub fn write(&self, folder: &Path) -> Result<(), ModelError> {
        let path = folder.join(FILE);
        let text = serde_json::to_string_pretty(self).map_err(|error| ModelError::malformed("the ledger", error))?;
        std::fs::write(&path, format!("{text}\n")).map_err(|error| ModelError::io("write", &path, error))
    }

    /// `1,234 of 2,468 weights are zero (50.0 %, 2:4)`
    pub fn summary(&self) -> String {
        format!("{} of {} weights of the linear layers are zero ({:.1} %, {})", self.zeros, self.weights, 100.0 * self.ratio, self.pattern)
    }
}

fn count(name: &str, shape: &[usize], values: &[f32]) -> Option<TensorZeros> {
    let &[rows, columns] = shape else { return None };
    let zeros = zeros(values) as u64;
    let holds = |of: usize| columns.is_multiple_of(of) && values.chunks_exact(of).all(|group| self::zeros(group) >= of / 2);
    let pattern = match zeros {
        0 => "dense",
        _ if holds(4) => "2:4",
        _ if holds(8) => "4:8",
        _ => "unstructured",
    };
    Some(TensorZeros {
        name: name.to_string(),
        rows,
        columns,
        zeros,
        ratio: share(zeros, values.len() as u64),
        pattern: pattern.to_string(),
    })
}

fn zeros(values: &[f32]) -> usize {
    values.iter().filter(|value| **value == 0.0).count()
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
