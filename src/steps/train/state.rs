//! All that a training changes while it runs, and all that a resumed one needs.

use serde::Serialize;

use crate::kernels::pages;

#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Steps done.
    pub step: u64,
    pub weights: Vec<f32>,
    /// AdamW's moments.
    pub first: Vec<f32>,
    pub second: Vec<f32>,
    pub best: Option<Best>,
    /// Validations since the best one.
    pub stale: u64,
    /// Of the losses since the curve's last point.
    pub sum: f64,
    pub sum_steps: u64,
    /// Tokens that a loss was taken on.
    pub tokens: u64,
    pub curve: Vec<Point>,
}

/// The weights with the lowest validation loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Best {
    pub step: u64,
    pub loss: f64,
    pub weights: Vec<f32>,
}

/// A point of the loss curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    pub step: u64,
    /// Mean of the batches since the point before, in nats per token.
    pub loss: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
    pub learning_rate: f32,
}

impl State {
    pub fn new(weights: Vec<f32>) -> State {
        let zeros = || pages::zeros(weights.len());
        State {
            step: 0,
            first: zeros(),
            second: zeros(),
            weights,
            best: None,
            stale: 0,
            sum: 0.0,
            sum_steps: 0,
            tokens: 0,
            curve: Vec::new(),
        }
    }
}
