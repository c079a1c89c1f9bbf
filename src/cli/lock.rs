//! `slmops lock`: pins remote sources.

use super::project::{Load, cache_folder, find_manifest, plan_options};
use super::shell::{Shell, Stop};
use crate::base::Exit;
use crate::manifest;
use crate::plan;
use crate::source::Fetch;
use crate::steps::Failure;
use crate::store::Store;

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
        let cache = cache_folder(shell, &self.load, &root)?;
        let options = plan_options(shell, &self.load, &cache, Fetch::Pinned);
        if self.check {
            plan::check_locked(&root, &options)?;
            shell.say("slmops.lock fits the manifest");
            return Ok(Exit::Done);
        }
        Store::claim(&cache).map_err(Failure::from)?;
        let old = manifest::Lock::load(&root)?;
        let lock = plan::lock(&root, &options)?;
        for (name, pin) in &lock.sources {
            match old.sources.get(name) {
                None => shell.say(format!("{name} is now pinned to {}", short(&pin.rev))),
                Some(before) if before.rev != pin.rev => {
                    shell.say(format!("{name} was {}, is now {}", short(&before.rev), short(&pin.rev)));
                }
                Some(_) => {}
            }
        }
        match lock.sources.len() {
            0 => shell.say("no source is remote: there is nothing to pin"),
            1 => shell.say("1 source is pinned in slmops.lock"),
            n => shell.say(format!("{n} sources are pinned in slmops.lock")),
        }
        Ok(Exit::Done)
    }
}

/// Enough of a commit or a digest to tell it by eye.
fn short(rev: &str) -> &str {
    let digits = rev.strip_prefix("sha256:").unwrap_or(rev);
    digits.get(..12).unwrap_or(digits)
}
