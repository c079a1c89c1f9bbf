//! Who runs an action. `Local` runs it here, on threads of its own; `Scripted` does what a test tells it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::plan::node::NodeId;
use crate::steps::{Failure, Io, Kind, Task, io};

/// An action without the plan around it.
#[derive(Clone, Debug)]
pub struct Assignment {
    pub node: NodeId,
    /// For messages only.
    pub name: String,
    pub kind: &'static dyn Kind,
    pub task: Task,
}

/// Runs one action at a time on the calling thread, which may block. Called from several threads.
pub trait Worker: Send + Sync {
    fn run(&self, assignment: &Assignment, io: &mut Io) -> Result<(), Failure>;
}

/// Runs the kind's own code, inside a pool of as many threads as the action was given.
#[derive(Debug, Default)]
pub struct Local {
    /// Pools at rest, by their size: starting threads would cost more than a small step.
    idle: Mutex<BTreeMap<usize, Vec<rayon::ThreadPool>>>,
}

impl Worker for Local {
    fn run(&self, assignment: &Assignment, io: &mut Io) -> Result<(), Failure> {
        let pool = self.take(io.threads)?;
        let threads = io.threads;
        let result = pool.install(|| assignment.kind.run(&assignment.task, io));
        self.give_back(threads, pool);
        result
    }
}

impl Local {
    fn take(&self, threads: usize) -> Result<rayon::ThreadPool, Failure> {
        let idle = lock(&self.idle).get_mut(&threads).and_then(Vec::pop);
        match idle {
            Some(pool) => Ok(pool),
            None => io::pool(threads),
        }
    }

    fn give_back(&self, threads: usize, pool: rayon::ThreadPool) {
        lock(&self.idle).entry(threads).or_default().push(pool);
    }
}

/// What a scripted step does.
pub type Act = Box<dyn Fn(&Assignment, &mut Io) -> Result<(), Failure> + Send + Sync>;

/// A worker without kinds: what each step does is written by name, and the order in which steps began is kept. Scheduling is tested with it, without time.
#[derive(Default)]
pub struct Scripted {
    acts: BTreeMap<String, Act>,
    began: Mutex<Vec<String>>,
}

impl Scripted {
    /// A step without an act writes its own name into a file `out`.
    #[must_use]
    pub fn on(mut self, name: &str, act: impl Fn(&Assignment, &mut Io) -> Result<(), Failure> + Send + Sync + 'static) -> Scripted {
        self.acts.insert(name.to_string(), Box::new(act));
        self
    }

    pub fn began(&self) -> Vec<String> {
        lock(&self.began).clone()
    }
}

impl Worker for Scripted {
    fn run(&self, assignment: &Assignment, io: &mut Io) -> Result<(), Failure> {
        lock(&self.began).push(assignment.name.clone());
        match self.acts.get(&assignment.name) {
            Some(act) => act(assignment, io),
            None => {
                let path = io.out.join("out");
                std::fs::write(&path, &assignment.name).map_err(|error| Failure::file("write", &path, &error))
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
