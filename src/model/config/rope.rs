//! How fast rotary positions turn each pair of a head, and how that is stretched for sequences longer than those of the first training. The
//! formulas are those of transformers' `modeling_rope_utils`, in f64.

use std::f64::consts::TAU;

use super::{Config, ModelError, wrong};
use crate::kernels::math::{ln64, pow64};

#[derive(Clone, Debug, Default, PartialEq)]
pub enum RopeScaling {
    #[default]
    None,
    /// Every angle divided by a factor.
    Linear { factor: f32 },
    /// Slow turns divided by a factor, fast ones left alone (Llama 3.1).
    Llama3 { factor: f32, low_freq_factor: f32, high_freq_factor: f32, original: usize },
    /// Peng et al., "YaRN", 2023.
    Yarn(Yarn),
    /// Each pair's angle divided by a number of its own, one in sequences of up to `original` tokens and another in longer ones (Ding et al.,
    /// "LongRoPE", 2024); cosines and sines are multiplied by `attention_factor`.
    LongRope { short_factor: Vec<f32>, long_factor: Vec<f32>, original: usize, attention_factor: f32 },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    pub factor: f32,
    pub original: usize,
    /// What cosines and sines are multiplied by.
    pub attention_factor: f32,
    pub beta_fast: f32,
    pub beta_slow: f32,
}

/// Of one kind of layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Turns {
    /// Radians that one position turns each pair.
    pub short: Vec<f64>,
    /// The same in sequences that are longer than a certain number of tokens, where that makes a difference.
    pub long: Option<(usize, Vec<f64>)>,
    /// What cosines and sines are multiplied by.
    pub magnitude: f64,
}

impl Config {
    /// How positions turn the heads of most layers.
    pub fn turns(&self) -> Turns {
        let dim = self.rotary_dim();
        let plain = plain(self.rope_theta, dim);
        let same = |short: Vec<f64>| Turns { short, long: None, magnitude: 1.0 };
        match &self.features.rope_scaling {
            RopeScaling::None => same(plain),
            RopeScaling::Linear { factor } => same(plain.iter().map(|turn| turn / f64::from(*factor)).collect()),
            RopeScaling::Llama3 { .. } => {
                let factors = self.features.rope_scaling.llama3_factors(&plain);
                same(plain.iter().zip(factors).map(|(turn, factor)| turn / factor).collect())
            }
            RopeScaling::Yarn(yarn) => {
                Turns { short: yarn.turns(self.rope_theta, &plain), long: None, magnitude: yarn.attention_factor.into() }
            }
            RopeScaling::LongRope { short_factor, long_factor, original, attention_factor } => {
                let divided = |factors: &[f32]| plain.iter().zip(factors).map(|(turn, factor)| turn / f64::from(*factor)).collect();
                let long =
                    (*original < self.max_position_embeddings && short_factor != long_factor).then(|| (*original, divided(long_factor)));
                Turns { short: divided(short_factor), long, magnitude: f64::from(*attention_factor) }
            }
        }
    }

    /// What a Llama 3.1 divides its turns by, as llama.cpp's files have it.
    pub fn llama3_factors(&self) -> Vec<f32> {
        let plain = plain(self.rope_theta, self.rotary_dim());
        self.features.rope_scaling.llama3_factors(&plain).iter().map(|factor| *factor as f32).collect()
    }

    /// How positions turn the heads of layers with a window, where that differs.
    pub fn local_turns(&self) -> Option<Turns> {
        let theta = self.features.rope_local_theta?;
        Some(Turns { short: plain(theta, self.rotary_dim()), long: None, magnitude: 1.0 })
    }
}

/// theta^(−2i / dim)
fn plain(theta: f32, dim: usize) -> Vec<f64> {
    (0..dim / 2).map(|i| pow64(f64::from(theta), -2.0 * i as f64 / dim as f64)).collect()
}

impl RopeScaling {
    /// What Llama 3.1 divides plain turns by.
    fn llama3_factors(&self, plain: &[f64]) -> Vec<f64> {
        let RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } = self else { return Vec::new() };
        let (factor, low, high) = (f64::from(*factor), f64::from(*low_freq_factor), f64::from(*high_freq_factor));
        let of = |turn: &f64| {
            // How many times the pair turned around in the first training's longest sequence.
            let rounds = *original as f64 * turn / TAU;
            match rounds {
                _ if rounds > high => 1.0,
                _ if rounds < low => factor,
                _ => {
                    let smooth = (rounds - low) / (high - low);
                    1.0 / ((1.0 - smooth) / factor + smooth)
                }
            }
        };
        plain.iter().map(of).collect()
    }

    pub(super) fn check(&self, config: &Config) -> Result<(), ModelError> {
        let above = |name: &str, number: f32| match number {
            _ if number > 0.0 && number.is_finite() => Ok(()),
            _ => Err(wrong(format!("{name} of rope_scaling is {number}; it must be above 0"))),
        };
        let positions = |original: usize| match original {
            2..=super::MAX_POSITIONS_USIZE => Ok(()),
            _ => Err(wrong(format!("original_max_position_embeddings is {original}"))),
        };
        match self {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear { factor } => above("factor", *factor),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                above("factor", *factor)?;
                above("low_freq_factor", *low_freq_factor)?;
                positions(*original)?;
                match high_freq_factor {
                    high if *high > *low_freq_factor && high.is_finite() => Ok(()),
                    high => Err(wrong(format!(
                        "high_freq_factor of rope_scaling is {high}; it must be above low_freq_factor, {low_freq_factor}"
                    ))),
                }
            }
            RopeScaling::Yarn(Yarn { factor, original, attention_factor, beta_fast, beta_slow }) => {
                let numbers =
                    [("factor", factor), ("attention_factor", attention_factor), ("beta_fast", beta_fast), ("beta_slow", beta_slow)];
                numbers.iter().try_for_each(|(name, number)| above(name, **number))?;
                positions(*original)
            }
            RopeScaling::LongRope { short_factor, long_factor, original, attention_factor } => {
                above("attention_factor", *attention_factor)?;
                positions(*original)?;
                let pairs = config.rotary_dim() / 2;
                for (name, factors) in [("short_factor", short_factor), ("long_factor", long_factor)] {
                    if factors.len() != pairs {
                        return Err(wrong(format!(
                            "{name} of rope_scaling has {} numbers, but {pairs} pairs of a head turn",
                            factors.len()
                        )));
                    }
                    factors.iter().try_for_each(|factor| above(name, *factor))?;
                }
                Ok(())
            }
        }
    }
}

/// The paper's √(1 + ln s / ln L) for a model stretched from `original` to `positions`.
pub fn longrope_attention_factor(positions: f64, original: usize) -> f32 {
    let stretch = positions / original as f64;
    if stretch <= 1.0 { 1.0 } else { (1.0 + ln64(stretch) / ln64(original as f64)).sqrt() as f32 }
}

impl Yarn {
    /// The paper's 0.1 · ln s + 1.
    pub fn default_attention_factor(factor: f32) -> f32 {
        Yarn::scaled_attention_factor(factor, 1.0)
    }

    /// The same with transformers' `mscale`.
    pub fn scaled_attention_factor(factor: f32, scale: f32) -> f32 {
        if factor <= 1.0 { 1.0 } else { (0.1 * f64::from(scale) * ln64(f64::from(factor)) + 1.0) as f32 }
    }

    /// All but the factor and the length as its paper has them: llama.cpp does not read the others from its files.
    pub fn is_plain(&self) -> bool {
        let has_default_attention_factor =
            (self.attention_factor - Yarn::default_attention_factor(self.factor)).abs() <= 1e-6 * self.attention_factor;
        has_default_attention_factor && self.beta_fast == 32.0 && self.beta_slow == 1.0
    }

    /// Fast turns are left alone, slow ones divided by the factor; between them a ramp.
    fn turns(&self, theta: f32, plain: &[f64]) -> Vec<f64> {
        let pairs = plain.len() as f64;
        // The pair that turns around so many times in the first training's longest sequence.
        let pair = |rounds: f32| pairs * ln64(self.original as f64 / (f64::from(rounds) * TAU)) / ln64(f64::from(theta));
        let low = pair(self.beta_fast).floor().max(0.0);
        let high = pair(self.beta_slow).ceil().min(2.0 * pairs - 1.0);
        let high = if high == low { low + 0.001 } else { high };
        let mixed = |(i, turn): (usize, &f64)| {
            let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            turn * (1.0 - ramp) + turn / f64::from(self.factor) * ramp
        };
        plain.iter().enumerate().map(mixed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::tiny;
    use super::super::{Config, Features};
    use super::*;

    fn scaled(rope_scaling: RopeScaling) -> Config {
        Config { head_dim: 64, rope_theta: 5e5, features: Features { rope_scaling, ..Features::default() }, ..tiny() }
    }

    #[test]
    fn fast_turns_stay_and_slow_ones_are_divided() {
        let plain = scaled(RopeScaling::None).turns().short;
        let llama = RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original: 8192 };
        let yarn = Yarn { factor: 8.0, original: 8192, attention_factor: 1.5, beta_fast: 32.0, beta_slow: 1.0 };
        for scaling in [llama, RopeScaling::Yarn(yarn)] {
            let Turns { short, long, magnitude } = scaled(scaling.clone()).turns();
            assert_eq!((short[0], long), (plain[0], None));
            assert!((short[31] - plain[31] / 8.0).abs() < 1e-18, "{scaling:?}");
            assert!(short.iter().zip(&plain).any(|(a, b)| *a < b * 0.9 && *a > b / 7.0), "{scaling:?} has no ramp");
            assert_eq!(magnitude, if matches!(scaling, RopeScaling::Yarn(_)) { 1.5 } else { 1.0 });
        }
        let linear = scaled(RopeScaling::Linear { factor: 4.0 }).turns().short;
        assert!(linear.iter().zip(&plain).all(|(a, b)| *a == b / 4.0));
    }

    #[test]
    fn absurd_numbers_are_named() {
        let llama = |high_freq_factor| RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor, original: 8192 };
        let long = |pairs, original| RopeScaling::LongRope {
            short_factor: vec![1.0; pairs],
            long_factor: vec![2.0; 32],
            original,
            attention_factor: 1.0,
        };
        assert!(scaled(long(32, 32)).check().is_ok());
        let cases = [
            (RopeScaling::Linear { factor: 0.0 }, "factor of rope_scaling is 0"),
            (RopeScaling::Linear { factor: f32::NAN }, "factor of rope_scaling"),
            (llama(1.0), "high_freq_factor"),
            (long(31, 32), "short_factor of rope_scaling has 31 numbers"),
            (long(32, 0), "original_max_position_embeddings is 0"),
            (long(32, usize::MAX), "original_max_position_embeddings"),
        ];
        for (scaling, expected) in cases {
            let error = scaled(scaling).check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
