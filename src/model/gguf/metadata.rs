//! A model's configuration as GGUF's metadata say it.

use std::path::Path;

use super::llama::wrong;
use super::{Array, Gguf, Value, arch, tokens};
use crate::model::config::{MAX_LAYERS, RopeScaling, Yarn};
use crate::model::decoder::Pairs;
use crate::model::quant::dequantize;
use crate::model::weights::Layout;
use crate::model::{Activation, Config, Family, Features, Model, ModelError, keys};

/// Everything that llama.cpp wants to know. `file_type` is `llama_ftype`. No name is written: it would make equal models unequal files.
pub fn metadata<W>(model: &Model<W>, file_type: u32) -> Result<Vec<(String, Value)>, ModelError> {
    let config = &model.config;
    arch::refuse_what_it_cannot_say(config)?;
    let number = |n: usize| {
        u32::try_from(n).map(Value::U32).map_err(|_| ModelError::TooLarge {
            what: "a size of the model".to_string(),
            size: n as u64,
            limit: u64::from(u32::MAX),
        })
    };
    let arch = arch::name(config.family);
    let mut entries = vec![
        ("general.architecture".to_string(), Value::from(arch)),
        ("general.type".to_string(), Value::from("model")),
        ("general.size_label".to_string(), Value::String(size_label(Layout::of(config)?.total()))),
    ];
    let mut add = |key: &str, value: Value| entries.push((format!("{arch}.{key}"), value));
    add("block_count", number(config.num_hidden_layers)?);
    add("context_length", number(config.max_position_embeddings)?);
    add("embedding_length", number(config.hidden_size)?);
    add("feed_forward_length", number(config.intermediate_size)?);
    add("attention.head_count", number(config.num_attention_heads)?);
    add("attention.head_count_kv", number(config.num_key_value_heads)?);
    add("rope.freq_base", Value::F32(config.rope_theta));
    add("attention.layer_norm_rms_epsilon", Value::F32(config.rms_norm_eps));
    add("attention.key_length", number(config.head_dim)?);
    add("attention.value_length", number(config.head_dim)?);
    match &config.features.rope_scaling {
        RopeScaling::None | RopeScaling::Llama3 { .. } => {}
        RopeScaling::Linear { factor } => {
            add("rope.scaling.type", Value::from("linear"));
            add("rope.scaling.factor", Value::F32(*factor));
        }
        RopeScaling::Yarn(yarn) => {
            add("rope.scaling.type", Value::from("yarn"));
            add("rope.scaling.factor", Value::F32(yarn.factor));
            add("rope.scaling.original_context_length", number(yarn.original)?);
            add("rope.scaling.yarn_beta_fast", Value::F32(yarn.beta_fast));
            add("rope.scaling.yarn_beta_slow", Value::F32(yarn.beta_slow));
        }
        RopeScaling::LongRope { attention_factor, original, .. } if config.family == Family::Phi3 => {
            add("rope.scaling.attn_factor", Value::F32(*attention_factor));
            add("rope.scaling.original_context_length", number(*original)?);
        }
        RopeScaling::LongRope { .. } => {}
    }
    if matches!(config.family, Family::Gemma3 | Family::Phi3) {
        // A Phi-4 has a zero.
        add("attention.sliding_window", number(config.sliding_window.unwrap_or(0))?);
    }
    entries.push(("general.file_type".to_string(), Value::U32(file_type)));
    let mut add = |key: &str, value: Value| entries.push((format!("{arch}.{key}"), value));
    add("vocab_size", number(config.vocab_size)?);
    add("rope.dimension_count", number(config.rotary_dim())?);
    entries.push(("general.quantization_version".to_string(), Value::U32(2)));
    entries.extend(tokens::write(model)?.into_iter().map(|(key, value)| (key.to_string(), value)));
    // As gguf-py names them. A model without any stays without.
    if let Some(source) = model.chat.source() {
        entries.push(("tokenizer.chat_template".to_string(), Value::from(source)));
    }
    let names: Vec<String> = model.chat.others().map(|(name, _)| name.to_string()).collect();
    if !names.is_empty() {
        entries.push(("tokenizer.chat_templates".to_string(), Value::Array(Array::String(names))));
        entries.extend(model.chat.others().map(|(name, source)| (format!("tokenizer.chat_template.{name}"), Value::from(source))));
    }
    Ok(entries)
}

/// The converter's `61K`, `1.2M`, `135M`: two digits at least.
fn size_label(parameters: usize) -> String {
    let parameters = parameters as f64;
    let (scaled, unit) = match parameters {
        n if n > 1e12 => (n * 1e-12, 'T'),
        n if n > 1e9 => (n * 1e-9, 'B'),
        n if n > 1e6 => (n * 1e-6, 'M'),
        n => (n * 1e-3, 'K'),
    };
    let digits = match scaled.round_ties_even() {
        n if n >= 10.0 => 0,
        n if n >= 1.0 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$}{unit}")
}

/// The configuration of a file, all of whose metadata that would change what the model computes is understood.
pub fn config(file: &Gguf, path: &Path) -> Result<Config, ModelError> {
    if let Some(kind) = file.get("general.type").filter(|kind| kind.as_str() != Some("model")) {
        let what = format!("`{}`, whose general.type is `{}`,", path.display(), super::shown(kind.as_str().unwrap_or("?")));
        return Err(ModelError::unsupported(what, "a model is needed, not an adapter, a projector or an importance matrix"));
    }
    let missing = || wrong(path, "general.architecture is missing".to_string());
    let family = arch::family(file.get("general.architecture").and_then(Value::as_str).ok_or_else(missing)?)?;
    let fields = Fields { file, path, arch: arch::name(family) };
    keys::check_gguf(&file.header, fields.arch)?;
    let embedding = file.tensor("token_embd.weight").ok_or_else(|| fields.wrong("tensor `token_embd.weight` is missing".to_string()))?;
    let heads = fields.size("attention.head_count", None)?;
    let hidden_size = fields.size("embedding_length", None)?;
    let head_dim = fields.size("attention.key_length", hidden_size.checked_div(heads))?;
    let layers = fields.size("block_count", None)?;
    // Before any list of layers is made.
    if layers as u64 > MAX_LAYERS {
        return Err(fields.wrong(format!("block_count (num_hidden_layers) is {layers}; it must be 1 to {MAX_LAYERS}")));
    }
    fields.token("tokenizer.ggml.eos_token_id")?;
    let ends = tokens::ends::read(&file.header).map_err(|why| fields.wrong(why))?;
    let mut config = Config {
        family,
        vocab_size: embedding.shape.get(1).copied().unwrap_or(0),
        hidden_size,
        intermediate_size: fields.size("feed_forward_length", None)?,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: fields.size("attention.head_count_kv", Some(heads))?,
        head_dim,
        max_position_embeddings: fields.size("context_length", None)?,
        hidden_act: if family == Family::Gemma3 { Activation::GeluTanh } else { Activation::Silu },
        sliding_window: fields.window(family)?,
        rms_norm_eps: fields.number("attention.layer_norm_rms_epsilon", None)?,
        rope_theta: fields.number("rope.freq_base", Some(1e4))?,
        tie_word_embeddings: file.tensor("output.weight").is_none(),
        bos_token_id: fields.token("tokenizer.ggml.bos_token_id")?,
        eos_token_id: ends.first().copied(),
        pad_token_id: fields.token("tokenizer.ggml.padding_token_id")?,
        features: Features { other_ends: ends.iter().skip(1).copied().collect(), ..Features::of(family) },
    };
    fields.heads(&mut config)?;
    // What follows divides by sizes.
    fields.check(&config)?;
    fields.layers(&mut config)?;
    config.features.rope_scaling = fields.scaling(&config)?;
    fields.check(&config)?;
    Ok(config)
}

/// Typed looks into a file's metadata.
struct Fields<'a> {
    file: &'a Gguf,
    path: &'a Path,
    /// What keys of the architecture begin with.
    arch: &'static str,
}

impl Fields<'_> {
    fn wrong(&self, why: String) -> ModelError {
        wrong(self.path, why)
    }

    /// There is no `config.json` to blame.
    fn check(&self, config: &Config) -> Result<(), ModelError> {
        let of_this_file = |what: String| match what.strip_prefix("config.json") {
            Some(rest) => format!("`{}`{rest}", self.path.display()),
            None => what,
        };
        config.check().map_err(|error| match error {
            ModelError::Malformed { what, why } => ModelError::Malformed { what: of_this_file(what), why },
            ModelError::Unsupported { what, why } => ModelError::Unsupported { what: of_this_file(what), why },
            other => other,
        })
    }

    /// Files of architectures without a window may say 0.
    fn window(&self, family: Family) -> Result<Option<usize>, ModelError> {
        let window = Some(self.size("attention.sliding_window", Some(0))?).filter(|window| *window > 0);
        match (family, window) {
            (Family::Gemma3 | Family::Phi3, _) | (_, None) => Ok(window),
            (_, Some(_)) => {
                let why = "llama.cpp's models of this architecture see all tokens";
                Err(ModelError::unsupported(format!("{}.attention.sliding_window", self.arch), why))
            }
        }
    }

    /// The sizes of heads, and what of them turns.
    fn heads(&self, config: &mut Config) -> Result<(), ModelError> {
        let head_dim = config.head_dim;
        let unsupported = |key: &str, size: usize| {
            Err(ModelError::unsupported(format!("{}.{key} = {size}", self.arch), format!("it must be the head's {head_dim}")))
        };
        for key in ["attention.value_length", "attention.key_length_swa", "attention.value_length_swa"] {
            let size = self.size(key, Some(head_dim))?;
            if size != head_dim {
                return unsupported(key, size);
            }
        }
        let turned = self.size("rope.dimension_count", Some(head_dim))?;
        let locally = self.size("rope.dimension_count_swa", Some(turned))?;
        if locally != turned {
            return unsupported("rope.dimension_count_swa", locally);
        }
        match config.family {
            _ if turned == head_dim => Ok(()),
            Family::Phi3 => {
                config.features.rotary_dim = Some(turned);
                Ok(())
            }
            _ => unsupported("rope.dimension_count", turned),
        }
    }

    /// What llama.cpp takes for granted of some architectures' layers.
    fn layers(&self, config: &mut Config) -> Result<(), ModelError> {
        let layers = config.num_hidden_layers;
        self.pattern(config.family)?;
        match config.family {
            Family::Gemma3 => {
                if config.sliding_window.is_none() {
                    return Err(self.wrong("gemma3.attention.sliding_window is missing".to_string()));
                }
                config.features.full_layers = arch::every(arch::GEMMA3_PATTERN, layers);
                config.features.query_pre_attn_scalar = Some(arch::gemma3_scalar(config));
                config.features.rope_local_theta = Some(self.number("rope.freq_base_swa", Some(arch::GEMMA3_LOCAL_THETA))?);
            }
            Family::SmolLm3 => config.features.unturned_layers = arch::every(arch::SMOLLM3_PATTERN, layers),
            Family::Llama | Family::Qwen2 | Family::Qwen3 | Family::Phi3 => {}
        }
        Ok(())
    }

    /// Which layers have a window: versions of llama.cpp differ in whether they ask the file.
    fn pattern(&self, family: Family) -> Result<(), ModelError> {
        const KEY: &str = "attention.sliding_window_pattern";
        match (self.get(KEY), family) {
            (None, _) => Ok(()),
            (Some(value), Family::Gemma3) if value.as_u64() == Some(arch::GEMMA3_PATTERN as u64) => Ok(()),
            (Some(_), Family::Gemma3) => {
                let why = "every sixth layer of a Gemma 3 sees all tokens, and no other";
                Err(ModelError::unsupported(format!("{}.{KEY}", self.arch), why))
            }
            (Some(value), _) if value.as_u64().is_some_and(|pattern| pattern <= 1) => Ok(()),
            (Some(_), _) => Err(ModelError::unsupported(format!("{}.{KEY}", self.arch), "all layers of this architecture see alike")),
        }
    }

    /// As llama.cpp reads it: positions are divided by `rope.scaling.factor`, or else by the older `rope.scale_linear`, unless the type says `none`.
    fn scaling(&self, config: &Config) -> Result<RopeScaling, ModelError> {
        let kind = match self.get("rope.scaling.type") {
            None => "linear",
            Some(value) => value.as_str().ok_or_else(|| self.wrong(format!("{}.rope.scaling.type is not a text", self.arch)))?,
        };
        let place = if self.get("rope.scaling.factor").is_some() { "rope.scaling.factor" } else { "rope.scale_linear" };
        let factor = Some(self.number(place, Some(1.0))?).filter(|factor| *factor != 0.0).unwrap_or(1.0);
        let factor = if kind == "none" { 1.0 } else { factor };
        let original = || self.size("rope.scaling.original_context_length", Some(config.max_position_embeddings));
        let pairs = config.rotary_dim() / 2;
        if config.family == Family::Phi3 {
            return self.phi3_scaling(kind, (place, factor), original()?, pairs);
        }
        if self.number("rope.scaling.attn_factor", Some(1.0))? != 1.0 {
            return Err(self.unsupported_scaling(&format!("{}.rope.scaling.attn_factor", self.arch)));
        }
        let factors = self.factors(arch::ROPE_FREQS, pairs)?;
        match (kind, factors) {
            ("none" | "linear" | "longrope", None) if factor == 1.0 => Ok(RopeScaling::None),
            ("linear" | "longrope", None) => Ok(RopeScaling::Linear { factor }),
            ("none" | "linear" | "longrope", Some(factors)) if factor == 1.0 && arch::pairs(config.family) == Pairs::Neighbours => {
                Ok(known_factors(config, factors))
            }
            ("yarn", None) => Ok(RopeScaling::Yarn(Yarn {
                factor,
                original: original()?,
                attention_factor: Yarn::default_attention_factor(factor),
                beta_fast: 32.0,
                beta_slow: 1.0,
            })),
            ("none" | "linear" | "longrope" | "yarn", Some(_)) => Err(self.unsupported_scaling(arch::ROPE_FREQS)),
            (other, _) => Err(self.unsupported_scaling(&format!("{}.rope.scaling.type `{}`", self.arch, super::shown(other)))),
        }
    }

    /// Two tensors of factors, or none.
    fn phi3_scaling(&self, kind: &str, (place, factor): (&str, f32), original: usize, pairs: usize) -> Result<RopeScaling, ModelError> {
        let attention_factor = self.number("rope.scaling.attn_factor", Some(1.0))?;
        if !matches!(kind, "none" | "linear" | "longrope") || factor != 1.0 {
            return Err(self.unsupported_scaling(&format!("phi3.rope.scaling.type `{}` and phi3.{place} {factor}", super::shown(kind))));
        }
        match (self.factors(arch::ROPE_SHORT, pairs)?, self.factors(arch::ROPE_LONG, pairs)?) {
            (Some(short_factor), Some(long_factor)) => Ok(RopeScaling::LongRope { short_factor, long_factor, original, attention_factor }),
            (None, None) if attention_factor == 1.0 => Ok(RopeScaling::None),
            (None, None) => Err(self.unsupported_scaling("phi3.rope.scaling.attn_factor")),
            _ => Err(self.wrong(format!("it has one of `{}` and `{}`", arch::ROPE_SHORT, arch::ROPE_LONG))),
        }
    }

    fn unsupported_scaling(&self, what: &str) -> ModelError {
        let why = "positions of this architecture are stretched by linear and yarn here, and by factors only where llama.cpp has them";
        ModelError::unsupported(format!("scaled rotary positions ({what})"), why)
    }

    /// The numbers of a tensor that is no weight.
    fn factors(&self, name: &str, count: usize) -> Result<Option<Vec<f32>>, ModelError> {
        let Some(tensor) = self.file.tensor(name) else { return Ok(None) };
        if tensor.shape != [count] {
            return Err(self.wrong(format!("tensor `{name}` has shape {:?}, not [{count}]", tensor.shape)));
        }
        let mut factors = vec![0.0; count];
        dequantize(tensor.ty, self.file.bytes(tensor), &mut factors).map_err(|error| self.wrong(format!("tensor `{name}`: {error}")))?;
        Ok(Some(factors))
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.file.get(&format!("{}.{key}", self.arch))
    }

    fn size(&self, key: &str, default: Option<usize>) -> Result<usize, ModelError> {
        match (self.get(key), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.wrong(format!("{}.{key} is missing", self.arch))),
            (Some(value), _) => {
                let size = value.as_u64().and_then(|n| usize::try_from(n).ok());
                size.ok_or_else(|| self.wrong(format!("{}.{key} is not a size", self.arch)))
            }
        }
    }

    fn number(&self, key: &str, default: Option<f32>) -> Result<f32, ModelError> {
        match (self.get(key), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.wrong(format!("{}.{key} is missing", self.arch))),
            (Some(value), _) => value.as_f32().ok_or_else(|| self.wrong(format!("{}.{key} is not a number", self.arch))),
        }
    }

    fn token(&self, key: &str) -> Result<Option<u32>, ModelError> {
        match self.file.get(key) {
            None => Ok(None),
            Some(value) => {
                let id = value.as_u64().and_then(|n| u32::try_from(n).ok());
                let id = id.ok_or_else(|| self.wrong(format!("{key} is not a token")))?;
                match self.file.get("tokenizer.ggml.tokens").and_then(Value::as_strings).map(<[String]>::len) {
                    Some(tokens) if id as usize >= tokens => Err(self.wrong(format!("{key} is {id}, but the file has {tokens} tokens"))),
                    // That there are none is told by whoever needs them.
                    _ => Ok(Some(id)),
                }
            }
        }
    }
}

/// Llama 3.1's factors by the numbers that make them, so that a Hugging Face folder can say them in its own words; others as they are.
fn known_factors(config: &Config, factors: Vec<f32>) -> RopeScaling {
    let factor = factors.iter().copied().fold(0.0, f32::max);
    let llama3 = RopeScaling::Llama3 { factor, low_freq_factor: 1.0, high_freq_factor: 4.0, original: 8192 };
    let known = Config { features: Features { rope_scaling: llama3.clone(), ..config.features.clone() }, ..config.clone() };
    let is_near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * b.abs();
    if factor > 0.0 && factor.is_finite() && known.llama3_factors().iter().zip(&factors).all(is_near) {
        return llama3;
    }
    RopeScaling::LongRope {
        long_factor: factors.clone(),
        short_factor: factors,
        original: config.max_position_embeddings.max(2),
        attention_factor: 1.0,
    }
}
