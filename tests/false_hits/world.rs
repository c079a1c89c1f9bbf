//! A folder with sources and a store, a step that tells all that it can see of its inputs, and the comparison with an empty store.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use slmops::base::{Digest, Exit, Place, SourceText};
use slmops::engine::{Assignment, Engine, Event, EventSink, Options, Outcome, Scripted, Silence};
use slmops::plan::{Action, InputRef, Node, NodeId, Plan, Source};
use slmops::steps::{Artifact, Declared, Failure, Field, Io, Kind, Params, Part, Problem, Resources, Task};
use slmops::store::Store;

/// The two kinds of steps, by whether what they read is shared with the store.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Built,
    Foreign,
}

struct Probe(Step);

impl Kind for Probe {
    fn name(&self) -> &'static str {
        match self.0 {
            Step::Built => "probe",
            Step::Foreign => "foreign-probe",
        }
    }
    fn revision(&self) -> u32 {
        1
    }
    fn summary(&self) -> &'static str {
        "for tests"
    }
    fn help(&self) -> &'static str {
        ""
    }
    fn fields(&self) -> &'static [Field] {
        &[]
    }
    fn is_foreign(&self) -> bool {
        matches!(self.0, Step::Foreign)
    }
    fn expand(&self, _: &Declared) -> Result<Vec<Part>, Vec<Problem>> {
        Ok(Vec::new())
    }
    fn run(&self, _: &Task, _: &mut Io) -> Result<(), Failure> {
        Err(Failure::bug("a scripted worker runs it"))
    }
}

/// Clones are the same world.
#[derive(Clone)]
pub struct World {
    space: Arc<tempfile::TempDir>,
    /// Where the sources are, if not beside the store.
    data: PathBuf,
}

/// What a build came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The steps that ran, and what the last one wrote.
    Done {
        ran: Vec<String>,
        out: String,
    },
    Failed {
        message: String,
        exit: Exit,
    },
}

pub type Act = Arc<dyn Fn(&Io) + Send + Sync>;

/// What happens while a build runs.
#[derive(Default)]
pub struct Script {
    /// When the first step is about to begin: its inputs are not laid out yet.
    pub at_start: Option<Arc<dyn Fn() + Send + Sync>>,
    /// Within the first step, before and after it reads.
    pub before_reading: Option<Act>,
    pub after_reading: Option<Act>,
}

impl World {
    pub fn new() -> World {
        let space = tempfile::tempdir().unwrap();
        let data = space.path().join("data");
        fs::create_dir(&data).unwrap();
        World { space: Arc::new(space), data }
    }

    /// Sources on another file system.
    pub fn with_data(data: &Path) -> World {
        World { space: Arc::new(tempfile::tempdir().unwrap()), data: data.to_path_buf() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }

    pub fn beside(&self, name: &str) -> PathBuf {
        self.space.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Sets a file's times to 2001 and waits until its change time is old enough to be trusted.
    pub fn settle(&self, names: &[&str]) {
        names.iter().for_each(|name| set_old(&self.path(name)));
        std::thread::sleep(Duration::from_millis(2_100));
    }

    /// Builds with the shared store.
    pub fn build(&self, step: Step) -> Ended {
        self.run(&self.beside("cache"), step, Script::default())
    }

    pub fn build_while(&self, step: Step, script: Script) -> Ended {
        self.run(&self.beside("cache"), step, script)
    }

    /// Both kinds of steps, in the shared store and in an empty one, must agree on the files as they are now.
    #[track_caller]
    pub fn check(&self) {
        for step in [Step::Built, Step::Foreign] {
            let fresh = tempfile::tempdir().unwrap();
            match (self.build(step), self.run(&fresh.path().join("cache"), step, Script::default())) {
                (Ended::Done { out, .. }, Ended::Done { out: expected, .. }) => assert_eq!(out, expected, "a false hit"),
                (ended, expected) => assert_eq!(ended, expected),
            }
        }
    }

    /// The first build of this state must succeed and run its steps.
    #[track_caller]
    pub fn build_first(&self) {
        for step in [Step::Built, Step::Foreign] {
            let Ended::Done { ran, .. } = self.build(step) else { panic!("the first build fails") };
            assert_eq!(ran, ["look", "pass on"]);
        }
    }

    /// Whether a build runs nothing: for tricks that must not cost a hit.
    #[track_caller]
    pub fn expect_hit(&self) {
        for step in [Step::Built, Step::Foreign] {
            let Ended::Done { ran, .. } = self.build(step) else { panic!("the build fails") };
            assert!(ran.is_empty(), "{ran:?} ran again");
        }
    }

    pub fn store(&self) -> Store {
        Store::open(&self.beside("cache")).unwrap()
    }

    /// When the first step is about to begin.
    pub fn at_start(&self, act: impl Fn(&World) + Send + Sync + 'static) -> Script {
        let world = self.clone();
        Script { at_start: Some(Arc::new(move || act(&world))), ..Script::default() }
    }

    /// Within the first step: before it reads, and after it has read.
    pub fn around_reading(&self, before: fn(&World), after: fn(&World)) -> Script {
        let act = |act: fn(&World)| {
            let world = self.clone();
            let act: Act = Arc::new(move |_: &Io| act(&world));
            Some(act)
        };
        Script { before_reading: act(before), after_reading: act(after), ..Script::default() }
    }

    /// `look` reads the source `data`, `pass on` what `look` has written.
    pub fn run(&self, cache: &Path, step: Step, script: Script) -> Ended {
        let plan = self.plan(step);
        let options = Options { jobs: 1, project: "/test".to_string(), ..Options::default() };
        let Script { at_start, before_reading, after_reading } = script;
        let look = move |assignment: &Assignment, io: &mut Io| {
            before_reading.iter().for_each(|act| act(io));
            let seen = seen(assignment, io);
            after_reading.iter().for_each(|act| act(io));
            write_out(io, &seen)
        };
        let pass_on = |assignment: &Assignment, io: &mut Io| write_out(io, &seen(assignment, io));
        let worker = Arc::new(Scripted::default().on("look", look).on("pass on", pass_on));
        let events: Arc<dyn EventSink> = match at_start {
            Some(act) => Arc::new(AtStart(act)),
            None => Arc::new(Silence),
        };
        let engine = Engine::with_worker(Store::open(cache).unwrap(), events, worker.clone());
        let result = engine.build(&plan, &[NodeId(2)], &options);
        for outcome in result.outcomes.iter().flatten() {
            if let Outcome::Failed { failure, .. } = outcome {
                return Ended::Failed { message: failure.message.clone(), exit: failure.exit };
            }
        }
        let tree = result.tree(&InputRef { node: NodeId(2), output: None }).expect("a result");
        let text = |entry: &slmops::store::Entry| engine.store().read(entry.digest, entry.size_bytes, 1 << 20).unwrap();
        let out = tree.entries().iter().map(|entry| String::from_utf8(text(entry)).unwrap()).collect();
        Ended::Done { ran: worker.began(), out }
    }

    pub fn plan(&self, step: Step) -> Plan {
        static BUILT: Probe = Probe(Step::Built);
        static FOREIGN: Probe = Probe(Step::Foreign);
        let place = || Place::new(&Arc::new(SourceText::new("slmops.toml", "")), 0..0);
        let action = |name: &str, input: u32| {
            Node::Action(Action {
                names: vec![name.to_string()],
                place: place(),
                kind: match step {
                    Step::Built => &BUILT,
                    Step::Foreign => &FOREIGN,
                },
                task: Task { action: "probe", params: Params::from_iter([("name".to_string(), name.into())]) },
                inputs: vec![("data".to_string(), vec![InputRef { node: NodeId(input), output: None }])],
                artifact: Artifact::Files,
                outputs: vec![],
                hidden: false,
                resources: Resources::default(),
                timeout: None,
                tags: vec![],
                description: None,
            })
        };
        let source = self.space.path().join("source");
        let path = if fs::symlink_metadata(&source).is_ok() { source } else { self.data.clone() };
        let source = Node::Source(Source { name: "data".to_string(), place: place(), path });
        Plan { nodes: vec![source, action("look", 0), action("pass on", 1)], ..Plan::default() }
    }

    /// What the source `data` is, if not the folder of sources: a file or a link.
    pub fn point(&self, to: &Path) {
        let source = self.space.path().join("source");
        let _ = fs::remove_file(&source);
        std::os::unix::fs::symlink(to, source).unwrap();
    }
}

struct AtStart(Arc<dyn Fn() + Send + Sync>);

impl EventSink for AtStart {
    fn event(&self, event: Event) {
        if matches!(event, Event::Started { node: NodeId(1), .. }) {
            (self.0)();
        }
    }
}

/// All that a step can see of its inputs: names, kinds, permissions, times, sizes, owners, attributes, links, contents.
fn seen(assignment: &Assignment, io: &Io) -> String {
    let mut text = String::new();
    for input in io.inputs.iter().flat_map(|(_, paths)| paths) {
        for (path, meta) in listed(input) {
            let is_file = meta.is_file();
            let name = if input.is_dir() { path.strip_prefix(input).unwrap() } else { Path::new(path.file_name().unwrap()) };
            // Steps of ours may find that an input is a link; it reaches no output of theirs.
            let links = if is_file && assignment.kind.is_foreign() { meta.nlink() } else { 1 };
            let (size, content) = if is_file { (meta.len(), Digest::of(&fs::read(&path).unwrap()).short()) } else { (0, String::new()) };
            text += &format!(
                "{} {:o} {}.{} {size} {links} {} {} {content}\n",
                name.display(),
                meta.mode(),
                meta.mtime(),
                meta.mtime_nsec(),
                meta.uid() == rustix::process::getuid().as_raw(),
                attributes(&path),
            );
        }
    }
    text
}

fn attributes(path: &Path) -> usize {
    let mut buffer = [0u8; 4096];
    rustix::fs::llistxattr(path, &mut buffer).unwrap_or(0)
}

/// A file or folder and everything below.
#[expect(clippy::disallowed_methods, reason = "the map sorts them")]
fn listed(path: &Path) -> BTreeMap<PathBuf, fs::Metadata> {
    let mut found = BTreeMap::new();
    let mut open = vec![path.to_path_buf()];
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(path, meta);
    }
    found
}

/// Two files with the same content, so that a store that shares them shows it.
fn write_out(io: &Io, text: &str) -> Result<(), Failure> {
    for name in ["a/one", "b/two"] {
        let path = io.out.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    Ok(())
}

/// 9 September 2001.
pub fn old() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000_000)
}

pub fn set_old(path: &Path) {
    File::open(path).unwrap().set_modified(old()).unwrap();
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Whether a build failed for the only reason that is allowed.
#[track_caller]
pub fn expect_changed(ended: &Ended) {
    let Ended::Failed { message, exit } = ended else { panic!("{ended:?}") };
    assert!(message.contains("changed while the build used it") && *exit == Exit::Environment, "{message}");
}

#[track_caller]
pub fn expect_done(ended: &Ended) {
    assert!(matches!(ended, Ended::Done { .. }), "{ended:?}");
}
