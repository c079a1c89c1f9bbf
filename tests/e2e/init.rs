//! What `slmops init` writes builds, and a stranger's first commands work.

use crate::space::Space;

#[test]
fn the_first_project_builds_into_a_bundle_that_passes() {
    let space = Space::new();
    space.slmops(&["init", "--name", "lights"]).success();
    let ran = space.slmops(&["build"]);
    ran.success();
    assert!(ran.out.contains("dist/lights-0.1.0-switch"), "{}", ran.out);
    assert!(ran.out.contains("Q4_0"), "the smallest that passes: {}", ran.out);
    let answer = space.slmops(&["run", "tiny", "turn off the kitchen light"]);
    assert_eq!(answer.success().out.trim(), "{\"light\":\"kitchen\",\"on\":false}");
    let answer = space.slmops(&["run", "dist/lights-0.1.0-switch", "turn off the kitchen light"]);
    assert_eq!(answer.success().out.trim(), "{\"light\":\"kitchen\",\"on\":false}");
    assert!(space.slmops(&["log", "tiny"]).success().out.contains("loss"));
    space.slmops(&["out", "small@Q8_0", "q8"]).success();
    assert!(space.join("q8/model.gguf").is_file());
    space.slmops(&["out", "small@Q8_0", "q8"]).fails_with(2).says(&["`q8` already exists"]);
    space.slmops(&["init"]).fails_with(2).says(&["already there"]);
}

#[test]
fn a_second_build_runs_nothing_and_a_comment_changes_nothing() {
    let space = Space::with_project();
    let (built, _) = space.slmops(&["build"]).success().counts();
    assert!(built >= 6);
    assert_eq!(space.slmops(&["build"]).success().counts(), (0, built));
    space.replace("slmops.toml", "[train.tiny]", "# a comment\n[train.tiny]");
    assert_eq!(space.slmops(&["build"]).success().counts(), (0, built));
    let plan = space.slmops(&["plan", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&plan.success().out).expect("JSON");
    assert!(plan["steps"].as_array().expect("steps").iter().all(|step| step["state"] == "cached"));
    assert!(space.slmops(&["plan", "--dot"]).success().out.starts_with("digraph"));
    assert!(space.slmops(&["plan", "--mermaid"]).success().out.starts_with("flowchart"));
}
