//! The rules by which llama.cpp cuts texts into words before a byte-level BPE merges within them: GGUF has only their names.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};
use tokenizers::Model as _;

/// A rule as `tokenizer.json` spells it.
pub struct Rule {
    pub pre_tokenizer: Json,
    pub normalizer: Json,
    pub ignore_merges: Json,
}

/// Names that we write; the first that fits is taken.
const NAMES: [&str; 7] = ["gpt-2", "smollm", "llama-bpe", "smaug-bpe", "qwen2", "gpt-4o", "tekken"];

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// What a name stands for.
pub fn named(name: &str) -> Option<Rule> {
    let byte_level =
        |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let sequence = |first: Json, use_regex| json!({"type": "Sequence", "pretokenizers": [first, byte_level(use_regex)]});
    let split =
        |regex: &str| sequence(json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false}), false);
    let plain = |pre_tokenizer| Rule { pre_tokenizer, normalizer: Json::Null, ignore_merges: false.into() };
    match name {
        "gpt-2" | "phi-2" | "mellum" | "gigachat" | "a.x-4.0" | "exaone4" => Some(plain(byte_level(true))),
        "smollm" => Some(plain(sequence(json!({"type": "Digits", "individual_digits": true}), true))),
        "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2" => {
            Some(Rule { ignore_merges: true.into(), ..plain(split(LLAMA3)) })
        }
        "smaug-bpe" => Some(plain(split(LLAMA3))),
        // llama.cpp leaves the normalization out: texts that are not in NFC, which are rare, are read differently there.
        "qwen2" | "deepseek-r1-qwen" | "kormo" | "megrez" => Some(Rule { normalizer: json!({"type": "NFC"}), ..plain(split(QWEN2)) }),
        "gpt-4o" | "llama4" | "kanana2" => Some(plain(split(GPT4O))),
        "tekken" => Some(Rule { ignore_merges: true.into(), ..plain(split(TEKKEN)) }),
        _ => None,
    }
}

/// Whether llama.cpp begins every text with the beginning's token when a file does not say.
pub fn begins(name: &str) -> bool {
    matches!(name, "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2" | "tekken")
}

/// The name of a tokenizer's rule, and whether it is its rule but for `ignore_merges`.
pub fn name(tokenizer: &Json) -> Option<(&'static str, Merges)> {
    if tokenizer["model"]["byte_fallback"] == true {
        return None;
    }
    let flag = |value: &Json| value == true;
    let pre_tokenizer = plain_split(tokenizer["pre_tokenizer"].clone());
    let fits = |rule: &Rule| same(&pre_tokenizer, &rule.pre_tokenizer) && same(&tokenizer["normalizer"], &rule.normalizer);
    let is_exact = |rule: &Rule| flag(&tokenizer["model"]["ignore_merges"]) == flag(&rule.ignore_merges);
    let find = |wanted: &dyn Fn(&Rule) -> bool| NAMES.into_iter().find(|name| named(name).is_some_and(|rule| fits(&rule) && wanted(&rule)));
    match find(&is_exact) {
        Some(name) => Some((name, Merges::AsNamed)),
        None => find(&|_| true).map(|name| (name, Merges::Otherwise)),
    }
}

/// Whether `ignore_merges` is as the name has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merges {
    AsNamed,
    Otherwise,
}

/// A token that its own letters do not merge to. Without any, `ignore_merges` changes nothing.
pub fn unreachable(tokenizer: &tokenizers::Tokenizer) -> Option<String> {
    let tokenizers::ModelWrapper::BPE(bpe) = tokenizer.get_model() else { return None };
    let mut bpe = bpe.clone();
    bpe.ignore_merges = false;
    let added: BTreeSet<String> = tokenizer.get_added_tokens_decoder().into_values().map(|token| token.content).collect();
    let mut texts: Vec<(String, u32)> = bpe.get_vocab().into_iter().filter(|(text, _)| !added.contains(text)).collect();
    texts.sort_unstable_by_key(|(_, id)| *id);
    let is_itself = |(text, id): &(String, u32)| bpe.tokenize(text).is_ok_and(|found| matches!(found.as_slice(), [one] if one.id == *id));
    texts.into_iter().find(|token| !is_itself(token)).map(|(text, _)| text)
}

/// Each of our expressions matches all of any text, so that keeping what it matches and cutting around it are the same.
fn plain_split(mut pre_tokenizer: Json) -> Json {
    if let Some(split) = pre_tokenizer.pointer_mut("/pretokenizers/0")
        && split["type"] == "Split"
        && split["behavior"] == "Removed"
        && split["invert"] == true
    {
        split["behavior"] = "Isolated".into();
        split["invert"] = false.into();
    }
    pre_tokenizer
}

/// Equal but for `trim_offsets`, which only moves the offsets that nobody asks for.
fn same(found: &Json, expected: &Json) -> bool {
    match (found, expected) {
        (Json::Object(found), Json::Object(expected)) => {
            let names: BTreeSet<&String> = found.keys().chain(expected.keys()).filter(|name| *name != "trim_offsets").collect();
            names.into_iter().all(|name| same(found.get(name).unwrap_or(&Json::Null), expected.get(name).unwrap_or(&Json::Null)))
        }
        (Json::Array(found), Json::Array(expected)) => {
            found.len() == expected.len() && found.iter().zip(expected).all(|(found, expected)| same(found, expected))
        }
        _ => found == expected,
    }
}
