//! The product against its definition, bit by bit.

use super::*;
use crate::isa::{self, Isa};
use crate::rng;

fn random(len: usize, stream: u64) -> Vec<f32> {
    (0..len as u64).map(|i| rng::normal(7, stream, i)).collect()
}

fn at(a: &Mat, row: usize, col: usize) -> f32 {
    if a.transposed { a.data[col * a.stride + row] } else { a.data[row * a.stride + col] }
}

fn naive(a: Mat, b: Mat, c: &mut [f32]) {
    let ((m, k), (_, n)) = (a.shape(), b.shape());
    for i in 0..m {
        for j in 0..n {
            for first in (0..k).step_by(CHUNK) {
                c[i * n + j] += (first..k.min(first + CHUNK)).fold(0.0, |sum: f32, p| at(&a, i, p).mul_add(at(&b, p, j), sum));
            }
        }
    }
}

/// A view that reads as rows × cols, stored plainly or transposed, with a stride a little larger than need be.
fn view(data: &[f32], rows: usize, cols: usize, transposed: bool) -> Mat<'_> {
    if transposed { Mat::strided(data, cols, rows, rows + 3).t() } else { Mat::strided(data, rows, cols, cols + 3) }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Rows that push each other out of the cache are copied: once for many panels, tile by tile for few.
#[test]
fn rows_at_a_bad_distance_give_the_defined_bits() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for (m, k, n) in [(30, 300, 20), (570, 300, 20), (30, 300, 290)] {
        let (a, b) = (random(m.max(k) * 1024, 1), random(k * n, 2));
        for a in [Mat::strided(&a, m, k, 1024), Mat::strided(&a, k, m, 1024).t()] {
            let b = Mat::new(&b, k, n);
            let mut set = vec![0.0; m * n];
            naive(a, b, &mut set);
            for isa in Isa::ALL {
                let Some(_forced) = isa::force(isa) else { continue };
                let mut c = vec![f32::NAN; m * n];
                pool.install(|| matmul(a, b, &mut c, Write::Set));
                assert_eq!(bits(&c), bits(&set), "{m}×{k}×{n} {} {isa:?}", a.transposed);
            }
        }
    }
}

#[test]
fn every_isa_layout_and_thread_count_gives_the_defined_bits() {
    let shapes = [
        (1, 1, 1),
        (1, 257, 33),
        (3, 16, 48),
        (5, 300, 16),
        (14, 512, 32),
        (15, 513, 31),
        (29, 17, 70),
        (64, 64, 64),
        (561, 20, 40),
        (70, 700, 130),
        // Several blocks of rows with the panels of one, several groups of panels, and both.
        (561, 258, 20),
        (15, 258, 290),
        (4100, 2, 260),
    ];
    let pools: Vec<_> = [1, 2, 3, 5].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap()).into();
    for (m, k, n) in shapes {
        let (a, b, start) = (random((m + 3) * (k + 3), 1), random((k + 3) * (n + 3), 2), random(m * n, 3));
        for (a_t, b_t) in [(false, false), (false, true), (true, false), (true, true)] {
            let (a, b) = (view(&a, m, k, a_t), view(&b, k, n, b_t));
            let mut set = vec![0.0; m * n];
            naive(a, b, &mut set);
            let mut added = start.clone();
            naive(a, b, &mut added);
            for isa in Isa::ALL {
                let Some(_forced) = isa::force(isa) else { continue };
                for pool in &pools {
                    let mut c = vec![f32::NAN; m * n];
                    pool.install(|| matmul(a, b, &mut c, Write::Set));
                    assert_eq!(bits(&c), bits(&set), "{m}×{k}×{n} {a_t} {b_t} {isa:?} {}", pool.current_num_threads());
                    let mut c = start.clone();
                    pool.install(|| matmul(a, b, &mut c, Write::Add));
                    assert_eq!(bits(&c), bits(&added), "added {m}×{k}×{n} {a_t} {b_t} {isa:?} {}", pool.current_num_threads());
                }
            }
        }
    }
}
