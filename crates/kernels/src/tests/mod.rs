//! What the kernels promise together: the same bits everywhere, right gradients, digests that never change.

mod attention;
mod bounds;
mod golden;
mod gradients;
mod losses;
mod reference;
mod same_bits;

use std::sync::OnceLock;

use rayon::ThreadPool;

use super::isa::{self, Isa};
use super::rng;

/// Normal numbers, a function of (stream, index).
fn random(len: usize, stream: u64) -> Vec<f32> {
    (0..len as u64).map(|i| rng::normal(11, stream, i)).collect()
}

fn ids(len: usize, below: usize, stream: u64) -> Vec<u32> {
    (0..len as u64).map(|i| rng::below(11, stream, i, below as u64) as u32).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn pools() -> &'static [ThreadPool] {
    static POOLS: OnceLock<Vec<ThreadPool>> = OnceLock::new();
    POOLS.get_or_init(|| [1, 2, 3, 5].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap()).into())
}

/// Runs `f` on every instruction set of this processor and 1, 2, 3 and 5 threads; all must agree bit by bit.
fn everywhere(name: &str, f: impl Fn() -> Vec<f32> + Sync) -> Vec<f32> {
    let mut first: Option<Vec<f32>> = None;
    for isa in Isa::ALL {
        let Some(_forced) = isa::force(isa) else { continue };
        for pool in pools() {
            let out = pool.install(&f);
            match &first {
                Some(first) => assert_eq!(bits(&out), bits(first), "{name} on {isa:?} with {} threads", pool.current_num_threads()),
                None => first = Some(out),
            }
        }
    }
    first.unwrap()
}

/// Every element within `tolerance` of the largest expected one, or of 0.1.
fn close(name: &str, actual: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len(), "{name}");
    let size = expected.iter().fold(0.1f64, |size, x| size.max(x.abs()));
    for (i, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(*actual) - expected).abs() / size;
        assert!(error <= tolerance, "{name}[{i}]: {actual} for {expected}, error {error:e}");
    }
}
