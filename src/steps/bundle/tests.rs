//! The step as the engine runs it: real models, quantized for real, with verdicts written as `evaluate` writes them.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;

use serde_json::json;
use tempfile::TempDir;

use super::diff;
use super::*;
use crate::base::Exit;
use crate::base::{Cancel, Digest};
use crate::model::config::tests::tiny;
use crate::model::tokenizer::tests::bytes_only;
use crate::model::{ChatTemplate, Config, Model, Weights};
use crate::steps::evaluate::report::{Check, Metric, ModelFacts};
use crate::steps::io::Listener;
use crate::steps::quantize::Quantize;
use crate::steps::{Input, InputId, Port};

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Listener for Log {
    fn line(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_string());
    }

    fn progress(&self, _: u64, _: u64, _: &'static str, _: &str) {}
}

/// A model, two quantizations of it, and room for verdicts and bundles.
struct Bench {
    space: TempDir,
    params: Params,
    log: Log,
}

impl Bench {
    fn new() -> Bench {
        let space = tempfile::tempdir().unwrap();
        let config = Config { vocab_size: 257, hidden_size: 32, head_dim: 8, intermediate_size: 64, ..tiny() };
        let mut weights = Weights::zeros(&config).unwrap();
        weights.data.iter_mut().enumerate().for_each(|(i, value)| *value = ((i * 37) % 101) as f32 / 101.0 - 0.5);
        let model = Model { config, weights, tokenizer: bytes_only(), chat: ChatTemplate::default() };
        fs::create_dir(space.path().join("student")).unwrap();
        model.save(&space.path().join("student")).unwrap();
        fs::write(space.path().join("student/training.json"), "{}").unwrap();
        for ty in ["Q8_0", "Q4_0"] {
            fs::create_dir(space.path().join(ty)).unwrap();
            let params = json!({"type": ty, "pure": false}).as_object().unwrap().clone();
            let inputs = vec![("model".into(), vec![space.path().join("student")])];
            let log = Log::default();
            let mut io = io(&space, inputs, ty, &log).0;
            Quantize.run(&Task { action: "quantize", params }, &mut io).unwrap();
        }
        let project =
            Project { name: "cold-chain".into(), version: "0.1.0".into(), license: Some("Apache-2.0".into()), ..Project::default() };
        let device = json!({"name": "fridge", "arch": "aarch64", "runtime": "llama.cpp"});
        let params = json!({"device": device, "choose": "smallest", "project": project}).as_object().unwrap().clone();
        Bench { space, params, log: Log::default() }
    }

    fn set(mut self, name: &str, value: Value) -> Bench {
        self.params.insert(name.into(), value);
        self
    }

    fn device(mut self, name: &str, value: Value) -> Bench {
        self.params["device"][name] = value;
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.space.path().join(name)
    }

    /// A verdict of the named evaluation on a model.
    fn verdict(&self, evaluation: &str, model: &str, value: f64, passed: bool) -> PathBuf {
        let file = if model == "student" { "student/model.safetensors".to_string() } else { format!("{model}/model.gguf") };
        let weights = Digest::of_file(&self.path(&file)).unwrap().0.hex();
        let facts = ModelFacts { parameters: 1, size_bytes: 1, bits_per_weight: 8.0, file_type: model.into(), weights };
        let metric = Metric { value, low: Some(value - 0.1), high: Some(value + 0.1) };
        let check = Check {
            metric: "exact_match".into(),
            on: "seen".into(),
            condition: "min".into(),
            limit: 0.7,
            value,
            low: metric.low,
            high: metric.high,
            passed,
            fatal: false,
        };
        let metrics = BTreeMap::from([("seen".to_string(), BTreeMap::from([("exact_match".to_string(), metric)]))]);
        let verdict = Verdict { format: 1, model: facts, passed, checks: vec![check], metrics, in_training: BTreeMap::new() };
        let folder = self.path(&format!("{evaluation}-{model}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("verdict.json"), serde_json::to_vec(&verdict).unwrap()).unwrap();
        folder
    }

    fn run(&self, models: &[&str], verdicts: &[Vec<PathBuf>], out: &str) -> Result<PathBuf, Failure> {
        let mut inputs = vec![("model".to_string(), models.iter().map(|name| self.path(name)).collect())];
        inputs.extend(verdicts.iter().enumerate().map(|(i, paths)| (format!("require.{i}"), paths.clone())));
        self.run_with(inputs, out)
    }

    fn run_with(&self, inputs: Vec<(String, Vec<PathBuf>)>, out: &str) -> Result<PathBuf, Failure> {
        fs::create_dir_all(self.path(out)).unwrap();
        let (mut io, out) = io(&self.space, inputs, out, &self.log);
        KIND.run(&Task { action: "bundle", params: self.params.clone() }, &mut io)?;
        Ok(out)
    }
}

fn io<'a>(space: &TempDir, inputs: Vec<(String, Vec<PathBuf>)>, out: &str, log: &'a Log) -> (Io<'a>, PathBuf) {
    let out = space.path().join(out);
    let io = Io {
        inputs,
        out: out.clone(),
        checkpoint: space.path().join("checkpoint"),
        cancel: Cancel::default(),
        threads: 1,
        now: None,
        listener: log,
    };
    (io, out)
}

#[test]
fn the_smallest_that_passes_is_bundled() {
    let bench = Bench::new();
    let verdicts = vec![vec![bench.verdict("commands", "Q8_0", 0.8, true), bench.verdict("commands", "Q4_0", 0.75, true)]];
    let out = bench.run(&["Q8_0", "Q4_0"], &verdicts, "out").unwrap();
    let summary = crate::bundle::verify(&out).unwrap();
    let description = &summary.description;
    assert_eq!((description.model.file_type.as_str(), description.entry.model.as_str()), ("Q4_0", "model.gguf"));
    assert_eq!(description.evaluations[0].metrics["seen"]["exact_match"].value, 0.75);
    assert!(description.evaluations[0].gates[0].passed);
    assert!(description.chat_template.is_some());
    let config = &summary.config.config;
    assert_eq!((config.format.as_deref(), config.quantization.as_deref(), config.precision.as_deref()), (Some("gguf"), Some("q4_0"), None));
    let paths: Vec<&str> = summary.layers.iter().map(|layer| layer.path.as_str()).collect();
    assert_eq!(paths, ["model.gguf", "README.md", "slmops-bundle.json"]);
    crate::bundle::extract(&out, &bench.path("unpacked")).unwrap();
    let loaded = Model::load(&bench.path("unpacked")).unwrap();
    assert_eq!(loaded.weights.parameters() as u64, description.model.parameters);
    insta::assert_snapshot!(fs::read_to_string(bench.path("unpacked/README.md")).unwrap());
    assert_eq!(bench.log.0.lock().unwrap().len(), 3);
}

#[test]
fn the_best_by_a_metric_is_bundled() {
    let bench = Bench::new().set("choose", json!("best exact_match on seen"));
    let verdicts = vec![vec![bench.verdict("commands", "Q4_0", 0.75, true), bench.verdict("commands", "Q8_0", 0.8, true)]];
    let out = bench.run(&["Q8_0", "Q4_0"], &verdicts, "out").unwrap();
    assert_eq!(crate::bundle::open(&out).unwrap().description.model.file_type, "Q8_0");
    let bench = bench.set("choose", json!("best exact_match on elsewhere"));
    let failure = bench.run(&["Q8_0", "Q4_0"], &verdicts, "none").unwrap_err();
    assert!(failure.message.contains("no evaluation gives exact_match on elsewhere"), "{}", failure.message);
}

#[test]
fn the_same_inputs_give_the_same_bundle() {
    let digest = || {
        let bench = Bench::new();
        let out = bench.run(&["Q8_0"], &[vec![bench.verdict("commands", "Q8_0", 0.8, true)]], "out").unwrap();
        crate::bundle::open(&out).unwrap().digest
    };
    assert_eq!(digest(), digest());
}

#[test]
fn a_folder_is_bundled_for_a_runtime_that_reads_it() {
    let bench = Bench::new().device("runtime", json!("transformers"));
    let out = bench.run(&["Q8_0", "student"], &[], "out").unwrap();
    let summary = crate::bundle::verify(&out).unwrap();
    let paths: Vec<&str> = summary.layers.iter().map(|layer| layer.path.as_str()).collect();
    assert_eq!(paths[0], "model.safetensors");
    assert!(paths.contains(&"tokenizer.json") && paths.contains(&"chat_template.jinja") && !paths.contains(&"training.json"), "{paths:?}");
    assert_eq!(summary.description.entry.tokenizer.as_deref(), Some("tokenizer.json"));
    assert_eq!(summary.config.config.precision.as_deref(), Some("float32"));
    assert!(
        bench
            .log
            .0
            .lock()
            .unwrap()
            .iter()
            .any(|line| line.contains("candidate 1: Q8_0") && line.contains("transformers does not read gguf"))
    );
}

#[test]
fn every_reason_against_a_candidate_is_told() {
    let bench = Bench::new().device("storage", json!(1000)).device("memory", json!(5000)).device("context_length", json!(100_000));
    let verdicts = vec![vec![bench.verdict("commands", "Q8_0", 0.6, false)], vec![bench.verdict("safety", "student", 0.9, true)]];
    let failure = bench.run(&["Q8_0", "student"], &verdicts, "out").unwrap_err();
    assert_eq!(failure.exit, Exit::Failed);
    for words in [
        "no candidate passes and fits device `fridge`",
        "candidate 1 (Q8_0,",
        "of storage; the device has 1000 B",
        "of memory (weights ",
        "made for 64 tokens of context; the device asks for 100000",
        "gate failed: exact_match on seen is 0.6000 [0.5000, 0.7000], min is 0.7",
        "required evaluation 2 did not evaluate it",
        "candidate 2 (F32,",
        "llama.cpp does not read safetensors",
        "required evaluation 1 did not evaluate it",
    ] {
        assert!(failure.message.contains(words), "`{words}` not in\n{}", failure.message);
    }
    assert!(crate::base::files::walk(&bench.path("out")).unwrap().is_empty());
}

#[test]
fn the_limit_is_what_the_bundle_really_takes() {
    let bench = Bench::new();
    let size = crate::bundle::open(&bench.run(&["Q8_0"], &[], "out").unwrap()).unwrap().size_bytes;
    // The description tells the limit: a number with as many digits keeps the size.
    let bench = bench.device("storage", json!(size + 50));
    let size = crate::bundle::open(&bench.run(&["Q8_0"], &[], "second").unwrap()).unwrap().size_bytes;
    let bench = bench.device("storage", json!(size));
    assert_eq!(crate::bundle::open(&bench.run(&["Q8_0"], &[], "exact").unwrap()).unwrap().size_bytes, size);
    let bench = bench.device("storage", json!(size - 1));
    assert!(bench.run(&["Q8_0"], &[], "over").is_err());
}

#[test]
fn a_failed_verdict_on_the_same_weights_counts() {
    let bench = Bench::new();
    let verdicts = vec![vec![bench.verdict("a", "Q8_0", 0.8, true), bench.verdict("b", "Q8_0", 0.6, false)]];
    assert!(bench.run(&["Q8_0"], &verdicts, "out").is_err());
}

#[test]
fn more_files_come_along() {
    let bench = Bench::new().set("readme", json!("hello\n"));
    fs::create_dir_all(bench.path("app/inner")).unwrap();
    fs::write(bench.path("app/inner/run.sh"), "run").unwrap();
    fs::write(bench.path("prompts"), "{}\n").unwrap();
    let inputs = vec![
        ("model".to_string(), vec![bench.path("Q8_0")]),
        ("files.app".to_string(), vec![bench.path("app")]),
        ("files.prompts.jsonl".to_string(), vec![bench.path("prompts")]),
    ];
    let out = bench.run_with(inputs, "out").unwrap();
    let summary = crate::bundle::verify(&out).unwrap();
    let of = |path: &str| summary.layers.iter().find(|layer| layer.path == path).unwrap().role;
    assert_eq!((of("app/inner/run.sh"), of("prompts.jsonl"), of("README.md")), (Role::Code, Role::Dataset, Role::Document));
    crate::bundle::extract(&out, &bench.path("unpacked")).unwrap();
    assert_eq!(fs::read(bench.path("unpacked/README.md")).unwrap(), b"hello\n");
}

#[test]
fn a_broken_candidate_or_verdict_is_named() {
    let bench = Bench::new();
    let bytes = fs::read(bench.path("Q4_0/model.gguf")).unwrap();
    fs::write(bench.path("Q4_0/model.gguf"), &bytes[..bytes.len() - 1]).unwrap();
    let failure = bench.run(&["Q8_0", "Q4_0"], &[], "out").unwrap_err();
    assert!(failure.message.starts_with("candidate 2: cannot read a candidate: "), "{}", failure.message);
    let verdict = bench.verdict("commands", "Q8_0", 0.8, true);
    for (text, words) in [("{", "is not a verdict: not JSON: EOF"), ("[]", "is not a verdict")] {
        fs::write(verdict.join("verdict.json"), text).unwrap();
        let failure = bench.run(&["Q8_0"], &[vec![verdict.clone()]], "out").unwrap_err();
        assert!(failure.message.contains(words), "{}", failure.message);
    }
}

fn declared(device: Value, choose: &str, models: &[(&str, Artifact)], require: &[&str]) -> Declared {
    let input = |(i, (label, artifact)): (usize, (&str, Artifact))| Input { id: InputId(i as u32), label: label.into(), artifact };
    let mut params = Params::new();
    params.insert("device".into(), device);
    params.insert("choose".into(), json!(choose));
    let model = models.iter().copied().enumerate().map(input).collect();
    let require = require.iter().map(|label| (*label, Artifact::Verdict)).enumerate().map(input).collect();
    let ports = vec![Port { name: "model".into(), inputs: model }, Port { name: "require".into(), inputs: require }];
    Declared { name: "release".into(), params, ports, project: Project { name: "p".into(), version: "1".into(), ..Project::default() } }
}

fn fridge() -> Value {
    json!({"name": "fridge", "arch": "aarch64", "runtime": "llama.cpp"})
}

#[test]
fn each_required_evaluation_is_a_port_of_its_own() {
    let labels = ["commands@model=small,type=Q8_0", "commands@model=small,type=Q4_0", "safety.gate@model=small", "plain"];
    let part = KIND.expand(&declared(fridge(), "smallest", &[("small", Artifact::Quantized)], &labels)).unwrap().remove(0);
    let ports: Vec<(&str, usize)> = part.inputs.iter().map(|port| (port.name.as_str(), port.inputs.len())).collect();
    assert_eq!(ports, [("model", 1), ("require.0", 2), ("require.1", 1), ("require.2", 1)]);
    // No label is in the task, so that renaming a step builds nothing again.
    assert!(!serde_json::to_string(&part.task.params).unwrap().contains("commands"));
}

#[test]
fn mistakes_are_found_before_anything_runs() {
    let problems = |device: Value, choose: &str, artifact| KIND.expand(&declared(device, choose, &[("small", artifact)], &[])).unwrap_err();
    let first = |problems: Vec<Problem>| (problems[0].path.clone(), problems[0].message.clone());
    let (path, message) = first(problems(fridge(), "fastest", Artifact::Quantized));
    assert!(path == "choose" && message.contains("needs measurements"), "{message}");
    let (path, message) = first(problems(fridge(), "best exact_mach", Artifact::Quantized));
    assert!(path == "choose" && message.contains("unknown metric `exact_mach`"), "{message}");
    let (path, message) = first(problems(fridge(), "best exact_match", Artifact::Quantized));
    assert!(path == "choose" && message.contains("needs an evaluation"), "{message}");
    let (path, message) = first(problems(fridge(), "smallest", Artifact::Model));
    assert!(path == "model" && message.contains("no candidate can run"), "{message}");
    let mut fast = fridge();
    fast["min_tokens_per_second"] = json!(10.0);
    let (path, message) = first(problems(fast, "smallest", Artifact::Quantized));
    assert!(path == "device" && message.contains("limits speed"), "{message}");
}

#[test]
fn two_bundles_are_compared() {
    let bench = Bench::new();
    let bundle = |name: &str, value| {
        let verdict = bench.verdict("commands", name, value, true);
        bench.run(&[name], &[vec![verdict]], &format!("bundle-{name}")).unwrap()
    };
    let (q8, q4) = (diff::open(&bundle("Q8_0", 0.95)).unwrap(), diff::open(&bundle("Q4_0", 0.7)).unwrap());
    assert!(diff::diff(&q8, &q8).is_empty());
    let found = diff::diff(&q8, &q4);
    assert_eq!(found.metrics[0].apart, Some(true));
    assert!((found.metrics[0].delta.unwrap() + 0.25).abs() < 1e-9);
    assert!(found.facts.iter().any(|fact| (fact.fact, fact.a.as_deref(), fact.b.as_deref()) == ("file type", Some("Q8_0"), Some("Q4_0"))));
    assert!(found.files.iter().any(|file| file.path == "model.gguf"));
    assert!(found.tensors.iter().any(|tensor| tensor.name == "blk.0.ffn_up.weight" && tensor.b.as_deref() == Some("Q4_0 [32, 64]")));
    assert!(serde_json::to_string(&found).unwrap().contains("\"apart\":true"));
    let digest =
        |text: String| text.lines().map(|line| line.split("sha256:").next().unwrap().trim_end().to_string()).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(digest(diff::table(&found)));
}

#[test]
fn a_bundle_and_a_verdict_are_compared_in_what_both_have() {
    let bench = Bench::new();
    let verdict = bench.verdict("commands", "Q8_0", 0.8, true);
    let bundle = bench.run(&["Q8_0"], &[vec![verdict.clone()]], "out").unwrap();
    let found = diff::diff(&diff::open(&bundle).unwrap(), &diff::open(&verdict).unwrap());
    assert!(found.files.is_empty() && found.tensors.is_empty());
    assert_eq!(found.metrics[0].delta, Some(0.0));
    assert!(diff::open(&bench.path("student")).is_err());
}
