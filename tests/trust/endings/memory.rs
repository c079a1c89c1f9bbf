//! What needs more memory than there is, is refused with an estimate and a way out, before it is asked for.

use super::{Space, built, ends};

/// The same project with other values.
fn changed(space: &Space, changes: &[(&str, &str)]) -> Space {
    let space = super::copy(space.path());
    for (from, to) in changes {
        space.replace("slmops.toml", from, to);
    }
    space
}

fn build(space: &Space, budget: &str) -> super::Ran {
    let mut command = space.command(&["build"]);
    command.env("SLMOPS_MEMORY", budget);
    ends(command)
}

#[test]
fn a_training_that_does_not_fit_is_refused_with_an_estimate() {
    let built = built();
    // No machine has so much.
    let huge = changed(&built, &[("batch_size = 32", "batch_size = 1048576")]);
    build(&huge, "8GiB").ends_with(&[3]).says(&["the training (", "a batch of", "needs about", "lower `batch_size`"]);
    let wide = changed(&built, &[("hidden_size = 64", "hidden_size = 65536"), ("batch_size = 32", "batch_size = 1")]);
    build(&wide, "8GiB").ends_with(&[2, 3]);
    // With enough it runs, whatever the estimate says of the least that it needs.
    let twice = changed(&built, &[("max_steps = 40", "max_steps = 4"), ("batch_size = 32", "batch_size = 2")]);
    build(&twice, "8GiB").ends_with(&[0]);
}

#[test]
fn shapes_beyond_reason_are_mistakes_of_the_manifest() {
    let built = built();
    let changes = [
        [("hidden_size = 64", "hidden_size = 131072"), ("num_hidden_layers = 2", "num_hidden_layers = 512")],
        [("hidden_size = 64", "hidden_size = 99999999999999"), ("num_hidden_layers = 2", "num_hidden_layers = 2")],
    ];
    for change in changes {
        let space = changed(&built, &change);
        ends(space.command(&["check"])).ends_with(&[2]).says(&["slmops.toml:"]);
    }
}

#[test]
fn an_answer_beyond_reason_is_refused() {
    let space = built();
    let long = space.read("model/config.json").replace("\"max_position_embeddings\": 512", "\"max_position_embeddings\": 4194304");
    assert!(long.contains("4194304"));
    space.write("model/config.json", &long);
    let mut command = space.command(&["run", "model", "hello", "--max-new-tokens", "4000000"]);
    command.env("SLMOPS_MEMORY", "256MiB");
    ends(command).ends_with(&[3]).says(&["the cache for answers of", "SLMOPS_MEMORY"]);
    for wrong in ["8 parsecs", "-1", "x"] {
        let mut command = space.command(&["plan"]);
        command.env("SLMOPS_MEMORY", wrong);
        ends(command).ends_with(&[2]).says(&["SLMOPS_MEMORY", "not a size"]);
    }
}

#[test]
fn data_that_does_not_fit_is_refused_and_a_line_without_an_end_is_not_held() {
    let built = built();
    let space = super::copy(built.path());
    std::fs::File::create(space.join("data/train.jsonl")).unwrap().set_len(3 << 30).unwrap();
    build(&space, "1GiB").ends_with(&[3]).says(&["the data needs about"]);
    let space = super::copy(built.path());
    let line = "{\"prompt\":\"a\",\"completion\":\"b\"}\n";
    space.write("data/train.jsonl", &line.repeat(3_000_000));
    build(&space, "300MiB").ends_with(&[3]).says(&["the data"]);
}

#[test]
fn heads_that_promise_more_than_there_is_cost_nothing() {
    let space = built();
    // 40 GiB of empty texts, on a disk that holds none of them.
    let mut head = b"GGUF".to_vec();
    head.extend(3u32.to_le_bytes());
    head.extend(0u64.to_le_bytes());
    head.extend(2000u64.to_le_bytes());
    let key = b"k000000";
    head.extend((key.len() as u64).to_le_bytes());
    head.extend(key);
    head.extend(9u32.to_le_bytes());
    head.extend(8u32.to_le_bytes());
    head.extend((1u64 << 24).to_le_bytes());
    std::fs::write(space.join("bomb.gguf"), &head).unwrap();
    std::fs::OpenOptions::new().write(true).open(space.join("bomb.gguf")).unwrap().set_len(40 << 30).unwrap();
    let mut command = space.command(&["run", "bomb.gguf", "hello"]);
    command.env("SLMOPS_MEMORY", "200MiB");
    ends(command).ends_with(&[3]).says(&["`SLMOPS_MEMORY` leaves"]);
    for length in [u64::MAX, 1 << 40, 99_999_999] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(b"{\"a\":{\"dtype\":\"F32\"");
        std::fs::write(space.join("model/model.safetensors"), &bytes).unwrap();
        ends(space.command(&["run", "model", "hello"])).ends_with(&[2]);
    }
}
