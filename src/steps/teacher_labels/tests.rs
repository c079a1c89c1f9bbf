//! A small teacher that has learned to answer in JSON, asked greedily and by chance, stopped and resumed.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::ask::Given;
use super::keep::Ledger;
use super::*;
use crate::base::{Cancel, Exit};
use crate::model::Model;
use crate::steps::dataset::record;
use crate::steps::evaluate::report::Report;
use crate::steps::io::Listener;
use crate::steps::train::tests::{Bench, bytes, params};
use crate::steps::{Input, InputId, PartInput, Port, Project};

const SCHEMA: &str = r#"{"type": "object", "required": ["unit"], "properties": {"unit": {"type": "string", "pattern": "^(fridge|box) "}}}"#;

/// A bench with a teacher, prompts with keys of their own, and a schema.
fn bench() -> Bench {
    let bench = Bench::set_up();
    bench.train(json!({"max_steps": 150, "learning_rate": 2e-2}), "teacher", 0).unwrap();
    let line = |i: usize| match i % 4 {
        3 => json!({"messages": [{"role": "user", "content": format!("set box {i}")}, {"role": "assistant", "content": "?"}], "id": i}),
        _ => json!({"prompt": format!("set {} {} to {}", ["fridge", "freezer", "box"][i % 3], i % 9, i % 5), "completion": "?", "id": i}),
    };
    let lines: String = (0..80).map(|i| format!("{}\n", line(i))).collect();
    std::fs::write(bench.path("prompts.jsonl"), lines).unwrap();
    std::fs::write(bench.path("schema.json"), SCHEMA).unwrap();
    bench
}

fn declared(changes: Value) -> Declared {
    let mut params = params(json!({"decode": "greedy", "num_samples": 1, "max_new_tokens": 24, "seed": 0, "max_dropped": 1.0}));
    params.extend(changes.as_object().unwrap().clone());
    let port = |name: &str, id: u32| Port {
        name: name.to_string(),
        inputs: vec![Input { id: InputId(id), label: String::new(), artifact: Artifact::Files }],
    };
    let mut ports = vec![port("teacher", 1), port("prompts", 2)];
    if params.get("validate").is_some_and(|validate| validate["json_schema"].is_string()) {
        params["validate"].as_object_mut().unwrap().remove("json_schema");
        ports.push(port("validate.json_schema", 3));
    }
    Declared { name: "labels".to_string(), params, ports, project: Project::default() }
}

fn parts(changes: Value) -> Vec<Part> {
    TeacherLabels.expand(&declared(changes)).unwrap()
}

fn ask(bench: &Bench, changes: Value, out: &str) -> PathBuf {
    bench.run(&TeacherLabels, &parts(changes)[0].task, &[("teacher", "teacher"), ("prompts", "prompts.jsonl")], out, 0).unwrap();
    bench.path(out)
}

fn keep(bench: &Bench, changes: Value, answers: &str, out: &str) -> Result<Vec<String>, Failure> {
    let part = parts(changes).swap_remove(1);
    let mut inputs = vec![("prompts", "prompts.jsonl"), ("answers", answers)];
    inputs.extend(part.inputs.iter().any(|port| port.name == "json_schema").then_some(("json_schema", "schema.json")));
    bench.run(&TeacherLabels, &part.task, &inputs, out, 0)
}

fn ledger(bench: &Bench, out: &str) -> Ledger {
    serde_json::from_slice(&std::fs::read(bench.path(out).join("teacher_labels.json")).unwrap()).unwrap()
}

fn given(folder: &std::path::Path) -> Vec<Given> {
    let text = std::fs::read_to_string(folder.join("answers.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn sampled() -> Value {
    json!({"decode": "sample", "temperature": 1.4, "top_k": 50, "top_p": 0.97, "num_samples": 12, "seed": 4})
}

#[test]
fn a_step_asks_once_and_keeps_by_what_is_demanded() {
    let all = parts(json!({"decode": "sample", "num_samples": 3, "validate": {"json_schema": "schema", "min_confidence": 0.5}}));
    assert_eq!((all[0].suffix, all[0].hidden, all[0].task.action), ("answers", true, "answers"));
    assert_eq!((all[1].suffix, all[1].artifact), ("", Artifact::Dataset));
    let ports: Vec<&str> = all[1].inputs.iter().map(|port| port.name.as_str()).collect();
    assert_eq!((ports, &all[1].inputs[1].inputs), (vec!["prompts", "answers", "json_schema"], &vec![PartInput::Part(0)]));
    let stricter = parts(json!({"decode": "sample", "num_samples": 3, "validate": {"regex": "x"}, "max_dropped": 0.1}));
    assert_eq!(stricter[0].task, all[0].task);
    // What a greedy answer does not depend on is not in its key.
    assert_eq!(parts(json!({"seed": 1}))[0].task, parts(json!({"seed": 2}))[0].task);
    assert_ne!(parts(json!({"decode": "sample", "seed": 1}))[0].task, parts(json!({"decode": "sample", "seed": 2}))[0].task);
}

#[test]
fn mistakes_are_said_at_their_place() {
    let wrong = declared(json!({"temperature": 0.7, "top_p": 0.9, "num_samples": 2, "validate": {"regex": "["}}));
    let paths: Vec<String> = TeacherLabels.expand(&wrong).unwrap_err().into_iter().map(|problem| problem.path).collect();
    assert_eq!(paths, ["temperature", "top_p", "num_samples", "validate.regex"]);
}

#[test]
fn greedy_answers_become_a_dataset_with_their_confidence() {
    let bench = bench();
    ask(&bench, json!({}), "answers");
    let demands = json!({"validate": {"json_schema": "schema", "regex": "unit", "min_confidence": 0.2}});
    let said = keep(&bench, demands, "answers", "labels").unwrap();
    let ledger = ledger(&bench, "labels");
    assert_eq!((ledger.prompts, ledger.asked), (80, 80));
    let reasons: Vec<&str> = ledger.dropped.keys().map(String::as_str).collect();
    assert!(reasons.contains(&"json_schema"), "a freezer is not what the schema allows: {said:?}");
    assert_eq!(ledger.kept + ledger.dropped.values().sum::<u64>(), 80);
    assert_eq!(ledger.prompts_without_label, 80 - ledger.kept);
    let (mut lines, answers) = (Vec::new(), given(&bench.path("answers")));
    record::read_lines(&[bench.path("labels")], &mut |line| {
        lines.push(line);
        Ok(())
    })
    .unwrap();
    assert_eq!(lines.len() as u64, ledger.kept);
    let ids: Vec<u64> = lines.iter().map(|line| line.extra["id"].as_u64().unwrap()).collect();
    assert!(ids.is_sorted() && ids.iter().any(|id| id % 4 == 3), "conversations are asked, too: {ids:?}");
    // As the model itself answers and scores.
    let teacher = Model::open(&bench.path("teacher")).unwrap();
    for line in &lines {
        let id = line.extra["id"].as_u64().unwrap() as usize;
        assert_eq!(line.record.completion().as_deref(), answers[id].output.as_deref());
        let tokens = teacher.encoder().prompt(&line.record.prompt()).unwrap();
        let options = crate::model::Generate { max_new_tokens: 24 };
        let alone = teacher.generate(&[tokens], &options, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
        assert_eq!(line.record.completion().unwrap(), teacher.tokenizer.decode(&alone[0]).unwrap());
        let confidence = line.extra["confidence"].as_f64().unwrap();
        assert!((0.2..=1.0).contains(&confidence) && !line.extra.contains_key("sample"), "{confidence}");
    }
    let mean = lines.iter().map(|line| line.extra["confidence"].as_f64().unwrap()).sum::<f64>() / lines.len() as f64;
    assert!((ledger.mean_confidence - mean).abs() < 1e-12);
}

#[test]
fn a_confidence_is_what_perplexity_says() {
    let bench = bench();
    ask(&bench, json!({}), "answers");
    keep(&bench, json!({}), "answers", "labels").unwrap();
    // An evaluation of the teacher on its own labels: exp(nll / tokens) is 1 / confidence.
    let inputs = [("model", "teacher"), ("data.own", "labels")];
    let params = params(json!({"metrics": ["perplexity"], "resamples": 100, "seed": 0}));
    let evaluate = crate::steps::evaluate::Evaluate;
    bench.run(&evaluate, &Task { action: "measure", params }, &inputs, "report", 0).unwrap();
    let report: Report = serde_json::from_slice(&std::fs::read(bench.path("report/report.json")).unwrap()).unwrap();
    let items = std::fs::read_to_string(bench.path("report/items/own.jsonl")).unwrap();
    let labels = std::fs::read_to_string(bench.path("labels/data.jsonl")).unwrap();
    let mut compared = 0;
    for (item, label) in items.lines().zip(labels.lines()) {
        let (item, label): (Value, Value) = (serde_json::from_str(item).unwrap(), serde_json::from_str(label).unwrap());
        let per_token = item["nll"].as_f64().unwrap() / item["tokens"].as_f64().unwrap();
        let confidence = label["confidence"].as_f64().unwrap();
        // A completion that is cut into other tokens than it was made of has another probability.
        compared += u32::from((libm::exp(-per_token) / confidence - 1.0).abs() < 1e-6);
    }
    assert!(compared as u64 * 10 >= report.sets["own"].items * 9, "{compared} of {}", report.sets["own"].items);
}

#[test]
fn samples_differ_and_threads_and_company_change_nothing() {
    let mut bench = bench();
    let two = given(&ask(&bench, sampled(), "two"));
    assert_eq!((two.len(), two[13].prompt, two[13].sample), (80 * 12, 1, 1));
    let of_first: std::collections::BTreeSet<_> = two[..12].iter().map(|given| given.output.clone()).collect();
    assert!(of_first.len() > 1, "{of_first:?}");
    bench.threads = 5;
    ask(&bench, sampled(), "five");
    assert_eq!(bytes(&bench.path("two")), bytes(&bench.path("five")));
    // Fewer samples are the first ones of more.
    let mut fewer = sampled();
    fewer["num_samples"] = json!(1);
    let one = given(&ask(&bench, fewer, "one"));
    assert_eq!(one, two.iter().filter(|given| given.sample == 0).cloned().collect::<Vec<_>>());
    keep(&bench, sampled(), "two", "labels").unwrap();
    let labels = std::fs::read_to_string(bench.path("labels/data.jsonl")).unwrap();
    assert!(labels.contains("\"sample\":11") && ledger(&bench, "labels").kept > 80);
}

/// Stops when the first piece is done.
struct Stopper(Cancel);

impl Listener for Stopper {
    fn line(&self, _: &str) {}

    fn progress(&self, done: u64, _: u64, _: &'static str, _: &str) {
        if done > 600 {
            self.0.cancel();
        }
    }
}

#[test]
fn a_stopped_step_goes_on_to_the_same_bytes() {
    let bench = bench();
    ask(&bench, sampled(), "whole");
    let task = parts(sampled()).swap_remove(0).task;
    let run = |cancels: bool| {
        let cancel = Cancel::default();
        let listener = Stopper(if cancels { cancel.clone() } else { Cancel::default() });
        let (out, checkpoint) = (bench.path("part"), bench.path("part.checkpoint"));
        let _ = std::fs::remove_dir_all(&out);
        std::fs::create_dir(&out).unwrap();
        let inputs = [("teacher", "teacher"), ("prompts", "prompts.jsonl")];
        let inputs = inputs.iter().map(|(port, name)| (port.to_string(), vec![bench.path(name)])).collect();
        TeacherLabels.run(&task, &mut Io { inputs, out, checkpoint, cancel, threads: 2, now: None, listener: &listener })
    };
    assert_eq!(run(true).unwrap_err().exit, Exit::Interrupted);
    let pieces = bytes(&bench.path("part.checkpoint"));
    assert_eq!(pieces.len(), 1);
    assert!(bytes(&bench.path("part")).is_empty());
    run(false).unwrap();
    assert_eq!(bytes(&bench.path("part")), bytes(&bench.path("whole")));
    // A damaged piece is not believed.
    let piece = bench.path("part.checkpoint").join(&pieces[0].0);
    let damaged = String::from_utf8(pieces[0].1.clone()).unwrap().replacen("fridge", "freeze", 1);
    std::fs::write(&piece, damaged).unwrap();
    run(false).unwrap();
    assert_eq!(bytes(&bench.path("part")), bytes(&bench.path("whole")));
}

#[test]
fn too_much_that_is_dropped_fails_the_step() {
    let bench = bench();
    ask(&bench, json!({}), "answers");
    let strict = keep(&bench, json!({"validate": {"regex": "fridge"}, "max_dropped": 0.01}), "answers", "a").unwrap_err();
    assert!(strict.message.contains("more than `max_dropped` = 0.01 allows") && strict.message.contains(" regex"), "{strict}");
    assert_eq!(strict.exit, Exit::Failed);
    let none = keep(&bench, json!({"validate": {"regex": "nothing like it"}}), "answers", "b").unwrap_err();
    assert!(none.message.starts_with("no answer is left ("), "{none}");
    std::fs::write(bench.path("schema.json"), "[]").unwrap();
    let schema = keep(&bench, json!({"validate": {"json_schema": "schema"}}), "answers", "c").unwrap_err();
    assert_eq!(schema.message, "the JSON schema `schema.json` is no schema: it must be an object");
    let short = parts(json!({"max_new_tokens": 1})).swap_remove(0).task;
    bench.run(&TeacherLabels, &short, &[("teacher", "teacher"), ("prompts", "prompts.jsonl")], "short", 0).unwrap();
    let unfinished = keep(&bench, json!({}), "short", "d").unwrap_err();
    assert!(unfinished.message.contains("unfinished"), "{unfinished}");
    std::fs::write(
        bench.path("prompts.jsonl"),
        format!("{}\n{}\n", json!({"prompt": "set ".repeat(90)}), json!({"prompt": "set box 1 to 1"})),
    )
    .unwrap();
    ask(&bench, json!({}), "long");
    keep(&bench, json!({}), "long", "e").unwrap();
    assert_eq!(ledger(&bench, "e").dropped, [("prompt_too_long".to_string(), 1)].into());
    std::fs::write(bench.path("prompts.jsonl"), "{\"text\": \"a\"}\n").unwrap();
    let text = bench.run(&TeacherLabels, &short, &[("teacher", "teacher"), ("prompts", "prompts.jsonl")], "text", 0).unwrap_err();
    assert!(text.message.starts_with("prompt 0 is a plain text"), "{text}");
}
