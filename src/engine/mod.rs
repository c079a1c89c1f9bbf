//! Builds a plan: finds in the cache what is there, runs the rest, tells what happens. It knows keys, results and resources; not
//! what a step does, and not who listens.

mod build;
mod crew;
mod deliver;
mod event;
mod job;
mod options;
mod predict;
mod schedule;
mod signal;
mod sources;
mod summary;
mod worker;

use std::sync::Arc;

use crate::base::trouble;
use crate::base::{Digest, Exit};
use crate::key::{KeyRecord, Reason, changes};
use crate::plan::node::{InputRef, NodeId, Plan};
use crate::steps::Failure;
use crate::store::{Latest, Store, StoreError, Tree};

pub use event::{Difference, Event, EventSink, Outcome, Recorder, Silence};
pub use options::{CacheUse, Capacity, OnFailure, Options};
pub use predict::{Explanation, Prediction, Predictions};
pub use signal::cancel_on_signal;
pub use summary::Summary;
pub use worker::{Act, Assignment, Local, Scripted, Worker};

use build::{Build, Made};
use job::Shop;

pub struct Engine {
    shop: Shop,
}

/// What a build came to.
#[derive(Debug)]
pub struct BuildResult {
    /// By node; none for sources and for what was not needed.
    pub outcomes: Vec<Option<Outcome>>,
    /// Steps that made something else than the cache holds.
    pub differences: Vec<Difference>,
    pub summary: Summary,
    made: Vec<Option<Made>>,
}

impl Engine {
    /// An engine that runs steps on this machine.
    pub fn new(store: Store, events: Arc<dyn EventSink>) -> Engine {
        Engine::with_worker(store, events, Arc::new(Local::default()))
    }

    pub fn with_worker(store: Store, events: Arc<dyn EventSink>, worker: Arc<dyn Worker>) -> Engine {
        Engine { shop: Shop { store: Arc::new(store), worker, events, warned: Arc::default() } }
    }

    pub fn store(&self) -> &Store {
        &self.shop.store
    }

    /// Builds these nodes and what they need. Whatever goes wrong is in the result.
    pub fn build(&self, plan: &Plan, selected: &[NodeId], options: &Options) -> BuildResult {
        Build::new(plan, selected, options, &self.shop).run()
    }
}

impl BuildResult {
    pub fn outcome(&self, id: NodeId) -> Option<&Outcome> {
        self.outcomes.get(id.index())?.as_ref()
    }

    /// What a node's output, or a named part of it, consists of.
    pub fn tree(&self, input: &InputRef) -> Option<Arc<Tree>> {
        match (self.made.get(input.node.index())?.as_ref()?, &input.output) {
            (Made::Output { tree, .. }, None) => Some(tree.clone()),
            (Made::Output { tree, .. }, Some(folder)) => Some(Arc::new(tree.sub(folder))),
            (Made::Source(_), _) => None,
        }
    }

    /// The key of a node that was built or reused.
    pub fn key(&self, id: NodeId) -> Option<Digest> {
        match self.made.get(id.index())?.as_ref()? {
            Made::Output { key, .. } => Some(*key),
            Made::Source(_) => None,
        }
    }

    /// What a source held, by the digest of its tree.
    pub fn source(&self, id: NodeId) -> Option<Digest> {
        match self.made.get(id.index())?.as_ref()? {
            Made::Source(snapshot) => Some(snapshot.content.digest()),
            Made::Output { .. } => None,
        }
    }

    /// How the command should end. Differences are for the caller to judge.
    pub fn exit(&self) -> Exit {
        build::worst_exit(&self.outcomes)
    }
}

/// Why an action has to run, by what its last key was made of.
fn reasons(store: &Store, latest: Option<&Latest>, key: Digest, record: &KeyRecord) -> Vec<Reason> {
    let Some(latest) = latest else { return vec![Reason::FirstBuild] };
    if latest.key == key {
        return vec![Reason::Forgotten];
    }
    // It only explains: what cannot be read now is as good as forgotten.
    let old = store.record(latest.key).ok().flatten().and_then(|old| KeyRecord::parse(&old.key_text));
    old.map_or_else(|| vec![Reason::Forgotten], |old| changes(&old, record))
}

/// A store's trouble as a command's end: its owner's disk, not the user's manifest.
fn store_failure(error: StoreError) -> Failure {
    let failure = Failure::environment(error.to_string());
    match &error {
        StoreError::Stopped => Failure::cancelled(),
        StoreError::NotAStore { .. } => Failure { exit: Exit::Usage, ..failure }
            .help("`--cache` and SLMOPS_CACHE name a store, an empty folder, or one that does not exist yet"),
        StoreError::NotWritable { error, .. } if let Some(hint) = trouble::hint(error) => failure.help(hint),
        StoreError::NotWritable { .. } => {
            failure.help("what it holds can be used, but no step can run; `--cache` and SLMOPS_CACHE name another folder for the store")
        }
        StoreError::Io { error, .. } if let Some(hint) = trouble::hint(error) => failure.help(hint),
        StoreError::Io { error, .. } if error.kind() == std::io::ErrorKind::PermissionDenied => {
            failure.help("SLMOPS_CACHE names another folder for the store")
        }
        StoreError::Newer { .. } => failure.help("use that slmops, or another folder for the store (SLMOPS_CACHE)"),
        StoreError::Busy { .. } => failure.help("wait until it has ended"),
        _ => failure,
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        store_failure(error)
    }
}

#[cfg(test)]
mod tests;
