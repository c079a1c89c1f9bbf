//! Files named by their SHA-256, as OCI has them: copied and hashed in one pass.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::oci::BLOB_FOLDER;
use crate::base::{Cancel, files};

/// The SHA-256 as 64 lower-case hex digits, and the size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    pub sha256: String,
    pub size_bytes: u64,
}

impl Blob {
    pub fn digest(&self) -> String {
        format!("sha256:{}", self.sha256)
    }
}

/// Copies `from` into the layout's blob folder under its digest. The folder must be there.
pub fn add(layout: &Path, from: &mut impl Read, cancel: &Cancel) -> io::Result<Blob> {
    let folder = layout.join(BLOB_FOLDER);
    let mut temp = tempfile::Builder::new().prefix(".partial-").tempfile_in(&folder)?;
    let blob = copy(from, temp.as_file_mut(), cancel)?;
    // The umask must not reach the output: its folder is hashed with the files' modes.
    temp.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    temp.persist(folder.join(&blob.sha256)).map_err(|error| error.error)?;
    Ok(blob)
}

/// Copies everything and says what it was. Fails once the user has asked to stop.
pub fn copy(from: &mut impl Read, to: &mut impl Write, cancel: &Cancel) -> io::Result<Blob> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 17];
    let mut size_bytes = 0u64;
    loop {
        if cancel.is_cancelled() {
            return Err(io::Error::other("stopped"));
        }
        let n = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let chunk = buffer.get(..n).unwrap_or_default();
        hasher.update(chunk);
        to.write_all(chunk)?;
        size_bytes += n as u64;
    }
    Ok(Blob { sha256: hex(&hasher.finalize()), size_bytes })
}

/// What a file's contents are.
pub fn of_file(path: &Path, cancel: &Cancel) -> io::Result<Blob> {
    let file = files::open(path)?;
    // No more than there was when it was opened: a file may grow for ever.
    let size = file.metadata()?.len();
    copy(&mut file.take(size.saturating_add(1)), &mut io::sink(), cancel)
}

pub fn of_bytes(bytes: &[u8]) -> Blob {
    Blob { sha256: hex(&Sha256::digest(bytes)), size_bytes: bytes.len() as u64 }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_named_by_its_contents() {
        let space = tempfile::tempdir().unwrap();
        fs::create_dir_all(space.path().join(BLOB_FOLDER)).unwrap();
        let blob = add(space.path(), &mut &b"abc"[..], &Cancel::default()).unwrap();
        assert_eq!(blob.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(blob, of_bytes(b"abc"));
        assert_eq!(of_file(&space.path().join(BLOB_FOLDER).join(&blob.sha256), &Cancel::default()).unwrap(), blob);
    }

    #[test]
    fn a_stopped_copy_leaves_nothing_behind() {
        let space = tempfile::tempdir().unwrap();
        fs::create_dir_all(space.path().join(BLOB_FOLDER)).unwrap();
        let cancel = Cancel::default();
        cancel.cancel();
        assert!(add(space.path(), &mut &b"abc"[..], &cancel).is_err());
        assert!(crate::base::files::walk(space.path()).unwrap().is_empty());
    }
}
