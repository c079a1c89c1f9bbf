//! The processes of a sandbox as the machine's `/proc` shows them: process 1 and all below it. Used where no control group counts them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::base::files;

/// What a sandbox takes at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Threads count, too.
    pub processes: u32,
    pub memory_bytes: u64,
}

/// Every process below this one, and their threads. Process 1 itself is ours and does not count.
pub fn below(init: u32) -> Vec<(u32, u32)> {
    let mut found = Vec::new();
    let mut open = children(init).1;
    while let Some(pid) = open.pop() {
        let (threads, below) = children(pid);
        if threads > 0 {
            found.push((pid, threads));
        }
        open.extend(below);
    }
    found
}

/// The number of threads, and the children of all of them. A process that has just ended has neither.
fn children(pid: u32) -> (u32, Vec<u32>) {
    let tasks = PathBuf::from(format!("/proc/{pid}/task"));
    let names = files::names(&tasks).unwrap_or_default();
    let list = |name| fs::read_to_string(tasks.join(name).join("children")).unwrap_or_default();
    let below = names.iter().flat_map(|name| list(name).split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>());
    (u32::try_from(names.len()).unwrap_or(u32::MAX), below.collect())
}

/// What they take. Exact shares of memory are slow to come by, so they are asked for only where the quick figure, which counts shared pages several times, is
/// above the limit.
pub fn taken(init: u32, limit_bytes: u64) -> Taken {
    let found = below(init);
    let processes = found.iter().map(|(_, threads)| threads).sum();
    let hidden: u64 = memory_files(&found);
    let resident = |pid: u32| statm(pid).saturating_mul(rustix::param::page_size() as u64);
    let quick: u64 = found.iter().map(|(pid, _)| resident(*pid)).sum();
    if quick.saturating_add(hidden) <= limit_bytes {
        return Taken { processes, memory_bytes: quick + hidden };
    }
    let exact: u64 = found.iter().map(|(pid, _)| share(*pid).unwrap_or_else(|| resident(*pid))).sum();
    Taken { processes, memory_bytes: exact.saturating_add(hidden) }
}

/// Resident pages: the second number of `/proc/PID/statm`.
fn statm(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0)
}

/// Its share of every page, swapped ones included.
fn share(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kilobytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some((kilobytes("Pss:")? + kilobytes("SwapPss:").unwrap_or(0)).saturating_mul(1024))
}

/// Memory behind file descriptors (`memfd_create`), whether it is mapped or not. Each file counts once.
fn memory_files(processes: &[(u32, u32)]) -> u64 {
    let mut files: Vec<(u64, u64)> = processes.iter().flat_map(|(pid, _)| open_memory_files(*pid)).collect();
    files.sort_unstable();
    files.dedup_by_key(|(inode, _)| *inode);
    files.iter().map(|(_, bytes)| bytes).sum()
}

fn open_memory_files(pid: u32) -> Vec<(u64, u64)> {
    let folder = PathBuf::from(format!("/proc/{pid}/fd"));
    let is_memory = |path: &Path| fs::read_link(path).is_ok_and(|link| link.to_string_lossy().starts_with("/memfd:"));
    let paths = files::names(&folder).unwrap_or_default().into_iter().map(|name| folder.join(name));
    paths.filter(|path| is_memory(path)).filter_map(|path| fs::metadata(path).ok()).map(|meta| (meta.ino(), meta.blocks() * 512)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn children_and_theirs_are_found() {
        let mut child = Command::new("sh").args(["-c", "sleep 100 & echo; wait"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut byte = [0u8; 1];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut byte).unwrap();
        let below_shell = below(child.id());
        let ours = below(std::process::id());
        let taken = taken(child.id(), 0);
        below_shell.iter().for_each(|(pid, _)| drop(Command::new("kill").arg(pid.to_string()).status()));
        child.wait().unwrap();
        assert_eq!(below_shell.iter().map(|(_, threads)| *threads).collect::<Vec<_>>(), [1]);
        assert!(ours.iter().any(|(pid, _)| *pid == child.id()) && ours.iter().any(|found| below_shell.contains(found)));
        assert_eq!(taken.processes, 1);
        assert!((10_000..20_000_000).contains(&taken.memory_bytes), "{}", taken.memory_bytes);
    }
}
