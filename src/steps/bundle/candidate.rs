//! A model that may end in a bundle: what it is, and which of its files a device needs. Weights are not loaded, only described.

use std::path::Path;

use super::memory::Shape;
use crate::base::files;
use crate::bundle::{Content, DraftFile, Role};
use crate::model::gguf::{self, Value};
use crate::model::{Config, ModelError, folder, read_limited};
use crate::steps::evaluate::facts;
use crate::steps::evaluate::report::ModelFacts;

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
    /// With the digest of the weights, by which verdicts name their model.
    pub facts: ModelFacts,
    pub shape: Shape,
    pub chat_template: Option<String>,
    /// Its path in the bundle; of several, the first.
    pub model: String,
    pub tokenizer: Option<&'static str>,
    pub files: Vec<DraftFile>,
}

impl Candidate {
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
    let gguf = gguf::open(path)?;
    if !gguf.parts.is_empty() {
        let why = "a bundle holds one file; `quantize` makes one of it";
        return Err(ModelError::unsupported(format!("`{}`, a model in {} parts,", path.display(), gguf.parts.len() + 1), why));
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
    Ok(Candidate {
        format: Format::Gguf,
        facts: facts::facts(path, None)?,
        shape,
        chat_template: gguf.get("tokenizer.chat_template").and_then(Value::as_str).map(str::to_string),
        model: GGUF_FILE.to_string(),
        tokenizer: None,
        files: vec![DraftFile { path: GGUF_FILE.to_string(), role: Role::Weights, content: Content::File(path.to_path_buf()) }],
    })
}

const TOKENIZER_FILE: &str = "tokenizer.json";

/// What `from_pretrained` reads. Other files of the folder (the training record, say) stay behind.
const FOLDER_FILES: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    TOKENIZER_FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];

fn read_folder(folder: &Path) -> Result<Candidate, ModelError> {
    let config = Config::from_json(&read_limited(&folder.join("config.json"), CONFIG_MAX_BYTES)?)?;
    let (_, chat) = folder::load_encoder(folder)?;
    let names = files::names(folder).map_err(|error| ModelError::io("read", folder, error))?;
    let names: Vec<&str> = names.iter().filter_map(|name| name.to_str()).collect();
    let weights: Vec<&str> = names.iter().copied().filter(|name| name.ends_with(".safetensors")).collect();
    let Some(model) = weights.first() else {
        return Err(ModelError::malformed(format!("`{}`", folder.display()), "it holds no `.safetensors` file"));
    };
    let mut drafts: Vec<DraftFile> = weights.iter().map(|name| draft(folder, name, Role::Weights)).collect();
    drafts.extend(FOLDER_FILES.into_iter().filter(|name| names.contains(name)).map(|name| draft(folder, name, Role::Config)));
    let named = chat.others().map(|(name, _)| format!("additional_chat_templates/{name}.jinja"));
    for name in named {
        let path = folder.join(&name);
        if files::is_file(&path).map_err(|error| ModelError::io("look at", &path, error))? {
            drafts.push(draft(folder, &name, Role::Config));
        }
    }
    Ok(Candidate {
        format: Format::Safetensors,
        facts: facts::facts(folder, None)?,
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
        chat_template: chat.source().map(str::to_string),
        model: model.to_string(),
        tokenizer: Some(TOKENIZER_FILE),
        files: drafts,
    })
}

fn draft(folder: &Path, name: &str, role: Role) -> DraftFile {
    DraftFile { path: name.to_string(), role, content: Content::File(folder.join(name)) }
}
