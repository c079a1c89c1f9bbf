//! Process 1 gives away all power that it and its children could have: what the command inherits is the same wherever slmops was started.

use std::io;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

use super::super::diagnose::FILTERING;
use super::super::kernel::{self, Inherited};
use super::super::wire::Gap;
use super::super::{Access as MountAccess, Job, seccomp};
use super::{Refused, refused};

/// The newest version whose rights were looked at; older kernels know some of them.
const LANDLOCK: ABI = ABI::V9;

/// In an order in which each step is still allowed: the filter of system calls is the last.
pub fn give_away(job: &Job) -> Result<Vec<Gap>, Refused> {
    kernel::default_signals();
    kernel::default_personality().map_err(refused("reset the personality"))?;
    let mut gaps = resource_limits(job.limits.open_files)?;
    capabilities()?;
    // Nobody in here may look into process 1, trace it or take its files.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused("close process 1"))?;
    gaps.extend(landlock(job).map_err(|error| refused::<io::Error>("restrict files with Landlock")(io::Error::other(error)))?);
    // All that was inherited is closed since process 1 began, and what it opens itself closes with it. This is for what might be forgotten one day; a kernel
    // without the call has no `/proc` in here to do it otherwise.
    let _ = kernel::inherited_files(Inherited::CloseOnExec);
    seccomp::confine().map_err(|error| refused::<io::Error>(FILTERING)(io::Error::other(error)))?;
    Ok(gaps)
}

const NONE: Option<u64> = None;

/// The same for every command, on every machine: programs can see these. None of them is a limit to reach; those are watched from outside.
fn resource_limits(open_files: u64) -> Result<Vec<Gap>, Refused> {
    let fixed = [
        (Resource::As, "address space", NONE, NONE),
        // One byte: with 0 the kernel would still hand a crash to a program of the machine's, if it has one for that; see core(5).
        (Resource::Core, "core files", Some(1), Some(1)),
        (Resource::Cpu, "processor time", NONE, NONE),
        (Resource::Data, "data", NONE, NONE),
        (Resource::Fsize, "file size", NONE, NONE),
        (Resource::Locks, "locks", NONE, NONE),
        (Resource::Memlock, "locked memory", Some(64 << 10), Some(64 << 10)),
        (Resource::Msgqueue, "message queues", Some(0), Some(0)),
        (Resource::Nice, "priority", Some(0), Some(0)),
        (Resource::Nofile, "open files", Some(open_files), Some(open_files)),
        (Resource::Nproc, "processes", Some(4096), Some(4096)),
        (Resource::Rss, "resident memory", NONE, NONE),
        (Resource::Rtprio, "real-time priority", Some(0), Some(0)),
        (Resource::Rttime, "real-time processor time", NONE, NONE),
        (Resource::Sigpending, "pending signals", Some(1024), Some(1024)),
        (Resource::Stack, "stack", Some(8 << 20), NONE),
    ];
    let mut gaps = Vec::new();
    for (resource, name, current, maximum) in fixed {
        gaps.extend(resource_limit(resource, name, Rlimit { current, maximum }).map_err(refused(format!("set the limit on {name}")))?);
    }
    Ok(gaps)
}

/// A hard limit that is lower already can only be kept.
fn resource_limit(resource: Resource, name: &str, wanted: Rlimit) -> io::Result<Option<Gap>> {
    if rustix::process::setrlimit(resource, wanted).is_ok() {
        return Ok(None);
    }
    let have = rustix::process::getrlimit(resource).maximum;
    let lower = |one: Option<u64>| match (one, have) {
        (Some(one), Some(have)) => Some(one.min(have)),
        (one, have) => one.or(have),
    };
    rustix::process::setrlimit(resource, Rlimit { current: lower(wanted.current), maximum: lower(wanted.maximum) })?;
    Ok(have.map(|have| Gap::LowLimit { name: name.to_string(), have, want: wanted.maximum }))
}

/// No capability within our own namespace either, and none to be had by running a program.
fn capabilities() -> Result<(), Refused> {
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    rustix::thread::set_capabilities_secure_bits(bits).map_err(refused("lock the secure bits"))?;
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

/// A second wall: what the tree does not forbid, Landlock does. Its first version would forbid renaming between folders, which commands do, so the second
/// one is the least that is used.
fn landlock(job: &Job) -> Result<Option<Gap>, Box<dyn std::error::Error + Send + Sync>> {
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(AccessFs::Refer);
    let Ok(ruleset) = ruleset else { return Ok(Some(Gap::Landlock)) };
    let everything = AccessFs::from_all(LANDLOCK);
    let mut ruleset = ruleset
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(everything)?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new("/")?, AccessFs::from_read(LANDLOCK)))?
        .add_rule(PathBeneath::new(
            PathFd::new("/dev")?,
            AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::ReadDir | AccessFs::IoctlDev,
        ))?;
    for mount in job.mounts.iter().filter(|mount| mount.access == MountAccess::Write) {
        ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(&mount.to)?, everything))?;
    }
    let status = ruleset.restrict_self()?;
    let is_there = matches!(status.landlock, LandlockStatus::Available { .. }) && status.ruleset != RulesetStatus::NotEnforced;
    Ok((!is_there).then_some(Gap::Landlock))
}
