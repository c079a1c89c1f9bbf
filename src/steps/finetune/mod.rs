//! `[finetune.NAME]`: an existing model learns further, all of it or an adapter beside it. The loop is that of `train`.

use serde::Deserialize;
use serde_json::Value;

use super::io::on_threads;
use super::train::Student;
use super::train::run::NextToken;
use super::train::settings::{MASK_FIELD, Training, UNKEYED, pruned, resolve_mask, resolve_schedule, with_training_fields, within};
use super::{Arity, Artifact, Declared, Failure, Field, Flow, Io, Kind, Params, Part, PartPort, Problem, Resources, Task, Type, typed};
use crate::model::{Lora, Model};

#[derive(Debug)]
pub struct Finetune;

pub(super) static LORA: &[Field] = &[
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
    MASK_FIELD,
];

/// The fields that are not those of a training.
const OWN: &[&str] = &["lora", "merge", "mask"];

impl Kind for Finetune {
    fn name(&self) -> &'static str {
        "finetune"
    }

    fn revision(&self) -> u32 {
        4
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

    fn flow(&self, port: &str) -> Flow {
        match port {
            "data" | "validation" => Flow::Learned,
            _ => Flow::Made,
        }
    }

    fn renders_chats(&self) -> bool {
        true
    }

    fn expand(&self, declared: &Declared) -> Result<Vec<Part>, Vec<Problem>> {
        let mut params = resolve_schedule(&declared.params, OWN);
        resolve_mask(&declared.params, &mut params);
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
            resources: Resources::ALONE,
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
pub(super) fn ordered(lora: &Value) -> Result<Value, Vec<Problem>> {
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
    let (own, training): (Params, Params) = params.clone().into_iter().partition(|(name, _)| OWN.contains(&name.as_str()));
    let (Model { config, weights, tokenizer, chat }, mask) = pruned(&own, io.one("model")?)?;
    let own: Own = typed(&own)?;
    let settings: Training = typed(&within(&training, &config)?)?;
    if mask.is_some() && own.lora.is_some() && !own.merge {
        let help = "merge the adapter, which leaves the zeros as they are, or write `mask = \"free\"`";
        return Err(Failure::new("an adapter that is kept apart would fill the model's zeros").help(help));
    }
    let student = Student { settings: &settings, config, tokenizer, chat, mask };
    let examples = student.examples("data", io)?.examples;
    let mut objective = NextToken { vocab_size: student.config.vocab_size };
    match own.lora {
        Some(lora) if !own.merge => {
            let adapter = student.adapt(&weights, lora, &examples, &mut objective, io)?;
            Ok(adapter.save(&student.config, &io.out)?)
        }
        lora => student.train_on(Some(weights), lora, &examples, &mut objective, io),
    }
}

#[cfg(test)]
mod tests;
