//! Named f32 tensors in one flat buffer, in a fixed order. Optimizer state and gradients have the same layout. Knows no file format.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::config::Family;
use super::{Config, ModelError};
use crate::base::memory;
use crate::kernels::pages;

/// 16 GiB of f32: more than any model that this machine class can train or run.
pub const MAX_PARAMETERS: usize = 1 << 32;

/// One tensor's place in the flat buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// As Hugging Face names it: `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Row-major, outermost first.
    pub shape: Vec<usize>,
    pub range: Range<usize>,
}

/// `(the first of several tensors, how many they are, what they are called together)`
const FUSED: [(&str, usize, &str); 2] = [("q_proj.weight", 3, "qkv_proj.weight"), ("gate_proj.weight", 2, "gate_up_proj.weight")];

/// A tensor of a model's file: one of the layout's or several, row behind row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileTensor {
    /// As Hugging Face names it.
    pub name: String,
    pub shape: Vec<usize>,
    /// Their numbers in the layout, which are next to each other.
    pub members: Range<usize>,
}

/// Every tensor of a model of this configuration, in the order of a forward pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub tensors: Vec<Tensor>,
    by_name: BTreeMap<String, usize>,
    total: usize,
}

impl Layout {
    pub fn of(config: &Config) -> Result<Layout, ModelError> {
        config.check()?;
        let mut layout = Layout::empty();
        let (d, ff, q, kv) = (config.hidden_size, config.intermediate_size, config.query_size(), config.key_value_size());
        layout.push("model.embed_tokens.weight".to_string(), &[config.vocab_size, d])?;
        for layer in 0..config.num_hidden_layers {
            let mut add = |part: &str, shape: &[usize]| layout.push(format!("model.layers.{layer}.{part}"), shape);
            add("input_layernorm.weight", &[d])?;
            add("self_attn.q_proj.weight", &[q, d])?;
            add("self_attn.k_proj.weight", &[kv, d])?;
            add("self_attn.v_proj.weight", &[kv, d])?;
            if config.features.attention_bias {
                add("self_attn.q_proj.bias", &[q])?;
                add("self_attn.k_proj.bias", &[kv])?;
                add("self_attn.v_proj.bias", &[kv])?;
            }
            if config.features.query_key_norms {
                add("self_attn.q_norm.weight", &[config.head_dim])?;
                add("self_attn.k_norm.weight", &[config.head_dim])?;
            }
            add("self_attn.o_proj.weight", &[d, q])?;
            add("post_attention_layernorm.weight", &[d])?;
            if config.features.post_norms {
                add("pre_feedforward_layernorm.weight", &[d])?;
            }
            add("mlp.gate_proj.weight", &[ff, d])?;
            add("mlp.up_proj.weight", &[ff, d])?;
            add("mlp.down_proj.weight", &[d, ff])?;
            if config.features.post_norms {
                add("post_feedforward_layernorm.weight", &[d])?;
            }
        }
        layout.push("model.norm.weight".to_string(), &[d])?;
        if !config.tie_word_embeddings {
            layout.push("lm_head.weight".to_string(), &[config.vocab_size, d])?;
        }
        Ok(layout)
    }

    /// The tensors as the files of this family hold them: most alone, but queries, keys and values of a Phi-3 behind each other in one, and so gate and up.
    pub fn in_files(&self, config: &Config) -> Vec<FileTensor> {
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(tensor) = self.tensors.get(at) {
            let fused = FUSED.iter().filter(|_| config.family == Family::Phi3);
            let (name, members) = fused
                .filter_map(|(first, members, name)| Some((format!("{}{name}", tensor.name.strip_suffix(first)?), *members)))
                .next()
                .unwrap_or((tensor.name.clone(), 1));
            let members = at..(at + members).min(self.tensors.len());
            let rows = self.tensors[members.clone()].iter().filter_map(|tensor| tensor.shape.first()).sum();
            let shape = [rows].into_iter().chain(tensor.shape.iter().skip(1).copied()).collect();
            at = members.end;
            found.push(FileTensor { name, shape, members });
        }
        found
    }

    pub(super) fn empty() -> Layout {
        Layout { tensors: Vec::new(), by_name: BTreeMap::new(), total: 0 }
    }

    /// A tensor behind the others.
    pub(super) fn push(&mut self, name: String, shape: &[usize]) -> Result<(), ModelError> {
        let size = shape.iter().try_fold(1usize, |size, side| size.checked_mul(*side));
        let end = size.and_then(|size| self.total.checked_add(size)).filter(|end| *end <= MAX_PARAMETERS);
        let Some(end) = end else {
            let (size, limit) = (self.total as u64, MAX_PARAMETERS as u64);
            return Err(ModelError::TooLarge { what: format!("the number of parameters up to `{name}`"), size, limit });
        };
        self.by_name.insert(name.clone(), self.tensors.len());
        self.tensors.push(Tensor { name, shape: shape.to_vec(), range: self.total..end });
        self.total = end;
        Ok(())
    }

    /// Parameters in all; a tied head counts once.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Bytes that the tensors take as f32.
    pub fn bytes(&self) -> u64 {
        self.total as u64 * 4
    }

    /// Room for all tensors, if there is so much memory: zeros.
    pub fn room(&self) -> Result<Vec<f32>, ModelError> {
        memory::check(self.bytes(), &format!("room for {} weights", self.total))?;
        Ok(pages::zeros(self.total))
    }

    /// A tensor's number in the order.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.index(name).and_then(|index| self.tensors.get(index))
    }
}

/// A model's parameters.
#[derive(Clone, Debug)]
pub struct Weights {
    pub layout: Arc<Layout>,
    /// All tensors behind each other.
    pub data: Vec<f32>,
}

impl Weights {
    pub fn zeros(config: &Config) -> Result<Weights, ModelError> {
        let layout = Layout::of(config)?;
        let data = layout.room()?;
        Ok(Weights { layout: Arc::new(layout), data })
    }

    pub fn get(&self, name: &str) -> Option<&[f32]> {
        self.layout.tensor(name).map(|tensor| &self.data[tensor.range.clone()])
    }

    pub fn get_mut(&mut self, name: &str) -> Option<&mut [f32]> {
        let range = self.layout.tensor(name)?.range.clone();
        Some(&mut self.data[range])
    }

    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.layout.tensor(name).map(|tensor| tensor.shape.as_slice())
    }

    /// Name, shape and values, in the fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[usize], &[f32])> {
        self.layout.tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice(), &self.data[t.range.clone()]))
    }

    /// How many numbers they are; a tied head counts once.
    pub fn parameters(&self) -> usize {
        self.data.len()
    }
}

impl AsRef<[f32]> for Weights {
    fn as_ref(&self) -> &[f32] {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::tiny;
    use super::*;

    #[test]
    fn tensors_lie_behind_each_other_and_cover_the_buffer() {
        let weights = Weights::zeros(&tiny()).unwrap();
        let mut end = 0;
        for tensor in &weights.layout.tensors {
            assert_eq!(tensor.range.start, end);
            assert_eq!(tensor.range.len(), tensor.shape.iter().product::<usize>());
            end = tensor.range.end;
        }
        assert_eq!(end, weights.parameters());
        assert_eq!(weights.shape("model.layers.1.self_attn.k_proj.weight"), Some(&[8, 16][..]));
        assert!(weights.get("lm_head.weight").is_none());
    }

    #[test]
    fn an_untied_head_is_a_tensor_of_its_own() {
        let tied = Layout::of(&tiny()).unwrap().total();
        let untied = Layout::of(&Config { tie_word_embeddings: false, ..tiny() }).unwrap().total();
        assert_eq!(untied - tied, 37 * 16);
    }

    #[test]
    fn a_size_that_overflows_is_an_error() {
        let huge = Config { vocab_size: 1 << 20, hidden_size: 1 << 17, ..tiny() };
        assert!(matches!(Weights::zeros(&huge), Err(ModelError::TooLarge { .. })));
    }
}
