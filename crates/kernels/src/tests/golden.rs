//! Digests of results on fixed inputs. They hold on every machine; one that changes means another `NUMERICS_VERSION`.

use super::{ids, random};
use crate::*;

fn digest(parts: &[&[f32]]) -> String {
    let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().flat_map(|x| x.to_le_bytes())).collect();
    blake3::hash(&bytes).to_hex()[..12].to_string()
}

fn product() -> String {
    let (a, b) = (random(50 * 600, 1), random(600 * 70, 2));
    let mut c = vec![0.0; 50 * 70];
    matmul(Mat::new(&a, 50, 600), Mat::new(&b, 600, 70), &mut c, Write::Set);
    matmul(Mat::new(&b, 70, 600), Mat::new(&a, 50, 600).t(), &mut c, Write::Add);
    digest(&[&c])
}

fn packed_product() -> String {
    let (m, n, k) = (3, 17, 768);
    let (x, mut all) = (random(m * k, 1), Vec::new());
    for ty in BlockType::ALL {
        let bytes = packed::tests::blocks(ty, n, k);
        let mut y = vec![0.0; m * n];
        matmul_packed(&x, Packed::new(ty, n, k, &bytes), &mut y, Write::Set);
        all.extend(y);
    }
    digest(&[&all])
}

fn normalisation() -> String {
    let (x, w, dy) = (random(150 * 50, 1), random(50, 2), random(150 * 50, 3));
    let (mut y, mut inv, mut dx, mut dw) = (vec![0.0; 7500], vec![0.0; 150], vec![0.0; 7500], vec![0.0; 50]);
    rms_forward(&x, &w, 1e-5, &mut y, &mut inv);
    rms_backward(&dy, &x, &w, &inv, &mut dx, Some(&mut dw));
    digest(&[&y, &inv, &dx, &dw])
}

fn rotation() -> String {
    let mut x = random(40 * 3 * 24, 1);
    rope(&mut x, 3, &ids(40, 2000, 2), &Rope::new(24, 2000, 500_000.0), Turn::Forward);
    digest(&[&x])
}

fn attention() -> String {
    let shape = AttentionShape { batch: 2, seq: 140, heads: 4, kv_heads: 2, head_dim: 20, window: Some(100), scale: None };
    let (q, k, v, dout) = (random(2 * 140 * 80, 1), random(2 * 140 * 40, 2), random(2 * 140 * 40, 3), random(2 * 140 * 80, 4));
    let (mut out, mut lse) = (q.clone(), vec![0.0; 2 * 4 * 140]);
    let (mut dq, mut dk, mut dv) = (q.clone(), k.clone(), v.clone());
    attention_forward(&shape, &q, &k, &v, &[140, 77], &mut out, &mut lse);
    attention_backward(&shape, &q, &k, &v, &[140, 77], &out, &lse, &dout, &mut dq, &mut dk, &mut dv);
    digest(&[&out, &lse, &dq, &dk, &dv])
}

fn gated_unit() -> String {
    let (gate, up, dy) = (random(999, 1), random(999, 2), random(999, 3));
    let (mut y, mut dgate, mut dup) = (vec![0.0; 999], vec![0.0; 999], vec![0.0; 999]);
    swiglu_forward(&gate, &up, &mut y);
    swiglu_backward(&dy, &gate, &up, &mut dgate, &mut dup);
    digest(&[&y, &dgate, &dup])
}

fn gelu_unit() -> String {
    let (gate, up, dy) = (random(999, 1), random(999, 2), random(999, 3));
    let (mut y, mut dgate, mut dup) = (vec![0.0; 999], vec![0.0; 999], vec![0.0; 999]);
    geglu_forward(&gate, &up, &mut y);
    geglu_backward(&dy, &gate, &up, &mut dgate, &mut dup);
    digest(&[&y, &dgate, &dup])
}

fn losses() -> String {
    let (student, teacher, targets) = (random(20 * 99, 1), random(20 * 99, 2), ids(20, 99, 3));
    let (mut hard, mut losses) = (student.clone(), vec![0.0; 20]);
    cross_entropy(&mut hard, 99, &targets, 0.05, &mut losses).unwrap();
    let mut all = [hard, losses.clone()].concat();
    for divergence in [Divergence::ForwardKl, Divergence::ReverseKl, Divergence::Jsd { beta: 0.5 }, Divergence::SkewKl { alpha: 0.1 }] {
        let mut soft = student.clone();
        distill(&mut soft, 99, &Teacher::Dense(&teacher), divergence, 2.0, 0.05, &mut losses).unwrap();
        all.extend(soft.iter().chain(&losses));
    }
    let (mut top_ids, mut top) = (vec![0; 20 * 8], vec![0.0; 20 * 8]);
    let each = teacher.chunks(99).zip(top_ids.chunks_mut(8)).zip(top.chunks_mut(8));
    let log_rest: Vec<f32> = each.map(|((row, ids), top)| loss::top_k_row(row, 2.0, ids, top)).collect();
    let teacher = Teacher::TopK { k: 8, ids: &top_ids, logits: &top, log_rest: &log_rest };
    let soft = loss::Soft { teacher, divergence: Divergence::ForwardKl, temperature: 2.0 };
    let mut mixed = student.clone();
    mix(&mut mixed, 99, &targets, &soft, 0.5, 0.05, &mut losses).unwrap();
    all.extend(mixed.iter().chain(&losses));
    digest(&[&all])
}

fn optimizer() -> String {
    let (mut p, g) = (random(2000, 1), random(2000, 2));
    let (mut m, mut v) = (vec![0.0; 2000], vec![0.0; 2000]);
    let cfg = AdamW { learning_rate: 3e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, gradient_scale: 1.0 };
    (1..=5).for_each(|step| adamw(&mut p, &g, &mut m, &mut v, step, &cfg));
    digest(&[&p, &m, &v, &[sum_squares(&p) as f32]])
}

fn randomness() -> String {
    let mut order: Vec<u32> = (0..500).collect();
    rng::shuffle(&mut order, 5, 6);
    let all: Vec<f32> = (0..500)
        .flat_map(|i| [rng::normal(1, 2, i), rng::uniform(3, 4, i), rng::below(5, 6, i, 1000) as f32])
        .chain(order.iter().map(|i| *i as f32))
        .collect();
    digest(&[&all])
}

fn functions() -> String {
    let x: Vec<f32> = random(3000, 1).iter().map(|x| 20.0 * x).collect();
    digest(&[&math::tests::all_functions(&x)])
}

#[test]
fn digests_never_change() {
    assert_eq!(NUMERICS_VERSION, 2, "a new version has new digests");
    let actual = [
        ("product", product()),
        ("packed product", packed_product()),
        ("normalisation", normalisation()),
        ("rotation", rotation()),
        ("attention", attention()),
        ("gated unit", gated_unit()),
        ("gelu unit", gelu_unit()),
        ("losses", losses()),
        ("optimizer", optimizer()),
        ("randomness", randomness()),
        ("functions", functions()),
    ];
    let expected = [
        ("product", "49449c4232f8"),
        ("packed product", "c2d34ecb5f6e"),
        ("normalisation", "8bcbf5242536"),
        ("rotation", "d54d5150fb3b"),
        ("attention", "cc8db5653658"),
        ("gated unit", "ae854813c32c"),
        ("gelu unit", "5f6e2594d248"),
        ("losses", "71e0671ebece"),
        ("optimizer", "5f4d38dc0313"),
        ("randomness", "de2d566543ee"),
        ("functions", "819a8e8528b6"),
    ];
    assert_eq!(actual.map(|(name, digest)| format!("{name} {digest}")), expected.map(|(name, digest)| format!("{name} {digest}")));
}
