//! The step as the engine runs it, and what `quantize` makes of it.

use serde_json::json;

use super::*;
use crate::base::Cancel;
use crate::model::config::tests::tiny;
use crate::model::gguf;
use crate::model::tokenizer::tests::bytes_only;
use crate::model::{ChatTemplate, Config, Weights};
use crate::steps::io::Listener;
use crate::steps::quantize::Quantize;
use crate::steps::quantize::record::Quantization;

struct Quiet;

impl Listener for Quiet {
    fn line(&self, _: &str) {}
    fn progress(&self, _: u64, _: u64, _: &'static str, _: &str) {}
}

struct Bench {
    space: tempfile::TempDir,
}

impl Bench {
    fn set_up() -> Bench {
        let config = Config { vocab_size: 257, hidden_size: 32, head_dim: 8, intermediate_size: 256, ..tiny() };
        let weights = Weights::random(&config, 5).unwrap();
        let space = tempfile::tempdir().unwrap();
        let folder = space.path().join("model");
        std::fs::create_dir(&folder).unwrap();
        Model { config, weights, tokenizer: bytes_only(), chat: ChatTemplate::default() }.save(&folder).unwrap();
        let line = |i: usize| format!("{}\n", json!({"prompt": format!("open box {i}"), "completion": format!("yes {}", i * 7)}));
        std::fs::write(space.path().join("data.jsonl"), (0..60).map(line).collect::<String>()).unwrap();
        std::fs::write(space.path().join("empty.jsonl"), "").unwrap();
        Bench { space }
    }

    fn run(&self, kind: &dyn Kind, inputs: &[(&str, &str)], out: &str, params: serde_json::Value, threads: usize) -> Result<(), Failure> {
        let out = self.space.path().join(out);
        std::fs::create_dir(&out).unwrap();
        let inputs = inputs.iter().map(|(port, name)| (port.to_string(), vec![self.space.path().join(name)])).collect();
        let mut io = Io { inputs, checkpoint: out.clone(), out, cancel: Cancel::default(), threads, now: None, listener: &Quiet };
        kind.run(&Task { action: "run", params: params.as_object().unwrap().clone() }, &mut io)
    }

    fn calibrate(&self, data: &str, out: &str, length: usize, threads: usize) -> Result<(), Failure> {
        let params = json!({"nsamples": 20, "seqlen": length});
        self.run(&Calibrate, &[("model", "model"), ("data", data)], out, params, threads)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.space.path().join(name)).unwrap()
    }
}

#[test]
fn the_same_text_gives_the_same_bytes_and_quantize_heeds_them() {
    let bench = Bench::set_up();
    bench.calibrate("data.jsonl", "a", 48, 1).unwrap();
    bench.calibrate("data.jsonl", "b", 48, 3).unwrap();
    assert!(bench.bytes("a/imatrix.gguf") == bench.bytes("b/imatrix.gguf"));
    let imatrix = read(&bench.space.path().join("a")).unwrap();
    assert_eq!((imatrix.chunk_count, imatrix.chunk_size), (20, 48));
    assert!(imatrix.datasets[0].starts_with("blake3:"));
    let quantize = |out: &str, imatrix: &[(&str, &str)]| {
        let inputs = [&[("model", "model")], imatrix].concat();
        bench.run(&Quantize, &inputs, out, json!({"type": "Q4_K_M", "pure": false}), 2).unwrap();
        Model::load(&bench.space.path().join(out)).unwrap()
    };
    let (plain, heeded) = (quantize("plain", &[]), quantize("heeded", &[("imatrix", "a")]));
    assert!(bench.bytes("heeded/model.gguf") != bench.bytes("plain/model.gguf"));
    // What the layer's output gets wrong, expected from the matrix's diagonal, is less.
    let original = Model::load(&bench.space.path().join("model")).unwrap();
    let wrong = |model: &Model, name: &str, theirs: &str| -> f64 {
        let importance = imatrix.importance(theirs, original.weights.shape(name).unwrap()[1]).unwrap().unwrap();
        let pairs = original.weights.get(name).unwrap().iter().zip(model.weights.get(name).unwrap());
        pairs.zip(importance.iter().cycle()).map(|((a, b), w)| f64::from(*w) * f64::from(a - b) * f64::from(a - b)).sum()
    };
    for (name, theirs) in
        [("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"), ("model.layers.1.mlp.up_proj.weight", "blk.1.ffn_up.weight")]
    {
        let (plain, heeded) = (wrong(&plain, name, theirs), wrong(&heeded, name, theirs));
        assert!(heeded < 0.95 * plain, "{name}: {heeded} after {plain}");
    }
}

#[test]
fn what_cannot_be_read_is_told() {
    let bench = Bench::set_up();
    assert!(bench.calibrate("empty.jsonl", "a", 48, 1).unwrap_err().message.contains("the data is empty"));
    assert!(bench.calibrate("data.jsonl", "b", 65, 1).unwrap_err().message.contains("`seqlen` is 65; the model takes 64 tokens"));
    let failure = read(&bench.space.path().join("a")).unwrap_err();
    assert!(failure.message.contains("holds 0 importance matrices"), "{failure}");
    bench.calibrate("data.jsonl", "c", 48, 1).unwrap();
    let quantize =
        |imatrix: &str, params| bench.run(&Quantize, &[("model", "model"), ("imatrix", imatrix)], &format!("{imatrix}-q"), params, 1);
    std::fs::write(bench.space.path().join("bad.dat"), [0; 100]).unwrap();
    assert!(quantize("bad.dat", json!({"type": "Q8_0", "pure": false})).unwrap_err().message.contains("no importance matrix"));
    let rules = json!({"type": "Q8_0", "pure": false, "tensor_types": {"ffn_dwon": "Q6_K"}});
    assert!(quantize("c", rules).unwrap_err().message.contains("`ffn_dwon` gives no matrix of the model its type"));
}

#[test]
fn rules_and_recipes_fix_single_tensors() {
    let bench = Bench::set_up();
    let record = |out: &str| -> Quantization { serde_json::from_slice(&bench.bytes(&format!("{out}/quantize.json"))).unwrap() };
    let rules = json!({"type": "Q4_0", "pure": false, "tensor_types": {"ffn_down": "Q6_K", "blk.1.ffn_up": "Q8_0", "attn_q": "Q4_K"}});
    bench.run(&Quantize, &[("model", "model")], "rules", rules, 1).unwrap();
    let first = record("rules");
    let of = |name: &str| first.tensors.iter().find(|tensor| tensor.name == name).unwrap();
    assert_eq!(of("blk.0.ffn_down.weight").ty, "Q6_K");
    assert_eq!(of("blk.1.ffn_up.weight").ty, "Q8_0");
    assert_eq!(of("blk.0.ffn_up.weight").ty, "Q4_0");
    assert_eq!(
        (of("blk.0.attn_q.weight").ty.as_str(), of("blk.0.attn_q.weight").fallback.as_ref().unwrap().wanted.as_str()),
        ("Q5_0", "Q4_K")
    );
    let types: std::collections::BTreeMap<_, _> = first.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.ty.clone())).collect();
    std::fs::write(bench.space.path().join("recipe.json"), json!({"format": 1, "types": types}).to_string()).unwrap();
    bench.run(&Quantize, &[("model", "model"), ("recipe", "recipe.json")], "again", json!({"pure": false}), 1).unwrap();
    let types = |out: &str| -> Vec<_> {
        let file = gguf::open(&bench.space.path().join(out).join("model.gguf")).unwrap();
        file.header.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.ty, file.bytes(tensor).to_vec())).collect()
    };
    assert!(types("again") == types("rules"));
    assert_eq!(record("again").file_type, "Q4_0");
}
