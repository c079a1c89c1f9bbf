//! The step kinds. A kind says which fields it takes, into which actions a declared step falls apart, and how to run one.
//!
//! A new kind is one folder here (`mod.rs`, `help.md`) and one line in [`KINDS`]; the JSON schema, `slmops help KIND`, the
//! reference page and the completions all read that list. An action's result is a function of its kind, its [`Task`] and its inputs, and
//! of nothing else: that is what the cache relies on.

pub mod bundle;
pub mod calibrate;
pub mod dataset;
pub mod device;
pub mod distill;
pub mod evaluate;
pub mod exec;
pub mod field;
pub mod finetune;
pub mod fit;
pub mod io;
pub mod json;
pub mod layers;
pub mod pattern;
pub mod prune;
pub mod quantize;
pub mod recover;
pub mod teacher_labels;
pub mod tokenizer;
pub mod train;

use std::fmt;

pub use field::{Arity, Artifact, Field, Need, Type};
pub use io::{Failure, Io};

/// Every step kind, in the order in which help lists them.
pub static KINDS: &[&dyn Kind] = &[
    &dataset::Dataset,
    &tokenizer::Tokenizer,
    &train::Train,
    &teacher_labels::TeacherLabels,
    &distill::Distill,
    &finetune::Finetune,
    &calibrate::Calibrate,
    &prune::Prune,
    &recover::Recover,
    &quantize::Quantize,
    &fit::Fit,
    &evaluate::Evaluate,
    &exec::KIND,
    &bundle::KIND,
];

pub fn kind(name: &str) -> Option<&'static dyn Kind> {
    KINDS.iter().copied().find(|kind| kind.name() == name)
}

/// Parameters after checking: every field of the kind, defaults filled in, sizes in bytes, durations in milliseconds, numbers by value.
pub type Params = serde_json::Map<String, serde_json::Value>;

/// The parameter that holds the project's `created`, of kinds that render chat templates.
pub const CREATED: &str = "created";

/// A step kind: `[NAME.STEP]` in the manifest.
pub trait Kind: Sync {
    fn name(&self) -> &'static str;

    /// Raised when the same inputs would give different bytes.
    fn revision(&self) -> u32;

    /// One line for lists.
    fn summary(&self) -> &'static str;

    /// The page that `slmops help NAME` shows (Markdown).
    fn help(&self) -> &'static str;

    fn fields(&self) -> &'static [Field];

    /// Whether it computes with the kernels, so that the numeric version is in its keys.
    fn is_numeric(&self) -> bool {
        false
    }

    /// Whether it runs code that is not ours, which gets inputs of its own to read instead of links into the store.
    fn is_foreign(&self) -> bool {
        false
    }

    /// Parameters that decide how an action runs but change no byte of its result: no key holds them, and actions that differ in nothing
    /// else are one.
    fn unkeyed(&self) -> &'static [&'static str] {
        &[]
    }

    /// What an action's port carries, so that it can be told what a model was trained on.
    fn flow(&self, _port: &str) -> Flow {
        Flow::Made
    }

    /// Whether a field names a model whose quality is measured. For each such `FIELD` the plan adds a port `lessons.FIELD` with the data that the model
    /// learned from, if there is any.
    fn judges(&self, _field: &str) -> bool {
        false
    }

    /// Whether a field names records that models are measured on.
    fn tests_on(&self, _field: &str) -> bool {
        false
    }

    /// Whether it renders chat templates, which may ask for the day: the project's `created`, if it has one, is in its keys.
    fn renders_chats(&self) -> bool {
        false
    }

    /// The actions of one declared step (of one combination of its matrix). All problems at once.
    fn expand(&self, declared: &Declared) -> Result<Vec<Part>, Vec<Problem>>;

    /// Runs one action: reads `io`'s inputs, fills its output folder.
    fn run(&self, task: &Task, io: &mut Io) -> Result<(), Failure>;
}

/// How what a port carries reaches an action's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The output is made from it: models, labels, figures.
    Made,
    /// Records that decide about weights.
    Learned,
    /// Records that are passed on, all or some of them.
    Passed,
    /// Records that are kept out of the output.
    KeptOut,
    /// Only a vocabulary and a chat template.
    Vocabulary,
}

/// One step of the manifest, checked against its kind's fields, its references resolved.
#[derive(Clone, Debug)]
pub struct Declared {
    /// As written: `student`.
    pub name: String,
    /// References are left out here: they are in `ports`. A device field holds the whole device table, its name under `name`.
    pub params: Params,
    /// In the order of the kind's fields. Nested ones are named by their path: `data.seen`, `gate.1.versus`.
    pub ports: Vec<Port>,
    pub project: Project,
}

impl Declared {
    pub fn port(&self, name: &str) -> Option<&Port> {
        self.ports.iter().find(|port| port.name == name)
    }

    /// The inputs of a port; none if it was not given.
    pub fn inputs(&self, name: &str) -> &[Input] {
        self.port(name).map_or(&[], |port| &port.inputs)
    }
}

/// `[project]`, as far as it reaches an output.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Project {
    pub name: String,
    pub version: String,
    pub description: Option<String>,
    pub authors: Vec<String>,
    pub license: Option<String>,
    /// RFC 3339; the epoch if not given.
    pub created: Option<String>,
}

/// A field that refers to other steps or sources, and what it refers to.
#[derive(Clone, Debug)]
pub struct Port {
    pub name: String,
    pub inputs: Vec<Input>,
}

#[derive(Clone, Debug)]
pub struct Input {
    pub id: InputId,
    /// As a person would write it: `small@type=Q8_0`. For messages only: it reaches no output.
    pub label: String,
    pub artifact: Artifact,
}

/// A source or (part of) an action's output, as the plan knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InputId(pub u32);

/// One action of a step. Two parts with the same kind, task and inputs are one action, whoever declared them.
#[derive(Clone, Debug)]
pub struct Part {
    /// "" for the step's own output, else the name after the dot: `student.baseline`.
    pub suffix: &'static str,
    /// Made on the way (teacher's labels, say): not listed, and known by another name if it has one.
    pub hidden: bool,
    pub artifact: Artifact,
    /// Subfolders of the output that can be referred to by name after a dot: `split.train`.
    pub outputs: Vec<(String, Artifact)>,
    pub task: Task,
    pub inputs: Vec<PartPort>,
    pub resources: Resources,
}

#[derive(Clone, Debug)]
pub struct PartPort {
    pub name: String,
    pub inputs: Vec<PartInput>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartInput {
    Declared(InputId),
    /// An earlier part of the same expansion, by its index.
    Part(usize),
}

impl PartPort {
    /// A port of the declared step, passed on under its own name.
    pub fn pass(declared: &Declared, name: &str) -> PartPort {
        let inputs = declared.inputs(name).iter().map(|input| PartInput::Declared(input.id)).collect();
        PartPort { name: name.to_string(), inputs }
    }

    pub fn part(name: &str, index: usize) -> PartPort {
        PartPort { name: name.to_string(), inputs: vec![PartInput::Part(index)] }
    }
}

/// What an action does: together with the kind's name and revision and the inputs' contents, this is its key.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Which of the kind's actions: `train`, `labels`, `gate` …
    pub action: &'static str,
    pub params: Params,
}

impl Task {
    /// The project's `created`, of kinds that render chat templates.
    pub fn now(&self) -> Option<i64> {
        self.params.get(CREATED).and_then(serde_json::Value::as_str).and_then(crate::base::rfc3339::parse)
    }
}

/// What an action takes while it runs; reaches no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Threads that it can use; 0 means all there are.
    pub cpu: u32,
    pub memory_bytes: u64,
    pub gpu: u32,
}

impl Resources {
    /// All threads, so that nothing runs beside it. How much memory it takes is known when its inputs are, and looked for then.
    pub const ALONE: Resources = Resources { cpu: 0, memory_bytes: 0, gpu: 0 };
}

impl Default for Resources {
    fn default() -> Resources {
        Resources { cpu: 1, memory_bytes: 0, gpu: 0 }
    }
}

/// What is wrong with a declared step: shown at the field that `path` names (`gate.1.versus`), or at the step if it is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub path: String,
    pub message: String,
    pub label: String,
    pub help: Option<String>,
}

impl Problem {
    pub fn at(path: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem { path: path.into(), message: message.into(), label: String::new(), help: None }
    }

    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Problem {
        self.label = label.into();
        self
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }
}

/// A kind's typed view of its parameters. They were checked against the fields, so a mismatch is a bug in the kind.
pub fn typed<T: serde::de::DeserializeOwned>(params: &Params) -> Result<T, Failure> {
    let mut params = params.clone();
    params.remove(CREATED);
    serde_json::from_value(serde_json::Value::Object(params))
        .map_err(|error| Failure::bug(format!("a kind and its fields disagree: {error}")))
}

impl fmt::Debug for dyn Kind + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
