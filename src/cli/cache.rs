//! `slmops cache`: what is in the store, whether it is whole, making room, taking results elsewhere.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::project::{Load, Project, cache_folder, find_manifest};
use super::shell::{Shell, Stop, usage};
use crate::base::{Diagnostic, Digest, Exit, units};
use crate::engine::{Prediction, Silence};
use crate::report::Table;
use crate::steps::Failure;
use crate::store::{GcRequest, Store};

/// Look after the store: stat, verify, gc, export, import
#[derive(Debug, clap::Args)]
pub struct Cache {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    load: Load,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Count what is there
    Stat,
    /// Read everything; what is damaged is set aside and built again when it is needed
    Verify,
    /// Throw away what nobody needs
    Gc(Gc),
    /// Write the cached results of this project to one file
    Export {
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Steps, variants or bundles and all that they need [default: everything of the project that is cached]
        #[arg(value_name = "TARGET")]
        targets: Vec<String>,
    },
    /// Take in the results from a file of `export`; every byte is checked
    Import {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Gc {
    /// Keep what was used within this time, as in `30d`
    #[arg(long, value_name = "AGE")]
    max_age: Option<String>,
    /// Keep the most recently used results that fit, as in `10GiB`
    #[arg(long, value_name = "SIZE")]
    max_size: Option<String>,
    /// Throw away the last results of projects, too
    #[arg(long)]
    all: bool,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

impl Cache {
    pub fn run(self, shell: &Shell) -> Result<Exit, Stop> {
        let folder = self.folder(shell)?;
        if !matches!(self.command, Command::Import { .. }) && !folder.join("VERSION").exists() {
            let help = "a build makes one in `cache` beside the manifest, or where `--cache` and `$SLMOPS_CACHE` say";
            return Err(Stop::Diagnostics(vec![Diagnostic::error(format!("there is no store in `{}`", folder.display())).help(help)]));
        }
        match &self.command {
            Command::Stat => stat(shell, &folder),
            Command::Verify => verify(shell, &folder),
            Command::Gc(gc) => gc.run(shell, &folder),
            Command::Export { file, targets } => self.export(shell, file, targets),
            Command::Import { file } => import(shell, &folder, file),
        }
    }

    /// The store, also where there is no manifest if it is named.
    fn folder(&self, shell: &Shell) -> Result<PathBuf, Stop> {
        if self.load.cache.is_some() || shell.cache.is_some() {
            return Ok(cache_folder(shell, &self.load, &shell.directory));
        }
        let root = find_manifest(&shell.directory)?;
        Ok(cache_folder(shell, &self.load, &root))
    }

    fn export(&self, shell: &Shell, file: &Path, targets: &[String]) -> Result<Exit, Stop> {
        let project = Project::load(shell, &self.load)?;
        let engine = project.engine(Arc::new(Silence))?;
        let predictions = engine.predict(&project.plan, &project.id())?;
        let names: Vec<&str> = targets.iter().map(String::as_str).collect();
        let chosen = if names.is_empty() { project.plan.ids().collect() } else { project.plan.select(&names)?.needed };
        let keys: BTreeSet<Digest> = chosen
            .iter()
            .filter_map(|id| match predictions.get(id.index()) {
                Some(Prediction::Cached { key, .. }) => Some(*key),
                _ => None,
            })
            .collect();
        let path = shell.directory.join(file);
        let parent = path.parent().unwrap_or(Path::new("."));
        let failed = |error: std::io::Error| Failure::file("write", &path, &error);
        let mut temp = tempfile::NamedTempFile::new_in(parent).map_err(failed)?;
        engine.store().export(&keys, BufWriter::new(temp.as_file_mut())).map_err(Failure::from)?;
        temp.as_file_mut().flush().and_then(|()| temp.as_file().sync_all()).map_err(failed)?;
        temp.persist(&path).map_err(|error| failed(error.error))?;
        shell.say(format!("{} results are in {}", keys.len(), file.display()));
        Ok(Exit::Done)
    }
}

fn stat(shell: &Shell, folder: &Path) -> Result<Exit, Stop> {
    let store = Store::open(folder).map_err(Failure::from)?;
    let found = store.contents().map_err(Failure::from)?;
    if shell.json {
        shell.print_json(&serde_json::json!({"path": folder, "objects": found.objects, "object_bytes": found.object_bytes,
            "actions": found.actions, "action_bytes": found.action_bytes, "checkpoints": found.checkpoints,
            "checkpoint_bytes": found.checkpoint_bytes, "quarantined": found.quarantined, "projects": found.projects}))?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(["", "count", "size"]).right(&[1, 2]);
    for (what, count, bytes) in [
        ("objects", found.objects, Some(found.object_bytes)),
        ("actions", found.actions, Some(found.action_bytes)),
        ("checkpoints", found.checkpoints, Some(found.checkpoint_bytes)),
        ("quarantined", found.quarantined, None),
        ("projects", found.projects, None),
    ] {
        table.row([what.to_string(), count.to_string(), bytes.map(units::show_size).unwrap_or_default()]);
    }
    shell.print(format!("{}\n{table}", folder.display()))?;
    Ok(Exit::Done)
}

fn verify(shell: &Shell, folder: &Path) -> Result<Exit, Stop> {
    let store = Store::open(folder).map_err(Failure::from)?;
    let audit = store.audit(&mut |_| {}).map_err(Failure::from)?;
    if shell.json {
        let damages: Vec<String> = audit.damages.iter().map(ToString::to_string).collect();
        shell.print_json(&serde_json::json!({"objects": audit.objects, "object_bytes": audit.object_bytes, "actions": audit.actions,
            "damages": damages}))?;
    } else {
        for damage in &audit.damages {
            shell.print(format!("damaged: {damage}"))?;
        }
    }
    let read = format!("read {} objects ({}) and {} actions", audit.objects, units::show_size(audit.object_bytes), audit.actions);
    if audit.damages.is_empty() {
        shell.say(format!("{read}: all is right"));
        return Ok(Exit::Done);
    }
    shell.say(format!("{read}: {} damaged, set aside; the next build that needs them makes them again", audit.damages.len()));
    Ok(Exit::Failed)
}

impl Gc {
    fn run(&self, shell: &Shell, folder: &Path) -> Result<Exit, Stop> {
        let store = Store::open_alone(folder).map_err(Failure::from)?;
        let roots = match self.all {
            true => Vec::new(),
            false => store.projects().map_err(Failure::from)?.into_keys().filter(|root| Path::new(root).exists()).collect(),
        };
        let plan = store.plan_gc(&self.request(roots)?).map_err(Failure::from)?;
        if shell.json {
            let items: Vec<_> =
                plan.items.iter().map(|i| serde_json::json!({"name": i.name, "size_bytes": i.size_bytes, "why": i.why})).collect();
            shell.print_json(&serde_json::json!({"items": items, "freed_bytes": plan.freed_bytes, "kept_bytes": plan.kept_bytes}))?;
        } else if self.dry_run {
            shell.print(plan.to_string())?;
        }
        if self.dry_run {
            return Ok(Exit::Done);
        }
        store.perform_gc(&plan).map_err(Failure::from)?;
        let (freed, kept) = (units::show_size(plan.freed_bytes), units::show_size(plan.kept_bytes));
        shell.say(format!("freed {freed}; {kept} in {} actions stay", plan.kept_actions));
        Ok(Exit::Done)
    }

    fn request(&self, roots: Vec<String>) -> Result<GcRequest, Stop> {
        let age = |text: &String| units::parse_duration(text).ok_or_else(|| usage(format!("`{text}` is not an age: write `30d` or `12h`")));
        let size = |text: &String| units::parse_size(text).ok_or_else(|| usage(format!("`{text}` is not a size: write `10GiB`")));
        let max_age: Option<Duration> = self.max_age.as_ref().map(age).transpose()?;
        Ok(GcRequest { roots, max_age, max_size_bytes: self.max_size.as_ref().map(size).transpose()? })
    }
}

fn import(shell: &Shell, folder: &Path, file: &Path) -> Result<Exit, Stop> {
    let path = shell.directory.join(file);
    let opened = File::open(&path).map_err(|error| Failure { exit: Exit::Usage, ..Failure::file("open", &path, &error) })?;
    let store = Store::open(folder).map_err(Failure::from)?;
    let imported = store.import(BufReader::new(opened)).map_err(|error| {
        let failure = Failure::from(error);
        Failure { message: format!("cannot take in `{}`: {}", file.display(), failure.message), ..failure }
    })?;
    shell.say(format!("took in {} results with {} objects", imported.actions, imported.objects));
    for key in &imported.differing {
        shell.say(format!("warning: action {} has another result here, which stays", key.short()));
    }
    Ok(Exit::Done)
}
