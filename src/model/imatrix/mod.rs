//! The importance matrix: for each matrix of a model the sum of the squares of each of its inputs, over a text. What quantizing gets wrong in a weight is felt in proportion
//! to it. The file is llama.cpp's: GGUF today ([`gguf`](self)), a bare stream before ([`legacy`]); tensors go by GGUF's names.

mod collect;
mod legacy;
mod squares;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use super::ModelError;
use super::gguf::{self, Array, Gguf, TensorPlan, Value, Writer};
use super::quant::outliers::relative;
use super::quant::{BlockType, dequantize};
use super::read_limited;

pub use collect::{Window, collect, windows};
pub use squares::Squares;

/// Real files have one entry for each matrix.
const MAX_ENTRIES: usize = 1 << 17;
/// A row of the widest matrices has some 50,000 values.
const MAX_COLUMNS: usize = 1 << 22;
/// The legacy files of the largest dense models have some tens of megabytes.
const MAX_LEGACY: u64 = 1 << 30;

/// Of one matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Σx² of each column.
    pub sums: Vec<f32>,
    /// How many x were added up.
    pub count: f32,
}

/// Where an importance matrix and a model differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covering<'a> {
    /// Matrices of the model without an entry.
    pub without: Vec<&'a str>,
    /// Entries of matrices that the model does not have.
    pub strangers: usize,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imatrix {
    /// By the matrix's name in a GGUF file.
    pub entries: BTreeMap<String, Entry>,
    /// What the text was.
    pub datasets: Vec<String>,
    /// How many pieces of how many tokens it was cut into; 0 if unknown.
    pub chunk_count: u32,
    pub chunk_size: u32,
}

impl Imatrix {
    /// What the square of an error costs in each column: its mean square, never quite nothing. `None` if the matrix was not observed.
    pub fn importance(&self, name: &str, columns: usize) -> Result<Option<Vec<f32>>, ModelError> {
        let Some(Entry { sums, .. }) = self.entries.get(name).filter(|entry| entry.count > 0.0) else { return Ok(None) };
        if sums.len() != columns {
            let why = format!("it has {} values for `{name}`, whose rows have {columns}", sums.len());
            return Err(ModelError::malformed("the importance matrix", why));
        }
        Ok(relative(&sums.iter().map(|sum| f64::from(*sum)).collect::<Vec<_>>()))
    }

    /// How it fits the matrices of these names: that none has an entry is an error.
    pub fn covering<'a>(&self, matrices: &[&'a str]) -> Result<Covering<'a>, ModelError> {
        let observed = |name: &str| self.entries.get(name).is_some_and(|entry| entry.count > 0.0);
        let (fitting, without): (Vec<&str>, Vec<&str>) = matrices.iter().copied().partition(|name| observed(name));
        if fitting.is_empty() && !matrices.is_empty() {
            let other = self.entries.keys().next().map_or("it is empty".to_string(), |name| format!("it has `{name}`"));
            let why =
                format!("none of its {} entries is of a matrix of this model: {other}, the model `{}`", self.entries.len(), matrices[0]);
            return Err(ModelError::malformed("the importance matrix", why));
        }
        let strangers = self.entries.keys().filter(|name| !matrices.contains(&name.as_str())).count();
        Ok(Covering { without, strangers })
    }

    /// Either format, told apart by its first bytes.
    pub fn read(path: &Path) -> Result<Imatrix, ModelError> {
        let what = || format!("`{}`", path.display());
        match Gguf::open(path) {
            Ok(file) => from_gguf(&file).map_err(|why| ModelError::malformed(what(), why)),
            Err(gguf::GgufError::NotGguf) => {
                legacy::parse(&read_limited(path, MAX_LEGACY)?).map_err(|why| ModelError::malformed(what(), why))
            }
            Err(error) => Err(gguf::named("open", path, error)),
        }
    }

    /// The GGUF format: the same bytes for the same matrix.
    pub fn write(&self, path: &Path) -> Result<(), ModelError> {
        let io = |error| gguf::named("write", path, error);
        let metadata = [
            ("general.type", Value::from("imatrix")),
            ("imatrix.datasets", Value::Array(Array::String(self.datasets.clone()))),
            ("imatrix.chunk_count", Value::U32(self.chunk_count)),
            ("imatrix.chunk_size", Value::U32(self.chunk_size)),
        ];
        let metadata: Vec<_> = metadata.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        let plan =
            |name: &str, what: &str, columns| TensorPlan { name: format!("{name}.{what}"), shape: vec![columns, 1], ty: BlockType::F32 };
        let plans: Vec<_> =
            self.entries.iter().flat_map(|(name, entry)| [plan(name, "in_sum2", entry.sums.len()), plan(name, "counts", 1)]).collect();
        let mut writer = Writer::create(path, &metadata, &plans).map_err(io)?;
        for entry in self.entries.values() {
            let sums: Vec<u8> = entry.sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
            writer.tensor(&sums).map_err(io)?;
            writer.tensor(&entry.count.to_le_bytes()).map_err(io)?;
        }
        writer.finish().map_err(io)
    }
}

fn from_gguf(file: &Gguf) -> Result<Imatrix, String> {
    if file.get("general.type").and_then(Value::as_str) != Some("imatrix") {
        return Err("its general.type is not `imatrix`".to_string());
    }
    let number = |key: &str| file.get(key).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let datasets = match file.get("imatrix.datasets") {
        Some(Value::Array(Array::String(names))) => names.clone(),
        _ => Vec::new(),
    };
    let mut entries = BTreeMap::new();
    for tensor in &file.header.tensors {
        let Some(name) = tensor.name.strip_suffix(".in_sum2") else { continue };
        let sums = floats(file, &tensor.name)?;
        let counts = floats(file, &format!("{name}.counts"))?;
        let &[count] = counts.as_slice() else {
            return Err(format!("`{name}` has {} counts, not one: matrices of experts are not supported", counts.len()));
        };
        entries.insert(name.to_string(), checked(name, sums, count)?);
    }
    let (chunk_count, chunk_size) = (number("imatrix.chunk_count"), number("imatrix.chunk_size"));
    Ok(Imatrix { entries, datasets, chunk_count, chunk_size })
}

fn floats(file: &Gguf, name: &str) -> Result<Vec<f32>, String> {
    let tensor = file.tensor(name).ok_or_else(|| format!("tensor `{name}` is missing"))?;
    let count = tensor.values();
    if tensor.ty != BlockType::F32 || count > MAX_COLUMNS {
        return Err(format!("tensor `{name}` has {count} values of {}, not some F32", tensor.ty));
    }
    let mut values = vec![0.0; count];
    dequantize(tensor.ty, file.bytes(tensor), &mut values).map_err(|error| error.to_string())?;
    Ok(values)
}

/// Sums of squares are finite and not negative.
fn checked(name: &str, sums: Vec<f32>, count: f32) -> Result<Entry, String> {
    let fits = |value: &f32| value.is_finite() && *value >= 0.0;
    let unfit = sums.iter().chain([&count]).copied().find(|value| !fits(value));
    match unfit {
        Some(value) => Err(format!("`{name}` holds {value}, which is no sum of squares")),
        None => Ok(Entry { sums, count }),
    }
}
