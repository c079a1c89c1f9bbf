//! Objects: contents under their digest. Written by temp → rename, read-only once in place, checked when they are read.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::base::{Digest, Hasher, files};

use super::Store;
use super::error::{Damage, Result, StoreError};
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

/// What an object's file looked like when its content was found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    size_bytes: u64,
    mtime_ns: i128,
    inode: u64,
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
const SYNC_ONE_BY_ONE: usize = 64;

impl Store {
    pub fn object_path(&self, object: Digest) -> PathBuf {
        self.shelf("objects", object)
    }

    /// Whether an object is there with the size that it should have. Cheap: its content is not read.
    pub fn check_present(&self, object: Digest, expected_bytes: u64) -> std::result::Result<(), Damage> {
        self.fingerprint(object, expected_bytes).map(|_| ())
    }

    fn fingerprint(&self, object: Digest, expected_bytes: u64) -> std::result::Result<Fingerprint, Damage> {
        match fs::symlink_metadata(self.object_path(object)) {
            Ok(meta) if meta.is_file() && meta.len() == expected_bytes => {
                Ok(Fingerprint { size_bytes: meta.len(), mtime_ns: stamp_ns(meta.mtime(), meta.mtime_nsec()), inode: meta.ino() })
            }
            Ok(meta) => Err(Damage::Cut { object, found_bytes: meta.len(), expected_bytes }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Damage::Missing { object }),
            Err(error) => Err(Damage::Unreadable { object, error: error.to_string() }),
        }
    }

    /// Whether an object's content is right. Read once in a process, and again if the file was touched since.
    pub fn check_content(&self, object: Digest, expected_bytes: u64) -> std::result::Result<(), Damage> {
        let now = self.fingerprint(object, expected_bytes)?;
        if lock(&self.verified).get(&object) == Some(&now) {
            return Ok(());
        }
        let (found, _) =
            Digest::of_file(&self.object_path(object)).map_err(|error| Damage::Unreadable { object, error: error.to_string() })?;
        if found != object {
            return Err(Damage::Changed { object, found });
        }
        lock(&self.verified).insert(object, now);
        Ok(())
    }

    /// Moves what is damaged out of the way, so that it is made again. Kept until the next `gc`, for those who look for the cause.
    pub fn quarantine(&self, damage: &Damage) {
        let (from, name) = match damage {
            Damage::Missing { .. } => return,
            Damage::Cut { object, .. } | Damage::Changed { object, .. } | Damage::Unreadable { object, .. } => {
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
            let temp = self.session.fresh();
            write_file(&temp, bytes)?;
            self.place(&temp, object, durability)?;
        }
        Ok(object)
    }

    /// Moves a finished folder's files into the store and returns their list. Links and special files are refused.
    pub fn ingest(&self, folder: &Path, durability: Durability) -> Result<Tree> {
        let mut entries = Vec::new();
        for relative in walk(folder)? {
            let path = folder.join(&relative);
            let meta = fs::symlink_metadata(&path).map_err(|error| StoreError::io("read", &path, error))?;
            let (digest, size_bytes) = Digest::of_file(&path).map_err(|error| StoreError::io("read", &path, error))?;
            entries.push(Entry { path: utf8(&relative)?, digest, size_bytes, mode: mode_of(&meta) });
        }
        let tree = Tree::new(entries)?;
        for Entry { path, digest, size_bytes, .. } in tree.entries() {
            if self.check_content(*digest, *size_bytes).is_err() {
                self.place(&self.unshared(&folder.join(path))?, *digest, durability)?;
            }
        }
        Ok(tree)
    }

    /// A file that no other name leads to: otherwise its writer could still change it behind our back.
    fn unshared(&self, path: &Path) -> Result<PathBuf> {
        let meta = fs::symlink_metadata(path).map_err(|error| StoreError::io("read", path, error))?;
        if meta.nlink() == 1 {
            return Ok(path.to_path_buf());
        }
        let copy = self.session.fresh();
        fs::copy(path, &copy).map_err(|error| StoreError::io("copy", path, error))?;
        Ok(copy)
    }

    /// Takes over a file whose digest was just found right.
    pub(super) fn adopt(&self, temp: &Path, object: Digest) -> Result<()> {
        self.place(temp, object, Durability::Batched)
    }

    /// The last step of every write: read-only, synced if need be, renamed into place.
    fn place(&self, temp: &Path, object: Digest, durability: Durability) -> Result<()> {
        let target = self.object_path(object);
        set_mode(temp, 0o444)?;
        self.publish(temp, &target, durability)?;
        if let Ok(meta) = fs::symlink_metadata(&target) {
            let mtime_ns = stamp_ns(meta.mtime(), meta.mtime_nsec());
            let fingerprint = Fingerprint { size_bytes: meta.len(), mtime_ns, inode: meta.ino() };
            lock(&self.verified).insert(object, fingerprint);
        }
        Ok(())
    }

    pub(super) fn publish(&self, temp: &Path, target: &Path, durability: Durability) -> Result<()> {
        if durability == Durability::Now {
            sync_file(temp)?;
        }
        match fs::rename(temp, target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let shelf = target.parent().unwrap_or(&self.root);
                fs::create_dir_all(shelf).map_err(|error| StoreError::io("create", shelf, error))?;
                fs::rename(temp, target).map_err(|error| StoreError::io("write", target, error))?;
            }
            other => other.map_err(|error| StoreError::io("write", target, error))?,
        }
        match durability {
            Durability::Batched => self.remember_unsynced(target),
            Durability::Now => sync_names(target).map_err(|error| StoreError::io("sync", target, error))?,
        }
        Ok(())
    }

    fn remember_unsynced(&self, path: &Path) {
        let mut unsynced = lock(&self.unsynced);
        if unsynced.paths.len() < SYNC_ONE_BY_ONE {
            unsynced.paths.push(path.to_path_buf());
        } else {
            unsynced.overflow = Overflow::Yes;
        }
    }

    /// Makes all that was batched durable.
    pub fn sync(&self) -> Result<()> {
        let Unsynced { paths, overflow } = std::mem::take(&mut *lock(&self.unsynced));
        if overflow == Overflow::Yes {
            let root = File::open(&self.root).map_err(|error| StoreError::io("open", &self.root, error))?;
            return rustix::fs::syncfs(&root).map_err(|error| StoreError::io("sync", &self.root, error.into()));
        }
        for path in paths {
            match sync_file(&path) {
                // Found damaged and moved away since.
                Err(StoreError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Shows a tree as a folder of verified, read-only files that a step may read. `folder` must not exist.
    pub fn link_tree(&self, tree: &Tree, folder: &Path) -> Result<()> {
        self.lay_out(tree, folder, &mut |entry, target| {
            self.check_content(entry.digest, entry.size_bytes).map_err(StoreError::Damaged)?;
            let object = self.object_path(entry.digest);
            // An executable cannot share its mode with the object; and a link can fail where the file system has none left.
            if entry.mode == Mode::Plain && fs::hard_link(&object, target).is_ok() {
                return Ok(());
            }
            fs::copy(&object, target).map_err(|error| StoreError::io("copy", &object, error))?;
            set_mode(target, if entry.mode == Mode::Executable { 0o555 } else { 0o444 })
        })
    }

    /// Copies a tree to a folder of its own, hashed on the way. `folder` must not exist.
    pub fn copy_tree(&self, tree: &Tree, folder: &Path) -> Result<()> {
        self.lay_out(tree, folder, &mut |entry, target| {
            self.copy_object(entry, target)?;
            set_mode(target, if entry.mode == Mode::Executable { 0o755 } else { 0o644 })
        })
    }

    fn lay_out(&self, tree: &Tree, folder: &Path, each: &mut dyn FnMut(&Entry, &Path) -> Result<()>) -> Result<()> {
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
        let object = entry.digest;
        self.check_present(object, entry.size_bytes).map_err(StoreError::Damaged)?;
        let unreadable = |error: io::Error| StoreError::Damaged(Damage::Unreadable { object, error: error.to_string() });
        let mut from = File::open(self.object_path(object)).map_err(unreadable)?;
        let mut to = File::create_new(target).map_err(|error| StoreError::io("create", target, error))?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0u8; 1 << 16];
        loop {
            let n = from.read(&mut buffer).map_err(unreadable)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            to.write_all(&buffer[..n]).map_err(|error| StoreError::io("write", target, error))?;
        }
        match hasher.finish() {
            found if found == object => Ok(()),
            found => Err(StoreError::Damaged(Damage::Changed { object, found })),
        }
    }

    /// A whole small object, such as a log. Refuses to read more than `limit_bytes`.
    pub fn read(&self, object: Digest, size_bytes: u64, limit_bytes: u64) -> Result<Vec<u8>> {
        if size_bytes > limit_bytes {
            return Err(StoreError::refused(object.hex(), format!("is larger than {limit_bytes} bytes")));
        }
        self.check_present(object, size_bytes).map_err(StoreError::Damaged)?;
        let path = self.object_path(object);
        let bytes = fs::read(&path).map_err(|error| StoreError::io("read", &path, error))?;
        match Digest::of(&bytes) {
            found if found == object => Ok(bytes),
            found => Err(StoreError::Damaged(Damage::Changed { object, found })),
        }
    }

    /// Writes a record or another small file of ours under a name of its own.
    pub(super) fn publish_bytes(&self, bytes: &[u8], target: &Path, durability: Durability) -> Result<()> {
        let temp = self.session.fresh();
        write_file(&temp, bytes)?;
        self.publish(&temp, target, durability)
    }
}

/// The files of a folder, relative to it; anything but files and folders is refused.
pub(super) fn walk(folder: &Path) -> Result<Vec<PathBuf>> {
    files::walk(folder).map_err(|error| match error.kind() {
        io::ErrorKind::Other if error.raw_os_error().is_none() => StoreError::refused(folder, format!("is refused: {error}")),
        _ => StoreError::io("read", folder, error),
    })
}

pub(super) fn utf8(path: &Path) -> Result<String> {
    match path.to_str() {
        Some(text) => Ok(text.to_string()),
        None => Err(StoreError::refused(path, "has a name that is not UTF-8")),
    }
}

pub(super) fn mode_of(meta: &fs::Metadata) -> Mode {
    if meta.permissions().mode() & 0o111 == 0 { Mode::Plain } else { Mode::Executable }
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

/// Makes a new name durable, and that of its shelf, which may be new, too.
fn sync_names(path: &Path) -> io::Result<()> {
    path.ancestors().skip(1).take(2).try_for_each(files::sync_folder)
}

fn sync_file(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(|error| StoreError::io("open", path, error))?;
    file.sync_all().map_err(|error| StoreError::io("sync", path, error))
}

#[cfg(test)]
mod tests {
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
    fn a_folder_goes_in_and_comes_out_again() {
        let (space, store) = store();
        let out = space.path().join("out");
        fs::create_dir_all(out.join("a/b")).unwrap();
        fs::create_dir_all(out.join("empty")).unwrap();
        fs::write(out.join("a/b/run"), "#!").unwrap();
        set_mode(&out.join("a/b/run"), 0o755).unwrap();
        fs::write(out.join("x"), "same").unwrap();
        fs::write(out.join("y"), "same").unwrap();
        let tree = store.ingest(&out, Durability::Now).unwrap();
        let listed: Vec<_> = tree.entries().iter().map(|e| (e.path.as_str(), e.mode)).collect();
        assert_eq!(listed, [("a/b/run", Mode::Executable), ("x", Mode::Plain), ("y", Mode::Plain)]);
        let mode = fs::metadata(store.object_path(tree.entries()[1].digest)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o444);
        for (folder, run) in [("linked", 0o555), ("copied", 0o755)] {
            let to = space.path().join(folder);
            if folder == "linked" { store.link_tree(&tree, &to) } else { store.copy_tree(&tree, &to) }.unwrap();
            assert_eq!(fs::read(to.join("y")).unwrap(), b"same");
            assert_eq!(fs::metadata(to.join("a/b/run")).unwrap().permissions().mode() & 0o7777, run);
        }
    }

    #[test]
    fn damage_is_told_apart_and_a_write_repairs_it() {
        let (space, store) = store();
        let object = store.put(b"content", Durability::Batched).unwrap();
        scribble(&store, object, b"c0ntent");
        let damage = store.check_content(object, 7).unwrap_err();
        assert_eq!(damage, Damage::Changed { object, found: Digest::of(b"c0ntent") });
        assert_eq!(store.check_present(object, 7), Ok(()));
        let tree = Tree::new(vec![Entry { path: "f".into(), digest: object, size_bytes: 7, mode: Mode::Plain }]).unwrap();
        assert!(matches!(store.copy_tree(&tree, &space.path().join("copy")), Err(StoreError::Damaged(_))));
        assert!(matches!(store.link_tree(&tree, &space.path().join("link")), Err(StoreError::Damaged(_))));
        store.put(b"content", Durability::Batched).unwrap();
        assert_eq!(store.check_content(object, 7), Ok(()));
        scribble(&store, object, b"cont");
        assert!(matches!(store.check_present(object, 7), Err(Damage::Cut { found_bytes: 4, .. })));
        store.quarantine(&damage);
        assert_eq!(store.check_content(object, 7), Err(Damage::Missing { object }));
        store.sync().unwrap();
    }

    #[test]
    fn a_full_disk_is_told_and_leaves_nothing_behind() {
        let (_space, store) = store();
        // The next temporary file is a device that is always full.
        let next = store.session.fresh();
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
    fn a_second_name_of_an_output_is_no_way_into_the_store() {
        let (space, store) = store();
        let out = space.path().join("out");
        fs::create_dir(&out).unwrap();
        fs::write(out.join("f"), "before").unwrap();
        fs::hard_link(out.join("f"), space.path().join("backdoor")).unwrap();
        let tree = store.ingest(&out, Durability::Batched).unwrap();
        fs::write(space.path().join("backdoor"), "after!").unwrap();
        assert_eq!(store.check_content(tree.entries()[0].digest, 6), Ok(()));
        assert_eq!(fs::read(store.object_path(tree.entries()[0].digest)).unwrap(), b"before");
    }

    #[test]
    fn links_and_special_files_are_refused() {
        let (space, store) = store();
        for name in ["link", "pipe", "dangling"] {
            let out = space.path().join(name);
            fs::create_dir(&out).unwrap();
            let path = out.join(name);
            match name {
                "pipe" => rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap(),
                "link" => std::os::unix::fs::symlink("/etc/hosts", &path).unwrap(),
                _ => std::os::unix::fs::symlink("/nowhere", &path).unwrap(),
            }
            assert!(matches!(store.ingest(&out, Durability::Batched), Err(StoreError::Refused { .. })), "{name}");
        }
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
