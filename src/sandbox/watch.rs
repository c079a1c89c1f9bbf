//! Looks again and again whether the command has reached a limit: asks the control groups, or counts processes itself where there are none, and measures the
//! folders that it writes to. A look takes a small part of the time only, however much there is to see.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::cgroup::Groups;
use super::limits::{Limits, Reached};
use super::measure::{Held, measure};
use super::processes;
use super::wire::Gap;
use crate::base::files;

/// Between two looks at the processes.
const OFTEN: Duration = Duration::from_millis(20);
/// Between two looks at a folder.
const SELDOM: Duration = Duration::from_millis(200);
/// A look of a second is followed by a pause of this many.
const PAUSE: u32 = 20;
/// Of the disk, or of what is free if that is less: when so little is left, the machine matters more than the step.
const RESERVE_BYTES: u64 = 256 << 20;

pub struct Watch<'a> {
    limits: &'a Limits,
    groups: Groups,
    /// Process 1, once it is known.
    init: Option<u32>,
    next_processes: Instant,
    next_folders: Instant,
    /// Where to ask for free space, and how much must stay.
    reserve: Option<(PathBuf, u64)>,
}

impl<'a> Watch<'a> {
    pub fn new(limits: &'a Limits) -> Watch<'a> {
        let now = Instant::now();
        let folder = limits.folders.first().map(|limit| limit.folder.clone());
        let reserve = folder.and_then(|folder| {
            let free = free_bytes(&folder)?;
            (free > 2 * RESERVE_BYTES).then_some((folder, RESERVE_BYTES))
        });
        Watch { limits, groups: Groups::create(limits), init: None, next_processes: now, next_folders: now, reserve }
    }

    pub fn entrances(&self) -> Vec<PathBuf> {
        self.groups.entrances()
    }

    /// Process 1 runs. What cannot be limited as it should is the answer.
    pub fn started(&mut self, init: u32, is_grouped: bool) -> Option<Gap> {
        if !is_grouped {
            self.groups = Groups::default();
        }
        self.init = Some(init);
        let missing = [("memory", self.groups.has_memory()), ("processes", self.groups.has_processes())];
        let missing: Vec<&str> = missing.into_iter().filter(|(_, has)| !has).map(|(name, _)| name).collect();
        let what = missing.join(" and ");
        let is_visible = files::exists(Path::new(&format!("/proc/{init}/task/{init}/children"))).unwrap_or(false);
        match (missing.is_empty(), is_visible) {
            (true, _) => None,
            (false, true) => Some(Gap::NoGroup { what }),
            (false, false) => Some(Gap::NoLimit { what }),
        }
    }

    /// The limit that is reached now, if the time for a look has come.
    pub fn look(&mut self) -> Option<Reached> {
        let now = Instant::now();
        if now >= self.next_processes {
            let reached = self.processes();
            self.next_processes = later(now, OFTEN);
            if reached.is_some() {
                return reached;
            }
        }
        if now < self.next_folders {
            return None;
        }
        let began = Instant::now();
        let reached = self.folders().or_else(|| self.disk());
        self.next_folders = later(began, SELDOM);
        reached
    }

    /// After the last process has ended: what the kernel has counted, which misses nothing. Folders are measured by whoever takes them in.
    pub fn last_look(&self) -> Option<Reached> {
        self.groups.reached(self.limits)
    }

    fn processes(&self) -> Option<Reached> {
        if let Some(reached) = self.groups.reached(self.limits) {
            return Some(reached);
        }
        let init = self.init.filter(|_| !self.groups.has_memory() || !self.groups.has_processes())?;
        let taken = processes::taken(init, self.limits.memory_bytes);
        if !self.groups.has_processes() && taken.processes > self.limits.processes {
            return Some(Reached::Processes { limit: self.limits.processes });
        }
        let is_over = !self.groups.has_memory() && taken.memory_bytes > self.limits.memory_bytes;
        is_over.then_some(Reached::Memory { limit_bytes: self.limits.memory_bytes })
    }

    fn folders(&self) -> Option<Reached> {
        self.limits.folders.iter().find_map(|limit| {
            let held = measure(&limit.folder, Held { bytes: limit.max_bytes, entries: limit.max_entries });
            let shown = limit.shown.clone();
            if held.bytes > limit.max_bytes {
                Some(Reached::FolderBytes { shown, limit_bytes: limit.max_bytes })
            } else if held.entries > limit.max_entries {
                Some(Reached::FolderEntries { shown, limit: limit.max_entries })
            } else {
                None
            }
        })
    }

    /// Whatever way a command finds to fill the disk, files without a name among them.
    fn disk(&self) -> Option<Reached> {
        let (folder, reserve) = self.reserve.as_ref()?;
        let free_bytes = free_bytes(folder)?;
        (free_bytes < *reserve).then_some(Reached::Disk { free_bytes })
    }
}

fn later(began: Instant, least: Duration) -> Instant {
    let now = Instant::now();
    now + least.max(now.saturating_duration_since(began) * PAUSE)
}

fn free_bytes(folder: &std::path::Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}
