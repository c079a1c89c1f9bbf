//! One JSON object a line on stdout, for programs.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::words;
use crate::engine::{Event, EventSink, Outcome};
use crate::plan::Plan;

#[derive(Debug)]
pub struct JsonLines {
    plan: Arc<Plan>,
    /// The first one; that nobody reads is none.
    trouble: Mutex<Option<io::Error>>,
}

impl JsonLines {
    pub fn new(plan: Arc<Plan>) -> JsonLines {
        JsonLines { plan, trouble: Mutex::default() }
    }

    fn value(&self, event: Event) -> Value {
        let name = |node| words::name(&self.plan, node);
        match event {
            Event::Planned { sources, steps } => json!({"event": "planned", "sources": sources, "steps": steps}),
            Event::Started { node, key, reasons } => json!({"event": "started", "step": name(node), "key": key, "reasons": reasons}),
            Event::Progress { node, done, total, unit, note } => {
                json!({"event": "progress", "step": name(node), "done": done, "total": total, "unit": unit, "note": note})
            }
            Event::Line { node, text } => json!({"event": "line", "step": name(node), "text": text}),
            Event::Warned { node, text } => json!({"event": "warning", "step": name(node), "text": text}),
            Event::Finished { node, outcome } => finished(name(node), outcome, &|node| name(node).to_string()),
            Event::StoreDamage { node, damage } => json!({"event": "store_damage", "step": name(node), "message": damage.to_string()}),
            Event::Difference(difference) => json!({"event": "difference", "step": name(difference.node), "key": difference.key,
                "recorded": difference.recorded, "rebuilt": difference.rebuilt, "paths": difference.paths}),
            Event::Warning { text } => json!({"event": "warning", "text": text}),
            Event::Summary(summary) => {
                let path: Vec<Value> =
                    summary.critical_path.iter().map(|(node, spent)| json!({"step": name(*node), "ms": ms(*spent)})).collect();
                json!({"event": "summary", "built": summary.built, "cached": summary.cached, "failed": summary.failed,
                    "skipped": summary.skipped, "cancelled": summary.cancelled, "wall_ms": ms(summary.wall),
                    "work_ms": ms(summary.work), "critical_path": path})
            }
        }
    }
}

impl EventSink for JsonLines {
    fn event(&self, event: Event) {
        let line = format!("{}\n", self.value(event));
        let mut out = io::stdout().lock();
        if let Err(error) = out.write_all(line.as_bytes()).and_then(|()| out.flush())
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            self.trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    fn trouble(&self) -> Option<io::Error> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn finished(step: &str, outcome: Outcome, name: &dyn Fn(crate::plan::NodeId) -> String) -> Value {
    match outcome {
        Outcome::Cached { tree, duration } => {
            json!({"event": "finished", "step": step, "outcome": "cached", "output": tree, "ms": ms(duration)})
        }
        Outcome::Built { tree, duration } => {
            json!({"event": "finished", "step": step, "outcome": "built", "output": tree, "ms": ms(duration)})
        }
        Outcome::Failed { failure, duration } => json!({"event": "finished", "step": step, "outcome": "failed",
            "message": failure.message, "help": failure.help, "exit": failure.exit.code(), "ms": ms(duration)}),
        Outcome::Skipped { because } => {
            json!({"event": "finished", "step": step, "outcome": "skipped", "because": because.map(name)})
        }
        Outcome::Cancelled => json!({"event": "finished", "step": step, "outcome": "cancelled"}),
    }
}

fn ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
