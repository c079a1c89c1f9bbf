//! How slmops ends where the machine gives it less than it asks for: closed descriptors, full disks, limits of the shell, ignored signals, errors of the disk, files that
//! are none, manifests and values beyond reason. Whatever happens, the exit code says whose fault it is, nothing panics, and nothing waits for ever.

#[path = "../../e2e/space.rs"]
#[expect(dead_code, reason = "the helpers of all end-to-end tests")]
mod space;

mod descriptors;
mod limits;
mod memory;
mod read_errors;
mod signals;
mod special_files;
mod stress;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use space::{Ran, Space};

/// More than any of these runs takes where nothing waits.
const PATIENCE: Duration = Duration::from_secs(120);

/// A small project that is built: `slmops init`'s with a short training. Made once and copied.
fn built() -> Space {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let space = Space::with_project();
        space.slmops(&["build"]).success();
        space.slmops(&["out", "tiny", "model"]).success();
        space.slmops(&["out", "small@Q8_0", "packed"]).success();
        // What is static is never dropped: it stays in a place that the next run makes empty.
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("endings");
        let _none = std::fs::remove_dir_all(&kept);
        std::fs::create_dir_all(&kept).expect("a folder");
        copy_into(space.path(), &kept);
        kept
    });
    let copy = copy(built);
    // A project is known by its path.
    copy.slmops(&["build"]).success();
    copy
}

fn copy(from: &Path) -> Space {
    let to = Space::new();
    copy_into(from, to.path());
    to
}

fn copy_into(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp is there");
}

/// Runs a command, and fails if it does not end.
#[track_caller]
fn ends(mut command: Command) -> Ran {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a program that starts");
    let read = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stream.map(|mut stream| stream.read_to_end(&mut bytes)).transpose().expect("its words");
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = read(child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>));
    let err = read(child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break Some(status);
        }
        if began.elapsed() > PATIENCE {
            child.kill().and_then(|()| child.wait()).expect("a child that can be killed");
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let (out, err) = (out.join().expect("stdout"), err.join().expect("stderr"));
    let status = status.unwrap_or_else(|| panic!("{command:?} does not end\n{out}\n{err}"));
    use std::os::unix::process::ExitStatusExt;
    // As a shell would tell it.
    Ran { code: status.code().or(status.signal().map(|signal| 128 + signal)), out, err }
}

impl Ran {
    /// The exit code is one of these, and nothing panicked on the way.
    #[track_caller]
    fn ends_with(&self, codes: &[i32]) -> &Ran {
        let panicked = ["panicked", "RUST_BACKTRACE", "overflowed its stack", "this is a bug"].iter().any(|word| self.err.contains(word));
        assert!(
            !panicked && self.code.is_some_and(|code| codes.contains(&code)),
            "{:?} is not among {codes:?}\n{}\n{}",
            self.code,
            self.out,
            self.err
        );
        self
    }
}

/// `slmops` in a shell with something before it: `ulimit -n 8; exec "$0" "$@"`.
fn in_shell(space: &Space, before: &str, arguments: &[&str], behind: &str) -> Command {
    let mut command = Command::new("bash");
    command.arg("-c").arg(format!("{before} exec \"$0\" \"$@\" {behind}"));
    command.arg(env!("CARGO_BIN_EXE_slmops")).args(arguments);
    command.current_dir(space.path()).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", space.path());
    command
}
