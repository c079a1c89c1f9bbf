//! Where each tensor lies in the flat buffer, by its part in the computation, and whether it learns.

use std::ops::Range;

use super::super::weights::Layout;
use super::super::{Config, ModelError};

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
}

#[derive(Clone, Debug)]
pub struct LayerPlaces {
    pub norm1: Place,
    pub q: Place,
    pub k: Place,
    pub v: Place,
    pub o: Place,
    pub norm2: Place,
    pub gate: Place,
    pub up: Place,
    pub down: Place,
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
}

impl Places {
    pub fn of(config: &Config, layout: &Layout, frozen: &dyn Fn(&str) -> bool) -> Result<Places, ModelError> {
        let place = |name: &str| {
            let index = layout.index(name).ok_or_else(|| ModelError::malformed("the weights", format!("`{name}` is missing")))?;
            let tensor = &layout.tensors[index];
            let columns = tensor.shape.last().copied().unwrap_or(1);
            Ok::<_, ModelError>(Place { index, range: tensor.range.clone(), columns, learns: !frozen(name) })
        };
        let layers = (0..config.num_hidden_layers).map(|layer| {
            let part = |part: &str| place(&format!("model.layers.{layer}.{part}.weight"));
            Ok::<_, ModelError>(LayerPlaces {
                norm1: part("input_layernorm")?,
                q: part("self_attn.q_proj")?,
                k: part("self_attn.k_proj")?,
                v: part("self_attn.v_proj")?,
                o: part("self_attn.o_proj")?,
                norm2: part("post_attention_layernorm")?,
                gate: part("mlp.gate_proj")?,
                up: part("mlp.up_proj")?,
                down: part("mlp.down_proj")?,
            })
        });
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let tied = config.tie_word_embeddings;
        let embed = place("model.embed_tokens.weight")?;
        let head = if tied { embed.clone() } else { place("lm_head.weight")? };
        let lowest = if embed.learns { 0 } else { layers.iter().position(LayerPlaces::learns).unwrap_or(layers.len()) };
        Ok(Places { embed, layers, norm: place("model.norm.weight")?, head, tied, lowest })
    }
}

impl LayerPlaces {
    fn learns(&self) -> bool {
        self.first_half_learns() || [&self.o, &self.norm2, &self.gate, &self.up, &self.down].iter().any(|place| place.learns)
    }

    /// Whether something before the attention's output learns.
    pub fn first_half_learns(&self) -> bool {
        [&self.norm1, &self.q, &self.k, &self.v].iter().any(|place| place.learns)
    }
}
