//! An adapter as PEFT keeps it: a folder with `adapter_config.json` and `adapter_model.safetensors`. What PEFT can do and we cannot is refused.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::super::error::read_limited;
use super::super::{Config, Family, ModelError, safetensors};
use super::{Adapter, Lora, Target};
use crate::base::json;

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
const MAX_JSON: u64 = 1 << 20;

/// Keys that say nothing about what an adapter computes. Of `megatron_core` and `qalora_group_size` PEFT writes the default though nothing
/// uses it.
const NEUTRAL: [&str; 10] = [
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];

impl Adapter {
    pub fn save(&self, config: &Config, folder: &Path) -> Result<(), ModelError> {
        let fused = |target: &&Target| !matches!(target, Target::O | Target::Down);
        if let Some(target) = self.lora.target_modules.iter().find(fused).filter(|_| config.family == Family::Phi3) {
            let why =
                "a Phi-3 has its queries, keys and values in one matrix, and so gate and up; merge it, or adapt o_proj and down_proj only";
            return Err(ModelError::unsupported(format!("an adapter of {target:?} that PEFT reads"), why));
        }
        let path = folder.join(CONFIG);
        let text = format!("{:#}\n", self.lora.to_json());
        std::fs::write(&path, text).map_err(|error| ModelError::io("write", &path, error))?;
        safetensors::write(&folder.join(TENSORS), &self.weights)
    }

    /// An adapter for a model of this shape.
    pub fn load(folder: &Path, config: &Config) -> Result<Adapter, ModelError> {
        let lora = Lora::from_json(&read_limited(&folder.join(CONFIG), MAX_JSON)?)?;
        let weights = safetensors::read_file(&folder.join(TENSORS), lora.layout(config)?)?;
        Ok(Adapter { lora, weights })
    }
}

impl Lora {
    fn to_json(&self) -> Value {
        json!({
            "alpha_pattern": {},
            "auto_mapping": null,
            "base_model_name_or_path": null,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "layers_to_transform": null,
            "lora_alpha": whole(self.lora_alpha),
            "lora_dropout": 0.0,
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": self.r,
            "rank_pattern": {},
            "revision": null,
            "target_modules": self.target_modules,
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_rslora": false,
        })
    }

    fn from_json(bytes: &[u8]) -> Result<Lora, ModelError> {
        let value: Value = json::from_foreign_slice(bytes).map_err(wrong)?;
        let fields = value.as_object().ok_or_else(|| wrong("it holds no table"))?;
        for (name, value) in fields {
            understood(name, value)?;
        }
        let r = fields.get("r").and_then(Value::as_u64).and_then(|r| usize::try_from(r).ok()).ok_or_else(|| wrong("r is no size"))?;
        let lora_alpha = fields.get("lora_alpha").and_then(Value::as_f64).ok_or_else(|| wrong("lora_alpha is no number"))?;
        let lora = Lora { r, lora_alpha, target_modules: targets(fields)? };
        lora.check()?;
        Ok(lora)
    }
}

fn wrong(why: impl ToString) -> ModelError {
    ModelError::malformed(CONFIG, why)
}

/// `16.0` is written `16`, as people do.
fn whole(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e15 { json!(number as i64) } else { json!(number) }
}

/// Whatever is not known must say "no".
fn understood(name: &str, value: &Value) -> Result<(), ModelError> {
    let fine = match name {
        "r" | "lora_alpha" | "target_modules" => true,
        "peft_type" => value == "LORA",
        "bias" => value == "none",
        // The others change the model's own weights, too.
        "init_lora_weights" => value.is_boolean() || value == "gaussian",
        _ if NEUTRAL.contains(&name) => true,
        _ => match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(items) => items.is_empty(),
            _ => false,
        },
    };
    let shown = || format!("{} {}", short(name), short(&value.to_string()));
    if fine {
        Ok(())
    } else {
        Err(ModelError::unsupported(format!("{CONFIG}: {}", shown()), "only plain LoRA adapters of linear layers are"))
    }
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

fn targets(fields: &Map<String, Value>) -> Result<Vec<Target>, ModelError> {
    match fields.get("target_modules") {
        Some(Value::String(all)) if all == "all-linear" => Ok(Target::ALL.to_vec()),
        Some(Value::Array(names)) => {
            let known = |name: &Value| {
                let help = "only q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj are";
                serde_json::from_value(name.clone())
                    .map_err(|_| ModelError::unsupported(format!("target module {}", short(&name.to_string())), help))
            };
            let mut targets = names.iter().map(known).collect::<Result<Vec<Target>, _>>()?;
            // PEFT writes a set, in any order.
            targets.sort_unstable();
            Ok(targets)
        }
        other => Err(wrong(format!("target_modules is {}, not a list of names", short(&format!("{other:?}"))))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::config::tests::tiny;
    use super::*;

    fn adapter() -> Adapter {
        let lora = Lora { r: 3, lora_alpha: 6.0, target_modules: vec![Target::Q, Target::V, Target::Down] };
        let mut adapter = Adapter::random(&tiny(), lora, 9).unwrap();
        adapter.weights.data.iter_mut().enumerate().for_each(|(i, value)| *value += i as f32 * 0.125);
        adapter
    }

    #[test]
    fn it_reads_back_what_it_writes() {
        let space = tempfile::tempdir().unwrap();
        adapter().save(&tiny(), space.path()).unwrap();
        let read = Adapter::load(space.path(), &tiny()).unwrap();
        assert_eq!(read.lora, adapter().lora);
        assert_eq!(read.weights.data, adapter().weights.data);
        assert_eq!(read.weights.layout, adapter().weights.layout);
        assert_eq!(read.weights.shape("base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"), Some(&[3, 24][..]));
    }

    #[test]
    fn cut_and_foreign_files_are_errors() {
        let space = tempfile::tempdir().unwrap();
        adapter().save(&tiny(), space.path()).unwrap();
        let path = space.path().join(TENSORS);
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 8, 9, bytes.len() / 3, bytes.len() * 2 / 3, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(Adapter::load(space.path(), &tiny()).is_err(), "{length}");
        }
        std::fs::write(&path, &bytes).unwrap();
        let deeper = Config { num_hidden_layers: 3, ..tiny() };
        assert!(Adapter::load(space.path(), &deeper).unwrap_err().to_string().contains("missing"));
        let wider = Config { intermediate_size: 25, ..tiny() };
        assert!(Adapter::load(space.path(), &wider).unwrap_err().to_string().contains("shape"));
    }

    fn changed(name: &str, value: Value) -> Result<Lora, ModelError> {
        let mut fields = adapter().lora.to_json().as_object().unwrap().clone();
        fields.insert(name.to_string(), value);
        Lora::from_json(&serde_json::to_vec(&fields).unwrap())
    }

    #[test]
    fn what_peft_writes_is_understood() {
        // The keys of PEFT 0.18 with their defaults.
        let text = r#"{"alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null, "auto_mapping": null,
            "base_model_name_or_path": "x/y", "bias": "none", "corda_config": null, "ensure_weight_tying": false, "eva_config": null,
            "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true,
            "layer_replication": null, "layers_pattern": null, "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 32,
            "lora_bias": false, "lora_dropout": 0.05, "megatron_config": null, "megatron_core": "megatron.core", "modules_to_save": null,
            "peft_type": "LORA", "peft_version": "0.18.0", "qalora_group_size": 16, "r": 16, "rank_pattern": {}, "revision": null,
            "target_modules": ["v_proj", "q_proj"], "target_parameters": null, "task_type": "CAUSAL_LM", "trainable_token_indices": null,
            "use_dora": false, "use_qalora": false, "use_rslora": false}"#;
        let lora = Lora::from_json(text.as_bytes()).unwrap();
        assert_eq!(lora, Lora { r: 16, lora_alpha: 32.0, target_modules: vec![Target::Q, Target::V] });
        assert_eq!(changed("target_modules", json!("all-linear")).unwrap().target_modules, Target::ALL);
    }

    #[test]
    fn what_we_cannot_run_is_named() {
        let cases = [
            ("peft_type", json!("IA3")),
            ("use_dora", json!(true)),
            ("use_rslora", json!(true)),
            ("bias", json!("all")),
            ("modules_to_save", json!(["lm_head"])),
            ("rank_pattern", json!({"q_proj": 4})),
            ("init_lora_weights", json!("pissa")),
            ("target_modules", json!(["lm_head"])),
            ("target_modules", json!(".*q_proj")),
            ("target_modules", json!([])),
            ("target_modules", json!(["q_proj", "q_proj"])),
            ("r", json!(0)),
            ("r", json!(1u64 << 40)),
            ("lora_alpha", json!(-1)),
            ("something_new", json!("on")),
        ];
        for (name, value) in cases {
            let error = changed(name, value.clone()).unwrap_err().to_string();
            assert!(error.contains(name) || error.contains("target module"), "{name} {value}: {error}");
        }
        assert!(Lora::from_json(b"[]").is_err() && Lora::from_json(b"{\"r\"").is_err());
    }
}
