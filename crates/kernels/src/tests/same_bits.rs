//! Every kernel on every instruction set and 1, 2, 3 and 5 threads, at odd sizes; the simple ones against their definition too.

use proptest::prelude::*;

use super::{bits, everywhere, ids, random};
use crate::loss::{Soft, top_k_row};
use crate::*;

/// The fixed tree, written once more.
fn tree(x: impl Iterator<Item = f32>) -> f32 {
    let mut lanes = [0.0f32; 16];
    x.enumerate().for_each(|(i, x)| lanes[i % 16] += x);
    fold(lanes)
}

fn fold(mut lanes: [f32; 16]) -> f32 {
    for half in [8, 4, 2, 1] {
        (0..half).for_each(|j| lanes[j] += lanes[j + half]);
    }
    lanes[0]
}

fn chain_dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    x.iter().zip(y).enumerate().for_each(|(i, (x, y))| lanes[i % 16] = x.mul_add(*y, lanes[i % 16]));
    fold(lanes)
}

#[test]
fn reductions() {
    for n in [0, 1, 15, 16, 17, 31, 100, 1000] {
        let (x, y) = (random(n, 1), random(n, 2));
        let all = everywhere("reductions", || vec![reduce::sum(&x), reduce::dot(&x, &y), reduce::max(&x)]);
        let max = x.iter().fold(f32::NEG_INFINITY, |max, x| if *x > max { *x } else { max });
        assert_eq!(bits(&all), bits(&[tree(x.iter().copied()), chain_dot(&x, &y), max]), "{n}");
    }
}

#[test]
fn norm() {
    for (rows, d) in [(1, 1), (3, 16), (130, 19), (65, 64), (200, 33)] {
        let (x, w, dy) = (random(rows * d, 1), random(d, 2), random(rows * d, 3));
        let all = everywhere("norm", || {
            let (mut y, mut inv, mut dx, mut dw) = (vec![0.0; rows * d], vec![0.0; rows], dy.clone(), w.clone());
            rms_forward(&x, &w, 1e-5, &mut y, &mut inv);
            rms_backward(&dy, &x, &w, &inv, &mut dx, Some(&mut dw));
            [y, inv, dx, dw].concat()
        });
        let inv = |row: &[f32]| 1.0 / (chain_dot(row, row) / d as f32 + 1e-5).sqrt();
        let y: Vec<f32> = x.chunks(d).flat_map(|row| row.iter().zip(&w).map(move |(x, w)| x * inv(row) * w)).collect();
        assert_eq!(bits(&all[..rows * d]), bits(&y), "{rows} × {d}");
        let mut dw = w.clone();
        for group in (0..rows).step_by(64) {
            for (j, dw) in dw.iter_mut().enumerate() {
                let rows = group..rows.min(group + 64);
                *dw += rows.fold(0.0, |sum: f32, i| dy[i * d + j].mul_add(x[i * d + j] * inv(&x[i * d..][..d]), sum));
            }
        }
        assert_eq!(bits(&all[all.len() - d..]), bits(&dw), "{rows} × {d}");
    }
}

#[test]
fn rotary() {
    for (rows, heads, head_dim) in [(1, 1, 2), (5, 3, 6), (130, 2, 32), (70, 1, 74)] {
        let (x, positions) = (random(rows * heads * head_dim, 1), ids(rows, 900, 2));
        let table = Rope::new(head_dim, 900, 10_000.0);
        everywhere("rope", || {
            let (mut forward, mut backward) = (x.clone(), x.clone());
            rope(&mut forward, heads, &positions, &table, Turn::Forward);
            rope(&mut backward, heads, &positions, &table, Turn::Backward);
            [forward, backward].concat()
        });
    }
}

#[test]
fn gated_units() {
    for n in [1, 15, 16, 100, 20_001] {
        let (gate, up, dy) = (random(n, 1).iter().map(|x| 30.0 * x).collect::<Vec<_>>(), random(n, 2), random(n, 3));
        everywhere("swiglu", || {
            let (mut y, mut dgate, mut dup) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
            swiglu_forward(&gate, &up, &mut y);
            swiglu_backward(&dy, &gate, &up, &mut dgate, &mut dup);
            [y, dgate, dup].concat()
        });
        everywhere("geglu", || {
            let (mut y, mut dgate, mut dup) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
            geglu_forward(&gate, &up, &mut y);
            geglu_backward(&dy, &gate, &up, &mut dgate, &mut dup);
            [y, dgate, dup].concat()
        });
    }
}

#[test]
fn embeddings() {
    let (rows, d) = (700, 9);
    let (table, dout, picked) = (random(rows * d, 1), random(999 * d, 2), ids(999, 40, 3));
    let all = everywhere("embedding", || {
        let (mut out, mut dtable) = (vec![0.0; 999 * d], table.clone());
        gather(&table, d, &picked, &mut out);
        scatter_add(&dout, d, &picked, &mut dtable);
        [out, dtable].concat()
    });
    let mut dtable = table.clone();
    for (id, dout) in picked.iter().zip(dout.chunks(d)) {
        (0..d).for_each(|j| dtable[*id as usize * d + j] += dout[j]);
    }
    assert_eq!(bits(&all[999 * d..]), bits(&dtable));
}

#[test]
fn losses() {
    for (rows, vocab) in [(1, 3), (9, 16), (21, 97), (10, 1000)] {
        let (student, teacher) = (random(rows * vocab, 1), random(rows * vocab, 2));
        let targets = ids(rows, vocab, 3);
        let k = vocab.min(19) - 1;
        everywhere("losses", || {
            let (mut top_ids, mut top) = (vec![0; rows * k], vec![0.0; rows * k]);
            let each = teacher.chunks(vocab).zip(top_ids.chunks_mut(k)).zip(top.chunks_mut(k));
            let log_rest: Vec<f32> = each.map(|((row, ids), top)| top_k_row(row, 1.5, ids, top)).collect();
            let mut all = log_rest.clone();
            let mut add = |run: &dyn Fn(&mut [f32], &mut [f32])| {
                let (mut x, mut losses) = (student.clone(), vec![0.0; rows]);
                run(&mut x, &mut losses);
                all.extend(x);
                all.extend(losses);
            };
            add(&|x, losses| cross_entropy(x, vocab, &targets, 0.7, losses).unwrap());
            let top_k = Teacher::TopK { k, ids: &top_ids, logits: &top, log_rest: &log_rest };
            for soft in [Teacher::Dense(&teacher), top_k] {
                for divergence in
                    [Divergence::ForwardKl, Divergence::ReverseKl, Divergence::Jsd { beta: 0.3 }, Divergence::SkewKl { alpha: 0.2 }]
                {
                    add(&|x, losses| distill(x, vocab, &soft, divergence, 1.5, 0.7, losses).unwrap());
                    let soft = Soft { teacher: soft, divergence, temperature: 1.5 };
                    add(&|x, losses| mix(x, vocab, &targets, &soft, 0.4, 0.7, losses).unwrap());
                }
            }
            add(&|x, _| x.chunks_mut(vocab).zip(student.chunks(vocab)).for_each(|(out, row)| log_softmax_row(row, out)));
            all
        });
    }
}

#[test]
fn optimizer() {
    for n in [1, 16, 31, 40_007] {
        let (p, g) = (random(n, 1), random(n, 2));
        let cfg = AdamW { learning_rate: 3e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, gradient_scale: 1.0 };
        let all = everywhere("adamw", || {
            let (mut p, mut m, mut v) = (p.clone(), vec![0.0; n], vec![0.0; n]);
            (1..4).for_each(|step| adamw(&mut p, &g, &mut m, &mut v, step, &cfg));
            let norm = sum_squares(&p).to_bits();
            [p, m, v, vec![f32::from_bits(norm as u32), f32::from_bits((norm >> 32) as u32)]].concat()
        });
        assert!(all[..n].iter().all(|p| p.is_finite()));
    }
}

#[test]
fn elementary_functions() {
    // Every exponent, signs, and the special values.
    let x: Vec<f32> = (0..40_000u64).map(|i| f32::from_bits(rng::bits(3, 0, i) as u32)).filter(|x| !x.is_nan()).collect();
    let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE, 1e-45, -1e-45, f32::MAX, f32::MIN, 1.0, 0.625];
    let x: Vec<f32> = special.into_iter().chain(x).collect();
    everywhere("exp, ln, tanh, sigmoid", || math::tests::all_functions(&x));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn products_of_any_shape(m in 1usize..80, k in 0usize..600, n in 1usize..80, layout in 0u8..4, write in 0u8..2) {
        let (a, b, start) = (random(m * k, 1), random(k * n, 2), random(m * n, 3));
        let write = if write == 0 { Write::Set } else { Write::Add };
        let a = if layout & 1 == 0 { Mat::new(&a, m, k) } else { Mat::new(&a, k, m).t() };
        let b = if layout & 2 == 0 { Mat::new(&b, k, n) } else { Mat::new(&b, n, k).t() };
        let c = everywhere("product", || {
            let mut c = start.clone();
            matmul(a, b, &mut c, write);
            c
        });
        let at = |x: &Mat, i: usize, j: usize| if x.transposed { x.data[j * x.stride + i] } else { x.data[i * x.stride + j] };
        for (index, c) in c.iter().enumerate() {
            let (i, j) = (index / n, index % n);
            let mut expected = if write == Write::Add { start[index] } else { 0.0 };
            for first in (0..k).step_by(256) {
                expected += (first..k.min(first + 256)).fold(0.0, |sum: f32, p| at(&a, i, p).mul_add(at(&b, p, j), sum));
            }
            prop_assert_eq!(c.to_bits(), expected.to_bits());
        }
    }
}
