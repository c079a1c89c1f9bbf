//! Errors of the disk while something is read: strace makes the n-th call fail, for one n after the other. Each must end as it would have (the error did not
//! matter), or with exit code 3 and the name of what could not be read.
//!
//! CI takes a sample; `READ_ERRORS=40 cargo test --test endings read_errors -- --nocapture` tries up to 40 points of each call and command and prints what came of them.

use std::collections::BTreeMap;
use std::process::Command;

use super::space::Ran;
use super::{Space, built, copy_into, ends};

/// Calls that read, and what the disk or the system may say to them.
const CALLS: &[(&str, &str)] = &[
    ("read", "EIO"),
    ("pread64", "EIO"),
    ("openat", "EIO"),
    ("openat", "EMFILE"),
    ("mmap", "ENOMEM"),
    ("fstat", "EIO"),
    ("statx", "EIO"),
    ("newfstatat", "EIO"),
    ("getdents64", "EIO"),
    ("readlink", "EIO"),
    ("lseek", "EIO"),
    ("getcwd", "EIO"),
];

/// What is run, and whether it begins with an empty store.
const COMMANDS: &[(&[&str], bool)] = &[
    (&["build"], true),
    (&["build"], false),
    (&["plan"], false),
    (&["check"], false),
    (&["explain", "tiny"], false),
    (&["log", "tiny"], false),
    (&["out", "tiny", "there"], false),
    (&["run", "model", "hello"], false),
    (&["run", "packed/model.gguf", "hello"], false),
    (&["run", "dist/lights-0.1.0-switch", "hello"], false),
    (&["verify", "dist/lights-0.1.0-switch"], false),
    (&["diff", "dist/lights-0.1.0-switch", "dist/lights-0.1.0-switch"], false),
    (&["lock"], false),
    (&["cache", "stat"], false),
    (&["cache", "verify"], false),
    (&["cache", "export", "all"], false),
];

#[test]
#[expect(clippy::disallowed_methods, reason = "a test may ask how many places it is to try")]
fn read_errors_are_of_the_environment_and_say_which_file() {
    assert!(Command::new("strace").arg("-V").output().is_ok(), "PEER MISSING: strace; run: bash tests/peers/install.sh");
    let most: usize = std::env::var("READ_ERRORS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let space = short();
    let mut tally: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (number, (arguments, fresh)) in COMMANDS.iter().enumerate() {
        for (call, errno) in CALLS {
            let count = calls(&space, arguments, *fresh, call);
            for nth in points(count, most, number) {
                let Some(outcome) = Outcome::of(&space, arguments, *fresh, (call, errno, nth)) else { continue };
                *tally.entry(outcome.word.clone()).or_default() += 1;
                if let Some(why) = outcome.wrong {
                    wrong.push(format!("slmops {}: {call} {nth} {errno}: {why}", arguments.join(" ")));
                    eprintln!("{}", wrong[wrong.len() - 1]);
                }
            }
        }
        eprintln!("{}: {tally:?}, {} wrong", arguments.join(" "), wrong.len());
    }
    eprintln!("{} points: {tally:?}", tally.values().sum::<usize>());
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}

/// The project with a training of two steps, since it is built again and again.
fn short() -> Space {
    let space = built();
    space.replace("slmops.toml", "max_steps = 40", "max_steps = 2");
    space.slmops(&["build"]).success();
    std::fs::rename(space.join("cache"), space.join("whole")).unwrap();
    space
}

fn traced(space: &Space, options: &[&str], arguments: &[&str]) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "trace"]).args(options).arg(env!("CARGO_BIN_EXE_slmops")).args(arguments);
    command.current_dir(space.path()).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", space.path());
    command
}

/// Everything as it was before the last run.
fn prepare(space: &Space, fresh: bool) {
    for left in ["cache", "there", "all"] {
        let left = space.join(left);
        let _none = std::fs::remove_dir_all(&left).or_else(|_| std::fs::remove_file(&left));
    }
    if !fresh {
        std::fs::create_dir(space.join("cache")).unwrap();
        copy_into(&space.join("whole"), &space.join("cache"));
    }
}

/// How often one thread makes a call at most: strace counts for each by itself.
fn calls(space: &Space, arguments: &[&str], fresh: bool, call: &str) -> usize {
    prepare(space, fresh);
    ends(traced(space, &["-e", &format!("trace={call}")], arguments)).ends_with(&[0]);
    let mut of_thread: BTreeMap<String, usize> = BTreeMap::new();
    for line in space.read("trace").lines().filter(|line| line.contains(&format!(" {call}("))) {
        *of_thread.entry(line.split(' ').next().unwrap_or_default().to_string()).or_default() += 1;
    }
    of_thread.into_values().max().unwrap_or(0)
}

/// Evenly spread; with few of them, others for each command.
fn points(count: usize, most: usize, number: usize) -> Vec<usize> {
    let taken = count.min(most);
    (0..taken).map(|i| (i * count + number * 7 % count.max(1)) / taken % count + 1).collect()
}

struct Outcome {
    word: String,
    wrong: Option<String>,
}

impl Outcome {
    /// None if the program did not come so far, or was not even loaded.
    fn of(space: &Space, arguments: &[&str], fresh: bool, (call, errno, nth): (&str, &str, usize)) -> Option<Outcome> {
        prepare(space, fresh);
        let inject = format!("inject={call}:error={errno}:when={nth}");
        let ran = ends(traced(space, &["-e", &format!("trace={call}"), "-e", &inject], arguments));
        let trace = space.read("trace");
        let injected = trace.lines().find(|line| line.contains("(INJECTED)"))?.to_string();
        if ran.err.contains("error while loading shared libraries")
            || ran.err.contains("cannot allocate memory for")
            || ran.code == Some(127)
            || is_before_main(&trace, &ran)
        {
            return None;
        }
        let code = ran.code.unwrap_or(-1);
        let panicked = ran.err.contains("panicked") || ran.err.contains("this is a bug");
        // What `cache verify` cannot read is among its findings, which are data.
        let names_it = ran.err.contains('`')
            || ran.out.contains("not checked: ")
            || ["memory", "thread", "current folder"].iter().any(|what| ran.err.contains(what));
        let is_right = !panicked && (code == 0 || code == 3 && names_it);
        let wrong = (!is_right).then(|| format!("exit {code}\n    {injected}\n    {}", ran.err.trim().replace('\n', "\n    ")));
        // And the next one is as if nothing had been.
        if is_right && arguments == ["build"] && code != 0 {
            ends(space.command(&["build"])).ends_with(&[0]);
        }
        Some(Outcome { word: format!("exit {code}"), wrong })
    }
}

/// Whether the fault hit only the first thread, in the loader, which crashes at its own first call for memory and says nothing; or in Rust's library, which
/// aborts where it gets no stack for the signals of this thread. Both come before `main`, and no program can make them end in another way.
fn is_before_main(trace: &str, ran: &Ran) -> bool {
    let thread = |line: &str| line.split(' ').next().map(str::to_string);
    let first = trace.lines().next().and_then(thread);
    let in_first = trace.lines().filter(|line| line.contains("(INJECTED)")).all(|line| thread(line) == first);
    let loader = ran.code == Some(128 + 11) && ran.out.is_empty() && ran.err.is_empty();
    let library = ran.code == Some(128 + 6) && ran.err.contains("failed to allocate an alternative stack");
    in_first && (loader || library)
}
