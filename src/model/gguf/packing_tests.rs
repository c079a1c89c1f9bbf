//! Packing changes nothing: a folder and its F16 GGUF file give the same tokens, prompts, ends and greedy answers, or the file is not written.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::{Value as Json, json};

use crate::kernels::rng;
use crate::model::config::tests::tiny;
use crate::model::quant::BlockType;
use crate::model::{ChatTemplate, Config, Conversation, Generate, Message, Model, Weights, bytes, gguf};

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
const PHI: &str = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}";
const NAMED: &str = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{{ unk_token }}{% endfor %}";
const TEXTS: [&str; 8] = [
    "the  other   the\n\n x",
    "<|im_start|> the<|im_end|>\n the",
    "<|user|> \n a<|end|>  b",
    "it's 12345 THE'LL naïve 冷蔵庫",
    "",
    " lead <|endoftext|> trail ",
    "abthe<tool> x </tool>",
    "</s> the <unk> <s> a",
];
const SPECIALS: [&str; 12] = [
    "<|endoftext|>",
    "<s>",
    "</s>",
    "<unk>",
    "<|im_start|>",
    "<|im_end|>",
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
    "<tool>",
    "</tool>",
    "<|fim_pad|>",
];

/// Random choices of one case.
struct Dice {
    case: u64,
    drawn: u64,
}

impl Dice {
    fn below(&mut self, count: u64) -> u64 {
        self.drawn += 1;
        rng::below(97, self.case, self.drawn, count)
    }

    fn often(&mut self) -> bool {
        self.below(4) > 0
    }

    fn seldom(&mut self) -> bool {
        self.below(8) == 0
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len() as u64) as usize]
    }
}

/// A byte-level BPE of specials, 256 bytes and some merges, as one of the rules or nearly one.
fn tokenizer(dice: &mut Dice) -> Json {
    let mut vocab = serde_json::Map::new();
    SPECIALS.iter().enumerate().for_each(|(id, text)| drop(vocab.insert(text.to_string(), json!(id))));
    bytes::alphabet().iter().enumerate().for_each(|(i, letter)| drop(vocab.insert(letter.to_string(), json!(SPECIALS.len() + i))));
    let merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ġ", "Ġ")];
    for (left, right) in merges {
        vocab.insert(format!("{left}{right}"), json!(vocab.len()));
    }
    if dice.seldom() {
        vocab.insert("xyz".to_string(), json!(vocab.len()));
    }
    let phi = dice.below(3) == 0;
    let added: Vec<Json> = SPECIALS
        .iter()
        .enumerate()
        .map(|(id, text)| {
            let rstrip = phi && !["<unk>", "<s>", "<|endoftext|>"].contains(text) || dice.below(60) == 0;
            json!({"id": id, "content": text, "single_word": dice.below(80) == 0, "lstrip": dice.below(80) == 0, "rstrip": rstrip,
                "normalized": false, "special": dice.often()})
        })
        .collect();
    let byte_level = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let pre = match dice.below(3) {
        0 => byte_level(true),
        1 => json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, byte_level(true)]}),
        _ => {
            json!({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"},
            "behavior": "Isolated", "invert": false}, byte_level(false)]})
        }
    };
    json!({"version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null, "added_tokens": added,
        "pre_tokenizer": pre, "decoder": byte_level(true),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": dice.below(2) == 0, "vocab": vocab, "merges": merges.map(|(left, right)| json!([left, right]))}})
}

/// A folder of a random model that speaks of special tokens more than others do.
fn folder(case: u64, path: &Path) {
    let mut dice = Dice { case, drawn: 0 };
    let config = Config { vocab_size: 280, ..tiny() };
    let mut weights = Weights::zeros(&config).unwrap();
    weights.data.iter_mut().enumerate().for_each(|(i, value)| *value = half(rng::normal(5, case, i as u64) * 0.5));
    let chat = match dice.below(5) {
        0 => ChatTemplate::absent(),
        1 => ChatTemplate::of_model(PHI),
        2 => ChatTemplate::of_model(NAMED),
        _ => ChatTemplate::of_model(CHATML),
    };
    Model { config, weights, tokenizer: crate::model::tokenizer::tests::bytes_only(), chat }.save(path).unwrap();
    std::fs::write(path.join("tokenizer.json"), tokenizer(&mut dice).to_string()).unwrap();
    let token = |dice: &mut Dice| if dice.often() { json!(dice.pick(&SPECIALS)) } else { Json::Null };
    let mut said =
        json!({"bos_token": token(&mut dice), "eos_token": token(&mut dice), "pad_token": token(&mut dice), "unk_token": token(&mut dice)});
    if dice.below(3) == 0 {
        said["add_bos_token"] = json!(dice.below(2) == 0);
    }
    std::fs::write(path.join("tokenizer_config.json"), said.to_string()).unwrap();
    let ends = |dice: &mut Dice| match dice.below(5) {
        0 => Json::Null,
        1 | 2 => json!(dice.below(12)),
        3 => json!([dice.below(12), dice.below(12)]),
        _ => json!([dice.below(12), dice.below(12), dice.below(280), dice.below(12)]),
    };
    let mut config: Json = serde_json::from_slice(&std::fs::read(path.join("config.json")).unwrap()).unwrap();
    config["eos_token_id"] = ends(&mut dice);
    config["bos_token_id"] = ends(&mut dice);
    std::fs::write(path.join("config.json"), config.to_string()).unwrap();
    std::fs::write(path.join("generation_config.json"), json!({"eos_token_id": ends(&mut dice)}).to_string()).unwrap();
}

/// What F16 holds exactly.
fn half(value: f32) -> f32 {
    (value * 256.0).round() / 256.0
}

fn packed(model: &Model, path: &Path) -> Result<Model, String> {
    let types: Vec<_> = model.weights.iter().map(|(_, shape, _)| if shape.len() > 1 { BlockType::F16 } else { BlockType::F32 }).collect();
    gguf::save(path, model, 1, &types, &mut |_| ControlFlow::Continue(())).map_err(|error| error.to_string())?;
    Ok(Model::load(path).unwrap())
}

#[test]
fn a_folder_and_its_file_are_the_same_model() {
    let (mut same, mut refused, mut reasons) = (0, 0, BTreeSet::new());
    for case in 0..150 {
        let space = tempfile::tempdir().unwrap();
        folder(case, space.path());
        let one = Model::load(space.path()).unwrap_or_else(|error| panic!("case {case}: {error}"));
        let other = match packed(&one, &space.path().join("model.gguf")) {
            Ok(other) => other,
            Err(error) => {
                refused += 1;
                reasons.insert(error.chars().take(60).collect::<String>());
                continue;
            }
        };
        same += 1;
        let ends = |model: &Model| model.config.end_tokens().collect::<BTreeSet<u32>>();
        assert_eq!(ends(&other), ends(&one), "case {case}");
        assert_eq!(
            (&other.tokenizer.bos, &other.tokenizer.eos, &other.tokenizer.pad),
            (&one.tokenizer.bos, &one.tokenizer.eos, &one.tokenizer.pad),
            "case {case}"
        );
        assert_eq!(other.tokenizer.adds_bos(), one.tokenizer.adds_bos(), "case {case}");
        for text in TEXTS {
            let tokens = one.tokenizer.encode(text).unwrap();
            assert_eq!(other.tokenizer.encode(text).unwrap(), tokens, "case {case}: {text:?}");
            assert_eq!(other.tokenizer.decode(&tokens).unwrap(), one.tokenizer.decode(&tokens).unwrap(), "case {case}: {text:?}");
        }
        let talk = Conversation::of(vec![
            Message::user("the  x"),
            Message::assistant("it's<tool> 12"),
            Message::user("a"),
            Message::assistant(" b "),
        ]);
        let prompt = one.encoder().prompt("the  <|user|> x").map_err(|error| error.to_string());
        assert_eq!(other.encoder().prompt("the  <|user|> x").map_err(|error| error.to_string()), prompt, "case {case}");
        let learned = |model: &Model| model.encoder().conversation(&talk).map_err(|error| error.to_string());
        assert_eq!(learned(&other), learned(&one), "case {case}");
        let prompts: Vec<Vec<u32>> =
            TEXTS.iter().map(|text| one.tokenizer.encode(text).unwrap()).filter(|tokens| !tokens.is_empty()).collect();
        let answers = |model: &Model| model.greedy(&prompts, &Generate { max_new_tokens: 8 }, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(answers(&other), answers(&one), "case {case}");
    }
    assert!(same >= 50 && refused >= 10, "{same} the same, {refused} refused: {reasons:?}");
    println!("{same} the same, {refused} refused: {reasons:#?}");
}
