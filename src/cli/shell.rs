//! Where a command prints: stdout is data, stderr is talk. It also knows the environment, so that no other room has to.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Global;
use crate::base::diagnostic::MAX_SHOWN;
use crate::base::{Diagnostic, Exit, files, memory, units};
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
    /// Whether stdout has a reader, as far as is known.
    heard: Arc<AtomicBool>,
}

/// Why a command ends early.
#[derive(Debug)]
pub enum Stop {
    Diagnostics(Vec<Diagnostic>),
    Failure(Failure),
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

/// A mistake in the flags.
pub fn usage(message: impl Into<String>) -> Stop {
    Stop::Failure(Failure::usage(message))
}

/// `SLMOPS_MEMORY`: the most memory that slmops may plan with.
fn set_memory(given: Option<OsString>) -> Result<(), Stop> {
    let Some(text) = given.filter(|text| !text.is_empty()) else { return Ok(()) };
    let text = text.to_string_lossy();
    let bytes = units::parse_size(&text).ok_or_else(|| usage(format!("SLMOPS_MEMORY is `{text}`, which is not a size: write `8GiB`")))?;
    memory::set_budget(bytes);
    Ok(())
}

impl Shell {
    #[expect(clippy::disallowed_methods, reason = "cli is the room that reads the environment")]
    pub fn new(global: &Global) -> Result<Shell, Stop> {
        let here = std::env::current_dir().map_err(|error| Failure::io("cannot tell the current folder", &error))?;
        let directory = global.directory.as_ref().map_or_else(|| here.clone(), |inner| here.join(inner));
        match files::is_folder(&directory) {
            Ok(true) => {}
            Ok(false) => return Err(usage(format!("`{}` is not a folder", directory.display()))),
            Err(error) => return Err(Failure::named_file("work in", &directory, &error).into()),
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
        set_memory(std::env::var_os("SLMOPS_MEMORY"))?;
        Ok(Shell { color, quiet: global.quiet, json: global.json, live, directory, cache, ..Shell::plain() })
    }

    /// For mistakes that are found before there is a shell.
    pub fn plain() -> Shell {
        let heard = Arc::new(AtomicBool::new(true));
        Shell { color: false, quiet: false, json: false, live: false, directory: PathBuf::from("."), cache: None, heard }
    }

    /// A line of talk.
    pub fn say(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.err(text.as_ref());
        }
    }

    /// A line of data. Where whoever read it has gone (`slmops … | head`), it is lost, and the command ends as it would have: what it returns says
    /// more than what it prints.
    pub fn print(&self, text: impl AsRef<str>) -> Result<(), Stop> {
        self.print_bytes(format!("{}\n", text.as_ref()).as_bytes())
    }

    pub fn print_bytes(&self, bytes: &[u8]) -> Result<(), Stop> {
        let mut out = io::stdout().lock();
        self.written(out.write_all(bytes).and_then(|()| out.flush()))
    }

    /// What became of something that was written to stdout.
    pub fn written(&self, written: io::Result<()>) -> Result<(), Stop> {
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.heard.store(false, Ordering::Relaxed);
                Ok(())
            }
            written => Ok(written.map_err(|error| Failure::io("cannot write to stdout", &error))?),
        }
    }

    /// Whether stdout still has a reader.
    pub fn is_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
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
            Stop::Failure(failure) => {
                self.failure(&failure);
                failure.exit
            }
            Stop::Diagnostics(diagnostics) => {
                let shown = diagnostics.get(..MAX_SHOWN).unwrap_or(&diagnostics);
                let more = diagnostics.len() - shown.len();
                if self.json {
                    let list: Vec<_> = shown.iter().map(Diagnostic::to_json).collect();
                    let mut object = serde_json::json!({ "diagnostics": list });
                    if more > 0 {
                        object["more"] = more.into();
                    }
                    let _gone = self.print_json(&object);
                } else {
                    self.show(shown);
                    match (diagnostics.len(), more) {
                        (0 | 1, _) => {}
                        (count, 0) => self.err(&format!("{count} problems found")),
                        (count, more) => self.err(&format!("{count} problems found; {more} of them are not shown")),
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
