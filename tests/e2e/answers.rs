//! Answers and choices from end to end: a teacher's labels that a student learns and is judged on, multiple choice that transformers scores
//! alike, and what is said about mistakes.

use serde_json::{Value, json};

use crate::peers::{peers, python};
use crate::space::Space;

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["light", "on"],
  "properties": {"light": {"type": "string"}, "on": {"type": "boolean"}},
  "additionalProperties": false
}
"#;

const LABELS: &str = r#"
[source.call]
path = "call.schema.json"

[teacher_labels.said]
teacher = "tiny"
prompts = "commands"
decode = "sample"
temperature = 0.6
top_p = 0.95
num_samples = 2
max_new_tokens = 40
validate = { json_schema = "call", regex = "^\\{", min_confidence = 0.02 }
max_dropped = 1.0

[finetune.taught]
model = "tiny"
data = "said"
max_steps = 20
learning_rate = 1e-3

[evaluate.calls]
model = ["tiny", "taught"]
data = { test = "test" }
metrics = ["json_schema_valid", "json_exact_match", "regex_match", "exact_match"]
json_schema = "call"
regex = "\"on\":(true|false)"
extract = { regex_pattern = "\\{.*?\\}" }
gate = [{ metric = "json_schema_valid", min = 0.01 }]
"#;

fn append(space: &Space, text: &str) {
    let manifest = space.read("slmops.toml");
    space.write("slmops.toml", &(manifest + text));
}

#[test]
fn a_teacher_s_labels_are_learned_and_judged() {
    let space = Space::with_project();
    space.replace("slmops.toml", "max_steps = 40", "max_steps = 120");
    space.write("call.schema.json", SCHEMA);
    append(&space, LABELS);
    let built = space.slmops(&["build", "calls"]);
    built.success();
    space.slmops(&["out", "said", "said"]).success();
    let ledger: Value = serde_json::from_str(&space.read("said/teacher_labels.json")).expect("JSON");
    let prompts = space.read("data/train.jsonl").lines().count() as u64;
    let kept = ledger["kept"].as_u64().expect("a count");
    assert_eq!((ledger["prompts"].as_u64(), ledger["asked"].as_u64()), (Some(prompts), Some(2 * prompts)));
    assert!(kept > 0 && space.read("said/data.jsonl").lines().count() as u64 == kept, "{ledger}");
    for line in space.read("said/data.jsonl").lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let call: Value = serde_json::from_str(line["completion"].as_str().expect("a completion")).expect("a call");
        assert!(call["light"].is_string() && call["on"].is_boolean() && call.as_object().is_some_and(|call| call.len() == 2), "{call}");
        assert!(line["confidence"].as_f64().is_some_and(|confidence| (0.02..=1.0).contains(&confidence)));
    }
    space.slmops(&["out", "calls@taught", "report"]).success();
    let report: Value = serde_json::from_str(&space.read("report/report.json")).expect("JSON");
    let value = |metric: &str| report["sets"]["test"]["metrics"][metric]["value"].as_f64().expect("a figure");
    assert!(value("json_schema_valid") >= value("json_exact_match") && value("json_exact_match") >= value("exact_match"), "{report}");
    // What is demanded of answers is not what they depend on: the teacher is not asked again.
    space.replace("slmops.toml", "min_confidence = 0.02", "min_confidence = 0.0");
    let again = space.slmops(&["build", "said"]);
    again.success();
    assert!(!again.started().iter().any(|name| name.contains("answers")), "{}", again.err);
    // The same from nothing, on another number of threads.
    let digests = |folder: &str| space.read(&format!("{folder}/data.jsonl"));
    let before = digests("said");
    space.replace("slmops.toml", "min_confidence = 0.0 ", "min_confidence = 0.02 ");
    std::fs::remove_dir_all(space.join("cache")).expect("a cache");
    space.slmops(&["build", "said", "-j", "1"]).success();
    space.slmops(&["out", "said", "said-again"]).success();
    assert_eq!(before, digests("said-again"));
}

/// Documents as ARC has them.
fn documents(space: &Space) {
    let colours = ["red", "dark blue", "green", "grün", "a pale kind of violet"];
    let document = |i: usize| {
        let n = 2 + i % 4;
        let labels: Vec<&str> = ["A", "B", "C", "D", "E"][..n].to_vec();
        let texts: Vec<&str> = (0..n).map(|j| colours[(i + j) % 5]).collect();
        json!({"question": format!("Which colour has light {i}?"), "choices": {"text": texts, "label": labels}, "answerKey": labels[i * 7 % n]})
    };
    let lines = |range: std::ops::Range<usize>| range.map(|i| format!("{}\n", document(i))).collect::<String>();
    space.write("data/questions.jsonl", &lines(0..40));
    space.write("data/solved.jsonl", &lines(38..45));
}

const CHOICES: &str = r#"
[source.questions]
path = "data/questions.jsonl"
[source.solved]
path = "data/solved.jsonl"

[evaluate.choices]
model = "tiny"
data = { questions = "questions" }
metrics = ["acc", "acc_norm", "acc_bytes", "acc_mutual_info"]
task_description = "Colours.\n\n"
doc_to_text = "Question: {{question}}\nAnswer: "
doc_to_choice = "{{choices.text}}"
doc_to_target = "{{choices.label.index(answerKey)}}"
target_delimiter = ""
num_fewshot = 2
fewshot_split = "solved"
"#;

#[test]
fn transformers_gives_choices_the_same_likelihood() {
    assert!(peers().join("venv/.done-torch-2").exists(), "PEER MISSING: transformers; run: bash tests/peers/install.sh");
    let space = Space::with_project();
    documents(&space);
    append(&space, CHOICES);
    space.slmops(&["build", "choices"]).success();
    space.slmops(&["out", "choices", "report"]).success();
    space.slmops(&["out", "tiny", "model"]).success();
    let paths = ["model", "data/questions.jsonl", "data/solved.jsonl", "report/items/questions.jsonl"].map(|path| space.join(path));
    let found = python("choices.py", &paths.each_ref().map(|path| path.as_path()));
    assert_eq!((found["documents"].as_u64(), &found["same"]), (Some(40), &json!(true)), "{found}");
    assert!(found["max_abs"].as_f64().is_some_and(|worst| worst < 1e-3), "{found}");
    let report: Value = serde_json::from_str(&space.read("report/report.json")).expect("JSON");
    for metric in ["acc", "acc_norm", "acc_bytes", "acc_mutual_info"] {
        let ours = report["sets"]["questions"]["metrics"][metric]["value"].as_f64().expect("a figure");
        assert!((ours - found[metric].as_f64().expect("a figure")).abs() < 1e-12, "{metric}: {report} {found}");
    }
}

const MISTAKES: &str = r#"
[evaluate.patterns]
model = "tiny"
data = { test = "test" }
metrics = ["regex_match", "json_schema_valid"]
regex = "(on|off"

[evaluate.mixed]
model = "tiny"
data = { test = "test" }
metrics = ["acc", "perplexity"]
doc_to_text = "{{question"
num_fewshot = 3

[teacher_labels.said]
teacher = "tiny"
prompts = "commands"
temperature = 0.5
validate = { regex = "[", json_shema = "call" }
"#;

#[test]
fn mistakes_point_into_the_manifest() {
    let space = Space::with_project();
    append(&space, MISTAKES);
    space.slmops(&["check"]).fails_with(2).says(&[
        "not a regular expression: unclosed group",
        "regex = \"(on|off\"",
        "`json_schema_valid` needs something to hold answers against",
        "`perplexity` is not a metric of multiple choice, as `acc` is",
        "`doc_to_text` cannot be used: unexpected end of input",
        "there is nothing to take examples from",
        "did you mean `json_schema`?",
    ]);
    space.replace("slmops.toml", ", json_shema = \"call\"", "");
    space
        .slmops(&["check"])
        .fails_with(2)
        .says(&["`temperature` is about drawing tokens", "not a regular expression: unclosed character class"]);
}

#[test]
fn a_file_that_is_no_schema_fails_the_step_that_reads_it() {
    let space = Space::with_project();
    space.write("call.schema.json", "{\"type\": \"objekt\"}");
    append(&space, LABELS);
    space.slmops(&["build", "said"]).fails_with(1).says(&["the JSON schema `call.schema.json` is wrong at `/type`"]);
}
