//! Pruned models of a few steps learn again, and their zeros stay where they are.

use super::*;
use crate::model::sparse::{Ledger, Mask};
use crate::model::{Example, Model, Scored};
use crate::steps::finetune::Finetune;
use crate::steps::prune::Prune;
use crate::steps::train::tests::{Bench, bytes, declared, fields, params};
use crate::steps::{Params, PartInput};

fn all(changes: Value) -> Params {
    let mut fields = fields(json!({
        "completions": "data", "max_new_tokens": 24, "kd_ratio": 1.0, "temperature": 1.0, "divergence": "forward_kl", "top_k": 0,
        "mask": "fixed", "max_steps": 60, "learning_rate": 5e-3,
    }));
    fields.remove("arch");
    fields.append(&mut params(changes));
    fields
}

fn expand(changes: Value) -> Vec<Part> {
    Recover.expand(&declared(all(changes), &["model", "teacher", "data", "validation"])).unwrap()
}

/// A bench with a whole model and what is left of it.
fn bench(prune: Value) -> Bench {
    let bench = Bench::set_up();
    bench.train(json!({"max_steps": 150, "learning_rate": 2e-2}), "base", 0).unwrap();
    let mut fields = params(json!({"nsamples": 40, "seqlen": 32, "sparsity_type": "unstructured", "exclude_modules": []}));
    fields.append(&mut params(prune));
    let task = Prune.expand(&declared(fields, &["model", "data"])).unwrap().remove(0).task;
    bench.run(&Prune, &task, &[("model", "base"), ("data", "data.jsonl")], "pruned", 0).unwrap();
    bench
}

fn zeros(kind: &str) -> Value {
    json!({"prune_method": "magnitude", "sparsity_type": kind, "sparsity_ratio": 0.5})
}

/// Runs all parts; the student's folder is `out`.
fn run(bench: &Bench, changes: Value, out: &str, stop: u64) -> Result<Vec<String>, Failure> {
    let parts = expand(changes);
    let folder = |suffix: &str| if suffix.is_empty() { out.to_string() } else { format!("{out}.{suffix}") };
    let mut said = Vec::new();
    for part in &parts {
        let named = part.inputs.iter().filter(|port| !port.inputs.is_empty()).map(|port| {
            let name = match (port.name.as_str(), port.inputs[0]) {
                (_, PartInput::Part(index)) => folder(parts[index].suffix),
                ("teacher", _) => "base".to_string(),
                ("model", _) => "pruned".to_string(),
                (name, _) => format!("{name}.jsonl"),
            };
            (port.name.clone(), name)
        });
        let named: Vec<(String, String)> = named.collect();
        let inputs: Vec<(&str, &str)> = named.iter().map(|(port, name)| (port.as_str(), name.as_str())).collect();
        said.extend(bench.run(&Recover, &part.task, &inputs, &folder(part.suffix), stop)?);
    }
    Ok(said)
}

fn load(bench: &Bench, folder: &str) -> Model {
    Model::load(&bench.path(folder)).unwrap()
}

#[test]
fn zeros_stay_where_they_are_and_other_weights_learn() {
    for kind in ["unstructured", "2:4"] {
        let bench = bench(zeros(kind));
        let said = run(&bench, json!({}), "out", 0).unwrap();
        assert!(said.iter().any(|line| line.contains("linear layers are zero (50.0 %")), "{said:?}");
        let (before, after) = (load(&bench, "pruned"), load(&bench, "out"));
        assert!(Mask::of(&before.weights) == Mask::of(&after.weights), "{kind}");
        let ledger = |folder: &str| Ledger::read(&bench.path(folder)).unwrap().unwrap();
        assert_eq!(ledger("out"), ledger("pruned"));
        assert_eq!(ledger("out").pattern, kind);
        let changed = before.weights.data.iter().zip(&after.weights.data).filter(|(a, b)| a != b).count();
        assert!(changed > before.weights.data.len() / 3);
    }
}

/// The mean KL divergence of a model's predictions of completions from the whole model's, in nats a token, on data of its own.
fn distance(bench: &Bench, folder: &str) -> f64 {
    let models = ["base", folder].map(|folder| load(bench, folder));
    let text = std::fs::read_to_string(bench.path("validation.jsonl")).unwrap();
    let example = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let Example { tokens, scored } =
            models[0].encoder().pair(line["prompt"].as_str().unwrap(), line["completion"].as_str().unwrap()).unwrap();
        Scored { tokens, from: scored[0].start }
    };
    let scored: Vec<Scored> = text.lines().map(example).collect();
    let log_probabilities = |model: &Model| {
        let mut found: Vec<Vec<f64>> = Vec::new();
        let mut each = |_, logits: &[f32]| {
            for row in logits.chunks(model.config.vocab_size) {
                let sum: f64 = row.iter().map(|x| libm::exp(f64::from(*x))).sum();
                found.push(row.iter().map(|x| f64::from(*x) - libm::log(sum)).collect());
            }
        };
        model.score(&scored, &mut each).unwrap();
        found
    };
    let [whole, other] = models.each_ref().map(log_probabilities);
    let row = |(p, q): (&Vec<f64>, &Vec<f64>)| p.iter().zip(q).map(|(p, q)| libm::exp(*p) * (p - q)).sum::<f64>();
    whole.iter().zip(&other).map(row).sum::<f64>() / whole.len() as f64
}

#[test]
fn what_was_recovered_is_nearer_to_the_whole_model() {
    for (prune, lora) in [
        (zeros("unstructured"), false),
        (zeros("2:4"), false),
        (zeros("2:4"), true),
        (json!({"structured": {"num_hidden_layers": 1}}), false),
        (json!({"structured": {"intermediate_size": 12}}), false),
    ] {
        let bench = bench(prune.clone());
        let mut changes = json!({});
        if lora {
            changes["lora"] =
                json!({"r": 8, "lora_alpha": 16.0, "target_modules": ["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"]});
        }
        run(&bench, changes, "out", 0).unwrap();
        let (before, after) = (distance(&bench, "pruned"), distance(&bench, "out"));
        assert!(after < 0.5 * before, "{prune}: {before} before, {after} after");
    }
}

#[test]
fn interruption_and_threads_change_no_byte() {
    let mut bench = bench(zeros("4:8"));
    run(&bench, json!({"max_steps": 12}), "whole", 0).unwrap();
    run(&bench, json!({"max_steps": 12}), "out", 7).unwrap_err();
    bench.threads = 1;
    run(&bench, json!({"max_steps": 12}), "out", 0).unwrap();
    assert!(bytes(&bench.path("out")) == bytes(&bench.path("whole")));
}

#[test]
fn an_adapter_leaves_zeros_and_free_weights_learn() {
    let bench = bench(zeros("2:4"));
    let lora = json!({"r": 4, "lora_alpha": 8.0, "target_modules": ["v_proj", "up_proj"]});
    run(&bench, json!({"lora": lora}), "adapted", 0).unwrap();
    let (before, after) = (load(&bench, "pruned"), load(&bench, "adapted"));
    assert!(Mask::of(&before.weights) == Mask::of(&after.weights));
    for (name, _, values) in before.weights.iter() {
        let adapted = name.contains("v_proj") || name.contains("up_proj");
        assert_eq!(after.weights.get(name).unwrap() != values, adapted, "{name}");
    }
    run(&bench, json!({"mask": "free", "max_steps": 5}), "free", 0).unwrap();
    assert!(Mask::of(&load(&bench, "free").weights).zeros() < 20);
    assert!(!bench.path("free/sparsity.json").exists());
}

#[test]
fn a_finetuned_model_keeps_its_zeros_and_an_adapter_apart_is_refused() {
    let bench = bench(zeros("2:4"));
    let finetune = |changes: Value| {
        let mut fields = fields(json!({"max_steps": 10, "merge": true, "mask": "fixed"}));
        fields.remove("arch");
        fields.append(&mut params(changes));
        let task = Finetune.expand(&declared(fields, &["model", "data"])).unwrap().remove(0).task;
        bench.run(&Finetune, &task, &[("model", "pruned"), ("data", "data.jsonl")], "out", 0)
    };
    finetune(json!({})).unwrap();
    assert!(Mask::of(&load(&bench, "pruned").weights) == Mask::of(&load(&bench, "out").weights));
    assert_eq!(Ledger::read(&bench.path("out")).unwrap().unwrap().pattern, "2:4");
    let lora = json!({"r": 2, "lora_alpha": 8.0, "target_modules": ["v_proj"]});
    let failure = finetune(json!({"lora": lora, "merge": false})).unwrap_err();
    assert!(failure.message.contains("would fill the model's zeros"), "{failure}");
    finetune(json!({"lora": lora, "merge": false, "mask": "free"})).unwrap();
    let text = std::fs::read_to_string(bench.path("pruned/sparsity.json")).unwrap();
    let (zeros, other) = (Ledger::read(&bench.path("pruned")).unwrap().unwrap().zeros, 3);
    std::fs::write(bench.path("pruned/sparsity.json"), text.replace(&format!("\"zeros\": {zeros}"), &format!("\"zeros\": {other}")))
        .unwrap();
    let failure = finetune(json!({})).unwrap_err();
    assert!(failure.message.contains("tells of 3 zeros"), "{failure}");
}

#[test]
fn a_smaller_shape_learns_with_all_its_weights_and_another_vocabulary_is_refused() {
    let bench = bench(json!({"structured": {"num_hidden_layers": 1}}));
    run(&bench, json!({}), "out", 0).unwrap();
    assert_eq!(load(&bench, "out").config.num_hidden_layers, 1);
    let other = params(json!({"vocab_size": 280, "min_frequency": 2, "eos_token": "<|endoftext|>", "special_tokens": []}));
    let task = Task { action: "tokenizer", params: other };
    bench.run(&crate::steps::tokenizer::Tokenizer, &task, &[("data", "data.jsonl")], "words", 0).unwrap();
    bench.train(json!({"max_steps": 1}), "pruned", 0).unwrap();
    let failure = run(&bench, json!({}), "out", 0).unwrap_err();
    assert!(failure.message.contains("is not the teacher's"), "{failure}");
}

#[test]
fn models_without_zeros_have_the_keys_that_they_had() {
    let student = |changes: Value| expand(changes).into_iter().find(|part| part.suffix.is_empty()).unwrap().task;
    assert!(!student(json!({})).params.contains_key("mask"));
    assert_ne!(student(json!({"mask": "free"})), student(json!({})));
    let lora = |order: [&str; 2]| json!({"lora": {"r": 4, "lora_alpha": 8.0, "target_modules": order}});
    assert_eq!(student(lora(["q_proj", "v_proj"])), student(lora(["v_proj", "q_proj"])));
    let wrong = Recover.expand(&declared(all(json!({"beta": 0.5})), &["model", "teacher", "data"])).unwrap_err();
    assert_eq!(wrong[0].path, "beta");
}
