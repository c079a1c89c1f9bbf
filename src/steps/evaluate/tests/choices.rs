//! Multiple choice of small random models.

use super::super::choice::Line;
use super::*;
use crate::model::{Scored, Stored};

fn documents() -> Vec<Value> {
    let colours = ["red", "blue", "green and white", "é"];
    (0..9).map(|i| json!({"question": format!("Which colour has box {i}?"), "choices": &colours[..2 + i % 3], "answer": i % 2})).collect()
}

fn task(changes: Value) -> Value {
    let mut task = json!({"doc_to_text": "question", "doc_to_choice": ["choices"], "doc_to_target": "answer", "task_description": "",
        "target_delimiter": " ", "fewshot_delimiter": "\n\n", "num_fewshot": 0, "unconditional": false});
    task.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    task
}

fn lines(folder: &Path) -> Vec<Line> {
    sets::read_lines(&folder.join("seen.jsonl")).unwrap()
}

/// ln P of the bytes behind `from`, by hand.
fn by_hand(model: &Model<Stored>, text: &str, from: usize) -> f64 {
    let mut sum = 0.0;
    let tokens = model.tokenizer.encode(text).unwrap();
    let each = model.score(&[Scored { tokens: tokens.clone(), from }], &mut |_, logits| {
        for (row, target) in logits.chunks(model.config.vocab_size).zip(&tokens[from..]) {
            let all: f64 = row.iter().map(|x| libm::exp(f64::from(*x))).sum();
            sum += f64::from(row[*target as usize]) - libm::log(all);
        }
    });
    each.unwrap();
    sum
}

#[test]
fn choices_are_scored_behind_their_question() {
    let bench = Bench::new(&documents());
    let out = bench.run("choices", task(json!({"unconditional": true})), &[("model", "model1")], "c").unwrap();
    let lines = lines(&out);
    assert_eq!((lines.len(), lines[1].loglikelihoods.len(), lines[2].loglikelihoods.len()), (9, 3, 4));
    assert_eq!((lines[2].characters.as_slice(), lines[2].bytes.as_slice()), (&[3, 4, 15, 1][..], &[3, 4, 15, 2][..]));
    let model = Model::open(&bench.path("model1")).unwrap();
    let question = "Which colour has box 1?";
    for (choice, found) in ["red", "blue", "green and white"].iter().zip(&lines[1].loglikelihoods) {
        let expected = by_hand(&model, &format!("{question} {choice}"), question.len());
        assert!((found - expected).abs() < 1e-9, "{choice}: {found} {expected}");
    }
    // Without a context the token that ends texts stands before it.
    let eos = model.tokenizer.eos.clone().unwrap().text;
    let unconditional = lines[1].unconditional.as_ref().unwrap();
    assert!((unconditional[0] - by_hand(&model, &format!("{eos} red"), 1)).abs() < 1e-9);
}

#[test]
fn white_space_at_a_context_s_end_belongs_to_the_choice() {
    let bench = Bench::new(&documents());
    let trailing = task(json!({"doc_to_text": "{{question}} ", "target_delimiter": ""}));
    let out = bench.run("choices", trailing, &[("model", "model1")], "trailing").unwrap();
    let plain = bench.run("choices", task(json!({})), &[("model", "model1")], "plain").unwrap();
    assert_eq!(lines(&out), lines(&plain));
}

#[test]
fn letters_after_one_context_share_a_pass_and_company_changes_nothing() {
    let lettered = task(json!({"doc_to_choice": ["a", "b", "c"], "target_delimiter": ""}));
    let bench = Bench::new(&documents());
    let together = bench.run("choices", lettered.clone(), &[("model", "model1")], "together").unwrap();
    let model = Model::open(&bench.path("model1")).unwrap();
    let question = "Which colour has box 4?";
    for (choice, found) in ["a", "b", "c"].iter().zip(&lines(&together)[4].loglikelihoods) {
        assert!((found - by_hand(&model, &format!("{question}{choice}"), question.len())).abs() < 1e-9);
    }
    let alone = Bench::new(&documents()[4..5]);
    let alone = alone.run("choices", lettered.clone(), &[("model", "model1")], "alone").unwrap();
    assert_eq!(lines(&alone)[0], lines(&together)[4]);
    let three = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let again = three.install(|| bench.run("choices", lettered, &[("model", "model1")], "again")).unwrap();
    assert_eq!(std::fs::read(again.join("seen.jsonl")).unwrap(), std::fs::read(together.join("seen.jsonl")).unwrap());
}

#[test]
fn figures_are_made_of_likelihoods_and_compared_with_a_reference() {
    let bench = Bench::new(&documents());
    let line = |logs: [f64; 2], alone: [f64; 2], lengths: [u64; 2], bytes: [u64; 2], target: usize| Line {
        loglikelihoods: logs.to_vec(),
        unconditional: Some(alone.to_vec()),
        characters: lengths.to_vec(),
        bytes: bytes.to_vec(),
        targets: vec![target],
    };
    let ours = [
        line([-2.0, -3.0], [-1.0, -3.0], [1, 2], [1, 2], 0), // right; by length -2 and -1.5, by surprise -1 and 0: wrong
        line([-2.0, -2.0], [-1.0, -1.0], [1, 1], [1, 1], 0), // the first of equals
        line([-4.0, -6.0], [-5.0, -5.0], [2, 3], [2, 6], 1), // wrong; by characters -2 and -2, by bytes -2 and -1
    ];
    let theirs = ours.clone().map(|line| Line { loglikelihoods: line.loglikelihoods.iter().rev().copied().collect(), ..line });
    for (name, lines) in [("ours", &ours), ("theirs", &theirs)] {
        std::fs::create_dir(bench.path(name)).unwrap();
        sets::write_lines(&bench.path(name).join("seen.jsonl"), lines).unwrap();
    }
    let metrics = ["acc", "acc_norm", "acc_bytes", "acc_mutual_info", "flips"];
    let inputs = [("model", "model1"), ("choices", "ours"), ("reference_choices", "theirs")];
    let out = bench.measure(&metrics, &inputs, "r").unwrap();
    let set = &report(&out).sets["seen"];
    let share = |name: &str| (set.metrics[name].value * 3.0).round();
    assert_eq!((share("acc"), share("acc_norm"), share("acc_bytes"), share("acc_mutual_info")), (2.0, 1.0, 2.0, 1.0));
    // Of the reference the first and the third are turned round.
    assert_eq!((share("flips"), set.items), (2.0, 3));
    assert_eq!(set.comparison.map(|c| (c.gained, c.lost)), Some((1, 1)));
    let items: Vec<Item> = sets::read_lines(&out.join("items/seen.jsonl")).unwrap();
    assert_eq!(
        (items[2].loglikelihoods.as_deref(), items[2].acc, items[2].reference_acc),
        (Some(&[-4.0, -6.0][..]), Some(false), Some(true))
    );
}

#[test]
fn an_evaluation_of_choices_shares_what_models_chose() {
    let gates = json!([{"metric": "acc", "on": "seen", "min": 0.5, "fatal": false},
        {"metric": "acc", "on": "seen", "max_drop": 0.1, "fatal": false}]);
    let mut declared = declared(&["acc", "flips"], gates);
    declared.params.insert("num_fewshot".into(), json!(2));
    declared.ports.push(port("fewshot_split", &[20], Artifact::Dataset));
    let parts = Evaluate.expand(&declared).unwrap();
    let shapes: Vec<_> = parts.iter().map(shape).collect();
    let asked = vec!["model", "fewshot_split", "data.seen", "data.unseen"];
    let measured = vec!["model", "choices", "reference_choices", "data.seen", "data.unseen"];
    assert_eq!(shapes[0], ("choices", true, "choices", asked.clone()));
    assert_eq!(shapes[1], ("reference-choices", true, "choices", asked));
    assert_eq!(shapes[2], ("", false, "measure", measured.clone()));
    assert_eq!(shapes[3], ("versus", true, "measure", measured));
    assert_eq!(shapes[4].0, "gate");
    assert_eq!(parts[0].task.params["doc_to_text"], "question");
}

#[test]
fn mistakes_are_said_at_their_place() {
    let paths = |metrics: &[&str], fields: Value| {
        let mut wrong = declared(metrics, json!([]));
        wrong.params.extend(fields.as_object().unwrap().clone());
        Evaluate.expand(&wrong).unwrap_err().into_iter().map(|problem| problem.path).collect::<Vec<_>>()
    };
    assert_eq!(paths(&["acc", "perplexity"], json!({"n_ctx": 16})), ["metrics", "n_ctx"]);
    assert_eq!(paths(&["acc"], json!({"num_fewshot": 2})), ["num_fewshot"]);
    assert_eq!(paths(&["acc"], json!({"fewshot_delimiter": "\n"})), ["fewshot_delimiter"]);
    assert_eq!(paths(&["acc_norm"], json!({"doc_to_text": "{{question"})), ["doc_to_text"]);
    let said = |documents: &[Value], name: &str| {
        let bench = Bench::new(documents);
        bench.run("choices", task(json!({})), &[("model", "model1")], name).unwrap_err().message
    };
    let odd = [documents()[0].clone(), json!({"question": "q", "choices": ["a", "b"], "answer": 7})];
    assert_eq!(said(&odd, "a"), "document 1 of set `seen` has 2 choices, and `doc_to_target` gives 7");
    let long = [json!({"question": "x".repeat(80), "choices": ["a", "b"], "answer": 0})];
    assert_eq!(said(&long, "b"), "document 0 of set `seen` has 81 tokens to read with one of its choices; the model takes 64");
    assert!(said(&[], "c").contains("set `seen` is empty"));
}

#[test]
fn rendered_questions_are_compared_with_what_a_model_learned_from() {
    let bench = Bench::new(&documents());
    let asked = json!({"task": task(json!({"doc_to_text": "Q: {{question}}\nA:"}))});
    let lessons = "{\"prompt\":\"q: which colour has box 1?  a:\"}\n{\"text\":\"Q: Which colour has box 4?\\nA: red\"}\n\
        {\"prompt\":\"Q: Which colour has box 5?\\nA:\",\"completion\":\"blue\"}\n{\"text\":\"Q: Which colour has box 6?\\nA: blue\"}\n";
    let found = overlaps(&bench, "o", asked, lessons);
    // Of box 6 the right answer is the other one.
    assert_eq!(found["sets"]["seen"], json!({"records": 9, "in_training": 3, "first": [1, 4, 5]}));
}
