//! `slmops diff A B`: two bundles or two reports, side by side.

use std::path::PathBuf;

use super::shell::{Shell, Stop};
use crate::base::Exit;

/// Compare two bundles or two reports: figures with their intervals, sizes, what changed
#[derive(Debug, clap::Args)]
pub struct Diff {
    #[arg(value_name = "A")]
    before: PathBuf,
    #[arg(value_name = "B")]
    after: PathBuf,
}

impl Diff {
    pub fn run(self, _shell: &Shell) -> Result<Exit, Stop> {
        Ok(Exit::Done)
    }
}
