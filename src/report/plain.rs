//! Plain lines, one for each thing that happens: for logs, CI and pipes.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::said::Said;
use super::words;
use crate::base::units::show_duration;
use crate::engine::{Event, EventSink, Outcome};
use crate::plan::{NodeId, Plan};

/// How often a running step says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Plain {
    plan: Arc<Plan>,
    quiet: bool,
    told: Mutex<BTreeMap<NodeId, Instant>>,
    said: Said,
}

impl Plain {
    /// `quiet` leaves only what is wrong.
    pub fn new(plan: Arc<Plan>, quiet: Quiet) -> Plain {
        Plain { plan, quiet: quiet == Quiet::Yes, told: Mutex::default(), said: Said::default() }
    }

    fn line(&self, text: &str) {
        if !self.quiet {
            wrong(text);
        }
    }

    fn has_begun(&self, node: NodeId) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&node)
    }

    /// Whether it is time for another line on a step's progress.
    fn is_due(&self, node: NodeId) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let last = told.entry(node).or_insert(now);
        let due = now.duration_since(*last) >= PROGRESS_EVERY;
        if due {
            *last = now;
        }
        due
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiet {
    Yes,
    No,
}

impl EventSink for Plain {
    fn event(&self, event: Event) {
        let name = |node| words::name(&self.plan, node);
        match event {
            Event::Planned { .. } => {}
            Event::Started { node, reasons, .. } => {
                self.is_due(node);
                self.line(&format!("start   {}: {}", name(node), words::reasons(&reasons)));
            }
            Event::Progress { node, done, total, unit, note } => {
                if self.is_due(node) {
                    let note = if note.is_empty() { note } else { format!(", {note}") };
                    self.line(&format!("        {}: {done}/{total} {unit}{note}", name(node)));
                }
            }
            Event::Line { node, text } if self.quiet => self.said.hear(node, text),
            Event::Line { node, text } => self.line(&format!("        {}: {text}", name(node))),
            Event::Warned { node, text } => wrong(&format!("warning: `{}`: {text}", name(node))),
            Event::Finished { node, outcome } => match outcome {
                Outcome::Built { duration, .. } => self.line(&format!("done    {} in {}", name(node), show_duration(duration))),
                Outcome::Failed { failure, .. } => {
                    self.said.take(node).iter().for_each(|line| wrong(&format!("        {}: {line}", name(node))));
                    wrong(&format!("FAILED  {}: {}", name(node), failure.message));
                    if let Some(help) = failure.help {
                        wrong(&format!("        help: {help}"));
                    }
                }
                Outcome::Cancelled if self.has_begun(node) => self.line(&format!("stopped {}", name(node))),
                Outcome::Cancelled | Outcome::Cached { .. } | Outcome::Skipped { .. } => {}
            },
            Event::StoreDamage { node, damage } => {
                wrong(&format!("warning: the store's copy of `{}`: {damage}; it is built again", name(node)))
            }
            Event::Difference(difference) => wrong(&format!("error: {}", words::difference(&self.plan, &difference))),
            Event::Warning { text } => wrong(&format!("warning: {text}")),
            Event::Summary(summary) => {
                self.line(&words::summary(&summary));
                if let Some(path) = words::critical_path(&self.plan, &summary) {
                    self.line(&path);
                }
            }
        }
    }
}

/// A broken stderr is no reason to stop a build.
fn wrong(text: &str) {
    let _gone = writeln!(io::stderr().lock(), "{text}");
}
