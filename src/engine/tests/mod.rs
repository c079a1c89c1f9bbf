//! A small world for the engine's tests: plans by name, a store, sources in a folder, and a worker that does what it is told.

mod cache;
mod damage;
mod full_disk;
mod large;
mod schedule;
mod sources;

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::*;
use crate::base::{Place, SourceText};
use crate::plan::node::{Action, Node, Source};
use crate::steps::{Artifact, Declared, Field, Io, Kind, Params, Part, Problem, Resources, Task};

/// Writes `content` (a parameter) and all that its inputs hold into `out`.
pub struct Concat;

impl Kind for Concat {
    fn name(&self) -> &'static str {
        "concat"
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
    fn expand(&self, _: &Declared) -> Result<Vec<Part>, Vec<Problem>> {
        Ok(Vec::new())
    }
    fn run(&self, task: &Task, io: &mut Io) -> Result<(), Failure> {
        io.check_cancelled()?;
        let mut text = task.params.get("content").and_then(|value| value.as_str()).unwrap_or("").to_string();
        for path in io.inputs.iter().flat_map(|(_, paths)| paths) {
            let file = if path.is_dir() { path.join("out") } else { path.clone() };
            text += &std::fs::read_to_string(&file).map_err(|error| Failure::file("read", &file, &error))?;
        }
        let out = io.out.join("out");
        std::fs::write(&out, text).map_err(|error| Failure::file("write", &out, &error))
    }
}

/// The same as foreign code.
pub struct Foreign;

impl Kind for Foreign {
    fn name(&self) -> &'static str {
        "foreign"
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
        true
    }
    fn expand(&self, _: &Declared) -> Result<Vec<Part>, Vec<Problem>> {
        Ok(Vec::new())
    }
    fn run(&self, task: &Task, io: &mut Io) -> Result<(), Failure> {
        Concat.run(task, io)
    }
}

pub struct World {
    pub space: tempfile::TempDir,
    pub plan: Plan,
    pub options: Options,
    pub events: Arc<Recorder>,
}

impl World {
    pub fn new() -> World {
        let space = tempfile::tempdir().unwrap();
        let options = Options { jobs: 2, project: "/test".into(), ..Options::default() };
        World { space, plan: Plan::default(), options, events: Arc::default() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.space.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn source(&mut self, name: &str, path: &Path) -> NodeId {
        self.add(Node::Source(Source { name: name.into(), place: place(), path: path.into() }))
    }

    /// A step that uses the named nodes (`split.train` is a part of `split`) and has its name as `content`.
    pub fn step(&mut self, name: &str, inputs: &[&str]) -> NodeId {
        let inputs = inputs.iter().map(|input| {
            let (node, output) = input.split_once('.').map_or((*input, None), |(node, output)| (node, Some(output.to_string())));
            InputRef { node: self.id(node), output }
        });
        let action = Action {
            names: vec![name.into()],
            place: place(),
            kind: &Concat,
            task: Task { action: "concat", params: Params::from_iter([("content".to_string(), name.into())]) },
            inputs: vec![("data".into(), inputs.collect())],
            artifact: Artifact::Files,
            outputs: vec![],
            hidden: false,
            resources: Resources::default(),
            timeout: None,
            tags: vec![],
            description: None,
        };
        self.add(Node::Action(action))
    }

    fn add(&mut self, node: Node) -> NodeId {
        self.plan.nodes.push(node);
        NodeId(self.plan.nodes.len() as u32 - 1)
    }

    pub fn id(&self, name: &str) -> NodeId {
        self.plan.ids().find(|id| self.plan.node(*id).name() == name).unwrap_or_else(|| panic!("no node `{name}`"))
    }

    pub fn action(&mut self, name: &str) -> &mut Action {
        let id = self.id(name);
        let Node::Action(action) = &mut self.plan.nodes[id.index()] else { panic!("`{name}` is a source") };
        action
    }

    pub fn set(&mut self, name: &str, content: &str) {
        self.action(name).task.params.insert("content".into(), content.into());
    }

    pub fn store(&self) -> Store {
        Store::open(&self.path("cache")).unwrap()
    }

    pub fn all(&self) -> Vec<NodeId> {
        self.plan.ids().collect()
    }

    /// Builds everything with the kinds' own code, in a process of its own as far as the store can tell.
    pub fn build(&self) -> BuildResult {
        Engine::new(self.store(), self.events.clone()).build(&self.plan, &self.all(), &self.options)
    }

    pub fn build_with(&self, worker: Scripted) -> (BuildResult, Vec<String>) {
        let worker = Arc::new(worker);
        let engine = Engine::with_worker(self.store(), self.events.clone(), worker.clone());
        let result = engine.build(&self.plan, &self.all(), &self.options);
        (result, worker.began())
    }

    /// `name:outcome` for each step, in the plan's order.
    pub fn said(&self, result: &BuildResult) -> Vec<String> {
        let said = |id: NodeId| {
            let outcome = match result.outcome(id)? {
                Outcome::Cached { .. } => "cached",
                Outcome::Built { .. } => "built",
                Outcome::Failed { .. } => "failed",
                Outcome::Skipped { .. } => "skipped",
                Outcome::Cancelled => "cancelled",
            };
            Some(format!("{}:{outcome}", self.plan.node(id).name()))
        };
        self.plan.ids().filter_map(said).collect()
    }

    pub fn failure(&self, result: &BuildResult, name: &str) -> Failure {
        match result.outcome(self.id(name)) {
            Some(Outcome::Failed { failure, .. }) => failure.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// What a step's output file holds.
    pub fn out(&self, result: &BuildResult, name: &str) -> String {
        let tree = result.tree(&InputRef { node: self.id(name), output: None }).unwrap();
        let entry = tree.entries().iter().find(|entry| entry.path == "out").unwrap();
        String::from_utf8(self.store().read(entry.digest, entry.size_bytes, 1 << 20).unwrap()).unwrap()
    }

    pub fn reasons(&self, name: &str) -> Vec<Reason> {
        let engine = Engine::new(self.store(), Arc::new(Silence));
        match &engine.predict(&self.plan, &self.plan.ids().collect(), &self.options.project).unwrap()[&self.id(name)] {
            Prediction::WillRun { reasons, .. } => reasons.clone(),
            other => panic!("{other:?}"),
        }
    }
}

fn place() -> Place {
    Place::new(&Arc::new(SourceText::new("slmops.toml", "")), 0..0)
}

/// A rendezvous that fails instead of hanging.
pub struct Gate(std::sync::Mutex<mpsc::Receiver<()>>);

pub fn gate() -> (mpsc::Sender<()>, Gate) {
    let (open, wait) = mpsc::channel();
    (open, Gate(std::sync::Mutex::new(wait)))
}

impl Gate {
    pub fn pass(&self) {
        self.0.lock().unwrap().recv_timeout(Duration::from_secs(60)).expect("nobody opened the gate");
    }
}
