//! The quantized product as `docs/numerics.md` defines it, one number after the other.

use half::f16;

use super::activations::BLOCK;
use super::values::six_place;
use super::{BlockType, Packed, SUPER_BLOCK};
use crate::gemm::{CHUNK, Write};

/// 32 weights: value = scale · level − min, with the scale and the minimum of the first and of the last sixteen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Levels {
    pub level: [i32; BLOCK],
    pub scale: [f32; 2],
    pub min: Option<[f32; 2]>,
    /// Whether the two halves have scales of their own.
    pub halves: bool,
}

/// One row of the result.
pub fn row(x: &[f32], w: Packed, y: &mut [f32], write: Write) {
    let (x, _) = x.as_chunks::<BLOCK>();
    let x: Vec<_> = x.iter().map(activations).collect();
    for (j, y) in y.iter_mut().enumerate() {
        let bytes = w.part(j..j + 1).bytes;
        if write == Write::Set {
            *y = 0.0;
        }
        for (c, x) in x.chunks(CHUNK / BLOCK).enumerate() {
            *y += x.iter().enumerate().fold(0.0, |sum, (i, (d, q))| {
                let levels = levels(w.ty, bytes, c * (CHUNK / BLOCK) + i);
                d.mul_add(block(&levels, q), sum)
            });
        }
    }
}

fn activations(x: &[f32; BLOCK]) -> (f32, [i32; BLOCK]) {
    let top = x.iter().fold(0.0f32, |top, x| top.max(x.abs()));
    if !x.iter().all(|x| x.is_finite()) {
        return (f32::NAN, [0; BLOCK]);
    }
    if top < 2f32.powi(-100) {
        return (0.0, [0; BLOCK]);
    }
    // f64 holds the product exactly.
    (top / 127.0, x.map(|x| (f64::from(x) * f64::from(127.0 / top)).round_ties_even() as i32))
}

fn block(w: &Levels, q: &[i32; BLOCK]) -> f32 {
    let product = |i: std::ops::Range<usize>| i.map(|i| w.level[i] * q[i]).sum::<i32>() as f32;
    let sum = |i: std::ops::Range<usize>| i.map(|i| q[i]).sum::<i32>() as f32;
    if w.halves {
        let t = w.scale[1].mul_add(product(16..32), w.scale[0] * product(0..16));
        let Some(min) = w.min else { return t };
        (-min[1]).mul_add(sum(16..32), (-min[0]).mul_add(sum(0..16), t))
    } else {
        let t = w.scale[0] * product(0..32);
        w.min.map_or(t, |min| (-min[0]).mul_add(sum(0..32), t))
    }
}

/// The `index`th 32 weights of a row.
pub fn levels(ty: BlockType, bytes: &[u8], index: usize) -> Levels {
    let per = ty.block_values() / BLOCK;
    let (block, part) = (index / per, index % per);
    let b = &bytes[block * ty.block_bytes()..][..ty.block_bytes()];
    let float = |at: usize| f16::from_le_bytes([b[at], b[at + 1]]).to_f32();
    let four = |at: usize, i: usize| i32::from(b[at + i % 16] >> (i / 16 * 4) & 15);
    let fifth = |at: usize, i: usize| i32::from(b[at + i / 8] >> (i % 8) & 1) << 4;
    let each = |level: &dyn Fn(usize) -> i32| std::array::from_fn(level);
    let one = |scale: f32, level: [i32; BLOCK]| Levels { level, scale: [scale; 2], min: None, halves: false };
    // Within a K block: i is the place among its 256 values.
    let place = |i: usize| part * BLOCK + i;
    let nibble = |at: usize, i: usize| i32::from(b[at + i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15);
    let two = |at: usize, i: usize| i32::from(b[at + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3);
    match ty {
        BlockType::F32 | BlockType::F16 | BlockType::Bf16 => unreachable!("plain floats have no levels"),
        BlockType::Q4_0 => one(float(0), each(&|i| four(2, i) - 8)),
        BlockType::Q4_1 => Levels { min: Some([-float(2); 2]), ..one(float(0), each(&|i| four(4, i))) },
        BlockType::Q5_0 => one(float(0), each(&|i| (four(6, i) | fifth(2, i)) - 16)),
        BlockType::Q5_1 => Levels { min: Some([-float(2); 2]), ..one(float(0), each(&|i| four(8, i) | fifth(4, i))) },
        BlockType::Q8_0 => one(float(0), each(&|i| i32::from(b[2 + i].cast_signed()))),
        BlockType::Q2K => {
            let small = [b[2 * part], b[2 * part + 1]];
            Levels {
                level: each(&|i| two(16, place(i))),
                scale: small.map(|small| float(80) * f32::from(small & 15)),
                min: Some(small.map(|small| float(82) * f32::from(small >> 4))),
                halves: true,
            }
        }
        BlockType::Q3K => Levels {
            level: each(&|i| (two(32, place(i)) | i32::from(b[i] >> part & 1) << 2) - 4),
            scale: [2 * part, 2 * part + 1].map(|g| {
                let (low, high) = (b[96 + g % 8] >> (g / 8 * 4) & 15, b[104 + g % 4] >> (g / 4 * 2) & 3);
                float(108) * (f32::from(low | high << 4) - 32.0)
            }),
            min: None,
            halves: true,
        },
        BlockType::Q4K | BlockType::Q5K => {
            let (scale, min) = if part < 4 {
                (b[4 + part] & 63, b[8 + part] & 63)
            } else {
                (b[8 + part] & 15 | b[part] >> 6 << 4, b[8 + part] >> 4 | b[4 + part] >> 6 << 4)
            };
            let level = match ty {
                BlockType::Q4K => each(&|i| nibble(16, place(i))),
                _ => each(&|i| nibble(48, place(i)) | i32::from(b[16 + i] >> part & 1) << 4),
            };
            Levels { min: Some([float(2) * f32::from(min); 2]), ..one(float(0) * f32::from(scale), level) }
        }
        BlockType::Q6K => Levels {
            level: each(&|i| {
                let place = six_place(place(i) % SUPER_BLOCK);
                i32::from((b[place.low] >> place.low_shift & 15) | (b[128 + place.high] >> place.high_shift & 3) << 4) - 32
            }),
            scale: [2 * part, 2 * part + 1].map(|g| float(208) * f32::from(b[192 + g].cast_signed())),
            min: None,
            halves: true,
        },
    }
}
