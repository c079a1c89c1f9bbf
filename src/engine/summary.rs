//! How a build went: counts, and the chain of steps that set its length.

use std::time::Duration;

use crate::plan::node::{Node, NodeId, Plan};

use super::event::Outcome;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub cached: usize,
    pub built: usize,
    pub failed: usize,
    pub skipped: usize,
    pub cancelled: usize,
    /// From the first look at the plan to the last step's end.
    pub wall: Duration,
    /// What the steps that ran took, one after the other.
    pub work: Duration,
    /// The chain of steps, each an input of the next, that took longest: more machines would not make the build shorter than this.
    pub critical_path: Vec<(NodeId, Duration)>,
}

impl Summary {
    pub fn of(plan: &Plan, outcomes: &[Option<Outcome>], wall: Duration) -> Summary {
        let mut summary = Summary { wall, ..Summary::default() };
        for outcome in outcomes.iter().flatten() {
            match outcome {
                Outcome::Cached { .. } => summary.cached += 1,
                Outcome::Built { .. } => summary.built += 1,
                Outcome::Failed { .. } => summary.failed += 1,
                Outcome::Skipped { .. } => summary.skipped += 1,
                Outcome::Cancelled => summary.cancelled += 1,
            }
        }
        summary.work = outcomes.iter().flatten().map(spent).sum();
        if !summary.work.is_zero() {
            summary.critical_path = critical_path(plan, outcomes);
        }
        summary
    }
}

/// How long a step ran in this build.
fn spent(outcome: &Outcome) -> Duration {
    match outcome {
        Outcome::Built { duration, .. } | Outcome::Failed { duration, .. } => *duration,
        Outcome::Cached { .. } | Outcome::Skipped { .. } | Outcome::Cancelled => Duration::ZERO,
    }
}

fn critical_path(plan: &Plan, outcomes: &[Option<Outcome>]) -> Vec<(NodeId, Duration)> {
    // The end of each node if nothing but its inputs kept it waiting, and the input that did.
    let mut ends = vec![Duration::ZERO; plan.nodes.len()];
    let mut through: Vec<Option<NodeId>> = vec![None; plan.nodes.len()];
    for (index, node) in plan.nodes.iter().enumerate() {
        let Node::Action(action) = node else { continue };
        let latest = action.input_refs().map(|input| (ends[input.node.index()], input.node)).max();
        let (start, input) = latest.map_or((Duration::ZERO, None), |(end, node)| (end, Some(node)));
        ends[index] = start + outcomes[index].as_ref().map_or(Duration::ZERO, spent);
        through[index] = input;
    }
    let mut path = Vec::new();
    let mut next = plan.ids().max_by_key(|id| (ends[id.index()], std::cmp::Reverse(*id)));
    while let Some(id) = next {
        let duration = outcomes[id.index()].as_ref().map_or(Duration::ZERO, spent);
        if !duration.is_zero() {
            path.push((id, duration));
        }
        next = through[id.index()];
    }
    path.reverse();
    path
}
