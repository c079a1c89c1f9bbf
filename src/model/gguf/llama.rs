//! A model's tensors in a GGUF file: which is which, how query and key rows lie, which lie in one. The layout is that of llama.cpp's converter for each
//! architecture; [`super::arch`] knows the differences, [`super::metadata`] the metadata.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::{Gguf, TensorPlan, Writer, arch, metadata, named, tokens};
use crate::model::decoder::Pairs;
use crate::model::quant::{BlockType, quantize};
use crate::model::stored::Span;
use crate::model::weights::{FileTensor, Layout};
use crate::model::{ChatTemplate, Config, Model, ModelError, Stored, Tokenizer, Weights};

pub use arch::tensor_name;
pub use metadata::metadata;

/// The plan of a tensor: its name in the file, its shape in ggml's order.
pub fn plan(config: &Config, name: &str, shape: &[usize], ty: BlockType) -> Result<TensorPlan, ModelError> {
    let theirs = tensor_name(config.family, name);
    let theirs = theirs.ok_or_else(|| ModelError::unsupported(format!("tensor `{name}`"), "GGUF has no name for it"))?;
    Ok(TensorPlan { name: theirs, shape: shape.iter().rev().copied().collect(), ty })
}

/// The values as they lie in the file: query and key rows go from "first halves, then second halves" of a head, which rotate-half pairs, to neighbours,
/// which llama.cpp pairs.
pub fn rows_for_file<'a>(name: &str, values: &'a [f32], config: &Config) -> Cow<'a, [f32]> {
    let Some(row) = permuted_row(name, config) else { return Cow::Borrowed(values) };
    let mut out = vec![0.0; values.len()];
    for (to, from) in pairs(values.len() / row, config.head_dim) {
        out[to * row..][..row].copy_from_slice(&values[from * row..][..row]);
    }
    Cow::Owned(out)
}

/// For each row of the file the row in a Hugging Face folder, if their order differs.
pub fn row_order(name: &str, rows: usize, config: &Config) -> Option<Vec<usize>> {
    permuted_row(name, config).map(|_| pairs(rows, config.head_dim).map(|(_, from)| from).collect())
}

/// The opposite of [`rows_for_file`], in place.
fn rows_from_file(name: &str, values: &mut [f32], config: &Config) {
    let Some(row) = permuted_row(name, config) else { return };
    let file = values.to_vec();
    for (from, to) in pairs(values.len() / row, config.head_dim) {
        values[to * row..][..row].copy_from_slice(&file[from * row..][..row]);
    }
}

/// The row length of a tensor whose rows are permuted.
fn permuted_row(name: &str, config: &Config) -> Option<usize> {
    let is = |part: &str| name.ends_with(part);
    let permutes = arch::pairs(config.family) == Pairs::Neighbours && (is(".self_attn.q_proj.weight") || is(".self_attn.k_proj.weight"));
    permutes.then_some(config.hidden_size)
}

/// (row in the file, row in a Hugging Face folder)
fn pairs(rows: usize, head_dim: usize) -> impl Iterator<Item = (usize, usize)> {
    let half = head_dim / 2;
    (0..rows).map(move |row| {
        let (head, within) = (row / head_dim, row % head_dim);
        (row, head * head_dim + within % 2 * half + within / 2)
    })
}

/// A tensor that [`save`] has just packed.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    /// Its place in the model's layout.
    pub index: usize,
    /// The values in the file's order of rows.
    pub values: &'a [f32],
    pub bytes: &'a [u8],
}

/// Writes a model, one tensor at a time. `types` are those of the layout's tensors, in order; those that lie in one have one type. `file_type` is
/// `llama_ftype`; `each` may stop the work.
pub fn save(
    path: &Path,
    model: &Model,
    file_type: u32,
    types: &[BlockType],
    each: &mut dyn FnMut(Packed) -> ControlFlow<()>,
) -> Result<(), ModelError> {
    let io = |error| named("write", path, error);
    let (config, layout) = (&model.config, &model.weights.layout);
    let metadata = metadata(model, file_type)?;
    let (extra, tensors) = (arch::extra_tensors(config), layout.in_files(config));
    let mut plans: Vec<_> = extra.iter().map(plan_alone).collect();
    for tensor in &tensors {
        plans.push(plan(config, &tensor.name, &tensor.shape, common_type(tensor, types)?)?);
    }
    let mut writer = Writer::create(path, &metadata, &plans).map_err(io)?;
    for (_, values) in &extra {
        writer.tensor(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>()).map_err(io)?;
    }
    for tensor in &tensors {
        let ty = common_type(tensor, types)?;
        let mut whole = Vec::new();
        for index in tensor.members.clone() {
            let member = &layout.tensors[index];
            let values = rows_for_file(&member.name, &model.weights.data[member.range.clone()], config);
            let row = member.shape.last().copied().unwrap_or(1);
            let bytes = quantize(ty, &values, row).map_err(|error| ModelError::malformed(format!("tensor `{}`", member.name), error))?;
            if each(Packed { index, values: &values, bytes: &bytes }).is_break() {
                return Err(ModelError::Stopped);
            }
            if whole.is_empty() {
                whole = bytes;
            } else {
                whole.extend(bytes);
            }
        }
        writer.tensor(&whole).map_err(io)?;
    }
    writer.finish().map_err(io)
}

/// The plan of a tensor that no Hugging Face folder has.
pub(super) fn plan_alone((name, values): &(&str, Vec<f32>)) -> TensorPlan {
    TensorPlan { name: name.to_string(), shape: vec![values.len()], ty: BlockType::F32 }
}

pub(super) fn common_type(tensor: &FileTensor, types: &[BlockType]) -> Result<BlockType, ModelError> {
    match types.get(tensor.members.clone()) {
        Some([first, others @ ..]) if others.iter().all(|ty| ty == first) => Ok(*first),
        Some(_) => Err(ModelError::unsupported(format!("more than one type in `{}`", tensor.name), "its parts lie in one tensor")),
        None => Err(ModelError::malformed("the types", format!("there is none for `{}`", tensor.name))),
    }
}

/// Reads a whole model, its weights unpacked to f32.
pub fn load(path: &Path) -> Result<Model, ModelError> {
    let Checked { file, config, layout, spans } = Checked::of(path)?;
    let (tokenizer, chat) = encoder(&file, &config, path)?;
    // Only now that all that the configuration promises is known to be in the file is memory taken for the weights.
    let mut weights = Weights::zeros(&config)?;
    for (tensor, span) in layout.tensors.iter().zip(&spans) {
        let out = &mut weights.data[tensor.range.clone()];
        span.unpack(out).map_err(|why| {
            wrong(path, format!("tensor `{}`: {why}", tensor_name(config.family, &tensor.name).unwrap_or_else(|| tensor.name.clone())))
        })?;
        rows_from_file(&tensor.name, out, &config);
    }
    Model { config, weights, tokenizer, chat }.with_ends()
}

/// The same with the weights left in the file.
pub fn open_model(path: &Path) -> Result<Model<Stored>, ModelError> {
    let Checked { file, config, layout, spans } = Checked::of(path)?;
    let (tokenizer, chat) = encoder(&file, &config, path)?;
    let mut spans = spans.into_iter();
    let weights = Stored::new(Arc::new(layout), arch::pairs(config.family), &mut |tensor| {
        spans.next().ok_or_else(|| wrong(path, format!("tensor `{}` is missing", tensor.name)))
    })?;
    Model { config, weights, tokenizer, chat }.with_ends()
}

/// A file whose tensors are those that its configuration promises and no others.
struct Checked {
    file: Gguf,
    config: Config,
    layout: Layout,
    /// Where each tensor of the layout lies.
    spans: Vec<Span>,
}

impl Checked {
    fn of(path: &Path) -> Result<Checked, ModelError> {
        let file = super::open(path)?;
        let config = metadata::config(&file, path)?;
        let layout = Layout::of(&config)?;
        let mut known: BTreeSet<String> = arch::extra_tensors(&config).iter().map(|(name, _)| name.to_string()).collect();
        let mut spans = Vec::with_capacity(layout.tensors.len());
        for tensor in layout.in_files(&config) {
            let theirs = tensor_name(config.family, &tensor.name).unwrap_or_default();
            let span = span(&file, &theirs, &tensor.shape, path)?;
            let mut before = 0;
            for member in &layout.tensors[tensor.members.clone()] {
                let part = span.part(before, member.range.len());
                spans.push(part.ok_or_else(|| wrong(path, format!("tensor `{theirs}` is no whole number of blocks")))?);
                before += member.range.len();
            }
            known.insert(theirs);
        }
        if let Some(stranger) = file.header.tensors.iter().find(|tensor| !known.contains(&tensor.name)) {
            let why = format!("a plain `{}` model has no such tensor", arch::name(config.family));
            return Err(ModelError::unsupported(format!("tensor `{}`", super::shown(&stranger.name)), why));
        }
        Ok(Checked { file, config, layout, spans })
    }
}

fn encoder(file: &Gguf, config: &Config, path: &Path) -> Result<(Tokenizer, ChatTemplate), ModelError> {
    let (tokenizer, chat) = tokens::read(&file.header, path)?;
    if tokenizer.vocab_size() > config.vocab_size {
        return Err(wrong(path, format!("it has {} tokens and {} embeddings", tokenizer.vocab_size(), config.vocab_size)));
    }
    Ok((tokenizer, chat))
}

/// Where a tensor of the file lies.
fn span(file: &Gguf, theirs: &str, shape: &[usize], path: &Path) -> Result<Span, ModelError> {
    let found = file.tensor(theirs).ok_or_else(|| wrong(path, format!("tensor `{theirs}` is missing")))?;
    if !found.shape.iter().rev().eq(shape) {
        let shape: Vec<usize> = shape.iter().rev().copied().collect();
        return Err(wrong(path, format!("tensor `{theirs}` has shape {:?}, not {shape:?}", found.shape)));
    }
    Ok(Span { file: Arc::clone(file.file_of(found)), bytes: found.bytes.clone(), ty: found.ty, offset: 0.0 })
}

pub(super) fn wrong(path: &Path, why: String) -> ModelError {
    ModelError::malformed(format!("`{}`", path.display()), why)
}
