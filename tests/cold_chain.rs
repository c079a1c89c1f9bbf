//! The example's data: made by its generator, and honest: no prompt of a test or of the validation set is ever trained on.

#[path = "../examples/cold-chain/generator/mod.rs"]
mod generator;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use slmops::steps::dataset::record::{self, Record};

const TRAINING: [&str; 3] = ["vendor", "site_labels", "field_prompts"];
const HELD_OUT: [&str; 3] = ["test_seen", "test_unseen", "validation"];

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cold-chain/data")
}

/// Prompt and completion of every line.
fn pairs(set: &str) -> Vec<(String, Option<String>)> {
    let records = record::read(&[data().join(format!("{set}.jsonl"))]).unwrap();
    let pair = |record| match record {
        Record::Pair { prompt, completion } => (prompt, completion),
        other => panic!("{other:?} is no prompt with a completion"),
    };
    records.iter().cloned().map(pair).collect()
}

fn prompts(set: &str) -> BTreeSet<String> {
    pairs(set).into_iter().map(|(prompt, _)| prompt).collect()
}

#[test]
fn the_generator_makes_the_files_that_are_checked_in() {
    let space = tempfile::tempdir().unwrap();
    generator::write_all(space.path()).unwrap();
    let made = slmops::base::files::names(space.path()).unwrap();
    assert_eq!(made, slmops::base::files::names(&data()).unwrap());
    for name in made {
        let same = fs::read(space.path().join(&name)).unwrap() == fs::read(data().join(&name)).unwrap();
        assert!(same, "{name:?} differs: run `cargo run --example generate-cold-chain`");
    }
}

#[test]
fn the_gold_answers_are_to_the_very_prompts_of_site_and_field() {
    let space = tempfile::tempdir().unwrap();
    generator::write_gold(space.path()).unwrap();
    let gold = record::read(&[space.path().join("gold.jsonl")]).unwrap();
    let asked: Vec<String> = ["site_labels", "field_prompts"].iter().flat_map(|set| pairs(set)).map(|(prompt, _)| prompt).collect();
    assert_eq!(gold.iter().map(Record::prompt).collect::<Vec<_>>(), asked);
    let labels = pairs("site_labels").into_iter().map(|(_, completion)| completion);
    let wrong = gold.iter().zip(labels).filter(|(gold, label)| gold.completion().as_deref() != label.as_deref()).count();
    assert!((400..560).contains(&wrong), "{wrong} of 2,000 site labels are wrong, and about a quarter of those with slots should be");
}

#[test]
fn no_held_out_prompt_is_trained_on_and_none_stands_twice() {
    for held_out in HELD_OUT {
        let tested = prompts(held_out);
        assert_eq!(tested.len(), pairs(held_out).len(), "{held_out} has a prompt twice");
        for other in TRAINING.iter().chain(&HELD_OUT).filter(|other| **other != held_out) {
            assert_eq!(tested.intersection(&prompts(other)).next(), None, "{held_out} and {other}");
        }
    }
}

#[test]
fn the_sets_have_the_sizes_and_labels_that_the_readme_states() {
    let sizes = [
        ("vendor", 12_000),
        ("site_labels", 2_000),
        ("field_prompts", 5_000),
        ("validation", 500),
        ("test_seen", 1_000),
        ("test_unseen", 1_000),
    ];
    for (set, size) in sizes {
        let pairs = pairs(set);
        assert_eq!(pairs.len(), size, "{set}");
        for (prompt, completion) in pairs {
            assert_eq!(completion.is_none(), set == "field_prompts", "{set}: {prompt}");
            if let Some(completion) = completion {
                let call: serde_json::Value = serde_json::from_str(&completion).unwrap();
                assert!(call["call"].is_string(), "{completion}");
            }
        }
    }
}

/// Words of a withheld phrasing, none of which a seen phrasing has.
#[test]
fn the_site_never_labels_a_withheld_phrasing() {
    let withheld = ["steady", "ring", "must", "stands", "peace", "book", "nobody", "bolt", "print", "claims"];
    let says = |set: &str, word: &str| prompts(set).iter().any(|prompt| prompt.split(' ').any(|said| said == word));
    for word in withheld {
        assert!(!says("site_labels", word) && !says("validation", word) && !says("test_seen", word), "{word}");
        assert!(says("vendor", word) && says("field_prompts", word) && says("test_unseen", word), "{word}");
    }
}

/// A prompt that means two things would be wrong whatever a model answers.
#[test]
fn a_prompt_means_one_thing() {
    let mut meaning = BTreeMap::new();
    for (prompt, completion) in HELD_OUT.iter().flat_map(|set| pairs(set)) {
        let before = meaning.insert(prompt.clone(), completion.clone());
        assert!(before.is_none() || before == Some(completion), "{prompt}");
    }
    for (prompt, call) in generator::clean(100_000) {
        let before = meaning.insert(prompt.clone(), Some(call.clone()));
        assert!(before.is_none() || before.flatten().as_ref() == Some(&call), "{prompt}: {call}");
    }
}
