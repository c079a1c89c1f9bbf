//! `[distill.NAME]`: a small model learns from a large one. Falls apart into the teacher's vocabulary, its labels (made once, whatever the
//! student), the student, and, if asked for, the same student without a teacher.

mod beside;
mod labels;
mod objective;
mod teach;

use serde::Deserialize;
use serde_json::{Value, json};

use super::io::on_threads;
use super::train::Student;
use super::train::run::NextToken;
use super::train::settings::{ARCH_FIELD, Arch, Training, UNKEYED, memory_bytes, resolve, shaped, with_training_fields};
use super::{Arity, Artifact, Declared, Failure, Field, Io, Kind, Params, Part, PartPort, Problem, Resources, Task, Type, typed};
use crate::base::files;
use crate::kernels::loss::Divergence;
use crate::model::{Config, Model, folder, read_limited};
use beside::Beside;
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
    Field::default(
        "max_new_tokens",
        Type::Int(1, 1 << 22),
        "256",
        "Longest answer of the teacher. One that does not end by then is left out."
    ),
    Field::default("kd_ratio", Type::Float(0.0, 1.0), "1.0", "loss = (1 - kd_ratio) · cross-entropy + kd_ratio · T² · divergence."),
    Field::default("temperature", Type::Float(0.05, 100.0), "1.0", "T: both models' logits are divided by it in the divergence."),
    Field::default(
        "divergence",
        Type::Choice(&["forward_kl", "reverse_kl", "jsd", "skew_kl"]),
        "\"forward_kl\"",
        "What is measured between the two distributions.",
    ),
    Field::optional("beta", Type::Float(0.0, 1.0), "Of `jsd`: the teacher's share of the mixture; 0.5 if not given."),
    Field::optional("skew_alpha", Type::Float(0.0, 0.999), "Of `skew_kl`: the teacher's share of the mixture; 0.1 if not given."),
    Field::default("seq_kd", Type::Bool, "false", "Learn the completions as hard labels only, as sequence-level distillation does."),
    Field::default(
        "top_k",
        Type::Int(0, 1 << 16),
        "8",
        "The teacher's largest logits that are kept for each token; with 0 the teacher runs beside the student in every step and all of them count."
    ),
    Field::default("baseline", Type::Bool, "false", "Also make NAME.baseline: the same student, taught by the data's completions alone."),
    ARCH_FIELD,
];

/// The fields that are not those of a training.
const OWN: &[&str] =
    &["completions", "max_new_tokens", "kd_ratio", "temperature", "divergence", "beta", "skew_alpha", "seq_kd", "top_k", "baseline"];

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
        2
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

    fn expand(&self, declared: &Declared) -> Result<Vec<Part>, Vec<Problem>> {
        let own: Own = typed(&declared.params).map_err(|failure| vec![Problem::at("", failure.message)])?;
        let (training, mut problems) = match resolve(&declared.params, OWN) {
            Ok(training) => (training, Vec::new()),
            Err(problems) => (Params::new(), problems),
        };
        problems.extend(own.problems());
        if problems.is_empty() { Ok(parts(declared, &own, training)) } else { Err(problems) }
    }

    fn run(&self, task: &Task, io: &mut Io) -> Result<(), Failure> {
        on_threads(io, |io| match task.action {
            "vocabulary" => vocabulary(io),
            "labels" => teach::run(&typed::<Teaching>(&task.params)?, io),
            "student" => student(&task.params, io),
            "baseline" => baseline(&task.params, io),
            other => Err(Failure::bug(format!("distill has no action `{other}`"))),
        })
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
    let resources = Resources { cpu: 0, memory_bytes: memory_bytes(&training), gpu: 0 };
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
    let validation = || declared.port("validation").map(|_| pass("validation"));
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
    inputs.extend(validation());
    parts.push(part("", Artifact::Model, "student", taught, inputs));
    if own.baseline {
        let mut inputs = vec![PartPort::part("vocabulary", VOCABULARY), pass("data")];
        inputs.extend(validation());
        parts.push(part("baseline", Artifact::Model, "baseline", training, inputs));
    }
    parts
}

/// Takes the teacher's vocabulary out of its folder, so that a student without a teacher does not depend on the teacher's weights.
fn vocabulary(io: &Io) -> Result<(), Failure> {
    let teacher = io.one("teacher")?;
    let (vocab_size, tokenizer, chat) = match folder::gguf_file(teacher)? {
        Some(_) => {
            let model = Model::open(teacher)?;
            (model.config.vocab_size, model.tokenizer, model.chat)
        }
        None => {
            let config = Config::from_json(&read_limited(&teacher.join("config.json"), 1 << 24)?)?;
            let (tokenizer, chat) = folder::load_encoder(teacher)?;
            (config.vocab_size, tokenizer, chat)
        }
    };
    folder::save_encoder(&tokenizer, &chat, None, &io.out)?;
    let path = io.out.join("vocabulary.json");
    let text = format!("{:#}\n", json!({"vocab_size": vocab_size}));
    files::write_atomic(&path, text.as_bytes()).map_err(|error| Failure::file("write", &path, &error))
}

fn untaught<'a>(arch: &Arch, settings: &'a Training, io: &Io) -> Result<Student<'a>, Failure> {
    let vocabulary = io.one("vocabulary")?;
    let (tokenizer, chat) = folder::load_encoder(vocabulary)?;
    let size: Option<Value> = serde_json::from_slice(&read_limited(&vocabulary.join("vocabulary.json"), 1 << 16)?).ok();
    let size = size.and_then(|value| value.get("vocab_size").and_then(Value::as_u64)).and_then(|size| usize::try_from(size).ok());
    let vocab_size = size.ok_or_else(|| Failure::new("`vocabulary.json` does not tell the vocabulary's size"))?;
    let config = arch.of(vocab_size, &tokenizer);
    Ok(Student { settings, config, tokenizer, chat })
}

fn baseline(params: &Params, io: &Io) -> Result<(), Failure> {
    let (arch, settings) = shaped(params)?;
    let student = untaught(&arch, &settings, io)?;
    let found = student.examples("data", io)?;
    let mut objective = NextToken { vocab_size: student.config.vocab_size };
    student.train(&found.examples, &mut objective, io)
}

fn student(params: &Params, io: &Io) -> Result<(), Failure> {
    let (soft, training): (Params, Params) = params.clone().into_iter().partition(|(name, _)| OWN.contains(&name.as_str()));
    let (arch, settings) = shaped(&training)?;
    let student = untaught(&arch, &settings, io)?;
    let labels = Labels::open(io.one("labels")?, student.config.vocab_size)?;
    io.say(format!("{} examples, {} tokens of the teacher", labels.examples.len(), labels.rows));
    if soft.is_empty() {
        let mut objective = NextToken { vocab_size: student.config.vocab_size };
        return student.train(&labels.examples, &mut objective, io);
    }
    let soft: Soft = typed(&soft)?;
    if io.maybe("teacher").is_some() {
        let mut objective = Beside::new(Model::open(io.one("teacher")?)?, &soft)?;
        return student.train(&labels.examples, &mut objective, io);
    }
    let mut objective = Imitation::new(&labels, &soft)?;
    student.train(&labels.examples, &mut objective, io)
}

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
