//! The threads that run steps, and the only place with a runtime: jobs go out, ends come back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::plan::node::NodeId;
use crate::steps::Failure;

use super::job::{End, Job, Shop};

/// The threads, started when the first step has to run.
pub struct Crew {
    runtime: Runtime,
    ends: UnboundedReceiver<(NodeId, End)>,
    report: UnboundedSender<(NodeId, End)>,
}

impl Crew {
    /// Threads for so many steps at a time; none is started before it is needed.
    pub fn start(steps: u32) -> Result<Crew, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(steps.max(1) as usize)
            .enable_time()
            .build()
            .map_err(|error| Failure::environment(format!("cannot start threads: {error}")))?;
        let (report, ends) = unbounded_channel();
        Ok(Crew { runtime, ends, report })
    }

    pub fn send(&self, job: Job, shop: Shop) {
        let report = self.report.clone();
        self.runtime.spawn_blocking(move || {
            let id = job.assignment.node;
            // The receiver lives as long as the build.
            let _ = report.send((id, run_here(&job, &shop)));
        });
    }

    /// The next end, or none if there is none until then.
    pub fn next_end(&mut self, until: Instant) -> Option<(NodeId, End)> {
        let ends = &mut self.ends;
        self.runtime.block_on(async { tokio::time::timeout_at(until.into(), ends.recv()).await.ok().flatten() })
    }
}

/// Runs a job on this thread. A step's panic is caught inside; this one would be ours, and a build would wait for ever.
pub fn run_here(job: &Job, shop: &Shop) -> End {
    let end = catch_unwind(AssertUnwindSafe(|| job.run(shop)));
    end.unwrap_or_else(|_| End::Failed { failure: Failure::bug("the engine panicked"), duration: Duration::ZERO })
}
