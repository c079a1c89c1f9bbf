//! Digests of files that have not been touched since they were hashed, so that a no-op build reads no data. A guess is never made: what a stamp
//! does not prove ([`Stamp::proving`]) is hashed again each time.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::{Digest, clock};

use super::Store;
use super::error::Result;
use super::object::Durability;
use super::reading;
use super::stamp::{Facts, Stamp};
use super::tree::Mode;

const FORMAT: &str = "slmops sources 2";

/// Above this, entries that the last build did not use are dropped.
const MAX_IDLE_ENTRIES: usize = 65_536;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileContent {
    pub digest: Digest,
    pub size_bytes: u64,
    pub mode: Mode,
}

#[derive(Debug)]
pub struct StatCache {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
    state: State,
    /// From before any file was read.
    now_ns: i128,
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
    /// A list that is missing, corrupt, of another version, from before the machine's last start or from the future is an empty one.
    pub fn load(store: &Store) -> StatCache {
        let path = store.root().join("stamps");
        let now_ns = clock::now_ns();
        let entries = fs::read_to_string(&path).ok().and_then(|text| parse(&text, now_ns)).unwrap_or_default();
        StatCache { path, entries, state: State::AsOnDisk, now_ns }
    }

    /// What a regular file holds. It is read unless it is known and was not touched. A link is refused.
    pub fn content(&mut self, path: &Path) -> io::Result<FileContent> {
        let facts = Facts::at(path)?;
        if !facts.is_file {
            return Err(io::Error::other(format!("`{}` is not a regular file", path.display())));
        }
        if let Some(digest) = self.known(path, &facts.stamp) {
            return Ok(FileContent { digest, size_bytes: facts.stamp.size_bytes, mode: Mode::of(facts.mode) });
        }
        let mut file = reading::open(path)?;
        let mode = Mode::of(Facts::of_open(&file)?.mode);
        let proof = Stamp::proving(&file, self.now_ns);
        let (digest, size_bytes) = reading::digest(&mut file)?;
        let proof = proof.filter(|stamp| stamp.size_bytes == size_bytes && Facts::of_open(&file).is_ok_and(|now| now.stamp == *stamp));
        match (proof, path.to_str()) {
            (Some(stamp), Some(path)) if !path.contains('\n') => {
                self.entries.insert(path.to_string(), Entry { stamp, digest, use_: Use::Used });
                self.state = State::Changed;
            }
            _ => {}
        }
        Ok(FileContent { digest, size_bytes, mode })
    }

    fn known(&mut self, path: &Path, stamp: &Stamp) -> Option<Digest> {
        let entry = self.entries.get_mut(path.to_str()?)?;
        if entry.stamp != *stamp {
            return None;
        }
        entry.use_ = Use::Used;
        Some(entry.digest)
    }

    /// Writes the list if it changed and the store can be written to.
    pub fn save(&mut self, store: &Store) -> Result<()> {
        let Some(boot) = clock::boot_id() else { return Ok(()) };
        if self.state == State::AsOnDisk || store.is_read_only() {
            return Ok(());
        }
        if self.entries.values().filter(|entry| entry.use_ == Use::Idle).count() > MAX_IDLE_ENTRIES {
            self.entries.retain(|_, entry| entry.use_ == Use::Used);
        }
        store.publish_bytes(encode(&self.entries, &boot, self.now_ns).as_bytes(), &self.path, Durability::Batched)?;
        self.state = State::AsOnDisk;
        Ok(())
    }
}

fn encode(entries: &BTreeMap<String, Entry>, boot: &str, now_ns: i128) -> String {
    let mut text = format!("{FORMAT}\nsince {boot} {now_ns}\n");
    for (path, Entry { stamp, digest, .. }) in entries {
        let Stamp { size_bytes, mtime_ns, ctime_ns, inode, device: (major, minor), mount } = stamp;
        text.push_str(&format!("{digest} {size_bytes} {mtime_ns} {ctime_ns} {inode} {major} {minor} {mount} {path}\n"));
    }
    let checksum = Digest::of(text.as_bytes());
    text.push_str(&format!("checksum {checksum}\n"));
    text
}

fn parse(text: &str, now_ns: i128) -> Option<BTreeMap<String, Entry>> {
    let (body, checksum) = text.split_at(text.rfind("checksum ")?);
    if checksum != format!("checksum {}\n", Digest::of(body.as_bytes())) {
        return None;
    }
    let (since, entries) = body.strip_prefix(FORMAT)?.strip_prefix("\nsince ")?.split_once('\n')?;
    let (boot, written_ns) = since.split_once(' ')?;
    // Mounts are numbered from the machine's start. A clock that was set back may stamp a new write like an old one.
    if clock::boot_id().as_deref() != Some(boot) || written_ns.parse::<i128>().ok()? > now_ns {
        return None;
    }
    entries.lines().map(parse_entry).collect()
}

fn parse_entry(line: &str) -> Option<(String, Entry)> {
    let mut parts = line.splitn(9, ' ');
    let digest = parts.next()?.parse().ok()?;
    let stamp = Stamp {
        size_bytes: parts.next()?.parse().ok()?,
        mtime_ns: parts.next()?.parse().ok()?,
        ctime_ns: parts.next()?.parse().ok()?,
        inode: parts.next()?.parse().ok()?,
        device: (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?),
        mount: parts.next()?.parse().ok()?,
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
        let stamp = Stamp { size_bytes: 1, mtime_ns: -5, ctime_ns: 3, inode: 4, device: (5, 6), mount: 7 };
        let path = Path::new("/data/a file");
        let mut cache = StatCache::load(&store);
        cache.entries.insert("/data/a file".to_string(), Entry { stamp, digest: Digest::of(b"x"), use_: Use::Used });
        cache.state = State::Changed;
        cache.save(&store).unwrap();
        let mut again = StatCache::load(&store);
        assert_eq!(again.known(path, &stamp), Some(Digest::of(b"x")));
        for other in
            [Stamp { inode: 9, ..stamp }, Stamp { ctime_ns: 4, ..stamp }, Stamp { mount: 8, ..stamp }, Stamp { device: (5, 7), ..stamp }]
        {
            assert_eq!(again.known(path, &other), None);
        }
        let text = fs::read_to_string(space.path().join("stamps")).unwrap();
        for broken in [text.replace("sources 2", "sources 1"), text.replace(" 4 5 ", " 4 6 "), text[..40].to_string()] {
            fs::write(space.path().join("stamps"), broken).unwrap();
            assert_eq!(StatCache::load(&store).known(path, &stamp), None);
        }
    }

    #[test]
    fn a_list_of_another_start_or_from_the_future_is_ignored() {
        let entries = BTreeMap::new();
        let boot = clock::boot_id().unwrap();
        assert!(parse(&encode(&entries, &boot, 5), 5).is_some());
        assert!(parse(&encode(&entries, &boot, 6), 5).is_none());
        assert!(parse(&encode(&entries, "another", 5), 5).is_none());
    }
}
