//! Pins of remote sources: making them, using them, and telling when they no longer fit the manifest.

use std::path::{Path, PathBuf};

use super::spec::{Origin, Spec};
use super::{git, local, tree};
use crate::base::Diagnostic;
use crate::manifest::{Lock, Pin};

/// Whether a pinned source that is not on this machine yet may be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Fetch {
    #[default]
    Never,
    Pinned,
}

/// Where a source's bytes are. `cache` is the folder for fetched sources.
pub fn locate(spec: &Spec, lock: &Lock, cache: &Path, fetch: Fetch) -> Result<PathBuf, Diagnostic> {
    match &spec.origin {
        Origin::Path { path, place } => local::locate(spec, path, place),
        Origin::Git { url, place, .. } => {
            let pin = pinned(spec, lock)?;
            let failed = |error: git::GitError| Diagnostic::error(format!("cannot fetch `{url}`: {error}")).at(place, "");
            let folder = git::tree_folder(cache, &pin.rev, pin.path.as_deref());
            if tree::digest(&folder).is_ok_and(|digest| digest == pin.tree) {
                return Ok(folder);
            }
            if fetch == Fetch::Never {
                let message = format!("the source `{}` is pinned but not on this machine", spec.name);
                return Err(Diagnostic::error(message).at(place, "").help("`slmops build` fetches it"));
            }
            let folder = materialise(url, spec, pin, cache).map_err(failed)?;
            let found = tree::digest(&folder).map_err(|error| failed(error.into()))?;
            if found != pin.tree {
                let message = format!("`{url}` at {} does not hold what slmops.lock pins", pin.rev);
                let help = format!(
                    "the lock says {}, the files are {}; if the change is meant, run `slmops lock`",
                    pin.tree.short(),
                    found.short()
                );
                return Err(Diagnostic::error(message).at(place, "").help(help));
            }
            Ok(folder)
        }
    }
}

fn materialise(url: &str, spec: &Spec, pin: &Pin, cache: &Path) -> Result<PathBuf, git::GitError> {
    let (repository, rev) = match git::find(url, &spec.folder, cache, &pin.rev) {
        Some(found) => found,
        None => {
            let repository = git::fetch(url, &spec.folder, cache)?;
            let rev = git::resolve(&repository, &super::Want::Rev(pin.rev.clone()))?;
            (repository, rev)
        }
    };
    git::export(&repository, rev, pin.path.as_deref(), cache)
}

/// The pin of a source, if it fits what the manifest says now.
fn pinned<'a>(spec: &Spec, lock: &'a Lock) -> Result<&'a Pin, Diagnostic> {
    let Origin::Git { url, place, want, path } = &spec.origin else {
        return Err(Diagnostic::error(format!("the source `{}` needs no pin", spec.name)).at(&spec.place, ""));
    };
    match lock.sources.get(&spec.name) {
        None => Err(Diagnostic::error(format!("the source `{}` is not pinned yet", spec.name)).at(place, "").help("run `slmops lock`")),
        Some(pin) if pin.git != *url || pin.want != want.text() || pin.path != *path => {
            Err(Diagnostic::error(format!("the source `{}` has changed since it was pinned", spec.name))
                .at(place, format!("slmops.lock has `{}`, {}", pin.git, pin.want))
                .help("run `slmops lock`"))
        }
        Some(pin) => Ok(pin),
    }
}

/// What `--locked` refuses: sources without a pin that fits. Empty if the lock is complete and up to date.
pub fn stale(specs: &[Spec], lock: &Lock) -> Vec<Diagnostic> {
    let remote = |spec: &&Spec| matches!(spec.origin, Origin::Git { .. });
    let mut found: Vec<Diagnostic> = specs.iter().filter(remote).filter_map(|spec| pinned(spec, lock).err()).collect();
    for name in lock.sources.keys() {
        if !specs.iter().filter(remote).any(|spec| spec.name == *name) {
            let message = format!("slmops.lock pins `{name}`, which the manifest does not declare as a remote source");
            found.push(Diagnostic::error(message).help("run `slmops lock`"));
        }
    }
    found
}

/// Fetches every remote source and pins it to what it holds now. Choices are kept; pins that nobody needs are dropped.
pub fn update(specs: &[Spec], old: &Lock, cache: &Path) -> Result<Lock, Vec<Diagnostic>> {
    let mut lock = Lock { choices: old.choices.clone(), ..Lock::default() };
    let mut diagnostics = Vec::new();
    for spec in specs {
        let Origin::Git { url, place, .. } = &spec.origin else { continue };
        match pin(spec, cache) {
            Ok(pin) => drop(lock.sources.insert(spec.name.clone(), pin)),
            Err(error) => diagnostics.push(Diagnostic::error(format!("cannot pin `{url}`: {error}")).at(place, "")),
        }
    }
    if diagnostics.is_empty() { Ok(lock) } else { Err(diagnostics) }
}

fn pin(spec: &Spec, cache: &Path) -> Result<Pin, git::GitError> {
    let Origin::Git { url, want, path, .. } = &spec.origin else { return Err(git::GitError::Missing(spec.name.clone())) };
    let repository = git::fetch(url, &spec.folder, cache)?;
    let rev = git::resolve(&repository, want)?;
    let folder = git::export(&repository, rev, path.as_deref(), cache)?;
    let tree = tree::digest(&folder)?;
    Ok(Pin { git: url.clone(), want: want.text(), path: path.clone(), rev: rev.to_string(), tree })
}
