//! What a command may take. The limits on memory, processes and folders are enforced from outside: the command cannot see them, and reaching one
//! always ends it, so they cannot change the result of a step that succeeds. The limit on open files is seen by the command.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::base::units;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Of all processes together, with what they hold in memory files.
    pub memory_bytes: u64,
    /// Processes and threads, all together.
    pub processes: u32,
    /// Files that one process may have open. The command can see it.
    pub open_files: u64,
    pub folders: Vec<FolderLimit>,
}

/// What a folder of the machine may come to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderLimit {
    pub folder: PathBuf,
    /// The folder's name in the sandbox, for messages.
    pub shown: String,
    /// On disk, while the command runs. Whoever takes the folder's files in has to count their holes, too.
    pub max_bytes: u64,
    /// Files, folders and whatever else has a name.
    pub max_entries: u64,
}

/// A limit that was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    Memory {
        limit_bytes: u64,
    },
    Processes {
        limit: u32,
    },
    FolderBytes {
        shown: String,
        limit_bytes: u64,
    },
    FolderEntries {
        shown: String,
        limit: u64,
    },
    /// Not the command's limit but the machine's: the kernel ended one of its processes for want of memory.
    MachineMemory,
    /// The disk was about to be full.
    Disk {
        free_bytes: u64,
    },
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reached::Memory { limit_bytes } => write!(f, "the command reached its memory limit of {}", units::show_size(*limit_bytes)),
            Reached::Processes { limit } => write!(f, "the command reached its limit of {limit} processes and threads"),
            Reached::FolderBytes { shown, limit_bytes } => {
                write!(f, "the command wrote more than {} into `{shown}`", units::show_size(*limit_bytes))
            }
            Reached::FolderEntries { shown, limit } => write!(f, "the command created more than {limit} files and folders in `{shown}`"),
            Reached::MachineMemory => f.write_str("the machine ran out of memory, and the kernel ended a process of the command"),
            Reached::Disk { free_bytes } => {
                write!(f, "the command was stopped because the disk has only {} left", units::show_size(*free_bytes))
            }
        }
    }
}

/// Most of the machine's memory: what is left keeps slmops and the machine alive.
pub fn default_memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit)) / 10 * 9
}
