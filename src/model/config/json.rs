//! `config.json`, as transformers reads and writes it for the causal language models of each family. A missing field means what it means there;
//! what we cannot run is refused by the name of its field.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::rope::{Yarn, longrope_attention_factor};
use super::{Activation, Config, Family, Features, MAX_LAYERS, RopeScaling, wrong};
use crate::model::ModelError;

type Fields = Map<String, Value>;

/// Real models have up to a dozen.
const MAX_ENDS: usize = 64;

/// `model_type`, and the class that transformers makes of it.
const FAMILIES: [(&str, &str, Family); 7] = [
    ("llama", "LlamaForCausalLM", Family::Llama),
    ("mistral", "MistralForCausalLM", Family::Llama),
    ("qwen2", "Qwen2ForCausalLM", Family::Qwen2),
    ("qwen3", "Qwen3ForCausalLM", Family::Qwen3),
    ("gemma3_text", "Gemma3ForCausalLM", Family::Gemma3),
    ("phi3", "Phi3ForCausalLM", Family::Phi3),
    ("smollm3", "SmolLM3ForCausalLM", Family::SmolLm3),
];

impl Config {
    pub fn from_json(bytes: &[u8]) -> Result<Config, ModelError> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| ModelError::malformed("config.json", error))?;
        let fields = value.as_object().ok_or_else(|| wrong("it holds no table"))?;
        let kind = Kind::of(fields)?;
        refuse_what_we_cannot_run(fields)?;
        let heads = size(fields, "num_attention_heads", None)?;
        let hidden_size = size(fields, "hidden_size", None)?;
        let layers = size(fields, "num_hidden_layers", None)?;
        // Before any list of layers is made.
        if layers as u64 > MAX_LAYERS {
            return Err(wrong(format!("num_hidden_layers is {layers}; it must be 1 to {MAX_LAYERS}")));
        }
        let head_dim = size(fields, "head_dim", kind.head_dim().or(hidden_size.checked_div(heads)))?;
        let max_position_embeddings = size(fields, "max_position_embeddings", kind.llama(2048))?;
        let ropes = Ropes::of(fields, kind.family)?;
        let windows = Windows::of(fields, kind, layers)?;
        let ends = tokens(fields, "eos_token_id")?;
        let config = Config {
            family: kind.family,
            vocab_size: size(fields, "vocab_size", None)?,
            hidden_size,
            intermediate_size: size(fields, "intermediate_size", None)?,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: key_value_heads(fields, kind, heads)?,
            head_dim,
            max_position_embeddings,
            hidden_act: activation(fields, kind.family)?,
            sliding_window: windows.window,
            rms_norm_eps: number(fields, "rms_norm_eps", if kind.family == Family::Phi3 { 1e-5 } else { 1e-6 })?,
            rope_theta: ropes.theta(kind.family)?,
            tie_word_embeddings: boolean_or(fields, "tie_word_embeddings", matches!(kind.family, Family::Gemma3 | Family::SmolLm3))?,
            bos_token_id: token(fields, "bos_token_id")?,
            eos_token_id: ends.first().copied(),
            pad_token_id: token(fields, "pad_token_id")?,
            features: Features {
                rotary_dim: ropes.rotary_dim(kind.family, head_dim)?,
                rope_scaling: ropes.scaling(max_position_embeddings)?,
                rope_local_theta: ropes.local_theta(kind.family)?,
                unturned_layers: unturned_layers(fields, kind.family, layers)?,
                full_layers: windows.full_layers,
                other_ends: ends.into_iter().skip(1).collect(),
                query_pre_attn_scalar: query_pre_attn_scalar(fields, kind.family)?,
                ..Features::of(kind.family)
            },
        };
        config.check()?;
        Ok(config)
    }

    /// Every field spelled out, so that no reader's defaults matter; keys sorted.
    pub fn to_json(&self) -> Vec<u8> {
        let (model_type, class) = self.names();
        let mut value = json!({
            "architectures": [class],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.ends_json(),
            "head_dim": self.head_dim,
            "hidden_act": self.hidden_act,
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "mlp_bias": false,
            "model_type": model_type,
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "pad_token_id": self.pad_token_id,
            "pretraining_tp": 1,
            "rms_norm_eps": shortest(self.rms_norm_eps),
            "rope_scaling": scaling_json(self),
            "rope_theta": shortest(self.rope_theta),
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        if let Some(fields) = value.as_object_mut() {
            fields.extend(self.family_fields());
        }
        format!("{value:#}\n").into_bytes()
    }

    /// One number, or a list of several.
    pub fn ends_json(&self) -> Value {
        match (self.eos_token_id, self.features.other_ends.as_slice()) {
            (end, []) => json!(end),
            (end, others) => end.iter().chain(others).copied().map(Value::from).collect(),
        }
    }

    fn names(&self) -> (&'static str, &'static str) {
        let known = FAMILIES.iter().filter(|(_, _, family)| *family == self.family);
        // A Llama with a window is a Mistral.
        let mut known = known.skip(usize::from(self.family == Family::Llama && self.sliding_window.is_some()));
        known.next().map_or(("llama", "LlamaForCausalLM"), |(model_type, class, _)| (*model_type, *class))
    }

    /// What only some families have.
    fn family_fields(&self) -> Fields {
        let Features { query_pre_attn_scalar, rope_scaling, rope_local_theta, unturned_layers, .. } = &self.features;
        let mut fields = Fields::new();
        let mut set = |name: &str, value: Value| drop(fields.insert(name.to_string(), value));
        if self.family != Family::Llama || self.sliding_window.is_some() {
            set("sliding_window", json!(self.sliding_window));
        }
        if matches!(self.family, Family::Qwen2 | Family::Qwen3 | Family::SmolLm3) {
            set("use_sliding_window", self.sliding_window.is_some().into());
        }
        if matches!(self.family, Family::Qwen2 | Family::Qwen3 | Family::SmolLm3 | Family::Gemma3) {
            set("layer_types", (0..self.num_hidden_layers).map(|layer| Value::from(self.layer_type(layer))).collect());
        }
        match self.family {
            Family::Llama | Family::Qwen2 | Family::Qwen3 => {}
            Family::Gemma3 => {
                set("hidden_activation", json!(self.hidden_act));
                set("query_pre_attn_scalar", json!(query_pre_attn_scalar.map(whole)));
                set("rope_local_base_freq", json!(rope_local_theta.map(shortest)));
                set("attn_logit_softcapping", Value::Null);
                set("final_logit_softcapping", Value::Null);
            }
            Family::Phi3 => {
                set("partial_rotary_factor", json!(self.rotary_dim() as f64 / self.head_dim as f64));
                let original =
                    if let RopeScaling::LongRope { original, .. } = rope_scaling { *original } else { self.max_position_embeddings };
                set("original_max_position_embeddings", original.into());
            }
            Family::SmolLm3 => {
                let turned = |layer| u8::from(unturned_layers.binary_search(&layer).is_err());
                set("no_rope_layers", (0..self.num_hidden_layers).map(|layer| Value::from(turned(layer))).collect());
            }
        }
        fields
    }

    fn layer_type(&self, layer: usize) -> &'static str {
        // A Gemma's layers differ in their positions even if nothing is hidden from any.
        let is_plain = self.sliding_window.is_none() && self.family != Family::Gemma3;
        if is_plain || self.features.full_layers.binary_search(&layer).is_ok() { "full_attention" } else { "sliding_attention" }
    }
}

impl Features {
    /// What every model of a family has.
    pub fn of(family: Family) -> Features {
        Features {
            attention_bias: family == Family::Qwen2,
            query_key_norms: matches!(family, Family::Qwen3 | Family::Gemma3),
            post_norms: family == Family::Gemma3,
            scaled_embeddings: family == Family::Gemma3,
            ..Features::default()
        }
    }
}

/// The double nearest to the decimal that names this f32: 1e-5 stays 1e-5 and does not become 9.999999747378752e-6.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// transformers insists on an integer here.
fn whole(value: f32) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e9 { json!(value as i64) } else { json!(shortest(value)) }
}

/// A family, by one of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    model_type: &'static str,
    family: Family,
}

impl Kind {
    fn of(fields: &Fields) -> Result<Kind, ModelError> {
        let Some(given) = fields.get("model_type") else { return Err(wrong("model_type is missing")) };
        match FAMILIES.iter().find(|(model_type, ..)| given == *model_type) {
            Some((model_type, _, family)) => Ok(Kind { model_type, family: *family }),
            None => {
                let names: Vec<_> = FAMILIES.iter().map(|(model_type, ..)| *model_type).collect();
                Err(unsupported(format!("model_type {}", short(given)), format!("these are: {}", names.join(", "))))
            }
        }
    }

    /// What a Llama's missing field means. The other families' defaults are those of one large model, which nothing else has: they must be written.
    fn llama(self, default: usize) -> Option<usize> {
        (self.model_type == "llama").then_some(default)
    }

    /// A missing size of heads, where it does not follow from the others.
    fn head_dim(self) -> Option<usize> {
        match self.family {
            Family::Qwen3 => Some(128),
            Family::Gemma3 => Some(256),
            Family::Llama | Family::Qwen2 | Family::Phi3 | Family::SmolLm3 => None,
        }
    }
}

/// One for each query head where the file says `null`, or, of a Llama and a Phi-3, nothing.
fn key_value_heads(fields: &Fields, kind: Kind, heads: usize) -> Result<usize, ModelError> {
    let silent = kind.model_type == "llama" || kind.family == Family::Phi3;
    let null = fields.get("num_key_value_heads").is_some_and(Value::is_null) && kind.model_type != "mistral";
    size(fields, "num_key_value_heads", (silent || null).then_some(heads))
}

/// Which layers see how far.
struct Windows {
    window: Option<usize>,
    full_layers: Vec<usize>,
}

impl Windows {
    fn of(fields: &Fields, kind: Kind, layers: usize) -> Result<Windows, ModelError> {
        let window = match kind.family {
            // A Llama has none, whatever its file says.
            Family::Llama if kind.model_type == "llama" => None,
            Family::Llama => optional_size(fields, "sliding_window")?,
            Family::Phi3 if !fields.contains_key("sliding_window") => None,
            Family::Phi3 | Family::Gemma3 => optional_size(fields, "sliding_window")?,
            Family::Qwen2 | Family::Qwen3 | Family::SmolLm3 if !boolean(fields, "use_sliding_window")? => None,
            Family::Qwen2 | Family::Qwen3 | Family::SmolLm3 => optional_size(fields, "sliding_window")?,
        };
        let full_layers = match (kind.family, window) {
            (Family::Llama | Family::Phi3, _) => Vec::new(),
            // Its layers differ in their positions, too.
            (Family::Gemma3, _) | (_, Some(_)) => full_layers(fields, kind.family, layers)?,
            (_, None) => Vec::new(),
        };
        Ok(Windows { window, full_layers })
    }
}

/// Transformers' `layer_types`, or what they are made of in older files.
fn full_layers(fields: &Fields, family: Family, layers: usize) -> Result<Vec<usize>, ModelError> {
    if let Some(Value::Array(types)) = fields.get("layer_types") {
        if types.len() != layers {
            return Err(wrong(format!("layer_types names {} layers, num_hidden_layers is {layers}", types.len())));
        }
        if let Some(other) = types.iter().find(|kind| **kind != "full_attention" && **kind != "sliding_attention") {
            return Err(unsupported(format!("layer_types {}", short(other)), "only full_attention and sliding_attention are".to_string()));
        }
        return Ok((0..layers).filter(|layer| types.get(*layer).is_some_and(|kind| kind == "full_attention")).collect());
    }
    match family {
        Family::Gemma3 => {
            let pattern = size(fields, "sliding_window_pattern", Some(6))?;
            Ok((0..layers).filter(|layer| (layer + 1).checked_rem(pattern).is_some_and(|rest| rest == 0)).collect())
        }
        // Only its layers without positions have a window.
        Family::SmolLm3 => {
            let windowed = unturned_layers(fields, family, layers)?;
            Ok((0..layers).filter(|layer| windowed.binary_search(layer).is_err()).collect())
        }
        _ => Ok((0..size(fields, "max_window_layers", Some(28))?.min(layers)).collect()),
    }
}

/// SmolLM3's `no_rope_layers` has a 1 for each layer *with* positions.
fn unturned_layers(fields: &Fields, family: Family, layers: usize) -> Result<Vec<usize>, ModelError> {
    if family != Family::SmolLm3 {
        return Ok(Vec::new());
    }
    match fields.get("no_rope_layers") {
        None | Some(Value::Null) => {
            let interval = size(fields, "no_rope_layer_interval", Some(4))?;
            Ok((0..layers).filter(|layer| (layer + 1).checked_rem(interval).is_some_and(|rest| rest == 0)).collect())
        }
        Some(Value::Array(turned)) if turned.len() >= layers && turned.iter().all(|value| matches!(value.as_u64(), Some(0 | 1))) => {
            Ok((0..layers).filter(|layer| turned.get(*layer).is_some_and(|value| value == 0)).collect())
        }
        Some(other) => Err(wrong(format!("no_rope_layers is {}, not a 0 or 1 for each of {layers} layers", short(other)))),
    }
}

fn query_pre_attn_scalar(fields: &Fields, family: Family) -> Result<Option<f32>, ModelError> {
    if family == Family::Gemma3 { number(fields, "query_pre_attn_scalar", 256.0).map(Some) } else { Ok(None) }
}

fn activation(fields: &Fields, family: Family) -> Result<Activation, ModelError> {
    let (name, default) =
        if family == Family::Gemma3 { ("hidden_activation", Activation::GeluTanh) } else { ("hidden_act", Activation::Silu) };
    match fields.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::String(act)) if act == "silu" || act == "swish" => Ok(Activation::Silu),
        // Two names of the same formula.
        Some(Value::String(act)) if act == "gelu_pytorch_tanh" || act == "gelu_new" => Ok(Activation::GeluTanh),
        Some(other) => Err(unsupported(format!("{name} {}", short(other)), "only \"silu\" and \"gelu_pytorch_tanh\" are".to_string())),
    }
}

fn refuse_what_we_cannot_run(fields: &Fields) -> Result<(), ModelError> {
    let refuse = |name: &str, why: &str| Err(unsupported(format!("{name} {}", short(&fields[name])), why.to_string()));
    for name in ["attention_bias", "mlp_bias", "lm_head_bias"] {
        if boolean(fields, name)? {
            return refuse(name, "only a Qwen 2 has biases here");
        }
    }
    if boolean(fields, "use_bidirectional_attention")? {
        return refuse("use_bidirectional_attention", "tokens see only those before them here");
    }
    let present = |name: &str| fields.get(name).is_some_and(|value| !value.is_null() && value != 0 && value != false);
    let refused = [
        ("attn_logit_softcapping", "scores are not capped here"),
        ("final_logit_softcapping", "logits are not capped here"),
        ("num_experts", "only dense models are"),
        ("num_local_experts", "only dense models are"),
        ("n_routed_experts", "only dense models are"),
        ("vision_config", "only models of text are"),
        ("audio_config", "only models of text are"),
        ("quantization_config", "weights that other tools have packed are not unpacked; take the original model or a GGUF file"),
    ];
    match refused.iter().find(|(name, _)| present(name)) {
        Some((name, why)) => refuse(name, why),
        None => Ok(()),
    }
}

/// What the file says about positions. transformers 5 moved all of it into `rope_parameters`, one table or, of Gemma, one for each kind of layer.
struct Ropes<'a> {
    fields: &'a Fields,
    /// Of layers without a window; empty in older files.
    parameters: Fields,
    /// Of layers with one.
    local: Fields,
    /// Older files' `rope_scaling`, otherwise `parameters` again.
    scaling: Fields,
}

impl<'a> Ropes<'a> {
    fn of(fields: &'a Fields, family: Family) -> Result<Ropes<'a>, ModelError> {
        let table = |fields: &Fields, name: &str| match fields.get(name) {
            None | Some(Value::Null) => Ok(Fields::new()),
            Some(Value::Object(table)) => Ok(table.clone()),
            Some(other) => Err(wrong(format!("{name} is {}, not a table", short(other)))),
        };
        let mut parameters = table(fields, "rope_parameters")?;
        let mut local = Fields::new();
        if family == Family::Gemma3 && (parameters.contains_key("full_attention") || parameters.contains_key("sliding_attention")) {
            local = table(&parameters, "sliding_attention")?;
            parameters = table(&parameters, "full_attention")?;
        }
        let old = table(fields, "rope_scaling")?;
        let scaling = if old.is_empty() { parameters.clone() } else { old };
        let ropes = Ropes { fields, parameters, local, scaling };
        match kind(&ropes.local) {
            "default" => Ok(ropes),
            other => {
                Err(unsupported(format!("rope_parameters of type {other:?} in layers with a window"), "only plain ones are".to_string()))
            }
        }
    }

    fn theta(&self, family: Family) -> Result<f32, ModelError> {
        let default = match family {
            Family::Gemma3 => 1e6,
            Family::SmolLm3 => 2e6,
            Family::Llama | Family::Qwen2 | Family::Qwen3 | Family::Phi3 => 1e4,
        };
        let place = if self.parameters.contains_key("rope_theta") { &self.parameters } else { self.fields };
        number(place, "rope_theta", default)
    }

    fn local_theta(&self, family: Family) -> Result<Option<f32>, ModelError> {
        if family != Family::Gemma3 {
            return Ok(None);
        }
        match self.local.contains_key("rope_theta") {
            true => number(&self.local, "rope_theta", 1e4).map(Some),
            false => number(self.fields, "rope_local_base_freq", 1e4).map(Some),
        }
    }

    fn rotary_dim(&self, family: Family, head_dim: usize) -> Result<Option<usize>, ModelError> {
        let place = if self.parameters.contains_key("partial_rotary_factor") { &self.parameters } else { self.fields };
        let factor = number(place, "partial_rotary_factor", 1.0)?;
        if factor == 1.0 {
            return Ok(None);
        }
        if family != Family::Phi3 {
            return Err(unsupported(format!("partial_rotary_factor {factor}"), "only a Phi-3 turns a part of a head".to_string()));
        }
        if !(factor > 0.0 && factor < 1.0) {
            return Err(wrong(format!("partial_rotary_factor is {factor}; it must be above 0 and at most 1")));
        }
        Ok(Some((head_dim as f64 * f64::from(factor)) as usize))
    }

    fn scaling(&self, positions: usize) -> Result<RopeScaling, ModelError> {
        let table = &self.scaling;
        let needed = |name: &str| number_in(table, name)?.ok_or_else(|| wrong(format!("{name} of rope_scaling is missing")));
        let original = || match (table.get("original_max_position_embeddings"), self.fields.get("original_max_position_embeddings")) {
            (None | Some(Value::Null), Some(_)) => size(self.fields, "original_max_position_embeddings", None),
            (None | Some(Value::Null), None) => Ok(positions),
            (Some(_), _) => size(table, "original_max_position_embeddings", None),
        };
        match kind(table) {
            "default" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor: needed("factor")? }),
            "llama3" => Ok(RopeScaling::Llama3 {
                factor: needed("factor")?,
                low_freq_factor: needed("low_freq_factor")?,
                high_freq_factor: needed("high_freq_factor")?,
                original: original()?,
            }),
            "yarn" if !table.contains_key("long_factor") => self.yarn(needed("factor")?, original()?),
            // `su` is what the first Phi-3 called it.
            "longrope" | "su" => {
                let original = original()?;
                let stretched = number_in(table, "factor")?.map_or(positions as f64, |factor| f64::from(factor) * original as f64);
                let attention_factor = number_in(table, "attention_factor")?;
                Ok(RopeScaling::LongRope {
                    short_factor: numbers(table, "short_factor")?,
                    long_factor: numbers(table, "long_factor")?,
                    original,
                    attention_factor: attention_factor.unwrap_or(longrope_attention_factor(stretched, original)),
                })
            }
            other => {
                Err(unsupported(format!("rope_scaling of type {other:?}"), "default, linear, llama3, yarn and longrope are".to_string()))
            }
        }
    }

    fn yarn(&self, factor: f32, original: usize) -> Result<RopeScaling, ModelError> {
        let table = &self.scaling;
        for name in ["mscale", "mscale_all_dim"] {
            if number_in(table, name)?.is_some() {
                return Err(unsupported(format!("{name} of rope_scaling"), "only yarn with an attention_factor or none is".to_string()));
            }
        }
        if table.get("truncate") == Some(&Value::Bool(false)) {
            return Err(unsupported("truncate of rope_scaling".to_string(), "only yarn with whole bounds is".to_string()));
        }
        Ok(RopeScaling::Yarn(Yarn {
            factor,
            original,
            attention_factor: number_in(table, "attention_factor")?.unwrap_or(Yarn::default_attention_factor(factor)),
            beta_fast: number_in(table, "beta_fast")?.unwrap_or(32.0),
            beta_slow: number_in(table, "beta_slow")?.unwrap_or(1.0),
        }))
    }
}

/// `rope_type`, which older files call `type`.
fn kind(table: &Fields) -> &str {
    table.get("rope_type").or_else(|| table.get("type")).map_or("default", |kind| kind.as_str().unwrap_or("?"))
}

fn scaling_json(config: &Config) -> Value {
    match &config.features.rope_scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": shortest(*factor)}),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => json!({
            "rope_type": "llama3",
            "factor": shortest(*factor),
            "low_freq_factor": shortest(*low_freq_factor),
            "high_freq_factor": shortest(*high_freq_factor),
            "original_max_position_embeddings": original,
        }),
        RopeScaling::Yarn(Yarn { factor, original, attention_factor, beta_fast, beta_slow }) => json!({
            "rope_type": "yarn",
            "factor": shortest(*factor),
            "original_max_position_embeddings": original,
            "attention_factor": shortest(*attention_factor),
            "beta_fast": shortest(*beta_fast),
            "beta_slow": shortest(*beta_slow),
        }),
        RopeScaling::LongRope { short_factor, long_factor, original, attention_factor } => {
            let list = |factors: &[f32]| factors.iter().map(|factor| shortest(*factor)).collect::<Vec<_>>();
            let mut table = json!({"type": "longrope", "short_factor": list(short_factor), "long_factor": list(long_factor)});
            let implied = longrope_attention_factor(config.max_position_embeddings as f64, *original);
            // Older readers of a Phi-3 insist on these three fields alone.
            if config.family != Family::Phi3 || *attention_factor != implied {
                table["rope_type"] = "longrope".into();
                table["original_max_position_embeddings"] = (*original).into();
                table["attention_factor"] = shortest(*attention_factor).into();
            }
            table
        }
    }
}

fn unsupported(what: String, why: String) -> ModelError {
    ModelError::unsupported(format!("config.json: {what}"), why)
}

/// A value from the file, not longer than a line.
fn short(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}

fn size(fields: &Fields, name: &str, default: Option<usize>) -> Result<usize, ModelError> {
    match (fields.get(name), default) {
        (None | Some(Value::Null), Some(default)) => Ok(default),
        (None | Some(Value::Null), None) => Err(wrong(format!("{name} is missing"))),
        (Some(value), _) => {
            let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
            number.ok_or_else(|| wrong(format!("{name} is {}, not a size", short(value))))
        }
    }
}

/// Must be there, but may be `null`.
fn optional_size(fields: &Fields, name: &str) -> Result<Option<usize>, ModelError> {
    if fields.get(name).is_some_and(Value::is_null) { Ok(None) } else { size(fields, name, None).map(Some) }
}

fn number(fields: &Fields, name: &str, default: f64) -> Result<f32, ModelError> {
    Ok(number_in(fields, name)?.unwrap_or(default as f32))
}

fn number_in(fields: &Fields, name: &str) -> Result<Option<f32>, ModelError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(|x| Some(x as f32)).ok_or_else(|| wrong(format!("{name} is {}, not a number", short(value)))),
    }
}

/// A list that must be there. Its length is checked with everything else.
fn numbers(fields: &Fields, name: &str) -> Result<Vec<f32>, ModelError> {
    let list = fields.get(name).and_then(Value::as_array).ok_or_else(|| wrong(format!("{name} of rope_scaling is no list of numbers")))?;
    let one =
        |value: &Value| value.as_f64().map(|x| x as f32).ok_or_else(|| wrong(format!("{name} of rope_scaling holds {}", short(value))));
    list.iter().map(one).collect()
}

fn boolean(fields: &Fields, name: &str) -> Result<bool, ModelError> {
    boolean_or(fields, name, false)
}

fn boolean_or(fields: &Fields, name: &str, default: bool) -> Result<bool, ModelError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(value)) => Ok(*value),
        Some(value) => Err(wrong(format!("{name} is {}, neither true nor false", short(value)))),
    }
}

fn token(fields: &Fields, name: &str) -> Result<Option<u32>, ModelError> {
    Ok(tokens(fields, name)?.first().copied())
}

/// One token or a list of them, each once.
pub fn tokens(fields: &Fields, name: &str) -> Result<Vec<u32>, ModelError> {
    let id = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
    let found: Option<Vec<u32>> = match fields.get(name) {
        None | Some(Value::Null) => Some(Vec::new()),
        // Some old checkpoints say -1 for "none".
        Some(Value::Number(n)) if n.as_i64() == Some(-1) => Some(Vec::new()),
        Some(Value::Array(ids)) if !ids.is_empty() && ids.len() <= MAX_ENDS => ids.iter().map(id).collect(),
        Some(value) => id(value).map(|id| vec![id]),
    };
    let mut found = found.ok_or_else(|| wrong(format!("{name} is {}, not a token", fields.get(name).map_or_else(String::new, short))))?;
    let mut seen = BTreeSet::new();
    found.retain(|id| seen.insert(*id));
    Ok(found)
}
