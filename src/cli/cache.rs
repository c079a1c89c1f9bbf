//! `slmops cache`: what is in the store, whether it is whole, making room, taking results elsewhere.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::project::{Load, Project, cache_folder, find_manifest, there};
use super::shell::{Shell, Stop, usage};
use crate::base::output::{Existing, OutputError};
use crate::base::{Diagnostic, Digest, Exit, output, units};
use crate::engine::{Prediction, Silence};
use crate::report::Table;
use crate::steps::Failure;
use crate::store::{GcItem, GcPlan, GcProject, GcRequest, Store, StoreError};

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
        /// `-` is stdout; a FIFO or device is written into
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Replace FILE if it exists
        #[arg(long)]
        force: bool,
        /// Steps, variants or bundles and all that they need [default: everything of the project that is cached]
        #[arg(value_name = "TARGET")]
        targets: Vec<String>,
    },
    /// Take in the results from a file of `export`; every byte is checked
    Import {
        /// `-` is stdin
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
    /// Delete the last results of all projects, too
    #[arg(long)]
    all: bool,
    /// Delete the last results of projects whose folders are not visible from here, too. They may be on another machine or mount, or another user's
    #[arg(long)]
    forget_missing: bool,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

impl Cache {
    pub fn run(self, shell: &Shell) -> Result<Exit, Stop> {
        let folder = self.folder(shell)?;
        if !matches!(self.command, Command::Import { .. }) && there(&folder.join("VERSION"))?.is_none() {
            let help = "a build makes one in `cache` beside the manifest, or where `--cache` and `$SLMOPS_CACHE` say";
            return Err(Stop::Diagnostics(vec![Diagnostic::error(format!("there is no store in `{}`", folder.display())).help(help)]));
        }
        match &self.command {
            Command::Stat => stat(shell, &folder),
            Command::Verify => verify(shell, &folder),
            Command::Gc(gc) => gc.run(shell, &folder),
            Command::Export { file, force, targets } => {
                let existing = if *force { Existing::Replace } else { Existing::Refuse };
                self.export(shell, file, existing, targets)
            }
            Command::Import { file } => import(shell, &folder, file),
        }
    }

    /// The store, also where there is no manifest if it is named.
    fn folder(&self, shell: &Shell) -> Result<PathBuf, Stop> {
        if self.load.cache.is_some() || shell.cache.is_some() {
            return Ok(cache_folder(shell, &self.load, &shell.directory)?);
        }
        let root = find_manifest(&shell.directory)?;
        Ok(cache_folder(shell, &self.load, &root)?)
    }

    fn export(&self, shell: &Shell, file: &Path, existing: Existing, targets: &[String]) -> Result<Exit, Stop> {
        let output = output::file(&shell.directory, file, existing).map_err(may_force)?;
        if output.is_stdout() && io::stdout().is_terminal() {
            return Err(usage("an archive is not for a terminal: name a file, or send stdout elsewhere"));
        }
        let project = Project::load(shell, &self.load)?;
        let engine = project.engine(Arc::new(Silence))?;
        let names: Vec<&str> = targets.iter().map(String::as_str).collect();
        let chosen = if names.is_empty() { project.plan.ids().collect() } else { project.plan.select(&names)?.needed };
        let predictions = engine.predict(&project.plan, &chosen, &project.id())?;
        let keys: BTreeSet<Digest> = predictions
            .values()
            .filter_map(|prediction| match prediction {
                Prediction::Cached { key, .. } => Some(*key),
                _ => None,
            })
            .collect();
        output.write(|to| engine.store().export(&keys, to).map_err(Failure::from))?;
        shell.say(format!(
            "{} results are in {}",
            keys.len(),
            if file == Path::new("-") { "stdout".into() } else { file.display().to_string() }
        ));
        Ok(Exit::Done)
    }
}

/// Says what replaces a file that is there.
fn may_force(error: OutputError) -> Failure {
    let exists = matches!(error, OutputError::Exists(_));
    let failure = Failure::from(error);
    if exists { failure.help("`--force` replaces it; `-` is stdout") } else { failure }
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
            "damages": damages, "unread": audit.unread}))?;
    } else {
        for damage in &audit.damages {
            shell.print(format!("damaged: {damage}"))?;
        }
        for unread in &audit.unread {
            shell.print(format!("not checked: {unread}"))?;
        }
    }
    let read = format!("read {} objects ({}) and {} actions", audit.objects, units::show_size(audit.object_bytes), audit.actions);
    let exit = if audit.unread.is_empty() { Exit::Done } else { Exit::Environment };
    let read = match audit.unread.len() {
        0 => read,
        n => format!("{read}, of which {n} could not be read"),
    };
    match audit.damages.len() {
        0 if exit == Exit::Done => shell.say(format!("{read}: no damage found")),
        0 => shell.say(format!("{read}: no damage found in what could be read")),
        n if store.is_read_only() => shell.say(format!("{read}: {n} damaged; the store is read-only, so they stay where they are")),
        n => shell.say(format!("{read}: {n} damaged, set aside; the next build that needs them makes them again")),
    }
    Ok(if audit.damages.is_empty() { exit } else { exit.worse(Exit::Failed) })
}

impl Gc {
    fn run(&self, shell: &Shell, folder: &Path) -> Result<Exit, Stop> {
        let store = Store::open_alone(folder).map_err(Failure::from)?;
        let plan = store.plan_gc(&self.request(&store)?).map_err(Failure::from)?;
        if shell.json {
            shell.print_json(&gc_json(&plan))?;
        } else if self.dry_run {
            shell.print(plan.to_string())?;
        }
        if self.dry_run {
            return Ok(Exit::Done);
        }
        store.perform_gc(&plan).map_err(Failure::from)?;
        for project in &plan.projects {
            shell.say(project.to_string());
        }
        store.take_warnings().into_iter().for_each(|warning| shell.say(format!("warning: {warning}")));
        let (freed, kept) = (units::show_size(plan.freed_bytes), units::show_size(plan.kept_bytes));
        shell.say(format!("freed {freed}; {kept} in {} actions stay", plan.kept_actions));
        Ok(Exit::Done)
    }

    fn request(&self, store: &Store) -> Result<GcRequest, Stop> {
        let age = |text: &String| units::parse_duration(text).ok_or_else(|| usage(format!("`{text}` is not an age: write `30d` or `12h`")));
        let size = |text: &String| units::parse_size(text).ok_or_else(|| usage(format!("`{text}` is not a size: write `10GiB`")));
        let max_age: Option<Duration> = self.max_age.as_ref().map(age).transpose()?;
        let max_size_bytes = self.max_size.as_ref().map(size).transpose()?;
        let mut request = GcRequest { max_age, max_size_bytes, ..GcRequest::default() };
        for project in store.projects().map_err(Failure::from)?.into_keys() {
            match there(Path::new(&project))?.is_some() {
                true if self.all => {}
                true => request.roots.push(project),
                false if self.all || self.forget_missing => request.forgotten.push(project),
                false => request.missing.push(project),
            }
        }
        Ok(request)
    }
}

fn gc_json(plan: &GcPlan) -> serde_json::Value {
    let item = |item: &GcItem| {
        let owner = item.owner.as_ref();
        serde_json::json!({"name": item.name, "size_bytes": item.size_bytes, "why": item.why,
            "project": owner.map(|owner| &owner.project), "step": owner.map(|owner| &owner.step)})
    };
    let project =
        |project: &GcProject| serde_json::json!({"project": project.name, "fate": project.fate.word(), "actions": project.actions});
    serde_json::json!({"items": plan.items.iter().map(item).collect::<Vec<_>>(), "freed_bytes": plan.freed_bytes,
        "kept_bytes": plan.kept_bytes, "projects": plan.projects.iter().map(project).collect::<Vec<_>>()})
}

fn import(shell: &Shell, folder: &Path, file: &Path) -> Result<Exit, Stop> {
    let store = Store::open(folder).map_err(Failure::from)?;
    let imported = store.import(open_archive(shell, file)?).map_err(|error| {
        let is_files = match &error {
            StoreError::Refused { .. } | StoreError::Damaged(_) => true,
            // What the tar itself says, not the disk.
            StoreError::Io { error, .. } => error.raw_os_error().is_none(),
            _ => false,
        };
        let failure = Failure::from(error);
        let exit = if is_files { Exit::Usage } else { failure.exit };
        Failure { message: format!("cannot take in `{}`: {}", file.display(), failure.message), exit, ..failure }
    })?;
    shell.say(format!("took in {} results with {} objects", imported.actions, imported.objects));
    for key in &imported.differing {
        shell.say(format!("warning: action {} has another result here, which stays", key.short()));
    }
    Ok(Exit::Done)
}

/// A file, a FIFO, or stdin: an archive is read once, from its beginning to its end.
fn open_archive(shell: &Shell, file: &Path) -> Result<Box<dyn Read>, Stop> {
    if file == Path::new("-") {
        if io::stdin().is_terminal() {
            return Err(usage("an archive does not come from a terminal: name a file, or send one to stdin"));
        }
        return Ok(Box::new(io::stdin().lock()));
    }
    let path = shell.directory.join(file);
    if there(&path)?.is_some_and(|kind| kind.is_dir()) {
        return Err(usage(format!("`{}` is a folder, not an archive", file.display())));
    }
    let opened = File::open(&path).map_err(|error| Failure::named_file("open", &path, &error))?;
    Ok(Box::new(BufReader::new(opened)))
}
