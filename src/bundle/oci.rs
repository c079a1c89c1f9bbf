//! The OCI image layout (image-spec 1.1) and the CNCF ModelPack manifest, as far as a bundle uses them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub const LAYOUT_FILE: &str = "oci-layout";
pub const LAYOUT_VERSION: &str = "1.0.0";
pub const INDEX_FILE: &str = "index.json";
pub const BLOB_FOLDER: &str = "blobs/sha256";

pub const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const MODEL_TYPE: &str = "application/vnd.cncf.model.manifest.v1+json";
pub const CONFIG_TYPE: &str = "application/vnd.cncf.model.config.v1+json";

/// Read by modctl, kit, docker model and modelpack-client.
pub const FILEPATH: &str = "org.cncf.model.filepath";
/// Read by oras.
pub const TITLE: &str = "org.opencontainers.image.title";
pub const UNTESTED: &str = "org.cncf.model.file.mediatype.untested";
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub const VERSION: &str = "org.opencontainers.image.version";
pub const CREATED: &str = "org.opencontainers.image.created";
pub const DEVICE: &str = "dev.slmops.device";

pub type Annotations = BTreeMap<String, String>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Layout {
    pub image_layout_version: String,
}

/// `index.json`. Members that other writers may add are let through: only what it points to is trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub manifests: Vec<Descriptor>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// `sha256:` and 64 lower-case hex digits.
    pub digest: String,
    pub size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
}

impl Descriptor {
    /// The hex digits, if it is a SHA-256 digest: then they are safe as a file name.
    pub fn sha256(&self) -> Option<&str> {
        let hex = self.digest.strip_prefix("sha256:")?;
        is_sha256(hex).then_some(hex)
    }
}

/// The manifest: what a bundle's digest is taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    pub schema_version: u64,
    pub media_type: String,
    pub artifact_type: String,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
}

/// 64 lower-case hex digits.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
