//! The block types of GGUF: rows of f32 ⇄ packed bytes, in ggml's layouts.
//!
//! F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 come out byte for byte as ggml's reference writes them. The K types share ggml's layout, not its search for
//! scales: ours ([`search`]) minimises the squared error. Blocks are independent and every sum has a fixed order, so threads cannot change a
//! byte. Which tensor gets which type is not decided here: that is the `quantize` step's business.

mod classic;
mod grid;
mod kquant;
mod search;

use std::str::FromStr;

use rayon::prelude::*;

use crate::kernels::packed::values::unpack;
pub use crate::kernels::packed::{BlockType, SUPER_BLOCK};

/// How many blocks one parallel task takes: small enough to share out, large enough to be worth the hand-over.
const BLOCKS_PER_TASK: usize = 64;

impl FromStr for BlockType {
    type Err = QuantError;

    fn from_str(text: &str) -> Result<BlockType, QuantError> {
        BlockType::ALL.into_iter().find(|ty| ty.name() == text).ok_or_else(|| QuantError::NoType(text.chars().take(40).collect()))
    }
}

/// Why values cannot be packed or unpacked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum QuantError {
    #[error("`{0}` is not a block type")]
    NoType(String),
    #[error("rows of {columns} values are no whole number of {ty} blocks of {}", ty.block_values())]
    Columns { ty: BlockType, columns: usize },
    #[error("{values} values are no whole number of rows of {columns}")]
    Rows { values: usize, columns: usize },
    #[error("{bytes} bytes are not {values} {ty} values")]
    Bytes { ty: BlockType, bytes: usize, values: usize },
    #[error("value {index} is {value}, which {ty} cannot hold")]
    Value { ty: BlockType, index: usize, value: f32 },
}

/// Packs rows of `columns` values, row after row.
pub fn quantize(ty: BlockType, values: &[f32], columns: usize) -> Result<Vec<u8>, QuantError> {
    if columns == 0 || !values.len().is_multiple_of(columns) {
        return Err(QuantError::Rows { values: values.len(), columns });
    }
    if !columns.is_multiple_of(ty.block_values()) {
        return Err(QuantError::Columns { ty, columns });
    }
    check_values(ty, values)?;
    let size = ty.bytes_for(values.len()).ok_or(QuantError::Columns { ty, columns })?;
    let mut bytes = vec![0u8; size];
    let task_values = ty.block_values() * BLOCKS_PER_TASK;
    let task_bytes = ty.block_bytes() * BLOCKS_PER_TASK;
    bytes.par_chunks_mut(task_bytes).zip(values.par_chunks(task_values)).for_each(|(bytes, values)| pack(ty, values, bytes));
    Ok(bytes)
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
        _ => half::f16::MAX.to_f32(),
    };
    // NaN compares false and so counts as unfit.
    let fits = |value: &f32| value.abs() <= limit;
    match values.iter().position(|value| !fits(value)) {
        Some(index) => Err(QuantError::Value { ty, index, value: values[index] }),
        None => Ok(()),
    }
}

fn pack(ty: BlockType, values: &[f32], bytes: &mut [u8]) {
    match ty {
        BlockType::F32 => classic::pack_f32(values, bytes),
        BlockType::F16 => classic::pack_f16(values, bytes),
        BlockType::Bf16 => classic::pack_bf16(values, bytes),
        BlockType::Q4_0 => each_block(values, bytes, classic::pack_q4_0),
        BlockType::Q4_1 => each_block(values, bytes, classic::pack_q4_1),
        BlockType::Q5_0 => each_block(values, bytes, classic::pack_q5_0),
        BlockType::Q5_1 => each_block(values, bytes, classic::pack_q5_1),
        BlockType::Q8_0 => each_block(values, bytes, classic::pack_q8_0),
        BlockType::Q2K => each_block(values, bytes, kquant::pack_q2k),
        BlockType::Q3K => each_block(values, bytes, kquant::pack_q3k),
        BlockType::Q4K => each_block(values, bytes, kquant::pack_q4k),
        BlockType::Q5K => each_block(values, bytes, kquant::pack_q5k),
        BlockType::Q6K => each_block(values, bytes, kquant::pack_q6k),
    }
}

/// Callers hand over whole blocks only, so no remainder is lost.
fn each_block<const V: usize, const B: usize>(values: &[f32], bytes: &mut [u8], pack: impl Fn(&[f32; V], &mut [u8; B])) {
    let (values, _) = values.as_chunks::<V>();
    let (bytes, _) = bytes.as_chunks_mut::<B>();
    values.iter().zip(bytes).for_each(|(values, bytes)| pack(values, bytes));
}

#[cfg(test)]
mod tests;
