//! What most commands begin with: the manifest's plan and its store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::network;
use super::shell::{Shell, Stop, usage};
use crate::base::Diagnostic;
use crate::engine::{Engine, EventSink, Existing, Options, Silence};
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
        let cache = cache_folder(shell, load, &root);
        let plan = plan::load(&root, &plan_options(shell, load, &cache, fetch))?;
        Ok(Project { plan: Arc::new(plan), root, cache })
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

    /// Copies a step's output, if the cache has it, to a folder that is not there yet.
    pub fn materialise(&self, shell: &Shell, step: &str, folder: &Path) -> Result<(), Stop> {
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
        shell.say(format!("{} is in the cache", self.plan.node(output.node).name()));
        Ok(engine.deliver(&self.plan, &result, &output, folder, Existing::Refuse, &options)?)
    }

    /// The name of what would have to run first, if anything.
    fn unbuilt(&self, engine: &Engine, output: &InputRef) -> Result<Option<String>, Stop> {
        let predictions = engine.predict(&self.plan, &self.id())?;
        let cached = matches!(predictions.get(output.node.index()), Some(crate::engine::Prediction::Cached { .. }));
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
    let found = here.ancestors().find(|folder| folder.join(crate::manifest::FILE_NAME).is_file());
    found.map(Path::to_path_buf).ok_or_else(|| {
        let problem = Diagnostic::error(format!("there is no slmops.toml in `{}` or above it", here.display()));
        Stop::Diagnostics(vec![problem.help("`slmops init` writes one that builds")])
    })
}

/// `--cache`, else `SLMOPS_CACHE`, else the nearest store that was made before, here or above in the same git repository, else `cache`
/// beside the manifest.
pub fn cache_folder(shell: &Shell, load: &Load, root: &Path) -> PathBuf {
    if let Some(folder) = &load.cache {
        return shell.directory.join(folder);
    }
    if let Some(folder) = &shell.cache {
        return folder.clone();
    }
    for folder in root.ancestors() {
        let cache = folder.join("cache");
        let tag = std::fs::read_to_string(cache.join("CACHEDIR.TAG")).unwrap_or_default();
        if tag.contains("slmops") {
            return cache;
        }
        if folder.join(".git").exists() {
            break;
        }
    }
    root.join("cache")
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

/// A word as a shell takes it.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./@=,:".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_string() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}
