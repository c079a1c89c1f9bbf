//! Runs a model over a text and adds up the squares of what goes into each matrix, in f64 and in the text's order: neither threads nor the cut into passes can
//! change a bit.

use std::ops::ControlFlow;

use super::{Entry, Imatrix, Squares};
use crate::model::decoder::{Batch, Decoder, Inputs, Keep, Tensors, Watched};
use crate::model::gguf::llama::tensor_name;
use crate::model::weights::Layout;
use crate::model::{Model, ModelError};

/// Tokens of one pass.
const BATCH_ROWS: usize = 2048;

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
    let inputs: Inputs<Squares> = Inputs::of(0..layout.tensors.len());
    // Nobody wants the logits, and they are the dearest product.
    let observed = Watched { weights: &model.weights, inputs: &inputs, idle: Some(decoder.places.head.index) };
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
        let Some(Squares { sums, rows }) = inputs.take(tensor.members.start) else { continue };
        let Some(name) = tensor_name(model.config.family, &tensor.name).filter(|_| rows > 0) else { continue };
        let sums: Vec<f32> = sums.iter().map(|sum| *sum as f32).collect();
        if sums.iter().any(|sum| !sum.is_finite()) {
            return Err(ModelError::Input(format!("the inputs of `{name}` are not finite numbers")));
        }
        imatrix.entries.insert(name, Entry { sums, count: rows as f32 });
    }
    Ok(imatrix)
}
