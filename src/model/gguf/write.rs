//! Writes the container: GGUF v3, tensor data from multiples of 32, one tensor at a time.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::value::{Array, Value};
use super::{ALIGNMENT, GgufError};
use crate::model::quant::BlockType;

/// A tensor to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPlan {
    pub name: String,
    /// In ggml's order: the row length first.
    pub shape: Vec<usize>,
    pub ty: BlockType,
}

impl TensorPlan {
    /// `None` if rows are no whole number of blocks, or the size is beyond reckoning.
    pub fn size_bytes(&self) -> Option<usize> {
        let values = self.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
        self.ty.bytes_for(values).filter(|_| self.shape.first().is_some_and(|row| row % self.ty.block_values() == 0))
    }
}

/// A file in the making: the head is written, the tensors follow in the order of the plan.
#[derive(Debug)]
pub struct Writer {
    out: BufWriter<File>,
    /// (name, bytes) of the tensors still to come, last first.
    to_come: Vec<(String, usize)>,
    /// Bytes of the tensor that is being written in parts.
    begun: usize,
}

impl Writer {
    pub fn create(path: &Path, metadata: &[(String, Value)], tensors: &[TensorPlan]) -> Result<Writer, GgufError> {
        let head = head(metadata, tensors)?;
        let mut to_come = Vec::new();
        for tensor in tensors.iter().rev() {
            let bytes = tensor.size_bytes().ok_or_else(|| GgufError::Shape { name: tensor.name.clone() })?;
            to_come.push((tensor.name.clone(), bytes));
        }
        let mut out = BufWriter::with_capacity(1 << 20, File::create_new(path)?);
        out.write_all(&head)?;
        Ok(Writer { out, to_come, begun: 0 })
    }

    /// The next tensor of the plan, packed.
    pub fn tensor(&mut self, bytes: &[u8]) -> Result<(), GgufError> {
        self.part(bytes)?;
        self.end_tensor()
    }

    /// The first or next bytes of the next tensor.
    pub fn part(&mut self, bytes: &[u8]) -> Result<(), GgufError> {
        let Some((name, expected)) = self.to_come.last() else { return Err(GgufError::Unplanned) };
        self.begun = self.begun.saturating_add(bytes.len());
        if self.begun > *expected {
            return Err(GgufError::Shape { name: name.clone() });
        }
        self.out.write_all(bytes)?;
        Ok(())
    }

    /// The tensor's last part has been written.
    pub fn end_tensor(&mut self) -> Result<(), GgufError> {
        let bytes = std::mem::take(&mut self.begun);
        match self.to_come.pop() {
            Some((_, expected)) if expected == bytes => {}
            Some((name, _)) => return Err(GgufError::Shape { name }),
            None => return Err(GgufError::Unplanned),
        }
        let padding = bytes.next_multiple_of(ALIGNMENT) - bytes;
        self.out.write_all(&[0; ALIGNMENT][..padding])?;
        Ok(())
    }

    /// All is written and no tensor of the plan is missing.
    pub fn finish(mut self) -> Result<(), GgufError> {
        if let Some((name, _)) = self.to_come.pop() {
            return Err(GgufError::CutTensor { name });
        }
        self.out.flush()?;
        Ok(())
    }
}

/// Everything before the first tensor's bytes, padding included.
pub fn head(metadata: &[(String, Value)], tensors: &[TensorPlan]) -> Result<Vec<u8>, GgufError> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        put_text(&mut out, key);
        out.extend(value.type_id().to_le_bytes());
        put_value(&mut out, value);
    }
    let mut offset = 0usize;
    for tensor in tensors {
        put_text(&mut out, &tensor.name);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().for_each(|d| out.extend((*d as u64).to_le_bytes()));
        out.extend(tensor.ty.id().to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        let end = tensor.size_bytes().and_then(|bytes| offset.checked_add(bytes)?.checked_next_multiple_of(ALIGNMENT));
        offset = end.ok_or_else(|| GgufError::Shape { name: tensor.name.clone() })?;
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    Ok(out)
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(n) => out.extend(n.to_le_bytes()),
        Value::I8(n) => out.extend(n.to_le_bytes()),
        Value::U16(n) => out.extend(n.to_le_bytes()),
        Value::I16(n) => out.extend(n.to_le_bytes()),
        Value::U32(n) => out.extend(n.to_le_bytes()),
        Value::I32(n) => out.extend(n.to_le_bytes()),
        Value::F32(n) => out.extend(n.to_le_bytes()),
        Value::Bool(b) => out.push(u8::from(*b)),
        Value::String(text) => put_text(out, text),
        Value::Array(items) => put_items(out, items),
        Value::U64(n) => out.extend(n.to_le_bytes()),
        Value::I64(n) => out.extend(n.to_le_bytes()),
        Value::F64(n) => out.extend(n.to_le_bytes()),
    }
}

fn put_items(out: &mut Vec<u8>, items: &Array) {
    fn all<T>(out: &mut Vec<u8>, items: &[T], mut put: impl FnMut(&mut Vec<u8>, &T)) {
        out.extend((items.len() as u64).to_le_bytes());
        items.iter().for_each(|item| put(out, item));
    }
    out.extend(items.type_id().to_le_bytes());
    match items {
        Array::U8(items) => all(out, items, |out, n| out.extend(n.to_le_bytes())),
        Array::I8(items) => all(out, items, |out, n| out.extend(n.to_le_bytes())),
        Array::U16(items) => all(out, items, |out, n| out.extend(n.to_le_bytes())),
        Array::I16(items) => all(out, items, |out, n| out.extend(n.to_le_bytes())),
        Array::U32(items) => all(out, items, |out, n| out.extend(n.to_le_bytes())),
        Array::I32(items) => all(out, items, |out, n| out.extend(n.to_le_bytes())),
        Array::F32(items) => all(out, items, |out, n| out.extend(n.to_le_bytes())),
        Array::Bool(items) => all(out, items, |out, b| out.push(u8::from(*b))),
        Array::String(items) => all(out, items, |out, text| put_text(out, text)),
        Array::U64(items) => all(out, items, |out, n| out.extend(n.to_le_bytes())),
        Array::I64(items) => all(out, items, |out, n| out.extend(n.to_le_bytes())),
        Array::F64(items) => all(out, items, |out, n| out.extend(n.to_le_bytes())),
    }
}
