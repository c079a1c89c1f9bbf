//! What the helper does, twice: outside, it enters new namespaces and starts itself again; inside, as process 1 of its own process namespace,
//! it builds the file tree, gives all power away, runs the command and reaps what it leaves behind. When process 1 ends, so does all else in there.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use rustix::fs::{Mode, StatVfsMountFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};
use serde::{Deserialize, Serialize};

use super::{Access, Ended, HELPER, Job, Mount};

/// What the helper reads from its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub job: Job,
    /// This very program.
    pub helper: PathBuf,
    /// An empty folder of the machine, where the tree is put together and the outcome is told.
    pub scratch: PathBuf,
    pub stage: Stage,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Stage {
    Outside,
    Inside,
}

/// What the helper leaves in [`outcome_file`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Outcome {
    Ended(Ended),
    /// The sandbox could not be made.
    Unavailable {
        doing: String,
        error: String,
    },
    /// The sandbox stood, but the program could not be started.
    NotStarted {
        error: String,
        not_found: bool,
    },
}

pub(super) fn outcome_file(scratch: &Path) -> PathBuf {
    scratch.join("outcome.json")
}

const ORDER_MAX_BYTES: u64 = 64 << 20;
/// Devices that every program may expect. They hold and tell nothing.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// Runs the helper if this process was started as one; `main` calls it before anything else, while there is but one thread.
pub fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let asked = arguments.next().is_some_and(|argument| argument == HELPER) && arguments.next().is_none();
    asked.then(main)
}

fn main() -> ExitCode {
    let mut bytes = Vec::new();
    let order = io::stdin().lock().take(ORDER_MAX_BYTES).read_to_end(&mut bytes).and_then(|_| Ok(serde_json::from_slice::<Order>(&bytes)?));
    let order = match order {
        Ok(order) => order,
        Err(error) => {
            // Somebody typed the hidden command.
            let _ = writeln!(io::stderr(), "`slmops {HELPER}` is started by slmops itself: {error}");
            return ExitCode::from(70);
        }
    };
    let Ok(mut report) = OpenOptions::new().create(true).append(true).open(outcome_file(&order.scratch)) else { return ExitCode::from(70) };
    let outcome = match order.stage {
        Stage::Outside => outside(order),
        Stage::Inside => inside(&order).map(Some),
    };
    let outcome = outcome.unwrap_or_else(|Refused { doing, error }| Some(Outcome::Unavailable { doing, error: error.to_string() }));
    if let Some(outcome) = outcome {
        let text = serde_json::to_string(&outcome).unwrap_or_default();
        let _ = report.write_all(text.as_bytes());
    }
    ExitCode::SUCCESS
}

/// The kernel said no.
struct Refused {
    doing: String,
    error: io::Error,
}

fn refused<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Refused {
    let doing = doing.into();
    move |error| Refused { doing, error: error.into() }
}

fn outside(order: Order) -> Result<Option<Outcome>, Refused> {
    let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let all = UnshareFlags::NEWUSER
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWIPC;
    #[expect(
        deprecated,
        reason = "only FILES makes it unsafe, which is not among the flags; so this crate stays without unsafe code here"
    )]
    rustix::thread::unshare(all).map_err(refused("make user, mount, process and network namespaces"))?;
    let map = |file: &str, text: String| fs::write(file, text).map_err(refused(format!("write {file}")));
    // Inside, everybody is 0 with the rights of whom slmops runs as: no name or number of the user is seen.
    map("/proc/self/setgroups", "deny".to_string())?;
    map("/proc/self/uid_map", format!("0 {user} 1\n"))?;
    map("/proc/self/gid_map", format!("0 {group} 1\n"))?;
    die_with_parent()?;
    let order = Order { stage: Stage::Inside, ..order };
    let mut child = Command::new(&order.helper)
        .arg(HELPER)
        .env_clear()
        .stdin(Stdio::piped())
        .spawn()
        .map_err(refused("start the first process of the sandbox"))?;
    if let Some(mut stdin) = child.stdin.take() {
        let text = serde_json::to_vec(&order).map_err(refused("describe the sandbox"))?;
        stdin.write_all(&text).map_err(refused("talk to the first process of the sandbox"))?;
    }
    child.wait().map_err(refused("wait for the sandbox"))?;
    Ok(None)
}

fn inside(order: &Order) -> Result<Outcome, Refused> {
    let job = &order.job;
    rustix::process::setsid().map_err(refused("leave the terminal"))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::system::sethostname(b"slmops").map_err(refused("set the host name"))?;
    // More namespaces within this one are nobody's business. Kernels without the file have no such limit; that is no harm.
    let _ = fs::write("/proc/sys/user/max_user_namespaces", "0");
    build_tree(job, &order.scratch.join("root"))?;
    rustix::process::chdir(&job.working_folder).map_err(refused(format!("enter {}", job.working_folder)))?;
    give_power_away()?;
    die_with_parent()?;
    Ok(run_command(job))
}

/// A killed slmops must leave no command running.
fn die_with_parent() -> Result<(), Refused> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(refused("bind the sandbox to its parent"))
}

/// A small read-only tree of its own with everything bound into it, which then becomes `/`.
fn build_tree(job: &Job, root: &Path) -> Result<(), Refused> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(refused("keep mounts to ourselves"))?;
    fs::create_dir_all(root).map_err(refused("create a folder for the sandbox"))?;
    let options = CString::new("mode=755,size=16m").unwrap_or_default();
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("slmops", root, "tmpfs", flags, options.as_c_str()).map_err(refused("mount a tmpfs"))?;
    for (from, to) in root_entries(job)? {
        bind(root, &Mount { from, to, access: Access::Read })?;
    }
    for name in DEVICES {
        bind_device(root, name)?;
    }
    for mount in &job.mounts {
        bind(root, mount)?;
    }
    rustix::mount::mount_remount(root, MountFlags::BIND | MountFlags::RDONLY | flags, c"").map_err(refused("make the tree read-only"))?;
    rustix::process::chdir(root).map_err(refused("enter the tree"))?;
    // With both arguments the same, the old root ends up above the new one and is let go at once; see pivot_root(2).
    rustix::process::pivot_root(".", ".").map_err(refused("change the root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(refused("let go of the old root"))
}

/// What of the root folder goes where. Links at its top stay links: they lead to places within.
fn root_entries(job: &Job) -> Result<BTreeMap<PathBuf, String>, Refused> {
    let Some(folder) = &job.root else { return Ok(BTreeMap::new()) };
    let names = crate::base::files::names(folder).map_err(refused("read the root folder"))?;
    let to = |name: &std::ffi::OsString| format!("/{}", name.to_string_lossy());
    Ok(names.iter().map(|name| (folder.join(name), to(name))).collect())
}

fn bind(root: &Path, mount: &Mount) -> Result<(), Refused> {
    let Mount { from, to, access } = mount;
    let doing = |what: &str| format!("{what} {to}");
    let target = root.join(to.trim_start_matches('/'));
    let kind = fs::symlink_metadata(from).map_err(refused(doing("find what becomes")))?.file_type();
    if kind.is_symlink() {
        let leads = fs::read_link(from).map_err(refused(doing("read the link")))?;
        return std::os::unix::fs::symlink(leads, &target).map_err(refused(doing("create the link")));
    }
    if kind.is_dir() {
        fs::create_dir_all(&target).map_err(refused(doing("create")))?;
    } else {
        create_file(&target).map_err(refused(doing("create")))?;
    }
    rustix::mount::mount_bind_recursive(from, &target).map_err(refused(doing("bind")))?;
    let read_only = match access {
        Access::Read => MountFlags::RDONLY,
        Access::Write => MountFlags::empty(),
    };
    // Flags that the mount below has are locked for us: leaving one out would be refused.
    let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | read_only | locked_flags(&target);
    rustix::mount::mount_remount(&target, flags, c"").map_err(refused(doing("guard")))
}

fn locked_flags(path: &Path) -> MountFlags {
    let Ok(stat) = rustix::fs::statvfs(path) else { return MountFlags::empty() };
    let pairs = [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    pairs.into_iter().filter(|(has, _)| stat.f_flag.contains(*has)).map(|(_, flag)| flag).collect()
}

fn bind_device(root: &Path, name: &str) -> Result<(), Refused> {
    let doing = format!("give it /dev/{name}");
    let target = root.join("dev").join(name);
    create_file(&target).map_err(refused(doing.clone()))?;
    rustix::mount::mount_bind(Path::new("/dev").join(name), &target).map_err(refused(doing))
}

fn create_file(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create(path)?.set_permissions(fs::Permissions::from_mode(0o644))
}

/// No capability within our own namespace either, and none to be had by running a program.
fn give_power_away() -> Result<(), Refused> {
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(refused("switch off core files"))?;
    rustix::thread::clear_ambient_capability_set().map_err(refused("clear ambient capabilities"))?;
    for bit in 0..u64::BITS {
        // The kernel knows some forty; the first unknown one ends the list.
        if rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)).is_err() {
            break;
        }
    }
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(refused("drop capabilities"))?;
    rustix::thread::set_no_new_privs(true).map_err(refused("forbid new privileges"))
}

fn run_command(job: &Job) -> Outcome {
    let not_started =
        |error: &io::Error| Outcome::NotStarted { error: error.to_string(), not_found: error.kind() == io::ErrorKind::NotFound };
    let Some((program, arguments)) = job.command.split_first() else {
        return not_started(&io::Error::other("the command is empty"));
    };
    let started = Command::new(program).args(arguments).env_clear().envs(&job.environment).stdin(Stdio::null()).spawn();
    match started {
        Ok(child) => reap_until(child.id()),
        Err(error) => not_started(&error),
    }
}

/// Process 1 inherits every orphan; whoever ends is waited for until the command itself has.
fn reap_until(command: u32) -> Outcome {
    let command = i32::try_from(command).ok().and_then(Pid::from_raw);
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if Some(pid) == command => {
                let ended = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Ended::Exited(code),
                    (None, Some(signal)) => Ended::Killed(signal),
                    (None, None) => continue,
                };
                return Outcome::Ended(ended);
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Outcome::Unavailable { doing: "wait for the command".to_string(), error: error.to_string() },
        }
    }
}
