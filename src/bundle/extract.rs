//! Unpacks a verified bundle into a folder of plain files.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::blob;
use super::read::{self, Finding, Layer, Summary};
use crate::base::{Cancel, files};

#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    #[error("the bundle is damaged: {}", first_of(.0))]
    Damaged(Vec<Finding>),
    #[error("`{}` already exists and is not empty", .0.display())]
    NotEmpty(PathBuf),
    #[error("cannot {doing} `{}`: {error}", path.display())]
    File { doing: &'static str, path: PathBuf, error: io::Error },
    /// Between the verification and the copy.
    #[error("`{0}` changed while it was read")]
    Changed(String),
}

/// Verifies the bundle and writes its files to `folder`, which appears whole or not at all. It must be absent or empty.
pub fn extract(bundle: &Path, folder: &Path) -> Result<Summary, ExtractError> {
    let summary = read::verify(bundle).map_err(ExtractError::Damaged)?;
    if fs::symlink_metadata(folder).is_ok() && !files::names(folder).map_err(failed("read", folder))?.is_empty() {
        return Err(ExtractError::NotEmpty(folder.to_path_buf()));
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(failed("create", parent))?;
    let stage = tempfile::Builder::new().prefix(".slmops-").tempdir_in(parent).map_err(failed("write into", parent))?;
    fs::set_permissions(stage.path(), fs::Permissions::from_mode(0o755)).map_err(failed("write into", parent))?;
    for layer in &summary.layers {
        copy(bundle, layer, stage.path())?;
    }
    // Renaming replaces an empty folder and nothing else.
    fs::rename(stage.path(), folder).map_err(failed("create", folder))?;
    files::sync_folder(parent).map_err(failed("sync", parent))?;
    Ok(summary)
}

fn copy(bundle: &Path, layer: &Layer, stage: &Path) -> Result<(), ExtractError> {
    let (from, to) = (bundle.join(layer.blob()), stage.join(&layer.path));
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(failed("create", parent))?;
    }
    let mut source = File::open(&from).map_err(failed("read", &from))?;
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&to).map_err(failed("create", &to))?;
    let blob = blob::copy(&mut source, &mut target, &Cancel::default()).map_err(failed("write", &to))?;
    target.sync_all().map_err(failed("sync", &to))?;
    if blob.sha256 == layer.sha256 { Ok(()) } else { Err(ExtractError::Changed(layer.path.clone())) }
}

fn first_of(findings: &[Finding]) -> String {
    let first = findings.first().map(ToString::to_string).unwrap_or_default();
    match findings.len() {
        0 | 1 => first,
        count => format!("{first} (and {} more)", count - 1),
    }
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> ExtractError + 'a {
    move |error| ExtractError::File { doing, path: path.to_path_buf(), error }
}
