//! `[train.NAME]`: a model from nothing but data. The loop is in `run`, the common fields in `settings`; `distill` uses both.

pub mod checkpoint;
pub mod data;
pub mod run;
pub mod schedule;
pub mod settings;
pub mod state;

use serde::Serialize;

use super::dataset::record;
use super::io::on_threads;
use super::{Arity, Artifact, Declared, Failure, Field, Io, Kind, Part, PartPort, Problem, Resources, Task, Type, typed};
use crate::base::files;
use crate::model::{ChatTemplate, Config, Encoder, Example, Model, Tokenizer, Weights, folder};
use data::Examples;
use run::{Job, NextToken, Objective, train};
use settings::{Training, UNKEYED, memory_bytes, resolve, with_training_fields};
use state::{Point, State};

#[derive(Debug)]
pub struct Train;

static FIELDS: &[Field] = with_training_fields![
    Field::required("tokenizer", Type::Ref(Arity::One, &[Artifact::Tokenizer, Artifact::Model]), "The vocabulary and chat template."),
    Field::required(
        "data",
        Type::Ref(Arity::All, &[Artifact::Dataset, Artifact::Files]),
        "What to learn: records with a completion, or texts."
    ),
];

impl Kind for Train {
    fn name(&self) -> &'static str {
        "train"
    }

    fn revision(&self) -> u32 {
        1
    }

    fn summary(&self) -> &'static str {
        "Trains a model from scratch"
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
        let params = resolve(&declared.params, &[])?;
        Ok(vec![Part {
            suffix: "",
            hidden: false,
            artifact: Artifact::Model,
            outputs: Vec::new(),
            resources: Resources { cpu: 0, memory_bytes: memory_bytes(&params), gpu: 0 },
            task: Task { action: "train", params },
            inputs: ["tokenizer", "data", "validation"]
                .iter()
                .filter(|name| declared.port(name).is_some())
                .map(|name| PartPort::pass(declared, name))
                .collect(),
        }])
    }

    fn run(&self, task: &Task, io: &mut Io) -> Result<(), Failure> {
        let settings: Training = typed(&task.params)?;
        on_threads(io, |io| {
            let (tokenizer, chat) = folder::load_encoder(io.one("tokenizer")?)?;
            let vocab_size = tokenizer.vocab_size();
            let student = Student { settings: &settings, vocab_size, tokenizer, chat };
            let found = student.examples("data", io)?;
            student.train(&found.examples, &mut NextToken { vocab_size }, io)
        })
    }
}

/// A model to be.
pub struct Student<'a> {
    pub settings: &'a Training,
    pub vocab_size: usize,
    pub tokenizer: Tokenizer,
    pub chat: ChatTemplate,
}

impl Student<'_> {
    /// The examples of a port's data; none if there is no such port.
    pub fn examples(&self, port: &str, io: &Io) -> Result<Examples, Failure> {
        if io.all(port).is_empty() {
            return Ok(Examples::default());
        }
        let records = record::read(io.all(port))?;
        let encoder = Encoder { tokenizer: &self.tokenizer, chat: &self.chat };
        let found = data::examples(&records, encoder, self.settings.max_length)?;
        io.say(format!("{port}: {}", found.summary()));
        if found.examples.is_empty() {
            let help = "every record needs a completion or a text, and must fit `max_length`";
            return Err(Failure::new(format!("there is nothing to learn from in `{port}`")).help(help));
        }
        Ok(found)
    }

    pub fn config(&self) -> Config {
        let id = |special: &Option<crate::model::tokenizer::Special>| special.as_ref().map(|special| special.id);
        self.settings.arch.config(self.vocab_size, id(&self.tokenizer.eos), id(&self.tokenizer.bos), id(&self.tokenizer.pad))
    }

    /// Trains on examples, validates on the port of that name, and writes model and record.
    pub fn train(self, examples: &[Example], objective: &mut dyn Objective, io: &Io) -> Result<(), Failure> {
        let validation = self.examples("validation", io)?.examples;
        let config = self.config();
        let mut weights = Weights::zeros(&config)?;
        io.say(format!("{} parameters", weights.parameters()));
        let job = Job { config: &config, settings: self.settings, examples, validation: &validation, objective };
        let state = train(job, io)?;
        let record = Record {
            format: 1,
            parameters: weights.parameters(),
            steps: state.step,
            best_step: state.best.as_ref().map_or(state.step, |best| best.step),
            validation_loss: state.best.as_ref().map(|best| best.loss),
            examples: examples.len(),
            validation_examples: validation.len(),
            tokens: state.tokens,
            curve: state.curve.clone(),
        };
        let State { weights: last, best, .. } = state;
        weights.data = best.map_or(last, |best| best.weights);
        Model { config, weights, tokenizer: self.tokenizer, chat: self.chat }.save(&io.out)?;
        record.write(io)
    }
}

/// `training.json`
#[derive(Debug, Serialize)]
struct Record {
    format: u32,
    parameters: usize,
    /// Done in all; fewer than `max_steps` if training stopped early.
    steps: u64,
    /// Whose weights were kept.
    best_step: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    validation_loss: Option<f64>,
    examples: usize,
    validation_examples: usize,
    /// Tokens that a loss was taken on.
    tokens: u64,
    curve: Vec<Point>,
}

impl Record {
    fn write(&self, io: &Io) -> Result<(), Failure> {
        let path = io.out.join("training.json");
        let text = serde_json::to_string_pretty(self).map_err(|error| Failure::bug(error.to_string()))?;
        files::write_atomic(&path, format!("{text}\n").as_bytes()).map_err(|error| Failure::file("write", &path, &error))
    }
}

#[cfg(test)]
pub mod tests;
