//! How a build's findings are said, the same on a terminal and in plain lines.

use std::time::Duration;

use crate::base::units::show_duration;
use crate::engine::{Difference, Summary};
use crate::key::Reason;
use crate::plan::{NodeId, Plan};

/// The first reason, and how many more there are.
pub fn reasons(reasons: &[Reason]) -> String {
    match reasons {
        [] => String::new(),
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}

/// `2 built, 11 cached in 3.2 s`
pub fn summary(summary: &Summary) -> String {
    let counts = [
        (summary.built, "built"),
        (summary.cached, "cached"),
        (summary.failed, "failed"),
        (summary.skipped, "skipped"),
        (summary.cancelled, "stopped"),
    ];
    let said: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    let what = if said.is_empty() { "nothing to do".to_string() } else { said.join(", ") };
    format!("{what} in {}", show_duration(summary.wall))
}

/// `critical path 61 s: teacher 30 s → student.labels 4 s → student 27 s`; none if a single step ran.
pub fn critical_path(plan: &Plan, summary: &Summary) -> Option<String> {
    const SHOWN: usize = 6;
    let path = &summary.critical_path;
    if path.len() < 2 {
        return None;
    }
    let total: Duration = path.iter().map(|(_, duration)| *duration).sum();
    let mut longest: Vec<usize> = (0..path.len()).collect();
    longest.sort_by_key(|i| std::cmp::Reverse(path[*i].1));
    longest.truncate(SHOWN);
    longest.sort_unstable();
    let shown: Vec<String> = longest.iter().map(|i| format!("{} {}", name(plan, path[*i].0), show_duration(path[*i].1))).collect();
    let left = path.len() - shown.len();
    let more = if left > 0 { format!(" (and {left} shorter)") } else { String::new() };
    Some(format!("critical path {}: {}{more}", show_duration(total), shown.join(" → ")))
}

pub fn difference(plan: &Plan, difference: &Difference) -> String {
    let files = match difference.paths.as_slice() {
        [] => String::new(),
        paths => format!(": {}", paths.join(", ")),
    };
    format!(
        "`{}` is not reproducible: {} was built before, {} now{files}",
        name(plan, difference.node),
        difference.recorded.short(),
        difference.rebuilt.short()
    )
}

pub fn name(plan: &Plan, node: NodeId) -> &str {
    plan.node(node).name()
}
