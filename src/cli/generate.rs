//! `slmops completions` and `slmops man`: made from the same description of the command line that parses it.

use std::path::PathBuf;

use super::shell::{Shell, Stop};
use crate::base::Exit;
use crate::steps::Failure;

/// Print shell completions: `slmops completions bash > /etc/bash_completion.d/slmops`
#[derive(Debug, clap::Args)]
pub struct Completions {
    #[arg(value_name = "SHELL")]
    shell: clap_complete::Shell,
}

/// Write man pages, one for each command
#[derive(Debug, clap::Args)]
pub struct Man {
    /// The folder to write them to; made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Completions {
    pub fn run(self, _shell: &Shell) -> Result<Exit, Stop> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut super::command(), "slmops", &mut text);
        std::io::Write::write_all(&mut std::io::stdout().lock(), &text)?;
        Ok(Exit::Done)
    }
}

impl Man {
    pub fn run(self, shell: &Shell) -> Result<Exit, Stop> {
        let folder = shell.directory.join(&self.folder);
        std::fs::create_dir_all(&folder).map_err(|error| Failure::file("make", &folder, &error))?;
        clap_mangen::generate_to(super::command(), &folder).map_err(|error| Failure::file("write man pages to", &folder, &error))?;
        shell.say(format!("man pages are in {}", self.folder.display()));
        Ok(Exit::Done)
    }
}
