//! `[train.NAME]`: a model from nothing but data. The loop is in `run`, the common fields in `settings`; `distill` uses both.

pub mod checkpoint;
pub mod data;
mod memory;
pub mod run;
pub mod schedule;
pub mod settings;
pub mod state;

use serde::Serialize;

use super::dataset::record;
use super::io::on_threads;
use super::{Arity, Artifact, Declared, Failure, Field, Flow, Io, Kind, Part, PartPort, Problem, Resources, Task, Type};
use crate::base::files;
use crate::model::sparse::{Ledger, Mask};
use crate::model::{Adapter, ChatTemplate, Config, Encoder, Example, Lora, Model, Tokenizer, Weights, folder};
use data::Examples;
use run::{Job, Learns, NextToken, Objective, train};
use settings::{ARCH_FIELD, Training, UNKEYED, resolve, shaped, with_training_fields};
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
    ARCH_FIELD,
];

impl Kind for Train {
    fn name(&self) -> &'static str {
        "train"
    }

    fn revision(&self) -> u32 {
        4
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

    fn flow(&self, port: &str) -> Flow {
        match port {
            "data" | "validation" => Flow::Learned,
            "tokenizer" => Flow::Vocabulary,
            _ => Flow::Made,
        }
    }

    fn renders_chats(&self) -> bool {
        true
    }

    fn expand(&self, declared: &Declared) -> Result<Vec<Part>, Vec<Problem>> {
        let params = resolve(&declared.params, &[])?;
        Ok(vec![Part {
            suffix: "",
            hidden: false,
            artifact: Artifact::Model,
            outputs: Vec::new(),
            resources: Resources::ALONE,
            task: Task { action: "train", params },
            inputs: ["tokenizer", "data", "validation"]
                .iter()
                .filter(|name| declared.port(name).is_some())
                .map(|name| PartPort::pass(declared, name))
                .collect(),
        }])
    }

    fn run(&self, task: &Task, io: &mut Io) -> Result<(), Failure> {
        let (arch, settings) = shaped(&task.params)?;
        on_threads(io, |io| {
            let (tokenizer, chat) = folder::load_encoder(io.one("tokenizer")?)?;
            let config = arch.of(tokenizer.vocab_size(), &tokenizer);
            let student = Student { settings: &settings, config, tokenizer, chat, mask: None };
            let found = student.examples("data", io)?;
            let mut objective = NextToken { vocab_size: student.config.vocab_size };
            student.train(&found.examples, &mut objective, io)
        })
    }
}

/// A model to be.
pub struct Student<'a> {
    pub settings: &'a Training,
    pub config: Config,
    pub tokenizer: Tokenizer,
    pub chat: ChatTemplate,
    /// The zeros that it keeps.
    pub mask: Option<Mask>,
}

impl Student<'_> {
    /// The examples of a port's data; none if there is no such port.
    pub fn examples(&self, port: &str, io: &Io) -> Result<Examples, Failure> {
        if io.all(port).is_empty() {
            return Ok(Examples::default());
        }
        let records = record::of_port(io, port)?;
        let chat = self.chat.clone().at(io.now);
        let encoder = Encoder { tokenizer: &self.tokenizer, chat: &chat };
        let found = data::examples(&records, encoder, self.settings.max_length)?;
        io.say(format!("{port}: {}", found.summary()));
        if found.examples.is_empty() {
            let help = "every record needs a completion or a text, and must fit `max_length`";
            return Err(Failure::new(format!("there is nothing to learn from in `{port}`")).help(help));
        }
        Ok(found)
    }

    /// Trains a new model on examples, validates on the port of that name, and writes model and record.
    pub fn train(self, examples: &[Example], objective: &mut dyn Objective, io: &Io) -> Result<(), Failure> {
        let weights = Weights::random(&self.config, self.settings.seed)?;
        self.train_from(weights, examples, objective, io)
    }

    /// The same from these weights on.
    pub fn train_from(self, weights: Weights, examples: &[Example], objective: &mut dyn Objective, io: &Io) -> Result<(), Failure> {
        let (parameters, layout) = (weights.parameters(), weights.layout.clone());
        io.say(format!("{parameters} parameters"));
        let learned = self.learn(Learns::All(weights), examples, objective, io)?;
        learned.record(parameters, None).write(io)?;
        self.knowing(examples).save(Weights { layout, data: learned.weights }, io)
    }

    /// From these weights on, or from nothing; all of them, or an adapter that is merged at the end.
    pub fn train_on(
        self,
        weights: Option<Weights>,
        lora: Option<Lora>,
        examples: &[Example],
        objective: &mut dyn Objective,
        io: &Io,
    ) -> Result<(), Failure> {
        match (weights, lora) {
            (None, _) => self.train(examples, objective, io),
            (Some(weights), None) => self.train_from(weights, examples, objective, io),
            (Some(mut weights), Some(lora)) => {
                let adapter = self.adapt(&weights, lora, examples, objective, io)?;
                adapter.merge(&self.config, &mut weights)?;
                self.mask.iter().for_each(|mask| mask.clear(&mut weights.data));
                self.knowing(examples).save(weights, io)
            }
        }
    }

    /// With the template that it has learned: what was not taught conversations keeps what it has.
    fn knowing(self, examples: &[Example]) -> Self {
        let is_conversation = |example: &Example| example.scored.first().is_some_and(|scored| scored.start > 1);
        match examples.iter().any(is_conversation) {
            true => Student { chat: self.chat.or_default(), ..self },
            false => self,
        }
    }

    /// Trains an adapter beside weights that stay as they are, and writes the record.
    pub fn adapt(
        &self,
        weights: &Weights,
        lora: Lora,
        examples: &[Example],
        objective: &mut dyn Objective,
        io: &Io,
    ) -> Result<Adapter, Failure> {
        let mut adapter = Adapter::random(&self.config, lora, self.settings.seed)?;
        let (parameters, trained) = (weights.parameters(), adapter.weights.parameters());
        io.say(format!("{trained} parameters beside the model's {parameters}"));
        let learned = self.learn(Learns::Adapter(weights, adapter.clone()), examples, objective, io)?;
        learned.record(parameters, Some(trained)).write(io)?;
        adapter.weights.data = learned.weights;
        Ok(adapter)
    }

    /// Writes a model with these weights and, if it kept zeros, how many.
    pub fn save(self, weights: Weights, io: &Io) -> Result<(), Failure> {
        let Student { config, tokenizer, chat, mask, .. } = self;
        if mask.is_some() {
            let ledger = Ledger::of(&weights);
            io.say(ledger.summary());
            ledger.write(&io.out)?;
        }
        Ok(Model { config, weights, tokenizer, chat }.with_ends()?.save(&io.out)?)
    }

    /// Trains on examples and validates on the port of that name.
    pub fn learn(&self, learns: Learns, examples: &[Example], objective: &mut dyn Objective, io: &Io) -> Result<Learned, Failure> {
        let validation = self.examples("validation", io)?.examples;
        // An adapter's numbers are no weights of the model: what it adds is masked when it is merged.
        let mask = self.mask.as_ref().filter(|_| matches!(learns, Learns::All(_)));
        let job = Job { config: &self.config, learns, mask, settings: self.settings, examples, validation: &validation, objective };
        let State { step, weights, best, tokens, curve, .. } = train(job, io)?;
        let (best_step, validation_loss) = (best.as_ref().map_or(step, |best| best.step), best.as_ref().map(|best| best.loss));
        let weights = best.map_or(weights, |best| best.weights);
        let (examples, validation_examples) = (examples.len(), validation.len());
        Ok(Learned { weights, steps: step, best_step, validation_loss, examples, validation_examples, tokens, curve })
    }
}

/// What came out of a training: the best weights (of what learned), and how it went.
pub struct Learned {
    pub weights: Vec<f32>,
    steps: u64,
    best_step: u64,
    validation_loss: Option<f64>,
    examples: usize,
    validation_examples: usize,
    tokens: u64,
    curve: Vec<Point>,
}

impl Learned {
    /// `trained` of the model's `parameters`, where that is not all of them.
    pub fn record(&self, parameters: usize, trained: Option<usize>) -> Record {
        Record {
            format: 1,
            parameters,
            trained,
            steps: self.steps,
            best_step: self.best_step,
            validation_loss: self.validation_loss,
            examples: self.examples,
            validation_examples: self.validation_examples,
            tokens: self.tokens,
            curve: self.curve.clone(),
        }
    }
}

/// `training.json`
#[derive(Debug, Serialize)]
pub struct Record {
    format: u32,
    parameters: usize,
    /// Those that learned, of an adapter; absent if all did.
    #[serde(skip_serializing_if = "Option::is_none")]
    trained: Option<usize>,
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
    pub fn write(&self, io: &Io) -> Result<(), Failure> {
        let path = io.out.join("training.json");
        let text = serde_json::to_string_pretty(self).map_err(|error| Failure::bug(error.to_string()))?;
        files::write_atomic(&path, format!("{text}\n").as_bytes()).map_err(|error| Failure::file("write", &path, &error))
    }
}

#[cfg(test)]
pub mod tests;
