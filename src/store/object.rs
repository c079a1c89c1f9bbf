//! Objects: contents under their digest. Written by temp → rename, read-only once in place, checked when they are read.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::base::{Cancel, Digest, files};

use super::Store;
use super::error::{Damage, Result, StoreError};
use super::layout::FIXED_TIME;
use super::reading::{self, Broken};
use super::session::stamp_ns;
use super::tree::{Entry, Mode, Tree};

/// When something has to survive a power cut. Nothing but time is at stake: what did not survive is noticed and made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before the call returns: for what took long to make.
    Now,
    /// With the next [`Store::sync`], many at a time.
    Batched,
}

/// What an object's file looked like when its content was found right. The change time is not part of it: it moves with every link that is made
/// or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    size_bytes: u64,
    mtime_ns: i128,
    inode: u64,
    mode: u32,
}

/// The permissions of every object.
const OBJECT_MODE: u32 = 0o444;

impl Fingerprint {
    fn of(meta: &fs::Metadata) -> Fingerprint {
        Fingerprint {
            size_bytes: meta.len(),
            mtime_ns: stamp_ns(meta.mtime(), meta.mtime_nsec()),
            inode: meta.ino(),
            mode: meta.mode() & 0o7777,
        }
    }

    /// Objects all have the same modification time and permissions. Others say that somebody may have written to the file.
    pub fn is_untouched(&self) -> bool {
        self.mode == OBJECT_MODE && self.mtime_ns == stamp_ns(FIXED_TIME.tv_sec, FIXED_TIME.tv_nsec)
    }
}

#[derive(Debug, Default)]
pub(super) struct Unsynced {
    paths: Vec<PathBuf>,
    /// Too many to sync one by one.
    overflow: Overflow,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Overflow {
    #[default]
    No,
    Yes,
}

/// Up to so many files, a sync of each is cheaper than one of the whole file system, which waits for other people's data too.
const SYNC_ONE_BY_ONE: usize = 4;

impl Store {
    pub fn object_path(&self, object: Digest) -> PathBuf {
        self.shelf("objects", object)
    }

    /// Whether an object is there with the size that it should have. Its content is read only if the file was touched.
    /// Damage is [`StoreError::Damaged`]; any other error says that it could not be looked at.
    pub fn check_present(&self, object: Digest, expected_bytes: u64) -> Result<()> {
        match self.fingerprint(object, expected_bytes)?.is_untouched() {
            true => Ok(()),
            false => self.check_content(object, expected_bytes),
        }
    }

    pub(super) fn fingerprint(&self, object: Digest, expected_bytes: u64) -> Result<Fingerprint> {
        let path = self.object_path(object);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() && meta.len() == expected_bytes => Ok(Fingerprint::of(&meta)),
            Ok(meta) => Err(StoreError::Damaged(Damage::Cut { object, found_bytes: meta.len(), expected_bytes })),
            Err(error) => Err(unread(object, &path, error)),
        }
    }

    /// Whether an object's content is right. Read once in a process, and again if the file was touched since.
    pub fn check_content(&self, object: Digest, expected_bytes: u64) -> Result<()> {
        let now = self.fingerprint(object, expected_bytes)?;
        if self.is_verified(object, &now) {
            return Ok(());
        }
        let path = self.object_path(object);
        let read = reading::open(&path).and_then(|mut file| reading::digest(&mut file));
        let (found, _) = read.map_err(|error| unread(object, &path, error))?;
        if found != object {
            return Err(StoreError::Damaged(Damage::Changed { object, found }));
        }
        // Another user's object stays as it is: then it is copied where it would be linked.
        let is_stamped = !now.is_untouched() && set_mode(&path, OBJECT_MODE).is_ok() && FIXED_TIME.set(&path).is_ok();
        let now = if is_stamped { self.fingerprint(object, expected_bytes)? } else { now };
        self.mark_verified(object, now);
        Ok(())
    }

    pub(super) fn is_verified(&self, object: Digest, now: &Fingerprint) -> bool {
        lock(&self.verified).get(&object) == Some(now)
    }

    pub(super) fn mark_verified(&self, object: Digest, now: Fingerprint) {
        lock(&self.verified).insert(object, now);
    }

    /// Moves what is damaged out of the way, so that it is made again. Kept until the next `gc`, for those who look for the cause.
    pub fn quarantine(&self, damage: &Damage) {
        let (from, name) = match damage {
            Damage::Missing { .. } => return,
            Damage::Cut { object, .. } | Damage::Changed { object, .. } => {
                lock(&self.verified).remove(object);
                (self.object_path(*object), format!("object-{object}"))
            }
            Damage::Record { key, .. } => (self.shelf("actions", *key), format!("action-{key}")),
        };
        if fs::rename(&from, self.root.join("quarantine").join(name)).is_err() {
            // Not even that: without it the next lookup misses at least.
            let _ = fs::remove_file(&from);
        }
    }

    /// Stores bytes and returns their name.
    pub fn put(&self, bytes: &[u8], durability: Durability) -> Result<Digest> {
        let object = Digest::of(bytes);
        if self.check_content(object, bytes.len() as u64).is_err() {
            let temp = self.session()?.fresh();
            write_file(&temp, bytes)?;
            self.place(&temp, object)?;
            self.finish(durability)?;
        }
        Ok(object)
    }

    /// Takes over a file whose digest was just found right.
    pub(super) fn adopt(&self, temp: &Path, object: Digest) -> Result<()> {
        self.place(temp, object)
    }

    /// Moves a file of ours among the objects; the next [`Store::sync`] makes it durable.
    pub(super) fn place(&self, temp: &Path, object: Digest) -> Result<()> {
        self.place_unsynced(temp, object)?;
        self.remember_unsynced(&self.object_path(object));
        Ok(())
    }

    /// The last step of every write of an object: read-only, with the fixed time, renamed into place.
    pub(super) fn place_unsynced(&self, temp: &Path, object: Digest) -> Result<()> {
        set_mode(temp, OBJECT_MODE)?;
        FIXED_TIME.set(temp).map_err(|error| StoreError::io("set the time of", temp, error))?;
        let target = self.object_path(object);
        self.move_in(temp, &target)?;
        if let Ok(meta) = fs::symlink_metadata(&target) {
            self.mark_verified(object, Fingerprint::of(&meta));
        }
        Ok(())
    }

    fn move_in(&self, temp: &Path, target: &Path) -> Result<()> {
        match fs::rename(temp, target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let shelf = target.parent().unwrap_or(&self.root);
                self.session()?.rights.create_folder(shelf).map_err(|error| StoreError::io("create", shelf, error))?;
                fs::rename(temp, target)
            }
            other => other,
        }
        .map_err(|error| StoreError::io("write", target, error))
    }

    pub(super) fn finish(&self, durability: Durability) -> Result<()> {
        match durability {
            Durability::Batched => Ok(()),
            Durability::Now => self.sync(),
        }
    }

    fn remember_unsynced(&self, path: &Path) {
        let mut unsynced = lock(&self.unsynced);
        if unsynced.paths.len() < SYNC_ONE_BY_ONE {
            unsynced.paths.push(path.to_path_buf());
        } else {
            unsynced.overflow = Overflow::Yes;
        }
    }

    /// Makes all that was batched durable: a few files one by one, many with one call for the whole file system.
    pub fn sync(&self) -> Result<()> {
        // What another thread took over is durable when it lets go.
        let _one = lock(&self.syncing);
        let Unsynced { paths, overflow } = std::mem::take(&mut *lock(&self.unsynced));
        if overflow == Overflow::Yes {
            let root = File::open(&self.root).map_err(|error| StoreError::io("open", &self.root, error))?;
            return rustix::fs::syncfs(&root).map_err(|error| StoreError::io("sync", &self.root, error.into()));
        }
        let mut folders = BTreeSet::new();
        for path in &paths {
            match sync_file(path) {
                // Found damaged and moved away since.
                Err(StoreError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
            // The name, and that of its shelf, which may be new.
            folders.extend(path.ancestors().skip(1).take(2).filter(|folder| folder.starts_with(&self.root)));
        }
        folders.into_iter().try_for_each(|folder| files::sync_folder(folder).map_err(|error| StoreError::io("sync", folder, error)))
    }

    /// Copies a tree to a folder of its own, hashed on the way. `folder` must not exist.
    pub fn copy_tree(&self, tree: &Tree, folder: &Path) -> Result<()> {
        self.spread(tree, folder, &mut |entry, target| {
            self.copy_object(entry, target)?;
            set_mode(target, if entry.mode == Mode::Executable { 0o755 } else { 0o644 })
        })
    }

    fn spread(&self, tree: &Tree, folder: &Path, each: &mut dyn FnMut(&Entry, &Path) -> Result<()>) -> Result<()> {
        fs::create_dir(folder).map_err(|error| StoreError::io("create", folder, error))?;
        let mut last = PathBuf::from(folder);
        for entry in tree.entries() {
            let target = folder.join(&entry.path);
            if let Some(parent) = target.parent().filter(|parent| *parent != last) {
                fs::create_dir_all(parent).map_err(|error| StoreError::io("create", parent, error))?;
                last = parent.to_path_buf();
            }
            each(entry, &target)?;
        }
        Ok(())
    }

    fn copy_object(&self, entry: &Entry, target: &Path) -> Result<()> {
        self.check_present(entry.digest, entry.size_bytes)?;
        let mut from = self.open_object(entry.digest)?;
        let mut to = File::create_new(target).map_err(|error| StoreError::io("create", target, error))?;
        self.expect(entry.digest, reading::pass(&mut from, Some(&mut to), &Cancel::default()), target)
    }

    pub(super) fn open_object(&self, object: Digest) -> Result<File> {
        let path = self.object_path(object);
        reading::open(&path).map_err(|error| unread(object, &path, error))
    }

    /// Whether what a copy of an object came to is the object.
    pub(super) fn expect(&self, object: Digest, copied: std::result::Result<(Digest, u64), Broken>, target: &Path) -> Result<()> {
        match copied {
            Ok((found, _)) if found == object => Ok(()),
            Ok((found, _)) => Err(StoreError::Damaged(Damage::Changed { object, found })),
            Err(Broken::Reading(error)) => Err(unread(object, &self.object_path(object), error)),
            Err(Broken::Writing(error)) => Err(StoreError::io("write", target, error)),
            Err(Broken::Stopped) => Err(StoreError::Stopped),
        }
    }

    /// A whole small object, such as a log. Refuses to read more than `limit_bytes`.
    pub fn read(&self, object: Digest, size_bytes: u64, limit_bytes: u64) -> Result<Vec<u8>> {
        if size_bytes > limit_bytes {
            return Err(StoreError::refused(object.hex(), format!("is larger than {limit_bytes} bytes")));
        }
        self.check_present(object, size_bytes)?;
        let path = self.object_path(object);
        let bytes = fs::read(&path).map_err(|error| unread(object, &path, error))?;
        match Digest::of(&bytes) {
            found if found == object => Ok(bytes),
            found => Err(StoreError::Damaged(Damage::Changed { object, found })),
        }
    }

    /// Writes a record or another small file of ours under a name of its own.
    pub(super) fn publish_bytes(&self, bytes: &[u8], target: &Path, durability: Durability) -> Result<()> {
        let session = self.session()?;
        let temp = session.fresh();
        write_file(&temp, bytes)?;
        fs::set_permissions(&temp, session.rights.file()).map_err(|error| StoreError::io("change the mode of", &temp, error))?;
        self.move_in(&temp, target)?;
        self.remember_unsynced(target);
        self.finish(durability)
    }
}

/// An object that is not there is damage; why it could not be read otherwise is not known.
fn unread(object: Digest, path: &Path, error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::NotFound => StoreError::Damaged(Damage::Missing { object }),
        _ => StoreError::io("read", path, error),
    }
}

pub(super) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panicking step never holds one of these, and each holder leaves its data whole.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|error| StoreError::io("change the mode of", path, error))
}

/// Leaves nothing behind when the disk is full.
fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(|error| {
        let _ = fs::remove_file(path);
        StoreError::io("write", path, error)
    })
}

fn sync_file(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(|error| StoreError::io("open", path, error))?;
    file.sync_all().map_err(|error| StoreError::io("sync", path, error))
}

#[cfg(test)]
mod tests {
    use super::super::error::damage;
    use super::super::layout::Share;
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let space = tempfile::tempdir().unwrap();
        let store = Store::open(&space.path().join("cache")).unwrap();
        (space, store)
    }

    fn scribble(store: &Store, object: Digest, bytes: &[u8]) {
        let path = store.object_path(object);
        set_mode(&path, 0o644).unwrap();
        fs::write(&path, bytes).unwrap();
    }

    #[test]
    fn damage_is_told_apart_and_a_write_repairs_it() {
        let (space, store) = store();
        let object = store.put(b"content", Durability::Batched).unwrap();
        scribble(&store, object, b"c0ntent");
        let check = |size_bytes| damage(store.check_content(object, size_bytes)).unwrap();
        let present = || damage(store.check_present(object, 7)).unwrap();
        let damage = check(7).unwrap();
        assert_eq!(damage, Damage::Changed { object, found: Digest::of(b"c0ntent") });
        assert_eq!(present().as_ref(), Some(&damage), "its time says that it was touched");
        let tree = Tree::new(vec![Entry { path: "f".into(), digest: object, size_bytes: 7, mode: Mode::Plain }]).unwrap();
        assert!(matches!(store.copy_tree(&tree, &space.path().join("copy")), Err(StoreError::Damaged(_))));
        for share in [Share::Linked, Share::Private] {
            let to = space.path().join(format!("{share:?}"));
            assert!(matches!(store.lay_out(&tree, &to, share, &Cancel::default()), Err(StoreError::Damaged(_))));
        }
        store.put(b"content", Durability::Batched).unwrap();
        assert_eq!(check(7), None);
        scribble(&store, object, b"cont");
        assert!(matches!(present(), Some(Damage::Cut { found_bytes: 4, .. })));
        store.quarantine(&damage);
        assert_eq!(check(7), Some(Damage::Missing { object }));
        store.sync().unwrap();
    }

    #[test]
    fn a_full_disk_is_told_and_leaves_nothing_behind() {
        let (_space, store) = store();
        // The next temporary file is a device that is always full.
        let next = store.session().unwrap().fresh();
        let number: u64 = next.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let temp = next.with_file_name((number + 1).to_string());
        std::os::unix::fs::symlink("/dev/full", &temp).unwrap();
        let error = store.put(b"content", Durability::Now).unwrap_err();
        let StoreError::Io { error: cause, .. } = &error else { panic!("{error}") };
        assert_eq!(cause.kind(), io::ErrorKind::StorageFull);
        assert!(fs::symlink_metadata(&temp).is_err());
        assert_eq!(store.contents().unwrap().objects, 0);
        store.put(b"content", Durability::Now).unwrap();
    }

    #[test]
    fn an_object_that_was_touched_is_read_again_and_gets_its_time_back() {
        let (_space, store) = store();
        let object = store.put(b"content", Durability::Batched).unwrap();
        let path = store.object_path(object);
        let time = || fs::metadata(&path).unwrap().mtime();
        assert_eq!(time(), FIXED_TIME.tv_sec);
        scribble(&store, object, b"content");
        assert_ne!(time(), FIXED_TIME.tv_sec);
        store.check_present(object, 7).unwrap();
        assert_eq!(time(), FIXED_TIME.tv_sec);
    }

    #[test]
    fn many_batched_writes_are_synced_at_once() {
        let (_space, store) = store();
        for i in 0..SYNC_ONE_BY_ONE + 2 {
            store.put(format!("{i}").as_bytes(), Durability::Batched).unwrap();
        }
        assert_eq!(lock(&store.unsynced).overflow, Overflow::Yes);
        store.sync().unwrap();
        assert!(lock(&store.unsynced).paths.is_empty());
    }
}
