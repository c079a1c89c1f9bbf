//! Losses over rows of logits: cross-entropy, divergences from a teacher, and mixes of both.
//!
//! One row is one scored token. Every function returns each row's loss in nats, unweighted, and replaces the row's logits by
//! `weight · dLoss/dlogits`. A value that is not finite is an error that names the first bad row; the logits are then spoilt.

mod row;
mod topk;

use std::cell::RefCell;

use rayon::prelude::*;

pub use row::log_softmax_row;
pub use topk::top_k_row;

/// Rows of one task.
const GROUP_ROWS: usize = 8;

/// How far the student's distribution is from the teacher's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divergence {
    /// KL(teacher ‖ student).
    ForwardKl,
    /// KL(student ‖ teacher).
    ReverseKl,
    /// β·KL(teacher ‖ m) + (1−β)·KL(student ‖ m), m = β·teacher + (1−β)·student (Agarwal et al., "On-policy distillation", 2024). As
    /// there, β = 0 means the forward and β = 1 the reverse KL, to which it tends after division by β and by 1−β.
    Jsd { beta: f32 },
    /// KL(teacher ‖ α·teacher + (1−α)·student) (Ko et al., "DistiLLM", 2024). α = 0 is the forward KL.
    SkewKl { alpha: f32 },
}

impl Divergence {
    /// The end points of the families are the plain divergences.
    fn plain(self) -> Divergence {
        match self {
            Divergence::Jsd { beta: 0.0 } | Divergence::SkewKl { alpha: 0.0 } => Divergence::ForwardKl,
            Divergence::Jsd { beta: 1.0 } => Divergence::ReverseKl,
            other => other,
        }
    }
}

/// What is known of the teacher's distribution.
#[derive(Clone, Copy, Debug)]
pub enum Teacher<'a> {
    /// All logits, rows × vocab.
    Dense(&'a [f32]),
    /// The `k` largest logits of each row (rows × k, raw) with their distinct ids, and `log_rest`: one number a row, ln Σ exp(logit / T)
    /// over all *other* tokens at the temperature T of the loss, −∞ if there are none. [`top_k_row`] gives all three. The teacher's true
    /// probabilities are therefore known; the others are one further outcome, "any other token", for teacher and student alike.
    TopK { k: usize, ids: &'a [u32], logits: &'a [f32], log_rest: &'a [f32] },
}

/// Teacher, divergence and temperature of a distillation loss.
#[derive(Clone, Copy, Debug)]
pub struct Soft<'a> {
    pub teacher: Teacher<'a>,
    pub divergence: Divergence,
    pub temperature: f32,
}

/// A row whose loss is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("row {row}: {what}")]
pub struct NotFinite {
    pub row: usize,
    pub what: &'static str,
}

/// −ln softmax(logits)[target]. `targets` are below `vocab`.
pub fn cross_entropy(logits: &mut [f32], vocab: usize, targets: &[u32], weight: f32, losses: &mut [f32]) -> Result<(), NotFinite> {
    assert_eq!(targets.len(), losses.len(), "cross_entropy: shapes disagree");
    each_row(logits, vocab, losses, |i, row| row::cross_entropy(row, targets[i] as usize, weight))
}

/// T² times the divergence of softmax(student / T) from softmax(teacher / T); the factor keeps the size of the gradient (Hinton et al., 2015).
pub fn distill(
    student_logits: &mut [f32],
    vocab: usize,
    teacher: &Teacher,
    divergence: Divergence,
    temperature: f32,
    weight: f32,
    losses: &mut [f32],
) -> Result<(), NotFinite> {
    let soft = Soft { teacher: *teacher, divergence: divergence.plain(), temperature };
    check(&soft, vocab, losses.len());
    each_row(student_logits, vocab, losses, |i, row| soft_row(row, i, &soft, weight))
}

/// (1 − kd_ratio) · cross-entropy + kd_ratio · [`distill`], in one pass. A part with factor 0 is not computed.
pub fn mix(
    student_logits: &mut [f32],
    vocab: usize,
    targets: &[u32],
    soft: &Soft,
    kd_ratio: f32,
    weight: f32,
    losses: &mut [f32],
) -> Result<(), NotFinite> {
    assert!((0.0..=1.0).contains(&kd_ratio), "mix: kd_ratio {kd_ratio} is not from 0 to 1");
    assert_eq!(targets.len(), losses.len(), "mix: shapes disagree");
    let hard_ratio = 1.0 - kd_ratio;
    if kd_ratio == 0.0 {
        return cross_entropy(student_logits, vocab, targets, weight, losses);
    }
    if hard_ratio == 0.0 {
        return distill(student_logits, vocab, &soft.teacher, soft.divergence, soft.temperature, weight, losses);
    }
    let soft = Soft { divergence: soft.divergence.plain(), ..*soft };
    check(&soft, vocab, losses.len());
    each_row(student_logits, vocab, losses, |i, row| {
        HARD.with_borrow_mut(|hard| {
            hard.clear();
            hard.extend_from_slice(row);
            let hard_loss = row::cross_entropy(hard, targets[i] as usize, weight * hard_ratio)?;
            let soft_loss = soft_row(row, i, &soft, weight * kd_ratio)?;
            for (x, y) in row.iter_mut().zip(hard.iter()) {
                *x += *y;
            }
            Ok(hard_ratio * hard_loss + kd_ratio * soft_loss)
        })
    })
}

thread_local! {
    static HARD: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    static TEACHER: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

fn check(soft: &Soft, vocab: usize, rows: usize) {
    assert!(soft.temperature > 0.0 && soft.temperature.is_finite(), "distill: temperature {}", soft.temperature);
    if let Divergence::Jsd { beta: ratio } | Divergence::SkewKl { alpha: ratio } = soft.divergence {
        assert!((0.0..1.0).contains(&ratio), "distill: {:?} needs a ratio below 1", soft.divergence);
    }
    match soft.teacher {
        Teacher::Dense(logits) => assert_eq!(logits.len(), rows * vocab, "distill: teacher logits"),
        Teacher::TopK { k, ids, logits, log_rest } => {
            assert!(k > 0 && k <= vocab, "distill: top {k} of {vocab}");
            assert!(ids.len() == rows * k && logits.len() == rows * k && log_rest.len() == rows, "distill: top-k shapes disagree");
        }
    }
}

/// One row's divergence, by the kind of teacher; `weight` still lacks the factor T² / T of the gradient.
fn soft_row(row: &mut [f32], i: usize, soft: &Soft, weight: f32) -> Result<f32, &'static str> {
    let t = soft.temperature;
    let loss = match soft.teacher {
        Teacher::Dense(logits) => TEACHER.with_borrow_mut(|log_p| {
            log_p.resize(row.len(), 0.0);
            row::dense(row, &logits[i * row.len()..(i + 1) * row.len()], log_p, soft.divergence, 1.0 / t, weight * t)
        }),
        Teacher::TopK { k, ids, logits, log_rest } => {
            let top = topk::Top { ids: &ids[i * k..(i + 1) * k], logits: &logits[i * k..(i + 1) * k], log_rest: log_rest[i] };
            topk::loss(row, &top, soft.divergence, 1.0 / t, weight * t)
        }
    }?;
    let loss = loss * t * t;
    if loss.is_finite() { Ok(loss) } else { Err("the divergence from the teacher is infinite") }
}

/// Runs `f` on every row in parallel; of several bad rows the first is reported.
fn each_row(
    logits: &mut [f32],
    vocab: usize,
    losses: &mut [f32],
    f: impl Fn(usize, &mut [f32]) -> Result<f32, &'static str> + Sync,
) -> Result<(), NotFinite> {
    assert!(vocab > 0 && logits.len() == losses.len() * vocab, "loss: {} logits are not {} rows of {vocab}", logits.len(), losses.len());
    let groups = logits.par_chunks_mut(GROUP_ROWS * vocab).zip(losses.par_chunks_mut(GROUP_ROWS)).enumerate();
    let bad = groups.filter_map(|(group, (logits, losses))| {
        let rows = logits.chunks_exact_mut(vocab).zip(losses).enumerate();
        rows.map(|(i, (row, loss))| (group * GROUP_ROWS + i, row, loss))
            .find_map(|(i, row, loss)| f(i, row).map(|x| *loss = x).err().map(|what| NotFinite { row: i, what }))
    });
    match bad.min_by_key(|bad| bad.row) {
        Some(bad) => Err(bad),
        None => Ok(()),
    }
}
