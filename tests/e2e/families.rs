//! transformers judges the architectures: small random models that it made, in shards and in mixed types, loaded, opened, run and written again. llama.cpp
//! judges the GGUF files that are made of them. What is left of each when parts are cut out, transformers runs as well.

use std::ops::ControlFlow;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use slmops::kernels::loss::cross_entropy;
use slmops::model::cut::{Rest, cut};
use slmops::model::decoder::{Batch, Decoder, Keep, Tensors};
use slmops::model::generate::argmax;
use slmops::model::quant::BlockType;
use slmops::model::{Family, Generate, Model, ModelError, Scored, Weights, gguf, safetensors};

use crate::peers::{peers, python};

#[derive(Deserialize)]
struct Case {
    tokens: Vec<u32>,
    /// After each token.
    logits: Vec<Vec<f32>>,
}

/// The class that transformers makes of each folder.
const MODELS: [(&str, &str); 14] = [
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
    ("smollm3-window", "SmolLM3ForCausalLM"),
];

/// What llama.cpp takes for granted of an architecture keeps these out of its files.
const NO_GGUF: [&str; 4] = ["mistral", "qwen2-window", "gemma3-long", "smollm3-window"];

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
    write_gradient(&model, &sequences[0], &folder.join("gradients.safetensors"));
    in_gguf(folder, name, &model, &sequences, &ours);
    write_cut(&folder.join("cut"), &model, &sequences);
    let again = folder.join("again");
    std::fs::create_dir(&again).expect("a folder");
    model.save(&again).expect("a written model");
    let read = Model::load(&again).unwrap_or_else(|error| panic!("{name} again: {error}"));
    assert_eq!(read.config, model.config, "{name}");
    let far = distance(&logits(&read, &sequences), &theirs);
    assert!(far < TOLERANCE, "{name} again: {far:e}");
}

/// The gradient of the mean cross-entropy of a sequence's tokens behind the first.
fn write_gradient(model: &Model, tokens: &[u32], path: &Path) {
    let (mut batch, targets) = (Batch::default(), &tokens[1..]);
    batch.push(tokens, 0..targets.len());
    let mut decoder = Decoder::new(&model.config).expect("a decoder");
    let mut data = vec![f32::NAN; model.weights.data.len()];
    decoder.forward(&model.weights, &batch, Keep::All).expect("a forward pass");
    let done = decoder.backward(&model.weights.data, &batch, &mut data, &mut |rows, logits| {
        let mut losses = vec![0.0; rows.len()];
        cross_entropy(logits, model.config.vocab_size, &targets[rows], 1.0 / targets.len() as f32, &mut losses).expect("finite losses");
        Ok(losses.iter().map(|loss| f64::from(*loss)).sum())
    });
    done.expect("a backward pass");
    safetensors::write(path, &Weights { layout: model.weights.layout.clone(), data }).expect("a written file");
}

/// A smaller shape of the same model, and the logits that it has here: a layer less, two thirds of the channels, half of the heads where there is more than one (a Phi-3 keeps them, as `prune` demands).
fn write_cut(folder: &Path, model: &Model, sequences: &[Vec<u32>]) {
    let config = &model.config;
    let keeps_heads = config.num_key_value_heads == 1 || config.family == Family::Phi3;
    let rest = |layer: usize| Rest {
        layer,
        channels: (0..config.intermediate_size).filter(|channel| channel % 3 != layer % 3).collect(),
        heads: (0..config.num_key_value_heads).filter(|head| keeps_heads || (head + layer).is_multiple_of(2)).collect(),
    };
    let rests: Vec<Rest> = (0..config.num_hidden_layers).filter(|layer| *layer != 1).map(rest).collect();
    let (config, weights) = cut(config, &model.weights, &rests).expect("a smaller model");
    let cut = Model { config, weights, ..model.clone() };
    std::fs::create_dir(folder).expect("a folder");
    cut.save(folder).expect("a written model");
    let mut rows = logits(&cut, sequences).into_iter();
    let case = |tokens: &Vec<u32>| json!({"tokens": tokens, "logits": rows.by_ref().take(tokens.len()).collect::<Vec<_>>()});
    let cases: Vec<_> = sequences.iter().map(case).collect();
    std::fs::write(folder.join("cases.json"), Value::from(cases).to_string()).expect("a file");
}

fn save_gguf(model: &Model, path: &Path) -> Result<(), ModelError> {
    let types = vec![BlockType::F32; model.weights.layout.tensors.len()];
    gguf::save(path, model, 0, &types, &mut |_| ControlFlow::Continue(()))
}

/// The same model by way of a GGUF file, to the bit; and what llama.cpp makes of the file, which keeps keys and values in 16 bits.
fn in_gguf(folder: &Path, name: &str, model: &Model, sequences: &[Vec<u32>], ours: &[Vec<f32>]) {
    let path = folder.join("model.gguf");
    let saved = save_gguf(model, &path);
    if NO_GGUF.contains(&name) {
        let error = saved.expect_err("a refusal").to_string();
        assert!(error.contains("llama.cpp's `"), "{name}: {error}");
        return;
    }
    saved.unwrap_or_else(|error| panic!("{name}: {error}"));
    let read = Model::load(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(read.weights.data, model.weights.data, "{name} from GGUF");
    // A Llama 3's numbers that are not those of the real one are kept as factors.
    let far = distance(&logits(&read, sequences), ours);
    assert!(far < if name == "llama3" { 1e-6 } else { f32::MIN_POSITIVE }, "{name} from GGUF: {far:e}");
    assert_eq!(logits(&Model::open(&path).expect("the same"), sequences), logits(&read, sequences), "{name} opened from GGUF");
    let again = folder.join("again.gguf");
    save_gguf(&read, &again).expect("a written file");
    assert!(std::fs::read(&path).expect("a file") == std::fs::read(&again).expect("a file"), "{name}: another file");
    // llama.cpp sees all tokens in a Phi-3, and decides by the room for them whether they are many.
    let judged = match name {
        "phi3" => return,
        "phi4-mini" => 1,
        _ => sequences.len(),
    };
    let mut rows = ours.iter();
    let cases: Vec<_> = sequences[..judged]
        .iter()
        .map(|tokens| json!({"tokens": tokens, "logits": rows.by_ref().take(tokens.len()).collect::<Vec<_>>()}))
        .collect();
    let cases_path = folder.join("llama_cpp.json");
    std::fs::write(&cases_path, Value::from(cases).to_string()).expect("a file");
    let libraries = peers().join("llama.cpp");
    let found = python("llama_cpp.py", &[&libraries, Path::new("logits"), &path, &cases_path]);
    let number = |key: &str| found[key].as_f64().expect("a number");
    println!("{name}: llama.cpp {:e}", number("worst") / number("largest"));
    assert!(number("worst") < 1e-2 * number("largest"), "{name}: {found}");
}

#[test]
fn transformers_says_the_same_of_every_architecture() {
    assert!(peers().join("venv/.done-torch-2").exists(), "PEER MISSING: transformers; run: bash tests/peers/install.sh");
    assert!(peers().join("llama.cpp").exists(), "PEER MISSING: llama.cpp; run: bash tests/peers/install.sh");
    let space = tempfile::tempdir().expect("a folder");
    let made = python("families.py", &[Path::new("make"), space.path()]);
    assert_eq!(made["models"].as_array().map(Vec::len), Some(MODELS.len()));
    MODELS.iter().for_each(|(name, _)| judge(&space.path().join(name), name));
    let found = python("families.py", &[Path::new("judge"), space.path()]);
    for (name, class) in MODELS {
        let found = &found[name];
        let number = |key: &str| found[key].as_f64().expect("a number") as f32;
        println!("{name}: gradients {:e}", number("gradients"));
        assert!(found["class"] == class && number("worst") < TOLERANCE * number("largest"), "{name} written: {found}");
        assert!(number("gradients") < 1e-4, "{name}: {found}");
        assert!(found["cut_class"] == class && number("cut") < TOLERANCE, "{name} cut: {found}");
    }
}
