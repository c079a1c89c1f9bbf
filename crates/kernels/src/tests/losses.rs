//! Losses: values and gradients against f64, the merged top-k distribution, and what is not finite.

use super::reference::{self, differences, wide};
use super::{close, ids, random};
use crate::loss::{Soft, top_k_row};
use crate::*;

const ROWS: usize = 11;
const VOCAB: usize = 37;

const DIVERGENCES: [Divergence; 9] = [
    Divergence::ForwardKl,
    Divergence::ReverseKl,
    Divergence::Jsd { beta: 0.5 },
    Divergence::Jsd { beta: 0.1 },
    Divergence::Jsd { beta: 0.0 },
    Divergence::Jsd { beta: 1.0 },
    Divergence::SkewKl { alpha: 0.1 },
    Divergence::SkewKl { alpha: 0.7 },
    Divergence::SkewKl { alpha: 0.0 },
];

/// What a divergence at the end of its family stands for.
fn plain(divergence: Divergence) -> Divergence {
    match divergence {
        Divergence::Jsd { beta: 0.0 } | Divergence::SkewKl { alpha: 0.0 } => Divergence::ForwardKl,
        Divergence::Jsd { beta: 1.0 } => Divergence::ReverseKl,
        other => other,
    }
}

fn logits(stream: u64) -> Vec<f32> {
    random(ROWS * VOCAB, stream).iter().map(|x| 2.0 * x).collect()
}

/// The k largest of each row, their ids, and what the others amount to.
fn top_k(logits: &[f32], k: usize, temperature: f32) -> (Vec<u32>, Vec<f32>, Vec<f32>) {
    let rows = logits.len() / VOCAB;
    let (mut ids, mut top) = (vec![0; rows * k], vec![0.0; rows * k]);
    let each = logits.chunks(VOCAB).zip(ids.chunks_mut(k)).zip(top.chunks_mut(k));
    let log_rest = each.map(|((row, ids), top)| top_k_row(row, temperature, ids, top)).collect();
    (ids, top, log_rest)
}

/// Checks one kind of loss: its values, and its gradient by differences of the f64 `loss` of row i.
fn check(name: &str, weight: f32, run: &dyn Fn(&mut [f32], &mut [f32]), loss: &dyn Fn(usize, &[f64]) -> f64) {
    let student = logits(1);
    let (mut gradient, mut losses) = (student.clone(), vec![0.0; ROWS]);
    run(&mut gradient, &mut losses);
    let rows = || student.chunks(VOCAB).enumerate();
    close(name, &losses, &rows().map(|(i, row)| loss(i, &wide(row))).collect::<Vec<_>>(), 5e-6);
    let all: Vec<usize> = (0..VOCAB).collect();
    let expected = rows().flat_map(|(i, row)| differences(row, &all, &|row| loss(i, row)));
    close(name, &gradient, &expected.map(|g| g * f64::from(weight)).collect::<Vec<_>>(), 1e-5);
}

#[test]
fn hard_targets() {
    let targets = ids(ROWS, VOCAB, 5);
    let run = |x: &mut [f32], losses: &mut [f32]| cross_entropy(x, VOCAB, &targets, 0.25, losses).unwrap();
    check("cross-entropy", 0.25, &run, &|i, row| reference::cross_entropy(row, targets[i] as usize));
}

#[test]
fn dense_teachers() {
    let teacher = logits(2);
    for (divergence, temperature) in DIVERGENCES.into_iter().flat_map(|d| [1.0f32, 2.5, 0.5].map(|t| (d, t))) {
        let t = f64::from(temperature);
        let run = |x: &mut [f32], losses: &mut [f32]| {
            distill(x, VOCAB, &Teacher::Dense(&teacher), divergence, temperature, 0.5, losses).unwrap();
        };
        check(&format!("{divergence:?} at {temperature}"), 0.5, &run, &|i, row| {
            let p = reference::softmax(&wide(&teacher[i * VOCAB..][..VOCAB]), t);
            t * t * reference::divergence(&p, &reference::softmax(row, t), plain(divergence))
        });
    }
}

#[test]
fn top_k_teachers() {
    let teacher = logits(2);
    for (divergence, temperature) in DIVERGENCES.into_iter().flat_map(|d| [1.0f32, 2.5].map(|t| (d, t))) {
        for k in [1, 5, 16, 36] {
            let t = f64::from(temperature);
            let (ids, top, log_rest) = top_k(&teacher, k, temperature);
            let soft = Teacher::TopK { k, ids: &ids, logits: &top, log_rest: &log_rest };
            let run = |x: &mut [f32], losses: &mut [f32]| distill(x, VOCAB, &soft, divergence, temperature, 0.5, losses).unwrap();
            check(&format!("{divergence:?} at {temperature} of {k}"), 0.5, &run, &|i, row| {
                let p = reference::softmax(&wide(&teacher[i * VOCAB..][..VOCAB]), t);
                let merge = |p: &[f64]| reference::merged(p, &ids[i * k..][..k]);
                t * t * reference::divergence(&merge(&p), &merge(&reference::softmax(row, t)), plain(divergence))
            });
        }
    }
}

#[test]
fn a_top_k_of_everything_is_the_dense_teacher() {
    let teacher = logits(2);
    let (ids, top, log_rest) = top_k(&teacher, VOCAB, 2.0);
    for divergence in DIVERGENCES {
        let (mut a, mut a_losses) = (logits(1), vec![0.0; ROWS]);
        let (mut b, mut b_losses) = (logits(1), vec![0.0; ROWS]);
        let soft = Teacher::TopK { k: VOCAB, ids: &ids, logits: &top, log_rest: &log_rest };
        distill(&mut a, VOCAB, &Teacher::Dense(&teacher), divergence, 2.0, 1.0, &mut a_losses).unwrap();
        distill(&mut b, VOCAB, &soft, divergence, 2.0, 1.0, &mut b_losses).unwrap();
        close("loss", &a_losses, &wide(&b_losses), 3e-6);
        close("gradient", &a, &wide(&b), 3e-6);
    }
}

#[test]
fn merging_outcomes_never_raises_a_divergence() {
    let teacher = logits(2);
    for divergence in DIVERGENCES {
        let loss = |soft: &Teacher| {
            let mut losses = vec![0.0; ROWS];
            distill(&mut logits(1), VOCAB, soft, divergence, 1.0, 1.0, &mut losses).unwrap();
            losses
        };
        let full = loss(&Teacher::Dense(&teacher));
        for k in [1, 4, 20] {
            let (ids, top, log_rest) = top_k(&teacher, k, 1.0);
            let merged = loss(&Teacher::TopK { k, ids: &ids, logits: &top, log_rest: &log_rest });
            assert!(merged.iter().zip(&full).all(|(merged, full)| *merged <= full + 1e-5), "{divergence:?} {k}");
        }
    }
}

#[test]
fn mixes() {
    let (teacher, targets) = (logits(2), ids(ROWS, VOCAB, 5));
    for (ratio, temperature) in [(0.0, 1.0), (0.3, 2.0), (0.75, 1.0), (1.0, 3.0)] {
        let soft = Soft { teacher: Teacher::Dense(&teacher), divergence: Divergence::ForwardKl, temperature };
        let (r, t) = (f64::from(ratio), f64::from(temperature));
        let run = |x: &mut [f32], losses: &mut [f32]| mix(x, VOCAB, &targets, &soft, ratio, 0.5, losses).unwrap();
        check(&format!("mix {ratio} at {temperature}"), 0.5, &run, &|i, row| {
            let p = reference::softmax(&wide(&teacher[i * VOCAB..][..VOCAB]), t);
            let soft = t * t * reference::divergence(&p, &reference::softmax(row, t), Divergence::ForwardKl);
            (1.0 - r) * reference::cross_entropy(row, targets[i] as usize) + r * soft
        });
    }
}

#[test]
fn the_first_row_that_is_not_finite_is_named() {
    let targets = ids(ROWS, VOCAB, 5);
    for bad in [f32::NAN, f32::INFINITY, -f32::NAN] {
        let mut spoilt = logits(1);
        (spoilt[4 * VOCAB + 36], spoilt[9 * VOCAB]) = (bad, bad);
        let mut losses = vec![0.0; ROWS];
        let error = cross_entropy(&mut spoilt.clone(), VOCAB, &targets, 1.0, &mut losses).unwrap_err();
        assert_eq!((error.row, error.to_string().as_str()), (4, "row 4: the logits are not finite"));
        for divergence in DIVERGENCES {
            let clean = logits(2);
            let student = distill(&mut spoilt.clone(), VOCAB, &Teacher::Dense(&clean), divergence, 1.0, 1.0, &mut losses).unwrap_err();
            assert_eq!(student.to_string(), "row 4: the logits are not finite");
            let teacher = distill(&mut clean.clone(), VOCAB, &Teacher::Dense(&spoilt), divergence, 1.0, 1.0, &mut losses).unwrap_err();
            assert_eq!(teacher.to_string(), "row 4: the teacher's logits are not finite");
            let (ids, mut top, log_rest) = top_k(&clean, 3, 1.0);
            top[5 * 3 + 1] = bad;
            let soft = Teacher::TopK { k: 3, ids: &ids, logits: &top, log_rest: &log_rest };
            assert_eq!(distill(&mut clean.clone(), VOCAB, &soft, divergence, 1.0, 1.0, &mut losses).unwrap_err().row, 5);
        }
    }
    let nothing = cross_entropy(&mut [f32::NEG_INFINITY; VOCAB], VOCAB, &[0], 1.0, &mut [0.0]).unwrap_err();
    assert_eq!(nothing.row, 0);
}

#[test]
fn impossible_tokens_are_allowed() {
    // The teacher and the student exclude a token: 0 · ln 0 is 0.
    let (mut student, mut teacher) = (vec![0.5, -1.0, f32::NEG_INFINITY, 2.0], vec![1.0, 1.0, f32::NEG_INFINITY, f32::NEG_INFINITY]);
    let mut loss = [0.0];
    for divergence in [Divergence::ForwardKl, Divergence::Jsd { beta: 0.5 }, Divergence::SkewKl { alpha: 0.1 }] {
        let mut gradient = student.clone();
        distill(&mut gradient, 4, &Teacher::Dense(&teacher), divergence, 1.0, 1.0, &mut loss).unwrap();
        assert!(loss[0] > 0.0 && gradient.iter().all(|g| g.is_finite()) && gradient[2] == 0.0, "{divergence:?} {loss:?} {gradient:?}");
    }
    // What only the teacher excludes is infinitely far in the reverse divergence.
    let error = distill(&mut student, 4, &Teacher::Dense(&teacher), Divergence::ReverseKl, 1.0, 1.0, &mut loss).unwrap_err();
    assert_eq!(error.to_string(), "row 0: the divergence from the teacher is infinite");
    // A student far from a teacher's every known token still gets a finite gradient.
    teacher = vec![300.0, 0.0, 0.0, 0.0];
    let (mut id, mut top) = ([0], [0.0]);
    let log_rest = [top_k_row(&teacher, 1.0, &mut id, &mut top)];
    for divergence in DIVERGENCES {
        let mut gradient = vec![0.0, 300.0, 0.0, 0.0];
        let soft = Teacher::TopK { k: 1, ids: &id, logits: &top, log_rest: &log_rest };
        distill(&mut gradient, 4, &soft, divergence, 1.0, 1.0, &mut loss).unwrap();
        assert!(loss[0] > 0.0 && gradient.iter().all(|g| g.is_finite()), "{divergence:?} {gradient:?}");
    }
}

#[test]
fn log_softmax_and_the_largest() {
    let x = logits(3);
    let mut out = vec![0.0; VOCAB];
    log_softmax_row(&x[..VOCAB], &mut out);
    let expected: Vec<f64> = reference::softmax(&wide(&x[..VOCAB]), 1.0).iter().map(|p| math::ln64(*p)).collect();
    close("log softmax", &out, &expected, 1e-6);
    log_softmax_row(&[0.0, f32::NAN], &mut out[..2]);
    assert!(out[0].is_nan() && out[1].is_nan());

    let (mut ids, mut top) = ([0; 4], [0.0; 4]);
    assert!(top_k_row(&[1.0, 5.0, f32::NAN, 5.0, -2.0, 9.0], 1.0, &mut ids, &mut top).is_nan());
    assert_eq!((ids, top), ([5, 1, 3, 0], [9.0, 5.0, 5.0, 1.0]));
}
