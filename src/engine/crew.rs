//! The threads that run steps: jobs go out, ends come back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::plan::node::NodeId;
use crate::steps::Failure;

use super::job::{End, Job, Shop};

/// The threads, started as they are needed. They end when the crew is dropped.
pub struct Crew {
    jobs: Sender<(Job, Shop)>,
    waiting: Arc<Mutex<Receiver<(Job, Shop)>>>,
    ends: Receiver<(NodeId, End)>,
    report: Sender<(NodeId, End)>,
    threads: usize,
    /// Jobs that went out and have not come back.
    out: usize,
}

impl Crew {
    pub fn new() -> Crew {
        let (jobs, waiting) = channel();
        let (report, ends) = channel();
        Crew { jobs, waiting: Arc::new(Mutex::new(waiting)), ends, report, threads: 0, out: 0 }
    }

    /// Sends a job to a thread of its own. Where the system gives no further one, the job waits for one of those that there are.
    pub fn send(&mut self, job: Job, shop: Shop) -> Result<(), Failure> {
        if self.out == self.threads {
            match self.hire() {
                Err(error) if self.threads == 0 => return Err(Failure::thread(&error)),
                hired => self.threads += usize::from(hired.is_ok()),
            }
        }
        self.out += 1;
        // The other end is in this crew.
        self.jobs.send((job, shop)).map_err(|_| Failure::bug("a job has nowhere to go"))
    }

    fn hire(&self) -> std::io::Result<()> {
        let (waiting, report) = (self.waiting.clone(), self.report.clone());
        let work = move || {
            loop {
                let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok((job, shop)) = next else { return };
                // The receiver lives as long as the build.
                let _ = report.send((job.assignment.node, run_here(&job, &shop)));
            }
        };
        thread::Builder::new().name("step".to_string()).spawn(work).map(drop)
    }

    /// The next end, or none if there is none until then.
    pub fn next_end(&mut self, until: Instant) -> Option<(NodeId, End)> {
        let end = self.ends.recv_timeout(until.saturating_duration_since(Instant::now())).ok()?;
        self.out -= 1;
        Some(end)
    }
}

/// Runs a job on this thread. A step's panic is caught inside; this one would be ours, and a build would wait for ever.
pub fn run_here(job: &Job, shop: &Shop) -> End {
    let end = catch_unwind(AssertUnwindSafe(|| job.run(shop)));
    end.unwrap_or_else(|_| End::Failed { failure: Failure::bug("the engine panicked"), duration: Duration::ZERO })
}
