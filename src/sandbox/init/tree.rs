//! The file tree of the sandbox: small, read-only, with everything bound into it. Every mount of it is checked before the command may see it.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::StatVfsMountFlags;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::super::kernel::{self, MOUNT_NO_DEV, MOUNT_NO_SUID, MOUNT_READ_ONLY};
use super::super::mounts::{self, MountInfo};
use super::super::{Access, Job, Mount};
use super::{Refused, refused};

/// Devices that every program may expect, with their numbers. They hold and tell nothing.
const DEVICES: [(&str, u32); 5] = [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)];
/// All of them belong to the memory driver.
const DEVICE_MAJOR: u32 = 1;

/// Builds the tree and makes it `/`.
pub fn build(job: &Job, root: &Path) -> Result<(), Refused> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(refused("keep mounts to ourselves"))?;
    fs::create_dir_all(root).map_err(refused("create a folder for the sandbox"))?;
    let options = CString::new("mode=755,size=16m").unwrap_or_default();
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("slmops", root, "tmpfs", flags, options.as_c_str()).map_err(refused("mount a tmpfs"))?;
    for (from, to) in root_entries(job)? {
        bind(root, &Mount { from, to, access: Access::Read })?;
    }
    for (name, minor) in DEVICES {
        bind_device(root, name, minor)?;
    }
    for mount in &job.mounts {
        bind(root, mount)?;
    }
    fix_times(root).map_err(refused("set the times of the sandbox's folders"))?;
    rustix::mount::mount_remount(root, MountFlags::BIND | MountFlags::RDONLY | flags, c"").map_err(refused("make the tree read-only"))?;
    check(job, root)?;
    rustix::process::chdir(root).map_err(refused("enter the tree"))?;
    // With both arguments the same, the old root ends up above the new one and is let go at once; see pivot_root(2).
    rustix::process::pivot_root(".", ".").map_err(refused("change the root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(refused("let go of the old root"))
}

/// Folders of the tree itself, which an archive of `/in` would hold, get the time that inputs have: 1980-01-01 UTC.
fn fix_times(root: &Path) -> io::Result<()> {
    let time = rustix::fs::Timespec { tv_sec: 315_532_800, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    for folder in ["dev", "in", "tools", ""] {
        match rustix::fs::utimensat(rustix::fs::CWD, root.join(folder), &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What of the root folder goes where. Links at its top stay links: they lead to places within.
fn root_entries(job: &Job) -> Result<BTreeMap<PathBuf, String>, Refused> {
    let Some(folder) = &job.root else { return Ok(BTreeMap::new()) };
    let names = crate::base::files::names(folder).map_err(refused("read the root folder"))?;
    let to = |name: &OsString| format!("/{}", name.to_string_lossy());
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
    } else if kind.is_file() {
        create_file(&target).map_err(refused(doing("create")))?;
    } else {
        let error = io::Error::other("it is neither a file nor a folder");
        return Err(refused::<io::Error>(doing("bind"))(error));
    }
    rustix::mount::mount_bind_recursive(from, &target).map_err(refused(doing("bind")))?;
    let read_only = match access {
        Access::Read => MOUNT_READ_ONLY,
        Access::Write => 0,
    };
    guard(&target, MOUNT_NO_SUID | MOUNT_NO_DEV | read_only).map_err(refused(doing("guard")))
}

/// The very device that the name stands for, which anybody may use, and of which nobody may change the node.
fn bind_device(root: &Path, name: &str, minor: u32) -> Result<(), Refused> {
    let doing = format!("give it /dev/{name}");
    let target = root.join("dev").join(name);
    create_file(&target).map_err(refused(doing.clone()))?;
    rustix::mount::mount_bind(Path::new("/dev").join(name), &target).map_err(refused(doing.clone()))?;
    let found = fs::symlink_metadata(&target).map_err(refused(doing.clone()))?;
    let is_right = found.file_type().is_char_device() && found.rdev() == rustix::fs::makedev(DEVICE_MAJOR, minor);
    if !is_right || found.permissions().mode() & 0o666 != 0o666 {
        let error = io::Error::other("on this machine it is not the device that it should be, with mode 666");
        return Err(refused::<io::Error>(doing)(error));
    }
    guard(&target, MOUNT_NO_SUID | MOUNT_READ_ONLY).map_err(refused(doing))
}

fn create_file(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create(path)?.set_permissions(fs::Permissions::from_mode(0o644))
}

/// Sets flags of a mount and of all that is mounted below it.
fn guard(target: &Path, flags: u64) -> io::Result<()> {
    if kernel::set_mount_flags_below(target, flags).is_ok() {
        return Ok(());
    }
    // Kernels before 5.12, and containers that do not know the call: one by one.
    for mount in mounts::below(target)? {
        remount(&mount.point, flags)?;
    }
    Ok(())
}

/// Flags that a mount has already are locked for us: leaving one out would be refused.
fn remount(point: &Path, flags: u64) -> io::Result<()> {
    let pairs = [(MOUNT_READ_ONLY, MountFlags::RDONLY), (MOUNT_NO_SUID, MountFlags::NOSUID), (MOUNT_NO_DEV, MountFlags::NODEV)];
    let wanted: MountFlags = pairs.into_iter().filter(|(flag, _)| flags & flag != 0).map(|(_, flag)| flag).collect();
    Ok(rustix::mount::mount_remount(point, MountFlags::BIND | wanted | present_flags(point), c"")?)
}

fn present_flags(path: &Path) -> MountFlags {
    let Ok(stat) = rustix::fs::statvfs(path) else { return MountFlags::empty() };
    let pairs = [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    pairs.into_iter().filter(|(has, _)| stat.f_flag.contains(*has)).map(|(_, flag)| flag).collect()
}

/// Nothing is taken on trust: every mount of the finished tree is what it was asked to be.
fn check(job: &Job, root: &Path) -> Result<(), Refused> {
    let root = root.canonicalize().map_err(refused("find the tree"))?;
    let place = |to: &str| root.join(to.trim_start_matches('/'));
    let writable: Vec<PathBuf> = job.mounts.iter().filter(|mount| mount.access == Access::Write).map(|mount| place(&mount.to)).collect();
    let devices: Vec<PathBuf> = DEVICES.iter().map(|(name, _)| place("dev").join(name)).collect();
    let is_good = |mount: &MountInfo| {
        mount.has("nosuid")
            && (mount.has("nodev") || devices.contains(&mount.point))
            && (mount.has("ro") || writable.contains(&mount.point))
    };
    let mounts = mounts::below(&root).map_err(refused("list the mounts"))?;
    match mounts.iter().find(|mount| !is_good(mount)) {
        Some(bad) => {
            let error = io::Error::other(format!("it is mounted as {}", bad.options.join(",")));
            Err(refused::<io::Error>(format!("guard `{}`", bad.point.display()))(error))
        }
        None if mounts.len() > DEVICES.len() + job.mounts.len() => Ok(()),
        None => Err(refused::<io::Error>("list the mounts")(io::Error::other("some of them are missing"))),
    }
}
