//! The graph as its readers see it: nodes in an order in which every input stands before its users.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::{Diagnostic, Place};
use crate::steps::{Artifact, Kind, Resources, Task};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl NodeId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A checked graph. `nodes[i]` uses only nodes before it, so one loop visits it without recursion, however deep it is.
#[derive(Debug, Default)]
pub struct Plan {
    /// The folder of the root manifest.
    pub root: PathBuf,
    pub nodes: Vec<Node>,
    /// Actions before equal ones became one: "18 combinations, 11 distinct steps".
    pub combinations: usize,
    /// What is allowed and hardly meant.
    pub warnings: Vec<Diagnostic>,
}

#[derive(Debug)]
pub enum Node {
    Source(Source),
    Action(Action),
}

/// Data that the build does not make.
#[derive(Debug)]
pub struct Source {
    pub name: String,
    pub place: Place,
    /// Where its bytes are on this machine: a file or a folder.
    pub path: PathBuf,
}

/// One thing to run or to find in the cache.
#[derive(Debug)]
pub struct Action {
    /// Every name it goes by, the shown one first: `student`, `student.baseline`, `small@type=Q8_0`, `commands@model=student`.
    pub names: Vec<String>,
    pub place: Place,
    pub kind: &'static dyn Kind,
    pub task: Task,
    /// Port name and its inputs, in the kind's order.
    pub inputs: Vec<(String, Vec<InputRef>)>,
    pub artifact: Artifact,
    /// Named subfolders of the output.
    pub outputs: Vec<(String, Artifact)>,
    pub hidden: bool,
    pub resources: Resources,
    pub timeout: Option<Duration>,
    pub tags: Vec<String>,
    pub description: Option<String>,
}

/// A node's output, or a named subfolder of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InputRef {
    pub node: NodeId,
    pub output: Option<String>,
}

impl Plan {
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u32).map(NodeId)
    }
}

impl Node {
    /// The shown name.
    pub fn name(&self) -> &str {
        match self {
            Node::Source(source) => &source.name,
            Node::Action(action) => action.name(),
        }
    }
}

impl Action {
    pub fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    pub fn input_refs(&self) -> impl Iterator<Item = &InputRef> {
        self.inputs.iter().flat_map(|(_, refs)| refs)
    }
}
