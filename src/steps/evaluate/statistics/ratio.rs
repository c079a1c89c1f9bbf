//! Sums over items divided by each other: a mean over tokens, or a share of tokens. Tokens of one item are alike, so items are what is drawn; the
//! standard error is that of a ratio of sums over clusters (W. G. Cochran, Sampling Techniques, 3rd edition 1977, section 6.3; for evaluations of language
//! models: E. Miller, arXiv 2411.00640).

use super::share::{Bounds, wilson};
use super::student::{self, NORMAL};

/// Relative to the figure: what is smaller is rounding, not spread.
const ROUNDING: f64 = 1e-12;

/// What items add above and below the line.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratio {
    parts: Vec<(f64, f64)>,
    above: f64,
    below: f64,
}

impl Ratio {
    /// Nothing if there is nothing below the line.
    pub fn new(parts: Vec<(f64, f64)>) -> Option<Ratio> {
        let (above, below) = (parts.iter().map(|(above, _)| above).sum(), parts.iter().map(|(_, below)| below).sum());
        (below > 0.0).then_some(Ratio { parts, above, below })
    }

    pub fn parts(&self) -> &[(f64, f64)] {
        &self.parts
    }

    pub fn quotient(&self) -> f64 {
        self.above / self.below
    }

    /// How many items of equal weight tell as much (L. Kish, Survey Sampling, 1965): one long text and nine short ones are little more than one item.
    fn items(&self) -> f64 {
        let squares: f64 = self.parts.iter().map(|(_, below)| below * below).sum();
        self.below * self.below / squares
    }

    /// Standard errors on each side; nothing for a single item.
    fn quantile(&self) -> Option<f64> {
        // One item of many empty ones is a single item, too.
        student::quantile(self.items() - 1.0).filter(|_| self.weighing() > 1)
    }

    fn weighing(&self) -> usize {
        self.parts.iter().filter(|(_, below)| *below > 0.0).count()
    }

    /// What each item moves the quotient by.
    fn influences(&self) -> impl Iterator<Item = f64> {
        let quotient = self.quotient();
        self.parts.iter().map(move |(above, below)| (above - quotient * below) / self.below)
    }

    /// Half of the interval of the quotient; nothing if a single item, or items without any spread, leave it unknown.
    pub fn half_width(&self) -> Option<f64> {
        half_width(self.influences(), self.weighing(), self.quantile()?, self.quotient().abs())
    }

    /// For shares of tokens: of how many independent tokens it tells as much, and the standard errors on each side. Where all tokens are alike, items
    /// show no spread to judge by, and count as one token each.
    pub fn as_share(&self) -> Option<(f64, f64)> {
        let quantile = self.quantile()?;
        let share = self.quotient();
        if share <= 0.0 || share >= 1.0 {
            return Some((self.items(), NORMAL));
        }
        let variance = variance(self.influences(), self.weighing());
        // The design effect: this variance over that of as many independent tokens.
        let independent = share * (1.0 - share) / (self.below - 1.0);
        let n = if variance > 0.0 { self.below * independent / variance } else { self.below };
        Some((n.clamp(1.0, self.below), quantile))
    }
}

/// The interval of a share of tokens; nothing for a single item.
pub fn share(ratio: &Ratio) -> Option<Bounds> {
    ratio.as_share().map(|(n, quantile)| wilson(ratio.quotient(), n, quantile))
}

/// Half of the interval of a difference of two quotients of the same items, each scaled; nothing if it is unknown.
pub fn paired_half_width(of: &Ratio, from: &Ratio, scales: [f64; 2]) -> Option<f64> {
    let quantile = of.quantile()?.max(from.quantile()?);
    let moves = of.influences().zip(from.influences()).map(|(of, from)| scales[0] * of - scales[1] * from);
    let size = (scales[0] * of.quotient()).abs().max((scales[1] * from.quotient()).abs());
    half_width(moves, of.weighing().min(from.weighing()), quantile, size)
}

/// The interval of a difference of two shares of tokens of the same items; nothing for a single item. Where the items show no spread it is as wide as
/// Tango's of items that do not differ at all.
pub fn share_difference(of: &Ratio, from: &Ratio) -> Option<Bounds> {
    let quantile = of.quantile()?.max(from.quantile()?);
    let items = of.items().min(from.items());
    let least = NORMAL * NORMAL / (items + NORMAL * NORMAL);
    let moves = of.influences().zip(from.influences()).map(|(of, from)| of - from);
    let half = (quantile * variance(moves, of.weighing().min(from.weighing())).sqrt()).max(least);
    let difference = of.quotient() - from.quotient();
    Some(Bounds { low: (difference - half).max(-1.0), high: (difference + half).min(1.0) })
}

fn half_width(influences: impl Iterator<Item = f64>, items: usize, quantile: f64, size: f64) -> Option<f64> {
    let error = variance(influences, items).sqrt();
    (error > ROUNDING * size).then_some(quantile * error)
}

/// Of a sum of the influences of so many items.
fn variance(influences: impl Iterator<Item = f64>, items: usize) -> f64 {
    let squares: f64 = influences.map(|influence| influence * influence).sum();
    squares * items as f64 / (items as f64 - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(parts: &[(f64, f64)]) -> Ratio {
        Ratio::new(parts.to_vec()).unwrap()
    }

    /// `scipy.stats.t.interval` of the mean, and for unequal weights the formula in numpy.
    #[test]
    fn a_mean_has_the_interval_of_an_independent_implementation() {
        let equal = ratio(&[(1.0, 1.0), (2.0, 1.0), (4.0, 1.0), (8.0, 1.0)]);
        let half = equal.half_width().unwrap();
        assert!((equal.quotient() - 3.75).abs() < 1e-12 && (half - 4.925_943_048_230_29).abs() < 1e-9, "{half}");
        let unequal = ratio(&[(3.0, 2.0), (10.0, 5.0), (2.0, 3.0), (9.0, 4.0), (1.0, 1.0)]);
        let half = unequal.half_width().unwrap();
        assert!((unequal.items() - 225.0 / 55.0).abs() < 1e-12, "{}", unequal.items());
        assert!((half - 0.983_709_285_578_339).abs() < 1e-9, "{half}");
    }

    #[test]
    fn what_cannot_be_known_is_not_said() {
        for parts in [
            vec![(3.0, 2.0)],
            vec![(3.0, 2.0), (0.0, 0.0), (0.0, 0.0)],
            // No spread, though rounding may leave a hair.
            vec![(0.3, 3.0), (0.1, 1.0), (0.7, 7.0)],
            vec![(0.0, 3.0), (0.0, 1.0)],
        ] {
            assert_eq!(ratio(&parts).half_width(), None, "{parts:?}");
        }
        assert!(Ratio::new(vec![(0.0, 0.0)]).is_none() && Ratio::new(Vec::new()).is_none());
        // One long text and a few tokens of others: next to nothing is known.
        let half = ratio(&[(1e6, 1e6), (2.0, 1.0), (3.0, 1.0)]).half_width();
        assert!(half.is_none_or(|half| half > 1e100), "{half:?}");
        assert_eq!(share(&ratio(&[(90.0, 100.0)])), None);
    }

    #[test]
    fn a_share_of_tokens_knows_that_tokens_of_an_item_are_alike() {
        // Each item one token: the share of independent ones.
        let single: Vec<(f64, f64)> = (0..100).map(|i| (f64::from(u8::from(i % 10 > 0)), 1.0)).collect();
        let (n, quantile) = ratio(&single).as_share().unwrap();
        assert!((n - 100.0).abs() < 1e-9 && (quantile - student::quantile(99.0).unwrap()).abs() < 1e-12, "{n} {quantile}");
        // Items that are all right or all wrong: a hundred tokens of ten items tell as much as ten.
        let torn: Vec<(f64, f64)> = (0..10).map(|i| (if i == 0 { 0.0 } else { 10.0 }, 10.0)).collect();
        let (n, _) = ratio(&torn).as_share().unwrap();
        assert!((n - 10.0).abs() < 1.0, "{n}");
        let all: Vec<(f64, f64)> = vec![(10.0, 10.0); 8];
        assert_eq!(share(&ratio(&all)), Some(wilson(1.0, 8.0, NORMAL)));
        let none: Vec<(f64, f64)> = vec![(0.0, 10.0); 8];
        assert_eq!(share(&ratio(&none)), Some(wilson(0.0, 8.0, NORMAL)));
        // The same share everywhere is no certainty either.
        let even: Vec<(f64, f64)> = vec![(5.0, 10.0); 8];
        let found = share(&ratio(&even)).unwrap();
        assert!(found.low < 0.45 && found.high > 0.55, "{found:?}");
    }

    #[test]
    fn a_difference_of_shares_never_closes() {
        let all = ratio(&[(10.0, 10.0); 8]);
        let found = share_difference(&all, &all).unwrap();
        let least = NORMAL * NORMAL / (8.0 + NORMAL * NORMAL);
        assert_eq!((found.low, found.high), (-least, least));
        let some = ratio(&[(9.0, 10.0), (5.0, 10.0), (10.0, 10.0), (7.0, 10.0), (9.0, 10.0), (3.0, 10.0), (10.0, 10.0), (8.0, 10.0)]);
        let found = share_difference(&some, &all).unwrap();
        assert!(found.low < -0.4 && found.high > 0.0 && found.low >= -1.0, "{found:?}");
        assert_eq!(share_difference(&ratio(&[(1.0, 2.0)]), &ratio(&[(2.0, 2.0)])), None);
    }
}
