//! Writes a bundle. The same draft gives the same bytes, whatever machine, day or folder.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::blob::{self, Blob};
use super::canonical;
use super::description::{self, Description};
use super::modelpack::{Config, General, ModelFs, Role, Technical};
use super::oci::{self, Annotations, Descriptor, Index, Layout, Manifest};
use super::paths;
use crate::base::{Cancel, files};

/// All that a bundle is made of.
#[derive(Clone, Debug)]
pub struct Draft {
    /// RFC 3339.
    pub created: String,
    pub general: General,
    pub technical: Technical,
    /// Its `files` are filled in by [`write`].
    pub description: Description,
    pub files: Vec<DraftFile>,
}

#[derive(Clone, Debug)]
pub struct DraftFile {
    /// Where it lies in the bundle, with `/` between the parts.
    pub path: String,
    pub role: Role,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub enum Content {
    File(PathBuf),
    Bytes(Vec<u8>),
}

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("cannot {doing} `{}`: {error}", path.display())]
    File { doing: &'static str, path: PathBuf, error: io::Error },
    #[error("`{path}` cannot be a file of a bundle: its path {why}")]
    Path { path: String, why: &'static str },
    #[error("`{first}` and `{second}` cannot lie in one folder")]
    Clash { first: String, second: String },
    #[error("`{}` is written by slmops itself", description::FILE)]
    Reserved,
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Fills the empty folder `folder` with an OCI image layout; answers with the manifest's digest, which is the bundle's identity.
pub fn write(folder: &Path, draft: Draft, cancel: &Cancel) -> Result<Blob, WriteError> {
    let Draft { created, general, technical, mut description, mut files } = draft;
    check_paths(&files)?;
    files.sort_by(|a, b| (a.role, &a.path).cmp(&(b.role, &b.path)));
    make_folders(folder)?;

    let mut layers = Vec::new();
    description.files.clear();
    for file in &files {
        let blob = add_file(folder, file, cancel)?;
        layers.push(layer(&file.path, file.role, &blob));
        description.files.push(description::File {
            path: file.path.clone(),
            role: file.role,
            sha256: blob.sha256,
            size_bytes: blob.size_bytes,
        });
    }
    description.files.sort_by(|a, b| a.path.cmp(&b.path));
    let blob = add_json(folder, &description)?;
    layers.push(layer(description::FILE, Role::Config, &blob));

    let config = Config {
        descriptor: General { created_at: Some(created.clone()), ..general },
        config: technical,
        modelfs: ModelFs { kind: "layers".to_string(), diff_ids: layers.iter().map(|layer| layer.digest.clone()).collect() },
    };
    let config = add_json(folder, &config)?;
    let manifest = add_json(folder, &manifest(&config, layers, &created, &description))?;
    write_index(folder, &manifest, &description.version)?;
    Ok(manifest)
}

/// The manifest of such a bundle. There is one way to write it, which a reader holds it to.
pub(super) fn manifest(config: &Blob, layers: Vec<Descriptor>, created: &str, description: &Description) -> Manifest {
    let mut annotations = Annotations::from([
        (oci::CREATED.to_string(), created.to_string()),
        (oci::DEVICE.to_string(), description.device.name.clone()),
        (oci::TITLE.to_string(), description.name.clone()),
        (oci::VERSION.to_string(), description.version.clone()),
    ]);
    annotations.retain(|_, text| !text.is_empty());
    Manifest {
        schema_version: 2,
        media_type: oci::MANIFEST_TYPE.to_string(),
        artifact_type: oci::MODEL_TYPE.to_string(),
        config: descriptor(oci::CONFIG_TYPE, config),
        layers,
        annotations,
    }
}

/// `index.json` of a bundle with this manifest.
pub(super) fn index(manifest: &Blob, version: &str) -> Index {
    let manifest = Descriptor {
        artifact_type: Some(oci::MODEL_TYPE.to_string()),
        annotations: Annotations::from([(oci::REF_NAME.to_string(), version.to_string())]),
        ..descriptor(oci::MANIFEST_TYPE, manifest)
    };
    Index { schema_version: 2, media_type: Some(oci::INDEX_TYPE.to_string()), manifests: vec![manifest] }
}

pub(super) fn layout() -> Layout {
    Layout { image_layout_version: oci::LAYOUT_VERSION.to_string() }
}

/// How many bytes the files will take on the device: with the description, without the layout's own few.
pub fn size_bytes(draft: &Draft) -> Result<u64, WriteError> {
    let mut description = draft.description.clone();
    description.files.clear();
    let mut sum = 0u64;
    for file in &draft.files {
        let size_bytes = match &file.content {
            Content::File(path) => fs::metadata(path).map_err(failed("read", path))?.len(),
            Content::Bytes(bytes) => bytes.len() as u64,
        };
        sum = sum.saturating_add(size_bytes);
        let sha256 = "0".repeat(64);
        description.files.push(description::File { path: file.path.clone(), role: file.role, sha256, size_bytes });
    }
    Ok(sum.saturating_add(canonical::to_bytes(&description)?.len() as u64))
}

fn check_paths(files: &[DraftFile]) -> Result<(), WriteError> {
    for file in files {
        paths::check(&file.path).map_err(|why| WriteError::Path { path: file.path.clone(), why })?;
    }
    let all = files.iter().map(|file| file.path.as_str()).chain([description::FILE]);
    match paths::clashes(all).first() {
        Some((first, second)) if [first, second].contains(&&description::FILE) => Err(WriteError::Reserved),
        Some((first, second)) => Err(WriteError::Clash { first: first.to_string(), second: second.to_string() }),
        None => Ok(()),
    }
}

fn make_folders(folder: &Path) -> Result<(), WriteError> {
    let blobs = folder.join(oci::BLOB_FOLDER);
    fs::create_dir_all(&blobs).map_err(failed("create", &blobs))?;
    for path in blobs.ancestors().take(2) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(failed("set the mode of", path))?;
    }
    Ok(())
}

fn add_file(folder: &Path, file: &DraftFile, cancel: &Cancel) -> Result<Blob, WriteError> {
    match &file.content {
        Content::Bytes(bytes) => blob::add(folder, &mut bytes.as_slice(), cancel).map_err(failed("write", folder)),
        Content::File(path) => {
            let mut source = files::open(path).map_err(failed("read", path))?;
            blob::add(folder, &mut source, cancel).map_err(failed("copy", path))
        }
    }
}

fn add_json(folder: &Path, value: &impl Serialize) -> Result<Blob, WriteError> {
    let bytes = canonical::to_bytes(value)?;
    blob::add(folder, &mut bytes.as_slice(), &Cancel::default()).map_err(failed("write", folder))
}

fn descriptor(media_type: &str, blob: &Blob) -> Descriptor {
    Descriptor {
        media_type: media_type.to_string(),
        artifact_type: None,
        digest: blob.digest(),
        size: blob.size_bytes,
        annotations: Annotations::new(),
    }
}

pub(super) fn layer(path: &str, role: Role, blob: &Blob) -> Descriptor {
    let annotations = [(oci::FILEPATH, path), (oci::TITLE, path), (oci::UNTESTED, "false")];
    Descriptor {
        annotations: annotations.into_iter().map(|(key, text)| (key.to_string(), text.to_string())).collect(),
        ..descriptor(role.media_type(), blob)
    }
}

fn write_index(folder: &Path, manifest: &Blob, version: &str) -> Result<(), WriteError> {
    let files = [(oci::INDEX_FILE, canonical::to_bytes(&index(manifest, version))?), (oci::LAYOUT_FILE, canonical::to_bytes(&layout())?)];
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(failed("write", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).map_err(failed("set the mode of", &path))?;
    }
    Ok(())
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> WriteError + 'a {
    move |error| WriteError::File { doing, path: path.to_path_buf(), error }
}
