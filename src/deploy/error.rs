//! Why a delivery was refused or failed.

use std::io;
use std::path::{Path, PathBuf};

use crate::base::Exit;
use crate::steps::Failure;

#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// `dist` or a bundle's place is something that no bundle can be put into.
    #[error("`{}` is {what}, not a folder", path.display())]
    NotAFolder { path: PathBuf, what: &'static str },
    #[error("`{}` was not delivered by slmops", .0.display())]
    Foreign(PathBuf),
    #[error("`{}` was changed after slmops delivered it ({why})", path.display())]
    Changed { path: PathBuf, why: String },
    /// A bundle that must not exist, but is not ours to remove.
    #[error("`{}` {reason}, but it was left there: {why}", path.display())]
    Rejected { path: PathBuf, reason: &'static str, why: String },
    #[error("another slmops delivers to `{}`", .0.display())]
    Busy(PathBuf),
    #[error("the record of deliveries `{}` {why}", path.display())]
    Record { path: PathBuf, why: String },
    #[error("the record of deliveries `{}` was written by a newer slmops (format {found}, this slmops knows {known})", path.display())]
    NewerRecord { path: PathBuf, found: u64, known: u64 },
    #[error("bundles `{first}` and `{second}` belong into the same folder `{}`", path.display())]
    SamePlace { first: String, second: String, path: PathBuf },
    #[error("cannot {doing} `{}`: {error}", path.display())]
    Io { doing: &'static str, path: PathBuf, error: io::Error },
    /// Whoever was to fill the folder could not.
    #[error("{0}")]
    Other(Failure),
}

impl DeployError {
    pub fn io<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> DeployError + 'a {
        move |error| DeployError::Io { doing, path: path.to_path_buf(), error }
    }
}

pub type Result<T> = std::result::Result<T, DeployError>;

impl From<Failure> for DeployError {
    fn from(failure: Failure) -> DeployError {
        DeployError::Other(failure)
    }
}

impl From<DeployError> for Failure {
    fn from(error: DeployError) -> Failure {
        let usage = |help: &str| Failure { exit: Exit::Usage, ..Failure::new(error.to_string()) }.help(help);
        match error {
            DeployError::Other(failure) => failure,
            DeployError::Io { doing, path, error } => Failure::file(doing, &path, &error),
            DeployError::NotAFolder { .. } => usage("bundles are delivered there: move it away, or make it a folder"),
            DeployError::Foreign(_) => usage("a bundle belongs there: move it away or delete it, then build again"),
            DeployError::Changed { .. } => usage("move it away if you need it, or delete it; then build again"),
            DeployError::Rejected { .. } => usage("do not use it: keep what you need of it elsewhere, and delete it"),
            DeployError::SamePlace { .. } => usage("give one of them, its device or its project another name"),
            DeployError::Record { .. } => {
                usage("delete it; bundles that are not equal to what is delivered then have to be moved away by hand")
            }
            DeployError::NewerRecord { .. } => Failure::environment(error.to_string()).help("use that slmops, or move the folder away"),
            DeployError::Busy(_) => {
                Failure::environment(error.to_string()).help("the store has the results: build again once it has ended")
            }
        }
    }
}
