//! Archives from strangers: tar, plain or compressed with gzip. Files and folders only, each below the folder that they go to, each once. Of a file's mode
//! only whether it may be executed is kept; of times, owners and attributes nothing. What follows the end of the archive is ignored, as tar does.

mod members;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use members::{Members, format};
use tar::EntryType;

use super::http::said::plain;
use super::limits::Limits;
use super::out::{Out, OutError};
use crate::base::units;

#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("`{}` is a link or a device, which a source cannot hold", plain(.0))]
    Kind(String),
    #[error("`{}` is a file with holes, which slmops does not unpack", plain(.0))]
    Holes(String),
    #[error("`{}` has a name that is not UTF-8", plain(.0))]
    Name(String),
    #[error("one of its headers has more than {}", units::show_size(*.0))]
    Header(u64),
    #[error("it becomes more than {0} times its size")]
    Ratio(u64),
    #[error("it is neither a tar archive nor one that gzip has compressed: {}", plain(.0))]
    Format(String),
    #[error(transparent)]
    Out(#[from] OutError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Writes an archive's files.
pub fn unpack(archive: &Path, out: &mut Out) -> Result<(), UnpackError> {
    let mut file = File::open(archive)?;
    let mut magic = [0u8; 2];
    let is_gzip = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    file.seek(SeekFrom::Start(0))?;
    let limit_bytes = out.limits().tar_header_bytes;
    if is_gzip {
        files(Members::new(Inflated::new(file, out.limits()), limit_bytes), out)
    } else {
        files(Members::new(BufReader::with_capacity(1 << 17, file), limit_bytes), out)
    }
}

fn files<R: Read>(mut members: Members<R>, out: &mut Out) -> Result<(), UnpackError> {
    while let Some(member) = members.next()? {
        let name = match String::from_utf8(member.name) {
            Ok(name) => name,
            Err(error) => return Err(UnpackError::Name(error.as_bytes().escape_ascii().to_string())),
        };
        let short = name.strip_prefix("./").unwrap_or(&name).trim_end_matches('/');
        match member.kind {
            EntryType::Directory if short.is_empty() || short == "." => {}
            EntryType::Directory => out.folder(short)?,
            EntryType::Regular | EntryType::Continuous => {
                let mut file = out.file(short, member.size_bytes, member.is_executable)?;
                copy(&mut members, &mut file)?;
            }
            _ => return Err(UnpackError::Kind(name)),
        }
    }
    Ok(())
}

/// What cannot be read is the archive's fault, what cannot be written is the disk's.
fn copy(from: &mut impl Read, to: &mut File) -> Result<(), UnpackError> {
    let mut buffer = vec![0u8; 1 << 16];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&buffer[..n])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format(error)),
        }
    }
}

/// What is told by a reader whose data grow beyond measure.
#[derive(Debug, thiserror::Error)]
#[error("it becomes more than {0} times its size")]
struct Bomb(u64);

/// A gzip stream, or several behind each other, that grows only so much.
struct Inflated {
    inner: MultiGzDecoder<BufReader<Counted>>,
    read_bytes: Rc<Cell<u64>>,
    made_bytes: u64,
    ratio: u64,
    from_bytes: u64,
}

/// A file, and how much of it was read.
struct Counted {
    file: File,
    read_bytes: Rc<Cell<u64>>,
}

impl Inflated {
    fn new(file: File, limits: &Limits) -> Inflated {
        let read_bytes = Rc::new(Cell::new(0));
        let counted = Counted { file, read_bytes: read_bytes.clone() };
        let inner = MultiGzDecoder::new(BufReader::with_capacity(1 << 16, counted));
        Inflated { inner, read_bytes, made_bytes: 0, ratio: limits.ratio, from_bytes: limits.ratio_from_bytes }
    }
}

impl Read for Inflated {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.made_bytes += n as u64;
        if self.made_bytes > self.from_bytes && self.made_bytes / self.ratio > self.read_bytes.get() {
            return Err(io::Error::other(Bomb(self.ratio)));
        }
        Ok(n)
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.read_bytes.set(self.read_bytes.get() + n as u64);
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
