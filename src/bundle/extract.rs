//! Unpacks a verified bundle into a folder of plain files.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::blob;
use super::read::{self, Finding, Layer, Summary};
use crate::base::staged::{self, StagedFolder};
use crate::base::{Cancel, files, output, trouble};

#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    #[error("the bundle is damaged: {}", first_of(.0))]
    Damaged(Vec<Finding>),
    #[error("`{}` already exists and is not an empty folder", .0.display())]
    NotEmpty(PathBuf),
    #[error("cannot {doing} `{}`: {error}", path.display())]
    File { doing: &'static str, path: PathBuf, error: io::Error },
    /// Between the verification and the copy.
    #[error("`{0}` changed while it was read")]
    Changed(String),
}

impl ExtractError {
    /// The error of the system behind it, if it is not the bundle's fault.
    pub fn cause(&self) -> Option<io::Error> {
        match self {
            ExtractError::File { error, .. } => Some(trouble::copy(error)),
            ExtractError::Damaged(findings) => read::cause(findings),
            ExtractError::NotEmpty(_) | ExtractError::Changed(_) => None,
        }
    }
}

/// Verifies the bundle and writes its files to `folder`, which appears whole or not at all. It must be absent or empty.
pub fn extract(bundle: &Path, folder: &Path) -> Result<Summary, ExtractError> {
    let summary = read::verify(bundle).map_err(ExtractError::Damaged)?;
    let is_there = fs::symlink_metadata(folder).is_ok();
    if is_there && !is_empty_folder(folder) {
        return Err(ExtractError::NotEmpty(folder.to_path_buf()));
    }
    let parent = files::parent(folder);
    staged::make_folders(parent).map_err(failed("create", parent))?;
    let stage = StagedFolder::new_in(parent).map_err(failed("write into", parent))?;
    let content = stage.path().join("content");
    fs::create_dir(&content).map_err(failed("create", &content))?;
    for layer in &summary.layers {
        copy(bundle, layer, &content)?;
    }
    staged::sync_tree(&content).map_err(failed("sync", &content))?;
    // Renaming replaces an empty folder and nothing else.
    let placed = if is_there { fs::rename(&content, folder) } else { output::rename_new(&content, folder) };
    placed.map_err(failed("create", folder))?;
    // Its end is made durable together with the new name.
    drop(stage);
    files::sync_folder(parent).map_err(failed("sync", parent))?;
    Ok(summary)
}

fn is_empty_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) && files::names(path).is_ok_and(|names| names.is_empty())
}

fn copy(bundle: &Path, layer: &Layer, stage: &Path) -> Result<(), ExtractError> {
    let (from, to) = (bundle.join(layer.blob()), stage.join(&layer.path));
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(failed("create", parent))?;
    }
    let mut source = files::open(&from).map_err(failed("read", &from))?;
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&to).map_err(failed("create", &to))?;
    let blob = blob::copy(&mut source, &mut target, &Cancel::default()).map_err(failed("write", &to))?;
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
