//! `resources` of an `exec` step: what the scheduler sets aside for it, and what its command may take at most. Which field raises a limit that was reached is
//! said here.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::Exit;
use crate::sandbox::{self, FolderLimit, Reached};
use crate::steps::{Failure, Field, Params, Resources, Type};

/// In place of the `resources` of every step: the same fields, and limits.
pub static FIELDS: &[Field] = &[
    Field::optional("cpu", Type::Int(0, 4096), "Threads; 0 means all there are."),
    Field::optional(
        "memory",
        Type::Size,
        "Memory: set aside for the step, and the most that its command may take. If not given: nothing is set aside, and the most is 90 % of the machine's.",
    ),
    Field::optional("gpu", Type::Int(0, 64), "Graphics processors."),
    Field::default("processes", Type::Int(1, 4000), "1000", "Processes and threads that the command may have at a time."),
    Field::default("output", Type::Size, "\"64 GiB\"", "The most that `/out` may hold; sparse files count with their holes."),
    Field::default("scratch", Type::Size, "\"64 GiB\"", "The most that `/tmp` may hold."),
    Field::default("files", Type::Int(1, i64::MAX), "1000000", "Files and folders that `/out` and `/tmp` may each hold."),
    Field::default(
        "open_files",
        Type::Int(64, 1_048_576),
        "4096",
        "Files that a process may have open. The command can see it: another value than the default is part of the key.",
    ),
];

/// What every command is given that asks for nothing else, so that its key does not hold it.
pub const OPEN_FILES: u64 = 4096;

/// As the task holds them; no key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    memory: Option<u64>,
    processes: u32,
    output: u64,
    scratch: u64,
    files: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { memory: None, processes: 1000, output: 64 << 30, scratch: 64 << 30, files: 1_000_000 }
    }
}

impl Limits {
    pub fn of(params: &Params) -> Limits {
        let default = Limits::default();
        Limits {
            memory: given(params, "memory"),
            processes: given(params, "processes").and_then(|n| u32::try_from(n).ok()).unwrap_or(default.processes),
            output: given(params, "output").unwrap_or(default.output),
            scratch: given(params, "scratch").unwrap_or(default.scratch),
            files: given(params, "files").unwrap_or(default.files),
        }
    }

    pub fn to_param(self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    pub fn for_sandbox(&self, open_files: u64, out: &Path, tmp: &Path) -> sandbox::Limits {
        let folder = |folder: &Path, shown: &str, max_bytes: u64| FolderLimit {
            folder: folder.to_path_buf(),
            shown: shown.to_string(),
            max_bytes,
            max_entries: self.files,
        };
        sandbox::Limits {
            memory_bytes: self.memory.unwrap_or_else(sandbox::default_memory_bytes),
            processes: self.processes,
            open_files,
            folders: vec![folder(out, OUT, self.output), folder(tmp, TMP, self.scratch)],
        }
    }
}

pub const OUT: &str = "/out";
pub const TMP: &str = "/tmp";

/// The part of `resources` that the scheduler reads.
pub fn resources(params: &Params) -> Resources {
    let kind = Resources::default();
    let small = |name: &str, kind: u32| given(params, name).and_then(|n| u32::try_from(n).ok()).unwrap_or(kind);
    Resources {
        cpu: small("cpu", kind.cpu),
        memory_bytes: given(params, "memory").unwrap_or(kind.memory_bytes),
        gpu: small("gpu", kind.gpu),
    }
}

pub fn open_files(params: &Params) -> u64 {
    given(params, "open_files").unwrap_or(OPEN_FILES)
}

fn given(params: &Params, name: &str) -> Option<u64> {
    params.get("resources")?.get(name)?.as_u64()
}

/// A limit's failure, with the field that raises it.
pub fn failure(reached: &Reached) -> Failure {
    let raise = |field: &str| Some(format!("raise `resources.{field}` of the step, or give the command less to do"));
    let (help, exit) = match reached {
        Reached::Memory { .. } => (raise("memory"), Exit::Failed),
        Reached::Processes { .. } => (raise("processes"), Exit::Failed),
        Reached::FolderBytes { shown, .. } => (raise(if shown == OUT { "output" } else { "scratch" }), Exit::Failed),
        Reached::FolderEntries { .. } => (raise("files"), Exit::Failed),
        Reached::MachineMemory => (Some("run fewer steps at a time, or set `resources.memory` of this one".to_string()), Exit::Environment),
        Reached::Disk { .. } => (Some(crate::base::trouble::DISK_FULL.to_string()), Exit::Environment),
    };
    Failure { message: reached.to_string(), help, exit }
}
