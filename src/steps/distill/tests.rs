//! What a step falls apart into, and students of a few steps.

use serde_json::{Value, json};

use super::*;
use crate::steps::PartInput;
use crate::steps::train::Train;
use crate::steps::train::tests::{Bench, bytes, declared, fields, params};

fn all(changes: Value) -> Params {
    let mut all = fields(json!({
        "completions": "teacher", "max_new_tokens": 24, "kd_ratio": 1.0, "temperature": 1.0, "divergence": "forward_kl",
        "seq_kd": false, "top_k": 8, "baseline": true,
    }));
    all.append(&mut params(changes));
    all
}

fn expand(changes: Value) -> Vec<Part> {
    Distill.expand(&declared(all(changes), &["teacher", "data", "validation"])).unwrap()
}

fn part(parts: &[Part], suffix: &str) -> Task {
    parts.iter().find(|part| part.suffix == suffix).unwrap().task.clone()
}

#[test]
fn only_what_matters_is_in_each_part() {
    let plain = expand(json!({}));
    assert_eq!(
        plain.iter().map(|part| (part.suffix, part.hidden)).collect::<Vec<_>>(),
        [("vocabulary", true), ("labels", true), ("", false), ("baseline", false)]
    );
    assert_eq!(plain[2].inputs[1].inputs, [PartInput::Part(1)]);
    assert!(plain[3].inputs.iter().all(|port| port.name != "teacher" && port.name != "labels"));
    let same = |changes: Value| -> Vec<&str> {
        let other = expand(changes);
        plain.iter().map(|part| part.suffix).filter(|suffix| part(&plain, suffix) == part(&other, suffix)).collect()
    };
    assert_eq!(same(json!({"learning_rate": 0.5})), ["vocabulary", "labels"]);
    assert_eq!(same(json!({"seed": 9})), ["vocabulary", "labels"]);
    assert_eq!(same(json!({"kd_ratio": 0.5})), ["vocabulary", "labels", "baseline"]);
    assert_eq!(same(json!({"divergence": "reverse_kl"})), ["vocabulary", "labels", "baseline"]);
    assert_eq!(same(json!({"top_k": 4})), ["vocabulary", "", "baseline"]);
    assert_eq!(same(json!({"temperature": 2.0})), ["vocabulary", "baseline"]);
    assert_eq!(same(json!({"completions": "data"})), ["vocabulary", "", "baseline"]);
    let hard = |changes| part(&expand(changes), "labels");
    // With the teacher beside the student only its answers are labels.
    let beside = expand(json!({"top_k": 0, "temperature": 2.0}));
    assert_eq!(part(&beside, "labels"), hard(json!({"seq_kd": true})));
    let has_teacher = |parts: &[Part]| parts[2].inputs.iter().any(|port| port.name == "teacher");
    assert!(has_teacher(&beside) && !has_teacher(&plain) && !has_teacher(&expand(json!({"top_k": 0, "seq_kd": true}))));
    assert_eq!(hard(json!({"seq_kd": true})), hard(json!({"kd_ratio": 0.0, "temperature": 3.0, "top_k": 0})));
    assert_eq!(part(&expand(json!({"divergence": "jsd"})), ""), part(&expand(json!({"divergence": "jsd", "beta": 0.5})), ""));
}

#[test]
fn what_does_not_belong_together_is_a_problem() {
    let wrong = Distill.expand(&declared(all(json!({"beta": 0.1, "max_length": 999})), &["teacher", "data"])).unwrap_err();
    let paths: Vec<&str> = wrong.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["max_length", "beta"]);
    // A student is new or there already.
    let wrong = Distill.expand(&declared(all(json!({})), &["teacher", "data", "model"])).unwrap_err();
    assert_eq!(wrong[0].path, "arch");
    let mut fields = all(json!({}));
    fields.remove("arch");
    assert!(Distill.expand(&declared(fields, &["teacher", "data"])).unwrap_err()[0].label.contains("needs `arch` or `model`"));
}

/// A bench with a teacher that has learned its lines.
fn school() -> Bench {
    let bench = Bench::set_up();
    bench.train(json!({"max_steps": 150, "learning_rate": 2e-2}), "teacher", 0).unwrap();
    let bare = (0..20).map(|i| format!("{}\n", json!({"prompt": format!("set box {} to {}", i % 9, i % 5)}))).collect::<String>();
    let data = std::fs::read_to_string(bench.path("data.jsonl")).unwrap();
    std::fs::write(bench.path("mixed.jsonl"), data + &bare + "{\"text\": \"set fridge 3 to 1\"}\n").unwrap();
    bench
}

/// Runs all parts, each into a folder of its name.
fn run(bench: &Bench, changes: Value, out: &str) -> Result<Vec<String>, Failure> {
    let parts = expand(changes);
    let folder = |suffix: &str| format!("{out}.{suffix}");
    let mut said = Vec::new();
    for part in &parts {
        let named: Vec<(&str, String)> = part
            .inputs
            .iter()
            .map(|port| {
                let name = match (port.name.as_str(), port.inputs[0]) {
                    (_, PartInput::Part(index)) => folder(parts[index].suffix),
                    ("teacher", _) => "teacher".to_string(),
                    ("data", _) => "mixed.jsonl".to_string(),
                    (name, _) => format!("{name}.jsonl"),
                };
                (port.name.as_str(), name)
            })
            .collect();
        let inputs: Vec<(&str, &str)> = named.iter().map(|(port, name)| (*port, name.as_str())).collect();
        said.extend(bench.run(&Distill, &part.task, &inputs, &folder(part.suffix), 0)?);
    }
    Ok(said)
}

fn validation_loss(bench: &Bench, folder: &str) -> f64 {
    let record: Value = serde_json::from_slice(&std::fs::read(bench.path(folder).join("training.json")).unwrap()).unwrap();
    record["validation_loss"].as_f64().unwrap()
}

#[test]
fn students_learn_by_every_divergence_and_from_labels_alone() {
    let bench = school();
    let cases = [
        json!({}),
        json!({"divergence": "reverse_kl", "temperature": 2.0}),
        json!({"divergence": "jsd", "kd_ratio": 0.5}),
        json!({"divergence": "skew_kl", "completions": "data"}),
        json!({"top_k": 0}),
        json!({"seq_kd": true}),
    ];
    for mut case in cases {
        let name = case.to_string();
        let fields = case.as_object_mut().unwrap();
        fields.extend(params(json!({"max_steps": 100, "learning_rate": 2e-2, "eval_steps": 10, "baseline": false})));
        run(&bench, case.clone(), "s").unwrap();
        let untaught = {
            run(
                &bench,
                {
                    case["max_steps"] = json!(1);
                    case
                },
                "u",
            )
            .unwrap();
            validation_loss(&bench, "u.")
        };
        let loss = validation_loss(&bench, "s.");
        assert!(loss < untaught / 3.0, "{name}: {loss} after {untaught}");
    }
}

#[test]
fn labels_hold_the_teacher_s_answers_and_its_probabilities() {
    let bench = school();
    let said = run(&bench, json!({"max_steps": 2, "top_k": 5, "temperature": 2.0}), "s").unwrap();
    assert!(said.iter().any(|line| line.contains("of the probability")), "{said:?}");
    let teacher = Model::load(&bench.path("teacher")).unwrap();
    let labels = Labels::open(&bench.path("s.labels"), teacher.config.vocab_size).unwrap();
    assert_eq!(labels.facts.top_k, Some(5));
    assert_eq!(labels.facts.examples + labels.facts.unfinished, 81);
    let mut mass = 0.0;
    for (number, example) in labels.examples.iter().enumerate() {
        let from = example.scored[0].start;
        let scored = crate::model::Scored { tokens: example.tokens.clone(), from };
        let mut logits = Vec::new();
        teacher.score(&[scored], &mut |_, rows| logits = rows.to_vec()).unwrap();
        let mut row = vec![0; 11 * 4];
        labels.read(labels.first_rows[number], &mut row, 11).unwrap();
        let vocab = teacher.config.vocab_size;
        mass += logits.chunks_exact(vocab).map(|row| share(row, 5, 2.0)).sum::<f64>();
        let first = &logits[..vocab];
        let best = crate::model::generate::argmax(first).unwrap();
        assert_eq!(row[..4], best.to_le_bytes());
        assert_eq!(row[20..24], first[best as usize].to_le_bytes());
        let rest = crate::kernels::loss::top_k_row(first, 2.0, &mut [0; 5], &mut [0.0; 5]);
        assert_eq!(row[40..], rest.to_le_bytes());
        // An answer is the teacher's own, so its first token is the teacher's first choice; the last record is a text.
        if number + 1 < labels.examples.len() {
            assert_eq!(example.tokens[from], best);
            assert_eq!(example.tokens.last(), Some(&0));
        }
    }
    let kept = labels.facts.kept_mass.unwrap();
    assert!((kept - mass / labels.rows as f64).abs() < 1e-6 && kept > 0.5 && kept < 1.0, "{kept}");
}

/// The probability of the k likeliest tokens.
fn share(row: &[f32], k: usize, temperature: f64) -> f64 {
    let mut exps: Vec<f64> = row.iter().map(|logit| libm::exp(f64::from(*logit) / temperature)).collect();
    exps.sort_by(|a, b| b.total_cmp(a));
    exps[..k].iter().sum::<f64>() / exps.iter().sum::<f64>()
}

#[test]
fn the_baseline_is_a_plain_training_and_threads_change_nothing() {
    let mut bench = school();
    run(&bench, json!({}), "two").unwrap();
    bench.threads = 1;
    run(&bench, json!({}), "one").unwrap();
    for suffix in ["vocabulary", "labels", "", "baseline"] {
        assert!(bytes(&bench.path(&format!("one.{suffix}"))) == bytes(&bench.path(&format!("two.{suffix}"))), "{suffix}");
    }
    let task = Train.expand(&declared(fields(json!({})), &["tokenizer", "data", "validation"])).unwrap().remove(0).task;
    let inputs = [("tokenizer", "words"), ("data", "mixed.jsonl"), ("validation", "validation.jsonl")];
    bench.run(&Train, &task, &inputs, "plain", 0).unwrap();
    let weights = |folder: &str| std::fs::read(bench.path(folder).join("model.safetensors")).unwrap();
    assert!(weights("plain") == weights("one.baseline"));
    assert!(weights("plain") != weights("one."));
}

#[test]
fn a_resumed_student_ends_with_the_same_bytes() {
    let bench = school();
    run(&bench, json!({}), "s").unwrap();
    let student = part(&expand(json!({})), "");
    let inputs = [("vocabulary", "s.vocabulary"), ("labels", "s.labels"), ("validation", "validation.jsonl")];
    assert!(bench.run(&Distill, &student, &inputs, "r", 7).is_err());
    bench.run(&Distill, &student, &inputs, "r", 0).unwrap();
    assert!(bytes(&bench.path("r")) == bytes(&bench.path("s.")));
}

/// All logits from labels or from the teacher itself: the same distribution, and the arithmetic differs only in its rounding.
#[test]
fn a_teacher_beside_the_student_teaches_what_all_its_logits_teach() {
    let mut bench = school();
    let vocab_size = Model::load(&bench.path("teacher")).unwrap().config.vocab_size;
    let settings = |top_k: usize| json!({"top_k": top_k, "temperature": 2.0, "kd_ratio": 0.7, "max_steps": 40, "learning_rate": 1e-2});
    run(&bench, settings(0), "beside").unwrap();
    run(&bench, settings(vocab_size), "labels").unwrap();
    let (beside, labels) = (validation_loss(&bench, "beside."), validation_loss(&bench, "labels."));
    assert!((beside - labels).abs() < 1e-3 * labels, "{beside} is not {labels}");
    run(&bench, settings(1), "one").unwrap();
    assert!((validation_loss(&bench, "one.") - labels).abs() > 1e-2 * labels);
    bench.threads = 1;
    let student = part(&expand(settings(0)), "");
    let inputs =
        [("vocabulary", "beside.vocabulary"), ("labels", "beside.labels"), ("teacher", "teacher"), ("validation", "validation.jsonl")];
    assert!(bench.run(&Distill, &student, &inputs, "resumed", 7).is_err());
    bench.run(&Distill, &student, &inputs, "resumed", 0).unwrap();
    assert!(bytes(&bench.path("resumed")) == bytes(&bench.path("beside.")));
}

#[test]
fn a_teacher_that_never_ends_has_nothing_to_teach() {
    let bench = school();
    let labels = part(&expand(json!({"max_new_tokens": 1})), "labels");
    let failure = bench.run(&Distill, &labels, &[("teacher", "teacher"), ("data", "data.jsonl")], "l", 0).unwrap_err();
    assert!(failure.message.contains("nothing to teach: 60 answers have no end"), "{failure:?}");
}

/// A teacher with several ends is learned from as it speaks: its answers keep the end that it gave them, and its students have all of its ends.
#[test]
fn students_learn_where_their_teacher_ends() {
    let bench = school();
    let teacher = Model::load(&bench.path("teacher")).unwrap();
    let prompt = teacher.encoder().prompt("set box 3 to 2").unwrap();
    let go_on = &mut |_| std::ops::ControlFlow::Continue(());
    let spoken = teacher.generate(&[prompt], &crate::model::Generate { max_new_tokens: 9 }, go_on).unwrap().remove(0);
    // It says this token somewhere in its answer; from now on it ends there.
    let end = *spoken.iter().skip(1).find(|token| **token != spoken[0]).unwrap();
    let path = bench.path("teacher/generation_config.json");
    std::fs::write(path, json!({"eos_token_id": [0, end]}).to_string()).unwrap();
    for case in [json!({"seq_kd": true}), json!({"kd_ratio": 0.5}), json!({"kd_ratio": 0.5, "top_k": 0})] {
        let mut fields = json!({"max_steps": 1, "eval_steps": 1});
        fields.as_object_mut().unwrap().extend(params(case.clone()));
        run(&bench, fields, "s").unwrap();
        let labels = Labels::open(&bench.path("s.labels"), teacher.config.vocab_size).unwrap();
        let ended = labels.examples.iter().filter(|example| example.tokens.last() == Some(&end)).count();
        assert!(ended > 0, "{case}");
        assert!(labels.examples.iter().all(|example| !example.tokens.ends_with(&[end, 0])), "{case}");
        for student in ["s.", "s.baseline"] {
            let ends: Vec<u32> = Model::load(&bench.path(student)).unwrap().config.end_tokens().collect();
            assert_eq!(ends, [0, end], "{case}");
        }
    }
}
