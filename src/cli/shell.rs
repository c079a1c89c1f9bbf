//! Where a command prints: stdout is data, stderr is talk. It also knows the environment, so that no other room has to.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use super::Global;
use crate::base::{Diagnostic, Exit};
use crate::steps::Failure;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Debug)]
pub struct Shell {
    pub color: bool,
    pub quiet: bool,
    pub json: bool,
    /// Whether somebody watches stderr.
    pub live: bool,
    /// Where the command works.
    pub directory: PathBuf,
    /// `SLMOPS_CACHE`
    pub cache: Option<PathBuf>,
}

/// Why a command ends early.
#[derive(Debug)]
pub enum Stop {
    Diagnostics(Vec<Diagnostic>),
    Failure(Failure),
    /// Whoever read our output has gone.
    Pipe,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failure(failure)
    }
}

impl From<Vec<Diagnostic>> for Stop {
    fn from(diagnostics: Vec<Diagnostic>) -> Stop {
        Stop::Diagnostics(diagnostics)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Stop::Pipe,
            _ => Stop::Failure(Failure::environment(format!("cannot write to stdout: {error}"))),
        }
    }
}

/// A mistake in the flags.
pub fn usage(message: impl Into<String>) -> Stop {
    Stop::Failure(Failure { message: message.into(), help: None, exit: Exit::Usage })
}

impl Shell {
    #[expect(clippy::disallowed_methods, reason = "cli is the room that reads the environment")]
    pub fn new(global: &Global) -> Result<Shell, Stop> {
        let here = std::env::current_dir().map_err(|error| Failure::environment(format!("cannot tell the current folder: {error}")))?;
        let directory = global.directory.as_ref().map_or_else(|| here.clone(), |inner| here.join(inner));
        if !directory.is_dir() {
            return Err(usage(format!("`{}` is not a folder", directory.display())));
        }
        let terminal = io::stderr().is_terminal();
        let asked = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let color = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !asked("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
        };
        let live = terminal && !global.quiet && !global.json && std::env::var_os("TERM").is_none_or(|term| term != "dumb") && !asked("CI");
        let cache = std::env::var_os("SLMOPS_CACHE").filter(|value| !value.is_empty()).map(|value| here.join(value));
        Ok(Shell { color, quiet: global.quiet, json: global.json, live, directory, cache })
    }

    /// For mistakes that are found before there is a shell.
    pub fn plain() -> Shell {
        Shell { color: false, quiet: false, json: false, live: false, directory: PathBuf::from("."), cache: None }
    }

    /// A line of talk.
    pub fn say(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.err(text.as_ref());
        }
    }

    /// A line of data.
    pub fn print(&self, text: impl AsRef<str>) -> Result<(), Stop> {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", text.as_ref())?;
        Ok(())
    }

    pub fn print_json(&self, value: &serde_json::Value) -> Result<(), Stop> {
        self.print(serde_json::to_string_pretty(value).unwrap_or_default())
    }

    pub fn show(&self, diagnostics: &[Diagnostic]) {
        for diagnostic in diagnostics {
            self.err(&format!("{}\n", diagnostic.render(self.color)));
        }
    }

    pub fn paint(&self, style: &str, text: &str) -> String {
        if self.color { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// Says why a command ended early, and what that comes to.
    pub fn stopped(&self, stop: Stop) -> Exit {
        match stop {
            Stop::Pipe => Exit::Done,
            Stop::Failure(failure) => {
                self.failure(&failure);
                failure.exit
            }
            Stop::Diagnostics(diagnostics) => {
                if self.json {
                    let list: Vec<_> = diagnostics.iter().map(Diagnostic::to_json).collect();
                    let _gone = self.print_json(&serde_json::json!({ "diagnostics": list }));
                } else {
                    self.show(&diagnostics);
                    if diagnostics.len() > 1 {
                        self.err(&format!("{} problems found", diagnostics.len()));
                    }
                }
                if diagnostics.iter().all(|diagnostic| diagnostic.is_environment) { Exit::Environment } else { Exit::Usage }
            }
        }
    }

    pub fn failure(&self, failure: &Failure) {
        self.err(&format!("{}: {}", self.paint("1;31", "error"), failure.message));
        if let Some(help) = &failure.help {
            self.err(&format!("  {} {help}", self.paint("1;36", "help:")));
        }
        if failure.exit == Exit::Bug {
            self.err("  this is a bug in slmops: please report it with the manifest that caused it");
        }
    }

    /// A broken stderr is no reason to stop a build.
    fn err(&self, text: &str) {
        let _gone = writeln!(io::stderr().lock(), "{text}");
    }
}
