//! The fields that every training has, and what they come to.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::schedule::{Schedule, Shape};
use crate::model::decoder::Keep;
use crate::model::sparse::{Ledger, Mask};
use crate::model::tokenizer::{Special, Tokenizer};
use crate::model::weights::MAX_PARAMETERS;
use crate::model::{Activation, Config, Family, Features, Model};
use crate::steps::{Failure, Field, Params, Problem, Type, typed};

pub static ARCH: &[Field] = &[
    Field::required("hidden_size", Type::Int(2, 1 << 17), "Width of the residual stream."),
    Field::required("num_hidden_layers", Type::Int(1, 512), "Layers of attention and MLP."),
    Field::required("num_attention_heads", Type::Int(1, 1024), "Query heads of a layer."),
    Field::required("intermediate_size", Type::Int(1, 1 << 17), "Width of the MLP."),
    Field::optional("num_key_value_heads", Type::Int(1, 1024), "Key and value heads; `num_attention_heads` if not given."),
    Field::optional("head_dim", Type::Int(2, 1024), "Width of a head; `hidden_size / num_attention_heads` if not given."),
    Field::default("max_position_embeddings", Type::Int(2, 1 << 22), "512", "Longest sequence, in tokens."),
    Field::default(
        "hidden_act",
        Type::Choice(&["silu", "gelu_pytorch_tanh"]),
        "\"silu\"",
        "What gates the MLP: SwiGLU, or GeGLU with the tanh approximation. GGUF runtimes run the first only.",
    ),
    Field::optional(
        "sliding_window",
        Type::Int(1, 1 << 22),
        "Tokens that a token sees, itself among them, as in Mistral; all if not given. GGUF runtimes run full attention only.",
    ),
    Field::default("rope_theta", Type::Float(1.0, 1e9), "10000.0", "Base of the rotary positions."),
    Field::default("rms_norm_eps", Type::Float(1e-12, 1.0), "1e-5", "Added under the root of RMSNorm."),
    Field::default("tie_word_embeddings", Type::Bool, "true", "One matrix for the embedding and the output head."),
];

/// The model's shape, for kinds that make one from nothing.
pub const ARCH_FIELD: Field = Field::required("arch", Type::Table(ARCH), "The model's shape, as in `config.json` of a Llama model.");

/// For kinds that go on from a model.
pub const MASK_FIELD: Field = Field::default(
    "mask",
    Type::Choice(&["fixed", "free"]),
    "\"fixed\"",
    "Of a model that `prune` has put zeros into: they stay zero, or they learn like other weights. Others have none to keep.",
);

/// The model to go on from, and the zeros that it keeps.
pub fn pruned(params: &Params, path: &Path) -> Result<(Model, Option<Mask>), Failure> {
    let model = Model::load(path)?;
    let Some(ledger) = Ledger::read(path)?.filter(|_| !params.contains_key("mask")) else { return Ok((model, None)) };
    let mask = Mask::of(&model.weights);
    if mask.zeros() as u64 != ledger.zeros {
        let message = format!("`sparsity.json` tells of {} zeros, the model beside it has {}", ledger.zeros, mask.zeros());
        return Err(Failure::new(message).help("take the folder as `prune` wrote it, or remove `sparsity.json`"));
    }
    Ok((model, Some(mask)))
}

/// Of a task's parameters: what is not said otherwise is kept, so that models without zeros have the keys that they had.
pub fn resolve_mask(declared: &Params, params: &mut Params) {
    params.remove("mask");
    if declared.get("mask").is_some_and(|mask| mask == "free") {
        params.insert("mask".to_string(), "free".into());
    }
}

/// A training's parameters with a `max_length` that the model reaches.
pub fn within(training: &Params, config: &Config) -> Result<Params, Failure> {
    let mut training = training.clone();
    let reach = config.max_position_embeddings as u64;
    let max_length = training.get("max_length").and_then(Value::as_u64).unwrap_or(reach);
    if max_length > reach {
        return Err(Failure::new(format!("max_length {max_length} is beyond the model's {reach} tokens")));
    }
    training.insert("max_length".to_string(), max_length.into());
    Ok(training)
}

/// A kind's own fields, followed by those of every training.
macro_rules! with_training_fields {
    ($($own:expr),* $(,)?) => {
        &[
            $($own,)*
            Field::optional(
                "validation",
                Type::Ref(Arity::All, &[Artifact::Dataset, Artifact::Files]),
                "Held-out data. The weights with the lowest loss on it are kept, and training stops early when it no longer falls.",
            ),
            Field::required("max_steps", Type::Int(1, 1 << 40), "Steps of the optimizer, if training does not stop early."),
            Field::default("batch_size", Type::Int(1, 1 << 20), "64", "Examples of a step."),
            Field::default("learning_rate", Type::Float(0.0, 10.0), "1e-3", "Highest learning rate of AdamW."),
            Field::default(
                "lr_scheduler_type",
                Type::Choice(&["cosine", "linear", "constant"]),
                "\"cosine\"",
                "How the learning rate falls after the warm-up.",
            ),
            Field::default("warmup_ratio", Type::Float(0.0, 1.0), "0.05", "Share of the steps in which the learning rate rises from zero."),
            Field::optional("warmup_steps", Type::Int(0, 1 << 40), "The same as a number of steps; goes before `warmup_ratio`."),
            Field::default("weight_decay", Type::Float(0.0, 10.0), "0.01", "Decoupled weight decay of the matrices; norms have none."),
            Field::default("max_grad_norm", Type::Float(0.0, 1e9), "1.0", "The gradient is scaled down to this norm; 0 leaves it as it is."),
            Field::default("adam_beta1", Type::Float(0.0, 0.9999999), "0.9", "Decay of AdamW's first moment."),
            Field::default("adam_beta2", Type::Float(0.0, 0.9999999), "0.99", "Decay of AdamW's second moment."),
            Field::default("adam_epsilon", Type::Float(1e-12, 1.0), "1e-8", "Added to AdamW's denominator."),
            Field::optional(
                "max_length",
                Type::Int(2, 1 << 22),
                "Longest example in tokens; `max_position_embeddings` if not given. Longer pairs are left out, longer texts are cut.",
            ),
            Field::default("eval_steps", Type::Int(1, 1 << 40), "50", "Steps between two points of the loss curve and two validations."),
            Field::default(
                "early_stopping_patience",
                Type::Int(0, 1 << 40),
                "5",
                "Training stops after so many validations without a new best one; 0 means never.",
            ),
            Field::default("checkpoint_steps", Type::Int(1, 1 << 40), "100", "Steps after which a killed training can go on at the latest."),
            Field::default(
                "gradient_checkpointing",
                Type::Bool,
                "false",
                "Keeps only each layer's input and attention for the backward pass and computes the rest again: less memory, more time, the same bits.",
            ),
            Field::default("seed", Type::Int(0, i64::MAX), "0", "Decides the first weights and the order of the examples."),
        ]
    };
}
pub(crate) use with_training_fields;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arch {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub num_key_value_heads: Option<usize>,
    pub head_dim: Option<usize>,
    pub max_position_embeddings: usize,
    pub hidden_act: Activation,
    pub sliding_window: Option<usize>,
    pub rope_theta: f64,
    pub rms_norm_eps: f64,
    pub tie_word_embeddings: bool,
}

/// What a training needs to know, defaults resolved.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    pub max_steps: u64,
    pub batch_size: usize,
    pub learning_rate: f64,
    pub lr_scheduler_type: Shape,
    pub warmup_steps: u64,
    pub weight_decay: f64,
    pub max_grad_norm: f64,
    pub adam_beta1: f64,
    pub adam_beta2: f64,
    pub adam_epsilon: f64,
    pub max_length: usize,
    pub eval_steps: u64,
    pub early_stopping_patience: u64,
    pub checkpoint_steps: u64,
    pub gradient_checkpointing: bool,
    pub seed: u64,
}

/// What of a training changes no bit of its result.
pub const UNKEYED: &[&str] = &["gradient_checkpointing"];

impl Training {
    /// What the forward pass keeps.
    pub fn keep(&self) -> Keep {
        if self.gradient_checkpointing { Keep::Inputs } else { Keep::All }
    }

    pub fn schedule(&self) -> Schedule {
        let Training { lr_scheduler_type: shape, learning_rate: peak, warmup_steps, max_steps, .. } = *self;
        Schedule { shape, peak, warmup_steps, max_steps }
    }
}

impl Arch {
    /// A model of this shape with a tokenizer's special tokens.
    pub fn of(&self, vocab_size: usize, tokenizer: &Tokenizer) -> Config {
        let id = |special: &Option<Special>| special.as_ref().map(|special| special.id);
        self.config(vocab_size, id(&tokenizer.eos), id(&tokenizer.bos), id(&tokenizer.pad))
    }

    /// A model of this shape. `special` is the token that begins, ends and pads.
    pub fn config(&self, vocab_size: usize, eos: Option<u32>, bos: Option<u32>, pad: Option<u32>) -> Config {
        Config {
            family: Family::Llama,
            vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            head_dim: self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1)),
            max_position_embeddings: self.max_position_embeddings,
            hidden_act: self.hidden_act,
            sliding_window: self.sliding_window,
            rms_norm_eps: self.rms_norm_eps as f32,
            rope_theta: self.rope_theta as f32,
            tie_word_embeddings: self.tie_word_embeddings,
            bos_token_id: bos,
            eos_token_id: eos,
            pad_token_id: pad,
            features: Features::default(),
        }
    }

    /// How many weights the layers' matrices have.
    fn matrices(&self) -> f64 {
        let config = self.config(1, None, None, None);
        let (width, attended) = (config.hidden_size as f64, (config.query_size() + config.key_value_size()) as f64);
        config.num_hidden_layers as f64 * width * (2.0 * attended + 3.0 * config.intermediate_size as f64)
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let message = format!("hidden_size {} does not divide into {} heads", self.hidden_size, self.num_attention_heads);
            problems.push(Problem::at("arch.num_attention_heads", message).help("choose a divisor, or set `head_dim`"));
        } else if let Err(error) = self.config(1, None, None, None).check() {
            problems.push(Problem::at("arch", error.to_string()));
        } else if self.matrices() > MAX_PARAMETERS as f64 {
            let message = format!("a model of this shape has more than {} weights, even without its vocabulary", MAX_PARAMETERS);
            problems.push(Problem::at("arch", message).help("lower `hidden_size`, `intermediate_size` or `num_hidden_layers`"));
        }
        problems
    }
}

/// The shape and the settings of a new model's training.
pub fn shaped(params: &Params) -> Result<(Arch, Training), Failure> {
    let mut rest = params.clone();
    let arch = rest.remove("arch").unwrap_or(Value::Null);
    let arch = serde_json::from_value(arch).map_err(|error| Failure::bug(format!("`arch` and its fields disagree: {error}")))?;
    Ok((arch, typed(&rest)?))
}

/// The parameters of a training as its task holds them: what follows from other fields is written out, so that equal trainings have
/// equal keys however they were written. `own` names the kind's fields, which are left out.
pub fn resolve(params: &Params, own: &[&str]) -> Result<Params, Vec<Problem>> {
    let mut params = resolve_schedule(params, own);
    let arch: Arch = arch(&params)?;
    let mut problems = arch.problems();
    let max_length = params.get("max_length").and_then(Value::as_u64).unwrap_or(arch.max_position_embeddings as u64);
    if max_length > arch.max_position_embeddings as u64 {
        let message = format!("max_length {max_length} is beyond max_position_embeddings {}", arch.max_position_embeddings);
        problems.push(Problem::at("max_length", message));
    }
    params.insert("max_length".to_string(), max_length.into());
    let head_dim = arch.hidden_size / arch.num_attention_heads.max(1);
    if let Some(Value::Object(fields)) = params.get_mut("arch") {
        fields.entry("num_key_value_heads").or_insert(arch.num_attention_heads.into());
        fields.entry("head_dim").or_insert(head_dim.into());
    }
    if problems.is_empty() { Ok(params) } else { Err(problems) }
}

/// The same for a model whose shape is not known yet.
pub fn resolve_schedule(params: &Params, own: &[&str]) -> Params {
    let mut params = params.clone();
    for name in own {
        params.remove(*name);
    }
    let max_steps = params.get("max_steps").and_then(Value::as_u64).unwrap_or(1);
    let ratio = params.remove("warmup_ratio").and_then(|ratio| ratio.as_f64()).unwrap_or(0.0);
    let warmup_steps = match params.get("warmup_steps").and_then(Value::as_u64) {
        Some(steps) => steps.min(max_steps),
        None => ((ratio * max_steps as f64).ceil() as u64).min(max_steps),
    };
    params.insert("warmup_steps".to_string(), warmup_steps.into());
    params
}

fn arch(params: &Params) -> Result<Arch, Vec<Problem>> {
    let arch = params.get("arch").cloned().unwrap_or(Value::Null);
    serde_json::from_value(arch).map_err(|error| vec![Problem::at("arch", error.to_string())])
}
