//! A model of which parts are left out: whole layers, channels of their MLPs, key and value heads with the query heads that share them. Copies what is left and says so in
//! the configuration; what is worth keeping, the caller knows.

use std::ops::Range;
use std::sync::Arc;

use super::weights::{Layout, Tensor};
use super::{Config, ModelError, Weights};

/// What is left of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    /// Which layer of the whole model.
    pub layer: usize,
    /// Channels of its MLP, ascending.
    pub channels: Vec<usize>,
    /// Key and value heads, ascending.
    pub heads: Vec<usize>,
}

/// `rests` are ascending, and each has as many channels and heads as the others.
pub fn cut(config: &Config, weights: &Weights, rests: &[Rest]) -> Result<(Config, Weights), ModelError> {
    let smaller = shape(config, rests)?;
    let layout = Layout::of(&smaller)?;
    let mut data = layout.room()?;
    data.clear();
    for tensor in &layout.tensors {
        let (source, rest) = source(weights, tensor, rests)?;
        let values = &weights.data[source.range.clone()];
        let columns = source.shape.last().copied().unwrap_or(1);
        match rest.map(|rest| chosen(config, &source.name, rest)) {
            Some(Some(Chosen::Rows(ranges))) => {
                // A bias is one number for each row.
                let width = if source.shape.len() == 1 { 1 } else { columns };
                ranges.into_iter().for_each(|rows| data.extend_from_slice(&values[rows.start * width..rows.end * width]));
            }
            Some(Some(Chosen::Columns(ranges))) => {
                for row in values.chunks_exact(columns) {
                    ranges.iter().for_each(|columns| data.extend_from_slice(&row[columns.clone()]));
                }
            }
            Some(None) | None => data.extend_from_slice(values),
        }
    }
    if data.len() != layout.total() {
        return Err(ModelError::Input(format!("{} of {} weights are left", data.len(), layout.total())));
    }
    Ok((smaller, Weights { layout: Arc::new(layout), data }))
}

fn shape(config: &Config, rests: &[Rest]) -> Result<Config, ModelError> {
    let wrong = |why: &str| ModelError::Input(format!("a model cannot be cut so: {why}"));
    let first = rests.first().ok_or_else(|| wrong("no layer is left"))?;
    let ascending = |numbers: &[usize], limit: usize| {
        !numbers.is_empty() && numbers.windows(2).all(|pair| pair[0] < pair[1]) && numbers.iter().all(|number| *number < limit)
    };
    let layers: Vec<usize> = rests.iter().map(|rest| rest.layer).collect();
    let fits = |rest: &Rest| {
        ascending(&rest.channels, config.intermediate_size)
            && ascending(&rest.heads, config.num_key_value_heads)
            && (rest.channels.len(), rest.heads.len()) == (first.channels.len(), first.heads.len())
    };
    if !ascending(&layers, config.num_hidden_layers) || !rests.iter().all(fits) {
        return Err(wrong("its layers differ in shape, or a part is not there"));
    }
    // What a layer has of its own goes on under its new number.
    let renumbered = |of: &[usize]| (0..layers.len()).filter(|new| of.binary_search(&layers[*new]).is_ok()).collect();
    let mut smaller = config.clone();
    smaller.num_hidden_layers = layers.len();
    smaller.intermediate_size = first.channels.len();
    smaller.num_key_value_heads = first.heads.len();
    smaller.num_attention_heads = first.heads.len() * group(config);
    smaller.features.unturned_layers = renumbered(&config.features.unturned_layers);
    smaller.features.full_layers = renumbered(&config.features.full_layers);
    smaller.check()?;
    Ok(smaller)
}

/// Query heads that share a key and value head.
pub fn group(config: &Config) -> usize {
    config.num_attention_heads / config.num_key_value_heads
}

/// The tensor that one of the smaller model comes from, and what is left of its layer.
fn source<'a>(weights: &'a Weights, tensor: &Tensor, rests: &'a [Rest]) -> Result<(&'a Tensor, Option<&'a Rest>), ModelError> {
    let numbered = tensor.name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
    let rest = numbered.and_then(|(number, _)| rests.get(number.parse::<usize>().ok()?));
    let name = match (numbered, rest) {
        (Some((_, part)), Some(rest)) => format!("model.layers.{}.{part}", rest.layer),
        _ => tensor.name.clone(),
    };
    let missing = || ModelError::malformed("the weights", format!("`{name}` is missing"));
    Ok((weights.layout.tensor(&name).ok_or_else(missing)?, rest))
}

enum Chosen {
    Rows(Vec<Range<usize>>),
    Columns(Vec<Range<usize>>),
}

fn chosen(config: &Config, name: &str, rest: &Rest) -> Option<Chosen> {
    let heads = |size: usize| rest.heads.iter().map(|head| head * size..(head + 1) * size).collect::<Vec<_>>();
    let channels = || rest.channels.iter().map(|channel| *channel..channel + 1).collect::<Vec<_>>();
    let queries = group(config) * config.head_dim;
    let (_, part) = name.rsplit_once("self_attn.").or_else(|| name.rsplit_once("mlp."))?;
    match part {
        "q_proj.weight" | "q_proj.bias" => Some(Chosen::Rows(heads(queries))),
        "k_proj.weight" | "v_proj.weight" | "k_proj.bias" | "v_proj.bias" => Some(Chosen::Rows(heads(config.head_dim))),
        "o_proj.weight" => Some(Chosen::Columns(heads(queries))),
        "gate_proj.weight" | "up_proj.weight" => Some(Chosen::Rows(channels())),
        "down_proj.weight" => Some(Chosen::Columns(channels())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::of_each_family;
    use super::super::decoder::{Batch, Decoder, Keep};
    use super::*;

    fn logits(config: &Config, weights: &Weights) -> Vec<f32> {
        let mut decoder = Decoder::new(config).unwrap();
        let mut batch = Batch::default();
        batch.push(&(0..24).collect::<Vec<u32>>(), 0..24);
        decoder.forward(weights, &batch, Keep::Nothing).unwrap();
        let mut all = Vec::new();
        decoder
            .logits(weights, &mut |_, logits| {
                all.extend_from_slice(logits);
                Ok(())
            })
            .unwrap();
        all
    }

    fn whole(config: &Config, layer: usize) -> Rest {
        Rest { layer, channels: (0..config.intermediate_size).collect(), heads: (0..config.num_key_value_heads).collect() }
    }

    /// What gives nothing can go: the logits of a model with silenced parts are those of the model without them, in every family.
    #[test]
    fn what_is_silent_can_be_cut_off() {
        for config in of_each_family() {
            let mut weights = Weights::random(&config, 7).unwrap();
            // Larger than after a first draw, so that every part is heard.
            weights.data.iter_mut().for_each(|weight| *weight *= 6.0);
            let (gone, layers) = (1, config.num_hidden_layers);
            let rests: Vec<Rest> = (0..layers)
                .filter(|layer| *layer != gone)
                .map(|layer| Rest { layer, channels: (0..24).filter(|channel| channel % 3 != layer % 3).collect(), heads: vec![layer % 2] })
                .collect();
            for layer in 0..layers {
                let rest = rests.iter().find(|rest| rest.layer == layer);
                let queries = group(&config) * config.head_dim;
                for (part, size) in [("self_attn.o_proj.weight", queries), ("mlp.down_proj.weight", 1)] {
                    let name = format!("model.layers.{layer}.{part}");
                    let columns = weights.shape(&name).unwrap()[1];
                    for (i, value) in weights.get_mut(&name).unwrap().iter_mut().enumerate() {
                        let place = i % columns / size;
                        let kept = rest.is_some_and(|rest| if size == 1 { &rest.channels } else { &rest.heads }.contains(&place));
                        *value = if kept { *value } else { 0.0 };
                    }
                }
            }
            let (smaller, left) = cut(&config, &weights, &rests).unwrap();
            assert_eq!((smaller.num_hidden_layers, smaller.intermediate_size, smaller.num_attention_heads), (layers - 1, 16, 2));
            let (whole, cut) = (logits(&config, &weights), logits(&smaller, &left));
            let scale = whole.iter().fold(0.0f32, |scale, logit| scale.max(logit.abs()));
            let far = whole.iter().zip(&cut).fold(0.0f32, |far, (a, b)| far.max((a - b).abs()));
            assert!(scale > 0.1 && far < 1e-5 * scale, "{:?}: {far} of {scale}", config.family);
            assert_eq!(Config::from_json(&smaller.to_json()).unwrap(), smaller);
        }
    }

    #[test]
    fn nothing_cut_is_the_same_model_and_what_is_not_there_cannot_be_kept() {
        let config = of_each_family().remove(3);
        let weights = Weights::random(&config, 7).unwrap();
        let all: Vec<Rest> = (0..config.num_hidden_layers).map(|layer| whole(&config, layer)).collect();
        let (same, left) = cut(&config, &weights, &all).unwrap();
        assert!(same == config && left.data == weights.data);
        assert!(cut(&config, &weights, &[]).is_err());
        assert!(cut(&config, &weights, &[whole(&config, 9)]).is_err());
        assert!(cut(&config, &weights, &[whole(&config, 1), whole(&config, 0)]).is_err());
        let mut uneven = all.clone();
        uneven[1].heads.pop();
        assert!(cut(&config, &weights, &uneven).is_err());
    }
}
