//! Files and folders under construction, beside the place where they will appear. Each has a name of its own and is locked while its process lives,
//! so that what a killed process left is told from what another one is writing.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempDir};

use super::files;

/// Every such name begins with it; [`RANDOM`] letters and digits follow.
const PREFIX: &str = ".slmops-new-";
const RANDOM: usize = 12;

/// In a folder that must not be swept yet: its maker was killed between two steps that belong together.
pub const UNFINISHED: &str = "unfinished";

/// Up to so many files, a sync of each costs less than one of the whole file system, which waits for other programs' data too.
const SYNC_ONE_BY_ONE: usize = 256;

/// An empty, private folder in `parent`. It goes with what is left in it when the value is dropped.
#[derive(Debug)]
pub struct StagedFolder {
    folder: TempDir,
    _lock: Option<File>,
}

impl StagedFolder {
    /// Removes what killed processes left in `parent`, then makes the folder.
    pub fn new_in(parent: &Path) -> io::Result<StagedFolder> {
        sweep(parent);
        loop {
            let folder = builder().permissions(Permissions::from_mode(0o700)).tempdir_in(parent)?;
            let lock = File::open(folder.path())?;
            if let Some(lock) = hold(lock, folder.path())? {
                return Ok(StagedFolder { folder, _lock: lock });
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves the folder where it is, for good: what is in it must not be deleted.
    pub fn keep(self) -> PathBuf {
        self.folder.keep()
    }
}

/// A file in `folder`, as readable as the umask lets it be. It goes when the value is dropped, unless it was renamed.
pub fn file_in(folder: &Path) -> io::Result<NamedTempFile> {
    sweep(folder);
    loop {
        let file = builder().permissions(Permissions::from_mode(0o666)).tempfile_in(folder)?;
        if hold(file.as_file().try_clone()?, file.path())?.is_some() {
            // The lock belongs to the open file, which both descriptors share.
            return Ok(file);
        }
    }
}

fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).rand_bytes(RANDOM);
    builder
}

/// Locks what was just made. None if another process took it for a leftover and removed it meanwhile. A file system without locks is no reason to
/// fail: nothing is swept there.
fn hold(file: File, path: &Path) -> io::Result<Option<Option<File>>> {
    match file.lock() {
        Ok(()) => Ok(is_at(&file, path)?.then_some(Some(file))),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
        Err(_) => Ok(Some(None)),
    }
}

/// What a killed process left.
#[derive(Debug)]
pub struct Leftover {
    pub path: PathBuf,
    is_folder: bool,
    _lock: File,
}

/// Removes what killed processes of this user left in a folder. What cannot be removed stays, and so does a folder with a file [`UNFINISHED`] in it.
pub fn sweep(folder: &Path) {
    for Leftover { path, is_folder, _lock } in leftovers(folder) {
        // What stays is tried again the next time.
        let _ = match is_folder {
            true if fs::symlink_metadata(path.join(UNFINISHED)).is_ok() => Ok(()),
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
    }
}

/// Files and folders of this user, with names of the form above, that nobody holds.
pub fn leftovers(folder: &Path) -> impl Iterator<Item = Leftover> {
    let names = files::names(folder).unwrap_or_default();
    names.into_iter().filter(|name| is_own_name(name.as_bytes())).filter_map(move |name| abandoned(folder.join(name)))
}

fn abandoned(path: PathBuf) -> Option<Leftover> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(&path).ok()?;
    let meta = file.metadata().ok()?;
    let is_ours = (meta.is_dir() || meta.is_file()) && meta.uid() == rustix::process::geteuid().as_raw();
    if !is_ours || matches!(file.try_lock(), Err(TryLockError::WouldBlock | TryLockError::Error(_))) {
        return None;
    }
    is_at(&file, &path).ok()?.then_some(Leftover { path, is_folder: meta.is_dir(), _lock: file })
}

fn is_own_name(name: &[u8]) -> bool {
    name.strip_prefix(PREFIX.as_bytes()).is_some_and(|rest| rest.len() == RANDOM && rest.iter().all(u8::is_ascii_alphanumeric))
}

/// Whether a path still names the file that was opened before.
pub fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    is_still(file, fs::symlink_metadata(path))
}

/// Whether what is found at a path now is the file that was opened there before. A path that cannot be looked at is an error and no other file: who tries
/// again for as long as the file is another one would never end.
pub fn is_still(file: &File, found: io::Result<fs::Metadata>) -> io::Result<bool> {
    let named = match found {
        Ok(named) => named,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(false),
        Err(error) => return Err(error),
    };
    let held = file.metadata()?;
    Ok((held.dev(), held.ino()) == (named.dev(), named.ino()))
}

/// Makes a folder durable: all files in it, then all folders, so that a rename of it can follow.
pub fn sync_tree(folder: &Path) -> io::Result<()> {
    let found = files::walk(folder)?;
    if found.len() > SYNC_ONE_BY_ONE {
        return Ok(rustix::fs::syncfs(File::open(folder)?)?);
    }
    for file in &found {
        File::open(folder.join(file))?.sync_all()?;
    }
    let mut open = vec![folder.to_path_buf()];
    while let Some(inner) = open.pop() {
        for name in files::names(&inner)? {
            let path = inner.join(name);
            if fs::symlink_metadata(&path)?.is_dir() {
                open.push(path);
            }
        }
        files::sync_folder(&inner)?;
    }
    Ok(())
}

/// Makes a folder with the folders above it, durably: a new name is synced in the folder that holds it.
pub fn make_folders(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && fs::metadata(path).is_err()).collect();
    fs::create_dir_all(folder)?;
    for path in missing {
        files::sync_folder(files::parent(path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn leftovers_go_and_what_is_alive_or_not_ours_stays() {
        let space = tempfile::tempdir().unwrap();
        let folder = space.path();
        let alive = StagedFolder::new_in(folder).unwrap();
        let file = file_in(folder).unwrap();
        fs::create_dir(folder.join(".slmops-new-abcdefghijkl")).unwrap();
        fs::write(folder.join(".slmops-new-abcdefghijkl/half"), "x").unwrap();
        fs::write(folder.join(".slmops-new-012345678901"), "half").unwrap();
        fs::create_dir(folder.join(".slmops-new-unfinishedxx")).unwrap();
        fs::write(folder.join(".slmops-new-unfinishedxx").join(UNFINISHED), "p").unwrap();
        let foreign =
            [".slmops-new-", ".slmops-new-short", ".slmops-new-abcdefghijkl.bak", ".slmops-new-abcdefghij-l", "slmops-new-abcdefghijkl"];
        for name in foreign {
            fs::write(folder.join(name), "mine").unwrap();
        }
        symlink("/etc", folder.join(".slmops-new-linklinklink")).unwrap();
        sweep(folder);
        let left: Vec<PathBuf> = files::names(folder).unwrap().into_iter().map(PathBuf::from).collect();
        let mut expected: Vec<PathBuf> = foreign.iter().map(PathBuf::from).collect();
        expected.extend([".slmops-new-linklinklink".into(), ".slmops-new-unfinishedxx".into()]);
        for own in [alive.path(), file.path()] {
            expected.push(own.file_name().unwrap().into());
        }
        expected.sort();
        assert_eq!(left, expected);
        drop((alive, file));
        assert_eq!(files::names(folder).unwrap().len(), foreign.len() + 2);
    }

    #[test]
    fn a_path_that_cannot_be_looked_at_is_no_other_file() {
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join("lock");
        let file = File::create(&path).unwrap();
        assert!(is_at(&file, &path).unwrap());
        fs::rename(&path, space.path().join("other")).unwrap();
        assert!(!is_at(&file, &path).unwrap());
        fs::write(&path, "").unwrap();
        assert!(!is_at(&file, &path).unwrap());
        let error = io::Error::from(rustix::io::Errno::NOMEM);
        assert!(is_still(&file, Err(error)).is_err());
    }

    #[test]
    fn folders_and_what_is_in_them_are_synced() {
        let space = tempfile::tempdir().unwrap();
        make_folders(&space.path().join("a/b/c")).unwrap();
        make_folders(&space.path().join("a/b/c")).unwrap();
        for i in 0..3 {
            fs::write(space.path().join(format!("a/b/{i}")), "x").unwrap();
        }
        sync_tree(space.path()).unwrap();
        assert!(sync_tree(&space.path().join("none")).is_err());
    }
}
