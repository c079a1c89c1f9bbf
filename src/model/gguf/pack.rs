//! A model's file from a model's file: piece by piece, so that no more than some megabytes of it are ever unpacked.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use super::{TensorPlan, Writer, arch, llama, named};
use crate::kernels::isa::{LANES, clones};
use crate::model::decoder::{Pairs, Tensors};
use crate::model::quant::outliers::Outliers;
use crate::model::quant::{BlockType, QuantError, SUPER_BLOCK, dequantize, quantize_into};
use crate::model::weights::Tensor;
use crate::model::{Imatrix, Model, ModelError, Stored};

/// Values of one piece, unless a row has more.
const PIECE: usize = 1 << 17;

/// A tensor that has just been written.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// Its place in the model's layout.
    pub index: usize,
    pub tensor: &'a Tensor,
    pub ty: BlockType,
    pub size_bytes: u64,
    /// Sum of the squares of what packing got wrong, and of the values.
    pub error: f64,
    pub power: f64,
    /// Values that were zero, and those of them that still are.
    pub zeros: u64,
    pub zeros_kept: u64,
}

/// How matrices are rounded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rounding<'a> {
    pub imatrix: Option<&'a Imatrix>,
    /// Matrices that have been packed already, in the layout's numbers and the file's order of rows.
    pub ready: Option<&'a BTreeMap<usize, Vec<u8>>>,
}

/// Writes a model whose tensors are in files. `types` are those of the layout's tensors, in order; `file_type` is `llama_ftype`; `each` hears of every tensor and may stop the work.
pub fn pack(
    path: &Path,
    model: &Model<Stored>,
    file_type: u32,
    types: &[BlockType],
    rounding: Rounding,
    each: &mut dyn FnMut(Written) -> ControlFlow<()>,
) -> Result<(), ModelError> {
    let io = |error| named("write", path, error);
    let (config, layout) = (&model.config, &model.weights.layout);
    let (extra, tensors) = (arch::extra_tensors(config), layout.in_files(config));
    let mut plans: Vec<_> = extra.iter().map(llama::plan_alone).collect();
    for tensor in &tensors {
        plans.push(llama::plan(config, &tensor.name, &tensor.shape, llama::common_type(tensor, types)?)?);
    }
    let mut writer = Writer::create(path, &llama::metadata(model, file_type)?, &plans).map_err(io)?;
    for (_, values) in &extra {
        writer.tensor(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>()).map_err(io)?;
    }
    for (tensor, plan) in tensors.iter().zip(plans.iter().skip(extra.len())) {
        for index in tensor.members.clone() {
            member(model, index, plan, rounding, &mut |bytes| writer.part(bytes).map_err(io), each)?;
        }
        writer.end_tensor().map_err(io)?;
    }
    writer.finish().map_err(io)
}

/// A tensor of the model, which may be a part of one in the file.
fn member(
    model: &Model<Stored>,
    index: usize,
    plan: &TensorPlan,
    rounding: Rounding,
    part: &mut dyn FnMut(&[u8]) -> Result<(), ModelError>,
    each: &mut dyn FnMut(Written) -> ControlFlow<()>,
) -> Result<(), ModelError> {
    let Some(tensor) = model.weights.layout.tensors.get(index) else { return Ok(()) };
    let columns = tensor.shape.last().copied().unwrap_or(1);
    let rows = tensor.range.len() / columns.max(1);
    let order = match model.weights.pairs() {
        Pairs::Halves => llama::row_order(&tensor.name, rows, &model.config),
        Pairs::Neighbours => None,
    };
    let mut buffers = Buffers::default();
    let mut written = Written { index, tensor, ty: plan.ty, size_bytes: 0, error: 0.0, power: 0.0, zeros: 0, zeros_kept: 0 };
    let wrong = |error: QuantError| ModelError::malformed(format!("tensor `{}`", tensor.name), error);
    let piece = (PIECE / columns.max(1)).max(1);
    let mut ready = rounding.ready.and_then(|ready| ready.get(&index)).map(Vec::as_slice);
    let mut importance = match rounding.imatrix {
        Some(imatrix) => imatrix.importance(&plan.name, columns)?,
        None => None,
    };
    // The other types keep llama.cpp's bytes.
    if importance.is_none() && ready.is_none() && plan.ty.block_values() == SUPER_BLOCK {
        let mut outliers = Outliers::new(columns);
        for first in (0..rows).step_by(piece) {
            model.weights.values(index, first..rows.min(first + piece), order.as_deref(), &mut buffers.values)?;
            outliers.add(&buffers.values);
        }
        importance = outliers.importance();
    }
    for first in (0..rows).step_by(piece) {
        model.weights.values(index, first..rows.min(first + piece), order.as_deref(), &mut buffers.values)?;
        match &mut ready {
            Some(rest) => {
                let values = buffers.values.len();
                let taken = plan.ty.bytes_for(values).and_then(|bytes| rest.split_off(..bytes));
                buffers.bytes.clear();
                buffers.bytes.extend_from_slice(taken.ok_or_else(|| wrong(QuantError::Bytes { ty: plan.ty, bytes: rest.len(), values }))?);
            }
            None => quantize_into(plan.ty, &buffers.values, columns, importance.as_deref(), &mut buffers.bytes).map_err(wrong)?,
        }
        buffers.compare(plan.ty, &mut written).map_err(wrong)?;
        part(&buffers.bytes)?;
    }
    if each(written).is_break() { Err(ModelError::Stopped) } else { Ok(()) }
}

/// Of one piece; used again and again.
#[derive(Default)]
struct Buffers {
    values: Vec<f32>,
    bytes: Vec<u8>,
    back: Vec<f32>,
}

impl Buffers {
    /// Adds up what packing has changed.
    fn compare(&mut self, ty: BlockType, written: &mut Written) -> Result<(), QuantError> {
        self.back.resize(self.values.len(), 0.0);
        dequantize(ty, &self.bytes, &mut self.back)?;
        for (values, back) in self.values.chunks(SUM).zip(self.back.chunks(SUM)) {
            let [error, power, zeros, zeros_kept] = changes(values, back);
            written.error += f64::from(error);
            written.power += f64::from(power);
            written.zeros += zeros as u64;
            written.zeros_kept += zeros_kept as u64;
        }
        written.size_bytes += self.bytes.len() as u64;
        Ok(())
    }
}

/// Values that are added up in f32 before f64 takes over.
const SUM: usize = 4096;

clones! {
    /// Sums of the squares of the differences and of the values; how many values are zero, and how many of those still are.
    fn changes<S>(s, values: &[f32], back: &[f32]) -> [f32; 4] {
        let zero = s.splat(0.0);
        let mut sums = [zero; 4];
        for (values, back) in values.chunks(LANES).zip(back.chunks(LANES)) {
            let value = s.load_part(values, 0.0);
            let back = s.load_part(back, 0.0);
            let gap = s.sub(value, back);
            sums[0] = s.fma(gap, gap, sums[0]);
            sums[1] = s.fma(value, value, sums[1]);
            let is_zero = s.select_less(zero, s.max(value, s.sub(zero, value)), zero, s.splat(1.0));
            sums[2] = s.add(sums[2], is_zero);
            sums[3] = s.add(sums[3], s.select_less(zero, s.max(back, s.sub(zero, back)), zero, is_zero));
        }
        let mut totals = sums.map(|lanes| s.to_array(lanes).iter().fold(0.0, |sum, lane| sum + lane));
        // What fills the last lanes up is zero, too.
        let filled = (values.len().next_multiple_of(LANES) - values.len()) as f32;
        totals[2] -= filled;
        totals[3] -= filled;
        totals
    }
}
