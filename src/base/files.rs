//! Files that appear whole or not at all, files that can be read to their end, and folders read in a fixed order.

use std::ffi::OsString;
use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::staged;

/// Opens a regular file to read it. A FIFO would keep us waiting for a writer, and a device may have no end, so neither is even opened.
pub fn open(path: &Path) -> io::Result<File> {
    check_regular(fs::metadata(path)?.file_type())?;
    // What the name leads to may have changed since: nothing that is opened in this way waits.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    check_regular(file.metadata()?.file_type())?;
    Ok(file)
}

/// The error names what stands there instead.
fn check_regular(found: FileType) -> io::Result<()> {
    let what = match found {
        _ if found.is_file() => return Ok(()),
        _ if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        _ if found.is_fifo() => "a FIFO",
        _ if found.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, not a regular file")))
}

/// What stands at a path, if anything does; links are followed.
pub fn kind(path: &Path) -> io::Result<Option<FileType>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found.file_type())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether anything stands at a path. That it cannot be told is an error, and not the same as nothing: what is optional would silently be left out.
pub fn exists(path: &Path) -> io::Result<bool> {
    Ok(kind(path)?.is_some())
}

/// Whether a folder stands at a path.
pub fn is_folder(path: &Path) -> io::Result<bool> {
    Ok(kind(path)?.is_some_and(|found| found.is_dir()))
}

/// Whether a regular file stands at a path.
pub fn is_file(path: &Path) -> io::Result<bool> {
    Ok(kind(path)?.is_some_and(|found| found.is_file()))
}

/// The bytes of a regular file, none of which is read if it has more than `limit`.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let size = file.metadata()?.len();
    let mut bytes = Vec::new();
    if size <= limit {
        // The file may grow while it is read, and some files of the kernel do not know their size.
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    }
    if size > limit || bytes.len() as u64 > limit {
        let message = format!("it has more than {} bytes", limit);
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(bytes)
}

/// The same as text.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    let wrong = |error: std::string::FromUtf8Error| {
        let place = error.utf8_error().valid_up_to() + 1;
        io::Error::new(io::ErrorKind::InvalidData, format!("byte {place} is not UTF-8"))
    };
    String::from_utf8(read(path, limit)?).map_err(wrong)
}

/// Writes a file by temp → sync → rename, so that a reader sees the old bytes or the new ones. What a killed process left there half-written goes.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = parent(path);
    let mut temp = staged::file_in(folder)?;
    temp.write_all(bytes)?;
    temp.as_file().sync_all()?;
    temp.persist(path).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// The folder that a path is in; the current one for a bare name.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
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

/// The same of a folder with at most `most` names: listing a larger one would take longer than it is worth.
pub fn few_names(folder: &Path, most: usize) -> Option<Vec<OsString>> {
    #[expect(clippy::disallowed_methods, reason = "what it returns is sorted, and nothing if it is not all")]
    let entries = fs::read_dir(folder).ok()?;
    let mut names: Vec<OsString> = entries.take(most + 1).map(|entry| entry.map(|e| e.file_name())).collect::<io::Result<_>>().ok()?;
    names.sort();
    (names.len() <= most).then_some(names)
}

/// Every regular file below a folder as sorted paths relative to it. Links are refused: they would reach outside.
pub fn walk(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    visit(folder, |relative| {
        found.push(relative.to_path_buf());
        Ok(())
    })?;
    Ok(found)
}

/// The same, one after the other: of a million files not all names are in memory at once, only those of the folders that are open.
pub fn visit(folder: &Path, mut file: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    // In each open folder the names that are still to come, the last of them first.
    let mut open = vec![reversed(folder)?];
    let (mut relative, mut full) = (PathBuf::new(), folder.to_path_buf());
    while let Some(names) = open.last_mut() {
        let Some(name) = names.pop() else {
            open.pop();
            relative.pop();
            full.pop();
            continue;
        };
        relative.push(&name);
        full.push(&name);
        let kind = fs::symlink_metadata(&full)?.file_type();
        if kind.is_dir() {
            open.push(reversed(&full)?);
            continue;
        }
        if kind.is_symlink() {
            let why = "is a symbolic link, and so neither a file nor a folder: put what it leads to in its place (`cp -rL` copies it)";
            return Err(io::Error::other(format!("`{}` {why}", relative.display())));
        }
        if !kind.is_file() {
            return Err(io::Error::other(format!("`{}` is neither a file nor a folder", relative.display())));
        }
        file(&relative)?;
        relative.pop();
        full.pop();
    }
    Ok(())
}

fn reversed(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut names = names(folder)?;
    names.reverse();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        let space = tempfile::tempdir().unwrap();
        let file = space.path().join("file");
        fs::write(&file, "four").unwrap();
        assert_eq!(read_text(&file, 4).unwrap(), "four");
        assert!(read(&file, 3).unwrap_err().to_string().contains("more than 3 bytes"));
        fs::write(&file, [b'a', 0xff]).unwrap();
        assert!(read_text(&file, 4).unwrap_err().to_string().contains("byte 2 is not UTF-8"));
        let fifo = space.path().join("fifo");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let socket = space.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (path, what) in [(fifo.as_path(), "a FIFO"), (&socket, "a socket"), (Path::new("/dev/zero"), "a device")] {
            let error = read(path, 1 << 20).unwrap_err();
            assert!(error.kind() == io::ErrorKind::InvalidInput && error.to_string().contains(what), "{error}");
        }
        assert_eq!(open(space.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        // Its size is said to be 0.
        assert!(!read(Path::new("/proc/self/status"), 1 << 20).unwrap().is_empty());
        assert!(read(Path::new("/proc/self/status"), 10).is_err());
    }

    #[test]
    fn a_file_is_replaced_whole_and_a_walk_is_sorted() {
        let space = tempfile::tempdir().unwrap();
        write_atomic(&space.path().join("b"), b"old").unwrap();
        write_atomic(&space.path().join("b"), b"new").unwrap();
        fs::create_dir(space.path().join("a")).unwrap();
        write_atomic(&space.path().join("a/z"), b"").unwrap();
        assert_eq!(fs::read(space.path().join("b")).unwrap(), b"new");
        assert_eq!(walk(space.path()).unwrap(), [PathBuf::from("a/z"), PathBuf::from("b")]);
        // A folder's files stand where its name does, not where `a/` would.
        for name in ["a-b", "a.b", "a0", "a/0", "a/z-"] {
            write_atomic(&space.path().join(name), b"").unwrap();
        }
        fs::create_dir(space.path().join("empty")).unwrap();
        let mut sorted: Vec<PathBuf> = ["a-b", "a.b", "a0", "a/0", "a/z", "a/z-", "b"].map(PathBuf::from).to_vec();
        sorted.sort();
        assert_eq!(walk(space.path()).unwrap(), sorted);
        let stopped = visit(space.path(), |path| if path.ends_with("z") { Err(io::Error::other("enough")) } else { Ok(()) });
        assert_eq!(stopped.unwrap_err().to_string(), "enough");
        std::os::unix::fs::symlink("/etc", space.path().join("link")).unwrap();
        assert!(walk(space.path()).is_err());
    }
}
