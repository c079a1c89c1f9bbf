//! The tokenizer and chat template inside a GGUF file. GGUF keeps a byte-level BPE as its tokens, their types, its merges, and the *name* of the rule that
//! cuts a text beforehand; so only tokenizers whose rule has a name in llama.cpp can go in ([`rules`]), and come out as the same `tokenizer.json`. It keeps a
//! SentencePiece model as its pieces, their types and scores ([`pieces`]).

pub mod ends;
mod pieces;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use pieces::Prefix;
use rules::{Merges, Rule};

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
    let swallows = refuse_what_has_no_name(&json)?;
    let (tokens, types) = token_list(&json, model.config.vocab_size)?;
    let mut entries = match pieces::prefix(&json) {
        Some(prefix) => {
            if let Some(token) = pieces::normalized(&json, prefix) {
                let what = format!("the added token {}, which is looked for in normalized texts,", token["content"]);
                return Err(unsupported(&what, "with added tokens that are looked for in texts as they are"));
            }
            piece_entries(&json, &model.tokenizer, tokens, types, prefix)?
        }
        None => {
            let pre = rule(&json, &model.tokenizer)?;
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
    ends::write(model, &mut entries)?;
    if swallows == Swallows::AsPhi3 {
        entries.push(("general.name", Value::from(PHI3)));
    }
    Ok(entries)
}

/// The entries of a SentencePiece model.
fn piece_entries(
    json: &Json,
    tokenizer: &Tokenizer,
    tokens: Vec<String>,
    mut types: Vec<i32>,
    prefix: Prefix,
) -> Result<Vec<(&'static str, Value)>, ModelError> {
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
        let ordinary = |token: &Json| token["content"] == unknown && token["special"] != true;
        if json["added_tokens"].as_array().is_some_and(|added| added.iter().any(ordinary)) {
            let what = format!("the unk_token {unknown:?}, which added_tokens does not call special,");
            return Err(unsupported(&what, "with one that is special"));
        }
        set(unknown, UNKNOWN);
    }
    pieces::refuse_other_merges(tokenizer, &tokens, &types, &scores)?;
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
    for (key, numbers) in [("tokenizer.ggml.token_type", "i32"), ("tokenizer.ggml.scores", "f32")] {
        let items = match (header.get(key), numbers) {
            (Some(Value::Array(Array::I32(items))), "i32") => items.len(),
            (Some(Value::Array(Array::F32(items))), "f32") => items.len(),
            (Some(_), _) => return Err(wrong(&format!("{key} is not a list of {numbers}"))),
            (None, _) => 0,
        };
        if items > 0 && items != tokens.len() {
            return Err(wrong(&format!("tokenizer.ggml.tokens and {key} differ in length")));
        }
    }
    let parts = parts(header)?;
    let again = Arc::clone(header);
    let mut tokenizer = Tokenizer::from_parts(parts, move || json_of(&again))?;
    let named = |name: &str, found: Option<Special>| found.filter(|_| ends::is_named(header, name));
    tokenizer.bos = named("bos", ends::bos(header).and_then(|id| numbered(header, id)));
    tokenizer.eos = named("eos", ends::eos(header).and_then(|id| numbered(header, id)));
    tokenizer.pad = named("pad", special(header, "tokenizer.ggml.padding_token_id"));
    let text = |key: &str| header.get(key).and_then(Value::as_str);
    let chat = text("tokenizer.chat_template").map_or_else(ChatTemplate::absent, ChatTemplate::of_model);
    let names = header.get("tokenizer.chat_templates").and_then(Value::as_strings).unwrap_or(&[]);
    let named = |name: &String| text(&format!("tokenizer.chat_template.{name}")).map(|source| (name.clone(), source.to_string()));
    if let Some(name) = names.iter().find(|name| !ChatTemplate::is_name(name)) {
        return Err(wrong(&format!(
            "chat template `{}` has a name of other characters than letters, digits, `-` and `_`",
            name.escape_debug()
        )));
    }
    let others = ends::OF_TEMPLATES.into_iter().filter_map(|(name, key)| Some((name.to_string(), special(header, key)?.text)));
    Ok((tokenizer, chat.with_others(names.iter().filter_map(named)).with_tokens(others.collect())))
}

/// The token that an entry names by its number.
fn special(header: &Header, key: &str) -> Option<Special> {
    numbered(header, u32::try_from(header.get(key)?.as_u64()?).ok()?)
}

fn numbered(header: &Header, id: u32) -> Option<Special> {
    let text = header.get("tokenizer.ggml.tokens")?.as_strings()?.get(id as usize)?;
    Some(Special { id, text: text.clone() })
}

/// llama.cpp applies none of these, so a tokenizer that has them would read texts differently there.
fn refuse_what_has_no_name(json: &Json) -> Result<Swallows, ModelError> {
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
        None => Ok(Swallows::Nothing),
        Some(_) if swallows_as_phi3(json) => Ok(Swallows::AsPhi3),
        Some(token) => {
            let flags = ["lstrip", "rstrip", "single_word"].into_iter().filter(|flag| token[*flag] == true).collect::<Vec<_>>().join(", ");
            let what = format!("the added token {} with {flags}", token["content"]);
            Err(unsupported(&what, "with tokens that leave the text around them as it is, or all swallow spaces as a Phi-3's do,"))
        }
    }
}

/// Which tokens swallow the spaces behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Swallows {
    Nothing,
    AsPhi3,
}

/// Of a file with a name like this, llama.cpp has all special tokens swallow spaces, but for three.
const PHI3: &str = "Phi-3";
const PHI3_KEEPS: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

/// Whether it is a Phi-3 to llama.cpp, by its name.
fn is_phi3(header: &Header) -> bool {
    let name = header.get("general.name").and_then(Value::as_str).unwrap_or_default().to_lowercase();
    name.contains("phi-3") || name.contains("phi3")
}

fn swallows_as_phi3(json: &Json) -> bool {
    let added = json["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
    let is_so = |token: &Json| {
        let keeps = token["content"].as_str().is_some_and(|text| PHI3_KEEPS.contains(&text));
        token["lstrip"] != true && token["single_word"] != true && (token["rstrip"] == true) != keeps
    };
    let has = |text: &str| !json["model"]["vocab"][text].is_null() || added.iter().any(|token| token["content"] == text);
    // llama.cpp does not open a file without these.
    added.iter().all(is_so) && PHI3_KEEPS.iter().chain(&["</s>"]).all(|text| has(text))
}

/// The name of a byte-level BPE's rule.
fn rule(json: &Json, tokenizer: &Tokenizer) -> Result<&'static str, ModelError> {
    let pre = &json["pre_tokenizer"];
    if pre["type"] == "Metaspace" {
        let why =
            "llama.cpp puts a space before every text, also before one that begins with a space or follows a special token, or before none";
        let scheme = json!({"prepend_scheme": pre["prepend_scheme"], "split": pre["split"]});
        return Err(ModelError::unsupported(format!("a GGUF file of a tokenizer with the pre_tokenizer Metaspace of {scheme}"), why));
    }
    match rules::name(json).ok_or_else(no_name)? {
        (name, Merges::AsNamed) => Ok(name),
        (name, Merges::Otherwise) => match rules::unreachable(tokenizer.inner()) {
            None => Ok(name),
            Some(token) => {
                let what = format!(
                    "ignore_merges {} of a tokenizer that merges the letters of {token:?} to other tokens",
                    json["model"]["ignore_merges"]
                );
                Err(ModelError::unsupported(what, format!("llama.cpp's rule `{name}` does the opposite")))
            }
        },
    }
}

fn no_name() -> ModelError {
    let only =
        "of byte-level BPE that cuts texts as GPT-2, SmolLM, Llama 3, Qwen 2, GPT-4o or Mistral Nemo does, and of SentencePiece's BPE";
    unsupported("this way of preparing texts (normalizer, pre_tokenizer, byte_fallback, ignore_merges)", only)
}

/// Every token by its number, and its type. Numbers that no token has are filled as the converter fills them.
fn token_list(json: &Json, vocab_size: usize) -> Result<(Vec<String>, Vec<i32>), ModelError> {
    let mut tokens: Vec<String> = (0..vocab_size).map(|id| format!("[PAD{id}]")).collect();
    let mut types = vec![UNUSED; vocab_size];
    let mut set = |id: &Json, text: &str, kind: i32| {
        let place = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|id| *id < vocab_size);
        let place = place.ok_or_else(|| wrong(format!("token {text:?} has number {id}, but vocab_size is {vocab_size}")))?;
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
        // What a tokenizer writes out as text, llama.cpp does, too; the converter takes `<|x|>` for a control token that it leaves out.
        set(&token["id"], text, if token["special"] == true { CONTROL } else { USER_DEFINED })?;
    }
    // Such a token would be found in texts as a whole, where the model takes it apart.
    if let Some((text, _)) = tokens.iter().zip(&types).find(|(text, kind)| **kind == NORMAL && ends::is_special(text)) {
        let what = format!("the token {text:?}, which is in the vocabulary and not among added_tokens,");
        return Err(ModelError::unsupported(what, "llama.cpp takes it for a special token by its text"));
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

/// What puts the beginning's and the end's token around a text, for those who ask for it.
fn post_processor(bos: Option<&Special>, eos: Option<&Special>) -> Json {
    let token = |special: &Special, type_id: u8| json!({"SpecialToken": {"id": special.text, "type_id": type_id}});
    let around = |name: &str, type_id: u8| -> Vec<Json> {
        let text = json!({"Sequence": {"id": name, "type_id": type_id}});
        let (before, behind) = (bos.map(|bos| token(bos, type_id)), eos.map(|eos| token(eos, type_id)));
        before.into_iter().chain([text]).chain(behind).collect()
    };
    let (single, second) = (around("A", 0), around("B", 1));
    let known = |special: &Special| (special.text.clone(), json!({"id": special.text, "ids": [special.id], "tokens": [special.text]}));
    let specials: Map<String, Json> = bos.into_iter().chain(eos).map(known).collect();
    let pair = [single.as_slice(), &second].concat();
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": specials})
}

/// A file's tokenizer, taken apart.
fn parts(header: &Header) -> Result<Parts<'_>, ModelError> {
    let text = |key: &str| header.get(key).and_then(Value::as_str);
    let flag = |key: &str| header.get(key).and_then(Value::as_bool);
    let strings = |key: &str| header.get(key).and_then(Value::as_strings).unwrap_or(&[]);
    let (tokens, types) =
        (strings("tokenizer.ggml.tokens"), header.get("tokenizer.ggml.token_type").and_then(Value::as_i32s).unwrap_or(&[]));
    let kind = |id: usize| match types.get(id).copied().unwrap_or(NORMAL) {
        kind @ (UNKNOWN | CONTROL | USER_DEFINED) => kind,
        _ if tokens.get(id).is_some_and(|text| ends::is_special(text)) => CONTROL,
        kind => kind,
    };
    let pre = text("tokenizer.ggml.pre").unwrap_or("default");
    let (mut frame, merges, begins) = match text("tokenizer.ggml.model") {
        Some("gpt2") => {
            let only = "of `gpt-2`, `smollm`, `llama-bpe`, `smaug-bpe`, `qwen2`, `gpt-4o` and `tekken`";
            let rule =
                rules::named(pre).ok_or_else(|| unsupported(&format!("the rule `{}` (tokenizer.ggml.pre)", super::shown(pre)), only))?;
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
            return Err(unsupported(&what, "with a tokenizer.ggml.model of `gpt2` (byte-level BPE) or `llama` (SentencePiece)"));
        }
    };
    let bos = ends::bos(header).and_then(|id| numbered(header, id)).filter(|_| flag("tokenizer.ggml.add_bos_token").unwrap_or(begins));
    let eos = ends::eos(header).and_then(|id| numbered(header, id)).filter(|_| flag("tokenizer.ggml.add_eos_token") == Some(true));
    if bos.is_some() || eos.is_some() {
        frame["post_processor"] = post_processor(bos.as_ref(), eos.as_ref());
    }
    let swallow = is_phi3(header);
    let lacks = |text: &&str| !tokens.iter().any(|token| token == *text);
    if let Some(text) = PHI3_KEEPS.iter().chain(&["</s>"]).copied().find(|text| swallow && lacks(text)) {
        let why = format!("by its general.name it is a Phi-3, but it has no token `{text}`");
        return Err(ModelError::malformed("the file", why));
    }
    let rstrip = |text: &str| swallow && !PHI3_KEEPS.contains(&text);
    let added = (0..tokens.len()).filter(|id| matches!(kind(*id), CONTROL | USER_DEFINED | UNKNOWN));
    Ok(Parts {
        frame,
        // llama.cpp looks tokens up by their text whatever their type. Only the converter's fillers are left out.
        tokens: tokens
            .iter()
            .enumerate()
            .map(|(id, text)| (kind(id) != UNUSED || *text != format!("[PAD{id}]")).then_some(text.as_str()))
            .collect(),
        merges,
        added: added
            .filter_map(|id| {
                let text = tokens.get(id)?;
                Some(Added { id, text, special: kind(id) != USER_DEFINED, rstrip: rstrip(text) })
            })
            .collect(),
    })
}

/// `tokenizer.json` for a file whose tokenizer was found to be well-formed.
fn json_of(header: &Header) -> Vec<u8> {
    let Ok(parts) = parts(header) else { return Vec::new() };
    let added = parts.added.iter().map(|Added { id, text, special, rstrip }| {
        json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": rstrip, "normalized": false, "special": special})
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
