//! `slmops lock`: pins remote sources.

use super::project::{Load, cache_folder, find_manifest, plan_options};
use super::shell::{Shell, Stop};
use crate::base::Exit;
use crate::plan;
use crate::source::Fetch;

/// Pin remote sources in slmops.lock
#[derive(Debug, clap::Args)]
pub struct Lock {
    /// Change nothing; fail if the lock does not fit the manifest
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    load: Load,
}

impl Lock {
    pub fn run(self, shell: &Shell) -> Result<Exit, Stop> {
        let root = find_manifest(&shell.directory)?;
        let cache = cache_folder(shell, &self.load, &root);
        let options = plan_options(&self.load, &cache, Fetch::Pinned);
        if self.check {
            plan::check_locked(&root, &options)?;
            shell.say("slmops.lock fits the manifest");
            return Ok(Exit::Done);
        }
        let lock = plan::lock(&root, &options)?;
        match lock.sources.len() {
            0 => shell.say("no source is remote: there is nothing to pin"),
            1 => shell.say("1 source is pinned in slmops.lock"),
            n => shell.say(format!("{n} sources are pinned in slmops.lock")),
        }
        Ok(Exit::Done)
    }
}
