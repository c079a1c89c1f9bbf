//! `dist/`: the bundles that passed, and none that did not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::project::Project;
use super::shell::Stop;
use crate::base::{Exit, files};
use crate::bundle::{self, Summary};
use crate::engine::{BuildResult, Engine, Existing, Options, Outcome};
use crate::plan::{Action, InputRef, Node, NodeId, Plan, Selection};
use crate::steps::{Artifact, Failure};

/// What makes a folder an OCI image layout.
const OCI_LAYOUT: &str = "oci-layout";

/// A bundle in its place.
pub struct Published {
    pub step: String,
    pub path: PathBuf,
    pub summary: Summary,
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

/// Puts the selected bundles that were made into `dist/`, and empties it of those that failed.
pub fn publish(
    project: &Project,
    engine: &Engine,
    result: &BuildResult,
    selection: &Selection,
    options: &Options,
) -> Result<Vec<Published>, Stop> {
    let places = places(&project.plan, &project.root);
    remove_renamed(&places)?;
    let mut published = Vec::new();
    for (id, path) in places.into_iter().filter(|(id, _)| selection.needed.contains(id)) {
        let output = InputRef { node: id, output: None };
        match result.outcome(id) {
            Some(Outcome::Built { .. } | Outcome::Cached { .. }) => {
                if !engine.is_delivered(result, &output, &path) {
                    refuse_foreign(&path)?;
                    engine.deliver(&project.plan, result, &output, &path, Existing::Replace, options)?;
                }
                let summary = bundle::open(&path).map_err(|findings| {
                    let all: Vec<String> = findings.iter().map(ToString::to_string).collect();
                    Failure::bug(format!("the bundle in `{}` is not right: {}", path.display(), all.join("; ")))
                })?;
                published.push(Published { step: project.plan.node(id).name().to_string(), path, summary });
            }
            Some(Outcome::Failed { failure, .. }) if failure.exit == Exit::Failed => remove(&path)?,
            Some(Outcome::Skipped { because: Some(cause) }) if failed_itself(result, *cause) => remove(&path)?,
            _ => {}
        }
    }
    Ok(published)
}

/// A folder that holds no bundle is somebody else's.
fn refuse_foreign(path: &Path) -> Result<(), Failure> {
    let is_foreign = path.is_dir() && !path.join(OCI_LAYOUT).exists() && files::names(path).is_ok_and(|names| !names.is_empty());
    if !is_foreign {
        return Ok(());
    }
    let failure = Failure { exit: Exit::Usage, ..Failure::new(format!("`{}` holds something that is not a bundle", path.display())) };
    Err(failure.help("move it away: the bundle belongs there"))
}

/// Bundles of these devices that lie under names which they no longer have: left there, they would outlive a failing gate.
fn remove_renamed(places: &[(NodeId, PathBuf)]) -> Result<(), Failure> {
    let Some(dist) = places.first().and_then(|(_, path)| path.parent()) else { return Ok(()) };
    for name in files::names(dist).unwrap_or_default() {
        let path = dist.join(&name);
        if places.iter().any(|(_, place)| *place == path) {
            continue;
        }
        let Ok(summary) = bundle::open(&path) else { continue };
        let description = &summary.description;
        let short = format!("{}-{}-{}", description.name, description.version, description.device.name);
        let is_ours = name.to_string_lossy().starts_with(&short);
        let has_other_name = places.iter().any(|(_, place)| place.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&short)));
        if is_ours && has_other_name {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Whether a step failed of itself, so that what depends on it does not exist; not the disk, not the user's Ctrl-C.
fn failed_itself(result: &BuildResult, id: NodeId) -> bool {
    matches!(result.outcome(id), Some(Outcome::Failed { failure, .. }) if failure.exit == Exit::Failed)
}

fn remove(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::file("remove", path, &error)),
        _ => Ok(()),
    }
}

/// `dist/PROJECT-VERSION-DEVICE`, with the bundle's own name where two of them would meet.
pub fn places(plan: &Plan, root: &Path) -> Vec<(NodeId, PathBuf)> {
    let mut by_name: BTreeMap<String, Vec<(NodeId, &Action)>> = BTreeMap::new();
    for id in plan.ids() {
        if let Node::Action(action) = plan.node(id)
            && action.artifact == Artifact::Bundle
        {
            by_name.entry(short_name(action)).or_default().push((id, action));
        }
    }
    let mut places = Vec::new();
    for (name, bundles) in by_name {
        let alone = bundles.len() == 1;
        for (id, action) in bundles {
            let step = action.name().replace(['/', '@', '=', ','], "-");
            let name = if alone { name.clone() } else { format!("{name}-{step}") };
            places.push((id, root.join("dist").join(name)));
        }
    }
    places.sort();
    places
}

fn short_name(action: &Action) -> String {
    let text = |table: &str, field: &str| {
        action.task.params.get(table).and_then(|t| t.get(field)).and_then(|v| v.as_str()).unwrap_or_default().replace('/', "-")
    };
    format!("{}-{}-{}", text("project", "name"), text("project", "version"), text("device", "name"))
}

/// A path as a person in `directory` would type it.
pub fn shown(path: &Path, directory: &Path) -> String {
    let base = std::path::absolute(directory).unwrap_or_else(|_| directory.to_path_buf());
    path.strip_prefix(&base).unwrap_or(path).display().to_string()
}
