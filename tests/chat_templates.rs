//! Chat templates against Jinja2, as transformers runs it: one-line cases, small equivalents of each supported family's template, and random ones.

#![expect(clippy::disallowed_methods, reason = "a test knows what it has made")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use slmops::model::chat::{ChatTemplate, Conversation, Data, Ending, Message};
use slmops::model::{Encoder, Tokenizer};

/// 2026-01-31T12:30:00Z, the day of tests/peers/chat_templates.py.
const NOW: i64 = 1_769_862_600;
const FAMILIES: [&str; 17] = [
    "llama2",
    "llama3",
    "llama3.1",
    "mistral-v1",
    "mistral-v3",
    "mistral-nemo",
    "qwen2",
    "qwen2.5",
    "qwen3",
    "gemma3",
    "phi3",
    "phi4-mini",
    "smollm",
    "smollm2",
    "smollm3",
    "zephyr",
    "r1-distill",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chat_templates")
}

fn template(family: &str) -> String {
    std::fs::read_to_string(folder().join(format!("{family}.jinja"))).expect("a template")
}

/// Bytes as tokens, and `<s>` and `</s>`.
fn tokenizer() -> Tokenizer {
    let printable = (33..127).chain(161..173).chain(174..256).collect::<Vec<u32>>();
    let mut next = 255;
    let mut vocab = serde_json::Map::new();
    for byte in 0..256u32 {
        let letter = if printable.contains(&byte) {
            byte
        } else {
            next += 1;
            next
        };
        vocab.insert(char::from_u32(letter).expect("a letter").to_string(), json!(byte + 2));
    }
    let added = |id: u32, text: &str| json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let names = ["<s>", "</s>"];
    names.iter().enumerate().for_each(|(id, text)| drop(vocab.insert(text.to_string(), json!(id))));
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let others = ["<|im_end|>", "<|im_start|>", "<|end|>", "<|eot_id|>", "<end_of_turn>"];
    let mut specials: Vec<Value> = names.iter().enumerate().map(|(id, text)| added(id as u32, text)).collect();
    for (i, text) in others.iter().enumerate() {
        vocab.insert(text.to_string(), json!(258 + i));
        specials.push(added(258 + i as u32, text));
    }
    let file = json!({"version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null, "added_tokens": specials,
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
                  "byte_fallback": false, "vocab": vocab, "merges": []}});
    let mut tokenizer = Tokenizer::from_json(file.to_string().as_bytes()).expect("a tokenizer");
    (tokenizer.bos, tokenizer.eos) = (tokenizer.special("<s>"), tokenizer.special("</s>"));
    tokenizer
}

fn data(text: &str) -> Data {
    serde_json::from_str(text).expect("JSON")
}

/// Messages in the order of their keys as written.
fn conversation(messages: &str, tools: Option<&str>) -> Conversation {
    let Data::List(messages) = data(messages) else { panic!("a list") };
    let message = |message: Data| match message {
        Data::Table(fields) => Message::of(fields).expect("a role"),
        _ => panic!("a table"),
    };
    Conversation { messages: messages.into_iter().map(message).collect(), tools: tools.map(data), documents: None }
}

const TOOLS: &str = r#"[{"type": "function", "function": {"name": "open", "description": "Opens a \"fridge\"", "parameters": {"type": "object", "properties": {"n": {"type": "integer", "enum": [1, 2]}, "größe": {"type": "string"}}, "required": ["n"]}}}]"#;

/// Messages, tools, and whether an answer is awaited.
const CONVERSATIONS: [(&str, bool, bool); 6] = [
    (r#"[{"role": "user", "content": " open <b>1</b>\n"}]"#, false, true),
    (
        r#"[{"role": "system", "content": "Be brief. /no_think"}, {"role": "user", "content": "öffne"}, {"role": "assistant", "content": " ja "}]"#,
        false,
        false,
    ),
    (
        r#"[{"role": "user", "content": "q1"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\na1"}, {"role": "user", "content": "q2"}, {"role": "assistant", "content": "a2"}]"#,
        false,
        false,
    ),
    (r#"[{"role": "user", "content": "q1"}, {"role": "assistant", "content": "a1"}, {"content": "q2", "role": "user"}]"#, true, true),
    (
        r#"[{"role": "user", "content": "open 1"}, {"role": "assistant", "content": null, "tool_calls": [{"id": "abc123def", "type": "function", "function": {"name": "open", "arguments": {"n": 1, "a": [1.0, null, true]}}}]}, {"role": "tool", "tool_call_id": "abc123def", "name": "open", "content": "done"}, {"role": "assistant", "content": "Open.", "reasoning_content": "good"}]"#,
        true,
        false,
    ),
    (r#"[{"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]}]"#, false, true),
];

fn python(arguments: &[&str]) -> Vec<Value> {
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers");
    assert!(peers.join("venv/.done-torch-2").exists(), "PEER MISSING: transformers; run: bash tests/peers/install.sh");
    let output = Command::new(peers.join("venv/bin/python"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/chat_templates.py"))
        .args(arguments)
        .env("LD_LIBRARY_PATH", peers.join("stand-ins"))
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .expect("python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn the_one_line_cases_are_what_jinja2_makes_of_them() {
    let file: Value = serde_json::from_str(&std::fs::read_to_string(folder().join("cases.json")).expect("cases")).expect("JSON");
    let chat = conversation(&file["messages"].to_string(), None);
    // serde sorts the keys of `messages`: as written they are role, content.
    let ordered = chat.messages.iter().map(|message| Message::new(message.role(), &message.text())).collect();
    let (chat, tokenizer) = (Conversation::of(ordered), tokenizer());
    for case in file["cases"].as_array().expect("a list") {
        let chat_template = ChatTemplate::of_model(case["template"].as_str().expect("a text")).at(Some(NOW));
        let found = chat_template.render(&chat, Ending::AwaitsAnswer, &tokenizer);
        match (case["expected"].as_str(), &found) {
            (Some(expected), Ok(text)) => assert_eq!(text, expected, "{case}"),
            (None, Ok(text)) => assert_eq!((text.as_str(), case.get("note").is_some()), ("2026", true), "{case}"),
            (None, Err(_)) => assert!(case.get("refused_by_reference").is_some(), "{case}"),
            (Some(_), Err(error)) => panic!("{case}: {error}"),
        }
    }
}

#[test]
fn every_family_renders_as_transformers_renders_it() {
    let tokenizer = tokenizer();
    let (mut cases, mut ours) = (Vec::new(), Vec::new());
    for family in FAMILIES {
        let chat_template = ChatTemplate::of_model(&template(family)).at(Some(NOW));
        for (messages, tools, awaits) in CONVERSATIONS {
            let chat = conversation(messages, tools.then_some(TOOLS));
            let ending = if awaits { Ending::AwaitsAnswer } else { Ending::Complete };
            ours.push((family, chat_template.render(&chat, ending, &tokenizer)));
            let tools = if tools { TOOLS } else { "null" };
            let text = serde_json::to_string(&template(family)).expect("JSON");
            cases.push(format!(
                r#"{{"template": {text}, "special": {{"bos_token": "<s>", "eos_token": "</s>"}}, "messages": {messages}, "tools": {tools}, "add_generation_prompt": {awaits}}}"#
            ));
        }
    }
    let space = tempfile::tempdir().expect("a folder");
    let path = space.path().join("cases.json");
    std::fs::write(&path, format!("[{}]", cases.join(","))).expect("written");
    let theirs = python(&["apply", path.to_str().expect("a path")]);
    assert_eq!(theirs.len(), ours.len());
    let (mut same, mut both) = (0, 0);
    let mut here = Vec::new();
    for ((family, ours), theirs) in ours.iter().zip(&theirs) {
        match (theirs["text"].as_str(), ours) {
            (Some(expected), Ok(text)) => {
                assert_eq!(text, expected, "{family}: {}", theirs["messages"]);
                same += 1;
            }
            (None, Err(_)) => both += 1,
            (Some(_), Err(error)) => here.push(format!("{family}: {error}")),
            (None, Ok(text)) => panic!("{family}: transformers refuses with {theirs}, and here is {text}"),
        }
    }
    println!("{same} the same, {both} refused by both, {} refused here alone: {here:?}", here.len());
    assert!(here.is_empty(), "{here:?}");
}

#[test]
fn two_turns_are_taught_in_every_family() {
    let tokenizer = tokenizer();
    for family in FAMILIES {
        let chat_template = ChatTemplate::of_model(&template(family)).at(Some(NOW));
        let encoder = Encoder { tokenizer: &tokenizer, chat: &chat_template };
        let turns = [Message::user("q1"), Message::assistant("first"), Message::user("q2"), Message::assistant("second")];
        let chat = Conversation::of(turns.to_vec());
        let example = encoder.conversation(&chat).unwrap_or_else(|error| panic!("{family}: {error}"));
        let scored: Vec<String> =
            example.scored.iter().map(|range| tokenizer.decode(&example.tokens[range.clone()]).expect("a text")).collect();
        assert_eq!(scored.len(), 2, "{family}: {scored:?}");
        for (text, answer) in scored.iter().zip(["first", "second"]) {
            let rest = text.replace("<think>\n\n</think>\n\n", "").replace("<think>\n\n</think>\n", "");
            assert_eq!(rest.trim(), answer, "{family}: {scored:?}");
        }
        let whole = chat_template.render(&chat, Ending::Complete, &tokenizer).expect("a text");
        assert_eq!(example.tokens, tokenizer.encode(&whole).expect("tokens"), "{family}");
    }
}

/// Texts must be the same; what is refused here alone is counted and said.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test may ask how many cases it is to try")]
fn random_templates_are_the_same_or_refused() {
    let count = std::env::var("SLMOPS_CHAT_CASES").unwrap_or_else(|_| "400".to_string());
    let seed = std::env::var("SLMOPS_CHAT_SEED").unwrap_or_else(|_| "1".to_string());
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers");
    assert!(peers.join("venv/.done-torch-2").exists(), "PEER MISSING: transformers; run: bash tests/peers/install.sh");
    let output = Command::new(peers.join("venv/bin/python"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/chat_templates.py"))
        .args(["random", &seed, &count])
        .env("LD_LIBRARY_PATH", peers.join("stand-ins"))
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .expect("python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (mut same, mut both, mut reasons) = (0, 0, std::collections::BTreeMap::<String, usize>::new());
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let case = data(line);
        let source = case.get("template").and_then(Data::text).expect("a text");
        match (case.get("text").and_then(Data::text), rendered(source, &case)) {
            (Some(expected), Ok(text)) => {
                assert_eq!(text, expected, "{source:?} of {line}");
                same += 1;
            }
            (None, Err(_)) => both += 1,
            (Some(_), Err(why)) => *reasons.entry(why.split(" at line ").next().unwrap_or_default().to_string()).or_default() += 1,
            (None, Ok(text)) => panic!("Jinja2 refuses {source:?}, and here is {text:?}: {line}"),
        }
    }
    let refused: usize = reasons.values().sum();
    println!("{same} the same, {both} refused by both, {refused} refused here alone: {reasons:#?}");
    assert!(same > both && refused * 20 < same, "{same} {both} {refused}");
}

fn rendered(source: &str, case: &Data) -> Result<String, String> {
    use slmops::model::jinja::{Function, Program, Spaces, Style, Undefined, making};
    let Some(Data::Table(fields)) = case.get("context") else { panic!("a context") };
    let values =
        making(|| fields.iter().map(|(name, value)| Ok((name.as_str(), value.value()?))).collect::<Result<Vec<_>, minijinja::Error>>());
    let mut context: std::collections::BTreeMap<&str, minijinja::Value> = values.expect("values").into_iter().collect();
    context.insert("raise_exception", minijinja::Value::from_object(Function::RaiseException));
    context.insert("strftime_now", minijinja::Value::from_object(Function::StrftimeNow(NOW)));
    let style = Style { spaces: Spaces::Trimmed, undefined: Undefined::Lenient };
    Program::template(source, style).and_then(|program| program.render(&context)).map_err(|problem| problem.to_string())
}
