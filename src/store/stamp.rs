//! What the file system says of a file without reading it, and when that proves that its content is still the same.
//!
//! A local disk's file system sets a file's change time before each write, to the time of its clock. So an unchanged stamp proves an unchanged
//! content if, when the stamp was taken,
//!
//! 1. the file system was one that also stamps writes through a mapping: those are noticed by a fault on a page that is not dirty yet,
//! 2. nobody could write to the file by what he had opened before: a page that was dirty already takes writes without a fault, and a long
//!    `write` stamps the file only once, when it begins,
//! 3. the stamp was older than the clock's granularity, so that any later write gives another one ("racy" in git's words).
//!
//! The second is asked by a read lease, which the kernel refuses while the file is open for writing or mapped so. Leases are for the file's owner. For
//! files of others, dirty pages are written out, which makes the next write to each a fault, and stamps must be older than any `write` can last.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxFlags};

/// A file's identity and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub size_bytes: u64,
    pub mtime_ns: i128,
    pub ctime_ns: i128,
    pub inode: u64,
    pub device: (u32, u32),
    /// Which mount it was seen in: another disk image may have the same device number, inodes and times.
    pub mount: u64,
}

/// What is known of a file before its content.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub stamp: Stamp,
    pub is_file: bool,
    pub mode: u32,
}

/// The coarsest clock of a trusted file system: ext4 with small inodes counts seconds.
const GRANULARITY_NS: i128 = 2_000_000_000;

/// A single `write`, 2 GiB at most, does not last a day.
const LONGEST_WRITE_NS: i128 = 24 * 3600 * 1_000_000_000;

/// `statfs` types of file systems that stamp writes through mappings. What lies above others (overlayfs), on other machines or in memory
/// is not among them.
const TRUSTED: [i64; 4] = [
    0xEF53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683E, // btrfs
    0xF2F5_2010, // F2FS
];

/// `STATX_MNT_ID_UNIQUE` (since Linux 6.8): an id that no later mount gets until the machine starts again.
const UNIQUE_MOUNT: StatxFlags = StatxFlags::from_bits_retain(0x4000);

impl Facts {
    /// Of what a path names; a link is not followed.
    pub fn at(path: &Path) -> io::Result<Facts> {
        let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID | UNIQUE_MOUNT;
        Ok(Facts::of(&rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, mask)?))
    }

    pub fn of_open(file: &File) -> io::Result<Facts> {
        let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID | UNIQUE_MOUNT;
        Ok(Facts::of(&rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, mask)?))
    }

    fn of(found: &Statx) -> Facts {
        let ns = |time: rustix::fs::StatxTimestamp| i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
        let stamp = Stamp {
            size_bytes: found.stx_size,
            mtime_ns: ns(found.stx_mtime),
            ctime_ns: ns(found.stx_ctime),
            inode: found.stx_ino,
            device: (found.stx_dev_major, found.stx_dev_minor),
            mount: found.stx_mnt_id,
        };
        Facts { stamp, is_file: FileType::from_raw_mode(found.stx_mode.into()).is_file(), mode: found.stx_mode.into() }
    }
}

impl Stamp {
    /// Of what a path names; a link is not followed.
    pub fn at(path: &Path) -> io::Result<Stamp> {
        Ok(Facts::at(path)?.stamp)
    }

    /// Of a file that is about to be read, if it will prove that the content is still what is read now. `now_ns` is from before.
    pub fn proving(file: &File, now_ns: i128) -> Option<Stamp> {
        let stamp = Facts::of_open(file).ok()?.stamp;
        if !stamp.is_older(now_ns, GRANULARITY_NS) || !is_trusted(file) {
            return None;
        }
        match has_writers(file) {
            Some(true) => return None,
            Some(false) => {}
            None if stamp.is_older(now_ns, LONGEST_WRITE_NS) => rustix::fs::fdatasync(file).ok()?,
            None => return None,
        }
        // Whoever came in between has stamped it.
        (Facts::of_open(file).ok()?.stamp == stamp).then_some(stamp)
    }

    fn is_older(&self, now_ns: i128, by_ns: i128) -> bool {
        self.mtime_ns.max(self.ctime_ns) + by_ns < now_ns
    }
}

fn is_trusted(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|found| {
        #[expect(clippy::unnecessary_cast, reason = "its type differs between architectures")]
        let kind = found.f_type as i64;
        TRUSTED.contains(&(kind & 0xFFFF_FFFF))
    })
}

/// Missing in the libc crate; this number on every Linux that slmops runs on.
const F_SETSIG: libc::c_int = 10;

/// Whether somebody has the file open for writing, or mapped so. None if the kernel does not say.
fn has_writers(file: &File) -> Option<bool> {
    let fd = file.as_fd().as_raw_fd();
    // Should somebody open the file for writing just while we hold the lease, this signal tells us, which does nothing by itself.
    // SAFETY: these commands take a number; the descriptor is open.
    let asked = unsafe { libc::fcntl(fd, F_SETSIG, libc::SIGURG) == 0 && libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) == 0 };
    if !asked {
        return (io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN)).then_some(true);
    }
    // SAFETY: as above.
    let given_back = unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) == 0 };
    given_back.then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock;

    fn later(seconds: i128) -> i128 {
        clock::now_ns() + seconds * 1_000_000_000
    }

    /// A folder on a file system whose stamps are trusted, if the tests run on one.
    fn trusted_space() -> Option<(tempfile::TempDir, File)> {
        let space = tempfile::tempdir().unwrap();
        std::fs::write(space.path().join("file"), "content").unwrap();
        let file = File::open(space.path().join("file")).unwrap();
        is_trusted(&file).then_some((space, file))
    }

    #[test]
    fn a_stamp_proves_nothing_while_it_is_young_or_the_file_is_open_for_writing() {
        let Some((space, file)) = trusted_space() else { return };
        assert_eq!(Stamp::proving(&file, later(1)), None);
        assert!(Stamp::proving(&file, later(3)).is_some());
        let writer = File::options().write(true).open(space.path().join("file")).unwrap();
        assert_eq!(Stamp::proving(&file, later(3)), None);
        assert_eq!(Stamp::proving(&file, later(1_000_000)), None);
        drop(writer);
        assert!(Stamp::proving(&file, later(3)).is_some());
    }

    #[test]
    fn a_mapping_counts_as_a_writer_when_its_file_is_closed() {
        let Some((space, file)) = trusted_space() else { return };
        let open = File::options().read(true).write(true).open(space.path().join("file")).unwrap();
        // SAFETY: nobody else changes the file while it is mapped.
        let mut map = unsafe { memmap2::MmapMut::map_mut(&open).unwrap() };
        drop(open);
        map[0] = b'C';
        assert_eq!(Stamp::proving(&file, later(3)), None);
        drop(map);
        assert!(Stamp::proving(&file, later(3)).is_some());
    }

    #[test]
    fn memory_is_not_trusted() {
        let Ok(space) = tempfile::tempdir_in("/dev/shm") else { return };
        std::fs::write(space.path().join("file"), "").unwrap();
        let file = File::open(space.path().join("file")).unwrap();
        assert_eq!(Stamp::proving(&file, later(1_000_000)), None);
    }

    #[test]
    fn a_lease_leaves_no_trace() {
        let Some((space, file)) = trusted_space() else { return };
        assert_eq!(has_writers(&file), Some(false));
        File::options().write(true).open(space.path().join("file")).unwrap();
        assert_eq!(has_writers(&file), Some(false));
    }
}
