//! What an evaluation writes and what gates, bundles and `diff` read: `report.json` (figures), `items/SET.jsonl` (one line an item) and
//! `verdict.json`. No time, host or path is in them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bundle::description::Figure;

/// `report.json`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// 1
    pub format: u32,
    pub model: ModelFacts,
    /// One for each entry of the step's `data`.
    pub sets: BTreeMap<String, SetReport>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFacts {
    pub parameters: u64,
    /// Of the weights as stored.
    pub size_bytes: u64,
    pub bits_per_weight: f64,
    /// `F32` for a trained model, the GGUF preset (`Q4_0` …) for a quantized one.
    pub file_type: String,
    /// BLAKE3 of the weight file (`model.safetensors` or `model.gguf`): by this a bundle knows whose verdict it reads.
    pub weights: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetReport {
    pub items: u64,
    /// By the metric's name, as in the manifest.
    pub metrics: BTreeMap<String, Metric>,
    /// Against the step's `reference`, where it has one.
    pub comparison: Option<Comparison>,
    /// How many of the set's records are among the data that the model learned from; absent where that data is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_training: Option<u64>,
    /// KL(reference ‖ model) of single tokens, in nats, by percentile (`50`, `99.9` …; `0` and `100` are the least and the most); only where one was asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kl_percentiles: BTreeMap<String, f64>,
}

/// A figure with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    pub value: f64,
    /// Null where the items do not tell.
    pub low: Option<f64>,
    pub high: Option<f64>,
}

impl From<Metric> for Figure {
    fn from(metric: Metric) -> Figure {
        Figure { value: metric.value, low: metric.low, high: metric.high }
    }
}

/// Paired outcomes of exact match, or of `acc`: exact McNemar, two-sided.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Right here, wrong in the reference.
    pub gained: u64,
    /// Wrong here, right in the reference.
    pub lost: u64,
    pub p_value: f64,
}

/// One line of `items/SET.jsonl`, in the data's order. Figures that were not asked for are absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// The place in the set, from 0.
    pub index: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact_match: Option<bool>,
    /// Whether the reference's answer was right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_exact_match: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_valid: Option<bool>,
    /// What `extract` took out of the output, where it found something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extracted: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex_match: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_schema_valid: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_exact_match: Option<bool>,
    /// ln P(choice | context) of each choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loglikelihoods: Option<Vec<f64>>,
    /// ln P(choice) of each choice, without its context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconditional_loglikelihoods: Option<Vec<f64>>,
    /// The places of the right choices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<Vec<usize>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acc: Option<bool>,
    /// Whether the reference chose rightly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_acc: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acc_norm: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acc_bytes: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acc_mutual_info: Option<bool>,
    /// Sum over the scored tokens, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nll: Option<f64>,
    /// How many tokens were scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Sum of KL(reference ‖ model) over the scored tokens, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl_divergence: Option<f64>,
    /// The same, token by token; only where a percentile of them was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_kl_divergences: Option<Vec<f64>>,
    /// Scored tokens at which model and reference choose the same token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top1_agree: Option<u64>,
}

impl Check {
    pub fn metric(&self) -> Metric {
        Metric { value: self.value, low: self.low, high: self.high }
    }
}

impl Item {
    /// The answer, or the choice.
    pub fn is_right(&self) -> Option<bool> {
        self.exact_match.or(self.acc)
    }

    /// The reference's.
    pub fn was_right(&self) -> Option<bool> {
        self.reference_exact_match.or(self.reference_acc)
    }
}

/// `verdict.json`: what the gates of one evaluated model came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// 1
    pub format: u32,
    /// Which model was judged.
    pub model: ModelFacts,
    pub passed: bool,
    pub checks: Vec<Check>,
    /// The report's figures, by set and by metric, so that a bundle needs nothing but verdicts.
    pub metrics: BTreeMap<String, BTreeMap<String, Metric>>,
    /// Of each set of which the model learned from some records: how many.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub in_training: BTreeMap<String, u64>,
}

/// One gate and what it saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    pub metric: String,
    pub on: String,
    /// `min`, `max`, `max_drop` or `max_rise`
    pub condition: String,
    pub limit: f64,
    /// The metric, or the drop or rise against the other model.
    pub value: f64,
    /// 95 % interval of `value`; null where the items do not tell.
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub passed: bool,
    /// A failing fatal gate fails the build, not only the candidate.
    pub fatal: bool,
}
