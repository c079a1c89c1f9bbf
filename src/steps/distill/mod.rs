//! `[distill.NAME]`: a small model learns from a large one. Falls apart into the teacher's vocabulary, its labels (made once, whatever the
//! student), the student, and, if asked for, the same student without a teacher. `recover` is made of the same parts.

mod begin;
mod beside;
mod fields;
mod labels;
mod objective;
mod teach;

use serde::Deserialize;
use serde_json::json;

use super::io::on_threads;
use super::train::run::{NextToken, Objective};
use super::train::settings::{ARCH, MASK_FIELD, UNKEYED, resolve, resolve_mask, resolve_schedule, with_training_fields};
use super::{Arity, Artifact, Declared, Failure, Field, Flow, Io, Kind, Params, Part, PartPort, Problem, Resources, Task, Type, typed};
use crate::base::files;
use crate::kernels::loss::Divergence;
use crate::model::{Example, Lora, Model, folder};
use begin::Beginning;
use beside::Beside;
pub(super) use fields::{BETA, DIVERGENCE, KD_RATIO, MAX_NEW_TOKENS, SKEW_ALPHA, TEMPERATURE};
use labels::Labels;
use objective::Imitation;
use teach::Teaching;

#[derive(Debug)]
pub struct Distill;

static FIELDS: &[Field] = with_training_fields![
    Field::required(
        "teacher",
        Type::Ref(Arity::One, &[Artifact::Model, Artifact::Quantized]),
        "The model to learn from. Its vocabulary is the student's."
    ),
    Field::required(
        "data",
        Type::Ref(Arity::All, &[Artifact::Dataset, Artifact::Files]),
        "Prompts, with or without completions, conversations and texts.",
    ),
    Field::default(
        "completions",
        Type::Choice(&["teacher", "data"]),
        "\"teacher\"",
        "What the student is taught on: the teacher's own answer to every prompt, or the data's completion where it has one.",
    ),
    MAX_NEW_TOKENS,
    KD_RATIO,
    TEMPERATURE,
    DIVERGENCE,
    BETA,
    SKEW_ALPHA,
    Field::default("seq_kd", Type::Bool, "false", "Learn the completions as hard labels only, as sequence-level distillation does."),
    Field::default(
        "top_k",
        Type::Int(0, 1 << 16),
        "8",
        "The teacher's largest logits that are kept for each token; with 0 the teacher runs beside the student in every step and all of them count."
    ),
    Field::default("baseline", Type::Bool, "false", "Also make NAME.baseline: the same student, taught by the data's completions alone."),
    Field::optional("arch", Type::Table(ARCH), "The student's shape, as in `config.json` of a Llama model: it begins from nothing."),
    Field::optional(
        "model",
        Type::Ref(Arity::One, &[Artifact::Model]),
        "Instead of `arch`: a student that is there, with the teacher's vocabulary, and goes on from its weights."
    ),
    MASK_FIELD,
];

/// The fields that are not those of a training.
const OWN: &[&str] = &[
    "completions",
    "max_new_tokens",
    "kd_ratio",
    "temperature",
    "divergence",
    "beta",
    "skew_alpha",
    "seq_kd",
    "top_k",
    "baseline",
    "mask",
];

#[derive(Debug, Deserialize)]
struct Own {
    completions: String,
    max_new_tokens: u64,
    kd_ratio: f64,
    temperature: f64,
    divergence: String,
    beta: Option<f64>,
    skew_alpha: Option<f64>,
    seq_kd: bool,
    top_k: u64,
    baseline: bool,
}

impl Kind for Distill {
    fn name(&self) -> &'static str {
        "distill"
    }

    fn revision(&self) -> u32 {
        5
    }

    fn summary(&self) -> &'static str {
        "Teaches a small model what a large one knows"
    }

    fn help(&self) -> &'static str {
        include_str!("help.md")
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn is_numeric(&self) -> bool {
        true
    }

    fn unkeyed(&self) -> &'static [&'static str] {
        UNKEYED
    }

    fn flow(&self, port: &str) -> Flow {
        match port {
            "data" | "validation" => Flow::Learned,
            "vocabulary" => Flow::Vocabulary,
            _ => Flow::Made,
        }
    }

    fn renders_chats(&self) -> bool {
        true
    }

    fn expand(&self, declared: &Declared) -> Result<Vec<Part>, Vec<Problem>> {
        expand(declared)
    }

    fn run(&self, task: &Task, io: &mut Io) -> Result<(), Failure> {
        run(task, io)
    }
}

pub(super) fn expand(declared: &Declared) -> Result<Vec<Part>, Vec<Problem>> {
    let own: Own = typed(&declared.params).map_err(|failure| vec![Problem::at("", failure.message)])?;
    let (training, mut problems) = match training(declared) {
        Ok(training) => (training, Vec::new()),
        Err(problems) => (Params::new(), problems),
    };
    problems.extend(own.problems());
    if problems.is_empty() { Ok(parts(declared, &own, training)) } else { Err(problems) }
}

pub(super) fn run(task: &Task, io: &mut Io) -> Result<(), Failure> {
    on_threads(io, |io| match task.action {
        "vocabulary" => vocabulary(io),
        "labels" => teach::run(&typed::<Teaching>(&task.params)?, io),
        "student" => student(&task.params, io),
        "baseline" => baseline(&task.params, io),
        other => Err(Failure::bug(format!("distill has no action `{other}`"))),
    })
}

/// The training's parameters, of a new shape or of a model that is there.
fn training(declared: &Declared) -> Result<Params, Vec<Problem>> {
    let help = "write `arch = { hidden_size = … }` for a new student, or `model = \"NAME\"` for one that is there";
    match (declared.params.contains_key("arch"), declared.inputs("model").is_empty()) {
        (true, true) => resolve(&declared.params, OWN),
        (false, false) => {
            let mut training = resolve_schedule(&declared.params, OWN);
            resolve_mask(&declared.params, &mut training);
            Ok(training)
        }
        (true, false) => Err(vec![Problem::at("arch", "a model that is there has its shape").label("goes without `model`").help(help)]),
        (false, true) => Err(vec![Problem::at("", "nothing says what the student is").label("needs `arch` or `model`").help(help)]),
    }
}

impl Own {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (name, given, kind) in [("beta", self.beta, "jsd"), ("skew_alpha", self.skew_alpha, "skew_kl")] {
            if given.is_some() && self.divergence != kind {
                let message = format!("`{name}` belongs to the divergence `{kind}`");
                problems.push(Problem::at(name, message).label(format!("the divergence is `{}`", self.divergence)));
            }
        }
        problems
    }

    /// Whether the teacher's probabilities matter, or only the completions.
    fn is_soft(&self) -> bool {
        !self.seq_kd && self.kd_ratio > 0.0
    }

    /// Whether the teacher runs beside the student, so that none of its logits is stored.
    fn is_beside(&self) -> bool {
        self.is_soft() && self.top_k == 0
    }

    /// What the labels depend on, and nothing else.
    fn labels(&self, training: &Params) -> Params {
        let mut params = Params::new();
        params.insert("completions".to_string(), json!(self.completions));
        params.insert("max_new_tokens".to_string(), json!(self.max_new_tokens));
        params.extend(training.get("max_length").map(|length| ("max_length".to_string(), length.clone())));
        if self.is_soft() && !self.is_beside() {
            params.insert("top_k".to_string(), json!(self.top_k));
            // The sum of the other logits must be known at the right one.
            params.insert("temperature".to_string(), json!(self.temperature));
        }
        params
    }

    /// What the student adds to a plain training.
    fn soft(&self) -> Params {
        let mut params = Params::new();
        if !self.is_soft() {
            return params;
        }
        params.insert("kd_ratio".to_string(), json!(self.kd_ratio));
        params.insert("temperature".to_string(), json!(self.temperature));
        params.insert("divergence".to_string(), json!(self.divergence));
        match self.divergence.as_str() {
            "jsd" => params.insert("beta".to_string(), json!(self.beta.unwrap_or(0.5))),
            "skew_kl" => params.insert("skew_alpha".to_string(), json!(self.skew_alpha.unwrap_or(0.1))),
            _ => None,
        };
        params
    }
}

const VOCABULARY: usize = 0;
const LABELS: usize = 1;

fn parts(declared: &Declared, own: &Own, training: Params) -> Vec<Part> {
    let resources = Resources::ALONE;
    let part = |suffix, artifact, action, params, inputs| Part {
        suffix,
        hidden: suffix == "vocabulary" || suffix == "labels",
        artifact,
        outputs: Vec::new(),
        task: Task { action, params },
        inputs,
        resources,
    };
    let pass = |name| PartPort::pass(declared, name);
    let given = |name: &'static str| declared.port(name).map(|_| pass(name));
    let rest = || given("model").into_iter().chain(given("validation"));
    let mut taught = training.clone();
    taught.extend(own.soft());
    let mut parts = vec![
        part("vocabulary", Artifact::Tokenizer, "vocabulary", Params::new(), vec![pass("teacher")]),
        part("labels", Artifact::Labels, "labels", own.labels(&training), vec![pass("teacher"), pass("data")]),
    ];
    let mut inputs = vec![PartPort::part("vocabulary", VOCABULARY), PartPort::part("labels", LABELS)];
    if own.is_beside() {
        inputs.push(pass("teacher"));
    }
    inputs.extend(rest());
    parts.push(part("", Artifact::Model, "student", taught, inputs));
    if own.baseline {
        let mut inputs = vec![PartPort::part("vocabulary", VOCABULARY), pass("data")];
        inputs.extend(rest());
        parts.push(part("baseline", Artifact::Model, "baseline", training, inputs));
    }
    parts
}

/// Takes the teacher's vocabulary out of its folder, so that a student without a teacher does not depend on the teacher's weights.
fn vocabulary(io: &Io) -> Result<(), Failure> {
    let teacher = io.one("teacher")?;
    let (config, tokenizer, chat) = match folder::gguf_file(teacher)? {
        Some(_) => {
            let model = Model::open(teacher)?;
            (model.config, model.tokenizer, model.chat)
        }
        None => folder::load_all_but_weights(teacher)?,
    };
    folder::save_encoder(&tokenizer, &chat, None, &io.out)?;
    let path = io.out.join("vocabulary.json");
    let text = format!("{:#}\n", json!({"vocab_size": config.vocab_size, "eos_token_id": config.end_tokens().collect::<Vec<_>>()}));
    files::write_atomic(&path, text.as_bytes()).map_err(|error| Failure::file("write", &path, &error))
}

fn baseline(params: &Params, io: &Io) -> Result<(), Failure> {
    let beginning = Beginning::of(params, io)?;
    let mut objective = NextToken { vocab_size: beginning.vocab_size() };
    beginning.student(|student, weights| {
        let found = student.examples("data", io)?;
        student.train_on(weights, None, &found.examples, &mut objective, io)
    })
}

fn student(params: &Params, io: &Io) -> Result<(), Failure> {
    let mut training = params.clone();
    let lora: Option<Lora> = training
        .remove("lora")
        .map(serde_json::from_value)
        .transpose()
        .map_err(|error| Failure::bug(format!("`lora` and its fields disagree: {error}")))?;
    let soft: Params = training.iter().filter(|(name, _)| SOFT.contains(&name.as_str())).map(|(n, v)| (n.clone(), v.clone())).collect();
    training.retain(|name, _| !SOFT.contains(&name.as_str()));
    let beginning = Beginning::of(&training, io)?;
    let vocab_size = beginning.vocab_size();
    let labels = Labels::open(io.one("labels")?, vocab_size)?;
    io.say(format!("{} examples, {} tokens of the teacher", labels.examples.len(), labels.rows));
    let learn = |objective: &mut dyn Objective, examples: &[Example]| {
        beginning.student(|student, weights| student.train_on(weights, lora, examples, objective, io))
    };
    if soft.is_empty() {
        return learn(&mut NextToken { vocab_size }, &labels.examples);
    }
    let soft: Soft = typed(&soft)?;
    match io.maybe("teacher") {
        Some(teacher) => learn(&mut Beside::new(Model::open(teacher)?, &soft)?, &labels.examples),
        None => learn(&mut Imitation::new(&labels, &soft)?, &labels.examples),
    }
}

/// What a teacher's probabilities add to a training.
const SOFT: &[&str] = &["kd_ratio", "temperature", "divergence", "beta", "skew_alpha"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Soft {
    kd_ratio: f64,
    temperature: f64,
    divergence: String,
    beta: Option<f64>,
    skew_alpha: Option<f64>,
}

impl Soft {
    fn divergence(&self) -> Result<Divergence, Failure> {
        match (self.divergence.as_str(), self.beta, self.skew_alpha) {
            ("forward_kl", None, None) => Ok(Divergence::ForwardKl),
            ("reverse_kl", None, None) => Ok(Divergence::ReverseKl),
            ("jsd", Some(beta), None) => Ok(Divergence::Jsd { beta: beta as f32 }),
            ("skew_kl", None, Some(alpha)) => Ok(Divergence::SkewKl { alpha: alpha as f32 }),
            _ => Err(Failure::bug(format!("there is no divergence like {self:?}"))),
        }
    }
}

#[cfg(test)]
mod tests;
