//! What tensors a weight file holds, from its head alone.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::base::json;
use crate::model::gguf::Gguf;
use crate::model::{ModelError, safetensors};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    pub name: String,
    /// `F32`, `Q4_K` …
    pub ty: String,
    /// As the file has it: GGUF names the row length first, safetensors last.
    pub shape: Vec<u64>,
    pub size_bytes: u64,
}

pub fn of_gguf(gguf: &Gguf) -> Vec<Tensor> {
    let tensor = |tensor: &crate::model::gguf::TensorInfo| Tensor {
        name: tensor.name.clone(),
        ty: format!("{:?}", tensor.ty),
        shape: tensor.shape.iter().map(|size| *size as u64).collect(),
        size_bytes: tensor.bytes.len() as u64,
    };
    gguf.header.tensors.iter().map(tensor).collect()
}

pub fn of_safetensors(path: &Path) -> Result<Vec<Tensor>, ModelError> {
    #[derive(Deserialize)]
    struct Entry {
        dtype: String,
        shape: Vec<u64>,
        data_offsets: [u64; 2],
    }
    let malformed = |why: String| ModelError::malformed(format!("`{}`", path.display()), why);
    let head = safetensors::head(path)?;
    let head: BTreeMap<String, serde_json::Value> = json::from_foreign_slice(&head).map_err(|error| malformed(error.to_string()))?;
    let mut found = Vec::new();
    for (name, entry) in head.into_iter().filter(|(name, _)| name != "__metadata__") {
        let entry: Entry =
            serde_json::from_value(entry).map_err(|error| malformed(format!("tensor `{}`: {error}", name.escape_default())))?;
        let [start, end] = entry.data_offsets;
        found.push(Tensor { name, ty: entry.dtype, shape: entry.shape, size_bytes: end.saturating_sub(start) });
    }
    Ok(found)
}
