//! What may be asked for, and models of a few steps pruned in every way.

use serde_json::{Value, json};

use super::*;
use crate::model::Weights;
use crate::steps::Params;
use crate::steps::train::tests::{Bench, bytes, declared, params};

fn all(changes: Value) -> Params {
    let mut fields = params(json!({"nsamples": 40, "seqlen": 32, "sparsity_type": "unstructured", "exclude_modules": []}));
    fields.append(&mut params(changes));
    fields
}

fn expand(changes: Value) -> Result<Vec<Part>, Vec<Problem>> {
    Prune.expand(&declared(all(changes), &["model", "data"]))
}

fn task(changes: Value) -> Task {
    expand(changes).unwrap().remove(0).task
}

/// A bench with a model of some steps.
pub fn bench() -> Bench {
    let bench = Bench::set_up();
    bench.train(json!({"max_steps": 120, "learning_rate": 2e-2}), "base", 0).unwrap();
    bench
}

fn run(bench: &Bench, changes: Value, model: &str, out: &str) -> Result<Vec<String>, Failure> {
    bench.run(&Prune, &task(changes), &[("model", model), ("data", "data.jsonl")], out, 0)
}

fn ledger(bench: &Bench, folder: &str) -> Ledger {
    Ledger::read(&bench.path(folder)).unwrap().unwrap()
}

#[test]
fn what_is_asked_for_is_checked() {
    let wrong = |changes: Value| {
        let problems = expand(changes).unwrap_err();
        problems.into_iter().map(|problem| problem.path).collect::<Vec<_>>()
    };
    assert_eq!(wrong(json!({})), [""]);
    assert_eq!(wrong(json!({"prune_method": "wanda"})), [""]);
    assert_eq!(wrong(json!({"prune_method": "wanda", "sparsity_type": "2:4", "sparsity_ratio": 0.6})), ["sparsity_ratio"]);
    assert_eq!(wrong(json!({"prune_method": "wanda", "sparsity_type": "4:8", "per": "layer"})), ["per"]);
    assert_eq!(wrong(json!({"prune_method": "wanda", "sparsity_ratio": 0.5, "damp": 0.1, "block_size": 64})), ["damp", "block_size"]);
    assert_eq!(wrong(json!({"prune_method": "sparsegpt", "sparsity_ratio": 0.5, "per": "output"})), ["per"]);
    assert_eq!(wrong(json!({"prune_method": "sparsegpt", "sparsity_type": "4:8", "block_size": 12})), ["block_size"]);
    assert_eq!(wrong(json!({"prune_method": "wanda", "structured": {"num_hidden_layers": 1}})), ["structured"]);
    assert_eq!(wrong(json!({"structured": {}})), ["structured"]);
    assert_eq!(
        wrong(json!({"structured": {"num_hidden_layers": 1}, "sparsity_ratio": 0.5, "exclude_modules": ["o"]})),
        ["sparsity_ratio", "exclude_modules"]
    );
    let without_data = |changes| Prune.expand(&declared(all(changes), &["model"]));
    for changes in [json!({"prune_method": "sparsegpt", "sparsity_ratio": 0.5}), json!({"structured": {"intermediate_size": 8}})] {
        assert!(without_data(changes).unwrap_err()[0].label.contains("needs `data`"));
    }
    without_data(json!({"prune_method": "magnitude", "sparsity_ratio": 0.5})).unwrap();
}

#[test]
fn equal_prunings_have_equal_tasks() {
    let magnitude = |changes: Value| {
        let mut fields = params(json!({"prune_method": "magnitude", "sparsity_ratio": 0.5}));
        fields.append(&mut params(changes));
        task(Value::Object(fields))
    };
    assert_eq!(magnitude(json!({"nsamples": 7})), magnitude(json!({"per": "layer"})));
    assert_ne!(magnitude(json!({"per": "output"})), magnitude(json!({})));
    assert_eq!(magnitude(json!({"exclude_modules": ["a", "b", "a"]})), magnitude(json!({"exclude_modules": ["b", "a"]})));
    assert_eq!(
        task(json!({"prune_method": "wanda", "sparsity_type": "2:4", "sparsity_ratio": 0.5})),
        task(json!({"prune_method": "wanda", "sparsity_type": "2:4"}))
    );
    assert!(expand(json!({"prune_method": "magnitude", "sparsity_ratio": 0.5})).unwrap()[0].inputs.len() == 1);
}

#[test]
fn every_method_leaves_its_pattern_and_threads_change_no_byte() {
    let mut bench = bench();
    let base = Model::load(&bench.path("base")).unwrap();
    for method in ["magnitude", "wanda", "sparsegpt"] {
        for (kind, pattern) in [("unstructured", "unstructured"), ("2:4", "2:4"), ("4:8", "4:8")] {
            let changes = json!({"prune_method": method, "sparsity_type": kind, "sparsity_ratio": 0.5});
            bench.threads = 3;
            let said = run(&bench, changes.clone(), "base", "three").unwrap();
            assert!(said.iter().any(|line| line.contains("no kernel here skips zeros")), "{said:?}");
            bench.threads = 1;
            run(&bench, changes, "base", "one").unwrap();
            assert!(bytes(&bench.path("one")) == bytes(&bench.path("three")), "{method} {kind}");
            let (ledger, model) = (ledger(&bench, "one"), Model::load(&bench.path("one")).unwrap());
            assert_eq!((ledger.zeros * 2, ledger.pattern.as_str()), (ledger.weights, pattern), "{method}");
            assert_eq!(ledger.tensors.len(), 14);
            for (name, _, values) in base.weights.iter().filter(|(name, ..)| !name.ends_with("_proj.weight")) {
                assert_eq!(model.weights.get(name).unwrap(), values, "{name}");
            }
        }
    }
}

#[test]
fn excluded_matrices_stay_dense_and_a_slip_is_told() {
    let bench = bench();
    let prune = |exclude: Value| {
        run(&bench, json!({"prune_method": "magnitude", "sparsity_ratio": 0.3, "exclude_modules": exclude}), "base", "out")
    };
    prune(json!(["layers.0.", "down_proj"])).unwrap();
    for tensor in ledger(&bench, "out").tensors {
        let excluded = tensor.name.contains("layers.0.") || tensor.name.contains("down_proj");
        assert_eq!(tensor.pattern == "dense", excluded, "{tensor:?}");
    }
    let failure = prune(json!(["embed_tokens"])).unwrap_err();
    assert!(failure.message.contains("`embed_tokens` names no linear layer"), "{failure}");
    let arch = json!({"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
        "max_position_embeddings": 64, "hidden_act": "silu", "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": true});
    bench.train(json!({"arch": arch, "max_steps": 1}), "odd", 0).unwrap();
    let groups = |kind: &str| run(&bench, json!({"prune_method": "wanda", "sparsity_type": kind}), "odd", "out");
    groups("2:4").unwrap();
    let failure = groups("4:8").unwrap_err();
    assert!(failure.message.contains("rows of 12, which do not divide into groups of 8"), "{failure}");
}

#[test]
fn a_smaller_shape_says_what_went_and_keeps_meant_zeros() {
    let mut bench = bench();
    let shape = json!({"structured": {"num_hidden_layers": 1, "intermediate_size": 16, "num_key_value_heads": 1}});
    run(&bench, shape.clone(), "base", "small").unwrap();
    let (base, small) = (Model::load(&bench.path("base")).unwrap(), Model::load(&bench.path("small")).unwrap());
    let config = &small.config;
    assert_eq!((config.num_hidden_layers, config.intermediate_size, config.num_attention_heads, config.head_dim), (1, 16, 1, 8));
    let structure: Value = serde_json::from_slice(&std::fs::read(bench.path("small/structure.json")).unwrap()).unwrap();
    let influence = |layer: usize| structure["layers"][layer]["block_influence"].as_f64().unwrap();
    let kept = usize::from(influence(1) > influence(0));
    assert_eq!(structure["layers"][kept]["now"], 0);
    assert!(structure["layers"][1 - kept]["now"].is_null());
    let norm = |weights: &Weights, layer: usize| weights.get(&format!("model.layers.{layer}.input_layernorm.weight")).unwrap().to_vec();
    assert_eq!(norm(&small.weights, 0), norm(&base.weights, kept));
    let share = structure["layers"][kept]["channels_kept"].as_f64().unwrap();
    assert!(share > 2.0 / 3.0 && share < 1.0, "{share}");
    bench.threads = 1;
    run(&bench, shape.clone(), "base", "again").unwrap();
    assert!(bytes(&bench.path("again")) == bytes(&bench.path("small")));
    assert!(!bench.path("small/sparsity.json").exists());
    run(&bench, json!({"prune_method": "magnitude", "sparsity_ratio": 0.5}), "base", "sparse").unwrap();
    run(&bench, shape, "sparse", "both").unwrap();
    assert!(ledger(&bench, "both").zeros > 0);
    let failure = run(&bench, json!({"structured": {"num_hidden_layers": 3}}), "base", "out").unwrap_err();
    assert!(failure.message.contains("num_hidden_layers is 2: 3 cannot be left"), "{failure}");
    // Nothing goes: the same weights.
    run(&bench, json!({"structured": {"num_hidden_layers": 2}}), "base", "same").unwrap();
    assert!(Model::load(&bench.path("same")).unwrap().weights.data == base.weights.data);
}
