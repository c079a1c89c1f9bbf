//! Where each tensor lies in the flat buffer, by its part in the computation, and whether it learns.

use std::ops::Range;

use super::super::lora::Target;
use super::super::weights::Layout;
use super::super::{Adapter, Config, ModelError};
use super::Keep;
use super::low_rank::LowRank;

/// A tensor's place in weights and gradients.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its number in the layout.
    pub index: usize,
    pub range: Range<usize>,
    /// Of a matrix: its row length.
    pub columns: usize,
    /// A frozen tensor gets no gradient, and none is computed for it.
    pub learns: bool,
    /// What is added to a matrix, if anything is; it always learns.
    pub low_rank: Option<LowRank>,
}

impl Place {
    /// Whether anything in it gets a gradient.
    fn is_trained(&self) -> bool {
        self.learns || self.low_rank.is_some()
    }
}

#[derive(Clone, Debug)]
pub struct LayerPlaces {
    pub norm1: Place,
    pub q: Place,
    pub k: Place,
    pub v: Place,
    /// Of queries, keys and values.
    pub biases: Option<[Place; 3]>,
    /// Of each query head and of each key head.
    pub head_norms: Option<[Place; 2]>,
    pub o: Place,
    /// Behind the attention.
    pub post1: Option<Place>,
    pub norm2: Place,
    pub gate: Place,
    pub up: Place,
    pub down: Place,
    /// Behind the MLP.
    pub post2: Option<Place>,
}

#[derive(Clone, Debug)]
pub struct Places {
    pub embed: Place,
    pub layers: Vec<LayerPlaces>,
    pub norm: Place,
    /// The embedding again if the head is tied.
    pub head: Place,
    pub tied: bool,
    /// The lowest layer in which, or below which, something learns; as many as there are layers if only the head does.
    pub lowest: usize,
    /// Numbers of the adapter; 0 if there is none.
    pub adapter: usize,
}

impl Places {
    pub fn of(config: &Config, layout: &Layout, frozen: &dyn Fn(&str) -> bool) -> Result<Places, ModelError> {
        let place = |name: &str| {
            let index = layout.index(name).ok_or_else(|| ModelError::malformed("the weights", format!("`{name}` is missing")))?;
            let tensor = &layout.tensors[index];
            let columns = tensor.shape.last().copied().unwrap_or(1);
            Ok::<_, ModelError>(Place { index, range: tensor.range.clone(), columns, learns: !frozen(name), low_rank: None })
        };
        let features = &config.features;
        let layers = (0..config.num_hidden_layers).map(|layer| {
            let part = |part: &str| place(&format!("model.layers.{layer}.{part}"));
            let bias = |matrix: &str| part(&format!("self_attn.{matrix}_proj.bias"));
            let head_norm = |head: &str| part(&format!("self_attn.{head}_norm.weight"));
            let post = |name: &str| if features.post_norms { part(name).map(Some) } else { Ok(None) };
            let norm2 = if features.post_norms { "pre_feedforward_layernorm.weight" } else { "post_attention_layernorm.weight" };
            Ok::<_, ModelError>(LayerPlaces {
                norm1: part("input_layernorm.weight")?,
                q: part("self_attn.q_proj.weight")?,
                k: part("self_attn.k_proj.weight")?,
                v: part("self_attn.v_proj.weight")?,
                biases: if features.attention_bias { Some([bias("q")?, bias("k")?, bias("v")?]) } else { None },
                head_norms: if features.query_key_norms { Some([head_norm("q")?, head_norm("k")?]) } else { None },
                o: part("self_attn.o_proj.weight")?,
                post1: post("post_attention_layernorm.weight")?,
                norm2: part(norm2)?,
                gate: part("mlp.gate_proj.weight")?,
                up: part("mlp.up_proj.weight")?,
                down: part("mlp.down_proj.weight")?,
                post2: post("post_feedforward_layernorm.weight")?,
            })
        });
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let tied = config.tie_word_embeddings;
        let embed = place("model.embed_tokens.weight")?;
        let head = if tied { embed.clone() } else { place("lm_head.weight")? };
        let lowest = if embed.learns { 0 } else { layers.iter().position(LayerPlaces::learns).unwrap_or(layers.len()) };
        Ok(Places { embed, layers, norm: place("model.norm.weight")?, head, tied, lowest, adapter: 0 })
    }

    /// Nothing learns but the adapter.
    pub fn adapted(config: &Config, layout: &Layout, adapter: &Adapter) -> Result<Places, ModelError> {
        let mut places = Places::of(config, layout, &|_| true)?;
        for (number, layer) in places.layers.iter_mut().enumerate() {
            for target in Target::ALL {
                layer.matrix(target).low_rank = adapter.low_rank(config, number, target)?;
            }
        }
        places.adapter = adapter.weights.parameters();
        places.lowest = places.layers.iter().position(LayerPlaces::learns).unwrap_or(places.layers.len());
        Ok(places)
    }

    /// Where a layer's input and its attention's result are: the first place serves all layers of which nothing is kept.
    pub(super) fn kept(&self, layer: usize, keep: Keep) -> usize {
        if keep != Keep::Nothing && layer >= self.lowest { layer } else { 0 }
    }

    /// Where the rest of a layer is.
    pub(super) fn work(&self, layer: usize, keep: Keep) -> usize {
        if keep == Keep::All && layer >= self.lowest { layer } else { 0 }
    }

    pub(super) fn check_adapter(&self, adapter: &[f32]) -> Result<(), ModelError> {
        let (given, needed) = (adapter.len(), self.adapter);
        if given == needed { Ok(()) } else { Err(ModelError::Input(format!("the adapter has {given} numbers, not {needed}"))) }
    }

    /// Whether something below the head learns.
    pub fn learns_below_head(&self) -> bool {
        self.norm.learns || self.lowest < self.layers.len()
    }
}

impl LayerPlaces {
    fn learns(&self) -> bool {
        self.first_half_learns()
            || self.mlp_input_learns()
            || self.gate_or_up_learns()
            || [&self.down].into_iter().chain(&self.post2).any(Place::is_trained)
    }

    /// Whether something before the attention's output learns.
    pub fn first_half_learns(&self) -> bool {
        let always = [&self.norm1, &self.q, &self.k, &self.v].into_iter();
        always.chain(self.biases.iter().flatten()).chain(self.head_norms.iter().flatten()).any(Place::is_trained)
    }

    /// Whether something between the attention's output and the second norm's learns.
    pub fn mlp_input_learns(&self) -> bool {
        [&self.o, &self.norm2].into_iter().chain(&self.post1).any(Place::is_trained)
    }

    pub fn gate_or_up_learns(&self) -> bool {
        self.gate.is_trained() || self.up.is_trained()
    }

    fn matrix(&mut self, target: Target) -> &mut Place {
        match target {
            Target::Q => &mut self.q,
            Target::K => &mut self.k,
            Target::V => &mut self.v,
            Target::O => &mut self.o,
            Target::Gate => &mut self.gate,
            Target::Up => &mut self.up,
            Target::Down => &mut self.down,
        }
    }
}
