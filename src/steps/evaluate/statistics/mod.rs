//! Figures of items with their 95 % intervals, and differences of figures of the same items.
//!
//! | figure | interval | difference of two models |
//! |---|---|---|
//! | share of items (`exact_match`, `acc` …) | Wilson's ([`share::wilson`]) | Tango's, paired ([`share::tango`]) |
//! | share of tokens (`top1_agreement`) | Wilson's, of as many tokens as the items' spread leaves independent ([`ratio::share`]) | of the paired items ([`ratio::share_difference`]) |
//! | mean of tokens (`perplexity`, `kl_divergence`) | at each end the wider of the bootstrap and Student's t ([`bootstrap`], [`ratio`]) | the same, paired |
//! | percentile of tokens | Woodruff's ([`percentile`]) | from both intervals (square and add) |
//!
//! An interval that cannot be known is not given: that of a single item, of items without spread, or the upper end of a percentile of few tokens.

mod bootstrap;
mod mcnemar;
pub mod percentile;
mod ratio;
mod share;
mod student;
#[cfg(test)]
mod tests;

pub use bootstrap::Resampling;
pub use mcnemar::mcnemar;
pub use percentile::Tokens;

use self::percentile::Ends;
use self::ratio::Ratio;
use self::share::Bounds;
use super::metric::{MetricKind, Shape};
use super::report::{Item, Metric};

/// What a figure is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Terms {
    /// How many of the items: one flag each.
    Share(Vec<bool>),
    /// A quotient of the items' sums.
    Ratio(MetricKind, Ratio),
    /// A percentile of the tokens of all items.
    Percentile(Tokens),
}

impl Terms {
    /// `None` unless every item was measured and something is below the line.
    pub fn of(kind: MetricKind, items: &[Item]) -> Option<Terms> {
        match kind.shape() {
            Shape::ShareOfItems => {
                let flags: Vec<bool> = items.iter().map(|item| kind.flag(item)).collect::<Option<_>>()?;
                (!flags.is_empty()).then_some(Terms::Share(flags))
            }
            Shape::ShareOfTokens | Shape::Mean => {
                let parts: Vec<(f64, f64)> = items.iter().map(|item| kind.sums(item)).collect::<Option<_>>()?;
                Ratio::new(parts).map(|ratio| Terms::Ratio(kind, ratio))
            }
            Shape::Percentile(share) => {
                let tokens: Vec<&[f64]> = items.iter().map(|item| item.token_kl_divergences.as_deref()).collect::<Option<_>>()?;
                Tokens::new(share, tokens.into_iter()).map(Terms::Percentile)
            }
        }
    }

    fn items(&self) -> usize {
        match self {
            Terms::Share(flags) => flags.len(),
            Terms::Ratio(_, ratio) => ratio.parts().len(),
            Terms::Percentile(tokens) => tokens.items(),
        }
    }

    fn value(&self) -> f64 {
        match self {
            Terms::Share(flags) => count(flags) as f64 / flags.len() as f64,
            Terms::Ratio(kind, ratio) => kind.figure(ratio.quotient()),
            Terms::Percentile(tokens) => tokens.figure(),
        }
    }

    fn ends(&self, by: Resampling) -> Ends {
        let known = match self {
            Terms::Share(flags) => Some(share::of_counts(count(flags), flags.len() as u64)),
            Terms::Ratio(kind, ratio) if kind.shape() == Shape::ShareOfTokens => ratio::share(ratio),
            Terms::Ratio(kind, ratio) => mean(*kind, ratio, by),
            Terms::Percentile(tokens) => return tokens.interval(0.0),
        };
        known.map_or(Ends::UNKNOWN, Ends::from)
    }
}

fn count(flags: &[bool]) -> u64 {
    flags.iter().filter(|flag| **flag).count() as u64
}

/// A figure and its interval; nothing if the figure is beyond what a double holds.
pub fn metric(terms: &Terms, by: Resampling) -> Option<Metric> {
    told(terms.value(), terms.ends(by))
}

/// `of` less `from`, both on the same items; nothing if they are not.
pub fn difference(of: &Terms, from: &Terms, by: Resampling) -> Option<Metric> {
    if of.items() != from.items() {
        return None;
    }
    let known = match (of, from) {
        (Terms::Share(of), Terms::Share(from)) => {
            let only = |a: &[bool], b: &[bool]| a.iter().zip(b).filter(|(a, b)| **a && !**b).count() as u64;
            Some(Ends::from(share::tango(only(of, from), only(from, of), of.len() as u64)))
        }
        (Terms::Ratio(kind, of), Terms::Ratio(_, from)) if kind.shape() == Shape::ShareOfTokens => {
            ratio::share_difference(of, from).map(Ends::from)
        }
        (Terms::Ratio(kind, of), Terms::Ratio(_, from)) => mean_difference(*kind, of, from, by).map(Ends::from),
        (Terms::Percentile(of), Terms::Percentile(from)) => Some(percentile_difference(of, from)),
        _ => return None,
    };
    told(of.value() - from.value(), known.unwrap_or(Ends::UNKNOWN))
}

/// Ends that are no numbers are not known; the figure is always within what is.
fn told(value: f64, ends: Ends) -> Option<Metric> {
    let finite = |end: Option<f64>| end.filter(|end| end.is_finite());
    let (low, high) = (finite(ends.low).map(|low| low.min(value)), finite(ends.high).map(|high| high.max(value)));
    // Ends that doubles cannot tell apart say no more than no ends.
    let (low, high) = if low == high { (None, None) } else { (low, high) };
    value.is_finite().then_some(Metric { value, low, high })
}

/// The bootstrap alone is too narrow for few items: of two it never leaves what was seen. Student's t alone knows no skew. Neither a likelihood of a text
/// nor a divergence is below zero.
fn mean(kind: MetricKind, ratio: &Ratio, by: Resampling) -> Option<Bounds> {
    let half = ratio.half_width()?;
    let quotient = ratio.quotient();
    let drawn = by.interval(ratio.parts().len(), |places| resampled(ratio, places));
    let (mut low, mut high) = (quotient - half, quotient + half);
    if let Some(drawn) = drawn {
        (low, high) = (low.min(drawn.low), high.max(drawn.high));
    }
    Some(Bounds { low: kind.figure(low.max(0.0)), high: kind.figure(high) })
}

fn mean_difference(kind: MetricKind, of: &Ratio, from: &Ratio, by: Resampling) -> Option<Bounds> {
    // How much each figure moves as its quotient does, to first order.
    let half = ratio::paired_half_width(of, from, [of, from].map(|ratio| kind.slope(ratio.quotient())))?;
    let difference = kind.figure(of.quotient()) - kind.figure(from.quotient());
    let drawn = by.interval(of.parts().len(), |places| Some(kind.figure(resampled(of, places)?) - kind.figure(resampled(from, places)?)));
    let (low, high) = (difference - half, difference + half);
    Some(drawn.map_or(Bounds { low, high }, |drawn| Bounds { low: low.min(drawn.low), high: high.max(drawn.high) }))
}

fn resampled(ratio: &Ratio, places: &[usize]) -> Option<f64> {
    let (mut above, mut below) = (0.0, 0.0);
    for place in places {
        let (a, b) = ratio.parts().get(*place).copied().unwrap_or_default();
        above += a;
        below += b;
    }
    (below > 0.0).then(|| above / below)
}

/// From the interval of each, as if they were independent (G. Y. Zou and A. Donner, Statistics in Medicine 27, 2008): of the same items that is wider than
/// need be, never narrower.
fn percentile_difference(of: &Tokens, from: &Tokens) -> Ends {
    let (a, b) = (of.figure(), from.figure());
    let (of, from) = (of.interval(0.0), from.interval(0.0));
    let apart =
        |a: f64, a_end: Option<f64>, b: f64, b_end: Option<f64>| Some(((a_end? - a) * (a_end? - a) + (b_end? - b) * (b_end? - b)).sqrt());
    Ends { low: apart(a, of.low, b, from.high).map(|half| a - b - half), high: apart(a, of.high, b, from.low).map(|half| a - b + half) }
}
