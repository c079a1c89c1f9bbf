//! The decoder against two independent judges: a plain f64 implementation with finite differences, and candle's autograd.

mod adapter;
mod differences;
mod judge;
mod plain;

use super::super::config::tests::tiny;
use super::super::{Activation, Config, Family, Features, RopeScaling, Weights};
use super::cache::Cache;
use super::{Batch, Decoder, Keep};
use crate::kernels::loss::cross_entropy;
use crate::kernels::rng;

pub(super) fn untied() -> Config {
    Config { tie_word_embeddings: false, num_key_value_heads: 4, ..tiny() }
}

/// GeGLU, and a window that is shorter than most sequences.
pub(super) fn other() -> Config {
    Config { hidden_act: Activation::GeluTanh, sliding_window: Some(4), ..tiny() }
}

/// Configurations like a Qwen 2, a Qwen 3, a Gemma 3, a Phi-4-mini and a SmolLM3, in this order.
pub(super) fn every_feature() -> Vec<Config> {
    let of = |family, more: Features| {
        let base = Features::of(family);
        Features { attention_bias: base.attention_bias, query_key_norms: base.query_key_norms, ..more }
    };
    let gemma =
        Features { query_pre_attn_scalar: Some(7.0), rope_local_theta: Some(100.0), full_layers: vec![1], ..Features::of(Family::Gemma3) };
    let stretched = RopeScaling::LongRope { short_factor: vec![1.0, 1.5], long_factor: vec![2.0, 5.0], original: 6, attention_factor: 1.2 };
    let phi = Features { rotary_dim: Some(4), rope_scaling: stretched, ..Features::default() };
    let smol = Features { unturned_layers: vec![0], full_layers: vec![1], ..Features::default() };
    vec![
        Config { family: Family::Qwen2, features: of(Family::Qwen2, Features::default()), ..tiny() },
        Config { family: Family::Qwen3, head_dim: 6, features: of(Family::Qwen3, Features::default()), ..untied() },
        Config { family: Family::Gemma3, hidden_act: Activation::GeluTanh, sliding_window: Some(3), features: gemma, ..tiny() },
        Config { family: Family::Phi3, head_dim: 6, features: phi, ..untied() },
        Config { family: Family::SmolLm3, sliding_window: Some(4), features: smol, ..tiny() },
    ]
}

/// Larger than at the start of a training, so that every gradient is far from zero, but not so large that attention saturates.
pub(super) fn weights(config: &Config) -> Weights {
    let mut weights = Weights::random(config, 7).unwrap();
    for tensor in weights.layout.clone().tensors.iter() {
        let scale = if tensor.name.contains("embed") { 40.0 } else { 8.0 };
        for (i, w) in weights.data[tensor.range.clone()].iter_mut().enumerate() {
            *w = match tensor.shape.len() {
                1 if tensor.name.ends_with("bias") => 0.5 * rng::normal(1, 3, i as u64),
                1 => 1.0 + 0.1 * rng::normal(1, 2, i as u64),
                _ => *w * scale,
            };
        }
    }
    weights
}

pub(super) fn sequence(config: &Config, number: u64, length: usize) -> Vec<u32> {
    (0..length as u64).map(|i| rng::below(number, 5, i, config.vocab_size as u64) as u32).collect()
}

/// Sequences of different lengths whose last tokens are asked for.
pub(super) fn batch(config: &Config) -> Batch {
    let mut batch = Batch::default();
    for (number, length) in [(1, 5), (2, 1), (3, 9), (4, 3)] {
        batch.push(&sequence(config, number, length), length / 2..length);
    }
    batch
}

pub(super) fn targets(config: &Config, batch: &Batch) -> Vec<u32> {
    sequence(config, 99, batch.wanted.len())
}

/// Mean cross-entropy and its gradient, in the layout's order.
pub(super) fn gradient(decoder: &mut Decoder, weights: &Weights, batch: &Batch, targets: &[u32]) -> (f64, Vec<f32>) {
    gradient_after(decoder, weights, &[], batch, targets, Keep::All)
}

/// The same with an adapter, if there is one, or with other things kept.
pub(super) fn gradient_after(
    decoder: &mut Decoder,
    weights: &Weights,
    adapter: &[f32],
    batch: &Batch,
    targets: &[u32],
    keep: Keep,
) -> (f64, Vec<f32>) {
    let mut gradient = vec![f32::NAN; if adapter.is_empty() { weights.data.len() } else { adapter.len() }];
    let (vocab, weight) = (decoder.config.vocab_size, 1.0 / targets.len() as f32);
    decoder.forward_adapted(&weights.data, adapter, batch, keep).unwrap();
    let loss = decoder.backward_adapted(&weights.data, adapter, batch, &mut gradient, &mut |rows, logits| {
        let mut losses = vec![0.0; rows.len()];
        cross_entropy(logits, vocab, &targets[rows], weight, &mut losses).unwrap();
        Ok(losses.iter().map(|loss| f64::from(*loss)).sum())
    });
    (loss.unwrap() / targets.len() as f64, gradient)
}

/// Largest difference of a tensor's gradient relative to its largest element.
pub(super) fn assert_close(weights: &Weights, ours: &[f32], theirs: &[f64], tolerance: f64) {
    for tensor in &weights.layout.tensors {
        let scale = theirs[tensor.range.clone()].iter().fold(0.0f64, |scale, g| scale.max(g.abs()));
        assert!(scale > 1e-6, "{}: no gradient to compare", tensor.name);
        for i in tensor.range.clone() {
            let difference = (f64::from(ours[i]) - theirs[i]).abs() / scale;
            assert!(difference < tolerance, "{} [{}]: {} is not {}", tensor.name, i - tensor.range.start, ours[i], theirs[i]);
        }
    }
}

/// What is frozen.
const RULES: [fn(&str) -> bool; 14] = [
    |name| !name.contains("layers.1.self_attn.k_proj.bias"),
    |name| !name.contains("layers.1.self_attn.q_norm"),
    |name| !name.contains("layers.1.pre_feedforward_layernorm"),
    |name| !name.contains("layers.1.post_feedforward_layernorm"),
    |name| !name.contains("layers.0.mlp.up") && !name.contains("layers.1.post_attention_layernorm"),
    |name| name.contains("embed"),
    |name| name.contains("embed") || name.contains("layers.0"),
    |name| name != "lm_head.weight",
    |name| name != "model.norm.weight",
    |name| !name.contains("layers.1.self_attn.k_proj"),
    |name| !name.contains("layers.1.self_attn.o_proj"),
    |name| !name.contains("layers.1.post_attention_layernorm"),
    |name| !name.contains("layers.1.mlp.up"),
    |name| !name.contains("layers.1.mlp.down"),
];

fn logits(decoder: &mut Decoder, weights: &Weights) -> Vec<f32> {
    let mut all = Vec::new();
    decoder
        .logits(&weights.data, &mut |_, logits| {
            all.extend_from_slice(logits);
            Ok(())
        })
        .unwrap();
    all
}

#[test]
fn every_tensor_receives_a_gradient() {
    for config in [tiny(), untied()].into_iter().chain(every_feature()) {
        let weights = weights(&config);
        let batch = batch(&config);
        let (loss, gradient) = gradient(&mut Decoder::new(&config).unwrap(), &weights, &batch, &targets(&config, &batch));
        assert!(loss.is_finite() && loss > 0.0);
        for tensor in &weights.layout.tensors {
            let values = &gradient[tensor.range.clone()];
            assert!(values.iter().all(|g| g.is_finite()), "{}", tensor.name);
            // A row of the embedding whose token does not occur has none if the head is untied.
            let nonzero = values.iter().filter(|g| **g != 0.0).count();
            assert!(nonzero > values.len() / 5, "{}: {nonzero} of {} are not zero", tensor.name, values.len());
        }
    }
}

#[test]
fn frozen_tensors_are_left_alone_and_the_others_learn_the_same() {
    [untied()].into_iter().chain(every_feature()).for_each(|config| others_learn_the_same(&config));
}

fn others_learn_the_same(config: &Config) {
    let weights = weights(config);
    let batch = batch(config);
    let targets = targets(config, &batch);
    let (_, all) = gradient(&mut Decoder::new(config).unwrap(), &weights, &batch, &targets);
    for rule in RULES {
        let mut decoder = Decoder::with_frozen(config, &rule).unwrap();
        let (_, some) = gradient(&mut decoder, &weights, &batch, &targets);
        for tensor in &weights.layout.tensors {
            for i in tensor.range.clone() {
                let expected = if rule(&tensor.name) { f32::NAN } else { all[i] };
                assert_eq!(some[i].to_bits(), expected.to_bits(), "{}", tensor.name);
            }
        }
    }
}

#[test]
fn what_is_computed_again_has_the_same_bits() {
    [untied()].into_iter().chain(every_feature()).for_each(|config| recomputing_keeps_bits(&Config { num_hidden_layers: 3, ..config }));
}

fn recomputing_keeps_bits(config: &Config) {
    let (weights, batch) = (weights(config), batch(config));
    let targets = targets(config, &batch);
    let nothing: fn(&str) -> bool = |_| false;
    for rule in RULES.into_iter().chain([nothing]) {
        let mut decoder = Decoder::with_frozen(config, &rule).unwrap();
        let after = |decoder: &mut Decoder, keep| gradient_after(decoder, &weights, &[], &batch, &targets, keep);
        let (loss, all) = after(&mut decoder, Keep::All);
        // Again, so that it also holds in buffers that were used for something else.
        for mut other in [Decoder::with_frozen(config, &rule).unwrap(), decoder] {
            let (again, some) = after(&mut other, Keep::Inputs);
            assert_eq!(again.to_bits(), loss.to_bits());
            assert!(some.iter().map(|g| g.to_bits()).eq(all.iter().map(|g| g.to_bits())));
        }
    }
}

#[test]
fn only_what_is_kept_has_buffers() {
    let config = Config { num_hidden_layers: 5, ..untied() };
    let (weights, batch) = (weights(&config), batch(&config));
    let filled = |keep, rule: fn(&str) -> bool| {
        let mut decoder = Decoder::with_frozen(&config, &rule).unwrap();
        decoder.forward(&weights.data, &batch, keep).unwrap();
        let kept = decoder.kept.iter().filter(|kept| kept.x.capacity() + kept.out.capacity() > 0).count();
        let work = decoder.work.iter().filter(|work| work.front.q.capacity() + work.tail.glu.capacity() > 0).count();
        (kept, work)
    };
    assert_eq!(filled(Keep::All, |_| false), (5, 5));
    assert_eq!(filled(Keep::Inputs, |_| false), (5, 1));
    assert_eq!(filled(Keep::Nothing, |_| false), (1, 1));
    // The first place serves the three frozen layers at the bottom.
    assert_eq!(filled(Keep::All, |name| !name.contains("layers.3.") && !name.contains("layers.4.")), (3, 3));
    assert_eq!(filled(Keep::All, |name| name != "lm_head.weight"), (1, 1));
}

#[test]
fn a_row_does_not_depend_on_its_company() {
    let config = tiny();
    let weights = weights(&config);
    let mut decoder = Decoder::new(&config).unwrap();
    let batch = batch(&config);
    decoder.forward(&weights.data, &batch, Keep::Nothing).unwrap();
    let together = logits(&mut decoder, &weights);
    let mut alone = Vec::new();
    for (number, length) in [(1, 5), (2, 1), (3, 9), (4, 3)] {
        let mut one = Batch::default();
        one.push(&sequence(&config, number, length), length / 2..length);
        decoder.forward(&weights.data, &one, Keep::All).unwrap();
        alone.extend(logits(&mut decoder, &weights));
    }
    assert_eq!(together, alone);
}

#[test]
fn a_cached_token_gives_the_same_bits_as_a_whole_sequence() {
    // A Phi-3 changes its pace once a sequence is long, and has to read it again.
    let grows = every_feature().into_iter().filter(|config| config.family != Family::Phi3);
    [tiny(), other()].into_iter().chain(grows).for_each(|config| cached_tokens_are_as_whole_sequences(&config));
}

fn cached_tokens_are_as_whole_sequences(config: &Config) {
    let weights = weights(config);
    let mut decoder = Decoder::new(config).unwrap();
    let (one, two) = (sequence(config, 1, 12), sequence(config, 2, 8));
    let mut whole = Batch::default();
    whole.push(&one, 5..12);
    whole.push(&two, 1..8);
    decoder.forward(&weights.data, &whole, Keep::Nothing).unwrap();
    let expected = logits(&mut decoder, &weights);
    let mut cache = Cache::new(config, 3, 12).unwrap();
    let mut batch = Batch::default();
    batch.push(&one[..5], 4..5);
    batch.push(&two[..1], 0..1);
    let slots = [2, 0];
    decoder.prefill(&weights.data, &batch, &mut cache, &slots).unwrap();
    for step in 0..7 {
        batch.clear();
        batch.push_next(one[5 + step], 5 + step as u32);
        batch.push_next(two[1 + step], 1 + step as u32);
        decoder.advance(&weights.data, &batch, &mut cache, &slots).unwrap();
        let got = logits(&mut decoder, &weights);
        let vocab = config.vocab_size;
        assert_eq!(got[..vocab], expected[step * vocab..(step + 1) * vocab], "step {step}");
        assert_eq!(got[vocab..], expected[(7 + step) * vocab..(8 + step) * vocab], "step {step}");
    }
}

#[test]
fn threads_change_no_bit() {
    let config = tiny();
    let weights = weights(&config);
    let batch = batch(&config);
    let targets = targets(&config, &batch);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| gradient(&mut Decoder::new(&config).unwrap(), &weights, &batch, &targets))
    };
    let (loss, expected) = run(1);
    for threads in [2, 3] {
        let (other, gradient) = run(threads);
        assert_eq!(other.to_bits(), loss.to_bits());
        assert_eq!(gradient, expected);
    }
}

#[test]
fn foreign_tokens_and_long_sequences_are_errors() {
    let config = tiny();
    let weights = weights(&config);
    let mut decoder = Decoder::new(&config).unwrap();
    let mut batch = Batch::default();
    batch.push(&[1, 37], 0..1);
    assert!(decoder.forward(&weights.data, &batch, Keep::Nothing).unwrap_err().to_string().contains("token 37"));
    batch.clear();
    batch.push(&[1; 65], 0..1);
    assert!(decoder.forward(&weights.data, &batch, Keep::Nothing).unwrap_err().to_string().contains("65 tokens"));
}
