//! A smaller shape: which layers, channels and heads of a model do least on a text. `model::cut` takes them out; what was measured is written beside the model.

use std::path::Path;

use serde::Serialize;

use super::settings::Shape;
use super::{load, save};
use crate::model::cut::{Rest, cut, group};
use crate::model::decoder::{Inputs, Layerwise, Watched};
use crate::model::imatrix::{Squares, Window};
use crate::model::sparse::Ledger;
use crate::model::{Config, Family, Model, Weights};
use crate::steps::{Failure, Io};

pub fn run(shape: &Shape, io: &Io) -> Result<(), Failure> {
    let (model, windows) = load(Some(&shape.text), io)?;
    let config = &model.config;
    let sizes = [
        ("num_hidden_layers", shape.num_hidden_layers, config.num_hidden_layers),
        ("intermediate_size", shape.intermediate_size, config.intermediate_size),
        ("num_key_value_heads", shape.num_key_value_heads, config.num_key_value_heads),
    ];
    if let Some((name, Some(wanted), there)) = sizes.into_iter().find(|(_, wanted, there)| wanted.is_some_and(|wanted| wanted > *there)) {
        let help = format!("name at most {there} in `structured`");
        return Err(Failure::new(format!("the model's {name} is {there}: {wanted} cannot be left")).help(help));
    }
    if config.family == Family::Phi3 && shape.num_key_value_heads.is_some_and(|wanted| wanted < config.num_key_value_heads) {
        let message = "a Phi-3's heads share its width, as transformers reads its configuration: none can go";
        return Err(Failure::new(message).help("leave `num_key_value_heads` out; layers and channels can go"));
    }
    let scores = measure(&model, &windows, io)?;
    let kept = |wanted: Option<usize>, there: usize| wanted.unwrap_or(there);
    let influences: Vec<f64> = scores.iter().map(|scores| scores.influence).collect();
    let layers = largest(&influences, kept(shape.num_hidden_layers, config.num_hidden_layers));
    let rests: Vec<Rest> = layers
        .iter()
        .map(|layer| Rest {
            layer: *layer,
            channels: largest(&scores[*layer].channels, kept(shape.intermediate_size, config.intermediate_size)),
            heads: largest(&scores[*layer].heads, kept(shape.num_key_value_heads, config.num_key_value_heads)),
        })
        .collect();
    let (smaller, weights) = cut(config, &model.weights, &rests)?;
    let structure = Structure::of((config, &model.weights), (&smaller, &weights), &scores, &rests);
    io.say(structure.summary());
    // Zeros that were meant are still there, those of the parts that are left.
    let ledger = Ledger::read(io.one("model")?).map(|ledger| ledger.map(|_| Ledger::of(&weights)))?;
    structure.write(&io.out)?;
    Ok(save(&Model { config: smaller, weights, ..model }, ledger, &io.out)?)
}

/// What a layer does on the text.
struct Scores {
    /// 1 − mean cosine of its input and its output.
    influence: f64,
    /// Of each: what it adds to the MLP's output, squared, over the text, as if it were alone.
    channels: Vec<f64>,
    /// The same of the attention's output and each key and value head with its query heads.
    heads: Vec<f64>,
}

fn measure(model: &Model, windows: &[Window], io: &Io) -> Result<Vec<Scores>, Failure> {
    let (config, weights) = (&model.config, &model.weights);
    let mut walk = Layerwise::new(config, weights, windows)?;
    let layers = walk.places().layers.clone();
    let mut all = Vec::with_capacity(layers.len());
    for (index, layer) in layers.iter().enumerate() {
        io.check_cancelled()?;
        io.progress(index as u64, layers.len() as u64, "layers", "");
        let inputs: Inputs<Squares> = Inputs::of([layer.o.index, layer.down.index]);
        let (mut sum, mut rows) = (0.0, 0usize);
        walk.look(&Watched { weights, inputs: &inputs, idle: None }, index, &mut |x, y| {
            let pairs = x.chunks_exact(config.hidden_size).zip(y.chunks_exact(config.hidden_size));
            sum += pairs.map(|(x, y)| cosine(x, y)).sum::<f64>();
            rows += x.len() / config.hidden_size;
        });
        walk.advance(weights, index);
        let added = |index: usize| {
            inputs.take(index).map(|squares| contributions(&squares, &weights.data[place(index, weights)])).unwrap_or_default()
        };
        let heads = added(layer.o.index).chunks_exact(group(config) * config.head_dim).map(|columns| columns.iter().sum()).collect();
        let scores = Scores { influence: 1.0 - sum / rows.max(1) as f64, channels: added(layer.down.index), heads };
        if !scores.influence.is_finite() || scores.channels.iter().chain(&scores.heads).any(|score| !score.is_finite()) {
            return Err(Failure::new(format!("what layer {index} gives is not a finite number")));
        }
        all.push(scores);
    }
    Ok(all)
}

fn place(index: usize, weights: &Weights) -> std::ops::Range<usize> {
    weights.layout.tensors.get(index).map_or(0..0, |tensor| tensor.range.clone())
}

/// Of each column: Σx² times the squared norm of its weights.
fn contributions(squares: &Squares, matrix: &[f32]) -> Vec<f64> {
    let mut norms = vec![0.0; squares.sums.len()];
    for row in matrix.chunks_exact(norms.len().max(1)) {
        norms.iter_mut().zip(row).for_each(|(norm, weight)| *norm += f64::from(*weight) * f64::from(*weight));
    }
    norms.iter().zip(&squares.sums).map(|(norm, sum)| norm * sum).collect()
}

fn cosine(x: &[f32], y: &[f32]) -> f64 {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let lengths = (product(x, x) * product(y, y)).sqrt();
    if lengths > 0.0 { product(x, y) / lengths } else { 0.0 }
}

/// The places of the `count` largest, ascending; of equal ones the first.
fn largest(scores: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    order.truncate(count);
    order.sort_unstable();
    order
}

/// `structure.json`
#[derive(Debug, Serialize)]
struct Structure {
    format: u32,
    before: Sizes,
    after: Sizes,
    /// Of the model as it was.
    layers: Vec<LayerRecord>,
}

#[derive(Debug, Serialize)]
struct Sizes {
    parameters: usize,
    num_hidden_layers: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
}

#[derive(Debug, Serialize)]
struct LayerRecord {
    layer: usize,
    block_influence: f64,
    /// Its number now, if it is still there.
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<usize>,
    /// Key and value heads that are left.
    key_value_heads: Vec<usize>,
    /// Share of the scores that is left.
    heads_kept: f64,
    channels_kept: f64,
}

impl Structure {
    fn of(before: (&Config, &Weights), after: (&Config, &Weights), scores: &[Scores], rests: &[Rest]) -> Structure {
        let record = |(layer, scores): (usize, &Scores)| {
            let now = rests.iter().position(|rest| rest.layer == layer);
            let rest = now.and_then(|now| rests.get(now));
            let left = |all: &[f64], kept: fn(&Rest) -> &Vec<usize>| {
                let total: f64 = all.iter().sum();
                let left: f64 = rest.iter().flat_map(|rest| kept(rest)).filter_map(|place| all.get(*place)).sum();
                if total > 0.0 { left / total } else { 0.0 }
            };
            LayerRecord {
                layer,
                block_influence: scores.influence,
                now,
                key_value_heads: rest.map(|rest| rest.heads.clone()).unwrap_or_default(),
                heads_kept: left(&scores.heads, |rest| &rest.heads),
                channels_kept: left(&scores.channels, |rest| &rest.channels),
            }
        };
        let layers = scores.iter().enumerate().map(record).collect();
        Structure { format: 1, before: Sizes::of(before), after: Sizes::of(after), layers }
    }

    fn summary(&self) -> String {
        let Sizes { parameters, num_hidden_layers, intermediate_size, num_key_value_heads, .. } = self.after;
        let gone: Vec<String> = self.layers.iter().filter(|layer| layer.now.is_none()).map(|layer| layer.layer.to_string()).collect();
        let gone = if gone.is_empty() { String::new() } else { format!("; gone: layers {}", gone.join(", ")) };
        format!(
            "{parameters} of {} parameters are left: {num_hidden_layers} layers, {intermediate_size} channels, {num_key_value_heads} key and value heads{gone}",
            self.before.parameters
        )
    }

    fn write(&self, out: &Path) -> Result<(), Failure> {
        let path = out.join("structure.json");
        let text = serde_json::to_string_pretty(self).map_err(|error| Failure::bug(error.to_string()))?;
        std::fs::write(&path, format!("{text}\n")).map_err(|error| Failure::file("write", &path, &error))
    }
}

impl Sizes {
    fn of((config, weights): (&Config, &Weights)) -> Sizes {
        Sizes {
            parameters: weights.parameters(),
            num_hidden_layers: config.num_hidden_layers,
            intermediate_size: config.intermediate_size,
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: config.num_key_value_heads,
        }
    }
}
