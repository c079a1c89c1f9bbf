//! The files of one source while they are written: below an empty folder of our own, each once, no more of them than a source may have. Archives,
//! trees of git, listings and layers all end here, so that what holds for one holds for all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::entry;
use super::limits::Limits;
use crate::base::{files, units};

#[derive(Debug, thiserror::Error)]
pub enum OutError {
    #[error("`{}` {why}", super::http::said::plain(.name))]
    Name { name: String, why: &'static str },
    #[error("`{0}` is in it twice")]
    Twice(String),
    #[error("it has more than {0} files")]
    Files(usize),
    #[error("it has more than {0} folders")]
    Folders(usize),
    #[error("`{name}` has more than {}", units::show_size(*.limit_bytes))]
    FileSize { name: String, limit_bytes: u64 },
    #[error("it has more than {}", units::show_size(*.0))]
    Size(u64),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What has been written so far.
#[derive(Debug)]
pub struct Out<'a> {
    root: &'a Path,
    limits: &'a Limits,
    files: usize,
    folders: usize,
    size_bytes: u64,
    /// The folder of the last file: most files follow one of the same folder.
    last: Option<PathBuf>,
}

impl<'a> Out<'a> {
    pub fn new(root: &'a Path, limits: &'a Limits) -> Out<'a> {
        Out { root, limits, files: 0, folders: 0, size_bytes: 0, last: None }
    }

    pub fn limits(&self) -> &'a Limits {
        self.limits
    }

    /// Bytes that may still come.
    pub fn left_bytes(&self) -> u64 {
        self.limits.source_bytes.saturating_sub(self.size_bytes)
    }

    /// A folder, with those above it. It may be there already.
    pub fn folder(&mut self, name: &str) -> Result<(), OutError> {
        let path = safe(name)?;
        self.make(&path, name)
    }

    /// A new file of a size that is known before it is written.
    pub fn file(&mut self, name: &str, size_bytes: u64, is_executable: bool) -> Result<File, OutError> {
        let path = self.claim(name, size_bytes)?;
        create(&path, name, is_executable)
    }

    /// A fetched file: linked where its mode allows it, else copied.
    pub fn place(&mut self, name: &str, blob: &Path, is_executable: bool) -> Result<(), OutError> {
        let path = self.claim(name, fs::metadata(blob)?.len())?;
        // A link has one mode in all its places. Where no link can be made, a copy does; where a file is already, that fails as well.
        if !is_executable && fs::hard_link(blob, &path).is_ok() {
            return Ok(());
        }
        io::copy(&mut File::open(blob)?, &mut create(&path, name, is_executable)?)?;
        Ok(())
    }

    /// Counts a file and makes its folder.
    fn claim(&mut self, name: &str, size_bytes: u64) -> Result<PathBuf, OutError> {
        let path = safe(name)?;
        if self.files >= self.limits.files {
            return Err(OutError::Files(self.limits.files));
        }
        if size_bytes > self.limits.file_bytes {
            return Err(OutError::FileSize { name: name.to_string(), limit_bytes: self.limits.file_bytes });
        }
        if size_bytes > self.left_bytes() {
            return Err(OutError::Size(self.limits.source_bytes));
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.make(parent, name)?;
        }
        self.files += 1;
        self.size_bytes += size_bytes;
        Ok(self.root.join(path))
    }

    fn make(&mut self, folder: &Path, name: &str) -> Result<(), OutError> {
        if self.last.as_deref() == Some(folder) {
            return Ok(());
        }
        let mut missing = vec![folder];
        while let Some(next) = missing.last() {
            if self.folders >= self.limits.folders && !files::is_folder(&self.root.join(next))? {
                return Err(OutError::Folders(self.limits.folders));
            }
            match fs::create_dir(self.root.join(next)) {
                Ok(()) => self.folders += 1,
                Err(error) if error.kind() == ErrorKind::AlreadyExists && files::is_folder(&self.root.join(next))? => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let parent = next.parent().filter(|parent| !parent.as_os_str().is_empty()).ok_or(error)?;
                    missing.push(parent);
                    continue;
                }
                Err(error) => return Err(twice(name, error)),
            }
            missing.pop();
        }
        self.last = Some(folder.to_path_buf());
        Ok(())
    }
}

fn create(path: &Path, name: &str, is_executable: bool) -> Result<File, OutError> {
    let mode = if is_executable { 0o755 } else { 0o644 };
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(|error| twice(name, error))
}

fn safe(name: &str) -> Result<PathBuf, OutError> {
    entry::safe(name).map_err(|why| OutError::Name { name: name.to_string(), why })
}

/// A path that is there already, or that leads through a file, is one that was listed before.
fn twice(name: &str, error: io::Error) -> OutError {
    match error.kind() {
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory | ErrorKind::IsADirectory => OutError::Twice(name.to_string()),
        _ => OutError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn small() -> Limits {
        Limits { files: 3, folders: 2, file_bytes: 10, source_bytes: 20, ..Limits::default() }
    }

    fn put(out: &mut Out, name: &str, bytes: &[u8]) -> Result<(), OutError> {
        Ok(out.file(name, bytes.len() as u64, false)?.write_all(bytes)?)
    }

    #[test]
    fn each_limit_triggers() {
        let limits = small();
        let space = tempfile::tempdir().unwrap();
        let mut out = Out::new(space.path(), &limits);
        put(&mut out, "a/x", b"12345").unwrap();
        put(&mut out, "a/y", b"12345").unwrap();
        assert!(matches!(put(&mut out, "z", b"12345678901"), Err(OutError::FileSize { .. })));
        out.folder("a").unwrap();
        out.folder("b").unwrap();
        assert!(matches!(out.folder("c"), Err(OutError::Folders(2))));
        assert!(matches!(put(&mut out, "c/x", b""), Err(OutError::Folders(2))));
        put(&mut out, "b/z", b"1234567890").unwrap();
        assert!(matches!(put(&mut out, "q", b""), Err(OutError::Files(3))));
        let space = tempfile::tempdir().unwrap();
        let mut out = Out::new(space.path(), &limits);
        put(&mut out, "1", b"1234567890").unwrap();
        put(&mut out, "2", b"1234567890").unwrap();
        assert!(matches!(put(&mut out, "3", b"1"), Err(OutError::Size(20))));
    }

    #[test]
    fn a_path_is_written_once_and_is_a_file_or_a_folder() {
        let limits = Limits::default();
        let space = tempfile::tempdir().unwrap();
        let blob = space.path().join("blob");
        fs::write(&blob, "blob").unwrap();
        let root = space.path().join("out");
        fs::create_dir(&root).unwrap();
        let mut out = Out::new(&root, &limits);
        put(&mut out, "a/b", b"1").unwrap();
        for name in ["a/b", "a", "a/b/c", "a/b/c/d"] {
            assert!(matches!(put(&mut out, name, b"2"), Err(OutError::Twice(_))), "{name}");
            assert!(matches!(out.place(name, &blob, false), Err(OutError::Twice(_))), "{name}");
            assert!(matches!(out.place(name, &blob, true), Err(OutError::Twice(_))), "{name}");
        }
        assert!(matches!(out.folder("a/b"), Err(OutError::Twice(_))));
        out.place("c", &blob, false).unwrap();
        out.place("d/e", &blob, true).unwrap();
        assert_eq!(fs::read(root.join("d/e")).unwrap(), b"blob");
        for name in ["../x", "/x", ".git/config", "a//b"] {
            assert!(matches!(put(&mut out, name, b""), Err(OutError::Name { .. })), "{name}");
        }
    }
}
