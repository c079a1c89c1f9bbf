//! Losses and their finite differences by a plain f64 implementation.

use super::super::super::{Activation, Config, RopeScaling, Weights};
use super::super::{Batch, Decoder, Keep};
use super::plain::{Shape, Tensors, run, silu, soft};
use super::{assert_close, batch, every_feature, gradient, other, sequence, targets, tiny, untied, weights};
use crate::kernels::loss::cross_entropy;

fn gelu_tanh(g: f64) -> f64 {
    0.5 * g * (1.0 + libm::tanh((2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g * g * g)))
}

/// Written down once more. How the paces of stretched positions come about is judged by transformers (`tests/e2e/families.rs`).
fn turns(config: &Config, layer: usize, length: usize) -> (Vec<f64>, f64) {
    let features = &config.features;
    if features.unturned_layers.contains(&layer) {
        return (Vec::new(), 1.0);
    }
    let local = features.rope_local_theta.filter(|_| !features.full_layers.contains(&layer));
    let dim = features.rotary_dim.unwrap_or(config.head_dim);
    let theta = f64::from(local.unwrap_or(config.rope_theta));
    let plain = |i: usize| libm::pow(theta, -2.0 * i as f64 / dim as f64);
    match &features.rope_scaling {
        RopeScaling::LongRope { short_factor, long_factor, original, attention_factor } if local.is_none() => {
            let factors = if length > *original { long_factor } else { short_factor };
            ((0..dim / 2).map(|i| plain(i) / f64::from(factors[i])).collect(), f64::from(*attention_factor))
        }
        _ => ((0..dim / 2).map(plain).collect(), 1.0),
    }
}

pub(super) fn loss(config: &Config, w: &Tensors, batch: &Batch, targets: &[u32]) -> f64 {
    let shape = Shape {
        layers: config.num_hidden_layers,
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
        eps: f64::from(config.rms_norm_eps),
        embedding_scale: if config.features.scaled_embeddings { (config.hidden_size as f64).sqrt() } else { 1.0 },
        score_scale: 1.0 / f64::from(config.features.query_pre_attn_scalar.unwrap_or(config.head_dim as f32)).sqrt(),
        windows: (0..config.num_hidden_layers)
            .map(|layer| config.sliding_window.filter(|_| !config.features.full_layers.contains(&layer)))
            .collect(),
        turns: &|layer, length| turns(config, layer, length),
        act: match config.hidden_act {
            Activation::Silu => silu,
            Activation::GeluTanh => gelu_tanh,
        },
    };
    let mut rows = vec![];
    for bounds in batch.starts.windows(2) {
        rows.extend(run(&shape, w, &batch.tokens[bounds[0]..bounds[1]]));
    }
    let of = |(row, target): (&usize, &u32)| -libm::log(soft(&rows[*row])[*target as usize]);
    batch.wanted.iter().zip(targets).map(of).sum::<f64>() / targets.len() as f64
}

pub(super) fn tensors(weights: &Weights) -> Tensors {
    weights.iter().map(|(name, _, values)| (name.to_string(), values.iter().map(|v| f64::from(*v)).collect())).collect()
}

#[test]
fn gradients_are_those_of_finite_differences_in_f64() {
    for config in [tiny(), untied(), other()].into_iter().chain(every_feature()) {
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

/// Sums of several chunks, more than one block of queries, heads of an ordinary size.
#[test]
fn perplexity_is_that_of_f64() {
    let config = Config {
        vocab_size: 300,
        hidden_size: 320,
        intermediate_size: 704,
        num_hidden_layers: 4,
        num_attention_heads: 6,
        num_key_value_heads: 2,
        head_dim: 64,
        max_position_embeddings: 128,
        ..tiny()
    };
    let weights = weights(&config);
    let mut batch = Batch::default();
    for (number, length) in [(1, 80), (2, 33), (3, 1)] {
        batch.push(&sequence(&config, number, length), 0..length);
    }
    let targets = targets(&config, &batch);
    let theirs = loss(&config, &tensors(&weights), &batch, &targets);
    let mut decoder = Decoder::new(&config).unwrap();
    decoder.forward(&weights, &batch, Keep::Nothing).unwrap();
    let mut ours = 0.0;
    let each = decoder.logits(&weights, &mut |rows, logits| {
        let mut losses = vec![0.0; rows.len()];
        cross_entropy(logits, config.vocab_size, &targets[rows], 1.0, &mut losses).unwrap();
        ours += losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / targets.len() as f64;
        Ok(())
    });
    each.unwrap();
    let moved = libm::exp(ours - theirs) - 1.0;
    assert!(moved.abs() < 1e-5, "the perplexity moves by {moved:e}: {ours} is not {theirs}");
}
