//! One action, from the lock on its key to its record in the store. Runs on a thread of its own and may block.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::base::{Cancel, Digest, Exit, files, remove_all};
use crate::plan::node::NodeId;
use crate::steps::io::Listener;
use crate::steps::{Failure, Io};
use crate::store::{
    Commit, Damage, Durability, FIXED_TIME, KeyLock, Lookup, Record, Scratch, Share, Store, StoreError, Tree, create_folder, damage,
};

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
    /// What steps had to say of this machine: it is told once, however many of them find it.
    pub warned: Arc<Mutex<BTreeSet<String>>>,
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
        let scratch = store.scratch().map_err(store_failure)?;
        let laid = match self.lay_out_inputs(store, &scratch) {
            Ok(laid) => laid,
            Err(Unready::Damaged { producer, damage }) => return Ok(End::InputDamaged { producer, damage }),
            Err(Unready::Failed(failure)) => return Err(failure),
        };
        let place = Place::prepare(store, &scratch, self)?;
        let voice =
            Voice { node: self.assignment.node, events: &*shop.events, warned: &shop.warned, names: laid.names, log: Mutex::default() };
        let started = Instant::now();
        let ran = self.run_step(&*shop.worker, laid.inputs, &place, &voice);
        let duration = started.elapsed();
        let ran = ran.map_err(|failure| voice.names.apply(failure));
        let checked = match self.share() {
            Share::Private => Ok(()),
            Share::Linked => self.check_inputs(store),
        };
        if checked.is_err() {
            // What it learnt from a changed input must not be resumed.
            place.forget();
        }
        let ended = checked.and(ran).and_then(|()| self.keep(store, &place.out, duration, voice.into_log()));
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

    fn share(&self) -> Share {
        if self.assignment.kind.is_foreign() { Share::Private } else { Share::Linked }
    }

    /// Puts the inputs where the step will read them: from the store, sources too, so that it reads what its key says.
    fn lay_out_inputs(&self, store: &Store, scratch: &Scratch) -> Result<Laid, Unready> {
        let share = self.share();
        let mut laid = Laid::default();
        let mut count = 0;
        for (name, inputs) in &self.inputs {
            let mut paths = Vec::with_capacity(inputs.len());
            for input in inputs {
                count += 1;
                let folder = scratch.path().join(format!("in{count}"));
                let path = input.lay_out(store, &folder, share, &self.cancel)?;
                if let JobInput::Source { snapshot, .. } = input {
                    laid.names.add(&path, &snapshot.path);
                }
                paths.push(path);
            }
            laid.inputs.push((name.clone(), paths));
        }
        Ok(laid)
    }

    fn run_step(&self, worker: &dyn Worker, inputs: Vec<(String, Vec<PathBuf>)>, place: &Place, voice: &Voice) -> Result<(), Failure> {
        let mut io = Io {
            inputs,
            out: place.out.clone(),
            checkpoint: place.checkpoint.clone(),
            cancel: self.cancel.clone(),
            threads: self.threads,
            now: self.assignment.task.now(),
            listener: voice,
        };
        let result = catch_unwind(AssertUnwindSafe(|| worker.run(&self.assignment, &mut io)));
        let panicked = |panic: Box<dyn std::any::Any + Send>| {
            let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Failure::bug(format!("the step panicked: {}", said.unwrap_or("without a word")))
        };
        result.unwrap_or_else(|panic| Err(panicked(panic)))
    }

    /// Takes in what the step made. Records come after their objects; one sync makes them durable together.
    fn keep(&self, store: &Store, out: &Path, duration: Duration, log: String) -> Result<End, Failure> {
        let tree = store.ingest(out, &self.cancel).map_err(ingest_failure)?;
        let log = match log.as_bytes() {
            [] => None,
            bytes => Some((store.put(bytes, Durability::Batched).map_err(store_failure)?, bytes.len() as u64)),
        };
        let producer = concat!("slmops ", env!("CARGO_PKG_VERSION")).to_string();
        let record = Record { key: self.key, tree, log, key_text: self.key_text.clone(), duration, producer };
        let durability = if duration >= LONG { Durability::Now } else { Durability::Batched };
        let earlier = match store.commit(&record, durability).map_err(store_failure)? {
            Commit::Stored => None,
            Commit::Differs(earlier) => Some(earlier),
        };
        Ok(End::Built { tree: record.tree, duration, earlier })
    }

    /// An input that is a link to an object may have been written to meanwhile. Only what was touched since it was laid out is read again.
    fn check_inputs(&self, store: &Store) -> Result<(), Failure> {
        for entry in self.inputs.iter().flat_map(|(_, inputs)| inputs).flat_map(|input| input.tree().entries()) {
            if let Some(damage) = damage(store.check_content(entry.digest, entry.size_bytes)).map_err(store_failure)? {
                store.quarantine(&damage);
                let message = format!("its input `{}` was written to in the store while it ran: {damage}; nothing was kept", entry.path);
                return Err(Failure::environment(message).help("build again: the input is made or copied anew"));
            }
        }
        Ok(())
    }
}

/// Inputs in the places where the step reads them.
#[derive(Default)]
struct Laid {
    inputs: Vec<(String, Vec<PathBuf>)>,
    names: Names,
}

/// What a user calls the files that a step reads elsewhere: messages name the source, not its copy.
#[derive(Default)]
struct Names(Vec<(String, String)>);

impl Names {
    fn add(&mut self, copy: &Path, source: &Path) {
        self.0.push((copy.display().to_string(), source.display().to_string()));
    }

    fn in_text(&self, text: &str) -> Option<String> {
        let mut changed = None;
        for (copy, source) in &self.0 {
            let text = changed.as_deref().unwrap_or(text);
            if text.contains(copy.as_str()) {
                changed = Some(text.replace(copy.as_str(), source));
            }
        }
        changed
    }

    fn apply(&self, failure: Failure) -> Failure {
        let message = self.in_text(&failure.message).unwrap_or(failure.message);
        let help = failure.help.map(|help| self.in_text(&help).unwrap_or(help));
        Failure { message, help, ..failure }
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
    fn tree(&self) -> &Tree {
        match self {
            JobInput::Source { snapshot, .. } => &snapshot.tree,
            JobInput::Output { tree, .. } => tree,
        }
    }

    fn lay_out(&self, store: &Store, folder: &Path, share: Share, cancel: &Cancel) -> Result<PathBuf, Unready> {
        match self {
            JobInput::Source { name, snapshot } => {
                for entry in snapshot.tree.entries() {
                    store.take_in(entry, &snapshot.file(entry), cancel).map_err(|error| source_failure(name, error))?;
                }
                store.lay_out(&snapshot.tree, folder, share, cancel).map_err(store_failure)?;
                Ok(snapshot.within(folder))
            }
            JobInput::Output { producer, tree, folder: inner } => {
                match store.lay_out(tree, folder, share, cancel) {
                    Ok(()) => {}
                    Err(StoreError::Damaged(damage)) => {
                        store.quarantine(&damage);
                        return Err(Unready::Damaged { producer: *producer, damage });
                    }
                    Err(error) => return Err(store_failure(error).into()),
                }
                let Some(inner) = inner else { return Ok(folder.to_path_buf()) };
                let path = folder.join(inner);
                if !files::exists(&path).map_err(|error| Failure::file("look at", &path, &error))? {
                    // An output may be empty; its folder is there all the same.
                    create_folder(&path)
                        .and_then(|()| FIXED_TIME.set(&path))
                        .and_then(|()| FIXED_TIME.set(folder))
                        .map_err(|error| Failure::file("create", &path, &error))?;
                }
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
        let create = |name: &str| {
            let folder = scratch.path().join(name);
            create_folder(&folder).map_err(|error| Failure::file("create", &folder, &error)).map(|()| folder)
        };
        // A rebuild that is to prove something starts from nothing.
        let checkpoint = match job.cache {
            CacheUse::Reuse => store.create_partial(job.key).map_err(store_failure)?,
            CacheUse::Rebuild => None,
        };
        let checkpoint = checkpoint.map_or_else(|| create("partial"), Ok)?;
        Ok(Place { out: create("out")?, checkpoint })
    }

    fn forget(&self) {
        // If it cannot be removed, `gc` will.
        let _ = remove_all(&self.checkpoint);
    }

    /// Checkpoints stay for as long as they may be of use.
    fn tidy(&self, ended: &Result<End, Failure>) {
        // Only an empty folder goes this way.
        let was_empty = fs::remove_dir(&self.checkpoint).is_ok();
        if !was_empty && ended.is_ok() {
            self.forget();
        }
    }
}

/// A step's voice: to the build's readers at once, to its log at the end.
struct Voice<'a> {
    node: NodeId,
    events: &'a dyn EventSink,
    warned: &'a Mutex<BTreeSet<String>>,
    names: Names,
    log: Mutex<String>,
}

impl Voice<'_> {
    fn into_log(self) -> String {
        self.log.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn log_line(&self, text: &str) {
        let mut log = self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if log.len() + text.len() < MAX_LOG_BYTES {
            log.push_str(text);
            log.push('\n');
        } else if !log.ends_with("(the rest is left out)\n") {
            log.push_str("(the rest is left out)\n");
        }
    }
}

impl Listener for Voice<'_> {
    fn line(&self, text: &str) {
        let renamed = self.names.in_text(text);
        let text = renamed.as_deref().unwrap_or(text);
        self.log_line(text);
        self.events.event(Event::Line { node: self.node, text: text.to_string() });
    }

    fn machine_warning(&self, text: &str) {
        let is_new = self.warned.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(text.to_string());
        if is_new {
            self.events.event(Event::Warning { text: text.to_string() });
        }
    }

    fn warn(&self, text: &str) {
        self.log_line(&format!("warning: {text}"));
        self.events.event(Event::Warned { node: self.node, text: text.to_string() });
    }

    fn progress(&self, done: u64, total: u64, unit: &'static str, note: &str) {
        self.events.event(Event::Progress { node: self.node, done, total, unit, note: note.to_string() });
    }
}

fn source_failure(name: &str, error: StoreError) -> Failure {
    match error {
        StoreError::Changed { path } => {
            let message = format!("source `{name}` (`{}`) changed while the build used it; nothing was kept", path.display());
            Failure::environment(message).help("build again once it is no longer being written")
        }
        error => store_failure(error),
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
