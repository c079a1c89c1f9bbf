//! llama.cpp's architectures: what each calls a model's tensors, how it wants query and key rows, and what it takes for granted. All of it is that of
//! llama.cpp's converter and loaders.

use crate::model::config::RopeScaling;
use crate::model::decoder::Pairs;
use crate::model::{Activation, Config, Family, Features, ModelError};

const ARCHITECTURES: [(&str, Family); 6] = [
    ("llama", Family::Llama),
    ("qwen2", Family::Qwen2),
    ("qwen3", Family::Qwen3),
    ("gemma3", Family::Gemma3),
    ("phi3", Family::Phi3),
    ("smollm3", Family::SmolLm3),
];

/// Of every so many layers of a Gemma 3, one sees all tokens.
pub const GEMMA3_PATTERN: usize = 6;
/// The base of a Gemma 3's layers with a window.
pub const GEMMA3_LOCAL_THETA: f32 = 1e4;
/// Of every so many layers of a SmolLM3, one has no positions.
pub const SMOLLM3_PATTERN: usize = 4;

/// `general.architecture`
pub fn name(family: Family) -> &'static str {
    ARCHITECTURES.iter().find(|(_, known)| *known == family).map_or("llama", |(name, _)| name)
}

pub fn family(name: &str) -> Result<Family, ModelError> {
    let found = ARCHITECTURES.iter().find(|(known, _)| *known == name);
    found.map(|(_, family)| *family).ok_or_else(|| {
        let names: Vec<_> = ARCHITECTURES.iter().map(|(name, _)| *name).collect();
        ModelError::unsupported(format!("architecture `{}`", super::shown(name)), format!("these are: {}", names.join(", ")))
    })
}

/// How llama.cpp pairs the numbers that positions turn.
pub fn pairs(family: Family) -> Pairs {
    match family {
        Family::Llama | Family::SmolLm3 => Pairs::Neighbours,
        Family::Qwen2 | Family::Qwen3 | Family::Gemma3 | Family::Phi3 => Pairs::Halves,
    }
}

/// The last of every `pattern` layers.
pub fn every(pattern: usize, layers: usize) -> Vec<usize> {
    (0..layers).filter(|layer| (layer + 1).is_multiple_of(pattern)).collect()
}

/// `(part of a layer as Hugging Face names it, as GGUF names it)`
const PARTS: [(&str, &str); 17] = [
    ("input_layernorm.weight", "attn_norm.weight"),
    ("self_attn.q_proj.weight", "attn_q.weight"),
    ("self_attn.k_proj.weight", "attn_k.weight"),
    ("self_attn.v_proj.weight", "attn_v.weight"),
    ("self_attn.qkv_proj.weight", "attn_qkv.weight"),
    ("self_attn.q_proj.bias", "attn_q.bias"),
    ("self_attn.k_proj.bias", "attn_k.bias"),
    ("self_attn.v_proj.bias", "attn_v.bias"),
    ("self_attn.q_norm.weight", "attn_q_norm.weight"),
    ("self_attn.k_norm.weight", "attn_k_norm.weight"),
    ("self_attn.o_proj.weight", "attn_output.weight"),
    ("pre_feedforward_layernorm.weight", "ffn_norm.weight"),
    ("mlp.gate_proj.weight", "ffn_gate.weight"),
    ("mlp.up_proj.weight", "ffn_up.weight"),
    ("mlp.gate_up_proj.weight", "ffn_up.weight"),
    ("mlp.down_proj.weight", "ffn_down.weight"),
    ("post_feedforward_layernorm.weight", "post_ffw_norm.weight"),
];

/// `model.layers.0.self_attn.q_proj.weight` → `blk.0.attn_q.weight`
pub fn tensor_name(family: Family, name: &str) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some("token_embd.weight".to_string()),
        "model.norm.weight" => return Some("output_norm.weight".to_string()),
        "lm_head.weight" => return Some("output.weight".to_string()),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let theirs = match part {
        // One name, two places.
        "post_attention_layernorm.weight" if family == Family::Gemma3 => "post_attention_norm.weight",
        "post_attention_layernorm.weight" => "ffn_norm.weight",
        _ => PARTS.iter().find(|(ours, _)| *ours == part)?.1,
    };
    Some(format!("blk.{layer}.{theirs}"))
}

/// A file of this architecture would be taken for another model.
pub fn refuse_what_it_cannot_say(config: &Config) -> Result<(), ModelError> {
    let arch = name(config.family);
    let refuse = |what: String, why: &str| Err(ModelError::unsupported(what, format!("llama.cpp's `{arch}` {why}")));
    let act = if config.family == Family::Gemma3 { Activation::GeluTanh } else { Activation::Silu };
    if config.hidden_act != act {
        return match act {
            Activation::Silu => refuse("an MLP with GeLU".to_string(), "has SwiGLU only; train with `hidden_act = \"silu\"`"),
            Activation::GeluTanh => refuse("an MLP with SiLU".to_string(), "has GeGLU only"),
        };
    }
    match (config.window(), config.family) {
        (Some(window), Family::Llama) => {
            return refuse(format!("a sliding window of {window} tokens"), "sees all tokens; train without `sliding_window`");
        }
        (Some(window), Family::Qwen2 | Family::Qwen3 | Family::SmolLm3) => {
            return refuse(format!("a sliding window of {window} tokens (sliding_window)"), "sees all tokens");
        }
        // Of a Phi-3 the file says it, though llama.cpp sees all tokens.
        (Some(_), Family::Gemma3 | Family::Phi3) | (None, _) => {}
    }
    let Features { query_pre_attn_scalar, rope_local_theta, unturned_layers, full_layers, rope_scaling, .. } = &config.features;
    if config.family == Family::Gemma3 {
        if *full_layers != every(GEMMA3_PATTERN, config.num_hidden_layers) {
            return refuse("layer_types".to_string(), "lets every sixth layer see all tokens, and no other");
        }
        if config.sliding_window.is_none() || *rope_local_theta != Some(GEMMA3_LOCAL_THETA) {
            return refuse(
                "sliding_window or rope_local_base_freq".to_string(),
                "has a window, and 10000 as the base of layers that have it",
            );
        }
        if *query_pre_attn_scalar != Some(gemma3_scalar(config)) {
            return refuse("query_pre_attn_scalar".to_string(), "has the size of a head there (with 62 layers, hidden_size by heads)");
        }
    }
    if config.family == Family::SmolLm3 && *unturned_layers != every(SMOLLM3_PATTERN, config.num_hidden_layers) {
        return refuse("no_rope_layers".to_string(), "leaves out the positions of every fourth layer, and of no other");
    }
    if matches!(config.family, Family::Phi3 | Family::Qwen2) && config.query_size() != config.hidden_size {
        return refuse(format!("heads of {} together (head_dim)", config.query_size()), "has heads that are hidden_size together");
    }
    let scales = match (rope_scaling, config.family) {
        (RopeScaling::None, _) => true,
        (RopeScaling::LongRope { .. }, Family::Phi3) => true,
        (_, Family::Phi3) => false,
        (RopeScaling::Linear { .. }, _) => true,
        (RopeScaling::Yarn(yarn), family) => family != Family::Gemma3 && yarn.is_plain(),
        // llama.cpp reads the factors of no other architecture.
        (RopeScaling::Llama3 { .. }, family) => family == Family::Llama,
        (RopeScaling::LongRope { short_factor, long_factor, attention_factor, .. }, family) => {
            family == Family::Llama && short_factor == long_factor && *attention_factor == 1.0
        }
    };
    if scales { Ok(()) } else { refuse("this rope_scaling".to_string(), "has no positions that are stretched like this") }
}

/// What llama.cpp takes for `query_pre_attn_scalar`: it knows the 27B by its layers.
pub fn gemma3_scalar(config: &Config) -> f32 {
    if config.num_hidden_layers == 62 { (config.hidden_size / config.num_attention_heads) as f32 } else { config.head_dim as f32 }
}

/// Tensors that are no weights, ahead of those that are.
pub fn extra_tensors(config: &Config) -> Vec<(&'static str, Vec<f32>)> {
    match &config.features.rope_scaling {
        RopeScaling::LongRope { short_factor, long_factor, .. } if config.family == Family::Phi3 => {
            vec![(ROPE_LONG, long_factor.clone()), (ROPE_SHORT, short_factor.clone())]
        }
        RopeScaling::LongRope { short_factor, .. } => vec![(ROPE_FREQS, short_factor.clone())],
        RopeScaling::Llama3 { .. } => vec![(ROPE_FREQS, config.llama3_factors())],
        RopeScaling::None | RopeScaling::Linear { .. } | RopeScaling::Yarn(_) => Vec::new(),
    }
}

pub const ROPE_FREQS: &str = "rope_freqs.weight";
pub const ROPE_LONG: &str = "rope_factors_long.weight";
pub const ROPE_SHORT: &str = "rope_factors_short.weight";
