//! How files come into the store: a step's outputs are moved in, sources are copied. From then on nobody else's writes can reach them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::base::{Cancel, files};

use super::Store;
use super::error::{Damage, Result, StoreError, damage};
use super::object::lock;
use super::reading::{self, Broken};
use super::tree::{Entry, Mode, Tree};

impl Store {
    /// Moves a finished folder's files into the store and returns their list. Links and special files are refused.
    pub fn ingest(&self, folder: &Path, cancel: &Cancel) -> Result<Tree> {
        let mut entries = Vec::new();
        for relative in walk(folder)? {
            entries.push(read_entry(folder, &relative, cancel)?);
        }
        let tree = Tree::new(entries)?;
        for Entry { path, digest, size_bytes, .. } in tree.entries() {
            if self.check_content(*digest, *size_bytes).is_err() {
                self.place(&self.unshared(&folder.join(path))?, *digest)?;
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
        let copy = self.session()?.fresh();
        fs::copy(path, &copy).map_err(|error| StoreError::io("copy", path, error))?;
        Ok(copy)
    }

    /// Copies a source's file into the store, unless its content is there: once, however many steps read it. It is [`StoreError::Changed`] if it no
    /// longer holds what `entry` says. The copy is not synced: what a power cut takes can be copied again.
    pub fn take_in(&self, entry: &Entry, from: &Path, cancel: &Cancel) -> Result<()> {
        let _one = lock(&self.intake);
        match damage(self.check_content(entry.digest, entry.size_bytes))? {
            None => return Ok(()),
            Some(Damage::Missing { .. }) => {}
            Some(damage) => self.quarantine(&damage),
        }
        let temp = self.session()?.fresh();
        let taken = copy_source(entry, from, &temp, cancel).and_then(|()| self.place_unsynced(&temp, entry.digest));
        if taken.is_err() {
            let _ = fs::remove_file(&temp);
        }
        taken
    }
}

fn copy_source(entry: &Entry, from: &Path, temp: &Path, cancel: &Cancel) -> Result<()> {
    let changed = || StoreError::Changed { path: from.to_path_buf() };
    let mut source = reading::open(from).map_err(|error| match error.kind() {
        // It is gone, or a link or something else is in its place.
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::Other => changed(),
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => changed(),
        _ => StoreError::io("read", from, error),
    })?;
    let mut copy =
        File::options().read(true).write(true).create_new(true).open(temp).map_err(|error| StoreError::io("create", temp, error))?;
    match reading::copy(&mut source, &mut copy, cancel) {
        Ok((digest, size_bytes)) if (digest, size_bytes) == (entry.digest, entry.size_bytes) => Ok(()),
        Ok(_) => Err(changed()),
        Err(Broken::Reading(error)) => Err(StoreError::io("read", from, error)),
        Err(Broken::Writing(error)) => Err(StoreError::io("write", temp, error)),
        Err(Broken::Stopped) => Err(StoreError::Stopped),
    }
}

fn read_entry(folder: &Path, relative: &Path, cancel: &Cancel) -> Result<Entry> {
    let path = folder.join(relative);
    let unreadable = |error| StoreError::io("read", &path, error);
    let mut file = reading::open(&path).map_err(unreadable)?;
    let mode = Mode::of(file.metadata().map_err(unreadable)?.mode());
    let (digest, size_bytes) = match reading::pass(&mut file, None, cancel) {
        Ok(found) => found,
        Err(Broken::Stopped) => return Err(StoreError::Stopped),
        Err(Broken::Reading(error) | Broken::Writing(error)) => return Err(unreadable(error)),
    };
    Ok(Entry { path: utf8(relative)?, digest, size_bytes, mode })
}

/// The files of a folder, relative to it; anything but files and folders is refused.
fn walk(folder: &Path) -> Result<Vec<PathBuf>> {
    files::walk(folder).map_err(|error| match error.kind() {
        io::ErrorKind::Other if error.raw_os_error().is_none() => StoreError::refused(folder, format!("is refused: {error}")),
        io::ErrorKind::InvalidFilename => StoreError::refused(folder, "has folders that are nested too deeply"),
        _ => StoreError::io("read", folder, error),
    })
}

fn utf8(path: &Path) -> Result<String> {
    match path.to_str() {
        Some(text) => Ok(text.to_string()),
        None => Err(StoreError::refused(path, "has a name that is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::Share;
    use super::*;
    use crate::base::Digest;
    use std::os::unix::fs::PermissionsExt;

    fn store() -> (tempfile::TempDir, Store) {
        let space = tempfile::tempdir().unwrap();
        let store = Store::open(&space.path().join("cache")).unwrap();
        (space, store)
    }

    #[test]
    fn a_folder_goes_in_and_comes_out_again() {
        let (space, store) = store();
        let out = space.path().join("out");
        fs::create_dir_all(out.join("a/b")).unwrap();
        fs::create_dir_all(out.join("empty")).unwrap();
        fs::write(out.join("a/b/run"), "#!").unwrap();
        fs::set_permissions(out.join("a/b/run"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(out.join("x"), "same").unwrap();
        fs::write(out.join("y"), "same").unwrap();
        let tree = store.ingest(&out, &Cancel::default()).unwrap();
        let listed: Vec<_> = tree.entries().iter().map(|e| (e.path.as_str(), e.mode)).collect();
        assert_eq!(listed, [("a/b/run", Mode::Executable), ("x", Mode::Plain), ("y", Mode::Plain)]);
        let mode = fs::metadata(store.object_path(tree.entries()[1].digest)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o444);
        for (folder, run) in [("linked", 0o555), ("copied", 0o755)] {
            let to = space.path().join(folder);
            match folder {
                "linked" => store.lay_out(&tree, &to, Share::Linked, &Cancel::default()).unwrap(),
                _ => store.copy_tree(&tree, &to).unwrap(),
            }
            assert_eq!(fs::read(to.join("y")).unwrap(), b"same");
            assert_eq!(fs::metadata(to.join("a/b/run")).unwrap().permissions().mode() & 0o7777, run);
        }
    }

    #[test]
    fn a_second_name_of_an_output_is_no_way_into_the_store() {
        let (space, store) = store();
        let out = space.path().join("out");
        fs::create_dir(&out).unwrap();
        fs::write(out.join("f"), "before").unwrap();
        fs::hard_link(out.join("f"), space.path().join("backdoor")).unwrap();
        let tree = store.ingest(&out, &Cancel::default()).unwrap();
        fs::write(space.path().join("backdoor"), "after!").unwrap();
        store.check_content(tree.entries()[0].digest, 6).unwrap();
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
            assert!(matches!(store.ingest(&out, &Cancel::default()), Err(StoreError::Refused { .. })), "{name}");
        }
    }

    #[test]
    fn a_source_is_taken_in_once_and_only_as_what_it_was() {
        let (space, store) = store();
        let path = space.path().join("data");
        let entry = |text: &str| Entry {
            path: "data".into(),
            digest: Digest::of(text.as_bytes()),
            size_bytes: text.len() as u64,
            mode: Mode::Plain,
        };
        fs::write(&path, "BBBB").unwrap();
        let take = |text| store.take_in(&entry(text), &path, &Cancel::default());
        for text in ["AAAA", "BBB", "BBBBB"] {
            assert!(matches!(take(text), Err(StoreError::Changed { .. })), "{text}");
        }
        assert_eq!(store.contents().unwrap().objects, 0);
        take("BBBB").unwrap();
        // From now on nobody needs the file.
        fs::remove_file(&path).unwrap();
        take("BBBB").unwrap();
        assert!(matches!(take("AAAA"), Err(StoreError::Changed { .. })));
        // A link to the right content is not what was looked at, and nobody waits for a FIFO.
        let other = space.path().join("other");
        fs::write(&other, "AAAA").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(matches!(take("AAAA"), Err(StoreError::Changed { .. })));
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert!(matches!(take("AAAA"), Err(StoreError::Changed { .. })));
        assert_eq!(files::names(&space.path().join("cache/tmp")).unwrap().len(), 2, "only this session");
    }

    #[test]
    fn a_damaged_copy_of_a_source_is_copied_again() {
        let (space, store) = store();
        let path = space.path().join("data");
        fs::write(&path, "content").unwrap();
        let entry = Entry { path: "data".into(), digest: Digest::of(b"content"), size_bytes: 7, mode: Mode::Plain };
        store.take_in(&entry, &path, &Cancel::default()).unwrap();
        let object = store.object_path(entry.digest);
        fs::set_permissions(&object, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&object, "c0ntent").unwrap();
        store.take_in(&entry, &path, &Cancel::default()).unwrap();
        assert_eq!(fs::read(&object).unwrap(), b"content");
        assert_eq!(store.contents().unwrap().quarantined, 1);
    }

    #[test]
    fn a_copy_ends_when_the_user_asks() {
        let (space, store) = store();
        let path = space.path().join("data");
        fs::write(&path, "content").unwrap();
        let entry = Entry { path: "data".into(), digest: Digest::of(b"content"), size_bytes: 7, mode: Mode::Plain };
        let cancel = Cancel::default();
        cancel.cancel();
        assert!(matches!(store.take_in(&entry, &path, &cancel), Err(StoreError::Stopped)));
        assert_eq!(store.contents().unwrap().objects, 0);
    }
}
