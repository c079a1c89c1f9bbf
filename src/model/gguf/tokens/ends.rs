//! The special tokens that a GGUF file names, and where llama.cpp ends an answer: at the tokens of three keys, and at all whose text it knows. A model may end at
//! more tokens than that, or at fewer: the former is refused, the latter is what a key of ours says.

use std::collections::BTreeSet;

use super::unsupported;
use crate::model::gguf::{Array, Header, Value};
use crate::model::{Model, ModelError, ends};

const BOS: &str = "tokenizer.ggml.bos_token_id";
pub const EOS: &str = "tokenizer.ggml.eos_token_id";
const EOT: &str = "tokenizer.ggml.eot_token_id";
const EOM: &str = "tokenizer.ggml.eom_token_id";
/// All tokens that end an answer, where llama.cpp takes more for ends. A list.
const OWN_ENDS: &str = "slmops.end_token_ids";
/// Those of `bos`, `eos` and `pad` that `config.json` numbers and the tokenizer does not name, so that templates do not see them.
const OWN_UNNAMED: &str = "slmops.unnamed_special_tokens";

/// Special tokens that only templates ask for.
pub const OF_TEMPLATES: [(&str, &str); 4] = [
    ("unk_token", "tokenizer.ggml.unknown_token_id"),
    ("sep_token", "tokenizer.ggml.seperator_token_id"),
    ("cls_token", "tokenizer.ggml.cls_token_id"),
    ("mask_token", "tokenizer.ggml.mask_token_id"),
];

/// What llama.cpp takes for an end by its text, whatever the token's type (`special_eog_ids` in llama-vocab.cpp).
const KNOWN: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
    "[e~[",
];

/// Tokens for code infilling end answers, too: the one of the key, or else the first of these texts.
const INFILLING: [(&str, &[&str]); 3] = [
    ("tokenizer.ggml.fim_pad_token_id", &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"]),
    ("tokenizer.ggml.fim_rep_token_id", &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"]),
    ("tokenizer.ggml.fim_sep_token_id", &["<|file_sep|>"]),
];

/// A file's metadata, as far as special tokens go.
struct Facts<'a> {
    tokens: &'a [String],
    entry: &'a dyn Fn(&str) -> Option<&'a Value>,
}

impl Facts<'_> {
    /// A token that a key names. llama.cpp overlooks numbers beyond the vocabulary.
    fn key(&self, key: &str) -> Option<u32> {
        (self.entry)(key)?.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| (*id as usize) < self.tokens.len())
    }

    fn find(&self, text: &str) -> Option<u32> {
        self.tokens.iter().position(|token| token == text).and_then(|id| u32::try_from(id).ok())
    }

    fn eos(&self) -> Option<u32> {
        let default = default_eos((self.entry)("tokenizer.ggml.model").and_then(Value::as_str));
        self.key(EOS).or(default.filter(|id| (*id as usize) < self.tokens.len()))
    }

    /// Where llama.cpp ends an answer, `eos` first.
    fn ends(&self) -> Vec<u32> {
        let mut found: Vec<u32> = self.eos().into_iter().chain(self.key(EOT)).chain(self.key(EOM)).collect();
        for (key, texts) in INFILLING {
            found.extend(self.key(key).or_else(|| texts.iter().find_map(|text| self.find(text))));
        }
        let known = self.tokens.iter().enumerate().filter(|(_, text)| KNOWN.contains(&text.as_str()));
        found.extend(known.filter_map(|(id, _)| u32::try_from(id).ok()));
        let has = |text: &str| self.find(text).is_some_and(|id| found.contains(&id));
        let mut not = Vec::new();
        if (has("<|return|>") && has("<|call|>") || has("<|flush|>") && (has("<|call|>") || has("<|calls|>"))) && has("<|end|>") {
            not.extend(self.find("<|end|>"));
        }
        if has("<|tool_response>") {
            not.extend(self.find("</s>"));
        }
        let mut seen = BTreeSet::new();
        found.retain(|id| !not.contains(id) && seen.insert(*id));
        found
    }
}

/// What llama.cpp takes for a file's `bos` that names none.
fn default_bos(model: Option<&str>) -> Option<u32> {
    match model {
        Some("gpt2") => Some(11),
        Some("llama") => Some(1),
        _ => None,
    }
}

/// What llama.cpp takes for a file's `eos` that names none.
fn default_eos(model: Option<&str>) -> Option<u32> {
    match model {
        Some("gpt2") => Some(11),
        Some("llama") => Some(2),
        _ => None,
    }
}

/// The tokens that end an answer, the file's `eos` first.
pub fn read(header: &Header) -> Result<Vec<u32>, String> {
    let tokens = header.get("tokenizer.ggml.tokens").and_then(Value::as_strings).unwrap_or(&[]);
    let facts = Facts { tokens, entry: &|key| header.get(key) };
    match header.get(OWN_ENDS) {
        None => Ok(facts.ends()),
        Some(Value::Array(Array::U32(ids))) if ids.iter().all(|id| (*id as usize) < tokens.len()) => Ok(ids.clone()),
        Some(_) => Err(format!("{OWN_ENDS} is not a list of tokens")),
    }
}

/// The `eos` of a file, named or not.
pub fn eos(header: &Header) -> Option<u32> {
    let tokens = header.get("tokenizer.ggml.tokens").and_then(Value::as_strings).unwrap_or(&[]);
    Facts { tokens, entry: &|key| header.get(key) }.eos()
}

/// The `bos` of a file. One that names none has llama.cpp's, which matters to templates that ask for it.
pub fn bos(header: &Header) -> Option<u32> {
    let get = |key: &str| header.get(key);
    let tokens = get("tokenizer.ggml.tokens").and_then(Value::as_strings).unwrap_or(&[]);
    let asks = get("tokenizer.chat_template").and_then(Value::as_str).is_some_and(|source| source.contains("bos_token"));
    let default = default_bos(get("tokenizer.ggml.model").and_then(Value::as_str)).filter(|id| asks && (*id as usize) < tokens.len());
    Facts { tokens, entry: &get }.key(BOS).or(default)
}

/// What llama.cpp takes for special by its text where a file says that it is an ordinary token, or none at all.
pub fn is_special(text: &str) -> bool {
    KNOWN.contains(&text) || INFILLING.iter().any(|(_, texts)| texts.contains(&text))
}

/// Whether the tokenizer names this one of `bos`, `eos` and `pad` itself.
pub fn is_named(header: &Header, name: &str) -> bool {
    let unnamed = header.get(OWN_UNNAMED).and_then(Value::as_strings).unwrap_or(&[]);
    !unnamed.iter().any(|other| other == name)
}

type Entries = Vec<(&'static str, Value)>;

/// Adds a model's special tokens to the entries of its tokenizer.
pub fn write<W>(model: &Model<W>, entries: &mut Entries) -> Result<(), ModelError> {
    let (config, tokenizer) = (&model.config, &model.tokenizer);
    let specials = [
        ("bos", BOS, &tokenizer.bos, config.bos_token_id),
        ("eos", EOS, &tokenizer.eos, config.eos_token_id),
        ("pad", "tokenizer.ggml.padding_token_id", &tokenizer.pad, config.pad_token_id),
    ];
    let mut unnamed = Vec::new();
    for (name, key, special, id) in specials {
        let id = special.as_ref().map(|special| special.id).or(id);
        entries.extend(id.map(|id| (key, Value::U32(id))));
        // Without a key, llama.cpp has a token of its own for these, which templates would see.
        let asks = ["bos", "eos"].contains(&name) && model.chat.source().is_some_and(|source| source.contains(&format!("{name}_token")));
        unnamed.extend((special.is_none() && (id.is_some() || asks)).then(|| name.to_string()));
    }
    for (name, key) in OF_TEMPLATES {
        if let Some(text) = model.chat.asks_for(name) {
            let special = tokenizer.special(text).filter(|special| (special.id as usize) < config.vocab_size);
            let special = special.ok_or_else(|| unsupported(&format!("{name} `{text}`, which is not a token,"), "with tokens"))?;
            entries.push((key, Value::U32(special.id)));
        }
    }
    let own = write_ends(model, entries)?;
    entries.push(("tokenizer.ggml.add_bos_token", Value::Bool(tokenizer.adds_bos())));
    if tokenizer.adds_eos() {
        entries.push(("tokenizer.ggml.add_eos_token", Value::Bool(true)));
    }
    entries.extend(own.map(|ends| (OWN_ENDS, Value::Array(Array::U32(ends)))));
    if !unnamed.is_empty() {
        entries.push((OWN_UNNAMED, Value::Array(Array::String(unnamed))));
    }
    Ok(())
}

/// Names what ends an answer. Returns the whole list if llama.cpp takes other tokens for ends, too.
fn write_ends<W>(model: &Model<W>, entries: &mut Entries) -> Result<Option<Vec<u32>>, ModelError> {
    let ends = of_model(model)?;
    let found = found(entries);
    let missing: Vec<u32> = ends.iter().copied().filter(|id| !found.contains(id)).collect();
    for (key, id) in [EOT, EOM].into_iter().zip(&missing) {
        entries.push((key, Value::U32(*id)));
    }
    let found = self::found(entries);
    let spelled = |ids: &[u32]| ids.iter().map(|id| spelled(model, *id)).collect::<Vec<_>>().join(", ");
    let lost: Vec<u32> = ends.iter().copied().filter(|id| !found.contains(id)).collect();
    if !lost.is_empty() {
        let why = "a GGUF file names three such tokens at most, and llama.cpp knows some others by their text";
        return Err(ModelError::unsupported(format!("an answer that ends with {} (eos_token_id)", spelled(&lost)), why));
    }
    let extra: Vec<u32> = found.iter().copied().filter(|id| !ends.contains(id)).collect();
    if ends.is_empty() && !extra.is_empty() {
        let why = format!("llama.cpp would end answers at {}; name an eos_token_id in generation_config.json", spelled(&extra));
        return Err(ModelError::unsupported("a GGUF file of a model without a token that ends its answers", why));
    }
    Ok((!extra.is_empty()).then_some(ends))
}

/// All of them, even if the model was put together by hand.
fn of_model<W>(model: &Model<W>) -> Result<Vec<u32>, ModelError> {
    let mut config = model.config.clone();
    ends::complete(&mut config, &model.tokenizer, &model.chat)?;
    Ok(config.end_tokens().collect())
}

fn found(entries: &Entries) -> Vec<u32> {
    let get = |key: &str| entries.iter().find(|(name, _)| *name == key).map(|(_, value)| value);
    let tokens = get("tokenizer.ggml.tokens").and_then(Value::as_strings).unwrap_or(&[]);
    Facts { tokens, entry: &get }.ends()
}

fn spelled<W>(model: &Model<W>, id: u32) -> String {
    model.tokenizer.token(id).map_or_else(|| format!("token {id}"), |text| format!("`{}` ({id})", text.escape_debug()))
}

/// The tokens at which llama.cpp ends answers of a model's file and the model does not.
pub fn of_llama_cpp_alone<W>(model: &Model<W>) -> Result<Vec<String>, ModelError> {
    let entries = super::write(model)?;
    let ends = of_model(model)?;
    Ok(found(&entries).into_iter().filter(|id| !ends.contains(id)).map(|id| spelled(model, id)).collect())
}
