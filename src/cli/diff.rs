//! `slmops diff A B`: two bundles or two evaluations, side by side.

use std::path::{Path, PathBuf};

use super::project::{Load, Project, there};
use super::shell::{Shell, Stop};
use crate::base::Exit;
use crate::steps::Failure;
use crate::steps::bundle::diff;

/// Compare two bundles or two evaluations: figures with their intervals, sizes, and what changed
#[derive(Debug, clap::Args)]
pub struct Diff {
    /// The path of a bundle or of an evaluation's folder, or a step that is built
    #[arg(value_name = "A")]
    before: String,
    #[arg(value_name = "B")]
    after: String,
    #[command(flatten)]
    load: Load,
}

impl Diff {
    pub fn run(self, shell: &Shell) -> Result<Exit, Stop> {
        let space = tempfile::tempdir().map_err(|error| Failure::io("cannot make a temporary folder", &error))?;
        let before = diff::open(&self.locate(shell, &self.before, &space.path().join("a"))?).map_err(Failure::of_user)?;
        let after = diff::open(&self.locate(shell, &self.after, &space.path().join("b"))?).map_err(Failure::of_user)?;
        let diff = diff::diff(&before, &after);
        if shell.json {
            shell.print_json(&serde_json::to_value(&diff).unwrap_or_default())?;
        } else {
            shell.print(diff::table(&diff).trim_end())?;
        }
        Ok(Exit::Done)
    }

    fn locate(&self, shell: &Shell, what: &str, space: &Path) -> Result<PathBuf, Stop> {
        let path = shell.directory.join(what);
        if there(&path)?.is_some() {
            return Ok(path);
        }
        Project::load(shell, &self.load)?.copy_output(shell, what, space)?;
        Ok(space.to_path_buf())
    }
}
