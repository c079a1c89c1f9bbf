//! Products with packed weights against their definition.

use super::*;
use crate::kernels::rng;

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
