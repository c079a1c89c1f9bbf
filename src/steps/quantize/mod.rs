//! `[quantize.NAME]`: a trained model → one GGUF file. Which tensor gets which type is in [`preset`], how values are packed in `model::quant`.

mod gptq;
pub mod preset;
pub mod record;
pub mod rules;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::Deserialize;

use super::calibrate;
use super::io::on_threads;
use super::{Arity, Artifact, Declared, Failure, Field, Flow, Io, Kind, Params, Part, PartPort, Problem, Resources, Task, Type, typed};
use crate::base::files;
use crate::model::gguf::llama::tensor_name;
use crate::model::gguf::pack::{Rounding, Written, pack};
use crate::model::gguf::{ends_of_llama_cpp_alone, file_type_id};
use crate::model::imatrix::Covering;
use crate::model::quant::BlockType;
use crate::model::sparse::{Ledger, is_prunable};
use crate::model::{Imatrix, Model, Stored};
use preset::{Calibrated, Choice, Mixture, Preset, Recipe, choose};
use record::{Fallback, Quantization, TensorRecord, ZerosRecord};
use rules::{Pinned, Rules};

pub struct Quantize;

pub(super) const BLOCK_TYPES: &[&str] =
    &["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"];

static FIELDS: &[Field] = &[
    Field::required("model", Type::Ref(Arity::Each, &[Artifact::Model]), "The trained model; a list makes one file for each."),
    Field::optional(
        "type",
        Type::Choice(preset::NAMES),
        "The mixture of block types, as llama-quantize names it. Needed without a `recipe`.",
    ),
    Field::optional(
        "imatrix",
        Type::Ref(Arity::One, &[Artifact::Imatrix, Artifact::Files]),
        "What errors cost: a `calibrate` step, or a file of llama-imatrix.",
    ),
    Field::optional(
        "recipe",
        Type::Ref(Arity::One, &[Artifact::Quantized, Artifact::Files]),
        "A `fit` step whose choice of types is repeated, or a `recipe.json`.",
    ),
    Field::optional(
        "tensor_types",
        Type::Map(&Type::Choice(BLOCK_TYPES)),
        "Pattern = block type, for matrices in whose GGUF name the pattern is found (`*` stands for anything). The longest pattern counts, before all else.",
    ),
    Field::default("pure", Type::Bool, "false", "Give every matrix the same block type instead of more bits where they help most."),
    Field::optional(
        "token_embedding_type",
        Type::Choice(BLOCK_TYPES),
        "The block type of the token embedding (with a tied head also of the head).",
    ),
    Field::optional("output_tensor_type", Type::Choice(BLOCK_TYPES), "The block type of the output head."),
    Field::optional(
        "method",
        Type::Choice(&["rtn", "gptq"]),
        "How values are rounded: each to its nearest level (`rtn`, if it is not given), or so that later columns make up for the errors of earlier ones (`gptq`, which reads `data`).",
    ),
    Field::optional(
        "data",
        Type::Ref(Arity::All, &[Artifact::Dataset, Artifact::Files]),
        "Of `gptq`: texts of the kind that the model will meet. Not what it is tested on.",
    ),
    Field::optional("nsamples", Type::Int(1, 1 << 20), "Of `gptq`: windows to read, evenly spread over the data; 128 if not given."),
    Field::optional("seqlen", Type::Int(2, 1 << 20), "Of `gptq`: tokens of a window; 512 if not given."),
    Field::optional(
        "damp",
        Type::Float(0.0, 1.0),
        "Of `gptq`: added to the Hessian's diagonal, as a share of its mean; 0.01 if not given.",
    ),
];

/// What `gptq` alone takes.
const OF_GPTQ: [&str; 4] = ["data", "nsamples", "seqlen", "damp"];

impl Kind for Quantize {
    fn name(&self) -> &'static str {
        "quantize"
    }

    fn revision(&self) -> u32 {
        6
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

    fn is_numeric(&self) -> bool {
        true
    }

    fn flow(&self, port: &str) -> Flow {
        match port {
            "data" => Flow::Learned,
            _ => Flow::Made,
        }
    }

    fn renders_chats(&self) -> bool {
        true
    }

    fn expand(&self, declared: &Declared) -> Result<Vec<Part>, Vec<Problem>> {
        if !declared.params.contains_key("type") && declared.inputs("recipe").is_empty() {
            let help = "write `type = \"Q4_K_M\"`, or a `recipe`";
            return Err(vec![Problem::at("", "nothing says which types the weights get").label("needs a `type`").help(help)]);
        }
        let is_gptq = declared.params.get("method").is_some_and(|method| method == "gptq");
        let is_given = |name: &&&str| declared.params.contains_key(**name) || !declared.inputs(name).is_empty();
        if let Some(name) = OF_GPTQ.iter().find(is_given).filter(|_| !is_gptq) {
            let message = format!("`{name}` belongs to `method = \"gptq\"`");
            return Err(vec![Problem::at(*name, message).help("write the method, too, or leave this out")]);
        }
        if is_gptq && declared.inputs("data").is_empty() {
            let help = "write `data = \"calibration\"`: a dataset of the kind of text that the model will meet";
            return Err(vec![Problem::at("method", "`gptq` reads a text").label("needs `data`").help(help)]);
        }
        Ok(vec![Part {
            suffix: "",
            hidden: false,
            artifact: Artifact::Quantized,
            outputs: Vec::new(),
            task: Task { action: "quantize", params: declared.params.clone() },
            inputs: ["model", "imatrix", "recipe", "data"].map(|port| PartPort::pass(declared, port)).into(),
            resources: Resources { cpu: 0, ..Resources::default() },
        }])
    }

    fn run(&self, task: &Task, io: &mut Io) -> Result<(), Failure> {
        on_threads(io, |io| quantize(&task.params, io))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(rename = "type")]
    ty: Option<String>,
    pure: bool,
    token_embedding_type: Option<String>,
    output_tensor_type: Option<String>,
    #[serde(default)]
    tensor_types: BTreeMap<String, String>,
    method: Option<Method>,
    nsamples: Option<usize>,
    seqlen: Option<usize>,
    damp: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Method {
    Rtn,
    Gptq,
}

impl Fields {
    fn recipe(&self, io: &Io) -> Result<Recipe, Failure> {
        let block = |name: &Option<String>| name.as_deref().map(block_type).transpose();
        let name = self.ty.as_deref().unwrap_or("F16");
        Ok(Recipe {
            preset: Preset::from_name(name).ok_or_else(|| Failure::bug(format!("`{name}` is no preset")))?,
            mixture: if self.pure { Mixture::Pure } else { Mixture::Mixed },
            token_embedding: block(&self.token_embedding_type)?,
            output: block(&self.output_tensor_type)?,
            calibrated: if io.maybe("imatrix").is_some() { Calibrated::Yes } else { Calibrated::No },
        })
    }

    fn text(&self) -> gptq::Text {
        gptq::Text { nsamples: self.nsamples.unwrap_or(128), seqlen: self.seqlen.unwrap_or(512), damp: self.damp.unwrap_or(0.01) }
    }

    fn rules(&self, io: &Io) -> Result<Rules, Failure> {
        let patterns = self.tensor_types.iter().map(|(pattern, ty)| Ok((pattern.clone(), block_type(ty)?)));
        Ok(Rules { patterns: patterns.collect::<Result<_, Failure>>()?, pinned: io.maybe("recipe").map(Pinned::read).transpose()? })
    }
}

pub(super) fn block_type(name: &str) -> Result<BlockType, Failure> {
    name.parse().map_err(|error: crate::kernels::packed::UnknownType| Failure::bug(error.to_string()))
}

fn quantize(params: &Params, io: &Io) -> Result<(), Failure> {
    let fields: Fields = typed(params)?;
    let (recipe, rules) = (fields.recipe(io)?, fields.rules(io)?);
    let model = Model::open(io.one("model")?).map_err(|error| Failure::model("open the model", &error))?;
    let choices = choices(&recipe, &rules, &model)?;
    let imatrix = io.maybe("imatrix").map(calibrate::read).transpose()?;
    if let Some(imatrix) = &imatrix {
        tell_covering(io, imatrix, &model, &choices, fields.method)?;
    }
    let ready = match fields.method {
        Some(Method::Gptq) => Some(gptq::round(fields.text(), &choices, io)?),
        Some(Method::Rtn) | None => None,
    };
    write(io, &model, fields.ty, &choices, Rounding { imatrix: imatrix.as_ref(), ready: ready.as_ref() })
}

/// An importance matrix of another model is an error; one that the types do not use, and what it leaves out, is told.
fn tell_covering(io: &Io, imatrix: &Imatrix, model: &Model<Stored>, choices: &[Choice], method: Option<Method>) -> Result<(), Failure> {
    let names = names(model);
    // `gptq` measures the matrices of the layers itself; F32, F16, BF16 and Q8_0 have nothing to weigh.
    let weighs = |(name, choice): (&String, &Choice)| {
        let is_own = method == Some(Method::Gptq) && name.starts_with("blk.");
        !is_own && !matches!(choice.ty, BlockType::F32 | BlockType::F16 | BlockType::Bf16 | BlockType::Q8_0)
    };
    let matrices = model.weights.layout.tensors.iter().zip(&names).zip(choices).filter(|((tensor, _), _)| tensor.shape.len() == 2);
    let weighed: Vec<&str> = matrices.filter(|((_, name), choice)| weighs((name, choice))).map(|((_, name), _)| name.as_str()).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let Covering { without, strangers } = imatrix.covering(&all)?;
    let without: Vec<&str> = weighed.iter().copied().filter(|name| without.contains(name)).collect();
    // One of several types may have no use for it, as in `matrix.type = ["Q8_0", "Q4_K_M"]`.
    if weighed.is_empty() {
        io.warn("the importance matrix has no effect: F32, F16, BF16 and Q8_0 do not use one");
        return Ok(());
    }
    if without.len() == weighed.len() {
        let help = "it was measured on another model, or its names are not those of a GGUF file: calibrate this model";
        return Err(Failure::usage("the importance matrix has no entry for any matrix that would use it").help(help));
    }
    if let [first, ..] = without.as_slice() {
        io.say(format!("{} of {} matrices have no entry in the importance matrix, `{first}` first", without.len(), weighed.len()));
    }
    if strangers > 0 {
        io.warn(format!("{strangers} entries of the importance matrix are of matrices that the model does not have"));
    }
    Ok(())
}

/// Of the tensors, in a GGUF file.
fn names(model: &Model<Stored>) -> Vec<String> {
    let tensors = model.weights.layout.tensors.iter();
    tensors.map(|tensor| tensor_name(model.config.family, &tensor.name).unwrap_or_default()).collect()
}

fn choices(recipe: &Recipe, rules: &Rules, model: &Model<Stored>) -> Result<Vec<Choice>, Failure> {
    let tensors = &model.weights.layout.tensors;
    let names = names(model);
    let matrices =
        tensors.iter().zip(&names).filter(|(tensor, _)| tensor.shape.len() == 2).map(|(_, name)| name.clone()).collect::<Vec<_>>();
    if let [first, ..] = rules.unused(&matrices, &names).as_slice() {
        let help = "matrices go by their names in a GGUF file: blk.0.attn_q.weight, blk.0.ffn_down.weight, token_embd.weight";
        return Err(Failure::usage(format!("`{first}` gives no matrix of the model its type")).help(help));
    }
    if recipe.output.is_some() && recipe.token_embedding.is_some() && model.config.tie_word_embeddings {
        let help = "the head is the token embedding, which has `token_embedding_type`; leave `output_tensor_type` out";
        return Err(Failure::usage("`output_tensor_type` has no effect").help(help));
    }
    let choice = |(tensor, name): (&crate::model::weights::Tensor, &String)| {
        rules.apply(choose(recipe, &model.config, &tensor.name, &tensor.shape), name, &tensor.shape)
    };
    Ok(tensors.iter().zip(&names).map(choice).collect())
}

/// Fills the output: `model.gguf` and `quantize.json`. Without a name for the mixture, it is named after the type that most values have.
pub(super) fn write(io: &Io, model: &Model<Stored>, name: Option<String>, choices: &[Choice], rounding: Rounding) -> Result<(), Failure> {
    let types: Vec<BlockType> = choices.iter().map(|choice| choice.ty).collect();
    let name = name.unwrap_or_else(|| mostly(model, &types));
    let file_type = file_type_id(&name).ok_or_else(|| Failure::bug(format!("`{name}` has no number")))?;
    let elsewhere = ends_of_llama_cpp_alone(model)?;
    if !elsewhere.is_empty() {
        io.say(format!("llama.cpp also ends answers at {}, which end none of the model's", elsewhere.join(", ")));
    }
    let sparsity = Ledger::read(io.one("model")?)?.map(|_| ZerosRecord::default());
    let mut tally = Tally { sparsity, ..Tally::default() };
    let total = model.weights.parameters() as u64;
    pack(&io.out.join("model.gguf"), model, file_type, &types, rounding, &mut |written| {
        let Some(choice) = choices.get(written.index) else { return ControlFlow::Break(()) };
        let name = tensor_name(model.config.family, &written.tensor.name).unwrap_or_default();
        tally.add(name, *choice, written);
        io.progress(tally.values, total, "weights", "");
        if io.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .map_err(|error| Failure::model("quantize the model", &error))?;
    let record = tally.finish(name);
    let fallbacks = match record.fallbacks {
        0 => String::new(),
        n => format!("; {n} of {} tensors fell back to another type because their rows do not divide", record.tensors.len()),
    };
    io.say(format!(
        "{} at {:.2} bits per weight, relative error {:.4}{fallbacks}",
        record.file_type, record.bits_per_weight, record.relative_error
    ));
    if let Some(ZerosRecord { zeros, kept }) = record.sparsity {
        io.say(format!("{kept} of the linear layers' {zeros} zeros are zero in the file, too"));
    }
    let text = serde_json::to_string_pretty(&record).map_err(|error| Failure::bug(error.to_string()))?;
    let path = io.out.join("quantize.json");
    files::write_atomic(&path, format!("{text}\n").as_bytes()).map_err(|error| Failure::file("write", &path, &error))
}

/// The name of the mixture that has mostly this type.
fn mostly(model: &Model<Stored>, types: &[BlockType]) -> String {
    let mut values: BTreeMap<BlockType, usize> = BTreeMap::new();
    for (tensor, ty) in model.weights.layout.tensors.iter().zip(types) {
        *values.entry(*ty).or_default() += tensor.range.len();
    }
    let most = values.into_iter().max_by_key(|(_, count)| *count).map_or(BlockType::F32, |(ty, _)| ty);
    match most {
        BlockType::Q3K => "Q3_K_M",
        BlockType::Q4K => "Q4_K_M",
        BlockType::Q5K => "Q5_K_M",
        other => other.name(),
    }
    .to_string()
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
    sparsity: Option<ZerosRecord>,
}

impl Tally {
    fn add(&mut self, name: String, choice: Choice, written: Written) {
        let Written { index: _, tensor, ty, size_bytes, error, power, zeros, zeros_kept } = written;
        if let Some(sparsity) = self.sparsity.as_mut().filter(|_| is_prunable(&tensor.name)) {
            sparsity.zeros += zeros;
            sparsity.kept += zeros_kept;
        }
        self.error += error;
        self.power += power;
        self.values += tensor.range.len() as u64;
        self.size_bytes += size_bytes;
        *self.types.entry(ty.name().to_string()).or_default() += 1;
        let columns = tensor.shape.last().copied().unwrap_or(0);
        let fallback = (ty != choice.wanted).then(|| Fallback {
            wanted: choice.wanted.name().to_string(),
            reason: format!("rows of {columns} are no whole number of blocks of {}", choice.wanted.block_values()),
        });
        self.tensors.push(TensorRecord {
            name,
            shape: tensor.shape.clone(),
            ty: ty.name().to_string(),
            fallback,
            size_bytes,
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
            sparsity: self.sparsity,
            tensors: self.tensors,
        }
    }
}

fn share(error: f64, power: f64) -> f64 {
    if power > 0.0 { (error / power).sqrt() } else { 0.0 }
}

#[cfg(test)]
mod tests;
