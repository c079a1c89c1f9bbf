//! `[recover.NAME]`: a pruned model learns again what the whole one knew. The lessons are those of `distill`, with the whole model beside the student on its batches; the student
//! goes on from what pruning left, and zeros stay zeros.

use serde_json::{Value, json};

use super::distill::{self, BETA, DIVERGENCE, KD_RATIO, MAX_NEW_TOKENS, SKEW_ALPHA, TEMPERATURE};
use super::finetune::{LORA, ordered};
use super::train::settings::{MASK_FIELD, UNKEYED, with_training_fields};
use super::{Arity, Artifact, Declared, Failure, Field, Flow, Io, Kind, Part, Problem, Task, Type};

#[derive(Debug)]
pub struct Recover;

static FIELDS: &[Field] = with_training_fields![
    Field::required("model", Type::Ref(Arity::One, &[Artifact::Model]), "The pruned model, which learns. It has the teacher's vocabulary."),
    Field::required(
        "teacher",
        Type::Ref(Arity::One, &[Artifact::Model, Artifact::Quantized]),
        "The model before it was pruned, or another one of the same vocabulary."
    ),
    Field::required(
        "data",
        Type::Ref(Arity::All, &[Artifact::Dataset, Artifact::Files]),
        "Texts, conversations and prompts, with or without completions."
    ),
    Field::default(
        "completions",
        Type::Choice(&["data", "teacher"]),
        "\"data\"",
        "What the student is taught on: the data's completion where it has one, or the teacher's own answer to every prompt.",
    ),
    MAX_NEW_TOKENS,
    KD_RATIO,
    TEMPERATURE,
    DIVERGENCE,
    BETA,
    SKEW_ALPHA,
    Field::default(
        "top_k",
        Type::Int(0, 1 << 16),
        "0",
        "The teacher's largest logits that are kept for each token; with 0 the teacher runs beside the student in every step and all of them count."
    ),
    Field::optional("lora", Type::Table(LORA), "Learn an adapter, which is then merged; what it adds to zeros that are kept is left out."),
    MASK_FIELD,
];

impl Kind for Recover {
    fn name(&self) -> &'static str {
        "recover"
    }

    fn revision(&self) -> u32 {
        3
    }

    fn summary(&self) -> &'static str {
        "Teaches a pruned model what the whole one knew, its zeros left as they are"
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
        let mut lessons = declared.clone();
        let lora = lessons.params.remove("lora").map(|lora| ordered(&lora)).transpose()?;
        lessons.params.extend([("seq_kd", false), ("baseline", false)].map(|(name, value)| (name.to_string(), Value::from(value))));
        let mut parts = distill::expand(&lessons)?;
        if let (Some(lora), Some(student)) = (lora, parts.iter_mut().find(|part| part.suffix.is_empty())) {
            student.task.params.insert("lora".to_string(), json!(lora));
        }
        Ok(parts)
    }

    fn run(&self, task: &Task, io: &mut Io) -> Result<(), Failure> {
        distill::run(task, io)
    }
}

#[cfg(test)]
mod tests;
