//! `model.safetensors`, one file or shards with an index. Reads f32, f16 and bf16; writes f32, the same bytes for the same weights.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use super::decoder::Pairs;
use super::error::{LFS_POINTER, is_lfs_pointer, is_there, read_limited};
use super::mapped::Mapped;
use super::quant::BlockType;
use super::stored::Span;
use super::weights::{FileTensor, Layout, Tensor};
use super::{Config, Model, ModelError, Stored, Weights, pickle};
use crate::base::{files, json, memory};

const MAX_INDEX: u64 = 64 << 20;
/// The crate's own limit.
const MAX_HEAD: u64 = 100_000_000;

/// Reads the weights that `config` asks for from a folder; every one of them must be there, and nothing that would be left unused.
pub fn read_folder(folder: &Path, config: &Config) -> Result<Weights, ModelError> {
    Finding::in_folder(folder, config)?.unpack(folder)
}

/// Reads every tensor of a layout from one file, which must hold no other.
pub fn read_file(path: &Path, layout: Layout) -> Result<Weights, ModelError> {
    let alone = |(i, tensor): (usize, &Tensor)| FileTensor { name: tensor.name.clone(), shape: tensor.shape.clone(), members: i..i + 1 };
    let expected = layout.tensors.iter().enumerate().map(alone).collect();
    let mut finding = Finding::new(layout, expected);
    finding.file(path)?;
    finding.complete(path)?.unpack(path)
}

/// The JSON in front of a file's data.
pub fn head(path: &Path) -> Result<Vec<u8>, ModelError> {
    let io = |error| ModelError::io("read", path, error);
    let malformed = |why: String| ModelError::malformed(format!("`{}`", path.display()), why);
    let mut file = files::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    let mut length = [0u8; 8];
    match file.read_exact(&mut length) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            return Err(malformed("it ends within its first eight bytes".to_string()));
        }
        read => read.map_err(io)?,
    }
    let length = u64::from_le_bytes(length);
    if length > MAX_HEAD || length > size {
        return Err(malformed(format!("its head claims {length} bytes")));
    }
    let mut head = Vec::new();
    file.take(length).read_to_end(&mut head).map_err(io)?;
    Ok(head)
}

/// The same as [`read_folder`] with the weights left in their files.
pub fn open_folder(folder: &Path, config: &Config) -> Result<Stored, ModelError> {
    let Finding { layout, mut spans, .. } = Finding::in_folder(folder, config)?;
    Stored::new(Arc::new(layout), Pairs::Halves, &mut |tensor| {
        let missing = || ModelError::malformed(format!("`{}`", folder.display()), format!("tensor `{}` is missing", tensor.name));
        spans.remove(&tensor.name).ok_or_else(missing)
    })
}

/// Header with sorted keys, tensors in the layout's order, no gaps.
pub fn write(path: &Path, weights: &Weights) -> Result<(), ModelError> {
    let tensors = weights.layout.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone(), tensor.range.clone()));
    let mut out = create(path, tensors)?;
    write_values(&mut out, weights.data.iter().copied()).and_then(|()| out.flush()).map_err(|error| ModelError::io("write", path, error))
}

/// A model's weights, as the files of its family hold them.
pub fn write_model(path: &Path, model: &Model) -> Result<(), ModelError> {
    let (layout, data) = (&model.weights.layout, &model.weights.data);
    let range = |members: &Range<usize>| match &layout.tensors[members.clone()] {
        [first, .., last] => first.range.start..last.range.end,
        [only] => only.range.clone(),
        [] => 0..0,
    };
    let tensors = layout.in_files(&model.config);
    let mut out = create(path, tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone(), range(&tensor.members))))?;
    let io = |error| ModelError::io("write", path, error);
    for tensor in &tensors {
        let offset = offset(&tensor.name, &model.config);
        let values = data[range(&tensor.members)].iter();
        // Not `- 0.0`, so that a negative zero stays one.
        let written =
            if offset == 0.0 { write_values(&mut out, values.copied()) } else { write_values(&mut out, values.map(|x| x - offset)) };
        written.map_err(io)?;
    }
    out.flush().map_err(io)
}

/// What a file's tensor lacks.
fn offset(name: &str, config: &Config) -> f32 {
    if name.ends_with("norm.weight") { config.norm_offset() } else { 0.0 }
}

type Out = std::io::BufWriter<std::fs::File>;

/// A file with its header; the values come behind.
fn create(path: &Path, tensors: impl Iterator<Item = (String, Vec<usize>, Range<usize>)>) -> Result<Out, ModelError> {
    let io = |error| ModelError::io("write", path, error);
    let mut header = Map::new();
    header.insert("__metadata__".to_string(), json!({"format": "pt"}));
    for (name, shape, range) in tensors {
        let offsets = [range.start * 4, range.end * 4];
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": offsets}));
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // The data starts on a multiple of 8, as the format asks.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut out = std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(path).map_err(io)?);
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(io)?;
    out.write_all(&header).map_err(io)?;
    Ok(out)
}

fn write_values(out: &mut Out, values: impl Iterator<Item = f32>) -> std::io::Result<()> {
    for value in values {
        out.write_all(&value.to_le_bytes())?;
    }
    Ok(())
}

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// What `lm_head.weight` is to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    /// A tensor like any other.
    Own,
    /// The embedding once more.
    Repeated,
    /// The embedding itself, which the files have under no other name.
    Embedding,
}

/// As transformers 5 does, a head that differs from the embedding is used although `tie_word_embeddings` is set.
pub fn resolve_tie(folder: &Path, config: &mut Config) -> Result<(), ModelError> {
    if config.tie_word_embeddings
        && let (Some(embedding), Some(head)) = (find(folder, EMBEDDING)?, find(folder, HEAD)?)
        && !same_values(&embedding, &head)
    {
        config.tie_word_embeddings = false;
    }
    Ok(())
}

/// One tensor of a folder, whatever its shape.
fn find(folder: &Path, name: &str) -> Result<Option<Span>, ModelError> {
    for path in weight_files(folder)? {
        let what = || format!("`{}`", path.display());
        let (file, header, metadata) = open(&path)?;
        let info = metadata.info(name).or_else(|| metadata.info(name.strip_prefix("model.")?));
        let Some(info) = info else { continue };
        let ty = block_type(info.dtype);
        let ty = ty.ok_or_else(|| {
            ModelError::malformed(what(), format!("tensor `{name}` is of type {}; only F32, F16 and BF16 are read", info.dtype))
        })?;
        return Ok(Some(Span { file, bytes: place(header, info.data_offsets, &what())?, ty, offset: 0.0 }));
    }
    Ok(None)
}

/// Values that are not numbers are equal to none; whoever reads them says so.
fn same_values(one: &Span, other: &Span) -> bool {
    if one.ty == other.ty {
        return one.bytes() == other.bytes();
    }
    const PIECE: usize = 1 << 16;
    let values = one.bytes().len() / one.ty.block_bytes();
    let unpacked = |span: &Span, before: usize, count: usize| {
        let mut out = vec![0.0; count];
        span.part(before, count)?.unpack(&mut out).ok().map(|()| out)
    };
    let same = |before: usize| {
        let count = PIECE.min(values - before);
        unpacked(one, before, count).is_some_and(|piece| Some(piece) == unpacked(other, before, count))
    };
    values == other.bytes().len() / other.ty.block_bytes() && (0..values).step_by(PIECE).all(same)
}

/// A file, the length of its head and what that says.
fn open(path: &Path) -> Result<(Arc<Mapped>, usize, Metadata), ModelError> {
    let what = || format!("`{}`", path.display());
    let file = Arc::new(Mapped::open(path).map_err(|error| ModelError::io("read", path, error))?);
    if is_lfs_pointer(&file) {
        return Err(ModelError::malformed(what(), LFS_POINTER));
    }
    // What the file says that its head has; the crate looks whether it is there.
    let head = file.first_chunk().map_or(0, |length| u64::from_le_bytes(*length)).min(MAX_HEAD).min(file.len() as u64);
    memory::check(head * 12, &format!("the head of {}", what()))?;
    let (header, metadata) = SafeTensors::read_metadata(&file).map_err(|error| ModelError::malformed(what(), error))?;
    // The crate keeps the last of two tensors with one name; other readers keep the first.
    json::check_names(file.get(8..8 + header).unwrap_or_default()).map_err(|error| ModelError::malformed(what(), error))?;
    Ok((file, header, metadata))
}

/// Where a tensor's data lies in its file.
fn place(header: usize, (start, end): (usize, usize), what: &str) -> Result<Range<usize>, ModelError> {
    let data = 8 + header;
    let span = data.checked_add(start).zip(data.checked_add(end)).map(|(start, end)| start..end);
    span.ok_or_else(|| ModelError::malformed(what.to_string(), "an offset is out of reach"))
}

/// The one file or the shards of a folder.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let (single, index) = (folder.join("model.safetensors"), folder.join("model.safetensors.index.json"));
    if is_there(&single)? {
        Ok(vec![single])
    } else if is_there(&index)? {
        Ok(shards(&index)?.into_iter().map(|shard| folder.join(shard)).collect())
    } else {
        Err(pickle::in_folder(folder)?.map_or_else(|| no_weights(folder), |name| pickle::refusal(&folder.join(name))))
    }
}

/// Where the tensors of a layout lie.
struct Finding {
    layout: Layout,
    /// What the files are to hold, by name.
    expected: BTreeMap<String, FileTensor>,
    /// Of the layout's tensors, by name.
    spans: BTreeMap<String, Span>,
    /// What a head in the files is, where the model has none of its own.
    head: Head,
    norm_offset: f32,
}

impl Finding {
    /// Every tensor of a model of this configuration, each in one of the folder's files.
    fn in_folder(folder: &Path, config: &Config) -> Result<Finding, ModelError> {
        let layout = Layout::of(config)?;
        let expected = layout.in_files(config);
        let head = match config.tie_word_embeddings {
            false => Head::Own,
            true if find(folder, EMBEDDING)?.is_none() => Head::Embedding,
            true => Head::Repeated,
        };
        let mut finding = Finding { head, norm_offset: config.norm_offset(), ..Finding::new(layout, expected) };
        for path in weight_files(folder)? {
            finding.file(&path)?;
        }
        finding.complete(folder)
    }

    fn new(layout: Layout, expected: Vec<FileTensor>) -> Finding {
        let expected = expected.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        Finding { layout, expected, spans: BTreeMap::new(), head: Head::Own, norm_offset: 0.0 }
    }

    fn complete(self, place: &Path) -> Result<Finding, ModelError> {
        let found =
            |tensor: &FileTensor| self.layout.tensors[tensor.members.clone()].iter().all(|tensor| self.spans.contains_key(&tensor.name));
        // In the layout's order, as a reader of the message would look for it.
        match self.expected.values().filter(|tensor| !found(tensor)).min_by_key(|tensor| tensor.members.start) {
            Some(tensor) => Err(ModelError::malformed(format!("`{}`", place.display()), format!("tensor `{}` is missing", tensor.name))),
            None => Ok(self),
        }
    }

    /// Only now that all that the layout promises is known to be in the files is memory taken for it.
    fn unpack(self, place: &Path) -> Result<Weights, ModelError> {
        let data = self.layout.room()?;
        let mut weights = Weights { layout: Arc::new(self.layout), data };
        for (name, span) in &self.spans {
            let Some(out) = weights.get_mut(name) else { continue };
            span.unpack(out).map_err(|why| ModelError::malformed(format!("`{}`", place.display()), format!("tensor `{name}`: {why}")))?;
        }
        Ok(weights)
    }

    fn file(&mut self, path: &Path) -> Result<(), ModelError> {
        let what = || format!("`{}`", path.display());
        let (file, header, metadata) = open(path)?;
        for name in metadata.offset_keys() {
            // Rotary tables are derived.
            if name.ends_with(".rotary_emb.inv_freq") || (name == HEAD && self.head == Head::Repeated) {
                continue;
            }
            let Some(info) = metadata.info(&name) else { continue };
            let span = place(header, info.data_offsets, &what())?;
            let offset = if name.ends_with("norm.weight") { self.norm_offset } else { 0.0 };
            let name = self.known_as(name);
            self.tensor(name, info.dtype, &info.shape, Span { file: Arc::clone(&file), bytes: span, ty: BlockType::F32, offset })
                .map_err(|error| ModelError::malformed(what(), error))?;
        }
        Ok(())
    }

    /// Our name of a tensor: a head may be the embedding, and files of a model's body alone leave out `model.`, as transformers reads them.
    fn known_as(&self, name: String) -> String {
        if name == HEAD && self.head == Head::Embedding {
            return EMBEDDING.to_string();
        }
        let longer = format!("model.{name}");
        if !self.expected.contains_key(&name) && self.expected.contains_key(&longer) { longer } else { name }
    }

    /// `at` has yet to get its type.
    fn tensor(&mut self, name: String, dtype: Dtype, shape: &[usize], at: Span) -> Result<(), String> {
        let shown: String = name.chars().take(200).collect();
        let Some(expected) = self.expected.get(&name) else {
            return Err(format!("there is no place for tensor `{shown}` in a model of this configuration"));
        };
        if expected.shape != shape {
            return Err(format!("tensor `{shown}` has shape {shape:?}, not {:?}", expected.shape));
        }
        let ty = block_type(dtype).ok_or_else(|| format!("tensor `{shown}` is of type {dtype}; only F32, F16 and BF16 are read"))?;
        let at = Span { ty, ..at };
        let mut before = 0;
        for member in &self.layout.tensors[expected.members.clone()] {
            let values = member.range.len();
            let part = at.part(before, values).ok_or_else(|| format!("tensor `{shown}` is cut"))?;
            before += values;
            if self.spans.insert(member.name.clone(), part).is_some() {
                return Err(format!("tensor `{shown}` stands there twice"));
            }
        }
        Ok(())
    }
}

fn no_weights(folder: &Path) -> ModelError {
    ModelError::malformed(format!("`{}`", folder.display()), "it holds neither model.safetensors nor model.safetensors.index.json")
}

fn block_type(dtype: Dtype) -> Option<BlockType> {
    match dtype {
        Dtype::F32 => Some(BlockType::F32),
        Dtype::F16 => Some(BlockType::F16),
        Dtype::BF16 => Some(BlockType::Bf16),
        _ => None,
    }
}

/// The files that an index names, each once. They must lie beside it.
fn shards(index: &Path) -> Result<BTreeSet<String>, ModelError> {
    let what = || format!("`{}`", index.display());
    let bytes = read_limited(index, MAX_INDEX)?;
    memory::check(bytes.len() as u64 * 10, &what())?;
    let value: Value = json::from_foreign_slice(&bytes).map_err(|error| ModelError::malformed(what(), error))?;
    let map = value.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| ModelError::malformed(what(), "weight_map is missing"))?;
    let mut names = BTreeSet::new();
    for name in map.values() {
        match name.as_str().filter(|name| name.ends_with(".safetensors") && !name.contains(['/', '\\', '\0']) && !name.starts_with('.')) {
            Some(name) => names.insert(name.to_string()),
            None if name.as_str().is_some_and(pickle::is_one) => {
                return Err(pickle::refusal(&index.with_file_name(name.as_str().unwrap_or_default())));
            }
            None => return Err(ModelError::malformed(what(), format!("{name} is no shard beside it"))),
        };
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::tiny;
    use super::super::tokenizer::tests::bytes_only;
    use super::super::{ChatTemplate, Family};
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
    fn other_types_and_numbers_that_are_none_are_refused() {
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join("model.safetensors");
        write(&path, &numbered()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut mangled = bytes.clone();
        mangled[header + 8..header + 12].copy_from_slice(&f32::NAN.to_le_bytes());
        std::fs::write(&path, &mangled).unwrap();
        let error = read_folder(space.path(), &tiny()).unwrap_err().to_string();
        assert!(error.contains("model.embed_tokens.weight") && error.contains("NaN at 2"), "{error}");
        let head = String::from_utf8(bytes[8..header].to_vec()).unwrap().replacen("F32", "I32", 1);
        std::fs::write(&path, [&bytes[..8], head.as_bytes(), &bytes[header..]].concat()).unwrap();
        let error = read_folder(space.path(), &tiny()).unwrap_err().to_string();
        assert!(error.contains("I32; only F32, F16 and BF16"), "{error}");
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

    /// Transformers 5 uses the head that is in the file, whatever `tie_word_embeddings` says.
    #[test]
    fn a_head_of_its_own_is_used_and_one_alone_is_the_embedding() {
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join("model.safetensors");
        let untied = Config { tie_word_embeddings: false, ..tiny() };
        let mut weights = Weights::zeros(&untied).unwrap();
        weights.data.iter_mut().enumerate().for_each(|(i, value)| *value = (i % 251) as f32);
        let tie = || {
            let mut config = tiny();
            resolve_tie(space.path(), &mut config).unwrap();
            config.tie_word_embeddings
        };
        write(&path, &weights).unwrap();
        assert!(!tie());
        let embedding = weights.get(EMBEDDING).unwrap().to_vec();
        weights.get_mut(HEAD).unwrap().copy_from_slice(&embedding);
        write(&path, &weights).unwrap();
        assert!(tie());
        assert_eq!(read_folder(space.path(), &tiny()).unwrap().get(EMBEDDING).unwrap(), embedding);
        // The same length, so that the header keeps its own.
        let bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(EMBEDDING.len()).position(|window| window == EMBEDDING.as_bytes()).unwrap();
        let mut only_head = bytes.clone();
        only_head[at..at + EMBEDDING.len()].copy_from_slice(b"model.rotary_emb.inv_freq");
        std::fs::write(&path, &only_head).unwrap();
        assert_eq!(read_folder(space.path(), &tiny()).unwrap().get(EMBEDDING).unwrap(), embedding);
    }

    #[test]
    fn files_without_the_models_prefix_are_read() {
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join("model.safetensors");
        let weights = numbered();
        let named = |tensor: &Tensor| (tensor.name.trim_start_matches("model.").to_string(), tensor.shape.clone(), tensor.range.clone());
        let mut out = create(&path, weights.layout.tensors.iter().map(named)).unwrap();
        write_values(&mut out, weights.data.iter().copied()).unwrap();
        out.flush().unwrap();
        assert_eq!(read_folder(space.path(), &tiny()).unwrap().data, weights.data);
    }

    #[test]
    fn pickles_are_refused_by_name() {
        let space = tempfile::tempdir().unwrap();
        let refused = |file: &str| {
            let error = read_folder(space.path(), &tiny()).unwrap_err().to_string();
            assert!(error.contains(file) && error.contains("convert it") && error.contains("safetensors"), "{error}");
        };
        let error = read_folder(space.path(), &tiny()).unwrap_err().to_string();
        assert!(error.contains("neither model.safetensors nor"), "{error}");
        for name in ["consolidated.00.pth", "pytorch_model-00001-of-00002.bin", "model.pt"] {
            std::fs::write(space.path().join(name), b"\x80\x02").unwrap();
            refused(name);
            std::fs::remove_file(space.path().join(name)).unwrap();
        }
        std::fs::write(space.path().join("model.safetensors.index.json"), r#"{"weight_map": {"a": "pytorch_model.bin"}}"#).unwrap();
        refused("pytorch_model.bin");
        let error = Model::load(&space.path().join("model.pt")).unwrap_err().to_string();
        assert!(error.contains("pickled checkpoint"), "{error}");
    }

    #[test]
    fn tensors_in_one_are_taken_apart_and_put_together() {
        let config = Config { family: Family::Phi3, tie_word_embeddings: false, ..tiny() };
        let layout = Layout::of(&config).unwrap();
        let files = layout.in_files(&config);
        assert_eq!(files.iter().map(|tensor| tensor.members.len()).sum::<usize>(), layout.tensors.len());
        let shape = |name: &str| &files.iter().find(|tensor| tensor.name.ends_with(name)).unwrap().shape;
        assert_eq!(
            (shape("1.self_attn.qkv_proj.weight").as_slice(), shape("1.mlp.gate_up_proj.weight").as_slice()),
            (&[32, 16][..], &[48, 16][..])
        );
        let space = tempfile::tempdir().unwrap();
        let mut weights = Weights::zeros(&config).unwrap();
        weights.data.iter_mut().enumerate().for_each(|(i, value)| *value = i as f32 * 0.25);
        let model = Model { config, weights, tokenizer: bytes_only(), chat: ChatTemplate::default() };
        write_model(&space.path().join("model.safetensors"), &model).unwrap();
        assert_eq!(read_folder(space.path(), &model.config).unwrap().data, model.weights.data);
        let error = read_folder(space.path(), &Config { family: Family::Llama, ..model.config }).unwrap_err().to_string();
        assert!(error.contains("no place for tensor `model.layers.0."), "{error}");
    }

    /// Whatever tensor is missing, has another shape or another name is named.
    #[test]
    fn every_tensor_of_every_family_is_needed() {
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join("model.safetensors");
        for config in super::super::config::tests::of_each_family() {
            let mut weights = Weights::zeros(&config).unwrap();
            weights.data.iter_mut().enumerate().for_each(|(i, value)| *value = (i % 50) as f32 * 0.5 + 1.0);
            let model = Model { config, weights, tokenizer: bytes_only(), chat: ChatTemplate::default() };
            write_model(&path, &model).unwrap();
            assert_eq!(read_folder(space.path(), &model.config).unwrap().data, model.weights.data);
            let bytes = std::fs::read(&path).unwrap();
            let length = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let header: Map<String, Value> = serde_json::from_slice(&bytes[8..length]).unwrap();
            let said = |header: &Map<String, Value>| {
                let text = serde_json::to_vec(header).unwrap();
                std::fs::write(&path, [&(text.len() as u64).to_le_bytes(), text.as_slice(), &bytes[length..]].concat()).unwrap();
                read_folder(space.path(), &model.config).unwrap_err().to_string()
            };
            for name in header.keys().filter(|name| *name != "__metadata__") {
                let mut other = header.clone();
                let tensor = other.remove(name).unwrap();
                other.insert("model.stranger".to_string(), tensor.clone());
                assert!(said(&other).contains("no place for tensor `model.stranger`"), "{name}");
                let mut other = header.clone();
                other[name]["shape"].as_array_mut().unwrap().push(1.into());
                assert!(said(&other).contains(name), "{name}");
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
