//! Every kind of tokenizer that goes into a file: llama.cpp makes the same tokens of the same texts.

use serde_json::{Value, json};
use slmops::model::{Model, Tokenizer};

use super::{PROMPTS, answers_agree, config, model, save};

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const MORE: &[&str] = &[
    "I'LL don't THEY'RE we'Ve x's",
    "0123456789 12 345 6789",
    "camelCase HTMLParser MiXeD ÀÉÎ straße",
    "a/b//c.../\n\n/ path\r\n\r\n end",
    "  lead   inner    trail   ",
    "\t\ttabs\n \n  \n x",
    "the<unk>theThe thE",
    "½²³ ٣٤ Ⅷ",
    "日本語とEnglishの混在",
    "\u{1f469}\u{200d}\u{1f4bb} e\u{301}",
];

/// Merges that reach over the places where some rule cuts and another does not.
const MERGES: &[(&str, &str)] = &[
    ("t", "h"),
    ("th", "e"),
    ("Ġ", "the"),
    ("1", "2"),
    ("12", "3"),
    ("Ċ", "Ċ"),
    ("Ġ", "Ġ"),
    ("'", "l"),
    ("'l", "l"),
    ("'", "L"),
    ("M", "L"),
    ("l", "C"),
    ("/", "Ċ"),
    ("n", "'"),
];

fn added(id: usize, text: &str) -> Value {
    json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
}

fn tokenizer(json: &Value, end: &str) -> Tokenizer {
    let mut tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).expect("a tokenizer");
    tokenizer.eos = tokenizer.special(end);
    tokenizer
}

fn byte_level(regex: Option<&str>, normalizer: Value, ignore_merges: bool) -> Tokenizer {
    let letters = slmops::model::bytes::alphabet();
    let mut vocab = serde_json::Map::new();
    vocab.insert("<|endoftext|>".to_string(), json!(0));
    letters.iter().for_each(|letter| drop(vocab.insert(letter.to_string(), json!(vocab.len()))));
    MERGES.iter().for_each(|(left, right)| drop(vocab.insert(format!("{left}{right}"), json!(vocab.len()))));
    // A token that no merge makes: only rules that look words up first find it.
    vocab.insert("MiXeD".to_string(), json!(vocab.len()));
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex.is_none()});
    let pre = match regex {
        None => level.clone(),
        Some(regex) => json!({"type": "Sequence", "pretokenizers":
            [{"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false}, level]}),
    };
    let merges: Vec<Value> = MERGES.iter().map(|(left, right)| json!([left, right])).collect();
    let json = json!({"version": "1.0", "truncation": null, "padding": null, "normalizer": normalizer, "post_processor": null,
        "added_tokens": [added(0, "<|endoftext|>")], "pre_tokenizer": pre, "decoder": level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": ignore_merges, "vocab": vocab, "merges": merges}});
    tokenizer(&json, "<|endoftext|>")
}

/// As Llama 2 and Gemma have it.
fn pieces(with_prefix: bool) -> Tokenizer {
    let mut vocab = serde_json::Map::new();
    let mut add = |text: &str| drop(vocab.insert(text.to_string(), json!(vocab.len())));
    ["<unk>", "<s>", "</s>"].into_iter().for_each(&mut add);
    (0..256).for_each(|byte| add(&format!("<0x{byte:02X}>")));
    "▁abcdefghijklmnopqrstuvwxyzTHELI1234567890'./".chars().for_each(|letter| add(&letter.to_string()));
    let merges =
        [("t", "h"), ("▁", "the"), ("th", "e"), ("▁t", "he"), ("h", "e"), ("▁", "▁"), ("▁", "t"), ("1", "2"), ("▁▁", "▁▁"), ("i", "n")];
    ["th", "▁the", "the", "he", "▁▁", "▁t", "12", "▁▁▁▁", "in"].into_iter().for_each(&mut add);
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let normalizer = match with_prefix {
        true => json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]}),
        false => replace,
    };
    let merges: Vec<Value> = merges.iter().map(|(left, right)| json!([left, right])).collect();
    let json = json!({"version": "1.0", "truncation": null, "padding": null, "normalizer": normalizer, "post_processor": null,
        "added_tokens": [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")], "pre_tokenizer": null,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": true, "ignore_merges": false, "vocab": vocab, "merges": merges}});
    tokenizer(&json, "</s>")
}

#[test]
fn texts_are_cut_as_llama_cpp_cuts_them() {
    let space = tempfile::tempdir().expect("a folder");
    let nothing = Value::Null;
    let all = [
        ("gpt-2", byte_level(None, nothing.clone(), false)),
        ("llama-bpe", byte_level(Some(LLAMA3), nothing.clone(), true)),
        ("smaug-bpe", byte_level(Some(LLAMA3), nothing.clone(), false)),
        ("qwen2", byte_level(Some(QWEN2), json!({"type": "NFC"}), false)),
        ("gpt-4o", byte_level(Some(GPT4O), nothing, false)),
        ("pieces with a prefix", pieces(true)),
        ("pieces without one", pieces(false)),
    ];
    for (name, tokenizer) in all {
        let mut config = config(1, 64, true);
        config.vocab_size = 336;
        let model = Model { tokenizer, ..model(config) };
        let path = space.path().join(format!("{name}.gguf"));
        save(&model, "F32", &path);
        // llama.cpp does not compose what Qwen's tokenizer would.
        let texts: Vec<String> =
            PROMPTS.iter().chain(MORE).filter(|text| name != "qwen2" || !text.contains('\u{301}')).map(ToString::to_string).collect();
        answers_agree(name, &path, &texts, 1);
    }
}
