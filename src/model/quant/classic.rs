//! The plain floats and the 32-value blocks with one f16 scale (and, for `_1` types, one f16 minimum): the order of operations is that of ggml's reference, so
//! that the bytes are too.

use half::{bf16, f16};

pub fn pack_f32(values: &[f32], bytes: &mut [u8]) {
    let (bytes, _) = bytes.as_chunks_mut::<4>();
    bytes.iter_mut().zip(values).for_each(|(bytes, value)| *bytes = value.to_le_bytes());
}

pub fn unpack_f32(bytes: &[u8], values: &mut [f32]) {
    let (bytes, _) = bytes.as_chunks::<4>();
    values.iter_mut().zip(bytes).for_each(|(value, bytes)| *value = f32::from_le_bytes(*bytes));
}

pub fn pack_f16(values: &[f32], bytes: &mut [u8]) {
    let (bytes, _) = bytes.as_chunks_mut::<2>();
    bytes.iter_mut().zip(values).for_each(|(bytes, value)| *bytes = f16::from_f32(*value).to_le_bytes());
}

pub fn unpack_f16(bytes: &[u8], values: &mut [f32]) {
    let (bytes, _) = bytes.as_chunks::<2>();
    values.iter_mut().zip(bytes).for_each(|(value, bytes)| *value = f16::from_le_bytes(*bytes).to_f32());
}

pub fn pack_bf16(values: &[f32], bytes: &mut [u8]) {
    let (bytes, _) = bytes.as_chunks_mut::<2>();
    bytes.iter_mut().zip(values).for_each(|(bytes, value)| *bytes = bf16::from_f32(*value).to_le_bytes());
}

pub fn unpack_bf16(bytes: &[u8], values: &mut [f32]) {
    let (bytes, _) = bytes.as_chunks::<2>();
    values.iter_mut().zip(bytes).for_each(|(value, bytes)| *value = bf16::from_le_bytes(*bytes).to_f32());
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

pub fn unpack_q4_0(bytes: &[u8; 18], out: &mut [f32; 32]) {
    let d = get(bytes, 0);
    for j in 0..16 {
        out[j] = d * (f32::from(bytes[2 + j] & 15) - 8.0);
        out[j + 16] = d * (f32::from(bytes[2 + j] >> 4) - 8.0);
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

pub fn unpack_q4_1(bytes: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (get(bytes, 0), get(bytes, 2));
    for j in 0..16 {
        out[j] = f32::from(bytes[4 + j] & 15) * d + m;
        out[j + 16] = f32::from(bytes[4 + j] >> 4) * d + m;
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

pub fn unpack_q5_0(bytes: &[u8; 22], out: &mut [f32; 32]) {
    let d = get(bytes, 0);
    for (value, level) in out.iter_mut().zip(join_five(&bytes[2..])) {
        *value = (level - 16.0) * d;
    }
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

pub fn unpack_q5_1(bytes: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (get(bytes, 0), get(bytes, 2));
    for (value, level) in out.iter_mut().zip(join_five(&bytes[4..])) {
        *value = level * d + m;
    }
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

pub fn unpack_q8_0(bytes: &[u8; 34], out: &mut [f32; 32]) {
    let d = get(bytes, 0);
    for j in 0..32 {
        out[j] = f32::from(bytes[2 + j].cast_signed()) * d;
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

/// `bytes`: four bytes of fifth bits, then sixteen of the rest.
fn join_five(bytes: &[u8]) -> [f32; 32] {
    let fifth = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    std::array::from_fn(|j| {
        let four = if j < 16 { bytes[4 + j] & 15 } else { bytes[4 + j - 16] >> 4 };
        f32::from(four | ((fifth >> j & 1) as u8) << 4)
    })
}

fn put(out: &mut [u8], at: usize, value: f32) {
    out[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
}

fn get(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}
