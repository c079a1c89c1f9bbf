//! Removes a folder with everything in it, whatever a hostile program left there: folders without permissions, trees deeper than any path or
//! any number of open files, links, mounts. It follows no link and enters no other file system.
//!
//! A tree is not walked down. A subfolder that is not empty is moved up into the top folder and emptied there, so that every folder is at most
//! one level below the top: a handful of open files and short names are enough at any depth.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

/// Removes a file, a link or a folder with all that it holds. `Ok` if nothing is there. What can be removed is removed even if something else
/// cannot: then the error is the first one that was met.
pub fn remove_all(path: &Path) -> io::Result<()> {
    let Some(name) = path.file_name() else { return Err(Errno::INVAL.into()) };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let parent = match rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    match unlink(&parent, name)? {
        Unlinked::Gone => Ok(()),
        Unlinked::Folder => Ok(remove_folder(&parent, name)?),
    }
}

/// Whether a name could be removed as a file.
enum Unlinked {
    Gone,
    Folder,
}

fn unlink<N: rustix::path::Arg + Copy>(folder: &impl AsFd, name: N) -> Result<Unlinked, Errno> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(Unlinked::Gone),
        Err(Errno::ISDIR) => Ok(Unlinked::Folder),
        // Some file systems say so of folders; elsewhere it is a refusal.
        Err(Errno::PERM) if is_folder(folder, name) => Ok(Unlinked::Folder),
        Err(error) => Err(error),
    }
}

fn is_folder<N: rustix::path::Arg>(folder: &impl AsFd, name: N) -> bool {
    let found = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
    found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode).is_dir())
}

fn remove_folder(parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    let left = match enter(parent, name) {
        Ok(top) => Remover { top, moved: 0, first: None }.run(),
        Err(Errno::NOENT) => return Ok(()),
        // It may be empty all the same.
        Err(error) => Some(error),
    };
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(left.unwrap_or(error)),
    }
}

/// Opens a folder to read and change it. Its permissions are made to allow that; a link or a mount in its place is refused.
fn enter<N: rustix::path::Arg + Copy>(parent: &impl AsFd, name: N) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let place = match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
        // Kernels before 5.6, and filters that know no newer call.
        Err(Errno::NOSYS | Errno::PERM) => enter_by_device(parent, name, flags)?,
        other => other?,
    };
    let mode = rustix::fs::fstat(&place)?.st_mode;
    if mode & 0o700 != 0o700 {
        // By the handle, so that no link can be put in between. If it cannot be changed, the next call says so.
        let _ = rustix::fs::chmod(format!("/proc/self/fd/{}", place.as_raw_fd()), Mode::from_raw_mode(mode | 0o700));
    }
    rustix::fs::openat(&place, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Without help of the kernel only mounts of other file systems are noticed.
fn enter_by_device<N: rustix::path::Arg>(parent: &impl AsFd, name: N, flags: OFlags) -> Result<OwnedFd, Errno> {
    let place = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    match rustix::fs::fstat(&place)?.st_dev == rustix::fs::fstat(parent)?.st_dev {
        true => Ok(place),
        false => Err(Errno::XDEV),
    }
}

struct Remover {
    top: OwnedFd,
    /// For the names of folders that were moved up.
    moved: u64,
    first: Option<Errno>,
}

/// What emptying a folder once has changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    None,
    Some,
}

impl Remover {
    /// Empties the top folder; returns the first error of the last pass.
    fn run(mut self) -> Option<Errno> {
        loop {
            self.first = None;
            let progress = self.pass_over_top();
            if progress == Progress::None || self.first.is_none() && is_empty(&self.top) {
                return self.first;
            }
        }
    }

    fn pass_over_top(&mut self) -> Progress {
        let mut progress = Progress::None;
        for name in self.listed(None) {
            let Some(name) = self.keep(name) else { continue };
            let name = name.as_c_str();
            let removed = match unlink(&self.top, name) {
                Ok(Unlinked::Gone) => Ok(Progress::Some),
                Ok(Unlinked::Folder) => self.remove_child(name),
                Err(error) => Err(error),
            };
            if self.keep(removed) == Some(Progress::Some) {
                progress = Progress::Some;
            }
        }
        progress
    }

    /// Removes a folder of the top folder, or at least something of what it holds.
    fn remove_child(&mut self, name: &CStr) -> Result<Progress, Errno> {
        if let Ok(()) | Err(Errno::NOENT) = rustix::fs::unlinkat(&self.top, name, AtFlags::REMOVEDIR) {
            return Ok(Progress::Some);
        }
        let child = enter(&self.top, name)?;
        let mut progress = Progress::None;
        for inner in self.listed(Some(&child)) {
            let Some(inner) = self.keep(inner) else { continue };
            let removed = match unlink(&child, inner.as_c_str()) {
                Ok(Unlinked::Gone) => Ok(()),
                Ok(Unlinked::Folder) => self.move_up(&child, inner.as_c_str()),
                Err(error) => Err(error),
            };
            if self.keep(removed).is_some() {
                progress = Progress::Some;
            }
        }
        match rustix::fs::unlinkat(&self.top, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(Progress::Some),
            // The next pass goes on here.
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(progress),
            Err(error) => Err(error),
        }
    }

    fn move_up(&mut self, folder: &OwnedFd, name: &CStr) -> Result<(), Errno> {
        if let Ok(()) | Err(Errno::NOENT) = rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR) {
            return Ok(());
        }
        loop {
            self.moved += 1;
            let target = format!(".moved-{}", self.moved);
            match rustix::fs::renameat_with(folder, name, &self.top, &target, RenameFlags::NOREPLACE) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::EXIST) => {}
                // To give it another parent, we must be allowed to write to it.
                Err(Errno::ACCESS) => {
                    drop(enter(folder, name)?);
                    return rustix::fs::renameat_with(folder, name, &self.top, &target, RenameFlags::NOREPLACE);
                }
                // A file system that knows no such flag. What is overwritten is to go, too.
                Err(Errno::INVAL) => return rustix::fs::renameat(folder, name, &self.top, &target),
                Err(error) => return Err(error),
            }
        }
    }

    /// The names in a folder, or in the top folder, while they are being removed.
    fn listed(&self, folder: Option<&OwnedFd>) -> Box<dyn Iterator<Item = Result<std::ffi::CString, Errno>>> {
        let dir = match Dir::read_from(folder.unwrap_or(&self.top)) {
            Ok(dir) => dir,
            Err(error) => return Box::new(std::iter::once(Err(error))),
        };
        let name = |entry: Result<rustix::fs::DirEntry, Errno>| match entry {
            Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => None,
            Ok(entry) => Some(Ok(entry.file_name().to_owned())),
            Err(error) => Some(Err(error)),
        };
        Box::new(dir.filter_map(name))
    }

    fn keep<T>(&mut self, result: Result<T, Errno>) -> Option<T> {
        result.map_err(|error| self.first.get_or_insert(error)).ok()
    }
}

fn is_empty(folder: &OwnedFd) -> bool {
    let Ok(mut dir) = Dir::read_from(folder) else { return false };
    dir.all(|entry| entry.is_ok_and(|entry| matches!(entry.file_name().to_bytes(), b"." | b"..")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn files_links_and_nothing_at_all() {
        let space = tempfile::tempdir().unwrap();
        let path = |name: &str| space.path().join(name);
        fs::create_dir(path("kept")).unwrap();
        fs::write(path("kept/file"), "").unwrap();
        fs::write(path("file"), "").unwrap();
        std::os::unix::fs::symlink("kept", path("link")).unwrap();
        for name in ["file", "link", "nothing", "nothing/below"] {
            remove_all(&path(name)).unwrap();
            assert!(fs::symlink_metadata(path(name)).is_err(), "{name}");
        }
        assert!(path("kept/file").exists());
    }

    #[test]
    fn folders_without_permissions_and_links_in_them() {
        let space = tempfile::tempdir().unwrap();
        let outside = space.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "").unwrap();
        mode(&outside, 0o555);
        let tree = space.path().join("tree");
        let mut folders = Vec::new();
        for bits in [0o000, 0o300, 0o500, 0o555, 0o755] {
            for inner in ["a", "a/b", "c"] {
                let folder = tree.join(format!("{bits:o}")).join(inner);
                fs::create_dir_all(&folder).unwrap();
                fs::write(folder.join("file"), "").unwrap();
                std::os::unix::fs::symlink(&outside, folder.join("link")).unwrap();
                folders.push((folder, bits));
            }
            folders.push((tree.join(format!("{bits:o}")), bits));
        }
        folders.sort();
        folders.iter().rev().for_each(|(folder, bits)| mode(folder, *bits));
        remove_all(&tree).unwrap();
        assert!(!tree.exists() && outside.join("file").exists());
        assert_eq!(fs::metadata(&outside).unwrap().permissions().mode() & 0o777, 0o555);
    }

    #[test]
    fn a_tree_deeper_than_any_path() {
        let space = tempfile::tempdir().unwrap();
        let tree = space.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut folder = rustix::fs::open(&tree, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for depth in 0..1200 {
            rustix::fs::mkdirat(&folder, "folder", Mode::from_raw_mode(0o700)).unwrap();
            if depth % 100 == 0 {
                rustix::fs::mkdirat(&folder, ".moved-1", Mode::from_raw_mode(0)).unwrap();
            }
            let next = rustix::fs::openat(&folder, "folder", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
            if depth % 7 == 0 {
                rustix::fs::chmodat(&folder, "folder", Mode::from_raw_mode(0o700), AtFlags::empty()).unwrap();
            }
            folder = next;
        }
        drop(folder);
        remove_all(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn many_files_in_one_folder() {
        let space = tempfile::tempdir().unwrap();
        let tree = space.path().join("tree");
        fs::create_dir(&tree).unwrap();
        for index in 0..3000 {
            fs::write(tree.join(index.to_string()), "").unwrap();
        }
        remove_all(&tree).unwrap();
        assert!(!tree.exists());
    }
}
