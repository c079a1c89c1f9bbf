//! One build: looks each node up as soon as its inputs are known, runs what the cache does not hold. What is cached costs no task and no thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::{Cancel, Digest, Exit, units};
use crate::key::{self, Content, KeyRecord, Reason, Subject};
use crate::plan::node::{Action, InputRef, Node, NodeId, Plan};
use crate::steps::{Failure, Resources};
use crate::store::{Damage, Latest, Lookup, Record, Tree};

use super::crew::{Crew, run_here};
use super::event::{Difference, Event, Outcome};
use super::job::{self, End, Job, JobInput, Shop};
use super::options::{CacheUse, Capacity, OnFailure, Options};
use super::schedule::{Schedule, State};
use super::sources::{Snapshot, Sources};
use super::summary::Summary;
use super::worker::Assignment;
use super::{BuildResult, reasons, store_failure};

/// How often a build looks whether the user has asked it to stop.
const TICK: Duration = Duration::from_millis(50);

/// A result that is damaged again right after it was made says that the disk is failing.
const MAX_REPAIRS: u32 = 3;

/// What a node came to.
#[derive(Clone, Debug)]
pub(super) enum Made {
    Source(Arc<Snapshot>),
    Output { key: Digest, tree: Arc<Tree> },
}

pub(super) struct Build<'a> {
    plan: &'a Plan,
    options: &'a Options,
    shop: Shop,
    schedule: Schedule,
    sources: Sources<'a>,
    latest: BTreeMap<String, Latest>,
    new_latest: BTreeMap<String, Digest>,
    made: Vec<Option<Made>>,
    outcomes: Vec<Option<Outcome>>,
    differences: Vec<Difference>,
    queued: BTreeMap<NodeId, Prepared>,
    running: BTreeMap<NodeId, Running>,
    /// Nodes that turned out to be the same action as one that runs: they look again when it has ended.
    followers: BTreeMap<Digest, Vec<NodeId>>,
    repairs: BTreeMap<NodeId, u32>,
    /// Damage that was told already: what the next look-up finds missing is its consequence.
    told: BTreeMap<NodeId, Damage>,
    free: Capacity,
    whole: Capacity,
    halt: Halt,
    /// Started when the first step has to run.
    crew: Option<Crew>,
}

/// Why nothing new begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Halt {
    No,
    Failed(NodeId),
    Cancelled,
}

/// A node that has to run.
struct Prepared {
    key: Digest,
    damaged: Option<Damage>,
}

struct Running {
    key: Digest,
    cancel: Cancel,
    began: Instant,
    timeout: Option<Duration>,
    overdue: Overdue,
    taken: Capacity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overdue {
    No,
    Told,
}

impl<'a> Build<'a> {
    pub fn new(plan: &'a Plan, selected: &[NodeId], options: &'a Options, shop: &'a Shop) -> Build<'a> {
        let whole = options.capacity();
        Build {
            plan,
            options,
            shop: shop.clone(),
            schedule: Schedule::new(plan, selected),
            sources: Sources::new(&shop.store),
            // It only explains; what it said is not written over if it cannot be read.
            latest: shop.store.latest(&options.project).unwrap_or_default(),
            new_latest: BTreeMap::new(),
            made: vec![None; plan.nodes.len()],
            outcomes: vec![None; plan.nodes.len()],
            differences: Vec::new(),
            queued: BTreeMap::new(),
            running: BTreeMap::new(),
            followers: BTreeMap::new(),
            repairs: BTreeMap::new(),
            told: BTreeMap::new(),
            free: whole,
            whole,
            halt: Halt::No,
            crew: None,
        }
    }

    pub fn run(mut self) -> BuildResult {
        let began = Instant::now();
        self.announce();
        self.shop.store.sweep();
        loop {
            self.look_up_ready();
            self.start_queued();
            if !self.running.is_empty() {
                self.attend();
            } else if self.halt != Halt::No || !self.schedule.has_ready() {
                break;
            }
        }
        self.give_up_the_rest();
        self.close();
        let summary = Summary::of(self.plan, &self.outcomes, began.elapsed());
        self.shop.events.event(Event::Summary(summary.clone()));
        BuildResult { outcomes: self.outcomes, made: self.made, differences: self.differences, summary }
    }

    fn announce(&self) {
        let needed = || self.plan.ids().filter(|id| self.schedule.state(*id) != State::Unneeded);
        let sources = needed().filter(|id| matches!(self.plan.node(*id), Node::Source(_))).count();
        self.shop.events.event(Event::Planned { sources, steps: needed().count() - sources });
    }

    /// Looks at every node whose inputs are known, until only nodes are left that have to run or wait for one that runs.
    fn look_up_ready(&mut self) {
        for count in 0u32.. {
            // Between cached steps, too: there may be a hundred thousand.
            if count % 64 == 63 {
                self.heed_cancel();
                self.start_queued();
            }
            if self.halt != Halt::No {
                return;
            }
            let Some(id) = self.schedule.next_ready() else { return };
            let plan = self.plan;
            let looked = match plan.node(id) {
                Node::Source(source) => self.sources.snapshot(&source.path).map(|snapshot| {
                    self.made[id.index()] = Some(Made::Source(snapshot));
                    self.schedule.made(id);
                }),
                Node::Action(action) => self.look_up(id, action),
            };
            if let Err(failure) = looked {
                self.fail(id, failure, Duration::ZERO);
            }
        }
    }

    fn look_up(&mut self, id: NodeId, action: &Action) -> Result<(), Failure> {
        let inputs = contents(&self.made, action)?;
        let subject = Subject { kind: action.kind, task: &action.task, inputs: &inputs };
        let key = key::of(&subject);
        let mut damaged = None;
        if self.options.cache == CacheUse::Reuse {
            match self.shop.store.lookup(key).map_err(store_failure)? {
                Lookup::Hit(record) => {
                    self.reuse(id, record);
                    return Ok(());
                }
                Lookup::Miss => {}
                Lookup::Damaged(damage) => damaged = Some(self.tell_damage(id, damage)),
            }
        }
        self.queued.insert(id, Prepared { key, damaged });
        self.schedule.queue(id);
        Ok(())
    }

    /// The damage to give as a reason. A loss is none to tell of: whoever runs `gc` or `rm` may do so.
    fn tell_damage(&mut self, id: NodeId, damage: Damage) -> Damage {
        if let Some(told) = self.told.remove(&id) {
            return told;
        }
        if !matches!(damage, Damage::Missing { .. }) {
            self.shop.events.event(Event::StoreDamage { node: id, damage: damage.clone() });
        }
        damage
    }

    fn reasons(&self, action: &Action, key: Digest, record: &KeyRecord, damaged: Option<Damage>) -> Vec<Reason> {
        match (self.options.cache, damaged) {
            (CacheUse::Rebuild, _) => vec![Reason::Asked],
            (_, Some(damage)) => vec![Reason::Damaged { what: damage.to_string() }],
            _ => reasons(&self.shop.store, self.latest.get(action.name()), key, record),
        }
    }

    fn reuse(&mut self, id: NodeId, record: Record) {
        let Record { key, tree, duration, .. } = record;
        let outcome = Outcome::Cached { tree: tree.digest(), duration };
        self.succeed(id, key, tree, outcome);
    }

    fn succeed(&mut self, id: NodeId, key: Digest, tree: Tree, outcome: Outcome) {
        let name = self.plan.node(id).name();
        if !name.is_empty() && self.latest.get(name).is_none_or(|latest| latest.key != key) {
            self.new_latest.insert(name.to_string(), key);
        }
        self.made[id.index()] = Some(Made::Output { key, tree: Arc::new(tree) });
        self.finish(id, outcome);
        self.schedule.made(id);
    }

    fn fail(&mut self, id: NodeId, failure: Failure, duration: Duration) {
        let outcome = if job::is_cancelled(&failure) { Outcome::Cancelled } else { Outcome::Failed { failure, duration } };
        let is_failure = matches!(outcome, Outcome::Failed { .. });
        self.finish(id, outcome);
        for lost in self.schedule.lose(id) {
            self.finish(lost, if is_failure { Outcome::Skipped { because: Some(id) } } else { Outcome::Cancelled });
        }
        if is_failure && self.options.on_failure == OnFailure::Stop && self.halt == Halt::No {
            self.halt = Halt::Failed(id);
        }
    }

    fn finish(&mut self, id: NodeId, outcome: Outcome) {
        self.shop.events.event(Event::Finished { node: id, outcome: outcome.clone() });
        self.outcomes[id.index()] = Some(outcome);
    }

    fn start_queued(&mut self) {
        while self.halt == Halt::No
            && let Some(id) = self.schedule.first_queued()
        {
            let Node::Action(action) = self.plan.node(id) else { return };
            let Some(taken) = self.share(&action.resources) else {
                let wanted = action.resources.gpu;
                let have = self.whole.gpus;
                self.queued.remove(&id);
                self.fail(id, Failure::environment(format!("it needs {wanted} GPUs; this build has {have}")), Duration::ZERO);
                continue;
            };
            if !self.free.holds(&taken) {
                return;
            }
            let Some(prepared) = self.queued.remove(&id) else { return };
            self.schedule.run(id);
            if let Some(followers) = self.followers.get_mut(&prepared.key) {
                followers.push(id);
                continue;
            }
            if let Err(failure) = self.start(id, action, prepared, taken) {
                self.fail(id, failure, Duration::ZERO);
            }
        }
    }

    /// What a step takes while it runs. More than there is of threads or memory means all of it; a GPU that is not there cannot be shared.
    fn share(&self, resources: &Resources) -> Option<Capacity> {
        let cpu = if resources.cpu == 0 { self.whole.cpu } else { resources.cpu.min(self.whole.cpu) };
        let memory_bytes = resources.memory_bytes.min(self.whole.memory_bytes);
        (resources.gpu <= self.whole.gpus).then_some(Capacity { cpu, memory_bytes, gpus: resources.gpu })
    }

    fn start(&mut self, id: NodeId, action: &Action, prepared: Prepared, taken: Capacity) -> Result<(), Failure> {
        let Prepared { key, damaged } = prepared;
        let inputs = contents(&self.made, action)?;
        let record = KeyRecord::of(&Subject { kind: action.kind, task: &action.task, inputs: &inputs });
        let reasons = self.reasons(action, key, &record, damaged);
        let inputs = self.job_inputs(action)?;
        // In a chain there is nothing to do side by side, and a small step takes less time than its way to another thread and back. A time-out
        // needs somebody to watch the clock, though.
        let is_alone = self.running.is_empty() && action.timeout.is_none() && !self.schedule.has_more();
        let cancel = if is_alone { self.options.cancel.clone() } else { Cancel::default() };
        let job = Job {
            assignment: Assignment { node: id, name: action.name().to_string(), kind: action.kind, task: action.task.clone() },
            key,
            key_text: record.encode(),
            inputs,
            threads: taken.cpu as usize,
            cancel: cancel.clone(),
            cache: self.options.cache,
        };
        if !is_alone && self.crew.is_none() {
            self.crew = Some(Crew::new());
        }
        self.shop.events.event(Event::Started { node: id, key, reasons });
        self.free.take(&taken);
        let running = Running { key, cancel, began: Instant::now(), timeout: action.timeout, overdue: Overdue::No, taken };
        self.running.insert(id, running);
        self.followers.insert(key, Vec::new());
        match &mut self.crew {
            Some(crew) if !is_alone => {
                if let Err(failure) = crew.send(job, self.shop.clone()) {
                    self.take_end(id, End::Failed { failure, duration: Duration::ZERO });
                }
            }
            _ => {
                let end = run_here(&job, &self.shop);
                self.take_end(id, end);
                self.heed_cancel();
            }
        }
        Ok(())
    }

    fn job_inputs(&self, action: &Action) -> Result<Vec<(String, Vec<JobInput>)>, Failure> {
        let input = |reference: &InputRef| match self.made[reference.node.index()].as_ref() {
            Some(Made::Source(snapshot)) => {
                let name = self.plan.node(reference.node).name().to_string();
                Ok(JobInput::Source { name, snapshot: snapshot.clone() })
            }
            Some(Made::Output { tree, .. }) => {
                Ok(JobInput::Output { producer: reference.node, tree: tree.clone(), folder: reference.output.clone() })
            }
            None => Err(Failure::bug("an input was used before it was made")),
        };
        let port = |(name, references): &(String, Vec<InputRef>)| {
            Ok((name.clone(), references.iter().map(input).collect::<Result<_, Failure>>()?))
        };
        action.inputs.iter().map(port).collect()
    }

    /// Waits for the next end, or for the time to look around.
    fn attend(&mut self) {
        let until = self.next_look();
        let Some(crew) = &mut self.crew else { return };
        if let Some((id, end)) = crew.next_end(until) {
            self.take_end(id, end);
        }
        self.heed_cancel();
        self.heed_timeouts();
    }

    fn next_look(&self) -> Instant {
        let tick = Instant::now() + TICK;
        let deadlines = self.running.values().filter(|running| running.overdue == Overdue::No);
        deadlines.filter_map(|running| running.began.checked_add(running.timeout?)).min().map_or(tick, |first| first.min(tick))
    }

    fn heed_cancel(&mut self) {
        if self.options.cancel.is_cancelled() && self.halt != Halt::Cancelled {
            self.halt = Halt::Cancelled;
            self.running.values().for_each(|running| running.cancel.cancel());
        }
    }

    fn heed_timeouts(&mut self) {
        for running in self.running.values_mut() {
            if running.overdue == Overdue::No && running.timeout.is_some_and(|timeout| running.began.elapsed() >= timeout) {
                running.overdue = Overdue::Told;
                running.cancel.cancel();
            }
        }
    }

    fn take_end(&mut self, id: NodeId, end: End) {
        let Some(running) = self.running.remove(&id) else { return };
        self.free.give_back(&running.taken);
        match end {
            End::Built { tree, duration, earlier } => {
                self.compare(id, running.key, &tree, earlier);
                let outcome = Outcome::Built { tree: tree.digest(), duration };
                self.succeed(id, running.key, tree, outcome);
            }
            End::Hit(record) => self.reuse(id, record),
            End::InputDamaged { producer, damage } => self.repair(id, producer, damage),
            End::Failed { failure, .. } if job::is_cancelled(&failure) && running.overdue == Overdue::Told => {
                let limit = units::show_duration(running.timeout.unwrap_or_default());
                let help = "raise its `timeout`, or give it less to do";
                self.fail(id, Failure::new(format!("it did not end within its timeout of {limit}")).help(help), running.began.elapsed());
            }
            End::Failed { failure, duration } => self.fail(id, failure, duration),
        }
        for follower in self.followers.remove(&running.key).unwrap_or_default() {
            self.schedule.wait(follower);
        }
    }

    /// A step that makes other bytes from the same key is a finding, whatever the user asked for.
    fn compare(&mut self, id: NodeId, key: Digest, rebuilt: &Tree, earlier: Option<Box<Record>>) {
        let Some(earlier) = earlier else { return };
        let paths = differing_paths(&earlier.tree, rebuilt);
        let difference = Difference { node: id, key, recorded: earlier.tree.digest(), rebuilt: rebuilt.digest(), paths };
        self.shop.events.event(Event::Difference(difference.clone()));
        self.differences.push(difference);
    }

    fn repair(&mut self, id: NodeId, producer: NodeId, damage: Damage) {
        self.shop.events.event(Event::StoreDamage { node: producer, damage: damage.clone() });
        let repairs = self.repairs.entry(producer).or_default();
        *repairs += 1;
        if *repairs > MAX_REPAIRS {
            let help = "is the disk failing? `slmops cache verify` reads all of the store";
            self.fail(id, Failure::environment(format!("its input is damaged again and again: {damage}")).help(help), Duration::ZERO);
            return;
        }
        self.told.insert(producer, damage);
        self.schedule.reopen(producer);
        self.schedule.wait(id);
    }

    fn give_up_the_rest(&mut self) {
        let outcome = match self.halt {
            Halt::No => Outcome::Skipped { because: None },
            Halt::Failed(id) => Outcome::Skipped { because: Some(id) },
            Halt::Cancelled => Outcome::Cancelled,
        };
        let begun = [State::Waiting, State::Ready, State::Queued, State::Running];
        let rest: Vec<NodeId> = begun.into_iter().flat_map(|state| self.schedule.all(state)).collect();
        for id in rest {
            if matches!(self.plan.node(id), Node::Action(_)) {
                self.finish(id, outcome.clone());
            }
        }
    }

    /// Writes down what later builds want to know. None of it is worth failing a build that has its results.
    fn close(&mut self) {
        let store = &self.shop.store;
        let saved = self.sources.save();
        let kept = if self.new_latest.is_empty() { Ok(()) } else { store.set_latest(&self.options.project, &self.new_latest) };
        for text in store.take_warnings() {
            self.shop.events.event(Event::Warning { text });
        }
        for trouble in [saved.err(), kept.err().map(store_failure), store.sync().err().map(store_failure)].into_iter().flatten() {
            self.shop.events.event(Event::Warning { text: trouble.message });
        }
    }
}

/// What an action's inputs hold, in the order in which it sees them.
pub(super) fn contents(made: &[Option<Made>], action: &Action) -> Result<Vec<(String, Vec<Content>)>, Failure> {
    let content = |reference: &InputRef| match (made[reference.node.index()].as_ref(), &reference.output) {
        (Some(Made::Source(snapshot)), None) => Ok(snapshot.content),
        (Some(Made::Output { tree, .. }), None) => Ok(Content::Folder(tree.digest())),
        (Some(Made::Output { tree, .. }), Some(folder)) => Ok(Content::Folder(tree.sub(folder).digest())),
        (Some(Made::Source(_)), Some(_)) => Err(Failure::bug("a source has no named outputs")),
        (None, _) => Err(Failure::bug("an input was used before it was made")),
    };
    let port =
        |(name, references): &(String, Vec<InputRef>)| Ok((name.clone(), references.iter().map(content).collect::<Result<_, Failure>>()?));
    action.inputs.iter().map(port).collect()
}

fn differing_paths(one: &Tree, other: &Tree) -> Vec<String> {
    let map = |tree: &Tree| -> BTreeMap<String, _> {
        tree.entries().iter().map(|entry| (entry.path.clone(), (entry.digest, entry.mode))).collect()
    };
    let (one, other) = (map(one), map(other));
    let mut paths: Vec<String> = one.iter().filter(|(path, file)| other.get(*path) != Some(file)).map(|(path, _)| path.clone()).collect();
    paths.extend(other.keys().filter(|path| !one.contains_key(*path)).cloned());
    paths.sort();
    paths
}

/// How badly a set of failures ends a build.
pub(super) fn worst_exit(outcomes: &[Option<Outcome>]) -> Exit {
    let rank = |exit: Exit| match exit {
        Exit::Done => 0,
        Exit::Failed => 1,
        Exit::Usage => 2,
        Exit::Environment => 3,
        Exit::Interrupted => 4,
        Exit::Bug => 5,
    };
    let exit = |outcome: &Outcome| match outcome {
        Outcome::Cached { .. } | Outcome::Built { .. } => Exit::Done,
        Outcome::Failed { failure, .. } => failure.exit,
        Outcome::Skipped { .. } => Exit::Failed,
        Outcome::Cancelled => Exit::Interrupted,
    };
    outcomes.iter().flatten().map(exit).max_by_key(|exit| rank(*exit)).unwrap_or(Exit::Done)
}
