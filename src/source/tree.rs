//! The digest of files as the lock file pins them: every path with its executable bit and content, sorted.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::base::{Digest, Hasher, files};

const FORMAT: &[u8] = b"slmops.tree.v1";

/// Of a file or a folder.
pub fn digest(path: &Path) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    hasher.part(FORMAT);
    if files::is_folder(path)? {
        files::visit(path, |file| entry(&mut hasher, path, file))?;
    } else {
        entry(&mut hasher, path, Path::new(""))?;
    }
    Ok(hasher.finish())
}

fn entry(hasher: &mut Hasher, root: &Path, relative: &Path) -> io::Result<()> {
    let path = if relative.as_os_str().is_empty() { root.to_path_buf() } else { root.join(relative) };
    let executable = std::fs::metadata(&path)?.permissions().mode() & 0o100 != 0;
    hasher.part(relative.as_os_str().as_encoded_bytes());
    hasher.part(&[u8::from(executable)]);
    hasher.part(Digest::of_file(&path)?.0.as_bytes());
    Ok(())
}
