//! `[quantize.NAME]`: a trained model → one GGUF file. Which tensor gets which type is in [`preset`], how values are packed in `model::quant`.

pub mod preset;
pub mod record;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::Deserialize;

use super::{Arity, Artifact, Declared, Failure, Field, Io, Kind, Params, Part, PartPort, Problem, Resources, Task, Type, typed};
use crate::base::files;
use crate::model::gguf::llama::{Packed, tensor_name};
use crate::model::gguf::{self, file_type_id};
use crate::model::quant::{BlockType, dequantize};
use crate::model::{Model, ModelError};
use preset::{Choice, Mixture, Preset, Recipe, choose};
use record::{Fallback, Quantization, TensorRecord};

pub struct Quantize;

const BLOCK_TYPES: &[&str] = &["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"];

static FIELDS: &[Field] = &[
    Field::required("model", Type::Ref(Arity::Each, &[Artifact::Model]), "The trained model; a list makes one file for each."),
    Field::required("type", Type::Choice(preset::NAMES), "The mixture of block types, as llama-quantize names it."),
    Field::default("pure", Type::Bool, "false", "Give every matrix the same block type instead of more bits where they help most."),
    Field::optional(
        "token_embedding_type",
        Type::Choice(BLOCK_TYPES),
        "The block type of the token embedding (with a tied head also of the head).",
    ),
    Field::optional("output_tensor_type", Type::Choice(BLOCK_TYPES), "The block type of the output head."),
];

impl Kind for Quantize {
    fn name(&self) -> &'static str {
        "quantize"
    }

    fn revision(&self) -> u32 {
        1
    }

    fn summary(&self) -> &'static str {
        "Packs a model's weights into a GGUF file"
    }

    fn help(&self) -> &'static str {
        include_str!("help.md")
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn expand(&self, declared: &Declared) -> Result<Vec<Part>, Vec<Problem>> {
        Ok(vec![Part {
            suffix: "",
            hidden: false,
            artifact: Artifact::Quantized,
            outputs: Vec::new(),
            task: Task { action: "quantize", params: declared.params.clone() },
            inputs: vec![PartPort::pass(declared, "model")],
            resources: Resources { cpu: 0, ..Resources::default() },
        }])
    }

    fn run(&self, task: &Task, io: &mut Io) -> Result<(), Failure> {
        quantize(&task.params, io)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(rename = "type")]
    ty: String,
    pure: bool,
    token_embedding_type: Option<String>,
    output_tensor_type: Option<String>,
}

impl Fields {
    fn recipe(&self) -> Result<Recipe, Failure> {
        let block =
            |name: &Option<String>| name.as_deref().map(str::parse::<BlockType>).transpose().map_err(|e| Failure::bug(e.to_string()));
        Ok(Recipe {
            preset: Preset::from_name(&self.ty).ok_or_else(|| Failure::bug(format!("`{}` is no preset", self.ty)))?,
            mixture: if self.pure { Mixture::Pure } else { Mixture::Mixed },
            token_embedding: block(&self.token_embedding_type)?,
            output: block(&self.output_tensor_type)?,
        })
    }
}

fn quantize(params: &Params, io: &Io) -> Result<(), Failure> {
    let fields: Fields = typed(params)?;
    let recipe = fields.recipe()?;
    let file_type = file_type_id(&fields.ty).ok_or_else(|| Failure::bug(format!("`{}` has no number", fields.ty)))?;
    let model = Model::load(io.one("model")?).map_err(|error| cannot("open the model", error))?;
    let choices: Vec<Choice> = model.weights.iter().map(|(name, shape, _)| choose(&recipe, &model.config, name, shape)).collect();
    let types: Vec<BlockType> = choices.iter().map(|choice| choice.ty).collect();
    let mut tally = Tally::default();
    let total = model.weights.parameters() as u64;
    gguf::save(&io.out.join("model.gguf"), &model, file_type, &types, &mut |packed| {
        let (name, shape) = model.weights.layout.tensors.get(packed.index).map_or(("", &[][..]), |t| (t.name.as_str(), &t.shape));
        let Some(choice) = choices.get(packed.index) else { return ControlFlow::Break(()) };
        tally.add(tensor_name(model.config.family, name).unwrap_or_default(), shape, *choice, packed);
        io.progress(tally.values, total, "weights", "");
        if io.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .map_err(|error| cannot("quantize the model", error))?;
    let record = tally.finish(fields.ty);
    let fallbacks = match record.fallbacks {
        0 => String::new(),
        n => format!("; {n} of {} tensors fell back to another type because their rows do not divide", record.tensors.len()),
    };
    io.say(format!(
        "{} at {:.2} bits per weight, relative error {:.4}{fallbacks}",
        record.file_type, record.bits_per_weight, record.relative_error
    ));
    let text = serde_json::to_string_pretty(&record).map_err(|error| Failure::bug(error.to_string()))?;
    let path = io.out.join("quantize.json");
    files::write_atomic(&path, format!("{text}\n").as_bytes()).map_err(|error| Failure::file("write", &path, &error))
}

/// What has been packed so far.
#[derive(Default)]
struct Tally {
    tensors: Vec<TensorRecord>,
    types: BTreeMap<String, u64>,
    values: u64,
    size_bytes: u64,
    error: f64,
    power: f64,
}

impl Tally {
    fn add(&mut self, name: String, shape: &[usize], choice: Choice, packed: Packed) {
        let (error, power) = squares(choice.ty, packed);
        self.error += error;
        self.power += power;
        self.values += packed.values.len() as u64;
        self.size_bytes += packed.bytes.len() as u64;
        *self.types.entry(choice.ty.name().to_string()).or_default() += 1;
        let columns = shape.last().copied().unwrap_or(0);
        let fallback = (choice.ty != choice.wanted).then(|| Fallback {
            wanted: choice.wanted.name().to_string(),
            reason: format!("rows of {columns} are no whole number of blocks of {}", choice.wanted.block_values()),
        });
        self.tensors.push(TensorRecord {
            name,
            shape: shape.to_vec(),
            ty: choice.ty.name().to_string(),
            fallback,
            size_bytes: packed.bytes.len() as u64,
            relative_error: share(error, power),
        });
    }

    fn finish(self, file_type: String) -> Quantization {
        Quantization {
            format: 1,
            file_type,
            parameters: self.values,
            size_bytes: self.size_bytes,
            bits_per_weight: self.size_bytes as f64 * 8.0 / self.values as f64,
            relative_error: share(self.error, self.power),
            types: self.types,
            fallbacks: self.tensors.iter().filter(|tensor| tensor.fallback.is_some()).count() as u64,
            tensors: self.tensors,
        }
    }
}

/// Sums, in order, of the squared error and of the squared values.
fn squares(ty: BlockType, packed: Packed) -> (f64, f64) {
    let mut back = vec![0.0; packed.values.len()];
    if ty == BlockType::F32 || dequantize(ty, packed.bytes, &mut back).is_err() {
        back.copy_from_slice(packed.values);
    }
    let (mut error, mut power) = (0.0, 0.0);
    for (&value, &back) in packed.values.iter().zip(&back) {
        let (value, gap) = (f64::from(value), f64::from(value) - f64::from(back));
        error += gap * gap;
        power += value * value;
    }
    (error, power)
}

fn share(error: f64, power: f64) -> f64 {
    if power > 0.0 { (error / power).sqrt() } else { 0.0 }
}

fn cannot(doing: &str, error: ModelError) -> Failure {
    match error {
        ModelError::Stopped => Failure::cancelled(),
        error @ ModelError::Io { .. } => Failure::environment(format!("cannot {doing}: {error}")),
        error => Failure::new(format!("cannot {doing}: {error}")),
    }
}

#[cfg(test)]
mod tests;
