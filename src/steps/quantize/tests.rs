//! The step as the engine runs it.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::*;
use crate::base::Cancel;
use crate::model::config::tests::tiny;
use crate::model::tokenizer::tests::bytes_only;
use crate::model::{ChatTemplate, Config, Weights, gguf};
use crate::steps::io::Listener;

struct Quiet;

impl Listener for Quiet {
    fn line(&self, _: &str) {}
    fn progress(&self, _: u64, _: u64, _: &'static str, _: &str) {}
}

fn folder() -> tempfile::TempDir {
    let config = Config { vocab_size: 257, hidden_size: 32, head_dim: 8, intermediate_size: 256, ..tiny() };
    let mut weights = Weights::zeros(&config).unwrap();
    weights.data.iter_mut().enumerate().for_each(|(i, value)| *value = ((i * 37) % 101) as f32 / 101.0 - 0.5);
    let space = tempfile::tempdir().unwrap();
    Model { config, weights, tokenizer: bytes_only(), chat: ChatTemplate::default() }.save(space.path()).unwrap();
    space
}

fn run(model: &Path, out: PathBuf, params: serde_json::Value, cancel: Cancel) -> Result<(), Failure> {
    run_on(1, model, out, params, cancel)
}

fn run_on(threads: usize, model: &Path, out: PathBuf, params: serde_json::Value, cancel: Cancel) -> Result<(), Failure> {
    let params = params.as_object().unwrap().clone();
    let mut io = Io {
        inputs: vec![("model".into(), vec![model.into()])],
        checkpoint: out.clone(),
        out,
        cancel,
        threads,
        now: None,
        listener: &Quiet,
    };
    Quantize.run(&Task { action: "quantize", params }, &mut io)
}

#[test]
fn every_type_writes_a_file_that_loads() {
    let model = folder();
    for name in preset::NAMES {
        let out = tempfile::tempdir().unwrap();
        run(model.path(), out.path().into(), json!({"type": name, "pure": false}), Cancel::default()).unwrap();
        let loaded = Model::load(out.path()).unwrap();
        assert_eq!(loaded.config.hidden_size, 32);
        let record: Quantization = serde_json::from_slice(&std::fs::read(out.path().join("quantize.json")).unwrap()).unwrap();
        assert_eq!(record.parameters, loaded.weights.parameters() as u64);
        let file = gguf::open(&out.path().join("model.gguf")).unwrap();
        let packed: usize = file.header.tensors.iter().map(|tensor| tensor.bytes.len()).sum();
        assert_eq!(record.size_bytes, packed as u64);
        assert_eq!(record.fallbacks > 0, name.contains("_K") || !matches!(*name, "F16" | "Q8_0"), "{name}");
        assert!(record.relative_error > 0.0 && record.relative_error < 0.3, "{name}: {}", record.relative_error);
    }
}

#[test]
fn the_record_says_what_fell_back_and_why() {
    let (model, out) = (folder(), tempfile::tempdir().unwrap());
    run(model.path(), out.path().into(), json!({"type": "Q4_K_M", "pure": true}), Cancel::default()).unwrap();
    let record: Quantization = serde_json::from_slice(&std::fs::read(out.path().join("quantize.json")).unwrap()).unwrap();
    let of = |name: &str| record.tensors.iter().find(|tensor| tensor.name == name).unwrap();
    assert_eq!((of("blk.0.ffn_down.weight").ty.as_str(), &of("blk.0.ffn_down.weight").fallback), ("Q4_K", &None));
    let fallback = of("blk.0.attn_q.weight").fallback.as_ref().unwrap();
    assert_eq!((of("blk.0.attn_q.weight").ty.as_str(), fallback.wanted.as_str()), ("Q5_0", "Q4_K"));
    assert_eq!(fallback.reason, "rows of 32 are no whole number of blocks of 256");
    assert_eq!(of("output_norm.weight").ty, "F32");
}

#[test]
fn the_same_model_gives_the_same_bytes() {
    let model = folder();
    let bytes = |threads| {
        let out = tempfile::tempdir().unwrap();
        run_on(threads, model.path(), out.path().into(), json!({"type": "Q3_K_M", "pure": false}), Cancel::default()).unwrap();
        (std::fs::read(out.path().join("model.gguf")).unwrap(), std::fs::read(out.path().join("quantize.json")).unwrap())
    };
    assert!(bytes(1) == bytes(3));
}

#[test]
fn it_stops_when_asked_and_names_what_is_wrong() {
    let model = folder();
    let out = tempfile::tempdir().unwrap();
    let cancel = Cancel::default();
    cancel.cancel();
    let failure = run(model.path(), out.path().into(), json!({"type": "Q8_0", "pure": false}), cancel).unwrap_err();
    assert_eq!(failure.exit, crate::base::Exit::Interrupted);
    std::fs::write(model.path().join("config.json"), "{").unwrap();
    let out = tempfile::tempdir().unwrap();
    let failure = run(model.path(), out.path().into(), json!({"type": "Q8_0", "pure": false}), Cancel::default()).unwrap_err();
    assert!(failure.message.contains("cannot open the model: config.json is malformed"), "{failure}");
}

/// Q4_0 and Q8_0 have a zero in every block, K types with a minimum only where it happens to lie on a level.
#[test]
fn what_became_of_meant_zeros_is_told() {
    use crate::model::sparse::{Ledger, Pattern, score};
    let space = folder();
    let mut model = Model::load(space.path()).unwrap();
    let name = "model.layers.0.mlp.down_proj.weight";
    score::prune(model.weights.get_mut(name).unwrap(), 256, Pattern::Groups { zeros: 2, of: 4 }, None);
    model.save(space.path()).unwrap();
    let ledger = Ledger::of(&model.weights);
    let zeros = |ty: &str| {
        let out = tempfile::tempdir().unwrap();
        run(space.path(), out.path().into(), json!({"type": ty, "pure": true}), Cancel::default()).unwrap();
        let record: Quantization = serde_json::from_slice(&std::fs::read(out.path().join("quantize.json")).unwrap()).unwrap();
        record.sparsity.map(|sparsity| (sparsity.zeros, sparsity.kept))
    };
    assert_eq!(zeros("Q4_0"), None);
    ledger.write(space.path()).unwrap();
    for ty in ["F16", "Q8_0", "Q4_0", "Q6_K"] {
        assert_eq!(zeros(ty), Some((ledger.zeros, ledger.zeros)), "{ty}");
    }
    let (all, kept) = zeros("Q4_K_M").unwrap();
    assert!(all == ledger.zeros && kept < all, "{kept} of {all}");
}

mod gptq {
    use super::*;

    fn run(threads: usize, model: &Path, out: PathBuf, data: &Path) -> Result<(), Failure> {
        let params = json!({"type": "Q4_0", "pure": false, "method": "gptq", "nsamples": 8, "seqlen": 32});
        let inputs = vec![("model".into(), vec![model.into()]), ("data".into(), vec![data.into()])];
        let mut io = Io { inputs, checkpoint: out.clone(), out, cancel: Cancel::default(), threads, now: None, listener: &Quiet };
        Quantize.run(&Task { action: "quantize", params: params.as_object().unwrap().clone() }, &mut io)
    }

    /// The matrices of the layers are others than without a text, the embedding is not; three threads give one's bytes.
    #[test]
    fn layers_are_rounded_by_what_they_read() {
        let (model, data) = (folder(), tempfile::tempdir().unwrap());
        let data = data.path().join("text.jsonl");
        std::fs::create_dir_all(data.parent().unwrap()).unwrap();
        std::fs::write(&data, "{\"text\": \"open the vaccine fridge, please, and close the other one again before noon\"}\n".repeat(6))
            .unwrap();
        let outs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        run(1, model.path(), outs[0].path().into(), &data).unwrap();
        run(3, model.path(), outs[1].path().into(), &data).unwrap();
        super::run(model.path(), outs[2].path().into(), json!({"type": "Q4_0", "pure": false}), Cancel::default()).unwrap();
        let file = |i: usize| std::fs::read(outs[i].path().join("model.gguf")).unwrap();
        assert!(file(0) == file(1));
        let (rounded, plain) = (Model::load(outs[0].path()).unwrap().weights, Model::load(outs[2].path()).unwrap().weights);
        let same = |name: &str| rounded.get(name).unwrap() == plain.get(name).unwrap();
        assert!(same("model.embed_tokens.weight") && same("model.norm.weight"));
        for name in ["self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"] {
            assert!(!same(&format!("model.layers.1.{name}.weight")), "{name}");
        }
    }

    #[test]
    fn an_empty_text_is_told() {
        let (model, space) = (folder(), tempfile::tempdir().unwrap());
        let data = space.path().join("text.jsonl");
        std::fs::write(&data, "").unwrap();
        assert!(run(1, model.path(), space.path().join("out"), &data).unwrap_err().message.contains("empty"));
    }
}
