//! What a person asks for → nodes: `release`, `small@Q8_0`, `student.baseline`, `split.train`, `member/student`.

use std::collections::{BTreeMap, BTreeSet};

use super::node::{InputRef, Node, NodeId, Plan};
use crate::base::{Diagnostic, suggest};
use crate::steps::Artifact;

/// Nodes that were asked for, and with them all that they need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// In the plan's order.
    pub targets: Vec<NodeId>,
    /// Targets and everything below them.
    pub needed: BTreeSet<NodeId>,
}

impl Plan {
    /// What the given targets need; without targets, what [`Plan::default_targets`] need. A bare step means all of its parts and variants.
    pub fn select(&self, targets: &[&str]) -> Result<Selection, Vec<Diagnostic>> {
        let mut chosen = BTreeSet::new();
        let mut diagnostics = Vec::new();
        if targets.is_empty() {
            chosen.extend(self.default_targets());
        } else {
            let index = Index::new(self);
            for target in targets {
                match index.all(target) {
                    Ok(found) => chosen.extend(found.into_iter().map(|input| input.node)),
                    Err(diagnostic) => diagnostics.push(diagnostic),
                }
            }
        }
        if !diagnostics.is_empty() {
            return Err(diagnostics);
        }
        let targets: Vec<NodeId> = chosen.into_iter().collect();
        let needed = self.needed(&targets);
        Ok(Selection { targets, needed })
    }

    /// All bundles; if there are none, every visible action that no other one uses.
    pub fn default_targets(&self) -> Vec<NodeId> {
        let is_bundle = |id: &NodeId| matches!(self.node(*id), Node::Action(action) if action.artifact == Artifact::Bundle);
        let bundles: Vec<NodeId> = self.ids().filter(is_bundle).collect();
        if !bundles.is_empty() {
            return bundles;
        }
        let mut used = vec![false; self.nodes.len()];
        for node in &self.nodes {
            if let Node::Action(action) = node {
                action.input_refs().for_each(|input| used[input.node.index()] = true);
            }
        }
        let is_sink = |id: &NodeId| !used[id.index()] && matches!(self.node(*id), Node::Action(action) if !action.hidden);
        self.ids().filter(is_sink).collect()
    }

    /// Exactly one output: of `out STEP`, `log STEP`, `run MODEL`. A bare name means the step's own output.
    pub fn find(&self, target: &str) -> Result<InputRef, Diagnostic> {
        let mut found = Index::new(self).outputs(target)?;
        match found.len() {
            1 => Ok(found.swap_remove(0)),
            count => {
                let names: Vec<&str> = found.iter().take(8).map(|input| self.node(input.node).name()).collect();
                Err(Diagnostic::error(format!("`{target}` is {count} steps")).help(format!("pick one: {}", suggest::listed(&names))))
            }
        }
    }

    /// Everything below the given nodes, and they themselves.
    pub fn needed(&self, targets: &[NodeId]) -> BTreeSet<NodeId> {
        let mut needed: BTreeSet<NodeId> = targets.iter().copied().collect();
        let mut open: Vec<NodeId> = targets.to_vec();
        while let Some(id) = open.pop() {
            if let Node::Action(action) = self.node(id) {
                open.extend(action.input_refs().map(|input| input.node).filter(|node| needed.insert(*node)));
            }
        }
        needed
    }
}

/// A name taken apart: `member/student.baseline@seed=1`.
struct Named<'p> {
    part: &'p str,
    picks: &'p str,
    node: NodeId,
}

struct Index<'p> {
    plan: &'p Plan,
    /// By the step's or source's name, behind its member.
    steps: BTreeMap<&'p str, Vec<Named<'p>>>,
}

/// (`member/student`, `baseline`, `seed=1`)
fn split(name: &str) -> (&str, &str, &str) {
    let (base, picks) = name.split_once('@').unwrap_or((name, ""));
    // Folders of members may have dots in their names.
    let start = base.rfind('/').map_or(0, |slash| slash + 1);
    match base[start..].find('.') {
        Some(dot) => (&base[..start + dot], &base[start + dot + 1..], picks),
        None => (base, "", picks),
    }
}

impl<'p> Index<'p> {
    fn new(plan: &'p Plan) -> Index<'p> {
        let mut steps: BTreeMap<&str, Vec<Named>> = BTreeMap::new();
        for (id, node) in plan.ids().zip(&plan.nodes) {
            let single;
            let names: &[String] = match node {
                Node::Source(source) => {
                    single = std::slice::from_ref(&source.name);
                    single
                }
                Node::Action(action) => &action.names,
            };
            for name in names {
                let (step, part, picks) = split(name);
                steps.entry(step).or_default().push(Named { part, picks, node: id });
            }
        }
        Index { plan, steps }
    }

    /// A bare step means all of its visible parts.
    fn all(&self, target: &str) -> Result<Vec<InputRef>, Diagnostic> {
        let (step, part, picks) = split(target);
        if !part.is_empty() {
            return self.outputs(target);
        }
        let named = self.picked(step, picks, target)?;
        let visible: Vec<InputRef> = named.iter().filter(|named| !self.is_hidden(named.node)).map(|named| whole(named.node)).collect();
        if visible.is_empty() { Ok(named.iter().map(|named| whole(named.node)).collect()) } else { Ok(visible) }
    }

    /// Each variant's one output that the target names.
    fn outputs(&self, target: &str) -> Result<Vec<InputRef>, Diagnostic> {
        let (step, part, picks) = split(target);
        let named = self.picked(step, picks, target)?;
        let mut found: Vec<InputRef> = named.iter().filter(|named| named.part == part).map(|named| whole(named.node)).collect();
        if found.is_empty() {
            found = named.iter().filter_map(|named| self.inner(named, part)).collect();
        }
        if found.is_empty() {
            let known: Vec<&str> = named.iter().map(|named| named.part).filter(|part| !part.is_empty()).collect();
            let known: BTreeSet<&str> = known.into_iter().chain(named.iter().flat_map(|named| self.inner_names(named))).collect();
            let what =
                if part.is_empty() { format!("`{step}` has no output of its own") } else { format!("`{step}` has no output `{part}`") };
            return Err(Diagnostic::error(what).maybe_help(suggest::help(part, known.iter().copied())));
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// A named subfolder of a part: `split.train`.
    fn inner(&self, named: &Named, part: &str) -> Option<InputRef> {
        let inner = if named.part.is_empty() { Some(part) } else { part.strip_prefix(named.part).and_then(|rest| rest.strip_prefix('.')) }?;
        let output = self.inner_names(named).find(|name| *name == inner)?;
        Some(InputRef { node: named.node, output: Some(output.to_string()) })
    }

    fn inner_names(&self, named: &Named) -> impl Iterator<Item = &'p str> + use<'p> {
        let outputs: &'p [(String, Artifact)] = match self.plan.node(named.node) {
            Node::Action(action) => &action.outputs,
            Node::Source(_) => &[],
        };
        outputs.iter().map(|(name, _)| name.as_str())
    }

    fn picked(&self, step: &str, picks: &str, target: &str) -> Result<Vec<&Named<'p>>, Diagnostic> {
        let Some(named) = self.steps.get(step) else {
            let known = self.steps.keys().copied();
            return Err(Diagnostic::error(format!("there is no step or source `{step}`")).maybe_help(suggest::help(step, known)));
        };
        let kept: Vec<&Named> =
            named.iter().filter(|named| picks.is_empty() || picks.split(',').all(|pick| has(named.picks, pick))).collect();
        if kept.is_empty() {
            let known: BTreeSet<&str> = named.iter().flat_map(|named| named.picks.split(',')).filter(|pick| !pick.is_empty()).collect();
            let help = if known.is_empty() { Some("it has no matrix".to_string()) } else { suggest::help(picks, known.iter().copied()) };
            return Err(Diagnostic::error(format!("there is no variant `{target}`")).maybe_help(help));
        }
        Ok(kept)
    }

    fn is_hidden(&self, node: NodeId) -> bool {
        matches!(self.plan.node(node), Node::Action(action) if action.hidden)
    }
}

fn whole(node: NodeId) -> InputRef {
    InputRef { node, output: None }
}

/// Whether a variant's coordinates (`type=Q8_0,seed=1`) hold a pick: `type=Q8_0`, `student.seed=1` or only `Q8_0`.
fn has(coordinates: &str, pick: &str) -> bool {
    coordinates.split(',').any(|coordinate| {
        let (axis, value) = coordinate.split_once('=').unwrap_or(("", coordinate));
        match pick.split_once('=') {
            Some((wanted, label)) => {
                label == value && (wanted == axis || axis.strip_suffix(wanted).is_some_and(|step| step.ends_with('.')))
            }
            None => pick == value,
        }
    })
}
