//! Products with packed weights against their definition.

use proptest::prelude::*;

use super::*;
use crate::isa::{self, Isa};
use crate::{Mat, matmul, rng};

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

/// Says where the first difference is.
fn same(actual: &[f32], expected: &[f32], what: impl FnOnce() -> String) {
    assert_eq!(actual.len(), expected.len());
    if let Some(i) = (0..actual.len()).find(|i| actual[*i].to_bits() != expected[*i].to_bits()) {
        panic!("{}: number {i} is {} and not {}", what(), actual[i], expected[i]);
    }
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
                same(&y, &expected, || format!("{ty} {m}×{n}×{k} {write:?} {isa:?} {}", pool.current_num_threads()));
            }
        }
    }
}

/// Codes and small scales at random; every bit of f16 scales at random too, so that some are infinite or not numbers.
fn hostile(ty: BlockType, rows: usize, cols: usize) -> Vec<u8> {
    (0..(ty.bytes_for(cols).unwrap() * rows) as u64).map(|i| rng::bits(4, ty.id().into(), i) as u8).collect()
}

#[test]
fn a_row_depends_on_no_other_row() {
    let (m, n, k) = (100, 40, 768);
    let x = random(m * k, 1);
    for ty in BlockType::ALL {
        let bytes = blocks(ty, n, k);
        let w = Packed::new(ty, n, k, &bytes);
        let mut all = vec![0.0; m * n];
        matmul_packed(&x, w, &mut all, Write::Set);
        for rows in [1, 2, 3, 4, 5, 6, 7, 9, 11, 13] {
            let mut y = vec![f32::NAN; m * n];
            for (x, y) in x.chunks(rows * k).zip(y.chunks_mut(rows * n)) {
                matmul_packed(x, w, y, Write::Set);
            }
            same(&y, &all, || format!("{ty}: {rows} rows at a time"));
        }
    }
}

#[test]
fn a_row_that_is_not_finite_gives_nothing_finite_and_spoils_no_other() {
    let (m, n, k) = (7, 33, 512);
    for ty in BlockType::ALL {
        let bytes = blocks(ty, n, k);
        let w = Packed::new(ty, n, k, &bytes);
        let mut x = random(m * k, 1);
        let mut clean = vec![0.0; m * n];
        matmul_packed(&x, w, &mut clean, Write::Set);
        for (row, bad) in [(0, f32::NAN), (2, f32::INFINITY), (3, f32::NEG_INFINITY), (6, -f32::NAN)] {
            x[row * k + 77 * (row + 1) % k] = bad;
        }
        for isa in Isa::ALL {
            let Some(_forced) = isa::force(isa) else { continue };
            let mut y = vec![0.0; m * n];
            matmul_packed(&x, w, &mut y, Write::Set);
            for (row, (y, clean)) in y.chunks(n).zip(clean.chunks(n)).enumerate() {
                match row {
                    0 | 2 | 3 | 6 => assert!(y.iter().all(|y| !y.is_finite()), "{ty} {isa:?}: row {row}"),
                    _ => same(y, clean, || format!("{ty} {isa:?}: row {row}")),
                }
            }
        }
    }
}

#[test]
fn extreme_rows_have_defined_bits_too() {
    let (n, k) = (20, 256);
    let tiny = random(k, 1).into_iter().map(|x| x * 1e-38);
    let subnormal = (0..k).map(|i| f32::from_bits(i as u32));
    let huge = random(k, 2).into_iter().map(|x| x.clamp(-1.0, 1.0) * f32::MAX);
    let edge = (0..k).map(|i| if i % 2 == 0 { 127.0 } else { i as f32 / 2.0 + 0.25 });
    let zeros = (0..k).map(|i| if i % 3 == 0 { -0.0 } else { 0.0 });
    let around = (0..k).map(|i| f32::from_bits((127 - 100) << 23) * if i / 32 % 2 == 0 { 1.0 } else { 0.999_999 });
    let x: Vec<f32> = tiny.chain(subnormal).chain(huge).chain(edge).chain(zeros).chain(around).collect();
    for ty in BlockType::ALL.into_iter().filter(|ty| !is_float(*ty)) {
        let bytes = blocks(ty, n, k);
        let w = Packed::new(ty, n, k, &bytes);
        let mut expected = vec![0.0; x.len() / k * n];
        x.chunks(k).zip(expected.chunks_mut(n)).for_each(|(x, y)| plain::row(x, w, y, Write::Set));
        for isa in Isa::ALL {
            let Some(_forced) = isa::force(isa) else { continue };
            let mut y = vec![0.0; expected.len()];
            matmul_packed(&x, w, &mut y, Write::Set);
            for (i, (y, expected)) in y.iter().zip(&expected).enumerate() {
                assert!(y.to_bits() == expected.to_bits() || y.is_nan() && expected.is_nan(), "{ty} {isa:?}: {i}: {y} for {expected}");
            }
        }
    }
}

#[test]
fn any_bytes_give_the_defined_result() {
    let (m, n, k) = (3, 50, 512);
    let x = random(m * k, 1);
    for ty in BlockType::ALL.into_iter().filter(|ty| !is_float(*ty)) {
        let bytes = hostile(ty, n, k);
        let w = Packed::new(ty, n, k, &bytes);
        let mut expected = vec![0.0; m * n];
        x.chunks(k).zip(expected.chunks_mut(n)).for_each(|(x, y)| plain::row(x, w, y, Write::Set));
        for isa in Isa::ALL {
            let Some(_forced) = isa::force(isa) else { continue };
            let mut y = vec![0.0; m * n];
            matmul_packed(&x, w, &mut y, Write::Set);
            for (i, (y, expected)) in y.iter().zip(&expected).enumerate() {
                assert!(y.to_bits() == expected.to_bits() || y.is_nan() && expected.is_nan(), "{ty} {isa:?}: {i}: {y} for {expected}");
            }
        }
    }
}

#[test]
fn every_half_is_widened_exactly() {
    for (ty, exact) in [
        (BlockType::F16, (|h| half::f16::from_bits(h).to_f32()) as fn(u16) -> f32),
        (BlockType::Bf16, |h| half::bf16::from_bits(h).to_f32()),
    ] {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        // A product with the identity, many rows at a time and few.
        let n = 4096;
        for isa in Isa::ALL {
            let Some(_forced) = isa::force(isa) else { continue };
            for m in [1, 16] {
                let x: Vec<f32> = (0..m * 16).map(|i| f32::from(u8::from(i / 16 == i % 16))).collect();
                let mut y = vec![0.0; m * n];
                matmul_packed(&x, Packed::new(ty, n, 16, &bytes), &mut y, Write::Set);
                for (i, y) in y.iter().enumerate() {
                    let row = &bytes[i % n * 32..][..32];
                    // What is not finite in a row of weights spoils its sums.
                    let values: Vec<f32> = row.chunks(2).map(|b| exact(u16::from_le_bytes([b[0], b[1]]))).collect();
                    if values.iter().all(|v| v.is_finite()) {
                        assert_eq!(*y, values[i / n], "{ty} {isa:?}");
                    } else {
                        assert!(!y.is_finite() || values[i / n].is_infinite(), "{ty} {isa:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn products_within_products_share_nothing() {
    use rayon::prelude::*;

    let (m, n, k) = (9, 2000, 512);
    let (x, bytes) = (random(m * k, 1), blocks(BlockType::Q4K, n, k));
    let w = Packed::new(BlockType::Q4K, n, k, &bytes);
    let mut expected = vec![0.0; m * n];
    matmul_packed(&x, w, &mut expected, Write::Set);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let all: Vec<Vec<f32>> = pool.install(|| {
        (0..12usize)
            .into_par_iter()
            .map(|i| {
                let rows = 1 + i % m;
                let mut y = vec![0.0; rows * n];
                matmul_packed(&x[..rows * k], w, &mut y, Write::Set);
                y
            })
            .collect()
    });
    all.iter().for_each(|y| same(y, &expected[..y.len()], || "within another".to_string()));
}

#[test]
fn nothing_times_nothing() {
    matmul_packed(&[], Packed::new(BlockType::Q8_0, 3, 32, &[0; 102]), &mut [], Write::Set);
    matmul_packed(&[0.0; 32], Packed::new(BlockType::Q8_0, 0, 32, &[]), &mut [], Write::Set);
    for ty in [BlockType::F16, BlockType::Q4_0] {
        let mut y = [1.0; 6];
        matmul_packed(&[], Packed::new(ty, 3, 0, &[]), &mut y, Write::Add);
        assert_eq!(y, [1.0; 6]);
        matmul_packed(&[], Packed::new(ty, 3, 0, &[]), &mut y, Write::Set);
        assert_eq!(y, [0.0; 6]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_shape_and_type(m in 1usize..30, n in 1usize..100, blocks_of_k in 1usize..8, ty in 0usize..13, at in 0usize..4) {
        let ty = BlockType::ALL[ty];
        let k = if is_float(ty) { 97 * blocks_of_k } else { ty.block_values() * blocks_of_k };
        let (x, bytes) = (random(m * k, 1), blocks(ty, n, k));
        let shifted = [&[0; 4][..at], &bytes[..]].concat();
        let w = Packed::new(ty, n, k, &shifted[at..]);
        let mut first: Option<Vec<f32>> = None;
        for isa in Isa::ALL {
            let Some(_forced) = isa::force(isa) else { continue };
            let mut y = vec![f32::NAN; m * n];
            matmul_packed(&x, w, &mut y, Write::Set);
            same(first.get_or_insert_with(|| y.clone()), &y, || format!("{ty} {m}×{n}×{k} {isa:?}"));
        }
    }
}
