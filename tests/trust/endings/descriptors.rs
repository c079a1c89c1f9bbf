//! Closed, full and broken descriptors.

use super::{built, ends, in_shell};

/// Commands that print, and one that builds.
const COMMANDS: &[&[&str]] = &[
    &["plan"],
    &["check", "--json"],
    &["help", "train"],
    &["--version"],
    &["completions", "bash"],
    &["cache", "stat"],
    &["log", "tiny"],
    &["explain", "tiny"],
    &["verify", "dist/lights-0.1.0-switch"],
    &["diff", "dist/lights-0.1.0-switch", "dist/lights-0.1.0-switch"],
    &["run", "model", "turn on the light"],
    &["build"],
    &["build", "--json"],
    &["build", "none-such"],
];

#[test]
fn closed_descriptors_are_no_trouble_and_no_file_takes_their_place() {
    let space = built();
    let before = digest(&space);
    for closed in ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"] {
        for command in COMMANDS {
            let codes: &[i32] = if command.contains(&"none-such") { &[2] } else { &[0] };
            ends(in_shell(&space, "", command, closed)).ends_with(codes);
        }
    }
    // With nothing there, too: what the first files are opened as would be what is printed to.
    std::fs::remove_dir_all(space.join("cache")).unwrap();
    std::fs::remove_dir_all(space.join("dist")).unwrap();
    ends(in_shell(&space, "", &["build"], "<&- >&- 2>&-")).ends_with(&[0]);
    assert_eq!(digest(&space), before);
    space.slmops(&["cache", "verify"]).success();
}

fn digest(space: &super::Space) -> Vec<(String, String)> {
    space.bundles()
}

#[test]
fn a_full_stdout_is_told_and_a_full_stderr_changes_nothing() {
    let space = built();
    for command in COMMANDS.iter().filter(|command| !command.contains(&"none-such")) {
        let ran = ends(in_shell(&space, "", command, ">/dev/full"));
        // `explain` and the like print; a build that has nothing to say on stdout ends well.
        ran.ends_with(&[3]).says(&["cannot write to stdout: No space left on device"]);
        ends(in_shell(&space, "", command, "2>/dev/full")).ends_with(&[0]);
    }
    ends(in_shell(&space, "", &["build", "none-such"], "2>/dev/full")).ends_with(&[2]);
}

#[test]
fn a_reader_that_goes_away_changes_neither_the_code_nor_the_work() {
    let space = built();
    let piped = |arguments: &str| {
        let script = format!("set -o pipefail; \"$0\" {arguments} | true; echo code ${{PIPESTATUS[0]}} >&2");
        let mut command = std::process::Command::new("bash");
        command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_slmops")).current_dir(space.path());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", space.path());
        ends(command)
    };
    for arguments in ["plan", "help train", "--help", "completions bash", "build --json", "log tiny", "run model hello"] {
        let ran = piped(arguments);
        assert!(ran.err.contains("code 0") && !ran.err.contains("error"), "{arguments}: {}", ran.err);
    }
    // What a command finds is not lost with the pipe.
    std::fs::write(space.join("dist/lights-0.1.0-switch/index.json"), "{}").unwrap();
    assert!(piped("verify dist/lights-0.1.0-switch").err.contains("code 1"));
    assert!(piped("check --json --profile none").err.contains("code 2"));
}
