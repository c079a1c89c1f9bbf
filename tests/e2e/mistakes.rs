//! Mistakes in the manifest, in the flags, and where there is no manifest.

use crate::space::Space;

const FIVE_MISTAKES: &str = r#"slmops = 1

[project]
name = "five"
version = "0.1.0"

[source]
texts = { path = "texts.jsonl" }

[tokenizer.words]
data = ["text"]
vocab_size = 384

[train.tiny]
tokenizer = "words"
data = ["texts"]
arch = { hidden_size = 64, num_hidden_layers = 2, num_attention_heads = 4, intermediate_size = 160 }
max_stps = 10

[quantize.small]
model = "tiny"
type = "Q4_KM"

[evaluate.good]
model = ["tiny"]
data = { test = "texts" }
metrics = ["exact_match"]
gate = [{ metric = "exct_match", on = "test", min = 0.5 }]

[device.switch]
arch = "aarch64"
runtime = "llama.cpp"
storage = "one megabyte"
memory = "16 MiB"

[bundle.release]
device = ["switch"]
model = "small"
require = ["good"]
choose = "smallest"
"#;

#[test]
fn five_mistakes_are_five_diagnostics_at_their_places() {
    let space = Space::new();
    space.write("texts.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n");
    space.write("slmops.toml", FIVE_MISTAKES);
    let ran = space.slmops(&["check"]);
    ran.fails_with(2).says(&[
        "slmops.toml:11:9",
        "did you mean `texts`?",
        "slmops.toml:18:1",
        "did you mean `max_steps`?",
        "slmops.toml:22:8",
        "did you mean `Q4_K_M`?",
        "slmops.toml:28:20",
        "did you mean `exact_match`?",
        "slmops.toml:33:11",
        "5 problems found",
    ]);
    assert_eq!(ran.err.lines().filter(|line| line.starts_with("error")).count(), 5, "{}", ran.err);
    let json = space.slmops(&["check", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&json.fails_with(2).out).expect("JSON");
    assert_eq!(list["diagnostics"].as_array().expect("a list").len(), 5);
    assert!(space.slmops(&["build"]).fails_with(2).err.contains("5 problems found"));
}

#[test]
fn a_cycle_is_shown_as_a_path() {
    let space = Space::new();
    space.write("slmops.toml", "slmops = 1\n[project]\nname = \"round\"\nversion = \"1.0.0\"\n[dataset.a]\ndata = \"c\"\n[dataset.b]\ndata = \"a\"\n[dataset.c]\ndata = \"b\"\n");
    let ran = space.slmops(&["check"]);
    ran.fails_with(2).says(&["a → ", " → a"]);
}

#[test]
fn without_a_manifest_it_says_what_to_do() {
    let space = Space::new();
    space.slmops(&["build"]).fails_with(2).says(&["there is no slmops.toml", "slmops init"]);
}

#[test]
fn an_unknown_target_gets_a_suggestion() {
    let space = Space::with_project();
    space.slmops(&["build", "tyni"]).fails_with(2).says(&["tyni", "did you mean `tiny`?"]);
    space.slmops(&["explain", "comands"]).fails_with(2);
    space.slmops(&["build", "-j", "0"]).fails_with(2);
    space.slmops(&["biuld"]).fails_with(2);
}

#[test]
fn help_goes_to_stdout_and_knows_every_kind() {
    let space = Space::new();
    let help = space.slmops(&["help"]);
    for kind in slmops::steps::KINDS {
        assert!(help.success().out.contains(kind.name()), "{} is not in\n{}", kind.name(), help.out);
        let page = space.slmops(&["help", kind.name()]);
        for field in kind.fields() {
            assert!(page.success().out.contains(field.name));
        }
    }
    space.slmops(&["help", "trian"]).fails_with(2).says(&["did you mean `train`?"]);
    let page = space.slmops(&["help", "device"]);
    assert!(page.success().out.contains("storage  (size, as in \"1 MiB\"; optional)"), "{}", page.out);
    space.slmops(&["help", "devise"]).fails_with(2).says(&["did you mean `device`?"]);
    assert!(space.slmops(&["--help"]).success().out.contains("Usage: slmops"));
    assert!(space.slmops(&["completions", "bash"]).success().out.contains("_slmops"));
    space.slmops(&["man", "pages"]).success();
    assert!(space.read("pages/slmops-build.1").contains(".TH"));
}

#[test]
fn looking_for_a_store_makes_none() {
    let space = Space::new();
    for command in ["stat", "verify", "gc"] {
        space.slmops(&["cache", command, "--cache", "cahce"]).fails_with(2).says(&["there is no store in"]);
    }
    assert!(!space.join("cahce").exists());
}
