//! Reads the container: header, metadata, where each tensor's bytes lie. The file is taken to be hostile: every count is held against the bytes
//! that remain before anything is allocated, and tensors must follow each other without gap or overlap, as llama.cpp demands too.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::value::{Array, Value};
use super::{GgufError, MAGIC, parts};
use crate::base::memory::Growth;
use crate::model::error::is_lfs_pointer;
use crate::model::mapped::Mapped;
use crate::model::quant::BlockType;

/// Real files have some thirty entries.
const MAX_ENTRIES: u64 = 1 << 16;
/// The largest models have a few thousand tensors.
const MAX_TENSORS: u64 = 1 << 17;
/// The specification's limit for keys.
const MAX_KEY_BYTES: usize = (1 << 16) - 1;
/// ggml's `GGML_MAX_NAME` is 64; some converters write longer names.
const MAX_NAME_BYTES: usize = 1024;
/// ggml's `GGML_MAX_DIMS`.
const MAX_DIMENSIONS: u32 = 4;
/// Chat templates and licences are the longest texts.
const MAX_TEXT_BYTES: usize = 1 << 24;
/// The largest vocabularies have some 300,000 tokens and as many merges.
const MAX_ITEMS: usize = 1 << 24;
/// The default is 32; page sizes occur.
const MAX_ALIGNMENT: usize = 1 << 20;

/// What a text takes beside its bytes, about.
const TEXT_BYTES: u64 = 32;
/// What takes the memory, for messages.
const METADATA: &str = "what the GGUF file says of itself";

/// What a tensor is and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    /// In ggml's order: the row length first.
    pub shape: Vec<usize>,
    pub ty: BlockType,
    /// From the start of the file.
    pub bytes: Range<usize>,
    /// In which file it is, of a model in parts.
    pub part: usize,
}

impl TensorInfo {
    /// Cannot overflow: it was checked when the file was read.
    pub fn values(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The parsed head of a GGUF file.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    pub version: u32,
    pub metadata: Vec<(String, Value)>,
    pub tensors: Vec<TensorInfo>,
}

/// An open GGUF file.
#[derive(Debug)]
pub struct Gguf {
    /// Of a model in parts, the first one's metadata and the tensors of all.
    pub header: Arc<Header>,
    pub map: Arc<Mapped>,
    /// The files after the first.
    pub parts: Vec<Arc<Mapped>>,
}

impl Gguf {
    pub fn open(path: &Path) -> Result<Gguf, GgufError> {
        let map = Mapped::open(path)?;
        let mut header = Header::parse(&map)?;
        let parts = parts::join(path, &mut header)?;
        Ok(Gguf { header: Arc::new(header), map: Arc::new(map), parts })
    }

    /// The file that holds a tensor.
    pub fn file_of(&self, tensor: &TensorInfo) -> &Arc<Mapped> {
        tensor.part.checked_sub(1).and_then(|part| self.parts.get(part)).unwrap_or(&self.map)
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.header.get(key)
    }

    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.header.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// The packed bytes of one of this file's tensors.
    pub fn bytes(&self, tensor: &TensorInfo) -> &[u8] {
        self.file_of(tensor).get(tensor.bytes.clone()).unwrap_or(&[])
    }
}

impl Header {
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub fn parse(file: &[u8]) -> Result<Header, GgufError> {
        if is_lfs_pointer(file) {
            return Err(GgufError::Pointer);
        }
        if file.get(..4) != Some(MAGIC) {
            return Err(GgufError::NotGguf);
        }
        let mut cursor = Cursor { file, at: 4, held: Growth::default() };
        let version = cursor.u32("the version")?;
        match version {
            2 | 3 => {}
            _ if matches!(version.swap_bytes(), 2 | 3) => return Err(GgufError::BigEndian),
            _ => return Err(GgufError::Version(version)),
        }
        let tensor_count = limited("tensors", cursor.u64("the number of tensors")?, MAX_TENSORS)?;
        let entry_count = limited("metadata entries", cursor.u64("the number of metadata entries")?, MAX_ENTRIES)?;
        let metadata = read_metadata(&mut cursor, entry_count)?;
        let alignment = alignment(&metadata)?;
        let mut tensors = Vec::new();
        let mut offsets = Vec::new();
        for _ in 0..tensor_count {
            let (tensor, offset) = read_tensor(&mut cursor)?;
            tensors.push(tensor);
            offsets.push(offset);
        }
        check_names(&tensors)?;
        place(&mut tensors, &offsets, cursor.at, alignment, file.len())?;
        Ok(Header { version, metadata, tensors })
    }
}

fn limited(what: &'static str, found: u64, most: u64) -> Result<u64, GgufError> {
    if found <= most { Ok(found) } else { Err(GgufError::Limit { what, found, most }) }
}

fn read_metadata(cursor: &mut Cursor, count: u64) -> Result<Vec<(String, Value)>, GgufError> {
    let mut metadata: Vec<(String, Value)> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..count {
        let key = cursor.text("a metadata key", MAX_KEY_BYTES)?;
        let value = cursor.value(&key)?;
        if !seen.insert(key.clone()) {
            return Err(GgufError::Twice(key));
        }
        metadata.push((key, value));
    }
    Ok(metadata)
}

fn alignment(metadata: &[(String, Value)]) -> Result<usize, GgufError> {
    let Some((_, value)) = metadata.iter().find(|(key, _)| key == "general.alignment") else { return Ok(super::ALIGNMENT) };
    let found = value.as_u64().unwrap_or(0);
    match usize::try_from(found) {
        Ok(alignment) if alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT => Ok(alignment),
        _ => Err(GgufError::Alignment(found)),
    }
}

/// Its byte range is set later, when the start of the data is known.
fn read_tensor(cursor: &mut Cursor) -> Result<(TensorInfo, u64), GgufError> {
    let name = cursor.text("a tensor's name", MAX_NAME_BYTES)?;
    let dimensions = cursor.u32("a tensor's shape")?;
    limited("dimensions", u64::from(dimensions), u64::from(MAX_DIMENSIONS))?;
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        shape.push(cursor.u64("a tensor's shape")?);
    }
    let id = cursor.u32("a tensor's type")?;
    let offset = cursor.u64("a tensor's offset")?;
    let Some(ty) = BlockType::from_id(id) else { return Err(GgufError::TensorType { name, id }) };
    let shape = shape.into_iter().map(usize::try_from).collect::<Result<Vec<_>, _>>();
    let values = shape.as_ref().ok().and_then(|shape| shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)));
    let (Ok(shape), Some(values)) = (shape, values) else { return Err(GgufError::Shape { name }) };
    let row = shape.first().copied().unwrap_or(1);
    let Some(bytes) = ty.bytes_for(values).filter(|_| values > 0 && row % ty.block_values() == 0) else {
        return Err(GgufError::Shape { name });
    };
    Ok((TensorInfo { name, shape, ty, bytes: 0..bytes, part: 0 }, offset))
}

pub(super) fn check_names(tensors: &[TensorInfo]) -> Result<(), GgufError> {
    let mut seen = std::collections::BTreeSet::new();
    match tensors.iter().find(|tensor| !seen.insert(tensor.name.as_str())) {
        Some(tensor) => Err(GgufError::Twice(tensor.name.clone())),
        None => Ok(()),
    }
}

/// Tensors lie one behind the other, each from a multiple of the alignment.
fn place(tensors: &mut [TensorInfo], offsets: &[u64], head: usize, alignment: usize, size: usize) -> Result<(), GgufError> {
    let Some(data) = head.checked_next_multiple_of(alignment) else { return Err(GgufError::Cut { what: "the tensors" }) };
    let mut next = 0usize;
    for (tensor, &offset) in tensors.iter_mut().zip(offsets) {
        if usize::try_from(offset) != Ok(next) {
            return Err(GgufError::Offset { name: tensor.name.clone(), offset, expected: next });
        }
        let length = tensor.bytes.end;
        let start = data.checked_add(next);
        let end = start.and_then(|start| start.checked_add(length)).filter(|end| *end <= size);
        let (Some(start), Some(end)) = (start, end) else { return Err(GgufError::CutTensor { name: tensor.name.clone() }) };
        tensor.bytes = start..end;
        next = (next + length).next_multiple_of(alignment);
    }
    Ok(())
}

/// Reads forward through a file; every read is checked against what remains.
struct Cursor<'a> {
    file: &'a [u8],
    at: usize,
    /// A file may be large without taking any room on its disk, and what it says is copied.
    held: Growth,
}

impl<'a> Cursor<'a> {
    fn remaining(&self) -> usize {
        self.file.len() - self.at
    }

    fn take(&mut self, bytes: usize, what: &'static str) -> Result<&'a [u8], GgufError> {
        let taken = self.at.checked_add(bytes).and_then(|end| self.file.get(self.at..end)).ok_or(GgufError::Cut { what })?;
        self.at += bytes;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N, what)?);
        Ok(bytes)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn text(&mut self, what: &'static str, most: usize) -> Result<String, GgufError> {
        let length = limited(what, self.u64(what)?, most as u64)?;
        let length = usize::try_from(length).map_err(|_| GgufError::Cut { what })?;
        let bytes = self.take(length, what)?;
        self.held.add(length as u64 + TEXT_BYTES, METADATA)?;
        std::str::from_utf8(bytes).map(str::to_string).map_err(|_| GgufError::NotText { what })
    }

    fn value(&mut self, key: &str) -> Result<Value, GgufError> {
        const WHAT: &str = "a metadata value";
        Ok(match self.u32(WHAT)? {
            0 => Value::U8(u8::from_le_bytes(self.array(WHAT)?)),
            1 => Value::I8(i8::from_le_bytes(self.array(WHAT)?)),
            2 => Value::U16(u16::from_le_bytes(self.array(WHAT)?)),
            3 => Value::I16(i16::from_le_bytes(self.array(WHAT)?)),
            4 => Value::U32(self.u32(WHAT)?),
            5 => Value::I32(i32::from_le_bytes(self.array(WHAT)?)),
            6 => Value::F32(f32::from_le_bytes(self.array(WHAT)?)),
            7 => Value::Bool(self.array::<1>(WHAT)? != [0]),
            8 => Value::String(self.text(WHAT, MAX_TEXT_BYTES)?),
            9 => Value::Array(self.items(key)?),
            10 => Value::U64(self.u64(WHAT)?),
            11 => Value::I64(i64::from_le_bytes(self.array(WHAT)?)),
            12 => Value::F64(f64::from_le_bytes(self.array(WHAT)?)),
            id => return Err(GgufError::ValueType { key: key.to_string(), id }),
        })
    }

    fn items(&mut self, key: &str) -> Result<Array, GgufError> {
        const WHAT: &str = "a metadata array";
        let id = self.u32(WHAT)?;
        let count = limited("items of an array", self.u64(WHAT)?, MAX_ITEMS as u64)?;
        let count = usize::try_from(count).map_err(|_| GgufError::Cut { what: WHAT })?;
        Ok(match id {
            0 => Array::U8(self.numbers(count, u8::from_le_bytes)?),
            1 => Array::I8(self.numbers(count, i8::from_le_bytes)?),
            2 => Array::U16(self.numbers(count, u16::from_le_bytes)?),
            3 => Array::I16(self.numbers(count, i16::from_le_bytes)?),
            4 => Array::U32(self.numbers(count, u32::from_le_bytes)?),
            5 => Array::I32(self.numbers(count, i32::from_le_bytes)?),
            6 => Array::F32(self.numbers(count, f32::from_le_bytes)?),
            7 => Array::Bool(self.numbers(count, |bytes: [u8; 1]| bytes != [0])?),
            8 => Array::String(self.texts(count)?),
            10 => Array::U64(self.numbers(count, u64::from_le_bytes)?),
            11 => Array::I64(self.numbers(count, i64::from_le_bytes)?),
            12 => Array::F64(self.numbers(count, f64::from_le_bytes)?),
            id => return Err(GgufError::ValueType { key: key.to_string(), id }),
        })
    }

    fn numbers<T, const N: usize>(&mut self, count: usize, read: impl Fn([u8; N]) -> T) -> Result<Vec<T>, GgufError> {
        const WHAT: &str = "a metadata array";
        let bytes = self.take(count.checked_mul(N).ok_or(GgufError::Cut { what: WHAT })?, WHAT)?;
        self.held.add(bytes.len() as u64, METADATA)?;
        let (items, _) = bytes.as_chunks::<N>();
        Ok(items.iter().map(|item| read(*item)).collect())
    }

    fn texts(&mut self, count: usize) -> Result<Vec<String>, GgufError> {
        const WHAT: &str = "a metadata array's text";
        // Each text takes at least the eight bytes of its length.
        if count > self.remaining() / 8 {
            return Err(GgufError::Cut { what: WHAT });
        }
        self.held.add(count as u64 * size_of::<String>() as u64, METADATA)?;
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            texts.push(self.text(WHAT, MAX_TEXT_BYTES)?);
        }
        Ok(texts)
    }
}
