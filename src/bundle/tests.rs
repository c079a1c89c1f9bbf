//! Bundles are written, read, mangled in every way that comes to mind, and never believed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::description::{Device, Entry, Evaluation, Figure, Gate, Memory, Model};
use super::modelpack::{Capabilities, General, Technical};
use super::*;
use crate::base::{Cancel, files};

fn description() -> Description {
    let figure = Figure { value: 0.75, low: Some(0.7), high: Some(0.8) };
    let gate = Gate { metric: "exact_match".into(), on: "seen".into(), condition: "min".into(), limit: 0.7, figure, passed: true };
    let metrics = BTreeMap::from([("seen".to_string(), BTreeMap::from([("exact_match".to_string(), figure)]))]);
    Description {
        format: description::FORMAT,
        name: "cold-chain".into(),
        version: "0.1.0".into(),
        device: Device {
            name: "fridge".into(),
            description: None,
            arch: "aarch64".into(),
            runtime: "slmops".into(),
            storage_bytes: Some(1 << 20),
            memory_bytes: None,
        },
        model: Model {
            format: "safetensors".into(),
            file_type: "F32".into(),
            parameters: 64_320,
            bits_per_weight: 32.0,
            context_length: 128,
        },
        memory: Memory { weights_bytes: 1, cache_bytes: 2, activations_bytes: 3 },
        choose: "smallest".into(),
        evaluations: vec![Evaluation { gates: vec![gate], metrics, in_training: BTreeMap::new() }],
        files: Vec::new(),
        entry: Entry { model: "model.safetensors".into(), tokenizer: Some("tokenizer.json".into()) },
        chat_template: None,
    }
}

fn draft() -> Draft {
    let file = |path: &str, role, text: &str| DraftFile { path: path.into(), role, content: Content::Bytes(text.as_bytes().to_vec()) };
    Draft {
        created: EPOCH.into(),
        general: General {
            name: Some("cold-chain".into()),
            version: Some("0.1.0".into()),
            licenses: vec!["Apache-2.0".into()],
            ..General::default()
        },
        technical: Technical {
            architecture: Some("transformer".into()),
            param_size: Some(modelpack::param_size(64_320)),
            capabilities: Some(Capabilities::text()),
            ..Technical::default()
        },
        description: description(),
        files: vec![
            file("tokenizer.json", Role::Config, "{}"),
            file("docs/README.md", Role::Document, "# cold-chain\n"),
            file("model.safetensors", Role::Weights, "weights"),
            file("docs/COPY.md", Role::Document, "# cold-chain\n"),
        ],
    }
}

pub(super) fn written() -> (TempDir, PathBuf) {
    let space = tempfile::tempdir().unwrap();
    let bundle = space.path().join("bundle");
    fs::create_dir(&bundle).unwrap();
    write(&bundle, draft(), &Cancel::default()).unwrap();
    (space, bundle)
}

fn all_bytes(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let read = |path: PathBuf| {
        let mode = fs::metadata(folder.join(&path)).unwrap().permissions().mode();
        (path.clone(), (mode, fs::read(folder.join(path)).unwrap()))
    };
    files::walk(folder).unwrap().into_iter().map(read).collect()
}

#[test]
fn what_was_written_is_read_and_unpacked() {
    let (space, bundle) = written();
    let summary = verify(&bundle).unwrap();
    assert_eq!(summary, open(&bundle).unwrap());
    assert_eq!(summary.config.config.param_size.as_deref(), Some("64.3k"));
    assert_eq!(summary.config.descriptor.created_at.as_deref(), Some(EPOCH));
    assert_eq!(summary.description.evaluations, description().evaluations);
    let paths: Vec<&str> = summary.layers.iter().map(|layer| layer.path.as_str()).collect();
    assert_eq!(paths, ["model.safetensors", "tokenizer.json", "docs/COPY.md", "docs/README.md", "slmops-bundle.json"]);
    assert_eq!(summary.size_bytes, size_bytes(&draft()).unwrap());

    let folder = space.path().join("out/there");
    assert_eq!(extract(&bundle, &folder).unwrap(), summary);
    assert_eq!(fs::read(folder.join("docs/README.md")).unwrap(), b"# cold-chain\n");
    assert_eq!(files::walk(&folder).unwrap().len(), 5);
    assert!(matches!(extract(&bundle, &folder), Err(ExtractError::NotEmpty(_))));
    assert_eq!(files::names(&space.path().join("out")).unwrap(), ["there"]);
    fs::create_dir(space.path().join("empty")).unwrap();
    extract(&bundle, &space.path().join("empty")).unwrap();
    std::os::unix::fs::symlink("nowhere", space.path().join("link")).unwrap();
    fs::write(space.path().join("file"), "").unwrap();
    for name in ["link", "file"] {
        assert!(matches!(extract(&bundle, &space.path().join(name)), Err(ExtractError::NotEmpty(_))), "{name}");
    }
}

/// The manifest is the same, but no digest covers what a tool wrote around it.
#[test]
fn an_index_as_skopeo_writes_it_is_not_ours() {
    let (_space, bundle) = written();
    let digest = open(&bundle).unwrap().digest;
    let size = fs::metadata(blob_path(&bundle, &digest)).unwrap().len();
    let entry = format!(
        r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{size},"annotations":{{"org.opencontainers.image.ref.name":"0.1.0"}}}}"#
    );
    fs::write(bundle.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#)).unwrap();
    let findings = verify(&bundle).unwrap_err();
    assert!(findings.len() == 1 && findings[0].to_string().contains("index.json: is not as slmops writes it"), "{findings:#?}");
    assert_eq!(open(&bundle), Err(findings));
}

#[test]
fn the_same_draft_gives_the_same_bytes_in_any_order() {
    let (_a, first) = written();
    let space = tempfile::tempdir().unwrap();
    let mut other = draft();
    other.files.reverse();
    write(space.path(), other, &Cancel::default()).unwrap();
    assert_eq!(all_bytes(&first), all_bytes(space.path()));
    assert!(all_bytes(&first).values().all(|(mode, _)| mode & 0o7777 == 0o644));
}

/// The bytes of the format, so that a change of them is seen: every bundle would get another digest.
#[test]
fn the_format_stays_as_it_is() {
    let (_space, bundle) = written();
    let summary = open(&bundle).unwrap();
    let blob = |hex: &str| String::from_utf8(fs::read(bundle.join(oci::BLOB_FOLDER).join(hex)).unwrap()).unwrap();
    let manifest = blob(summary.digest.strip_prefix("sha256:").unwrap());
    let config = serde_json::from_str::<Value>(&manifest).unwrap()["config"]["digest"].as_str().unwrap()[7..].to_string();
    let description = &summary.layers.last().unwrap().sha256;
    insta::assert_snapshot!(
        [
            fs::read_to_string(bundle.join("oci-layout")).unwrap(),
            fs::read_to_string(bundle.join("index.json")).unwrap(),
            manifest,
            blob(&config),
            blob(description)
        ]
        .join("\n")
    );
}

#[test]
fn paths_that_leave_or_clash_are_not_written() {
    let space = tempfile::tempdir().unwrap();
    for path in ["../x", "/x", "a//b", "slmops-bundle.json", "Slmops-Bundle.json/x", "TOKENIZER.json", "docs"] {
        let mut draft = draft();
        draft.files.push(DraftFile { path: path.into(), role: Role::Code, content: Content::Bytes(Vec::new()) });
        assert!(write(space.path(), draft, &Cancel::default()).is_err(), "{path}");
        assert!(files::walk(space.path()).unwrap().is_empty(), "{path}");
    }
}

/// Replaces the manifest by a changed one, with correct digests all the way up: what only careful reading finds.
pub(super) fn with_manifest(bundle: &Path, change: impl FnOnce(&mut Value)) {
    let index: Value = serde_json::from_slice(&fs::read(bundle.join("index.json")).unwrap()).unwrap();
    let old = blob_path(bundle, index["manifests"][0]["digest"].as_str().unwrap());
    let mut manifest: Value = serde_json::from_slice(&fs::read(&old).unwrap()).unwrap();
    fs::remove_file(old).unwrap();
    change(&mut manifest);
    let blob = put(bundle, &canonical::to_bytes(&manifest).unwrap());
    let mut index = index;
    index["manifests"][0]["digest"] = json!(blob.digest());
    index["manifests"][0]["size"] = json!(blob.size_bytes);
    fs::write(bundle.join("index.json"), index.to_string()).unwrap();
}

pub(super) fn put(bundle: &Path, bytes: &[u8]) -> blob::Blob {
    blob::add(bundle, &mut &bytes[..], &Cancel::default()).unwrap()
}

pub(super) fn blob_path(bundle: &Path, digest: &str) -> PathBuf {
    bundle.join(oci::BLOB_FOLDER).join(digest.strip_prefix("sha256:").unwrap())
}

/// Asserts that a finding speaks of it, and that unpacking refuses and leaves nothing.
fn refused(space: &TempDir, bundle: &Path, words: &str) {
    let findings = verify(bundle).expect_err(words);
    assert!(findings.iter().any(|finding| finding.to_string().contains(words)), "`{words}` not in {findings:#?}");
    let folder = space.path().join("unpacked");
    assert!(extract(bundle, &folder).is_err());
    assert!(!folder.exists());
}

#[test]
fn hostile_manifests_are_refused() {
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 17] = [
        (|m| m["layers"][1]["annotations"]["org.cncf.model.filepath"] = json!("../../etc/passwd"), "has a part `.` or `..`"),
        (|m| m["layers"][1]["annotations"]["org.cncf.model.filepath"] = json!("/etc/passwd"), "is absolute"),
        (|m| m["layers"][1]["annotations"]["org.cncf.model.filepath"] = json!("docs/readme.md"), "cannot lie in one folder"),
        (|m| m["layers"][1]["annotations"]["org.cncf.model.filepath"] = json!("docs"), "cannot lie in one folder"),
        (|m| m["layers"][1]["annotations"]["org.opencontainers.image.title"] = json!("other"), "is not its path"),
        (|m| m["layers"][1]["annotations"] = json!({}), "has no annotation"),
        (|m| m["layers"][0]["mediaType"] = json!("application/vnd.cncf.model.weight.v1.tar"), "single files"),
        (|m| m["layers"][0]["digest"] = json!("sha256:../../../../etc/passwd"), "is not a SHA-256 digest"),
        (|m| m["layers"][0]["digest"] = json!("sha512:00"), "is not a SHA-256 digest"),
        (|m| m["layers"][0]["size"] = json!(u64::MAX), "add up to more than 2^64"),
        (|m| m["layers"][0]["size"] = json!(1u64 << 50), "the blob has 7 bytes"),
        (|m| m["layers"][0]["size"] = json!(-1), "invalid value"),
        (|m| m["artifactType"] = json!("text/plain"), "media type `text/plain`"),
        (|m| m["annotations"]["dev.slmops.device"] = json!("toaster"), "names another device"),
        (|m| drop(m["layers"].as_array_mut().unwrap().pop()), "has no layer `slmops-bundle.json`"),
        (|m| drop(m["layers"].as_array_mut().unwrap().remove(0)), "which is no layer"),
        (|m| m["layers"] = json!(vec![m["layers"][0].clone(); 5000]), "at most 4096"),
    ];
    for (change, words) in cases {
        let (space, bundle) = written();
        with_manifest(&bundle, change);
        refused(&space, &bundle, words);
    }
}

#[test]
fn damaged_layouts_are_refused() {
    type Change = fn(&Path);
    let cases: [(Change, &str); 10] = [
        (|b| fs::remove_file(b.join("oci-layout")).unwrap(), "oci-layout: cannot be read"),
        (|b| fs::write(b.join("oci-layout"), r#"{"imageLayoutVersion":"9"}"#).unwrap(), "image layout version `9`"),
        (|b| fs::write(b.join("index.json"), "{").unwrap(), "index.json: not JSON: EOF"),
        (|b| fs::write(b.join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap(), "lists 0 manifests"),
        (|b| fs::write(b.join("index.json"), format!("{{\"x\":{}", "[".repeat(100_000))).unwrap(), "index.json: not JSON: recursion limit"),
        (|b| fs::write(b.join("index.json"), vec![b' '; 5 << 20]).unwrap(), "larger than 4 MiB"),
        (|b| fs::write(b.join("extra"), "").unwrap(), "extra: nothing refers to this file"),
        (|b| drop(put(b, b"more")), "nothing refers to this file"),
        (
            |b| {
                fs::remove_file(b.join("oci-layout")).unwrap();
                std::os::unix::fs::symlink("/etc/hostname", b.join("oci-layout")).unwrap();
            },
            "not a plain file",
        ),
        (|b| std::os::unix::fs::symlink("/etc", b.join("blobs/etc")).unwrap(), "neither a file nor a folder"),
    ];
    for (change, words) in cases {
        let (space, bundle) = written();
        change(&bundle);
        refused(&space, &bundle, words);
    }
}

#[test]
fn a_flipped_bit_a_cut_and_a_missing_blob_are_found() {
    let (_space, bundle) = written();
    for path in files::walk(&bundle.join(oci::BLOB_FOLDER)).unwrap() {
        let path = bundle.join(oci::BLOB_FOLDER).join(path);
        let good = fs::read(&path).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        fs::write(&path, &flipped).unwrap();
        assert!(verify(&bundle).is_err(), "{path:?} flipped");
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(verify(&bundle).is_err(), "{path:?} cut");
        fs::remove_file(&path).unwrap();
        assert!(verify(&bundle).is_err(), "{path:?} missing");
        fs::write(&path, good).unwrap();
        assert!(verify(&bundle).is_ok());
    }
}

#[test]
fn a_newer_description_is_told_from_a_broken_one() {
    let (space, bundle) = written();
    let index = json!({"format": 2, "whatever": {}}).to_string();
    let blob = put(&bundle, index.as_bytes());
    with_manifest(&bundle, |m| {
        let layer = &mut m["layers"][4];
        layer["digest"] = json!(blob.digest());
        layer["size"] = json!(blob.size_bytes);
    });
    refused(&space, &bundle, "has format 2; this slmops reads format 1");
}

#[test]
fn words_from_a_bundle_cannot_move_the_cursor() {
    let (_space, bundle) = written();
    with_manifest(&bundle, |m| m["layers"][0]["mediaType"] = json!("\u{1b}[2J"));
    assert!(verify(&bundle).unwrap_err().iter().all(|finding| !finding.to_string().contains('\u{1b}')));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any bytes in any of the JSON documents: findings, never a panic.
    #[test]
    fn mangled_documents_are_refused(which in 0usize..5, at: prop::sample::Index, new: u8) {
        let (_space, bundle) = written();
        let path = files::walk(&bundle).unwrap().into_iter().map(|path| bundle.join(path)).nth(which).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != new);
        bytes[at] = new;
        fs::write(&path, &bytes).unwrap();
        prop_assert!(verify(&bundle).is_err());
    }
}
