//! What packing a matrix costs: the divergence of the model in which only that matrix is packed, and how much of the matrix each type loses.

use std::ops::Range;

use crate::base::memory;
use crate::kernels::gemm::Write;
use crate::kernels::packed::{Packed, matmul_packed};
use crate::kernels::{Divergence, Teacher, distill};
use crate::model::decoder::{Batch, Decoder, Keep, Pairs, Place, Tensors};
use crate::model::imatrix::Window;
use crate::model::quant::{BlockType, dequantize, quantize_into};
use crate::model::{Model, ModelError, Stored};

/// Values of a matrix that are unpacked at once, unless a row has more.
const PIECE: usize = 1 << 17;

/// Mean divergence, over the tokens of some windows, of packed models from the one in the file.
pub struct Probe<'a> {
    model: &'a Model<Stored>,
    decoder: Decoder,
    batch: Batch,
    /// The model's own logits, tokens × vocabulary.
    logits: Vec<f32>,
}

impl<'a> Probe<'a> {
    pub fn new(model: &'a Model<Stored>, windows: &[Window]) -> Result<Probe<'a>, ModelError> {
        let mut probe = Probe { model, decoder: Decoder::new(&model.config)?, batch: Batch::default(), logits: Vec::new() };
        windows.iter().for_each(|window| probe.batch.push(window, 0..window.len()));
        let numbers = probe.batch.rows() as u64 * model.config.vocab_size as u64;
        memory::check(numbers.saturating_mul(4), &format!("the logits of the probe's {} tokens", probe.batch.rows()))?;
        let mut logits = Vec::new();
        rayon::scope(|_| {
            probe.decoder.forward(&model.weights, &probe.batch, Keep::Nothing)?;
            probe.decoder.logits(&model.weights, &mut |_, chunk| {
                logits.extend_from_slice(chunk);
                Ok(())
            })
        })?;
        probe.logits = logits;
        Ok(probe)
    }

    pub fn tokens(&self) -> u64 {
        self.batch.rows() as u64
    }

    /// In nats a token.
    pub fn divergence(&mut self, weights: &dyn Tensors) -> Result<f64, ModelError> {
        let Probe { model, decoder, batch, logits } = self;
        let vocab = model.config.vocab_size;
        let mut total = 0.0;
        rayon::scope(|_| {
            decoder.forward(weights, batch, Keep::Nothing)?;
            decoder.logits(weights, &mut |rows: Range<usize>, chunk| {
                let mut losses = vec![0.0; rows.len()];
                let theirs = Teacher::Dense(&logits[rows.start * vocab..rows.end * vocab]);
                distill(chunk, vocab, &theirs, Divergence::ForwardKl, 1.0, 1.0, &mut losses)
                    .map_err(|error| ModelError::Input(error.to_string()))?;
                total += losses.iter().map(|loss| f64::from(*loss)).sum::<f64>();
                Ok(())
            })
        })?;
        // Rounding can leave a zero divergence a hair below zero.
        Ok((total / batch.rows().max(1) as f64).max(0.0))
    }
}

/// A model one matrix of which is another.
pub struct Altered<'a> {
    pub weights: &'a Stored,
    pub index: usize,
    pub matrix: Packed<'a>,
}

impl Tensors for Altered<'_> {
    fn rows(&self, place: &Place, ids: &[u32], out: &mut [f32]) {
        if place.index != self.index {
            return self.weights.rows(place, ids, out);
        }
        for (id, out) in ids.iter().zip(out.chunks_exact_mut(self.matrix.cols)) {
            self.matrix.row_into(*id as usize, out);
        }
    }

    fn vector(&self, place: &Place) -> &[f32] {
        self.weights.vector(place)
    }

    fn linear(&self, place: &Place, x: &[f32], y: &mut [f32], write: Write) {
        if place.index == self.index {
            matmul_packed(x, self.matrix, y, write);
        } else {
            self.weights.linear(place, x, y, write);
        }
    }

    fn pairs(&self) -> Pairs {
        self.weights.pairs()
    }
}

/// A matrix of a model, and what errors in its columns cost.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub weights: &'a Stored,
    pub index: usize,
    pub rows: usize,
    pub columns: usize,
    pub importance: Option<&'a [f32]>,
}

impl Matrix<'_> {
    /// The squared error of a type, weighted with the importance.
    pub fn error(&self, ty: BlockType) -> Result<f64, ModelError> {
        let mut error = 0.0;
        self.each_piece(ty, &mut |values, back| {
            for (values, back) in values.chunks_exact(self.columns).zip(back.chunks_exact(self.columns)) {
                error += match self.importance {
                    Some(importance) => weighted(values, back, importance),
                    None => weighted(values, back, &[]),
                };
            }
        })?;
        Ok(error)
    }

    /// Packed and unpacked again: the bytes of f32.
    pub fn rounded(&self, ty: BlockType) -> Result<Vec<u8>, ModelError> {
        let mut bytes = Vec::new();
        self.each_piece(ty, &mut |_, back| bytes.extend(back.iter().flat_map(|value| value.to_le_bytes())))?;
        Ok(bytes)
    }

    fn each_piece(&self, ty: BlockType, each: &mut dyn FnMut(&[f32], &[f32])) -> Result<(), ModelError> {
        let (mut values, mut packed, mut back) = (Vec::new(), Vec::new(), Vec::new());
        let step = (PIECE / self.columns.max(1)).max(1);
        for first in (0..self.rows).step_by(step) {
            self.weights.values(self.index, first..self.rows.min(first + step), None, &mut values)?;
            let wrong = |error| ModelError::malformed(format!("tensor {}", self.index), error);
            quantize_into(ty, &values, self.columns, self.importance, &mut packed).map_err(wrong)?;
            back.resize(values.len(), 0.0);
            dequantize(ty, &packed, &mut back).map_err(wrong)?;
            each(&values, &back);
        }
        Ok(())
    }
}

/// Σ importance · (value − back)² of a row, in eight lanes; without importance, each is 1.
fn weighted(values: &[f32], back: &[f32], importance: &[f32]) -> f64 {
    const LANES: usize = 8;
    let mut lanes = [0.0f32; LANES];
    for (i, (values, back)) in values.chunks(LANES).zip(back.chunks(LANES)).enumerate() {
        for (lane, (value, back)) in values.iter().zip(back).enumerate() {
            let weight = importance.get(i * LANES + lane).copied().unwrap_or(1.0);
            lanes[lane] += weight * (value - back) * (value - back);
        }
    }
    lanes.iter().map(|lane| f64::from(*lane)).sum()
}
