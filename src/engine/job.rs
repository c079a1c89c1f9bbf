//! One action, from the lock on its key to its record in the store. Runs on a thread of its own and may block.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::base::{Cancel, Digest, Exit};
use crate::plan::node::NodeId;
use crate::steps::io::Listener;
use crate::steps::{Failure, Io};
use crate::store::{Commit, Damage, Durability, KeyLock, Lookup, Record, Scratch, Store, StoreError, Tree};

use super::event::{Event, EventSink};
use super::options::CacheUse;
use super::sources::Snapshot;
use super::store_failure;
use super::worker::{Assignment, Worker};

/// All that a job needs of the build.
#[derive(Clone)]
pub struct Shop {
    pub store: Arc<Store>,
    pub worker: Arc<dyn Worker>,
    pub events: Arc<dyn EventSink>,
}

pub struct Job {
    pub assignment: Assignment,
    pub key: Digest,
    pub key_text: String,
    pub inputs: Vec<(String, Vec<JobInput>)>,
    pub threads: usize,
    pub cancel: Cancel,
    pub cache: CacheUse,
}

#[derive(Clone)]
pub enum JobInput {
    Source { name: String, snapshot: Arc<Snapshot> },
    Output { producer: NodeId, tree: Arc<Tree>, folder: Option<String> },
}

/// How a job ended.
pub enum End {
    Built {
        tree: Tree,
        duration: Duration,
        earlier: Option<Box<Record>>,
    },
    /// Another process made it meanwhile.
    Hit(Record),
    Failed {
        failure: Failure,
        duration: Duration,
    },
    /// An input's object is damaged and in quarantine: its producer has to run again.
    InputDamaged {
        producer: NodeId,
        damage: Damage,
    },
}

/// A step this long is made durable before it counts as done; shorter ones are synced together.
const LONG: Duration = Duration::from_millis(200);

/// Between two looks at a lock that another process holds.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// A log is for people.
const MAX_LOG_BYTES: usize = 4 << 20;

impl Job {
    pub fn run(&self, shop: &Shop) -> End {
        match self.attempt(shop) {
            Ok(end) => end,
            Err(failure) => End::Failed { failure, duration: Duration::ZERO },
        }
    }

    fn attempt(&self, shop: &Shop) -> Result<End, Failure> {
        let store = &*shop.store;
        let _lock = self.lock_key(store)?;
        if self.cache == CacheUse::Reuse
            && let Lookup::Hit(record) = store.lookup(self.key).map_err(store_failure)?
        {
            return Ok(End::Hit(record));
        }
        self.check_sources(store, "before")?;
        let scratch = store.scratch().map_err(store_failure)?;
        let inputs = match self.lay_out_inputs(store, &scratch) {
            Ok(inputs) => inputs,
            Err(Unready::Damaged { producer, damage }) => return Ok(End::InputDamaged { producer, damage }),
            Err(Unready::Failed(failure)) => return Err(failure),
        };
        let place = Place::prepare(store, &scratch, self)?;
        let voice = Voice { node: self.assignment.node, events: &*shop.events, log: Mutex::default() };
        let started = Instant::now();
        let ran = self.run_step(&*shop.worker, inputs, &place, &voice);
        let duration = started.elapsed();
        let ended = ran.and_then(|()| self.keep(store, &place.out, duration, voice.into_log()));
        place.tidy(&ended);
        Ok(ended.unwrap_or_else(|failure| End::Failed { failure, duration }))
    }

    /// Waits while another process runs the same action.
    fn lock_key(&self, store: &Store) -> Result<KeyLock, Failure> {
        loop {
            if let Some(lock) = store.try_lock_key(self.key).map_err(store_failure)? {
                return Ok(lock);
            }
            if self.cancel.is_cancelled() {
                return Err(Failure::cancelled());
            }
            std::thread::sleep(LOCK_POLL);
        }
    }

    fn check_sources(&self, store: &Store, when: &str) -> Result<(), Failure> {
        for input in self.inputs.iter().flat_map(|(_, inputs)| inputs) {
            let JobInput::Source { name, snapshot } = input else { continue };
            if !snapshot.is_current(store) {
                let shown = snapshot.path.display();
                return Err(Failure::new(format!("source `{name}` (`{shown}`) changed {when} the step used it; nothing was kept"))
                    .help("build again once the file is no longer being written"));
            }
        }
        Ok(())
    }

    fn lay_out_inputs(&self, store: &Store, scratch: &Scratch) -> Result<Vec<(String, Vec<PathBuf>)>, Unready> {
        let mut count = 0;
        let mut place = |input: &JobInput| {
            count += 1;
            input.lay_out(store, &scratch.path().join(format!("in{count}")))
        };
        let mut port = |(name, inputs): &(String, Vec<JobInput>)| {
            let paths = inputs.iter().map(&mut place).collect::<Result<_, _>>()?;
            Ok((name.clone(), paths))
        };
        self.inputs.iter().map(&mut port).collect()
    }

    fn run_step(&self, worker: &dyn Worker, inputs: Vec<(String, Vec<PathBuf>)>, place: &Place, voice: &Voice) -> Result<(), Failure> {
        let mut io = Io {
            inputs,
            out: place.out.clone(),
            checkpoint: place.checkpoint.clone(),
            cancel: self.cancel.clone(),
            threads: self.threads,
            listener: voice,
        };
        let result = catch_unwind(AssertUnwindSafe(|| worker.run(&self.assignment, &mut io)));
        let panicked = |panic: Box<dyn std::any::Any + Send>| {
            let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Failure::bug(format!("the step panicked: {}", said.unwrap_or("without a word")))
        };
        result.unwrap_or_else(|panic| Err(panicked(panic)))
    }

    /// Takes in what the step made, if nothing happened to its inputs meanwhile.
    fn keep(&self, store: &Store, out: &Path, duration: Duration, log: String) -> Result<End, Failure> {
        self.check_sources(store, "while")?;
        self.check_inputs(store)?;
        let durability = if duration >= LONG { Durability::Now } else { Durability::Batched };
        let tree = store.ingest(out, durability).map_err(ingest_failure)?;
        let log = match log.as_bytes() {
            [] => None,
            bytes => Some((store.put(bytes, durability).map_err(store_failure)?, bytes.len() as u64)),
        };
        let producer = concat!("slmops ", env!("CARGO_PKG_VERSION")).to_string();
        let record = Record { key: self.key, tree, log, key_text: self.key_text.clone(), duration, producer };
        let earlier = match store.commit(&record, durability).map_err(store_failure)? {
            Commit::Stored => None,
            Commit::Differs(earlier) => Some(earlier),
        };
        Ok(End::Built { tree: record.tree, duration, earlier })
    }

    /// A step that writes through its inputs' links writes into the store (root may, whatever the mode says).
    fn check_inputs(&self, store: &Store) -> Result<(), Failure> {
        for input in self.inputs.iter().flat_map(|(_, inputs)| inputs) {
            let JobInput::Output { tree, .. } = input else { continue };
            for entry in tree.entries() {
                // Only what was touched since it was laid out is read again.
                if let Err(damage) = store.check_content(entry.digest, entry.size_bytes) {
                    store.quarantine(&damage);
                    return Err(Failure::bug(format!("the step wrote to its input `{}`: {damage}", entry.path)));
                }
            }
        }
        Ok(())
    }
}

/// Why a step's inputs could not be laid out.
enum Unready {
    Damaged { producer: NodeId, damage: Damage },
    Failed(Failure),
}

impl From<Failure> for Unready {
    fn from(failure: Failure) -> Unready {
        Unready::Failed(failure)
    }
}

impl JobInput {
    fn lay_out(&self, store: &Store, folder: &Path) -> Result<PathBuf, Unready> {
        match self {
            JobInput::Source { snapshot, .. } => Ok(snapshot.path.clone()),
            JobInput::Output { producer, tree, folder: inner } => {
                match store.link_tree(tree, folder) {
                    Ok(()) => {}
                    Err(StoreError::Damaged(damage)) => {
                        store.quarantine(&damage);
                        return Err(Unready::Damaged { producer: *producer, damage });
                    }
                    Err(error) => return Err(store_failure(error).into()),
                }
                let Some(inner) = inner else { return Ok(folder.to_path_buf()) };
                let path = folder.join(inner);
                // An output may be empty; its folder is there all the same.
                fs::create_dir_all(&path).map_err(|error| Failure::file("create", &path, &error))?;
                Ok(path)
            }
        }
    }
}

/// Where a step writes.
struct Place {
    out: PathBuf,
    checkpoint: PathBuf,
}

impl Place {
    fn prepare(store: &Store, scratch: &Scratch, job: &Job) -> Result<Place, Failure> {
        let out = scratch.path().join("out");
        // A rebuild that is to prove something starts from nothing.
        let checkpoint = match job.cache {
            CacheUse::Reuse => store.partial(job.key),
            CacheUse::Rebuild => scratch.path().join("partial"),
        };
        for folder in [&out, &checkpoint] {
            fs::create_dir_all(folder).map_err(|error| Failure::file("create", folder, &error))?;
        }
        Ok(Place { out, checkpoint })
    }

    /// Checkpoints stay for as long as they may be of use.
    fn tidy(&self, ended: &Result<End, Failure>) {
        // Only an empty folder goes this way.
        let was_empty = fs::remove_dir(&self.checkpoint).is_ok();
        if !was_empty && ended.is_ok() {
            // If it cannot be removed, `gc` will.
            let _ = fs::remove_dir_all(&self.checkpoint);
        }
    }
}

/// A step's voice: to the build's readers at once, to its log at the end.
struct Voice<'a> {
    node: NodeId,
    events: &'a dyn EventSink,
    log: Mutex<String>,
}

impl Voice<'_> {
    fn into_log(self) -> String {
        self.log.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Listener for Voice<'_> {
    fn line(&self, text: &str) {
        {
            let mut log = self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if log.len() + text.len() < MAX_LOG_BYTES {
                log.push_str(text);
                log.push('\n');
            } else if !log.ends_with("(the rest is left out)\n") {
                log.push_str("(the rest is left out)\n");
            }
        }
        self.events.event(Event::Line { node: self.node, text: text.to_string() });
    }

    fn progress(&self, done: u64, total: u64, unit: &'static str, note: &str) {
        self.events.event(Event::Progress { node: self.node, done, total, unit, note: note.to_string() });
    }
}

/// A strange output is the step's fault; a full disk is not.
fn ingest_failure(error: StoreError) -> Failure {
    match error {
        StoreError::Refused { path, why } => Failure::new(format!("its output `{}` {why}", path.display())),
        other => store_failure(other),
    }
}

/// Whether a failure only means that the user stopped the build.
pub fn is_cancelled(failure: &Failure) -> bool {
    failure.exit == Exit::Interrupted
}
