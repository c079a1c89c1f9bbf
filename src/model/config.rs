//! `config.json` of a `LlamaForCausalLM` or `MistralForCausalLM`, as transformers reads and writes it. Knows shapes, not weights.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::ModelError;

/// Anything larger is not a small language model but a mangled file.
const MAX_VOCAB: u64 = 1 << 20;
const MAX_WIDTH: u64 = 1 << 17;
const MAX_LAYERS: u64 = 512;
const MAX_HEADS: u64 = 1024;
const MAX_HEAD_DIM: u64 = 1024;
const MAX_POSITIONS: u64 = 1 << 22;

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

/// A decoder of the Llama family. With a sliding window it is a Mistral, which otherwise is the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub max_position_embeddings: usize,
    pub hidden_act: Activation,
    /// A token sees itself and so many minus one before it; all of them if there is none.
    pub sliding_window: Option<usize>,
    pub rms_norm_eps: f32,
    pub rope_theta: f32,
    pub tie_word_embeddings: bool,
    pub bos_token_id: Option<u32>,
    /// The first one, where a file lists several.
    pub eos_token_id: Option<u32>,
    pub pad_token_id: Option<u32>,
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
        for (name, id) in [("bos", self.bos_token_id), ("eos", self.eos_token_id), ("pad", self.pad_token_id)] {
            if let Some(id) = id.filter(|id| *id as usize >= self.vocab_size) {
                return Err(wrong(format!("{name}_token_id is {id}, but vocab_size is {}", self.vocab_size)));
            }
        }
        Ok(())
    }

    pub fn from_json(bytes: &[u8]) -> Result<Config, ModelError> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| ModelError::malformed("config.json", error))?;
        let fields = value.as_object().ok_or_else(|| wrong("it holds no table"))?;
        let family = Family::of(fields)?;
        refuse_what_we_cannot_run(fields)?;
        let heads = size(fields, "num_attention_heads", None)?;
        let hidden_size = size(fields, "hidden_size", None)?;
        let config = Config {
            vocab_size: size(fields, "vocab_size", None)?,
            hidden_size,
            intermediate_size: size(fields, "intermediate_size", None)?,
            num_hidden_layers: size(fields, "num_hidden_layers", None)?,
            num_attention_heads: heads,
            num_key_value_heads: size(fields, "num_key_value_heads", family.default(heads))?,
            head_dim: size(fields, "head_dim", hidden_size.checked_div(heads))?,
            max_position_embeddings: size(fields, "max_position_embeddings", family.default(2048))?,
            hidden_act: activation(fields)?,
            sliding_window: family.sliding_window(fields)?,
            rms_norm_eps: number(fields, "rms_norm_eps", 1e-6)?,
            rope_theta: rope_theta(fields)?,
            tie_word_embeddings: boolean(fields, "tie_word_embeddings")?,
            bos_token_id: token(fields, "bos_token_id")?,
            eos_token_id: token(fields, "eos_token_id")?,
            pad_token_id: token(fields, "pad_token_id")?,
        };
        config.check()?;
        Ok(config)
    }

    /// Every field spelled out, so that no reader's defaults matter; keys sorted.
    pub fn to_json(&self) -> Vec<u8> {
        let (class, family) = if self.sliding_window.is_some() { ("MistralForCausalLM", "mistral") } else { ("LlamaForCausalLM", "llama") };
        let mut value = json!({
            "architectures": [class],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "head_dim": self.head_dim,
            "hidden_act": self.hidden_act,
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "mlp_bias": false,
            "model_type": family,
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "pad_token_id": self.pad_token_id,
            "pretraining_tp": 1,
            "rms_norm_eps": shortest(self.rms_norm_eps),
            "rope_scaling": null,
            "rope_theta": shortest(self.rope_theta),
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        if let (Some(window), Some(fields)) = (self.sliding_window, value.as_object_mut()) {
            fields.insert("sliding_window".to_string(), window.into());
        }
        format!("{value:#}\n").into_bytes()
    }
}

/// The double nearest to the decimal that names this f32: 1e-5 stays 1e-5 and does not become 9.999999747378752e-6.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

fn wrong(why: impl ToString) -> ModelError {
    ModelError::malformed("config.json", why)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Llama,
    Mistral,
}

impl Family {
    fn of(fields: &Map<String, Value>) -> Result<Family, ModelError> {
        match fields.get("model_type") {
            Some(Value::String(kind)) if kind == "llama" => Ok(Family::Llama),
            Some(Value::String(kind)) if kind == "mistral" => Ok(Family::Mistral),
            Some(other) => Err(ModelError::unsupported(format!("model_type {other}"), "only \"llama\" and \"mistral\" are")),
            None => Err(wrong("model_type is missing")),
        }
    }

    /// What a Llama's missing field means. A Mistral's defaults are those of one large model, which nothing else has: they must be written.
    fn default(self, llama: usize) -> Option<usize> {
        (self == Family::Llama).then_some(llama)
    }

    /// A Llama has none, whatever its file says.
    fn sliding_window(self, fields: &Map<String, Value>) -> Result<Option<usize>, ModelError> {
        match (self, fields.get("sliding_window")) {
            (Family::Llama, _) | (Family::Mistral, Some(Value::Null)) => Ok(None),
            (Family::Mistral, _) => size(fields, "sliding_window", None).map(Some),
        }
    }
}

fn activation(fields: &Map<String, Value>) -> Result<Activation, ModelError> {
    match fields.get("hidden_act") {
        None | Some(Value::Null) => Ok(Activation::Silu),
        Some(Value::String(name)) if name == "silu" || name == "swish" => Ok(Activation::Silu),
        // Two names of the same formula.
        Some(Value::String(name)) if name == "gelu_pytorch_tanh" || name == "gelu_new" => Ok(Activation::GeluTanh),
        Some(other) => Err(ModelError::unsupported(format!("hidden_act {other}"), "only \"silu\" and \"gelu_pytorch_tanh\" are")),
    }
}

fn refuse_what_we_cannot_run(fields: &Map<String, Value>) -> Result<(), ModelError> {
    let unsupported = |what: String, why: &str| Err(ModelError::unsupported(what, why));
    for name in ["attention_bias", "mlp_bias"] {
        if boolean(fields, name)? {
            return unsupported(format!("{name} = true"), "layers have no biases here");
        }
    }
    for name in ["rope_scaling", "rope_parameters"] {
        let Some(Value::Object(rope)) = fields.get(name) else { continue };
        let kind = rope.get("rope_type").or_else(|| rope.get("type"));
        if kind.is_some_and(|kind| kind != "default") {
            return unsupported(format!("{name} {}", Value::from(rope.clone())), "only plain rotary positions are");
        }
    }
    Ok(())
}

/// transformers 5 moved it into `rope_parameters`.
fn rope_theta(fields: &Map<String, Value>) -> Result<f32, ModelError> {
    match fields.get("rope_parameters") {
        Some(Value::Object(rope)) if rope.contains_key("rope_theta") => number(rope, "rope_theta", 1e4),
        _ => number(fields, "rope_theta", 1e4),
    }
}

fn size(fields: &Map<String, Value>, name: &str, default: Option<usize>) -> Result<usize, ModelError> {
    match (fields.get(name), default) {
        (None | Some(Value::Null), Some(default)) => Ok(default),
        (None | Some(Value::Null), None) => Err(wrong(format!("{name} is missing"))),
        (Some(value), _) => {
            let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
            number.ok_or_else(|| wrong(format!("{name} is {value}, not a size")))
        }
    }
}

fn number(fields: &Map<String, Value>, name: &str, default: f64) -> Result<f32, ModelError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(default as f32),
        Some(value) => value.as_f64().map(|x| x as f32).ok_or_else(|| wrong(format!("{name} is {value}, not a number"))),
    }
}

fn boolean(fields: &Map<String, Value>, name: &str) -> Result<bool, ModelError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(value) => Err(wrong(format!("{name} is {value}, neither true nor false"))),
    }
}

fn token(fields: &Map<String, Value>, name: &str) -> Result<Option<u32>, ModelError> {
    let id = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(ids)) if !ids.is_empty() && ids.iter().all(|value| id(value).is_some()) => Ok(id(&ids[0])),
        // Some old checkpoints say -1 for "none".
        Some(Value::Number(n)) if n.as_i64() == Some(-1) => Ok(None),
        Some(value) => id(value).map(Some).ok_or_else(|| wrong(format!("{name} is {value}, not a token"))),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A model that trains in milliseconds and uses every feature: grouped heads, several layers.
    pub fn tiny() -> Config {
        Config {
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
        }
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

    #[test]
    fn transformers_spellings_are_understood() {
        assert_eq!(changed("eos_token_id", json!([2, 3])).unwrap().eos_token_id, Some(2));
        assert_eq!(changed("rope_parameters", json!({"rope_theta": 5e5, "rope_type": "default"})).unwrap().rope_theta, 5e5);
        assert_eq!(changed("num_key_value_heads", Value::Null).unwrap().num_key_value_heads, 4);
        assert_eq!(changed("head_dim", Value::Null).unwrap().head_dim, 4);
    }

    #[test]
    fn what_we_cannot_run_is_named() {
        let cases = [
            ("model_type", json!("gpt2"), "model_type"),
            ("hidden_act", json!("gelu"), "hidden_act"),
            ("attention_bias", json!(true), "attention_bias"),
            ("rope_scaling", json!({"rope_type": "llama3", "factor": 8.0}), "rope_scaling"),
            ("hidden_size", json!(1u64 << 40), "hidden_size"),
            ("hidden_size", json!(-5), "hidden_size"),
            ("hidden_size", Value::Null, "hidden_size"),
            ("vocab_size", json!(0), "vocab_size"),
            ("num_key_value_heads", json!(3), "num_key_value_heads"),
            ("head_dim", json!(3), "head_dim"),
            ("rms_norm_eps", json!(0.0), "rms_norm_eps"),
            ("rope_theta", json!("x"), "rope_theta"),
            ("eos_token_id", json!(37), "eos_token_id"),
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
