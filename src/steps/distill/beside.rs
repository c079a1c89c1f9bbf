//! The student's loss against a teacher that runs beside it: all of its logits count and none is stored. The teacher sees the student's batch
//! without keeping its activations, and its logits are made for the same few rows at a time as the student's.

use std::ops::Range;

use super::Soft;
use crate::kernels::loss::{Divergence, Soft as Against, Teacher, mix};
use crate::model::decoder::{Batch, Decoder, Keep, Load};
use crate::model::{Model, ModelError, Stored};
use crate::steps::Failure;
use crate::steps::train::run::{Objective, not_finite};

pub struct Beside {
    teacher: Model<Stored>,
    decoder: Decoder,
    divergence: Divergence,
    temperature: f32,
    kd_ratio: f32,
    logits: Vec<f32>,
}

impl Beside {
    pub fn new(teacher: Model<Stored>, soft: &Soft) -> Result<Beside, Failure> {
        let decoder = Decoder::new(&teacher.config)?;
        let (divergence, temperature, kd_ratio) = (soft.divergence()?, soft.temperature as f32, soft.kd_ratio as f32);
        Ok(Beside { teacher, decoder, divergence, temperature, kd_ratio, logits: Vec::new() })
    }
}

impl Objective for Beside {
    fn bytes(&self, batch: Load) -> u64 {
        let logits = self.decoder.head_rows().min(batch.wanted) * self.teacher.config.vocab_size * 4;
        self.decoder.bytes(batch, Keep::Nothing).saturating_add(logits as u64)
    }

    fn begin(&mut self, _: &[usize], batch: &Batch) -> Result<(), Failure> {
        Ok(self.decoder.forward(&self.teacher.weights, batch, Keep::Nothing)?)
    }

    fn loss(&mut self, rows: Range<usize>, logits: &mut [f32], targets: &[u32], weight: f32, losses: &mut [f32]) -> Result<(), ModelError> {
        self.decoder.logits_of(&self.teacher.weights, rows, &mut self.logits);
        let soft = Against { teacher: Teacher::Dense(&self.logits), divergence: self.divergence, temperature: self.temperature };
        mix(logits, self.teacher.config.vocab_size, targets, &soft, self.kd_ratio, weight, losses).map_err(not_finite)
    }
}
