//! `slmops log STEP`: what a step said when its last result was made.

use std::sync::Arc;

use super::project::{Load, Project};
use super::shell::{Shell, Stop, usage};
use crate::base::Exit;
use crate::engine::Silence;
use crate::plan::Node;
use crate::steps::Failure;

/// Print the log of a step's last result
#[derive(Debug, clap::Args)]
pub struct Log {
    #[arg(value_name = "STEP")]
    step: String,
    #[command(flatten)]
    load: Load,
}

impl Log {
    pub fn run(self, shell: &Shell) -> Result<Exit, Stop> {
        let project = Project::load(shell, &self.load)?;
        let output = project.find(&self.step)?;
        if let Node::Source(source) = project.plan.node(output.node) {
            return Err(usage(format!("`{}` is a source: it has no log", source.name)));
        }
        let log = project.engine(Arc::new(Silence))?.log(&project.plan, output.node, &project.id())?;
        let text =
            log.ok_or_else(|| Failure::new(format!("`{}` was never built here", self.step)).help(format!("slmops build {}", self.step)))?;
        if shell.json {
            let lines: Vec<&str> = text.lines().collect();
            shell.print_json(&serde_json::json!({"step": project.plan.node(output.node).name(), "lines": lines}))?;
        } else if text.is_empty() {
            shell.say("it said nothing");
        } else {
            shell.print(text.trim_end())?;
        }
        Ok(Exit::Done)
    }
}
