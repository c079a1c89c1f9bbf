//! `slmops-bundle.json`: the layer that says which device a bundle is for, why its model was chosen and what its files are. No time, host
//! or path of the machine that built it is in there.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::modelpack::Role;

/// Its path in the bundle.
pub const FILE: &str = "slmops-bundle.json";
/// The version that this slmops writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// [`FORMAT`]
    pub format: u32,
    pub name: String,
    pub version: String,
    pub device: Device,
    pub model: Model,
    /// What the model will take of the device's memory, by calculation.
    pub memory: Memory,
    /// How it was chosen among the candidates: `smallest`, `best exact_match`.
    pub choose: String,
    /// What the required evaluations found, in the order in which the manifest requires them.
    pub evaluations: Vec<Evaluation>,
    /// All files but this one, sorted by path.
    pub files: Vec<File>,
    pub entry: Entry,
    /// The Jinja text that turns a conversation into a prompt.
    pub chat_template: Option<String>,
}

/// The `[device.NAME]` that it was built for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub name: String,
    pub description: Option<String>,
    pub arch: String,
    pub runtime: String,
    pub storage_bytes: Option<u64>,
    pub memory_bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// `gguf` or `safetensors`
    pub format: String,
    /// `F32`, `Q4_0` …
    pub file_type: String,
    pub parameters: u64,
    pub bits_per_weight: f64,
    /// Tokens of context that the memory was calculated for.
    pub context_length: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    pub weights_bytes: u64,
    pub cache_bytes: u64,
    pub activations_bytes: u64,
}

impl Memory {
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes.saturating_add(self.cache_bytes).saturating_add(self.activations_bytes)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    pub gates: Vec<Gate>,
    /// By set and by metric.
    pub metrics: BTreeMap<String, BTreeMap<String, Figure>>,
    /// Of each test set of which the model learned from some records: how many.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub in_training: BTreeMap<String, u64>,
}

/// A figure with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    pub value: f64,
    /// Null where the evaluated items do not tell.
    pub low: Option<f64>,
    pub high: Option<f64>,
}

/// `0.7120 [0.6840, 0.7410]`
impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |end: Option<f64>| end.map_or("unknown".to_string(), |end| format!("{end:.4}"));
        match (self.low, self.high) {
            (None, None) => write!(f, "{:.4} [unknown]", self.value),
            (low, high) => write!(f, "{:.4} [{}, {}]", self.value, end(low), end(high)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    pub metric: String,
    pub on: String,
    /// `min`, `max`, `max_drop` or `max_rise`
    pub condition: String,
    pub limit: f64,
    pub figure: Figure,
    pub passed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub path: String,
    pub role: Role,
    pub sha256: String,
    pub size_bytes: u64,
}

/// What a runtime opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// A GGUF file, or the weights of a Hugging Face folder.
    pub model: String,
    /// Absent where the model's file holds it.
    pub tokenizer: Option<String>,
}
