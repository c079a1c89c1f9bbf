//! The block types of GGUF: rows of f32 ⇄ packed bytes, in ggml's layouts.
//!
//! Without an importance matrix, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 come out byte for byte as ggml's reference writes them. The K types, and with one all but
//! Q8_0, share ggml's layout, not its search for scales: ours ([`search`], [`grid`]) minimises the weighted squared error. Blocks are independent, sixteen
//! groups run beside each other in the lanes of a vector ([`lanes`]), and every sum has a fixed order, so neither threads nor instruction sets can change a
//! byte. Which tensor gets which type is not decided here: that is the `quantize` step's business.

mod classic;
pub mod gptq;
mod grid;
mod kquant;
mod lanes;
pub mod outliers;
mod plain;
mod search;

use rayon::prelude::*;

use crate::kernels::packed::values::unpack;
pub use crate::kernels::packed::{BlockType, SUPER_BLOCK};
use lanes::Cost;

/// How many blocks one parallel task takes: small enough to share out, large enough to be worth the hand-over.
const BLOCKS_PER_TASK: usize = 64;

/// Why values cannot be packed or unpacked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum QuantError {
    #[error("rows of {columns} values are no whole number of {ty} blocks of {}", ty.block_values())]
    Columns { ty: BlockType, columns: usize },
    #[error("{values} values are no whole number of rows of {columns}")]
    Rows { values: usize, columns: usize },
    #[error("{bytes} bytes are not {values} {ty} values")]
    Bytes { ty: BlockType, bytes: usize, values: usize },
    #[error("value {index} is {value}; {ty} takes numbers of at most {limit} either way")]
    Value { ty: BlockType, index: usize, value: f32, limit: f32 },
}

/// Packs rows of `columns` values, row after row.
pub fn quantize(ty: BlockType, values: &[f32], columns: usize) -> Result<Vec<u8>, QuantError> {
    let mut bytes = Vec::new();
    quantize_into(ty, values, columns, None, &mut bytes)?;
    Ok(bytes)
}

/// The same into a buffer that is used again. `importance` says for each column what the square of an error costs, in any unit.
pub fn quantize_into(
    ty: BlockType,
    values: &[f32],
    columns: usize,
    importance: Option<&[f32]>,
    bytes: &mut Vec<u8>,
) -> Result<(), QuantError> {
    prepare(ty, values, columns, importance, bytes)?;
    let task_values = ty.block_values() * BLOCKS_PER_TASK;
    let task_bytes = ty.block_bytes() * BLOCKS_PER_TASK;
    let tasks = bytes.par_chunks_mut(task_bytes).zip(values.par_chunks(task_values)).enumerate();
    tasks.for_each(|(task, (bytes, values))| {
        let importance = importance.map(|importance| Importance { importance, column: task * task_values % columns });
        pack(ty, values, importance, bytes);
    });
    Ok(())
}

/// Checks what is to be packed, and makes room for it.
fn prepare(ty: BlockType, values: &[f32], columns: usize, importance: Option<&[f32]>, bytes: &mut Vec<u8>) -> Result<(), QuantError> {
    if columns == 0 || !values.len().is_multiple_of(columns) || importance.is_some_and(|of| of.len() != columns) {
        return Err(QuantError::Rows { values: values.len(), columns });
    }
    if !columns.is_multiple_of(ty.block_values()) {
        return Err(QuantError::Columns { ty, columns });
    }
    check_values(ty, values)?;
    let size = ty.bytes_for(values.len()).ok_or(QuantError::Columns { ty, columns })?;
    bytes.resize(size, 0);
    Ok(())
}

/// Unpacks as many values as `out` holds.
pub fn dequantize(ty: BlockType, bytes: &[u8], out: &mut [f32]) -> Result<(), QuantError> {
    if ty.bytes_for(out.len()) != Some(bytes.len()) {
        return Err(QuantError::Bytes { ty, bytes: bytes.len(), values: out.len() });
    }
    let task_values = ty.block_values() * BLOCKS_PER_TASK;
    let task_bytes = ty.block_bytes() * BLOCKS_PER_TASK;
    out.par_chunks_mut(task_values).zip(bytes.par_chunks(task_bytes)).for_each(|(values, bytes)| unpack(ty, bytes, values));
    Ok(())
}

/// The block formats keep their scales as f16, so what f16 cannot hold is refused rather than turned into infinities.
fn check_values(ty: BlockType, values: &[f32]) -> Result<(), QuantError> {
    let limit = match ty {
        BlockType::F32 => f32::MAX,
        BlockType::Bf16 => half::bf16::MAX.to_f32(),
        // Its scale is the largest value's 127th part.
        BlockType::Q8_0 => 127.0 * half::f16::MAX.to_f32(),
        _ => half::f16::MAX.to_f32(),
    };
    // NaN compares false and so counts as unfit. Whole pieces are looked at, as the search for the first is several times slower.
    let fits = |value: &f32| value.abs() <= limit;
    let piece = values.chunks(1024).position(|piece| !piece.iter().fold(true, |all, value| all & fits(value)));
    let Some(start) = piece.map(|piece| piece * 1024) else { return Ok(()) };
    match values.iter().skip(start).position(|value| !fits(value)).map(|index| start + index) {
        Some(index) => Err(QuantError::Value { ty, index, value: values[index], limit }),
        None => Ok(()),
    }
}

/// The importance of each column, and the column of a task's first value.
#[derive(Clone, Copy)]
struct Importance<'a> {
    importance: &'a [f32],
    column: usize,
}

fn pack(ty: BlockType, values: &[f32], importance: Option<Importance>, bytes: &mut [u8]) {
    match ty {
        BlockType::F32 | BlockType::F16 | BlockType::Bf16 => plain::pack(ty, values, bytes),
        BlockType::Q8_0 => each_set::<{ classic::SET_VALUES }>(ty, values, None, bytes, classic::pack),
        BlockType::Q4_0 | BlockType::Q4_1 | BlockType::Q5_0 | BlockType::Q5_1 => {
            each_set::<{ classic::SET_VALUES }>(ty, values, importance, bytes, classic::pack);
        }
        BlockType::Q4K | BlockType::Q5K => each_set::<{ 2 * SUPER_BLOCK }>(ty, values, importance, bytes, kquant::pack),
        BlockType::Q2K | BlockType::Q3K | BlockType::Q6K => each_set::<SUPER_BLOCK>(ty, values, importance, bytes, kquant::pack),
    }
}

/// Packs one set: its type, values, importance and bytes.
type PackSet = fn(BlockType, &[f32], &[f32], Cost, &mut [u8]);

/// Packs sets of `N` values; the last one is made up with zeros. Callers hand over whole blocks.
fn each_set<const N: usize>(ty: BlockType, values: &[f32], importance: Option<Importance>, bytes: &mut [u8], pack: PackSet) {
    let set_bytes = N / ty.block_values() * ty.block_bytes();
    let (mut weights, mut padded) = ([1.0f32; N], [0.0f32; N]);
    let cost = if importance.is_some() { Cost::Important } else { Cost::Even };
    for (set, (values, bytes)) in values.chunks(N).zip(bytes.chunks_mut(set_bytes)).enumerate() {
        if let Some(Importance { importance, column }) = importance {
            let from = (column + set * N) % importance.len();
            weights.iter_mut().zip(importance.iter().cycle().skip(from)).for_each(|(weight, value)| *weight = *value);
        }
        let whole = values.len() == N;
        if !whole {
            padded[..values.len()].copy_from_slice(values);
        }
        pack(ty, if whole { values } else { &padded }, &weights, cost, bytes);
    }
}

#[cfg(test)]
mod tests;
