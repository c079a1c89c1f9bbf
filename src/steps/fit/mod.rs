//! `[fit.NAME]`: a model as good as it can be in so many bytes. Each matrix's share in the divergence is measured, then the types are chosen: what is measured is in
//! [`measure`], how is chosen in [`choose`]. Packing is that of `quantize`.

mod choose;
mod measure;

use std::ops::ControlFlow;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::io::on_threads;
use super::quantize::preset::Choice;
use super::quantize::rules::{Pinned, RECIPE};
use super::quantize::{self, BLOCK_TYPES};
use super::{
    Arity, Artifact, Declared, Failure, Field, Flow, Io, Kind, Params, Part, PartPort, Problem, Resources, Task, Type, calibrate, typed,
};
use crate::base::files;
use crate::kernels::packed::Packed;
use crate::model::gguf::llama::{self, tensor_name};
use crate::model::gguf::pack::Rounding;
use crate::model::gguf::write::head;
use crate::model::imatrix::collect;
use crate::model::quant::BlockType;
use crate::model::weights::Tensor;
use crate::model::{Imatrix, Model, Stored, read_limited};
use choose::{Offer, choose};
use measure::{Altered, Matrix, Probe};

/// What a matrix is packed as to see how much the model minds: coarse enough to be heard, and with blocks of 32.
const PROBE: BlockType = BlockType::Q4_0;
/// Of what a measurement writes; a model has some hundred matrices.
const MAX_JSON: u64 = 1 << 30;
/// Tokens of one window of the probe.
const PROBE_LENGTH: usize = 256;

#[derive(Debug)]
pub struct Fit;

static FIELDS: &[Field] = &[
    Field::required("model", Type::Ref(Arity::Each, &[Artifact::Model]), "The trained model; a list makes one file for each."),
    Field::required(
        "data",
        Type::Ref(Arity::All, &[Artifact::Dataset, Artifact::Files]),
        "Texts of the kind that the model will meet, on which its divergence is measured. Not what it is tested on.",
    ),
    Field::optional("max_size", Type::Size, "Most bytes of the file. Either this or `bits_per_weight`."),
    Field::optional("bits_per_weight", Type::Float(1.0, 32.0), "Most bits of the packed tensors, divided by the number of their values."),
    Field::optional(
        "imatrix",
        Type::Ref(Arity::One, &[Artifact::Imatrix, Artifact::Files]),
        "What errors cost, as for `quantize`; without it, it is gathered from the data.",
    ),
    Field::default("nsamples", Type::Int(1, 1 << 20), "32", "Windows to read for the importance matrix, if none is given."),
    Field::default("seqlen", Type::Int(2, 1 << 20), "512", "Tokens of such a window."),
    Field::default("probe_tokens", Type::Int(16, 1 << 24), "512", "Tokens on which each matrix's share is measured."),
    Field::optional("types", Type::List(&Type::Choice(BLOCK_TYPES)), "The block types to choose from; all of up to 16 bits if not given."),
];

/// The fields of the measurement, which serves any size.
const MEASURED: &[&str] = &["nsamples", "seqlen", "probe_tokens", "types"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Measuring {
    nsamples: usize,
    seqlen: usize,
    probe_tokens: usize,
    types: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Choosing {
    max_size: Option<u64>,
    bits_per_weight: Option<f64>,
    probe_tokens: usize,
}

/// `shares.json`, between the two actions: what each type would cost each matrix.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shares {
    matrices: Vec<Measured>,
}

const SHARES: &str = "shares.json";

/// `fit.json`: what was measured and chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// 1
    pub format: u32,
    pub size_bytes: u64,
    pub probe_tokens: u64,
    /// Nats a token, by the sum of the matrices' shares and as measured at the end, on the same tokens.
    pub expected_divergence: f64,
    pub divergence: f64,
    pub matrices: Vec<Share>,
}

/// One matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// As in the GGUF file.
    pub name: String,
    #[serde(rename = "type")]
    pub ty: String,
    pub size_bytes: u64,
    /// Nats a token when only this matrix is packed, as Q4_0: measured.
    pub probed: f64,
    /// The same as the type that was chosen: in proportion to the weighted errors.
    pub expected: f64,
}

impl Kind for Fit {
    fn name(&self) -> &'static str {
        "fit"
    }

    fn revision(&self) -> u32 {
        4
    }

    fn summary(&self) -> &'static str {
        "Packs a model into a given size, each matrix in the type that costs least"
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
        let has = |name: &str| declared.params.contains_key(name);
        if has("max_size") == has("bits_per_weight") {
            let message = if has("max_size") { "two sizes are given" } else { "no size is given" };
            let help = "write either `max_size = \"90 MiB\"` or `bits_per_weight = 4.5`";
            return Err(vec![Problem::at("", message).label("needs one size").help(help)]);
        }
        let only = |wanted: &dyn Fn(&str) -> bool| {
            let fields = declared.params.iter().filter(|(name, _)| wanted(name));
            fields.map(|(name, value)| (name.clone(), value.clone())).collect::<Params>()
        };
        let resources = Resources::ALONE;
        let measure = Part {
            suffix: "shares",
            hidden: true,
            artifact: Artifact::Files,
            outputs: Vec::new(),
            task: Task { action: "measure", params: only(&|name| MEASURED.contains(&name)) },
            inputs: ["model", "data", "imatrix"].map(|port| PartPort::pass(declared, port)).into(),
            resources,
        };
        let choose = Part {
            suffix: "",
            hidden: false,
            artifact: Artifact::Quantized,
            outputs: Vec::new(),
            task: Task { action: "fit", params: only(&|name| name == "probe_tokens" || !MEASURED.contains(&name)) },
            inputs: vec![PartPort::pass(declared, "model"), PartPort::pass(declared, "data"), PartPort::part("shares", 0)],
            resources,
        };
        Ok(vec![measure, choose])
    }

    fn run(&self, task: &Task, io: &mut Io) -> Result<(), Failure> {
        on_threads(io, |io| match task.action {
            "measure" => typed::<Measuring>(&task.params)?.run(io),
            "fit" => typed::<Choosing>(&task.params)?.run(io),
            other => Err(Failure::bug(format!("fit has no action `{other}`"))),
        })
    }
}

/// The windows that the divergence is measured on.
fn probe<'a>(model: &'a Model<Stored>, tokens: usize, io: &Io) -> Result<Probe<'a>, Failure> {
    let length = PROBE_LENGTH.min(model.config.max_position_embeddings).min(tokens);
    let windows = calibrate::text(model, io, length, tokens.div_ceil(length))?;
    Ok(Probe::new(model, &windows)?)
}

fn open(io: &Io) -> Result<Model<Stored>, Failure> {
    let model = Model::open(io.one("model")?).map_err(|error| Failure::model("open the model", &error))?;
    Ok(model.at(io.now))
}

impl Measuring {
    fn run(&self, io: &Io) -> Result<(), Failure> {
        let model = open(io)?;
        let imatrix = self.imatrix(&model, io)?;
        imatrix.write(&io.out.join(calibrate::FILE))?;
        let mut probe = probe(&model, self.probe_tokens, io)?;
        let matrices = self.measure(&model, &imatrix, &mut probe, io)?;
        write_json(&io.out.join(SHARES), &Shares { matrices })
    }

    fn imatrix(&self, model: &Model<Stored>, io: &Io) -> Result<Imatrix, Failure> {
        if let Some(path) = io.maybe("imatrix") {
            let imatrix = calibrate::read(path)?;
            let tensors = model.weights.layout.tensors.iter().filter(|tensor| tensor.shape.len() == 2);
            let names: Vec<String> = tensors.filter_map(|tensor| tensor_name(model.config.family, &tensor.name)).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let without = imatrix.covering(&names)?.without.len();
            if without > 0 {
                io.say(format!("{without} of {} matrices have no entry in the importance matrix", names.len()));
            }
            return Ok(imatrix);
        }
        let windows = calibrate::text(model, io, self.seqlen.min(model.config.max_position_embeddings), self.nsamples)?;
        let total = windows.len() as u64;
        let collected = collect(model, &windows, &mut |done| {
            io.progress(done as u64, total, "windows", "");
            if io.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        Ok(collected?)
    }

    fn types(&self, columns: usize) -> Result<Vec<BlockType>, Failure> {
        let divides = |ty: &BlockType| columns.is_multiple_of(ty.block_values());
        let known: Vec<BlockType> = match &self.types {
            Some(names) => names.iter().map(|name| quantize::block_type(name)).collect::<Result<_, _>>()?,
            None => BlockType::ALL.into_iter().filter(|ty| *ty != BlockType::F32 && *ty != BlockType::Bf16).collect(),
        };
        let fitting: Vec<BlockType> = known.into_iter().filter(divides).collect();
        Ok(if fitting.is_empty() { vec![BlockType::F16] } else { fitting })
    }

    fn measure(&self, model: &Model<Stored>, imatrix: &Imatrix, probe: &mut Probe, io: &Io) -> Result<Vec<Measured>, Failure> {
        let tensors = &model.weights.layout.tensors;
        let mut all = Vec::new();
        for (index, tensor) in tensors.iter().enumerate() {
            let &[rows, columns] = tensor.shape.as_slice() else { continue };
            io.check_cancelled()?;
            io.progress(index as u64, tensors.len() as u64, "tensors", "");
            let name = tensor_name(model.config.family, &tensor.name).unwrap_or_default();
            let importance = imatrix.importance(&name, columns)?;
            let matrix = Matrix { weights: &model.weights, index, rows, columns, importance: importance.as_deref() };
            let types = self.types(columns)?;
            // Rows that no block fills leave nothing to choose that matters.
            let is_open = types.len() > 1 && columns.is_multiple_of(PROBE.block_values());
            let divergence = if is_open { probed(&matrix, probe)? } else { 0.0 };
            let whole = if is_open { matrix.error(PROBE)? } else { 0.0 };
            let mut offers = Vec::new();
            for ty in types {
                let share = if whole > 0.0 { matrix.error(ty)? / whole } else { 0.0 };
                let size_bytes = padded(ty.bytes_for(tensor.range.len()).unwrap_or(0) as u64);
                offers.push(Offer { ty, size_bytes, cost: divergence * share });
            }
            all.push(Measured { index, name, divergence, offers });
        }
        Ok(all)
    }
}

impl Choosing {
    fn run(&self, io: &Io) -> Result<(), Failure> {
        let model = open(io)?;
        let shares = io.one("shares")?;
        let imatrix = calibrate::read(shares)?;
        let Shares { matrices } = read_json(&shares.join(SHARES))?;
        let budget = self.budget(&model)?;
        let offers: Vec<Vec<Offer>> = matrices.iter().map(|matrix| matrix.offers.clone()).collect();
        let taken = choose(&offers, budget).map_err(|least| too_small(least, budget))?;
        let rounding = Rounding { imatrix: Some(&imatrix), ready: None };
        quantize::write(io, &model, None, &choices(&model, &matrices, &taken), rounding)?;
        self.record(&model, &matrices, &taken, io)
    }

    /// Bytes for the matrices: what the file's head and the vectors, which stay F32, leave of it.
    fn budget(&self, model: &Model<Stored>) -> Result<u64, Failure> {
        let tensors = &model.weights.layout.tensors;
        let vectors: u64 = tensors.iter().filter(|t| t.shape.len() != 2).map(|t| padded(4 * t.range.len() as u64)).sum();
        if let Some(bits) = self.bits_per_weight {
            return Ok(((bits * model.weights.parameters() as f64 / 8.0) as u64).saturating_sub(vectors));
        }
        let plans = tensors.iter().map(|t| llama::plan(&model.config, &t.name, &t.shape, BlockType::F32)).collect::<Result<Vec<_>, _>>()?;
        let head = head(&llama::metadata(model, 0)?, &plans).map_err(|error| Failure::bug(error.to_string()))?;
        Ok(self.max_size.unwrap_or(0).saturating_sub(head.len() as u64 + vectors))
    }

    fn record(&self, model: &Model<Stored>, measured: &[Measured], taken: &[usize], io: &Io) -> Result<(), Failure> {
        let mut probe = probe(model, self.probe_tokens, io)?;
        let path = io.out.join("model.gguf");
        let size_bytes = std::fs::metadata(&path).map_err(|error| Failure::file("read", &path, &error))?.len();
        let divergence = probe.divergence(&Model::open(&path)?.weights)?;
        let share = |(matrix, taken): (&Measured, &usize)| {
            let offer = matrix.offers.get(*taken)?;
            let (name, ty) = (matrix.name.clone(), offer.ty.name().to_string());
            Some(Share { name, ty, size_bytes: offer.size_bytes, probed: matrix.divergence, expected: offer.cost })
        };
        let matrices: Vec<Share> = measured.iter().zip(taken).filter_map(share).collect();
        let expected_divergence = matrices.iter().map(|share| share.expected).sum();
        let bits = 8.0 * size_bytes as f64 / model.weights.parameters() as f64;
        io.say(format!(
            "{size_bytes} bytes, {bits:.2} bits per weight; divergence {divergence:.5} nats a token, expected {expected_divergence:.5}"
        ));
        let types = matrices.iter().map(|share| (share.name.clone(), share.ty.clone())).collect();
        Pinned { format: 1, types }.write(&io.out.join(RECIPE))?;
        let probe_tokens = probe.tokens();
        let record = Record { format: 1, size_bytes, probe_tokens, expected_divergence, divergence, matrices };
        write_json(&io.out.join("fit.json"), &record)
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::bug(error.to_string()))?;
    files::write_atomic(path, format!("{text}\n").as_bytes()).map_err(|error| Failure::file("write", path, &error))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let bytes = read_limited(path, MAX_JSON)?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::new(format!("cannot read `{}`: {error}", path.display())))
}

/// What each type would cost a matrix.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Measured {
    index: usize,
    name: String,
    /// When only it is packed, as [`PROBE`].
    divergence: f64,
    offers: Vec<Offer>,
}

fn probed(matrix: &Matrix, probe: &mut Probe) -> Result<f64, Failure> {
    let bytes = matrix.rounded(PROBE)?;
    let packed = Packed::new(BlockType::F32, matrix.rows, matrix.columns, &bytes);
    Ok(probe.divergence(&Altered { weights: matrix.weights, index: matrix.index, matrix: packed })?)
}

fn choices(model: &Model<Stored>, measured: &[Measured], taken: &[usize]) -> Vec<Choice> {
    let of = |(index, _): (usize, &Tensor)| {
        let chosen = measured.iter().zip(taken).find(|(matrix, _)| matrix.index == index);
        let ty = chosen.and_then(|(matrix, taken)| matrix.offers.get(*taken)).map_or(BlockType::F32, |offer| offer.ty);
        Choice { ty, wanted: ty }
    };
    model.weights.layout.tensors.iter().enumerate().map(of).collect()
}

fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(crate::model::gguf::ALIGNMENT as u64)
}

fn too_small(least: u64, budget: u64) -> Failure {
    Failure::new(format!("the smallest types take {least} bytes for the matrices; the size leaves {budget}"))
        .help("raise `max_size` or `bits_per_weight`, allow smaller `types`, or begin with a smaller model")
}

#[cfg(test)]
mod tests;
