//! A model as a Hugging Face folder, so that `AutoModelForCausalLM.from_pretrained` opens what we write and we open what others wrote.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::config::json::tokens;
use super::error::read_limited;
use super::{ChatTemplate, Config, Model, ModelError, Stored, Tokenizer, pickle, safetensors};
use crate::base::files;

const MAX_JSON: u64 = 16 << 20;
const MAX_TEMPLATE: u64 = 256 << 10;

/// A GGUF file: the path itself, or the only one in a folder without `config.json`.
pub fn gguf_file(path: &Path) -> Result<Option<PathBuf>, ModelError> {
    let is_gguf = |path: &Path| path.extension().is_some_and(|extension| extension == "gguf");
    if !path.is_dir() {
        if path.file_name().and_then(|name| name.to_str()).is_some_and(pickle::is_one) {
            return Err(pickle::refusal(path));
        }
        return Ok(is_gguf(path).then(|| path.to_path_buf()));
    }
    if path.join("config.json").exists() {
        return Ok(None);
    }
    let names = files::names(path).map_err(|error| ModelError::io("read", path, error))?;
    let mut found: Vec<PathBuf> = names.iter().map(|name| path.join(name)).filter(|path| is_gguf(path)).collect();
    match found.len() {
        0 | 1 => Ok(found.pop()),
        n => Err(ModelError::malformed(format!("`{}`", path.display()), format!("it holds {n} GGUF files, not one"))),
    }
}

pub fn load(folder: &Path) -> Result<Model, ModelError> {
    with_weights(folder, safetensors::read_folder)
}

/// The weights stay in their files.
pub fn open(folder: &Path) -> Result<Model<Stored>, ModelError> {
    with_weights(folder, safetensors::open_folder)
}

fn with_weights<W>(folder: &Path, read: fn(&Path, &Config) -> Result<W, ModelError>) -> Result<Model<W>, ModelError> {
    let mut config = Config::from_json(&read_limited(&folder.join("config.json"), MAX_JSON)?)?;
    generation_tokens(folder, &mut config)?;
    let (tokenizer, chat) = load_encoder(folder)?;
    if tokenizer.vocab_size() > config.vocab_size {
        let why = format!("its tokenizer has {} tokens, its config {}", tokenizer.vocab_size(), config.vocab_size);
        return Err(ModelError::malformed(format!("`{}`", folder.display()), why));
    }
    let weights = read(folder, &config)?;
    Ok(Model { config, weights, tokenizer, chat })
}

/// The tokenizer and chat template of a folder, which need not hold a model.
pub fn load_encoder(folder: &Path) -> Result<(Tokenizer, ChatTemplate), ModelError> {
    Ok((Tokenizer::from_folder(folder)?, chat_template(folder)?))
}

pub fn save(model: &Model, folder: &Path) -> Result<(), ModelError> {
    let write = |name: &str, bytes: &[u8]| write_file(&folder.join(name), bytes);
    write("config.json", &model.config.to_json())?;
    safetensors::write_model(&folder.join("model.safetensors"), model)?;
    let generation = json!({
        "bos_token_id": model.config.bos_token_id,
        "do_sample": false,
        "eos_token_id": model.config.ends_json(),
        "pad_token_id": model.config.pad_token_id,
    });
    write("generation_config.json", format!("{generation:#}\n").as_bytes())?;
    save_encoder(&model.tokenizer, &model.chat, Some(model.config.max_position_embeddings), folder)
}

pub fn save_encoder(tokenizer: &Tokenizer, chat: &ChatTemplate, max_length: Option<usize>, folder: &Path) -> Result<(), ModelError> {
    write_file(&folder.join("tokenizer.json"), tokenizer.json())?;
    write_file(&folder.join("tokenizer_config.json"), &tokenizer.config_json(max_length))?;
    write_file(&folder.join("chat_template.jinja"), chat.source().as_bytes())
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    std::fs::write(path, bytes).map_err(|error| ModelError::io("write", path, error))
}

/// `generation_config.json` names the tokens that end an answer, as in transformers; those of `config.json` do, too.
fn generation_tokens(folder: &Path, config: &mut Config) -> Result<(), ModelError> {
    let path = folder.join("generation_config.json");
    if !path.exists() {
        return Ok(());
    }
    let value = json_file(&path)?;
    let ends = value.as_object().map_or_else(|| Ok(Vec::new()), |fields| tokens(fields, "eos_token_id"))?;
    for end in ends {
        match config.eos_token_id {
            None => config.eos_token_id = Some(end),
            Some(_) if config.ends(end) => {}
            Some(_) => config.features.other_ends.push(end),
        }
    }
    config.check()
}

/// `chat_template.jinja`, or the entry of `tokenizer_config.json` where older folders keep it, or the default.
fn chat_template(folder: &Path) -> Result<ChatTemplate, ModelError> {
    let file = folder.join("chat_template.jinja");
    if file.exists() {
        let bytes = read_limited(&file, MAX_TEMPLATE)?;
        let source = std::str::from_utf8(&bytes).map_err(|error| ModelError::malformed("chat_template.jinja", error))?;
        return ChatTemplate::of_model(source);
    }
    let config = folder.join("tokenizer_config.json");
    if config.exists()
        && let Some(Value::String(source)) = json_file(&config)?.get("chat_template")
    {
        return ChatTemplate::of_model(source);
    }
    Ok(ChatTemplate::default())
}

fn json_file(path: &Path) -> Result<Value, ModelError> {
    serde_json::from_slice(&read_limited(path, MAX_JSON)?).map_err(|error| ModelError::malformed(format!("`{}`", path.display()), error))
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::tiny;
    use super::super::tokenizer::tests::bytes_only;
    use super::super::{Model, Weights};
    use super::*;

    fn model() -> Model {
        let config = Config { vocab_size: 257, ..tiny() };
        let mut weights = Weights::zeros(&config).unwrap();
        weights.data.iter_mut().enumerate().for_each(|(i, value)| *value = (i % 7) as f32);
        Model { config, weights, tokenizer: bytes_only(), chat: ChatTemplate::default() }
    }

    #[test]
    fn a_folder_reads_back_and_is_written_the_same_again() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        model().save(one.path()).unwrap();
        let read = Model::load(one.path()).unwrap();
        assert_eq!(read.config, model().config);
        assert_eq!(read.tokenizer.eos, model().tokenizer.eos);
        read.save(two.path()).unwrap();
        let names = files::walk(one.path()).unwrap();
        assert_eq!(names.len(), 6);
        for name in names {
            assert_eq!(std::fs::read(one.path().join(&name)).unwrap(), std::fs::read(two.path().join(&name)).unwrap(), "{name:?}");
        }
    }

    #[test]
    fn a_missing_or_foreign_folder_says_so() {
        let space = tempfile::tempdir().unwrap();
        let error = Model::load(space.path()).unwrap_err().to_string();
        assert!(error.contains("config.json"), "{error}");
        std::fs::write(space.path().join("a.gguf"), b"").unwrap();
        std::fs::write(space.path().join("b.gguf"), b"").unwrap();
        assert!(Model::load(space.path()).unwrap_err().to_string().contains("2 GGUF files"));
    }
}
