//! Finite differences of a plain f64 implementation that shares nothing with ours.

use std::collections::BTreeMap;

use super::super::super::{Activation, Config, Weights};
use super::super::{Batch, Decoder};
use super::{assert_close, batch, gradient, other, targets, tiny, untied, weights};

pub(super) type Tensors = BTreeMap<String, Vec<f64>>;

fn rms(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let inv = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + eps).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * inv * w).collect()
}

fn linear(x: &[f64], weight: &[f64]) -> Vec<f64> {
    weight.chunks(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

fn turn(x: &mut [f64], head_dim: usize, position: usize, theta: f64) {
    let half = head_dim / 2;
    for head in x.chunks_mut(head_dim) {
        for i in 0..half {
            let angle = position as f64 * libm::pow(theta, -2.0 * i as f64 / head_dim as f64);
            let (cos, sin) = (libm::cos(angle), libm::sin(angle));
            let (a, b) = (head[i], head[i + half]);
            (head[i], head[i + half]) = (a * cos - b * sin, b * cos + a * sin);
        }
    }
}

fn soft(scores: &[f64]) -> Vec<f64> {
    let max = scores.iter().copied().fold(f64::MIN, f64::max);
    let exps: Vec<f64> = scores.iter().map(|s| libm::exp(s - max)).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|e| e / sum).collect()
}

fn act(config: &Config, g: f64) -> f64 {
    match config.hidden_act {
        Activation::Silu => g / (1.0 + libm::exp(-g)),
        Activation::GeluTanh => 0.5 * g * (1.0 + libm::tanh((2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g * g * g))),
    }
}

/// Logits after every token of one sequence.
fn run(config: &Config, w: &Tensors, tokens: &[u32]) -> Vec<Vec<f64>> {
    let (d, hd, eps) = (config.hidden_size, config.head_dim, f64::from(config.rms_norm_eps));
    let embed = &w["model.embed_tokens.weight"];
    let mut x: Vec<Vec<f64>> = tokens.iter().map(|t| embed[*t as usize * d..][..d].to_vec()).collect();
    for layer in 0..config.num_hidden_layers {
        let part = |name: &str| &w[&format!("model.layers.{layer}.{name}.weight")];
        let (mut q, mut k, mut v) = (vec![], vec![], vec![]);
        for (position, x) in x.iter().enumerate() {
            let h = rms(x, part("input_layernorm"), eps);
            let (mut one_q, mut one_k) = (linear(&h, part("self_attn.q_proj")), linear(&h, part("self_attn.k_proj")));
            turn(&mut one_q, hd, position, f64::from(config.rope_theta));
            turn(&mut one_k, hd, position, f64::from(config.rope_theta));
            q.push(one_q);
            k.push(one_k);
            v.push(linear(&h, part("self_attn.v_proj")));
        }
        for (i, x) in x.iter_mut().enumerate() {
            let mut attended = vec![];
            for head in 0..config.num_attention_heads {
                let group = head / (config.num_attention_heads / config.num_key_value_heads);
                let first = config.sliding_window.map_or(0, |window| (i + 1).saturating_sub(window));
                let score = |j: usize| (0..hd).map(|c| q[i][head * hd + c] * k[j][group * hd + c]).sum::<f64>() / (hd as f64).sqrt();
                let p = soft(&(first..=i).map(score).collect::<Vec<_>>());
                attended.extend((0..hd).map(|c| (first..=i).map(|j| p[j - first] * v[j][group * hd + c]).sum::<f64>()));
            }
            x.iter_mut().zip(linear(&attended, part("self_attn.o_proj"))).for_each(|(x, y)| *x += y);
            let h = rms(x, part("post_attention_layernorm"), eps);
            let (gate, up) = (linear(&h, part("mlp.gate_proj")), linear(&h, part("mlp.up_proj")));
            let glu: Vec<f64> = gate.iter().zip(up).map(|(g, u)| act(config, *g) * u).collect();
            x.iter_mut().zip(linear(&glu, part("mlp.down_proj"))).for_each(|(x, y)| *x += y);
        }
    }
    let head = w.get("lm_head.weight").unwrap_or(embed);
    x.iter().map(|x| linear(&rms(x, &w["model.norm.weight"], eps), head)).collect()
}

pub(super) fn loss(config: &Config, w: &Tensors, batch: &Batch, targets: &[u32]) -> f64 {
    let mut rows = vec![];
    for bounds in batch.starts.windows(2) {
        rows.extend(run(config, w, &batch.tokens[bounds[0]..bounds[1]]));
    }
    let of = |(row, target): (&usize, &u32)| -libm::log(soft(&rows[*row])[*target as usize]);
    batch.wanted.iter().zip(targets).map(of).sum::<f64>() / targets.len() as f64
}

pub(super) fn tensors(weights: &Weights) -> Tensors {
    weights.iter().map(|(name, _, values)| (name.to_string(), values.iter().map(|v| f64::from(*v)).collect())).collect()
}

#[test]
fn gradients_are_those_of_finite_differences_in_f64() {
    for config in [tiny(), untied(), other()] {
        let weights = weights(&config);
        let batch = batch(&config);
        let targets = targets(&config, &batch);
        let (ours, gradient) = gradient(&mut Decoder::new(&config).unwrap(), &weights, &batch, &targets);
        let mut w = tensors(&weights);
        let theirs = loss(&config, &w, &batch, &targets);
        assert!((ours - theirs).abs() < 1e-5 * theirs, "{ours} is not {theirs}");
        let step = 1e-5;
        let mut differences = vec![0.0; gradient.len()];
        for tensor in &weights.layout.tensors {
            for i in tensor.range.clone() {
                let mut at = |delta: f64| {
                    let value = &mut w.get_mut(&tensor.name).unwrap()[i - tensor.range.start];
                    let before = *value;
                    *value += delta;
                    let loss = loss(&config, &w, &batch, &targets);
                    w.get_mut(&tensor.name).unwrap()[i - tensor.range.start] = before;
                    loss
                };
                differences[i] = (at(step) - at(-step)) / (2.0 * step);
            }
        }
        assert_close(&weights, &gradient, &differences, 1e-5);
    }
}
