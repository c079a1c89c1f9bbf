//! The divergence of one row from a teacher of whom the largest logits and the sum of the others are known.
//!
//! The k known tokens and "any other token" are k + 1 outcomes; the divergence is taken between the two distributions over these. It is a
//! lower bound of the full one (merging outcomes never raises an f-divergence), is zero only where the known probabilities agree,
//! and its gradient draws each known token to its *true* probability. Renormalising the teacher over its top k would instead teach the
//! student that all other tokens are impossible.

use std::cell::RefCell;

use super::Divergence;
use super::row::{BAD_LOGITS, BAD_TEACHER, term_v};
use crate::isa::{LANES, clones};
use crate::math::ln64;
use crate::reduce::fold;
use crate::softmax::{exp_row, log_softmax_v, sum_exp_v};

/// One row of a top-k teacher.
#[derive(Clone, Copy, Debug)]
pub struct Top<'a> {
    pub ids: &'a [u32],
    pub logits: &'a [f32],
    pub log_rest: f32,
}

/// Logarithms of the outcomes' probabilities: the known tokens, any other token, then impossible ones that fill whole vectors.
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
    OUTCOMES.with_borrow_mut(|Outcomes { log_p, log_q }| {
        let vectors = (top.ids.len() + 1).div_ceil(LANES);
        for list in [&mut *log_p, &mut *log_q] {
            list.clear();
            list.resize(vectors, [f32::NEG_INFINITY; LANES]);
        }
        let sum = student(row, top, log_q.as_flattened_mut(), scale)?;
        teacher(row.len(), top, log_p.as_flattened_mut(), scale)?;
        let loss = terms(log_p, log_q, divergence);
        spread(row, top, log_q.as_flattened(), sum, weight);
        Ok(loss)
    })
}

fn teacher(vocab: usize, top: &Top, log_p: &mut [f32], scale: f32) -> Result<(), &'static str> {
    for (log_p, logit) in log_p.iter_mut().zip(top.logits) {
        *log_p = logit * scale;
    }
    if top.ids.len() < vocab {
        log_p[top.ids.len()] = top.log_rest;
    }
    if log_softmax(log_p) { Ok(()) } else { Err(BAD_TEACHER) }
}

/// The row becomes the exponentials of the other tokens, 0 for the known ones; returns their sum.
fn student(row: &mut [f32], top: &Top, log_q: &mut [f32], scale: f32) -> Result<f32, &'static str> {
    for (log_q, id) in log_q.iter_mut().zip(top.ids) {
        let logit = &mut row[*id as usize];
        *log_q = *logit * scale;
        *logit = f32::NEG_INFINITY;
    }
    let sum = if row.iter().all(|x| *x == f32::NEG_INFINITY) {
        row.fill(0.0);
        1.0
    } else {
        let (max, sum) = exponentials(row, scale);
        log_q[top.ids.len()] = (f64::from(max) + ln64(f64::from(sum))) as f32;
        sum
    };
    if log_softmax(log_q) { Ok(sum) } else { Err(BAD_LOGITS) }
}

/// Writes the gradient: each known token its own, the others their shares of the one for "any other token".
fn spread(row: &mut [f32], top: &Top, slopes: &[f32], sum: f32, weight: f32) {
    let share = weight * slopes[top.ids.len()] / sum;
    for x in row.iter_mut() {
        *x *= share;
    }
    for (slope, id) in slopes.iter().zip(top.ids) {
        row[*id as usize] = weight * slope;
    }
}

clones! {
    fn log_softmax<S>(s, row: &mut [f32]) -> bool {
        log_softmax_v(s, row, 1.0).is_some()
    }

    fn exponentials<S>(s, row: &mut [f32], scale: f32) -> (f32, f32) {
        exp_row(s, row, scale)
    }

    fn sum_exp<S>(s, row: &[f32], scale: f32) -> (f32, f32) {
        sum_exp_v(s, row, scale)
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
}

/// One row of a top-k teacher: the `ids.len()` largest logits, the largest first, of equal ones the lower id; returns the row's
/// `log_rest`. NaN is never among the largest, but makes `log_rest` NaN.
pub fn top_k_row(logits: &[f32], temperature: f32, ids: &mut [u32], top: &mut [f32]) -> f32 {
    assert!(ids.len() == top.len() && ids.len() <= logits.len(), "top_k_row: shapes disagree");
    let value = |i: u32| if logits[i as usize].is_nan() { f32::NEG_INFINITY } else { logits[i as usize] };
    let order = |a: &u32, b: &u32| value(*b).total_cmp(&value(*a)).then(a.cmp(b));
    let mut all: Vec<u32> = (0..logits.len() as u32).collect();
    if ids.len() < all.len() {
        all.select_nth_unstable_by(ids.len(), order);
        all.truncate(ids.len());
    }
    all.sort_unstable_by(order);
    let mut rest = logits.to_vec();
    for ((id, top), i) in ids.iter_mut().zip(top).zip(all) {
        (*id, *top) = (i, logits[i as usize]);
        rest[i as usize] = f32::NEG_INFINITY;
    }
    if rest.iter().all(|x| *x == f32::NEG_INFINITY) {
        return f32::NEG_INFINITY;
    }
    let (max, sum) = sum_exp(&rest, 1.0 / temperature);
    (f64::from(max) + ln64(f64::from(sum))) as f32
}
