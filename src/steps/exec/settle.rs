//! Brings what a command left behind to two modes, without extended attributes, so that neither its umask nor its tricks reach the output. Nobody else writes to
//! the folder any more: every process of the sandbox has ended.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::io::Errno;

use super::limits;
use crate::base::{Cancel, files};
use crate::sandbox::{FolderLimit, Reached};
use crate::steps::Failure;

const PLAIN: u32 = 0o644;
const EXECUTABLE: u32 = 0o755;
/// Of folders within folders: a path to what is deeper fits no system call.
const MAX_DEPTH: usize = 100;
/// A path that is longer cannot be opened in one go, wherever the store lies.
const MAX_PATH_BYTES: usize = 2000;

/// Every folder and every program gets mode 755, every other file 644; what is neither is refused, and so is more than the limit. The folder lies in one that is
/// closed to others, so that nobody meets a setuid program before its mode is gone.
pub fn settle(limit: &FolderLimit, cancel: &Cancel) -> Result<(), Failure> {
    let folder = limit.folder.as_path();
    // The command may have closed the folder even to us.
    fs::set_permissions(folder, fs::Permissions::from_mode(EXECUTABLE))
        .map_err(|error| Failure::file("set the mode of", folder, &error))?;
    let (mut bytes, mut entries) = (0u64, 0u64);
    let mut open = vec![(folder.to_path_buf(), 0)];
    while let Some((path, depth)) = open.pop() {
        let failed = |error: io::Error| Failure::file("read", &path, &error);
        for name in files::names(&path).map_err(failed)? {
            if cancel.is_cancelled() {
                return Err(Failure::cancelled());
            }
            let inner = path.join(name);
            check_depth(folder, &inner, depth)?;
            let (size_bytes, is_folder) = one(folder, &inner)?;
            bytes = bytes.saturating_add(size_bytes);
            entries += 1;
            if bytes > limit.max_bytes {
                return Err(limits::failure(&Reached::FolderBytes { shown: limit.shown.clone(), limit_bytes: limit.max_bytes }));
            }
            if entries > limit.max_entries {
                return Err(limits::failure(&Reached::FolderEntries { shown: limit.shown.clone(), limit: limit.max_entries }));
            }
            if is_folder {
                open.push((inner, depth + 1));
            }
        }
    }
    Ok(())
}

/// Settles one entry; says how many bytes it has, and whether it is a folder.
fn one(folder: &Path, path: &Path) -> Result<(u64, bool), Failure> {
    let data = fs::symlink_metadata(path).map_err(|error| Failure::file("read", path, &error))?;
    let mode = data.permissions().mode();
    if data.is_dir() {
        set_mode(path, mode, EXECUTABLE)?;
    } else if data.is_file() {
        set_mode(path, mode, if mode & 0o111 == 0 { PLAIN } else { EXECUTABLE })?;
    } else {
        return Err(Failure::new(format!("the command left `{}`, which is neither a file nor a folder", shown(folder, path)))
            .help("outputs hold files and folders only; copy what a link points to"));
    }
    drop_attributes(path).map_err(|error| Failure::file("remove extended attributes of", path, &error))?;
    Ok(if data.is_dir() { (0, true) } else { (data.len(), false) })
}

fn check_depth(folder: &Path, path: &Path, depth: usize) -> Result<(), Failure> {
    let inner = path.strip_prefix(folder).unwrap_or(path);
    if depth < MAX_DEPTH && inner.as_os_str().len() <= MAX_PATH_BYTES {
        return Ok(());
    }
    let start: String = inner.to_string_lossy().chars().take(40).collect();
    let message = format!(
        "the command nested folders too deeply: `/out/{start}…` leads through more than {MAX_DEPTH} folders or has more than {MAX_PATH_BYTES} bytes"
    );
    Err(Failure::new(message).help("pack deep trees into one file, with `tar` for example"))
}

/// As the command knew it.
fn shown(folder: &Path, path: &Path) -> String {
    format!("/out/{}", path.strip_prefix(folder).unwrap_or(path).display())
}

fn set_mode(path: &Path, old: u32, new: u32) -> Result<(), Failure> {
    if old & 0o7777 == new {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(new)).map_err(|error| Failure::file("set the mode of", path, &error))
}

/// The sandbox lets nobody set any; what is there came from the folder around it, as default access lists do. The system's own are not ours to remove.
fn drop_attributes(path: &Path) -> io::Result<()> {
    let mut names = vec![0u8; 4096];
    let length = match rustix::fs::llistxattr(path, names.as_mut_slice()) {
        Ok(length) => length,
        Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let listed = names.get(..length).unwrap_or_default().split(|byte| *byte == 0).filter(|name| !name.is_empty());
    for name in listed.filter(|name| !name.starts_with(b"security.") || *name == b"security.capability") {
        match rustix::fs::lremovexattr(path, name) {
            Ok(()) | Err(Errno::NODATA | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
