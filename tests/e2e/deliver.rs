//! `dist/`: what slmops put there, and what people keep there.

use std::os::unix::fs::symlink;

use crate::space::Space;

const BUNDLE: &str = "dist/lights-0.1.0-switch";

/// A second device, whose gate can miss without the first one's.
const SECOND: &str = r#"
[evaluate.strict]
model = "small"
data = { test = "test" }
metrics = ["exact_match"]
gate = [{ metric = "exact_match", on = "test", min = 0.0, max = 1.0 }]

[bundle.second]
device = "switch"
model = "small"
require = ["strict"]
choose = "smallest"
"#;

fn copy_folder(space: &Space, from: &str, to: &str) {
    let copied = std::process::Command::new("cp").args(["-r", from, to]).current_dir(space.path()).status().expect("cp");
    assert!(copied.success());
}

#[test]
fn only_what_was_delivered_and_is_unchanged_goes() {
    let space = Space::with_project();
    space.slmops(&["build"]).success();
    for name in ["lights-0.1.0-switch.bak", "lights-0.1.0-switch-old", "lights"] {
        copy_folder(&space, BUNDLE, &format!("dist/{name}"));
    }
    space.write("dist/notes.txt", "mine");
    let names = || {
        let names =
            slmops::base::files::names(&space.join("dist")).expect("dist").into_iter().map(|name| name.to_string_lossy().into_owned());
        names.filter(|name| !name.starts_with('.')).collect::<Vec<_>>()
    };
    let others = ["lights", "lights-0.1.0-switch-old", "lights-0.1.0-switch.bak", "notes.txt"];

    // The store is gone, another one is used, the bundle is another: it is known as ours all the same.
    std::fs::remove_dir_all(space.join("cache")).expect("a cache");
    space.replace("slmops.toml", "learning_rate = 3e-3", "learning_rate = 2e-3");
    space.slmops(&["build", "--cache", "elsewhere"]).success();
    assert_eq!(names().len(), 5);

    // Something was added to it: nothing is deleted, whatever the gates say.
    space.write(&format!("{BUNDLE}/notes.txt"), "mine");
    space.replace("slmops.toml", "learning_rate = 2e-3", "learning_rate = 4e-3");
    let changed = ["was changed after slmops delivered it", "notes.txt: nothing refers to this file", "move it away if you need it"];
    space.slmops(&["build"]).fails_with(2).says(&changed);
    space.replace("slmops.toml", "min = 0.0", "min = 1.0");
    let rejected = ["failed in this build, but it was left there: it was changed after slmops delivered it", "do not use it"];
    space.slmops(&["build"]).fails_with(2).says(&rejected);
    assert_eq!(space.read(&format!("{BUNDLE}/notes.txt")), "mine");
    std::fs::remove_file(space.join(&format!("{BUNDLE}/notes.txt"))).expect("notes");

    // As it was delivered, it goes, and nothing else.
    space.slmops(&["build"]).fails_with(1);
    assert_eq!(names(), others);
    space.replace("slmops.toml", "min = 1.0", "min = 0.0");
    space.slmops(&["build"]).success();
    assert_eq!(names().len(), 5);

    // Without the record, only what is equal is taken over.
    std::fs::remove_file(space.join("dist/.slmops-delivered.json")).expect("a record");
    space.slmops(&["build"]).success();
    std::fs::write(space.join("dist/.slmops-delivered.json"), "{").expect("a record");
    space.slmops(&["build"]).fails_with(2).says(&["the record of deliveries", "is damaged"]);
}

/// The build stops at the first failure; what it did not come to is not withdrawn for it.
#[test]
fn a_gate_that_misses_takes_away_only_the_bundles_that_need_it() {
    let space = Space::with_project();
    space.write("slmops.toml", &(space.read("slmops.toml") + SECOND));
    space.slmops(&["build"]).success();
    assert_eq!(space.bundles().len(), 2);
    space.replace("slmops.toml", "min = 0.0, max = 1.0", "min = 1.0, max = 1.0");
    space.replace("slmops.toml", "learning_rate = 3e-3", "learning_rate = 2e-3");
    space.slmops(&["build"]).fails_with(1);
    let left: Vec<String> = space.bundles().into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["lights-0.1.0-switch-release-device-switch"], "the other one stays");
}

/// Nothing is known against a bundle that is there when a step before its gates fails.
#[test]
fn a_step_that_fails_leaves_the_delivered_bundle() {
    let space = Space::with_project();
    space.slmops(&["build"]).success();
    let before = space.bundles();
    space.write("data/train.jsonl", &(space.read("data/train.jsonl") + "{\"neither\": 1}\n"));
    space.slmops(&["build"]).fails_with(1).says(&["`dist/lights-0.1.0-switch` stays as an earlier build delivered it"]);
    assert_eq!(space.bundles(), before);
    let text = space.read("data/train.jsonl");
    space.write("data/train.jsonl", text.trim_end().rsplit_once('\n').expect("lines").0);
    space.replace("slmops.toml", "min = 0.0", "min = 1.0");
    let ran = space.slmops(&["build"]);
    ran.fails_with(1).says(&["removed `dist/lights-0.1.0-switch`, which failed in this build"]);
    assert!(space.bundles().is_empty());
}

#[test]
fn links_and_files_in_the_way_are_told_before_anything_runs() {
    let space = Space::with_project();
    std::fs::create_dir(space.join("away")).expect("a folder");
    let refused = |what: &str| {
        let ran = space.slmops(&["build"]);
        ran.fails_with(2).says(&[what, "bundles are delivered there"]);
        assert!(ran.started().is_empty(), "{}", ran.err);
        assert!(slmops::base::files::names(&space.join("away")).expect("a folder").is_empty());
    };
    symlink("away", space.join("dist")).expect("a link");
    refused("dist` is a link, not a folder");
    std::fs::remove_file(space.join("dist")).expect("a link");
    space.write("dist", "mine");
    refused("dist` is a file, not a folder");
    std::fs::remove_file(space.join("dist")).expect("a file");
    std::fs::create_dir(space.join("dist")).expect("a folder");
    symlink("../away", space.join(BUNDLE)).expect("a link");
    refused("dist/lights-0.1.0-switch` is a link, not a folder");
    assert!(space.join(BUNDLE).is_symlink());
}
