//! What a running action sees: its declared inputs, an empty output folder, a place for checkpoints. Never the store, the plan or the terminal.

use std::path::{Path, PathBuf};

use crate::base::{Cancel, Exit};
use crate::model::ModelError;

/// Hears what an action has to say while it runs. Implemented by the engine.
pub trait Listener: Send + Sync {
    /// A line for the step's log.
    fn line(&self, text: &str);

    /// `done` of `total` in `unit` (`steps`, `items`, `bytes`); `note` is a short figure such as `loss 1.23`.
    fn progress(&self, done: u64, total: u64, unit: &'static str, note: &str);
}

pub struct Io<'a> {
    /// Port name and its inputs' paths, in the plan's order. A path is a file or a folder and must only be read.
    pub inputs: Vec<(String, Vec<PathBuf>)>,
    /// Empty at the start; all that it holds at the end is the output.
    pub out: PathBuf,
    /// Kept when the action is killed, gone once it has succeeded. Named by the action's key, so only this very action finds it again.
    pub checkpoint: PathBuf,
    pub cancel: Cancel,
    /// Threads that it may use. Must not change a byte of the output.
    pub threads: usize,
    pub listener: &'a dyn Listener,
}

impl Io<'_> {
    /// The inputs of a port; none if it was not given.
    pub fn all(&self, port: &str) -> &[PathBuf] {
        self.inputs.iter().find(|(name, _)| name == port).map_or(&[], |(_, paths)| paths)
    }

    /// The only input of a port.
    pub fn one(&self, port: &str) -> Result<&Path, Failure> {
        match self.all(port) {
            [path] => Ok(path),
            paths => Err(Failure::bug(format!("port `{port}` has {} inputs, not one", paths.len()))),
        }
    }

    pub fn maybe(&self, port: &str) -> Option<&Path> {
        self.all(port).first().map(PathBuf::as_path)
    }

    pub fn say(&self, text: impl AsRef<str>) {
        self.listener.line(text.as_ref());
    }

    pub fn progress(&self, done: u64, total: u64, unit: &'static str, note: &str) {
        self.listener.progress(done, total, unit, note);
    }

    /// Fails once the user has asked to stop: call it in every long loop.
    pub fn check_cancelled(&self) -> Result<(), Failure> {
        if self.cancel.is_cancelled() { Err(Failure::cancelled()) } else { Ok(()) }
    }
}

/// What to do when there is no room left.
pub const DISK_FULL: &str = "the disk is full: `slmops cache gc` makes room, and so does any other clean-up; then build again";

/// Why an action did not end well.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub message: String,
    pub help: Option<String>,
    pub exit: Exit,
}

impl Failure {
    /// The step's own failure: bad data, a NaN loss, a gate.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), help: None, exit: Exit::Failed }
    }

    /// The disk, the kernel or the network is at fault.
    pub fn environment(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::Environment, ..Failure::new(message) }
    }

    pub fn bug(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::Bug, ..Failure::new(message) }
    }

    pub fn cancelled() -> Failure {
        Failure { exit: Exit::Interrupted, ..Failure::new("stopped") }
    }

    /// `cannot {doing} {path}: {error}`, as the environment's fault.
    pub fn file(doing: &str, path: &Path, error: &std::io::Error) -> Failure {
        let failure = Failure::environment(format!("cannot {doing} `{}`: {error}", path.display()));
        match error.kind() {
            std::io::ErrorKind::StorageFull => failure.help(DISK_FULL),
            _ => failure,
        }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Failure {
        self.help = Some(help.into());
        self
    }
}

/// The disk's fault stays the disk's; everything else is the step's own failure.
impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Failure {
        match error {
            ModelError::Stopped => Failure::cancelled(),
            ModelError::Io { doing, path, error } => Failure::file(doing, &path, &error),
            error => Failure::new(error.to_string()),
        }
    }
}

/// Runs an action's work on its own threads, as many as it was given.
pub fn on_threads<T: Send>(io: &mut Io, work: impl FnOnce(&mut Io) -> Result<T, Failure> + Send) -> Result<T, Failure> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(io.threads).build();
    let pool = pool.map_err(|error| Failure::environment(format!("cannot start {} threads: {error}", io.threads)))?;
    pool.install(|| work(io))
}
