//! The tokenizer and chat template inside a GGUF file. GGUF keeps a byte-level BPE as its tokens, their types, its merges, and the *name* of the rule that
//! cuts a text beforehand; so only tokenizers whose rule has a name in llama.cpp can go in, and come out as the same `tokenizer.json`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::{Array, Gguf, Header, Value};
use crate::model::tokenizer::{Added, Parts, Special};
use crate::model::{ChatTemplate, Model, ModelError, Tokenizer};

/// `llama_token_type`
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// The metadata entries for a model's tokenizer, in the converter's order.
pub fn write<W>(model: &Model<W>) -> Result<Vec<(&'static str, Value)>, ModelError> {
    let json: Json = serde_json::from_slice(model.tokenizer.json()).map_err(|error| wrong(error.to_string()))?;
    refuse_what_has_no_name(&json)?;
    let pre = pre_name(&json["pre_tokenizer"]).ok_or_else(|| {
        unsupported("this way of cutting texts into words", "of GPT-2's rule (`ByteLevel` with `use_regex`), with single digits or without")
    })?;
    let (tokens, types) = token_list(&json, model.config.vocab_size)?;
    let mut entries = vec![
        ("tokenizer.ggml.add_space_prefix", Value::Bool(false)),
        ("tokenizer.ggml.model", Value::from("gpt2")),
        ("tokenizer.ggml.pre", Value::from(pre)),
        ("tokenizer.ggml.tokens", Value::Array(Array::String(tokens))),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(types))),
        ("tokenizer.ggml.merges", Value::Array(Array::String(merges(&json)?))),
    ];
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
    entries.push(("tokenizer.ggml.add_bos_token", Value::Bool(false)));
    Ok(entries)
}

/// The tokenizer and the chat template of a file.
pub fn read(file: &Gguf, path: &Path) -> Result<(Tokenizer, ChatTemplate), ModelError> {
    let wrong = |why: &str| ModelError::malformed(format!("`{}`", path.display()), why);
    let text = |key: &str| file.get(key).and_then(Value::as_str);
    if text("tokenizer.ggml.model") != Some("gpt2") {
        return Err(unsupported("this tokenizer", "of the kind `gpt2` (byte-level BPE)"));
    }
    if file.get("tokenizer.ggml.add_bos_token").and_then(Value::as_bool) == Some(true) {
        return Err(unsupported("a beginning that is added to every text", "without one"));
    }
    let pre = text("tokenizer.ggml.pre").unwrap_or("default");
    let pre_tokenizer =
        pre_tokenizer(pre).ok_or_else(|| unsupported(&format!("the rule `{}`", super::shown(pre)), "`gpt-2` and `smollm`"))?;
    let strings = |key: &str| file.get(key).and_then(Value::as_strings);
    let tokens = strings("tokenizer.ggml.tokens").ok_or_else(|| wrong("tokenizer.ggml.tokens is missing"))?;
    let types = file.get("tokenizer.ggml.token_type").and_then(Value::as_i32s).unwrap_or(&[]);
    if !types.is_empty() && types.len() != tokens.len() {
        return Err(wrong("tokenizer.ggml.tokens and tokenizer.ggml.token_type differ in length"));
    }
    let merges = strings("tokenizer.ggml.merges").unwrap_or(&[]);
    let parts = parts(tokens, types, merges, pre_tokenizer).map_err(wrong)?;
    let again = Arc::clone(&file.header);
    let mut tokenizer = Tokenizer::from_parts(parts, move || json_of(&again))?;
    let special = |key: &str| {
        let id = file.get(key)?.as_u64()?;
        let text = usize::try_from(id).ok().and_then(|id| tokens.get(id))?;
        Some(Special { id: u32::try_from(id).ok()?, text: text.clone() })
    };
    tokenizer.bos = special("tokenizer.ggml.bos_token_id");
    tokenizer.eos = special("tokenizer.ggml.eos_token_id");
    tokenizer.pad = special("tokenizer.ggml.padding_token_id");
    let chat = text("tokenizer.chat_template").map_or_else(|| Ok(ChatTemplate::default()), ChatTemplate::new)?;
    Ok((tokenizer, chat))
}

/// llama.cpp applies none of these, so a tokenizer that has them would read texts differently there.
fn refuse_what_has_no_name(json: &Json) -> Result<(), ModelError> {
    let model = &json["model"];
    if model["type"] != "BPE" {
        return Err(unsupported(&format!("a tokenizer of type {}", model["type"]), "byte-level BPE"));
    }
    if !json["normalizer"].is_null() {
        return Err(unsupported("a tokenizer that normalizes texts", "without a normalizer"));
    }
    for name in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if model[name].as_str().is_some_and(|text| !text.is_empty()) {
            return Err(unsupported(&format!("{name} {}", model[name]), "without one"));
        }
    }
    for name in ["byte_fallback", "ignore_merges"] {
        if model[name] == true {
            return Err(unsupported(&format!("a tokenizer with {name}"), "without it"));
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

fn pre_name(json: &Json) -> Option<&'static str> {
    ["gpt-2", "smollm"].into_iter().find(|name| pre_tokenizer(name).is_some_and(|expected| same_rule(json, &expected)))
}

/// Equal but for `trim_offsets`, which only moves the offsets that nobody asks for.
fn same_rule(found: &Json, expected: &Json) -> bool {
    match (found, expected) {
        (Json::Object(found), Json::Object(expected)) => {
            let names: BTreeSet<&String> = found.keys().chain(expected.keys()).filter(|name| *name != "trim_offsets").collect();
            names.into_iter().all(|name| same_rule(found.get(name).unwrap_or(&Json::Null), expected.get(name).unwrap_or(&Json::Null)))
        }
        (Json::Array(found), Json::Array(expected)) => {
            found.len() == expected.len() && found.iter().zip(expected).all(|(found, expected)| same_rule(found, expected))
        }
        _ => found == expected,
    }
}

/// The rule that llama.cpp knows under a name, as `tokenizer.json` spells it.
fn pre_tokenizer(name: &str) -> Option<Json> {
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    match name {
        "gpt-2" => Some(byte_level),
        "smollm" => Some(json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, byte_level]})),
        _ => None,
    }
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

/// `tokenizer.json` but for what a file brings along.
fn frame(pre_tokenizer: Json) -> Json {
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": {}, "merges": []},
    })
}

fn parts<'a>(tokens: &'a [String], types: &[i32], merges: &'a [String], pre_tokenizer: Json) -> Result<Parts<'a>, &'static str> {
    let kind = |id: usize| types.get(id).copied().unwrap_or(NORMAL);
    let numbered = || tokens.iter().enumerate().map(|(id, text)| (kind(id), text.as_str()));
    let merges: Option<Vec<_>> = merges.iter().map(|merge| merge.split_once(' ')).collect();
    let added = numbered().enumerate().filter(|(_, (kind, _))| matches!(*kind, CONTROL | USER_DEFINED));
    Ok(Parts {
        frame: frame(pre_tokenizer),
        tokens: numbered().map(|(kind, text)| (kind != UNUSED).then_some(text)).collect(),
        merges: merges.ok_or("a merge is not two tokens")?,
        added: added.map(|(id, (kind, text))| Added { id, text, special: kind == CONTROL }).collect(),
    })
}

/// `tokenizer.json` for a file whose tokenizer was found to be well-formed.
fn json_of(header: &Header) -> Vec<u8> {
    let strings = |key: &str| header.get(key).and_then(Value::as_strings).unwrap_or(&[]);
    let types = header.get("tokenizer.ggml.token_type").and_then(Value::as_i32s).unwrap_or(&[]);
    let pre = header.get("tokenizer.ggml.pre").and_then(Value::as_str).unwrap_or("default");
    let tokens = strings("tokenizer.ggml.tokens");
    let Ok(parts) = parts(tokens, types, strings("tokenizer.ggml.merges"), pre_tokenizer(pre).unwrap_or_default()) else {
        return Vec::new();
    };
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
