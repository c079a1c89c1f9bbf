//! Bootstrap intervals and McNemar's test. Random numbers are a function of seed, resample and place, so threads cannot change an interval.

use rayon::prelude::*;

use super::metric::MetricKind;
use super::report::{Item, Metric};
use crate::kernels::rng;

/// The stream of random numbers that is used for resampling.
const STREAM: u64 = 0x626f_6f74_7374_7261;

/// How intervals are made. The same for all metrics of a set, so that differences are paired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Resampling {
    pub resamples: u64,
    pub seed: u64,
}

/// What a figure of some items, drawn with repetition, is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Terms {
    /// A quotient of sums: the items' parts above and below the line.
    Quotient(MetricKind, Vec<(f64, f64)>),
    /// A percentile of the tokens of all items.
    Percentile(Tokens),
}

/// Values of tokens, the largest first, each with its item, and how many tokens each item has.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokens {
    share: f64,
    falling: Vec<(f64, usize)>,
    counts: Vec<usize>,
}

impl Tokens {
    /// `None` if there is no token. `share` of them lie at or below the figure (nearest rank).
    pub fn new<'a>(share: f64, items: impl Iterator<Item = &'a [f64]>) -> Option<Tokens> {
        let (mut falling, mut counts) = (Vec::new(), Vec::new());
        for (item, values) in items.enumerate() {
            falling.extend(values.iter().map(|value| (*value, item)));
            counts.push(values.len());
        }
        falling.sort_by(|a, b| b.0.total_cmp(&a.0));
        (!falling.is_empty()).then_some(Tokens { share, falling, counts })
    }

    fn figure(&self, places: impl Iterator<Item = usize>) -> Option<f64> {
        let (mut drawn, mut all) = (vec![0u64; self.counts.len()], 0u64);
        for place in places {
            *drawn.get_mut(place)? += 1;
            all += self.counts[place] as u64;
        }
        // Of 1,000 tokens the 990th from below is the eleventh from above.
        let mut above = all - ((all as f64 * self.share).ceil() as u64).min(all);
        for (value, item) in &self.falling {
            match above.checked_sub(drawn[*item]) {
                Some(left) => above = left,
                None => return Some(*value),
            }
        }
        None
    }

    /// The figure for another share.
    pub fn at(&self, share: f64) -> Option<f64> {
        let (rank, last) = ((self.falling.len() as f64 * share).ceil() as usize, self.falling.len() - 1);
        self.falling.get(last - rank.saturating_sub(1).min(last)).map(|(value, _)| *value)
    }
}

impl Terms {
    /// `None` unless every item was measured and something is below the line.
    pub fn of(kind: MetricKind, items: &[Item]) -> Option<Terms> {
        if let Some(share) = kind.percentile() {
            let tokens: Vec<&[f64]> = items.iter().map(|item| item.token_kl_divergences.as_deref()).collect::<Option<_>>()?;
            return Tokens::new(share, tokens.into_iter()).map(Terms::Percentile);
        }
        let parts: Vec<(f64, f64)> = items.iter().map(|item| kind.terms(item)).collect::<Option<_>>()?;
        let below: f64 = parts.iter().map(|(_, below)| below).sum();
        (below > 0.0).then_some(Terms::Quotient(kind, parts))
    }

    fn items(&self) -> usize {
        match self {
            Terms::Quotient(_, parts) => parts.len(),
            Terms::Percentile(tokens) => tokens.counts.len(),
        }
    }

    fn figure(&self, places: impl Iterator<Item = usize>) -> Option<f64> {
        let (kind, parts) = match self {
            Terms::Quotient(kind, parts) => (kind, parts),
            Terms::Percentile(tokens) => return tokens.figure(places),
        };
        let (mut above, mut below) = (0.0, 0.0);
        for place in places {
            let (a, b) = parts.get(place).copied().unwrap_or_default();
            above += a;
            below += b;
        }
        (below > 0.0).then(|| kind.figure(above / below))
    }

    fn value(&self) -> f64 {
        self.figure(0..self.items()).unwrap_or(f64::NAN)
    }
}

/// A figure and its 95 % percentile interval.
pub fn metric(terms: &Terms, by: Resampling) -> Metric {
    interval(terms.value(), resampled(by, terms.items(), |places| terms.figure(places.iter().copied())))
}

/// `of` less `from`, both on the same items: each resample draws the same items for both.
pub fn difference(of: &Terms, from: &Terms, by: Resampling) -> Option<Metric> {
    if of.items() != from.items() {
        return None;
    }
    let both = |places: &[usize]| Some(of.figure(places.iter().copied())? - from.figure(places.iter().copied())?);
    Some(interval(of.value() - from.value(), resampled(by, of.items(), both)))
}

/// The figure of every resample, in ascending order; resamples in which nothing is below the line are left out.
fn resampled(by: Resampling, items: usize, figure: impl Fn(&[usize]) -> Option<f64> + Sync) -> Vec<f64> {
    let one = |resample: u64| {
        let first = resample.wrapping_mul(items as u64);
        let places: Vec<usize> =
            (0..items as u64).map(|i| rng::below(by.seed, STREAM, first.wrapping_add(i), items as u64) as usize).collect();
        figure(&places)
    };
    let mut figures: Vec<f64> = (0..by.resamples).into_par_iter().map(one).collect::<Vec<_>>().into_iter().flatten().collect();
    figures.sort_by(f64::total_cmp);
    figures
}

fn interval(value: f64, sorted: Vec<f64>) -> Metric {
    let cut = sorted.len() * 25 / 1000;
    let low = sorted.get(cut).copied().unwrap_or(value);
    let high = sorted.len().checked_sub(1 + cut).and_then(|place| sorted.get(place)).copied().unwrap_or(value);
    Metric { value, low, high }
}

/// The two-sided p-value of McNemar's exact test: how probable a split at least as uneven as `gained` to `lost` is if both were equally likely.
///
/// Binomial coefficients are taken relative to the middle one, walking outwards, so that nothing overflows however many items there are.
pub fn mcnemar(gained: u64, lost: u64) -> f64 {
    let n = gained + lost;
    let fewer = gained.min(lost);
    if n == 0 || n - fewer == fewer {
        return 1.0;
    }
    let middle = n / 2;
    let (mut coefficient, mut lower, mut tail) = (1.0f64, 0.0f64, 0.0f64);
    for k in (0..=middle).rev() {
        lower += coefficient;
        if k <= fewer {
            tail += coefficient;
        }
        // C(n, k-1) = C(n, k) · k / (n - k + 1)
        coefficient *= k as f64 / (n - k + 1) as f64;
    }
    // The halves are equal; with an even n they share the middle coefficient, which is 1.
    let total = if n.is_multiple_of(2) { 2.0 * lower - 1.0 } else { 2.0 * lower };
    (2.0 * tail / total).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(right: usize, all: usize) -> Vec<Item> {
        (0..all).map(|i| Item { index: i as u64, exact_match: Some(i % all < right), ..Item::default() }).collect()
    }

    const BY: Resampling = Resampling { resamples: 2000, seed: 7 };

    #[test]
    fn mcnemar_is_exact() {
        // The first two by hand: 2 · (1 + 10) / 2^10, 2 · 1 / 2^5; the others from exact fractions.
        let near = |p: f64, expected: f64| assert!((p / expected - 1.0).abs() < 1e-6, "{p} {expected}");
        near(mcnemar(9, 1), 22.0 / 1024.0);
        near(mcnemar(0, 5), 2.0 / 32.0);
        assert_eq!(mcnemar(0, 0), 1.0);
        assert_eq!(mcnemar(40, 40), 1.0);
        assert_eq!(mcnemar(3, 4), 1.0);
        assert_eq!(mcnemar(5, 90), mcnemar(90, 5));
        near(mcnemar(135, 34), 1.907_843_728_854_735e-15);
        near(mcnemar(55, 38), 0.096_565_197_297_704_64);
        near(mcnemar(500, 440), 0.054_250_697_506_536_84);
        assert!((0.0..1e-300).contains(&mcnemar(0, 100_000)));
        assert!(mcnemar(50_200, 49_800) > 0.2 && mcnemar(50_200, 49_800) < 0.21);
    }

    #[test]
    fn an_interval_covers_what_the_normal_approximation_says() {
        let terms = Terms::of(MetricKind::ExactMatch, &items(700, 1000)).unwrap();
        let metric = metric(&terms, BY);
        assert_eq!(metric.value, 0.7);
        let expected = 1.96 * (0.7f64 * 0.3 / 1000.0).sqrt();
        assert!((metric.high - metric.low - 2.0 * expected).abs() < 0.006, "{metric:?}");
        assert!(metric.low < 0.7 && metric.high > 0.7);
        let other = Resampling { seed: 8, ..BY };
        assert_ne!(super::metric(&terms, other), metric);
    }

    #[test]
    fn threads_do_not_change_an_interval() {
        let terms = Terms::of(MetricKind::ExactMatch, &items(123, 456)).unwrap();
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| metric(&terms, BY))
        };
        assert_eq!(on(1), on(3));
    }

    #[test]
    fn a_paired_difference_is_narrower_than_its_parts() {
        let (more, less) = (items(700, 1000), items(690, 1000));
        let (more, less) = (Terms::of(MetricKind::ExactMatch, &more).unwrap(), Terms::of(MetricKind::ExactMatch, &less).unwrap());
        let drop = difference(&more, &less, BY).unwrap();
        assert!((drop.value - 0.01).abs() < 1e-12);
        assert!(drop.high - drop.low < 0.02, "{drop:?}");
        assert!(drop.low > 0.0);
        assert!(difference(&more, &Terms::Quotient(MetricKind::ExactMatch, vec![]), BY).is_none());
    }

    #[test]
    fn perplexity_is_of_tokens_not_of_items() {
        let item = |nll, tokens| Item { nll: Some(nll), tokens: Some(tokens), ..Item::default() };
        let terms = Terms::of(MetricKind::Perplexity, &[item(1.0, 1), item(3.0, 3)]).unwrap();
        assert!((metric(&terms, BY).value - std::f64::consts::E).abs() < 1e-12);
        assert!(Terms::of(MetricKind::Perplexity, &[item(0.0, 0)]).is_none());
        assert!(Terms::of(MetricKind::Perplexity, &[Item::default()]).is_none());
    }

    #[test]
    fn a_percentile_is_of_all_tokens() {
        let item = |values: std::ops::Range<u32>| Item { token_kl_divergences: Some(values.map(f64::from).collect()), ..Item::default() };
        let items = [item(0..10), item(900..1000), item(10..900)];
        let terms = Terms::of(MetricKind::KlDivergenceP99, &items).unwrap();
        assert_eq!(terms.value(), 989.0);
        // The second item twice, the others not at all: every token counts twice.
        assert_eq!(terms.figure([1, 1].into_iter()), Some(998.0));
        assert_eq!(terms.figure([0].into_iter()), Some(9.0));
        let found = metric(&terms, BY);
        assert!(found.low <= 989.0 && found.high >= 989.0 && found.high <= 999.0 && found.low >= 9.0, "{found:?}");
        let Terms::Percentile(tokens) = terms else { panic!("a percentile") };
        assert_eq!([0.0, 0.01, 0.5, 0.99, 0.999, 1.0].map(|share| tokens.at(share).unwrap()), [0.0, 9.0, 499.0, 989.0, 998.0, 999.0]);
        assert!(Terms::of(MetricKind::KlDivergenceP99, &[Item::default()]).is_none());
        assert!(Tokens::new(0.99, std::iter::empty()).is_none());
    }
}
