//! Manifest and kinds → a checked graph of sources and actions.
//!
//! [`load`] is what every command begins with. [`declare`] checks each step against its kind's fields, [`order`] puts steps behind what they
//! need, [`expand`] makes each combination of a step into actions and equal actions into one; [`lineage`] finds tests that a model learned from;
//! [`select`] picks from the result.

pub mod check;
pub mod common;
pub mod declare;
pub mod expand;
pub mod lineage;
pub mod node;
pub mod order;
pub mod reference;
pub mod resolve;
pub mod schema;
pub mod select;
pub mod template;
pub mod value;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use node::{Action, InputRef, Node, NodeId, Plan, Source};
pub use select::Selection;

use crate::base::{Diagnostic, files};
use crate::manifest::workspace::{self, Member};
use crate::manifest::{LOCK_NAME, Lock, Overrides, load as manifest_load};
use crate::source::{self, Fetch, Reach, Remote, Spec};
use crate::steps::{KINDS, Kind};

/// Combinations of one step.
pub const MAX_COMBINATIONS: usize = 4096;
/// Steps of a whole plan. Each takes some kilobytes until it is planned.
pub const MAX_STEPS: usize = 1 << 18;
/// Values that are copied for the combinations of all steps: each has a table of its own until it is expanded.
const MAX_COPIES: usize = 1 << 24;

/// How a manifest is read.
pub struct Options<'a> {
    pub kinds: &'a [&'static dyn Kind],
    pub overrides: Overrides,
    /// Folder for fetched sources; `cache/sources` beside the root manifest if not given.
    pub sources: Option<PathBuf>,
    pub fetch: Fetch,
    pub remote: Remote,
    pub max_combinations: usize,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            kinds: KINDS,
            overrides: Overrides::default(),
            sources: None,
            fetch: Fetch::Never,
            remote: Remote::default(),
            max_combinations: MAX_COMBINATIONS,
        }
    }
}

/// Reads the manifest at `path` (a file or its folder) with its members and its lock. Everything that is wrong, at once, in the order of the text.
pub fn load(path: &Path, options: &Options) -> Result<Plan, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    let members = workspace::load(path, &options.overrides, &mut diagnostics);
    let Some(root) = members.first().map(|member| member.manifest.root.clone()) else { return Err(sorted(diagnostics)) };
    let lock = match Lock::load(&root) {
        Ok(lock) => lock,
        // Without it every fetched source would seem to lack its pin.
        Err(errors) => {
            diagnostics.extend(errors);
            return Err(sorted(diagnostics));
        }
    };
    let cache = fetched(options, &root);
    let mut planner = expand::Planner::new(options, &lock, &cache, root);
    for member in &members {
        // A root that only lists its members builds nothing itself.
        if member.manifest.section("workspace").is_some()
            && member.manifest.section("project").is_none()
            && !declares(member, options.kinds)
        {
            continue;
        }
        manifest_load::check_profiles(&member.manifest, &mut planner.diagnostics);
        planner.member(member);
    }
    diagnostics.append(&mut planner.diagnostics);
    if !diagnostics.is_empty() {
        return Err(sorted(diagnostics));
    }
    let mut plan = planner.finish();
    plan.warnings = sorted(std::mem::take(&mut plan.warnings));
    Ok(plan)
}

/// Where fetched sources are kept if nobody says otherwise.
pub fn default_cache(root: &Path) -> PathBuf {
    root.join("cache").join("sources")
}

/// The folder for fetched sources.
fn fetched(options: &Options, root: &Path) -> PathBuf {
    let folder = options.sources.clone().unwrap_or_else(|| default_cache(root));
    // Older stores have a file there, of what they remembered of local ones. A link is somebody's wish to have them elsewhere.
    if folder.symlink_metadata().is_ok_and(|found| found.is_file()) && is_old_list(&folder) {
        let _ = std::fs::remove_file(&folder);
    }
    folder
}

/// Whether a file is what older stores remembered of local sources: any other is not ours to remove.
fn is_old_list(file: &Path) -> bool {
    const HEAD: &[u8] = b"slmops sources 1\n";
    let mut head = Vec::new();
    let read = files::open(file).and_then(|file| file.take(HEAD.len() as u64).read_to_end(&mut head));
    read.is_ok() && head == HEAD
}

fn declares(member: &Member, kinds: &[&'static dyn Kind]) -> bool {
    let is_step = |name: &str| matches!(name, "source" | "device" | "bundle") || kinds.iter().any(|kind| kind.name() == name);
    member.manifest.table.names().any(is_step)
}

/// The sources of a manifest with its members, for `slmops lock` and `--locked`.
pub fn sources(path: &Path, overrides: &Overrides) -> Result<(PathBuf, Vec<Spec>), Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    let members = workspace::load(path, overrides, &mut diagnostics);
    let specs: Vec<Spec> =
        members.iter().flat_map(|member| source::spec::specs(&member.manifest, &member.prefix, &mut diagnostics)).collect();
    match members.first() {
        Some(root) if diagnostics.is_empty() => Ok((root.manifest.root.clone(), specs)),
        _ => Err(sorted(diagnostics)),
    }
}

/// `slmops lock`: fetches and pins every remote source, and writes the lock. `sources` is the folder for fetched sources.
pub fn lock(path: &Path, options: &Options) -> Result<Lock, Vec<Diagnostic>> {
    let (root, specs) = sources(path, &options.overrides)?;
    let cache = fetched(options, &root);
    // A lock that cannot be read is made anew only once the user has deleted it.
    let old = Lock::load(&root)?;
    let lock = source::update(&specs, &old, Reach { cache: &cache, fetch: Fetch::Pinned, remote: &options.remote })?;
    if lock != Lock::default() || old != Lock::default() {
        lock.store(&root).map_err(|error| vec![Diagnostic::io(format!("cannot write `{LOCK_NAME}`"), &error)])?;
    }
    Ok(lock)
}

/// What `--locked` refuses; nothing if the lock is complete and up to date.
pub fn check_locked(path: &Path, options: &Options) -> Result<(), Vec<Diagnostic>> {
    let (root, specs) = sources(path, &options.overrides)?;
    let stale = source::stale(&specs, &Lock::load(&root)?);
    if stale.is_empty() { Ok(()) } else { Err(sorted(stale)) }
}

/// By file and place, each once: one wrong default is met by many steps.
fn sorted(diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut seen = BTreeSet::new();
    let key = |diagnostic: &Diagnostic| diagnostic.labels.first().map(|label| (label.place.source.name.clone(), label.place.span.start));
    let mut kept: Vec<Diagnostic> = diagnostics.into_iter().filter(|d| seen.insert((key(d), d.message.clone()))).collect();
    kept.sort_by_key(key);
    kept
}
