//! Chosen actions with their objects as one tar file, the same bytes for the same actions; and back. An archive is hostile until every digest in it was
//! found right: nothing of it is visible before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::base::{Digest, Hasher};

use super::error::{Damage, Result, StoreError, damage};
use super::object::Durability;
use super::record::Record;
use super::{Commit, Lookup, Scratch, Store};

const HEAD: &str = "slmops-export";
const FORMAT: &str = "slmops export 1";

/// More than any record has, and little enough to hold in memory.
const MAX_RECORD_BYTES: u64 = 256 << 20;

/// What a tar may be filled up with to whole blocks.
const MAX_PADDING_BYTES: usize = 1 << 20;

/// What an import brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    pub actions: u64,
    pub objects: u64,
    /// Actions that have another result here, which stayed.
    pub differing: Vec<Digest>,
}

impl Store {
    /// Writes these actions and all that they need. Every content is checked on the way.
    pub fn export(&self, keys: &BTreeSet<Digest>, to: impl Write) -> Result<()> {
        let mut records = Vec::new();
        let mut objects = BTreeMap::new();
        for key in keys {
            match self.lookup(*key)? {
                Lookup::Hit(record) => {
                    objects.extend(record.objects());
                    records.push(record);
                }
                Lookup::Miss => return Err(StoreError::refused(key.hex(), "is not in the store")),
                Lookup::Damaged(damage) => return Err(StoreError::Damaged(damage)),
            }
        }
        let mut archive = tar::Builder::new(to);
        let head = format!("{FORMAT}\nobjects {}\nactions {}\n", objects.len(), records.len());
        append(&mut archive, HEAD, head.len() as u64, head.as_bytes())?;
        for (object, size_bytes) in objects {
            self.check_content(object, size_bytes)?;
            let path = self.object_path(object);
            let file = File::open(&path).map_err(|error| StoreError::io("open", &path, error))?;
            append(&mut archive, &format!("objects/{object}"), size_bytes, file.take(size_bytes))?;
        }
        for record in records {
            let text = record.encode();
            append(&mut archive, &format!("actions/{}", record.key), text.len() as u64, text.as_bytes())?;
        }
        archive.into_inner().and_then(|mut to| to.flush()).map_err(|error| StoreError::io("write", Path::new("the archive"), error))
    }

    /// Takes in an archive of [`Store::export`], all of it or nothing.
    pub fn import(&self, from: impl Read) -> Result<Imported> {
        let staged = self.stage(from)?;
        for record in &staged.records {
            for (object, size_bytes) in record.objects() {
                let here = staged.objects.get(&object) == Some(&size_bytes);
                if !here && damage(self.check_content(object, size_bytes))?.is_some() {
                    return Err(refused(format!("lacks object {object}, which one of its actions needs")));
                }
            }
        }
        let mut imported = Imported { objects: staged.objects.len() as u64, ..Imported::default() };
        for (object, size_bytes) in &staged.objects {
            if self.check_content(*object, *size_bytes).is_err() {
                self.adopt(&staged.folder.path().join(object.hex()), *object)?;
            }
        }
        for record in &staged.records {
            match self.commit(record, Durability::Batched)? {
                Commit::Stored => imported.actions += 1,
                Commit::Differs(_) => imported.differing.push(record.key),
            }
        }
        self.sync()?;
        Ok(imported)
    }

    fn stage(&self, from: impl Read) -> Result<Staged> {
        let folder = self.scratch()?;
        let mut staged = Staged { folder, objects: BTreeMap::new(), records: Vec::new() };
        let mut archive = tar::Archive::new(from);
        let mut expected = None;
        // Raw: what extends names and sizes beyond a header is not needed, and would be read into memory at whatever length it claims.
        for entry in archive.entries().map_err(unreadable)?.raw(true) {
            let mut entry = entry.map_err(unreadable)?;
            if entry.header().entry_type() != tar::EntryType::Regular {
                return Err(refused("holds something that is not a file"));
            }
            let name = String::from_utf8(entry.path_bytes().into_owned()).map_err(|_| refused("holds a strange name"))?;
            match (&expected, name.split_once('/')) {
                (None, None) if name == HEAD => expected = Some(read_head(&mut entry)?),
                (Some(_), Some(("objects", digest))) => staged.object(digest, &mut entry)?,
                (Some(_), Some(("actions", key))) => staged.action(key, &mut entry)?,
                _ => return Err(refused(format!("holds `{}`, which does not belong there", name.escape_debug()))),
            }
        }
        check_end(archive.into_inner())?;
        match expected {
            Some(counts) if counts == (staged.objects.len() as u64, staged.records.len() as u64) => Ok(staged),
            Some(_) => Err(refused("is incomplete")),
            None => Err(refused("is empty")),
        }
    }
}

/// What an archive holds, outside the store yet.
struct Staged {
    folder: Scratch,
    objects: BTreeMap<Digest, u64>,
    records: Vec<Record>,
}

impl Staged {
    fn object(&mut self, name: &str, from: &mut impl Read) -> Result<()> {
        let object: Digest = name.parse().map_err(|_| refused("holds an object without a digest for a name"))?;
        let path = self.folder.path().join(object.hex());
        let mut file = File::create_new(&path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => refused(format!("holds object {object} twice")),
            _ => StoreError::io("create", &path, error),
        })?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0u8; 1 << 16];
        let mut size_bytes = 0u64;
        loop {
            let n = from.read(&mut buffer).map_err(unreadable)?;
            if n == 0 {
                break;
            }
            size_bytes += n as u64;
            hasher.update(&buffer[..n]);
            file.write_all(&buffer[..n]).map_err(|error| StoreError::io("write", &path, error))?;
        }
        let found = hasher.finish();
        if found != object {
            return Err(StoreError::Damaged(Damage::Changed { object, found }));
        }
        self.objects.insert(object, size_bytes);
        Ok(())
    }

    fn action(&mut self, name: &str, from: &mut impl Read) -> Result<()> {
        let mut bytes = Vec::new();
        from.take(MAX_RECORD_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MAX_RECORD_BYTES {
            return Err(refused("holds an action's record that is too large"));
        }
        let record = Record::parse(&bytes).map_err(|why| refused(format!("holds an action's record that {why}")))?;
        if record.key.hex() != name {
            return Err(refused("holds an action's record under another name"));
        }
        if self.records.iter().any(|other| other.key == record.key) {
            return Err(refused(format!("holds action {} twice", record.key)));
        }
        self.records.push(record);
        Ok(())
    }
}

fn append(archive: &mut tar::Builder<impl Write>, name: &str, size_bytes: u64, content: impl Read) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size_bytes);
    header.set_mtime(0);
    archive.append_data(&mut header, name, content).map_err(|error| StoreError::io("write", Path::new(name), error))
}

/// Read to its end, so that whoever writes into a pipe can finish. Behind the last entry there is only padding.
fn check_end(mut from: impl Read) -> Result<()> {
    let mut buffer = [0u8; 1 << 12];
    let mut padding_bytes = 0;
    loop {
        let n = from.read(&mut buffer).map_err(unreadable)?;
        padding_bytes += n;
        if n == 0 {
            return Ok(());
        }
        if padding_bytes > MAX_PADDING_BYTES || buffer[..n].iter().any(|byte| *byte != 0) {
            return Err(refused("holds more behind its end"));
        }
    }
}

/// How many objects and actions follow.
fn read_head(from: &mut impl Read) -> Result<(u64, u64)> {
    let mut text = String::new();
    from.take(200).read_to_string(&mut text).map_err(unreadable)?;
    let mut lines = text.lines();
    if lines.next() != Some(FORMAT) {
        return Err(refused("has an unknown format"));
    }
    let mut count = |name: &str| lines.next()?.strip_prefix(name)?.parse::<u64>().ok();
    match (count("objects "), count("actions ")) {
        (Some(objects), Some(actions)) => Ok((objects, actions)),
        _ => Err(refused("has a malformed head")),
    }
}

fn refused(why: impl Into<String>) -> StoreError {
    StoreError::refused("the archive", why)
}

fn unreadable(error: io::Error) -> StoreError {
    StoreError::io("read", Path::new("the archive"), error)
}

#[cfg(test)]
mod tests {
    use super::super::tree::{Entry, Mode, Tree};
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let space = tempfile::tempdir().unwrap();
        let store = Store::open(space.path()).unwrap();
        (space, store)
    }

    fn add(store: &Store, key: &str, content: &str) -> Digest {
        let digest = store.put(content.as_bytes(), Durability::Batched).unwrap();
        let entry = Entry { path: "f".into(), digest, size_bytes: content.len() as u64, mode: Mode::Plain };
        let key = Digest::of(key.as_bytes());
        let tree = Tree::new(vec![entry]).unwrap();
        let log = Some((store.put(b"said", Durability::Batched).unwrap(), 4));
        let record = Record { key, tree, log, key_text: "k\tv\n".into(), duration: Default::default(), producer: "test".into() };
        store.commit(&record, Durability::Batched).unwrap();
        key
    }

    fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, content) in entries {
            let mut header = tar::Header::new_ustar();
            header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            archive.append(&header, *content).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn what_goes_out_comes_in_and_twice_is_the_same_bytes() {
        let ((_a, one), (_b, two)) = (store(), store());
        let keys = BTreeSet::from([add(&one, "1", "first"), add(&one, "2", "second")]);
        let export = |store: &Store| {
            let mut bytes = Vec::new();
            store.export(&keys, &mut bytes).unwrap();
            bytes
        };
        let bytes = export(&one);
        let imported = two.import(&bytes[..]).unwrap();
        assert_eq!((imported.actions, imported.objects), (2, 3));
        assert_eq!(export(&two), bytes);
        for key in &keys {
            let (Lookup::Hit(a), Lookup::Hit(b)) = (one.lookup(*key).unwrap(), two.lookup(*key).unwrap()) else { panic!() };
            assert_eq!(a, b);
        }
        assert!(two.export(&BTreeSet::from([Digest::of(b"nobody")]), Vec::new()).is_err());
    }

    #[test]
    fn a_result_that_differs_from_ours_stays_outside() {
        let ((_a, one), (_b, two)) = (store(), store());
        let key = add(&one, "1", "theirs");
        let mut bytes = Vec::new();
        one.export(&BTreeSet::from([key]), &mut bytes).unwrap();
        add(&two, "1", "ours");
        assert_eq!(two.import(&bytes[..]).unwrap().differing, [key]);
    }

    #[test]
    fn a_cut_or_mangled_archive_leaves_nothing_behind() {
        let ((_a, one), (_b, two)) = (store(), store());
        let key = add(&one, "1", "content");
        let mut bytes = Vec::new();
        one.export(&BTreeSet::from([key]), &mut bytes).unwrap();
        // The last two blocks are tar's end mark, which some writers leave out.
        for cut in (0..bytes.len() - 1024).step_by(97) {
            assert!(two.import(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let at = bytes.windows(7).position(|window| window == b"content").unwrap();
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        assert!(matches!(two.import(&flipped[..]), Err(StoreError::Damaged(_))));
        assert_eq!(two.contents().unwrap(), super::super::Contents::default());
        two.import(&bytes[..]).unwrap();
    }

    #[test]
    fn a_hostile_archive_is_refused() {
        let (_space, store) = store();
        let head: &[u8] = b"slmops export 1\nobjects 1\nactions 0\n";
        let name = format!("objects/{}", Digest::of(b"x"));
        let upper = format!("objects/{}", Digest::of(b"x").hex().to_uppercase());
        let good = tar(&[(HEAD, head), (&name, b"x")]);
        for entries in [
            vec![(HEAD, head), ("objects/../../escape", b"x" as &[u8])],
            vec![(HEAD, head), ("/etc/passwd", b"x")],
            vec![(HEAD, head), ("../x", b"x")],
            vec![(HEAD, head), (&upper, b"x")],
            vec![(HEAD, head), (&name, b"x"), (&name, b"x")],
            vec![(HEAD, head), (HEAD, head)],
            vec![(HEAD, head), (&name, b"y")],
            vec![(&name, b"x"), (HEAD, head)],
            vec![(HEAD, b"slmops export 2\nobjects 1\nactions 0\n"), (&name, b"x")],
            vec![(HEAD, b"slmops export 1\nobjects 9999999999999999999999\nactions 0\n"), (&name, b"x")],
            vec![],
        ] {
            assert!(store.import(&tar(&entries)[..]).is_err(), "{entries:?}");
        }
        for (behind, is_fine) in [(vec![0u8; 4096], true), (vec![0; 2 << 20], false), (good.clone(), false), (b"x".to_vec(), false)] {
            let (_space, store) = self::store();
            assert_eq!(store.import(&[good.clone(), behind].concat()[..]).is_ok(), is_fine);
        }
        // What would have a reader allocate 4 GB before it has read anything.
        let mut long = tar::Header::new_gnu();
        long.set_entry_type(tar::EntryType::GNULongName);
        long.set_size(4 << 30);
        long.set_cksum();
        assert!(store.import(&[long.as_bytes(), &good[..]].concat()[..]).unwrap_err().to_string().contains("not a file"));
        let mut link = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        link.append_link(&mut header, HEAD, "/etc/passwd").unwrap();
        assert!(store.import(&link.into_inner().unwrap()[..]).is_err());
        assert_eq!(store.contents().unwrap(), super::super::Contents::default());
        assert_eq!(store.import(&good[..]).unwrap().objects, 1);
    }
}
