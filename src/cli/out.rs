//! `slmops out STEP DIR`: a copy of a step's output.

use std::path::PathBuf;

use super::project::{Load, Project};
use super::shell::{Shell, Stop, usage};
use crate::base::Exit;

/// Copy a step's output to a folder
#[derive(Debug, clap::Args)]
pub struct Out {
    #[arg(value_name = "STEP")]
    step: String,
    /// Must not be there yet
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    load: Load,
}

impl Out {
    pub fn run(self, shell: &Shell) -> Result<Exit, Stop> {
        let folder = shell.directory.join(&self.folder);
        if folder.symlink_metadata().is_ok() {
            return Err(usage(format!("`{}` is already there", self.folder.display())));
        }
        let project = Project::load(shell, &self.load)?;
        project.materialise(shell, &self.step, &folder)?;
        shell.say(format!("copied to {}", self.folder.display()));
        Ok(Exit::Done)
    }
}
