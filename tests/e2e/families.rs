//! transformers judges the architectures: small random models that it made, in shards and in mixed types, loaded, opened, run and written again.

use std::ops::ControlFlow;
use std::path::Path;

use serde::Deserialize;
use slmops::model::decoder::Tensors;
use slmops::model::generate::argmax;
use slmops::model::{Generate, Model, Scored};

use crate::peers::{peers, python};

#[derive(Deserialize)]
struct Case {
    tokens: Vec<u32>,
    /// After each token.
    logits: Vec<Vec<f32>>,
}

/// The class that transformers makes of each folder.
const MODELS: [(&str, &str); 13] = [
    ("llama2", "LlamaForCausalLM"),
    ("llama3", "LlamaForCausalLM"),
    ("llama-linear", "LlamaForCausalLM"),
    ("llama-yarn", "LlamaForCausalLM"),
    ("mistral", "MistralForCausalLM"),
    ("qwen2", "Qwen2ForCausalLM"),
    ("qwen2-window", "Qwen2ForCausalLM"),
    ("qwen3", "Qwen3ForCausalLM"),
    ("gemma3", "Gemma3ForCausalLM"),
    ("gemma3-long", "Gemma3ForCausalLM"),
    ("phi3", "Phi3ForCausalLM"),
    ("phi4-mini", "Phi3ForCausalLM"),
    ("smollm3", "SmolLM3ForCausalLM"),
];

/// Of the largest logit.
const TOLERANCE: f32 = 1e-5;

fn logits<W: Tensors>(model: &Model<W>, sequences: &[Vec<u32>]) -> Vec<Vec<f32>> {
    // The last token is only asked for what is before it.
    let scored: Vec<_> = sequences.iter().map(|tokens| Scored { tokens: [tokens.as_slice(), &[0]].concat(), from: 1 }).collect();
    let mut rows = Vec::new();
    model.score(&scored, &mut |_, logits| rows.extend(logits.chunks(model.config.vocab_size).map(<[f32]>::to_vec))).expect("logits");
    rows
}

/// Ours from theirs, relative to their largest.
fn distance(ours: &[Vec<f32>], theirs: &[Vec<f32>]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let pairs = || ours.iter().flatten().zip(theirs.iter().flatten());
    let scale = pairs().fold(0.0f32, |scale, (_, theirs)| scale.max(theirs.abs()));
    assert!(scale > 1.0, "the logits say nothing");
    pairs().fold(0.0f32, |far, (a, b)| far.max((a - b).abs())) / scale
}

/// Cached or not, alone or in company, an answer is the likeliest token after all tokens before it.
fn answers_are_those_of_whole_sequences(name: &str, model: &Model) {
    let prompts: Vec<Vec<u32>> = [14, 3, 20].iter().map(|length| (0..*length).map(|i| (i * 31 + length) % 260).collect()).collect();
    let answers = model.generate(&prompts, &Generate { max_new_tokens: 12 }, &mut |_| ControlFlow::Continue(())).expect("answers");
    for (prompt, answer) in prompts.iter().zip(&answers) {
        let whole = [prompt.as_slice(), answer].concat();
        for end in prompt.len()..whole.len() {
            let rows = logits(model, &[whole[..end].to_vec()]);
            assert_eq!(rows.last().and_then(|row| argmax(row)), Some(whole[end]), "{name}: token {end}");
        }
    }
}

fn judge(folder: &Path, name: &str) {
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(folder.join("cases.json")).expect("cases")).expect("JSON");
    let sequences: Vec<_> = cases.iter().map(|case| case.tokens.clone()).collect();
    let theirs: Vec<_> = cases.into_iter().flat_map(|case| case.logits).collect();
    let model = Model::load(folder).unwrap_or_else(|error| panic!("{name}: {error}"));
    let ours = logits(&model, &sequences);
    let far = distance(&ours, &theirs);
    println!("{name}: {far:e}");
    assert!(far < TOLERANCE, "{name}: {far:e}");
    assert_eq!(logits(&Model::open(folder).expect("the same"), &sequences), ours, "{name} opened");
    answers_are_those_of_whole_sequences(name, &model);
    let again = folder.join("again");
    std::fs::create_dir(&again).expect("a folder");
    model.save(&again).expect("a written model");
    let read = Model::load(&again).unwrap_or_else(|error| panic!("{name} again: {error}"));
    assert_eq!(read.config, model.config, "{name}");
    let far = distance(&logits(&read, &sequences), &theirs);
    assert!(far < TOLERANCE, "{name} again: {far:e}");
}

#[test]
fn transformers_says_the_same_of_every_architecture() {
    assert!(peers().join("venv/.done-torch-2").exists(), "PEER MISSING: transformers; run: bash tests/peers/install.sh");
    let space = tempfile::tempdir().expect("a folder");
    let made = python("families.py", &[Path::new("make"), space.path()]);
    assert_eq!(made["models"].as_array().map(Vec::len), Some(MODELS.len()));
    MODELS.iter().for_each(|(name, _)| judge(&space.path().join(name), name));
    let found = python("families.py", &[Path::new("judge"), space.path()]);
    for (name, class) in MODELS {
        let found = &found[name];
        let number = |key: &str| found[key].as_f64().expect("a number") as f32;
        assert!(found["class"] == class && number("worst") < TOLERANCE * number("largest"), "{name} written: {found}");
    }
}
