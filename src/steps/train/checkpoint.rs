//! A training's state on disk: written whole or not at all, with a digest over everything, so that a cut or mangled file is not believed.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::state::{Best, Point, State};
use crate::base::{Digest, files};
use crate::steps::Failure;

const MAGIC: &[u8; 16] = b"slmops-train-01\n";
const NAME: &str = "checkpoint.bin";

/// Everything but the large arrays. Floats by their bits: they must come back exactly.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    step: u64,
    stale: u64,
    sum_bits: u64,
    sum_steps: u64,
    tokens: u64,
    curve: Vec<Row>,
    best: Option<(u64, u64)>,
    parameters: u64,
}

/// Step, loss, validation loss, learning rate.
type Row = (u64, u64, Option<u64>, u32);

pub fn save(folder: &Path, state: &State) -> Result<(), Failure> {
    let bits = f64::to_bits;
    let header = Header {
        step: state.step,
        stale: state.stale,
        sum_bits: bits(state.sum),
        sum_steps: state.sum_steps,
        tokens: state.tokens,
        curve: state.curve.iter().map(|p| (p.step, bits(p.loss), p.validation_loss.map(bits), p.learning_rate.to_bits())).collect(),
        best: state.best.as_ref().map(|best| (best.step, bits(best.loss))),
        parameters: state.weights.len() as u64,
    };
    let header = serde_json::to_vec(&header).map_err(|error| Failure::bug(error.to_string()))?;
    let best = state.best.as_ref().map_or(&[][..], |best| best.weights.as_slice());
    let arrays = [&state.weights, &state.first, &state.second, best];
    let size = arrays.iter().map(|array| array.len() * 4).sum::<usize>();
    let mut bytes = Vec::with_capacity(MAGIC.len() + 8 + header.len() + size + 32);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(header.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&header);
    for array in arrays {
        bytes.extend(array.iter().flat_map(|value| value.to_le_bytes()));
    }
    let digest = Digest::of(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    let fail = |error| Failure::file("write", &folder.join(NAME), &error);
    std::fs::create_dir_all(folder).map_err(fail)?;
    files::write_atomic(&folder.join(NAME), &bytes).map_err(fail)
}

/// What is wrong with a checkpoint; training then starts anew.
pub type Unusable = String;

/// Nothing if there is no checkpoint.
pub fn load(folder: &Path, parameters: usize) -> Result<Option<State>, Unusable> {
    let bytes = match std::fs::read(folder.join(NAME)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    read(&bytes, parameters).map(Some)
}

fn read(bytes: &[u8], parameters: usize) -> Result<State, Unusable> {
    let (body, digest) = bytes.split_last_chunk::<32>().ok_or("it is cut")?;
    if Digest::of(body).as_bytes() != digest {
        return Err("its digest is wrong".to_string());
    }
    let rest = body.strip_prefix(MAGIC).ok_or("it has another format")?;
    let (length, rest) = rest.split_first_chunk::<8>().ok_or("it is cut")?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|error| error.to_string())?;
    let (header, mut rest) = rest.split_at_checked(length).ok_or("its header is cut")?;
    let header: Header = serde_json::from_slice(header).map_err(|error| error.to_string())?;
    if header.parameters != parameters as u64 {
        return Err(format!("it is of a model with {} parameters", header.parameters));
    }
    let mut array = || -> Result<Vec<f32>, Unusable> {
        let (numbers, after) = rest.split_at_checked(parameters * 4).ok_or("its arrays are cut")?;
        rest = after;
        Ok(numbers.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    };
    let (weights, first, second) = (array()?, array()?, array()?);
    let best = match header.best {
        Some((step, loss)) => Some(Best { step, loss: f64::from_bits(loss), weights: array()? }),
        None => None,
    };
    if !rest.is_empty() {
        return Err("it is too long".to_string());
    }
    let point = |(step, loss, validation, rate): &Row| Point {
        step: *step,
        loss: f64::from_bits(*loss),
        validation_loss: validation.map(f64::from_bits),
        learning_rate: f32::from_bits(*rate),
    };
    Ok(State {
        step: header.step,
        weights,
        first,
        second,
        best,
        stale: header.stale,
        sum: f64::from_bits(header.sum_bits),
        sum_steps: header.sum_steps,
        tokens: header.tokens,
        curve: header.curve.iter().map(point).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let mut state = State::new(vec![0.5, -1.0, 3.25]);
        state.step = 9;
        state.first = vec![1.0, 2.0, 3.0];
        state.sum = 0.1 + 0.2;
        state.best = Some(Best { step: 4, loss: 1.0 / 3.0, weights: vec![7.0, 8.0, 9.0] });
        state.curve.push(Point { step: 5, loss: 0.7, validation_loss: Some(0.1), learning_rate: 1e-3 });
        state
    }

    #[test]
    fn it_comes_back_exactly() {
        let space = tempfile::tempdir().unwrap();
        assert!(load(space.path(), 3).unwrap().is_none());
        save(space.path(), &state()).unwrap();
        assert_eq!(load(space.path(), 3).unwrap().unwrap(), state());
        assert!(load(space.path(), 4).unwrap_err().contains("3 parameters"));
    }

    #[test]
    fn a_cut_or_mangled_file_is_not_believed() {
        let space = tempfile::tempdir().unwrap();
        save(space.path(), &state()).unwrap();
        let bytes = std::fs::read(space.path().join(NAME)).unwrap();
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length], 3).is_err(), "{length}");
        }
        for i in 0..bytes.len() {
            let mut mangled = bytes.clone();
            mangled[i] ^= 1;
            assert!(read(&mangled, 3).is_err(), "{i}");
        }
    }
}
