//! How large a model is as stored, from the heads of its files, and the digest by which a bundle knows it again.

use std::path::Path;

use serde_json::Value;

use super::report::ModelFacts;
use crate::base::{Digest, Hasher, files, json};
use crate::model::{ModelError, folder, gguf, safetensors};

/// `parameters` if they are known (a tied head counts once); else those that the files hold.
pub fn facts(path: &Path, parameters: Option<u64>) -> Result<ModelFacts, ModelError> {
    let stored = match folder::gguf_file(path)? {
        Some(file) => of_gguf(&file)?,
        None => of_folder(path)?,
    };
    let parameters = parameters.unwrap_or(stored.values);
    let bits_per_weight = if parameters > 0 { stored.bytes as f64 * 8.0 / parameters as f64 } else { 0.0 };
    Ok(ModelFacts { parameters, size_bytes: stored.bytes, bits_per_weight, file_type: stored.file_type, weights: stored.digest })
}

#[derive(Default)]
struct Stored {
    values: u64,
    bytes: u64,
    file_type: String,
    digest: String,
}

fn of_gguf(path: &Path) -> Result<Stored, ModelError> {
    let file = gguf::open(path)?;
    let tensors = &file.header.tensors;
    let name = file.get("general.file_type").and_then(gguf::Value::as_u64).and_then(|id| u32::try_from(id).ok());
    Ok(Stored {
        values: tensors.iter().map(|tensor| tensor.values() as u64).sum(),
        bytes: tensors.iter().map(|tensor| tensor.bytes.len() as u64).sum(),
        file_type: name.and_then(gguf::file_type_name).unwrap_or("mixed").to_string(),
        digest: match file.parts.len() {
            0 => digest(path)?.hex(),
            others => {
                let parts = gguf::parts::all(path, others + 1);
                of_all(&parts.iter().map(|part| digest(part)).collect::<Result<Vec<_>, _>>()?)
            }
        },
    })
}

/// All shards together.
fn of_folder(folder: &Path) -> Result<Stored, ModelError> {
    let names = files::names(folder).map_err(|error| ModelError::io("read", folder, error))?;
    let mut all = Stored::default();
    let mut digests = Vec::new();
    for path in names.iter().map(|name| folder.join(name)).filter(|path| path.extension().is_some_and(|e| e == "safetensors")) {
        digests.push(digest(&path)?);
        for tensor in header(&path)?.as_object().into_iter().flatten().filter(|(name, _)| *name != "__metadata__").map(|(_, t)| t) {
            let numbers = |name: &str| tensor[name].as_array().into_iter().flatten().filter_map(Value::as_u64);
            let [start, end] = numbers("data_offsets").collect::<Vec<_>>().try_into().unwrap_or_default();
            all.bytes = all.bytes.saturating_add(end.saturating_sub(start));
            all.values = all.values.saturating_add(numbers("shape").fold(1, u64::saturating_mul));
            let dtype = tensor["dtype"].as_str().unwrap_or("?");
            match all.file_type.as_str() {
                "" => all.file_type = dtype.to_string(),
                known if known == dtype => {}
                _ => all.file_type = "mixed".to_string(),
            }
        }
    }
    all.digest = of_all(&digests);
    Ok(all)
}

/// One digest of several files.
fn of_all(digests: &[Digest]) -> String {
    match digests {
        [only] => only.hex(),
        shards => {
            let mut hasher = Hasher::new();
            shards.iter().for_each(|shard| hasher.part(shard.as_bytes()));
            hasher.finish().hex()
        }
    }
}

fn digest(path: &Path) -> Result<Digest, ModelError> {
    Digest::of_file(path).map(|(digest, _)| digest).map_err(|error| ModelError::io("read", path, error))
}

fn header(path: &Path) -> Result<Value, ModelError> {
    let head = safetensors::head(path)?;
    json::from_foreign_slice(&head).map_err(|error| ModelError::malformed(format!("`{}`", path.display()), error))
}
