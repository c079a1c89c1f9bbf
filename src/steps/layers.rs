//! A model's layers in turn, for what changes their matrices by what goes into them: each layer reads what the changed ones before it give.

use super::{Failure, Io};
use crate::base::memory;
use crate::model::decoder::{Gather, Inputs, Layerwise, Place, Watched};
use crate::model::imatrix::Window;
use crate::model::{Config, Weights};

/// Some matrices of a layer, by name.
pub type Matrices<'a> = Vec<(String, &'a mut [f32])>;

/// Goes through the layers. `each` is given what was gathered of an input and the matrices that have it, and changes these.
pub fn walk<G: Gather>(
    config: &Config,
    weights: &mut Weights,
    windows: &[Window],
    io: &Io,
    each: &mut dyn FnMut(&G, &mut Matrices) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let layout = weights.layout.clone();
    let mut walk = Layerwise::new(config, weights, windows)?;
    let layers = walk.places().layers.clone();
    for (index, layer) in layers.iter().enumerate() {
        io.check_cancelled()?;
        io.progress(index as u64, layers.len() as u64, "layers", "");
        // Those that share an input share what is gathered of it.
        let groups: [&[&Place]; 4] = [&[&layer.q, &layer.k, &layer.v], &[&layer.o], &[&layer.gate, &layer.up], &[&layer.down]];
        if index == 0 {
            let gathered = groups.iter().filter_map(|group| group.first()).map(|place| G::bytes(place.columns)).sum();
            memory::check(gathered, "what is gathered of a layer's inputs")?;
        }
        let inputs: Inputs<G> = Inputs::of(groups.iter().filter_map(|group| group.first()).map(|place| place.index));
        walk.look(&Watched { weights: &*weights, inputs: &inputs, idle: Some(layer.down.index) }, index, &mut |_, _| {});
        for group in groups {
            let Some(gathered) = group.first().and_then(|place| inputs.take(place.index)) else { continue };
            let mut matrices = Matrices::new();
            let mut rest = weights.data.as_mut_slice();
            let mut at = 0;
            for place in group {
                let (_, from) = std::mem::take(&mut rest).split_at_mut(place.range.start - at);
                let (values, behind) = from.split_at_mut(place.range.len());
                (rest, at) = (behind, place.range.end);
                matrices.push((layout.tensors[place.index].name.clone(), values));
            }
            each(&gathered, &mut matrices)?;
        }
        walk.advance(weights, index);
    }
    Ok(())
}
