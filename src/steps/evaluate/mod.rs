//! `[evaluate.NAME]`: measures models on test sets and judges them by gates. The actions: `answers` asks the model, `measure` makes figures,
//! `gate` compares figures with limits. Of multiple choice, `choices` asks instead. `overlap` finds test records that the model learned from.

mod answer;
mod check;
mod choice;
mod expand;
pub mod facts;
mod gate;
mod judge;
mod measure;
pub mod metric;
mod overlap;
pub mod report;
mod score;
mod sets;
pub mod statistics;

use super::{Arity, Artifact, Declared, Failure, Field, Io, Kind, Part, Problem, Task, Type};

pub struct Evaluate;

const ANSWERS: &str = "answers";
const CHOICES: &str = "choices";
const MEASURE: &str = "measure";
const GATE: &str = "gate";
const OVERLAP: &str = "overlap";

const MODELS: &[Artifact] = &[Artifact::Model, Artifact::Quantized];
const DATA: &[Artifact] = &[Artifact::Dataset, Artifact::Files];
const FILES: &[Artifact] = &[Artifact::Files];

static FIELDS: &[Field] = &[
    Field::required("model", Type::Ref(Arity::Each, MODELS), "The model to measure; a list makes one evaluation for each."),
    Field::required("data", Type::NamedRefs(&[Artifact::Dataset]), "The test sets: a table of names and datasets."),
    Field::required("metrics", Type::List(&Type::Choice(metric::NAMES)), "What to measure."),
    Field::optional("reference", Type::Ref(Arity::One, MODELS), "The model to compare with, item by item."),
    Field::default("max_new_tokens", Type::Int(1, 1 << 20), "128", "Where an answer is cut, in tokens."),
    Field::optional(
        "n_ctx",
        Type::Int(4, 1 << 20),
        "Join plain texts and score the second half of each window of this many tokens, as llama.cpp's `perplexity` does (512 there).",
    ),
    Field::optional(
        "regex",
        Type::String,
        "What an answer must match, for `regex_match`: a regular expression, found anywhere unless `^` and `$` tie it down.",
    ),
    Field::optional(
        "extract",
        Type::Table(EXTRACT),
        "Take the answer out of what the model says before it is judged, as the `regex` filter of lm-evaluation-harness does.",
    ),
    Field::optional(
        "json_schema",
        Type::Ref(Arity::One, FILES),
        "The schema that an answer must follow, for `json_schema_valid`: a source whose path is its file.",
    ),
    Field::optional(
        "doc_to_text",
        Type::String,
        "Of multiple choice: what is asked, the name of a document's field or a Jinja template; `question` if not given.",
    ),
    Field::optional(
        "doc_to_choice",
        Type::List(&Type::String),
        "Of multiple choice: the choices, or a field's name, or one expression `{{ … }}` that gives a list; `choices` if not given.",
    ),
    Field::optional(
        "doc_to_target",
        Type::String,
        "Of multiple choice: the right one, a field's name or a template that gives its place (from 0) or its text; `answer` if not given.",
    ),
    Field::optional("task_description", Type::String, "Of multiple choice: what stands before everything else."),
    Field::optional("target_delimiter", Type::String, "Of multiple choice: what stands before a choice; one space if not given."),
    Field::optional("num_fewshot", Type::Int(1, 1 << 16), "Of multiple choice: how many solved examples stand before a question."),
    Field::optional(
        "fewshot_split",
        Type::Ref(Arity::All, DATA),
        "Of multiple choice: documents whose first `num_fewshot` are the examples.",
    ),
    Field::optional("fewshot_delimiter", Type::String, "Of multiple choice: what stands behind an example; an empty line if not given."),
    Field::default("bootstrap", Type::Int(100, 1_000_000), "2000", "Resamples for the 95 % intervals of means."),
    Field::default("seed", Type::Int(0, i64::MAX), "0", "Of the resampling."),
    Field::default(
        "gate",
        Type::List(&Type::Table(GATE_FIELDS)),
        "[]",
        "What the figures must be; a candidate that fails a gate is dropped.",
    ),
];

static EXTRACT: &[Field] = &[
    Field::required(
        "regex_pattern",
        Type::String,
        "A regular expression; what its first group captures is the answer, or all that it matches if it has no group.",
    ),
    Field::default("group_select", Type::Int(-1 << 20, 1 << 20), "0", "Which of several matches: 0 is the first, -1 the last."),
];

static GATE_FIELDS: &[Field] = &[
    Field::required("metric", Type::Choice(metric::NAMES), "One of this evaluation's metrics."),
    Field::optional("on", Type::String, "The set; may be left out if there is only one."),
    Field::optional("min", Type::Float(f64::MIN, f64::MAX), "The least value that passes."),
    Field::optional("max", Type::Float(f64::MIN, f64::MAX), "The largest value that passes."),
    Field::optional("max_drop", Type::Float(f64::MIN, f64::MAX), "How far the metric may lie below that of `versus`."),
    Field::optional("max_rise", Type::Float(f64::MIN, f64::MAX), "How far the metric may lie above that of `versus`."),
    Field::optional("versus", Type::Ref(Arity::One, MODELS), "The model that `max_drop` and `max_rise` compare with."),
    Field::default("fatal", Type::Bool, "false", "Whether failing it fails the build, not only the candidate."),
];

impl Kind for Evaluate {
    fn name(&self) -> &'static str {
        "evaluate"
    }

    fn revision(&self) -> u32 {
        4
    }

    fn summary(&self) -> &'static str {
        "Measures a model on test sets and judges it by gates"
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

    fn judges(&self, field: &str) -> bool {
        field == "model" || field.ends_with(".versus")
    }

    fn tests_on(&self, field: &str) -> bool {
        field.starts_with("data.")
    }

    fn renders_chats(&self) -> bool {
        true
    }

    fn expand(&self, declared: &Declared) -> Result<Vec<Part>, Vec<Problem>> {
        expand::expand(declared)
    }

    fn run(&self, task: &Task, io: &mut Io) -> Result<(), Failure> {
        match task.action {
            ANSWERS => answer::run(&task.params, io),
            CHOICES => choice::run(&task.params, io),
            MEASURE => measure::run(&task.params, io),
            OVERLAP => overlap::run(&task.params, io),
            GATE => gate::run(&task.params, io),
            other => Err(Failure::bug(format!("evaluate has no action `{other}`"))),
        }
    }
}

#[cfg(test)]
mod tests;
