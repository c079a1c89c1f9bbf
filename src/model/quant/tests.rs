//! What can be said without a peer; the comparison with ggml itself is in `tests/peers`.

use super::outliers::Outliers;
use super::*;
use proptest::prelude::*;

/// A fixed pseudo-random bell: sums of twelve uniform numbers.
pub fn bell(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..n).map(|_| ((0..12).map(|_| next()).sum::<f32>() - 6.0) * 0.05).collect()
}

fn relative_error(ty: BlockType, x: &[f32]) -> f64 {
    let packed = quantize(ty, x, x.len()).unwrap();
    let mut back = vec![0.0; x.len()];
    dequantize(ty, &packed, &mut back).unwrap();
    let error: f64 = x.iter().zip(&back).map(|(a, b)| f64::from(a - b) * f64::from(a - b)).sum();
    let power: f64 = x.iter().map(|a| f64::from(*a) * f64::from(*a)).sum();
    (error / power).sqrt()
}

#[test]
fn the_error_falls_as_the_bits_rise() {
    let x = bell(256 * 64, 1);
    let expected = [
        (BlockType::Q2K, 0.30),
        (BlockType::Q3K, 0.15),
        (BlockType::Q4_0, 0.095),
        (BlockType::Q4_1, 0.085),
        (BlockType::Q4K, 0.072),
        (BlockType::Q5_0, 0.048),
        (BlockType::Q5_1, 0.042),
        (BlockType::Q5K, 0.036),
        (BlockType::Q6K, 0.018),
        (BlockType::Q8_0, 0.007),
        (BlockType::Bf16, 0.003),
        (BlockType::F16, 0.0004),
        (BlockType::F32, 0.0),
    ];
    for (ty, most) in expected {
        let error = relative_error(ty, &x);
        println!("{ty}: {error:.5}");
        assert!(error <= most, "{ty}: {error}");
    }
}

#[test]
fn threads_do_not_change_a_byte() {
    let x = bell(256 * 300, 2);
    for ty in BlockType::ALL {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| quantize(ty, &x, 256 * 3).unwrap())
        };
        assert_eq!(on(1), on(3), "{ty}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let x = vec![0.5f32; 64];
    assert_eq!(quantize(BlockType::Q4K, &x, 64), Err(QuantError::Columns { ty: BlockType::Q4K, columns: 64 }));
    assert_eq!(quantize(BlockType::Q8_0, &x, 48), Err(QuantError::Rows { values: 64, columns: 48 }));
    assert_eq!(quantize(BlockType::Q8_0, &x, 0), Err(QuantError::Rows { values: 64, columns: 0 }));
    for bad in [f32::NAN, f32::INFINITY, 70_000.0] {
        let mut x = x.clone();
        x[7] = bad;
        let error = quantize(BlockType::Q4_0, &x, 32).unwrap_err().to_string();
        assert!(error.starts_with("value 7 is "), "{error}");
    }
    assert!(quantize(BlockType::Bf16, &[f32::MAX], 1).is_err());
    assert!(dequantize(BlockType::Q8_0, &[0; 33], &mut [0.0; 32]).is_err());
    assert!(dequantize(BlockType::Q8_0, &[0; 34], &mut [0.0; 33]).is_err());
}

#[test]
fn zeros_stay_zeros_and_equals_stay_close() {
    for ty in BlockType::ALL {
        let mut back = vec![9.0; 256];
        dequantize(ty, &quantize(ty, &[0.0; 256], 256).unwrap(), &mut back).unwrap();
        assert!(back.iter().all(|value| *value == 0.0), "{ty}");
        for constant in [0.25f32, -0.25, 1e-30, -60000.0] {
            dequantize(ty, &quantize(ty, &[constant; 256], 256).unwrap(), &mut back).unwrap();
            let worst = back.iter().map(|value| (value - constant).abs()).fold(0.0, f32::max);
            assert!(worst <= constant.abs() * 0.02 + 1e-7, "{ty} {constant}: {worst}");
        }
    }
}

#[test]
fn names_and_numbers_read_back() {
    for ty in BlockType::ALL {
        assert_eq!(ty.name().parse::<BlockType>().unwrap(), ty);
        assert_eq!(BlockType::from_id(ty.id()), Some(ty));
    }
    assert_eq!(BlockType::from_id(23), None);
    assert!("Q4_KM".parse::<BlockType>().is_err());
}

#[test]
fn what_the_buffer_held_before_is_gone() {
    let x = bell(256 * 20, 6);
    for ty in BlockType::ALL {
        let packed = quantize(ty, &x, 256 * 4).unwrap();
        let mut used = vec![0xff; packed.len() + 100];
        quantize_into(ty, &x, 256 * 4, None, &mut used).unwrap();
        assert!(used == packed, "{ty}");
    }
}

#[test]
fn a_column_with_an_outlier_is_dear() {
    const COLUMNS: usize = 600;
    let mut x = bell(50 * COLUMNS, 7);
    x[20 * COLUMNS + 100] = 3.0;
    let importance = |rows: usize| {
        let mut outliers = Outliers::new(COLUMNS);
        x.chunks(rows * COLUMNS).for_each(|rows| outliers.add(rows));
        outliers.importance().unwrap()
    };
    let costs = importance(50);
    assert!((0..COLUMNS).all(|column| column == 100 || costs[column] * 100.0 < costs[100]), "{costs:?}");
    // By the definition, in f64.
    let moment = |column: usize, power: i32| x.iter().skip(column).step_by(COLUMNS).map(|x| f64::from(*x).powi(power)).sum::<f64>();
    let expected = (moment(100, 4) / moment(100, 2)) / (moment(7, 4) / moment(7, 2));
    assert!((f64::from(costs[100] / costs[7]) / expected - 1.0).abs() < 1e-5);
    assert!(importance(7).iter().zip(&costs).all(|(a, b)| (a / b - 1.0).abs() < 1e-5));
    let _forced = crate::kernels::isa::force(crate::kernels::isa::Isa::Portable);
    assert_eq!(importance(50), costs);
    assert_eq!(Outliers::new(COLUMNS).importance(), None);
}

proptest! {
    #[test]
    fn any_fit_values_come_back_finite(bits in proptest::collection::vec(any::<u32>(), 256)) {
        let x: Vec<f32> = bits.iter().map(|b| f32::from_bits(*b)).map(|v| if v.is_finite() { v.clamp(-65504.0, 65504.0) } else { 1.0 }).collect();
        for ty in BlockType::ALL {
            let packed = quantize(ty, &x, 256).unwrap();
            let mut back = vec![0.0; 256];
            dequantize(ty, &packed, &mut back).unwrap();
            prop_assert!(back.iter().all(|v| v.is_finite()), "{}", ty);
        }
    }

    #[test]
    fn any_bytes_unpack_without_panic(bytes in proptest::collection::vec(any::<u8>(), 256)) {
        for ty in BlockType::ALL {
            let blocks = (bytes.len() / ty.block_bytes()).max(1).min(256 / ty.block_values().max(1)).max(1);
            let mut out = vec![0.0; blocks * ty.block_values()];
            dequantize(ty, &bytes[..blocks * ty.block_bytes()], &mut out).unwrap();
        }
    }
}

mod carried {
    use super::*;
    use crate::model::decoder::Gather;
    use crate::model::hessian::Hessian;
    use crate::model::hessian::tests::inputs;

    const COLUMNS: usize = 512;

    fn hessian() -> Hessian {
        let mut hessian = Hessian::default();
        hessian.add(&inputs(1500, COLUMNS, 9), COLUMNS);
        hessian
    }

    /// What a packed matrix adds to the squared error of its output.
    fn cost(hessian: &Hessian, ty: BlockType, values: &[f32], bytes: &[u8]) -> f64 {
        let mut back = vec![0.0; values.len()];
        dequantize(ty, bytes, &mut back).unwrap();
        let errors: Vec<f64> = values.iter().zip(&back).map(|(value, back)| f64::from(value - back)).collect();
        errors.chunks(COLUMNS).map(|errors| hessian.cost(errors)).sum()
    }

    fn carried(ty: BlockType, values: &[f32], hessian: &Hessian) -> Vec<u8> {
        let factor = hessian.inverse_factor(0.01).unwrap();
        let importance: Vec<f32> = hessian.diagonal().iter().map(|sum| *sum as f32).collect();
        let mut bytes = Vec::new();
        gptq::quantize(ty, &mut values.to_vec(), COLUMNS, Some(&importance), &factor, &mut bytes).unwrap();
        bytes
    }

    /// Nineteen rows: more than are searched together, and not twice as many.
    #[test]
    fn errors_that_are_carried_cost_less_in_every_type() {
        let hessian = hessian();
        let values = bell(19 * COLUMNS, 3);
        let importance: Vec<f32> = hessian.diagonal().iter().map(|sum| *sum as f32).collect();
        for ty in BlockType::ALL.into_iter().filter(|ty| !matches!(ty, BlockType::F32 | BlockType::F16 | BlockType::Bf16)) {
            let mut alone = Vec::new();
            quantize_into(ty, &values, COLUMNS, Some(&importance), &mut alone).unwrap();
            let ratio = cost(&hessian, ty, &values, &carried(ty, &values, &hessian)) / cost(&hessian, ty, &values, &alone);
            assert!(ratio < 0.8, "{ty}: {ratio}");
        }
    }

    #[test]
    fn without_correlations_nothing_is_carried() {
        let mut hessian = Hessian::default();
        let unit: Vec<f32> = (0..COLUMNS * COLUMNS).map(|i| f32::from(u8::from(i % (COLUMNS + 1) == 0))).collect();
        hessian.add(&unit, COLUMNS);
        let values = bell(16 * COLUMNS, 4);
        for ty in [BlockType::Q4_1, BlockType::Q5_0, BlockType::Q8_0, BlockType::Q2K, BlockType::Q4K] {
            let even = vec![1.0; COLUMNS];
            let mut alone = Vec::new();
            quantize_into(ty, &values, COLUMNS, Some(&even), &mut alone).unwrap();
            let ratio = cost(&hessian, ty, &values, &carried(ty, &values, &hessian)) / cost(&hessian, ty, &values, &alone);
            assert!((0.98..1.02).contains(&ratio), "{ty}: {ratio}");
        }
    }

    #[test]
    fn threads_and_instruction_sets_change_no_byte() {
        let hessian = hessian();
        let values = bell(40 * COLUMNS, 5);
        let on = |threads: usize| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for ty in [BlockType::Q4_0, BlockType::Q3K, BlockType::Q6K] {
            let once = on(1).install(|| carried(ty, &values, &hessian));
            assert!(once == on(3).install(|| carried(ty, &values, &hessian)), "{ty}");
            let _forced = crate::kernels::isa::force(crate::kernels::isa::Isa::Portable);
            assert!(once == carried(ty, &values, &hessian), "{ty}");
        }
    }
}

#[test]
fn q8_0_takes_what_its_scale_can() {
    let values: Vec<f32> = (0..32u8).map(|i| 250_000.0 * f32::from(i)).collect();
    let mut back = vec![0.0; 32];
    dequantize(BlockType::Q8_0, &quantize(BlockType::Q8_0, &values, 32).unwrap(), &mut back).unwrap();
    assert!(values.iter().zip(&back).all(|(a, b)| (a - b).abs() <= 31_000.0), "{back:?}");
    let error = quantize(BlockType::Q8_0, &[9e6; 32], 32).unwrap_err().to_string();
    assert!(error.contains("at most 8319008"), "{error}");
    assert!(quantize(BlockType::Q4_0, &[7e4; 32], 32).unwrap_err().to_string().contains("at most 65504"));
}
