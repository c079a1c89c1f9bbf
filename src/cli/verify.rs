//! `slmops verify BUNDLE`: is it whole, and does the manifest still make it?

use std::path::{Path, PathBuf};

use super::build::{How, listener};
use super::project::{Load, Project, there};
use super::shell::{Shell, Stop, usage};
use crate::base::{Exit, units};
use crate::bundle::{self, Summary};
use crate::deploy::{self, Place};
use crate::engine::{CacheUse, Engine};
use crate::plan::{InputRef, NodeId};
use crate::source::Fetch;
use crate::steps::Failure;
use crate::store::Store;

/// Check a bundle: every digest, size and path in it
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// The bundle's folder
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Build it again from the manifest, with an empty cache, and compare the digests
    #[arg(long)]
    rebuild: bool,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    load: Load,
}

impl Verify {
    pub fn run(self, shell: &Shell) -> Result<Exit, Stop> {
        let path = shell.directory.join(&self.bundle);
        if there(&path.join("oci-layout"))?.is_none() {
            let what = if there(&path)?.is_some() { "is not a bundle: it has no `oci-layout`" } else { "is not there" };
            return Err(usage(format!("`{}` {what}", self.bundle.display())));
        }
        let summary = match bundle::verify(&path) {
            Ok(summary) => summary,
            Err(findings) if let Some(cause) = bundle::cause(&findings) => {
                return Err(Failure::file("read the bundle", &path, &cause).into());
            }
            Err(findings) => {
                if shell.json {
                    shell.print_json(&serde_json::json!({"path": path, "valid": false, "findings": findings}))?;
                } else {
                    for finding in &findings {
                        shell.print(format!("wrong: {finding}"))?;
                    }
                }
                shell.say(format!("{}: do not use this bundle", self.bundle.display()));
                return Ok(Exit::Failed);
            }
        };
        let rebuilt = if self.rebuild { Some(self.rebuild(shell, &path, &summary)?) } else { None };
        let same = rebuilt.as_ref().is_none_or(|digest| *digest == summary.digest);
        if shell.json {
            shell
                .print_json(&serde_json::json!({"path": path, "valid": true, "digest": summary.digest, "size_bytes": summary.size_bytes,
                "rebuilt": rebuilt, "reproduced": rebuilt.as_ref().map(|_| same)}))?;
        } else {
            shell.print(&summary.digest)?;
        }
        let files = format!("{} files, {}", summary.layers.len(), units::show_size(summary.size_bytes));
        match &rebuilt {
            None => shell.say(format!("{}: whole ({files})", self.bundle.display())),
            Some(_) if same => shell.say(format!("{}: whole ({files}), and rebuilt bit for bit from the manifest", self.bundle.display())),
            Some(digest) => shell.say(format!("{}: whole, but the manifest makes {digest} now", self.bundle.display())),
        }
        Ok(if same { Exit::Done } else { Exit::Failed })
    }

    /// The digest that the manifest gives now, built in a store of its own.
    fn rebuild(&self, shell: &Shell, path: &Path, summary: &Summary) -> Result<String, Stop> {
        let project = Project::load_with(shell, &self.load, Fetch::Pinned)?;
        let node = self.bundle_step(&project, path, summary)?;
        // In the project's store: what a killed process leaves there is found by the next one.
        let own = Store::open(&project.cache).map_err(Failure::from)?;
        let space = own.scratch().map_err(Failure::from)?;
        let store = Store::open(&space.path().join("store")).map_err(Failure::from)?;
        let events = listener(shell, &project);
        let engine = Engine::new(store, events.clone());
        let options = self.how.options(&project, CacheUse::Reuse)?;
        let result = engine.build(&project.plan, &[node], &options);
        shell.written(events.trouble().map_or(Ok(()), Err))?;
        if result.exit() != Exit::Done {
            return Err(Failure { exit: result.exit(), ..Failure::new("the rebuild failed") }.into());
        }
        let folder = space.path().join("bundle");
        engine.copy_output(&project.plan, &result, &InputRef { node, output: None }, &folder, &options)?;
        let rebuilt = bundle::verify(&folder).map_err(|findings| {
            if let Some(cause) = bundle::cause(&findings) {
                return Failure::file("read the bundle", &folder, &cause);
            }
            let all: Vec<String> = findings.iter().map(ToString::to_string).collect();
            Failure::bug(format!("the rebuilt bundle is not right: {}", all.join("; ")))
        })?;
        Ok(rebuilt.digest)
    }

    /// The step that makes this bundle: by its place in `dist/`, else by its device.
    fn bundle_step(&self, project: &Project, path: &Path, summary: &Summary) -> Result<NodeId, Stop> {
        let dist = deploy::dist_folder(&project.root);
        let places = deploy::places(&project.plan).map_err(Failure::from)?;
        let path = path.canonicalize().ok();
        let is_here = |place: &&Place| path.is_some() && dist.join(&place.name).canonicalize().ok() == path;
        if let Some(place) = places.iter().find(is_here) {
            return Ok(place.node);
        }
        let description = &summary.description;
        let name = format!("{}-{}-{}", description.name, description.version, description.device.name);
        places.iter().find(|place| place.name == name).map(|place| place.node).ok_or_else(|| {
            let missing = Failure { exit: Exit::Usage, ..Failure::new(format!("no bundle of this manifest is `{name}`")) };
            missing.help("run this in the project that the bundle came from").into()
        })
    }
}
