//! McNemar's test: whether two models that were asked the same differ by more than chance.

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
}
