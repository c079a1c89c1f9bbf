//! Runs a foreign command on declared files: it sees them, an empty folder to fill, and nothing else of the machine; no network, no other
//! process, no user's environment. Linux only, without root: user, mount, process, network, host-name and IPC namespaces, a filter of system
//! calls, Landlock where there is one, and limits on what it takes.
//!
//! No thread may run when a process enters a user namespace, so the work is done by our own program, started again with [`HELPER`] as its only
//! argument ([`init`] is what it does then). Who embeds this library says with [`set_helper`] which program that is.
//!
//! | process | is | ends when |
//! |---|---|---|
//! | slmops | [`run`]: listens, watches the limits | |
//! | the helper | [`init`], outside: makes the namespaces | process 1 has ended, and with it all below |
//! | process 1 | [`init`], inside: builds the tree, gives up its power, reaps | the command has ended, or slmops closes its end of the helper's standard input |
//! | the command | | it likes |

mod cgroup;
mod diagnose;
pub mod init;
mod kernel;
mod limits;
mod measure;
mod mounts;
mod output;
mod processes;
mod run;
mod seccomp;
mod watch;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

pub use limits::{FolderLimit, Limits, Reached, default_memory_bytes};
pub use run::{Said, run};

/// The hidden argument.
pub const HELPER: &str = "sandbox-init";

static HELPER_PATH: OnceLock<PathBuf> = OnceLock::new();

/// Says which program answers to [`HELPER`]; the first call counts. `main` gives its own path.
pub fn set_helper(program: impl Into<PathBuf>) {
    let _ = HELPER_PATH.set(program.into());
}

fn helper() -> Option<&'static Path> {
    HELPER_PATH.get().map(PathBuf::as_path)
}

/// A command and its world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The program and its arguments. Without a `/` the program is looked for in the environment's `PATH`, within the sandbox.
    pub command: Vec<String>,
    /// All of its environment.
    pub environment: BTreeMap<String, String>,
    /// Absolute, within the sandbox.
    pub working_folder: String,
    /// A folder whose entries appear in `/`, read-only.
    pub root: Option<PathBuf>,
    pub mounts: Vec<Mount>,
    pub limits: Limits,
}

/// A file or folder of this machine and where it appears in the sandbox (absolute).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub from: PathBuf,
    pub to: String,
    pub access: Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    Read,
    Write,
}

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// With this code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("stopped")]
    Cancelled,
    /// The command took more than it may.
    #[error("{0}")]
    Reached(Reached),
    /// The kernel, its settings or a container around us are in the way.
    #[error("this machine does not let slmops make a sandbox: cannot {doing}: {error}")]
    Unavailable { doing: String, error: String, help: String },
    /// The command itself could not be started.
    #[error("cannot start `{program}` in the sandbox: {error}")]
    NotStarted { program: String, error: String, help: Option<String> },
    #[error("cannot {doing}: {error}")]
    Io { doing: String, error: std::io::Error },
    #[error("no program is set that can make sandboxes")]
    NoHelper,
}
