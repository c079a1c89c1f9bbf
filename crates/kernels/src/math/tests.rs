//! How far the polynomials are from the truth, and what they do at the edges.

use super::*;
use crate::isa::{LANES, clones};

clones! {
    fn sixteen<S>(s, x: &[f32; LANES], out: &mut Vec<f32>) {
        let v = s.load(x);
        out.extend(s.to_array(exp_v(s, v)));
        out.extend(s.to_array(ln_v(s, v)));
        out.extend(s.to_array(tanh_v(s, v)));
        out.extend(s.to_array(sigmoid_v(s, v)));
    }
}

/// exp, ln, tanh and sigmoid of all elements (as many as fill vectors), NaN as one pattern.
pub(crate) fn all_functions(x: &[f32]) -> Vec<f32> {
    let mut out = Vec::new();
    x.as_chunks::<LANES>().0.iter().for_each(|x| sixteen(x, &mut out));
    out.iter().map(|x| if x.is_nan() { f32::from_bits(0x7fc0_0000) } else { *x }).collect()
}

/// The distance in units of the last place of the f32 nearest to `truth`.
fn ulps(actual: f32, truth: f64) -> f64 {
    let power = f32::from_bits((truth as f32).to_bits() & 0x7f80_0000);
    let ulp = (f64::from(power) * f64::from(f32::EPSILON)).max(f64::from(f32::from_bits(1)));
    (f64::from(actual) - truth).abs() / ulp
}

/// The largest error over a sweep of bit patterns between two numbers of one sign.
fn worst(from: f32, to: f32, f: fn(f32) -> f32, truth: impl Fn(f64) -> f64) -> (f64, f32) {
    let (low, high) = (from.to_bits().min(to.to_bits()), from.to_bits().max(to.to_bits()));
    let step = ((high - low) / 60_000).max(1) as usize | 1;
    let errors = (low..=high).step_by(step).map(f32::from_bits).map(|x| (ulps(f(x), truth(f64::from(x))), x));
    errors.fold((0.0, 0.0), |worst, this| if this.0 > worst.0 { this } else { worst })
}

#[test]
fn errors_are_within_what_the_specification_says() {
    let tanh64 = |x: f64| {
        let e = libm::expm1(2.0 * x);
        e / (e + 2.0)
    };
    let sigmoid64 = |x: f64| 1.0 / (1.0 + exp64(-x));
    for (name, limit, worst) in [
        ("exp", 1.1, worst(1e-20, 88.7, exp, exp64)),
        ("exp of negative", 1.1, worst(-1e-20, -103.9, exp, exp64)),
        ("ln", 1.1, worst(1e-45, f32::MAX, ln, ln64)),
        ("ln near 1", 1.1, worst(0.5, 2.0, ln, ln64)),
        ("tanh", 1.7, worst(1e-20, 20.0, tanh, tanh64)),
        ("sigmoid", 2.6, worst(1e-20, 20.0, sigmoid, sigmoid64)),
        ("sigmoid of negative", 2.6, worst(-1e-20, -87.0, sigmoid, sigmoid64)),
    ] {
        println!("{name}: {worst:?} ulp");
        assert!(worst.0 <= limit, "{name}: {worst:?} ulp");
    }
}

#[test]
fn edges() {
    assert_eq!(
        (exp(0.0), exp(-0.0), exp(f32::NEG_INFINITY), exp(-104.0), exp(f32::INFINITY), exp(89.0)),
        (1.0, 1.0, 0.0, 0.0, f32::INFINITY, f32::INFINITY)
    );
    assert!(
        exp(f32::NAN).is_nan()
            && ln(f32::NAN).is_nan()
            && ln(-1.0).is_nan()
            && ln(f32::NEG_INFINITY).is_nan()
            && tanh(f32::NAN).is_nan()
            && sigmoid(f32::NAN).is_nan()
    );
    assert_eq!((ln(1.0), ln(0.0), ln(-0.0), ln(f32::INFINITY)), (0.0, f32::NEG_INFINITY, f32::NEG_INFINITY, f32::INFINITY));
    assert_eq!((tanh(0.0), tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)), (0.0, 1.0, -1.0));
    assert!(tanh(-0.0).is_sign_negative() && tanh(-1e-45).is_sign_negative());
    assert_eq!((sigmoid(0.0), sigmoid(f32::INFINITY), sigmoid(f32::NEG_INFINITY)), (0.5, 1.0, 0.0));
    // Subnormal results and arguments are numbers like others.
    assert_eq!(exp(-103.0).to_bits(), 1);
    assert!((ln(f32::from_bits(1)) - -103.278_93).abs() < 1e-4);
}
