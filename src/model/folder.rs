//! A model as a Hugging Face folder, so that `AutoModelForCausalLM.from_pretrained` opens what we write and we open what others wrote.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::config::json::{tokens, unsaid_end};
use super::error::{is_there, read_limited};
use super::gguf::{MAGIC, parts};
use super::{ChatTemplate, Config, Model, ModelError, Stored, Tokenizer, ends, keys, pickle, safetensors};
use crate::base::{files, json, text};

const MAX_JSON: u64 = 16 << 20;
const MAX_TEMPLATE: u64 = 256 << 10;

/// A GGUF file: the path itself, or the only one in a folder without `config.json`; of a model in parts the first.
pub fn gguf_file(path: &Path) -> Result<Option<PathBuf>, ModelError> {
    let is_folder = files::is_folder(path).map_err(|error| ModelError::io("read", path, error))?;
    if !is_folder {
        return single_file(path);
    }
    if is_there(&path.join("config.json"))? {
        return Ok(None);
    }
    if is_there(&path.join("adapter_config.json"))? {
        let why = "it belongs to the model that its base_model_name_or_path names; merge it there (peft: `merge_and_unload`), or let \
            `finetune` make a whole model (`merge = true`)";
        return Err(ModelError::unsupported(format!("`{}`, which is an adapter of PEFT and not a model,", path.display()), why));
    }
    let names = files::names(path).map_err(|error| ModelError::io("read", path, error))?;
    let mut found: Vec<PathBuf> = names.iter().map(|name| path.join(name)).filter(|path| is_gguf_name(path)).collect();
    found.sort_unstable();
    if found.is_empty() {
        found = with_magic(names.iter().map(|name| path.join(name)))?;
    }
    match found.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(only.clone())),
        [first, ..] if parts::are_one(&found) => Ok(Some(first.clone())),
        found => Err(ModelError::malformed(format!("`{}`", path.display()), format!("it holds {} GGUF files, not one", found.len()))),
    }
}

fn is_gguf_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// Whatever its name, as Ollama names its files by their digests.
fn single_file(path: &Path) -> Result<Option<PathBuf>, ModelError> {
    if is_gguf_name(path) || begins_as_gguf(path)? {
        return Ok(Some(path.to_path_buf()));
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if pickle::is_one(name) {
        return Err(pickle::refusal(path));
    }
    let why = match name.rsplit_once('.') {
        _ if !is_there(path)? => return Ok(None),
        Some((_, "safetensors")) => "weights alone are no model: name the folder that holds them, config.json and tokenizer.json",
        _ => "a model is a folder with config.json, or a GGUF file",
    };
    Err(ModelError::malformed(format!("`{}`", path.display()), why))
}

fn with_magic(paths: impl Iterator<Item = PathBuf>) -> Result<Vec<PathBuf>, ModelError> {
    let mut found = Vec::new();
    for path in paths {
        let is_file = std::fs::metadata(&path).is_ok_and(|metadata| metadata.is_file());
        if is_file && begins_as_gguf(&path)? {
            found.push(path);
        }
    }
    Ok(found)
}

fn begins_as_gguf(path: &Path) -> Result<bool, ModelError> {
    if !is_there(path)? {
        return Ok(false);
    }
    let mut magic = [0; 4];
    let mut file = files::open(path).map_err(|error| ModelError::io("read", path, error))?;
    match file.read_exact(&mut magic) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| magic == *MAGIC).map_err(|error| ModelError::io("read", path, error)),
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
    let (mut config, tokenizer, chat) = load_all_but_weights(folder)?;
    safetensors::resolve_tie(folder, &mut config)?;
    let weights = read(folder, &config)?;
    Ok(Model { config, weights, tokenizer, chat })
}

/// What a folder says about its model, all ends of answers included. Whether the head is tied is for the weights to say.
pub fn load_all_but_weights(folder: &Path) -> Result<(Config, Tokenizer, ChatTemplate), ModelError> {
    let bytes = read_limited(&folder.join("config.json"), MAX_JSON)?;
    let mut config = Config::from_json(&bytes)?;
    match is_there(&folder.join("generation_config.json"))? {
        true => generation_tokens(folder, &mut config)?,
        // transformers makes the missing file of the other, its class' defaults included.
        false => unsaid_end(&bytes, &config)?.into_iter().for_each(|end| config.add_end(end)),
    }
    let (tokenizer, chat) = load_encoder(folder)?;
    let tokenizer = tokenizer.for_model(config.vocab_size)?;
    ends::complete(&mut config, &tokenizer, &chat)?;
    Ok((config, tokenizer, chat))
}

/// The tokenizer and chat template of a folder, which need not hold a model.
pub fn load_encoder(folder: &Path) -> Result<(Tokenizer, ChatTemplate), ModelError> {
    let tokenizer = Tokenizer::from_folder(folder)?;
    check_tokenizer_config(folder, &tokenizer)?;
    Ok((tokenizer, chat_template(folder)?))
}

/// What `tokenizer_config.json` would change in transformers, and not here.
fn check_tokenizer_config(folder: &Path, tokenizer: &Tokenizer) -> Result<(), ModelError> {
    const NAME: &str = "add_prefix_space";
    let path = folder.join("tokenizer_config.json");
    let fields = if is_there(&path)? { json_file(&path)? } else { Value::Null };
    let Some(fields) = fields.as_object() else { return Ok(()) };
    keys::check(keys::File::TokenizerConfig, fields)?;
    let Some(wanted) = fields.get(NAME).and_then(Value::as_bool) else { return Ok(()) };
    let class = fields.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
    // Classes that transformers 5 builds anew from the vocabulary, by what this field says.
    let counts = if wanted { class.starts_with("GPT2") || class.starts_with("Qwen2") } else { class.starts_with("Llama") };
    if counts && tokenizer.begins_with_space()? != wanted {
        let why =
            format!("transformers would cut texts otherwise than tokenizer.json says; set it to {}, or change tokenizer.json", !wanted);
        return Err(ModelError::unsupported(format!("tokenizer_config.json: {NAME} {wanted} with a {class}"), why));
    }
    Ok(())
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
    if let Some(source) = chat.source() {
        write_file(&folder.join("chat_template.jinja"), source.as_bytes())?;
    }
    let others = folder.join(ADDITIONAL);
    for (name, source) in chat.others() {
        std::fs::create_dir_all(&others).map_err(|error| ModelError::io("create", &others, error))?;
        write_file(&others.join(format!("{name}.jinja")), source.as_bytes())?;
    }
    Ok(())
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    std::fs::write(path, bytes).map_err(|error| ModelError::io("write", path, error))
}

/// `generation_config.json` names the tokens that end an answer, as in transformers; those of `config.json` do, too.
fn generation_tokens(folder: &Path, config: &mut Config) -> Result<(), ModelError> {
    let value = json_file(&folder.join("generation_config.json"))?;
    let ends = value.as_object().map_or_else(|| Ok(Vec::new()), |fields| tokens(fields, "eos_token_id", "generation_config.json"))?;
    if let Some(end) = ends.iter().find(|end| **end as usize >= config.vocab_size) {
        let why = format!("eos_token_id is {end}, but vocab_size of config.json is {}", config.vocab_size);
        return Err(ModelError::malformed("generation_config.json", why));
    }
    ends.into_iter().for_each(|end| config.add_end(end));
    Ok(())
}

/// The files and fields that transformers reads: `chat_template.jinja`, or else `chat_template` of `tokenizer_config.json`, which is one template or a list of named ones; and
/// `additional_chat_templates/NAME.jinja`. A model without any stays without.
fn chat_template(folder: &Path) -> Result<ChatTemplate, ModelError> {
    let config = folder.join("tokenizer_config.json");
    let config = if is_there(&config)? { json_file(&config)? } else { Value::Null };
    let mut named = BTreeMap::new();
    match config.get("chat_template") {
        Some(Value::String(source)) => drop(named.insert(DEFAULT_NAME.to_string(), source.clone())),
        Some(Value::Array(templates)) => {
            for template in templates {
                let text = |key: &str| template.get(key).and_then(Value::as_str).map(str::to_string);
                let (Some(name), Some(source)) = (text("name"), text("template")) else {
                    let why = "an entry of chat_template has no `name` or no `template`";
                    return Err(ModelError::malformed(format!("`{}`", folder.join("tokenizer_config.json").display()), why));
                };
                if !ChatTemplate::is_name(&name) {
                    let why =
                        format!("chat template `{}` has a name of other characters than letters, digits, `-` and `_`", name.escape_debug());
                    return Err(ModelError::malformed(format!("`{}`", folder.join("tokenizer_config.json").display()), why));
                }
                named.insert(name, source);
            }
        }
        None | Some(Value::Null) => {}
        Some(_) => {
            let why = "chat_template is neither a text nor a list";
            return Err(ModelError::malformed(format!("`{}`", folder.join("tokenizer_config.json").display()), why));
        }
    }
    let file = folder.join("chat_template.jinja");
    let mut filed = BTreeMap::new();
    if is_there(&file)? {
        filed.insert(DEFAULT_NAME.to_string(), template_file(&file)?);
    }
    let others = folder.join(ADDITIONAL);
    if files::is_folder(&others).map_err(|error| ModelError::io("read", &others, error))? {
        let names = files::names(&others).map_err(|error| ModelError::io("read", &others, error))?;
        for name in names.iter().filter_map(|name| name.to_str()?.strip_suffix(".jinja")) {
            if !ChatTemplate::is_name(name) {
                let why = "its name has other characters than letters, digits, `-` and `_`";
                return Err(ModelError::malformed(format!("`{}`", others.join(format!("{}.jinja", name.escape_debug())).display()), why));
            }
            filed.insert(name.to_string(), template_file(&others.join(format!("{name}.jinja")))?);
        }
    }
    // Files win over the field, all of it.
    let mut named = if filed.is_empty() { named } else { filed };
    let own = named.remove(DEFAULT_NAME);
    let token = |name: &str| {
        let token = config.get(name)?;
        let text = token.as_str().or_else(|| token.get("content").and_then(Value::as_str))?;
        Some((name.to_string(), text.to_string()))
    };
    let tokens = ["unk_token", "sep_token", "cls_token", "mask_token"].into_iter().filter_map(token).collect();
    Ok(own.map_or_else(ChatTemplate::absent, |source| ChatTemplate::of_model(&source)).with_others(named).with_tokens(tokens))
}

/// The template for every conversation, and the folder of the others.
const DEFAULT_NAME: &str = "default";
const ADDITIONAL: &str = "additional_chat_templates";

fn template_file(path: &Path) -> Result<String, ModelError> {
    let bytes = read_limited(path, MAX_TEMPLATE)?;
    let template = text::decode(&bytes).map_err(|error| ModelError::malformed(format!("`{}`", path.display()), error))?;
    Ok(template.into_owned())
}

fn json_file(path: &Path) -> Result<Value, ModelError> {
    json::from_foreign_slice(&read_limited(path, MAX_JSON)?).map_err(|error| ModelError::malformed(format!("`{}`", path.display()), error))
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
    fn what_is_no_model_says_what_it_is() {
        let space = tempfile::tempdir().unwrap();
        let path = |name: &str| space.path().join(name);
        let write = |name: &str, bytes: &[u8]| std::fs::write(path(name), bytes).unwrap();
        let said = |name: &str| Model::load(&path(name)).unwrap_err().to_string();
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
        for name in ["x.gguf", "x.GGUF"] {
            write(name, pointer);
            assert!(said(name).contains("Git LFS"), "{}", said(name));
        }
        std::fs::create_dir(path("folder")).unwrap();
        model().save(&path("folder")).unwrap();
        for name in ["model.safetensors", "tokenizer.json", "config.json"] {
            write(&format!("folder/{name}"), pointer);
            assert!(said("folder").contains("Git LFS") && said("folder").contains(name), "{}", said("folder"));
        }
        std::fs::create_dir(path("adapter")).unwrap();
        write("adapter/adapter_config.json", b"{}");
        assert!(said("adapter").contains("adapter of PEFT"), "{}", said("adapter"));
        write("model.safetensors", b"");
        assert!(said("model.safetensors").contains("name the folder"), "{}", said("model.safetensors"));
        write("notes.txt", b"hello");
        assert!(said("notes.txt").contains("a model is a folder"), "{}", said("notes.txt"));
        // Ollama's name for a GGUF file.
        write("sha256-0011", b"GGUF\x03\0\0\0");
        assert!(said("sha256-0011").contains("the file ends"), "{}", said("sha256-0011"));
    }

    #[test]
    fn a_gguf_file_in_parts_or_with_another_name_is_the_same_model() {
        use std::ops::ControlFlow;

        use super::super::gguf::{self, Gguf, TensorPlan, Writer};
        use super::super::quant::BlockType;
        let space = tempfile::tempdir().unwrap();
        let path = |name: &str| space.path().join(name);
        let types = vec![BlockType::F32; model().weights.layout.tensors.len()];
        gguf::save(&path("whole.gguf"), &model(), 0, &types, &mut |_| ControlFlow::Continue(())).unwrap();
        let whole = Model::load(&path("whole.gguf")).unwrap();
        std::fs::create_dir(path("blobs")).unwrap();
        std::fs::copy(path("whole.gguf"), path("blobs/sha256-0011")).unwrap();
        std::fs::copy(path("whole.gguf"), path("x.GGUF")).unwrap();
        let file = Gguf::open(&path("whole.gguf")).unwrap();
        std::fs::create_dir(path("parts")).unwrap();
        for no in 0..2u16 {
            let mut metadata = if no == 0 { file.header.metadata.clone() } else { Vec::new() };
            metadata.push(("split.no".to_string(), gguf::Value::U16(no)));
            metadata.push(("split.count".to_string(), gguf::Value::U16(2)));
            let held: Vec<_> = file.header.tensors.iter().enumerate().filter(|(i, _)| (*i < 5) == (no == 0)).map(|(_, t)| t).collect();
            let plan = |tensor: &&gguf::TensorInfo| TensorPlan { name: tensor.name.clone(), shape: tensor.shape.clone(), ty: tensor.ty };
            let plans: Vec<_> = held.iter().map(plan).collect();
            let mut writer = Writer::create(&path(&format!("parts/m-0000{}-of-00002.gguf", no + 1)), &metadata, &plans).unwrap();
            held.iter().for_each(|tensor| writer.tensor(file.bytes(tensor)).unwrap());
            writer.finish().unwrap();
        }
        for name in ["blobs", "blobs/sha256-0011", "x.GGUF", "parts", "parts/m-00001-of-00002.gguf"] {
            assert_eq!(Model::load(&path(name)).unwrap().weights.data, whole.weights.data, "{name}");
            assert_eq!(Model::open(&path(name)).unwrap().config, whole.config, "{name}");
        }
    }

    #[test]
    fn the_tokenizers_configuration_agrees_with_it() {
        let space = tempfile::tempdir().unwrap();
        model().save(space.path()).unwrap();
        let said = |fields: Value| {
            std::fs::write(space.path().join("tokenizer_config.json"), fields.to_string()).unwrap();
            Model::load(space.path()).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(said(json!({"add_prefix_space": true, "tokenizer_class": "PreTrainedTokenizerFast"})), Ok(()));
        assert_eq!(said(json!({"add_prefix_space": false, "tokenizer_class": "GPT2Tokenizer"})), Ok(()));
        assert!(
            said(json!({"add_prefix_space": true, "tokenizer_class": "Qwen2Tokenizer"})).unwrap_err().contains("add_prefix_space true")
        );
        assert!(said(json!({"split_special_tokens": true})).unwrap_err().contains("split_special_tokens"));
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
