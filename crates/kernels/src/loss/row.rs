//! The losses of one row whose whole vocabulary is known.

use super::Divergence;
use crate::isa::{LANES, Simd, clones};
use crate::math::{exp_v, ln_v, ln64};
use crate::reduce::fold;
use crate::softmax::{exp_row, log_softmax_v};

pub const BAD_LOGITS: &str = "the logits are not finite";
pub const BAD_TEACHER: &str = "the teacher's logits are not finite";

/// One lane's share of a divergence: its term, the student's probability q, and q · ∂/∂q. 0 · ln 0 is 0.
#[inline(always)]
pub fn term_v<S: Simd>(s: S, divergence: Divergence, log_p: S::V, log_q: S::V) -> (S::V, S::V, S::V) {
    let zero = s.splat(0.0);
    let (p, q) = (exp_v(s, log_p), exp_v(s, log_q));
    let times = |weight: S::V, value: S::V| s.select_less(zero, weight, s.mul(weight, value), zero);
    let blend = |ratio: f32| s.fma(s.splat(ratio), p, s.mul(s.splat(1.0 - ratio), q));
    match divergence {
        Divergence::ForwardKl => (times(p, s.sub(log_p, log_q)), q, s.sub(zero, p)),
        Divergence::ReverseKl => {
            let term = times(q, s.sub(log_q, log_p));
            (term, q, term)
        }
        Divergence::Jsd { beta } => {
            let log_m = ln_v(s, blend(beta));
            let student = s.mul(s.splat(1.0 - beta), times(q, s.sub(log_q, log_m)));
            (s.fma(s.splat(beta), times(p, s.sub(log_p, log_m)), student), q, student)
        }
        Divergence::SkewKl { alpha } => {
            let m = blend(alpha);
            let slope = s.select_less(zero, m, s.div(s.mul(p, q), m), zero);
            (times(p, s.sub(log_p, ln_v(s, m))), q, s.mul(s.splat(alpha - 1.0), slope))
        }
    }
}

clones! {
    /// `out = ln softmax(logits)`. Rows that are not finite give NaN everywhere.
    pub fn log_softmax_row<S>(s, logits: &[f32], out: &mut [f32]) {
        out.copy_from_slice(logits);
        if log_softmax_v(s, out, 1.0).is_none() {
            out.fill(f32::NAN);
        }
    }

    /// The loss of one row; the row becomes weight · (softmax − one-hot).
    pub fn cross_entropy<S>(s, row: &mut [f32], target: usize, weight: f32) -> Result<f32, &'static str> {
        let logit = row[target];
        let (max, sum) = exp_row(s, row, 1.0);
        let loss = (ln64(f64::from(sum)) + (f64::from(max) - f64::from(logit))) as f32;
        if !loss.is_finite() {
            return Err(BAD_LOGITS);
        }
        let scale = weight / sum;
        for x in row.iter_mut() {
            *x *= scale;
        }
        row[target] -= weight;
        Ok(loss)
    }

    /// The divergence of one row from the teacher's; the row becomes `weight` times its gradient with respect to the scaled logits.
    pub fn dense<S>(
        s,
        row: &mut [f32],
        teacher: &[f32],
        log_p: &mut [f32],
        divergence: Divergence,
        scale: f32,
        weight: f32,
    ) -> Result<f32, &'static str> {
        log_p.copy_from_slice(teacher);
        log_softmax_v(s, log_p, scale).ok_or(BAD_TEACHER)?;
        log_softmax_v(s, row, scale).ok_or(BAD_LOGITS)?;
        let (ps, p_rest) = log_p.as_chunks::<LANES>();
        let (qs, q_rest) = row.as_chunks_mut::<LANES>();
        let p_last = s.load_part(p_rest, f32::NEG_INFINITY);
        let q_last = s.load_part(q_rest, f32::NEG_INFINITY);
        let (mut loss, mut slope) = (s.splat(0.0), s.splat(0.0));
        for (p, q) in ps.iter().zip(qs.iter()) {
            let (term, _, q_slope) = term_v(s, divergence, s.load(p), s.load(q));
            (loss, slope) = (s.add(loss, term), s.add(slope, q_slope));
        }
        let (term, q, q_slope) = term_v(s, divergence, p_last, q_last);
        let loss = fold(s.to_array(s.add(loss, term)));
        let slope = s.splat(-fold(s.to_array(s.add(slope, q_slope))));
        // d/du_j = q_j · (g_j − Σ q·g), with g = ∂/∂q.
        let weight = s.splat(weight);
        s.store_part(s.mul(weight, s.fma(q, slope, q_slope)), q_rest);
        for (p, q) in ps.iter().zip(qs) {
            let (_, student, q_slope) = term_v(s, divergence, s.load(p), s.load(q));
            s.store(s.mul(weight, s.fma(student, slope, q_slope)), q);
        }
        Ok(loss)
    }
}
