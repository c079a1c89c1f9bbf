//! What runs again after a change, and what `explain` says about it.

use crate::space::Space;

#[test]
fn a_learning_rate_reruns_its_step_and_what_depends_on_it() {
    let space = Space::with_project();
    space.slmops(&["build"]).success();
    space.replace("slmops.toml", "learning_rate = 3e-3", "learning_rate = 2e-3");
    let explained = space.slmops(&["explain", "tiny"]);
    assert!(explained.success().out.contains("learning_rate: 0.003 → 0.002"), "{}", explained.out);
    let ran = space.slmops(&["build"]);
    let started = ran.success().started();
    assert!(started.contains(&"tiny") && started.contains(&"small@type=Q8_0"), "{started:?}");
    assert!(!started.contains(&"words"), "the tokenizer does not depend on it: {started:?}");
    let explained = space.slmops(&["explain", "small@Q8_0"]);
    assert!(explained.success().out.contains("input model"), "{}", explained.out);
}

#[test]
fn the_same_number_written_otherwise_changes_nothing() {
    let space = Space::with_project();
    space.slmops(&["build"]).success();
    space.replace("slmops.toml", "learning_rate = 3e-3", "learning_rate = 0.0030");
    assert_eq!(space.slmops(&["build"]).success().counts().0, 0);
}

#[test]
fn a_gate_reruns_no_evaluation() {
    let space = Space::with_project();
    space.slmops(&["build"]).success();
    space.replace("slmops.toml", "min = 0.0", "min = -1.0");
    let explained = space.slmops(&["explain", "commands_understood.gate"]);
    assert!(explained.success().out.contains("limit: 0 → -1"), "{}", explained.out);
    let ran = space.slmops(&["build"]);
    for step in ran.success().started() {
        assert!(step.contains(".gate") || step.contains("release"), "only gates and bundles run: {step}");
    }
    assert!(!ran.started().is_empty());
}

#[test]
fn a_bundle_that_misses_its_gates_does_not_exist() {
    let space = Space::with_project();
    space.slmops(&["build"]).success();
    assert!(space.join("dist/lights-0.1.0-switch").is_dir());
    space.replace("slmops.toml", "min = 0.0", "min = 1.0");
    space.slmops(&["build"]).fails_with(1).says(&["exact_match"]);
    assert!(!space.join("dist/lights-0.1.0-switch").exists(), "not even an old copy");
    space.replace("slmops.toml", "min = 1.0", "min = 0.0");
    space.slmops(&["build"]).success();
    assert!(space.join("dist/lights-0.1.0-switch").is_dir());
}

#[test]
fn what_does_not_fit_the_device_is_refused() {
    let space = Space::with_project();
    space.replace("slmops.toml", "storage = \"1 MiB\"", "storage = \"10 KiB\"");
    space.slmops(&["build"]).fails_with(1).says(&["storage"]);
    assert!(space.bundles().is_empty());
}

#[test]
fn renamed_and_swapped_files_of_a_source_change_what_reads_it() {
    let space = Space::with_project();
    space.write("data/more/a.jsonl", "{\"prompt\": \"one\", \"completion\": \"1\"}\n");
    space.write("data/more/b.jsonl", "{\"prompt\": \"two\", \"completion\": \"2\"}\n");
    space.replace("slmops.toml", "[source]", "[source]\nmore = { path = \"data/more\" }");
    space.replace("slmops.toml", "[tokenizer.words]", "[dataset.all]\ndata = [\"more\"]\n\n[tokenizer.words]");
    space.slmops(&["build", "all"]).success();
    std::fs::rename(space.join("data/more/a.jsonl"), space.join("data/more/c.jsonl")).expect("a rename");
    assert_eq!(space.slmops(&["build", "all"]).success().started(), ["all"]);
    std::fs::rename(space.join("data/more/b.jsonl"), space.join("data/more/x")).expect("a rename");
    std::fs::rename(space.join("data/more/c.jsonl"), space.join("data/more/b.jsonl")).expect("a rename");
    std::fs::rename(space.join("data/more/x"), space.join("data/more/c.jsonl")).expect("a rename");
    assert_eq!(space.slmops(&["build", "all"]).success().started(), ["all"], "the same names with swapped contents");
}

#[test]
fn a_bundle_that_was_renamed_leaves_no_old_copy() {
    let space = Space::with_project();
    let second = "[bundle.second]\ndevice = [\"switch\"]\nmodel = \"small\"\nchoose = \"smallest\"\n\n[bundle.release]";
    let manifest = space.read("slmops.toml");
    space.replace("slmops.toml", "[bundle.release]", second);
    space.slmops(&["build"]).success();
    assert_eq!(space.bundles().len(), 2);
    space.write("slmops.toml", &manifest);
    space.slmops(&["build"]).success();
    assert_eq!(space.bundles().len(), 1);
}

#[test]
fn what_is_not_a_bundle_is_not_written_over() {
    let space = Space::with_project();
    space.write("dist/lights-0.1.0-switch/important", "mine");
    space.slmops(&["build"]).fails_with(2).says(&["was not delivered by slmops", "move it away or delete it"]);
    assert_eq!(space.read("dist/lights-0.1.0-switch/important"), "mine");
}

#[test]
fn what_a_failed_step_said_last_is_shown() {
    let space = Space::with_project();
    let diverging = ["--set", "train.tiny.learning_rate=10.0", "--set", "train.tiny.weight_decay=1.0"];
    let ran = space.slmops(&[&["build", "--quiet", "tiny"], &diverging[..]].concat());
    ran.fails_with(1).says(&["115008 parameters", "diverged"]);
}
