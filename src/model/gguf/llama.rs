//! A Llama model as GGUF names and orders it: which tensor is which, how query and key rows lie, which metadata says what. The layout is that of
//! llama.cpp's converter for `LlamaForCausalLM`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::{Gguf, TensorPlan, Value, Writer, named, tokens};
use crate::model::decoder::Pairs;
use crate::model::quant::{BlockType, quantize};
use crate::model::stored::Span;
use crate::model::weights::{Layout, Tensor};
use crate::model::{Activation, ChatTemplate, Config, Model, ModelError, Stored, Tokenizer, Weights};

/// `(part of a layer as Hugging Face names it, as GGUF names it)`
const PARTS: [(&str, &str); 9] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// `model.layers.0.self_attn.q_proj.weight` → `blk.0.attn_q.weight`
pub fn tensor_name(name: &str) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some("token_embd.weight".to_string()),
        "model.norm.weight" => return Some("output_norm.weight".to_string()),
        "lm_head.weight" => return Some("output.weight".to_string()),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("model.layers.")?.strip_suffix(".weight")?.split_once('.')?;
    let (_, theirs) = PARTS.iter().find(|(ours, _)| *ours == part)?;
    Some(format!("blk.{layer}.{theirs}.weight"))
}

/// The plan of a tensor: its name in the file, its shape in ggml's order.
pub fn plan(name: &str, shape: &[usize], ty: BlockType) -> Result<TensorPlan, ModelError> {
    let theirs = tensor_name(name).ok_or_else(|| ModelError::unsupported(format!("tensor `{name}`"), "GGUF has no name for it"))?;
    Ok(TensorPlan { name: theirs, shape: shape.iter().rev().copied().collect(), ty })
}

/// The values as they lie in the file: query and key rows go from "first halves, then second halves" of a head, which rotate-half pairs, to neighbours,
/// which llama.cpp pairs.
pub fn rows_for_file<'a>(name: &str, values: &'a [f32], config: &Config) -> Cow<'a, [f32]> {
    let Some(row) = permuted_row(name, config) else { return Cow::Borrowed(values) };
    let mut out = vec![0.0; values.len()];
    for (to, from) in pairs(values.len() / row, config.head_dim) {
        out[to * row..][..row].copy_from_slice(&values[from * row..][..row]);
    }
    Cow::Owned(out)
}

/// For each row of the file the row in a Hugging Face folder, if their order differs.
pub fn row_order(name: &str, rows: usize, config: &Config) -> Option<Vec<usize>> {
    permuted_row(name, config).map(|_| pairs(rows, config.head_dim).map(|(_, from)| from).collect())
}

/// The opposite of [`rows_for_file`], in place.
fn rows_from_file(name: &str, values: &mut [f32], config: &Config) {
    let Some(row) = permuted_row(name, config) else { return };
    let file = values.to_vec();
    for (from, to) in pairs(values.len() / row, config.head_dim) {
        values[to * row..][..row].copy_from_slice(&file[from * row..][..row]);
    }
}

/// The row length of a tensor whose rows are permuted.
fn permuted_row(name: &str, config: &Config) -> Option<usize> {
    let is = |part: &str| name.ends_with(part);
    (is(".self_attn.q_proj.weight") || is(".self_attn.k_proj.weight")).then_some(config.hidden_size)
}

/// (row in the file, row in a Hugging Face folder)
fn pairs(rows: usize, head_dim: usize) -> impl Iterator<Item = (usize, usize)> {
    let half = head_dim / 2;
    (0..rows).map(move |row| {
        let (head, within) = (row / head_dim, row % head_dim);
        (row, head * head_dim + within % 2 * half + within / 2)
    })
}

/// A tensor that [`save`] has just packed.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    /// Its place in the model's layout.
    pub index: usize,
    /// The values in the file's order of rows.
    pub values: &'a [f32],
    pub bytes: &'a [u8],
}

/// Writes a model, one tensor at a time. `types` are those of the layout's tensors, in order; `file_type` is `llama_ftype`; `each` may stop the work.
pub fn save(
    path: &Path,
    model: &Model,
    file_type: u32,
    types: &[BlockType],
    each: &mut dyn FnMut(Packed) -> ControlFlow<()>,
) -> Result<(), ModelError> {
    let io = |error| named("write", path, error);
    let tensors = &model.weights.layout.tensors;
    let plans: Vec<_> = tensors.iter().zip(types).map(|(tensor, ty)| plan(&tensor.name, &tensor.shape, *ty)).collect::<Result<_, _>>()?;
    let mut writer = Writer::create(path, &metadata(model, file_type)?, &plans).map_err(io)?;
    for (index, ((name, shape, values), ty)) in model.weights.iter().zip(types).enumerate() {
        let values = rows_for_file(name, values, &model.config);
        let row = shape.last().copied().unwrap_or(1);
        let bytes = quantize(*ty, &values, row).map_err(|error| ModelError::malformed(format!("tensor `{name}`"), error))?;
        writer.tensor(&bytes).map_err(io)?;
        if each(Packed { index, values: &values, bytes: &bytes }).is_break() {
            return Err(ModelError::Stopped);
        }
    }
    writer.finish().map_err(io)
}

/// Everything that llama.cpp wants to know. `file_type` is `llama_ftype`. No name is written: it would make equal models unequal files.
pub fn metadata<W>(model: &Model<W>, file_type: u32) -> Result<Vec<(String, Value)>, ModelError> {
    let config = &model.config;
    refuse_what_it_cannot_say(config)?;
    let number = |n: usize| {
        u32::try_from(n).map(Value::U32).map_err(|_| ModelError::TooLarge {
            what: "a size of the model".to_string(),
            size: n as u64,
            limit: u64::from(u32::MAX),
        })
    };
    let mut entries = vec![
        ("general.architecture", Value::from("llama")),
        ("general.type", Value::from("model")),
        ("general.size_label", Value::String(size_label(Layout::of(config)?.total()))),
        ("llama.block_count", number(config.num_hidden_layers)?),
        ("llama.context_length", number(config.max_position_embeddings)?),
        ("llama.embedding_length", number(config.hidden_size)?),
        ("llama.feed_forward_length", number(config.intermediate_size)?),
        ("llama.attention.head_count", number(config.num_attention_heads)?),
        ("llama.attention.head_count_kv", number(config.num_key_value_heads)?),
        ("llama.rope.freq_base", Value::F32(config.rope_theta)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(config.rms_norm_eps)),
        ("llama.attention.key_length", number(config.head_dim)?),
        ("llama.attention.value_length", number(config.head_dim)?),
        ("general.file_type", Value::U32(file_type)),
        ("llama.vocab_size", number(config.vocab_size)?),
        ("llama.rope.dimension_count", number(config.head_dim)?),
        ("general.quantization_version", Value::U32(2)),
    ];
    entries.extend(tokens::write(model)?);
    entries.push(("tokenizer.chat_template", Value::from(model.chat.source())));
    Ok(entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect())
}

/// llama.cpp's `llama` has SwiGLU and full attention, and no key for anything else.
fn refuse_what_it_cannot_say(config: &Config) -> Result<(), ModelError> {
    if config.hidden_act != Activation::Silu {
        return Err(ModelError::unsupported("an MLP with GeLU", "llama.cpp's Llama has SwiGLU only; train with `hidden_act = \"silu\"`"));
    }
    if let Some(window) = config.window() {
        let why = "llama.cpp's Llama sees all tokens; train without `sliding_window`";
        return Err(ModelError::unsupported(format!("a sliding window of {window} tokens"), why));
    }
    Ok(())
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

/// Reads a whole model, its weights unpacked to f32.
pub fn load(path: &Path) -> Result<Model, ModelError> {
    let (file, config, layout) = checked(path)?;
    let (tokenizer, chat) = encoder(&file, &config, path)?;
    // Only now that all that the configuration promises is known to be in the file is memory taken for the weights.
    let mut weights = Weights::zeros(&config)?;
    for tensor in &layout.tensors {
        let Some(out) = weights.get_mut(&tensor.name) else { continue };
        let found = span(&file, tensor, path)?;
        found.unpack(out).map_err(|why| wrong(path, format!("tensor `{}`: {why}", tensor_name(&tensor.name).unwrap_or_default())))?;
        rows_from_file(&tensor.name, out, &config);
    }
    Ok(Model { config, weights, tokenizer, chat })
}

/// The same with the weights left in the file.
pub fn open_model(path: &Path) -> Result<Model<Stored>, ModelError> {
    let (file, config, layout) = checked(path)?;
    let (tokenizer, chat) = encoder(&file, &config, path)?;
    let weights = Stored::new(Arc::new(layout), Pairs::Neighbours, &mut |tensor| span(&file, tensor, path))?;
    Ok(Model { config, weights, tokenizer, chat })
}

/// The file, whose tensors are those that its configuration promises and no others.
fn checked(path: &Path) -> Result<(Gguf, Config, Layout), ModelError> {
    let file = super::open(path)?;
    let config = config(&file, path)?;
    let layout = Layout::of(&config)?;
    for tensor in &layout.tensors {
        span(&file, tensor, path)?;
    }
    let known: BTreeSet<String> = layout.tensors.iter().filter_map(|tensor| tensor_name(&tensor.name)).collect();
    if let Some(stranger) = file.header.tensors.iter().find(|tensor| !known.contains(&tensor.name)) {
        let name = super::shown(&stranger.name);
        return Err(ModelError::unsupported(format!("tensor `{name}`"), "a plain Llama model has no such tensor"));
    }
    Ok((file, config, layout))
}

fn encoder(file: &Gguf, config: &Config, path: &Path) -> Result<(Tokenizer, ChatTemplate), ModelError> {
    let (tokenizer, chat) = tokens::read(file, path)?;
    if tokenizer.vocab_size() > config.vocab_size {
        return Err(wrong(path, format!("it has {} tokens and {} embeddings", tokenizer.vocab_size(), config.vocab_size)));
    }
    Ok((tokenizer, chat))
}

/// Where a tensor of the layout lies.
fn span(file: &Gguf, tensor: &Tensor, path: &Path) -> Result<Span, ModelError> {
    let theirs = tensor_name(&tensor.name).unwrap_or_default();
    let found = file.tensor(&theirs).ok_or_else(|| wrong(path, format!("tensor `{theirs}` is missing")))?;
    if !found.shape.iter().rev().eq(&tensor.shape) {
        let shape: Vec<usize> = tensor.shape.iter().rev().copied().collect();
        return Err(wrong(path, format!("tensor `{theirs}` has shape {:?}, not {shape:?}", found.shape)));
    }
    Ok(Span { file: Arc::clone(&file.map), bytes: found.bytes.clone(), ty: found.ty })
}

fn wrong(path: &Path, why: String) -> ModelError {
    ModelError::malformed(format!("`{}`", path.display()), why)
}

fn config(file: &Gguf, path: &Path) -> Result<Config, ModelError> {
    let fields = Fields { file, path };
    fields.refuse_what_we_cannot_run()?;
    let embedding = file.tensor("token_embd.weight").ok_or_else(|| fields.wrong("tensor `token_embd.weight` is missing".to_string()))?;
    let heads = fields.size("llama.attention.head_count", None)?;
    let hidden_size = fields.size("llama.embedding_length", None)?;
    let head_dim = fields.size("llama.attention.key_length", hidden_size.checked_div(heads))?;
    let config = Config {
        vocab_size: embedding.shape.get(1).copied().unwrap_or(0),
        hidden_size,
        intermediate_size: fields.size("llama.feed_forward_length", None)?,
        num_hidden_layers: fields.size("llama.block_count", None)?,
        num_attention_heads: heads,
        num_key_value_heads: fields.size("llama.attention.head_count_kv", Some(heads))?,
        head_dim,
        max_position_embeddings: fields.size("llama.context_length", None)?,
        hidden_act: Activation::Silu,
        sliding_window: None,
        rms_norm_eps: fields.number("llama.attention.layer_norm_rms_epsilon", None)?,
        rope_theta: fields.number("llama.rope.freq_base", Some(1e4))?,
        tie_word_embeddings: file.tensor("output.weight").is_none(),
        bos_token_id: fields.token("tokenizer.ggml.bos_token_id")?,
        eos_token_id: fields.token("tokenizer.ggml.eos_token_id")?,
        pad_token_id: fields.token("tokenizer.ggml.padding_token_id")?,
    };
    for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
        let size = fields.size(key, Some(head_dim))?;
        if size != head_dim {
            return Err(ModelError::unsupported(format!("{key} = {size}"), format!("it must be the head's {head_dim}")));
        }
    }
    config.check()?;
    Ok(config)
}

/// Typed looks into a file's metadata.
struct Fields<'a> {
    file: &'a Gguf,
    path: &'a Path,
}

impl Fields<'_> {
    fn wrong(&self, why: String) -> ModelError {
        wrong(self.path, why)
    }

    fn refuse_what_we_cannot_run(&self) -> Result<(), ModelError> {
        match self.file.get("general.architecture").and_then(Value::as_str) {
            Some("llama") => {}
            Some(other) => return Err(ModelError::unsupported(format!("architecture `{}`", super::shown(other)), "only `llama` is")),
            None => return Err(self.wrong("general.architecture is missing".to_string())),
        }
        let scaling = self.file.get("llama.rope.scaling.type").and_then(Value::as_str);
        if scaling.is_some_and(|kind| kind != "none") || self.file.tensor("rope_freqs.weight").is_some() {
            return Err(ModelError::unsupported("scaled rotary positions", "only plain ones are"));
        }
        for key in ["llama.expert_count", "llama.attention.sliding_window"] {
            if self.file.get(key).is_some_and(|value| value.as_u64() != Some(0)) {
                return Err(ModelError::unsupported(key, "only dense models with full attention are"));
            }
        }
        Ok(())
    }

    fn size(&self, key: &str, default: Option<usize>) -> Result<usize, ModelError> {
        match (self.file.get(key), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.wrong(format!("{key} is missing"))),
            (Some(value), _) => {
                let size = value.as_u64().and_then(|n| usize::try_from(n).ok());
                size.ok_or_else(|| self.wrong(format!("{key} is not a size")))
            }
        }
    }

    fn number(&self, key: &str, default: Option<f32>) -> Result<f32, ModelError> {
        match (self.file.get(key), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.wrong(format!("{key} is missing"))),
            (Some(value), _) => value.as_f32().ok_or_else(|| self.wrong(format!("{key} is not a number"))),
        }
    }

    fn token(&self, key: &str) -> Result<Option<u32>, ModelError> {
        match self.file.get(key) {
            None => Ok(None),
            Some(value) => {
                let id = value.as_u64().and_then(|n| u32::try_from(n).ok());
                id.map(Some).ok_or_else(|| self.wrong(format!("{key} is not a token")))
            }
        }
    }
}
