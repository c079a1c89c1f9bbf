//! A model packed into sizes: what is chosen fits, and more room is used for less divergence.

use serde_json::json;

use super::*;
use crate::base::Cancel;
use crate::model::config::tests::tiny;
use crate::model::tokenizer::tests::bytes_only;
use crate::model::{ChatTemplate, Config, Weights};
use crate::steps::Port;
use crate::steps::io::Listener;
use crate::steps::quantize::Quantize;

struct Quiet;

impl Listener for Quiet {
    fn line(&self, _: &str) {}
    fn progress(&self, _: u64, _: u64, _: &'static str, _: &str) {}
}

struct Bench {
    space: tempfile::TempDir,
}

fn declared(params: serde_json::Value, ports: Vec<Port>) -> Declared {
    let params = params.as_object().unwrap().clone();
    Declared { name: "small".to_string(), params, ports, project: Default::default() }
}

impl Bench {
    fn set_up() -> Bench {
        let config = Config { vocab_size: 257, hidden_size: 64, head_dim: 16, intermediate_size: 256, ..tiny() };
        let mut weights = Weights::random(&config, 5).unwrap();
        weights.data.iter_mut().for_each(|weight| *weight *= 4.0);
        let space = tempfile::tempdir().unwrap();
        let folder = space.path().join("model");
        std::fs::create_dir(&folder).unwrap();
        Model { config, weights, tokenizer: bytes_only(), chat: ChatTemplate::default() }.save(&folder).unwrap();
        let line = |i: usize| format!("{}\n", json!({"text": format!("open box {} and see {}", i * 13 % 101, i * 7)}));
        std::fs::write(space.path().join("data.jsonl"), (0..60).map(line).collect::<String>()).unwrap();
        Bench { space }
    }

    fn run(&self, kind: &dyn Kind, inputs: &[(&str, &str)], out: &str, params: serde_json::Value, threads: usize) -> Result<(), Failure> {
        let out = self.space.path().join(out);
        std::fs::create_dir(&out).unwrap();
        let inputs = inputs.iter().map(|(port, name)| (port.to_string(), vec![self.space.path().join(name)])).collect();
        let mut io = Io { inputs, checkpoint: out.clone(), out, cancel: Cancel::default(), threads, now: None, listener: &Quiet };
        kind.run(&Task { action: "run", params: params.as_object().unwrap().clone() }, &mut io)
    }

    /// Both actions, as the plan would run them.
    fn fit(&self, out: &str, size: serde_json::Value, threads: usize) -> Result<Record, Failure> {
        let mut params = json!({"nsamples": 8, "seqlen": 32, "probe_tokens": 128});
        params.as_object_mut().unwrap().extend(size.as_object().unwrap().clone());
        let ports = ["model", "data"].map(|name| Port { name: name.to_string(), inputs: Vec::new() }).into();
        let parts = Fit.expand(&declared(params, ports)).unwrap();
        let mut inputs = vec![("model", "model".to_string()), ("data", "data.jsonl".to_string())];
        for (part, out) in parts.iter().zip([format!("{out}-shares"), out.to_string()]) {
            let folder = self.space.path().join(&out);
            std::fs::create_dir(&folder).unwrap();
            let given = inputs.iter().map(|(port, name)| (port.to_string(), vec![self.space.path().join(name)])).collect();
            let mut io = Io {
                inputs: given,
                checkpoint: folder.clone(),
                out: folder,
                cancel: Cancel::default(),
                threads,
                now: None,
                listener: &Quiet,
            };
            Fit.run(&part.task, &mut io)?;
            inputs.push(("shares", out));
        }
        Ok(serde_json::from_slice(&self.bytes(&format!("{out}/fit.json"))).unwrap())
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.space.path().join(name)).unwrap()
    }
}

#[test]
fn what_is_chosen_fits_and_room_is_used() {
    let bench = Bench::set_up();
    let mut last = f64::MAX;
    for (i, bits) in [4.8, 5.6, 7.0, 9.0].into_iter().enumerate() {
        let record = bench.fit(&format!("{i}"), json!({"bits_per_weight": bits}), 1).unwrap();
        assert!(record.divergence < last, "{bits}: {} after {last}", record.divergence);
        assert!(record.expected_divergence < 2.0 * record.divergence && record.divergence < 2.0 * record.expected_divergence, "{record:?}");
        last = record.divergence;
    }
    let size = bench.bytes("1/model.gguf").len() as u64;
    let record = bench.fit("same", json!({"max_size": size}), 3).unwrap();
    assert!(record.size_bytes <= size && record.size_bytes > size * 97 / 100, "{} of {size}", record.size_bytes);
    assert_eq!(record.size_bytes, bench.bytes("same/model.gguf").len() as u64);
}

#[test]
fn threads_change_no_byte_and_the_recipe_repeats_the_choice() {
    let bench = Bench::set_up();
    for (out, threads) in [("a", 1), ("b", 3)] {
        bench.fit(out, json!({"bits_per_weight": 5.6}), threads).unwrap();
    }
    for name in ["model.gguf", "fit.json", "recipe.json"] {
        assert!(bench.bytes(&format!("a/{name}")) == bench.bytes(&format!("b/{name}")), "{name}");
    }
    bench.run(&calibrate::Calibrate, &[("model", "model"), ("data", "data.jsonl")], "i", json!({"nsamples": 8, "seqlen": 32}), 1).unwrap();
    let inputs = [("model", "model"), ("recipe", "a"), ("imatrix", "i")];
    bench.run(&Quantize, &inputs, "again", json!({"pure": false}), 1).unwrap();
    assert!(bench.bytes("again/model.gguf") == bench.bytes("a/model.gguf"));
}

#[test]
fn a_size_that_is_too_small_is_told() {
    let bench = Bench::set_up();
    let failure = bench.fit("a", json!({"max_size": 20_000}), 1).unwrap_err();
    assert!(failure.message.contains("the smallest types take"), "{failure}");
    assert_eq!(Fit.expand(&declared(json!({}), Vec::new())).unwrap_err()[0].message, "no size is given");
    let both = json!({"max_size": 1, "bits_per_weight": 4.0});
    assert_eq!(Fit.expand(&declared(both, Vec::new())).unwrap_err()[0].message, "two sizes are given");
    // Sizes share one measurement.
    let parts = |size| Fit.expand(&declared(json!({"max_size": size, "probe_tokens": 64}), Vec::new())).unwrap();
    assert_eq!(parts(1)[0].task, parts(2)[0].task);
    assert_ne!(parts(1)[1].task, parts(2)[1].task);
}
