//! The step as the plan and the engine see it: parts and problems, then answers, figures and verdicts of small random models.

mod choices;
mod judged;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::report::{Item, Report, Verdict};
use super::*;
use crate::base::{Cancel, Exit};
use crate::kernels::rng;
use crate::model::config::tests::tiny;
use crate::model::tokenizer::tests::bytes_only;
use crate::model::{ChatTemplate, Config, Model, Weights};
use crate::steps::io::Listener;
use crate::steps::{Input, InputId, Params, PartInput, Port, Project};

fn port(name: &str, ids: &[u32], artifact: Artifact) -> Port {
    let inputs = ids.iter().map(|id| Input { id: InputId(*id), label: format!("input {id}"), artifact }).collect();
    Port { name: name.into(), inputs }
}

/// Model 1, reference 2, data 10 and 11, what gate 1 compares with 2.
fn declared(metrics: &[&str], gates: Value) -> Declared {
    let params = json!({"metrics": metrics, "max_new_tokens": 8, "bootstrap": 200, "seed": 0, "gate": gates});
    Declared {
        name: "commands".into(),
        params: params.as_object().unwrap().clone(),
        ports: vec![
            port("model", &[1], Artifact::Model),
            port("data.seen", &[10], Artifact::Dataset),
            port("data.unseen", &[11], Artifact::Dataset),
            port("reference", &[2], Artifact::Model),
            port("gate.1.versus", &[2], Artifact::Model),
        ],
        project: Project::default(),
    }
}

fn gates() -> Value {
    json!([
        {"metric": "exact_match", "on": "seen", "min": 0.75, "fatal": false},
        {"metric": "exact_match", "on": "seen", "max_drop": 0.015, "fatal": false},
    ])
}

fn shape(part: &Part) -> (&str, bool, &str, Vec<&str>) {
    (part.suffix, part.hidden, part.task.action, part.inputs.iter().map(|port| port.name.as_str()).collect())
}

#[test]
fn an_evaluation_falls_apart_into_answers_figures_and_a_verdict() {
    let parts = Evaluate.expand(&declared(&["perplexity", "exact_match", "kl_divergence"], gates())).unwrap();
    let shapes: Vec<_> = parts.iter().map(shape).collect();
    let data = ["data.seen", "data.unseen"];
    let with = |first: &[&'static str]| [first, &data].concat();
    assert_eq!(shapes[0], ("answers", true, "answers", with(&["model"])));
    assert_eq!(shapes[1], ("reference-answers", true, "answers", with(&["model"])));
    assert_eq!(shapes[2], ("", false, "measure", with(&["model", "reference", "answers", "reference_answers"])));
    // What is compared with is the reference here, whose answers there are already.
    assert_eq!(shapes[3], ("versus", true, "measure", with(&["model", "reference", "answers", "reference_answers"])));
    assert_eq!(shapes[4], ("gate", false, "gate", vec!["report", "gate.1.versus"]));
    assert_eq!(parts.len(), 5);
    assert_eq!(parts[3].inputs[2].inputs, [PartInput::Part(1)]);
    assert_eq!(parts[2].task.params["metrics"], json!(["exact_match", "perplexity", "kl_divergence"]));
}

#[test]
fn what_is_compared_with_is_measured_as_its_own_evaluation_measures_it() {
    let metrics = ["exact_match", "kl_divergence"];
    let versus = Evaluate.expand(&declared(&metrics, gates())).unwrap().swap_remove(3);
    let mut sibling = declared(&metrics, gates());
    sibling.ports[0] = port("model", &[2], Artifact::Model);
    let own = Evaluate.expand(&sibling).unwrap();
    let own = own.iter().find(|part| part.suffix.is_empty()).unwrap();
    assert_eq!(own.task, versus.task);
    let names = |part: &Part| part.inputs.iter().map(|port| port.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(own), names(&versus));
}

/// What a model learned from is told for each model, so that one that is compared with is still the same part as its own evaluation.
#[test]
fn what_a_model_learned_from_is_compared_with_the_tests() {
    let with = |model: u32, lessons: &[(&str, u32)]| {
        let mut declared = declared(&["exact_match"], gates());
        declared.ports[0] = port("model", &[model], Artifact::Model);
        declared.ports.extend(lessons.iter().map(|(field, id)| port(&format!("lessons.{field}"), &[*id], Artifact::Dataset)));
        Evaluate.expand(&declared).unwrap()
    };
    let parts = with(1, &[("model", 20), ("gate.1.versus", 21)]);
    let find = |parts: &[Part], suffix: &str| parts.iter().find(|part| part.suffix == suffix).cloned().unwrap();
    assert_eq!(shape(&find(&parts, "overlap")), ("overlap", true, "overlap", vec!["lessons", "data.seen", "data.unseen"]));
    assert!(shape(&find(&parts, "")).3.contains(&"overlap"));
    let versus = find(&parts, "versus");
    let own = find(&with(2, &[("model", 21), ("gate.1.versus", 21)]), "");
    let names = |part: &Part| part.inputs.iter().map(|port| port.name.clone()).collect::<Vec<_>>();
    assert_eq!((names(&versus), &versus.task), (names(&own), &own.task));
    assert!(with(1, &[]).iter().all(|part| part.task.action != "overlap"));
}

fn overlaps(bench: &Bench, out: &str, params: Value, lessons: &str) -> Value {
    std::fs::write(bench.path("lessons.jsonl"), lessons).unwrap();
    let folder = bench.run("overlap", params, &[("lessons", "lessons.jsonl")], out).unwrap();
    serde_json::from_slice(&std::fs::read(folder.join("overlap.json")).unwrap()).unwrap()
}

#[test]
fn records_that_a_model_learned_from_are_counted() {
    let bench = Bench::new(&pairs(12));
    let lessons = "{\"prompt\":\"SET  ﬁdge 1\"}\n{\"prompt\":\"Set fridge ３!\",\"completion\":\"other\"}\n{\"text\":\"set fridge 5\"}\n\
        {\"messages\":[{\"role\":\"user\",\"content\":\"set fridge 7\"},{\"role\":\"assistant\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"more\"},{\"role\":\"assistant\",\"content\":\"b\"}]}\n";
    let found = overlaps(&bench, "o", json!({}), lessons);
    assert_eq!(found["sets"]["seen"], json!({"records": 12, "in_training": 3, "first": [3, 5, 7]}));
    // The measurement repeats it, and so does the verdict.
    bench.run("answers", json!({"max_new_tokens": 5}), &[("model", "model1")], "a").unwrap();
    let out = bench.measure(&["exact_match"], &[("model", "model1"), ("answers", "a"), ("overlap", "o")], "r").unwrap();
    assert_eq!(report(&out).sets["seen"].in_training, Some(3));
    let gate = json!({"conditions": [{"metric": "exact_match", "on": "seen", "condition": "max", "limit": 1.0, "fatal": false}], "resamples": 200, "seed": 1});
    let verdict = bench.run("gate", gate, &[("report", "r")], "g").unwrap();
    let verdict: Verdict = serde_json::from_slice(&std::fs::read(verdict.join("verdict.json")).unwrap()).unwrap();
    assert_eq!(verdict.in_training, std::collections::BTreeMap::from([("seen".to_string(), 3)]));
    assert!(
        bench.heard().contains(
            "warning: 3 of 12 records of set `seen` are in the data that the model learned from (records 3, 5, 7, counted from 0)"
        )
    );
    assert!(!bench.heard().contains("copies"));
    let none = overlaps(&bench, "none", json!({}), "{\"prompt\":\"set fridge 12\"}\n{\"prompt\":\"\"}\n");
    assert_eq!(none["sets"]["seen"]["in_training"], 0);
    let known = bench.measure(&["exact_match"], &[("model", "model1"), ("answers", "a"), ("overlap", "none")], "known").unwrap();
    let unknown = bench.measure(&["exact_match"], &[("model", "model1"), ("answers", "a")], "unknown").unwrap();
    assert_eq!((report(&known).sets["seen"].in_training, report(&unknown).sets["seen"].in_training), (Some(0), None));
}

#[test]
fn copies_in_a_test_set_are_told() {
    let mut lines = pairs(4);
    lines.push(json!({"prompt": "SET fridge 1.", "completion": "{\"id\": 1}", "id": 7}));
    lines.push(json!({"prompt": "set fridge 1", "completion": "another"}));
    let bench = Bench::new(&lines);
    bench.run("answers", json!({"max_new_tokens": 5}), &[("model", "model1")], "a").unwrap();
    bench.measure(&["exact_match"], &[("model", "model1"), ("answers", "a")], "r").unwrap();
    assert!(bench.heard().contains("warning: 1 of 6 records of set `seen` are copies of others"), "{}", bench.heard());
}

#[test]
fn gates_are_in_the_gate_alone() {
    let with = |limit: f64| {
        let gates = json!([{"metric": "exact_match", "on": "seen", "min": limit, "fatal": false}]);
        Evaluate.expand(&declared(&["exact_match"], gates)).unwrap()
    };
    let (one, two) = (with(0.5), with(0.6));
    let differing: Vec<_> = one.iter().zip(&two).filter(|(a, b)| a.task != b.task).map(|(a, _)| a.suffix).collect();
    assert_eq!(differing, ["gate"]);
    assert!(Evaluate.expand(&declared(&["exact_match"], json!([]))).unwrap().iter().all(|part| part.suffix != "gate"));
}

#[test]
fn only_what_is_needed_is_asked_for() {
    let inputs = |metrics: &[&str]| {
        let parts = Evaluate.expand(&declared(metrics, json!([]))).unwrap();
        parts.iter().find(|part| part.suffix.is_empty()).unwrap().inputs.iter().map(|port| port.name.clone()).collect::<BTreeSet<_>>()
    };
    let data = ["data.seen", "data.unseen"];
    let expect = |names: &[&str]| names.iter().chain(&data).map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!(inputs(&["perplexity"]), expect(&["model"]));
    assert_eq!(inputs(&["json_valid"]), expect(&["model", "answers"]));
    assert_eq!(inputs(&["flips"]), expect(&["model", "answers", "reference_answers"]));
    assert_eq!(inputs(&["top1_agreement"]), expect(&["model", "reference"]));
}

#[test]
fn what_is_wrong_is_said_at_its_place() {
    let gates = json!([
        {"metric": "perplexity", "on": "seen", "max": 2.0, "fatal": false},
        {"metric": "exact_match", "on": "sen", "min": 0.5, "fatal": false},
        {"metric": "exact_match", "on": "seen", "fatal": false},
        {"metric": "exact_match", "on": "seen", "max_drop": 0.1, "fatal": false},
        {"metric": "exact_match", "min": 0.1, "fatal": false},
    ]);
    let mut wrong = declared(&["exact_match", "flips"], gates);
    wrong.ports.retain(|port| port.name != "reference");
    let problems = Evaluate.expand(&wrong).unwrap_err();
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["metrics", "gate.0.metric", "gate.1.on", "gate.1.versus", "gate.2", "gate.3.max_drop", "gate.4.metric"]);
    assert_eq!(problems[2].help.as_deref(), Some("did you mean `seen`?"));
    let mut nothing = declared(&[], json!([]));
    nothing.ports.retain(|port| !port.name.starts_with("data."));
    nothing.ports.push(port("data.../x", &[3], Artifact::Dataset));
    let paths: Vec<String> = Evaluate.expand(&nothing).unwrap_err().into_iter().map(|problem| problem.path).collect();
    assert_eq!(paths, ["metrics", "data.../x"]);
}

/// Keeps what is said.
#[derive(Default)]
struct Quiet(std::sync::Mutex<Vec<String>>);

impl Listener for Quiet {
    fn line(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_string());
    }

    fn progress(&self, _: u64, _: u64, _: &'static str, _: &str) {}
}

/// A bench with two random models and a dataset, where parts are run by hand.
struct Bench {
    space: tempfile::TempDir,
    said: Quiet,
}

impl Bench {
    fn new(lines: &[Value]) -> Bench {
        let bench = Bench { space: tempfile::tempdir().unwrap(), said: Quiet::default() };
        for seed in 1..3 {
            let config = Config { vocab_size: 257, hidden_size: 32, head_dim: 8, ..tiny() };
            let mut weights = Weights::zeros(&config).unwrap();
            weights.data.iter_mut().enumerate().for_each(|(i, value)| *value = 0.3 * rng::normal(seed, 0, i as u64));
            let folder = bench.path(&format!("model{seed}"));
            std::fs::create_dir(&folder).unwrap();
            Model { config, weights, tokenizer: bytes_only(), chat: ChatTemplate::default() }.save(&folder).unwrap();
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(bench.path("data.jsonl"), text).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.space.path().join(name)
    }

    fn run(&self, action: &'static str, params: Value, inputs: &[(&str, &str)], out: &str) -> Result<PathBuf, Failure> {
        let out = self.path(out);
        std::fs::create_dir(&out).unwrap();
        let mut inputs: Vec<(String, Vec<PathBuf>)> = inputs.iter().map(|(port, name)| (port.to_string(), vec![self.path(name)])).collect();
        inputs.push(("data.seen".into(), vec![self.path("data.jsonl")]));
        let mut io = Io {
            inputs,
            out: out.clone(),
            checkpoint: out.clone(),
            cancel: Cancel::default(),
            threads: 1,
            now: None,
            listener: &self.said,
        };
        let params: Params = params.as_object().unwrap().clone();
        Evaluate.run(&Task { action, params }, &mut io).map(|()| out)
    }

    /// All that was said so far.
    fn heard(&self) -> String {
        self.said.0.lock().unwrap().join("\n")
    }

    fn measure(&self, metrics: &[&str], inputs: &[(&str, &str)], out: &str) -> Result<PathBuf, Failure> {
        self.run("measure", json!({"metrics": metrics, "resamples": 200, "seed": 1}), inputs, out)
    }
}

fn report(folder: &Path) -> Report {
    serde_json::from_slice(&std::fs::read(folder.join("report.json")).unwrap()).unwrap()
}

fn pairs(n: usize) -> Vec<Value> {
    (0..n).map(|i| json!({"prompt": format!("set fridge {i}"), "completion": format!("{{\"id\": {i}}}")})).collect()
}

const ALL: &[&str] = &["exact_match", "json_valid", "perplexity", "kl_divergence", "top1_agreement", "flips"];

#[test]
fn two_models_are_compared_on_every_metric() {
    let bench = Bench::new(&pairs(12));
    let options = json!({"max_new_tokens": 5});
    bench.run("answers", options.clone(), &[("model", "model1")], "a1").unwrap();
    bench.run("answers", options, &[("model", "model2")], "a2").unwrap();
    let inputs = [("model", "model1"), ("reference", "model2"), ("answers", "a1"), ("reference_answers", "a2")];
    let out = bench.measure(ALL, &inputs, "r1").unwrap();
    let found = report(&out);
    let set = &found.sets["seen"];
    assert_eq!(set.metrics.keys().map(String::as_str).collect::<BTreeSet<_>>(), ALL.iter().copied().collect());
    let value = |name: &str| set.metrics[name].value;
    // A random model is about as good as guessing among 257 bytes, and right never.
    assert!(value("perplexity") > 50.0 && value("perplexity") < 2000.0, "{}", value("perplexity"));
    assert!(value("kl_divergence") > 0.1 && value("top1_agreement") < 0.5);
    assert_eq!((value("exact_match"), value("flips")), (0.0, 0.0));
    assert_eq!((found.model.file_type.as_str(), found.model.bits_per_weight), ("F32", 32.0));
    let items: Vec<Item> = sets::read_lines(&out.join("items/seen.jsonl")).unwrap();
    // `{"id": 3}` and the token that ends it.
    assert_eq!((items.len(), items[3].tokens), (12, Some(10)));
}

#[test]
fn a_model_is_no_different_from_itself_and_threads_change_nothing() {
    let bench = Bench::new(&pairs(9));
    let inputs = [("model", "model1"), ("reference", "model1")];
    let on = |threads: usize, out: &str| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| bench.measure(&["perplexity", "kl_divergence", "top1_agreement"], &inputs, out)).unwrap()
    };
    let (one, three) = (on(1, "one"), on(3, "three"));
    let set = &report(&one).sets["seen"];
    assert_eq!((set.metrics["kl_divergence"].value, set.metrics["top1_agreement"].value), (0.0, 1.0));
    for name in ["report.json", "items/seen.jsonl"] {
        assert_eq!(std::fs::read(one.join(name)).unwrap(), std::fs::read(three.join(name)).unwrap());
    }
}

#[test]
fn a_model_that_answers_its_own_answers_is_right() {
    let bench = Bench::new(&pairs(6));
    let out = bench.run("answers", json!({"max_new_tokens": 4}), &[("model", "model1")], "a1").unwrap();
    let answers: Vec<Value> = sets::read_lines(&out.join("seen.jsonl")).unwrap();
    let lines: Vec<Value> =
        answers.iter().enumerate().map(|(i, a)| json!({"prompt": format!("set fridge {i}"), "completion": a["output"]})).collect();
    let again = Bench::new(&lines);
    again.run("answers", json!({"max_new_tokens": 4}), &[("model", "model1")], "a1").unwrap();
    again.run("answers", json!({"max_new_tokens": 4}), &[("model", "model2")], "a2").unwrap();
    let inputs = [("model", "model1"), ("answers", "a1"), ("reference_answers", "a2")];
    let set = report(&again.measure(&["exact_match", "flips"], &inputs, "r").unwrap()).sets["seen"].clone();
    assert_eq!(set.metrics["exact_match"].value, 1.0);
    let comparison = set.comparison.unwrap();
    assert_eq!(comparison.gained as f64 / 6.0, set.metrics["flips"].value);
}

#[test]
fn conversations_and_texts_are_scored() {
    let talk = json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bc"},
        {"role": "user", "content": "d"}, {"role": "assistant", "content": "efg"}]});
    let bench = Bench::new(&[talk, json!({"text": "hello"})]);
    let out = bench.measure(&["perplexity"], &[("model", "model1")], "r").unwrap();
    let items: Vec<Item> = sets::read_lines(&out.join("items/seen.jsonl")).unwrap();
    assert_eq!((items[0].tokens, items[1].tokens), (Some(3 + 4), Some(5)));
}

#[test]
fn an_item_that_cannot_be_measured_is_named() {
    let bench = Bench::new(&[json!({"prompt": "a", "completion": "b"}), json!({"prompt": "c"}), json!({"text": "d"})]);
    let said = |result: Result<PathBuf, Failure>| result.unwrap_err().message;
    assert!(said(bench.measure(&["perplexity"], &[("model", "model1")], "r1")).starts_with("item 1 of set `seen` has no completion"));
    let answers = bench.run("answers", json!({"max_new_tokens": 4}), &[("model", "model1")], "a1");
    assert!(said(answers).starts_with("item 2 of set `seen` is a plain text"));
    let long = Bench::new(&[json!({"prompt": "x".repeat(100), "completion": "b"})]);
    let said = |result: Result<PathBuf, Failure>| result.unwrap_err().message;
    assert!(said(long.measure(&["perplexity"], &[("model", "model1")], "r1")).contains("tokens to read; the model takes 64"));
    let answers = long.run("answers", json!({"max_new_tokens": 4}), &[("model", "model1")], "a1");
    assert!(said(answers).contains("has a prompt of 101 tokens; the model takes 64"));
}

#[test]
fn gates_pass_fail_and_fail_fatally() {
    let bench = Bench::new(&pairs(8));
    bench.measure(&["perplexity"], &[("model", "model1")], "r1").unwrap();
    bench.measure(&["perplexity"], &[("model", "model2")], "r2").unwrap();
    let judge = |condition: Value, out: &str| {
        let mut full = json!({"metric": "perplexity", "on": "seen", "fatal": false});
        full.as_object_mut().unwrap().extend(condition.as_object().unwrap().clone());
        let params = json!({"conditions": [full], "resamples": 200, "seed": 1});
        bench
            .run("gate", params, &[("report", "r1"), ("gate.0.versus", "r2")], out)
            .map(|out| serde_json::from_slice::<Verdict>(&std::fs::read(out.join("verdict.json")).unwrap()).unwrap())
    };
    let passed = judge(json!({"condition": "max", "limit": 1e6}), "g1").unwrap();
    assert!(passed.passed && passed.metrics["seen"]["perplexity"].value == passed.checks[0].value);
    let failed = judge(json!({"condition": "max", "limit": 1.5}), "g2").unwrap();
    let check = &failed.checks[0];
    assert!(!failed.passed && check.low.unwrap() < check.value && check.value < check.high.unwrap(), "{check:?}");
    let rise = judge(json!({"condition": "max_rise", "limit": 0.0, "versus": "gate.0.versus"}), "g3").unwrap();
    let drop = judge(json!({"condition": "max_drop", "limit": 0.0, "versus": "gate.0.versus"}), "g4").unwrap();
    assert_eq!(rise.checks[0].value, -drop.checks[0].value);
    assert_ne!(rise.passed, drop.passed);
    let fatal = judge(json!({"condition": "max", "limit": 1.5, "fatal": true}), "g5").unwrap_err();
    assert_eq!(fatal.exit, Exit::Failed);
    assert!(fatal.message.starts_with("a fatal gate failed: perplexity on seen is ") && fatal.message.ends_with(", max 1.5"), "{fatal}");
    assert!(!bench.path("g5").join("verdict.json").exists());
}

#[test]
fn plain_texts_are_scored_in_windows() {
    let texts = ["The fridge keeps the vaccines", "at four degrees.", "When the power fails, the nurse moves them."];
    let bench = Bench::new(&texts.map(|text| json!({"text": text})));
    let inputs = [("model", "model1"), ("reference", "model2")];
    let metrics = ["perplexity", "kl_divergence", "kl_divergence_p99"];
    let params = json!({"metrics": metrics, "resamples": 200, "seed": 1, "n_ctx": 16});
    let out = bench.run("measure", params, &inputs, "windows").unwrap();
    let items: Vec<Item> = sets::read_lines(&out.join("items/seen.jsonl")).unwrap();
    let joined = texts.join("\n");
    assert_eq!(items.len(), joined.len() / 16);
    // Against scoring the same bytes by hand.
    let model = Model::open(&bench.path("model1")).unwrap();
    let bytes = model.tokenizer.encode(&joined).unwrap();
    let scored = crate::model::Scored { tokens: bytes[16..32].to_vec(), from: 9 };
    let mut nll = 0.0;
    let each = model.score(&[scored], &mut |_, logits| {
        for (row, target) in logits.chunks(model.config.vocab_size).zip(&bytes[25..32]) {
            let sum: f64 = row.iter().map(|x| libm::exp(f64::from(*x))).sum();
            nll += libm::log(sum) - f64::from(row[*target as usize]);
        }
    });
    each.unwrap();
    assert_eq!(items[1].tokens, Some(7));
    assert!((items[1].nll.unwrap() / nll - 1.0).abs() < 1e-9, "{:?} {nll}", items[1].nll);
    let set = &report(&out).sets["seen"];
    let (least, most) = (set.kl_percentiles["0"], set.kl_percentiles["100"]);
    let p99 = set.metrics["kl_divergence_p99"];
    assert!(least <= set.kl_percentiles["50"] && p99.value <= most && p99.value == set.kl_percentiles["99"]);
    let all = items.iter().flat_map(|item| item.token_kl_divergences.as_ref().unwrap());
    assert_eq!(all.clone().count(), 7 * items.len());
    assert_eq!(all.copied().fold(0.0, f64::max), most);
    // What cannot be cut is named; so is what is too short.
    let refused = |lines: &[Value], n_ctx: usize, name: &str| {
        let bench = Bench::new(lines);
        let params = json!({"metrics": ["perplexity"], "resamples": 200, "seed": 1, "n_ctx": n_ctx});
        bench.run("measure", params, &[("model", "model1")], name).unwrap_err().message
    };
    assert!(refused(&pairs(2), 16, "a").contains("item 0 of set `seen` is not a plain text"));
    assert!(refused(&[json!({"text": "short"})], 16, "b").contains("less than one window"));
    assert!(refused(&[json!({"text": "long"})], 1 << 19, "c").contains("the model takes"));
}

#[test]
fn windows_have_no_answers() {
    let mut wrong = declared(&["exact_match"], json!([]));
    wrong.params.insert("n_ctx".into(), json!(512));
    let problems = Evaluate.expand(&wrong).unwrap_err();
    assert_eq!(problems.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(), ["n_ctx"]);
}
