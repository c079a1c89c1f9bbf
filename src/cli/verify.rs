//! `slmops verify BUNDLE`: is it whole, and does the manifest still make it?

use std::path::{Path, PathBuf};

use super::build::{How, listener};
use super::dist;
use super::project::{Load, Project};
use super::shell::{Shell, Stop, usage};
use crate::base::{Exit, units};
use crate::bundle::{self, Summary};
use crate::engine::{CacheUse, Engine, Existing};
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
        if !path.join("oci-layout").exists() {
            let what = if path.exists() { "is not a bundle: it has no `oci-layout`" } else { "is not there" };
            return Err(usage(format!("`{}` {what}", self.bundle.display())));
        }
        let summary = match bundle::verify(&path) {
            Ok(summary) => summary,
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
        let beside = project.cache.parent().unwrap_or(Path::new("."));
        let space = tempfile::Builder::new().prefix(".slmops-rebuild-").tempdir_in(beside);
        let space = space.map_err(|error| Failure::file("make a folder in", beside, &error))?;
        let store = Store::open(&space.path().join("store")).map_err(Failure::from)?;
        let engine = Engine::new(store, listener(shell, &project));
        let options = self.how.options(&project, CacheUse::Reuse)?;
        let result = engine.build(&project.plan, &[node], &options);
        if result.exit() != Exit::Done {
            return Err(Failure { exit: result.exit(), ..Failure::new("the rebuild failed") }.into());
        }
        let folder = space.path().join("bundle");
        engine.deliver(&project.plan, &result, &InputRef { node, output: None }, &folder, Existing::Refuse, &options)?;
        let rebuilt = bundle::verify(&folder).map_err(|findings| {
            let all: Vec<String> = findings.iter().map(ToString::to_string).collect();
            Failure::bug(format!("the rebuilt bundle is not right: {}", all.join("; ")))
        })?;
        Ok(rebuilt.digest)
    }

    /// The step that makes this bundle: by its place in `dist/`, else by its device.
    fn bundle_step(&self, project: &Project, path: &Path, summary: &Summary) -> Result<NodeId, Stop> {
        let places = dist::places(&project.plan, &project.root);
        let same = |place: &Path| place.canonicalize().ok().is_some_and(|place| path.canonicalize().is_ok_and(|path| path == place));
        if let Some((id, _)) = places.iter().find(|(_, place)| same(place)) {
            return Ok(*id);
        }
        let description = &summary.description;
        let name = format!("{}-{}-{}", description.name, description.version, description.device.name);
        let named = |place: &Path| place.file_name().is_some_and(|file| file.to_string_lossy() == name);
        places.iter().find(|(_, place)| named(place)).map(|(id, _)| *id).ok_or_else(|| {
            let missing = Failure { exit: Exit::Usage, ..Failure::new(format!("no bundle of this manifest is `{name}`")) };
            missing.help("run this in the project that the bundle came from").into()
        })
    }
}
