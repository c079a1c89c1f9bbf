//! Archives from strangers: tar, plain or compressed with gzip. Files and folders only, each below the folder that they go to, each once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use tar::{Archive, EntryType};

use super::entry;

/// More than any model's archive holds; a small one that says it holds more is a bomb.
const MAX_FILES: usize = 1_000_000;
const MAX_BYTES: u64 = 1 << 40;
/// gzip makes at most a thousandth of what it is given.
const MAX_RATIO: u64 = 1100;

#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("`{0}` is no path within it")]
    Name(String),
    #[error("`{0}` is in it twice")]
    Twice(String),
    #[error("`{0}` is a link or a device, which a source cannot hold")]
    Kind(String),
    #[error("it holds more than anything honest")]
    Bomb,
    #[error("it is neither a tar archive nor one that gzip has compressed: {0}")]
    Format(String),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Writes an archive's files below `out`, which must be a folder of our own.
pub fn unpack(archive: &Path, out: &Path) -> Result<(), UnpackError> {
    let mut file = File::open(archive)?;
    let size_bytes = file.metadata()?.len();
    let mut magic = [0u8; 2];
    let is_gzip = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    file.seek(SeekFrom::Start(0))?;
    let reader = BufReader::with_capacity(1 << 17, file);
    if is_gzip {
        let limit = size_bytes.saturating_mul(MAX_RATIO).min(MAX_BYTES);
        files(MultiGzDecoder::new(reader), limit, out)
    } else {
        files(reader, MAX_BYTES, out)
    }
}

fn files(reader: impl Read, limit_bytes: u64, out: &Path) -> Result<(), UnpackError> {
    let format = |error: io::Error| UnpackError::Format(error.to_string());
    let mut archive = Archive::new(reader);
    let mut left = limit_bytes;
    for (count, entry) in archive.entries().map_err(format)?.enumerate() {
        let mut entry = entry.map_err(format)?;
        let bytes = entry.path_bytes().into_owned();
        let Ok(name) = String::from_utf8(bytes) else { return Err(UnpackError::Name(entry.path_bytes().escape_ascii().to_string())) };
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            continue;
        }
        let short = name.strip_prefix("./").unwrap_or(&name).trim_end_matches('/');
        if kind.is_dir() && (short.is_empty() || short == ".") {
            continue;
        }
        let path = out.join(entry::safe(short).ok_or_else(|| UnpackError::Name(name.clone()))?);
        if count >= MAX_FILES {
            return Err(UnpackError::Bomb);
        }
        match kind {
            EntryType::Directory => fs::create_dir_all(&path)?,
            EntryType::Regular | EntryType::Continuous => {
                left = left.checked_sub(entry.size()).ok_or(UnpackError::Bomb)?;
                let is_executable = entry.header().mode().map_err(format)? & 0o111 != 0;
                write(&mut entry, &path, is_executable, &name)?;
            }
            _ => return Err(UnpackError::Kind(name)),
        }
    }
    Ok(())
}

fn write(entry: &mut impl Read, path: &Path, is_executable: bool, name: &str) -> Result<(), UnpackError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mode = if is_executable { 0o755 } else { 0o644 };
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = match opened {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(UnpackError::Twice(name.to_string())),
        other => other?,
    };
    io::copy(entry, &mut file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tar::{Builder, Header};

    use super::*;

    fn archive(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, kind, bytes) in entries {
            let mut header = Header::new_ustar();
            // As it is, however wrong.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(bytes.len() as u64);
            header.set_mode(0o755);
            header.set_cksum();
            builder.append(&header, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, UnpackError> {
        let space = tempfile::tempdir().unwrap();
        fs::write(space.path().join("archive"), bytes).unwrap();
        let out = space.path().join("out");
        fs::create_dir(&out).unwrap();
        unpack(&space.path().join("archive"), &out)?;
        let names = crate::base::files::walk(&out).unwrap();
        Ok(names.iter().map(|name| (name.to_string_lossy().into_owned(), fs::read(out.join(name)).unwrap())).collect())
    }

    #[test]
    fn tar_and_gzip_are_unpacked() {
        use EntryType::{Directory, Regular};
        let bytes = archive(&[("./", Directory, b""), ("./d/", Directory, b""), ("./d/x", Regular, b"one"), ("y", Regular, b"two")]);
        let expected = vec![("d/x".to_string(), b"one".to_vec()), ("y".to_string(), b"two".to_vec())];
        assert_eq!(unpacked(&bytes).unwrap(), expected);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&bytes).unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(unpacked(&gzip).unwrap(), expected);
        assert!(unpacked(&gzip[..gzip.len() / 2]).is_err());
        assert!(matches!(unpacked(&vec![b'x'; 2000]), Err(UnpackError::Format(_))));
    }

    #[test]
    fn what_reaches_outside_is_refused() {
        use EntryType::{Fifo, Link, Regular, Symlink};
        for name in ["../x", "/etc/x", "a/../../x", "a//b"] {
            assert!(matches!(unpacked(&archive(&[(name, Regular, b"x")])), Err(UnpackError::Name(_))), "{name}");
        }
        for kind in [Symlink, Link, Fifo] {
            assert!(matches!(unpacked(&archive(&[("x", kind, b"")])), Err(UnpackError::Kind(_))));
        }
        assert!(matches!(unpacked(&archive(&[("x", Regular, b"1"), ("x", Regular, b"2")])), Err(UnpackError::Twice(_))));
    }
}
