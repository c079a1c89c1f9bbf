//! Which folder may be a store, and with which permissions everything in it is created. A folder that is not ours is left as it is.
//!
//! A store is shared like its own folder: what slmops creates in it gets the folder's permissions and group, whatever the umask of the process.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use crate::base::files;

use super::error::{Result, StoreError};

/// Raised when an older slmops could not read what this one writes.
pub const STORE_FORMAT: u32 = 1;

const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of slmops. It may be deleted: see https://bford.info/cachedir/\n";

/// The folders of a store, outer ones first.
pub(super) const FOLDERS: [&str; 8] = ["objects", "actions", "partial", "latest", "quarantine", "tmp", "locks", "locks/keys"];

/// What fetched sources consist of; they may be there before the rest.
const SOURCES: [&str; 4] = ["blobs", "git", "lock", "trees"];

/// Our small files are smaller than this.
const MAX_TEXT_BYTES: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// A store that this slmops can use.
    Ours,
    /// Not there, or empty: it may become one.
    Free,
}

/// Decides whether a folder is a store or may become one. Changes nothing.
pub(super) fn examine(root: &Path) -> Result<Standing> {
    if let Some(standing) = by_version(root)? {
        return Ok(standing);
    }
    match foreign_entry(root)? {
        None => Ok(Standing::Free),
        // Another process may have made the store since we looked for its version.
        Some(name) => by_version(root)?.ok_or_else(|| {
            let why = format!("it has no VERSION file of slmops, and it holds `{name}`");
            StoreError::NotAStore { path: root.into(), why }
        }),
    }
}

/// Makes a folder a store, if it is not one yet. Several processes may do so at once.
pub(super) fn make(root: &Path, standing: Standing) -> Result<Rights> {
    if standing == Standing::Free {
        fs::create_dir_all(root).map_err(|error| StoreError::io("create", root, error))?;
    }
    let meta = fs::metadata(root).map_err(|error| StoreError::io("read", root, error))?;
    let rights = Rights::of(&meta);
    if standing == Standing::Free {
        if !is_tagged(root) {
            write_new(&root.join("CACHEDIR.TAG"), TAG, rights)?;
        }
        write_new(&root.join("VERSION"), &format!("slmops store {STORE_FORMAT}\n"), rights)?;
    }
    for folder in FOLDERS {
        let path = root.join(folder);
        rights.create_folder(&path).map_err(|error| StoreError::io("create", &path, error))?;
    }
    Ok(rights)
}

fn write_new(path: &Path, text: &str, rights: Rights) -> Result<()> {
    match write_named(path, text, rights) {
        // Another process was faster, and has swept ours away.
        Err(_) if fs::read_to_string(path).is_ok_and(|found| found == text) => Ok(()),
        other => other.map_err(|error| StoreError::io("write", path, error)),
    }
}

/// By temp → sync → rename.
fn write_named(path: &Path, text: &str, rights: Rights) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut temp = tempfile::Builder::new().prefix(TEMPORARY).permissions(rights.file()).tempfile_in(folder)?;
    temp.write_all(text.as_bytes())?;
    temp.as_file().set_permissions(rights.file())?;
    temp.as_file().sync_all()?;
    temp.persist(path).map_err(|error| error.error)?;
    files::sync_folder(folder)
}

/// What the VERSION file says; none if there is none, or if a power cut has emptied it.
fn by_version(root: &Path) -> Result<Option<Standing>> {
    let not_ours = |why: &str| StoreError::NotAStore { path: root.into(), why: why.to_string() };
    let path = root.join("VERSION");
    let text = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open the store", root, error)),
        Ok(meta) if meta.is_file() && meta.len() == 0 && is_tagged(root) => return Ok(None),
        Ok(meta) if !meta.is_file() || meta.len() > MAX_TEXT_BYTES => None,
        Ok(_) => match fs::read_to_string(&path) {
            Err(error) if error.kind() != io::ErrorKind::InvalidData => return Err(StoreError::io("open the store", root, error)),
            text => text.ok(),
        },
    };
    let found = text.as_deref().and_then(|text| text.strip_prefix("slmops store ")?.trim_end().parse::<u32>().ok());
    match found {
        Some(STORE_FORMAT) => {}
        Some(found) if found > STORE_FORMAT => return Err(StoreError::Newer { path: root.into(), found, known: STORE_FORMAT }),
        _ => return Err(not_ours("its VERSION file is not one of slmops")),
    }
    for folder in FOLDERS {
        match fs::symlink_metadata(root.join(folder)) {
            Ok(meta) if !meta.is_dir() => return Err(not_ours(&format!("`{folder}` in it is not a folder"))),
            _ => {}
        }
    }
    Ok(Some(Standing::Ours))
}

/// An entry that neither an empty folder nor a store in the making has.
fn foreign_entry(root: &Path) -> Result<Option<String>> {
    let names = match files::names(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| StoreError::io("open the store", root, error))?,
    };
    let tagged = is_tagged(root);
    let is_foreign = |name: &&std::ffi::OsString| !name.to_str().is_some_and(|name| is_expected(root, name, tagged));
    Ok(names.iter().find(is_foreign).map(|name| name.to_string_lossy().into_owned()))
}

fn is_expected(root: &Path, name: &str, tagged: bool) -> bool {
    let path = root.join(name);
    let meta = match fs::symlink_metadata(&path) {
        // A temporary file of another process, renamed or removed since the folder was listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return true,
        Err(_) => return false,
        Ok(meta) => meta,
    };
    match name {
        // As git has them in a checkout.
        "CACHEDIR.TAG" | "README.md" | "VERSION" | "stamps" => tagged && meta.is_file(),
        "sources" => meta.is_dir() && (tagged || holds_only(&path, &SOURCES)),
        "locks" => meta.is_dir() && (tagged || holds_only(&path, &["keys", "store"]) && holds_only(&path.join("keys"), &[])),
        _ if FOLDERS.contains(&name) => meta.is_dir() && (tagged || holds_only(&path, &[])),
        _ => is_temporary(name) && meta.is_file(),
    }
}

/// Whether a folder, if it is there, has no other entries.
fn holds_only(folder: &Path, expected: &[&str]) -> bool {
    match files::names(folder) {
        Ok(names) => names.iter().all(|name| expected.iter().any(|one| name == one)),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// How temporary files in the store's own folder begin; six characters follow.
const TEMPORARY: &str = ".slmops-";

/// A file of a process that was killed while it made a store.
pub(super) fn is_temporary(name: &str) -> bool {
    name.strip_prefix(TEMPORARY).is_some_and(|rest| rest.len() == 6 && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Whether the folder has the tag that slmops writes into its stores.
fn is_tagged(root: &Path) -> bool {
    let path = root.join("CACHEDIR.TAG");
    let is_small = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_TEXT_BYTES);
    is_small && fs::read_to_string(&path).is_ok_and(|text| text.starts_with(TAG))
}

/// The permissions of the store's own folder, as far as they are passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rights {
    folder: u32,
}

const SET_GROUP: u32 = 0o2000;

impl Rights {
    pub fn of(root: &Metadata) -> Rights {
        Rights { folder: root.mode() & (SET_GROUP | 0o777) | 0o700 }
    }

    /// Read and write as the folder's own.
    pub fn file(self) -> Permissions {
        Permissions::from_mode(self.folder & 0o666)
    }

    /// A folder for everybody who may use the store. `Ok` if it is there.
    pub fn create_folder(self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Ok(()) => fs::set_permissions(path, Permissions::from_mode(self.folder)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && fs::symlink_metadata(path)?.is_dir() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A folder that only this user can enter. Files in it still get the store's group.
    pub fn create_private_folder(self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o700 | self.folder & SET_GROUP))
    }

    /// Opens a lock file. On local disks, reading is enough for a lock: the file may be another user's.
    pub fn open_lock(self, path: &Path) -> io::Result<File> {
        match File::options().read(true).write(true).create_new(true).open(path) {
            Ok(file) => file.set_permissions(self.file()).map(|()| file),
            Err(error) => File::options().read(true).write(true).open(path).or_else(|_| File::open(path)).map_err(|_| error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_foreign_folder_is_refused_and_named() {
        let foreign: &[&[&str]] = &[
            &["Documents/"],
            &["tmp/", "tmp/report.odt"],
            &["README.md"],
            &["objects/", "objects/ab/"],
            &["locks/", "locks/keys/", "locks/keys/x"],
            &["sources/", "sources/main.c"],
            &["VERSION"],
            &["stamps"],
            &[".slmops-notes"],
            &["quarantine/", "quarantine/x"],
            &["tmp"],
        ];
        for entries in foreign {
            let space = space();
            fill(space.path(), entries);
            let error = examine(space.path()).unwrap_err();
            assert!(matches!(error, StoreError::NotAStore { .. }), "{entries:?}: {error}");
        }
    }

    #[test]
    fn what_becomes_a_store_or_was_cut_short_is_taken() {
        let free: &[&[&str]] = &[
            &[],
            &["CACHEDIR.TAG", "README.md"],
            &[".slmops-a1B2c3", "CACHEDIR.TAG"],
            &[".slmops-a1B2c3"],
            &["sources/", "sources/blobs/", "sources/trees/", "sources/lock", "sources/git/"],
            &["objects/", "actions/", "tmp/", "locks/", "locks/keys/", "locks/store"],
            &["CACHEDIR.TAG", "VERSION", "objects/", "objects/ab/", "stamps"],
        ];
        for entries in free {
            let space = space();
            fill(space.path(), entries);
            assert_eq!(examine(space.path()).unwrap(), Standing::Free, "{entries:?}");
            make(space.path(), Standing::Free).unwrap();
            assert_eq!(examine(space.path()).unwrap(), Standing::Ours, "{entries:?}");
        }
        assert_eq!(examine(Path::new("/nowhere/at/all")).unwrap(), Standing::Free);
    }

    #[test]
    fn links_in_place_of_folders_and_odd_versions_are_refused() {
        let space = space();
        make(space.path(), Standing::Free).unwrap();
        fs::remove_dir(space.path().join("tmp")).unwrap();
        std::os::unix::fs::symlink("/tmp", space.path().join("tmp")).unwrap();
        assert!(matches!(examine(space.path()), Err(StoreError::NotAStore { .. })));
        fs::remove_file(space.path().join("tmp")).unwrap();
        assert_eq!(examine(space.path()).unwrap(), Standing::Ours);
        fs::remove_file(space.path().join("VERSION")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, space.path().join("VERSION"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert!(matches!(examine(space.path()), Err(StoreError::NotAStore { .. })));
    }

    #[test]
    fn permissions_are_those_of_the_folder() {
        let space = space();
        for (root, folder, file) in [(0o755, 0o755, 0o644), (0o2770, 0o2770, 0o660), (0o1777, 0o777, 0o666), (0o500, 0o700, 0o600)] {
            let path = space.path().join(format!("{root:o}"));
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(root)).unwrap();
            let rights = Rights::of(&fs::metadata(&path).unwrap());
            assert_eq!((rights.folder, rights.file().mode()), (folder, file));
        }
    }

    /// A name with `/` at its end is a folder.
    fn fill(root: &Path, entries: &[&str]) {
        for entry in entries {
            let path = root.join(entry);
            match *entry {
                "CACHEDIR.TAG" => fs::write(path, TAG).unwrap(),
                entry if entry.ends_with('/') => fs::create_dir(path).unwrap(),
                _ => fs::write(path, "").unwrap(),
            }
        }
    }
}
