//! What most commands begin with: the manifest's plan and its store.

use std::fs::FileType;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::network;
use super::shell::{Shell, Stop, usage};
use crate::base::trouble::{self, Blame};
use crate::base::{Diagnostic, files};
use crate::engine::{Engine, EventSink, Options, Silence};
use crate::manifest::Overrides;
use crate::plan::{self, InputRef, Node, Plan};
use crate::source::Fetch;
use crate::steps::Failure;
use crate::store::Store;

/// Which manifest, changed how.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Load {
    /// Lay this `[profile.NAME]` over the manifest
    #[arg(long, value_name = "NAME", help_heading = "Manifest", global = true)]
    pub profile: Option<String>,
    /// Change one field: `--set train.teacher.max_steps=50`
    #[arg(long, value_name = "FIELD=VALUE", help_heading = "Manifest", global = true)]
    pub set: Vec<String>,
    /// The store [default: $SLMOPS_CACHE, or `cache` beside the manifest]
    #[arg(long, value_name = "DIR", help_heading = "Manifest", global = true)]
    pub cache: Option<PathBuf>,
}

pub struct Project {
    pub plan: Arc<Plan>,
    /// The folder of the root manifest.
    pub root: PathBuf,
    pub cache: PathBuf,
}

impl Load {
    pub fn overrides(&self) -> Overrides {
        Overrides { profile: self.profile.clone(), set: self.set.clone() }
    }
}

impl Project {
    /// Reads the manifest; nothing is fetched.
    pub fn load(shell: &Shell, load: &Load) -> Result<Project, Stop> {
        Project::load_with(shell, load, Fetch::Never)
    }

    pub fn load_with(shell: &Shell, load: &Load, fetch: Fetch) -> Result<Project, Stop> {
        let root = find_manifest(&shell.directory)?;
        let cache = cache_folder(shell, load, &root)?;
        if fetch != Fetch::Never {
            // Before anything is fetched into it.
            Store::claim(&cache).map_err(Failure::from)?;
        }
        let plan = plan::load(&root, &plan_options(shell, load, &cache, fetch))?;
        Ok(Project { plan: Arc::new(plan), root, cache })
    }

    /// Shows what the manifest hardly means.
    pub fn warn(&self, shell: &Shell) {
        shell.show(&self.plan.warnings);
    }

    /// What its last keys are kept under.
    pub fn id(&self) -> String {
        self.root.to_string_lossy().into_owned()
    }

    pub fn engine(&self, events: Arc<dyn EventSink>) -> Result<Engine, Stop> {
        let store = Store::open(&self.cache).map_err(Failure::from)?;
        Ok(Engine::new(store, events))
    }

    pub fn options(&self) -> Options {
        Options { project: self.id(), ..Options::default() }
    }

    pub fn find(&self, step: &str) -> Result<InputRef, Stop> {
        self.plan.find(step).map_err(|diagnostic| Stop::Diagnostics(vec![diagnostic]))
    }

    /// Copies a step's output, if the cache has it, to a folder that is made for it.
    pub fn copy_output(&self, shell: &Shell, step: &str, folder: &Path) -> Result<(), Stop> {
        let output = self.find(step)?;
        if let Node::Source(source) = self.plan.node(output.node) {
            return Err(usage(format!("`{}` is a source: its files are in `{}`", source.name, source.path.display())));
        }
        let engine = self.engine(Arc::new(Silence))?;
        let options = self.options();
        if let Some(name) = self.unbuilt(&engine, &output)? {
            let missing = Failure::new(format!("`{name}` is not built as the manifest has it now"));
            return Err(missing.help(format!("slmops build {}", shell_word(step))).into());
        }
        let result = engine.build(&self.plan, &[output.node], &options);
        engine.copy_output(&self.plan, &result, &output, folder, &options)?;
        shell.say(format!("{} is in the cache", self.plan.node(output.node).name()));
        Ok(())
    }

    /// The name of what would have to run first, if anything.
    fn unbuilt(&self, engine: &Engine, output: &InputRef) -> Result<Option<String>, Stop> {
        let predictions = engine.predict(&self.plan, &self.plan.needed(&[output.node]), &self.id())?;
        let cached = matches!(predictions.get(&output.node), Some(crate::engine::Prediction::Cached { .. }));
        Ok((!cached).then(|| self.plan.node(output.node).name().to_string()))
    }
}

pub fn plan_options<'a>(shell: &Shell, load: &Load, cache: &Path, fetch: Fetch) -> plan::Options<'a> {
    let remote = network::remote(shell);
    plan::Options { overrides: load.overrides(), sources: Some(cache.join("sources")), fetch, remote, ..plan::Options::default() }
}

/// The nearest `slmops.toml`, here or in a folder above.
pub fn find_manifest(directory: &Path) -> Result<PathBuf, Stop> {
    let here = std::path::absolute(directory).unwrap_or_else(|_| directory.to_path_buf());
    for folder in here.ancestors() {
        // A folder of that name is not a manifest. What is neither a file nor a folder is refused when it is opened.
        if there(&folder.join(crate::manifest::FILE_NAME))?.is_some_and(|kind| !kind.is_dir()) {
            return Ok(folder.to_path_buf());
        }
    }
    let problem = Diagnostic::error(format!("there is no slmops.toml in `{}` or above it", here.display()));
    Err(Stop::Diagnostics(vec![problem.help("`slmops init` writes one that builds")]))
}

/// What stands at a path, if anything does. That it cannot be told is no proof that nothing does.
pub fn there(path: &Path) -> Result<Option<FileType>, Failure> {
    files::kind(path).map_err(|error| Failure::named_file("look at", path, &error))
}

/// `--cache`, else `SLMOPS_CACHE`, else the nearest store that was made before, here or above in the same git repository, else `cache`
/// beside the manifest.
pub fn cache_folder(shell: &Shell, load: &Load, root: &Path) -> Result<PathBuf, Failure> {
    if let Some(folder) = &load.cache {
        return Ok(shell.directory.join(folder));
    }
    if let Some(folder) = &shell.cache {
        return Ok(folder.clone());
    }
    for folder in root.ancestors() {
        let cache = folder.join("cache");
        let tag = cache.join("CACHEDIR.TAG");
        // Another user's folder above is not a store of this project's.
        let is_ours = match files::read_text(&tag, 1 << 16) {
            Ok(text) => text.contains("slmops"),
            Err(error) if trouble::blame(&error) == Blame::User || error.kind() == ErrorKind::PermissionDenied => false,
            Err(error) => return Err(Failure::named_file("read", &tag, &error)),
        };
        if is_ours {
            return Ok(cache);
        }
        if there(&folder.join(".git"))?.is_some() {
            break;
        }
    }
    Ok(root.join("cache"))
}

/// More threads than any machine that trains small models has; each of them takes memory.
const MAX_JOBS: usize = 512;

/// The number of `-j`; 0 stands for as many threads as the machine has.
pub fn jobs(given: Option<usize>) -> Result<usize, Stop> {
    match given {
        None => Ok(0),
        Some(jobs @ 1..=MAX_JOBS) => Ok(jobs),
        Some(jobs) => Err(usage(format!("`-j` takes a number of threads from 1 to {MAX_JOBS}, not {jobs}"))),
    }
}

/// A path as a person in `directory` would type it.
pub fn shown(path: &Path, directory: &Path) -> String {
    let base = std::path::absolute(directory).unwrap_or_else(|_| directory.to_path_buf());
    path.strip_prefix(&base).unwrap_or(path).display().to_string()
}

/// A word as a shell takes it.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./@=,:".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_string() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}
