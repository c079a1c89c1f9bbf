//! The kernel calls of this room for which no crate has a safe function. All of the room's `unsafe` is in this file, a few lines a call.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::base::files;

/// Flags of `close_range(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inherited {
    /// Closed at once.
    Close,
    /// Closed when this process runs another program.
    CloseOnExec,
}

const CLOSE_RANGE_CLOEXEC: libc::c_uint = 1 << 2;
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
const AT_RECURSIVE: libc::c_uint = 0x8000;
/// `struct mount_attr` and its flags, from `linux/mount.h`.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}
pub const MOUNT_READ_ONLY: u64 = 1;
pub const MOUNT_NO_SUID: u64 = 2;
pub const MOUNT_NO_DEV: u64 = 4;

/// Deals with every file descriptor from 3 on. Only for a process that has just been started and owns none of them.
pub fn inherited_files(what: Inherited) -> io::Result<()> {
    let flags = match what {
        Inherited::Close => 0,
        Inherited::CloseOnExec => CLOSE_RANGE_CLOEXEC,
    };
    // SAFETY: no memory is involved; whoever owns one of these descriptors was told not to call this.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3 as libc::c_uint, libc::c_uint::MAX, flags) };
    if done == 0 { Ok(()) } else { one_by_one(what) }
}

/// For kernels before 5.11, and for containers that do not know the call.
fn one_by_one(what: Inherited) -> io::Result<()> {
    for name in files::names(Path::new("/proc/self/fd"))? {
        let Some(fd) = name.to_str().and_then(|name| name.parse::<libc::c_int>().ok()).filter(|fd| *fd > 2) else { continue };
        // SAFETY: as above. The descriptor of the listing itself is closed by now, so an error for it is no harm.
        unsafe {
            match what {
                Inherited::Close => libc::close(fd),
                Inherited::CloseOnExec => libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC),
            };
        }
    }
    Ok(())
}

/// No signal is ignored, handled or blocked any more, whatever this process inherited.
pub fn default_signals() {
    // SAFETY: the default action runs no code of ours, and the set is filled before it is read. KILL and STOP cannot be changed, nor the two
    // that libc keeps to itself: for those the call fails, which is no harm.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Programs started from here on have the usual address space, randomised, whatever `setarch` said to our parents.
pub fn default_personality() -> io::Result<()> {
    // SAFETY: no memory is involved.
    checked(libc::c_long::from(unsafe { libc::personality(0) }))
}

/// A new, empty session keyring instead of the user's. Kernels without keyrings have nothing to hide.
pub fn new_session_keyring() -> io::Result<()> {
    // SAFETY: the null pointer asks for a keyring without a name.
    checked(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) })
}

/// Sets flags of a mount and of every mount below it.
pub fn set_mount_flags_below(path: &Path, flags: u64) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = MountAttr { attr_set: flags, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: both pointers lead to values that outlive the call, and the size is the structure's own.
    checked(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            AT_RECURSIVE,
            std::ptr::from_ref(&attributes),
            size_of::<MountAttr>(),
        )
    })
}

fn checked(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
