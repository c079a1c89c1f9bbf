//! The live view: a bar for the build and a line for each step that runs, with its rate and the time that is left.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::said::Said;
use super::words;
use crate::base::units::show_duration;
use crate::engine::{Event, EventSink, Outcome};
use crate::plan::{NodeId, Plan};

#[derive(Debug)]
pub struct Live {
    plan: Arc<Plan>,
    color: bool,
    bars: MultiProgress,
    total: ProgressBar,
    running: Mutex<BTreeMap<NodeId, Step>>,
    said: Said,
    /// The name column's width: the longest step's name, within reason.
    width: usize,
}

#[derive(Debug)]
struct Step {
    bar: ProgressBar,
    /// A spinner until the step says how much there is to do.
    counts: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colors {
    Yes,
    No,
}

impl Live {
    pub fn new(plan: Arc<Plan>, colors: Colors) -> Live {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let total = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        total.set_style(style("{prefix} {bar:24} {pos}/{len} steps  {elapsed}"));
        let width = plan.nodes.iter().map(|node| node.name().chars().count()).max().unwrap_or(0).clamp(8, 52);
        Live { plan, color: colors == Colors::Yes, bars, total, running: Mutex::default(), said: Said::default(), width }
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.color { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// A line that stays, above the bars.
    fn keep(&self, text: &str) {
        if self.bars.println(text).is_err() {
            self.total.abandon();
        }
    }

    fn begin(&self, steps: usize) {
        self.total.set_length(steps as u64);
        self.total.set_prefix(format!("{:width$}", "building", width = self.width + 2));
        // From here on it is drawn, and with the others.
        self.bars.add(self.total.clone());
        self.total.enable_steady_tick(Duration::from_millis(250));
    }

    fn start(&self, node: NodeId, why: &str) {
        let bar = self.bars.insert_before(&self.total, ProgressBar::new_spinner());
        bar.set_style(style("{spinner} {prefix} {wide_msg}"));
        bar.set_prefix(format!("{:width$}", words::name(&self.plan, node), width = self.width));
        bar.set_message(why.to_string());
        bar.enable_steady_tick(Duration::from_millis(125));
        self.steps().insert(node, Step { bar, counts: false });
    }

    fn advance(&self, node: NodeId, done: u64, total: u64, unit: &'static str, note: &str) {
        let mut steps = self.steps();
        let Some(step) = steps.get_mut(&node) else { return };
        if !step.counts {
            step.counts = true;
            step.bar
                .set_style(style(&format!("{{spinner}} {{prefix}} {{bar:24}} {{pos}}/{{len}} {unit}  {{rate}}  {{eta}} left  {{msg}}")));
            step.bar.reset_eta();
        }
        if step.bar.length() != Some(total) {
            step.bar.set_length(total);
        }
        step.bar.set_position(done);
        step.bar.set_message(note.to_string());
    }

    fn finish(&self, node: NodeId, outcome: &Outcome) {
        let begun = self.steps().remove(&node);
        if let Some(step) = &begun {
            step.bar.finish_and_clear();
        }
        let name = format!("{:width$}", words::name(&self.plan, node), width = self.width);
        match outcome {
            Outcome::Built { duration, .. } => self.keep(&format!("{} {name} {}", self.paint("32", "✓"), show_duration(*duration))),
            Outcome::Failed { failure, .. } => {
                self.said.take(node).iter().for_each(|line| self.keep(&format!("    {line}")));
                self.keep(&format!("{} {name} {}", self.paint("1;31", "✗"), failure.message));
                if let Some(help) = &failure.help {
                    self.keep(&format!("  {:width$} {} {help}", "", self.paint("36", "help:"), width = self.width));
                }
            }
            Outcome::Cancelled if begun.is_some() => self.keep(&format!("{} {name} stopped", self.paint("33", "!"))),
            Outcome::Cancelled | Outcome::Cached { .. } | Outcome::Skipped { .. } => {}
        }
        self.total.inc(1);
    }

    fn steps(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Step>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventSink for Live {
    fn event(&self, event: Event) {
        match event {
            Event::Planned { steps, .. } => self.begin(steps),
            Event::Started { node, reasons, .. } => self.start(node, &words::reasons(&reasons)),
            Event::Progress { node, done, total, unit, note } => self.advance(node, done, total, unit, &note),
            // A person who watches wants the bars; what a step said last is shown if it fails.
            Event::Line { node, text } => self.said.hear(node, text),
            Event::Warned { node, text } => {
                let name = words::name(&self.plan, node);
                self.keep(&format!("{} `{name}`: {text}", self.paint("33", "warning:")));
            }
            Event::Finished { node, outcome } => self.finish(node, &outcome),
            Event::StoreDamage { node, damage } => {
                let name = words::name(&self.plan, node);
                self.keep(&format!("{} the store's copy of `{name}`: {damage}; it is built again", self.paint("33", "warning:")));
            }
            Event::Difference(difference) => {
                self.keep(&format!("{} {}", self.paint("1;31", "error:"), words::difference(&self.plan, &difference)));
            }
            Event::Warning { text } => self.keep(&format!("{} {text}", self.paint("33", "warning:"))),
            Event::Summary(summary) => {
                self.total.finish_and_clear();
                self.keep(&words::summary(&summary));
                if let Some(path) = words::critical_path(&self.plan, &summary) {
                    self.keep(&path);
                }
            }
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let rate = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        // A rate that cannot be written is left out.
        let _ = write!(text, "{:.1}/s", state.per_sec());
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━━─").with_key("rate", rate)
}
