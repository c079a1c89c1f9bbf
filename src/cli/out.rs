//! `slmops out STEP DIR`: a copy of a step's output.

use std::path::PathBuf;

use super::project::{Load, Project};
use super::shell::{Shell, Stop};
use crate::base::{Exit, output};
use crate::steps::Failure;

/// Copy a step's output to a folder
#[derive(Debug, clap::Args)]
pub struct Out {
    #[arg(value_name = "STEP")]
    step: String,
    /// The folder to make; nothing may be there yet
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    load: Load,
}

impl Out {
    pub fn run(self, shell: &Shell) -> Result<Exit, Stop> {
        output::check_folder(&shell.directory, &self.folder).map_err(Failure::from)?;
        let project = Project::load(shell, &self.load)?;
        let folder = output::folder(&shell.directory, &self.folder).map_err(Failure::from)?;
        project.copy_output(shell, &self.step, &folder.content())?;
        folder.place().map_err(Failure::from)?;
        shell.say(format!("copied to {}", self.folder.display()));
        Ok(Exit::Done)
    }
}
