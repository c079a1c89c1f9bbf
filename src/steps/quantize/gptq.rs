//! `method = "gptq"`: the matrices of the decoder's layers are rounded in the order in which the model uses them, each with what the rounded ones before it give as its input.

use std::collections::BTreeMap;

use super::preset::Choice;
use crate::model::gguf::llama::row_order;
use crate::model::hessian::Hessian;
use crate::model::quant::{dequantize, gptq};
use crate::model::{Model, ModelError};
use crate::steps::layers::walk;
use crate::steps::{Failure, Io, calibrate};

/// What the rounding reads, and how firmly it believes it.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    pub nsamples: usize,
    pub seqlen: usize,
    pub damp: f64,
}

/// The packed matrices, by their number in the layout.
pub fn round(text: Text, choices: &[Choice], io: &Io) -> Result<BTreeMap<usize, Vec<u8>>, Failure> {
    let mut model = Model::load(io.one("model")?).map_err(|error| Failure::model("load the model", &error))?.at(io.now);
    let windows = calibrate::text(&model, io, text.seqlen, text.nsamples)?;
    let layout = model.weights.layout.clone();
    let config = model.config.clone();
    let mut ready = BTreeMap::new();
    walk::<Hessian>(&config, &mut model.weights, &windows, io, &mut |hessian, matrices| {
        let columns = hessian.columns;
        let factor = hessian.inverse_factor(text.damp)?;
        let importance: Vec<f32> = hessian.diagonal().iter().map(|sum| (sum / hessian.rows as f64) as f32).collect();
        for (name, values) in matrices.iter_mut() {
            let Some(index) = layout.index(name) else { continue };
            let Some(choice) = choices.get(index) else { continue };
            let order = row_order(name, values.len() / columns, &config);
            let mut rows = permuted(values, columns, order.as_deref());
            let mut bytes = Vec::new();
            let wrong = |error| Failure::from(ModelError::malformed(format!("tensor `{name}`"), error));
            gptq::quantize(choice.ty, &mut rows, columns, Some(&importance), &factor, &mut bytes).map_err(wrong)?;
            dequantize(choice.ty, &bytes, &mut rows).map_err(wrong)?;
            restore(&rows, columns, order.as_deref(), values);
            ready.insert(index, bytes);
        }
        Ok(())
    })?;
    Ok(ready)
}

/// Rows as the file has them: `order` says for each which of the model's it is.
fn permuted(values: &[f32], columns: usize, order: Option<&[usize]>) -> Vec<f32> {
    match order {
        None => values.to_vec(),
        Some(order) => order.iter().flat_map(|from| &values[from * columns..][..columns]).copied().collect(),
    }
}

/// The reverse of [`permuted`].
fn restore(rows: &[f32], columns: usize, order: Option<&[usize]>, values: &mut [f32]) {
    match order {
        None => values.copy_from_slice(rows),
        Some(order) => {
            order.iter().zip(rows.chunks_exact(columns)).for_each(|(to, row)| values[to * columns..][..columns].copy_from_slice(row));
        }
    }
}
