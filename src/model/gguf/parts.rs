//! A model in several files, `NAME-00001-of-00003.gguf` and so on, as llama.cpp's `gguf-split` makes them: the first holds the metadata, each some tensors.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::read::check_names;
use super::{GgufError, Header, Value};
use crate::base::files;
use crate::model::mapped::Mapped;

/// The largest published models are in some dozens.
const MAX_PARTS: u64 = 999;

/// `NAME` and the two numbers of `NAME-00001-of-00003.gguf`.
fn split(path: &Path) -> Option<(&str, u64, u64)> {
    let name = path.file_name()?.to_str()?;
    let (stem, ending) = name.rsplit_once('.')?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (prefix, number) = rest.rsplit_once('-')?;
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let fits = ending == "gguf" && is_number(number) && is_number(count);
    fits.then_some((prefix, number.parse().ok()?, count.parse().ok()?))
}

fn name(prefix: &str, number: u64, count: u64) -> String {
    format!("{prefix}-{number:05}-of-{count:05}.gguf")
}

/// Whether files in the order of their names are all parts of one model.
pub fn are_one(paths: &[PathBuf]) -> bool {
    let Some((prefix, 1, count)) = paths.first().and_then(|path| split(path)) else { return false };
    let fits = |(place, path): (usize, &PathBuf)| split(path) == Some((prefix, place as u64 + 1, count));
    count == paths.len() as u64 && paths.iter().enumerate().all(fits)
}

/// All files of a model in `count` parts, of which this is the first.
pub fn all(path: &Path, count: usize) -> Vec<PathBuf> {
    match split(path) {
        Some((prefix, 1, of)) if of == count as u64 => (1..=of).map(|number| path.with_file_name(name(prefix, number, of))).collect(),
        _ => vec![path.to_path_buf()],
    }
}

/// Adds the tensors of the other parts to the first one's. A file that is no part stays as it is.
pub(super) fn join(path: &Path, header: &mut Header) -> Result<Vec<Arc<Mapped>>, GgufError> {
    let number = |header: &Header, key: &str| header.get(key).and_then(Value::as_u64).unwrap_or(0);
    let count = number(header, "split.count");
    if count <= 1 {
        return Ok(Vec::new());
    }
    let wrong = |why: String| GgufError::Parts { count, why };
    if count > MAX_PARTS {
        return Err(GgufError::Limit { what: "parts", found: count, most: MAX_PARTS });
    }
    let named = split(path).filter(|(_, _, of)| *of == count);
    let prefix = named.map(|(prefix, ..)| prefix);
    let own = number(header, "split.no");
    if own != 0 {
        let first = name(prefix.unwrap_or("NAME"), 1, count);
        return Err(GgufError::LaterPart { number: own.saturating_add(1), count, first });
    }
    let Some(prefix) = prefix else {
        return Err(wrong(format!("its name is not `{}`, by which the others are found", name("NAME", 1, count))));
    };
    let mut maps = Vec::new();
    for part in 1..count {
        let file = name(prefix, part + 1, count);
        let place = path.with_file_name(&file);
        if !files::exists(&place)? {
            return Err(wrong(format!("`{file}` is not beside it; name the folder that holds them all")));
        }
        let broken = |error: GgufError| match error {
            error @ (GgufError::Io(_) | GgufError::Memory(_)) => error,
            error => wrong(format!("`{file}` is malformed: {error}")),
        };
        let map = Mapped::open(&place)?;
        let mut other = Header::parse(&map).map_err(broken)?;
        if number(&other, "split.no") != part || number(&other, "split.count") != count {
            return Err(wrong(format!(
                "`{file}` says that it is part {} of {}",
                number(&other, "split.no").saturating_add(1),
                number(&other, "split.count")
            )));
        }
        other.tensors.iter_mut().for_each(|tensor| tensor.part = maps.len() + 1);
        header.tensors.append(&mut other.tensors);
        maps.push(Arc::new(map));
    }
    check_names(&header.tensors)?;
    let promised = number(header, "split.tensors.count");
    if promised != 0 && promised != header.tensors.len() as u64 {
        return Err(wrong(format!("they hold {} tensors together, not {promised}", header.tensors.len())));
    }
    Ok(maps)
}

#[cfg(test)]
mod tests {
    use super::super::{TensorPlan, Writer};
    use super::*;
    use crate::model::quant::BlockType;

    fn write(path: &Path, no: u16, count: u16, tensors: &[&str]) {
        std::fs::remove_file(path).ok();
        let metadata = [("split.no", Value::U16(no)), ("split.count", Value::U16(count)), ("split.tensors.count", Value::I32(3))];
        let metadata: Vec<_> = metadata.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        let plans: Vec<_> =
            tensors.iter().map(|name| TensorPlan { name: (*name).to_string(), shape: vec![2], ty: BlockType::F32 }).collect();
        let mut writer = Writer::create(path, &metadata, &plans).unwrap();
        tensors.iter().for_each(|name| writer.tensor(&[name.as_bytes()[0]; 8]).unwrap());
        writer.finish().unwrap();
    }

    #[test]
    fn parts_are_one_file() {
        let space = tempfile::tempdir().unwrap();
        let path = |number: u64| space.path().join(name("x", number, 2));
        write(&path(1), 0, 2, &["a"]);
        let said = |path: &Path| super::super::Gguf::open(path).unwrap_err().to_string();
        assert!(said(&path(1)).contains("`x-00002-of-00002.gguf` is not beside it"));
        write(&path(2), 1, 2, &["b", "c"]);
        let file = super::super::Gguf::open(&path(1)).unwrap();
        let first = |name: &str| file.bytes(file.tensor(name).unwrap())[0];
        assert_eq!((first("a"), first("b"), first("c")), (b'a', b'b', b'c'));
        assert!(said(&path(2)).contains("part 2 of 2: open the first one, `x-00001-of-00002.gguf`"), "{}", said(&path(2)));
        assert!(are_one(&[path(1), path(2)]) && !are_one(&[path(2)]) && !are_one(&[path(1)]));
        for (tensors, no, expected) in
            [(&["b"][..], 1, "2 tensors together, not 3"), (&["a", "c"], 1, "twice"), (&["b", "c"], 0, "part 1 of 2")]
        {
            write(&path(2), no, 2, tensors);
            assert!(said(&path(1)).contains(expected), "{}", said(&path(1)));
        }
        let other = space.path().join("other.gguf");
        write(&other, 0, 2, &["a"]);
        assert!(said(&other).contains("`NAME-00001-of-00002.gguf`"));
    }
}
