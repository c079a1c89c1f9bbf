//! The product against its definition, bit by bit.

use super::*;
use crate::kernels::isa::{self, Isa};
use crate::kernels::rng;

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

crate::kernels::isa::clones! {
    /// Independent FMA chains in registers: what the processor can do at most.
    fn peak<S>(s, rounds: usize) -> f32 {
        let mut sums = [s.splat(1.0); 12];
        let x = s.splat(std::hint::black_box(1.0));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = s.fma(x, x, *sum);
            }
        }
        sums.iter().map(|sum| s.to_array(*sum)[0]).fold(0.0, |a, b| a + b)
    }
}

#[test]
#[ignore = "a measurement, not a test"]
fn throughput() {
    let best = |runs: usize, f: &mut dyn FnMut()| {
        let once = |f: &mut dyn FnMut()| {
            let start = std::time::Instant::now();
            f();
            start.elapsed().as_secs_f64()
        };
        (0..runs).map(|_| once(f)).fold(f64::INFINITY, f64::min)
    };
    let rounds = 1 << 14;
    let seconds = best(200, &mut || assert!(peak(rounds) > 0.0));
    let peak = (rounds * 12 * 16 * 2) as f64 / seconds / 1e9;
    println!("peak {peak:.1} GF/s");
    for (m, k, n) in [
        (1024, 1024, 1024),
        (256, 256, 256),
        (2048, 256, 704),
        (2048, 704, 256),
        (2048, 256, 2048),
        (256, 2048, 2048),
        (64, 64, 64),
        (1, 1024, 1024),
        (8, 1024, 1024),
    ] {
        let (a, b) = (random(m * k, 1), random(k * n, 2));
        let mut c = vec![0.0; m * n];
        for (name, a, b) in [
            ("NN", Mat::new(&a, m, k), Mat::new(&b, k, n)),
            ("NT", Mat::new(&a, m, k), Mat::new(&b, n, k).t()),
            ("TN", Mat::new(&a, k, m).t(), Mat::new(&b, k, n)),
        ] {
            let repeat = ((1 << 22) / (m * k * n)).max(1);
            let mut rows = columns(&mut c, n, n).remove(0);
            let seconds = best((1 << 32) / (m * k * n * repeat), &mut || (0..repeat).for_each(|_| serial(a, b, &mut rows, Write::Set)));
            let rate = 2.0 * (repeat * m * k * n) as f64 / seconds / 1e9;
            println!("{m}x{k}x{n} {name} {rate:.1} GF/s {:.1} %", rate / peak * 100.0);
        }
    }
}
