//! A model pruned in every way, recovered and packed, as a manifest says it; and what a manifest gets wrong.

use serde_json::Value;

use crate::space::Space;

const STEPS: &str = r#"[prune.sparse]
model = "tiny"
data = "commands"
nsamples = 20
seqlen = 64
sparsity_type = "2:4"
matrix.prune_method = ["magnitude", "sparsegpt"]

[prune.short]
model = "tiny"
data = "commands"
seqlen = 64
structured = { num_hidden_layers = 1, intermediate_size = 128 }

[recover.again]
model = "sparse@prune_method=sparsegpt"
teacher = "tiny"
data = "commands"
max_steps = 20
batch_size = 16
learning_rate = 1e-3

[quantize.packed]
model = ["again", "short"]
type = "Q8_0"

[evaluate.pruned]
model = ["sparse", "again"]
data = { test = "test" }
metrics = ["perplexity"]
reference = "tiny"

[quantize.small]"#;

#[test]
fn a_model_is_pruned_recovered_and_packed() {
    let space = Space::with_project();
    space.replace("slmops.toml", "max_steps = 40", "max_steps = 150");
    space.replace("slmops.toml", "[quantize.small]", STEPS);
    let ran = space.slmops(&["build", "pruned", "packed"]);
    ran.success();
    let json = |folder: &str, file: &str| -> Value { serde_json::from_str(&space.read(&format!("{folder}/{file}"))).expect("JSON") };
    let out = |step: &str, folder: &str| {
        space.slmops(&["out", step, folder]).success();
    };
    out("sparse@prune_method=sparsegpt", "sparse");
    out("again", "again");
    let (before, after) = (json("sparse", "sparsity.json"), json("again", "sparsity.json"));
    assert_eq!(before, after);
    assert_eq!((&before["pattern"], &before["ratio"]), (&"2:4".into(), &0.5.into()));
    assert_eq!(before["tensors"][0]["name"], "model.layers.0.self_attn.q_proj.weight");
    out("packed@model=again", "packed");
    let zeros = &json("packed", "quantize.json")["sparsity"];
    assert_eq!((&zeros["zeros"], &zeros["kept"]), (&before["zeros"], &before["zeros"]));
    out("short", "short");
    let config = json("short", "config.json");
    assert_eq!((&config["num_hidden_layers"], &config["intermediate_size"]), (&1.into(), &128.into()));
    let perplexity = |step: &str, folder: &str| {
        out(step, folder);
        json(folder, "report.json")["sets"]["test"]["metrics"]["perplexity"]["value"].as_f64().expect("a figure")
    };
    let magnitude = perplexity("pruned@model=sparse,prune_method=magnitude", "p1");
    let sparsegpt = perplexity("pruned@model=sparse,prune_method=sparsegpt", "p2");
    let recovered = perplexity("pruned@model=again", "p3");
    assert!(recovered < sparsegpt && sparsegpt < magnitude, "{recovered} {sparsegpt} {magnitude}");
    assert_eq!(space.slmops(&["build", "pruned", "packed"]).success().counts().0, 0);
}

#[test]
fn mistakes_of_pruning_are_shown_where_they_are() {
    let space = Space::with_project();
    let steps = "[prune.a]\nmodel = \"tiny\"\nprune_method = \"wanda\"\nsparsity_type = \"2:4\"\nsparsity_ratio = 0.7\n\n\
        [prune.b]\nmodel = \"tiny\"\n\n\
        [prune.c]\nmodel = \"tiny\"\nprune_method = \"sparsgpt\"\nsparsity_ratio = 0.5\n\n\
        [distill.d]\nteacher = \"tiny\"\ndata = \"commands\"\nmax_steps = 4\n\n[quantize.small]";
    space.replace("slmops.toml", "[quantize.small]", steps);
    space.slmops(&["check"]).fails_with(2).says(&[
        "`2:4` has 2 zeros in every 4 weights",
        "`wanda` judges weights by what goes into them",
        "nothing says what goes",
        "did you mean `sparsegpt`?",
        "nothing says what the student is",
    ]);
}
