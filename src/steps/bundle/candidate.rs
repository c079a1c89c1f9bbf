//! A model that may end in a bundle: what it is, and which of its files a device needs. Weights are not loaded, only described.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::memory::Shape;
use crate::base::{Digest, files};
use crate::bundle::{Content, DraftFile, Role};
use crate::model::gguf::{Gguf, Value};
use crate::model::{Config, ModelError, folder, read_limited};

const CONFIG_MAX_BYTES: u64 = 16 << 20;
/// The head of a safetensors file; the crate's own limit is 100 MB.
const HEADER_MAX_BYTES: u64 = 100_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Gguf,
    Safetensors,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Format::Gguf => "gguf",
            Format::Safetensors => "safetensors",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Candidate {
    pub format: Format,
    /// `F32`, `Q4_0` …
    pub file_type: String,
    pub shape: Shape,
    pub parameters: u64,
    /// Of the tensors alone.
    pub weights_bytes: u64,
    /// BLAKE3 of the weight file: verdicts name their model by it.
    pub weights: Digest,
    pub chat_template: Option<String>,
    /// Its path in the bundle.
    pub model: &'static str,
    pub tokenizer: Option<&'static str>,
    pub files: Vec<DraftFile>,
}

impl Candidate {
    pub fn bits_per_weight(&self) -> f64 {
        self.weights_bytes as f64 * 8.0 / self.parameters.max(1) as f64
    }

    /// A folder with one GGUF file, such a file, or a Hugging Face folder.
    pub fn read(path: &Path) -> Result<Candidate, ModelError> {
        match folder::gguf_file(path)? {
            Some(file) => read_gguf(&file),
            None => read_folder(path),
        }
    }
}

const GGUF_FILE: &str = "model.gguf";

fn read_gguf(path: &Path) -> Result<Candidate, ModelError> {
    let malformed = |why: String| ModelError::malformed(format!("`{}`", path.display()), why);
    let gguf = Gguf::open(path).map_err(|error| malformed(error.to_string()))?;
    let (mut parameters, mut weights_bytes) = (0u64, 0u64);
    for tensor in &gguf.header.tensors {
        parameters = parameters.saturating_add(tensor.values() as u64);
        weights_bytes = weights_bytes.saturating_add(tensor.bytes.len() as u64);
    }
    let architecture = gguf.get("general.architecture").and_then(Value::as_str).unwrap_or("llama");
    let number = |name: &str| gguf.get(&format!("{architecture}.{name}")).and_then(Value::as_u64);
    let needed = |name: &str| number(name).ok_or_else(|| malformed(format!("it has no `{architecture}.{name}`")));
    let (heads, hidden) = (needed("attention.head_count")?, needed("embedding_length")?);
    let tokens = gguf.get("tokenizer.ggml.tokens").and_then(Value::as_strings).map(|tokens| tokens.len() as u64);
    let vocabulary = number("vocab_size").or(tokens).ok_or_else(|| malformed("it has no vocabulary".to_string()))?;
    let shape = Shape {
        vocabulary,
        hidden,
        intermediate: needed("feed_forward_length")?,
        layers: needed("block_count")?,
        heads,
        kv_heads: number("attention.head_count_kv").unwrap_or(heads),
        head_dim: number("attention.key_length").unwrap_or(hidden / heads.max(1)),
        context: needed("context_length")?,
    };
    let file_type = gguf.get("general.file_type").and_then(Value::as_u64).map_or_else(|| "unknown".to_string(), file_type_name);
    Ok(Candidate {
        format: Format::Gguf,
        file_type,
        shape,
        parameters,
        weights_bytes,
        weights: digest(path)?,
        chat_template: gguf.get("tokenizer.chat_template").and_then(Value::as_str).map(str::to_string),
        model: GGUF_FILE,
        tokenizer: None,
        files: vec![DraftFile { path: GGUF_FILE.to_string(), role: Role::Weights, content: Content::File(path.to_path_buf()) }],
    })
}

/// `llama_ftype` of llama.cpp's `llama.h`.
fn file_type_name(id: u64) -> String {
    let name = match id {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        32 => "BF16",
        _ => return format!("type {id}"),
    };
    name.to_string()
}

const WEIGHT_FILE: &str = "model.safetensors";
const TOKENIZER_FILE: &str = "tokenizer.json";

/// What `from_pretrained` reads. Other files of the folder (the training record, say) stay behind.
const FOLDER_FILES: [&str; 6] =
    ["config.json", "generation_config.json", TOKENIZER_FILE, "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"];

fn read_folder(folder: &Path) -> Result<Candidate, ModelError> {
    let config = Config::from_json(&read_limited(&folder.join("config.json"), CONFIG_MAX_BYTES)?)?;
    let weights = folder.join(WEIGHT_FILE);
    let (file_type, parameters, weights_bytes) = read_safetensors(&weights)?;
    let (_, chat) = folder::load_encoder(folder)?;
    let mut files = vec![draft(&weights, WEIGHT_FILE, Role::Weights)];
    let names = files::names(folder).map_err(|error| ModelError::io("read", folder, error))?;
    for name in FOLDER_FILES.into_iter().filter(|name| names.iter().any(|found| found == name)) {
        files.push(draft(&folder.join(name), name, Role::Config));
    }
    Ok(Candidate {
        format: Format::Safetensors,
        file_type,
        shape: Shape {
            vocabulary: config.vocab_size as u64,
            hidden: config.hidden_size as u64,
            intermediate: config.intermediate_size as u64,
            layers: config.num_hidden_layers as u64,
            heads: config.num_attention_heads as u64,
            kv_heads: config.num_key_value_heads as u64,
            head_dim: config.head_dim as u64,
            context: config.max_position_embeddings as u64,
        },
        parameters,
        weights_bytes,
        weights: digest(&weights)?,
        chat_template: Some(chat.source().to_string()),
        model: WEIGHT_FILE,
        tokenizer: Some(TOKENIZER_FILE),
        files,
    })
}

/// The type of most values, how many values there are, and their bytes: all from the file's head.
fn read_safetensors(path: &Path) -> Result<(String, u64, u64), ModelError> {
    let malformed = |why: String| ModelError::malformed(format!("`{}`", path.display()), why);
    let head: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&safetensors_head(path)?).map_err(|error| malformed(error.to_string()))?;
    let (mut parameters, mut bytes) = (0u64, 0u64);
    let mut types: BTreeMap<String, u64> = BTreeMap::new();
    for (name, tensor) in head.into_iter().filter(|(name, _)| name != "__metadata__") {
        let tensor: Tensor = serde_json::from_value(tensor).map_err(|error| malformed(format!("tensor `{name}`: {error}")))?;
        let values = tensor.shape.iter().fold(1u64, |product, size| product.saturating_mul(*size));
        let [start, end] = tensor.data_offsets;
        parameters = parameters.saturating_add(values);
        bytes = bytes.saturating_add(end.saturating_sub(start));
        let of_type = types.entry(tensor.dtype).or_default();
        *of_type = of_type.saturating_add(values);
    }
    let most = types.into_iter().max_by_key(|(_, values)| *values).map_or_else(|| "F32".to_string(), |(name, _)| name);
    Ok((most, parameters, bytes))
}

#[derive(Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The JSON in front of the data.
fn safetensors_head(path: &Path) -> Result<Vec<u8>, ModelError> {
    let io = |error| ModelError::io("read", path, error);
    let mut file = File::open(path).map_err(io)?;
    let mut length = [0u8; 8];
    file.read_exact(&mut length).map_err(io)?;
    let length = u64::from_le_bytes(length);
    if length > HEADER_MAX_BYTES {
        return Err(ModelError::malformed(format!("`{}`", path.display()), format!("its head claims {length} bytes")));
    }
    let mut head = Vec::new();
    file.take(length).read_to_end(&mut head).map_err(io)?;
    Ok(head)
}

fn draft(path: &Path, name: &str, role: Role) -> DraftFile {
    DraftFile { path: name.to_string(), role, content: Content::File(PathBuf::from(path)) }
}

fn digest(path: &Path) -> Result<Digest, ModelError> {
    Digest::of_file(path).map(|(digest, _)| digest).map_err(|error| ModelError::io("read", path, error))
}
