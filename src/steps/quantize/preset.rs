//! Which block type each tensor gets: llama-quantize's mixtures, its fallbacks where rows do not divide, and what the user overrides.

use crate::model::quant::BlockType;
use crate::model::{Config, Family};

/// A `type` of the manifest, as llama-quantize names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    F16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q2K,
    Q3KS,
    Q3KM,
    Q3KL,
    Q4KS,
    Q4KM,
    Q5KS,
    Q5KM,
    Q6K,
}

/// In the order of [`NAMES`].
const PRESETS: [Preset; 15] = [
    Preset::F16,
    Preset::Q8_0,
    Preset::Q4_0,
    Preset::Q4_1,
    Preset::Q5_0,
    Preset::Q5_1,
    Preset::Q2K,
    Preset::Q3KS,
    Preset::Q3KM,
    Preset::Q3KL,
    Preset::Q4KS,
    Preset::Q4KM,
    Preset::Q5KS,
    Preset::Q5KM,
    Preset::Q6K,
];

pub const NAMES: &[&str] =
    &["F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K"];

impl Preset {
    pub fn from_name(name: &str) -> Option<Preset> {
        NAMES.iter().position(|known| *known == name).and_then(|index| PRESETS.get(index).copied())
    }

    /// The type of most tensors.
    fn base(self) -> BlockType {
        match self {
            Preset::F16 => BlockType::F16,
            Preset::Q8_0 => BlockType::Q8_0,
            Preset::Q4_0 => BlockType::Q4_0,
            Preset::Q4_1 => BlockType::Q4_1,
            Preset::Q5_0 => BlockType::Q5_0,
            Preset::Q5_1 => BlockType::Q5_1,
            Preset::Q2K => BlockType::Q2K,
            Preset::Q3KS | Preset::Q3KM | Preset::Q3KL => BlockType::Q3K,
            Preset::Q4KS | Preset::Q4KM => BlockType::Q4K,
            Preset::Q5KS | Preset::Q5KM => BlockType::Q5K,
            Preset::Q6K => BlockType::Q6K,
        }
    }
}

/// What a step asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    pub preset: Preset,
    pub mixture: Mixture,
    pub token_embedding: Option<BlockType>,
    pub output: Option<BlockType>,
    pub calibrated: Calibrated,
}

/// Whether there is an importance matrix, with which llama-quantize spends its bits a little differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calibrated {
    No,
    Yes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mixture {
    /// More bits where they help most, as llama-quantize spends them.
    Mixed,
    /// The same type for every matrix.
    Pure,
}

/// The type of one tensor, and the one that it should have had if its rows had divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub ty: BlockType,
    pub wanted: BlockType,
}

/// `shape` and `name` as in the Hugging Face folder.
pub fn choose(recipe: &Recipe, config: &Config, name: &str, shape: &[usize]) -> Choice {
    let (&[_, columns], false) = (shape, name.ends_with("norm.weight")) else {
        return Choice { ty: BlockType::F32, wanted: BlockType::F32 };
    };
    let wanted = wanted(recipe, config, name, columns);
    Choice { ty: fitting(wanted, columns), wanted }
}

fn wanted(recipe: &Recipe, config: &Config, name: &str, columns: usize) -> BlockType {
    let base = recipe.preset.base();
    let is_embedding = name == "model.embed_tokens.weight";
    // With a tied head, the embedding is the output matrix, too.
    let is_output = name == "lm_head.weight" || (is_embedding && config.tie_word_embeddings);
    if let Some(ty) = recipe.token_embedding.filter(|_| is_embedding).or(recipe.output.filter(|_| is_output)) {
        return ty;
    }
    if recipe.mixture == Mixture::Pure || base == BlockType::F16 {
        return base;
    }
    if is_output {
        return match base {
            _ if !columns.is_multiple_of(base.block_values()) => BlockType::Q8_0,
            BlockType::Q8_0 => BlockType::Q8_0,
            _ => BlockType::Q6K,
        };
    }
    match layer(name) {
        // They lie in one tensor.
        Some((_, "self_attn.q_proj" | "self_attn.k_proj" | "self_attn.v_proj")) if config.family == Family::Phi3 => {
            fused_type(recipe.preset, base)
        }
        Some((layer, "self_attn.v_proj")) => value_type(recipe.preset, base, layer, config),
        Some((layer, "mlp.down_proj")) => down_type(recipe, base, layer, config.num_hidden_layers),
        Some((_, "self_attn.o_proj")) => output_type(recipe.preset, base),
        _ => base,
    }
}

fn value_type(preset: Preset, base: BlockType, layer: usize, config: &Config) -> BlockType {
    let queries_per_key = config.num_attention_heads / config.num_key_value_heads.max(1);
    match preset {
        Preset::Q2K if queries_per_key >= 4 => BlockType::Q4K,
        Preset::Q2K => BlockType::Q3K,
        Preset::Q3KM if layer < 2 => BlockType::Q5K,
        Preset::Q3KM => BlockType::Q4K,
        Preset::Q3KL => BlockType::Q5K,
        Preset::Q4KM | Preset::Q5KM if deserves_more(layer, config.num_hidden_layers) => BlockType::Q6K,
        Preset::Q4KS if layer < 4 => BlockType::Q5K,
        _ => base,
    }
}

fn down_type(recipe: &Recipe, base: BlockType, layer: usize, layers: usize) -> BlockType {
    match recipe.preset {
        Preset::Q4_0 if recipe.calibrated == Calibrated::Yes && layer < layers / 8 => BlockType::Q4_1,
        Preset::Q5_0 if recipe.calibrated == Calibrated::Yes && layer < layers / 8 => BlockType::Q5_1,
        Preset::Q2K => BlockType::Q3K,
        Preset::Q3KM if layer < layers / 16 => BlockType::Q5K,
        Preset::Q3KM => BlockType::Q4K,
        Preset::Q3KL => BlockType::Q5K,
        Preset::Q4KM | Preset::Q5KM if deserves_more(layer, layers) => BlockType::Q6K,
        Preset::Q4KS if layer < layers / 8 => BlockType::Q5K,
        _ => base,
    }
}

/// Of queries, keys and values in one tensor.
fn fused_type(preset: Preset, base: BlockType) -> BlockType {
    match preset {
        Preset::Q3KM | Preset::Q3KL => BlockType::Q4K,
        Preset::Q4KM => BlockType::Q5K,
        Preset::Q5KM => BlockType::Q6K,
        _ => base,
    }
}

fn output_type(preset: Preset, base: BlockType) -> BlockType {
    match preset {
        Preset::Q2K => BlockType::Q3K,
        Preset::Q3KM => BlockType::Q4K,
        Preset::Q3KL => BlockType::Q5K,
        _ => base,
    }
}

/// The first and last eighth of the layers, and every third between.
fn deserves_more(layer: usize, layers: usize) -> bool {
    layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2
}

/// The nearest type whose blocks fill the rows. The steps from 256 to 32 are llama.cpp's; where 32 does not divide either, it gives up, and we take F16.
pub fn fitting(wanted: BlockType, columns: usize) -> BlockType {
    let divides = |ty: BlockType| columns.is_multiple_of(ty.block_values());
    if divides(wanted) {
        return wanted;
    }
    let smaller = match wanted {
        BlockType::Q2K | BlockType::Q3K => BlockType::Q4_0,
        BlockType::Q4K => BlockType::Q5_0,
        BlockType::Q5K => BlockType::Q5_1,
        BlockType::Q6K => BlockType::Q8_0,
        _ => BlockType::F16,
    };
    if divides(smaller) { smaller } else { BlockType::F16 }
}

/// `model.layers.3.mlp.down_proj.weight` → (3, `mlp.down_proj`)
fn layer(name: &str) -> Option<(usize, &str)> {
    let (layer, part) = name.strip_prefix("model.layers.")?.strip_suffix(".weight")?.split_once('.')?;
    Some((layer.parse().ok()?, part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::tests::tiny;

    fn config(layers: usize) -> Config {
        Config { num_hidden_layers: layers, num_attention_heads: 8, num_key_value_heads: 2, ..tiny() }
    }

    fn recipe(name: &str) -> Recipe {
        Recipe {
            preset: Preset::from_name(name).unwrap(),
            mixture: Mixture::Mixed,
            token_embedding: None,
            output: None,
            calibrated: Calibrated::No,
        }
    }

    fn type_of(recipe: &Recipe, config: &Config, part: &str, columns: usize) -> BlockType {
        choose(recipe, config, part, &[64, columns]).ty
    }

    #[test]
    fn names_and_presets_are_in_step() {
        for name in NAMES {
            let ty = recipe(name).preset.base();
            assert!(name.starts_with(ty.name()), "{name} {ty}");
            assert!(crate::model::gguf::file_type_id(name).is_some(), "{name}");
        }
    }

    #[test]
    fn q4_k_m_spends_more_where_llama_quantize_does() {
        let (recipe, config) = (recipe("Q4_K_M"), config(16));
        let more: Vec<usize> = (0..16)
            .filter(|i| type_of(&recipe, &config, &format!("model.layers.{i}.mlp.down_proj.weight"), 512) == BlockType::Q6K)
            .collect();
        assert_eq!(more, [0, 1, 4, 7, 10, 13, 14, 15]);
        assert_eq!(type_of(&recipe, &config, "model.embed_tokens.weight", 256), BlockType::Q6K);
        assert_eq!(type_of(&recipe, &config, "model.layers.2.self_attn.q_proj.weight", 256), BlockType::Q4K);
        assert_eq!(type_of(&recipe, &Config { tie_word_embeddings: false, ..config }, "model.embed_tokens.weight", 256), BlockType::Q4K);
    }

    #[test]
    fn rows_that_do_not_divide_fall_back() {
        let (recipe, config) = (recipe("Q4_K_M"), config(2));
        let name = "model.layers.0.self_attn.q_proj.weight";
        assert_eq!(choose(&recipe, &config, name, &[64, 576]), Choice { ty: BlockType::Q5_0, wanted: BlockType::Q4K });
        assert_eq!(choose(&recipe, &config, name, &[64, 40]), Choice { ty: BlockType::F16, wanted: BlockType::Q4K });
        assert_eq!(choose(&recipe, &config, "model.embed_tokens.weight", &[64, 96]).ty, BlockType::Q8_0);
        assert_eq!(choose(&recipe, &config, "model.norm.weight", &[64]).ty, BlockType::F32);
    }

    #[test]
    fn overrides_win() {
        let config = config(2);
        let own = Recipe { token_embedding: Some(BlockType::F16), output: Some(BlockType::Q5_0), ..recipe("Q4_0") };
        assert_eq!(type_of(&own, &config, "model.embed_tokens.weight", 64), BlockType::F16);
        assert_eq!(type_of(&Recipe { token_embedding: None, ..own }, &config, "model.embed_tokens.weight", 64), BlockType::Q5_0);
        assert_eq!(type_of(&own, &config, "lm_head.weight", 64), BlockType::Q5_0);
        let pure = Recipe { mixture: Mixture::Pure, ..recipe("Q4_0") };
        assert_eq!(type_of(&pure, &config, "model.embed_tokens.weight", 64), BlockType::Q4_0);
    }
}
