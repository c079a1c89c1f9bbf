//! Classes of tokenizers that transformers 5 builds anew from a vocabulary, whatever else `tokenizer.json` says. Here that file is the tokenizer: where the two differ, it is told.

use serde_json::{Map, Value, json};

type Fields = Map<String, Value>;

/// How the class of a tokenizer cuts texts, and which tokens it has if no field names them.
struct Class {
    name: &'static str,
    normalizer: Value,
    pre_tokenizer: Value,
    byte_fallback: bool,
    named: &'static [&'static str],
}

/// A line where transformers would make other tokens.
pub fn remark(config: &Fields, beside: &Fields, tokenizer: &Fields) -> Option<String> {
    let class = class(config, beside, tokenizer)?;
    let of = |name: &str| tokenizer.get(name).unwrap_or(&Value::Null);
    let model = of("model");
    let cuts = says(of("normalizer"), &class.normalizer) && says(of("pre_tokenizer"), &class.pre_tokenizer);
    let merges = (model["byte_fallback"] == true) == class.byte_fallback && model["ignore_merges"] != true;
    let unnamed = class.named.iter().find(|name| !beside.contains_key(**name));
    let what = match unnamed {
        _ if !cuts || !merges => "cuts texts in its own way".to_string(),
        Some(name) => format!("has a {name} of its own"),
        None => return None,
    };
    Some(format!("tokenizer_config.json: tokenizer_class {} of transformers 5 {what}; here tokenizer.json is the tokenizer", class.name))
}

/// What `AutoTokenizer` takes, if it is one of those.
fn class(config: &Fields, beside: &Fields, tokenizer: &Fields) -> Option<Class> {
    let text = |fields: &Fields, name: &str| fields.get(name).and_then(Value::as_str).map(str::to_string);
    let declared = text(beside, "tokenizer_class").or_else(|| text(config, "tokenizer_class"));
    let declared = declared.map(|name| name.trim_end_matches("Fast").to_string());
    let name = match (text(config, "model_type").as_deref(), declared.as_deref()) {
        (Some("phi3" | "mistral"), _) => return None,
        (Some("qwen2"), _) | (Some("qwen3"), None) => "Qwen2Tokenizer",
        (Some("gemma3_text"), None) => "GemmaTokenizer",
        (_, Some("Qwen2Tokenizer")) => "Qwen2Tokenizer",
        (_, Some("GemmaTokenizer")) => "GemmaTokenizer",
        (_, Some("GPT2Tokenizer")) => "GPT2Tokenizer",
        (_, Some("LlamaTokenizer")) if !has_byte_level(tokenizer) => "LlamaTokenizer",
        _ => return None,
    };
    Some(built(name, beside))
}

fn built(name: &'static str, beside: &Fields) -> Class {
    let flag = |name: &str| beside.get(name).and_then(Value::as_bool);
    let prefix = flag("add_prefix_space");
    match name {
        "LlamaTokenizer" => {
            let scheme = match (prefix.unwrap_or(true), flag("legacy").unwrap_or(false)) {
                (false, _) => "never",
                (true, true) => "always",
                (true, false) => "first",
            };
            let pre_tokenizer = json!({"type": "Metaspace", "prepend_scheme": scheme, "split": false});
            Class { name, normalizer: Value::Null, pre_tokenizer, byte_fallback: true, named: &["unk_token", "bos_token", "eos_token"] }
        }
        "GemmaTokenizer" => {
            let normalizer = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
            let pre_tokenizer = json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"});
            let named = &["unk_token", "bos_token", "eos_token", "pad_token", "mask_token"];
            Class { name, normalizer, pre_tokenizer, byte_fallback: true, named }
        }
        "Qwen2Tokenizer" => {
            let level = json!({"type": "ByteLevel", "add_prefix_space": prefix.unwrap_or(false), "use_regex": false});
            let split = json!({"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": false});
            let pre_tokenizer = json!({"type": "Sequence", "pretokenizers": [split, level]});
            let named = &["unk_token", "eos_token", "pad_token"];
            Class { name, normalizer: json!({"type": "NFC"}), pre_tokenizer, byte_fallback: false, named }
        }
        _ => {
            let pre_tokenizer = json!({"type": "ByteLevel", "add_prefix_space": prefix.unwrap_or(false), "use_regex": true});
            Class { name, normalizer: Value::Null, pre_tokenizer, byte_fallback: false, named: &["unk_token", "bos_token", "eos_token"] }
        }
    }
}

const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// As `TokenizersBackend._tokenizer_json_has_byte_level` looks.
fn has_byte_level(tokenizer: &Fields) -> bool {
    tokenizer.get("pre_tokenizer").is_some_and(|pre| pre.to_string().contains("\"ByteLevel\""))
}

/// Whether it has all that `expected` has: further fields, such as `trim_offsets`, move no token.
fn says(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            expected.iter().all(|(name, value)| found.get(name).is_some_and(|found| says(found, value)))
        }
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len() && found.iter().zip(expected).all(|(found, expected)| says(found, expected))
        }
        _ => found == expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(value: Value) -> Fields {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn a_class_that_cuts_otherwise_is_told() {
        let split = json!({"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": false});
        let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
        let pre = json!({"type": "Sequence", "pretokenizers": [split, level]});
        let own = table(json!({"normalizer": {"type": "NFC"}, "pre_tokenizer": pre, "model": {"byte_fallback": false}}));
        let beside = table(json!({"tokenizer_class": "Qwen2Tokenizer", "unk_token": null, "eos_token": "x", "pad_token": "x"}));
        let qwen2 = table(json!({"model_type": "qwen2"}));
        assert_eq!(remark(&qwen2, &beside, &own), None);
        let plain = table(json!({"normalizer": null, "pre_tokenizer": {"type": "ByteLevel"}, "model": {}}));
        assert!(remark(&qwen2, &beside, &plain).unwrap().contains("tokenizer_class Qwen2Tokenizer"));
        // The class wins for this family, whatever the field says.
        let fast = table(json!({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": null, "eos_token": "x", "pad_token": "x"}));
        assert!(remark(&qwen2, &fast, &plain).is_some());
        assert_eq!(remark(&table(json!({"model_type": "qwen3"})), &fast, &plain), None);
        // transformers itself sees through this one.
        let llama = table(json!({"tokenizer_class": "LlamaTokenizer"}));
        assert_eq!(remark(&table(json!({"model_type": "llama"})), &llama, &plain), None);
        let pieces = table(json!({"normalizer": {"type": "Replace"}, "pre_tokenizer": null, "model": {"byte_fallback": true}}));
        assert!(remark(&table(json!({"model_type": "llama"})), &llama, &pieces).is_some());
    }
}
