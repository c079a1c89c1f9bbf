//! Other people's software opens what the program made: transformers the model's folder, skopeo and others the bundle.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use slmops::model::{Model, Scored};

use crate::space::Space;

pub fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers")
}

pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name)
}

/// What a script of ours prints, run by the Python that has PyTorch.
pub fn python(script_name: &str, arguments: &[&Path]) -> Value {
    let output = Command::new(peers().join("venv/bin/python"))
        .arg(script(script_name))
        .args(arguments)
        .env("LD_LIBRARY_PATH", peers().join("stand-ins"))
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .expect("python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn transformers_gives_the_same_logits_tokens_and_prompts() {
    let python = peers().join("venv/bin/python");
    assert!(peers().join("venv/.done-torch-2").exists(), "PEER MISSING: transformers; run: bash tests/peers/install.sh");
    let space = Space::with_project();
    let student = "[distill.student]\nteacher = \"tiny\"\ndata = \"commands\"\nmax_steps = 40\n\
        arch = { hidden_size = 32, num_hidden_layers = 2, num_attention_heads = 4, num_key_value_heads = 2, intermediate_size = 96 }\n\n[quantize.small]";
    space.replace("slmops.toml", "[quantize.small]", student);
    space.slmops(&["build", "student"]).success();
    space.slmops(&["out", "student", "model"]).success();
    let model = Model::load(&space.join("model")).expect("our own model");
    let texts: Vec<String> = space
        .read("data/test.jsonl")
        .lines()
        .take(20)
        .map(|line| {
            let record: Value = serde_json::from_str(line).expect("JSON");
            format!("{}\n{}", record["prompt"].as_str().expect("a prompt"), record["completion"].as_str().expect("a completion"))
        })
        .collect();
    let sequences: Vec<Scored> =
        texts.iter().map(|text| Scored { tokens: model.tokenizer.encode(text).expect("tokens"), from: 1 }).collect();
    let mut cases = Vec::new();
    let vocab = model.config.vocab_size;
    model
        .score(&sequences, &mut |i, logits| {
            let rows: Vec<&[f32]> = logits.chunks(vocab).collect();
            cases.push(json!({"text": texts[i], "tokens": sequences[i].tokens, "logits": rows}));
        })
        .expect("scores");
    space.write("cases.json", &Value::from(cases).to_string());
    let output = Command::new(python)
        .arg(script("transformers_logits.py"))
        .args([space.join("model"), space.join("cases.json")])
        .env("LD_LIBRARY_PATH", peers().join("stand-ins"))
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .expect("python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found["cases"], 20);
    assert!(found["max_abs"].as_f64().expect("a number") < 1e-4, "{found}");
    assert!(found["max_logit"].as_f64().expect("a number") > 1.0, "the logits are not all zero: {found}");
    assert!(found["perplexity_moved"].as_f64().expect("a number").abs() < 1e-5, "{found}");
    assert_eq!(found["same_tokens"], true);
    assert_eq!(found["rendered"], "hello\n");
}

#[test]
fn skopeo_copies_the_bundle_unchanged() {
    let space = Space::with_project();
    space.slmops(&["build"]).success();
    let output = Command::new("bash")
        .arg(script("bundle.sh"))
        .arg(space.join("dist/lights-0.1.0-switch"))
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", peers().join("venv/bin").display()))
        .output()
        .expect("bash");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("skopeo copies it unchanged"), "{out}{err}");
}
