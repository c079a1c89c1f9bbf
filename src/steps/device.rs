//! The fields of `[device.NAME]`: what a device can hold and run. Bundles are made for devices; nothing else reads them.

use serde::Deserialize;

use super::field::{Field, Type};
use super::{Params, Problem};
use crate::base::units;

pub static ARCHITECTURES: &[&str] = &["x86_64", "aarch64", "armv7", "riscv64", "any"];

/// The programs that run models, as far as slmops knows what they read.
pub static RUNTIMES: &[&str] = &["llama.cpp", "slmops", "transformers"];

pub static FIELDS: &[Field] = &[
    Field::default(
        "arch",
        Type::Choice(ARCHITECTURES),
        "\"any\"",
        "The processor. It is written into the bundle; the model's files are the same for all.",
    ),
    Field::required(
        "runtime",
        Type::Choice(RUNTIMES),
        "The program that runs the model there. It decides which formats can be candidates.",
    ),
    Field::optional("storage", Type::Size, "How many bytes the bundle's files may take."),
    Field::optional("memory", Type::Size, "How many bytes the model may take when it runs: weights, cache and activations by calculation."),
    Field::optional("context_length", Type::Int(1, 1 << 22), "Tokens of context that must fit. Without it, what the model was made for."),
    Field::optional("description", Type::String, "A line about the device, written into the bundle."),
    Field::optional("min_tokens_per_second", Type::Float(0.0, 1e9), "Reserved: needs measurements on the device."),
    Field::optional("max_first_token", Type::Duration, "Reserved: needs measurements on the device."),
];

/// A device after checking.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub name: String,
    pub arch: String,
    pub runtime: String,
    /// Bytes.
    pub storage: Option<u64>,
    /// Bytes.
    pub memory: Option<u64>,
    pub context_length: Option<u64>,
    pub description: Option<String>,
    pub min_tokens_per_second: Option<f64>,
    /// Milliseconds.
    pub max_first_token: Option<u64>,
}

impl Device {
    /// From a parameter of type [`Type::Device`].
    pub fn from_params(params: &Params, field: &str) -> Result<Device, Problem> {
        let value = params.get(field).cloned().unwrap_or_default();
        serde_json::from_value(value).map_err(|error| Problem::at(field, format!("this device cannot be read: {error}")))
    }

    /// What this version cannot promise of a device.
    pub fn problems(&self, field: &str) -> Vec<Problem> {
        let limits = [
            ("min_tokens_per_second", self.min_tokens_per_second.map(|rate| rate.to_string())),
            ("max_first_token", self.max_first_token.map(|ms| units::show_duration(std::time::Duration::from_millis(ms)))),
        ];
        let refused = |name: &str, limit: String| {
            Problem::at(field, format!("device `{}` limits speed, which this version cannot check", self.name))
                .label(format!("has `{name} = {limit}`"))
                .help(format!("speed must be measured on the device itself; take `{name}` out and limit `storage` and `memory` instead"))
        };
        limits.into_iter().filter_map(|(name, limit)| limit.map(|limit| refused(name, limit))).collect()
    }
}
