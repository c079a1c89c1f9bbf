//! The values that packed bytes stand for, in ggml's layouts and with its order of operations. Plain code, one value after the other: where speed counts,
//! products read the bytes themselves.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::{BlockType, SUPER_BLOCK};

/// Unpacks whole blocks.
pub fn unpack(ty: BlockType, bytes: &[u8], values: &mut [f32]) {
    match ty {
        BlockType::F32 => unpack_f32(bytes, values),
        BlockType::F16 => unpack_f16(bytes, values),
        BlockType::Bf16 => unpack_bf16(bytes, values),
        BlockType::Q4_0 => each_packed(bytes, values, unpack_q4_0),
        BlockType::Q4_1 => each_packed(bytes, values, unpack_q4_1),
        BlockType::Q5_0 => each_packed(bytes, values, unpack_q5_0),
        BlockType::Q5_1 => each_packed(bytes, values, unpack_q5_1),
        BlockType::Q8_0 => each_packed(bytes, values, unpack_q8_0),
        BlockType::Q2K => each_packed(bytes, values, unpack_q2k),
        BlockType::Q3K => each_packed(bytes, values, unpack_q3k),
        BlockType::Q4K => each_packed(bytes, values, unpack_q4k),
        BlockType::Q5K => each_packed(bytes, values, unpack_q5k),
        BlockType::Q6K => each_packed(bytes, values, unpack_q6k),
    }
}

fn each_packed<const V: usize, const B: usize>(bytes: &[u8], values: &mut [f32], unpack: impl Fn(&[u8; B], &mut [f32; V])) {
    let (values, _) = values.as_chunks_mut::<V>();
    let (bytes, _) = bytes.as_chunks::<B>();
    values.iter_mut().zip(bytes).for_each(|(values, bytes)| unpack(bytes, values));
}

fn unpack_f32(bytes: &[u8], values: &mut [f32]) {
    let (bytes, _) = bytes.as_chunks::<4>();
    values.iter_mut().zip(bytes).for_each(|(value, bytes)| *value = f32::from_le_bytes(*bytes));
}

fn unpack_f16(bytes: &[u8], values: &mut [f32]) {
    // By pieces, for which the processor has an instruction.
    const PIECE: usize = 256;
    let (bytes, _) = bytes.as_chunks::<2>();
    for (values, bytes) in values.chunks_mut(PIECE).zip(bytes.chunks(PIECE)) {
        let mut halves = [f16::ZERO; PIECE];
        halves.iter_mut().zip(bytes).for_each(|(half, bytes)| *half = f16::from_le_bytes(*bytes));
        halves[..values.len()].convert_to_f32_slice(values);
    }
}

fn unpack_bf16(bytes: &[u8], values: &mut [f32]) {
    let (bytes, _) = bytes.as_chunks::<2>();
    values.iter_mut().zip(bytes).for_each(|(value, bytes)| *value = bf16::from_le_bytes(*bytes).to_f32());
}

fn unpack_q4_0(bytes: &[u8; 18], out: &mut [f32; 32]) {
    let d = get(bytes, 0);
    for j in 0..16 {
        out[j] = d * (f32::from(bytes[2 + j] & 15) - 8.0);
        out[j + 16] = d * (f32::from(bytes[2 + j] >> 4) - 8.0);
    }
}

fn unpack_q4_1(bytes: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (get(bytes, 0), get(bytes, 2));
    for j in 0..16 {
        out[j] = f32::from(bytes[4 + j] & 15) * d + m;
        out[j + 16] = f32::from(bytes[4 + j] >> 4) * d + m;
    }
}

fn unpack_q5_0(bytes: &[u8; 22], out: &mut [f32; 32]) {
    let d = get(bytes, 0);
    for (value, level) in out.iter_mut().zip(join_five(&bytes[2..])) {
        *value = (level - 16.0) * d;
    }
}

fn unpack_q5_1(bytes: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (get(bytes, 0), get(bytes, 2));
    for (value, level) in out.iter_mut().zip(join_five(&bytes[4..])) {
        *value = level * d + m;
    }
}

fn unpack_q8_0(bytes: &[u8; 34], out: &mut [f32; 32]) {
    let d = get(bytes, 0);
    for j in 0..32 {
        out[j] = f32::from(bytes[2 + j].cast_signed()) * d;
    }
}

fn unpack_q2k(bytes: &[u8; 84], out: &mut [f32; SUPER_BLOCK]) {
    let (d, dmin) = (get(bytes, 80), get(bytes, 82));
    for (i, value) in out.iter_mut().enumerate() {
        let packed = bytes[i / 16];
        let (scale, min) = (d * f32::from(packed & 15), dmin * f32::from(packed >> 4));
        *value = scale * f32::from(two(&bytes[16..80], i)) - min;
    }
}

fn unpack_q3k(bytes: &[u8; 110], out: &mut [f32; SUPER_BLOCK]) {
    let d = get(bytes, 108);
    for (i, value) in out.iter_mut().enumerate() {
        let g = i / 16;
        let low = bytes[96 + g % 8] >> (4 * (g / 8)) & 15;
        let high = bytes[104 + g % 4] >> (2 * (g / 4)) & 3;
        let scale = d * (f32::from(low | high << 4) - 32.0);
        let third = bytes[i % 32] >> (i / 32) & 1;
        *value = scale * (f32::from(two(&bytes[32..96], i) | third << 2) - 4.0);
    }
}

fn unpack_q4k(bytes: &[u8; 144], out: &mut [f32; SUPER_BLOCK]) {
    let (d, dmin) = (get(bytes, 0), get(bytes, 2));
    let sixes = unpack_sixes(&bytes[4..16]);
    for (i, value) in out.iter_mut().enumerate() {
        let (scale, min) = sixes[i / 32];
        *value = d * f32::from(scale) * f32::from(four(&bytes[16..], i)) - dmin * f32::from(min);
    }
}

fn unpack_q5k(bytes: &[u8; 176], out: &mut [f32; SUPER_BLOCK]) {
    let (d, dmin) = (get(bytes, 0), get(bytes, 2));
    let sixes = unpack_sixes(&bytes[4..16]);
    for (i, value) in out.iter_mut().enumerate() {
        let (scale, min) = sixes[i / 32];
        let fifth = bytes[16 + i % 32] >> (i / 32) & 1;
        *value = d * f32::from(scale) * f32::from(four(&bytes[48..], i) | fifth << 4) - dmin * f32::from(min);
    }
}

fn unpack_q6k(bytes: &[u8; 210], out: &mut [f32; SUPER_BLOCK]) {
    let d = get(bytes, 208);
    for (i, value) in out.iter_mut().enumerate() {
        let place = six_place(i);
        let low = bytes[place.low] >> place.low_shift & 15;
        let high = bytes[128 + place.high] >> place.high_shift & 3;
        let scale = f32::from(bytes[192 + i / 16].cast_signed());
        *value = d * scale * (f32::from(low | high << 4) - 32.0);
    }
}

/// `bytes`: four bytes of fifth bits, then sixteen of the rest.
fn join_five(bytes: &[u8]) -> [f32; 32] {
    let fifth = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    std::array::from_fn(|j| {
        let four = if j < 16 { bytes[4 + j] & 15 } else { bytes[4 + j - 16] >> 4 };
        f32::from(four | ((fifth >> j & 1) as u8) << 4)
    })
}

/// Where the six bits of a Q6_K value are: within each half of the block, 32 values run through the low halves twice before the high halves begin.
#[derive(Clone, Copy, Debug)]
pub struct SixPlace {
    pub low: usize,
    pub low_shift: usize,
    pub high: usize,
    pub high_shift: usize,
}

pub fn six_place(i: usize) -> SixPlace {
    let (half, quarter, lane) = (i / 128, i % 128 / 32, i % 32);
    SixPlace { low: half * 64 + quarter % 2 * 32 + lane, low_shift: quarter / 2 * 4, high: half * 32 + lane, high_shift: quarter * 2 }
}

fn two(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3
}

fn four(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15
}

fn unpack_sixes(bytes: &[u8]) -> [(u8, u8); 8] {
    std::array::from_fn(|g| {
        if g < 4 {
            (bytes[g] & 63, bytes[g + 4] & 63)
        } else {
            (bytes[g + 4] & 15 | bytes[g - 4] >> 6 << 4, bytes[g + 4] >> 4 | bytes[g] >> 6 << 4)
        }
    })
}

fn get(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}
