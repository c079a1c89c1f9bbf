//! Products with packed weights against their definition.

use super::*;
use crate::kernels::isa::{self, Isa};
use crate::kernels::{Mat, matmul, rng};

fn random(len: usize, stream: u64) -> Vec<f32> {
    (0..len as u64).map(|i| rng::normal(7, stream, i)).collect()
}

/// Random blocks whose f16 scales are numbers of a sensible size.
pub fn blocks(ty: BlockType, rows: usize, cols: usize) -> Vec<u8> {
    let size = ty.bytes_for(cols).unwrap() * rows;
    let mut bytes: Vec<u8> = (0..size as u64).map(|i| rng::bits(9, ty.id().into(), i) as u8).collect();
    let scales: &[usize] = match ty {
        BlockType::F32 | BlockType::F16 | BlockType::Bf16 => {
            let values = random(rows * cols, 5);
            for (bytes, value) in bytes.chunks_mut(ty.block_bytes()).zip(values) {
                match ty {
                    BlockType::F32 => bytes.copy_from_slice(&value.to_le_bytes()),
                    BlockType::F16 => bytes.copy_from_slice(&half::f16::from_f32(value).to_le_bytes()),
                    _ => bytes.copy_from_slice(&half::bf16::from_f32(value).to_le_bytes()),
                }
            }
            return bytes;
        }
        BlockType::Q4_0 | BlockType::Q5_0 | BlockType::Q8_0 => &[0],
        BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => &[0, 2],
        BlockType::Q2K => &[80, 82],
        BlockType::Q3K => &[108],
        BlockType::Q6K => &[208],
    };
    for (i, block) in bytes.chunks_mut(ty.block_bytes()).enumerate() {
        for at in scales {
            let scale = half::f16::from_f32(0.01 * rng::normal(3, *at as u64, i as u64));
            block[*at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    bytes
}

fn is_float(ty: BlockType) -> bool {
    ty.block_values() == 1
}

#[test]
fn levels_stand_for_the_values_of_the_format() {
    for ty in BlockType::ALL.into_iter().filter(|ty| !is_float(*ty)) {
        let bytes = blocks(ty, 1, 2048);
        let mut values = vec![0.0; 2048];
        Packed::new(ty, 1, 2048, &bytes).row_into(0, &mut values);
        for (i, values) in values.chunks(32).enumerate() {
            let w = plain::levels(ty, &bytes, i);
            for (j, value) in values.iter().enumerate() {
                let half = if w.halves { j / 16 } else { 0 };
                let expected = w.scale[half] * w.level[j] as f32 - w.min.map_or(0.0, |min| min[half]);
                assert_eq!(*value, expected, "{ty}: value {j} of block {i}");
            }
        }
    }
}

#[test]
fn a_product_is_near_that_of_the_values() {
    let (m, n, k) = (3, 5, 768);
    let x = random(m * k, 1);
    for ty in BlockType::ALL {
        let bytes = blocks(ty, n, k);
        let w = Packed::new(ty, n, k, &bytes);
        let (mut y, mut row) = (vec![0.0; m * n], vec![0.0; k]);
        matmul_packed(&x, w, &mut y, Write::Set);
        for j in 0..n {
            w.row_into(j, &mut row);
            for i in 0..m {
                let x = &x[i * k..][..k];
                let exact: f64 = x.iter().zip(&row).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                let size = x.iter().zip(&row).map(|(x, w)| (f64::from(*x) * f64::from(*w)).powi(2)).sum::<f64>().sqrt();
                let error = (f64::from(y[i * n + j]) - exact).abs() / size;
                assert!(error < if is_float(ty) { 1e-5 } else { 0.03 }, "{ty}: {i} {j}: error {error}");
            }
        }
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn every_isa_and_thread_count_gives_the_defined_bits() {
    let pools: Vec<_> = [1, 2, 3, 5].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap()).into();
    for (m, n, k) in [(1, 1, 256), (1, 100, 768), (2, 33, 1536), (7, 64, 512), (13, 47, 1024), (100, 17, 256)] {
        for ty in BlockType::ALL {
            check(ty, m, n, k, &pools);
        }
    }
    for (m, n, k) in [(1, 31, 32), (3, 32, 288), (5, 160, 576), (40, 65, 96), (1, 1000, 1504)] {
        for ty in BlockType::ALL.into_iter().filter(|ty| ty.block_values() < SUPER_BLOCK) {
            check(ty, m, n, k, &pools);
        }
    }
}

fn check(ty: BlockType, m: usize, n: usize, k: usize, pools: &[rayon::ThreadPool]) {
    let (x, start, bytes) = (random(m * k, 1), random(m * n, 2), blocks(ty, n, k));
    // At an odd address.
    let shifted = [&[0], &bytes[..]].concat();
    let w = Packed::new(ty, n, k, &shifted[1..]);
    for write in [Write::Set, Write::Add] {
        let mut expected = start.clone();
        if is_float(ty) {
            let mut wide = vec![0.0; n * k];
            (0..n).for_each(|j| w.row_into(j, &mut wide[j * k..][..k]));
            matmul(Mat::new(&x, m, k), Mat::new(&wide, n, k).t(), &mut expected, write);
        } else {
            x.chunks(k).zip(expected.chunks_mut(n)).for_each(|(x, y)| plain::row(x, w, y, write));
        }
        for isa in Isa::ALL {
            let Some(_forced) = isa::force(isa) else { continue };
            for pool in pools {
                let mut y = start.clone();
                pool.install(|| matmul_packed(&x, w, &mut y, write));
                assert_eq!(bits(&y), bits(&expected), "{ty} {m}×{n}×{k} {write:?} {isa:?} {}", pool.current_num_threads());
            }
        }
    }
}
