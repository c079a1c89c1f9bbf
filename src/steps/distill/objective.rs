//! The student's loss against cached logits: a divergence from the teacher, mixed with the cross-entropy of the completion.

use std::ops::Range;

use super::Soft;
use super::labels::{Labels, width};
use crate::kernels::loss::{Divergence, Soft as Against, Teacher, mix};
use crate::model::ModelError;
use crate::model::decoder::{Batch, Load, head_rows};
use crate::steps::Failure;
use crate::steps::train::run::{Objective, not_finite};

pub struct Imitation<'a> {
    labels: &'a Labels,
    top_k: usize,
    vocab_size: usize,
    divergence: Divergence,
    temperature: f32,
    kd_ratio: f32,
    /// The label row of each scored token of the batch.
    rows: Vec<u64>,
    bytes: Vec<u8>,
    ids: Vec<u32>,
    values: Vec<f32>,
    log_rest: Vec<f32>,
}

impl<'a> Imitation<'a> {
    pub fn new(labels: &'a Labels, soft: &Soft) -> Result<Imitation<'a>, Failure> {
        let top_k = labels.facts.top_k.ok_or_else(|| Failure::bug("the labels have no logits".to_string()))?;
        Ok(Imitation {
            labels,
            top_k,
            vocab_size: labels.facts.vocab_size,
            divergence: soft.divergence()?,
            temperature: soft.temperature as f32,
            kd_ratio: soft.kd_ratio as f32,
            rows: Vec::new(),
            bytes: Vec::new(),
            ids: Vec::new(),
            values: Vec::new(),
            log_rest: Vec::new(),
        })
    }

    /// Reads the labels of some of the batch's rows, run by run.
    fn read(&mut self, rows: Range<usize>) -> Result<(), ModelError> {
        self.ids.clear();
        self.values.clear();
        self.log_rest.clear();
        let width = width(self.top_k);
        let mut next = rows.start;
        while next < rows.end {
            let first = next;
            while next < rows.end && self.rows[next] == self.rows[first] + (next - first) as u64 {
                next += 1;
            }
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.resize((next - first) * width * 4, 0);
            self.labels.read(self.rows[first], &mut bytes, width)?;
            bytes.chunks_exact(width * 4).for_each(|row| self.row(row));
            self.bytes = bytes;
        }
        match self.ids.iter().find(|id| **id as usize >= self.vocab_size) {
            Some(id) => Err(ModelError::malformed("the labels", format!("token {id} is not in the vocabulary"))),
            None => Ok(()),
        }
    }

    fn row(&mut self, row: &[u8]) {
        let float = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes);
        let numbers = row.as_chunks::<4>().0;
        let (ids, rest) = numbers.split_at(self.top_k);
        let (values, log_rest) = rest.split_at(self.top_k);
        self.ids.extend(ids.iter().map(|bytes| u32::from_le_bytes(*bytes)));
        self.values.extend(values.iter().map(float));
        self.log_rest.extend(log_rest.iter().map(float));
    }
}

impl Objective for Imitation<'_> {
    fn bytes(&self, batch: Load) -> u64 {
        // The numbers of a piece's rows, as they are read and as they are used.
        batch.wanted.min(head_rows(self.vocab_size)) as u64 * width(self.top_k) as u64 * 4 * 2
    }

    fn begin(&mut self, examples: &[usize], _: &Batch) -> Result<(), Failure> {
        self.rows.clear();
        for index in examples {
            let first = self.labels.first_rows[*index];
            self.rows.extend(first..first + self.labels.examples[*index].scored_tokens() as u64);
        }
        Ok(())
    }

    fn loss(&mut self, rows: Range<usize>, logits: &mut [f32], targets: &[u32], weight: f32, losses: &mut [f32]) -> Result<(), ModelError> {
        self.read(rows)?;
        let teacher = Teacher::TopK { k: self.top_k, ids: &self.ids, logits: &self.values, log_rest: &self.log_rest };
        let soft = Against { teacher, divergence: self.divergence, temperature: self.temperature };
        mix(logits, self.vocab_size, targets, &soft, self.kd_ratio, weight, losses).map_err(not_finite)
    }
}
