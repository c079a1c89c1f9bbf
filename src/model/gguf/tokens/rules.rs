//! The rules by which llama.cpp cuts texts into words before a byte-level BPE merges within them: GGUF has only their names.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

/// A rule as `tokenizer.json` spells it.
pub struct Rule {
    pub pre_tokenizer: Json,
    pub normalizer: Json,
    pub ignore_merges: Json,
}

/// Names that we write; the first that fits is taken.
const NAMES: [&str; 6] = ["gpt-2", "smollm", "llama-bpe", "smaug-bpe", "qwen2", "gpt-4o"];

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
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
        "gpt-2" => Some(plain(byte_level(true))),
        "smollm" => Some(plain(sequence(json!({"type": "Digits", "individual_digits": true}), true))),
        "llama-bpe" | "llama3" | "llama-v3" => Some(Rule { ignore_merges: true.into(), ..plain(split(LLAMA3)) }),
        "smaug-bpe" => Some(plain(split(LLAMA3))),
        // llama.cpp leaves the normalization out: texts that are not in NFC, which are rare, are read differently there.
        "qwen2" | "deepseek-r1-qwen" => Some(Rule { normalizer: json!({"type": "NFC"}), ..plain(split(QWEN2)) }),
        "gpt-4o" => Some(plain(split(GPT4O))),
        _ => None,
    }
}

/// Whether llama.cpp begins every text with the beginning's token when a file does not say.
pub fn begins(name: &str) -> bool {
    matches!(name, "llama-bpe" | "llama3" | "llama-v3")
}

/// The name of a tokenizer's rule.
pub fn name(tokenizer: &Json) -> Option<&'static str> {
    let is_it = |rule: &Rule| {
        let flag = |value: &Json| value == true;
        same(&tokenizer["pre_tokenizer"], &rule.pre_tokenizer)
            && same(&tokenizer["normalizer"], &rule.normalizer)
            && flag(&tokenizer["model"]["ignore_merges"]) == flag(&rule.ignore_merges)
    };
    let spells_bytes = tokenizer["model"]["byte_fallback"] == true;
    NAMES.into_iter().filter(|_| !spells_bytes).find(|name| named(name).is_some_and(|rule| is_it(&rule)))
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
