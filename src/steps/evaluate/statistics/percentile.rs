//! A percentile of the tokens of all items, and its interval: all values at which the share of tokens below may be the percentile's own (R. S. Woodruff,
//! Journal of the American Statistical Association 47, 1952), by the interval of a share of tokens.

use super::ratio::Ratio;
use super::share::{Bounds, wilson};

/// Values of tokens, the smallest first, each with its item, and how many tokens each item has.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokens {
    share: f64,
    rising: Vec<(f64, usize)>,
    counts: Vec<usize>,
}

/// An interval of which an end may be unknown: the largest token that was seen need not be the largest there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ends {
    pub low: Option<f64>,
    pub high: Option<f64>,
}

impl Ends {
    pub const UNKNOWN: Ends = Ends { low: None, high: None };
}

impl From<Bounds> for Ends {
    fn from(bounds: Bounds) -> Ends {
        Ends { low: Some(bounds.low), high: Some(bounds.high) }
    }
}

impl Tokens {
    /// `None` if there is no token. `share` of them lie at or below the figure (nearest rank).
    pub fn new<'a>(share: f64, items: impl Iterator<Item = &'a [f64]>) -> Option<Tokens> {
        let (mut rising, mut counts) = (Vec::new(), Vec::new());
        for (item, values) in items.enumerate() {
            rising.extend(values.iter().map(|value| (*value, item)));
            counts.push(values.len());
        }
        rising.sort_by(|a, b| a.0.total_cmp(&b.0));
        (!rising.is_empty()).then_some(Tokens { share, rising, counts })
    }

    pub fn items(&self) -> usize {
        self.counts.len()
    }

    pub fn figure(&self) -> f64 {
        self.at(self.share).unwrap_or(f64::NAN)
    }

    /// The figure for another share.
    pub fn at(&self, share: f64) -> Option<f64> {
        let rank = (self.rising.len() as f64 * share).ceil() as usize;
        self.value(rank.max(1))
    }

    /// Of a rank from 1.
    fn value(&self, rank: usize) -> Option<f64> {
        let last = self.rising.len();
        self.rising.get(rank.clamp(1, last) - 1).map(|(value, _)| *value)
    }

    /// Values have no upper limit, and none lies below `least`.
    pub fn interval(&self, least: f64) -> Ends {
        let figure = self.figure();
        let Some((n, quantile)) = self.below(figure).and_then(|ratio| ratio.as_share()) else { return Ends::UNKNOWN };
        let all = self.rising.len();
        let bounds = |rank: usize| wilson(rank as f64 / all as f64, n, quantile);
        // Both ends of the interval of a share grow with the rank.
        let low = first(all, |rank| bounds(rank).high >= self.share);
        let high = first(all, |rank| bounds(rank).low > self.share);
        let ends = Ends {
            low: if low == 0 { Some(least) } else { self.value(low) }.map(|low| low.min(figure)),
            high: if high > all { None } else { self.value(high) }.map(|high| high.max(figure)),
        };
        // Tokens without any spread do not say how far they might lie apart.
        if ends.low == ends.high { Ends::UNKNOWN } else { ends }
    }

    /// Each item's tokens at or below a value, and all of its tokens.
    fn below(&self, value: f64) -> Option<Ratio> {
        let mut counts = vec![0u32; self.counts.len()];
        for (_, item) in self.rising.iter().take_while(|(found, _)| *found <= value) {
            counts[*item] += 1;
        }
        Ratio::new(counts.iter().zip(&self.counts).map(|(below, all)| (f64::from(*below), *all as f64)).collect())
    }
}

/// The first rank of 0..=all that holds, or the one after the last.
fn first(all: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, all + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::rng;

    fn tokens(items: &[Vec<f64>]) -> Tokens {
        Tokens::new(0.99, items.iter().map(Vec::as_slice)).unwrap()
    }

    fn rising(range: std::ops::Range<u32>) -> Vec<f64> {
        range.map(f64::from).collect()
    }

    #[test]
    fn a_percentile_is_of_all_tokens() {
        let found = tokens(&[rising(0..10), rising(900..1000), rising(10..900)]);
        assert_eq!(found.figure(), 989.0);
        assert_eq!([0.0, 0.01, 0.5, 0.99, 0.999, 1.0].map(|share| found.at(share).unwrap()), [0.0, 9.0, 499.0, 989.0, 998.0, 999.0]);
        assert!(Tokens::new(0.99, std::iter::empty()).is_none());
    }

    #[test]
    fn an_interval_reaches_no_further_than_what_was_seen() {
        // One token an item: 1,000 are enough for both ends, 300 for the lower one (0.99^368 is 2.5 %; by Wilson's interval it takes 381).
        let one_each = |n: u32| tokens(&rising(0..n).into_iter().map(|value| vec![value]).collect::<Vec<_>>());
        let ends = one_each(1000).interval(0.0);
        let (low, high) = (ends.low.unwrap(), ends.high.unwrap());
        assert!((979.0..985.0).contains(&low) && (994.0..998.0).contains(&high), "{ends:?}");
        let few = one_each(300).interval(0.0);
        assert!(few.high.is_none() && few.low.is_some_and(|low| (285.0..296.0).contains(&low)), "{few:?}");
        // The same tokens, but of two items that are not alike: much less is known.
        let two = tokens(&[rising(0..500), rising(500..1000)]).interval(0.0);
        assert!(two.high.is_none() && two.low.is_some_and(|low| low < 900.0), "{two:?}");
        assert_eq!(tokens(&[rising(0..1000)]).interval(0.0), Ends::UNKNOWN);
        // Of 50 items a hundredth may be anything; of 400 it may not, but tokens without any spread do not say how near they are.
        assert_eq!(tokens(&vec![vec![0.0; 50]; 50]).interval(0.0), Ends { low: Some(0.0), high: None });
        assert_eq!(tokens(&vec![vec![0.0; 5]; 400]).interval(0.0), Ends::UNKNOWN);
    }

    /// How often the interval of 2,000 tokens with an exponential distribution holds its true percentile, ln 100.
    #[test]
    fn intervals_cover_what_they_promise() {
        let (mut place, mut held, trials) = (0u64, 0, 300);
        for _ in 0..trials {
            let items: Vec<Vec<f64>> = (0..200)
                .map(|_| {
                    (0..10)
                        .map(|_| {
                            place += 1;
                            -((rng::below(5, 9, place, 1 << 40) as f64 + 1.0) / (1u64 << 40) as f64).log10()
                        })
                        .collect()
                })
                .collect();
            let ends = tokens(&items).interval(0.0);
            held += u32::from(ends.low.unwrap() <= 2.0 && ends.high.is_none_or(|high| high >= 2.0));
        }
        assert!((0.92..=0.995).contains(&(f64::from(held) / f64::from(trials))), "{held} of {trials}");
    }
}
