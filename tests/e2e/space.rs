//! A folder of its own for each test, and the program run in it with a cleared environment.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Gone when it is dropped.
pub struct Space {
    folder: tempfile::TempDir,
}

/// What a run of the program came to.
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Space {
    pub fn new() -> Space {
        Space { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// A space with `slmops init`'s project, its training cut short.
    pub fn with_project() -> Space {
        let space = Space::new();
        space.slmops(&["init", "--name", "lights"]).success();
        space.replace("slmops.toml", "max_steps = 400", "max_steps = 40");
        space.replace("slmops.toml", "min = 0.8", "min = 0.0");
        space
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn join(&self, path: &str) -> PathBuf {
        self.path().join(path)
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("a written file");
    }

    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.join(path)).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
    }

    pub fn replace(&self, path: &str, from: &str, to: &str) {
        let text = self.read(path);
        assert!(text.contains(from), "{path} has no `{from}`:\n{text}");
        self.write(path, &text.replace(from, to));
    }

    /// The program with these arguments, in this folder, with nothing of our environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.wrapped(&[], arguments)
    }

    /// The same, run by another program (`qemu-x86_64-static -cpu Haswell`).
    pub fn wrapped(&self, wrapper: &[&str], arguments: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_slmops");
        let mut command = match wrapper {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        command.args(arguments).current_dir(self.path()).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.path());
        command
    }

    pub fn slmops(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments))
    }

    /// The digest of every bundle in `dist/`, by its folder's name.
    pub fn bundles(&self) -> Vec<(String, String)> {
        let mut bundles = Vec::new();
        for name in slmops::base::files::names(&self.join("dist")).unwrap_or_default() {
            let name = name.to_string_lossy().into_owned();
            // The lock and the record of what was delivered.
            if name.starts_with('.') {
                continue;
            }
            let ran = self.slmops(&["verify", &format!("dist/{name}")]);
            bundles.push((name, ran.success().out.trim().to_string()));
        }
        bundles.sort();
        bundles
    }
}

impl Ran {
    pub fn of(mut command: Command) -> Ran {
        let Output { status, stdout, stderr } = command.output().expect("a program that starts");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran { code: status.code(), out: text(stdout), err: text(stderr) }
    }

    #[track_caller]
    pub fn success(&self) -> &Ran {
        self.fails_with(0)
    }

    #[track_caller]
    pub fn fails_with(&self, code: i32) -> &Ran {
        assert_eq!(self.code, Some(code), "\nstdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// stderr has all of these.
    #[track_caller]
    pub fn says(&self, texts: &[&str]) -> &Ran {
        for text in texts {
            assert!(self.err.contains(text), "no `{text}` in\n{}", self.err);
        }
        self
    }

    /// What the build's last line counted: (built, cached).
    #[track_caller]
    pub fn counts(&self) -> (usize, usize) {
        let line = self.err.lines().rev().find(|line| line.contains(" in ") && (line.contains("built") || line.contains("cached")));
        let line = line.unwrap_or_else(|| panic!("no summary in\n{}", self.err));
        let count = |word: &str| {
            let words: Vec<&str> = line.split([' ', ',']).filter(|w| !w.is_empty()).collect();
            words.windows(2).find(|pair| pair[1] == word).map_or(0, |pair| pair[0].parse().expect("a number"))
        };
        (count("built"), count("cached"))
    }

    /// The names of steps that began.
    pub fn started(&self) -> Vec<&str> {
        self.err.lines().filter_map(|line| line.strip_prefix("start   ")).filter_map(|line| line.split(": ").next()).collect()
    }
}
