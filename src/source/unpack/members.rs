//! The members of a tar archive, one after the other, without more of one in memory than a header may have: names and sizes from the header itself, from
//! GNU's long names and from PAX records (POSIX.1-2017, `pax` utility, "pax Interchange Format").
//!
//! The `tar` crate knows the fields of a header. Its own iterator is not used: it reads extended headers and lists of holes whole, however long they say
//! they are.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::UnpackError;

const BLOCK: usize = 512;

/// One member. Its content follows in the reader.
#[derive(Debug)]
pub struct Member {
    pub name: Vec<u8>,
    pub kind: EntryType,
    pub size_bytes: u64,
    pub is_executable: bool,
}

/// What extended headers say of the next member.
#[derive(Debug, Default)]
struct Extended {
    long_name: Option<Vec<u8>>,
    path: Option<Vec<u8>>,
    size_bytes: Option<u64>,
    has_holes: bool,
}

#[derive(Debug)]
pub struct Members<R> {
    reader: R,
    /// Of an extended header.
    limit_bytes: u64,
    /// Of the last member's content, with what fills its last block.
    left_bytes: u64,
    fill_bytes: u64,
}

impl<R: Read> Members<R> {
    pub fn new(reader: R, limit_bytes: u64) -> Members<R> {
        Members { reader, limit_bytes, left_bytes: 0, fill_bytes: 0 }
    }

    /// The next member; none at the end of the archive. What was not read of the last one is skipped.
    pub fn next(&mut self) -> Result<Option<Member>, UnpackError> {
        let mut extended = Extended::default();
        let mut is_described = false;
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                if is_described {
                    return Err(UnpackError::Format("it ends behind a header that describes a member".to_string()));
                }
                return Ok(None);
            };
            let kind = header.entry_type();
            let size_bytes = header.entry_size().map_err(format)?;
            match kind {
                EntryType::GNULongName => set(&mut extended.long_name, until_nul(self.extended(size_bytes)?))?,
                EntryType::GNULongLink => drop(self.extended(size_bytes)?),
                EntryType::XHeader => extended.read(&self.extended(size_bytes)?)?,
                // Defaults for all members: of those that matter none makes sense for more than one.
                EntryType::XGlobalHeader => Extended::default().read_global(&self.extended(size_bytes)?)?,
                _ => return self.member(&header, kind, extended).map(Some),
            }
            is_described |= kind != EntryType::XGlobalHeader;
        }
    }

    fn member(&mut self, header: &Header, kind: EntryType, extended: Extended) -> Result<Member, UnpackError> {
        let name = extended.path.or(extended.long_name).unwrap_or_else(|| header.path_bytes().into_owned());
        if extended.has_holes || kind.is_gnu_sparse() {
            return Err(UnpackError::Holes(String::from_utf8_lossy(&name).into_owned()));
        }
        // Old archives mark a folder by the slash behind its name.
        let kind = if kind == EntryType::Regular && name.ends_with(b"/") { EntryType::Directory } else { kind };
        let size_bytes = extended.size_bytes.map_or_else(|| header.entry_size().map_err(format), Ok)?;
        // Some programs would skip as much, others would read it as members.
        if kind.is_dir() && size_bytes > 0 {
            return Err(UnpackError::Format("a folder has content".to_string()));
        }
        self.expect(size_bytes);
        Ok(Member { name, kind, size_bytes, is_executable: header.mode().map_err(format)? & 0o111 != 0 })
    }

    /// A header, unless the archive ends: with a block of zeros, or without.
    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        let mut filled = 0;
        while filled < BLOCK {
            match self.reader.read(&mut bytes[filled..]).map_err(format)? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(UnpackError::Format("it ends within a header".to_string())),
                n => filled += n,
            }
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The sum is made with spaces in place of itself.
        let sum = bytes[..148].iter().chain(&bytes[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
        if header.cksum().map_err(format)? != sum {
            return Err(UnpackError::Format("the sum of a header is wrong".to_string()));
        }
        Ok(Some(header))
    }

    /// The content of an extended header.
    fn extended(&mut self, size_bytes: u64) -> Result<Vec<u8>, UnpackError> {
        if size_bytes > self.limit_bytes {
            return Err(UnpackError::Header(self.limit_bytes));
        }
        self.expect(size_bytes);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(format)?;
        Ok(bytes)
    }

    fn expect(&mut self, size_bytes: u64) {
        self.left_bytes = size_bytes;
        self.fill_bytes = (BLOCK as u64 - size_bytes % BLOCK as u64) % BLOCK as u64;
    }

    fn skip(&mut self) -> Result<(), UnpackError> {
        io::copy(self, &mut io::sink()).map_err(format)?;
        let skipped = io::copy(&mut (&mut self.reader).take(self.fill_bytes), &mut io::sink()).map_err(format)?;
        if skipped < self.fill_bytes {
            return Err(UnpackError::Format("it ends within a member".to_string()));
        }
        self.fill_bytes = 0;
        Ok(())
    }
}

/// The content of the last member.
impl<R: Read> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left_bytes).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        match self.reader.read(&mut buffer[..most])? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends within a member")),
            n => {
                self.left_bytes -= n as u64;
                Ok(n)
            }
        }
    }
}

impl Extended {
    /// PAX records of one member: `LENGTH KEY=VALUE\n`, the length in decimal digits and of all of it.
    fn read(&mut self, bytes: &[u8]) -> Result<(), UnpackError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (key, value, tail) = record(rest).ok_or_else(|| UnpackError::Format("an extended header has no records".to_string()))?;
            match key {
                b"path" => set(&mut self.path, value.to_vec())?,
                b"size" => {
                    let size_bytes = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    set(&mut self.size_bytes, size_bytes.ok_or_else(|| UnpackError::Format("a size is not a number".to_string()))?)?;
                }
                sparse if sparse.starts_with(b"GNU.sparse.") => self.has_holes = true,
                _ => {}
            }
            rest = tail;
        }
        Ok(())
    }

    fn read_global(mut self, bytes: &[u8]) -> Result<(), UnpackError> {
        self.read(bytes)?;
        if self.path.is_some() || self.size_bytes.is_some() || self.has_holes {
            return Err(UnpackError::Format("a header for all members gives them one name or size".to_string()));
        }
        Ok(())
    }
}

fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &bytes[length..]))
}

/// What is said twice of one member is read differently by different programs.
fn set<T>(place: &mut Option<T>, value: T) -> Result<(), UnpackError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(UnpackError::Format("two headers describe one member".to_string())),
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

/// An error of the reader, or of a header's field.
pub fn format(error: io::Error) -> UnpackError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<super::Bomb>()) {
        Some(bomb) => UnpackError::Ratio(bomb.0),
        None => UnpackError::Format(error.to_string()),
    }
}
