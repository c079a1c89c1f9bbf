//! Answers held against patterns and schemas.

use super::super::answer::Answer;
use super::*;

const SCHEMA: &str = r#"{"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}, "additionalProperties": false}"#;

/// Five expected calls, and what a model made of them.
fn bench() -> Bench {
    let expected = ["{\"id\": 1}", "{\"id\": 2}", "{\"id\": 3, \"at\": 1}", "{\"id\": 4}", "5"];
    let bench = Bench::new(&expected.map(|completion| json!({"prompt": "p", "completion": completion})));
    let answered = ["Sure: <{\"id\": 1.0}>", "<{ \"id\":2 }> or <{\"id\":3}>", "<{\"at\":1,\"id\":3}>", "<{\"id\": \"4\"}>", "nothing"];
    std::fs::create_dir(bench.path("a")).unwrap();
    let lines = answered.map(|output| Answer { output: output.to_string(), tokens: 1 });
    sets::write_lines(&bench.path("a/seen.jsonl"), &lines).unwrap();
    std::fs::write(bench.path("schema.json"), SCHEMA).unwrap();
    bench
}

const METRICS: &[&str] = &["exact_match", "json_valid", "regex_match", "json_schema_valid", "json_exact_match"];

fn params(metrics: &[&str]) -> Value {
    json!({"metrics": metrics, "resamples": 200, "seed": 1, "regex": "^\\{.*\\}$", "extract": {"regex_pattern": "<(.*?)>", "group_select": 0}})
}

#[test]
fn answers_are_taken_out_and_held_against_patterns_and_schemas() {
    let bench = bench();
    let inputs = [("model", "model1"), ("answers", "a"), ("json_schema", "schema.json")];
    let out = bench.run("measure", params(METRICS), &inputs, "r").unwrap();
    let set = &report(&out).sets["seen"];
    let value = |name: &str| set.metrics[name].value;
    // Character for character none is the same.
    assert_eq!((value("exact_match"), value("json_valid"), value("regex_match")), (0.0, 0.8, 0.8));
    // 1.0 is an integer; "4" is not, and `at` is one key too many.
    assert_eq!((value("json_schema_valid"), value("json_exact_match")), (0.4, 0.6));
    let items: Vec<Item> = sets::read_lines(&out.join("items/seen.jsonl")).unwrap();
    assert_eq!((items[1].extracted.as_deref(), items[4].extracted.as_deref()), (Some("{ \"id\":2 }"), None));
    assert_eq!(items[0].output.as_deref(), Some("Sure: <{\"id\": 1.0}>"));
    let last =
        json!({"metrics": ["json_exact_match"], "resamples": 200, "seed": 1, "extract": {"regex_pattern": "<(.*?)>", "group_select": -1}});
    let set = report(&bench.run("measure", last, &inputs[..2], "last").unwrap()).sets["seen"].clone();
    assert_eq!(set.metrics["json_exact_match"].value, 0.4);
}

#[test]
fn what_cannot_be_held_against_is_named() {
    let bench = bench();
    let inputs = [("model", "model1"), ("answers", "a"), ("json_schema", "schema.json")];
    std::fs::write(bench.path("schema.json"), "{\"properties\": {\"id\": {\"type\": \"integr\"}}}").unwrap();
    let said = bench.run("measure", params(METRICS), &inputs, "r1").unwrap_err();
    assert!(said.message.starts_with("the JSON schema `schema.json` is wrong at `/properties/id/type`: "), "{said}");
    assert_eq!(said.exit, Exit::Failed);
    std::fs::write(bench.path("data.jsonl"), "{\"prompt\": \"p\", \"completion\": \"not JSON\"}\n".repeat(5)).unwrap();
    let said = bench.run("measure", params(&["json_exact_match"]), &inputs[..2], "r2").unwrap_err();
    assert_eq!(
        said.message,
        "item 0 of set `seen` has a completion that cannot be compared as JSON: not JSON: expected ident at line 1 column 2"
    );
}

/// What one metric takes for JSON, all do.
#[test]
fn what_readers_differ_about_is_json_for_no_metric() {
    let answered = [
        "{\"id\": 1, \"id\": 1}",
        "{\"id\": 1, \"x\": {\"y\": 1, \"y\": 2}}",
        "{\"id\": 18446744073709551617}",
        "{\"id\": 1e400}",
        "{\"id\": 1e0}",
    ];
    let bench = Bench::new(&answered.map(|_| json!({"prompt": "p", "completion": "{\"id\": 1.0}"})));
    std::fs::create_dir(bench.path("a")).unwrap();
    sets::write_lines(&bench.path("a/seen.jsonl"), &answered.map(|output| Answer { output: output.to_string(), tokens: 1 })).unwrap();
    std::fs::write(bench.path("schema.json"), "{}").unwrap();
    let metrics = json!({"metrics": ["json_valid", "json_schema_valid", "json_exact_match"], "resamples": 200, "seed": 1});
    let out = bench.run("measure", metrics, &[("model", "model1"), ("answers", "a"), ("json_schema", "schema.json")], "r").unwrap();
    let items: Vec<Item> = sets::read_lines(&out.join("items/seen.jsonl")).unwrap();
    for (place, item) in items.iter().enumerate() {
        let is_json = Some(place == 4);
        assert_eq!((item.json_valid, item.json_schema_valid, item.json_exact_match), (is_json, is_json, is_json), "{place}");
    }
    // A completion is held to the same.
    std::fs::write(bench.path("data.jsonl"), "{\"prompt\": \"p\", \"completion\": \"{\\\"a\\\": 1, \\\"a\\\": 1}\"}\n".repeat(5)).unwrap();
    let only = json!({"metrics": ["json_exact_match"], "resamples": 200, "seed": 1});
    let said = bench.run("measure", only, &[("model", "model1"), ("answers", "a")], "r2").unwrap_err();
    assert!(said.message.contains("cannot be compared as JSON: duplicate key `a`"), "{said}");
}

#[test]
fn a_schema_reaches_the_measurement_alone() {
    let mut declared = declared(&["json_schema_valid", "regex_match"], json!([]));
    declared.ports.push(port("json_schema", &[7], Artifact::Files));
    declared.params.insert("regex".into(), json!("^a"));
    let parts = Evaluate.expand(&declared).unwrap();
    let shapes: Vec<_> = parts.iter().map(shape).collect();
    assert_eq!(shapes[0], ("answers", true, "answers", vec!["model", "data.seen", "data.unseen"]));
    assert_eq!(shapes[1], ("", false, "measure", vec!["model", "answers", "json_schema", "data.seen", "data.unseen"]));
    assert_eq!(parts[1].task.params["regex"], "^a");
    // Nothing of this is in an evaluation that does not ask for it.
    let plain = Evaluate.expand(&super::declared(&["exact_match"], json!([]))).unwrap();
    let plain = plain.iter().find(|part| part.suffix.is_empty()).unwrap();
    assert_eq!(plain.task.params.keys().collect::<Vec<_>>(), ["metrics", "resamples", "seed"]);
}

#[test]
fn wrong_patterns_and_fields_without_a_use_are_said_at_their_place() {
    let paths = |metrics: &[&str], fields: Value| {
        let mut wrong = declared(metrics, json!([]));
        wrong.params.extend(fields.as_object().unwrap().clone());
        Evaluate.expand(&wrong).unwrap_err().into_iter().map(|problem| (problem.path, problem.message)).collect::<Vec<_>>()
    };
    let found = paths(&["regex_match"], json!({"regex": "(a", "extract": {"regex_pattern": "a(?=b)", "group_select": 0}}));
    assert_eq!(found[0], ("regex".to_string(), "not a regular expression: unclosed group".to_string()));
    assert_eq!(found[1].0, "extract.regex_pattern");
    let names = |found: Vec<(String, String)>| found.into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    assert_eq!(
        names(paths(&["exact_match"], json!({"regex": "a", "num_fewshot": 2, "doc_to_text": "q"}))),
        ["doc_to_text", "num_fewshot", "regex"]
    );
    assert_eq!(names(paths(&["json_schema_valid", "regex_match"], json!({}))), ["metrics", "metrics"]);
    assert_eq!(names(paths(&["perplexity"], json!({"extract": {"regex_pattern": "a", "group_select": 0}}))), ["extract"]);
}
