//! Adapters: their gradients against finite differences in f64 of the merged model, and that the frozen model costs and changes nothing.

use super::super::super::lora::{Adapter, Lora, Target};
use super::super::super::{Config, Weights};
use super::super::{Batch, Decoder, Keep};
use super::differences::{loss, tensors};
use super::plain::Tensors;
use super::{assert_close, batch, gradient, gradient_after, logits, targets, tiny, untied, weights};
use crate::kernels::rng;

fn lora(targets: &[Target]) -> Lora {
    Lora { r: 2, lora_alpha: 3.0, target_modules: targets.to_vec() }
}

/// With a `b` that is not zero, as after some steps.
fn adapter(config: &Config, targets: &[Target]) -> Adapter {
    let mut adapter = Adapter::random(config, lora(targets), 5).unwrap();
    for tensor in adapter.weights.layout.clone().tensors.iter().filter(|tensor| tensor.name.contains("lora_B")) {
        for (i, value) in adapter.weights.data[tensor.range.clone()].iter_mut().enumerate() {
            *value = 0.2 * rng::normal(11, tensor.range.start as u64, i as u64);
        }
    }
    adapter
}

/// A matrix of the model plus scale · b · a in f64.
fn merged(base: &[f64], a: &[f64], b: &[f64], rank: usize, scale: f64) -> Vec<f64> {
    let inputs = a.len() / rank;
    let of = |i: usize| (0..rank).map(|j| b[i / inputs * rank + j] * a[j * inputs + i % inputs]).sum::<f64>();
    base.iter().enumerate().map(|(i, w)| w + scale * of(i)).collect()
}

/// The matrix that a tensor of an adapter belongs to, and the names of its two tensors.
fn names(tensor: &str) -> (String, String, String) {
    let (stem, _) = tensor.split_once(".lora_").unwrap();
    let base = stem.strip_prefix("base_model.model.").unwrap();
    (format!("{base}.weight"), format!("{stem}.lora_A.weight"), format!("{stem}.lora_B.weight"))
}

fn differences(config: &Config, weights: &Weights, adapter: &Adapter, batch: &Batch, targets: &[u32]) -> (f64, Vec<f64>) {
    let (base, mut low) = (tensors(weights), tensors(&adapter.weights));
    let mut whole = base.clone();
    let merge = |tensor: &str, low: &Tensors, whole: &mut Tensors| {
        let (name, a, b) = names(tensor);
        whole.insert(name.clone(), merged(&base[&name], &low[&a], &low[&b], adapter.lora.r, f64::from(adapter.lora.scale())));
    };
    adapter.weights.layout.tensors.iter().for_each(|tensor| merge(&tensor.name, &low, &mut whole));
    let at_rest = loss(config, &whole, batch, targets);
    let mut found = Vec::new();
    let step = 1e-5;
    for tensor in &adapter.weights.layout.tensors {
        for i in 0..tensor.range.len() {
            let mut at = |delta: f64| {
                let before = low[&tensor.name][i];
                low.get_mut(&tensor.name).unwrap()[i] = before + delta;
                merge(&tensor.name, &low, &mut whole);
                low.get_mut(&tensor.name).unwrap()[i] = before;
                loss(config, &whole, batch, targets)
            };
            found.push((at(step) - at(-step)) / (2.0 * step));
        }
        merge(&tensor.name, &low, &mut whole);
    }
    (at_rest, found)
}

#[test]
fn gradients_are_those_of_finite_differences_in_f64() {
    let cases: [(Config, &[Target]); 4] =
        [(tiny(), &Target::ALL), (untied(), &[Target::Q, Target::V]), (untied(), &[Target::Down]), (tiny(), &[Target::Gate, Target::O])];
    for (config, matrices) in cases {
        let (weights, adapter, batch) = (weights(&config), adapter(&config, matrices), batch(&config));
        let targets = targets(&config, &batch);
        let mut decoder = Decoder::with_adapter(&config, &adapter).unwrap();
        let (ours, gradient) = gradient_after(&mut decoder, &weights, &adapter.weights.data, &batch, &targets, Keep::All);
        let (theirs, differences) = differences(&config, &weights, &adapter, &batch, &targets);
        assert!((ours - theirs).abs() < 1e-5 * theirs, "{ours} is not {theirs}");
        assert_close(&adapter.weights, &gradient, &differences, 1e-5);
        let again = gradient_after(&mut decoder, &weights, &adapter.weights.data, &batch, &targets, Keep::Inputs);
        assert_eq!(again, (ours, gradient));
    }
}

#[test]
fn a_new_adapter_changes_no_bit_of_the_model_and_learns_in_b_first() {
    let config = tiny();
    let (weights, batch) = (weights(&config), batch(&config));
    let targets = targets(&config, &batch);
    let adapter = Adapter::random(&config, lora(&Target::ALL), 1).unwrap();
    let bound = 1.0 / (config.hidden_size as f32).sqrt();
    assert!(
        adapter.weights.data.iter().any(|value| value.abs() > 0.9 * bound) && adapter.weights.data.iter().all(|value| value.abs() <= bound)
    );
    let (plain, _) = gradient(&mut Decoder::new(&config).unwrap(), &weights, &batch, &targets);
    let mut decoder = Decoder::with_adapter(&config, &adapter).unwrap();
    let (adapted, gradient) = gradient_after(&mut decoder, &weights, &adapter.weights.data, &batch, &targets, Keep::All);
    assert_eq!(plain.to_bits(), adapted.to_bits());
    for tensor in &adapter.weights.layout.tensors {
        let zero = gradient[tensor.range.clone()].iter().all(|g| *g == 0.0);
        assert_eq!(zero, tensor.name.contains("lora_A"), "{}", tensor.name);
    }
}

#[test]
fn the_merged_model_says_the_same() {
    for config in [tiny(), untied()] {
        let (weights, adapter, batch) = (weights(&config), adapter(&config, &Target::ALL), batch(&config));
        let mut decoder = Decoder::with_adapter(&config, &adapter).unwrap();
        decoder.forward_adapted(&weights.data, &adapter.weights.data, &batch, Keep::Nothing).unwrap();
        let beside = logits(&mut decoder, &weights);
        let mut merged = weights.clone();
        adapter.merge(&config, &mut merged).unwrap();
        let mut plain = Decoder::new(&config).unwrap();
        plain.forward(&merged.data, &batch, Keep::Nothing).unwrap();
        let scale = beside.iter().fold(0.0f32, |scale, logit| scale.max(logit.abs()));
        let farthest = beside.iter().zip(logits(&mut plain, &merged)).fold(0.0f32, |far, (a, b)| far.max((a - b).abs()));
        assert!(farthest < 1e-5 * scale, "{farthest} of {scale}");
        plain.forward(&weights.data, &batch, Keep::Nothing).unwrap();
        assert!(beside.iter().zip(logits(&mut plain, &weights)).any(|(a, b)| (a - b).abs() > 1e-2 * scale));
    }
}

#[test]
fn an_adapter_of_another_size_is_refused() {
    let config = tiny();
    let (weights, batch) = (weights(&config), batch(&config));
    let adapter = adapter(&config, &[Target::Q]);
    let mut decoder = Decoder::with_adapter(&config, &adapter).unwrap();
    assert!(decoder.forward(&weights.data, &batch, Keep::Nothing).unwrap_err().to_string().contains("adapter"));
    let mut plain = Decoder::new(&config).unwrap();
    assert!(plain.forward_adapted(&weights.data, &adapter.weights.data, &batch, Keep::Nothing).is_err());
    let other = Config { num_hidden_layers: 3, ..config.clone() };
    assert!(Decoder::with_adapter(&other, &adapter).is_err());
    assert!(Decoder::with_adapter(&Config { intermediate_size: 32, ..config }, &self::adapter(&tiny(), &[Target::Down])).is_err());
}
