//! `[finetune.NAME]`: an existing model learns further, all of it or an adapter beside it. The loop is that of `train`.

use serde::Deserialize;
use serde_json::Value;

use super::io::on_threads;
use super::train::Student;
use super::train::run::{Learns, NextToken};
use super::train::settings::{Training, UNKEYED, resolve_schedule, with_training_fields};
use super::{Arity, Artifact, Declared, Failure, Field, Io, Kind, Params, Part, PartPort, Problem, Resources, Task, Type, typed};
use crate::model::{Adapter, Lora, Model};

#[derive(Debug)]
pub struct Finetune;

static LORA: &[Field] = &[
    Field::default("r", Type::Int(1, 1 << 14), "8", "Rank of the adapter's matrices."),
    Field::default("lora_alpha", Type::Float(1e-6, 1e6), "16.0", "What the adapter adds is multiplied by `lora_alpha / r`."),
    Field::default(
        "target_modules",
        Type::List(&Type::Choice(&["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])),
        r#"["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]"#,
        "The matrices of each layer that are adapted.",
    ),
];

static FIELDS: &[Field] = with_training_fields![
    Field::required("model", Type::Ref(Arity::One, &[Artifact::Model]), "The model to begin with."),
    Field::required(
        "data",
        Type::Ref(Arity::All, &[Artifact::Dataset, Artifact::Files]),
        "What to learn: records with a completion, or texts."
    ),
    Field::optional("lora", Type::Table(LORA), "Learn an adapter and leave the model's weights as they are."),
    Field::default("merge", Type::Bool, "true", "Add the adapter to the model's weights. With `false` the result is the adapter alone."),
];

/// The fields that are not those of a training.
const OWN: &[&str] = &["lora", "merge"];

impl Kind for Finetune {
    fn name(&self) -> &'static str {
        "finetune"
    }

    fn revision(&self) -> u32 {
        1
    }

    fn summary(&self) -> &'static str {
        "Trains an existing model further, whole or by a LoRA adapter"
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
        let mut params = resolve_schedule(&declared.params, OWN);
        let merge = declared.params.get("merge").and_then(Value::as_bool).unwrap_or(true);
        match declared.params.get("lora") {
            Some(lora) => {
                params.insert("lora".to_string(), ordered(lora)?);
                params.insert("merge".to_string(), merge.into());
            }
            None if !merge => {
                let problem = Problem::at("merge", "there is no adapter to keep apart").label("belongs to `lora`");
                return Err(vec![problem.help("add `lora = { r = 8 }`, or leave `merge` out")]);
            }
            None => {}
        }
        Ok(vec![Part {
            suffix: "",
            hidden: false,
            artifact: if merge { Artifact::Model } else { Artifact::Files },
            outputs: Vec::new(),
            // The model's size is not known before it is there.
            resources: Resources { cpu: 0, memory_bytes: 1 << 30, gpu: 0 },
            task: Task { action: "finetune", params },
            inputs: ["model", "data", "validation"]
                .iter()
                .filter(|name| declared.port(name).is_some())
                .map(|name| PartPort::pass(declared, name))
                .collect(),
        }])
    }

    fn run(&self, task: &Task, io: &mut Io) -> Result<(), Failure> {
        on_threads(io, |io| finetune(&task.params, io))
    }
}

/// The same adapter in whatever order its matrices were named.
fn ordered(lora: &Value) -> Result<Value, Vec<Problem>> {
    let problem = |path: &str, message: String| vec![Problem::at(path, message)];
    let mut lora: Lora = serde_json::from_value(lora.clone()).map_err(|error| problem("lora", error.to_string()))?;
    lora.target_modules.sort_unstable();
    lora.check().map_err(|error| problem("lora.target_modules", error.to_string()))?;
    serde_json::to_value(&lora).map_err(|error| problem("lora", error.to_string()))
}

#[derive(Debug, Deserialize)]
struct Own {
    lora: Option<Lora>,
    #[serde(default)]
    merge: bool,
}

fn finetune(params: &Params, io: &Io) -> Result<(), Failure> {
    let (own, mut training): (Params, Params) = params.clone().into_iter().partition(|(name, _)| OWN.contains(&name.as_str()));
    let own: Own = typed(&own)?;
    let Model { config, mut weights, tokenizer, chat } = Model::load(io.one("model")?)?;
    let reach = config.max_position_embeddings as u64;
    let max_length = training.get("max_length").and_then(Value::as_u64).unwrap_or(reach);
    if max_length > reach {
        return Err(Failure::new(format!("max_length {max_length} is beyond the model's {reach} tokens")));
    }
    training.insert("max_length".to_string(), max_length.into());
    let settings: Training = typed(&training)?;
    let student = Student { settings: &settings, config, tokenizer, chat };
    let examples = student.examples("data", io)?.examples;
    let mut objective = NextToken { vocab_size: student.config.vocab_size };
    let Some(lora) = own.lora else { return student.train_from(weights, &examples, &mut objective, io) };
    let parameters = weights.parameters();
    let mut adapter = Adapter::random(&student.config, lora, settings.seed)?;
    let trained = adapter.weights.parameters();
    io.say(format!("{trained} parameters beside the model's {parameters}"));
    let learned = student.learn(Learns::Adapter(&weights, adapter.clone()), &examples, &mut objective, io)?;
    learned.record(parameters, Some(trained)).write(io)?;
    adapter.weights.data = learned.weights;
    if !own.merge {
        return Ok(adapter.save(&student.config, &io.out)?);
    }
    adapter.merge(&student.config, &mut weights)?;
    student.save(weights, io)
}

#[cfg(test)]
mod tests;
