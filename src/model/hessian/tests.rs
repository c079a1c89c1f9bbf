//! Factors multiply back, and neither threads nor the cut into passes matter where they must not.

use super::*;
use crate::kernels::rng;

/// Correlated inputs: rows × columns.
pub fn inputs(rows: usize, columns: usize, seed: u64) -> Vec<f32> {
    let value = |row: usize, column: usize| {
        let own = rng::uniform(seed, 1, (row * columns + column) as u64) - 0.5;
        let shared = rng::uniform(seed, 2, (row * 7 + column % 7) as u64) - 0.5;
        (own + 3.0 * shared) * (1.0 + (column % 5) as f32)
    };
    (0..rows * columns).map(|i| value(i / columns, i % columns)).collect()
}

fn on<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

#[test]
fn the_factor_is_that_of_the_damped_inverse() {
    for columns in [1, 7, 64, 150] {
        let mut hessian = Hessian::default();
        hessian.add(&inputs(400, columns, 3), columns);
        let factor = hessian.inverse_factor(0.01).unwrap();
        let added = 0.01 * hessian.diagonal().iter().sum::<f64>() / columns as f64;
        // (H + λI) · Uᵀ · U = I
        for i in 0..columns {
            let mut row = vec![0.0; columns];
            for k in 0..columns {
                let h = hessian.sums[i * columns + k] + if i == k { added } else { 0.0 };
                for (j, value) in row.iter_mut().enumerate() {
                    *value += h * (0..columns).map(|m| factor.row(m)[k] * factor.row(m)[j]).sum::<f64>();
                }
            }
            for (j, value) in row.iter().enumerate() {
                let wanted = f64::from(u8::from(i == j));
                assert!((value - wanted).abs() < 1e-8, "{columns}: {i} {j} is {value}");
                assert!(j >= i || factor.row(i)[j] == 0.0);
            }
        }
    }
}

#[test]
fn threads_change_no_bit_and_sums_are_those_of_all_rows() {
    let x = inputs(3000, 130, 5);
    let gathered = |threads: usize| {
        on(threads, || {
            let mut hessian = Hessian::default();
            x.chunks(1000 * 130).for_each(|x| hessian.add(x, 130));
            let factor = hessian.inverse_factor(0.01).unwrap();
            (hessian.sums, factor.upper)
        })
    };
    let (sums, upper) = gathered(1);
    assert!((sums.clone(), upper) == gathered(3));
    for (i, j) in [(0, 0), (3, 129), (64, 65)] {
        let wanted: f64 = x.chunks_exact(130).map(|row| f64::from(row[i]) * f64::from(row[j])).sum();
        assert!((sums[i * 130 + j] - wanted).abs() < 1e-4 * wanted.abs().max(1.0), "{i} {j}");
    }
}

#[test]
fn silent_inputs_and_singular_ones_have_a_factor() {
    let mut silent = Hessian::default();
    silent.add(&[0.0; 40], 4);
    assert_eq!(silent.inverse_factor(0.01).unwrap().row(2), [0.0, 0.0, 1.0, 0.0]);
    let mut twins = Hessian::default();
    twins.add(&[1.0, 1.0, 2.0, 2.0], 2);
    assert!(twins.inverse_factor(0.01).is_ok());
    assert!(twins.inverse_factor(0.0).is_err());
    let mut broken = Hessian::default();
    broken.add(&[f32::NAN, 1.0], 2);
    assert!(matches!(broken.inverse_factor(0.01), Err(ModelError::NotFinite(_))));
}

#[test]
fn the_cost_is_the_squared_error_of_the_output() {
    let x = inputs(50, 9, 1);
    let mut hessian = Hessian::default();
    hessian.add(&x, 9);
    let error: Vec<f64> = (0..9).map(|i| f64::from(i) - 4.0).collect();
    let wanted: f64 = x.chunks_exact(9).map(|row| row.iter().zip(&error).map(|(x, e)| f64::from(*x) * e).sum::<f64>()).map(|y| y * y).sum();
    assert!((hessian.cost(&error) - wanted).abs() < 1e-4 * wanted);
}
