//! `model.safetensors`, one file or shards with an index. Reads f32, f16 and bf16; writes f32, the same bytes for the same weights.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use super::error::read_limited;
use super::{Config, ModelError, Weights};

/// Twice the largest layout: an f32 model with a head that its config ties.
const MAX_FILE: u64 = 32 << 30;
const MAX_INDEX: u64 = 64 << 20;

/// Reads the weights that `config` asks for from a folder; every one of them must be there, and nothing that would be left unused.
pub fn read_folder(folder: &Path, config: &Config) -> Result<Weights, ModelError> {
    let mut loading = Loading::of(Weights::zeros(config)?, config.tie_word_embeddings);
    let single = folder.join("model.safetensors");
    if single.exists() {
        loading.file(&single)?;
    } else {
        for shard in shards(&folder.join("model.safetensors.index.json"))? {
            loading.file(&folder.join(shard))?;
        }
    }
    loading.finish(folder)
}

/// Reads every tensor of a layout from one file.
pub fn read_file(path: &Path, room: Weights) -> Result<Weights, ModelError> {
    let mut loading = Loading::of(room, false);
    loading.file(path)?;
    loading.finish(path)
}

/// Header with sorted keys, tensors in the layout's order, no gaps.
pub fn write(path: &Path, weights: &Weights) -> Result<(), ModelError> {
    let io = |error| ModelError::io("write", path, error);
    let mut header = Map::new();
    header.insert("__metadata__".to_string(), json!({"format": "pt"}));
    for tensor in &weights.layout.tensors {
        let offsets = [tensor.range.start * 4, tensor.range.end * 4];
        header.insert(tensor.name.clone(), json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": offsets}));
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // The data starts on a multiple of 8, as the format asks.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut out = std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(path).map_err(io)?);
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(io)?;
    out.write_all(&header).map_err(io)?;
    for value in &weights.data {
        out.write_all(&value.to_le_bytes()).map_err(io)?;
    }
    out.flush().map_err(io)
}

struct Loading {
    weights: Weights,
    missing: BTreeSet<String>,
    tied: bool,
}

impl Loading {
    fn of(weights: Weights, tied: bool) -> Loading {
        let missing = weights.layout.tensors.iter().map(|tensor| tensor.name.clone()).collect();
        Loading { weights, missing, tied }
    }

    fn finish(self, path: &Path) -> Result<Weights, ModelError> {
        match self.missing.first() {
            Some(name) => Err(ModelError::malformed(format!("`{}`", path.display()), format!("tensor `{name}` is missing"))),
            None => Ok(self.weights),
        }
    }

    fn file(&mut self, path: &Path) -> Result<(), ModelError> {
        let what = || format!("`{}`", path.display());
        let bytes = read_limited(path, MAX_FILE)?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| ModelError::malformed(what(), error))?;
        for (name, view) in tensors.iter() {
            // Rotary tables are derived; a tied head repeats the embedding, which is what transformers uses, too.
            if name.ends_with(".rotary_emb.inv_freq") || (name == "lm_head.weight" && self.tied) {
                continue;
            }
            self.tensor(name, view.dtype(), view.shape(), view.data()).map_err(|error| ModelError::malformed(what(), error))?;
        }
        Ok(())
    }

    fn tensor(&mut self, name: &str, dtype: Dtype, shape: &[usize], data: &[u8]) -> Result<(), String> {
        let shown: String = name.chars().take(200).collect();
        let Some(expected) = self.weights.shape(name) else {
            return Err(format!("there is no place for tensor `{shown}` in a model of this configuration"));
        };
        if expected != shape {
            return Err(format!("tensor `{shown}` has shape {shape:?}, not {expected:?}"));
        }
        if !self.missing.remove(name) {
            return Err(format!("tensor `{shown}` is there twice"));
        }
        let Some(out) = self.weights.get_mut(name) else { return Err(format!("tensor `{shown}` has no place")) };
        fill(out, dtype, data).map_err(|why| format!("tensor `{shown}` {why}"))
    }
}

/// Widens to f32. Lengths were checked against the shape by the `safetensors` crate.
fn fill(out: &mut [f32], dtype: Dtype, data: &[u8]) -> Result<(), String> {
    match dtype {
        Dtype::F32 => {
            for (out, bytes) in out.iter_mut().zip(data.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(*bytes);
            }
        }
        Dtype::F16 => {
            for (out, bytes) in out.iter_mut().zip(data.as_chunks::<2>().0) {
                *out = f16::from_le_bytes(*bytes).to_f32();
            }
        }
        Dtype::BF16 => {
            for (out, bytes) in out.iter_mut().zip(data.as_chunks::<2>().0) {
                *out = bf16::from_le_bytes(*bytes).to_f32();
            }
        }
        other => return Err(format!("is of type {other}; only F32, F16 and BF16 are read")),
    }
    match out.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(format!("holds {} at {index}", out[index])),
        None => Ok(()),
    }
}

/// The files that an index names, each once. They must lie beside it.
fn shards(index: &Path) -> Result<BTreeSet<String>, ModelError> {
    let what = || format!("`{}`", index.display());
    let bytes = read_limited(index, MAX_INDEX)?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| ModelError::malformed(what(), error))?;
    let map = value.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| ModelError::malformed(what(), "weight_map is missing"))?;
    let mut names = BTreeSet::new();
    for name in map.values() {
        match name.as_str().filter(|name| name.ends_with(".safetensors") && !name.contains(['/', '\\', '\0']) && !name.starts_with('.')) {
            Some(name) => names.insert(name.to_string()),
            None => return Err(ModelError::malformed(what(), format!("{name} is no shard beside it"))),
        };
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::tiny;
    use super::*;

    fn numbered() -> Weights {
        let mut weights = Weights::zeros(&tiny()).unwrap();
        for (i, value) in weights.data.iter_mut().enumerate() {
            *value = i as f32 * 0.25 - 100.0;
        }
        weights
    }

    #[test]
    fn it_reads_back_what_it_writes_and_the_crate_agrees() {
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join("model.safetensors");
        write(&path, &numbered()).unwrap();
        assert_eq!(read_folder(space.path(), &tiny()).unwrap().data, numbered().data);
        let bytes = std::fs::read(&path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.tensor("model.norm.weight").unwrap().shape(), [16]);
        write(&path, &numbered()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn halves_are_widened() {
        let mut out = [0.0; 2];
        fill(&mut out, Dtype::F16, &[f16::from_f32(1.5).to_le_bytes(), f16::from_f32(-2.0).to_le_bytes()].concat()).unwrap();
        assert_eq!(out, [1.5, -2.0]);
        fill(&mut out, Dtype::BF16, &[bf16::from_f32(3.0).to_le_bytes(), bf16::from_f32(0.5).to_le_bytes()].concat()).unwrap();
        assert_eq!(out, [3.0, 0.5]);
        assert!(fill(&mut out, Dtype::F64, &[0; 16]).is_err());
        assert!(fill(&mut out, Dtype::F32, &[0, 0, 0xc0, 0x7f, 0, 0, 0, 0]).unwrap_err().contains("at 0"));
    }

    #[test]
    fn cut_and_foreign_files_are_errors() {
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join("model.safetensors");
        write(&path, &numbered()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 7, 8, 9, 100, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(read_folder(space.path(), &tiny()).is_err(), "{length}");
        }
        let mut mangled = bytes.clone();
        mangled[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        std::fs::write(&path, &mangled).unwrap();
        assert!(read_folder(space.path(), &tiny()).is_err());
        std::fs::write(&path, &bytes).unwrap();
        let error = read_folder(space.path(), &Config { num_hidden_layers: 1, ..tiny() }).unwrap_err();
        assert!(error.to_string().contains("no place for tensor `model.layers.1."), "{error}");
        let error = read_folder(space.path(), &Config { num_hidden_layers: 3, ..tiny() }).unwrap_err();
        assert!(error.to_string().contains("is missing"), "{error}");
    }

    #[test]
    fn a_mangled_header_never_panics_and_is_never_believed_to_be_another_shape() {
        use crate::kernels::rng::below;
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join("model.safetensors");
        write(&path, &numbered()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap());
        for i in 0..300 {
            let mut mangled = bytes.clone();
            for j in 0..1 + i % 3 {
                mangled[below(i, 0, j, header) as usize] = below(i, 1, j, 256) as u8;
            }
            std::fs::write(&path, &mangled).unwrap();
            if let Ok(weights) = read_folder(space.path(), &tiny()) {
                assert_eq!(weights.data.len(), numbered().data.len());
            }
        }
    }

    #[test]
    fn shards_are_found_by_the_index_and_only_beside_it() {
        let space = tempfile::tempdir().unwrap();
        write(&space.path().join("model-1.safetensors"), &numbered()).unwrap();
        let index = space.path().join("model.safetensors.index.json");
        std::fs::write(&index, r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-1.safetensors"}}"#).unwrap();
        assert_eq!(read_folder(space.path(), &tiny()).unwrap().data, numbered().data);
        std::fs::write(&index, r#"{"weight_map": {"a": "../model-1.safetensors"}}"#).unwrap();
        assert!(read_folder(space.path(), &tiny()).is_err());
    }
}
