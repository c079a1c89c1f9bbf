//! Reads and verifies a bundle from anywhere: it may be cut, mangled or made to harm. Every finding is kept; nothing is believed before it
//! was checked, and nothing is read into memory beyond the limits below.
//!
//! There is one way to write a bundle's files and documents ([`super::write()`]), and a reader accepts no other: each document is compared byte for byte
//! with what slmops would write for what it says. So no byte of a bundle can change unnoticed, whether or not a digest covers it. Modes are not part of
//! it: a bundle is carried on file systems that have none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::description::{self, Description};
use super::modelpack::{Config, General, Role};
use super::oci::{self, Descriptor, Index, Layout, Manifest};
use super::{blob, canonical, paths, write};
use crate::base::trouble::{self, Blame};
use crate::base::{Cancel, files, json, rfc3339};
use crate::model::gguf::{GgufError, Header};
use crate::model::mapped::Mapped;

/// Of each JSON document of a layout, in bytes. Manifests of real models stay below a hundredth of it; registries refuse more than 4 MiB.
const JSON_MAX_BYTES: u64 = 4 << 20;
/// Files of a bundle. A model has a dozen.
const LAYERS_MAX: usize = 4096;

/// What a bundle says of itself, once it was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// `sha256:…` of the manifest: the bundle's identity.
    pub digest: String,
    /// Of all files that it brings to a device.
    pub size_bytes: u64,
    pub config: Config,
    pub description: Description,
    /// In the manifest's order, `slmops-bundle.json` among them.
    pub layers: Vec<Layer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub path: String,
    pub role: Role,
    pub sha256: String,
    pub size_bytes: u64,
}

impl Layer {
    /// Its blob's place below the layout's folder.
    pub fn blob(&self) -> PathBuf {
        Path::new(oci::BLOB_FOLDER).join(&self.sha256)
    }
}

/// One thing that is wrong: where in the bundle, and what.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    pub place: String,
    pub message: String,
    /// The number of the system's error, where the bundle could not be read for no fault of its own.
    #[serde(skip)]
    pub errno: Option<i32>,
}

/// The error of the system that made a check fail, if one did: of such a bundle nothing is known.
pub fn cause(findings: &[Finding]) -> Option<io::Error> {
    findings.iter().find_map(|finding| finding.errno).map(io::Error::from_raw_os_error)
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Reads a bundle and checks all but the contents of its layers: quick, whatever the model's size.
pub fn open(bundle: &Path) -> Result<Summary, Vec<Finding>> {
    let mut reader = Reader { bundle, findings: Vec::new() };
    let summary = reader.read();
    reader.end(summary)
}

/// Checks everything: each blob's size and digest, that none is missing or too many, and that the model's file opens.
pub fn verify(bundle: &Path) -> Result<Summary, Vec<Finding>> {
    let mut reader = Reader { bundle, findings: Vec::new() };
    let summary = reader.read();
    if let Some(summary) = &summary {
        // What is not a plain file of the right size was found by now: a FIFO would keep us waiting.
        let unread = if reader.findings.is_empty() { summary.layers.as_slice() } else { &[] };
        unread.iter().for_each(|layer| reader.check_content(layer));
    }
    reader.end(summary)
}

struct Reader<'a> {
    bundle: &'a Path,
    findings: Vec<Finding>,
}

impl Reader<'_> {
    fn end(self, summary: Option<Summary>) -> Result<Summary, Vec<Finding>> {
        match summary {
            Some(summary) if self.findings.is_empty() => Ok(summary),
            _ => Err(self.findings),
        }
    }

    /// The words may quote the bundle: what would move a terminal's cursor is spelled out.
    fn find(&mut self, place: &str, message: impl AsRef<str>) {
        let clean = |text: &str| text.chars().flat_map(clean_char).take(400).collect();
        self.findings.push(Finding { place: clean(place), message: clean(message.as_ref()), errno: None });
    }

    /// The same of something that could not be read.
    fn find_io(&mut self, place: &str, doing: &str, error: &io::Error) {
        self.find(place, format!("{doing}: {error}"));
        if let Some(finding) = self.findings.last_mut().filter(|_| trouble::blame(error) == Blame::Environment) {
            finding.errno = error.raw_os_error();
        }
    }

    fn read(&mut self) -> Option<Summary> {
        let layout = self.small_file(oci::LAYOUT_FILE)?;
        let Layout { image_layout_version } = self.json(oci::LAYOUT_FILE, &layout)?;
        if image_layout_version != oci::LAYOUT_VERSION {
            self.find(oci::LAYOUT_FILE, format!("image layout version `{image_layout_version}`, not `{}`", oci::LAYOUT_VERSION));
        }
        let index_text = self.small_file(oci::INDEX_FILE)?;
        let index: Index = self.json(oci::INDEX_FILE, &index_text)?;
        let [entry] = index.manifests.as_slice() else {
            self.find(oci::INDEX_FILE, format!("lists {} manifests; a bundle has exactly one", index.manifests.len()));
            return None;
        };
        if index.schema_version != 2 {
            self.find(oci::INDEX_FILE, format!("schema version {}, not 2", index.schema_version));
        }
        self.media_type(oci::INDEX_FILE, &entry.media_type, oci::MANIFEST_TYPE);
        let manifest_text = self.blob_text("manifest", entry)?;
        let manifest: Manifest = self.json("manifest", &manifest_text)?;
        self.check_manifest(&manifest);
        let layers = self.layers(&manifest)?;
        let config_text = self.blob_text("config", &manifest.config);
        let config: Option<Config> = config_text.as_ref().and_then(|text| self.json("config", text));
        let description = self.description(&layers);
        self.check_files(entry, &manifest);
        let (config, description) = (config?, description?);
        self.check_config(&config, &manifest);
        self.check_description(&description, &config, &manifest, &layers);
        self.check_text(oci::LAYOUT_FILE, &layout, &write::layout());
        self.check_text("config", config_text.as_deref().unwrap_or_default(), &config);
        self.check_text("manifest", &manifest_text, &written_manifest(&config, &manifest, &layers, &description));
        let blob = blob::of_bytes(&manifest_text);
        self.check_text(oci::INDEX_FILE, &index_text, &write::index(&blob, &description.version));
        let size_bytes = layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size_bytes));
        Some(Summary { digest: entry.digest.clone(), size_bytes, config, description, layers })
    }

    /// That a document is just what slmops would have written.
    fn check_text(&mut self, place: &str, found: &[u8], written: &impl Serialize) {
        match canonical::to_bytes(written) {
            Ok(bytes) if bytes == found => {}
            Ok(_) => self.find(place, "is not as slmops writes it: it was changed, or another tool has written it anew"),
            Err(error) => self.find(place, error.to_string()),
        }
    }

    fn check_manifest(&mut self, manifest: &Manifest) {
        if manifest.schema_version != 2 {
            self.find("manifest", format!("schema version {}, not 2", manifest.schema_version));
        }
        self.media_type("manifest", &manifest.media_type, oci::MANIFEST_TYPE);
        self.media_type("manifest (artifact)", &manifest.artifact_type, oci::MODEL_TYPE);
        self.media_type("config", &manifest.config.media_type, oci::CONFIG_TYPE);
    }

    fn media_type(&mut self, place: &str, found: &str, wanted: &str) {
        if found != wanted {
            self.find(place, format!("media type `{found}`, not `{wanted}`"));
        }
    }

    /// The manifest's layers, or nothing if one of them cannot even be named.
    fn layers(&mut self, manifest: &Manifest) -> Option<Vec<Layer>> {
        if manifest.layers.len() > LAYERS_MAX {
            self.find("manifest", format!("{} layers; at most {LAYERS_MAX} are read", manifest.layers.len()));
            return None;
        }
        let layers: Vec<Option<Layer>> = manifest.layers.iter().enumerate().map(|(i, layer)| self.layer(i, layer)).collect();
        let layers: Vec<Layer> = layers.into_iter().collect::<Option<_>>()?;
        for (first, second) in paths::clashes(layers.iter().map(|layer| layer.path.as_str())) {
            self.find("manifest", format!("`{first}` and `{second}` cannot lie in one folder"));
        }
        let size = layers.iter().try_fold(0u64, |sum, layer| sum.checked_add(layer.size_bytes));
        if size.is_none() {
            self.find("manifest", "the sizes of its layers add up to more than 2^64 bytes");
        }
        Some(layers)
    }

    fn layer(&mut self, number: usize, layer: &Descriptor) -> Option<Layer> {
        let place = format!("layer {number}");
        let Some(path) = layer.annotations.get(oci::FILEPATH) else {
            self.find(&place, format!("has no annotation `{}`", oci::FILEPATH));
            return None;
        };
        if let Err(why) = paths::check(path) {
            self.find(&place, format!("its path `{path}` {why}"));
            return None;
        }
        if layer.annotations.get(oci::TITLE) != Some(path) {
            self.find(path, format!("the annotation `{}` is not its path", oci::TITLE));
        }
        let Some(role) = Role::of_media_type(&layer.media_type) else {
            self.find(path, format!("media type `{}`; a bundle's layers are single files (`….raw`)", layer.media_type));
            return None;
        };
        let Some(sha256) = layer.sha256() else {
            self.find(path, format!("`{}` is not a SHA-256 digest", layer.digest));
            return None;
        };
        Some(Layer { path: path.clone(), role, sha256: sha256.to_string(), size_bytes: layer.size })
    }

    /// That the layout holds what is referred to and nothing else, and that sizes are as said.
    fn check_files(&mut self, entry: &Descriptor, manifest: &Manifest) {
        let found = match files::walk(self.bundle) {
            Ok(found) => found,
            Err(error) => return self.find_io("layout", "cannot be read", &error),
        };
        self.check_folders();
        let mut known: BTreeSet<PathBuf> = [oci::LAYOUT_FILE, oci::INDEX_FILE].map(PathBuf::from).into();
        for descriptor in [entry, &manifest.config].into_iter().chain(&manifest.layers) {
            let Some(sha256) = descriptor.sha256() else { continue };
            let blob = Path::new(oci::BLOB_FOLDER).join(sha256);
            match fs::symlink_metadata(self.bundle.join(&blob)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.find(&descriptor.digest, "the blob is missing"),
                Err(error) => self.find_io(&descriptor.digest, "the blob cannot be read", &error),
                Ok(data) if !data.is_file() => self.find(&descriptor.digest, "the blob is not a plain file"),
                Ok(data) if data.len() != descriptor.size => {
                    self.find(&descriptor.digest, format!("the blob has {} bytes, not {}", data.len(), descriptor.size));
                }
                Ok(_) => {}
            }
            known.insert(blob);
        }
        for path in found.iter().filter(|path| !known.contains(*path)) {
            self.find(&path.to_string_lossy(), "nothing refers to this file");
        }
    }

    /// That there are no folders but those of the layout: a walk passes over empty ones.
    fn check_folders(&mut self) {
        for (folder, known) in [("", &[oci::LAYOUT_FILE, oci::INDEX_FILE, "blobs"][..]), ("blobs", &["sha256"])] {
            for name in self.names(&self.bundle.join(folder)) {
                if !known.iter().any(|known| name == *known) {
                    self.find(&Path::new(folder).join(name).to_string_lossy(), "does not belong to a bundle");
                }
            }
        }
        for name in self.names(&self.bundle.join(oci::BLOB_FOLDER)) {
            match files::is_folder(&self.bundle.join(oci::BLOB_FOLDER).join(&name)) {
                Ok(false) => {}
                Ok(true) => self.find(&name.to_string_lossy(), "is a folder among the blobs"),
                Err(error) => self.find_io(&name.to_string_lossy(), "cannot be read", &error),
            }
        }
    }

    /// What a folder holds; none that there is not holds anything.
    fn names(&mut self, folder: &Path) -> Vec<std::ffi::OsString> {
        files::names(folder).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                self.find_io(&folder.to_string_lossy(), "the folder cannot be read", &error);
            }
            Vec::new()
        })
    }

    fn check_config(&mut self, config: &Config, manifest: &Manifest) {
        if config.modelfs.kind != "layers" {
            self.find("config", format!("modelfs type `{}`, not `layers`", config.modelfs.kind));
        }
        if !config.modelfs.diff_ids.iter().eq(manifest.layers.iter().map(|layer| &layer.digest)) {
            self.find("config", "its diffIds are not the digests of the manifest's layers");
        }
        if config.config.param_size.is_none() {
            self.find("config", "has no paramSize");
        }
        match &config.descriptor.created_at {
            None => self.find("config", "has no createdAt"),
            Some(text) if rfc3339::parse(text).is_none() => self.find("config", format!("createdAt `{text}` is not an RFC 3339 time")),
            Some(_) => {}
        }
    }

    fn description(&mut self, layers: &[Layer]) -> Option<Description> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let Some(layer) = layers.iter().find(|layer| layer.path == description::FILE) else {
            self.find("manifest", format!("has no layer `{}`", description::FILE));
            return None;
        };
        let bytes = self.checked_blob(description::FILE, &layer.sha256, layer.size_bytes)?;
        let version: Versioned = self.json(description::FILE, &bytes)?;
        if version.format != description::FORMAT {
            let format = version.format;
            self.find(description::FILE, format!("has format {format}; this slmops reads format {}", description::FORMAT));
            return None;
        }
        let mut description: Description = self.json(description::FILE, &bytes)?;
        description.files.sort_by(|a, b| a.path.cmp(&b.path));
        self.check_text(description::FILE, &bytes, &description);
        Some(description)
    }

    fn check_description(&mut self, description: &Description, config: &Config, manifest: &Manifest, layers: &[Layer]) {
        let place = description::FILE;
        let listed: BTreeMap<&str, _> =
            description.files.iter().map(|file| (file.path.as_str(), (file.role, file.sha256.as_str(), file.size_bytes))).collect();
        if listed.len() != description.files.len() {
            self.find(place, "lists a file twice");
        }
        let layers: BTreeMap<&str, _> = layers
            .iter()
            .filter(|layer| layer.path != description::FILE)
            .map(|layer| (layer.path.as_str(), (layer.role, layer.sha256.as_str(), layer.size_bytes)))
            .collect();
        for path in listed.keys().chain(layers.keys()).collect::<BTreeSet<_>>() {
            match (listed.get(path), layers.get(path)) {
                (Some(_), None) => self.find(place, format!("lists `{path}`, which is no layer")),
                (None, Some(_)) => self.find(place, format!("does not list `{path}`")),
                (listed, layer) if listed != layer => self.find(place, format!("says otherwise of `{path}` than the manifest")),
                _ => {}
            }
        }
        if layers.get(description.entry.model.as_str()).is_none_or(|(role, ..)| *role != Role::Weights) {
            self.find(place, format!("its model `{}` is not a layer with weights", description.entry.model));
        }
        if let Some(tokenizer) = description.entry.tokenizer.as_deref().filter(|path| !layers.contains_key(path)) {
            self.find(place, format!("its tokenizer `{tokenizer}` is no layer"));
        }
        if manifest.annotations.get(oci::DEVICE) != Some(&description.device.name) {
            self.find(place, "names another device than the manifest");
        }
        let General { name, version, .. } = &config.descriptor;
        if name.as_ref() != Some(&description.name) || version.as_ref() != Some(&description.version) {
            self.find(place, "has another name or version than the config");
        }
    }

    fn check_content(&mut self, layer: &Layer) {
        let path = self.bundle.join(layer.blob());
        // One of another size was told already; reading it would take as long as it is large.
        if fs::symlink_metadata(&path).is_ok_and(|found| found.len() != layer.size_bytes) {
            return;
        }
        match blob::of_file(&path, &Cancel::default()) {
            Err(error) => self.find_io(&layer.path, "cannot be read", &error),
            Ok(blob) if blob.sha256 != layer.sha256 => {
                self.find(&layer.path, format!("the contents have the digest sha256:{}", blob.sha256));
            }
            // By itself: a file of the user's may be a part of a model.
            Ok(_) if layer.path.ends_with(".gguf") => {
                match Mapped::open(&path).map_err(GgufError::from).and_then(|map| Header::parse(&map)) {
                    Err(GgufError::Io(error)) => self.find_io(&layer.path, "cannot be read", &error),
                    Err(error) => self.find(&layer.path, format!("does not open: {error}")),
                    Ok(_) => {}
                }
            }
            Ok(_) => {}
        }
    }

    /// A whole file of the layout, if it is a plain file of a reasonable size.
    fn small_file(&mut self, name: &str) -> Option<Vec<u8>> {
        let path = self.bundle.join(name);
        let read = fs::symlink_metadata(&path).and_then(|data| {
            if !data.is_file() {
                return Err(io::Error::other("not a plain file"));
            }
            let mut bytes = Vec::new();
            files::open(&path)?.take(JSON_MAX_BYTES + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        match read {
            Err(error) => self.find_io(name, "cannot be read", &error),
            Ok(bytes) if bytes.len() as u64 > JSON_MAX_BYTES => self.find(name, "is larger than 4 MiB"),
            Ok(bytes) => return Some(bytes),
        }
        None
    }

    fn blob_text(&mut self, place: &str, descriptor: &Descriptor) -> Option<Vec<u8>> {
        let Some(sha256) = descriptor.sha256() else {
            self.find(place, format!("`{}` is not a SHA-256 digest", descriptor.digest));
            return None;
        };
        self.checked_blob(place, sha256, descriptor.size)
    }

    fn checked_blob(&mut self, place: &str, sha256: &str, size_bytes: u64) -> Option<Vec<u8>> {
        let bytes = self.small_file(&format!("{}/{sha256}", oci::BLOB_FOLDER))?;
        if blob::of_bytes(&bytes) != (blob::Blob { sha256: sha256.to_string(), size_bytes }) {
            self.find(place, "the blob's contents have another digest or size");
            return None;
        }
        Some(bytes)
    }

    fn json<T: DeserializeOwned>(&mut self, place: &str, bytes: &[u8]) -> Option<T> {
        match json::from_foreign_slice(bytes) {
            Ok(value) => Some(value),
            Err(error) => {
                self.find(place, error.to_string());
                None
            }
        }
    }
}

/// The manifest that belongs to these files, in the order in which they are written.
fn written_manifest(config: &Config, manifest: &Manifest, layers: &[Layer], description: &Description) -> Manifest {
    let (mut files, last): (Vec<&Layer>, Vec<&Layer>) = layers.iter().partition(|layer| layer.path != description::FILE);
    files.sort_by(|a, b| (a.role, &a.path).cmp(&(b.role, &b.path)));
    let blob = |sha256: &str, size_bytes| blob::Blob { sha256: sha256.to_string(), size_bytes };
    let role = |layer: &Layer| if layer.path == description::FILE { Role::Config } else { layer.role };
    let written = |layer: &Layer| write::layer(&layer.path, role(layer), &blob(&layer.sha256, layer.size_bytes));
    let layers = files.into_iter().chain(last).map(written).collect();
    let created = config.descriptor.created_at.as_deref().unwrap_or_default();
    let config = blob(manifest.config.sha256().unwrap_or_default(), manifest.config.size);
    write::manifest(&config, layers, created, description)
}

fn clean_char(c: char) -> Vec<char> {
    if c.is_control() { c.escape_default().collect() } else { vec![c] }
}
