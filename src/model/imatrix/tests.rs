//! Sums by hand, files that read back, and files that do not.

use std::ops::ControlFlow;
use std::path::PathBuf;

use proptest::prelude::*;

use super::super::config::tests::tiny;
use super::super::tokenizer::tests::bytes_only;
use super::super::{ChatTemplate, Config, Weights};
use super::*;
use crate::model::Model;

fn model() -> Model {
    let config = Config { vocab_size: 257, hidden_size: 32, head_dim: 8, intermediate_size: 64, ..tiny() };
    let weights = Weights::random(&config, 3).unwrap();
    Model { config, weights, tokenizer: bytes_only(), chat: ChatTemplate::default() }
}

fn gather(model: &Model, windows: &[Window]) -> Imatrix {
    collect(model, windows, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn text(count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| (i * 37 + i / 7) % 257).collect()
}

#[test]
fn sums_are_those_of_the_inputs() {
    let model = model();
    let windows = windows(&text(60), 20, 8);
    assert_eq!(windows.len(), 3);
    let imatrix = gather(&model, &windows);
    // q, k, v, o, gate, up and down of two layers, and the tied head.
    assert_eq!(imatrix.entries.len(), 15);
    assert!(imatrix.entries.values().all(|entry| entry.count == 60.0));
    assert_eq!(imatrix.entries["blk.1.ffn_down.weight"].sums.len(), 64);
    // What goes into the first layer's queries is the embedding, normalised.
    let embedding = model.weights.get("model.embed_tokens.weight").unwrap();
    let norm = model.weights.get("model.layers.0.input_layernorm.weight").unwrap();
    let mut sums = vec![0.0f64; 32];
    for token in windows.concat() {
        let row: Vec<f64> = embedding[token as usize * 32..][..32].iter().map(|x| f64::from(*x)).collect();
        let mean = row.iter().map(|x| x * x).sum::<f64>() / 32.0 + 1e-5;
        for ((sum, x), norm) in sums.iter_mut().zip(&row).zip(norm) {
            *sum += x * x / mean * f64::from(*norm) * f64::from(*norm);
        }
    }
    for name in ["blk.0.attn_q.weight", "blk.0.attn_v.weight"] {
        for (found, expected) in imatrix.entries[name].sums.iter().zip(&sums) {
            assert!((f64::from(*found) - expected).abs() < 1e-5 * expected, "{name}: {found} is not {expected}");
        }
    }
}

#[test]
fn neither_threads_nor_company_change_a_bit() {
    let model = model();
    // More than one pass.
    let windows = windows(&text(64 * 50), 64, 50);
    let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| gather(&model, &windows));
    let whole = on(1);
    assert_eq!(whole, on(3));
    let sum = |imatrix: &Imatrix| imatrix.entries.values().flat_map(|e| &e.sums).map(|sum| f64::from(*sum)).sum::<f64>();
    let parts: f64 = windows.iter().map(|window| sum(&gather(&model, std::slice::from_ref(window)))).sum();
    assert!((parts - sum(&whole)).abs() < 1e-6 * parts);
    let stopped = collect(&model, &windows, &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(ModelError::Stopped)));
}

#[test]
fn windows_are_spread_over_the_text() {
    let starts = |tokens: usize, length, most| -> Vec<u32> {
        windows(&(0..tokens as u32).collect::<Vec<_>>(), length, most).iter().map(|window| window[0]).collect()
    };
    assert_eq!(starts(105, 10, 100), [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]);
    assert_eq!(starts(105, 10, 3), [0, 30, 60]);
    assert_eq!(windows(&[1, 2, 3], 10, 3), [[1, 2, 3]]);
    assert!(windows(&[], 10, 3).is_empty());
}

fn example() -> Imatrix {
    let entry = |sums: &[f32], count| Entry { sums: sums.to_vec(), count };
    let entries = [("blk.0.attn_q.weight".to_string(), entry(&[1.0, 2.0, 0.0], 4.0)), ("x".to_string(), entry(&[0.5], 2.0))];
    Imatrix { entries: entries.into(), datasets: vec!["text".to_string()], chunk_count: 7, chunk_size: 512 }
}

fn file(space: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
    let path = space.path().join("imatrix");
    std::fs::write(&path, bytes).unwrap();
    path
}

fn old() -> Vec<u8> {
    let mut bytes = 2i32.to_le_bytes().to_vec();
    for (name, calls, sums) in [("blk.0.attn_q.weight", 4i32, &[1.0f32, 2.0, 0.0][..]), ("x", 2, &[0.5])] {
        bytes.extend((name.len() as i32).to_le_bytes());
        bytes.extend(name.as_bytes());
        bytes.extend(calls.to_le_bytes());
        bytes.extend((sums.len() as i32).to_le_bytes());
        sums.iter().for_each(|sum| bytes.extend(sum.to_le_bytes()));
    }
    bytes.extend(7i32.to_le_bytes());
    bytes.extend(4i32.to_le_bytes());
    bytes.extend(b"text");
    bytes
}

#[test]
fn both_formats_read_back() {
    let space = tempfile::tempdir().unwrap();
    let path = space.path().join("imatrix.gguf");
    example().write(&path).unwrap();
    assert_eq!(Imatrix::read(&path).unwrap(), example());
    assert_eq!(Imatrix::read(&file(&space, &old())).unwrap(), Imatrix { chunk_size: 0, ..example() });
    let importance = example().importance("blk.0.attn_q.weight", 3).unwrap().unwrap();
    assert_eq!(importance, [1.0, 2.0, 1e-6]);
    assert_eq!(example().importance("blk.9.attn_q.weight", 3).unwrap(), None);
    let error = example().importance("x", 2).unwrap_err().to_string();
    assert!(error.contains("it has 1 values for `x`, whose rows have 2"), "{error}");
}

#[test]
fn a_cut_or_mangled_file_is_an_error() {
    let space = tempfile::tempdir().unwrap();
    let path = space.path().join("imatrix.gguf");
    example().write(&path).unwrap();
    let new = std::fs::read(&path).unwrap();
    for end in 0..new.len() - 32 {
        assert!(Imatrix::read(&file(&space, &new[..end])).is_err(), "cut at {end}");
    }
    // What stands behind the entries may be missing, but not in part.
    let old = old();
    for end in (0..old.len()).filter(|end| ![old.len() - 12, old.len() - 8].contains(end)) {
        assert!(Imatrix::read(&file(&space, &old[..end])).is_err(), "cut at {end}");
    }
    for (at, value) in [(0usize, -1i32), (0, i32::MAX), (4, i32::MAX), (4, -5), (27, -1), (31, i32::MAX), (35, -1)] {
        let mut bytes = old.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        assert!(Imatrix::read(&file(&space, &bytes)).is_err(), "{value} at {at}");
    }
    for bad in [f32::NAN, f32::INFINITY, -1.0] {
        let mut imatrix = example();
        imatrix.entries.get_mut("x").unwrap().sums[0] = bad;
        let path = space.path().join(format!("{bad}.gguf"));
        imatrix.write(&path).unwrap();
        let error = Imatrix::read(&path).unwrap_err().to_string();
        assert!(error.contains("no sum of squares"), "{error}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(legacy::parse(&bytes));
        drop(legacy::parse(&[&1i32.to_le_bytes()[..], &bytes].concat()));
    }
}
