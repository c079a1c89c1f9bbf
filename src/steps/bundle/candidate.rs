//! A model that may end in a bundle: what it is, and which of its files a device needs. Weights are not loaded, only described.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::memory::Shape;
use super::tensors::{self, Tensor};
use crate::base::{Digest, files};
use crate::bundle::{Content, DraftFile, Role};
use crate::model::gguf::{self, Gguf, Value};
use crate::model::{Config, ModelError, folder, read_limited};

const CONFIG_MAX_BYTES: u64 = 16 << 20;

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
    let (most, parameters, weights_bytes) = sum(&tensors::of_gguf(&gguf));
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
    let file_type = gguf.get("general.file_type").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    Ok(Candidate {
        format: Format::Gguf,
        file_type: file_type.and_then(gguf::file_type_name).map_or(most, str::to_string),
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

const WEIGHT_FILE: &str = "model.safetensors";
const TOKENIZER_FILE: &str = "tokenizer.json";

/// What `from_pretrained` reads. Other files of the folder (the training record, say) stay behind.
const FOLDER_FILES: [&str; 6] =
    ["config.json", "generation_config.json", TOKENIZER_FILE, "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"];

fn read_folder(folder: &Path) -> Result<Candidate, ModelError> {
    let config = Config::from_json(&read_limited(&folder.join("config.json"), CONFIG_MAX_BYTES)?)?;
    let weights = folder.join(WEIGHT_FILE);
    let (file_type, parameters, weights_bytes) = sum(&tensors::of_safetensors(&weights)?);
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

/// The type of most values, how many values there are, and their bytes.
fn sum(tensors: &[Tensor]) -> (String, u64, u64) {
    let mut types: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut parameters, mut bytes) = (0u64, 0u64);
    for tensor in tensors {
        parameters = parameters.saturating_add(tensor.values());
        bytes = bytes.saturating_add(tensor.size_bytes);
        let of_type = types.entry(tensor.ty.as_str()).or_default();
        *of_type = of_type.saturating_add(tensor.values());
    }
    let most = types.into_iter().max_by_key(|(_, values)| *values).map_or("F32", |(name, _)| name);
    (most.to_string(), parameters, bytes)
}

fn draft(path: &Path, name: &str, role: Role) -> DraftFile {
    DraftFile { path: name.to_string(), role, content: Content::File(PathBuf::from(path)) }
}

fn digest(path: &Path) -> Result<Digest, ModelError> {
    Digest::of_file(path).map(|(digest, _)| digest).map_err(|error| ModelError::io("read", path, error))
}
