//! The percentile bootstrap (B. Efron, Annals of Statistics 7, 1979): figures of items drawn with repetition. Random numbers are a function of seed,
//! resample and place, so threads cannot change an interval.

use rayon::prelude::*;

use super::share::Bounds;
use crate::kernels::rng;

/// The stream of random numbers that is used for resampling.
const STREAM: u64 = 0x626f_6f74_7374_7261;

/// How items are drawn. The same for all metrics of a set, so that differences are paired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Resampling {
    pub resamples: u64,
    pub seed: u64,
}

impl Resampling {
    /// The middle 95 % of the resamples' figures; those that have none are left out. Nothing if none has one.
    pub fn interval(self, items: usize, figure: impl Fn(&[usize]) -> Option<f64> + Sync) -> Option<Bounds> {
        let sorted = self.figures(items, figure);
        let cut = sorted.len() * 25 / 1000;
        let low = sorted.get(cut).copied()?;
        let high = sorted.get(sorted.len().checked_sub(1 + cut)?).copied()?;
        Some(Bounds { low, high })
    }

    /// In ascending order.
    fn figures(self, items: usize, figure: impl Fn(&[usize]) -> Option<f64> + Sync) -> Vec<f64> {
        let one = |resample: u64| {
            let first = resample.wrapping_mul(items as u64);
            let places: Vec<usize> =
                (0..items as u64).map(|i| rng::below(self.seed, STREAM, first.wrapping_add(i), items as u64) as usize).collect();
            figure(&places)
        };
        let mut figures: Vec<f64> = (0..self.resamples).into_par_iter().map(one).collect::<Vec<_>>().into_iter().flatten().collect();
        figures.sort_by(f64::total_cmp);
        figures
    }
}
