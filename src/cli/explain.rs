//! `slmops explain STEP`: why it would run, or what had changed when it last did.

use std::sync::Arc;

use super::project::{Load, Project};
use super::shell::{Shell, Stop, usage};
use crate::base::Exit;
use crate::engine::{Explanation, Prediction, Silence};
use crate::plan::{Node, NodeId};

/// Explain why a step runs or does not: the fields that changed, with their old and new values
#[derive(Debug, clap::Args)]
pub struct Explain {
    #[arg(value_name = "STEP", required = true)]
    steps: Vec<String>,
    /// Show all that the step's key is made of
    #[arg(long)]
    key: bool,
    #[command(flatten)]
    load: Load,
}

impl Explain {
    pub fn run(self, shell: &Shell) -> Result<Exit, Stop> {
        let project = Project::load(shell, &self.load)?;
        let names: Vec<&str> = self.steps.iter().map(String::as_str).collect();
        let targets = project.plan.select(&names)?.targets;
        let engine = project.engine(Arc::new(Silence))?;
        let mut list = Vec::new();
        for id in targets {
            if let Node::Source(source) = project.plan.node(id) {
                return Err(usage(format!("`{}` is a source: it does not run", source.name)));
            }
            let explanation = engine.explain(&project.plan, id, &project.id())?;
            match shell.json {
                true => list.push(json(&project, id, &explanation)),
                false => shell.print(self.text(shell, &project, id, &explanation))?,
            }
        }
        if shell.json {
            shell.print_json(&serde_json::Value::Array(list))?;
        }
        Ok(Exit::Done)
    }

    fn text(&self, shell: &Shell, project: &Project, id: NodeId, explanation: &Explanation) -> String {
        let name = shell.paint("1", project.plan.node(id).name());
        let mut lines = Vec::new();
        match &explanation.prediction {
            Prediction::Cached { key, tree } => {
                lines.push(format!("{name} is cached: key {}, output {}", key.short(), tree.short()));
                if !explanation.last_changes.is_empty() {
                    lines.push("  it last ran because:".to_string());
                    lines.extend(explanation.last_changes.iter().map(|reason| format!("    {reason}")));
                }
            }
            Prediction::WillRun { key, reasons } => {
                lines.push(format!("{name} will run (key {}):", key.short()));
                lines.extend(reasons.iter().map(|reason| format!("    {reason}")));
            }
            Prediction::Unknown { waits_for } => {
                lines.push(format!("{name} runs if what it needs comes out otherwise than before:"));
                lines.extend(waits_for.iter().map(|input| format!("    {}", project.plan.node(*input).name())));
            }
            Prediction::Source(_) => lines.push(format!("{name} is a source")),
        }
        if let (true, Some(record)) = (self.key, &explanation.record) {
            lines.push("  its key is made of:".to_string());
            lines.extend(record.fields().iter().map(|(field, value)| format!("    {field} = {value}")));
        }
        lines.join("\n")
    }
}

fn json(project: &Project, id: NodeId, explanation: &Explanation) -> serde_json::Value {
    let (state, key, reasons) = match &explanation.prediction {
        Prediction::Cached { key, .. } => ("cached", Some(*key), explanation.last_changes.clone()),
        Prediction::WillRun { key, reasons } => ("will_run", Some(*key), reasons.clone()),
        _ => ("may_run", None, Vec::new()),
    };
    let fields: Option<serde_json::Map<String, serde_json::Value>> = explanation
        .record
        .as_ref()
        .map(|record| record.fields().iter().map(|(field, value)| (field.clone(), serde_json::Value::from(value.as_str()))).collect());
    serde_json::json!({"step": project.plan.node(id).name(), "state": state, "key": key, "reasons": reasons, "fields": fields})
}
