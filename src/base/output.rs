//! Paths that the user named for a command to write to. Nothing else decides what may be written over.
//!
//! | at the path is | what happens |
//! |---|---|
//! | nothing | the file appears as a whole, or not at all |
//! | a regular file | it is refused, or, with [`Existing::Replace`] (`--force`), replaced as a whole; its mode stays |
//! | a symbolic link | the rule is applied to what it leads to; the link stays |
//! | a FIFO or character device | it is written into |
//! | a folder, block device or socket | it is refused |
//! | `-` | stdout |
//!
//! For folders: nothing may be there, and the folder appears as a whole or not at all.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::files;
use super::staged::{self, StagedFolder};

/// What to do with a regular file that is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Refuse,
    Replace,
}

#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error("`{}` already exists", .0.display())]
    Exists(PathBuf),
    #[error("`{}` is {what}: nothing is written there", path.display())]
    Unsuitable { path: PathBuf, what: &'static str },
    #[error("there is no folder `{}`", .0.display())]
    NoFolder(PathBuf),
    #[error("cannot {doing} `{}`: {error}", path.display())]
    Io { doing: &'static str, path: PathBuf, error: io::Error },
}

impl OutputError {
    /// Whether another path or flag helps.
    pub fn is_users(&self) -> bool {
        !matches!(self, OutputError::Io { .. })
    }
}

/// Where a file will go, by the rules above.
#[derive(Debug)]
pub struct Output {
    /// As named, for messages.
    shown: PathBuf,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Stdout,
    Stream(PathBuf),
    New(PathBuf),
    /// With the mode that it has.
    Regular(PathBuf, u32),
}

/// The folder's path `-` stands for stdout; others are relative to `directory`.
pub fn file(directory: &Path, named: &Path, existing: Existing) -> Result<Output, OutputError> {
    if named == Path::new("-") {
        return Ok(Output { shown: named.to_path_buf(), place: Place::Stdout });
    }
    let place = find(&directory.join(named), named)?;
    if let (Place::Regular(..), Existing::Refuse) = (&place, existing) {
        return Err(OutputError::Exists(named.to_path_buf()));
    }
    Ok(Output { shown: named.to_path_buf(), place })
}

/// What is at a path, links followed.
fn find(path: &Path, named: &Path) -> Result<Place, OutputError> {
    let unsuitable = |what| Err(OutputError::Unsuitable { path: named.to_path_buf(), what });
    let failed = |error| OutputError::Io { doing: "look at", path: named.to_path_buf(), error };
    if path.as_os_str().as_bytes().ends_with(b"/") {
        return unsuitable("the name of a folder");
    }
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return new_place(path).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(OutputError::NoFolder(files::parent(named).to_path_buf()));
        }
        Err(error) => return Err(failed(error)),
    };
    if fs::symlink_metadata(path).map_err(failed)?.is_symlink() && is_stdout(&meta) {
        return Ok(Place::Stdout);
    }
    let kind = meta.file_type();
    if kind.is_fifo() || kind.is_char_device() {
        return Ok(Place::Stream(path.to_path_buf()));
    }
    if kind.is_file() {
        let real = path.canonicalize().map_err(failed)?;
        // A link of the kernel's may lead to an open file that has no name any more.
        let is_there = fs::symlink_metadata(&real).is_ok_and(|found| is_same(&found, &meta));
        return if is_there { Ok(Place::Regular(real, meta.mode() & 0o7777)) } else { unsuitable("an open file without a name") };
    }
    unsuitable(match () {
        () if kind.is_dir() => "a folder",
        () if kind.is_block_device() => "a block device",
        () => "a socket",
    })
}

/// More links in a row than a kernel follows.
const MAX_LINKS: usize = 40;

/// The place that a path with nothing at its end stands for.
fn new_place(path: &Path) -> io::Result<Place> {
    let mut path = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = files::parent(&path).join(target),
            Err(_) => return Ok(Place::New(path)),
        }
    }
    Err(io::Error::other("too many links"))
}

fn is_stdout(meta: &fs::Metadata) -> bool {
    stdout().and_then(|stdout| stdout.metadata()).is_ok_and(|stdout| is_same(&stdout, meta))
}

fn is_same(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// A second descriptor of stdout, without its line buffer.
fn stdout() -> io::Result<File> {
    io::stdout().as_fd().try_clone_to_owned().map(File::from)
}

impl Output {
    pub fn is_stdout(&self) -> bool {
        matches!(self.place, Place::Stdout)
    }

    /// Whether nothing is at the path yet.
    pub fn is_new(&self) -> bool {
        matches!(self.place, Place::New(_))
    }

    /// Whether a regular file with just these bytes is there, so that there is nothing to write.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        let Place::Regular(path, _) = &self.place else { return false };
        fs::metadata(path).is_ok_and(|meta| meta.len() == bytes.len() as u64)
            && files::read(path, bytes.len() as u64).is_ok_and(|found| found == bytes)
    }

    pub fn write_all(self, bytes: &[u8]) -> Result<(), OutputError> {
        let shown = self.shown.clone();
        self.write(|to| to.write_all(bytes).map_err(failed("write", &shown)))
    }

    /// Writes what `fill` writes. A file appears when all of it is durable.
    pub fn write<E: From<OutputError>>(self, fill: impl FnOnce(&mut dyn Write) -> Result<(), E>) -> Result<(), E> {
        let shown = self.shown.clone();
        match self.place {
            Place::Stdout => {
                io::stdout().flush().map_err(failed("write", &shown))?;
                stream(stdout().map_err(failed("write", &shown))?, &shown, fill)
            }
            Place::Stream(path) => stream(open_stream(&path, &shown)?, &shown, fill),
            Place::New(path) => whole(&path, &shown, None, fill),
            Place::Regular(path, mode) => whole(&path, &shown, Some(mode), fill),
        }
    }
}

fn stream<E: From<OutputError>>(to: File, shown: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<(), E>) -> Result<(), E> {
    let mut to = BufWriter::with_capacity(1 << 17, to);
    fill(&mut to)?;
    Ok(to.flush().map_err(failed("write", shown))?)
}

/// Neither created nor cut: it must be what it was a moment ago.
fn open_stream(path: &Path, shown: &Path) -> Result<File, OutputError> {
    let file = OpenOptions::new().write(true).open(path).map_err(failed("open", shown))?;
    let kind = file.metadata().map_err(failed("open", shown))?.file_type();
    if kind.is_fifo() || kind.is_char_device() { Ok(file) } else { Err(OutputError::Exists(shown.to_path_buf())) }
}

fn whole<E: From<OutputError>>(
    path: &Path,
    shown: &Path,
    replaced_mode: Option<u32>,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let folder = files::parent(path);
    if !files::is_folder(folder).map_err(failed("look at", folder))? {
        return Err(OutputError::NoFolder(folder.to_path_buf()).into());
    }
    let mut temp = staged::file_in(folder).map_err(failed("create a file in", folder))?;
    {
        let mut to = BufWriter::with_capacity(1 << 17, temp.as_file_mut());
        fill(&mut to)?;
        to.flush().map_err(failed("write", shown))?;
    }
    if let Some(mode) = replaced_mode {
        temp.as_file().set_permissions(Permissions::from_mode(mode)).map_err(failed("write", shown))?;
    }
    temp.as_file().sync_all().map_err(failed("write", shown))?;
    let placed = if replaced_mode.is_some() { temp.persist(path) } else { temp.persist_noclobber(path) };
    placed.map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => OutputError::Exists(shown.to_path_buf()),
        _ => failed("write", shown)(error.error),
    })?;
    Ok(files::sync_folder(folder).map_err(failed("sync", folder))?)
}

/// A folder that will appear as a whole.
#[derive(Debug)]
pub struct OutputFolder {
    shown: PathBuf,
    path: PathBuf,
    staged: StagedFolder,
}

/// Refuses what is already there, and `-`: a folder cannot go to stdout. Folders above it are made.
pub fn folder(directory: &Path, named: &Path) -> Result<OutputFolder, OutputError> {
    check_folder(directory, named)?;
    // Without a slash at its end, which would lead through a link.
    let path: PathBuf = directory.join(named).components().collect();
    let parent = files::parent(&path);
    staged::make_folders(parent).map_err(failed("create", parent))?;
    let staged = StagedFolder::new_in(parent).map_err(failed("create a folder in", parent))?;
    Ok(OutputFolder { shown: named.to_path_buf(), path, staged })
}

/// What [`folder`] refuses, before anything is computed for it.
pub fn check_folder(directory: &Path, named: &Path) -> Result<(), OutputError> {
    if named == Path::new("-") {
        return Err(OutputError::Unsuitable { path: named.to_path_buf(), what: "stdout, and a folder cannot go there" });
    }
    let path: PathBuf = directory.join(named).components().collect();
    match fs::symlink_metadata(&path) {
        Ok(_) => Err(OutputError::Exists(named.to_path_buf())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("look at", named)(error)),
    }
}

impl OutputFolder {
    /// Where its contents are made: nothing is there yet.
    pub fn content(&self) -> PathBuf {
        self.staged.path().join("content")
    }

    /// Makes the contents durable and shows them.
    pub fn place(self) -> Result<(), OutputError> {
        let content = self.content();
        staged::sync_tree(&content).map_err(failed("sync", &content))?;
        rename_new(&content, &self.path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => OutputError::Exists(self.shown.clone()),
            _ => failed("write", &self.shown)(error),
        })?;
        // Its end is made durable together with the new name.
        drop(self.staged);
        let parent = files::parent(&self.path);
        files::sync_folder(parent).map_err(failed("sync", parent))
    }
}

/// A rename that replaces nothing.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that cannot promise it.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if fs::symlink_metadata(to).is_ok() => {
            Err(io::Error::from(io::ErrorKind::AlreadyExists))
        }
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::rename(from, to),
        other => Ok(other?),
    }
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> OutputError + 'a {
    move |error| OutputError::Io { doing, path: path.to_path_buf(), error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::os::unix::fs::symlink;

    fn write(space: &Path, name: &str, existing: Existing) -> Result<(), OutputError> {
        file(space, Path::new(name), existing)?.write_all(b"new")
    }

    fn names(folder: &Path) -> Vec<String> {
        files::names(folder).unwrap().into_iter().map(|name| name.into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_appears_and_is_replaced_only_when_it_is_said() {
        let space = tempfile::tempdir().unwrap();
        let (space, read) = (space.path(), |name: &str| fs::read(space.path().join(name)).unwrap());
        write(space, "file", Existing::Refuse).unwrap();
        assert_eq!(read("file"), b"new");
        fs::write(space.join("file"), "old").unwrap();
        fs::set_permissions(space.join("file"), Permissions::from_mode(0o600)).unwrap();
        for name in ["file", "./file", "file/"] {
            assert!(write(space, name, Existing::Refuse).is_err(), "{name}");
            assert_eq!(read("file"), b"old");
        }
        write(space, "file", Existing::Replace).unwrap();
        assert_eq!(read("file"), b"new");
        assert_eq!(fs::metadata(space.join("file")).unwrap().mode() & 0o7777, 0o600, "what was private stays private");
        assert!(file(space, Path::new("file"), Existing::Replace).unwrap().holds(b"new"));
        assert!(!file(space, Path::new("file"), Existing::Replace).unwrap().holds(b"neW"));
        assert!(matches!(write(space, "none/file", Existing::Replace), Err(OutputError::NoFolder(_))));
        assert!(matches!(write(space, "file/inner", Existing::Replace), Err(OutputError::NoFolder(_))));
        assert!(matches!(write(space, "none/", Existing::Replace), Err(OutputError::Unsuitable { .. })));
        assert_eq!(names(space), ["file"]);
    }

    #[test]
    fn what_appears_meanwhile_is_not_replaced() {
        let space = tempfile::tempdir().unwrap();
        let output = file(space.path(), Path::new("file"), Existing::Refuse).unwrap();
        let written = output.write(|to| {
            fs::write(space.path().join("file"), "mine").unwrap();
            to.write_all(b"new").map_err(failed("write", Path::new("file")))
        });
        assert!(matches!(written, Err(OutputError::Exists(_))));
        assert_eq!(fs::read(space.path().join("file")).unwrap(), b"mine");
        assert_eq!(names(space.path()), ["file"]);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file() {
        let space = tempfile::tempdir().unwrap();
        fs::write(space.path().join("file"), "old").unwrap();
        let failed = file(space.path(), Path::new("file"), Existing::Replace).unwrap().write(|to| {
            let _ = to.write_all(b"half");
            Err(OutputError::NoFolder(PathBuf::new()))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(space.path().join("file")).unwrap(), b"old");
        assert_eq!(names(space.path()), ["file"]);
    }

    #[test]
    fn links_are_followed_and_stay() {
        let space = tempfile::tempdir().unwrap();
        let space = space.path();
        fs::create_dir(space.join("folder")).unwrap();
        fs::write(space.join("folder/file"), "old").unwrap();
        for (link, target) in [("one", "two"), ("two", "folder/file"), ("new", "folder/new"), ("loop", "loop"), ("away", "none/file")] {
            symlink(target, space.join(link)).unwrap();
        }
        assert!(matches!(write(space, "one", Existing::Refuse), Err(OutputError::Exists(_))));
        write(space, "one", Existing::Replace).unwrap();
        assert_eq!(fs::read(space.join("folder/file")).unwrap(), b"new");
        write(space, "new", Existing::Refuse).unwrap();
        assert_eq!(fs::read(space.join("folder/new")).unwrap(), b"new");
        assert!(write(space, "loop", Existing::Replace).is_err());
        assert!(matches!(write(space, "away", Existing::Replace), Err(OutputError::NoFolder(_))));
        for link in ["one", "two", "new", "loop", "away"] {
            assert!(fs::symlink_metadata(space.join(link)).unwrap().is_symlink(), "{link}");
        }
        assert_eq!(names(&space.join("folder")), ["file", "new"]);
    }

    #[test]
    fn pipes_and_devices_are_written_into_and_folders_and_sockets_are_not() {
        let space = tempfile::tempdir().unwrap();
        let space = space.path();
        mknodat(CWD, space.join("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        symlink("pipe", space.join("link")).unwrap();
        for name in ["pipe", "link"] {
            let pipe = space.join("pipe");
            let reader = std::thread::spawn(move || fs::read(pipe).unwrap());
            write(space, name, Existing::Refuse).unwrap();
            assert_eq!(reader.join().unwrap(), b"new");
        }
        assert!(fs::symlink_metadata(space.join("pipe")).unwrap().file_type().is_fifo());
        write(space, "/dev/null", Existing::Refuse).unwrap();
        let full = write(space, "/dev/full", Existing::Refuse).unwrap_err();
        assert!(matches!(full, OutputError::Io { error, .. } if error.kind() == io::ErrorKind::StorageFull));
        assert!(fs::symlink_metadata("/dev/full").unwrap().file_type().is_char_device());
        let _socket = std::os::unix::net::UnixListener::bind(space.join("socket")).unwrap();
        for name in ["socket", ".", ".."] {
            assert!(matches!(write(space, name, Existing::Replace), Err(OutputError::Unsuitable { .. })), "{name}");
        }
        assert_eq!(names(space), ["link", "pipe", "socket"]);
    }

    #[test]
    fn a_folder_appears_as_a_whole_where_nothing_was() {
        let space = tempfile::tempdir().unwrap();
        let space = space.path();
        let make = |name: &str| {
            let folder = folder(space, Path::new(name))?;
            fs::create_dir(folder.content()).unwrap();
            fs::write(folder.content().join("file"), "new").unwrap();
            folder.place()
        };
        make("a/b/c").unwrap();
        assert_eq!(fs::read(space.join("a/b/c/file")).unwrap(), b"new");
        fs::create_dir(space.join("empty")).unwrap();
        fs::write(space.join("file"), "").unwrap();
        symlink("nowhere", space.join("link")).unwrap();
        for name in ["a/b/c", "empty", "empty/", "file", "link", "link/", "."] {
            assert!(matches!(make(name), Err(OutputError::Exists(_))), "{name}");
        }
        assert!(matches!(make("-"), Err(OutputError::Unsuitable { .. })));
        // One that arrives meanwhile.
        let late = folder(space, Path::new("late")).unwrap();
        fs::create_dir(late.content()).unwrap();
        fs::create_dir(space.join("late")).unwrap();
        assert!(matches!(late.place(), Err(OutputError::Exists(_))));
        assert_eq!(names(space), ["a", "empty", "file", "late", "link"]);
        assert!(names(&space.join("late")).is_empty());
    }
}
