//! A battery of attempts to get out of an `exec` step's sandbox, made by a hostile program as root and as an ordinary user: open files, mounts, devices,
//! keyrings, sockets of every family, process 1, the calls of the kernel. Every attempt is made outside of a sandbox as well, where it has to work: one
//! that cannot work anywhere proves nothing. `tests/escapes/` holds the program.
//!
//! `cargo test --test escapes -- --nocapture` shows the figures.

#![expect(clippy::disallowed_methods, reason = "a test knows what it has made")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const NOBODY: u32 = 65534;
/// So many attempts have to be shown to work outside.
const SHOWN_AT_LEAST: usize = 60;

/// As whom the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum User {
    /// Whoever runs the tests.
    Own,
    /// Nobody in particular; only root can become that.
    Nobody,
}

fn users() -> Vec<User> {
    if is_root() { vec![User::Own, User::Nobody] } else { vec![User::Own] }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl User {
    fn name(self) -> &'static str {
        match self {
            User::Own if is_root() => "root",
            User::Own => "an ordinary user",
            User::Nobody => "nobody",
        }
    }

    fn command(self, program: &Path) -> Command {
        match self {
            User::Own => Command::new(program),
            User::Nobody => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(program);
                command
            }
        }
    }
}

/// A project of the user's, and a folder beside it that looks like a sandbox.
struct Space {
    folder: tempfile::TempDir,
    user: User,
}

const MANIFEST: &str = r#"
slmops = 1
[project]
name = "escapes"
[source]
escape = { path = "escape" }
data = { path = "in/data" }
folder = { path = "in/folder" }
bait = { path = "in/bait" }
"#;

impl Space {
    fn new(user: User, steps: &str) -> Space {
        let folder = tempfile::tempdir().unwrap();
        let space = Space { folder, user };
        for path in ["in/folder/below", "out", "tmp", "tools"] {
            fs::create_dir_all(space.join(path)).unwrap();
        }
        for (path, text) in [("in/data", "data\n"), ("in/folder/one", "1\n"), ("in/folder/spare", "2\n"), ("in/bait", "0 0\n")] {
            fs::write(space.join(path), text).unwrap();
        }
        fs::write(space.join("slmops.toml"), format!("{MANIFEST}{steps}")).unwrap();
        for target in ["escape", "tools/escape"] {
            copy_program(hostile_program(), &space.join(target));
        }
        // The tests' own folder may be closed to others.
        copy_program(Path::new(env!("CARGO_BIN_EXE_slmops")), &space.join("slmops"));
        if user == User::Nobody {
            give_away(space.folder.path());
        }
        space
    }

    fn join(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = self.user.command(&self.join(program));
        command.args(arguments).current_dir(self.folder.path()).env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        command
    }

    fn slmops(&self, arguments: &[&str]) -> Ran {
        Ran::of(&mut self.command("slmops", arguments))
    }
}

struct Ran {
    code: Option<i32>,
    err: String,
}

impl Ran {
    fn of(command: &mut Command) -> Ran {
        let Output { status, stderr, .. } = command.output().unwrap();
        Ran { code: status.code(), err: String::from_utf8_lossy(&stderr).into_owned() }
    }

    #[track_caller]
    fn ends(&self, code: i32, says: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.err);
        says.iter().for_each(|text| assert!(self.err.contains(text), "no `{text}` in\n{}", self.err));
    }
}

/// By another process: a program that is open for writing cannot be run, and each test that starts one would inherit our open file for a moment.
fn copy_program(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
}

/// Owned by the user who is to work in it.
fn give_away(folder: &Path) {
    let mut open = vec![folder.to_path_buf()];
    while let Some(path) = open.pop() {
        chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        if path.is_dir() {
            open.extend(slmops::base::files::names(&path).unwrap().into_iter().map(|name| path.join(name)));
        }
    }
}

/// Compiled once; static, because a sandbox holds no libraries.
fn hostile_program() -> &'static Path {
    static PROGRAM: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/escapes");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("escape");
        let files = ["main.c", "files.c", "kernel.c", "processes.c", "sockets.c"].map(|name| source.join(name));
        let compiled = Command::new("gcc").args(["-static", "-O1", "-Wall", "-o"]).arg(&program).args(files).output();
        let compiled = compiled.expect("this test needs gcc and a static libc");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        program
    })
}

const BATTERY: &str = r#"
[exec.battery]
command = ["escape", "inside"]
tools = ["escape"]
inputs = ["data", "folder", "bait"]
"#;

/// `NAME held REASON`, `NAME through`, `NAME absent`
fn results(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(|line| line.split_once(' ')).map(|(name, result)| (name.to_string(), result.to_string())).collect()
}

/// What came of every attempt: within a sandbox, and outside.
fn battery(user: User) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let space = Space::new(user, BATTERY);
    let folder = space.folder.path().to_str().unwrap();
    let inside = format!("{folder}/in");
    let slmops = space.join("slmops");
    let ran = Ran::of(&mut space.command("escape", &["bait", &inside, slmops.to_str().unwrap(), "build", "battery"]));
    ran.ends(0, &[]);
    space.slmops(&["out", "battery", "got"]).ends(0, &[]);
    let inside_results = results(&fs::read_to_string(space.join("got/results")).unwrap());
    let escape = space.join("escape");
    let outside = space.command("escape", &["bait", &inside, escape.to_str().unwrap(), "outside", folder]).output().unwrap();
    assert!(outside.status.success(), "{}", String::from_utf8_lossy(&outside.stderr));
    (inside_results, results(&String::from_utf8_lossy(&outside.stdout)))
}

#[test]
fn nobody_gets_out() {
    let mut shown: BTreeMap<String, bool> = BTreeMap::new();
    for user in users() {
        let (inside, outside) = battery(user);
        assert_eq!(inside.keys().collect::<Vec<_>>(), outside.keys().collect::<Vec<_>>(), "every attempt is made in both places");
        let escapes: Vec<&str> = inside.iter().filter(|(_, result)| *result == "through").map(|(name, _)| name.as_str()).collect();
        println!("{}: {} attempts, {} escapes", user.name(), inside.len(), escapes.len());
        for (name, result) in &outside {
            *shown.entry(name.clone()).or_default() |= result == "through";
        }
        assert_eq!(escapes, [""; 0], "{}: {inside:#?}", user.name());
    }
    let not_shown: Vec<&str> = shown.iter().filter(|(_, is_shown)| !**is_shown).map(|(name, _)| name.as_str()).collect();
    println!("{} of them work outside of a sandbox; on this machine not: {}", shown.len() - not_shown.len(), not_shown.join(" "));
    assert!(shown.len() - not_shown.len() >= SHOWN_AT_LEAST, "{not_shown:?}");
}

/// What a command takes too much of, the fields that limit it, and what the build then says.
const TAKES: [(&str, &str, &str); 8] = [
    ("memory", "memory = \"100 MiB\"", "reached its memory limit of 100.0 MiB"),
    ("memory-files", "memory = \"100 MiB\"", "reached its memory limit of 100.0 MiB"),
    ("processes", "processes = 50", "reached its limit of 50 processes and threads"),
    ("output", "output = \"10 MiB\"", "wrote more than 10.0 MiB into `/out`"),
    ("scratch", "scratch = \"10 MiB\"", "wrote more than 10.0 MiB into `/tmp`"),
    ("files", "files = 1000", "created more than 1000 files and folders in `/out`"),
    ("scratch-files", "files = 1000", "created more than 1000 files and folders in `/tmp`"),
    ("holes", "output = \"1 TiB\"", "wrote more than 1.0 TiB into `/out`"),
];

#[test]
fn a_limit_that_is_reached_fails_the_step_and_is_named() {
    let step = |(what, limit, _): &(&str, &str, &str)| {
        format!("[exec.{what}]\ncommand = [\"escape\", \"take\", \"{what}\"]\ntools = [\"escape\"]\nresources = {{ {limit} }}\n")
    };
    let steps: String = TAKES.iter().map(step).collect();
    for user in users() {
        let space = Space::new(user, &steps);
        for (what, limit, says) in TAKES {
            let began = Instant::now();
            let field = limit.split(' ').next().unwrap();
            space.slmops(&["build", what]).ends(1, &[says, &format!("raise `resources.{field}`")]);
            assert!(began.elapsed() < Duration::from_secs(20), "{what} was ended late: {:?}", began.elapsed());
        }
    }
}

const LINGER: &str = "[exec.linger]\ncommand = [\"escape\", \"linger\", \"MARK\"]\ntools = [\"escape\"]\n";

/// Processes of this machine with the mark in their command line, and helpers of the space's own slmops.
fn left(mark: &str, slmops: &Path) -> Vec<String> {
    let names = slmops::base::files::names(Path::new("/proc")).unwrap();
    let line = |pid: &str| String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).replace('\0', " ");
    let is_helper = |pid: &str| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path == slmops);
    let pids = names.iter().filter_map(|name| name.to_str()).filter(|name| name.parse::<u32>().is_ok());
    pids.filter(|pid| line(pid).contains(mark) || is_helper(pid)).map(line).collect()
}

/// `SLMOPS_KILLS=300` for more of them.
#[expect(clippy::disallowed_methods, reason = "a test's own switch, not the product's")]
fn kills() -> u64 {
    std::env::var("SLMOPS_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(24)
}

#[test]
fn a_killed_slmops_leaves_no_process() {
    for user in users() {
        let mark = format!("lingers-{}-{user:?}", std::process::id());
        let space = Space::new(user, &LINGER.replace("MARK", &mark));
        for kill in 0..kills() {
            let mut child = space.command("slmops", &["build", "linger"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            // From before the helper starts until long after the command has.
            thread::sleep(Duration::from_millis(kill * 7 % 200));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let slmops = space.join("slmops").canonicalize().unwrap();
        let began = Instant::now();
        while !left(&mark, &slmops).is_empty() && began.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(50));
        }
        println!("{}: {} kills, {} processes left", user.name(), kills(), left(&mark, &slmops).len());
        assert_eq!(left(&mark, &slmops), [""; 0]);
    }
}

#[test]
fn a_setuid_program_in_the_output_is_out_of_reach_and_loses_its_mode() {
    if !is_root() {
        // Written past the capture of a test that passes.
        use std::io::Write;
        std::io::stderr().write_all(b"NOT RUN: only root can be another user for a moment\n").expect("a standard error output");
        return;
    }
    let space = Space::new(User::Own, "[exec.expose]\ncommand = [\"escape\", \"expose\"]\ntools = [\"escape\"]\n");
    // Whoever may enter the project's folder.
    fs::set_permissions(space.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut child = space.command("slmops", &["build", "expose"]).stderr(Stdio::piped()).spawn().unwrap();
    for place in ["out", "tmp"] {
        let program = loop {
            let found = find(&space.join("cache"), &format!("setuid-{place}"));
            if let Some(program) = found.filter(|path| fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 0o4000 != 0)) {
                break program;
            }
            assert!(child.try_wait().unwrap().is_none(), "it ended without a program");
            thread::sleep(Duration::from_millis(10));
        };
        // By way of a shell: setpriv itself keeps its rights until it has started something.
        let other = ["--reuid", "4711", "--regid", "4711", "--clear-groups", "--", "sh", "-c", "exec \"$0\""];
        let tried = Command::new("setpriv").args(other).arg(&program).output().unwrap();
        let said = String::from_utf8_lossy(&tried.stderr);
        assert!(!tried.status.success() && said.contains("Permission denied"), "{place}: {said}");
    }
    assert!(child.wait().unwrap().success());
    space.slmops(&["out", "expose", "got"]).ends(0, &[]);
    assert_eq!(fs::metadata(space.join("got/setuid-out")).unwrap().permissions().mode() & 0o7777, 0o755);
}

/// A file by its name, below a folder.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let mut open = vec![folder.to_path_buf()];
    while let Some(path) = open.pop() {
        for inner in slmops::base::files::names(&path).unwrap_or_default() {
            if inner == name {
                return Some(path.join(name));
            }
            open.push(path.join(inner));
        }
    }
    None
}

#[test]
fn what_the_machine_does_not_give_is_said_at_the_start() {
    let step = |name: &str| {
        format!(
            "[exec.{name}]\ncommand = [\"escape\", \"inside\"]\ntools = [\"escape\"]\ninputs = [\"bait\"]\nenv = {{ N = \"{name}\" }}\n"
        )
    };
    let space = Space::new(User::Own, &format!("{}{}", step("one"), step("two")));
    // A hard limit below the sandbox's can only be kept.
    let ran = Ran::of(Command::new("sh").args(["-c", "ulimit -n 400; exec ./slmops build one two"]).current_dir(space.folder.path()));
    ran.ends(0, &["the hard limit on open files is 400, not the sandbox's 4096"]);
    assert_eq!(ran.err.matches("hard limit on open files").count(), 1, "{}", ran.err);
    // A user namespace in which no further one may be made stands for a kernel that forbids them.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces; exec ./slmops build one --no-cache";
    let ran = Ran::of(Command::new("unshare").args(["-Ur", "sh", "-c", script]).current_dir(space.folder.path()));
    ran.ends(3, &["cannot make user, mount, process and network namespaces", "sysctl user.max_user_namespaces"]);
}
