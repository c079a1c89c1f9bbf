//! llama.cpp's older format, little-endian: the number of entries; for each the length of its name, the name, the number of calls, the number of values and those,
//! each the mean square times the calls; then, perhaps, the number of chunks and the dataset's name.

use std::collections::BTreeMap;

use super::{Imatrix, MAX_COLUMNS, MAX_ENTRIES, checked};

/// ggml's limit is 64.
const MAX_NAME: usize = 1024;

pub fn parse(bytes: &[u8]) -> Result<Imatrix, String> {
    let mut rest = bytes;
    let count = size(&mut rest, MAX_ENTRIES, "entries")?;
    if count == 0 {
        return Err("it is no importance matrix, or an empty one".to_string());
    }
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let length = size(&mut rest, MAX_NAME, "bytes of a name")?;
        let name = std::str::from_utf8(take(&mut rest, length)?).map_err(|_| "a name is not UTF-8".to_string())?.to_string();
        let calls = size(&mut rest, i32::MAX as usize, "calls")?;
        let columns = size(&mut rest, MAX_COLUMNS, "values")?;
        let (values, _) = take(&mut rest, 4 * columns)?.as_chunks::<4>();
        let sums = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
        let entry = checked(&name, sums, calls.max(1) as f32)?;
        if entries.insert(name.clone(), entry).is_some() {
            return Err(format!("`{name}` stands there twice"));
        }
    }
    let mut imatrix = Imatrix { entries, ..Imatrix::default() };
    if !rest.is_empty() {
        imatrix.chunk_count = size(&mut rest, i32::MAX as usize, "chunks")? as u32;
        if !rest.is_empty() {
            let length = size(&mut rest, 1 << 16, "bytes of a name")?;
            let name = take(&mut rest, length)?;
            imatrix.datasets.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    Ok(imatrix)
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], String> {
    let (taken, after) = rest.split_at_checked(count).ok_or("it is no importance matrix, or the file is cut")?;
    *rest = after;
    Ok(taken)
}

fn size(rest: &mut &[u8], most: usize, what: &str) -> Result<usize, String> {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(take(rest, 4)?);
    let found = i32::from_le_bytes(bytes);
    usize::try_from(found).ok().filter(|found| *found <= most).ok_or_else(|| format!("it is no importance matrix: {found} {what}"))
}
