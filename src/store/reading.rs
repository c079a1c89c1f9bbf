//! Reading a file once: its digest and size, and a copy on the way if one is wanted.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{OFlags, SeekFrom};

use crate::base::{Cancel, Digest, Hasher};

/// Large enough that the hash can use all lanes of the processor.
const BUFFER_BYTES: usize = 1 << 16;

/// Opens a regular file to read it. Links are not followed, and nothing is waited for.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other(format!("`{}` is not a regular file", path.display()))),
    }
}

/// Which side of a copy failed.
#[derive(Debug)]
pub enum Broken {
    Reading(io::Error),
    Writing(io::Error),
    Stopped,
}

/// The digest and size of what is left to read.
pub fn digest(from: &mut File) -> io::Result<(Digest, u64)> {
    match pass(from, None, &Cancel::default()) {
        Ok(found) => Ok(found),
        Err(Broken::Reading(error) | Broken::Writing(error)) => Err(error),
        Err(Broken::Stopped) => Err(io::ErrorKind::Interrupted.into()),
    }
}

/// Copies a file into an empty one, which must be open for reading too; returns what the copy holds.
pub fn copy(from: &mut File, to: &mut File, cancel: &Cancel) -> Result<(Digest, u64), Broken> {
    if share_blocks(from, to).map_err(Broken::Reading)? {
        // What is hashed can no longer change.
        return pass(to, None, cancel);
    }
    pass(from, Some(to), cancel)
}

/// Lets an empty file share the blocks of another, on file systems that can. Not those of a file with holes: other copies have none, and a reader
/// can see that. An error means that `from` is no longer at its beginning.
pub fn share_blocks(from: &File, to: &File) -> io::Result<bool> {
    let is_dense = || Some(rustix::fs::seek(from, SeekFrom::Hole(0)).ok()? == from.metadata().ok()?.len());
    let is_dense = is_dense().unwrap_or(false);
    rustix::fs::seek(from, SeekFrom::Start(0))?;
    Ok(is_dense && rustix::fs::ioctl_ficlone(to, from).is_ok())
}

/// The digest and size of what is left to read, which is also written to `to`. Stops soon after `cancel` is set.
pub fn pass(from: &mut File, mut to: Option<&mut File>, cancel: &Cancel) -> Result<(Digest, u64), Broken> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0u8; BUFFER_BYTES];
    let mut size_bytes = 0u64;
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok((hasher.finish(), size_bytes)),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Broken::Reading(error)),
        };
        if cancel.is_cancelled() {
            return Err(Broken::Stopped);
        }
        hasher.update(&buffer[..n]);
        size_bytes += n as u64;
        if let Some(to) = to.as_deref_mut() {
            to.write_all(&buffer[..n]).map_err(Broken::Writing)?;
        }
    }
}
