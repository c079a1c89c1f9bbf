//! A bundle: the input is the manifest, or, where it begins with `!`, the model's description.
#![no_main]

use std::fs;

use serde_json::json;
use slmops::bundle::{blob, verify};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let folder = slmops_fuzz::scratch().join("bundle");
    let blobs = folder.join("blobs/sha256");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&blobs).expect("a folder");
    let add = |bytes: &[u8], media_type: &str| {
        let digest = blob::of_bytes(bytes).digest();
        fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes).expect("a blob");
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    };
    let manifest = match data.strip_prefix(b"!") {
        None => data.to_vec(),
        Some(config) => {
            let config = add(config, "application/vnd.cncf.model.config.v1+json");
            let layer = add(b"GGUF", "application/vnd.cncf.model.weight.v1.raw");
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "artifactType": "application/vnd.cncf.model.manifest.v1+json",
                "config": config,
                "layers": [layer],
            });
            manifest.to_string().into_bytes()
        }
    };
    let index = json!({"schemaVersion": 2, "manifests": [add(&manifest, "application/vnd.oci.image.manifest.v1+json")]});
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
    fs::write(folder.join("index.json"), index.to_string()).expect("a file");
    let _ = verify(&folder);
});
