//! The kind as a whole: from declared fields to the files it writes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::base::Cancel;
use crate::steps::{Input, InputId, Port, Project};

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl crate::steps::io::Listener for Log {
    fn line(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_string());
    }

    fn progress(&self, _: u64, _: u64, _: &'static str, _: &str) {}
}

/// What a run left behind.
struct Done {
    space: tempfile::TempDir,
    result: Result<(), Failure>,
    log: String,
}

impl Done {
    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.space.path().join("out").join(name)).unwrap()
    }

    fn prompts(&self, name: &str) -> Vec<String> {
        record::read(&[self.space.path().join("out").join(name)]).unwrap().iter().map(|record| record.prompt()).collect()
    }

    fn counts(&self) -> Counts {
        serde_json::from_str(&self.text("dataset.json")).unwrap()
    }

    fn message(&self) -> String {
        self.result.as_ref().unwrap_err().message.clone()
    }
}

fn params(given: serde_json::Value) -> Params {
    let mut params = json!({"dedup": "none", "on_leak": "fail", "shuffle": false, "seed": 0}).as_object().unwrap().clone();
    params.extend(given.as_object().unwrap().clone());
    params
}

fn run_threads(given: serde_json::Value, data: &str, held_out: Option<&str>, threads: usize) -> Done {
    let space = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| -> Vec<PathBuf> {
        std::fs::write(space.path().join(name), text).unwrap();
        vec![space.path().join(name)]
    };
    let mut inputs = vec![("data".to_string(), file("data", data))];
    if let Some(text) = held_out {
        inputs.push(("disjoint_from".to_string(), file("held_out", text)));
    }
    std::fs::create_dir(space.path().join("out")).unwrap();
    let log = Log::default();
    let (out, checkpoint) = (space.path().join("out"), space.path().join("checkpoint"));
    let mut io = Io { inputs, out, checkpoint, cancel: Cancel::default(), threads, now: None, listener: &log };
    let result = Dataset.run(&Task { action: "dataset", params: params(given) }, &mut io);
    let log = log.0.lock().unwrap().join("\n");
    Done { space, result, log }
}

fn run(given: serde_json::Value, data: &str) -> Done {
    run_threads(given, data, None, 1)
}

fn numbered(range: std::ops::Range<u32>) -> String {
    range.map(|n| format!("{{\"prompt\":\"item {n}\",\"completion\":\"{}\",\"site\":\"s{}\"}}\n", n % 7, n % 3)).collect()
}

fn declared(given: serde_json::Value) -> Declared {
    let port =
        |name: &str| Port { name: name.into(), inputs: vec![Input { id: InputId(0), label: "site".into(), artifact: Artifact::Dataset }] };
    Declared { name: "labels".into(), params: params(given), ports: vec![port("data")], project: Project::default() }
}

#[test]
fn without_wishes_the_records_pass_through() {
    let done = run(json!({}), &numbered(0..10));
    done.result.as_ref().unwrap();
    assert_eq!(done.text("data.jsonl"), numbered(0..10));
    assert_eq!(done.counts().other_keys["site"], 10);
}

#[test]
fn filters_drop_and_count_by_reason() {
    let data = "{\"prompt\":\"Fridge\"}\n{\"prompt\":\"fridge two\",\"completion\":\"{}\"}\n{\"prompt\":\"fridge 3\",\"completion\":\"no json\"}\n\
        {\"prompt\":\"zebra\",\"completion\":\"{}\"}\n{\"prompt\":\"fridge test\",\"completion\":\"{}\"}\n{\"prompt\":\"fridge with a long story\",\"completion\":\"{}\"}\n";
    let filter = json!({"has_completion": true, "json_completion": true, "contains": ["FRIDGE"], "excludes": ["test"], "max_chars": 20});
    let done = run(json!({"filter": filter}), data);
    done.result.as_ref().unwrap();
    assert_eq!(done.prompts("data.jsonl"), ["fridge two"]);
    let reasons = ["contains", "excludes", "has_completion", "json_completion", "max_chars"].map(|name| (format!("filter.{name}"), 1));
    assert_eq!(done.counts().dropped, reasons.into_iter().collect());
    assert!(!done.log.contains("zebra") && !done.text("dataset.json").contains("zebra"));
}

#[test]
fn duplicates_go_by_the_chosen_measure() {
    let data = "{\"prompt\":\"a b\",\"completion\":\"x\"}\n{\"prompt\":\"a b\",\"completion\":\"x\",\"id\":1}\n{\"prompt\":\"A  b!\",\"completion\":\"X\"}\n\
        {\"prompt\":\"a b\",\"completion\":\"y\"}\n";
    for (dedup, left) in [("none", 4), ("exact", 3), ("normalized", 2), ("prompt", 1)] {
        let done = run(json!({"dedup": dedup}), data);
        assert_eq!(done.counts().written, left, "{dedup}");
        assert_eq!(done.counts().dropped.get("duplicate").copied().unwrap_or(0), 4 - left);
    }
}

#[test]
fn a_leak_in_another_form_is_a_leak() {
    let data = "{\"prompt\":\"Où est le café ?\"}\n{\"prompt\":\"stra\u{df}e 1\"}\n{\"prompt\":\"don't\"}\n{\"prompt\":\"new\"}\n";
    for held_out in [
        "{\"prompt\":\"Ou\u{300} est le cafe\u{301}?\"}\n{\"prompt\":\"STRASSE  1\"}\n{\"prompt\":\"don’t\"}\n",
        "{\"prompt\":\"ＯÙ est\u{a0}le ca\u{200b}fé？\"}\n{\"prompt\":\"Straße\u{3000}１\"}\n{\"prompt\":\"DON'T!\"}\n",
    ] {
        let done = run_threads(json!({"on_leak": "drop"}), data, Some(held_out), 1);
        assert_eq!(done.prompts("data.jsonl"), ["new"], "{held_out}");
    }
    let twice = "{\"prompt\":\"café\"}\n{\"prompt\":\"cafe\u{301}\"}\n{\"prompt\":\"ＣＡＦÉ\"}\n";
    for (dedup, left) in [("exact", 3), ("normalized", 1), ("prompt", 1)] {
        assert_eq!(run(json!({"dedup": dedup}), twice).counts().written, left, "{dedup}");
    }
    let filtered = run(json!({"filter": {"excludes": ["CAFÉ"]}}), &format!("{twice}{{\"prompt\":\"cafe\"}}\n"));
    assert_eq!(filtered.prompts("data.jsonl"), ["cafe"]);
    // Equal prompts are never torn apart, whatever their form.
    let many: String =
        (0..200).map(|n| format!("{{\"prompt\":\"é {n}\"}}\n{{\"prompt\":\"É {n}!\"}}\n{{\"prompt\":\"e\u{301} {n}\"}}\n")).collect();
    let done = run(json!({"split": {"a": 0.5, "b": 0.5}}), &many);
    let numbers =
        |name| done.prompts(name).iter().map(|p| p.chars().filter(char::is_ascii_digit).collect::<String>()).collect::<BTreeSet<_>>();
    assert!(numbers("a/data.jsonl").is_disjoint(&numbers("b/data.jsonl")));
    // And so are the values of a group.
    let grouped: String =
        (0..60).map(|n| format!("{{\"prompt\":\"{n}\",\"site\":\"{}\"}}\n", ["Zürich", "Zu\u{308}rich", "Bern"][n % 3])).collect();
    let done = run(json!({"split": {"a": 0.5, "b": 0.5}, "group_by": "site", "seed": 3}), &grouped);
    let sizes: Vec<u64> = if done.result.is_ok() { done.counts().splits.into_values().collect() } else { vec![60] };
    assert!([vec![40, 20], vec![20, 40], vec![60]].contains(&sizes), "{sizes:?}");
}

#[test]
fn a_folder_is_read_whole_or_what_is_left_out_is_named() {
    let space = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(space.path().join("data/more")).unwrap();
    for (name, text) in
        [("a.jsonl", "{\"prompt\":\"a\"}\n"), ("more/b.JSONL", "{\"prompt\":\"b\"}\n"), ("c.json", "[]"), ("more/d.csv", "x")]
    {
        std::fs::write(space.path().join("data").join(name), text).unwrap();
    }
    std::fs::create_dir(space.path().join("out")).unwrap();
    let log = Log::default();
    let (inputs, out) = (vec![("data".to_string(), vec![space.path().join("data")])], space.path().join("out"));
    let mut io = Io { inputs, out, checkpoint: space.path().join("c"), cancel: Cancel::default(), threads: 1, now: None, listener: &log };
    Dataset.run(&Task { action: "dataset", params: params(json!({})) }, &mut io).unwrap();
    let said = log.0.lock().unwrap().join("\n");
    assert!(said.contains("warning: of `data`, 2 files are not read: `c.json`, `more/d.csv`: a dataset is"), "{said}");
    assert!(said.contains("2 records read"), "{said}");
}

#[test]
fn a_leak_fails_or_is_dropped() {
    let held_out = Some("{\"prompt\":\"Item 3.\"}\n{\"prompt\":\"item 5\"}\n");
    let done = run_threads(json!({}), &numbered(0..10), held_out, 1);
    assert!(done.message().contains("2 records whose prompt is in `disjoint_from` too (records 4, 6, counted"), "{}", done.message());
    assert!(!done.message().contains("item"));
    let done = run_threads(json!({"on_leak": "drop"}), &numbered(0..10), held_out, 1);
    assert_eq!(done.counts().dropped["leak"], 2);
    assert!(!done.prompts("data.jsonl").contains(&"item 3".to_string()));
}

#[test]
fn a_group_stays_together_and_its_shared_prompts_leak_nowhere() {
    let by_site: String = (0..300).map(|n| format!("{{\"prompt\":\"item {}\",\"site\":{}}}\n", n, n % 30)).collect();
    let split = json!({"train": 0.8, "validation": 0.2});
    let done = run(json!({"split": split, "group_by": "site"}), &by_site);
    done.result.as_ref().unwrap();
    let sites = |name| done.prompts(name).iter().map(|p| p[5..].parse::<u32>().unwrap() % 30).collect::<BTreeSet<_>>();
    assert!(sites("train/data.jsonl").is_disjoint(&sites("validation/data.jsonl")));

    let shared: String = (0..300).map(|n| format!("{{\"prompt\":\"item {}\",\"site\":{}}}\n", n % 100, n)).collect();
    let done = run(json!({"split": split, "group_by": "site"}), &shared);
    assert!(done.message().contains("is in a smaller split too"), "{}", done.message());
    let done = run(json!({"split": split, "group_by": "site", "on_leak": "drop"}), &shared);
    done.result.as_ref().unwrap();
    let prompts = |name| done.prompts(name).into_iter().collect::<BTreeSet<_>>();
    assert!(prompts("train/data.jsonl").is_disjoint(&prompts("validation/data.jsonl")));
    assert!(
        run(json!({"split": split, "group_by": "clinic"}), &shared)
            .message()
            .contains("record 1 (counted from 1 as read) has no key `clinic`")
    );
}

#[test]
fn a_stratified_split_is_exact_in_every_stratum() {
    let done = run(json!({"split": {"test": 0.1, "train": 0.9}, "stratify_by": "site"}), &numbered(0..300));
    done.result.as_ref().unwrap();
    let tests = done.prompts("test/data.jsonl");
    for site in 0..3 {
        assert_eq!(tests.iter().filter(|p| p[5..].parse::<u32>().unwrap() % 3 == site).count(), 10);
    }
    assert_eq!(done.counts().splits, [("test".to_string(), 30), ("train".to_string(), 270)].into_iter().collect());
}

#[test]
fn an_empty_result_and_an_empty_split_are_failures() {
    let done = run(json!({"split": {"a": 0.001, "b": 0.999}}), &numbered(0..3));
    assert!(done.message().contains("the split `a` came out empty: 3 records"), "{}", done.message());
    let done = run(json!({"filter": {"min_chars": 999}}), &numbered(0..3));
    assert_eq!(done.message(), "no record is left");
    assert!(done.log.contains("dropped: filter.min_chars 3"));
}

#[test]
fn sample_and_limit_keep_the_order_and_a_larger_sample_holds_the_smaller() {
    let sample = |n: u32| run(json!({"sample": n}), &numbered(0..100)).prompts("data.jsonl");
    let (small, large) = (sample(10), sample(50));
    assert_eq!((small.len(), large.len()), (10, 50));
    assert!(small.iter().all(|prompt| large.contains(prompt)));
    assert!(large.is_sorted_by_key(|prompt| prompt[5..].parse::<u32>().unwrap()));
    assert_eq!(run(json!({"limit": 3}), &numbered(0..9)).prompts("data.jsonl"), ["item 0", "item 1", "item 2"]);
}

#[test]
fn the_plan_learns_the_splits_and_the_mistakes() {
    let parts = Dataset.expand(&declared(json!({"split": {"train": 0.9, "validation": 0.1}}))).unwrap();
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0].outputs, [("train".to_string(), Artifact::Dataset), ("validation".to_string(), Artifact::Dataset)]);
    assert_eq!(parts[0].inputs.iter().map(|port| port.name.as_str()).collect::<Vec<_>>(), ["data"]);

    let wrong = |given| Dataset.expand(&declared(given)).unwrap_err().into_iter().map(|p| (p.path, p.message)).collect::<Vec<_>>();
    let found = wrong(json!({"split": {"../up": 0.5, "b": 0.0, "c": 0.2}, "group_by": "prompt"}));
    assert_eq!(found.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["split.../up", "split.b", "split", "group_by"]);
    assert!(wrong(json!({"stratify_by": "site"}))[0].1.contains("needs a `split`"));
    assert!(wrong(json!({"split": {}}))[0].1.contains("names no split"));
}

#[test]
fn a_stopped_step_says_so() {
    let space = tempfile::tempdir().unwrap();
    std::fs::write(space.path().join("data"), numbered(0..3)).unwrap();
    let cancel = Cancel::default();
    cancel.cancel();
    let (inputs, listener) = (vec![("data".to_string(), vec![space.path().join("data")])], &Log::default());
    let mut io = Io { inputs, out: space.path().into(), checkpoint: space.path().join("c"), cancel, threads: 1, now: None, listener };
    let failure = Dataset.run(&Task { action: "dataset", params: params(json!({})) }, &mut io).unwrap_err();
    assert_eq!(failure.exit, crate::base::Exit::Interrupted);
}

fn any_data() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec((0u8..60, 0u8..5), 20..200)
}

fn lines_of(items: &[(u8, u8)]) -> String {
    items.iter().map(|(prompt, site)| format!("{{\"prompt\":\"item {prompt}\",\"site\":{site}}}\n")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn splits_are_disjoint_and_complete(items in any_data(), seed in 0u64..1000, stratified: bool) {
        let mut given = json!({"split": {"a": 0.4, "b": 0.35, "c": 0.25}, "seed": seed, "shuffle": true});
        if stratified {
            given["stratify_by"] = "site".into();
        }
        let done = run(given.clone(), &lines_of(&items));
        if let Err(failure) = &done.result {
            // Rather few prompts may all fall into the same splits; everything else is wrong.
            prop_assert!(failure.message.contains("came out empty"), "{}", failure.message);
            return Ok(());
        }
        let splits = ["a/data.jsonl", "b/data.jsonl", "c/data.jsonl"].map(|name| done.prompts(name));
        let mut all = splits.concat();
        all.sort();
        let mut expected: Vec<String> = items.iter().map(|(prompt, _)| format!("item {prompt}")).collect();
        expected.sort();
        prop_assert_eq!(all, expected);
        let sets = splits.map(|split| split.into_iter().collect::<BTreeSet<_>>());
        prop_assert!(sets[0].is_disjoint(&sets[1]) && sets[0].is_disjoint(&sets[2]) && sets[1].is_disjoint(&sets[2]));
    }

    #[test]
    fn added_records_move_none_of_the_old_ones(items in any_data(), more in any_data()) {
        let given = json!({"split": {"a": 0.5, "b": 0.5}});
        let few = run(given.clone(), &lines_of(&items));
        let many = run(given, &lines_of(&[more, items].concat()));
        if few.result.is_ok() && many.result.is_ok() {
            let a: BTreeSet<String> = many.prompts("a/data.jsonl").into_iter().collect();
            prop_assert!(few.prompts("a/data.jsonl").iter().all(|prompt| a.contains(prompt)));
            prop_assert!(few.prompts("b/data.jsonl").iter().all(|prompt| !a.contains(prompt)));
        }
    }

    #[test]
    fn threads_change_nothing(items in any_data(), seed: u32) {
        let given = json!({"split": {"a": 0.5, "b": 0.5}, "dedup": "normalized", "sample": 15, "shuffle": true, "seed": seed});
        let (one, four) = (run_threads(given.clone(), &lines_of(&items), None, 1), run_threads(given, &lines_of(&items), None, 4));
        prop_assert_eq!(one.result.is_ok(), four.result.is_ok());
        if one.result.is_ok() {
            for name in ["a/data.jsonl", "b/data.jsonl", "dataset.json"] {
                prop_assert_eq!(one.text(name), four.text(name));
            }
        }
    }
}
