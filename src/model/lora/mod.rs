//! LoRA adapters (Hu et al., 2021): small matrices beside a model's frozen ones, `y = x · wᵀ + (lora_alpha / r) · (x · aᵀ) · bᵀ`. Knows which
//! matrices, how they start, how they are merged into the model, and the folder in which PEFT keeps them. The arithmetic is the decoder's.

mod peft;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::decoder::LowRank;
use super::init::stream;
use super::weights::Layout;
use super::{Config, ModelError, Weights};
use crate::kernels::gemm::{Mat, Write, matmul};
use crate::kernels::rng;

/// A matrix of each layer that may be adapted, by PEFT's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Target {
    #[serde(rename = "q_proj")]
    Q,
    #[serde(rename = "k_proj")]
    K,
    #[serde(rename = "v_proj")]
    V,
    #[serde(rename = "o_proj")]
    O,
    #[serde(rename = "gate_proj")]
    Gate,
    #[serde(rename = "up_proj")]
    Up,
    #[serde(rename = "down_proj")]
    Down,
}

impl Target {
    pub const ALL: [Target; 7] = [Target::Q, Target::K, Target::V, Target::O, Target::Gate, Target::Up, Target::Down];

    /// `self_attn.q_proj`
    fn path(self) -> &'static str {
        match self {
            Target::Q => "self_attn.q_proj",
            Target::K => "self_attn.k_proj",
            Target::V => "self_attn.v_proj",
            Target::O => "self_attn.o_proj",
            Target::Gate => "mlp.gate_proj",
            Target::Up => "mlp.up_proj",
            Target::Down => "mlp.down_proj",
        }
    }

    /// Outputs and inputs.
    fn shape(self, config: &Config) -> (usize, usize) {
        let (d, ff, q, kv) = (config.hidden_size, config.intermediate_size, config.query_size(), config.key_value_size());
        match self {
            Target::Q => (q, d),
            Target::K | Target::V => (kv, d),
            Target::O => (d, q),
            Target::Gate | Target::Up => (ff, d),
            Target::Down => (d, ff),
        }
    }
}

/// What is adapted, and how finely.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    pub r: usize,
    pub lora_alpha: f64,
    pub target_modules: Vec<Target>,
}

/// No matrix gains from a higher rank.
const MAX_RANK: usize = 1 << 14;

impl Lora {
    /// The factor of what is added.
    pub fn scale(&self) -> f32 {
        (self.lora_alpha / self.r as f64) as f32
    }

    pub fn check(&self) -> Result<(), ModelError> {
        let wrong = |why: String| Err(ModelError::malformed("the adapter", why));
        if self.r == 0 || self.r > MAX_RANK {
            return wrong(format!("r is {}; it must be 1 to {MAX_RANK}", self.r));
        }
        if !(self.lora_alpha.is_finite() && self.lora_alpha > 0.0) {
            return wrong(format!("lora_alpha is {}; it must be above 0", self.lora_alpha));
        }
        if self.target_modules.is_empty() {
            return wrong("target_modules is empty".to_string());
        }
        let mut sorted = self.target_modules.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() != self.target_modules.len() {
            return wrong("target_modules names one twice".to_string());
        }
        Ok(())
    }

    /// The adapter's tensors as PEFT names them, layer by layer.
    fn layout(&self, config: &Config) -> Result<Layout, ModelError> {
        self.check()?;
        config.check()?;
        let mut layout = Layout::empty();
        for layer in 0..config.num_hidden_layers {
            for target in Target::ALL.into_iter().filter(|target| self.target_modules.contains(target)) {
                let (outputs, inputs) = target.shape(config);
                layout.push(name(layer, target, "A"), &[self.r, inputs])?;
                layout.push(name(layer, target, "B"), &[outputs, self.r])?;
            }
        }
        Ok(layout)
    }
}

fn name(layer: usize, target: Target, which: &str) -> String {
    format!("base_model.model.model.layers.{layer}.{}.lora_{which}.weight", target.path())
}

/// An adapter for one shape of model.
#[derive(Clone, Debug)]
pub struct Adapter {
    pub lora: Lora,
    /// Two tensors for each adapted matrix: `lora_A` is r × inputs, `lora_B` outputs × r.
    pub weights: Weights,
}

impl Adapter {
    pub fn zeros(config: &Config, lora: Lora) -> Result<Adapter, ModelError> {
        let layout = lora.layout(config)?;
        let data = layout.room()?;
        Ok(Adapter { lora, weights: Weights { layout: Arc::new(layout), data } })
    }

    /// As PEFT begins: `a` from Kaiming's uniform distribution with a = √5, which is ±1/√inputs; `b` zero, so that the model is unchanged.
    pub fn random(config: &Config, lora: Lora, seed: u64) -> Result<Adapter, ModelError> {
        let mut adapter = Adapter::zeros(config, lora)?;
        let layout = adapter.weights.layout.clone();
        for tensor in layout.tensors.iter().filter(|tensor| tensor.name.ends_with("lora_A.weight")) {
            let inputs = tensor.range.len() / adapter.lora.r;
            let bound = (1.0 / (inputs as f64).sqrt()) as f32;
            let stream = stream(&tensor.name);
            for (i, value) in adapter.weights.data[tensor.range.clone()].iter_mut().enumerate() {
                *value = bound * (2.0 * rng::uniform(seed, stream, i as u64) - 1.0);
            }
        }
        Ok(adapter)
    }

    /// Where the numbers for one matrix are; nothing if it is not adapted.
    pub fn low_rank(&self, config: &Config, layer: usize, target: Target) -> Result<Option<LowRank>, ModelError> {
        if !self.lora.target_modules.contains(&target) {
            return Ok(None);
        }
        let (outputs, inputs) = target.shape(config);
        let rank = self.lora.r;
        let range = |which: &str, size: usize| {
            let name = name(layer, target, which);
            let tensor = self.weights.layout.tensor(&name).filter(|tensor| tensor.range.len() == size);
            let wrong = || ModelError::malformed("the adapter", format!("`{name}` does not fit the model"));
            tensor.map(|tensor| tensor.range.clone()).ok_or_else(wrong)
        };
        Ok(Some(LowRank { a: range("A", rank * inputs)?, b: range("B", outputs * rank)?, rank, scale: self.lora.scale() }))
    }

    /// Adds `(lora_alpha / r) · b · a` to each adapted matrix: the same model without an adapter.
    pub fn merge(&self, config: &Config, weights: &mut Weights) -> Result<(), ModelError> {
        for layer in 0..config.num_hidden_layers {
            for target in Target::ALL {
                let Some(LowRank { a, b, rank, scale }) = self.low_rank(config, layer, target)? else { continue };
                let (outputs, inputs) = target.shape(config);
                let name = format!("model.layers.{layer}.{}.weight", target.path());
                let into = weights.get_mut(&name).filter(|into| into.len() == outputs * inputs);
                let into = into.ok_or_else(|| ModelError::malformed("the model", format!("`{name}` does not fit the adapter")))?;
                let b: Vec<f32> = self.weights.data[b].iter().map(|value| value * scale).collect();
                let a = Mat::new(&self.weights.data[a], rank, inputs);
                matmul(Mat::new(&b, outputs, rank), a, into, Write::Add);
            }
        }
        Ok(())
    }
}
