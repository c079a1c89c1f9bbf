//! The divergence of one row from a teacher of whom the largest logits and the normaliser are known.
//!
//! The k known tokens and "any other token" are k + 1 outcomes; the divergence is taken between the two distributions over these. It is a
//! lower bound of the full one (merging outcomes never raises an f-divergence), is zero only where the known probabilities agree,
//! and its gradient draws each known token to its *true* probability. Renormalising the teacher over its top k would instead teach the
//! student that all other tokens are impossible.

use std::cell::RefCell;

use super::Divergence;
use super::row::{BAD_LOGITS, BAD_TEACHER, term_v};
use crate::kernels::isa::{LANES, clones};
use crate::kernels::math::{exp, ln64};
use crate::kernels::reduce::fold;
use crate::kernels::softmax::{exp_shifted, log_softmax_v, sum_exp_v};

/// One row of a top-k teacher.
#[derive(Clone, Copy, Debug)]
pub struct Top<'a> {
    pub ids: &'a [u32],
    pub logits: &'a [f32],
    pub log_norm: f32,
}

/// The least mass of the teacher's "any other token": what f32 can tell from none.
const LEAST_REST: f64 = 1.0 / (1u64 << 24) as f64;
/// How far above 1 rounding may take the sum of the teacher's known probabilities.
const MASS_SLACK: f64 = 1e-3;

/// The outcomes of one row, padded to whole vectors with impossible ones.
#[derive(Default)]
struct Outcomes {
    log_p: Vec<[f32; LANES]>,
    log_q: Vec<[f32; LANES]>,
}

thread_local! {
    static OUTCOMES: RefCell<Outcomes> = RefCell::default();
}

/// Replaces `row` by `weight` times the gradient with respect to the scaled logits.
pub fn loss(row: &mut [f32], top: &Top, divergence: Divergence, scale: f32, weight: f32) -> Result<f32, &'static str> {
    OUTCOMES.with_borrow_mut(|outcomes| {
        let vectors = (top.ids.len() + 1).div_ceil(LANES);
        for list in [&mut outcomes.log_p, &mut outcomes.log_q] {
            list.clear();
            list.resize(vectors, [f32::NEG_INFINITY; LANES]);
        }
        let rest = student(row, top, outcomes.log_q.as_flattened_mut(), scale)?;
        teacher(row.len(), top, outcomes.log_p.as_flattened_mut(), scale)?;
        let loss = terms(&mut outcomes.log_p, &mut outcomes.log_q, divergence);
        gradient(row, top, outcomes, rest, weight);
        Ok(loss)
    })
}

/// Logarithms of the teacher's outcomes.
fn teacher(vocab: usize, top: &Top, log_p: &mut [f32], scale: f32) -> Result<(), &'static str> {
    let mut mass = 0.0;
    for (log_p, logit) in log_p.iter_mut().zip(top.logits) {
        *log_p = logit * scale - top.log_norm;
        mass += f64::from(exp(*log_p));
    }
    if !mass.is_finite() {
        return Err(BAD_TEACHER);
    }
    if mass > 1.0 + MASS_SLACK {
        return Err("the teacher's largest probabilities add up to more than 1");
    }
    if top.ids.len() < vocab {
        log_p[top.ids.len()] = ln64((1.0 - mass).max(LEAST_REST)) as f32;
    }
    Ok(())
}

/// Logarithms of the student's outcomes. The row becomes the student's probabilities, 0 for the known tokens; returns the sum of the others.
fn student(row: &mut [f32], top: &Top, log_q: &mut [f32], scale: f32) -> Result<f32, &'static str> {
    if !log_softmax_in_place(row, scale) {
        return Err(BAD_LOGITS);
    }
    for (log_q, id) in log_q.iter_mut().zip(top.ids) {
        let logit = &mut row[*id as usize];
        *log_q = *logit;
        *logit = f32::NEG_INFINITY;
    }
    let rest = exp_in_place(row).max(f32::MIN_POSITIVE);
    if top.ids.len() < row.len() {
        log_q[top.ids.len()] = ln64(f64::from(rest)) as f32;
    }
    Ok(rest)
}

/// Writes the gradient from `log_q`'s place, which now holds it for each outcome.
fn gradient(row: &mut [f32], top: &Top, outcomes: &Outcomes, rest: f32, weight: f32) {
    let slopes = outcomes.log_q.as_flattened();
    let other = weight * (slopes[top.ids.len().min(slopes.len() - 1)] / rest);
    for x in row.iter_mut() {
        *x *= other;
    }
    for (slope, id) in slopes.iter().zip(top.ids) {
        row[*id as usize] = weight * slope;
    }
}

clones! {
    fn log_softmax_in_place<S>(s, row: &mut [f32], scale: f32) -> bool {
        log_softmax_v(s, row, scale).is_some()
    }

    /// Replaces the row by its exponentials and returns their sum.
    fn exp_in_place<S>(s, row: &mut [f32]) -> f32 {
        exp_shifted(s, row, 1.0, 0.0)
    }

    /// The divergence; `log_q` becomes q · (g − Σ q·g) for each outcome.
    fn terms<S>(s, log_p: &mut [[f32; LANES]], log_q: &mut [[f32; LANES]], divergence: Divergence) -> f32 {
        let (mut loss, mut slope) = (s.splat(0.0), s.splat(0.0));
        for (log_p, log_q) in log_p.iter_mut().zip(log_q.iter_mut()) {
            let (term, q, q_slope) = term_v(s, divergence, s.load(log_p), s.load(log_q));
            (loss, slope) = (s.add(loss, term), s.add(slope, q_slope));
            s.store(q, log_q);
            s.store(q_slope, log_p);
        }
        let slope = s.splat(-fold(s.to_array(slope)));
        for (q_slope, q) in log_p.iter().zip(log_q) {
            s.store(s.fma(s.load(q), slope, s.load(q_slope)), q);
        }
        fold(s.to_array(loss))
    }

    fn sum_exp<S>(s, row: &[f32], scale: f32) -> (f32, f32) {
        sum_exp_v(s, row, scale)
    }
}

/// ln Σ exp(logit / temperature): the `log_norm` of a top-k teacher. Not finite if the logits are not.
pub fn log_norm_row(logits: &[f32], temperature: f32) -> f32 {
    let (max, sum) = sum_exp(logits, 1.0 / temperature);
    (f64::from(max) + ln64(f64::from(sum))) as f32
}

/// The `ids.len()` largest logits, the largest first, of equal ones the lower id; NaN counts as −∞.
pub fn top_k_row(logits: &[f32], ids: &mut [u32], top: &mut [f32]) {
    assert!(ids.len() == top.len() && ids.len() <= logits.len(), "top_k_row: shapes disagree");
    let value = |i: u32| if logits[i as usize].is_nan() { f32::NEG_INFINITY } else { logits[i as usize] };
    let order = |a: &u32, b: &u32| value(*b).total_cmp(&value(*a)).then(a.cmp(b));
    let mut all: Vec<u32> = (0..logits.len() as u32).collect();
    if ids.len() < all.len() {
        all.select_nth_unstable_by(ids.len(), order);
        all.truncate(ids.len());
    }
    all.sort_unstable_by(order);
    for ((id, top), i) in ids.iter_mut().zip(top).zip(all) {
        (*id, *top) = (i, logits[i as usize]);
    }
}
