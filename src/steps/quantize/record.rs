//! `quantize.json`: what became of each tensor.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantization {
    /// 1
    pub format: u32,
    /// The step's `type`: `Q4_K_M`.
    pub file_type: String,
    pub parameters: u64,
    /// Of the packed tensors, without metadata and padding.
    pub size_bytes: u64,
    /// Effective: over all tensors, those that stay F32 or fell back included.
    pub bits_per_weight: f64,
    /// Root mean square error over all values, as a share of their root mean square.
    pub relative_error: f64,
    /// How many tensors are of each block type.
    pub types: BTreeMap<String, u64>,
    /// How many tensors have another type than intended because their rows do not divide.
    pub fallbacks: u64,
    /// Of a model with zeros that are meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparsity: Option<ZerosRecord>,
    /// In the file's order.
    pub tensors: Vec<TensorRecord>,
}

/// What became of a pruned model's zeros: a type without a zero in every block's grid loses some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZerosRecord {
    /// Of the linear layers, before and after.
    pub zeros: u64,
    pub kept: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorRecord {
    /// As in the GGUF file.
    pub name: String,
    /// As in the Hugging Face folder: rows first.
    pub shape: Vec<usize>,
    #[serde(rename = "type")]
    pub ty: String,
    /// Why it is not of the intended type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    pub size_bytes: u64,
    pub relative_error: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fallback {
    pub wanted: String,
    pub reason: String,
}
