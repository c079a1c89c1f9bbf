//! What a build says while it runs: one stream, read by the terminal, by `--json` and by whoever else listens. Nodes are named by their place in the
//! plan, which every reader has.

use std::sync::Mutex;
use std::time::Duration;

use crate::base::Digest;
use crate::key::Reason;
use crate::plan::node::NodeId;
use crate::steps::Failure;
use crate::store::Damage;

use super::summary::Summary;

/// Hears events, from several threads; must not be slow.
pub trait EventSink: Send + Sync {
    fn event(&self, event: Event);

    /// What has kept it from passing events on, where the reader relies on them.
    fn trouble(&self) -> Option<std::io::Error> {
        None
    }
}

#[derive(Clone, Debug)]
pub enum Event {
    /// What the build will look at: always the first event.
    Planned {
        sources: usize,
        steps: usize,
    },
    /// A step begins to run, and why. Reused steps only finish.
    Started {
        node: NodeId,
        key: Digest,
        reasons: Vec<Reason>,
    },
    Progress {
        node: NodeId,
        done: u64,
        total: u64,
        unit: &'static str,
        note: String,
    },
    /// A step said something for its log.
    Line {
        node: NodeId,
        text: String,
    },
    /// A step found something that the user should know; it goes on. Its log has it, too.
    Warned {
        node: NodeId,
        text: String,
    },
    Finished {
        node: NodeId,
        outcome: Outcome,
    },
    /// Something in the store was not what it should be; it is in quarantine, and the node is made again.
    StoreDamage {
        node: NodeId,
        damage: Damage,
    },
    /// A rebuild made something else than the cache holds under the same key: the step is not reproducible.
    Difference(Difference),
    /// Worth telling, harmless to the result.
    Warning {
        text: String,
    },
    /// Always the last event.
    Summary(Summary),
}

/// How a step ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Its result was in the cache; how long it took when it was made.
    Cached {
        tree: Digest,
        duration: Duration,
    },
    Built {
        tree: Digest,
        duration: Duration,
    },
    Failed {
        failure: Failure,
        duration: Duration,
    },
    /// It needs a step that failed, or the build ended before its turn.
    Skipped {
        because: Option<NodeId>,
    },
    Cancelled,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub node: NodeId,
    pub key: Digest,
    /// The result that the cache holds, and keeps.
    pub recorded: Digest,
    pub rebuilt: Digest,
    /// Files that differ, by their path in the output.
    pub paths: Vec<String>,
}

/// Drops everything.
#[derive(Debug)]
pub struct Silence;

impl EventSink for Silence {
    fn event(&self, _: Event) {}
}

/// Keeps everything, for tests and for readers that come later.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Vec<Event>>);

impl Recorder {
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl EventSink for Recorder {
    fn event(&self, event: Event) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(event);
    }
}
