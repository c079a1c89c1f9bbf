//! `slmops completions` and `slmops man`: made from the same description of the command line that parses it.

use std::path::PathBuf;

use super::shell::{Shell, Stop};
use crate::base::output::Existing;
use crate::base::{Exit, output, staged};
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
    /// Replace pages that are there with other contents
    #[arg(long)]
    force: bool,
}

impl Completions {
    pub fn run(self, shell: &Shell) -> Result<Exit, Stop> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut super::command(), "slmops", &mut text);
        shell.print_bytes(&text)?;
        Ok(Exit::Done)
    }
}

impl Man {
    pub fn run(self, shell: &Shell) -> Result<Exit, Stop> {
        let existing = if self.force { Existing::Replace } else { Existing::Refuse };
        let mut outputs = Vec::new();
        for (name, text) in pages()? {
            let path = self.folder.join(name);
            // A page that is there already is not in the way.
            if output::file(&shell.directory, &path, Existing::Replace).is_ok_and(|output| output.holds(&text)) {
                continue;
            }
            let output = output::file(&shell.directory, &path, existing);
            outputs.push((output.map_err(|error| Failure::from(error).help("`--force` replaces pages"))?, text));
        }
        let folder = shell.directory.join(&self.folder);
        staged::make_folders(&folder).map_err(|error| Failure::file("make", &folder, &error))?;
        for (output, text) in outputs {
            output.write_all(&text).map_err(Failure::from)?;
        }
        shell.say(format!("man pages are in {}", self.folder.display()));
        Ok(Exit::Done)
    }
}

/// The pages of all commands, by file name.
fn pages() -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut command = super::command().disable_help_subcommand(true);
    command.build();
    let mut open = vec![command];
    let mut pages = Vec::new();
    while let Some(command) = open.pop() {
        open.extend(command.get_subcommands().filter(|inner| !inner.is_hide_set()).cloned());
        let page = clap_mangen::Man::new(command);
        let mut text = Vec::new();
        page.render(&mut text).map_err(|error| Failure::bug(format!("cannot make a man page: {error}")))?;
        pages.push((page.get_filename(), text));
    }
    pages.sort();
    Ok(pages)
}
