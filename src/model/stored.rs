//! Weights as a file stores them: mapped, and never copied as a whole. What asks them for numbers widens or unpacks those it needs. Knows no
//! file format; [`super::gguf`] and [`super::safetensors`] say where each tensor lies.

use std::ops::Range;
use std::sync::Arc;

use super::ModelError;
use super::decoder::{Pairs, Place, Tensors};
use super::mapped::Mapped;
use super::quant::{self, BlockType};
use super::weights::{Layout, Tensor};
use crate::kernels::gemm::Write;
use crate::kernels::packed::{Packed, matmul_packed};

/// A model's parameters, most of them still in their files.
#[derive(Clone, Debug)]
pub struct Stored {
    pub layout: Arc<Layout>,
    /// In the layout's order.
    parts: Vec<Part>,
    pairs: Pairs,
}

#[derive(Clone, Debug)]
enum Part {
    /// Small enough to be widened when the file is opened.
    Vector(Vec<f32>),
    Matrix {
        at: Span,
        rows: usize,
        columns: usize,
    },
}

/// Where a tensor's bytes lie, and how they are packed.
#[derive(Clone, Debug)]
pub struct Span {
    pub file: Arc<Mapped>,
    pub bytes: Range<usize>,
    pub ty: BlockType,
    /// What is added to every value: some files keep norms less one.
    pub offset: f32,
}

impl Span {
    /// One of several tensors that lie behind each other in this one: its `values` begin after `before` others.
    pub fn part(&self, before: usize, values: usize) -> Option<Span> {
        let start = self.bytes.start.checked_add(self.ty.bytes_for(before)?)?;
        let end = start.checked_add(self.ty.bytes_for(values)?).filter(|end| *end <= self.bytes.end)?;
        Some(Span { bytes: start..end, ..self.clone() })
    }

    pub fn bytes(&self) -> &[u8] {
        self.file.get(self.bytes.clone()).unwrap_or_default()
    }

    /// Unpacked; the span must hold exactly as many values as `out`, and each must be finite.
    pub fn unpack(&self, out: &mut [f32]) -> Result<(), String> {
        quant::dequantize(self.ty, self.bytes(), out).map_err(|error| error.to_string())?;
        if self.offset != 0.0 {
            out.iter_mut().for_each(|value| *value += self.offset);
        }
        match out.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(format!("it holds {} at {index}", out[index])),
            None => Ok(()),
        }
    }
}

impl Stored {
    /// `place` finds each tensor of the layout. Whether a matrix's values are finite shows when they are used: logits are never made of others silently.
    pub fn new(
        layout: Arc<Layout>,
        pairs: Pairs,
        place: &mut dyn FnMut(&Tensor) -> Result<Span, ModelError>,
    ) -> Result<Stored, ModelError> {
        let mut parts = Vec::with_capacity(layout.tensors.len());
        for tensor in &layout.tensors {
            let at = place(tensor)?;
            let part = Part::of(tensor, at).map_err(|why| ModelError::malformed(format!("tensor `{}`", tensor.name), why))?;
            parts.push(part);
        }
        Ok(Stored { layout, parts, pairs })
    }

    /// How many numbers they are; a tied head counts once.
    pub fn parameters(&self) -> usize {
        self.layout.total()
    }

    /// Some rows of a tensor, unpacked; a vector is one row. `order` says which row of the file stands at each place. Values are not checked.
    pub fn values(&self, index: usize, rows: Range<usize>, order: Option<&[usize]>, out: &mut Vec<f32>) -> Result<(), ModelError> {
        let beyond = || ModelError::Input(format!("tensor {index} has no such rows"));
        let (at, columns) = match self.parts.get(index).ok_or_else(beyond)? {
            Part::Vector(values) => {
                out.clear();
                out.extend_from_slice(values);
                return Ok(());
            }
            Part::Matrix { at, columns, .. } => (at, *columns),
        };
        let size = at.ty.bytes_for(columns).ok_or_else(beyond)?;
        let bytes = |rows: Range<usize>| at.bytes().get(rows.start * size..rows.end * size).ok_or_else(beyond);
        out.resize(rows.len() * columns, 0.0);
        let unpack = |rows: Range<usize>, out: &mut [f32]| {
            quant::dequantize(at.ty, bytes(rows)?, out).map_err(|error| ModelError::malformed(format!("tensor {index}"), error))
        };
        let Some(order) = order else { return unpack(rows, out) };
        let order = order.get(rows.clone()).ok_or_else(beyond)?;
        order.iter().zip(out.chunks_exact_mut(columns)).try_for_each(|(row, out)| unpack(*row..row + 1, out))
    }

    fn matrix(&self, place: &Place) -> Packed<'_> {
        match &self.parts[place.index] {
            Part::Matrix { at, rows, columns } => Packed::new(at.ty, *rows, *columns, at.bytes()),
            Part::Vector(_) => panic!("tensor {} is no matrix", place.index),
        }
    }
}

impl Part {
    fn of(tensor: &Tensor, at: Span) -> Result<Part, String> {
        if let [rows, columns] = *tensor.shape {
            let whole = columns.is_multiple_of(at.ty.block_values()) && at.ty.bytes_for(tensor.range.len()) == Some(at.bytes().len());
            return if whole { Ok(Part::Matrix { at, rows, columns }) } else { Err(format!("it is no {rows} × {columns} of {}", at.ty)) };
        }
        let mut values = vec![0.0; tensor.range.len()];
        at.unpack(&mut values)?;
        Ok(Part::Vector(values))
    }
}

impl Tensors for Stored {
    fn rows(&self, place: &Place, ids: &[u32], out: &mut [f32]) {
        let matrix = self.matrix(place);
        for (id, out) in ids.iter().zip(out.chunks_exact_mut(matrix.cols)) {
            matrix.row_into(*id as usize, out);
        }
    }

    fn vector(&self, place: &Place) -> &[f32] {
        match &self.parts[place.index] {
            Part::Vector(values) => values,
            Part::Matrix { .. } => panic!("tensor {} is a matrix", place.index),
        }
    }

    fn linear(&self, place: &Place, x: &[f32], y: &mut [f32], write: Write) {
        matmul_packed(x, self.matrix(place), y, write);
    }

    fn pairs(&self) -> Pairs {
        self.pairs
    }
}

#[cfg(test)]
mod tests;
