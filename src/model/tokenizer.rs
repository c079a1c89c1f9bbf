//! `tokenizer.json` and `tokenizer_config.json`: text → tokens and back, and the special tokens. Knows no chat.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};
use tokenizers::AddedToken;
use tokenizers::models::bpe::{BPE, Vocab};

use super::ModelError;
use super::error::read_limited;

/// The largest published vocabularies take some 20 MB.
const MAX_FILE: u64 = 128 << 20;

/// A token with a meaning of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Special {
    pub id: u32,
    pub text: String,
}

#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    json: Json,
    vocab_size: usize,
    pub bos: Option<Special>,
    pub eos: Option<Special>,
    pub pad: Option<Special>,
}

/// `tokenizer.json`: most users never look at it, and for some files it has to be made.
#[derive(Clone)]
struct Json {
    text: OnceLock<Vec<u8>>,
    make: Arc<dyn Fn() -> Vec<u8> + Send + Sync>,
}

/// A BPE in parts, as a GGUF file keeps it.
#[derive(Debug)]
pub struct Parts<'a> {
    /// `tokenizer.json` with the model's settings but neither vocabulary nor merges nor added tokens.
    pub frame: Value,
    /// By number; `None` for a number without a token.
    pub tokens: Vec<Option<&'a str>>,
    pub merges: Vec<(&'a str, &'a str)>,
    /// Those of the tokens that texts are searched for.
    pub added: Vec<Added<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Added<'a> {
    pub id: usize,
    pub text: &'a str,
    pub special: bool,
}

impl Tokenizer {
    /// `tokenizer.json` alone: no token is known to end a text.
    pub fn from_file(path: &Path) -> Result<Tokenizer, ModelError> {
        Tokenizer::from_json(&read_limited(path, MAX_FILE)?)
    }

    /// `tokenizer.json` and, if it is there, `tokenizer_config.json`.
    pub fn from_folder(folder: &Path) -> Result<Tokenizer, ModelError> {
        let mut tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json"))?;
        let config = folder.join("tokenizer_config.json");
        if config.exists() {
            let bytes = read_limited(&config, MAX_FILE)?;
            let value: Value = serde_json::from_slice(&bytes).map_err(|error| ModelError::malformed("tokenizer_config.json", error))?;
            tokenizer.bos = tokenizer.named(&value, "bos_token")?;
            tokenizer.eos = tokenizer.named(&value, "eos_token")?;
            tokenizer.pad = tokenizer.named(&value, "pad_token")?;
        }
        Ok(tokenizer)
    }

    pub fn from_json(json: &[u8]) -> Result<Tokenizer, ModelError> {
        let malformed = |why: String| ModelError::malformed("tokenizer.json", why);
        let inner = guarded(|| tokenizers::Tokenizer::from_bytes(json).map_err(|error| error.to_string()));
        let mut inner = inner.map_err(malformed)?;
        // What some files say about cutting and padding belongs to their training.
        inner.with_padding(None).with_truncation(None).map_err(|error| malformed(error.to_string()))?;
        let highest = inner.get_vocab(true).values().max().copied();
        Tokenizer::of(inner, Json::text(json.to_vec()), highest).map_err(malformed)
    }

    /// The tokenizer that [`Tokenizer::from_json`] makes of `json`, which is only called if somebody wants to see it. Putting the parts together
    /// takes a fraction of the time of writing and reading them as JSON.
    pub fn from_parts(parts: Parts, json: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Result<Tokenizer, ModelError> {
        let highest = parts.tokens.iter().rposition(Option::is_some).map(|id| id as u32);
        let inner = guarded(|| parts.assemble().map_err(|error| error.to_string()));
        let json = Json { text: OnceLock::new(), make: Arc::new(json) };
        inner.and_then(|inner| Tokenizer::of(inner, json, highest)).map_err(|why| ModelError::malformed("the tokenizer", why))
    }

    fn of(inner: tokenizers::Tokenizer, json: Json, highest: Option<u32>) -> Result<Tokenizer, String> {
        let highest = highest.ok_or("it has no token")?;
        if highest as usize >= 1 << 20 {
            return Err(format!("token {highest} is beyond the limit of {}", 1 << 20));
        }
        Ok(Tokenizer { inner, json, vocab_size: highest as usize + 1, bos: None, eos: None, pad: None })
    }

    fn named(&self, config: &Value, name: &str) -> Result<Option<Special>, ModelError> {
        let text = match config.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text.as_str(),
            Some(table) => match table.get("content").and_then(Value::as_str) {
                Some(text) => text,
                None => return Err(ModelError::malformed("tokenizer_config.json", format!("{name} is not a token"))),
            },
        };
        self.special(text).map(Some).ok_or_else(|| ModelError::malformed("tokenizer_config.json", format!("{name} `{text}` is no token")))
    }

    /// The token of exactly this text.
    pub fn special(&self, text: &str) -> Option<Special> {
        self.inner.token_to_id(text).map(|id| Special { id, text: text.to_string() })
    }

    /// Nothing is added before or after; special tokens in the text become themselves.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = guarded(|| self.inner.encode_fast(text, false).map_err(|error| error.to_string()));
        let encoding = encoding.map_err(|error| ModelError::Input(format!("the tokenizer refuses a text: {error}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Whether other tools begin a text with the beginning's token, unless they are told not to. [`Tokenizer::encode`] never does.
    pub fn adds_bos(&self) -> bool {
        let empty = guarded(|| self.inner.encode_fast("", true).map_err(|error| error.to_string()));
        let first = empty.ok().and_then(|encoding| encoding.get_ids().first().copied());
        first.is_some() && first == self.bos.as_ref().map(|bos| bos.id)
    }

    /// Text without special tokens; bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, ModelError> {
        let text = guarded(|| self.inner.decode(tokens, true).map_err(|error| error.to_string()));
        text.map_err(|error| ModelError::Input(format!("the tokenizer refuses tokens: {error}")))
    }

    /// As the vocabulary spells it (byte-level: `Ġthe`).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The highest token plus one.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The same tokenizer, its `tokenizer.json` as the `tokenizers` crate writes it: vocabulary by token, indented.
    pub(super) fn canonical(self) -> Result<Tokenizer, ModelError> {
        let text = self.inner.to_string(true).map_err(|error| ModelError::malformed("tokenizer.json", error))?;
        Ok(Tokenizer { json: Json::text(format!("{text}\n").into_bytes()), ..self })
    }

    pub(super) fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }

    /// The bytes of `tokenizer.json`, as they were read.
    pub fn json(&self) -> &[u8] {
        self.json.text.get_or_init(|| (self.json.make)())
    }

    /// `tokenizer_config.json`, as transformers reads it. Nothing is added to a text on its own.
    pub fn config_json(&self, model_max_length: Option<usize>) -> Vec<u8> {
        let mut fields = Map::new();
        fields.insert("add_bos_token".to_string(), json!(false));
        fields.insert("add_prefix_space".to_string(), json!(false));
        fields.insert("clean_up_tokenization_spaces".to_string(), json!(false));
        for (name, special) in [("bos_token", &self.bos), ("eos_token", &self.eos), ("pad_token", &self.pad)] {
            if let Some(special) = special {
                fields.insert(name.to_string(), json!(special.text));
            }
        }
        if let Some(length) = model_max_length {
            fields.insert("model_max_length".to_string(), json!(length));
        }
        fields.insert("tokenizer_class".to_string(), json!("PreTrainedTokenizerFast"));
        format!("{:#}\n", Value::Object(fields)).into_bytes()
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens)", self.vocab_size)
    }
}

impl Json {
    fn text(text: Vec<u8>) -> Json {
        Json { text: OnceLock::from(text), make: Arc::new(Vec::new) }
    }
}

impl Parts<'_> {
    fn assemble(self) -> Result<tokenizers::Tokenizer, tokenizers::Error> {
        let numbered = self.tokens.iter().enumerate().filter_map(|(id, text)| Some(((*text)?.to_string(), id as u32)));
        let vocab: Vocab = numbered.collect();
        if vocab.len() != self.tokens.iter().flatten().count() {
            return Err("two tokens have the same text".into());
        }
        let merges = self.merges.iter().map(|(left, right)| (left.to_string(), right.to_string())).collect();
        let settings = &self.frame["model"];
        let set = |name: &str| settings[name] == true;
        let bpe = BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(set("ignore_merges")).fuse_unk(set("fuse_unk"));
        let bpe = bpe.byte_fallback(set("byte_fallback"));
        let bpe = match settings["unk_token"].as_str() {
            Some(unknown) => bpe.unk_token(unknown.to_string()).build()?,
            None => bpe.build()?,
        };
        let mut inner: tokenizers::Tokenizer = serde_json::from_value(self.frame)?;
        inner.with_model(bpe);
        inner.add_tokens(self.added.iter().map(|added| AddedToken::from(added.text, added.special).normalized(false)))?;
        Ok(inner)
    }
}

/// The crate panics on some malformed files, such as tables whose entries point outside of them: that, too, is the file's fault.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    caught.unwrap_or_else(|_| Err("it makes the `tokenizers` crate panic".to_string()))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Bytes as tokens, no merges, `<|endoftext|>` first.
    pub fn bytes_only() -> Tokenizer {
        let alphabet = super::super::bytes::alphabet();
        let mut vocab = Map::new();
        vocab.insert("<|endoftext|>".to_string(), json!(0));
        for (i, letter) in alphabet.iter().enumerate() {
            vocab.insert(letter.to_string(), json!(i + 1));
        }
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "added_tokens": [{"id": 0, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true}],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true},
            "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true},
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []},
        });
        let mut tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
        let end = tokenizer.special("<|endoftext|>");
        (tokenizer.bos, tokenizer.eos, tokenizer.pad) = (end.clone(), end.clone(), end);
        tokenizer
    }

    #[test]
    fn any_text_comes_back() {
        let tokenizer = bytes_only();
        assert_eq!(tokenizer.vocab_size(), 257);
        for text in ["", "set fridge two to -4", "  two  spaces\n\n", "naïve 冷蔵庫 \u{1f9ca}", "\0\u{7f}"] {
            let tokens = tokenizer.encode(text).unwrap();
            assert_eq!(tokens.len(), text.len());
            assert_eq!(tokenizer.decode(&tokens).unwrap(), text);
        }
        assert_eq!(tokenizer.encode("a<|endoftext|>").unwrap().last(), Some(&0));
    }

    #[test]
    fn a_folder_gives_it_its_special_tokens() {
        let space = tempfile::tempdir().unwrap();
        let tokenizer = bytes_only();
        std::fs::write(space.path().join("tokenizer.json"), tokenizer.json()).unwrap();
        std::fs::write(space.path().join("tokenizer_config.json"), tokenizer.config_json(Some(64))).unwrap();
        let read = Tokenizer::from_folder(space.path()).unwrap();
        assert_eq!(read.eos, Some(Special { id: 0, text: "<|endoftext|>".to_string() }));
        assert_eq!(read.pad, read.bos);
        std::fs::write(space.path().join("tokenizer_config.json"), r#"{"eos_token": {"content": "<nope>"}}"#).unwrap();
        assert!(Tokenizer::from_folder(space.path()).unwrap_err().to_string().contains("`<nope>` is no token"));
    }

    #[test]
    fn mutated_files_never_panic() {
        use crate::kernels::rng::below;
        let good = bytes_only().json().to_vec();
        for i in 0..300 {
            let mut mangled = good.clone();
            for j in 0..1 + i % 4 {
                let at = below(i, 0, j, good.len() as u64) as usize;
                mangled[at] = good[below(i, 1, j, good.len() as u64) as usize];
            }
            if let Ok(tokenizer) = Tokenizer::from_json(&mangled) {
                let tokens = tokenizer.encode("set fridge two to -4 <|endoftext|>").unwrap_or_default();
                let _ = tokenizer.decode(&tokens);
                let _ = tokenizer.decode(&[0, 999, u32::MAX]);
            }
        }
    }

    #[test]
    fn mangled_files_are_errors() {
        let good = bytes_only().json().to_vec();
        for length in [0, 1, good.len() / 2, good.len() - 1] {
            assert!(Tokenizer::from_json(&good[..length]).is_err());
        }
        assert!(Tokenizer::from_json(b"{}").is_err());
    }
}
