//! PyTorch in double precision judges the training engine: losses, every tensor's gradient, and the weights after some steps of the real
//! training loop. PEFT judges adapters.

use std::path::Path;

use serde_json::{Value, json};
use slmops::base::Cancel;
use slmops::kernels::loss::cross_entropy;
use slmops::kernels::rng;
use slmops::model::decoder::{Batch, Decoder, Keep};
use slmops::model::lora::Target;
use slmops::model::{Activation, Adapter, Config, Example, Family, Features, Lora, Weights, safetensors};
use slmops::steps::Io;
use slmops::steps::io::Listener;
use slmops::steps::train::run::{Job, Learns, NextToken, train};
use slmops::steps::train::settings::Training;

use crate::peers::{peers, python};

const STEPS: u64 = 3;

fn grouped() -> Config {
    Config {
        family: Family::Llama,
        vocab_size: 61,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        max_position_embeddings: 64,
        hidden_act: Activation::Silu,
        sliding_window: None,
        rms_norm_eps: 1e-5,
        rope_theta: 1e4,
        tie_word_embeddings: true,
        bos_token_id: None,
        eos_token_id: Some(0),
        pad_token_id: None,
        features: Features::default(),
    }
}

/// Conversations with one or two answers, of different lengths.
fn examples(config: &Config) -> Vec<Example> {
    let token = |example, place| rng::below(3, example, place, config.vocab_size as u64) as u32;
    let of = |i: u64| {
        let length = 5 + 4 * i as usize;
        let scored = if i.is_multiple_of(2) { std::iter::once(2..length).collect() } else { vec![1..3, length - 3..length] };
        Example { tokens: (0..length as u64).map(|place| token(i, place)).collect(), scored }
    };
    (0..5).map(of).collect()
}

fn settings(config: &Config) -> Training {
    let training = json!({"max_steps": STEPS, "batch_size": examples(config).len(), "learning_rate": 0.01,
        "lr_scheduler_type": "linear", "warmup_steps": 1, "weight_decay": 0.1, "max_grad_norm": 0.05, "adam_beta1": 0.9,
        "adam_beta2": 0.95, "adam_epsilon": 1e-6, "max_length": 64, "eval_steps": 100, "early_stopping_patience": 0,
        "checkpoint_steps": 100, "gradient_checkpointing": true, "seed": 5});
    serde_json::from_value(training).expect("a training's fields")
}

/// Mean loss and gradient of the examples as one batch.
fn gradient(decoder: &mut Decoder, weights: &Weights, adapter: &[f32], examples: &[Example]) -> (f64, Vec<f32>) {
    let (mut batch, mut targets) = (Batch::default(), Vec::new());
    for example in examples {
        for scored in &example.scored {
            batch.want(scored.start - 1..scored.end - 1);
            targets.extend_from_slice(&example.tokens[scored.clone()]);
        }
        batch.push(&example.tokens[..example.tokens.len() - 1], 0..0);
    }
    let (vocab, weight) = (decoder.config.vocab_size, 1.0 / targets.len() as f32);
    let mut gradient = vec![f32::NAN; if adapter.is_empty() { weights.data.len() } else { adapter.len() }];
    decoder.forward_adapted(&weights.data, adapter, &batch, Keep::All).expect("a forward pass");
    let sum = decoder.backward_adapted(&weights.data, adapter, &batch, &mut gradient, &mut |rows, logits| {
        let mut losses = vec![0.0; rows.len()];
        cross_entropy(logits, vocab, &targets[rows], weight, &mut losses).expect("finite losses");
        Ok(losses.iter().map(|loss| f64::from(*loss)).sum())
    });
    (sum.expect("a backward pass") / targets.len() as f64, gradient)
}

struct Silent;

impl Listener for Silent {
    fn line(&self, _: &str) {}
    fn progress(&self, _: u64, _: u64, _: &'static str, _: &str) {}
}

/// What learns after the training loop's steps.
fn trained(config: &Config, settings: &Training, learns: Learns, examples: &[Example], folder: &Path) -> Vec<f32> {
    let io = Io {
        inputs: Vec::new(),
        out: folder.join("out"),
        checkpoint: folder.join("checkpoint"),
        cancel: Cancel::default(),
        threads: 2,
        now: None,
        listener: &Silent,
    };
    let mut objective = NextToken { vocab_size: config.vocab_size };
    train(Job { config, settings, learns, mask: None, examples, validation: &[], objective: &mut objective }, &io)
        .expect("a training")
        .weights
}

fn write(folder: &Path, name: &str, weights: &Weights, data: Vec<f32>) {
    let weights = Weights { layout: weights.layout.clone(), data };
    safetensors::write(&folder.join(format!("{name}.safetensors")), &weights).expect("a file of tensors");
}

fn case(settings: &Training, examples: &[Example], loss: f64, adapter: Value) -> Value {
    let tokens: Vec<&[u32]> = examples.iter().map(|example| &example.tokens[..example.tokens.len() - 1]).collect();
    let places = |example: &Example| example.scored.iter().flat_map(|scored| scored.start - 1..scored.end - 1).collect::<Vec<_>>();
    let targets = examples.iter().flat_map(|example| example.scored.iter().flat_map(|scored| &example.tokens[scored.clone()]));
    let rates: Vec<f32> = (1..=STEPS).map(|step| settings.schedule().at(step)).collect();
    json!({"tokens": tokens, "wanted": examples.iter().map(places).collect::<Vec<_>>(), "targets": targets.collect::<Vec<_>>(),
        "loss": loss, "rates": rates, "beta1": settings.adam_beta1, "beta2": settings.adam_beta2, "eps": settings.adam_epsilon,
        "weight_decay": settings.weight_decay, "max_grad_norm": settings.max_grad_norm, "adapter": adapter})
}

fn judge(folder: &Path, name: &str) {
    let found = python("torch_gradients.py", &[folder]);
    let within = |key: &str, limit: f64| {
        let errors = found[key].as_object().unwrap_or_else(|| panic!("{found}"));
        assert!(!errors.is_empty());
        for (tensor, error) in errors {
            let error = error.as_f64().unwrap_or(f64::NAN);
            assert!(error <= limit, "{name}: {key} of {tensor} differ by {error:.1e}");
        }
    };
    assert!(found["loss"].as_f64().unwrap_or(f64::NAN) <= 1e-6, "{name}: {}", found["loss"]);
    within("gradients", 1e-4);
    within("stepped", 1e-4);
    // A weight near its neighbour in f32 moves in steps of 10⁻⁷ of itself.
    within("changes", 1e-3);
}

#[test]
fn pytorch_in_f64_gives_the_same_gradients_and_steps() {
    assert!(peers().join("venv/.done-torch-2").exists(), "PEER MISSING: torch; run: bash tests/peers/install.sh");
    let untied = Config { tie_word_embeddings: false, num_key_value_heads: 4, ..grouped() };
    let other = Config { hidden_act: Activation::GeluTanh, sliding_window: Some(5), num_key_value_heads: 1, ..grouped() };
    for (name, config) in [("grouped and tied", grouped()), ("untied", untied), ("GeGLU with a window", other)] {
        let space = tempfile::tempdir().expect("a folder");
        let (settings, examples) = (settings(&config), examples(&config));
        let weights = Weights::random(&config, settings.seed).expect("weights");
        let (loss, gradient) = gradient(&mut Decoder::new(&config).expect("a decoder"), &weights, &[], &examples);
        write(space.path(), "gradients", &weights, gradient);
        write(space.path(), "stepped", &weights, trained(&config, &settings, Learns::All(weights.clone()), &examples, space.path()));
        write(space.path(), "model", &weights, weights.data.clone());
        std::fs::write(space.path().join("config.json"), config.to_json()).expect("a file");
        std::fs::write(space.path().join("case.json"), case(&settings, &examples, loss, Value::Null).to_string()).expect("a file");
        judge(space.path(), name);
    }
}

fn adapter(config: &Config) -> Adapter {
    let lora = Lora { r: 4, lora_alpha: 6.0, target_modules: Target::ALL.to_vec() };
    let mut adapter = Adapter::random(config, lora, 2).expect("an adapter");
    // As after some steps: neither half is zero.
    let data = &mut adapter.weights.data;
    data.iter_mut().enumerate().for_each(|(i, value)| *value += 0.1 * rng::normal(9, 9, i as u64));
    adapter
}

#[test]
fn pytorch_in_f64_gives_an_adapter_the_same_gradients_and_steps() {
    assert!(peers().join("venv/.done-torch-2").exists(), "PEER MISSING: torch; run: bash tests/peers/install.sh");
    let config = grouped();
    let space = tempfile::tempdir().expect("a folder");
    let (settings, examples, weights, adapter) =
        (settings(&config), examples(&config), Weights::random(&config, 1).expect("weights"), adapter(&config));
    let mut decoder = Decoder::with_adapter(&config, &adapter).expect("a decoder");
    write(space.path(), "model", &weights, weights.data.clone());
    write(space.path(), "adapter", &adapter.weights, adapter.weights.data.clone());
    let (loss, gradient) = gradient(&mut decoder, &weights, &adapter.weights.data, &examples);
    write(space.path(), "gradients", &adapter.weights, gradient);
    let learns = Learns::Adapter(&weights, adapter.clone());
    write(space.path(), "stepped", &adapter.weights, trained(&config, &settings, learns, &examples, space.path()));
    let facts = json!({"r": adapter.lora.r, "scale": adapter.lora.lora_alpha / adapter.lora.r as f64});
    std::fs::write(space.path().join("config.json"), config.to_json()).expect("a file");
    std::fs::write(space.path().join("case.json"), case(&settings, &examples, loss, facts).to_string()).expect("a file");
    judge(space.path(), "an adapter");
}

fn logits(decoder: &mut Decoder, weights: &Weights, adapter: &[f32], tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut batch = Batch::default();
    batch.push(tokens, 0..tokens.len());
    decoder.forward_adapted(&weights.data, adapter, &batch, Keep::Nothing).expect("a forward pass");
    let (mut rows, vocab) = (Vec::new(), decoder.config.vocab_size);
    let each = decoder.logits(&weights.data, &mut |_, logits| {
        rows.extend(logits.chunks(vocab).map(<[f32]>::to_vec));
        Ok(())
    });
    each.expect("logits");
    rows
}

#[test]
fn transformers_and_peft_open_models_and_adapters_and_say_the_same() {
    assert!(peers().join("venv/.done-peft").exists(), "PEER MISSING: peft; run: bash tests/peers/install.sh");
    let other = Config { hidden_act: Activation::GeluTanh, sliding_window: Some(5), ..grouped() };
    for (class, config) in [("LlamaForCausalLM", grouped()), ("MistralForCausalLM", other)] {
        let space = tempfile::tempdir().expect("a folder");
        let path = |name: &str| space.path().join(name);
        ["base", "adapter", "resaved"].iter().for_each(|name| std::fs::create_dir(path(name)).expect("a folder"));
        let mut weights = Weights::random(&config, 1).expect("weights");
        weights.data.iter_mut().for_each(|value| *value *= if value.abs() < 0.5 { 8.0 } else { 1.0 });
        let adapter = adapter(&config);
        std::fs::write(path("base/config.json"), config.to_json()).expect("a file");
        write(&path("base"), "model", &weights, weights.data.clone());
        adapter.save(&config, &path("adapter")).expect("an adapter's folder");
        let (mut plain, mut adapted) =
            (Decoder::new(&config).expect("a decoder"), Decoder::with_adapter(&config, &adapter).expect("a decoder"));
        let cases: Vec<Value> = examples(&config)
            .iter()
            .map(|example| {
                let tokens = &example.tokens;
                json!({"tokens": tokens, "plain": logits(&mut plain, &weights, &[], tokens),
                    "logits": logits(&mut adapted, &weights, &adapter.weights.data, tokens)})
            })
            .collect();
        std::fs::write(path("cases.json"), Value::from(cases).to_string()).expect("a file");
        let found = python("peft_logits.py", &[&path("base"), &path("adapter"), &path("cases.json"), &path("resaved")]);
        assert_eq!(found["class"], class);
        let number = |key: &str| found[key].as_f64().unwrap_or(f64::NAN);
        for key in ["plain", "adapted", "merged"] {
            assert!(number(key) < 1e-4, "{key}: {found}");
        }
        assert!(number("effect") > 0.1 && number("largest") > 0.5, "{found}");
        let again = Adapter::load(&path("resaved"), &config).expect("what PEFT wrote");
        assert_eq!((again.lora, again.weights.data), (adapter.lora, adapter.weights.data));
    }
}
