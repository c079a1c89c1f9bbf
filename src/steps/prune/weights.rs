//! Zeros, layer by layer: a layer's inputs are what the pruned layers before it give, so that its choice knows their errors.

use super::settings::{Action, Sparsity};
use super::{load, save};
use crate::model::Weights;
use crate::model::hessian::Hessian;
use crate::model::imatrix::Squares;
use crate::model::sparse::{Ledger, Pattern, is_prunable, score, sparsegpt};
use crate::model::weights::Tensor;
use crate::steps::layers::walk;
use crate::steps::quantize::rules::is_in;
use crate::steps::{Failure, Io};

pub fn run(action: Action, sparsity: &Sparsity, io: &Io) -> Result<(), Failure> {
    let (mut model, windows) = load(sparsity.text.as_ref(), io)?;
    let chosen = Chosen::of(&model.weights, sparsity)?;
    match action {
        Action::Magnitude => magnitude(&mut model.weights, &chosen, io)?,
        Action::Wanda => walk::<Squares>(&model.config, &mut model.weights, &windows, io, &mut |squares, matrices| {
            let norms = score::norms(&squares.sums);
            matrices.iter_mut().for_each(|(name, values)| {
                if chosen.has(name) {
                    score::prune(values, norms.len(), chosen.pattern, Some(&norms));
                }
            });
            Ok(())
        })?,
        Action::SparseGpt => {
            let (damp, block) = (sparsity.damp.unwrap_or(0.01), sparsity.block_size.unwrap_or(1));
            walk::<Hessian>(&model.config, &mut model.weights, &windows, io, &mut |hessian, matrices| {
                if matrices.iter().any(|(name, _)| chosen.has(name)) {
                    let factor = hessian.inverse_factor(damp)?;
                    for (_, values) in matrices.iter_mut().filter(|(name, _)| chosen.has(name)) {
                        sparsegpt::prune(values, &factor, chosen.pattern, block);
                    }
                }
                Ok(())
            })?;
        }
        Action::Cut => return Err(Failure::bug("cutting makes no zeros")),
    }
    let ledger = Ledger::of(&model.weights);
    if !model.weights.data.iter().all(|weight| weight.is_finite()) {
        return Err(Failure::new("a pruned weight is not a finite number").help("raise `damp`, or read more text (`nsamples`)"));
    }
    io.say(format!("{}; {} matrices are left dense", ledger.summary(), chosen.dense));
    io.say(&ledger.note);
    Ok(save(&model, Some(ledger), &io.out)?)
}

/// The matrices to prune.
struct Chosen {
    pattern: Pattern,
    names: Vec<String>,
    /// How many linear layers are not among them.
    dense: usize,
}

impl Chosen {
    fn of(weights: &Weights, sparsity: &Sparsity) -> Result<Chosen, Failure> {
        let pattern = sparsity.pattern();
        let linear = || weights.layout.tensors.iter().filter(|tensor| is_prunable(&tensor.name));
        if let Some(unused) = sparsity.exclude_modules.iter().find(|pattern| !linear().any(|tensor| is_in(pattern, &tensor.name))) {
            let help = "linear layers go by their names in a Hugging Face folder: model.layers.0.self_attn.q_proj.weight; embeddings, head and norms are never pruned";
            return Err(Failure::new(format!("`exclude_modules`: `{unused}` names no linear layer of the model")).help(help));
        }
        let is_excluded = |tensor: &&Tensor| sparsity.exclude_modules.iter().any(|pattern| is_in(pattern, &tensor.name));
        let chosen: Vec<&Tensor> = linear().filter(|tensor| !is_excluded(tensor)).collect();
        if let Pattern::Groups { of, .. } = pattern {
            let broken = chosen.iter().find(|tensor| tensor.shape.last().is_some_and(|columns| !columns.is_multiple_of(of)));
            if let Some(tensor) = broken {
                let columns = tensor.shape.last().copied().unwrap_or(0);
                let message = format!("`{}` has rows of {columns}, which do not divide into groups of {of}", tensor.name);
                return Err(Failure::new(message).help("exclude it, or write `sparsity_type = \"unstructured\"`"));
            }
        }
        let dense = linear().count() - chosen.len();
        Ok(Chosen { pattern, dense, names: chosen.into_iter().map(|tensor| tensor.name.clone()).collect() })
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|chosen| chosen == name)
    }
}

fn magnitude(weights: &mut Weights, chosen: &Chosen, io: &Io) -> Result<(), Failure> {
    for (done, name) in chosen.names.iter().enumerate() {
        io.check_cancelled()?;
        io.progress(done as u64, chosen.names.len() as u64, "matrices", "");
        let columns = weights.shape(name).and_then(|shape| shape.last().copied()).unwrap_or(1);
        if let Some(values) = weights.get_mut(name) {
            score::prune(values, columns, chosen.pattern, None);
        }
    }
    Ok(())
}
