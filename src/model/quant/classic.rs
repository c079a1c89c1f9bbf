//! The plain floats and the 32-value blocks with one f16 scale (and, for `_1` types, one f16 minimum): the order of operations is that of ggml's reference, so
//! that the bytes are too.

use half::{bf16, f16};

pub fn pack_f32(values: &[f32], bytes: &mut [u8]) {
    let (bytes, _) = bytes.as_chunks_mut::<4>();
    bytes.iter_mut().zip(values).for_each(|(bytes, value)| *bytes = value.to_le_bytes());
}

pub fn pack_f16(values: &[f32], bytes: &mut [u8]) {
    let (bytes, _) = bytes.as_chunks_mut::<2>();
    bytes.iter_mut().zip(values).for_each(|(bytes, value)| *bytes = f16::from_f32(*value).to_le_bytes());
}

pub fn pack_bf16(values: &[f32], bytes: &mut [u8]) {
    let (bytes, _) = bytes.as_chunks_mut::<2>();
    bytes.iter_mut().zip(values).for_each(|(bytes, value)| *bytes = bf16::from_f32(*value).to_le_bytes());
}

/// d, then 16 bytes of two 4-bit values: value = d · (q − 8).
pub fn pack_q4_0(x: &[f32; 32], out: &mut [u8; 18]) {
    let d = largest(x) / -8.0;
    let id = inverse(d);
    put(out, 0, d);
    for j in 0..16 {
        let low = to_level(x[j] * id + 8.5, 15);
        let high = to_level(x[j + 16] * id + 8.5, 15);
        out[2 + j] = low | high << 4;
    }
}

/// d, m, then 16 bytes of two 4-bit values: value = d · q + m.
pub fn pack_q4_1(x: &[f32; 32], out: &mut [u8; 20]) {
    let (low, high) = range(x);
    let d = (high - low) / 15.0;
    let id = inverse(d);
    put(out, 0, d);
    put(out, 2, low);
    for j in 0..16 {
        let first = to_level((x[j] - low) * id + 0.5, 15);
        let second = to_level((x[j + 16] - low) * id + 0.5, 15);
        out[4 + j] = first | second << 4;
    }
}

/// d, 32 fifth bits, then 16 bytes of two times four bits: value = d · (q − 16).
pub fn pack_q5_0(x: &[f32; 32], out: &mut [u8; 22]) {
    let d = largest(x) / -16.0;
    let id = inverse(d);
    put(out, 0, d);
    let levels: [u8; 32] = std::array::from_fn(|j| to_level(x[j] * id + 16.5, 31));
    let (fifth, rest) = split_five(&levels);
    out[2..6].copy_from_slice(&fifth);
    out[6..].copy_from_slice(&rest);
}

/// d, m, 32 fifth bits, then 16 bytes of two times four bits: value = d · q + m.
pub fn pack_q5_1(x: &[f32; 32], out: &mut [u8; 24]) {
    let (low, high) = range(x);
    let d = (high - low) / 31.0;
    let id = inverse(d);
    put(out, 0, d);
    put(out, 2, low);
    let levels: [u8; 32] = std::array::from_fn(|j| to_level((x[j] - low) * id + 0.5, 31));
    let (fifth, rest) = split_five(&levels);
    out[4..8].copy_from_slice(&fifth);
    out[8..].copy_from_slice(&rest);
}

/// d, then 32 signed bytes: value = d · q.
pub fn pack_q8_0(x: &[f32; 32], out: &mut [u8; 34]) {
    let d = x.iter().fold(0.0f32, |most, value| most.max(value.abs())) / 127.0;
    let id = inverse(d);
    put(out, 0, d);
    for j in 0..32 {
        out[2 + j] = (round_away(x[j] * id) as i8).cast_unsigned();
    }
}

/// The value of largest magnitude, with its sign; the first of equals. It falls on the outermost level.
fn largest(x: &[f32; 32]) -> f32 {
    x.iter().fold(0.0f32, |most, value| if most.abs() < value.abs() { *value } else { most })
}

fn range(x: &[f32; 32]) -> (f32, f32) {
    x.iter()
        .fold((f32::MAX, f32::MIN), |(low, high), &value| (if value < low { value } else { low }, if value > high { value } else { high }))
}

fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Cuts off the fraction; the caller has added the half that makes this a rounding. A cast saturates, so a vanishing scale does no harm.
fn to_level(value: f32, top: u8) -> u8 {
    (value as i8).cast_unsigned().min(top)
}

/// Halves away from zero, as C's `roundf`. Exact: the fraction of a small f32 is one.
fn round_away(value: f32) -> f32 {
    let whole = value as i32 as f32;
    let fraction = value - whole;
    if fraction >= 0.5 {
        whole + 1.0
    } else if fraction <= -0.5 {
        whole - 1.0
    } else {
        whole
    }
}

fn split_five(levels: &[u8; 32]) -> ([u8; 4], [u8; 16]) {
    let fifth = levels.iter().enumerate().fold(0u32, |bits, (j, level)| bits | u32::from(level >> 4) << j);
    (fifth.to_le_bytes(), std::array::from_fn(|j| (levels[j] & 15) | (levels[j + 16] & 15) << 4))
}

fn put(out: &mut [u8], at: usize, value: f32) {
    out[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
}
