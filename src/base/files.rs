//! Files that appear whole or not at all, and folders read in a fixed order.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Writes a file by temp → sync → rename, so that a reader sees the old bytes or the new ones.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // As readable as the umask lets it be, like any file that a program writes.
    let mode = fs::Permissions::from_mode(0o666);
    let mut temp = tempfile::Builder::new().prefix(".slmops-").permissions(mode).tempfile_in(folder)?;
    temp.write_all(bytes)?;
    temp.as_file().sync_all()?;
    temp.persist(path).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// Makes renames within a folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The names in a folder, sorted bytewise: the order of `readdir` reaches nobody.
#[expect(clippy::disallowed_methods, reason = "this is the one place that sorts what it returns")]
pub fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut names: Vec<OsString> = fs::read_dir(folder)?.map(|entry| entry.map(|e| e.file_name())).collect::<io::Result<_>>()?;
    names.sort();
    Ok(names)
}

/// Every regular file below a folder as sorted paths relative to it. Links are refused: they would reach outside.
pub fn walk(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        for name in names(&folder.join(&relative))? {
            let inner = relative.join(name);
            let kind = fs::symlink_metadata(folder.join(&inner))?.file_type();
            if kind.is_dir() {
                open.push(inner);
            } else if kind.is_file() {
                found.push(inner);
            } else {
                return Err(io::Error::other(format!("`{}` is neither a file nor a folder", inner.display())));
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_a_walk_is_sorted() {
        let space = tempfile::tempdir().unwrap();
        write_atomic(&space.path().join("b"), b"old").unwrap();
        write_atomic(&space.path().join("b"), b"new").unwrap();
        fs::create_dir(space.path().join("a")).unwrap();
        write_atomic(&space.path().join("a/z"), b"").unwrap();
        assert_eq!(fs::read(space.path().join("b")).unwrap(), b"new");
        assert_eq!(walk(space.path()).unwrap(), [PathBuf::from("a/z"), PathBuf::from("b")]);
        std::os::unix::fs::symlink("/etc", space.path().join("link")).unwrap();
        assert!(walk(space.path()).is_err());
    }
}
