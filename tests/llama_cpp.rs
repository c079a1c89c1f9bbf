//! llama.cpp judges our GGUF files: its own libraries open them, unpack them and answer with them.
//!
//! `tests/peers/install.sh` puts the libraries (npm, `@node-llama-cpp/linux-x64`) into `target/peers/llama.cpp`; without them every test here fails and says so.

#![expect(clippy::disallowed_methods, reason = "a test knows what it has made")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use slmops::base::Cancel;
use slmops::kernels::rng;
use slmops::model::chat::Ending;
use slmops::model::quant::{BlockType, dequantize, quantize};
use slmops::model::{Activation, ChatTemplate, Config, Conversation, Family, Features, Generate, Message, Model, Tokenizer, Weights, gguf};
use slmops::steps::dataset::record::{self, Record};
use slmops::steps::io::{Io, Listener};
use slmops::steps::quantize::preset::{self, Calibrated, Mixture, Preset, Recipe, choose};
use slmops::steps::{self, Task};

#[path = "llama_cpp/cutting.rs"]
mod cutting;
#[path = "llama_cpp/smollm2.rs"]
mod smollm2;

/// Runs a command of the judge and returns what it found.
fn judge(arguments: &[&str]) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let libraries = root.join("target/peers/llama.cpp");
    assert!(
        libraries.join("libggml-base.so").exists(),
        "PEER MISSING: no llama.cpp in {}; run: bash tests/peers/install.sh",
        libraries.display()
    );
    let script = root.join("tests/peers/llama_cpp.py");
    // Some commands need numpy.
    let own = root.join("target/peers/venv/bin/python");
    let python = if own.exists() { own } else { PathBuf::from("python3") };
    let output = Command::new(python).arg(script).arg(&libraries).args(arguments).output().expect("PEER MISSING: no python3");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the judge failed on {arguments:?}:\n{out}{err}");
    serde_json::from_str(out.lines().last().unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {out}{err}"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn write_floats(path: &Path, values: &[f32]) {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(path, bytes).expect("a written file");
}

/// Bells of several widths, with outliers, zeros, constants and tiny values among them.
fn values() -> Vec<f32> {
    let mut x: Vec<f32> =
        (0..256 * 120).map(|i| rng::normal(1, 0, i) * if i % 991 == 0 { 1.0 } else { 0.02 * (1 + i / 2560) as f32 }).collect();
    x[512..768].fill(0.0);
    x[768..1024].fill(0.25);
    x[1024..1184].fill(-0.3);
    x[1280..1536].fill(1e-30);
    x[1536..1792].iter_mut().for_each(|value| *value = value.abs());
    x
}

#[test]
fn blocks_are_ggmls_own_and_k_blocks_are_no_worse() {
    let space = tempfile::tempdir().expect("a folder");
    let x = values();
    write_floats(&space.path().join("input.f32"), &x);
    for ty in BlockType::ALL {
        let packed = quantize(ty, &x, 256).expect("packed values");
        let mut back = vec![0.0; x.len()];
        dequantize(ty, &packed, &mut back).expect("unpacked values");
        write_floats(&space.path().join(format!("{ty}.f32")), &back);
        std::fs::write(space.path().join(format!("{ty}.bin")), packed).expect("a written file");
    }
    let found = judge(&["blocks", text(space.path())]);
    for (name, found) in found.as_object().expect("an object") {
        println!("{name}: {found}");
        assert_eq!(found["same_values"], true, "{name} unpacks to other values: {found}");
        if name.ends_with('K') {
            assert!(found["error"].as_f64() <= found["their_error"].as_f64(), "{name}: {found}");
        } else {
            assert_eq!(found["same_bytes"], true, "{name}: {found}");
        }
    }
}

/// A byte-level BPE with a few merges, so that tokenizers can differ.
fn tokenizer() -> Tokenizer {
    let letters = slmops::model::bytes::alphabet();
    let mut vocab = serde_json::Map::new();
    vocab.insert("<|endoftext|>".to_string(), json!(0));
    letters.iter().enumerate().for_each(|(i, letter)| drop(vocab.insert(letter.to_string(), json!(i + 1))));
    let merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("Ġ", "f"), ("Ġf", "r"), ("1", "2"), ("Ċ", "Ċ"), ("Ġ", "Ġ")];
    for (left, right) in merges {
        vocab.insert(format!("{left}{right}"), json!(vocab.len()));
    }
    let merges: Vec<Value> = merges.iter().map(|(left, right)| json!([left, right])).collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let json = json!({"version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [{"id": 0, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true}],
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges}});
    let mut tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).expect("a tokenizer");
    tokenizer.eos = tokenizer.special("<|endoftext|>");
    tokenizer
}

fn config(layers: usize, hidden_size: usize, tie_word_embeddings: bool) -> Config {
    Config {
        family: Family::Llama,
        vocab_size: 272,
        hidden_size,
        intermediate_size: 512,
        num_hidden_layers: layers,
        num_attention_heads: 8,
        num_key_value_heads: 2,
        head_dim: hidden_size / 8,
        max_position_embeddings: 512,
        hidden_act: Activation::Silu,
        sliding_window: None,
        rms_norm_eps: 1e-5,
        rope_theta: 1e4,
        tie_word_embeddings,
        bos_token_id: None,
        eos_token_id: Some(0),
        pad_token_id: None,
        features: Features::default(),
    }
}

/// Random weights of an ordinary size. The head's scale keeps the likeliest token apart from the next, as training would.
fn model(config: Config) -> Model {
    let mut weights = Weights::zeros(&config).expect("weights");
    for (index, tensor) in weights.layout.clone().tensors.iter().enumerate() {
        let scale = if tensor.shape.len() == 1 { 0.1 } else { 2.0 / (*tensor.shape.last().expect("a shape") as f32).sqrt() };
        let out = weights.get_mut(&tensor.name).expect("its own tensor");
        out.iter_mut().enumerate().for_each(|(i, value)| *value = scale * rng::normal(2, index as u64, i as u64));
        if tensor.shape.len() == 1 {
            out.iter_mut().for_each(|value| *value += 1.0);
        }
    }
    Model { config, weights, tokenizer: tokenizer(), chat: ChatTemplate::default() }
}

/// The types that the mixture of this name gives the model's tensors.
fn types(model: &Model, name: &str) -> Vec<BlockType> {
    let recipe = Preset::from_name(name).map(|preset| Recipe {
        preset,
        mixture: Mixture::Mixed,
        token_embedding: None,
        output: None,
        calibrated: Calibrated::No,
    });
    let type_of = |name: &str, shape: &[usize]| recipe.map_or(BlockType::F32, |recipe| choose(&recipe, &model.config, name, shape).ty);
    model.weights.iter().map(|(name, shape, _)| type_of(name, shape)).collect()
}

fn save(model: &Model, name: &str, path: &Path) {
    let types = types(model, name);
    let file_type = gguf::file_type_id(name).expect("a file type");
    gguf::save(path, model, file_type, &types, &mut |_| ControlFlow::Continue(())).expect("a written file");
}

#[test]
fn every_mixture_is_llama_quantizes_own() {
    let space = tempfile::tempdir().expect("a folder");
    for config in [config(9, 256, true), config(2, 256, false), config(2, 64, true)] {
        let model = model(config);
        let plain = space.path().join("plain.gguf");
        std::fs::remove_file(&plain).ok();
        save(&model, "F32", &plain);
        let scratch = space.path().join("theirs.gguf");
        let found = judge(&[&["mixtures", text(&plain), text(&scratch)], preset::NAMES].concat());
        for name in preset::NAMES {
            let ours: Value = model
                .weights
                .iter()
                .zip(types(&model, name))
                .map(|((name, _, _), ty)| (gguf::llama::tensor_name(model.config.family, name).expect("a name"), json!(ty.name())))
                .collect();
            assert_eq!(ours, found[name], "{name}, hidden size {}", model.config.hidden_size);
        }
    }
}

#[test]
fn every_tensor_unpacks_to_the_same_values() {
    let space = tempfile::tempdir().expect("a folder");
    let model = model(config(2, 256, false));
    for name in preset::NAMES {
        let path = space.path().join(format!("{name}.gguf"));
        save(&model, name, &path);
        let mut values = Vec::new();
        let file = gguf::open(&path).expect("our own file");
        for tensor in &file.header.tensors {
            let mut out = vec![0.0; tensor.values()];
            dequantize(tensor.ty, file.bytes(tensor), &mut out).expect("unpacked values");
            values.extend(out);
        }
        let ours = space.path().join("values.f32");
        write_floats(&ours, &values);
        let found = judge(&["tensors", text(&path), text(&ours)]);
        assert_eq!(found, json!({"tensors": 21, "differing": [], "values": values.len(), "our_values": values.len()}), "{name}");
    }
}

const PROMPTS: &[&str] = &[
    "set the fridge to minus four",
    "the the the",
    "it's 12 below  zero\n\n",
    "  two  spaces",
    "naïve 冷蔵庫 \u{1f9ca}",
    "What'll the third freezer do in 1234 minutes?",
    "{\"call\": \"none\"}",
    "UPPER lower 3.14 -- (x)",
    "tab\tand\r\nline",
    "<|endoftext|>after",
];

/// Where answers part, everything after differs, so a share of equal answers is a strict measure. On random weights the likeliest token is hardly
/// likelier than the next, so types whose activations llama.cpp rounds are left to the trained model below.
#[test]
fn greedy_answers_and_tokens_agree() {
    let space = tempfile::tempdir().expect("a folder");
    for name in ["F32", "F16"] {
        let path = space.path().join(format!("{name}.gguf"));
        save(&model(config(2, 256, true)), name, &path);
        let texts: Vec<String> = (0..5).flat_map(|i| PROMPTS.iter().map(move |prompt| format!("{prompt} {i}"))).collect();
        answers_agree(name, &path, &texts, 6);
    }
}

/// The model of a file answers as llama.cpp does on at least 98 % of the prompts, and cuts all of them into the same tokens.
fn answers_agree(name: &str, path: &Path, texts: &[String], most: usize) {
    let model = Model::load(path).expect("our own file");
    let prompts: Vec<Vec<u32>> = texts.iter().map(|text| model.tokenizer.encode(text).expect("tokens")).collect();
    let options = Generate { max_new_tokens: most };
    let answers = model.generate(&prompts, &options, &mut |_| ControlFlow::Continue(())).expect("answers");
    let cases: Vec<Value> = texts
        .iter()
        .zip(prompts.iter().zip(&answers))
        .map(|(text, (tokens, answer))| json!({"prompt": text, "tokens": tokens, "answer": answer, "most": most}))
        .collect();
    let file = path.with_extension("cases.json");
    std::fs::write(&file, json!(cases).to_string()).expect("a written file");
    let found = judge(&["generate", text(path), text(&file)]);
    println!("{name}: {found}");
    let count = |key: &str| found[key].as_u64().expect("a number");
    assert_eq!(count("same_tokens"), count("cases"), "{name}: texts are cut into other tokens: {found}");
    assert!(count("same_answers") as f64 >= 0.98 * count("cases") as f64, "{name}: {found}");
}

struct Quiet;

impl Listener for Quiet {
    fn line(&self, _: &str) {}
    fn progress(&self, _: u64, _: u64, _: &'static str, _: &str) {}
}

/// Runs one action of a kind on files below `space`.
fn run(space: &Path, kind: &str, params: Value, inputs: &[(&str, &str)], out: &str) {
    let (out, checkpoint) = (space.join(out), space.join("checkpoint"));
    std::fs::create_dir(&out).expect("a folder");
    std::fs::create_dir_all(&checkpoint).expect("a folder");
    let inputs = inputs.iter().map(|(port, path)| (port.to_string(), vec![space.join(path)])).collect();
    let mut io = Io { inputs, out, checkpoint, cancel: Cancel::default(), threads: 2, now: None, listener: &Quiet };
    let kind = steps::kind(kind).expect("a kind");
    let (Value::Object(params), action) = (params, kind.name()) else { panic!("parameters are an object") };
    kind.run(&Task { action, params }, &mut io).unwrap_or_else(|failure| panic!("{} failed: {failure}", kind.name()));
}

/// Trained for a moment on the example's data: sure enough of its tokens for rounded activations, as a model on a device is.
#[test]
fn a_trained_models_answers_agree() {
    let space = tempfile::tempdir().expect("a folder");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cold-chain/data");
    let data = |name: &str| text(&data.join(name)).to_string();
    let (vendor, seen) = (data("vendor.jsonl"), data("test_seen.jsonl"));
    let words = json!({"vocab_size": 512, "min_frequency": 2, "eos_token": "<|endoftext|>", "special_tokens": []});
    run(space.path(), "tokenizer", words, &[("data", &vendor)], "words");
    let training = json!({
        "arch": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 160,
            "max_position_embeddings": 256, "hidden_act": "silu", "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": true},
        "max_steps": 600, "batch_size": 64, "learning_rate": 3e-3, "lr_scheduler_type": "cosine", "warmup_steps": 30,
        "weight_decay": 0.01, "max_grad_norm": 1.0, "adam_beta1": 0.9, "adam_beta2": 0.99, "adam_epsilon": 1e-8,
        "eval_steps": 50, "early_stopping_patience": 0, "checkpoint_steps": 1000, "gradient_checkpointing": false, "seed": 1, "max_length": 256,
    });
    run(space.path(), "train", training, &[("tokenizer", "words"), ("data", &vendor)], "model");
    let records = record::read(&[seen.into()]).expect("the example's records");
    let model = Model::load(&space.path().join("model")).expect("a trained model");
    let prompt = |record: &Record| {
        model.chat.render(&Conversation::of(vec![Message::user(record.prompt())]), Ending::AwaitsAnswer, &model.tokenizer)
    };
    let texts: Vec<String> = records.iter().take(300).map(|record| prompt(record).expect("a prompt")).collect();
    for name in ["F16", "Q8_0", "Q4_0", "Q4_K_M"] {
        run(space.path(), "quantize", json!({"type": name, "pure": false}), &[("model", "model")], name);
        answers_agree(name, &space.path().join(name).join("model.gguf"), &texts, 40);
    }
}
