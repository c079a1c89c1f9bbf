//! `oci = "registry/repository:tag"`, from a registry that speaks the distribution specification.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::sync::{Arc, Mutex};

use slmops::source::Fetch;

use crate::server::{Answer, Asked, Server};
use crate::space::{Space, files, noise, sha256};

#[derive(Default)]
struct State {
    /// By digest.
    blobs: BTreeMap<String, Vec<u8>>,
    manifests: BTreeMap<String, Vec<u8>>,
    /// Who may read.
    gate: Option<&'static str>,
}

struct Registry {
    server: Server,
    /// Where blobs are.
    store: Server,
    state: Arc<Mutex<State>>,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const REPOSITORY: &str = "/v2/team/model/";

impl Registry {
    fn start() -> Registry {
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, kept) = (state.clone(), state.clone());
        let store = Server::start(move |asked| match kept.lock().unwrap().blobs.get(&asked.path[1..]) {
            Some(bytes) => Answer::ranged(asked, bytes),
            None => Answer::of(404, ""),
        });
        let elsewhere = store.url.clone();
        let server = Server::start(move |asked| answer(&shared.lock().unwrap(), asked, &elsewhere));
        Registry { server, store, state }
    }

    fn push(&self, tag: &str, layers: &[(&str, &str, &[u8])]) -> String {
        let mut state = self.state.lock().unwrap();
        let layers: Vec<serde_json::Value> = layers
            .iter()
            .map(|(kind, path, bytes)| {
                let digest = format!("sha256:{}", sha256(bytes));
                state.blobs.insert(digest.clone(), bytes.to_vec());
                let name = if *kind == "application/vnd.oci.image.layer.v1.tar" {
                    "org.opencontainers.image.title"
                } else {
                    "org.cncf.model.filepath"
                };
                let annotations = if path.is_empty() { serde_json::json!({}) } else { serde_json::json!({ name: path }) };
                serde_json::json!({"mediaType": kind, "digest": digest, "size": bytes.len(), "annotations": annotations})
            })
            .collect();
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": {"mediaType": "x", "digest": "sha256:x", "size": 1}, "layers": layers});
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let digest = format!("sha256:{}", sha256(&bytes));
        state.manifests.insert(digest.clone(), bytes.clone());
        state.manifests.insert(tag.to_string(), bytes);
        digest
    }

    fn space(&self, rest: &str) -> Space {
        Space::new(&format!("{{ oci = \"{}/team/model{rest} }}", self.server.authority))
    }
}

fn answer(state: &State, asked: &Asked, store: &str) -> Answer {
    if asked.path.starts_with("/token?") {
        let is_known = asked.header("authorization") == Some("Basic bWU6c2VjcmV0");
        return match state.gate {
            Some("login") if !is_known => Answer::of(401, ""),
            _ => Answer::of(200, "{\"token\": \"tok\"}"),
        };
    }
    if state.gate.is_some() && asked.header("authorization") != Some("Bearer tok") {
        let host = asked.header("host").unwrap();
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"it\",scope=\"repository:team/model:pull\"");
        return Answer::of(401, "{\"errors\": [{\"code\": \"UNAUTHORIZED\"}]}").header("WWW-Authenticate", challenge);
    }
    let Some(rest) = asked.path.strip_prefix(REPOSITORY) else { return Answer::of(404, "") };
    if let Some(bytes) = rest.strip_prefix("manifests/").and_then(|name| state.manifests.get(name)) {
        return Answer::of(200, bytes.clone())
            .header("Content-Type", MANIFEST)
            .header("Docker-Content-Digest", format!("sha256:{}", sha256(bytes)));
    }
    match rest.strip_prefix("blobs/").filter(|digest| state.blobs.contains_key(*digest)) {
        Some(digest) => Answer::of(307, "").header("Location", format!("{store}/{digest}")),
        None => Answer::of(404, "{\"errors\": [{\"code\": \"BLOB_UNKNOWN\", \"message\": \"no blob\"}]}"),
    }
}

const RAW: &str = "application/vnd.cncf.model.weight.v1.raw";

fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o644);
    builder.append_data(&mut header, "docs/read.md", &b"doc"[..]).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&builder.into_inner().unwrap()).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn an_artifact_is_pinned_to_its_digest() {
    let registry = Registry::start();
    let weights = noise(30_000);
    let digest = registry.push(
        "1.0",
        &[
            (RAW, "model.gguf", &weights),
            ("application/vnd.kitops.modelkit.docs.v1.tar+gzip", "", &archive()),
            ("application/vnd.oci.image.layer.v1.tar", "sub/plain.txt", b"text"),
        ],
    );
    let space = registry.space(":1.0\"");
    assert_eq!(space.lock().unwrap().sources["a"].rev, digest);
    let expected = vec![
        ("docs/read.md".to_string(), b"doc".to_vec()),
        ("model.gguf".to_string(), weights),
        ("sub/plain.txt".to_string(), b"text".to_vec()),
    ];
    assert_eq!(files(&space.fetched()), expected);
    registry.server.asked();
    space.fetched();
    assert!(registry.server.asked().is_empty());

    // The tag moves, the pin does not.
    registry.push("1.0", &[(RAW, "model.gguf", b"other")]);
    space.forget();
    assert_eq!(files(&space.plan(Fetch::Pinned).unwrap()), expected);
    assert_ne!(space.lock().unwrap().sources["a"].rev, digest);
    assert_eq!(files(&space.fetched()).len(), 1);

    // One file, without the others' layers.
    registry.push("2.0", &[(RAW, "a/model.gguf", b"small"), (RAW, "big", &noise(9000))]);
    space.forget();
    let space = registry.space(":2.0\", path = \"a/model.gguf\"");
    registry.store.asked();
    space.lock().unwrap();
    assert_eq!(fs::read(space.fetched()).unwrap(), b"small");
    assert_eq!(registry.store.asked().len(), 1);
    // A digest needs nobody once it is here.
    let digest = registry.push("3.0", &[(RAW, "x", b"y")]);
    let space = registry.space(&format!("@{digest}\""));
    space.lock().unwrap();
    registry.server.asked();
    space.lock().unwrap();
    assert!(registry.server.asked().is_empty());
}

#[test]
fn registries_that_ask_who_is_there_are_answered() {
    let registry = Registry::start();
    registry.push("1.0", &[(RAW, "model.gguf", b"weights")]);
    registry.state.lock().unwrap().gate = Some("anybody");
    let space = registry.space(":1.0\"");
    space.lock().unwrap();
    assert!(registry.server.asked().iter().any(|asked| asked.path == "/token?service=it&scope=repository%3Ateam%2Fmodel%3Apull"));
    assert!(registry.store.asked().iter().all(|asked| asked.header("authorization").is_none()));

    registry.state.lock().unwrap().gate = Some("login");
    let mut space = registry.space(":1.0\"");
    let error = space.lock_fails();
    assert!(error.message.contains("only to those who may have it") && error.helps[0].contains("docker login 127.0.0.1:"), "{error:?}");
    let config = serde_json::json!({"auths": {registry.server.authority.clone(): {"auth": "bWU6c2VjcmV0"}}});
    fs::write(space.path().join("config.json"), config.to_string()).unwrap();
    space.remote.docker = Some(space.path().join("config.json"));
    space.lock().unwrap();
    assert_eq!(files(&space.fetched()), [("model.gguf".to_string(), b"weights".to_vec())]);
}

#[test]
fn artifacts_that_cannot_be_meant_are_refused() {
    let registry = Registry::start();
    registry.push("image", &[("application/vnd.oci.image.layer.v1.tar+gzip", "", b"x")]);
    registry.push("outside", &[(RAW, "../x", b"x")]);
    registry.push("zstd", &[("application/vnd.cncf.model.weight.v1.tar+zstd", "x", b"x")]);
    registry.push("broken", &[("application/vnd.cncf.model.weight.v1.tar", "x", &[b'x'; 2000])]);
    registry.push("forged", &[(RAW, "x", b"good")]);
    registry.state.lock().unwrap().blobs.insert(format!("sha256:{}", sha256(b"good")), b"evil".to_vec());
    for (tag, why) in [
        ("image", "a container image"),
        ("outside", "not a plain relative path"),
        ("zstd", "cannot unpack"),
        ("broken", "cannot be unpacked"),
        ("forged", "SHA-256"),
        ("none", "has no `team/model:none`"),
    ] {
        let error = registry.space(&format!(":{tag}\"")).lock_fails();
        assert!(error.message.contains(why), "{tag}: {error:?}");
    }
}
