//! A model that learned two words learns a third, whole or by an adapter.

use serde_json::{Value, json};

use super::*;
use crate::model::Adapter;
use crate::steps::train::tests::{Bench, bytes, declared, fields, params};

/// A bench with a model of the first steps, and data that it has not seen.
fn bench() -> Bench {
    let bench = Bench::set_up();
    bench.train(json!({"max_steps": 100, "learning_rate": 2e-2}), "base", 0).unwrap();
    let lines = |from: usize| {
        let line = |i: usize| {
            format!("{}\n", json!({"prompt": format!("clear box {} of {}", i % 9, i % 7), "completion": format!("ok {}", i % 9)}))
        };
        (from..from + 60).map(line).collect::<String>()
    };
    std::fs::write(bench.path("new.jsonl"), lines(0)).unwrap();
    std::fs::write(bench.path("new-validation.jsonl"), lines(31)).unwrap();
    bench
}

fn declare(changes: Value) -> Result<Vec<Part>, Vec<Problem>> {
    let mut fields = fields(json!({"max_steps": 60, "learning_rate": 1e-2, "merge": true}));
    fields.remove("arch");
    fields.append(&mut params(changes));
    Finetune.expand(&declared(fields, &["model", "data", "validation"]))
}

fn run(bench: &Bench, changes: Value, out: &str, stop: u64) -> Result<Vec<String>, Failure> {
    let task = declare(changes).unwrap().remove(0).task;
    let inputs = [("model", "base"), ("data", "new.jsonl"), ("validation", "new-validation.jsonl")];
    bench.run(&Finetune, &task, &inputs, out, stop)
}

fn record(bench: &Bench, folder: &str) -> Value {
    serde_json::from_slice(&std::fs::read(bench.path(folder).join("training.json")).unwrap()).unwrap()
}

fn lora(targets: &[&str]) -> Value {
    json!({"r": 4, "lora_alpha": 8.0, "target_modules": targets})
}

const ALL: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

#[test]
fn a_model_learns_further_whole_or_by_an_adapter() {
    let bench = bench();
    let base = Model::load(&bench.path("base")).unwrap();
    for changes in [json!({}), json!({"lora": lora(&ALL)})] {
        let before = {
            let mut one = changes.clone();
            one.as_object_mut().unwrap().extend(params(json!({"max_steps": 1, "learning_rate": 0.0})));
            run(&bench, one, "still", 0).unwrap();
            record(&bench, "still")["validation_loss"].as_f64().unwrap()
        };
        assert!(Model::load(&bench.path("still")).unwrap().weights.data == base.weights.data, "a learning rate of zero changes nothing");
        run(&bench, changes.clone(), "out", 0).unwrap();
        let after = record(&bench, "out")["validation_loss"].as_f64().unwrap();
        assert!(after < before / 2.0, "{changes}: {after} after {before}");
        let model = Model::load(&bench.path("out")).unwrap();
        assert_eq!((&model.config, model.tokenizer.json()), (&base.config, base.tokenizer.json()));
    }
}

#[test]
fn only_the_adapted_matrices_change_and_an_adapter_apart_merges_to_the_same_model() {
    let bench = bench();
    let base = Model::load(&bench.path("base")).unwrap();
    let some = lora(&["v_proj", "q_proj"]);
    run(&bench, json!({"lora": some}), "merged", 0).unwrap();
    let merged = Model::load(&bench.path("merged")).unwrap();
    for (name, _, values) in base.weights.iter() {
        let adapted = name.contains("q_proj") || name.contains("v_proj");
        assert_eq!(merged.weights.get(name).unwrap() != values, adapted, "{name}");
    }
    run(&bench, json!({"lora": some, "merge": false}), "apart", 0).unwrap();
    let adapter = Adapter::load(&bench.path("apart"), &base.config).unwrap();
    let mut weights = base.weights.clone();
    adapter.merge(&base.config, &mut weights).unwrap();
    assert!(weights.data == merged.weights.data);
    let facts = record(&bench, "apart");
    assert_eq!((&facts["trained"], &facts["parameters"]), (&json!(adapter.weights.parameters()), &json!(base.weights.parameters())));
}

#[test]
fn interruption_threads_and_checkpointing_change_no_byte() {
    let mut bench = bench();
    let changes = |checkpointing: bool| json!({"lora": lora(&ALL), "max_steps": 12, "gradient_checkpointing": checkpointing});
    run(&bench, changes(false), "whole", 0).unwrap();
    run(&bench, changes(false), "out", 7).unwrap_err();
    bench.threads = 1;
    run(&bench, changes(true), "out", 0).unwrap();
    assert!(bytes(&bench.path("out")) == bytes(&bench.path("whole")));
}

#[test]
fn equal_adapters_have_equal_tasks_and_what_does_not_fit_is_told() {
    let task = |changes| declare(changes).unwrap().remove(0).task;
    assert_eq!(task(json!({"lora": lora(&["q_proj", "v_proj"])})), task(json!({"lora": lora(&["v_proj", "q_proj"])})));
    assert_ne!(task(json!({"lora": lora(&["q_proj"])})), task(json!({})));
    assert_eq!(declare(json!({"merge": false})).unwrap_err()[0].path, "merge");
    assert_eq!(declare(json!({"lora": lora(&["q_proj", "q_proj"])})).unwrap_err()[0].path, "lora.target_modules");
    assert_eq!(declare(json!({"lora": lora(&[])})).unwrap_err()[0].path, "lora.target_modules");
    let apart = declare(json!({"lora": lora(&ALL), "merge": false})).unwrap();
    assert_eq!(apart[0].artifact, Artifact::Files);
    let failure = run(&bench(), json!({"max_length": 999}), "out", 0).unwrap_err();
    assert!(failure.message.contains("max_length 999 is beyond the model's 64"), "{failure:?}");
}
