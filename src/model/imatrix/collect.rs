//! Runs a model over a text and adds up the squares of what goes into each matrix, in f64 and in the text's order: neither threads nor the cut into passes can
//! change a bit.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::{Entry, Imatrix};
use crate::kernels::gemm::Write;
use crate::model::decoder::{Batch, Decoder, Keep, Pairs, Place, Tensors};
use crate::model::gguf::llama::tensor_name;
use crate::model::weights::Layout;
use crate::model::{Model, ModelError};

/// Tokens of one pass.
const BATCH_ROWS: usize = 2048;
/// Columns that one thread adds up.
const PIECE: usize = 64;

/// A piece of text, as tokens.
pub type Window = Vec<u32>;

/// Cuts a text into windows of `length` tokens and takes `most` of them, evenly spread over it. What remains at its end is left out, unless it is all there is.
pub fn windows(tokens: &[u32], length: usize, most: usize) -> Vec<Window> {
    let whole: Vec<&[u32]> = tokens.chunks_exact(length.max(1)).collect();
    if whole.is_empty() {
        return if tokens.is_empty() { Vec::new() } else { vec![tokens.to_vec()] };
    }
    let count = whole.len().min(most);
    (0..count).filter_map(|i| whole.get(i * whole.len() / count)).map(|window| window.to_vec()).collect()
}

/// `each` hears how many windows are done, and may stop the work.
pub fn collect<W: Tensors>(
    model: &Model<W>,
    windows: &[Window],
    each: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Imatrix, ModelError> {
    let mut decoder = Decoder::new(&model.config)?;
    let layout = Layout::of(&model.config)?;
    let observed = Observed {
        weights: &model.weights,
        head: decoder.places.head.index,
        seen: layout.tensors.iter().map(|_| Mutex::default()).collect(),
    };
    let mut batch = Batch::default();
    let mut done = 0;
    while done < windows.len() {
        batch.clear();
        for window in &windows[done..] {
            if batch.rows() > 0 && batch.rows() + window.len() > BATCH_ROWS {
                break;
            }
            batch.push(window, 0..window.len());
            done += 1;
        }
        // On a worker thread, as in `generate`.
        rayon::scope(|_| {
            decoder.forward(&observed, &batch, Keep::Nothing)?;
            decoder.logits(&observed, &mut |_, _| Ok(()))
        })?;
        if each(done).is_break() {
            return Err(ModelError::Stopped);
        }
    }
    let mut imatrix = Imatrix { chunk_count: windows.len() as u32, ..Imatrix::default() };
    imatrix.chunk_size = windows.iter().map(Vec::len).max().unwrap_or(0) as u32;
    for tensor in layout.in_files(&model.config) {
        // Those that lie in one have the same inputs.
        let Some(seen) = observed.seen.get(tensor.members.start) else { continue };
        let Seen { sums, rows } = &*seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(name) = tensor_name(model.config.family, &tensor.name).filter(|_| *rows > 0) else { continue };
        let sums: Vec<f32> = sums.iter().map(|sum| *sum as f32).collect();
        if sums.iter().any(|sum| !sum.is_finite()) {
            return Err(ModelError::Input(format!("the inputs of `{name}` are not finite numbers")));
        }
        imatrix.entries.insert(name, Entry { sums, count: *rows as f32 });
    }
    Ok(imatrix)
}

/// What has gone into a matrix.
#[derive(Debug, Default)]
struct Seen {
    sums: Vec<f64>,
    rows: u64,
}

/// A model's weights, their inputs watched.
struct Observed<'a, W> {
    weights: &'a W,
    head: usize,
    /// By place.
    seen: Vec<Mutex<Seen>>,
}

impl<W: Tensors> Tensors for Observed<'_, W> {
    fn rows(&self, place: &Place, ids: &[u32], out: &mut [f32]) {
        self.weights.rows(place, ids, out);
    }

    fn vector(&self, place: &Place) -> &[f32] {
        self.weights.vector(place)
    }

    fn linear(&self, place: &Place, x: &[f32], y: &mut [f32], write: Write) {
        if let Some(seen) = self.seen.get(place.index) {
            seen.lock().unwrap_or_else(PoisonError::into_inner).add(x, place.columns);
        }
        // Nobody wants the logits, and they are the dearest product.
        if place.index != self.head {
            self.weights.linear(place, x, y, write);
        }
    }

    fn pairs(&self) -> Pairs {
        self.weights.pairs()
    }
}

impl Seen {
    fn add(&mut self, x: &[f32], columns: usize) {
        self.sums.resize(columns, 0.0);
        self.rows += (x.len() / columns) as u64;
        self.sums.par_chunks_mut(PIECE).enumerate().for_each(|(piece, sums)| {
            for row in x.chunks_exact(columns) {
                for (sum, value) in sums.iter_mut().zip(&row[piece * PIECE..]) {
                    *sum += f64::from(*value) * f64::from(*value);
                }
            }
        });
    }
}
