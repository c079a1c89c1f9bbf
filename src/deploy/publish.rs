//! After a build: the bundles that passed go to `dist/`, and those that missed their gates go away from there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::dist::{Dist, Parcel, Wait, is_folder};
use super::error::{DeployError, Result};
use super::places::Place;
use crate::base::Exit;
use crate::bundle::{self, Summary};
use crate::engine::{BuildResult, Engine, Options, Outcome};
use crate::plan::{InputRef, Node, NodeId, Plan, Selection};
use crate::steps::{Artifact, Failure};

/// What to publish, and where.
pub struct Order<'a> {
    pub plan: &'a Plan,
    pub engine: &'a Engine,
    pub options: &'a Options,
    /// Of all bundles of the plan.
    pub places: &'a [Place],
    pub selection: &'a Selection,
    pub dist: &'a Path,
    /// Hears what the user should know meanwhile.
    pub say: &'a dyn Fn(&str),
}

/// A bundle in its place.
pub struct Published {
    pub step: String,
    pub path: PathBuf,
    pub summary: Summary,
}

/// What became of all of them. One that cannot be delivered keeps no other from its place.
#[derive(Default)]
pub struct Publication {
    pub bundles: Vec<Published>,
    pub failures: Vec<Failure>,
}

impl Published {
    /// `6 of 6`
    pub fn gates(&self) -> String {
        let gates: Vec<_> = self.summary.description.evaluations.iter().flat_map(|evaluation| &evaluation.gates).collect();
        format!("{} of {}", gates.iter().filter(|gate| gate.passed).count(), gates.len())
    }

    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({"bundle": self.step, "digest": self.summary.digest, "size_bytes": self.summary.size_bytes,
            "path": self.path, "description": self.summary.description})
    }
}

/// Puts the selected bundles that were made into `dist/`, and takes away those that failed.
pub fn publish(order: &Order, result: &BuildResult) -> Publication {
    let mut publication = Publication::default();
    if let Err(error) = publish_into(order, result, &mut publication) {
        publication.failures.push(error.into());
    }
    publication
}

fn publish_into(order: &Order, result: &BuildResult, publication: &mut Publication) -> Result<()> {
    let selected = || order.places.iter().filter(|place| order.selection.needed.contains(&place.node));
    let made: Vec<&Place> = selected().filter(|place| is_made(result, place.node)).collect();
    let failed: Vec<&Place> = selected().filter(|place| is_rejected(order.plan, result, place.node)).collect();
    for place in selected().filter(|place| is_kept(order.plan, result, place.node)) {
        if is_folder(&order.dist.join(&place.name))? {
            (order.say)(&format!("{} stays as an earlier build delivered it", shown(order, &place.name)));
        }
    }
    let wait = Wait::new(&order.options.cancel, order.say);
    let dist = match (made.is_empty(), failed.is_empty()) {
        (true, true) => return Ok(()),
        (true, false) => Dist::open_existing(order.dist, &wait)?,
        (false, _) => Some(Dist::open(order.dist, &wait)?),
    };
    let Some(mut dist) = dist else { return Ok(()) };
    let failures = &mut publication.failures;
    let mut note = |name: &str, why: &'static str, removed: Result<bool>| match removed {
        Ok(true) => (order.say)(&format!("removed {}, which {why}", shown(order, name))),
        Ok(false) => {}
        Err(error) => failures.push(Failure::from(error)),
    };
    for place in &failed {
        let why = "failed in this build";
        note(&place.name, why, dist.withdraw(&place.name, why));
    }
    // Under names that they no longer have, bundles would outlive a failing gate.
    let products: BTreeSet<&str> = made.iter().chain(&failed).map(|place| place.product.as_str()).collect();
    for product in products {
        for name in dist.renamed(product, |name| order.places.iter().any(|place| place.name == name)) {
            let why = "has another name now";
            note(&name, why, dist.withdraw(&name, why));
        }
    }
    for place in made {
        match deliver(order, result, &mut dist, place) {
            Ok(published) => publication.bundles.push(published),
            Err(error) => publication.failures.push(error.into()),
        }
    }
    Ok(())
}

fn deliver(order: &Order, result: &BuildResult, dist: &mut Dist, place: &Place) -> Result<Published> {
    let output = InputRef { node: place.node, output: None };
    let step = order.plan.node(place.node).name().to_string();
    let parcel = Parcel { name: place.name.clone(), bundle: step.clone(), product: place.product.clone() };
    let path = dist.path(&place.name);
    let tree = match result.tree(&output) {
        Some(tree) if dist.has(&place.name)? && order.engine.is_delivered(result, &output, &path) => {
            dist.adopt(&parcel, tree.digest())?;
            tree.digest()
        }
        _ => dist.deliver(&parcel, |folder| order.engine.copy_output(order.plan, result, &output, folder, order.options))?,
    };
    match bundle::open(&path) {
        Ok(summary) => Ok(Published { step, path, summary }),
        // A bundle that cannot be read for the disk's sake, or for want of handles, is not known to be wrong.
        Err(findings) => Err(match bundle::cause(&findings) {
            Some(error) => DeployError::io("read", &path)(error),
            None => dist.broken(&place.name, tree),
        }),
    }
}

fn is_made(result: &BuildResult, id: NodeId) -> bool {
    matches!(result.outcome(id), Some(Outcome::Built { .. } | Outcome::Cached { .. }))
}

/// Whether a bundle missed its gates or does not fit: then it does not exist. Not when a step before its gates failed, for then nothing is known against the
/// one that is there.
fn is_rejected(plan: &Plan, result: &BuildResult, id: NodeId) -> bool {
    match result.outcome(id) {
        Some(Outcome::Skipped { because: Some(cause) }) => {
            failed_itself(result, *cause) && is_gate(plan, *cause) && plan.needed(&[id]).contains(cause)
        }
        _ => failed_itself(result, id),
    }
}

/// Whether a bundle was not made though nothing is known against it.
fn is_kept(plan: &Plan, result: &BuildResult, id: NodeId) -> bool {
    matches!(result.outcome(id), Some(Outcome::Failed { .. } | Outcome::Skipped { because: Some(_) })) && !is_rejected(plan, result, id)
}

fn is_gate(plan: &Plan, id: NodeId) -> bool {
    matches!(plan.node(id), Node::Action(action) if action.artifact == Artifact::Verdict)
}

/// `dist/NAME`
fn shown(order: &Order, name: &str) -> String {
    let folder = order.dist.file_name().map_or_else(PathBuf::new, PathBuf::from);
    format!("`{}`", folder.join(name).display())
}

fn failed_itself(result: &BuildResult, id: NodeId) -> bool {
    matches!(result.outcome(id), Some(Outcome::Failed { failure, .. }) if failure.exit == Exit::Failed)
}
