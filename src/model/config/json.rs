//! `config.json`, as transformers reads and writes it for the causal language models of each family. A missing field means what it means there;
//! what we cannot run is refused by the name of its field.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::rope::{Yarn, longrope_attention_factor};
use super::{Activation, Config, Family, Features, MAX_LAYERS, RopeScaling, wrong};
use crate::base::json;
use crate::model::{ModelError, keys};

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
        let value: Value = json::from_foreign_slice(bytes).map_err(|error| ModelError::malformed("config.json", error))?;
        let fields = value.as_object().ok_or_else(|| wrong("it holds no table"))?;
        let kind = Kind::of(fields)?;
        keys::check(keys::File::Config, fields)?;
        if fields.get("is_causal").is_some_and(Value::is_null) {
            let why = "transformers takes null for false, and tokens see only those before them here; leave it out".to_string();
            return Err(unsupported("is_causal null".to_string(), why));
        }
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
        let ends = tokens(fields, "eos_token_id", "config.json")?;
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
            rope_theta: ropes.theta()?,
            tie_word_embeddings: boolean_or(fields, "tie_word_embeddings", matches!(kind.family, Family::Gemma3 | Family::SmolLm3))?,
            bos_token_id: token(fields, "bos_token_id")?,
            eos_token_id: ends.first().copied(),
            pad_token_id: token(fields, "pad_token_id")?,
            features: Features {
                rotary_dim: ropes.rotary_dim(head_dim)?,
                rope_scaling: ropes.scaling(max_position_embeddings)?,
                rope_local_theta: ropes.local_theta()?,
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

    /// Where the layers are all of one kind, what a file says about each must agree with it.
    fn check_layer_types(self, fields: &Fields, window: Option<usize>) -> Result<(), ModelError> {
        let Some(types) = fields.get("layer_types").filter(|types| !types.is_null()) else { return Ok(()) };
        let is_plain = types.as_array().is_some_and(|types| types.iter().all(|kind| kind == "full_attention"));
        let why = match (self.family, window) {
            (Family::Gemma3, _) => return Ok(()),
            (Family::Qwen2 | Family::Qwen3 | Family::SmolLm3, Some(_)) => return Ok(()),
            (Family::Llama | Family::Phi3, Some(_)) => "its window is that of all layers",
            (_, None) if is_plain => return Ok(()),
            (_, None) => "there is no window, so all layers are full_attention",
        };
        Err(unsupported(format!("layer_types {}", short(types)), why.to_string()))
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
        kind.check_layer_types(fields, window)?;
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

/// What the file says about positions: as transformers 5 takes it, from `rope_scaling` if that says anything, otherwise from `rope_parameters`, and only what
/// neither says from the fields around them. A Gemma has a table for each kind of layer.
struct Ropes<'a> {
    fields: &'a Fields,
    family: Family,
    /// Of layers without a window.
    table: Fields,
    /// What messages call it.
    name: &'static str,
    /// Of layers with one.
    local: Fields,
}

/// What a table of positions may hold.
const OF_ROPES: [&str; 17] = [
    "rope_type",
    "type",
    "rope_theta",
    "partial_rotary_factor",
    "factor",
    "original_max_position_embeddings",
    "low_freq_factor",
    "high_freq_factor",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "short_factor",
    "long_factor",
    // Of the first Phi-3, whose own class does not use it.
    "finetuned",
];

impl<'a> Ropes<'a> {
    fn of(fields: &'a Fields, family: Family) -> Result<Ropes<'a>, ModelError> {
        let (scaling, parameters) = (table_in(fields, "rope_scaling")?, table_in(fields, "rope_parameters")?);
        let ropes = match family {
            Family::Gemma3 => Ropes::of_gemma(fields, scaling, &parameters)?,
            _ if scaling.is_empty() => Ropes { fields, family, table: parameters, name: "rope_parameters", local: Fields::new() },
            _ => Ropes { fields, family, table: scaling, name: "rope_scaling", local: Fields::new() },
        };
        ropes.check_names()?;
        match kind(&ropes.local) {
            "default" => Ok(ropes),
            other => {
                Err(unsupported(format!("rope_parameters of type {other:?} in layers with a window"), "only plain ones are".to_string()))
            }
        }
    }

    /// Older files' `rope_scaling` is of the layers without a window, and goes over what `rope_parameters` says of them.
    fn of_gemma(fields: &'a Fields, scaling: Fields, parameters: &Fields) -> Result<Ropes<'a>, ModelError> {
        let is_layered = |name: &String| name == "full_attention" || name == "sliding_attention";
        if let Some(name) = parameters.keys().find(|name| !is_layered(name)) {
            let why = "a Gemma 3 has one table for each kind of layer: full_attention and sliding_attention".to_string();
            return Err(unsupported(format!("rope_parameters with `{}`", short_name(name)), why));
        }
        // transformers 5 sets `rope_type` before it looks for `type`, and older ones do not.
        if scaling.contains_key("type") && !scaling.contains_key("rope_type") && kind(&scaling) != "default" {
            let why = "some versions of transformers overlook it there; write `rope_type`".to_string();
            return Err(unsupported("rope_scaling with `type` in a Gemma 3".to_string(), why));
        }
        let mut table = table_in(parameters, "full_attention")?;
        let name = if scaling.is_empty() { "rope_parameters" } else { "rope_scaling" };
        table.extend(scaling);
        Ok(Ropes { fields, family: Family::Gemma3, table, name, local: table_in(parameters, "sliding_attention")? })
    }

    fn check_names(&self) -> Result<(), ModelError> {
        let mut all = self.table.iter().chain(&self.local);
        match all.find(|(name, value)| !OF_ROPES.contains(&name.as_str()) && !keys::says_nothing(value)) {
            Some((name, value)) => {
                let what = format!("{} of {} = {}", short_name(name), self.name, short(value));
                Err(unsupported(what, format!("these are: {}", OF_ROPES.join(", "))))
            }
            None => Ok(()),
        }
    }

    fn theta(&self) -> Result<f32, ModelError> {
        let default = match self.family {
            Family::Gemma3 => 1e6,
            Family::SmolLm3 => 2e6,
            Family::Llama | Family::Qwen2 | Family::Qwen3 | Family::Phi3 => 1e4,
        };
        let place = if self.table.contains_key("rope_theta") { &self.table } else { self.fields };
        base(place, "rope_theta", default)
    }

    fn local_theta(&self) -> Result<Option<f32>, ModelError> {
        if self.family != Family::Gemma3 {
            return Ok(None);
        }
        match self.local.contains_key("rope_theta") {
            true => base(&self.local, "rope_theta", 1e4).map(Some),
            false => base(self.fields, "rope_local_base_freq", 1e4).map(Some),
        }
    }

    fn rotary_dim(&self, head_dim: usize) -> Result<Option<usize>, ModelError> {
        let place = if self.table.contains_key("partial_rotary_factor") { &self.table } else { self.fields };
        let factor = number(place, "partial_rotary_factor", 1.0)?;
        if factor == 1.0 {
            return Ok(None);
        }
        if self.family != Family::Phi3 {
            return Err(unsupported(format!("partial_rotary_factor {factor}"), "only a Phi-3 turns a part of a head".to_string()));
        }
        if !(factor > 0.0 && factor < 1.0) {
            return Err(wrong(format!("partial_rotary_factor is {factor}; it must be above 0 and at most 1")));
        }
        Ok(Some((head_dim as f64 * f64::from(factor)) as usize))
    }

    /// The length of the first training: the field around the table wins, if there is one.
    fn original(&self, positions: usize) -> Result<usize, ModelError> {
        const NAME: &str = "original_max_position_embeddings";
        match self.family {
            Family::Phi3 => size(self.fields, NAME, Some(4096)),
            Family::Gemma3 => size(&self.table, NAME, Some(positions)),
            _ if self.fields.get(NAME).is_some_and(|value| !value.is_null()) => size(self.fields, NAME, None),
            _ => size(&self.table, NAME, Some(positions)),
        }
    }

    fn scaling(&self, positions: usize) -> Result<RopeScaling, ModelError> {
        let table = &self.table;
        let needed = |name: &str| number_in(table, name)?.ok_or_else(|| wrong(format!("{name} of {} is missing", self.name)));
        let original = || self.original(positions);
        let kind = match kind(table) {
            // transformers' other names of it.
            "su" | "yarn" if self.family == Family::Phi3 => "longrope",
            "su" => "longrope",
            other if self.family == Family::Phi3 && !matches!(other, "default" | "longrope") => {
                return Err(unsupported(format!("{} of type {other:?}", self.name), "a Phi-3's is longrope".to_string()));
            }
            other => other,
        };
        if kind == "default"
            && let Some(factor) = table.get("factor").filter(|factor| !keys::says_nothing(factor) && factor.as_f64() != Some(1.0))
        {
            let why = "without a rope_type it has no effect; name the type, or remove it".to_string();
            return Err(unsupported(format!("factor of {} = {}", self.name, short(factor)), why));
        }
        match kind {
            "default" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor: needed("factor")? }),
            "llama3" => Ok(RopeScaling::Llama3 {
                factor: needed("factor")?,
                low_freq_factor: needed("low_freq_factor")?,
                high_freq_factor: needed("high_freq_factor")?,
                original: original()?,
            }),
            "yarn" => self.yarn(positions, original()?),
            "longrope" => {
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

    fn yarn(&self, positions: usize, original: usize) -> Result<RopeScaling, ModelError> {
        let table = &self.table;
        let factor = match table.get("factor") {
            None => return Err(wrong(format!("factor of {} is missing", self.name))),
            Some(Value::Null) => (positions as f64 / original as f64) as f32,
            Some(_) => number(table, "factor", 1.0)?,
        };
        if table.get("truncate") == Some(&Value::Bool(false)) {
            return Err(unsupported(format!("truncate of {}", self.name), "only yarn with whole bounds is".to_string()));
        }
        // One of them alone has no effect in transformers either.
        let scale = |name: &str| Ok::<_, ModelError>(number_in(table, name)?.filter(|scale| *scale != 0.0));
        let implied = match (scale("mscale")?, scale("mscale_all_dim")?) {
            (Some(one), Some(all)) => Yarn::scaled_attention_factor(factor, one) / Yarn::scaled_attention_factor(factor, all),
            _ => Yarn::default_attention_factor(factor),
        };
        Ok(RopeScaling::Yarn(Yarn {
            factor,
            original,
            attention_factor: number_in(table, "attention_factor")?.unwrap_or(implied),
            beta_fast: number_in(table, "beta_fast")?.unwrap_or(32.0),
            beta_slow: number_in(table, "beta_slow")?.unwrap_or(1.0),
        }))
    }
}

/// `rope_type`, which older files call `type`.
fn kind(table: &Fields) -> &str {
    table.get("rope_type").or_else(|| table.get("type")).map_or("default", |kind| kind.as_str().unwrap_or("?"))
}

/// A table that may be missing or null.
fn table_in(fields: &Fields, name: &str) -> Result<Fields, ModelError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(Fields::new()),
        Some(Value::Object(table)) => Ok(table.clone()),
        Some(other) => Err(wrong(format!("{name} is {}, not a table", short(other)))),
    }
}

/// A base of rotary positions; `null` stands for none.
fn base(fields: &Fields, name: &str, default: f64) -> Result<f32, ModelError> {
    match fields.get(name) {
        Some(Value::Null) => Err(wrong(format!("{name} is null; write the number, or leave it out for {default}"))),
        _ => number(fields, name, default),
    }
}

fn short_name(name: &str) -> String {
    name.chars().take(80).collect()
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
    Ok(tokens(fields, name, "config.json")?.first().copied())
}

/// Where transformers ends the answers of a model whose `config.json` has no `eos_token_id` at all: at the token of its class.
pub fn unsaid_end(bytes: &[u8], config: &Config) -> Result<Option<u32>, ModelError> {
    let value: Value = json::from_foreign_slice(bytes).map_err(|error| ModelError::malformed("config.json", error))?;
    if value.get("eos_token_id").is_some() {
        return Ok(None);
    }
    let end = match value["model_type"].as_str() {
        Some("llama" | "mistral") => Some(2),
        Some("gemma3_text") => Some(1),
        Some("phi3") => Some(32_000),
        Some("smollm3") => Some(128_001),
        _ => None,
    };
    Ok(end.filter(|end| (*end as usize) < config.vocab_size))
}

/// One token or a list of them, each once. `file` is the one that `fields` come from.
pub fn tokens(fields: &Fields, name: &str, file: &str) -> Result<Vec<u32>, ModelError> {
    let id = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
    let found: Option<Vec<u32>> = match fields.get(name) {
        None | Some(Value::Null) => Some(Vec::new()),
        // Some old checkpoints say -1 for "none".
        Some(Value::Number(n)) if n.as_i64() == Some(-1) => Some(Vec::new()),
        Some(Value::Array(ids)) if !ids.is_empty() && ids.len() <= MAX_ENDS => ids.iter().map(id).collect(),
        Some(value) => id(value).map(|id| vec![id]),
    };
    let not_a_token = || format!("{name} is {}, not a token", fields.get(name).map_or_else(String::new, short));
    let mut found = found.ok_or_else(|| ModelError::malformed(file, not_a_token()))?;
    let mut seen = BTreeSet::new();
    found.retain(|id| seen.insert(*id));
    Ok(found)
}
