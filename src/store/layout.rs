//! Trees as folders that a step reads. What it sees is what its key says: contents, names and the executable bit. All else is the same for every
//! tree, in every store, for every user: times, permissions, no empty folders, no links, no extended attributes.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use crate::base::Cancel;

use super::Store;
use super::error::{Result, StoreError};
use super::reading;
use super::tree::{Entry, Mode, Tree};

/// The access and modification time of all objects and of all that a step reads.
#[derive(Clone, Copy, Debug)]
pub struct FixedTime {
    pub tv_sec: i64,
    pub tv_nsec: i64,
}

/// 1 January 1980, 00:00 UTC: the earliest time that a ZIP archive can hold.
pub const FIXED_TIME: FixedTime = FixedTime { tv_sec: 315_532_800, tv_nsec: 0 };

impl FixedTime {
    fn stamps(self) -> Timestamps {
        let time = Timespec { tv_sec: self.tv_sec, tv_nsec: self.tv_nsec };
        Timestamps { last_access: time, last_modification: time }
    }

    pub fn set(self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::utimensat(CWD, path, &self.stamps(), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn set_open(self, file: &File) -> io::Result<()> {
        Ok(rustix::fs::futimens(file, &self.stamps())?)
    }
}

/// Whose files a step gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Links to the objects, where they can be made. For code of ours, which does not write to its inputs.
    Linked,
    /// Files of the step's own, which nothing else leads to. For foreign code.
    Private,
}

const FOLDER_MODE: u32 = 0o755;

impl Store {
    /// Shows a tree as a folder. `folder` must not exist. Every content is verified on the way.
    pub fn lay_out(&self, tree: &Tree, folder: &Path, share: Share, cancel: &Cancel) -> Result<()> {
        let folders = folders_of(tree);
        let created = std::iter::once(folder.to_path_buf()).chain(folders.iter().map(|inner| folder.join(inner)));
        let created: Vec<_> = created.collect();
        for path in &created {
            create_folder(path).map_err(|error| StoreError::io("create", path, error))?;
        }
        for entry in tree.entries() {
            if cancel.is_cancelled() {
                return Err(StoreError::Stopped);
            }
            let target = folder.join(&entry.path);
            match share {
                Share::Linked => self.link(entry, &target, cancel)?,
                Share::Private => self.copy_privately(entry, &target, cancel)?,
            }
        }
        // Inner folders first: each new entry has changed the time of the folder that it is in.
        for path in created.iter().rev() {
            FIXED_TIME.set(path).map_err(|error| StoreError::io("set the time of", path, error))?;
        }
        Ok(())
    }

    fn link(&self, entry: &Entry, target: &Path, cancel: &Cancel) -> Result<()> {
        self.check_content(entry.digest, entry.size_bytes)?;
        let now = self.fingerprint(entry.digest, entry.size_bytes)?;
        // An executable cannot share its permissions with the object, nor can a file whose time is not the fixed one. And the file system, or
        // the owner of the object, may not allow a link.
        if entry.mode == Mode::Plain && now.is_untouched() && fs::hard_link(self.object_path(entry.digest), target).is_ok() {
            return Ok(());
        }
        self.copy_privately(entry, target, cancel)
    }

    fn copy_privately(&self, entry: &Entry, target: &Path, cancel: &Cancel) -> Result<()> {
        let before = self.fingerprint(entry.digest, entry.size_bytes)?;
        let failed = |doing| move |error| StoreError::io(doing, target, error);
        let mut to = File::options().read(true).write(true).create_new(true).open(target).map_err(failed("create"))?;
        let mut from = self.open_object(entry.digest)?;
        let unreadable = |error| StoreError::io("read", &self.object_path(entry.digest), error);
        if !(self.is_verified(entry.digest, &before) && reading::share_blocks(&from, &to).map_err(unreadable)?) {
            let copied = reading::copy(&mut from, &mut to, cancel);
            self.expect(entry.digest, copied, target)?;
            self.mark_verified(entry.digest, before);
        }
        let mode = if entry.mode == Mode::Executable { 0o555 } else { 0o444 };
        to.set_permissions(Permissions::from_mode(mode)).map_err(failed("change the mode of"))?;
        FIXED_TIME.set_open(&to).map_err(failed("set the time of"))
    }
}

/// Every folder below the top one that holds a file, outer ones first.
fn folders_of(tree: &Tree) -> BTreeSet<&str> {
    let mut folders = BTreeSet::new();
    for entry in tree.entries() {
        let mut path = entry.path.as_str();
        while let Some((parent, _)) = path.rsplit_once('/') {
            if !folders.insert(parent) {
                break;
            }
            path = parent;
        }
    }
    folders
}

/// A folder that anybody may read, whatever the umask.
pub fn create_folder(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(FOLDER_MODE))
}

#[cfg(test)]
mod tests {
    use super::super::object::Durability;
    use super::*;
    use std::collections::BTreeMap;
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;

    fn tree(store: &Store, files: &[(&str, &str, Mode)]) -> Tree {
        let entry = |(path, content, mode): &(&str, &str, Mode)| Entry {
            path: path.to_string(),
            digest: store.put(content.as_bytes(), Durability::Batched).unwrap(),
            size_bytes: content.len() as u64,
            mode: *mode,
        };
        Tree::new(files.iter().map(entry).collect()).unwrap()
    }

    /// What a step sees of a folder without reading a file.
    fn seen(folder: &Path) -> BTreeMap<PathBuf, (u32, i64, i64, bool)> {
        let mut found = BTreeMap::new();
        let mut open = vec![folder.to_path_buf()];
        while let Some(path) = open.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                open.extend(crate::base::files::names(&path).unwrap().into_iter().map(|name| path.join(name)));
            }
            found.insert(path, (meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec(), meta.is_file() && meta.nlink() > 1));
        }
        found
    }

    #[test]
    fn times_and_permissions_are_fixed_and_a_private_tree_shares_nothing() {
        let space = tempfile::tempdir().unwrap();
        let store = Store::open(&space.path().join("cache")).unwrap();
        let files =
            [("a/b/run", "#!", Mode::Executable), ("a/b/same", "x", Mode::Plain), ("a/same", "x", Mode::Plain), ("c", "", Mode::Plain)];
        let tree = tree(&store, &files);
        for share in [Share::Linked, Share::Private] {
            let folder = space.path().join(format!("{share:?}"));
            store.lay_out(&tree, &folder, share, &Cancel::default()).unwrap();
            let found = seen(&folder);
            assert_eq!(found.len(), 7);
            for (path, (mode, seconds, nanoseconds, is_shared)) in found {
                let expected = match path.strip_prefix(&folder).unwrap().to_str().unwrap() {
                    "" | "a" | "a/b" => 0o755,
                    "a/b/run" => 0o555,
                    _ => 0o444,
                };
                assert_eq!((mode, seconds, nanoseconds), (expected, FIXED_TIME.tv_sec, 0), "{}", path.display());
                assert!(share == Share::Linked || !is_shared, "{}", path.display());
            }
            for (path, content, _) in files {
                assert_eq!(fs::read_to_string(folder.join(path)).unwrap(), content);
            }
        }
        // Root may write to anything: then it writes to its own copy.
        let copy = space.path().join("Private/a/same");
        fs::set_permissions(&copy, Permissions::from_mode(0o644)).unwrap();
        fs::write(&copy, "y").unwrap();
        store.check_content(crate::base::Digest::of(b"x"), 1).unwrap();
    }
}
