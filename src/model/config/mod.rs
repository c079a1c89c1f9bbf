//! The shape of a decoder: sizes, and what some families add to a plain Llama. Knows no weights; [`json`] reads and writes `config.json`, [`rope`]
//! knows how fast positions turn.

pub(super) mod json;
pub mod rope;

use serde::{Deserialize, Serialize};

use super::ModelError;
pub use rope::{RopeScaling, Yarn};

/// Anything larger is not a small language model but a mangled file.
const MAX_VOCAB: u64 = 1 << 20;
const MAX_WIDTH: u64 = 1 << 17;
pub(super) const MAX_LAYERS: u64 = 512;
const MAX_HEADS: u64 = 1024;
const MAX_HEAD_DIM: u64 = 1024;
const MAX_POSITIONS: u64 = 1 << 22;
const MAX_POSITIONS_USIZE: usize = 1 << 22;

/// What gates the MLP, by the names of `hidden_act`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    #[default]
    #[serde(rename = "silu")]
    Silu,
    /// The tanh approximation, as Gemma has it.
    #[serde(rename = "gelu_pytorch_tanh")]
    GeluTanh,
}

/// Under which name other people's software knows a model. What it computes is said by [`Config`] and [`Features`] alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// With a sliding window it is a Mistral, which otherwise is the same.
    #[default]
    Llama,
    Qwen2,
    Qwen3,
    Gemma3,
    Phi3,
    SmolLm3,
}

/// What a plain Llama does not have. Where a feature is absent, nothing is computed for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    /// Queries, keys and values have biases (Qwen 2).
    pub attention_bias: bool,
    /// Each query and key head is normalised before it is turned (Qwen 3, Gemma 3).
    pub query_key_norms: bool,
    /// What attention and MLP give is normalised, too, before it is added to the residual stream (Gemma).
    pub post_norms: bool,
    /// Embeddings are multiplied by √hidden_size (Gemma).
    pub scaled_embeddings: bool,
    /// Scores are multiplied by 1/√this and not by 1/√head_dim (Gemma).
    pub query_pre_attn_scalar: Option<f32>,
    /// How many leading elements of a head positions turn, where not all (Phi-4-mini).
    pub rotary_dim: Option<usize>,
    /// How positions are stretched beyond the length of the first training (Llama 3.1, Phi-3).
    pub rope_scaling: RopeScaling,
    /// The base of layers with a window, where it is another one; they are not scaled (Gemma 3).
    pub rope_local_theta: Option<f32>,
    /// Layers without positions (SmolLM3), ascending.
    pub unturned_layers: Vec<usize>,
    /// Layers that see all tokens although there is a window (Gemma 3, Qwen), ascending.
    pub full_layers: Vec<usize>,
    /// Tokens that end an answer as `eos_token_id` does (the ends of turns of Llama 3, Gemma 3 and Phi-3).
    pub other_ends: Vec<u32>,
}

/// A decoder of the Llama family.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub family: Family,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub max_position_embeddings: usize,
    pub hidden_act: Activation,
    /// A token sees itself and so many minus one before it, but in `features.full_layers`; all of them if there is none.
    pub sliding_window: Option<usize>,
    pub rms_norm_eps: f32,
    pub rope_theta: f32,
    pub tie_word_embeddings: bool,
    pub bos_token_id: Option<u32>,
    /// The first one, where a file lists several.
    pub eos_token_id: Option<u32>,
    pub pad_token_id: Option<u32>,
    pub features: Features,
}

impl Config {
    /// Columns of all query heads.
    pub fn query_size(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Columns of all key heads (and of all value heads).
    pub fn key_value_size(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// The sliding window, unless it is so wide that it hides nothing.
    pub fn window(&self) -> Option<usize> {
        self.sliding_window.filter(|window| *window < self.max_position_embeddings)
    }

    /// Whether an answer ends with this token.
    pub fn ends(&self, token: u32) -> bool {
        self.eos_token_id == Some(token) || self.features.other_ends.contains(&token)
    }

    /// The tokens that end an answer, each once, the file's first one first.
    pub fn end_tokens(&self) -> impl Iterator<Item = u32> {
        self.eos_token_id.into_iter().chain(self.features.other_ends.iter().copied())
    }

    /// One more token that ends an answer.
    pub fn add_end(&mut self, token: u32) {
        match self.eos_token_id {
            None => self.eos_token_id = Some(token),
            Some(_) if self.ends(token) => {}
            Some(_) => self.features.other_ends.push(token),
        }
    }

    /// The window of one layer.
    pub fn layer_window(&self, layer: usize) -> Option<usize> {
        self.window().filter(|_| self.features.full_layers.binary_search(&layer).is_err())
    }

    /// Elements of a head that positions turn.
    pub fn rotary_dim(&self) -> usize {
        self.features.rotary_dim.unwrap_or(self.head_dim)
    }

    /// What scores are multiplied by, where it is not 1/√head_dim.
    pub fn attention_scale(&self) -> Option<f32> {
        self.features.query_pre_attn_scalar.map(|scalar| (1.0 / f64::from(scalar).sqrt()) as f32)
    }

    /// What embeddings are multiplied by.
    pub fn embedding_scale(&self) -> Option<f32> {
        self.features.scaled_embeddings.then(|| (self.hidden_size as f64).sqrt() as f32)
    }

    /// What a Hugging Face folder's norms lack: Gemma keeps them less one.
    pub fn norm_offset(&self) -> f32 {
        if self.family == Family::Gemma3 { 1.0 } else { 0.0 }
    }

    /// Every number within its limits and in its proportions. Called on whatever comes from a file or a manifest.
    pub fn check(&self) -> Result<(), ModelError> {
        let sizes = [
            ("vocab_size", self.vocab_size, MAX_VOCAB),
            ("hidden_size", self.hidden_size, MAX_WIDTH),
            ("intermediate_size", self.intermediate_size, MAX_WIDTH),
            ("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS),
            ("num_attention_heads", self.num_attention_heads, MAX_HEADS),
            ("num_key_value_heads", self.num_key_value_heads, MAX_HEADS),
            ("head_dim", self.head_dim, MAX_HEAD_DIM),
            ("max_position_embeddings", self.max_position_embeddings, MAX_POSITIONS),
        ];
        for (name, size, limit) in sizes {
            if size == 0 || size as u64 > limit {
                return Err(wrong(format!("{name} is {size}; it must be 1 to {limit}")));
            }
        }
        if let Some(window) = self.sliding_window.filter(|window| *window == 0 || *window as u64 > MAX_POSITIONS) {
            return Err(wrong(format!("sliding_window is {window}; it must be 1 to {MAX_POSITIONS}")));
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let (heads, kv) = (self.num_attention_heads, self.num_key_value_heads);
            return Err(wrong(format!("num_attention_heads ({heads}) is no multiple of num_key_value_heads ({kv})")));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(wrong(format!("head_dim ({}) is odd, and rotary positions turn pairs", self.head_dim)));
        }
        if !(self.rms_norm_eps > 0.0 && self.rms_norm_eps <= 1.0) {
            return Err(wrong(format!("rms_norm_eps is {}; it must be above 0 and at most 1", self.rms_norm_eps)));
        }
        if !(self.rope_theta >= 1.0 && self.rope_theta.is_finite()) {
            return Err(wrong(format!("rope_theta is {}; it must be at least 1", self.rope_theta)));
        }
        let ids = [("bos", self.bos_token_id), ("eos", self.eos_token_id), ("pad", self.pad_token_id)];
        for (name, id) in ids.into_iter().chain(self.features.other_ends.iter().map(|id| ("eos", Some(*id)))) {
            if let Some(id) = id.filter(|id| *id as usize >= self.vocab_size) {
                return Err(wrong(format!("{name}_token_id is {id}, but vocab_size is {}", self.vocab_size)));
            }
        }
        self.check_features()
    }

    fn check_features(&self) -> Result<(), ModelError> {
        let Features { query_pre_attn_scalar, rotary_dim, rope_local_theta, unturned_layers, full_layers, .. } = &self.features;
        if let Some(scalar) = query_pre_attn_scalar.filter(|scalar| !(*scalar > 0.0 && scalar.is_finite())) {
            return Err(wrong(format!("query_pre_attn_scalar is {scalar}; it must be above 0")));
        }
        if let Some(dim) = rotary_dim.filter(|dim| *dim == 0 || !dim.is_multiple_of(2) || *dim > self.head_dim) {
            return Err(wrong(format!(
                "partial_rotary_factor turns {dim} of a head's {} elements; it must be an even number of them",
                self.head_dim
            )));
        }
        if let Some(theta) = rope_local_theta.filter(|theta| !(*theta >= 1.0 && theta.is_finite())) {
            return Err(wrong(format!("rope_local_base_freq is {theta}; it must be at least 1")));
        }
        for (name, layers) in [("no_rope_layers", unturned_layers), ("layer_types", full_layers)] {
            let ascending = layers.windows(2).all(|pair| pair[0] < pair[1]);
            if !ascending || layers.last().is_some_and(|layer| *layer >= self.num_hidden_layers) {
                return Err(wrong(format!("{name} names a layer beyond the {}", self.num_hidden_layers)));
            }
        }
        self.features.rope_scaling.check(self)
    }
}

fn wrong(why: impl ToString) -> ModelError {
    ModelError::malformed("config.json", why)
}

#[cfg(test)]
pub mod tests {
    use serde_json::{Map, Value, json};

    use super::*;

    /// A model that trains in milliseconds and uses every feature: grouped heads, several layers.
    pub fn tiny() -> Config {
        Config {
            family: Family::Llama,
            vocab_size: 37,
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 4,
            max_position_embeddings: 64,
            hidden_act: Activation::Silu,
            sliding_window: None,
            rms_norm_eps: 1e-5,
            rope_theta: 1e4,
            tie_word_embeddings: true,
            bos_token_id: Some(0),
            eos_token_id: Some(0),
            pad_token_id: Some(0),
            features: Features::default(),
        }
    }

    /// A small model of each family, as a GGUF file can say it.
    pub fn of_each_family() -> Vec<Config> {
        let of = |family, features: Features| Config { family, features, tie_word_embeddings: false, ..tiny() };
        let layers = 6;
        let gemma = Features {
            query_pre_attn_scalar: Some(4.0),
            rope_local_theta: Some(1e4),
            full_layers: vec![5],
            ..Features::of(Family::Gemma3)
        };
        let llama3 = RopeScaling::Llama3 { factor: 32.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original: 8192 };
        let yarn =
            Yarn { factor: 4.0, original: 32, attention_factor: Yarn::default_attention_factor(4.0), beta_fast: 32.0, beta_slow: 1.0 };
        let long = RopeScaling::LongRope { short_factor: vec![1.5], long_factor: vec![3.0], original: 32, attention_factor: 1.25 };
        let scaled = |rope_scaling, features| Features { rope_scaling, ..features };
        vec![
            of(Family::Llama, Features::default()),
            Config { head_dim: 8, rope_theta: 5e5, ..of(Family::Llama, scaled(llama3, Features::default())) },
            of(Family::Llama, scaled(RopeScaling::Linear { factor: 2.0 }, Features::default())),
            of(Family::Qwen2, scaled(RopeScaling::Yarn(yarn), Features::of(Family::Qwen2))),
            of(Family::Qwen3, Features::of(Family::Qwen3)),
            Config { hidden_act: Activation::GeluTanh, sliding_window: Some(9), num_hidden_layers: layers, ..of(Family::Gemma3, gemma) },
            of(Family::Phi3, Features::default()),
            of(Family::Phi3, Features { rotary_dim: Some(2), ..scaled(long, Features::default()) }),
            Config { num_hidden_layers: layers, ..of(Family::SmolLm3, Features { unturned_layers: vec![3], ..Features::default() }) },
        ]
    }

    #[test]
    fn every_family_reads_back_what_it_writes() {
        for config in of_each_family() {
            config.check().unwrap();
            assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
        }
    }

    /// As published, but for the lists of factors.
    #[test]
    fn published_files_are_understood() {
        let llama = r#"{"architectures": ["LlamaForCausalLM"], "attention_bias": false, "bos_token_id": 128000,
            "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
            "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32,
            "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 32.0,
            "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"},
            "rope_theta": 500000.0, "tie_word_embeddings": true, "vocab_size": 128256}"#;
        let qwen = r#"{"architectures": ["Qwen2ForCausalLM"], "bos_token_id": 151643, "eos_token_id": 151645, "hidden_act": "silu",
            "hidden_size": 896, "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 21, "model_type": "qwen2",
            "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
            "sliding_window": 32768, "tie_word_embeddings": true, "use_sliding_window": false, "vocab_size": 151936}"#;
        let gemma = r#"{"architectures": ["Gemma3ForCausalLM"], "attention_bias": false, "attn_logit_softcapping": null, "bos_token_id": 2,
            "cache_implementation": "hybrid", "eos_token_id": [1, 106], "final_logit_softcapping": null, "head_dim": 256,
            "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152, "intermediate_size": 6912, "max_position_embeddings": 32768,
            "model_type": "gemma3_text", "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1, "pad_token_id": 0,
            "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000, "rope_scaling": null, "rope_theta": 1000000,
            "sliding_window": 512, "sliding_window_pattern": 6, "vocab_size": 262144}"#;
        let smol = r#"{"architectures": ["SmolLM3ForCausalLM"], "attention_bias": false, "bos_token_id": null, "eos_token_id": 128012,
            "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 11008, "layer_types": ["full_attention", "full_attention",
            "full_attention", "full_attention"], "max_position_embeddings": 65536, "max_window_layers": 28, "mlp_bias": false, "model_type": "smollm3",
            "no_rope_layer_interval": 4, "no_rope_layers": [1, 1, 1, 0], "num_attention_heads": 16, "num_hidden_layers": 4, "num_key_value_heads": 4,
            "pad_token_id": 128004, "pretraining_tp": 2, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 5000000.0,
            "sliding_window": null, "use_sliding_window": false, "vocab_size": 128256}"#;
        let phi = r#"{"architectures": ["Phi3ForCausalLM"], "attention_bias": false, "bos_token_id": 199999, "embd_pdrop": 0.0, "eos_token_id": 199999,
            "full_attn_mod": 1, "hidden_act": "silu", "hidden_size": 3072, "interpolate_factor": 1, "intermediate_size": 8192, "lm_head_bias": false,
            "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "phi3", "num_attention_heads": 24, "num_hidden_layers": 32,
            "num_key_value_heads": 8, "original_max_position_embeddings": 4096, "pad_token_id": 199999, "partial_rotary_factor": 0.75,
            "rms_norm_eps": 1e-05, "rope_scaling": {"long_factor": [FACTORS], "short_factor": [FACTORS], "type": "longrope"},
            "rope_theta": 10000.0, "sliding_window": 262144, "tie_word_embeddings": true, "vocab_size": 200064}"#;
        let phi = phi.replace("FACTORS", &["1.0"; 48].join(", "));
        let read = |text: &str| Config::from_json(text.as_bytes()).unwrap();
        assert_eq!(read(llama).features.other_ends, [128008, 128009]);
        assert_eq!((read(qwen).head_dim, read(qwen).window()), (64, None));
        assert_eq!((read(gemma).layer_window(4), read(gemma).layer_window(5), read(gemma).tie_word_embeddings), (Some(512), None, true));
        assert_eq!((read(smol).features.unturned_layers, read(smol).sliding_window), (vec![3], None));
        assert_eq!((read(&phi).rotary_dim(), read(&phi).head_dim, read(&phi).window()), (96, 128, None));
    }

    #[test]
    fn it_reads_back_what_it_writes() {
        let config = Config { tie_word_embeddings: false, pad_token_id: None, ..tiny() };
        assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
        let text = String::from_utf8(config.to_json()).unwrap();
        assert!(text.contains("\"rms_norm_eps\": 1e-5") || text.contains("\"rms_norm_eps\": 0.00001"), "{text}");
    }

    #[test]
    fn a_window_makes_a_mistral() {
        let config = Config { sliding_window: Some(7), hidden_act: Activation::GeluTanh, ..tiny() };
        assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
        let fields: Map<String, Value> = serde_json::from_slice(&config.to_json()).unwrap();
        assert_eq!((&fields["model_type"], &fields["hidden_act"]), (&json!("mistral"), &json!("gelu_pytorch_tanh")));
        let read = |change: &dyn Fn(&mut Map<String, Value>)| {
            let mut fields = fields.clone();
            change(&mut fields);
            Config::from_json(&serde_json::to_vec(&fields).unwrap())
        };
        let none = read(&|fields| drop(fields.insert("sliding_window".to_string(), Value::Null))).unwrap();
        assert_eq!(none.sliding_window, None);
        for name in ["sliding_window", "num_key_value_heads", "max_position_embeddings"] {
            let error = read(&|fields| drop(fields.remove(name))).unwrap_err().to_string();
            assert!(error.contains(&format!("{name} is missing")), "{error}");
        }
        for window in [json!(0), json!(1u64 << 40), json!("all")] {
            assert!(read(&|fields| drop(fields.insert("sliding_window".to_string(), window.clone()))).is_err());
        }
        // It hides nothing.
        assert_eq!(Config { sliding_window: Some(64), ..tiny() }.window(), None);
    }

    fn changed(name: &str, value: Value) -> Result<Config, ModelError> {
        let mut fields: Map<String, Value> = serde_json::from_slice(&tiny().to_json()).unwrap();
        fields.insert(name.to_string(), value);
        Config::from_json(&serde_json::to_vec(&fields).unwrap())
    }

    fn of(fields: Value) -> Result<Config, ModelError> {
        let mut all = json!({"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 6, "num_attention_heads": 4,
            "num_key_value_heads": 2, "max_position_embeddings": 64});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let config = Config::from_json(&serde_json::to_vec(&all).unwrap())?;
        assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
        Ok(config)
    }

    #[test]
    fn families_have_their_own_features_and_defaults() {
        let qwen2 = of(json!({"model_type": "qwen2", "use_sliding_window": false, "sliding_window": 8, "max_window_layers": 4})).unwrap();
        assert!(qwen2.features.attention_bias && qwen2.sliding_window.is_none() && qwen2.head_dim == 4);
        let windowed = of(json!({"model_type": "qwen2", "use_sliding_window": true, "sliding_window": 8, "max_window_layers": 4})).unwrap();
        assert_eq!((0..6).map(|layer| windowed.layer_window(layer)).collect::<Vec<_>>(), [None, None, None, None, Some(8), Some(8)]);
        let qwen3 = of(json!({"model_type": "qwen3"})).unwrap();
        assert!(qwen3.features.query_key_norms && !qwen3.features.attention_bias && qwen3.head_dim == 128);
        let gemma = of(json!({"model_type": "gemma3_text", "sliding_window": 8})).unwrap();
        assert!(gemma.features.post_norms && gemma.features.query_key_norms && gemma.tie_word_embeddings);
        assert_eq!((gemma.hidden_act, gemma.head_dim, gemma.rope_theta), (Activation::GeluTanh, 256, 1e6));
        assert_eq!((gemma.features.full_layers.as_slice(), gemma.features.rope_local_theta), (&[5][..], Some(1e4)));
        assert_eq!((gemma.attention_scale(), gemma.embedding_scale()), (Some(1.0 / 16.0), Some(4.0)));
        let smol = of(json!({"model_type": "smollm3"})).unwrap();
        assert!(smol.tie_word_embeddings && smol.rope_theta == 2e6 && smol.features.unturned_layers == [3]);
        let phi = json!({"model_type": "phi3", "partial_rotary_factor": 0.5, "original_max_position_embeddings": 16,
            "rope_scaling": {"type": "su", "short_factor": [1.0], "long_factor": [4.0]}});
        let phi = of(phi).unwrap();
        assert_eq!((phi.rotary_dim(), phi.rms_norm_eps), (2, 1e-5));
        let RopeScaling::LongRope { original, attention_factor, .. } = phi.features.rope_scaling else { panic!("{phi:?}") };
        // √(1 + ln 4 / ln 16)
        assert!(original == 16 && (attention_factor - 1.5f32.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn layers_are_counted() {
        let cases = [
            json!({"model_type": "gemma3_text", "sliding_window": 8, "layer_types": ["full_attention"]}),
            json!({"model_type": "gemma3_text", "sliding_window": 8, "layer_types": [1, 2, 3, 4, 5, 6]}),
            json!({"model_type": "smollm3", "no_rope_layers": [1, 1]}),
            json!({"model_type": "smollm3", "no_rope_layers": [1, 1, 1, 0, 1, 2]}),
            json!({"model_type": "gemma3_text"}),
            json!({"model_type": "qwen2", "use_sliding_window": true}),
        ];
        for fields in cases {
            assert!(of(fields.clone()).is_err(), "{fields}");
        }
        let huge = json!({"model_type": "smollm3", "no_rope_layer_interval": 0, "num_hidden_layers": u64::MAX});
        assert!(of(huge).is_err());
    }

    #[test]
    fn transformers_spellings_are_understood() {
        let several = changed("eos_token_id", json!([2, 3, 2, 5])).unwrap();
        assert_eq!((several.eos_token_id, several.features.other_ends.as_slice()), (Some(2), &[3, 5][..]));
        assert_eq!(Config::from_json(&several.to_json()).unwrap(), several);
        assert_eq!((1..6).map(|token| several.ends(token)).collect::<Vec<_>>(), [false, true, true, false, true]);
        assert_eq!(changed("rope_parameters", json!({"rope_theta": 5e5, "rope_type": "default"})).unwrap().rope_theta, 5e5);
        assert_eq!(changed("num_key_value_heads", Value::Null).unwrap().num_key_value_heads, 4);
        assert_eq!(changed("head_dim", Value::Null).unwrap().head_dim, 4);
    }

    /// As transformers 5 does.
    #[test]
    fn the_newer_place_of_a_number_wins() {
        let all: Map<String, Value> = serde_json::from_slice(&tiny().to_json()).unwrap();
        let read = |changes: Value| {
            let mut fields = all.clone();
            fields.remove("rope_theta");
            fields.extend(changes.as_object().unwrap().clone());
            Config::from_json(&serde_json::to_vec(&fields).unwrap()).unwrap()
        };
        let theta = |changes: Value| read(changes).rope_theta;
        let plain = |theta: f64| json!({"rope_type": "default", "rope_theta": theta});
        assert_eq!(theta(json!({"rope_theta": 1e3, "rope_parameters": plain(5e5)})), 5e5);
        assert_eq!(theta(json!({"rope_theta": 1e3, "rope_scaling": plain(5e5)})), 5e5);
        assert_eq!(theta(json!({"rope_parameters": plain(1e3), "rope_scaling": plain(5e5)})), 5e5);
        assert_eq!(theta(json!({"rope_parameters": plain(1e3), "rope_scaling": {"rope_type": "default"}})), 1e4);
        assert_eq!(theta(json!({"rope_parameters": plain(1e3), "rope_scaling": {}})), 1e3);
        for kind in ["linear", "llama3", "yarn", "longrope"] {
            let table = json!({"rope_type": kind, "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32, "short_factor": [1.0, 1.0], "long_factor": [2.0, 2.0]});
            for place in ["rope_scaling", "rope_parameters"] {
                let config = read(json!({"rope_theta": 1e3, place: table}));
                assert!(config.rope_theta == 5e5 && config.features.rope_scaling != RopeScaling::None, "{kind} in {place}");
            }
            let other = read(json!({"rope_scaling": table, "original_max_position_embeddings": 16})).features.rope_scaling;
            let original = match other {
                RopeScaling::Llama3 { original, .. } | RopeScaling::LongRope { original, .. } => original,
                RopeScaling::Yarn(yarn) => yarn.original,
                RopeScaling::None | RopeScaling::Linear { .. } => 16,
            };
            assert_eq!(original, 16, "{kind}");
        }
        let yarn = |changes: Value| {
            let mut table = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16});
            table.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            let RopeScaling::Yarn(yarn) = read(json!({"rope_scaling": table})).features.rope_scaling else { panic!("no yarn") };
            yarn
        };
        assert_eq!(yarn(json!({"factor": null})).factor, 4.0);
        assert_eq!(yarn(json!({"mscale": 2.0})).attention_factor, Yarn::default_attention_factor(4.0));
        assert_eq!(yarn(json!({"mscale": 1.0, "mscale_all_dim": 1.0})).attention_factor, 1.0);
    }

    #[test]
    fn a_gemma_has_a_table_for_each_kind_of_layer() {
        let gemma = |fields: Value| {
            let mut all = json!({"model_type": "gemma3_text", "sliding_window": 8});
            all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            of(all).map(|config| (config.rope_theta, config.features.rope_local_theta, config.features.rope_scaling))
        };
        let tables = json!({"full_attention": {"rope_type": "default", "rope_theta": 5e5}, "sliding_attention": {"rope_type": "default", "rope_theta": 1e3}});
        assert_eq!(gemma(json!({"rope_parameters": tables, "rope_theta": 7.0})).unwrap(), (5e5, Some(1e3), RopeScaling::None));
        let linear = json!({"rope_type": "linear", "factor": 8.0});
        let both = gemma(json!({"rope_parameters": tables, "rope_scaling": linear})).unwrap();
        assert_eq!(both, (5e5, Some(1e3), RopeScaling::Linear { factor: 8.0 }));
        for (fields, expected) in [
            (json!({"rope_parameters": {"rope_theta": 5e5}}), "rope_parameters with `rope_theta`"),
            (json!({"rope_scaling": {"type": "linear", "factor": 8.0}}), "rope_scaling with `type`"),
            (json!({"rope_parameters": {"sliding_attention": linear}}), "in layers with a window"),
        ] {
            let error = gemma(fields).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_we_cannot_run_is_named() {
        let cases = [
            ("model_type", json!("gpt2"), "model_type"),
            ("model_type", json!("qwen3_moe"), "model_type"),
            ("num_local_experts", json!(8), "num_local_experts"),
            ("final_logit_softcapping", json!(30.0), "final_logit_softcapping"),
            ("attn_logit_softcapping", json!(50.0), "attn_logit_softcapping"),
            ("vision_config", json!({}), "vision_config"),
            ("quantization_config", json!({"bits": 4}), "quantization_config"),
            ("use_bidirectional_attention", json!(true), "use_bidirectional_attention"),
            ("partial_rotary_factor", json!(0.5), "partial_rotary_factor"),
            ("rope_scaling", json!({"rope_type": "dynamic", "factor": 8.0}), "dynamic"),
            ("rope_scaling", json!("linear"), "rope_scaling"),
            ("rope_scaling", json!({"type": "linear"}), "factor of rope_scaling is missing"),
            ("rope_scaling", json!({"type": "yarn", "factor": 4.0, "truncate": false}), "truncate"),
            ("rope_scaling", json!({"factor": 4.0}), "factor of rope_scaling = 4.0"),
            ("rope_scaling", json!({"type": "linear", "factor": 4.0, "beta": 1}), "beta of rope_scaling = 1"),
            ("rope_parameters", json!({"full_attention": {"rope_theta": 5e5}}), "full_attention of rope_parameters"),
            ("rope_parameters", json!({"rope_theta": null}), "rope_theta is null"),
            ("layer_types", json!(["full_attention", "sliding_attention"]), "layer_types"),
            ("is_causal", json!(false), "is_causal"),
            ("rope_scaling", json!({"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}), "short_factor"),
            ("rope_scaling", json!({"type": "longrope", "short_factor": [1.0, "x"], "long_factor": [1.0, 1.0]}), "short_factor"),
            ("hidden_act", json!("gelu"), "hidden_act"),
            ("attention_bias", json!(true), "attention_bias"),
            ("rope_scaling", json!({"rope_type": "llama3", "factor": 8.0}), "low_freq_factor of rope_scaling is missing"),
            ("hidden_size", json!(1u64 << 40), "hidden_size"),
            ("hidden_size", json!(-5), "hidden_size"),
            ("hidden_size", Value::Null, "hidden_size"),
            ("vocab_size", json!(0), "vocab_size"),
            ("num_key_value_heads", json!(3), "num_key_value_heads"),
            ("head_dim", json!(3), "head_dim"),
            ("rms_norm_eps", json!(0.0), "rms_norm_eps"),
            ("rope_theta", json!("x"), "rope_theta"),
            ("eos_token_id", json!(37), "eos_token_id"),
            ("eos_token_id", json!([1, 37]), "eos_token_id"),
            ("lm_head_bias", json!(true), "lm_head_bias"),
            ("tie_word_embeddings", json!(1), "tie_word_embeddings"),
        ];
        for (name, value, expected) in cases {
            let error = changed(name, value).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(Config::from_json(b"[]").is_err());
        assert!(Config::from_json(b"{\"model_type\"").is_err());
    }
}
