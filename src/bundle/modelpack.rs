//! The ModelPack configuration (model-spec v0.0.7): the general facts about a model that other tools show. It has no room for devices and
//! gates (`additionalProperties: false` at every level); those are in [`super::description`].

use serde::{Deserialize, Serialize};

/// What a file is for. It decides the layer's media type; all are `.raw`: one file is one blob, and no compressor reaches a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Weights,
    /// What belongs to the weights: configuration, tokenizer, chat template.
    Config,
    Document,
    Code,
    Dataset,
}

impl Role {
    pub const ALL: [Role; 5] = [Role::Weights, Role::Config, Role::Document, Role::Code, Role::Dataset];

    pub fn media_type(self) -> &'static str {
        match self {
            Role::Weights => "application/vnd.cncf.model.weight.v1.raw",
            Role::Config => "application/vnd.cncf.model.weight.config.v1.raw",
            Role::Document => "application/vnd.cncf.model.doc.v1.raw",
            Role::Code => "application/vnd.cncf.model.code.v1.raw",
            Role::Dataset => "application/vnd.cncf.model.dataset.v1.raw",
        }
    }

    pub fn of_media_type(text: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.media_type() == text)
    }

    /// What a user's extra file most likely is; the name decides, so that it is the same everywhere.
    pub fn of_extra_file(path: &str) -> Role {
        let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        if ends(&[".jsonl", ".csv", ".parquet"]) {
            Role::Dataset
        } else if ends(&[".md", ".txt", ".pdf", ".html"]) || name.starts_with("license") || name.starts_with("notice") {
            Role::Document
        } else {
            Role::Code
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    pub descriptor: General,
    pub config: Technical,
    pub modelfs: ModelFs,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct General {
    /// Always written: docker model knows a ModelPack configuration by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authors: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, rename = "docURL", skip_serializing_if = "Option::is_none")]
    pub doc_url: Option<String>,
    #[serde(default, rename = "sourceURL", skip_serializing_if = "Option::is_none")]
    pub source_url: Option<String>,
    #[serde(default, rename = "datasetsURL", skip_serializing_if = "Vec::is_empty")]
    pub datasets_url: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licenses: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Technical {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Always written, for the same reason as `created_at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param_size: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Capabilities {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub input_types: Vec<Modality>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output_types: Vec<Modality>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knowledge_cutoff: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_usage: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<String>,
}

impl Capabilities {
    pub fn text() -> Capabilities {
        Capabilities { input_types: vec![Modality::Text], output_types: vec![Modality::Text], ..Capabilities::default() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Modality {
    Text,
    Image,
    Audio,
    Video,
    Embedding,
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelFs {
    /// `layers`
    #[serde(rename = "type")]
    pub kind: String,
    /// The digest of each uncompressed layer, in order: for `.raw` layers the layer's own digest.
    pub diff_ids: Vec<String>,
}

/// A parameter count as `config.md` wants it: one decimal at most and a letter. `64320` → `64.3k`.
pub fn param_size(parameters: u64) -> String {
    const SCALES: [(u64, char); 5] =
        [(1_000_000_000_000_000, 'q'), (1_000_000_000_000, 't'), (1_000_000_000, 'b'), (1_000_000, 'm'), (1_000, 'k')];
    let (scale, letter) = SCALES.into_iter().find(|(scale, _)| parameters >= *scale).unwrap_or((1_000, 'k'));
    let tenths = u128::from(parameters).saturating_mul(10).saturating_add(u128::from(scale) / 2) / u128::from(scale);
    match tenths % 10 {
        0 => format!("{}{letter}", tenths / 10),
        tenth => format!("{}.{tenth}{letter}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_one_decimal_at_most() {
        let cases =
            [(0, "0k"), (49, "0k"), (512, "0.5k"), (64_320, "64.3k"), (300_000, "300k"), (6_700_000_000, "6.7b"), (u64::MAX, "18446.7q")];
        for (count, text) in cases {
            assert_eq!(param_size(count), text);
        }
    }

    #[test]
    fn roles_and_media_types_belong_together() {
        for role in Role::ALL {
            assert_eq!(Role::of_media_type(role.media_type()), Some(role));
            assert!(role.media_type().ends_with(".raw"));
        }
        assert_eq!(Role::of_media_type("application/vnd.cncf.model.weight.v1.tar+zstd"), None);
        assert_eq!(Role::of_extra_file("docs/LICENSE-2.0"), Role::Document);
        assert_eq!(Role::of_extra_file("prompts.jsonl"), Role::Dataset);
        assert_eq!(Role::of_extra_file("run.sh"), Role::Code);
    }
}
