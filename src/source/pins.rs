//! Pins of remote sources: making them, using them, and telling when they no longer fit the manifest.

use std::path::{Path, PathBuf};

use super::blobs::Blobs;
use super::error::FetchError;
use super::git::{self, Git, GitError};
use super::http::{Client, said};
use super::hub::{self, Hub};
use super::oci::{self, Registry};
use super::origin::Origin;
use super::remote::{News, Remote};
use super::spec::Spec;
use super::{local, tree, web};
use crate::base::{Diagnostic, Digest};
use crate::manifest::{Lock, Pin};

/// Whether a pinned source that is not on this machine yet may be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Fetch {
    #[default]
    Never,
    Pinned,
}

/// Where fetched sources are kept, and how they are fetched.
#[derive(Clone, Copy, Debug)]
pub struct Reach<'a> {
    /// The folder for fetched sources.
    pub cache: &'a Path,
    pub fetch: Fetch,
    pub remote: &'a Remote,
}

impl<'a> Reach<'a> {
    fn blobs(&self) -> Blobs<'a> {
        Blobs { cache: self.cache }
    }
}

/// Where a source's bytes are.
pub fn locate(spec: &Spec, lock: &Lock, reach: Reach) -> Result<PathBuf, Diagnostic> {
    if let Origin::Path { path } = &spec.origin {
        return local::locate(spec, path, &spec.address_place);
    }
    let pin = pinned(spec, lock)?;
    if let Some(found) = present(spec, pin, reach) {
        return Ok(found);
    }
    if reach.fetch == Fetch::Never {
        let message = format!("the source `{}` is pinned but not on this machine", spec.name);
        return Err(Diagnostic::error(message).at(&spec.address_place, "").help("`slmops build` fetches it"));
    }
    let failed = |error| told(spec, "fetch", &error);
    let _alone = reach.blobs().alone().map_err(|error| failed(error.into()))?;
    if let Some(found) = present(spec, pin, reach) {
        // Somebody else has fetched it meanwhile.
        return Ok(found);
    }
    let found = watched(spec, reach, || materialise(spec, &pin.rev, reach)).map_err(failed)?;
    let digest = tree::digest(&found).map_err(|error| failed(error.into()))?;
    if digest != pin.tree {
        let message = format!("`{}` at {} does not hold what slmops.lock pins", spec.origin.address(), pin.rev);
        let help =
            format!("the lock says {}, the files are {}; if the change is meant, run `slmops lock`", pin.tree.short(), digest.short());
        return Err(Diagnostic::error(message).at(&spec.address_place, "").help(help));
    }
    Ok(found)
}

/// The files of a pin, if they are here and untouched. Asks nobody.
fn present(spec: &Spec, pin: &Pin, reach: Reach) -> Option<PathBuf> {
    let tree = match &spec.origin {
        Origin::Path { .. } => return None,
        Origin::Git { path, .. } => git::tree(&pin.rev, path.as_deref(), reach.blobs()),
        Origin::Hub(origin) => hub::tree(origin, &pin.rev, reach.blobs()),
        Origin::Web(origin) => web::tree(origin, &pin.rev, reach.blobs()),
        Origin::Oci(origin) => oci::tree(origin, &pin.rev, reach.blobs()),
    };
    let found = within(tree, spec);
    tree::digest(&found).is_ok_and(|digest| digest == pin.tree).then_some(found)
}

/// Fetches what a source came to.
fn materialise(spec: &Spec, rev: &str, reach: Reach) -> Result<PathBuf, FetchError> {
    let (client, blobs) = (Client::new(reach.remote)?, reach.blobs());
    let tree = match &spec.origin {
        Origin::Path { path } => return Ok(PathBuf::from(path)),
        Origin::Git { url, path, .. } => {
            let git = Git::new(url, &spec.folder, reach.cache, &client, reach.remote)?;
            let (repository, rev) = git.pinned(rev)?;
            git::export(&git, &repository, rev, path.as_deref(), blobs)?
        }
        Origin::Hub(origin) => Hub::new(&client, reach.remote, origin)?.materialise(rev, blobs)?,
        Origin::Web(origin) => web::materialise(&client, reach.remote, origin, rev, blobs)?,
        Origin::Oci(origin) => Registry::new(&client, reach.remote, origin)?.materialise(origin, rev, blobs)?,
    };
    Ok(within(tree, spec))
}

/// Where a source's bytes are within its tree.
fn within(tree: PathBuf, spec: &Spec) -> PathBuf {
    match spec.origin.inner() {
        None => tree,
        Some(inner) => tree.join(inner),
    }
}

/// What a source comes to now.
fn resolve(spec: &Spec, reach: Reach) -> Result<String, FetchError> {
    let client = Client::new(reach.remote)?;
    match &spec.origin {
        Origin::Path { path } => Ok(path.clone()),
        Origin::Git { url, want, .. } => {
            let git = Git::new(url, &spec.folder, reach.cache, &client, reach.remote)?;
            Ok(git.resolve(want)?.1.to_string())
        }
        Origin::Hub(origin) => Hub::new(&client, reach.remote, origin)?.commit(),
        Origin::Web(origin) => web::resolve(&client, reach.remote, origin, reach.blobs()),
        Origin::Oci(origin) => Registry::new(&client, reach.remote, origin)?.resolve(),
    }
}

/// The pin of a source, if it fits what the manifest says now.
fn pinned<'a>(spec: &Spec, lock: &'a Lock) -> Result<&'a Pin, Diagnostic> {
    match lock.sources.get(&spec.name) {
        None => {
            let message = format!("the source `{}` is not pinned yet", spec.name);
            Err(Diagnostic::error(message).at(&spec.address_place, "").help("run `slmops lock`"))
        }
        Some(pin) if !fits(spec, pin) => {
            let label =
                format!("slmops.lock has `{}`{}", pin.address, if pin.want.is_empty() { String::new() } else { format!(", {}", pin.want) });
            Err(Diagnostic::error(format!("the source `{}` has changed since it was pinned", spec.name))
                .at(&spec.address_place, label)
                .help("run `slmops lock`"))
        }
        Some(pin) => Ok(pin),
    }
}

fn fits(spec: &Spec, pin: &Pin) -> bool {
    let origin = &spec.origin;
    origin.protocol() == Some(pin.protocol)
        && origin.address() == pin.address
        && origin.want() == pin.want
        && origin.path() == pin.path.as_deref()
        && origin.allows(&pin.rev)
}

/// What `--locked` refuses: sources without a pin that fits. Empty if the lock is complete and up to date.
pub fn stale(specs: &[Spec], lock: &Lock) -> Vec<Diagnostic> {
    let remote = |spec: &&Spec| spec.origin.protocol().is_some();
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
pub fn update(specs: &[Spec], old: &Lock, reach: Reach) -> Result<Lock, Vec<Diagnostic>> {
    let mut lock = Lock { choices: old.choices.clone(), ..Lock::default() };
    let mut diagnostics = Vec::new();
    for spec in specs.iter().filter(|spec| spec.origin.protocol().is_some()) {
        let settled = pinned(spec, old).ok().filter(|pin| spec.origin.names(&pin.rev) && present(spec, pin, reach).is_some());
        let pin = match settled {
            // It cannot have become something else.
            Some(pin) => Ok(pin.clone()),
            None => watched(spec, reach, || pin(spec, old, reach)),
        };
        match pin {
            Ok(pin) => drop(lock.sources.insert(spec.name.clone(), pin)),
            Err(error) => diagnostics.push(told(spec, "pin", &error)),
        }
    }
    if diagnostics.is_empty() { Ok(lock) } else { Err(diagnostics) }
}

fn pin(spec: &Spec, old: &Lock, reach: Reach) -> Result<Pin, FetchError> {
    let origin = &spec.origin;
    let Some(protocol) = origin.protocol() else { return Err(GitError::Missing(spec.name.clone()).into()) };
    let _alone = reach.blobs().alone()?;
    let rev = resolve(spec, reach)?;
    let known = pinned(spec, old).ok().filter(|pin| pin.rev == rev && present(spec, pin, reach).is_some());
    let tree: Digest = match known {
        Some(pin) => pin.tree,
        None => tree::digest(&materialise(spec, &rev, reach)?)?,
    };
    Ok(Pin { protocol, address: origin.address().to_string(), want: origin.want(), path: origin.path().map(str::to_string), rev, tree })
}

/// Says when it begins and when it has ended.
fn watched<T>(spec: &Spec, reach: Reach, fetch: impl FnOnce() -> Result<T, FetchError>) -> Result<T, FetchError> {
    let watch = &reach.remote.watch;
    watch.hear(&News::Begins { source: &spec.name, from: spec.origin.address() });
    let result = fetch();
    watch.hear(&News::Ends { source: &spec.name });
    result
}

fn told(spec: &Spec, doing: &str, error: &FetchError) -> Diagnostic {
    // There may be words of a server in it.
    let message = said::message(&format!("cannot {doing} `{}`: {error}", spec.origin.address()));
    let diagnostic = Diagnostic::error(message).at(&spec.address_place, "").maybe_help(error.help().map(|help| said::message(&help)));
    if error.is_environment() { diagnostic.of_environment() } else { diagnostic }
}
