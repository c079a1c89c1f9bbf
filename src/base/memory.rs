//! How much memory there is, and whether what is about to be asked for fits. Nothing here allocates much: the check comes before the memory is asked for.
//!
//! What binds is the least of four: what the machine has free, what the control group may still take, what the limits of this process
//! (`ulimit -v`, `ulimit -d`) leave, and what the user has set aside for slmops ([`set_budget`]).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::units::show_size;

/// More than the largest machine that can be bought has: what needs more is a slip of the pen, not a want of memory.
pub const ANY_MACHINE_BYTES: u64 = 64 << 40;

/// Most bytes that this process may hold, by the user's word; 0 if there is none.
static BUDGET: AtomicU64 = AtomicU64::new(0);

/// Sets the most bytes that this process may hold.
pub fn set_budget(bytes: u64) {
    BUDGET.store(bytes.max(1), Ordering::Relaxed);
}

/// What is free, and what sets that limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Free {
    pub bytes: u64,
    pub limit: Limit,
}

/// What binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Machine,
    ControlGroup,
    /// `ulimit -v`
    AddressSpace,
    /// `ulimit -d`
    Data,
    Budget,
}

/// More memory is needed than there is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Shortage {
    /// What needs it, as a message begins: `the weights`.
    pub what: String,
    pub needed_bytes: u64,
    pub free: Free,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shortage { what, needed_bytes, free: Free { bytes, limit } } = self;
        if self.is_beyond_any_machine() {
            return write!(f, "{what} would need more than {} of memory, which no machine has", show_size(ANY_MACHINE_BYTES));
        }
        let whose = match limit {
            Limit::Machine => "this machine has",
            Limit::ControlGroup => "the control group leaves",
            Limit::AddressSpace => "the limit of this shell (`ulimit -v`) leaves",
            Limit::Data => "the limit of this shell (`ulimit -d`) leaves",
            Limit::Budget => "`SLMOPS_MEMORY` leaves",
        };
        write!(f, "{what} needs about {} of memory; {whose} {}", show_size(*needed_bytes), show_size(*bytes))
    }
}

impl Shortage {
    /// Whether it is no matter of this machine.
    pub fn is_beyond_any_machine(&self) -> bool {
        self.needed_bytes > ANY_MACHINE_BYTES
    }
}

/// Less than this is not worth a look at what is free.
const SMALL: u64 = 16 << 20;

/// Whether so many bytes can be asked for now. `what` begins the message: `the weights`.
pub fn check(needed_bytes: u64, what: &str) -> Result<(), Shortage> {
    if needed_bytes <= SMALL {
        return Ok(());
    }
    let free = free();
    if needed_bytes <= free.bytes { Ok(()) } else { Err(Shortage { what: what.to_string(), needed_bytes, free }) }
}

/// Watches over what grows piece by piece.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    held: u64,
    /// Up to where there was memory enough when it was looked for.
    checked: u64,
}

impl Default for Growth {
    fn default() -> Growth {
        Growth { held: 0, checked: SMALL }
    }
}

impl Growth {
    /// How far it is looked ahead at most.
    const STEP: u64 = 128 << 20;

    /// Before `bytes` more are asked for. `what` begins the message. As much again as is held already must be free.
    pub fn add(&mut self, bytes: u64, what: &str) -> Result<(), Shortage> {
        self.held = self.held.saturating_add(bytes);
        if self.held > self.checked {
            let ahead = self.held.min(Growth::STEP);
            check(bytes.saturating_add(ahead), what)?;
            self.checked = self.held.saturating_add(ahead / 2);
        }
        Ok(())
    }
}

/// What can be asked for now.
pub fn free() -> Free {
    let budget = BUDGET.load(Ordering::Relaxed);
    Facts::now(Path::new("/proc"), Path::new("/sys/fs/cgroup")).free((budget > 0).then_some(budget))
}

/// What the system says. What it does not say binds nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    machine: Option<u64>,
    control_group: Option<u64>,
    /// Of this process, in bytes.
    mapped: u64,
    resident: u64,
    data: u64,
    address_space_limit: Option<u64>,
    data_limit: Option<u64>,
}

impl Facts {
    fn now(proc: &Path, cgroup: &Path) -> Facts {
        use rustix::process::{Resource, getrlimit};
        let read = |path: PathBuf| super::files::read_text(&path, 1 << 20).unwrap_or_default();
        let status = read(proc.join("self/status"));
        let own = |name: &str| field(&status, name).unwrap_or(0);
        Facts {
            machine: machine(&read(proc.join("meminfo"))),
            control_group: control_group(&read(proc.join("self/cgroup")), cgroup),
            mapped: own("VmSize:"),
            resident: own("VmRSS:"),
            data: own("VmData:"),
            address_space_limit: getrlimit(Resource::As).current,
            data_limit: getrlimit(Resource::Data).current,
        }
    }

    fn free(&self, budget: Option<u64>) -> Free {
        let left = |limit: Option<u64>, taken: u64| limit.map(|limit| limit.saturating_sub(taken));
        let limits = [
            (self.machine, Limit::Machine),
            (self.control_group, Limit::ControlGroup),
            (left(self.address_space_limit, self.mapped), Limit::AddressSpace),
            (left(self.data_limit, self.data), Limit::Data),
            (left(budget, self.resident), Limit::Budget),
        ];
        let known = limits.into_iter().filter_map(|(bytes, limit)| Some(Free { bytes: bytes?, limit }));
        known.min_by_key(|free| free.bytes).unwrap_or(Free { bytes: u64::MAX, limit: Limit::Machine })
    }
}

/// What can be had without pushing out what others use, and what can be swapped out.
fn machine(meminfo: &str) -> Option<u64> {
    let available = field(meminfo, "MemAvailable:")?;
    Some(available.saturating_add(field(meminfo, "SwapFree:").unwrap_or(0)))
}

/// `NAME:   123 kB`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least that the process's group and those around it leave: version 2's files, or version 1's.
fn control_group(membership: &str, root: &Path) -> Option<u64> {
    membership
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (controllers, path) = (parts.nth(1)?, parts.next()?);
            let (folder, names) = match controllers {
                "" => (root.to_path_buf(), ["memory.max", "memory.current", "inactive_file "]),
                _ if controllers.split(',').any(|name| name == "memory") => {
                    (root.join("memory"), ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "])
                }
                _ => return None,
            };
            least(&folder, path, names)
        })
        .min()
}

/// Within a container, the group's own folder is often not to be seen; then the outermost one is its.
fn least(folder: &Path, path: &str, [limit, usage, idle]: [&str; 3]) -> Option<u64> {
    let number = |group: &Path, name: &str| super::files::read_text(&group.join(name), 1 << 16).ok()?.trim().parse::<u64>().ok();
    let inner = folder.join(path.trim_start_matches('/'));
    let groups = inner.ancestors().take_while(|group| group.starts_with(folder));
    groups
        .filter_map(|group| {
            let left = number(group, limit)?.saturating_sub(number(group, usage)?);
            // The kernel gives up what it keeps of files before it refuses memory.
            let stat = super::files::read_text(&group.join("memory.stat"), 1 << 16).unwrap_or_default();
            let kept = stat.lines().find_map(|line| line.strip_prefix(idle)?.trim().parse::<u64>().ok()).unwrap_or(0);
            Some(left.saturating_add(kept))
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_least_limit_binds() {
        let facts = Facts { machine: Some(9 * GIB), mapped: GIB, resident: GIB / 2, data: GIB, ..Facts::default() };
        assert_eq!(facts.free(None), Free { bytes: 9 * GIB, limit: Limit::Machine });
        assert_eq!(facts.free(Some(2 * GIB)), Free { bytes: 3 * GIB / 2, limit: Limit::Budget });
        let limited = Facts { address_space_limit: Some(4 * GIB), data_limit: Some(3 * GIB), ..facts };
        assert_eq!(limited.free(None), Free { bytes: 2 * GIB, limit: Limit::Data });
        let grouped = Facts { control_group: Some(GIB), ..limited };
        assert_eq!(grouped.free(None), Free { bytes: GIB, limit: Limit::ControlGroup });
        assert_eq!(Facts::default().free(None).bytes, u64::MAX);
    }

    #[test]
    fn control_groups_of_both_versions_are_read() {
        let space = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = space.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "5\n");
        write("a/memory.max", "1000\n");
        write("a/memory.current", "400\n");
        write("a/memory.stat", "anon 3\ninactive_file 100\n");
        assert_eq!(control_group("0::/a/b\n", space.path()), Some(700));
        assert_eq!(control_group("0::/\n", space.path()), None);
        write("memory/memory.limit_in_bytes", "600\n");
        write("memory/memory.usage_in_bytes", "100\n");
        write("memory/memory.stat", "inactive_file 7\ntotal_inactive_file 50\n");
        assert_eq!(control_group("4:memory:/elsewhere/of/the/host\n1:name=systemd:/x\n0::/a\n", space.path()), Some(550));
        assert_eq!(control_group("", space.path()), None);
    }

    #[test]
    fn what_grows_is_looked_at_only_when_it_has_grown() {
        let mut growth = Growth::default();
        (0..100).for_each(|_| growth.add(1 << 17, "a heap").unwrap());
        assert_eq!((growth.held, growth.checked), (100 << 17, SMALL));
        growth.add(8 << 20, "a heap").unwrap();
        assert!(growth.checked > growth.held);
        assert!(growth.add(ANY_MACHINE_BYTES - 1, "a heap").is_err());
    }

    #[test]
    fn this_machine_says_what_it_has() {
        let free = free();
        assert!(free.bytes > 0 && free.bytes < ANY_MACHINE_BYTES, "{free:?}");
        assert_eq!(check(1 << 20, "a little"), Ok(()));
        let shortage = check(ANY_MACHINE_BYTES - 1, "the moon").unwrap_err();
        assert!(shortage.to_string().starts_with("the moon needs about 64.0 TiB of memory; "), "{shortage}");
        assert!(check(u64::MAX, "the moon").unwrap_err().to_string().contains("no machine has"));
    }
}
