//! Floats of other widths.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::kernels::packed::BlockType;

/// Rounds to nearest, halves to even.
pub fn pack(ty: BlockType, values: &[f32], bytes: &mut [u8]) {
    match ty {
        BlockType::F16 => by_pieces(values, bytes, |values, bytes| {
            let mut halves = [f16::ZERO; PIECE];
            let halves = &mut halves[..values.len()];
            halves.convert_from_f32_slice(values);
            put(halves.iter().map(|half| half.to_le_bytes()), bytes);
        }),
        BlockType::Bf16 => put(values.iter().map(|value| bf16::from_f32(*value).to_le_bytes()), bytes),
        _ => put(values.iter().map(|value| value.to_le_bytes()), bytes),
    }
}

/// Values of which a copy is held.
const PIECE: usize = 256;

fn by_pieces(values: &[f32], bytes: &mut [u8], pack: impl Fn(&[f32], &mut [u8])) {
    values.chunks(PIECE).zip(bytes.chunks_mut(2 * PIECE)).for_each(|(values, bytes)| pack(values, bytes));
}

fn put<const N: usize>(values: impl Iterator<Item = [u8; N]>, bytes: &mut [u8]) {
    let (bytes, _) = bytes.as_chunks_mut::<N>();
    bytes.iter_mut().zip(values).for_each(|(bytes, value)| *bytes = value);
}
