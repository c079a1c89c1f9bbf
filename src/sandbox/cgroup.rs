//! Control groups: the kernel's own count of what the sandbox takes. Version 2 where a part of its tree is ours to use, version 1 where memory or processes
//! are counted there; what neither gives is watched from outside ([`super::watch`]).
//!
//! A group is a folder below our own group's. Its name and a lock on it tell whose it is: one whose lock nobody holds was left by a slmops that was
//! killed, and the next one removes it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::base::files;

use super::limits::{Limits, Reached};
use super::mounts::{self, MountInfo};

/// `slmops-4711-0`
const PREFIX: &str = "slmops-";
/// The helper itself and process 1.
const OWN_PROCESSES: u32 = 2;
/// The kernel counts pages in batches, a little ahead of their use.
const CHARGED_TOGETHER_BYTES: u64 = 1 << 20;

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// The groups of one sandbox; removed with the value, when all its processes have ended.
#[derive(Debug, Default)]
pub struct Groups(Vec<Group>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Controller {
    Memory,
    Pids,
}

/// A folder in which a group can be made, and what it can count. A process is in one group of each tree, so controllers of one tree share a group.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    folder: PathBuf,
    version: Version,
    controllers: Vec<Controller>,
}

#[derive(Debug)]
struct Group {
    folder: PathBuf,
    version: Version,
    controllers: Vec<Controller>,
    /// Whoever gets this lock may remove the folder.
    _lock: File,
}

impl Groups {
    /// Whatever of it this machine gives us.
    pub fn create(limits: &Limits) -> Groups {
        let Ok(mounts) = mounts::all() else { return Groups::default() };
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Groups(places(&mounts, &own).into_iter().filter_map(|place| Group::create(place)?.limited(limits)).collect())
    }

    pub fn has_memory(&self) -> bool {
        self.of(Controller::Memory).is_some()
    }

    pub fn has_processes(&self) -> bool {
        self.of(Controller::Pids).is_some()
    }

    /// Where a process writes `0` to join.
    pub fn entrances(&self) -> Vec<PathBuf> {
        self.0.iter().map(|group| group.folder.join("cgroup.procs")).collect()
    }

    /// Whether a limit was reached, now or ever: the kernel counts.
    pub fn reached(&self, limits: &Limits) -> Option<Reached> {
        if self.of(Controller::Pids).is_some_and(|group| count(&group.folder.join("pids.events"), "max") > 0) {
            return Some(Reached::Processes { limit: limits.processes });
        }
        let group = self.of(Controller::Memory)?;
        let events = group.folder.join(match group.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        });
        if count(&events, "oom_kill") == 0 {
            return None;
        }
        // Killed without ever having been at our limit: then it was one above us, or the machine's. (Version 1 has a count of hits, too, but recent kernels
        // leave it at 0.)
        let is_ours = match group.version {
            Version::V1 => {
                let most = number(&group.folder.join("memory.max_usage_in_bytes"));
                most.max(number(&group.folder.join("memory.memsw.max_usage_in_bytes"))) + CHARGED_TOGETHER_BYTES >= limits.memory_bytes
            }
            Version::V2 => count(&events, "max") > 0,
        };
        Some(if is_ours { Reached::Memory { limit_bytes: limits.memory_bytes } } else { Reached::MachineMemory })
    }

    fn of(&self, controller: Controller) -> Option<&Group> {
        self.0.iter().find(|group| group.controllers.contains(&controller))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Without it there is no limit.
    Needed,
    /// Not on every kernel: a machine without swap does not count it.
    IfThere,
}

/// What a group is told to limit. The helper and process 1 are in it, too.
fn settings(controller: Controller, version: Version, limits: &Limits) -> Vec<(&'static str, String, Need)> {
    let bytes = limits.memory_bytes.to_string();
    match (controller, version) {
        (Controller::Pids, _) => vec![("pids.max", limits.processes.saturating_add(OWN_PROCESSES).to_string(), Need::Needed)],
        (Controller::Memory, Version::V1) => {
            vec![("memory.limit_in_bytes", bytes.clone(), Need::Needed), ("memory.memsw.limit_in_bytes", bytes, Need::IfThere)]
        }
        (Controller::Memory, Version::V2) => {
            vec![("memory.max", bytes, Need::Needed), ("memory.swap.max", "0".to_string(), Need::IfThere)]
        }
    }
}

impl Group {
    fn create(place: Place) -> Option<Group> {
        sweep(&place.folder);
        // Somebody who sweeps may be faster than our lock; then the next name is tried.
        (0..10).find_map(|_| {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let folder = place.folder.join(format!("{PREFIX}{}-{number}", std::process::id()));
            fs::create_dir(&folder).ok()?;
            let lock = File::open(&folder).ok()?;
            lock.try_lock().ok()?;
            let controllers = place.controllers.clone();
            is_there(&folder).then_some(Group { folder, version: place.version, controllers, _lock: lock })
        })
    }

    /// The group with its limits, or none if the kernel does not take them.
    fn limited(self, limits: &Limits) -> Option<Group> {
        for (file, value, need) in self.controllers.iter().flat_map(|controller| settings(*controller, self.version, limits)) {
            let path = self.folder.join(file);
            if need == Need::IfThere && !is_there(&path) {
                continue;
            }
            fs::write(path, value).ok()?;
        }
        Some(self)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The last process may still be on its way out.
        for _ in 0..50 {
            match fs::remove_dir(&self.folder) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => thread::sleep(Duration::from_millis(10)),
                // Whatever stays is swept by the next slmops.
                _ => return,
            }
        }
    }
}

/// Removes the groups that killed processes have left. Only names of our own form, only empty groups, and only those that nobody holds.
fn sweep(parent: &Path) {
    for name in files::names(parent).unwrap_or_default() {
        let is_ours = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).is_some_and(|rest| {
            rest.split_once('-').is_some_and(|(pid, number)| pid.parse::<u32>().is_ok() && number.parse::<u64>().is_ok())
        });
        if !is_ours {
            continue;
        }
        let folder = parent.join(name);
        if File::open(&folder).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_dir(&folder);
        }
    }
}

impl Controller {
    fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Pids => "pids",
        }
    }
}

/// Where groups can be made. What version 1 counts, version 2 cannot.
fn places(mounts: &[MountInfo], own: &str) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for controller in [Controller::Memory, Controller::Pids] {
        let v1 = v1_parent(mounts, own, controller).map(|folder| (folder, Version::V1));
        let found = v1.or_else(|| v2_parent(mounts, own, controller).map(|folder| (folder, Version::V2)));
        let Some((folder, version)) = found else { continue };
        // Two groups of one tree: joining the second would mean leaving the first.
        let is_second = version == Version::V2 && places.iter().any(|place| place.version == Version::V2);
        match places.iter_mut().find(|place| place.folder == folder) {
            Some(place) => place.controllers.push(controller),
            None if is_second => {}
            None => places.push(Place { folder, version, controllers: vec![controller] }),
        }
    }
    places
}

/// Our own group in the tree of a controller of version 1.
fn v1_parent(mounts: &[MountInfo], own: &str, controller: Controller) -> Option<PathBuf> {
    let has = |mount: &&MountInfo| mount.kind == "cgroup" && mount.super_options.iter().any(|option| option == controller.name());
    let mount = mounts.iter().rfind(has)?;
    let line = own.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == controller.name()).then_some(path)
    })?;
    folder_of(mount, line).filter(|folder| is_writable(folder))
}

/// A group of version 2 whose children have the controller: our own, or the one above if that is ours to use.
fn v2_parent(mounts: &[MountInfo], own: &str, controller: Controller) -> Option<PathBuf> {
    let mount = mounts.iter().rfind(|mount| mount.kind == "cgroup2")?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let folder = folder_of(mount, path)?;
    let above = folder.parent().filter(|above| above.starts_with(&mount.point)).map(Path::to_path_buf);
    [Some(folder), above].into_iter().flatten().find(|folder| hands_on(folder, controller) && is_writable(folder))
}

fn hands_on(folder: &Path, controller: Controller) -> bool {
    let children = fs::read_to_string(folder.join("cgroup.subtree_control")).unwrap_or_default();
    children.split_whitespace().any(|name| name == controller.name())
}

/// Moving a process takes the right to write the common parent's list.
fn is_writable(folder: &Path) -> bool {
    let may = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    may(folder) && may(&folder.join("cgroup.procs"))
}

fn folder_of(mount: &MountInfo, path: &str) -> Option<PathBuf> {
    let inner = Path::new(path).strip_prefix(&mount.root).ok()?;
    let folder = mount.point.join(inner);
    is_there(&folder).then_some(folder)
}

/// A control group that cannot be looked at is one that is not there: the next best is taken, and the user is told what is missing.
fn is_there(path: &Path) -> bool {
    files::exists(path).unwrap_or(false)
}

/// `oom_kill 3` → 3
fn count(path: &Path, word: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = |line: &str| line.split_once(' ').filter(|(name, _)| *name == word).and_then(|(_, value)| value.trim().parse().ok());
    text.lines().find_map(value).unwrap_or(0)
}

fn number(path: &Path) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, point: &Path, root: &str, options: &str) -> MountInfo {
        MountInfo {
            root: root.into(),
            point: point.into(),
            options: vec!["rw".into()],
            kind: kind.into(),
            super_options: options.split(',').map(str::to_string).collect(),
        }
    }

    /// Folders and files stand for the kernel's.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let space = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = space.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        space
    }

    #[test]
    fn version_1_is_found_by_its_controller_also_within_a_container() {
        let space = tree(&[("memory/here/cgroup.procs", ""), ("pids/cgroup.procs", "")]);
        let mounts = [
            mount("cgroup", &space.path().join("memory"), "/docker/x", "rw,memory"),
            mount("cgroup", &space.path().join("pids"), "/", "rw,pids"),
        ];
        let own = "4:memory:/docker/x/here\n8:pids:/\n0::/\n";
        assert_eq!(v1_parent(&mounts, own, Controller::Memory), Some(space.path().join("memory/here")));
        assert_eq!(v1_parent(&mounts, own, Controller::Pids), Some(space.path().join("pids")));
        assert_eq!(v1_parent(&mounts, "4:memory:/elsewhere\n", Controller::Memory), None);
        assert_eq!(places(&mounts, own).len(), 2);
    }

    #[test]
    fn version_2_is_used_where_its_children_have_the_controller() {
        let space = tree(&[
            ("user/cgroup.subtree_control", "cpu memory pids\n"),
            ("user/cgroup.procs", ""),
            ("user/run.scope/cgroup.subtree_control", "\n"),
            ("user/run.scope/cgroup.procs", ""),
        ]);
        let mounts = [mount("cgroup2", space.path(), "/", "rw")];
        assert_eq!(v2_parent(&mounts, "0::/user/run.scope\n", Controller::Memory), Some(space.path().join("user")));
        assert_eq!(v2_parent(&mounts, "0::/user\n", Controller::Pids), Some(space.path().join("user")));
        let both = vec![Controller::Memory, Controller::Pids];
        assert_eq!(places(&mounts, "0::/user\n"), [Place { folder: space.path().join("user"), version: Version::V2, controllers: both }]);
        fs::write(space.path().join("user/cgroup.subtree_control"), "cpu\n").unwrap();
        assert_eq!(v2_parent(&mounts, "0::/user/run.scope\n", Controller::Memory), None);
    }

    #[test]
    fn only_groups_that_nobody_holds_are_swept() {
        let space = tempfile::tempdir().unwrap();
        for name in ["slmops-1-0", "slmops-2-7", "slmops-other", "user.slice"] {
            fs::create_dir(space.path().join(name)).unwrap();
        }
        let held = File::open(space.path().join("slmops-2-7")).unwrap();
        held.try_lock().unwrap();
        sweep(space.path());
        assert_eq!(files::names(space.path()).unwrap(), ["slmops-2-7", "slmops-other", "user.slice"]);
    }

    #[test]
    fn the_kernels_counts_become_reasons() {
        let space = tree(&[("m/memory.events", "low 0\nmax 5\noom 1\noom_kill 1\n"), ("p/pids.events", "max 0\n")]);
        let group = |name: &str, controller| {
            let folder = space.path().join(name);
            Group { version: Version::V2, controllers: vec![controller], _lock: File::open(&folder).unwrap(), folder }
        };
        let groups = Groups(vec![group("m", Controller::Memory), group("p", Controller::Pids)]);
        let limits = Limits { memory_bytes: 100, processes: 9, open_files: 1, folders: Vec::new() };
        assert_eq!(groups.reached(&limits), Some(Reached::Memory { limit_bytes: 100 }));
        fs::write(space.path().join("m/memory.events"), "max 0\noom_kill 1\n").unwrap();
        assert_eq!(groups.reached(&limits), Some(Reached::MachineMemory));
        fs::write(space.path().join("p/pids.events"), "max 1\n").unwrap();
        assert_eq!(groups.reached(&limits), Some(Reached::Processes { limit: 9 }));
    }
}
