//! Intervals of shares: how many of n were right, and how much that share differs between two models on the same n. Both are score intervals: the set of
//! all values that a score test at 5 % would not refuse. They lie within the possible, hold the figure, and have no zero width at 0 of n and n of n.

use super::student::NORMAL;

/// Ends of a 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    pub low: f64,
    pub high: f64,
}

impl Bounds {
    /// So wide that it holds `value`, which rounding may have put a hair outside.
    pub fn holding(self, value: f64) -> Bounds {
        Bounds { low: self.low.min(value), high: self.high.max(value) }
    }
}

/// E. B. Wilson's interval (Journal of the American Statistical Association 22, 1927) without a correction for continuity, as L. D. Brown, T. T. Cai and
/// A. DasGupta recommend it (Statistical Science 16, 2001). `n` may be an effective number and `quantile` Student's.
pub fn wilson(share: f64, n: f64, quantile: f64) -> Bounds {
    let square = quantile * quantile / n;
    let middle = (share + square / 2.0) / (1.0 + square);
    let half = (share * (1.0 - share) * square + square * square / 4.0).sqrt() / (1.0 + square);
    // At the borders the ends are exact, whatever rounding does.
    let low = if share <= 0.0 { 0.0 } else { (middle - half).max(0.0) };
    let high = if share >= 1.0 { 1.0 } else { (middle + half).min(1.0) };
    Bounds { low, high }.holding(share)
}

/// The same of whole counts.
pub fn of_counts(right: u64, n: u64) -> Bounds {
    wilson(right as f64 / n as f64, n as f64, NORMAL)
}

/// T. Tango's interval for the difference (gained − lost) / n of two shares of the same n items (Statistics in Medicine 17, 1998). It is the score test
/// behind McNemar's turned around: only items on which the two models differ move it, and with none at all it is ± z²/(n + z²).
pub fn tango(gained: u64, lost: u64, n: u64) -> Bounds {
    let difference = (gained as f64 - lost as f64) / n as f64;
    let low = -upper_end(lost as f64, gained as f64, n as f64);
    let high = upper_end(gained as f64, lost as f64, n as f64);
    Bounds { low, high }.holding(difference)
}

/// The largest difference that is not refused, by bisection: the score falls as the difference grows.
fn upper_end(gained: f64, lost: f64, n: f64) -> f64 {
    let (mut low, mut high) = ((gained - lost) / n, 1.0);
    if low >= 1.0 {
        return 1.0;
    }
    loop {
        let middle = (low + high) / 2.0;
        if middle <= low || middle >= high {
            return high;
        }
        if score(gained, lost, n, middle) >= -NORMAL { low = middle } else { high = middle }
    }
}

/// The score statistic for a difference within (−1, 1).
fn score(gained: f64, lost: f64, n: f64, difference: f64) -> f64 {
    // The likeliest share of lost items, given the difference, solves 2n q² + b q + c = 0.
    let b = (2.0 * n - gained + lost) * difference - gained - lost;
    let c = -lost * difference * (1.0 - difference);
    let root = (b * b - 8.0 * n * c).max(0.0).sqrt();
    // The form that does not cancel.
    let q = if b <= 0.0 { (root - b) / (4.0 * n) } else { -2.0 * c / (b + root).max(f64::MIN_POSITIVE) };
    let variance = n * (2.0 * q + difference * (1.0 - difference));
    let above = gained - lost - n * difference;
    if variance > 0.0 { above / variance.sqrt() } else { above * f64::INFINITY }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::rng;

    fn near(found: Bounds, low: f64, high: f64) {
        assert!((found.low - low).abs() < 1e-11 && (found.high - high).abs() < 1e-11, "{found:?}, not {low} {high}");
    }

    /// `statsmodels.stats.proportion.proportion_confint(…, method="wilson")`, statsmodels 0.15.
    #[test]
    fn a_share_has_the_interval_of_an_independent_implementation() {
        near(of_counts(0, 1), 0.0, 0.793_450_685_622_763);
        near(of_counts(1, 1), 0.206_549_314_377_237, 1.0);
        near(of_counts(80, 80), 0.954_181_870_464_473, 1.0);
        near(of_counts(0, 80), 0.0, 0.045_818_129_535_527_1);
        near(of_counts(1, 2), 0.094_531_205_734_230_7, 0.905_468_794_265_769);
        near(of_counts(3, 7), 0.158_219_855_251_47, 0.749_541_635_472_343);
        near(of_counts(700, 1000), 0.670_876_139_082_783, 0.727_593_157_522_995);
        near(of_counts(999_999, 1_000_000), 0.999_994_335_088_196, 0.999_999_823_475_423);
    }

    /// The first is published: M. W. Fagerland, S. Lydersen and P. Laake (Statistics in Medicine 33, 2014) give −0.517 to −0.026. The others are of
    /// the constrained likelihood, maximised numerically by SciPy, or of the closed form ± z²/(n + z²).
    #[test]
    fn a_difference_has_the_interval_of_an_independent_implementation() {
        near(tango(1, 7, 21), -0.517_232_276_421_377, -0.026_003_032_480_868_6);
        near(tango(0, 0, 80), -0.045_818_129_535_527_1, 0.045_818_129_535_527_1);
        near(tango(0, 0, 1), -0.793_450_685_622_763, 0.793_450_685_622_763);
        near(tango(0, 15, 1000), -0.024_600_976_926_906_8, -0.009_110_978_804_081_67);
        near(tango(5, 15, 1000), -0.020_183_808_923_820_7, -0.001_366_871_396_183_52);
        near(tango(80, 0, 80), 0.908_363_740_928_946, 1.0);
        near(tango(0, 80, 80), -1.0, -0.908_363_740_928_946);
        near(tango(1, 0, 1), -0.586_901_371_245_525, 1.0);
        near(tango(10, 10, 20), -0.401_403_983_603_575, 0.401_403_983_603_575);
        near(tango(37, 12, 500), 0.023_522_676_989_569_9, 0.079_096_947_095_627_8);
    }

    proptest! {
        #[test]
        fn a_share_is_held_and_never_certain(n in 1u64..2_000_000, at in 0.0f64..=1.0) {
            let right = ((n as f64 * at) as u64).min(n);
            for right in [0, right, n] {
                let (share, found) = (right as f64 / n as f64, of_counts(right, n));
                prop_assert!(0.0 <= found.low && found.low <= share && share <= found.high && found.high <= 1.0, "{right} of {n}: {found:?}");
                prop_assert!(found.low < found.high);
                // Turned around, it is the share of wrong ones.
                let wrong = of_counts(n - right, n);
                prop_assert!((wrong.low - (1.0 - found.high)).abs() < 1e-12 && (wrong.high - (1.0 - found.low)).abs() < 1e-12);
            }
        }

        #[test]
        fn a_difference_is_held_and_never_certain(n in 1u64..1_000_000, gained in 0.0f64..=1.0, lost in 0.0f64..=1.0) {
            let gained = ((n as f64 * gained) as u64).min(n);
            let lost = (((n - gained) as f64 * lost) as u64).min(n - gained);
            for (gained, lost) in [(gained, lost), (0, 0), (n, 0), (0, n), (gained, n - gained)] {
                let (difference, found) = ((gained as f64 - lost as f64) / n as f64, tango(gained, lost, n));
                prop_assert!(-1.0 <= found.low && found.low <= difference && difference <= found.high && found.high <= 1.0, "{found:?}");
                prop_assert!(found.low < found.high);
                let other = tango(lost, gained, n);
                prop_assert!(other.low == -found.high && other.high == -found.low);
                // It refuses no difference exactly where McNemar's test (without correction) does.
                let (differ, score) = ((gained + lost) as f64, (gained as f64 - lost as f64).abs());
                let holds_zero = found.low <= 0.0 && 0.0 <= found.high;
                if differ > 0.0 && (score / differ.sqrt() - NORMAL).abs() > 1e-6 {
                    prop_assert_eq!(holds_zero, score / differ.sqrt() < NORMAL);
                }
            }
        }
    }

    /// How often the interval holds the true share, by simulation.
    #[test]
    fn intervals_cover_what_they_promise() {
        let draw = |p: f64, place: &mut u64| {
            *place += 1;
            (rng::below(3, 77, *place, 1 << 40) as f64) < p * (1u64 << 40) as f64
        };
        let mut place = 0;
        for (p, n, least) in [(0.5, 10u64, 0.93), (0.9, 20, 0.93), (0.99, 80, 0.93), (0.7, 100, 0.93), (0.95, 1000, 0.93), (0.02, 50, 0.89)]
        {
            let trials = 4000;
            let held = (0..trials).filter(|_| {
                let right = (0..n).filter(|_| draw(p, &mut place)).count() as u64;
                let found = of_counts(right, n);
                found.low <= p && p <= found.high
            });
            let coverage = held.count() as f64 / f64::from(trials);
            assert!((least..=0.995).contains(&coverage), "{p} {n}: {coverage}");
        }
        // Two models that differ on a tenth of the items.
        for (gains, losses, n) in [(0.05, 0.05, 100u64), (0.01, 0.03, 200), (0.02, 0.0, 100), (0.1, 0.02, 50)] {
            let trials = 2000;
            let held = (0..trials).filter(|_| {
                let (mut gained, mut lost) = (0, 0);
                for _ in 0..n {
                    if draw(gains + losses, &mut place) {
                        let is_gain = draw(gains / (gains + losses), &mut place);
                        gained += u64::from(is_gain);
                        lost += u64::from(!is_gain);
                    }
                }
                let found = tango(gained, lost, n);
                found.low <= gains - losses && gains - losses <= found.high
            });
            let coverage = held.count() as f64 / f64::from(trials);
            assert!((0.925..=0.995).contains(&coverage), "{gains} {losses} {n}: {coverage}");
        }
    }
}
