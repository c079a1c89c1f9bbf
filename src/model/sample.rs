//! Draws a token from logits: temperature, the `top_k` likeliest, the nucleus of `top_p`, in transformers' order. The draw is a function of seed,
//! stream and place, so that neither threads nor company can change it. All sums are in f64, in a fixed order.

use crate::kernels::math::{exp64, ln64};
use crate::kernels::rng;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Above 0: logits are divided by it.
    pub temperature: f64,
    /// Only so many of the likeliest tokens; all if not given.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens that together have this probability.
    pub top_p: Option<f64>,
    pub seed: u64,
}

impl Sampling {
    /// The token at a place of the answer that `stream` names; nothing if a logit is not finite.
    pub fn draw(&self, logits: &[f32], stream: u64, place: u64) -> Option<u32> {
        let uniform = (rng::bits(self.seed, stream, place) >> 11) as f64 / (1u64 << 53) as f64;
        let most = largest(logits)?;
        let weight = |logit: f32| exp64((f64::from(logit) - f64::from(most)) / self.temperature);
        if self.top_k.is_none() && self.top_p.is_none() {
            return pick(logits.iter().enumerate().map(|(id, logit)| (id as u32, weight(*logit))), uniform);
        }
        let falling = self.likeliest(logits);
        let mut weights: Vec<(u32, f64)> =
            falling.into_iter().map(|id| Some((id, weight(*logits.get(id as usize)?)))).collect::<Option<_>>()?;
        if let Some(top_p) = self.top_p {
            weights.truncate(nucleus(&weights, top_p));
        }
        pick(weights.into_iter(), uniform)
    }

    /// The likeliest tokens, the first of equals first: `top_k` of them, or all.
    fn likeliest(&self, logits: &[f32]) -> Vec<u32> {
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        let falling = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if let Some(top_k) = self.top_k.filter(|top_k| (1..ids.len()).contains(top_k)) {
            ids.select_nth_unstable_by(top_k - 1, falling);
            ids.truncate(top_k);
        }
        ids.sort_unstable_by(falling);
        ids
    }
}

/// How many of the falling weights reach the share: at least one.
fn nucleus(weights: &[(u32, f64)], share: f64) -> usize {
    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let mut sum = 0.0;
    let reached = weights.iter().position(|(_, weight)| {
        sum += weight;
        sum >= share * total
    });
    reached.map_or(weights.len(), |place| place + 1)
}

/// The one within whose part of the sum `uniform` falls.
fn pick(weights: impl Iterator<Item = (u32, f64)> + Clone, uniform: f64) -> Option<u32> {
    let total: f64 = weights.clone().map(|(_, weight)| weight).sum();
    let (mut sum, mut last) = (0.0, None);
    for (id, weight) in weights.filter(|(_, weight)| *weight > 0.0) {
        sum += weight;
        last = Some(id);
        if uniform * total < sum {
            break;
        }
    }
    last
}

/// ln P of a token, as the model has it: at temperature 1, among all tokens. Nothing if a logit is not finite.
pub fn log_probability(logits: &[f32], token: u32) -> Option<f64> {
    let most = f64::from(largest(logits)?);
    let sum: f64 = logits.iter().map(|logit| exp64(f64::from(*logit) - most)).sum();
    Some(f64::from(*logits.get(token as usize)?) - most - ln64(sum))
}

/// Nothing if one is not finite.
fn largest(logits: &[f32]) -> Option<f32> {
    let finite = !logits.is_empty() && logits.iter().all(|logit| logit.is_finite());
    finite.then(|| logits.iter().fold(f32::MIN, |most, logit| most.max(*logit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 3.0, -1.0];

    fn shares(sampling: Sampling) -> [f64; 5] {
        let mut counts = [0u32; 5];
        (0..40_000).for_each(|place| counts[sampling.draw(&LOGITS, 3, place).unwrap() as usize] += 1);
        counts.map(|count| f64::from(count) / 40_000.0)
    }

    fn expected(kept: &[usize], temperature: f64) -> [f64; 5] {
        let weight = |id: usize| if kept.contains(&id) { libm::exp(f64::from(LOGITS[id]) / temperature) } else { 0.0 };
        let total: f64 = (0..5).map(weight).sum();
        std::array::from_fn(|id| weight(id) / total)
    }

    #[test]
    fn tokens_are_drawn_as_often_as_they_are_likely() {
        let plain = Sampling { temperature: 1.0, top_k: None, top_p: None, seed: 7 };
        for (sampling, kept) in [
            (plain, &[0, 1, 2, 3, 4][..]),
            (Sampling { temperature: 2.5, ..plain }, &[0, 1, 2, 3, 4]),
            (Sampling { top_k: Some(3), ..plain }, &[1, 2, 3]),
            // Of equals the first.
            (Sampling { top_k: Some(1), ..plain }, &[1]),
            (Sampling { top_k: Some(9), temperature: 0.5, ..plain }, &[0, 1, 2, 3, 4]),
            // 0.397, 0.397, 0.146, 0.054, 0.007
            (Sampling { top_p: Some(0.79), ..plain }, &[1, 3]),
            (Sampling { top_p: Some(0.85), ..plain }, &[1, 2, 3]),
            (Sampling { top_p: Some(0.01), ..plain }, &[1]),
            // Among the three that are left, two have 0.84.
            (Sampling { top_k: Some(3), top_p: Some(0.83), ..plain }, &[1, 3]),
        ] {
            for (found, expected) in shares(sampling).iter().zip(expected(kept, sampling.temperature)) {
                assert!((found - expected).abs() < 0.012 && (expected > 0.0 || *found == 0.0), "{sampling:?}: {found} {expected}");
            }
        }
    }

    #[test]
    fn a_draw_is_a_function_of_seed_stream_and_place() {
        let sampling = |seed: u64| Sampling { temperature: 1.0, top_k: Some(4), top_p: Some(0.99), seed };
        let drawn = |seed: u64, stream: u64| (0..64).map(|place| sampling(seed).draw(&LOGITS, stream, place)).collect::<Vec<_>>();
        assert_eq!(drawn(1, 2), drawn(1, 2));
        assert_ne!(drawn(1, 2), drawn(1, 3));
        assert_ne!(drawn(1, 2), drawn(2, 2));
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        let sampling = Sampling { temperature: 1.0, top_k: None, top_p: None, seed: 0 };
        assert_eq!(sampling.draw(&[0.0, f32::NAN], 0, 0), None);
        assert_eq!(sampling.draw(&[], 0, 0), None);
        assert_eq!(log_probability(&[0.0, f32::INFINITY], 0), None);
        assert_eq!(log_probability(&[0.0], 1), None);
        assert!((log_probability(&[0.0, 0.0], 1).unwrap() + std::f64::consts::LN_2).abs() < 1e-15);
    }
}
