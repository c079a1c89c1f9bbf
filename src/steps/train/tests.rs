//! Trainings of a few steps: resumed ones, ones on other threads, ones that diverge.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::base::{Cancel, Exit};
use crate::steps::io::Listener;
use crate::steps::{Input, InputId, Params, Port, Project};

/// Cancels once so many steps are done; 0 never.
pub struct Stopper {
    pub cancel: Cancel,
    pub after: AtomicU64,
    pub lines: std::sync::Mutex<Vec<String>>,
}

impl Listener for Stopper {
    fn line(&self, text: &str) {
        self.lines.lock().unwrap().push(text.to_string());
    }

    fn progress(&self, done: u64, _: u64, unit: &'static str, _: &str) {
        if unit == "steps" && done == self.after.load(Ordering::SeqCst) {
            self.cancel.cancel();
        }
    }
}

/// A folder with inputs, and actions run on them.
pub struct Bench {
    pub space: TempDir,
    pub threads: usize,
}

impl Bench {
    /// A bench with `data.jsonl`, `validation.jsonl` and a tokenizer that was learned from the first.
    pub fn set_up() -> Bench {
        let bench = Bench { space: tempfile::tempdir().unwrap(), threads: 2 };
        let line = |i: usize| {
            let (unit, number) = (["fridge", "freezer", "box"][i % 3], i % 9);
            json!({"prompt": format!("set {unit} {number} to {}", i % 5), "completion": format!("{{\"unit\":\"{unit} {number}\"}}")})
        };
        let lines = |range: std::ops::Range<usize>| range.map(|i| format!("{}\n", line(i))).collect::<String>();
        std::fs::write(bench.path("data.jsonl"), lines(0..60)).unwrap();
        std::fs::write(bench.path("validation.jsonl"), lines(60..72)).unwrap();
        let params = params(json!({"vocab_size": 300, "min_frequency": 2, "eos_token": "<|endoftext|>", "special_tokens": []}));
        let task = Task { action: "tokenizer", params };
        bench.run(&crate::steps::tokenizer::Tokenizer, &task, &[("data", "data.jsonl")], "words", 0).unwrap();
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.space.path().join(name)
    }

    /// Runs an action into the folder `out`, to be cancelled after so many steps; the lines that it said.
    pub fn run(&self, kind: &dyn Kind, task: &Task, inputs: &[(&str, &str)], out: &str, stop: u64) -> Result<Vec<String>, Failure> {
        let (out, checkpoint) = (self.path(out), self.path(&format!("{out}.checkpoint")));
        let _ = std::fs::remove_dir_all(&out);
        std::fs::create_dir(&out).unwrap();
        let cancel = Cancel::default();
        let listener = Stopper { cancel: cancel.clone(), after: AtomicU64::new(stop), lines: Default::default() };
        let mut io = Io {
            inputs: inputs.iter().map(|(port, name)| (port.to_string(), vec![self.path(name)])).collect(),
            checkpoint: checkpoint.clone(),
            out,
            cancel,
            threads: self.threads,
            now: None,
            listener: &listener,
        };
        kind.run(task, &mut io)?;
        // As the engine does once an action has succeeded.
        let _ = std::fs::remove_dir_all(checkpoint);
        Ok(listener.lines.into_inner().unwrap())
    }

    pub fn train(&self, fields: Value, out: &str, stop: u64) -> Result<Vec<String>, Failure> {
        let inputs = [("tokenizer", "words"), ("data", "data.jsonl"), ("validation", "validation.jsonl")];
        self.run(&Train, &task(fields), &inputs, out, stop)
    }
}

/// Every file of a folder.
pub fn bytes(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    files::walk(folder).unwrap().into_iter().map(|name| (name.clone(), std::fs::read(folder.join(name)).unwrap())).collect()
}

pub fn params(value: Value) -> Params {
    value.as_object().unwrap().clone()
}

/// A small training's fields as the manifest's reader would hand them over, some of them changed.
pub fn fields(changes: Value) -> Params {
    let mut fields = params(json!({
        "arch": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
            "max_position_embeddings": 64, "hidden_act": "silu", "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": true},
        "max_steps": 12, "batch_size": 8, "learning_rate": 1e-2, "lr_scheduler_type": "cosine", "warmup_ratio": 0.1,
        "weight_decay": 0.01, "max_grad_norm": 1.0, "adam_beta1": 0.9, "adam_beta2": 0.99, "adam_epsilon": 1e-8,
        "eval_steps": 4, "early_stopping_patience": 0, "checkpoint_steps": 5, "gradient_checkpointing": false, "seed": 3,
    }));
    fields.append(&mut params(changes));
    fields
}

pub fn declared(params: Params, ports: &[&str]) -> Declared {
    let input = |i: usize| Input { id: InputId(i as u32), label: String::new(), artifact: Artifact::Files };
    let ports = ports.iter().enumerate().map(|(i, name)| Port { name: name.to_string(), inputs: vec![input(i)] });
    Declared { name: "x".to_string(), params, ports: ports.collect(), project: Project::default() }
}

fn task(changes: Value) -> Task {
    Train.expand(&declared(fields(changes), &["tokenizer", "data", "validation"])).unwrap().remove(0).task
}

#[test]
fn a_training_learns_and_writes_a_model_and_its_curve() {
    let bench = Bench::set_up();
    bench.train(json!({"max_steps": 150, "eval_steps": 25}), "out", 0).unwrap();
    let model = Model::load(&bench.path("out")).unwrap();
    assert_eq!(model.config.eos_token_id, Some(0));
    let record: Value = serde_json::from_slice(&std::fs::read(bench.path("out/training.json")).unwrap()).unwrap();
    let loss = |i: usize| record["curve"][i]["validation_loss"].as_f64().unwrap();
    assert!(loss(0) > 2.0 * loss(5), "{record}");
    assert_eq!(record["steps"], 150);
    assert_eq!(record["parameters"], model.weights.parameters());
    let prompt = model.encoder().prompt("set freezer 4 to 2").unwrap();
    let answer =
        model.generate(&[prompt], &crate::model::Generate { max_new_tokens: 20 }, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    assert!(model.tokenizer.decode(&answer[0]).unwrap().starts_with("{\"unit\":\"fre"));
}

#[test]
fn a_killed_and_resumed_training_ends_with_the_same_bytes() {
    let bench = Bench::set_up();
    bench.train(json!({}), "whole", 0).unwrap();
    let expected = bytes(&bench.path("whole"));
    for stops in [vec![1], vec![5], vec![11], vec![2, 4, 9], vec![8, 9]] {
        let _ = std::fs::remove_dir_all(bench.path("out.checkpoint"));
        for stop in &stops {
            assert_eq!(bench.train(json!({}), "out", *stop).unwrap_err().exit, Exit::Interrupted);
        }
        let lines = bench.train(json!({}), "out", 0).unwrap();
        assert!(lines.iter().any(|line| line.contains(&format!("after step {}", stops.last().unwrap()))), "{lines:?}");
        assert!(bytes(&bench.path("out")) == expected, "stopped after {stops:?}");
    }
}

#[test]
fn a_corrupt_checkpoint_is_noticed_and_left_aside() {
    let bench = Bench::set_up();
    bench.train(json!({}), "whole", 0).unwrap();
    bench.train(json!({}), "out", 7).unwrap_err();
    let file = bench.path("out.checkpoint/checkpoint.bin");
    let mut mangled = std::fs::read(&file).unwrap();
    let middle = mangled.len() / 2;
    mangled[middle] ^= 4;
    std::fs::write(&file, mangled).unwrap();
    let lines = bench.train(json!({}), "out", 0).unwrap();
    assert!(lines.iter().any(|line| line.contains("the checkpoint is not used: its digest is wrong")), "{lines:?}");
    assert!(bytes(&bench.path("out")) == bytes(&bench.path("whole")));
}

#[test]
fn threads_change_no_byte() {
    let mut bench = Bench::set_up();
    bench.train(json!({}), "two", 0).unwrap();
    bench.threads = 1;
    bench.train(json!({}), "one", 0).unwrap();
    assert!(bytes(&bench.path("one")) == bytes(&bench.path("two")));
    bench.train(json!({"seed": 4}), "other", 0).unwrap();
    assert!(bytes(&bench.path("one")) != bytes(&bench.path("other")));
}

#[test]
fn gradient_checkpointing_changes_no_byte() {
    let bench = Bench::set_up();
    bench.train(json!({}), "all", 0).unwrap();
    bench.train(json!({"gradient_checkpointing": true}), "inputs", 0).unwrap();
    assert!(bytes(&bench.path("all")) == bytes(&bench.path("inputs")));
}

#[test]
fn training_stops_early_and_keeps_the_best_weights() {
    let bench = Bench::set_up();
    let fields = json!({"max_steps": 400, "learning_rate": 0.05, "eval_steps": 5, "early_stopping_patience": 3,
        "lr_scheduler_type": "constant"});
    bench.train(fields, "out", 0).unwrap();
    let record: Value = serde_json::from_slice(&std::fs::read(bench.path("out/training.json")).unwrap()).unwrap();
    let (steps, best) = (record["steps"].as_u64().unwrap(), record["best_step"].as_u64().unwrap());
    assert!(steps < 400 && best + 15 == steps, "{record}");
    let curve = record["curve"].as_array().unwrap();
    let least = curve.iter().map(|point| point["validation_loss"].as_f64().unwrap()).fold(f64::INFINITY, f64::min);
    assert_eq!(record["validation_loss"].as_f64().unwrap(), least);
}

#[test]
fn a_training_that_diverges_says_where() {
    let bench = Bench::set_up();
    let fields = json!({"learning_rate": 10.0, "max_grad_norm": 0.0, "warmup_ratio": 0.0, "adam_epsilon": 1e-12, "weight_decay": 10.0,
        "max_steps": 100});
    let failure = bench.train(fields, "out", 0).unwrap_err();
    assert!(failure.message.contains("at step") && failure.message.contains("finite"), "{failure:?}");
    assert_eq!(failure.exit, Exit::Failed);
}

#[test]
fn equal_trainings_have_equal_tasks_however_they_are_written() {
    let plain = task(json!({}));
    assert_eq!(plain, task(json!({"warmup_steps": 2, "warmup_ratio": 0.9, "max_length": 64})));
    assert_ne!(plain, task(json!({"warmup_steps": 3})));
    assert!(!plain.params.contains_key("warmup_ratio"));
}

#[test]
fn shapes_that_do_not_fit_are_problems() {
    let problems = |arch: Value, more: Value| {
        let mut changed = fields(more);
        changed.get_mut("arch").unwrap().as_object_mut().unwrap().append(&mut params(arch));
        Train.expand(&declared(changed, &["tokenizer", "data"])).unwrap_err()
    };
    assert_eq!(problems(json!({"num_attention_heads": 3}), json!({}))[0].path, "arch.num_attention_heads");
    assert!(problems(json!({"num_key_value_heads": 3}), json!({}))[0].message.contains("num_key_value_heads"));
    assert!(problems(json!({"head_dim": 7}), json!({}))[0].message.contains("odd"));
    assert_eq!(problems(json!({}), json!({"max_length": 65}))[0].path, "max_length");
}

#[test]
fn data_without_anything_to_learn_is_a_failure() {
    let bench = Bench::set_up();
    std::fs::write(bench.path("bare.jsonl"), "{\"prompt\": \"a\"}\n").unwrap();
    let inputs = [("tokenizer", "words"), ("data", "bare.jsonl")];
    let failure = bench.run(&Train, &task(json!({})), &inputs, "out", 0).unwrap_err();
    assert!(failure.message.contains("nothing to learn"), "{failure:?}");
}

/// The tokenizer's `eos_token` is one end, the token that the template closes a turn with another: both end answers, in a folder and in its GGUF file.
#[test]
fn what_closes_a_turn_ends_an_answer() {
    let bench = Bench::set_up();
    let lines = ["go", "halt", "wait"].map(|word| format!("{}\n", json!({"prompt": word, "completion": "stop"})));
    for name in ["data.jsonl", "validation.jsonl"] {
        std::fs::write(bench.path(name), lines.concat()).unwrap();
    }
    let chatml = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let words =
        json!({"vocab_size": 270, "min_frequency": 1, "eos_token": "<|endoftext|>", "special_tokens": ["<|im_start|>", "<|im_end|>"]});
    let task = Task { action: "tokenizer", params: params(words) };
    bench.run(&crate::steps::tokenizer::Tokenizer, &task, &[("data", "data.jsonl")], "words", 0).unwrap();
    std::fs::write(bench.path("words/chat_template.jinja"), chatml).unwrap();
    bench.train(json!({"max_steps": 80, "learning_rate": 2e-2}), "out", 0).unwrap();
    let model = Model::load(&bench.path("out")).unwrap();
    let end = model.tokenizer.special("<|im_end|>").unwrap().id;
    assert_eq!(model.config.end_tokens().collect::<Vec<_>>(), [0, end]);
    let asked = model.encoder().prompt("halt").unwrap();
    let learned = model.encoder().pair("halt", "stop").unwrap();
    // The loss goes up to the end and not to the line break behind it.
    assert_eq!(learned.tokens.get(learned.scored[0].end - 1), Some(&end));
    let generation: Value = serde_json::from_slice(&std::fs::read(bench.path("out/generation_config.json")).unwrap()).unwrap();
    assert_eq!(generation["eos_token_id"], json!([0, end]));
    let file = bench.path("out.gguf");
    let types = vec![crate::model::quant::BlockType::F32; model.weights.iter().count()];
    crate::model::gguf::save(&file, &model, 0, &types, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    for read in [model, Model::load(&file).unwrap()] {
        let go_on = &mut |_| std::ops::ControlFlow::Continue(());
        let answer = read.greedy(std::slice::from_ref(&asked), &crate::model::Generate { max_new_tokens: 20 }, go_on).unwrap().remove(0);
        assert_eq!((read.tokenizer.decode(&answer.tokens).unwrap(), answer.end), ("stop".to_string(), Some(end)));
    }
}
