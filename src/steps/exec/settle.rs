//! Brings what a command left behind to two modes, so that neither its umask nor its tricks reach the output.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::base::files;
use crate::steps::Failure;

/// What to do with what is neither a file nor a folder: links lead out of the output, pipes and sockets hold nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odd {
    Refuse,
    Keep,
}

const PLAIN: u32 = 0o644;
const EXECUTABLE: u32 = 0o755;

/// Every folder and every program gets mode 755, every other file 644.
pub fn settle(folder: &Path, odd: Odd) -> Result<(), Failure> {
    let mut open = vec![folder.to_path_buf()];
    while let Some(path) = open.pop() {
        let failed = |error: io::Error| Failure::file("read", &path, &error);
        let data = fs::symlink_metadata(&path).map_err(failed)?;
        let mode = data.permissions().mode();
        if data.is_dir() {
            set_mode(&path, mode, EXECUTABLE)?;
            open.extend(files::names(&path).map_err(failed)?.into_iter().map(|name| path.join(name)));
        } else if data.is_file() {
            set_mode(&path, mode, if mode & 0o111 == 0 { PLAIN } else { EXECUTABLE })?;
        } else if odd == Odd::Refuse {
            let shown = path.strip_prefix(folder).unwrap_or(&path).display();
            return Err(Failure::new(format!("the command left `/out/{shown}`, which is neither a file nor a folder"))
                .help("outputs hold files and folders only; copy what a link points to"));
        }
    }
    Ok(())
}

fn set_mode(path: &Path, old: u32, new: u32) -> Result<(), Failure> {
    if old & 0o7777 == new {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(new)).map_err(|error| Failure::file("set the mode of", path, &error))
}
