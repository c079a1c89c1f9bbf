//! Task files of the harness, and what is wrong with a document.

use serde_json::json;

use super::*;

fn task(text: &str, choice: &[&str], target: &str) -> Task {
    Task {
        doc_to_text: text.to_string(),
        doc_to_choice: choice.iter().map(ToString::to_string).collect(),
        doc_to_target: target.to_string(),
        task_description: String::new(),
        target_delimiter: " ".to_string(),
        fewshot_delimiter: "\n\n".to_string(),
        num_fewshot: 0,
        unconditional: false,
    }
}

fn document(value: Value) -> Document {
    serde_json::from_value(value).unwrap()
}

fn ask(task: &Task, value: Value) -> Result<Question, String> {
    task.compile().unwrap().question(&document(value), &mut Shots::new(&[]))
}

#[test]
fn fields_are_taken_by_their_names() {
    let plain = task("question", &["choices"], "answer");
    let asked = ask(&plain, json!({"question": "2 + 2?", "choices": ["3", "four"], "answer": 1})).unwrap();
    assert_eq!((asked.context.as_str(), asked.targets.as_slice()), ("2 + 2?", &[1][..]));
    assert_eq!(asked.continuations, [" 3", " four"]);
    let by_text = ask(&plain, json!({"question": "2 + 2?", "choices": ["1", "0"], "answer": "1"})).unwrap();
    assert_eq!(by_text.targets, [0], "a text is a choice, not a place");
    let several = ask(&plain, json!({"question": "", "choices": ["a", "b", "c"], "answer": [0, "c"]})).unwrap();
    assert_eq!(several.targets, [0, 2]);
}

/// `arc_easy`, `mmlu`, `boolq`, `piqa` and `hellaswag` as the harness's own files have them.
#[test]
fn published_task_files_are_understood() {
    let arc = task("Question: {{question}}\nAnswer:", &["{{choices.text}}"], "{{choices.label.index(answerKey)}}");
    let found = json!({"question": "Why?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"});
    let asked = ask(&arc, found).unwrap();
    assert_eq!((asked.context.as_str(), asked.targets.as_slice()), ("Question: Why?\nAnswer:", &[1][..]));

    let mmlu = task(
        "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:",
        &["A", "B", "C", "D"],
        "answer",
    );
    let asked = ask(&mmlu, json!({"question": " Q ", "choices": ["1", "2", "3", "4"], "answer": 3})).unwrap();
    assert_eq!(asked.context, "Q\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:");
    assert_eq!((asked.choices.len(), asked.targets.as_slice()), (4, &[3][..]));

    let boolq = task("{{passage}}\nQuestion: {{question}}?\nAnswer:", &["no", "yes"], "label");
    assert_eq!(ask(&boolq, json!({"passage": "p", "question": "q", "label": 0})).unwrap().targets, [0]);

    let piqa = task("Question: {{goal}}\nAnswer:", &["{{[sol1, sol2]}}"], "label");
    assert_eq!(ask(&piqa, json!({"goal": "g", "sol1": "a", "sol2": "b", "label": 1})).unwrap().choices, ["a", "b"]);

    let hellaswag = task("{{query}}", &["choices"], "{{label}}");
    assert_eq!(
        ask(&hellaswag, json!({"query": "q", "choices": ["a", "b"], "label": "1"})).unwrap().targets,
        [1],
        "digits of a template are a place"
    );
    let word = task("q", &["no", "yes"], "{{['no', 'yes'][label]}}");
    assert_eq!(ask(&word, json!({"q": "q", "label": 1})).unwrap().targets, [1]);
    assert_eq!(ask(&task("q", &["no", "yes"], "0"), json!({"q": "q"})).unwrap().targets, [0]);
    let python = task("{{ok}} {{none}} {{n}} {{x.split(',')[1]}}\n", &["a", "b"], "0");
    assert_eq!(ask(&python, json!({"ok": true, "none": null, "n": 3, "x": "1,2"})).unwrap().context, "True None 3 2\n");
}

#[test]
fn examples_stand_before_the_question_and_never_show_it() {
    let mut shown = task("{{q}}?", &["no", "yes"], "a");
    shown.num_fewshot = 2;
    shown.task_description = "Answer.\n\n".to_string();
    let documents: Vec<Document> = (0..3).map(|i| document(json!({"q": format!("q{i}"), "a": i % 2}))).collect();
    let compiled = shown.compile().unwrap();
    let mut shots = Shots::new(&documents);
    assert_eq!(compiled.question(&documents[2], &mut shots).unwrap().context, "Answer.\n\nq0? no\n\nq1? yes\n\nq2?");
    assert_eq!(compiled.question(&documents[0], &mut shots).unwrap().context, "Answer.\n\nq1? yes\n\nq2? no\n\nq0?");
    let few = compiled.question(&documents[0], &mut Shots::new(&documents[..2])).unwrap_err();
    assert_eq!(few, "can be shown 1 of 2 examples: `fewshot_split` has no more that differ from it and from each other");
}

/// Whatever a record holds besides: what is rendered decides.
#[test]
fn a_question_in_another_guise_is_never_an_example() {
    let mut shown = task("{{q}}", &["choices"], "a");
    shown.num_fewshot = 1;
    let compiled = shown.compile().unwrap();
    let other = json!({"q": "Other?", "choices": ["yes", "no"], "a": 1});
    let asked = json!({"q": "Où est le café ?", "choices": ["ici", "là"], "a": 1});
    let context = |first: Value, asked: &Value| {
        let examples = [document(first), document(other.clone())];
        compiled.question(&document(asked.clone()), &mut Shots::new(&examples)).unwrap().context
    };
    for same in [
        json!({"id": 7, "q": "Où est le café ?", "choices": ["ici", "là"], "a": 1}),
        json!({"q": "Ou\u{300} est  le cafe\u{301}?\n", "choices": ["ici", "la\u{300}"], "a": 1}),
        json!({"q": "OÙ\u{200b} EST LE CAFÉ ?", "choices": ["ICI", "LÀ"], "a": 1}),
        json!({"q": "Ｏù est le café ？", "choices": ["ici", "là"], "a": 1}),
        // Its choices in another order, and a label that is wrong.
        json!({"q": "Où est le café ?", "choices": ["là", "ici"], "a": 0}),
        json!({"q": "Où est le café ?", "choices": ["ici", "là"], "a": 0}),
        // Other wrong choices, but the right one is the answer.
        json!({"q": "Où est le café ?", "choices": ["là", "nulle part", "partout"], "a": 0}),
    ] {
        assert_eq!(context(same.clone(), &asked), "Other? no\n\nOù est le café ?", "{same}");
    }
    for differs in [
        json!({"q": "Où est le thé ?", "choices": ["ici", "là"], "a": 1}),
        json!({"q": "Où est le café ?", "choices": ["dedans", "dehors"], "a": 1}),
    ] {
        assert!(!context(differs.clone(), &asked).starts_with("Other?"), "{differs}");
    }
}

#[test]
fn an_example_is_shown_once() {
    let mut shown = task("{{q}}", &["choices"], "a");
    shown.num_fewshot = 2;
    let compiled = shown.compile().unwrap();
    let one = |q: &str, id: u32| document(json!({"q": q, "choices": ["x", "y"], "a": 0, "id": id}));
    let examples = [one("first", 1), one("First!", 2), one("first", 3), one("second", 4), one("third", 5)];
    let asked = |q: &str| compiled.question(&one(q, 9), &mut Shots::new(&examples)).map(|question| question.context);
    assert_eq!(asked("fourth").unwrap(), "first x\n\nsecond x\n\nfourth");
    assert_eq!(asked("FIRST").unwrap(), "second x\n\nthird x\n\nFIRST");
    let few = compiled.question(&one("second", 9), &mut Shots::new(&examples[..4])).unwrap_err();
    assert!(few.starts_with("can be shown 1 of 2 examples"), "{few}");
    // An example that does not fit is told only where it would be shown.
    let broken = [one("first", 1), one("second", 2), document(json!({"q": "third"}))];
    assert!(compiled.question(&one("fourth", 9), &mut Shots::new(&broken)).is_ok());
    let said = compiled.question(&one("first", 9), &mut Shots::new(&broken)).unwrap_err();
    assert!(said.starts_with("is shown an example that has no field `choices`"), "{said}");
}

#[test]
fn a_document_that_does_not_fit_says_why() {
    let plain = task("question", &["choices"], "answer");
    for (found, said) in [
        (json!({"quest": 1}), "has no field `question`, which `doc_to_text` names; it has `quest`"),
        (json!({"question": 3}), "has a number in `question`, where `doc_to_text` wants a text"),
        (json!({"question": "q", "choices": "ab"}), "has no list of choices: `doc_to_choice` gives a text"),
        (json!({"question": "q", "choices": ["a"]}), "has 1 choices: there is nothing to choose"),
        (json!({"question": "q", "choices": ["a", 2]}), "has a choice that is a number, not a text"),
        (json!({"question": "q", "choices": ["a", ""]}), "has an empty choice"),
        (json!({"question": "q", "choices": ["a", " \u{200b}"]}), "has an empty choice"),
        (json!({"question": "q", "choices": ["a", "b", "a"], "answer": 1}), "has two equal choices, 0 and 2 (counted from 0): \"a\""),
        (json!({"question": "q", "choices": ["é", " e\u{301}"], "answer": 1}), "has two equal choices"),
        (json!({"question": "q", "choices": ["a b", "a\u{a0}b"], "answer": 1}), "has two equal choices"),
        (json!({"question": "q", "choices": ["ab", "a\u{200d}b"], "answer": 1}), "has two equal choices"),
        (json!({"question": "q", "choices": ["a", "b"], "answer": 2}), "has 2 choices, and `doc_to_target` gives 2"),
        (json!({"question": "q", "choices": ["a", "b"], "answer": -1}), "has 2 choices, and `doc_to_target` gives -1"),
        (json!({"question": "q", "choices": ["a", "b"], "answer": "c"}), "has 2 choices, and `doc_to_target` gives \"c\""),
        (json!({"question": "q", "choices": ["a", "b"], "answer": []}), "has no right choice"),
    ] {
        let error = ask(&plain, found).unwrap_err();
        assert!(error.starts_with(said), "{error}");
    }
    let strict = ask(&task("{{nothing}}", &["a", "b"], "0"), json!({"q": 1})).unwrap_err();
    assert!(strict.starts_with("cannot fill in `doc_to_text`: undefined value"), "{strict}");
    let lost = ask(&task("q", &["{{c.text}}"], "0"), json!({"q": "q", "c": {}})).unwrap_err();
    assert!(lost.contains("`doc_to_choice`"), "{lost}");
    let unlisted = ask(&task("q", &["a", "b"], "{{l.index('x')}}"), json!({"q": "q", "l": ["y"]})).unwrap_err();
    assert!(unlisted.contains("x is not in the list"), "{unlisted}");
}

#[test]
fn a_wrong_template_is_told_by_its_field() {
    let field = |task: Task| task.compile().unwrap_err().field;
    assert_eq!(field(task("{{question", &["a", "b"], "0")), "doc_to_text");
    assert_eq!(field(task("q", &["{% if %}"], "0")), "doc_to_choice");
    assert_eq!(field(task("q", &["{{a}} {{b}}"], "0")), "doc_to_choice");
    assert_eq!(
        task("q", &["no", "yes", "no"], "0").compile().unwrap_err().why,
        "it has two equal choices, 0 and 2 (counted from 0): \"no\""
    );
    assert_eq!(task("q", &["no", ""], "0").compile().unwrap_err().why, "it has an empty choice");
    assert!(task("q", &["No", "no"], "0").compile().is_ok());
    assert_eq!(field(task("q", &["a", "b"], "{{ | }}")), "doc_to_target");
}
