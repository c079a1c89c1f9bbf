//! The step as the engine would run it.

use serde_json::{Value, json};

use super::*;
use crate::steps::train::tests::{Bench, bytes, declared, params};

fn task(changes: Value) -> Result<Task, Vec<Problem>> {
    let mut fields = params(json!({"vocab_size": 280, "min_frequency": 1, "eos_token": "<|endoftext|>", "special_tokens": []}));
    fields.append(&mut params(changes));
    Ok(Tokenizer.expand(&declared(fields, &["data"]))?.remove(0).task)
}

#[test]
fn it_learns_from_prompts_and_completions_and_writes_a_folder() {
    let mut bench = Bench::set_up();
    let data = [
        json!({"prompt": "zzzz", "completion": "qqqq"}),
        json!({"prompt": "zzzz"}),
        json!({"messages": [{"role": "user", "content": "wwww"}, {"role": "assistant", "content": "vvvv"}]}),
        json!({"text": "jjjj jjjj"}),
    ];
    std::fs::write(bench.path("all.jsonl"), data.map(|line| format!("{line}\n")).concat()).unwrap();
    bench.run(&Tokenizer, &task(json!({})).unwrap(), &[("data", "all.jsonl")], "out", 0).unwrap();
    let (tokenizer, chat) = folder::load_encoder(&bench.path("out")).unwrap();
    for text in ["zzzz", "qqqq", "wwww", "vvvv", "jjjj"] {
        assert_eq!(tokenizer.encode(text).unwrap().len(), 1, "{text}");
    }
    assert_eq!(chat.source(), Some(chat::DEFAULT));
    assert_eq!(tokenizer.eos.as_ref().map(|eos| eos.id), Some(0));
    bench.threads = 1;
    bench.run(&Tokenizer, &task(json!({})).unwrap(), &[("data", "all.jsonl")], "again", 0).unwrap();
    assert!(bytes(&bench.path("out")) == bytes(&bench.path("again")));
}

#[test]
fn wrong_fields_are_problems_at_their_places() {
    let path = |changes| task(changes).unwrap_err().remove(0).path;
    assert_eq!(path(json!({"vocab_size": 257, "special_tokens": ["<a>"]})), "vocab_size");
    assert_eq!(path(json!({"special_tokens": ["<a>", ""]})), "special_tokens.1");
    assert_eq!(path(json!({"eos_token": ""})), "eos_token");
    assert_eq!(path(json!({"chat_template": "{% for"})), "chat_template");
}
