//! What a registry says an artifact is made of. Nothing in it is believed before it is checked.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{OciError, is_below, name};
use crate::base::json;
use crate::source::entry;
use crate::source::http::said;
use crate::source::out::OutError;

pub const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
/// Where a layer's file goes: ModelPack's word for it, an older one, ORAS's.
const PATHS: [&str; 3] = ["org.cncf.model.filepath", "org.cnai.model.filepath", "org.opencontainers.image.title"];
/// ORAS's word for "this is an archive".
const UNPACK: &str = "io.deis.oras.content.unpack";
/// What ORAS calls any file, and what Docker fills containers with.
const IMAGE_LAYERS: [&str; 2] = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];
const MAX_LAYERS: usize = 10_000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
    /// Of an index.
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// One blob and what to do with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub digest: String,
    pub size_bytes: u64,
    /// Of its one file; an archive has paths of its own.
    pub path: Option<String>,
    pub is_archive: bool,
}

impl Manifest {
    pub fn parse(bytes: &[u8]) -> Result<Manifest, OciError> {
        let manifest: Manifest = json::from_foreign_slice(bytes).map_err(|error| OciError::Manifest(said::plain(&error.to_string())))?;
        let all = manifest.layers.iter().chain(&manifest.manifests);
        if let Some(wrong) = all.clone().find(|descriptor| !name::is_digest(&descriptor.digest)) {
            return Err(OciError::Manifest(format!("`{}` is not a SHA-256", said::plain(&wrong.digest))));
        }
        match all.count() {
            0 => Err(OciError::Manifest("it lists nothing".to_string())),
            1..=MAX_LAYERS => Ok(manifest),
            _ => Err(OciError::Manifest(format!("it lists more than {MAX_LAYERS} layers"))),
        }
    }

    /// The one manifest of an index.
    pub fn inner(&self) -> Result<Option<&str>, OciError> {
        match self.manifests.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(&one.digest)),
            several => Err(OciError::Many(several.len())),
        }
    }

    /// Those that are needed for `path`, or all.
    pub fn layers(&self, path: Option<&str>) -> Result<Vec<Layer>, OciError> {
        let mut found = Vec::with_capacity(self.layers.len());
        let mut names = BTreeSet::new();
        for descriptor in &self.layers {
            let layer = descriptor.layer()?;
            if let Some(name) = &layer.path {
                entry::safe(name).map_err(|why| OutError::Name { name: name.clone(), why })?;
                if !names.insert(name.clone()) {
                    return Err(OutError::Twice(name.clone()).into());
                }
            }
            let is_needed = match (&layer.path, path) {
                (Some(name), Some(path)) => is_below(name, path),
                _ => true,
            };
            if is_needed {
                found.push(layer);
            }
        }
        match (found.is_empty(), path) {
            (true, Some(path)) => Err(OciError::Path(path.to_string())),
            _ => Ok(found),
        }
    }
}

impl Descriptor {
    fn layer(&self) -> Result<Layer, OciError> {
        let named = PATHS.iter().find_map(|name| self.annotations.get(*name));
        let is_image = IMAGE_LAYERS.iter().any(|prefix| self.media_type.starts_with(prefix));
        let is_archive = match (is_image, named) {
            (true, None) => return Err(OciError::Image),
            (true, Some(_)) => self.annotations.get(UNPACK).is_some_and(|value| value == "true"),
            (false, _) => self.media_type.contains(".tar"),
        };
        let is_packed = self.media_type.ends_with("+zstd") || (self.media_type.ends_with("+gzip") && !self.media_type.contains(".tar"));
        if is_packed || (!is_archive && named.is_none()) {
            return Err(OciError::Layer { digest: self.digest.clone(), media_type: said::plain(&self.media_type) });
        }
        let path = if is_archive { None } else { named.cloned() };
        Ok(Layer { digest: self.digest.clone(), size_bytes: self.size, path, is_archive })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(items: &[(&str, &str)]) -> Result<Vec<Layer>, OciError> {
        let text: Vec<String> = items
            .iter()
            .map(|(kind, annotations)| {
                format!(r#"{{"mediaType": "{kind}", "digest": "sha256:{}", "size": 3, "annotations": {{{annotations}}}}}"#, "0a".repeat(32))
            })
            .collect();
        Manifest::parse(format!(r#"{{"schemaVersion": 2, "config": {{}}, "layers": [{}]}}"#, text.join(",")).as_bytes())?.layers(None)
    }

    #[test]
    fn layers_of_each_tool_are_understood() {
        let raw = "application/vnd.cncf.model.weight.v1.raw";
        let found = layers(&[(raw, r#""org.cncf.model.filepath": "a/b.gguf""#), ("application/vnd.kitops.modelkit.model.v1.tar+gzip", "")])
            .unwrap();
        assert_eq!((found[0].path.as_deref(), found[0].is_archive), (Some("a/b.gguf"), false));
        assert_eq!((found[1].path.as_deref(), found[1].is_archive), (None, true));
        let oras = "application/vnd.oci.image.layer.v1.tar";
        assert!(!layers(&[(oras, r#""org.opencontainers.image.title": "x.bin""#)]).unwrap()[0].is_archive);
        let packed = r#""org.opencontainers.image.title": "d", "io.deis.oras.content.unpack": "true""#;
        assert!(layers(&[("application/vnd.oci.image.layer.v1.tar+gzip", packed)]).unwrap()[0].is_archive);
        assert!(matches!(layers(&[(oras, "")]), Err(OciError::Image)));
        assert!(matches!(layers(&[(raw, "")]), Err(OciError::Layer { .. })));
        assert!(matches!(layers(&[("application/vnd.cncf.model.weight.v1.tar+zstd", "")]), Err(OciError::Layer { .. })));
        assert!(matches!(layers(&[(raw, r#""org.cncf.model.filepath": "../x""#)]), Err(OciError::Out(OutError::Name { .. }))));
        let twice = (raw, r#""org.cncf.model.filepath": "x""#);
        assert!(matches!(layers(&[twice, twice]), Err(OciError::Out(OutError::Twice(_)))));
        assert!(matches!(layers(&[]), Err(OciError::Manifest(_))));
        for bad in ["", "[]", "{}", r#"{"layers": [{"mediaType": "a", "digest": "md5:1", "size": 1}]}"#] {
            assert!(Manifest::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
