//! `tokenizer.json` and `tokenizer_config.json`: text → tokens and back, and the special tokens. Knows no chat.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};
use tokenizers::AddedToken;
use tokenizers::models::bpe::{BPE, Vocab};

use super::ModelError;
use super::added::AddedTokens;
use super::error::read_limited;
use crate::base::memory;

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
    /// How many tokens the model has, where they are fewer.
    model_tokens: Option<usize>,
    specials: OnceLock<Vec<String>>,
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
    /// Whether it swallows the spaces behind it.
    pub rstrip: bool,
}

impl Tokenizer {
    /// `tokenizer.json` alone: no token is known to end a text.
    pub fn from_file(path: &Path) -> Result<Tokenizer, ModelError> {
        Tokenizer::from_json(&read_limited(path, MAX_FILE)?)
    }

    /// `tokenizer.json` and the tokens that the folder's other files add to it or name.
    pub fn from_folder(folder: &Path) -> Result<Tokenizer, ModelError> {
        let mut tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json"))?;
        let added = AddedTokens::of_folder(folder)?;
        let pad = tokenizer.pad.clone();
        tokenizer.add(&added)?;
        tokenizer.pad = pad;
        tokenizer.bos = added.name("bos_token").and_then(|text| tokenizer.special(text));
        tokenizer.eos = added.name("eos_token").and_then(|text| tokenizer.special(text));
        if !added.is_silent_on_pad() {
            tokenizer.pad = added.name("pad_token").and_then(|text| tokenizer.special(text));
        }
        Ok(tokenizer)
    }

    fn add(&mut self, added: &AddedTokens) -> Result<(), ModelError> {
        let malformed = |why: String| ModelError::malformed("tokenizer_config.json", why);
        let missing = added.missing(&self.inner.get_added_tokens_decoder().into_iter().collect());
        if !missing.is_empty() {
            let inner = &mut self.inner;
            guarded(|| inner.add_tokens(missing).map_err(|error| error.to_string())).map_err(malformed)?;
            let highest = self.inner.get_vocab(true).values().max().copied();
            let text = self.json_with_specials().map_err(malformed)?;
            *self = Tokenizer::of(self.inner.clone(), Json::text(text), highest).map_err(malformed)?;
        }
        for (id, text) in added.promised() {
            match self.inner.token_to_id(text) {
                Some(found) if found != id => {
                    return Err(malformed(format!("`{text}` is to be token {id}, but tokenizer.json makes it token {found}")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// As the `tokenizers` crate writes it, but for tokens that were special once and are said not to be: the crate goes on to leave them out of texts.
    fn json_with_specials(&self) -> Result<Vec<u8>, String> {
        let text = self.inner.to_string(false).map_err(|error| error.to_string())?;
        let mut json: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let added = self.inner.get_added_vocabulary();
        for token in json["added_tokens"].as_array_mut().into_iter().flatten() {
            if token["content"].as_str().is_some_and(|content| added.is_special_token(content)) {
                token["special"] = true.into();
            }
        }
        serde_json::to_string_pretty(&json).map(|text| format!("{text}\n").into_bytes()).map_err(|error| error.to_string())
    }

    pub fn from_json(json: &[u8]) -> Result<Tokenizer, ModelError> {
        let malformed = |why: String| ModelError::malformed("tokenizer.json", why);
        // The text, its tree and the maps that are made of it.
        memory::check((json.len() as u64).saturating_mul(12), "tokenizer.json")?;
        let inner = guarded(|| tokenizers::Tokenizer::from_bytes(json).map_err(|error| error.to_string()));
        let mut inner = inner.map_err(|why| malformed(with_prefix(why, json)))?;
        refuse_randomness(&inner).map_err(malformed)?;
        // What some files say about cutting and padding belongs to their training, but for the name of a token.
        let pad = inner.get_padding().map(|padding| padding.pad_token.clone());
        inner.with_padding(None).with_truncation(None).map_err(|error| malformed(error.to_string()))?;
        let highest = inner.get_vocab(true).values().max().copied();
        let mut tokenizer = Tokenizer::of(inner, Json::text(json.to_vec()), highest).map_err(malformed)?;
        tokenizer.pad = pad.and_then(|text| tokenizer.special(&text));
        Ok(tokenizer)
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
        let vocab_size = highest as usize + 1;
        Ok(Tokenizer { inner, json, vocab_size, model_tokens: None, specials: OnceLock::new(), bos: None, eos: None, pad: None })
    }

    /// The token of exactly this text.
    pub fn special(&self, text: &str) -> Option<Special> {
        self.inner.token_to_id(text).map(|id| Special { id, text: text.to_string() })
    }

    /// Nothing is added before or after; special tokens in the text become themselves.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = guarded(|| self.inner.encode_fast(text, false).map_err(|error| error.to_string()));
        let encoding = encoding.map_err(|error| ModelError::Input(format!("the tokenizer refuses a text: {error}")))?;
        self.known(encoding.get_ids())
    }

    /// Tokens that the model has, too.
    fn known(&self, ids: &[u32]) -> Result<Vec<u32>, ModelError> {
        if let Some(size) = self.model_tokens
            && let Some(id) = ids.iter().find(|id| **id as usize >= size)
        {
            let token = self.token(*id).unwrap_or_default();
            return Err(ModelError::Input(format!(
                "a text has the token `{token}` ({id}), but the model's vocabulary ends at {}",
                size - 1
            )));
        }
        Ok(ids.to_vec())
    }

    /// The same, and how many of the tokens stand for the text's first `end` bytes.
    pub fn encode_to(&self, text: &str, end: usize) -> Result<(Vec<u32>, usize), ModelError> {
        let encoding = guarded(|| self.inner.encode(text, false).map_err(|error| error.to_string()));
        let encoding = encoding.map_err(|error| ModelError::Input(format!("the tokenizer refuses a text: {error}")))?;
        let count = encoding.get_offsets().iter().take_while(|(start, _)| *start < end).count();
        Ok((self.known(encoding.get_ids())?, count))
    }

    /// For a model of `tokens` tokens: some files list tokens beyond its vocabulary, which texts then must not use.
    pub(super) fn for_model(mut self, tokens: usize) -> Result<Tokenizer, ModelError> {
        if self.vocab_size <= tokens {
            return Ok(self);
        }
        self.model_tokens = Some(tokens);
        let is_beyond = |special: &Special| special.id as usize >= tokens;
        for (name, special) in [("bos_token", &self.bos), ("eos_token", &self.eos)] {
            if let Some(Special { id, text }) = special.as_ref().filter(|special| is_beyond(special)) {
                let why = format!("{name} is `{text}`, token {id}, but the model's vocabulary ends at {}", tokens - 1);
                return Err(ModelError::malformed("tokenizer_config.json", why));
            }
        }
        // Nothing is ever padded here.
        self.pad = self.pad.filter(|special| !is_beyond(special));
        Ok(self)
    }

    /// What stands before the special token that a text ends with.
    pub fn special_ends<'t>(&self, text: &'t str) -> Option<&'t str> {
        let longest = self.specials().iter().filter(|special| text.ends_with(special.as_str())).map(String::len).max()?;
        text.get(..text.len() - longest)
    }

    /// Whether a space is put before a text that has none.
    pub(super) fn begins_with_space(&self) -> Result<bool, ModelError> {
        Ok(self.encode("a")? == self.encode(" a")?)
    }

    /// The length of the special token that a text begins with.
    pub fn special_starts(&self, text: &str) -> Option<usize> {
        self.specials().iter().filter(|special| text.starts_with(special.as_str())).map(String::len).max()
    }

    /// The texts of the special tokens; also of those that only look special, as many files do not mark the tokens that close turns.
    fn specials(&self) -> &[String] {
        self.specials.get_or_init(|| {
            let added = self.inner.get_added_tokens_decoder();
            let mut texts: Vec<String> =
                added.values().filter(|token| token.special || looks_special(&token.content)).map(|token| token.content.clone()).collect();
            texts.extend([&self.bos, &self.eos, &self.pad].into_iter().flatten().map(|special| special.text.clone()));
            texts.retain(|text| !text.is_empty());
            texts.sort_unstable();
            texts.dedup();
            texts
        })
    }

    /// Whether other tools begin a text with the beginning's token, unless they are told not to. [`Tokenizer::encode`] never does.
    pub fn adds_bos(&self) -> bool {
        let (before, _) = self.around();
        before.first().is_some_and(|first| self.bos.as_ref().is_some_and(|bos| bos.id == *first))
    }

    /// Whether they end it with the end's token.
    pub fn adds_eos(&self) -> bool {
        let (_, behind) = self.around();
        behind.last().is_some() && behind.last() == self.eos.as_ref().map(|eos| &eos.id)
    }

    /// What the post-processor puts before and behind a text.
    fn around(&self) -> (Vec<u32>, Vec<u32>) {
        let encode = |specials| guarded(|| self.inner.encode_fast("a", specials).map_err(|error| error.to_string()));
        let ids = |specials| encode(specials).map(|encoding| encoding.get_ids().to_vec()).unwrap_or_default();
        let (whole, text) = (ids(true), ids(false));
        match (0..=whole.len()).find(|at| whole.get(*at..).is_some_and(|rest| rest.starts_with(&text))) {
            Some(at) => (whole[..at].to_vec(), whole[at + text.len()..].to_vec()),
            None => (whole, Vec::new()),
        }
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

    /// `tokenizer_config.json`, as transformers reads it. It says of texts what the post-processor does.
    pub fn config_json(&self, model_max_length: Option<usize>) -> Vec<u8> {
        let mut fields = Map::new();
        fields.insert("add_bos_token".to_string(), json!(self.adds_bos()));
        if self.adds_eos() {
            // Readers without `tokenizer.json`, and llama.cpp's converter, ask for these two.
            fields.insert("add_eos_token".to_string(), json!(true));
        }
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
        inner.add_tokens(
            self.added.iter().map(|added| AddedToken::from(added.text, added.special).normalized(false).rstrip(added.rstrip)),
        )?;
        Ok(inner)
    }
}

/// What llama.cpp's converter takes for a control token, whatever the file says.
fn looks_special(text: &str) -> bool {
    text.starts_with("<|") && text.ends_with("|>")
}

/// Names the field that makes the crate fail: it cuts the prefix off the right half of each merge, whether that has it or not.
fn with_prefix(why: String, json: &[u8]) -> String {
    let value: Value = serde_json::from_slice(json).unwrap_or_default();
    match value["model"]["continuing_subword_prefix"].as_str() {
        Some(prefix) if !prefix.is_empty() => {
            format!("{why}; its `model.continuing_subword_prefix` is {prefix:?}, and merges do not fit it")
        }
        _ => why,
    }
}

/// A merge that is left out at random would give other tokens each time.
fn refuse_randomness(inner: &tokenizers::Tokenizer) -> Result<(), String> {
    let tokenizers::ModelWrapper::BPE(bpe) = inner.get_model() else { return Ok(()) };
    match bpe.dropout {
        Some(dropout) if dropout != 0.0 => {
            Err(format!("`model.dropout` is {dropout}, so that each run would see other tokens; set it to null"))
        }
        _ => Ok(()),
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

    /// The same with further special tokens, from 257 on.
    pub fn with_specials(texts: &[&str]) -> Tokenizer {
        let plain = bytes_only();
        let mut json: Value = serde_json::from_slice(plain.json()).unwrap();
        for (id, text) in (257..).zip(texts) {
            let mut token = json["added_tokens"][0].clone();
            (token["id"], token["content"]) = (id.into(), (*text).into());
            json["added_tokens"].as_array_mut().unwrap().push(token);
        }
        let tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
        Tokenizer { bos: plain.bos, eos: plain.eos, pad: plain.pad, ..tokenizer }
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
    }

    /// What transformers 5.23 makes of the same files.
    #[test]
    fn the_other_files_of_a_folder_add_tokens() {
        let read = |files: &[(&str, &str)]| {
            let space = tempfile::tempdir().unwrap();
            std::fs::write(space.path().join("tokenizer.json"), bytes_only().json()).unwrap();
            files.iter().for_each(|(name, text)| std::fs::write(space.path().join(name), text).unwrap());
            Tokenizer::from_folder(space.path())
        };
        let ids = |files: &[(&str, &str)], text: &str| read(files).unwrap().encode(text).unwrap();
        let decoder = r#"{"added_tokens_decoder": {"257": {"content": "<|im_start|>", "special": true}, "258": {"content": "<|im_end|>", "special": true}}}"#;
        assert_eq!(ids(&[("tokenizer_config.json", decoder)], "<|im_start|><|im_end|>"), [257, 258]);
        assert_eq!(ids(&[("added_tokens.json", r#"{"<|im_start|>": 257}"#)], "<|im_start|>"), [257]);
        assert_eq!(ids(&[("special_tokens_map.json", r#"{"additional_special_tokens": ["<|im_end|>"]}"#)], "<|im_end|>"), [257]);
        assert_eq!(ids(&[("tokenizer_config.json", r#"{"pad_token": "<pad>"}"#)], "<pad>"), [257]);
        // With `added_tokens_decoder`, the older files say nothing.
        let both = [("tokenizer_config.json", decoder), ("special_tokens_map.json", r#"{"additional_special_tokens": ["<|x|>"]}"#)];
        assert_eq!(read(&both).unwrap().vocab_size(), 259);
        let moved = decoder.replace("258", "300");
        let error = read(&[("tokenizer_config.json", &moved)]).unwrap_err().to_string();
        assert!(error.contains("`<|im_end|>` is to be token 300, but tokenizer.json makes it token 258"), "{error}");
        let written = read(&[("tokenizer_config.json", decoder)]).unwrap();
        assert_eq!(Tokenizer::from_json(written.json()).unwrap().encode("<|im_end|>").unwrap(), [258]);
    }

    #[test]
    fn tokens_beyond_the_models_vocabulary_are_refused_where_a_text_has_them() {
        let space = tempfile::tempdir().unwrap();
        std::fs::write(space.path().join("tokenizer.json"), bytes_only().json()).unwrap();
        std::fs::write(space.path().join("tokenizer_config.json"), r#"{"pad_token": "<pad>", "eos_token": "<|endoftext|>"}"#).unwrap();
        let tokenizer = Tokenizer::from_folder(space.path()).unwrap().for_model(257).unwrap();
        assert_eq!((tokenizer.pad.clone(), tokenizer.encode("pad").unwrap().len()), (None, 3));
        let error = tokenizer.encode("a<pad>").unwrap_err().to_string();
        assert!(error.contains("`<pad>` (257)"), "{error}");
        std::fs::write(space.path().join("tokenizer_config.json"), r#"{"eos_token": "<nope>"}"#).unwrap();
        let error = Tokenizer::from_folder(space.path()).unwrap().for_model(257).unwrap_err().to_string();
        assert!(error.contains("eos_token is `<nope>`"), "{error}");
    }

    /// As transformers has it: `padding` of `tokenizer.json` names it where no field does, and `add_bos_token` says nothing beside `tokenizer.json`.
    #[test]
    fn tokenizer_json_goes_over_fields_beside_it() {
        let read = |config: &str| {
            let space = tempfile::tempdir().unwrap();
            let mut json: Value = serde_json::from_slice(bytes_only().json()).unwrap();
            json["padding"] = json!({"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0,
                "pad_token": "<|endoftext|>"});
            // Named, and so special, though the list does not say so.
            json["added_tokens"][0]["special"] = false.into();
            std::fs::write(space.path().join("tokenizer.json"), json.to_string()).unwrap();
            std::fs::write(space.path().join("tokenizer_config.json"), config).unwrap();
            Tokenizer::from_folder(space.path()).unwrap()
        };
        let named = read(r#"{"bos_token": "<|endoftext|>", "add_bos_token": true}"#);
        assert_eq!((named.pad.map(|pad| pad.id), read(r#"{"pad_token": null}"#).pad), (Some(0), None));
        let named = read(r#"{"bos_token": "<|endoftext|>", "add_bos_token": true}"#);
        assert!(!named.adds_bos());
        assert_eq!((named.decode(&[0]).unwrap(), read("{}").decode(&[0]).unwrap()), (String::new(), "<|endoftext|>".to_string()));
        assert_eq!(Tokenizer::from_json(named.json()).unwrap().decode(&[0]).unwrap(), "");
    }

    #[test]
    fn random_merges_are_refused() {
        let json = String::from_utf8(bytes_only().json().to_vec()).unwrap();
        let error = Tokenizer::from_json(json.replace(r#""dropout":null"#, r#""dropout":0.1"#).as_bytes()).unwrap_err().to_string();
        assert!(error.contains("`model.dropout` is 0.1"), "{error}");
        Tokenizer::from_json(json.replace(r#""dropout":null"#, r#""dropout":0.0"#).as_bytes()).unwrap();
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
