//! Digests of files that have not been touched since they were hashed, so that a no-op build reads no data. A guess is never made: a file whose time
//! stamp is so young that a later write could carry the same one is hashed again ("racy" in git's words).

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::base::Digest;

use super::Store;
use super::error::Result;
use super::object::Durability;
use super::session::stamp_ns;

const FORMAT: &str = "slmops sources 1";

/// The coarsest clock of a file system in use (FAT).
const GRANULARITY_NS: i128 = 2_000_000_000;

/// Above this, entries that the last build did not use are dropped.
const MAX_IDLE_ENTRIES: usize = 65_536;

/// What the file system says of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub size_bytes: u64,
    pub mtime_ns: i128,
    pub ctime_ns: i128,
    pub inode: u64,
    pub device: u64,
}

impl Stamp {
    pub fn of(meta: &Metadata) -> Stamp {
        Stamp {
            size_bytes: meta.len(),
            mtime_ns: stamp_ns(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: stamp_ns(meta.ctime(), meta.ctime_nsec()),
            inode: meta.ino(),
            device: meta.dev(),
        }
    }

    /// Whether any write after `now_ns` (before the file was read) would show in the stamp.
    pub fn is_settled(&self, now_ns: i128) -> bool {
        self.mtime_ns.max(self.ctime_ns) + GRANULARITY_NS < now_ns
    }
}

#[derive(Debug)]
pub struct StatCache {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
    state: State,
}

#[derive(Debug)]
struct Entry {
    stamp: Stamp,
    digest: Digest,
    use_: Use,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Idle,
    Used,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AsOnDisk,
    Changed,
}

impl StatCache {
    /// A list that is missing, corrupt or of another version is an empty one.
    pub fn load(store: &Store) -> StatCache {
        let path = store.root().join("stamps");
        let entries = fs::read_to_string(&path).ok().and_then(|text| parse(&text)).unwrap_or_default();
        StatCache { path, entries, state: State::AsOnDisk }
    }

    pub fn get(&mut self, path: &Path, stamp: &Stamp) -> Option<Digest> {
        let entry = self.entries.get_mut(path.to_str()?)?;
        if entry.stamp != *stamp {
            return None;
        }
        entry.use_ = Use::Used;
        Some(entry.digest)
    }

    /// Remembers a digest. The stamp was taken before the file was read, and found settled then.
    pub fn insert(&mut self, path: &Path, stamp: Stamp, digest: Digest) {
        let Some(path) = path.to_str().filter(|path| !path.contains('\n')) else { return };
        self.entries.insert(path.to_string(), Entry { stamp, digest, use_: Use::Used });
        self.state = State::Changed;
    }

    /// Writes the list if it changed.
    pub fn save(&mut self, store: &Store) -> Result<()> {
        if self.state == State::AsOnDisk {
            return Ok(());
        }
        if self.entries.values().filter(|entry| entry.use_ == Use::Idle).count() > MAX_IDLE_ENTRIES {
            self.entries.retain(|_, entry| entry.use_ == Use::Used);
        }
        store.publish_bytes(encode(&self.entries).as_bytes(), &self.path, Durability::Batched)?;
        self.state = State::AsOnDisk;
        Ok(())
    }
}

fn encode(entries: &BTreeMap<String, Entry>) -> String {
    let mut text = format!("{FORMAT}\n");
    for (path, Entry { stamp, digest, .. }) in entries {
        let Stamp { size_bytes, mtime_ns, ctime_ns, inode, device } = stamp;
        text.push_str(&format!("{digest} {size_bytes} {mtime_ns} {ctime_ns} {inode} {device} {path}\n"));
    }
    let checksum = Digest::of(text.as_bytes());
    text.push_str(&format!("checksum {checksum}\n"));
    text
}

fn parse(text: &str) -> Option<BTreeMap<String, Entry>> {
    let (body, checksum) = text.split_at(text.rfind("checksum ")?);
    if checksum != format!("checksum {}\n", Digest::of(body.as_bytes())) {
        return None;
    }
    body.strip_prefix(FORMAT)?.strip_prefix('\n')?.lines().map(parse_entry).collect()
}

fn parse_entry(line: &str) -> Option<(String, Entry)> {
    let mut parts = line.splitn(7, ' ');
    let digest = parts.next()?.parse().ok()?;
    let stamp = Stamp {
        size_bytes: parts.next()?.parse().ok()?,
        mtime_ns: parts.next()?.parse().ok()?,
        ctime_ns: parts.next()?.parse().ok()?,
        inode: parts.next()?.parse().ok()?,
        device: parts.next()?.parse().ok()?,
    };
    Some((parts.next()?.to_string(), Entry { stamp, digest, use_: Use::Idle }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_untouched_files_and_a_corrupt_list_is_ignored() {
        let space = tempfile::tempdir().unwrap();
        let store = Store::open(space.path()).unwrap();
        let stamp = Stamp { size_bytes: 1, mtime_ns: -5, ctime_ns: 3, inode: 4, device: 5 };
        let path = Path::new("/data/a file");
        let mut cache = StatCache::load(&store);
        cache.insert(path, stamp, Digest::of(b"x"));
        cache.save(&store).unwrap();
        let mut again = StatCache::load(&store);
        assert_eq!(again.get(path, &stamp), Some(Digest::of(b"x")));
        assert_eq!(again.get(path, &Stamp { inode: 9, ..stamp }), None);
        assert_eq!(again.get(path, &Stamp { ctime_ns: 4, ..stamp }), None);
        let text = fs::read_to_string(space.path().join("stamps")).unwrap();
        for broken in [text.replace("sources 1", "sources 2"), text.replace(" 4 5 ", " 4 6 "), text[..40].to_string()] {
            fs::write(space.path().join("stamps"), broken).unwrap();
            assert_eq!(StatCache::load(&store).get(path, &stamp), None);
        }
    }

    #[test]
    fn a_young_stamp_is_not_trusted() {
        let stamp = Stamp { size_bytes: 1, mtime_ns: 10, ctime_ns: 1_000_000_000, inode: 4, device: 5 };
        assert!(!stamp.is_settled(3_000_000_000));
        assert!(stamp.is_settled(3_000_000_001));
    }
}
