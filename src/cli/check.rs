//! `slmops check`: is the manifest right?

use super::project::{Load, Project};
use super::shell::{Shell, Stop};
use crate::base::{Diagnostic, Exit};
use crate::plan::{Node, Plan};
use crate::steps::Artifact;

/// Check the manifest: everything that is wrong with it, at once
#[derive(Debug, clap::Args)]
pub struct Check {
    #[command(flatten)]
    load: Load,
}

impl Check {
    pub fn run(self, shell: &Shell) -> Result<Exit, Stop> {
        let project = Project::load(shell, &self.load)?;
        let counts = Counts::of(&project.plan);
        if shell.json {
            let warnings: Vec<_> = project.plan.warnings.iter().map(Diagnostic::to_json).collect();
            shell.print_json(
                &serde_json::json!({"diagnostics": warnings, "sources": counts.sources, "combinations": project.plan.combinations,
                "distinct_steps": counts.actions, "bundles": counts.bundles}),
            )?;
        }
        project.warn(shell);
        shell.say(format!("{} is right: {}", crate::manifest::FILE_NAME, counts.sentence(&project.plan)));
        Ok(Exit::Done)
    }
}

/// What a plan consists of.
pub struct Counts {
    pub sources: usize,
    pub actions: usize,
    pub bundles: usize,
}

impl Counts {
    pub fn of(plan: &Plan) -> Counts {
        let mut counts = Counts { sources: 0, actions: 0, bundles: 0 };
        for node in &plan.nodes {
            match node {
                Node::Source(_) => counts.sources += 1,
                Node::Action(action) => {
                    counts.actions += 1;
                    counts.bundles += usize::from(action.artifact == Artifact::Bundle);
                }
            }
        }
        counts
    }

    pub fn sentence(&self, plan: &Plan) -> String {
        let count = |n: usize, word: &str| if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") };
        format!(
            "{}, {}, {}, {}",
            count(self.sources, "source"),
            count(plan.combinations, "combination"),
            count(self.actions, "distinct step"),
            count(self.bundles, "bundle")
        )
    }
}
