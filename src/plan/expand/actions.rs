//! The parts that a kind makes of a step, as nodes of the plan. Equal actions become one node with several names.

use std::time::Duration;

use serde_json::Value as Json;

use super::Planner;
use crate::base::{Diagnostic, Digest, Hasher, Place};
use crate::plan::node::{Action, InputRef, Node, NodeId};
use crate::plan::resolve::PartInfo;
use crate::steps::{Kind, Params, Part, PartInput, Resources};

/// What an action has from its step and not from its kind.
pub struct Extras<'e> {
    /// Behind its member in a workspace: `member/small`.
    pub name: String,
    /// `@type=Q8_0`
    pub shown: String,
    pub place: &'e Place,
    /// Its fields that every step has.
    pub common: &'e Params,
}

impl Planner<'_> {
    /// Adds the parts of one combination; `inputs` are what its declaration refers to.
    pub fn parts(&mut self, kind: &'static dyn Kind, parts: Vec<Part>, inputs: &[InputRef], extras: &Extras) -> Vec<PartInfo> {
        let mut infos: Vec<PartInfo> = Vec::with_capacity(parts.len());
        for part in parts {
            let refs = |input: &PartInput| match input {
                PartInput::Declared(id) => inputs.get(id.0 as usize).cloned(),
                PartInput::Part(index) => infos.get(*index).map(|info| InputRef { node: info.node, output: None }),
            };
            let ports: Option<Vec<(String, Vec<InputRef>)>> = part
                .inputs
                .iter()
                .map(|port| Some((port.name.clone(), port.inputs.iter().map(refs).collect::<Option<Vec<_>>>()?)))
                .collect();
            let Some(ports) = ports else {
                let message = format!("the kind `{}` uses an input that there is not: this is a bug in slmops", kind.name());
                self.diagnostics.push(Diagnostic::error(message).at(extras.place, ""));
                return infos;
            };
            let again = infos.iter().filter(|info| info.suffix == part.suffix).count();
            let name = extras.part_name(part.suffix, again);
            let (suffix, artifact, outputs) = (part.suffix, part.artifact, part.outputs.clone());
            let node = self.action(kind, part, ports, name, extras);
            infos.push(PartInfo { suffix, node, artifact, outputs });
        }
        infos
    }

    /// Adds an action, or a name to an equal one.
    fn action(
        &mut self,
        kind: &'static dyn Kind,
        part: Part,
        inputs: Vec<(String, Vec<InputRef>)>,
        name: String,
        extras: &Extras,
    ) -> NodeId {
        self.plan.combinations += 1;
        let identity = identity(kind, &part, &inputs);
        if let Some(id) = self.equal.get(&identity).copied() {
            if let Some(Node::Action(action)) = self.plan.nodes.get_mut(id.index()) {
                extras.join(action, &part, name);
            }
            return id;
        }
        let action = Action {
            names: vec![name],
            place: extras.place.clone(),
            kind,
            resources: extras.resources(part.resources),
            timeout: extras.timeout(),
            tags: extras.tags(),
            description: extras.description(),
            task: part.task,
            inputs,
            artifact: part.artifact,
            outputs: part.outputs,
            hidden: part.hidden,
        };
        let id = self.add(Node::Action(action));
        self.equal.insert(identity, id);
        id
    }
}

impl Extras<'_> {
    fn part_name(&self, suffix: &str, again: usize) -> String {
        let dot = if suffix.is_empty() { "" } else { "." };
        let number = if again == 0 { String::new() } else { format!("~{}", again + 1) };
        format!("{}{dot}{suffix}{number}{}", self.name, self.shown)
    }

    /// The name of a visible part goes before those of hidden ones.
    fn join(&self, action: &mut Action, part: &Part, name: String) {
        if action.names.contains(&name) {
            return;
        }
        if action.hidden && !part.hidden {
            action.names.insert(0, name);
            action.hidden = false;
            action.place = self.place.clone();
            action.outputs.clone_from(&part.outputs);
            action.resources = self.resources(part.resources);
            action.timeout = self.timeout();
            action.tags = self.tags();
            action.description = self.description();
        } else {
            action.names.push(name);
        }
    }

    fn resources(&self, kind: Resources) -> Resources {
        let own = |name: &str| self.common.get("resources").and_then(|resources| resources.get(name)).and_then(Json::as_u64);
        let small = |name: &str, kind: u32| own(name).and_then(|n| u32::try_from(n).ok()).unwrap_or(kind);
        Resources { cpu: small("cpu", kind.cpu), memory_bytes: own("memory").unwrap_or(kind.memory_bytes), gpu: small("gpu", kind.gpu) }
    }

    fn timeout(&self) -> Option<Duration> {
        self.common.get("timeout").and_then(Json::as_u64).map(Duration::from_millis)
    }

    fn tags(&self) -> Vec<String> {
        let tags = self.common.get("tags").and_then(Json::as_array).into_iter().flatten();
        tags.filter_map(Json::as_str).map(str::to_string).collect()
    }

    fn description(&self) -> Option<String> {
        self.common.get("description").and_then(Json::as_str).map(str::to_string)
    }
}

/// Equal kind, task and inputs: one action.
fn identity(kind: &'static dyn Kind, part: &Part, inputs: &[(String, Vec<InputRef>)]) -> Digest {
    let mut hasher = Hasher::new();
    hasher.part(kind.name().as_bytes());
    hasher.part(&kind.revision().to_le_bytes());
    hasher.part(part.task.action.as_bytes());
    let mut keyed = part.task.params.clone();
    kind.unkeyed().iter().for_each(|name| drop(keyed.remove(*name)));
    params(&mut hasher, &keyed);
    for (name, refs) in inputs {
        hasher.part(name.as_bytes());
        hasher.update(&(refs.len() as u64).to_le_bytes());
        for input in refs {
            hasher.update(&input.node.0.to_le_bytes());
            hasher.part(input.output.as_deref().unwrap_or_default().as_bytes());
        }
    }
    hasher.finish()
}

fn params(hasher: &mut Hasher, params: &Params) {
    hasher.update(&(params.len() as u64).to_le_bytes());
    let mut sorted: Vec<(&String, &Json)> = params.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    for (name, value) in sorted {
        hasher.part(name.as_bytes());
        match value {
            Json::Object(inner) => {
                hasher.part(b"object");
                self::params(hasher, inner);
            }
            other => hasher.part(other.to_string().as_bytes()),
        }
    }
}
