//! What a running action sees: its declared inputs, an empty output folder, a place for checkpoints. Never the store, the plan or the terminal.

use std::path::{Path, PathBuf};

use crate::base::output::OutputError;
use crate::base::trouble::{self, Blame};
use crate::base::{Cancel, Exit, memory};
use crate::model::{ModelError, keys};

/// Hears what an action has to say while it runs. Implemented by the engine.
pub trait Listener: Send + Sync {
    /// A line for the step's log.
    fn line(&self, text: &str);

    /// Something about this machine that the user should know, however often a step finds it.
    fn machine_warning(&self, text: &str) {
        self.line(text);
    }

    /// What the user should know although the action goes on: shown at once and kept in the log.
    fn warn(&self, text: &str) {
        self.line(&format!("warning: {text}"));
    }

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
    /// What chat templates take for the day: the project's `created`, in seconds since 1970.
    pub now: Option<i64>,
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

    /// A place for the action's own temporary files, beside the output: it goes with it, however the action ends.
    pub fn scratch(&self) -> PathBuf {
        self.out.with_file_name("scratch")
    }

    pub fn say(&self, text: impl AsRef<str>) {
        self.listener.line(text.as_ref());
    }

    /// For what a user should know of this machine, and not of this step's result.
    pub fn warn_of_machine(&self, text: impl AsRef<str>) {
        self.listener.machine_warning(text.as_ref());
    }

    /// For what the user should know although the step goes on.
    pub fn warn(&self, text: impl AsRef<str>) {
        self.listener.warn(text.as_ref());
    }

    pub fn progress(&self, done: u64, total: u64, unit: &'static str, note: &str) {
        self.listener.progress(done, total, unit, note);
    }

    /// Fails once the user has asked to stop: call it in every long loop.
    pub fn check_cancelled(&self) -> Result<(), Failure> {
        if self.cancel.is_cancelled() { Err(Failure::cancelled()) } else { Ok(()) }
    }
}

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

    /// The user's files or flags are wrong.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { exit: Exit::Usage, ..Failure::new(message) }
    }

    /// `cannot {doing} {path}: {error}`, as the environment's fault.
    pub fn file(doing: &str, path: &Path, error: &std::io::Error) -> Failure {
        Failure::io(&format!("cannot {doing} `{}`", path.display()), error)
    }

    /// The same of a file that the user has named: it may be the wrong one.
    pub fn named_file(doing: &str, path: &Path, error: &std::io::Error) -> Failure {
        match trouble::blame(error) {
            Blame::User => Failure { exit: Exit::Usage, ..Failure::file(doing, path, error) },
            Blame::Environment => Failure::file(doing, path, error),
        }
    }

    /// `{what}: {error}`, as the environment's fault.
    pub fn io(what: &str, error: &std::io::Error) -> Failure {
        Failure { help: trouble::hint(error).map(str::to_string), ..Failure::environment(format!("{what}: {error}")) }
    }

    /// A thread or a process could not be started.
    pub fn thread(error: &std::io::Error) -> Failure {
        Failure { help: trouble::thread_hint(error).map(str::to_string), ..Failure::environment(format!("cannot start a thread: {error}")) }
    }

    /// What the user named is to blame, and no step has failed.
    #[must_use]
    pub fn of_user(self) -> Failure {
        if self.exit == Exit::Failed { Failure { exit: Exit::Usage, ..self } } else { self }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Failure {
        self.help = Some(help.into());
        self
    }
}

/// A path that cannot be written to is the user's; a disk that fails is not.
impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Failure {
        match error {
            OutputError::Io { doing, path, error } => Failure::file(doing, &path, &error),
            error => Failure::usage(error.to_string()),
        }
    }
}

/// The environment's fault stays the environment's; everything else is the step's own failure.
impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Failure {
        let message = error.to_string();
        Failure { message, ..Failure::of_model(&error) }
    }
}

impl Failure {
    /// `cannot {doing}: {error}`, with whose fault it is.
    pub fn model(doing: &str, error: &ModelError) -> Failure {
        let failure = Failure::of_model(error);
        if failure.exit == Exit::Interrupted { failure } else { Failure { message: format!("cannot {doing}: {error}"), ..failure } }
    }

    /// The one place that says whose fault a model's error is.
    fn of_model(error: &ModelError) -> Failure {
        match error {
            ModelError::Stopped => Failure::cancelled(),
            ModelError::Io { doing, error, .. } if matches!(*doing, "write" | "create") || trouble::blame(error) == Blame::Environment => {
                Failure { help: trouble::hint(error).map(str::to_string), ..Failure::environment("") }
            }
            ModelError::Memory(shortage) => Failure::from(shortage.clone()),
            ModelError::Machine(_) => Failure::environment(""),
            _ => Failure::new(""),
        }
    }
}

/// A want of memory is the machine's, unless no machine has so much.
impl From<memory::Shortage> for Failure {
    fn from(shortage: memory::Shortage) -> Failure {
        let exit = if shortage.is_beyond_any_machine() { Exit::Usage } else { Exit::Environment };
        Failure { exit, ..Failure::new(shortage.to_string()) }
    }
}

/// Threads to compute on.
pub fn pool(threads: usize) -> Result<rayon::ThreadPool, Failure> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|error| {
        let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
        match cause {
            Some(cause) => Failure::thread(cause),
            None => Failure::environment(format!("cannot start {threads} threads: {error}")),
        }
    })
}

/// Runs an action's work on as many threads as it was given: on those that it is on already, or on its own.
pub fn on_threads<T: Send>(io: &mut Io, work: impl FnOnce(&mut Io) -> Result<T, Failure> + Send) -> Result<T, Failure> {
    warn_of_fields(io);
    if rayon::current_thread_index().is_some() && rayon::current_num_threads() == io.threads {
        return work(io);
    }
    pool(io.threads)?.install(|| work(io))
}

/// Of the models among the inputs: fields of their files that other tools use, or that are not known.
fn warn_of_fields(io: &Io) {
    let is_model = |port: &str| matches!(port, "model" | "teacher" | "reference");
    for path in io.inputs.iter().filter(|(port, _)| is_model(port)).flat_map(|(_, paths)| paths) {
        // Whoever opens the model says what is wrong with it.
        for remark in keys::remarks(path).unwrap_or_default() {
            io.warn(remark);
        }
    }
}
