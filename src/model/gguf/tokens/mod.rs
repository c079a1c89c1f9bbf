//! The tokenizer and chat template inside a GGUF file. GGUF keeps a byte-level BPE as its tokens, their types, its merges, and the *name* of the rule that
//! cuts a text beforehand; so only tokenizers whose rule has a name in llama.cpp can go in ([`rules`]), and come out as the same `tokenizer.json`. It keeps a
//! SentencePiece model as its pieces, their types and scores ([`pieces`]).

mod pieces;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use pieces::Prefix;
use rules::Rule;

use super::{Array, Header, Value};
use crate::model::tokenizer::{Added, Parts, Special};
use crate::model::{ChatTemplate, Model, ModelError, Tokenizer};

/// `llama_token_type`
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// The metadata entries for a model's tokenizer, in the converter's order.
pub fn write<W>(model: &Model<W>) -> Result<Vec<(&'static str, Value)>, ModelError> {
    let json: Json = serde_json::from_slice(model.tokenizer.json()).map_err(|error| wrong(error.to_string()))?;
    refuse_what_has_no_name(&json)?;
    let (tokens, types) = token_list(&json, model.config.vocab_size)?;
    let mut entries = match pieces::prefix(&json) {
        Some(prefix) => piece_entries(&json, tokens, types, prefix)?,
        None => {
            let pre = rules::name(&json).ok_or_else(no_name)?;
            vec![
                ("tokenizer.ggml.add_space_prefix", Value::Bool(false)),
                ("tokenizer.ggml.model", Value::from("gpt2")),
                ("tokenizer.ggml.pre", Value::from(pre)),
                ("tokenizer.ggml.tokens", Value::Array(Array::String(tokens))),
                ("tokenizer.ggml.token_type", Value::Array(Array::I32(types))),
                ("tokenizer.ggml.merges", Value::Array(Array::String(merges(&json)?))),
            ]
        }
    };
    let (config, tokenizer) = (&model.config, &model.tokenizer);
    let specials = [
        ("tokenizer.ggml.bos_token_id", &tokenizer.bos, config.bos_token_id),
        ("tokenizer.ggml.eos_token_id", &tokenizer.eos, config.eos_token_id),
        ("tokenizer.ggml.padding_token_id", &tokenizer.pad, config.pad_token_id),
    ];
    for (key, special, id) in specials {
        if let Some(id) = special.as_ref().map(|special| special.id).or(id) {
            entries.push((key, Value::U32(id)));
        }
    }
    entries.push(("tokenizer.ggml.add_bos_token", Value::Bool(tokenizer.adds_bos())));
    Ok(entries)
}

/// The entries of a SentencePiece model.
fn piece_entries(json: &Json, tokens: Vec<String>, mut types: Vec<i32>, prefix: Prefix) -> Result<Vec<(&'static str, Value)>, ModelError> {
    let numbers: BTreeMap<&str, usize> = tokens.iter().enumerate().map(|(id, text)| (text.as_str(), id)).collect();
    let merges = merges(json)?;
    let scores = pieces::scores(tokens.len(), &numbers, merges.iter().filter_map(|merge| merge.split_once(' ')));
    let mut set = |text: &str, kind: i32| {
        if let Some(found) = numbers.get(text).and_then(|id| types.get_mut(*id)) {
            *found = kind;
        }
    };
    (0..=255u8).for_each(|byte| set(&format!("<0x{byte:02X}>"), BYTE));
    if let Some(unknown) = json["model"]["unk_token"].as_str() {
        set(unknown, UNKNOWN);
    }
    Ok(vec![
        ("tokenizer.ggml.add_space_prefix", Value::Bool(prefix == Prefix::Space)),
        ("tokenizer.ggml.model", Value::from("llama")),
        ("tokenizer.ggml.pre", Value::from("default")),
        ("tokenizer.ggml.tokens", Value::Array(Array::String(tokens))),
        ("tokenizer.ggml.scores", Value::Array(Array::F32(scores))),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(types))),
    ])
}

/// The tokenizer and the chat template of a file.
pub fn read(header: &Arc<Header>, path: &Path) -> Result<(Tokenizer, ChatTemplate), ModelError> {
    let wrong = |why: &str| ModelError::malformed(format!("`{}`", path.display()), why);
    let tokens =
        header.get("tokenizer.ggml.tokens").and_then(Value::as_strings).ok_or_else(|| wrong("tokenizer.ggml.tokens is missing"))?;
    for key in ["tokenizer.ggml.token_type", "tokenizer.ggml.scores"] {
        let items = match header.get(key) {
            Some(Value::Array(Array::I32(items))) => items.len(),
            Some(Value::Array(Array::F32(items))) => items.len(),
            Some(_) => return Err(wrong(&format!("{key} is no list of numbers"))),
            None => 0,
        };
        if items > 0 && items != tokens.len() {
            return Err(wrong(&format!("tokenizer.ggml.tokens and {key} differ in length")));
        }
    }
    let parts = parts(header)?;
    let again = Arc::clone(header);
    let mut tokenizer = Tokenizer::from_parts(parts, move || json_of(&again))?;
    tokenizer.bos = special(header, "tokenizer.ggml.bos_token_id");
    tokenizer.eos = special(header, "tokenizer.ggml.eos_token_id");
    tokenizer.pad = special(header, "tokenizer.ggml.padding_token_id");
    let chat = header.get("tokenizer.chat_template").and_then(Value::as_str);
    Ok((tokenizer, chat.map_or_else(|| Ok(ChatTemplate::default()), ChatTemplate::of_model)?))
}

/// What llama.cpp takes for the end of a turn by its text, as files seldom name it.
const TURN_ENDS: [&str; 7] = ["<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<end_of_turn>", "<|endoftext|>"];

/// Tokens that end an answer besides the file's `eos_token_id`.
pub fn other_ends(header: &Header) -> Vec<u32> {
    let eos = special(header, "tokenizer.ggml.eos_token_id").map(|eos| eos.id);
    let tokens = header.get("tokenizer.ggml.tokens").and_then(Value::as_strings).unwrap_or(&[]);
    let types = header.get("tokenizer.ggml.token_type").and_then(Value::as_i32s).unwrap_or(&[]);
    let named = ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
    let mut found: Vec<u32> = named.iter().filter_map(|key| special(header, key)).map(|end| end.id).collect();
    for (id, (text, kind)) in tokens.iter().zip(types).enumerate() {
        if matches!(*kind, CONTROL | USER_DEFINED) && TURN_ENDS.contains(&text.as_str()) {
            found.extend(u32::try_from(id));
        }
    }
    let mut seen = BTreeSet::new();
    found.retain(|id| Some(*id) != eos && seen.insert(*id));
    found
}

/// The token that an entry names by its number.
fn special(header: &Header, key: &str) -> Option<Special> {
    let id = header.get(key)?.as_u64()?;
    let text = header.get("tokenizer.ggml.tokens")?.as_strings()?.get(usize::try_from(id).ok()?)?;
    Some(Special { id: u32::try_from(id).ok()?, text: text.clone() })
}

/// llama.cpp applies none of these, so a tokenizer that has them would read texts differently there.
fn refuse_what_has_no_name(json: &Json) -> Result<(), ModelError> {
    let model = &json["model"];
    if model["type"] != "BPE" {
        return Err(unsupported(&format!("a tokenizer of type {}", model["type"]), "byte-level BPE"));
    }
    for name in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if model[name].as_str().is_some_and(|text| !text.is_empty()) {
            return Err(unsupported(&format!("{name} {}", model[name]), "without one"));
        }
    }
    let added = json["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
    match added.iter().find(|token| ["lstrip", "rstrip", "single_word"].iter().any(|flag| token[*flag] == true)) {
        Some(token) => {
            Err(unsupported(&format!("the special token {} that swallows spaces", token["content"]), "with plain special tokens"))
        }
        None => Ok(()),
    }
}

fn no_name() -> ModelError {
    let only = "of byte-level BPE that cuts texts as GPT-2, SmolLM, Llama 3, Qwen 2 or GPT-4o does, and of SentencePiece's BPE";
    unsupported("this way of preparing texts (normalizer, pre_tokenizer, byte_fallback, ignore_merges)", only)
}

/// Every token by its number, and its type. Numbers that no token has are filled as the converter fills them.
fn token_list(json: &Json, vocab_size: usize) -> Result<(Vec<String>, Vec<i32>), ModelError> {
    let mut tokens: Vec<String> = (0..vocab_size).map(|id| format!("[PAD{id}]")).collect();
    let mut types = vec![UNUSED; vocab_size];
    let mut set = |id: &Json, text: &str, kind: i32| {
        let place = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|id| *id < vocab_size);
        let place = place.ok_or_else(|| wrong(format!("token {text:?} has number {id} of {vocab_size}")))?;
        tokens[place] = text.to_string();
        types[place] = kind;
        Ok::<(), ModelError>(())
    };
    let vocab = json["model"]["vocab"].as_object().ok_or_else(|| wrong("its model has no vocabulary".to_string()))?;
    for (text, id) in vocab {
        set(id, text, NORMAL)?;
    }
    for token in json["added_tokens"].as_array().map_or(&[][..], Vec::as_slice) {
        let text = token["content"].as_str().ok_or_else(|| wrong("an added token has no text".to_string()))?;
        let looks_special = text.starts_with("<|") && text.ends_with("|>");
        set(&token["id"], text, if token["special"] == true || looks_special { CONTROL } else { USER_DEFINED })?;
    }
    let mut seen = BTreeSet::new();
    match tokens.iter().find(|text| !seen.insert(text.as_str())) {
        Some(text) => Err(wrong(format!("two tokens are called {text:?}"))),
        None => Ok((tokens, types)),
    }
}

/// `"a b"`, whichever of the two ways `tokenizer.json` spells it.
fn merges(json: &Json) -> Result<Vec<String>, ModelError> {
    let merges = json["model"]["merges"].as_array().ok_or_else(|| wrong("its model has no merges".to_string()))?;
    let spelled = |merge: &Json| match merge {
        Json::String(pair) => Some(pair.clone()),
        Json::Array(pair) => match pair.as_slice() {
            [Json::String(left), Json::String(right)] => Some(format!("{left} {right}")),
            _ => None,
        },
        _ => None,
    };
    let is_pair = |pair: &String| pair.matches(' ').count() == 1;
    merges.iter().map(|merge| spelled(merge).filter(is_pair).ok_or_else(|| wrong(format!("{merge} is no merge")))).collect()
}

/// `tokenizer.json` of a byte-level BPE but for what a file brings along.
fn frame(rule: Rule) -> Json {
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": rule.normalizer,
        "pre_tokenizer": rule.pre_tokenizer,
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": rule.ignore_merges, "vocab": {}, "merges": []},
    })
}

/// What puts the beginning's token before a text, for those who ask for it.
fn post_processor(bos: &Special) -> Json {
    let token = |type_id: u8| json!({"SpecialToken": {"id": bos.text, "type_id": type_id}});
    let text = |name: &str, type_id: u8| json!({"Sequence": {"id": name, "type_id": type_id}});
    json!({"type": "TemplateProcessing", "single": [token(0), text("A", 0)], "pair": [token(0), text("A", 0), token(1), text("B", 1)],
        "special_tokens": {(bos.text.clone()): {"id": bos.text, "ids": [bos.id], "tokens": [bos.text]}}})
}

/// A file's tokenizer, taken apart.
fn parts(header: &Header) -> Result<Parts<'_>, ModelError> {
    let text = |key: &str| header.get(key).and_then(Value::as_str);
    let flag = |key: &str| header.get(key).and_then(Value::as_bool);
    let strings = |key: &str| header.get(key).and_then(Value::as_strings).unwrap_or(&[]);
    let (tokens, types) =
        (strings("tokenizer.ggml.tokens"), header.get("tokenizer.ggml.token_type").and_then(Value::as_i32s).unwrap_or(&[]));
    let kind = |id: usize| types.get(id).copied().unwrap_or(NORMAL);
    let pre = text("tokenizer.ggml.pre").unwrap_or("default");
    let (mut frame, merges, begins) = match text("tokenizer.ggml.model") {
        Some("gpt2") => {
            let only = "of `gpt-2`, `smollm`, `llama-bpe`, `smaug-bpe`, `qwen2` and `gpt-4o`";
            let rule = rules::named(pre).ok_or_else(|| unsupported(&format!("the rule `{}`", super::shown(pre)), only))?;
            let merges: Option<Vec<_>> = strings("tokenizer.ggml.merges").iter().map(|merge| merge.split_once(' ')).collect();
            let merges = merges.ok_or_else(|| ModelError::malformed("tokenizer.ggml.merges", "a merge is not two tokens"))?;
            (frame(rule), merges, rules::begins(pre))
        }
        Some("llama") => {
            let prefix = if flag("tokenizer.ggml.add_space_prefix") == Some(false) { Prefix::Nothing } else { Prefix::Space };
            let scores = header.get("tokenizer.ggml.scores").and_then(Value::as_f32s);
            let scores = scores.ok_or_else(|| ModelError::malformed("the file", "tokenizer.ggml.scores is missing"))?;
            let unknown = (0..tokens.len()).find(|id| kind(*id) == UNKNOWN).and_then(|id| tokens.get(id));
            (pieces::frame(prefix, unknown.map(String::as_str)), pieces::merges(tokens, types, scores)?, true)
        }
        other => {
            let what = format!("a tokenizer of the kind `{}`", super::shown(other.unwrap_or("")));
            return Err(unsupported(&what, "of the kinds `gpt2` (byte-level BPE) and `llama` (SentencePiece)"));
        }
    };
    if flag("tokenizer.ggml.add_bos_token").unwrap_or(begins)
        && let Some(bos) = special(header, "tokenizer.ggml.bos_token_id")
    {
        frame["post_processor"] = post_processor(&bos);
    }
    let added = (0..tokens.len()).filter(|id| matches!(kind(*id), CONTROL | USER_DEFINED | UNKNOWN));
    Ok(Parts {
        frame,
        tokens: tokens.iter().enumerate().map(|(id, text)| (kind(id) != UNUSED).then_some(text.as_str())).collect(),
        merges,
        added: added.filter_map(|id| Some(Added { id, text: tokens.get(id)?, special: kind(id) != USER_DEFINED })).collect(),
    })
}

/// `tokenizer.json` for a file whose tokenizer was found to be well-formed.
fn json_of(header: &Header) -> Vec<u8> {
    let Ok(parts) = parts(header) else { return Vec::new() };
    let added = parts.added.iter().map(|Added { id, text, special }| {
        json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": special})
    });
    let vocab: Map<String, Json> =
        parts.tokens.iter().enumerate().filter_map(|(id, text)| Some(((*text)?.to_string(), json!(id)))).collect();
    let mut json = parts.frame.clone();
    json["added_tokens"] = added.collect();
    json["model"]["vocab"] = Json::Object(vocab);
    json["model"]["merges"] = parts.merges.iter().map(|(left, right)| json!([left, right])).collect();
    json.to_string().into_bytes()
}

fn wrong(why: String) -> ModelError {
    ModelError::malformed("tokenizer.json", why)
}

fn unsupported(what: &str, only: &str) -> ModelError {
    ModelError::unsupported(what, format!("GGUF files are read and written {only} only"))
}
