//! `slmops plan`: what a build would do and why, as text, JSON or a graph.

use std::fmt::Write;
use std::sync::Arc;

use super::check::Counts;
use super::project::{Load, Project};
use super::shell::{Shell, Stop};
use crate::base::Exit;
use crate::engine::{Prediction, Predictions, Silence};
use crate::plan::{Action, Node, NodeId, Plan as Graph, Selection};
use crate::report::Table;

/// Show what a build would run, what it would reuse, and why
#[derive(Debug, clap::Args)]
pub struct Plan {
    /// Steps, variants or bundles [default: all bundles]
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Write a graph for Graphviz to stdout
    #[arg(long, conflicts_with_all = ["mermaid", "json"])]
    dot: bool,
    /// Write a Mermaid flow chart to stdout
    #[arg(long, conflicts_with = "json")]
    mermaid: bool,
    #[command(flatten)]
    load: Load,
}

impl Plan {
    pub fn run(self, shell: &Shell) -> Result<Exit, Stop> {
        let project = Project::load(shell, &self.load)?;
        project.warn(shell);
        let targets: Vec<&str> = self.targets.iter().map(String::as_str).collect();
        let selection = project.plan.select(&targets)?;
        let predictions = project.engine(Arc::new(Silence))?.predict(&project.plan, &selection.needed, &project.id())?;
        let view = View { plan: &project.plan, selection: &selection, predictions: &predictions };
        if self.dot {
            shell.print(view.dot())?;
        } else if self.mermaid {
            shell.print(view.mermaid())?;
        } else if shell.json {
            shell.print_json(&view.json())?;
        } else {
            shell.print(view.table())?;
            shell.say(Counts::of(&project.plan).sentence(&project.plan));
        }
        Ok(Exit::Done)
    }
}

struct View<'a> {
    plan: &'a Graph,
    selection: &'a Selection,
    predictions: &'a Predictions,
}

impl View<'_> {
    fn actions(&self) -> impl Iterator<Item = (NodeId, &Action, &Prediction)> {
        self.selection.needed.iter().filter_map(|id| match self.plan.node(*id) {
            Node::Action(action) => Some((*id, action, &self.predictions[id])),
            Node::Source(_) => None,
        })
    }

    fn table(&self) -> String {
        let mut table = Table::new(["step", "kind", "state", "why"]);
        let mut counts = [0usize; 3];
        for (_, action, prediction) in self.actions() {
            let place = ["cached", "will run", "may run"].iter().position(|word| *word == state(prediction)).unwrap_or(1);
            counts[place] += 1;
            table.row([action.name().to_string(), action.kind.name().to_string(), state(prediction).to_string(), self.why(prediction)]);
        }
        let [cached, run, may] = counts;
        format!("{table}\n\n{run} to run, {cached} cached, {may} that depend on what runs")
    }

    fn why(&self, prediction: &Prediction) -> String {
        match prediction {
            Prediction::WillRun { reasons, .. } => reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            Prediction::Unknown { waits_for } => {
                let names: Vec<&str> = waits_for.iter().map(|id| self.plan.node(*id).name()).collect();
                format!("if {} comes out otherwise", names.join(" or "))
            }
            Prediction::Source(_) | Prediction::Cached { .. } => String::new(),
        }
    }

    fn json(&self) -> serde_json::Value {
        let steps: Vec<_> = self
            .actions()
            .map(|(_, action, prediction)| {
                let inputs: serde_json::Map<String, serde_json::Value> = action
                    .inputs
                    .iter()
                    .map(|(port, refs)| (port.clone(), refs.iter().map(|input| self.plan.node(input.node).name()).collect()))
                    .collect();
                let (key, reasons) = match prediction {
                    Prediction::WillRun { key, reasons } => (Some(*key), reasons.clone()),
                    Prediction::Cached { key, .. } => (Some(*key), Vec::new()),
                    _ => (None, Vec::new()),
                };
                serde_json::json!({"name": action.name(), "names": action.names, "kind": action.kind.name(), "action": action.task.action,
                    "state": state(prediction).replace(' ', "_"), "key": key, "reasons": reasons, "why": self.why(prediction),
                    "inputs": inputs, "parameters": action.task.params, "tags": action.tags, "description": action.description,
                    "hidden": action.hidden})
            })
            .collect();
        let targets: Vec<&str> = self.selection.targets.iter().map(|id| self.plan.node(*id).name()).collect();
        serde_json::json!({"combinations": self.plan.combinations, "targets": targets, "steps": steps})
    }

    /// Edges from inputs to users, each once.
    fn edges(&self) -> Vec<(NodeId, NodeId)> {
        let mut edges: Vec<_> = self.actions().flat_map(|(id, action, _)| action.input_refs().map(move |input| (input.node, id))).collect();
        edges.sort_unstable();
        edges.dedup();
        edges
    }

    fn dot(&self) -> String {
        let mut text = String::from("digraph slmops {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n");
        for id in &self.selection.needed {
            let name = self.plan.node(*id).name().replace('\\', "\\\\").replace('"', "\\\"");
            let look = match self.predictions[id] {
                Prediction::Source(_) => "shape=note",
                Prediction::Cached { .. } => "style=filled, fillcolor=\"#d5ead5\"",
                Prediction::WillRun { .. } => "style=filled, fillcolor=\"#f7d9b0\"",
                Prediction::Unknown { .. } => "style=\"filled,dashed\", fillcolor=\"#f5efe0\"",
            };
            let _infallible = writeln!(text, "  n{} [label=\"{name}\", {look}];", id.0);
        }
        for (from, to) in self.edges() {
            let _infallible = writeln!(text, "  n{} -> n{};", from.0, to.0);
        }
        text + "}"
    }

    fn mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        for id in &self.selection.needed {
            let name = self.plan.node(*id).name().replace('"', "#quot;");
            let (class, open, close) = match self.predictions[id] {
                Prediction::Source(_) => ("source", "([", "])"),
                Prediction::Cached { .. } => ("cached", "[", "]"),
                Prediction::WillRun { .. } => ("run", "[", "]"),
                Prediction::Unknown { .. } => ("maybe", "[", "]"),
            };
            let _infallible = writeln!(text, "  n{}{open}\"{name}\"{close}:::{class}", id.0);
        }
        for (from, to) in self.edges() {
            let _infallible = writeln!(text, "  n{} --> n{}", from.0, to.0);
        }
        text + "  classDef cached fill:#d5ead5\n  classDef run fill:#f7d9b0\n  classDef maybe fill:#f5efe0,stroke-dasharray:4\n  classDef source fill:#fff"
    }
}

fn state(prediction: &Prediction) -> &'static str {
    match prediction {
        Prediction::Cached { .. } => "cached",
        Prediction::Unknown { .. } => "may run",
        Prediction::WillRun { .. } | Prediction::Source(_) => "will run",
    }
}
