//! The training loop: batch → gradient → clipped AdamW step, validation, early stopping, checkpoints. What the loss is, the caller says.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use super::checkpoint;
use super::data::Order;
use super::memory::Estimate;
use super::settings::Training;
use super::state::{Best, Point, State};
use crate::kernels::loss::{NotFinite, cross_entropy};
use crate::kernels::optim::{AdamW, adamw, sum_squares};
use crate::kernels::pages;
use crate::model::decoder::{Batch, Decoder, Keep, Load};
use crate::model::sparse::Mask;
use crate::model::weights::Layout;
use crate::model::{Adapter, Config, Example, ModelError, Weights};
use crate::steps::{Failure, Io};

/// Rows of one validation pass.
const VALIDATION_ROWS: usize = 8192;

/// What a model is trained to do with the logits of its examples.
pub trait Objective {
    /// The examples of the next batch, in order, and the batch that they make.
    fn begin(&mut self, _examples: &[usize], _batch: &Batch) -> Result<(), Failure> {
        Ok(())
    }

    /// The losses of some of the batch's scored tokens; `logits` become `weight` times their gradient.
    fn loss(&mut self, rows: Range<usize>, logits: &mut [f32], targets: &[u32], weight: f32, losses: &mut [f32]) -> Result<(), ModelError>;

    /// Bytes that it holds for a batch.
    fn bytes(&self, _batch: Load) -> u64 {
        0
    }
}

/// Foretell the next token.
#[derive(Debug)]
pub struct NextToken {
    pub vocab_size: usize,
}

impl Objective for NextToken {
    fn loss(&mut self, _: Range<usize>, logits: &mut [f32], targets: &[u32], weight: f32, losses: &mut [f32]) -> Result<(), ModelError> {
        cross_entropy(logits, self.vocab_size, targets, weight, losses).map_err(not_finite)
    }
}

/// What a training changes, and where it begins.
pub enum Learns<'a> {
    /// All of a model's weights.
    All(Weights),
    /// An adapter, beside weights that stay as they are.
    Adapter(&'a Weights, Adapter),
}

pub struct Job<'a> {
    pub config: &'a Config,
    pub learns: Learns<'a>,
    /// Weights that are zero and stay so, where all learn.
    pub mask: Option<&'a Mask>,
    pub settings: &'a Training,
    pub examples: &'a [Example],
    pub validation: &'a [Example],
    pub objective: &'a mut dyn Objective,
}

/// Trains, from a checkpoint if there is one. The result is the same either way.
pub fn train(job: Job, io: &Io) -> Result<State, Failure> {
    let (frozen, Weights { layout, data }, decoder) = match job.learns {
        Learns::All(weights) => (None, weights, Decoder::new(job.config)?),
        Learns::Adapter(base, adapter) => {
            let decoder = Decoder::with_adapter(job.config, &adapter)?;
            (Some(base), adapter.weights, decoder)
        }
    };
    let parameters = data.len();
    Estimate::of(parameters, &decoder, job.settings, (job.examples, job.validation), &*job.objective).check(job.settings)?;
    let state = match checkpoint::load(&io.checkpoint, parameters) {
        Ok(Some(state)) => {
            io.say(format!("going on after step {}", state.step));
            state
        }
        Ok(None) => State::new(data),
        Err(why) => {
            io.say(format!("the checkpoint is not used: {why}"));
            State::new(data)
        }
    };
    let mut run = Run {
        decoder,
        frozen,
        gradient: pages::zeros(parameters),
        order: Order::new(job.examples.len(), job.settings.batch_size, job.settings.seed),
        chosen: Vec::with_capacity(job.settings.batch_size),
        rows: Rows::default(),
        note: String::new(),
        layout,
        state,
        mask: job.mask,
        config: job.config,
        settings: job.settings,
        examples: job.examples,
        validation: job.validation,
        objective: job.objective,
    };
    run.steps(io)?;
    Ok(run.state)
}

/// A batch as the decoder takes it, and the tokens that are to be foretold.
#[derive(Debug, Default)]
pub struct Rows {
    pub batch: Batch,
    pub targets: Vec<u32>,
    losses: Vec<f32>,
}

impl Rows {
    pub fn clear(&mut self) {
        self.batch.clear();
        self.targets.clear();
    }

    pub fn push(&mut self, example: &Example) {
        let last = example.tokens.len().saturating_sub(1);
        for scored in &example.scored {
            self.batch.want(scored.start - 1..scored.end - 1);
            self.targets.extend_from_slice(&example.tokens[scored.clone()]);
        }
        self.batch.push(&example.tokens[..last], 0..0);
    }
}

struct Run<'a> {
    config: &'a Config,
    settings: &'a Training,
    examples: &'a [Example],
    validation: &'a [Example],
    objective: &'a mut dyn Objective,
    decoder: Decoder,
    /// The model's own weights, if only an adapter learns.
    frozen: Option<&'a Weights>,
    /// Of what learns.
    layout: Arc<Layout>,
    mask: Option<&'a Mask>,
    state: State,
    gradient: Vec<f32>,
    order: Order,
    chosen: Vec<usize>,
    rows: Rows,
    note: String,
}

impl Run<'_> {
    fn steps(&mut self, io: &Io) -> Result<(), Failure> {
        let settings = self.settings;
        let mut saved = self.state.step;
        while self.state.step < settings.max_steps && !self.is_over() {
            if io.cancel.is_cancelled() && saved < self.state.step {
                checkpoint::save(&io.checkpoint, &self.state)?;
            }
            io.check_cancelled()?;
            let loss = self.step()?;
            if self.state.step.is_multiple_of(settings.eval_steps) || self.state.step == settings.max_steps {
                self.point(io)?;
            }
            self.note.clear();
            let _ = write!(self.note, "loss {loss:.3}");
            io.progress(self.state.step, settings.max_steps, "steps", &self.note);
            if self.state.step.is_multiple_of(settings.checkpoint_steps) && self.state.step < settings.max_steps {
                checkpoint::save(&io.checkpoint, &self.state)?;
                saved = self.state.step;
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let patience = self.settings.early_stopping_patience;
        patience > 0 && self.state.stale >= patience
    }

    /// One step of the optimizer; the batch's mean loss.
    fn step(&mut self) -> Result<f64, Failure> {
        let step = self.state.step + 1;
        self.order.batch(step, &mut self.chosen);
        self.rows.clear();
        for index in &self.chosen {
            self.rows.push(&self.examples[*index]);
        }
        let at = |error: ModelError| match error {
            ModelError::NotFinite(what) => diverged(step, &what),
            other => Failure::from(other),
        };
        let Rows { batch, targets, losses } = &mut self.rows;
        self.objective.begin(&self.chosen, batch)?;
        let weight = 1.0 / targets.len() as f32;
        let objective = &mut *self.objective;
        let (weights, adapter) = numbers(self.frozen, &self.state.weights);
        self.decoder.forward_adapted(weights, adapter, batch, self.settings.keep()).map_err(at)?;
        let sum = self.decoder.backward_adapted(weights, adapter, batch, &mut self.gradient, &mut |rows, logits| {
            losses.resize(rows.len(), 0.0);
            objective.loss(rows.clone(), logits, &targets[rows], weight, losses)?;
            Ok(losses.iter().map(|loss| f64::from(*loss)).sum())
        });
        let loss = sum.map_err(at)? / targets.len() as f64;
        if !loss.is_finite() {
            return Err(diverged(step, "the loss"));
        }
        let tokens = targets.len() as u64;
        // Without a gradient, a weight that is zero stays zero.
        self.mask.into_iter().for_each(|mask| mask.clear(&mut self.gradient));
        self.update(step)?;
        self.state.step = step;
        self.state.tokens += tokens;
        self.state.sum += loss;
        self.state.sum_steps += 1;
        Ok(loss)
    }

    /// Clips the gradient by its global norm and lets AdamW take its step. Sums are taken tensor by tensor, in order.
    fn update(&mut self, step: u64) -> Result<(), Failure> {
        let settings = self.settings;
        let mut total = 0.0;
        for tensor in &self.layout.tensors {
            let squares = sum_squares(&self.gradient[tensor.range.clone()]);
            if !squares.is_finite() {
                return Err(diverged(step, &format!("the gradient of `{}`", tensor.name)));
            }
            total += squares;
        }
        let norm = total.sqrt();
        let clipped = settings.max_grad_norm > 0.0 && norm > settings.max_grad_norm;
        let gradient_scale = if clipped { (settings.max_grad_norm / norm) as f32 } else { 1.0 };
        let State { weights, first, second, .. } = &mut self.state;
        for tensor in &self.layout.tensors {
            let decay = if tensor.shape.len() == 1 { 0.0 } else { settings.weight_decay };
            let rule = AdamW {
                learning_rate: settings.schedule().at(step),
                beta1: settings.adam_beta1 as f32,
                beta2: settings.adam_beta2 as f32,
                eps: settings.adam_epsilon as f32,
                weight_decay: decay as f32,
                gradient_scale,
            };
            let range = tensor.range.clone();
            let gradient = &self.gradient[range.clone()];
            adamw(&mut weights[range.clone()], gradient, &mut first[range.clone()], &mut second[range], step, &rule);
        }
        Ok(())
    }

    /// A point of the curve, with a validation if there is data for one.
    fn point(&mut self, io: &Io) -> Result<(), Failure> {
        let validation_loss = if self.validation.is_empty() { None } else { Some(self.validate()?) };
        let step = self.state.step;
        if let Some(loss) = validation_loss {
            let best = self.state.best.as_ref().map_or(f64::INFINITY, |best| best.loss);
            if loss < best {
                let weights = match self.state.best.take() {
                    Some(mut best) => {
                        best.weights.copy_from_slice(&self.state.weights);
                        best.weights
                    }
                    None => self.state.weights.clone(),
                };
                self.state.best = Some(Best { step, loss, weights });
                self.state.stale = 0;
            } else {
                self.state.stale += 1;
            }
        }
        let loss = self.state.sum / self.state.sum_steps.max(1) as f64;
        let learning_rate = self.settings.schedule().at(step);
        self.state.curve.push(Point { step, loss, validation_loss, learning_rate });
        (self.state.sum, self.state.sum_steps) = (0.0, 0);
        let note = validation_loss.map_or(String::new(), |loss| format!(", validation {loss:.4}"));
        io.say(format!("step {step}: loss {loss:.4}{note}"));
        Ok(())
    }

    /// Mean cross-entropy per scored token of the validation examples, in nats.
    fn validate(&mut self) -> Result<f64, Failure> {
        let (mut sum, mut count, mut next) = (0.0, 0u64, 0);
        let (step, vocab) = (self.state.step, self.config.vocab_size);
        while next < self.validation.len() {
            self.rows.clear();
            while let Some(example) = self.validation.get(next) {
                if self.rows.batch.rows() > 0 && self.rows.batch.rows() + example.tokens.len() > VALIDATION_ROWS {
                    break;
                }
                self.rows.push(example);
                next += 1;
            }
            let Rows { batch, targets, losses } = &mut self.rows;
            count += targets.len() as u64;
            let (weights, adapter) = numbers(self.frozen, &self.state.weights);
            self.decoder.forward_adapted(weights, adapter, batch, Keep::Nothing)?;
            let of = self.decoder.logits(weights, &mut |rows, logits| {
                losses.resize(rows.len(), 0.0);
                cross_entropy(logits, vocab, &targets[rows], 0.0, losses).map_err(not_finite)?;
                sum += losses.iter().map(|loss| f64::from(*loss)).sum::<f64>();
                Ok(())
            });
            of.map_err(|error| match error {
                ModelError::NotFinite(what) => diverged(step, &format!("{what} of the validation")),
                other => Failure::from(other),
            })?;
        }
        Ok(sum / count as f64)
    }
}

/// What the largest pass of a validation holds.
pub(super) fn validation_load(examples: &[Example]) -> Load {
    let rows = |example: &Example| example.tokens.len();
    let longest = examples.iter().map(rows).max().unwrap_or(0);
    let most = examples.iter().map(rows).sum::<usize>().min(longest.max(VALIDATION_ROWS));
    Load { rows: most, wanted: most }
}

/// The model's weights and its adapter's, of which one learns.
fn numbers<'a>(frozen: Option<&'a Weights>, learned: &'a Vec<f32>) -> (&'a Vec<f32>, &'a [f32]) {
    match frozen {
        Some(weights) => (&weights.data, learned),
        None => (learned, &[]),
    }
}

/// A loss that is NaN or infinite; the training step is added where it is known.
pub fn not_finite(error: NotFinite) -> ModelError {
    ModelError::NotFinite(format!("the loss (scored token {}: {})", error.row, error.what))
}

fn diverged(step: u64, what: &str) -> Failure {
    Failure::new(format!("training diverged at step {step}: {what} is not a finite number"))
        .help("lower `learning_rate`, lengthen the warm-up, or set `max_grad_norm`")
}
