//! Backward passes against central differences of f64 forward passes; losses have their own file.

use super::reference::{self, differences, dot, wide};
use super::{close, ids, random};
use crate::*;

fn all(len: usize) -> Vec<usize> {
    (0..len).collect()
}

#[test]
fn rms_norm() {
    let (rows, d, eps) = (5, 19, 1e-5f32);
    let (x, w, dy) = (random(rows * d, 1), random(d, 2), random(rows * d, 3));
    let (mut y, mut inv) = (vec![0.0; rows * d], vec![0.0; rows]);
    rms_forward(&x, &w, eps, &mut y, &mut inv);
    close("y", &y, &reference::rms(&wide(&x), &wide(&w), f64::from(eps)), 1e-6);
    // What is there is added to.
    let (mut dx, mut dw) = (vec![1.0; rows * d], vec![2.0; d]);
    rms_backward(&dy, &x, &w, &inv, &mut dx, Some(&mut dw));
    let loss = |x: &[f64], w: &[f64]| dot(&wide(&dy), &reference::rms(x, w, f64::from(eps)));
    let expected: Vec<f64> = differences(&x, &all(rows * d), &|x| loss(x, &wide(&w))).iter().map(|g| g + 1.0).collect();
    close("dx", &dx, &expected, 1e-5);
    let expected: Vec<f64> = differences(&w, &all(d), &|w| loss(&wide(&x), w)).iter().map(|g| g + 2.0).collect();
    close("dw", &dw, &expected, 1e-5);
}

#[test]
fn rotary_embedding() {
    let (heads, head_dim, positions) = (3, 10, [0, 7, 3, 499]);
    let table = Rope::new(head_dim, 500, 10_000.0);
    let x = random(positions.len() * heads * head_dim, 1);
    let dy = random(x.len(), 2);
    let mut y = x.clone();
    rope(&mut y, heads, &positions, &table, Turn::Forward);
    let forward = |x: &[f64]| reference::rope(x, heads, head_dim, &positions, 10_000.0);
    close("y", &y, &forward(&wide(&x)), 1e-6);
    let mut dx = dy.clone();
    rope(&mut dx, heads, &positions, &table, Turn::Backward);
    close("dx", &dx, &differences(&x, &all(x.len()), &|x| dot(&wide(&dy), &forward(x))), 1e-6);
}

type Forward = fn(&[f32], &[f32], &mut [f32]);
type Backward = fn(&[f32], &[f32], &[f32], &mut [f32], &mut [f32]);
type Reference = fn(&[f64], &[f64]) -> Vec<f64>;

#[test]
fn gated_units() {
    let n = 37;
    let (gate, up, dy) = (random(n, 1).iter().map(|g| 4.0 * g).collect::<Vec<_>>(), random(n, 2), random(n, 3));
    let units: [(Forward, Backward, Reference); 2] =
        [(swiglu_forward, swiglu_backward, reference::swiglu), (geglu_forward, geglu_backward, reference::geglu)];
    for (forward, backward, reference) in units {
        let (mut y, mut dgate, mut dup) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
        forward(&gate, &up, &mut y);
        close("y", &y, &reference(&wide(&gate), &wide(&up)), 1e-6);
        backward(&dy, &gate, &up, &mut dgate, &mut dup);
        let loss = |gate: &[f64], up: &[f64]| dot(&wide(&dy), &reference(gate, up));
        close("dgate", &dgate, &differences(&gate, &all(n), &|gate| loss(gate, &wide(&up))), 1e-6);
        close("dup", &dup, &differences(&up, &all(n), &|up| loss(&wide(&gate), up)), 1e-6);
    }
}

/// Small results of negative gates keep their digits, and nothing overflows on the way.
#[test]
fn gelu_far_from_zero() {
    let gate = [-4.0, -3.0, -1e-20, 1e-20, 5.0, 30.0, -30.0, 1e30, -1e30];
    let (up, mut y) = ([1.0; 9], [0.0; 9]);
    geglu_forward(&gate, &up, &mut y);
    for (y, exact) in y.iter().zip(reference::geglu(&wide(&gate), &wide(&up))) {
        assert!((f64::from(*y) - exact).abs() <= 1e-6 * exact.abs() + 1e-30, "{y} is not {exact}");
    }
    let (mut dgate, mut dup) = ([0.0; 9], [0.0; 9]);
    geglu_backward(&up, &gate, &up, &mut dgate, &mut dup);
    assert_eq!(dgate[5..], [1.0, 0.0, 1.0, 0.0]);
    assert_eq!(dup, y);
    geglu_backward(&[1.0], &[f32::NAN], &[1.0], &mut dgate[..1], &mut dup[..1]);
    assert!(dgate[0].is_nan() && dup[0].is_nan());
}

#[test]
fn embedding() {
    let (rows, d) = (600, 5);
    let (table, picked, dout) = (random(rows * d, 1), ids(40, rows, 2), random(40 * d, 3));
    let picked: Vec<u32> = picked.iter().copied().chain([599, 0, 599]).collect();
    let dout: Vec<f32> = dout.iter().copied().chain(random(3 * d, 4)).collect();
    let mut out = vec![0.0; dout.len()];
    gather(&table, d, &picked, &mut out);
    assert_eq!(out[41 * d..42 * d], table[..d]);
    let mut dtable = vec![0.5; rows * d];
    scatter_add(&dout, d, &picked, &mut dtable);
    let forward = |table: &[f64]| -> Vec<f64> { picked.iter().flat_map(|id| table[*id as usize * d..][..d].to_vec()).collect() };
    let expected = differences(&table, &all(rows * d), &|table| dot(&wide(&dout), &forward(table)));
    close("dtable", &dtable, &expected.iter().map(|g| g + 0.5).collect::<Vec<_>>(), 1e-6);
}

#[test]
fn attention() {
    // Odd sizes; a block of 64 queries and a chunk of 256 keys are crossed; windows smaller and larger than both.
    for (batch, seq, heads, kv_heads, head_dim, window) in [
        (2, 7, 4, 2, 6, None),
        (1, 70, 2, 1, 3, None),
        (1, 70, 2, 2, 3, Some(9)),
        (1, 330, 1, 1, 2, None),
        (1, 330, 1, 1, 2, Some(40)),
        (2, 5, 2, 1, 17, Some(1)),
    ] {
        let shape = AttentionShape { batch, seq, heads, kv_heads, head_dim, window, scale: None };
        let lengths: Vec<usize> = (0..batch).map(|b| seq - 2 * b).collect();
        let (q, dout) = (random(batch * seq * heads * head_dim, 1), random(batch * seq * heads * head_dim, 4));
        let (k, v) = (random(batch * seq * kv_heads * head_dim, 2), random(batch * seq * kv_heads * head_dim, 3));
        let (mut out, mut lse) = (vec![9.0; q.len()], vec![9.0; batch * heads * seq]);
        attention_forward(&shape, &q, &k, &v, &lengths, &mut out, &mut lse);
        close("out", &out, &reference::attention(&shape, &wide(&q), &wide(&k), &wide(&v), &lengths), 2e-6);
        let (mut dq, mut dk, mut dv) = (vec![9.0; q.len()], vec![9.0; k.len()], vec![9.0; v.len()]);
        attention_backward(&shape, &q, &k, &v, &lengths, &out, &lse, &dout, &mut dq, &mut dk, &mut dv);
        let loss = |q: &[f64], k: &[f64], v: &[f64]| dot(&wide(&dout), &reference::attention(&shape, q, k, v, &lengths));
        let sample = |x: &[f32]| (0..x.len()).step_by(x.len().div_ceil(90)).collect::<Vec<_>>();
        let pick = |x: &[f32], elements: &[usize]| elements.iter().map(|i| x[*i]).collect::<Vec<_>>();
        let (eq, ek) = (sample(&q), sample(&k));
        close("dq", &pick(&dq, &eq), &differences(&q, &eq, &|q| loss(q, &wide(&k), &wide(&v))), 2e-5);
        close("dk", &pick(&dk, &ek), &differences(&k, &ek, &|k| loss(&wide(&q), k, &wide(&v))), 2e-5);
        close("dv", &pick(&dv, &ek), &differences(&v, &ek, &|v| loss(&wide(&q), &wide(&k), v)), 2e-5);
    }
}

#[test]
fn adamw_follows_its_formula() {
    let n = 21;
    let cfg = AdamW { learning_rate: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, gradient_scale: 1.0 };
    let (mut p, g) = (random(n, 1), random(n, 2));
    let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
    let (mut p64, mut m64, mut v64) = (wide(&p), vec![0.0; n], vec![0.0; n]);
    for step in 1..=30u64 {
        let g: Vec<f32> = g.iter().map(|g| g * (step as f32 - 12.0)).collect();
        adamw(&mut p, &g, &mut m, &mut v, step, &cfg);
        for i in 0..n {
            let (g, b1, b2, lr) = (f64::from(g[i]), f64::from(cfg.beta1), f64::from(cfg.beta2), f64::from(cfg.learning_rate));
            m64[i] = b1 * m64[i] + (1.0 - b1) * g;
            v64[i] = b2 * v64[i] + (1.0 - b2) * g * g;
            let (mean, square) = (m64[i] / (1.0 - b1.powi(step as i32)), v64[i] / (1.0 - b2.powi(step as i32)));
            p64[i] = p64[i] * (1.0 - lr * f64::from(cfg.weight_decay)) - lr * mean / (square.sqrt() + f64::from(cfg.eps));
        }
    }
    close("p", &p, &p64, 1e-6);
}
