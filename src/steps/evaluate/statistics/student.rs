//! Student's t: how many standard errors make a two-sided 95 % interval when the error itself is estimated from few items.

use crate::kernels::math::{exp64, ln64};

/// The 97.5 % quantile of the standard normal distribution.
pub const NORMAL: f64 = 1.959_963_984_540_054;

/// The share of both tails together.
const TAILS: f64 = 0.05;
/// Above it the expansion for many degrees of freedom is exact to 1e-13.
const MANY: f64 = 1000.0;
/// ln of the smallest x that is looked at: beyond it the quantile is larger than 1e150.
const SMALLEST_LN: f64 = -700.0;
const BISECTIONS: usize = 100;

/// The 97.5 % quantile for any positive number of degrees of freedom; nothing if there are so few that it is no number to speak of.
pub fn quantile(degrees: f64) -> Option<f64> {
    if degrees.is_nan() || degrees <= 0.0 {
        return None;
    }
    if degrees > MANY {
        return Some(of_many(degrees));
    }
    // P(|T| > t) = I_x(degrees/2, 1/2) with x = degrees / (degrees + t²) (Abramowitz and Stegun, 26.5.27 and 26.7.1), which grows with x.
    let tails = |ln_x: f64| incomplete_beta(degrees / 2.0, 0.5, ln_x);
    let (mut low, mut high) = (SMALLEST_LN, 0.0);
    if tails(low) >= TAILS {
        return None;
    }
    for _ in 0..BISECTIONS {
        let middle = (low + high) / 2.0;
        if tails(middle) < TAILS { low = middle } else { high = middle }
    }
    let x = exp64((low + high) / 2.0);
    Some((degrees * (1.0 - x) / x).sqrt())
}

/// Abramowitz and Stegun, 26.7.5.
fn of_many(degrees: f64) -> f64 {
    let z = NORMAL;
    let square = z * z;
    let terms = [
        (square + 1.0) * z / 4.0,
        ((5.0 * square + 16.0) * square + 3.0) * z / 96.0,
        (((3.0 * square + 19.0) * square + 17.0) * square - 15.0) * z / 384.0,
        ((((79.0 * square + 776.0) * square + 1482.0) * square - 1920.0) * square - 945.0) * z / 92_160.0,
    ];
    z + terms.iter().rev().fold(0.0, |sum, term| (sum + term) / degrees)
}

/// I_x(a, b), the regularised incomplete beta function, of x given by its logarithm.
fn incomplete_beta(a: f64, b: f64, ln_x: f64) -> f64 {
    let x = exp64(ln_x);
    let rest = 1.0 - x;
    if rest <= 0.0 {
        return 1.0;
    }
    let front = exp64(ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * ln_x + b * ln64(rest));
    if x < (a + 1.0) / (a + b + 2.0) { front * fraction(a, b, x) / a } else { 1.0 - front * fraction(b, a, rest) / b }
}

/// The continued fraction of the incomplete beta function (Abramowitz and Stegun, 26.5.8), by Lentz's method.
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    const STEPS: u32 = 2000;
    let away_from_zero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let (mut c, mut d) = (1.0, 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0)));
    let mut value = d;
    for step in 1..STEPS {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for term in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + term * d);
            c = away_from_zero(1.0 + term / c);
            change = c * d;
            value *= change;
        }
        if (change - 1.0).abs() < 1e-16 {
            break;
        }
    }
    value
}

/// ln Γ of a positive number: Lanczos' approximation with g = 7 and nine terms (Godfrey's coefficients), exact to 1e-15.
fn ln_gamma(x: f64) -> f64 {
    const FIRST: f64 = 0.999_999_999_999_809_9;
    const TERMS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    const HALF_LN_TWO_PI: f64 = 0.918_938_533_204_672_7;
    if x < 0.5 {
        // Γ(x) = Γ(x + 1) / x
        return ln_gamma(x + 1.0) - ln64(x);
    }
    let x = x - 1.0;
    let sum = TERMS.iter().zip(1u32..).fold(FIRST, |sum, (term, place)| sum + term / (x + f64::from(place)));
    let shifted = x + 7.5;
    HALF_LN_TWO_PI + (x + 0.5) * ln64(shifted) - shifted + ln64(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scipy.stats.t.ppf(0.975, df)`, SciPy 1.17.
    const KNOWN: [(f64, f64); 18] = [
        (0.05, 1.195_833_758_547_51e25),
        (0.1, 1_682_362_288_745.01),
        (0.5, 164.557_673_480_488),
        (1.0, 12.706_204_736_174_7),
        (1.5, 6.016_663_104_427_93),
        (2.0, 4.302_652_729_749_46),
        (2.7, 3.392_148_383_173_75),
        (3.0, 3.182_446_305_283_71),
        (5.0, 2.570_581_835_636_31),
        (10.0, 2.228_138_851_986_27),
        (29.0, 2.045_229_642_132_7),
        (99.5, 1.984_093_610_990_62),
        (999.0, 1.962_341_461_133_45),
        (1000.0, 1.962_339_080_826_41),
        (1001.0, 1.962_336_705_280_88),
        (12345.6, 1.960_156_158_259_51),
        (1e6, 1.959_966_356_814_11),
        (1e9, 1.959_963_986_912_33),
    ];

    #[test]
    fn quantiles_are_those_of_an_independent_implementation() {
        for (degrees, expected) in KNOWN {
            let found = quantile(degrees).unwrap();
            assert!((found / expected - 1.0).abs() < 1e-10, "{degrees}: {found} {expected}");
        }
        let all: Vec<f64> = (1..3000).map(|tenth| quantile(f64::from(tenth) / 2.0).unwrap()).collect();
        assert!(all.windows(2).all(|two| two[0] > two[1]), "not falling");
        assert!((quantile(f64::INFINITY).unwrap() - NORMAL).abs() < 1e-15);
    }

    #[test]
    fn too_few_degrees_have_no_quantile() {
        for degrees in [0.0, -1.0, f64::NAN, 1e-4, 1e-300] {
            assert_eq!(quantile(degrees), None, "{degrees}");
        }
    }
}
