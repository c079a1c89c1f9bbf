//! The limits of the shell: descriptors, threads, memory, file sizes, stacks.

use std::process::Command;

use super::{built, ends, in_shell};

const COMMANDS: &[&[&str]] = &[
    &["--version"],
    &["check"],
    &["plan"],
    &["build"],
    &["verify", "dist/lights-0.1.0-switch"],
    &["run", "model", "turn on the light"],
    &["cache", "verify"],
];

/// Whatever a limit does, the command ends well or says that the environment is at fault.
fn sweep(limit: &str, values: &[u64]) -> (usize, usize) {
    let space = built();
    let (mut well, mut told) = (0, 0);
    for value in values {
        for command in COMMANDS {
            for cache in ["cache", "new"] {
                let before = format!("rm -rf new; ulimit {limit} {value} || exit 0; export SLMOPS_CACHE={cache};");
                let ran = ends(in_shell(&space, &before, command, ""));
                // Too little for the program to be started at all: that is the shell's or the loader's word.
                if ran.err.contains("bash:") || ran.err.contains("shared libraries") || ran.err.contains("$0") {
                    continue;
                }
                ran.ends_with(&[0, 2, 3]);
                // A store that cannot be made is no manifest's fault, but one that is not there is told as such.
                assert!(ran.code != Some(2) || ran.err.contains("there is no store"), "{limit} {value} {command:?}: {}", ran.err);
                if ran.code == Some(0) { well += 1 } else { told += 1 }
            }
        }
    }
    eprintln!("ulimit {limit}: {well} ended well, {told} said what was wrong");
    (well, told)
}

#[test]
fn few_descriptors() {
    let (well, told) = sweep("-n", &[3, 4, 5, 6, 7, 8, 10, 12, 16, 32]);
    assert!(well > 0 && told > 0);
}

#[test]
fn little_memory() {
    // With less than 64 MB, the kernel cannot even map a program with its debugging information.
    let (well, told) = sweep("-v", &[64_000, 80_000, 120_000, 200_000, 400_000, 1_000_000, 4_000_000]);
    assert!(well > 0 && told > 0);
    // With less than 3 MB, its data cannot be mapped.
    sweep("-d", &[3_000, 10_000, 50_000, 400_000]);
}

#[test]
fn small_files() {
    let (well, told) = sweep("-f", &[0, 1, 4, 100]);
    assert!(well > 0 && told > 0);
}

#[test]
fn small_stacks_and_no_locked_memory() {
    let (well, _) = sweep("-s", &[100, 200, 1000, 8192]);
    assert!(well > 0);
    sweep("-l", &[0]);
}

/// A user who may not start one more thread. Root may always, so strace makes up the kernel's answer.
#[test]
fn no_threads() {
    let space = built();
    assert!(Command::new("strace").arg("-V").output().is_ok(), "PEER MISSING: strace; run: bash tests/peers/install.sh");
    let mut told = 0;
    for call in ["clone", "clone3"] {
        for when in ["1+", "2+", "3+", "5+"] {
            for command in COMMANDS {
                let mut traced = Command::new("strace");
                traced.args(["-f", "-o", "/dev/null", "-e", &format!("inject={call}:error=EAGAIN:when={when}")]);
                traced.arg(env!("CARGO_BIN_EXE_slmops")).args(*command).args(["--cache", "new"]);
                traced.current_dir(space.path()).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", space.path());
                let _none = std::fs::remove_dir_all(space.join("new"));
                if command == &["--version"] {
                    continue;
                }
                let ran = ends(traced);
                ran.ends_with(&[0, 2, 3]);
                assert!(ran.code != Some(2) || ran.err.contains("there is no store"), "{call} {when} {command:?}: {}", ran.err);
                told += usize::from(ran.code == Some(3));
            }
        }
    }
    assert!(told > 0, "nothing was in the way of any thread");
}
