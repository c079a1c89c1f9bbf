//! Tests of the fields: each is listed once, documented, and read as the list says.

use super::*;
use crate::model::config::tests::tiny;
use crate::model::{Config, ModelError};

fn with(name: &str, value: Value) -> Result<Config, ModelError> {
    let mut fields: Map<String, Value> = serde_json::from_slice(&tiny().to_json()).unwrap();
    fields.insert(name.to_string(), value);
    Config::from_json(&serde_json::to_vec(&fields).unwrap())
}

#[test]
fn every_key_is_listed_once_and_says_why() {
    for file in File::ALL {
        let mut names = std::collections::BTreeSet::new();
        for key in file.keys() {
            assert!(names.insert(key.name), "{} of {} twice", key.name, file.name());
            assert!(matches!(key.fate, Fate::Used | Fate::Harmless) || !key.about.is_empty(), "{}", key.name);
            assert!(key.neutral.is_empty() || serde_json::from_str::<Value>(key.neutral).is_ok(), "{}", key.name);
        }
    }
}

/// Whatever a value may be.
fn loud() -> [Value; 5] {
    [json!(7), json!(0.25), json!("x"), json!([3]), json!({"a": 1})]
}

#[test]
fn a_field_that_is_refused_or_told_is_so_with_every_value_that_says_something() {
    for file in File::ALL {
        for key in file.keys() {
            for value in loud() {
                let fields = Map::from_iter([(key.name.to_string(), value.clone())]);
                let (refused, told) = (check(file, &fields).is_err(), remark(file, key.name, key.name, &value).is_some());
                assert_eq!((refused, told), (key.fate == Fate::Refused, key.fate == Fate::Told), "{} {value}", key.name);
            }
        }
        for value in loud() {
            assert!(remark(file, "never_heard_of", "never_heard_of", &value).unwrap().contains("never_heard_of"));
        }
        assert_eq!(remark(file, "never_heard_of", "never_heard_of", &json!(false)), None);
    }
}

#[test]
fn config_json_is_refused_by_the_name_of_the_field() {
    for key in File::Config.keys().iter().filter(|key| key.fate == Fate::Refused) {
        let error = with(key.name, json!(7)).unwrap_err().to_string();
        assert!(error.contains(key.name), "{error}");
        // Where null is not nothing to transformers.
        assert_eq!(with(key.name, Value::Null).is_ok(), key.name != "is_causal", "{}", key.name);
    }
    assert!(with("is_causal", json!(false)).is_err() && with("is_causal", json!(true)).is_ok());
}

/// Of each key its row in the documentation, in the same words.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test may ask how it was called")]
fn the_documentation_has_the_table() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/models.md");
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let table = table();
    let (start, end) = ("<!-- table: begin -->\n", "<!-- table: end -->");
    let inner = found.split_once(start).and_then(|(_, rest)| rest.split_once(end)).map(|(inner, _)| inner).unwrap_or_default();
    if inner != table && std::env::var("UPDATE").is_ok_and(|value| value == "1") {
        let head = found.split_once(start).map_or("", |(head, _)| head);
        std::fs::write(&path, format!("{head}{start}{table}{end}\n")).unwrap();
        return;
    }
    assert!(inner == table, "docs/models.md differs from the lists: UPDATE=1 cargo test --lib keys::");
}

fn table() -> String {
    let mut text = String::new();
    for file in File::ALL {
        text += &format!("\n### {}\n\n| field | what becomes of it | |\n|---|---|---|\n", file.name());
        for Key { name, fate, neutral, about } in file.keys() {
            let fate = match fate {
                Fate::Used => "used",
                Fate::Harmless => "harmless",
                Fate::Refused => "refused",
                Fate::Told => "warning",
            };
            let unless = if neutral.is_empty() { String::new() } else { format!(" unless `{neutral}`") };
            text += &format!("| `{name}` | {fate}{unless} | {} |\n", about.replace('|', "\\|"));
        }
    }
    text + "\n"
}

/// A model whose `config.json` says nothing of its end has that of transformers' class, unless `generation_config.json` is there.
#[test]
fn an_end_that_no_file_names_is_that_of_the_class() {
    use crate::model::{ChatTemplate, Model, Weights, folder};
    let space = tempfile::tempdir().unwrap();
    let config = Config { vocab_size: 257, eos_token_id: None, ..tiny() };
    let mut tokenizer = crate::model::tokenizer::tests::bytes_only();
    tokenizer.eos = None;
    Model { weights: Weights::zeros(&config).unwrap(), config, tokenizer, chat: ChatTemplate::absent() }.save(space.path()).unwrap();
    let ends = || folder::load_all_but_weights(space.path()).unwrap().0.end_tokens().collect::<Vec<u32>>();
    assert_eq!(ends(), Vec::<u32>::new());
    std::fs::remove_file(space.path().join("generation_config.json")).unwrap();
    assert_eq!(ends(), Vec::<u32>::new(), "null is none");
    let path = space.path().join("config.json");
    let mut fields: Map<String, Value> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    fields.remove("eos_token_id");
    std::fs::write(&path, serde_json::to_vec(&fields).unwrap()).unwrap();
    assert_eq!(ends(), [2]);
    std::fs::write(space.path().join("generation_config.json"), "{}").unwrap();
    assert_eq!(ends(), Vec::<u32>::new());
}
