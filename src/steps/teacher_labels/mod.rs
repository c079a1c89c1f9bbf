//! `[teacher_labels.NAME]`: a teacher answers prompts, and the answers that hold up become a dataset. Two actions: `answers` asks (made once,
//! whatever is demanded of the answers), `labels` keeps and drops.

mod ask;
mod keep;

use serde::Deserialize;
use serde_json::json;

use super::io::on_threads;
use super::pattern::Pattern;
use super::{Arity, Artifact, Declared, Failure, Field, Flow, Io, Kind, Params, Part, PartPort, Problem, Resources, Task, Type, typed};

#[derive(Debug)]
pub struct TeacherLabels;

const ANSWERS: &str = "answers";
const LABELS: &str = "labels";

static FIELDS: &[Field] = &[
    Field::required("teacher", Type::Ref(Arity::One, &[Artifact::Model, Artifact::Quantized]), "The model that answers."),
    Field::required(
        "prompts",
        Type::Ref(Arity::All, &[Artifact::Dataset, Artifact::Files]),
        "What it is asked: prompts or conversations. Completions that are there already are not heeded.",
    ),
    Field::default(
        "decode",
        Type::Choice(&["greedy", "sample"]),
        "\"greedy\"",
        "Whether the likeliest token is taken each time, or one is drawn.",
    ),
    Field::optional("temperature", Type::Float(0.01, 100.0), "Of `sample`: logits are divided by it; 1.0 if not given."),
    Field::optional("top_k", Type::Int(1, 1 << 20), "Of `sample`: only so many of the likeliest tokens; all if not given."),
    Field::optional(
        "top_p",
        Type::Float(1e-6, 1.0),
        "Of `sample`: only the likeliest tokens that together have this probability; all if not given.",
    ),
    Field::default("num_samples", Type::Int(1, 1 << 16), "1", "Answers to each prompt; more than one need `decode = \"sample\"`."),
    Field::default("max_new_tokens", Type::Int(1, 1 << 20), "256", "Longest answer. One that does not end by then is dropped."),
    Field::default("seed", Type::Int(0, i64::MAX), "0", "Of `sample`: decides what is drawn."),
    Field::optional("validate", Type::Table(VALIDATE), "What an answer must be; any other is dropped."),
    Field::default("max_dropped", Type::Float(0.0, 1.0), "0.5", "Fail if a larger share of the answers is dropped."),
];

static VALIDATE: &[Field] = &[
    Field::optional("regex", Type::String, "A regular expression that it matches, found anywhere unless `^` and `$` tie it down."),
    Field::optional(
        "json_schema",
        Type::Ref(Arity::One, &[Artifact::Files]),
        "It is JSON and follows this schema: a source whose path is the schema's file.",
    ),
    Field::optional("min_confidence", Type::Float(0.0, 1.0), "The least geometric mean of its tokens' probabilities."),
];

/// Whether every token is drawn, or the likeliest is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum How {
    Greedy,
    Sample,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    decode: How,
    temperature: Option<f64>,
    top_k: Option<u64>,
    top_p: Option<f64>,
    num_samples: u64,
    max_new_tokens: u64,
    seed: u64,
    #[serde(default)]
    validate: Validate,
    max_dropped: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Validate {
    regex: Option<String>,
    min_confidence: Option<f64>,
}

impl Kind for TeacherLabels {
    fn name(&self) -> &'static str {
        "teacher_labels"
    }

    fn revision(&self) -> u32 {
        3
    }

    fn summary(&self) -> &'static str {
        "Has a teacher answer prompts and keeps the answers that hold up"
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

    fn flow(&self, port: &str) -> Flow {
        match port {
            "prompts" => Flow::Passed,
            _ => Flow::Made,
        }
    }

    fn renders_chats(&self) -> bool {
        true
    }

    fn expand(&self, declared: &Declared) -> Result<Vec<Part>, Vec<Problem>> {
        let fields: Fields = typed(&declared.params).map_err(|failure| vec![Problem::at("", failure.message)])?;
        let problems = fields.problems();
        if !problems.is_empty() {
            return Err(problems);
        }
        let asked = ["teacher", "prompts"].iter().map(|name| PartPort::pass(declared, name)).collect();
        let mut kept = vec![PartPort::pass(declared, "prompts"), PartPort::part("answers", 0)];
        if declared.port("validate.json_schema").is_some() {
            kept.push(PartPort { name: "json_schema".to_string(), ..PartPort::pass(declared, "validate.json_schema") });
        }
        Ok(vec![
            Part {
                suffix: "answers",
                hidden: true,
                artifact: Artifact::Files,
                outputs: Vec::new(),
                task: Task { action: ANSWERS, params: fields.asking() },
                inputs: asked,
                resources: Resources { cpu: 0, ..Resources::default() },
            },
            Part {
                suffix: "",
                hidden: false,
                artifact: Artifact::Dataset,
                outputs: Vec::new(),
                task: Task { action: LABELS, params: fields.keeping() },
                inputs: kept,
                resources: Resources::default(),
            },
        ])
    }

    fn run(&self, task: &Task, io: &mut Io) -> Result<(), Failure> {
        match task.action {
            ANSWERS => on_threads(io, |io| ask::run(&typed(&task.params)?, io)),
            LABELS => keep::run(&typed(&task.params)?, io),
            other => Err(Failure::bug(format!("teacher_labels has no action `{other}`"))),
        }
    }
}

impl Fields {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.decode == How::Greedy {
            let given = [("temperature", self.temperature.is_some()), ("top_k", self.top_k.is_some()), ("top_p", self.top_p.is_some())];
            for (field, _) in given.into_iter().filter(|(_, is_given)| *is_given) {
                let problem = Problem::at(field, format!("`{field}` is about drawing tokens, and `decode` is `greedy`"));
                problems.push(problem.help("add `decode = \"sample\"`, or leave it out"));
            }
            if self.num_samples > 1 {
                let problem = Problem::at("num_samples", "a greedy answer is the same each time");
                problems.push(problem.help("add `decode = \"sample\"` to have several answers to a prompt"));
            }
        }
        if let Some(Err(why)) = self.validate.regex.as_deref().map(Pattern::new) {
            problems.push(Problem::at("validate.regex", format!("not a regular expression: {why}")));
        }
        problems
    }

    /// What the answers depend on, and nothing else.
    fn asking(&self) -> Params {
        let mut params = Params::new();
        params.insert("max_new_tokens".to_string(), json!(self.max_new_tokens));
        if self.decode == How::Sample {
            params.insert("temperature".to_string(), json!(self.temperature.unwrap_or(1.0)));
            params.insert("num_samples".to_string(), json!(self.num_samples));
            params.insert("seed".to_string(), json!(self.seed));
            params.extend(self.top_k.map(|top_k| ("top_k".to_string(), json!(top_k))));
            params.extend(self.top_p.map(|top_p| ("top_p".to_string(), json!(top_p))));
        }
        params
    }

    fn keeping(&self) -> Params {
        let mut params = Params::new();
        params.insert("max_dropped".to_string(), json!(self.max_dropped));
        params.extend(self.validate.regex.as_ref().map(|regex| ("regex".to_string(), json!(regex))));
        params.extend(self.validate.min_confidence.map(|least| ("min_confidence".to_string(), json!(least))));
        params
    }
}

#[cfg(test)]
mod tests;
