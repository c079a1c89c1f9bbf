//! Whose fault an I/O error is, and what to do about it. The one place that decides, so that equal errors end every command in the same way.

use std::io::{Error, ErrorKind};

/// Who can mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// A name leads nowhere, or not to what it should: the user's file or flags.
    User,
    /// The disk, a limit of the process, its permissions.
    Environment,
}

/// What to do when there is no room left.
pub const DISK_FULL: &str = "the disk is full: `slmops cache gc` makes room, and so does any other clean-up; then build again";

const OPEN_FILES: &str = "slmops has as many files open as it may: raise the limit (`ulimit -n`)";
const FILE_SIZE: &str = "a file may not become larger than the limit of this shell: raise it (`ulimit -f`)";
const THREADS: &str = "this user has as many processes and threads as it may: raise the limit (`ulimit -u`), or use fewer threads (`-j`)";
const MEMORY: &str = "there is not enough memory for this, or the limit of this shell is too low (`ulimit -v`)";
const BROKEN: &str = "the device reports an error: the kernel's log (`dmesg`) has the details";

/// Who is to blame for an error in reading a file that the user named.
pub fn blame(error: &Error) -> Blame {
    match error.kind() {
        ErrorKind::NotFound
        | ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::InvalidInput
        | ErrorKind::InvalidData
        | ErrorKind::InvalidFilename => Blame::User,
        // A chain of links that ends nowhere; its kind has no stable name.
        _ if error.raw_os_error() == Some(LINKS) => Blame::User,
        _ => Blame::Environment,
    }
}

/// `ELOOP`
const LINKS: i32 = rustix::io::Errno::LOOP.raw_os_error();

/// What helps against an error of the environment.
pub fn hint(error: &Error) -> Option<&'static str> {
    use rustix::io::Errno;
    let Some(errno) = Errno::from_io_error(error) else { return hint_of_kind(error.kind()) };
    match errno {
        Errno::NOSPC | Errno::DQUOT => Some(DISK_FULL),
        Errno::MFILE | Errno::NFILE => Some(OPEN_FILES),
        Errno::FBIG => Some(FILE_SIZE),
        Errno::NOMEM => Some(MEMORY),
        Errno::IO => Some(BROKEN),
        _ => None,
    }
}

/// For errors that a library has wrapped, which have lost their number.
fn hint_of_kind(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some(DISK_FULL),
        ErrorKind::FileTooLarge => Some(FILE_SIZE),
        ErrorKind::OutOfMemory => Some(MEMORY),
        _ => None,
    }
}

/// The same error once more, with its number, or with its words where a library has wrapped it.
pub fn copy(error: &Error) -> Error {
    error.raw_os_error().map_or_else(|| Error::new(error.kind(), error.to_string()), Error::from_raw_os_error)
}

/// What helps where a thread or a process could not be started.
pub fn thread_hint(error: &Error) -> Option<&'static str> {
    match error.kind() {
        ErrorKind::WouldBlock => Some(THREADS),
        _ => hint(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_name_leads_to_is_the_user_s_and_the_rest_is_not() {
        use rustix::io::Errno;
        let of = |errno: Errno| blame(&errno.into());
        for errno in [Errno::NOENT, Errno::NOTDIR, Errno::ISDIR, Errno::LOOP, Errno::NAMETOOLONG] {
            assert_eq!(of(errno), Blame::User, "{errno}");
        }
        for errno in [Errno::IO, Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::STALE, Errno::ACCESS, Errno::NOSPC, Errno::INTR] {
            assert_eq!(of(errno), Blame::Environment, "{errno}");
        }
        assert!(hint(&Errno::MFILE.into()).is_some_and(|hint| hint.contains("ulimit -n")));
        let wrapped = Error::new(Error::from(Errno::NOSPC).kind(), "`x`: No space left on device (os error 28)");
        assert_eq!(copy(&wrapped).to_string(), wrapped.to_string());
        assert_eq!(copy(&Errno::NOSPC.into()).raw_os_error(), Some(Errno::NOSPC.raw_os_error()));
        assert_eq!(hint(&copy(&wrapped)), Some(DISK_FULL));
        assert!(thread_hint(&Errno::AGAIN.into()).is_some_and(|hint| hint.contains("ulimit -u")));
    }
}
