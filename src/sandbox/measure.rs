//! How much a folder holds while somebody writes to it. Nothing in it is trusted: links are not followed, pipes are not opened, and a folder that is swapped
//! for a link on the way is not entered.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

/// Deeper trees are refused as outputs, so nobody has to look further.
const MAX_DEPTH: usize = 256;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// On disk. A sparse file may be as long as it likes while the command works on it.
    pub bytes: u64,
    /// Everything that has a name.
    pub entries: u64,
}

/// Counts until one of the figures is above its limit, and no further.
pub fn measure(folder: &Path, max: Held) -> Held {
    let mut held = Held::default();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(top) = rustix::fs::open(folder, flags, Mode::empty()) else { return held };
    let mut open: Vec<(OwnedFd, Vec<CString>)> = Vec::new();
    enter(top, &mut open, &mut held);
    while let Some((folder, names)) = open.last_mut() {
        if held.bytes > max.bytes || held.entries > max.entries {
            return held;
        }
        let Some(name) = names.pop() else {
            open.pop();
            continue;
        };
        let Ok(stat) = rustix::fs::statat(&*folder, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => held.bytes = held.bytes.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512)),
            FileType::Directory => {
                let below = rustix::fs::openat(&*folder, &name, flags, Mode::empty()).ok().filter(|_| open.len() < MAX_DEPTH);
                if let Some(below) = below {
                    enter(below, &mut open, &mut held);
                }
            }
            _ => {}
        }
    }
    held
}

fn enter(folder: OwnedFd, open: &mut Vec<(OwnedFd, Vec<CString>)>, held: &mut Held) {
    let Ok(entries) = Dir::read_from(&folder) else { return };
    let own = |name: &CString| matches!(name.to_bytes(), b"." | b"..");
    let names: Vec<CString> = entries.flatten().map(|entry| entry.file_name().to_owned()).filter(|name| !own(name)).collect();
    held.entries = held.entries.saturating_add(names.len() as u64);
    open.push((folder, names));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const MOST: Held = Held { bytes: u64::MAX, entries: u64::MAX };

    #[test]
    fn files_count_and_links_and_pipes_do_not_lead_away() {
        let space = tempfile::tempdir().unwrap();
        fs::create_dir_all(space.path().join("a/b")).unwrap();
        fs::write(space.path().join("a/b/x"), vec![1; 100_000]).unwrap();
        fs::File::open(space.path().join("a/b/x")).unwrap().sync_all().unwrap();
        let sparse = fs::File::create(space.path().join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        std::os::unix::fs::symlink("/", space.path().join("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, space.path().join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let held = measure(space.path(), MOST);
        assert!(held.entries == 6 && (50_000..1_000_000).contains(&held.bytes), "{held:?}");
        assert_eq!(measure(&space.path().join("link"), MOST), Held::default());
    }

    #[test]
    fn it_stops_at_the_limit() {
        let space = tempfile::tempdir().unwrap();
        (0..100).for_each(|i| fs::write(space.path().join(i.to_string()), "x").unwrap());
        assert_eq!(measure(space.path(), Held { bytes: u64::MAX, entries: 50 }), Held { bytes: 0, entries: 100 });
    }
}
