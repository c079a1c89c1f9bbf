//! Artifacts in OCI registries, by the distribution specification: ModelPack artifacts as slmops and KitOps push them, and files as ORAS does.
//!
//! A layer that is one file goes where its annotation says; a layer that is an archive is unpacked. Container images are refused.

mod error;
mod login;
mod manifest;
mod name;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

pub use error::OciError;
use manifest::{Layer, Manifest};
pub use name::Name;
use sha2::{Digest as _, Sha256};

use super::blobs::{Blobs, Wanted, refuse_too_large};
use super::error::FetchError;
use super::http::download::hex;
use super::http::{Address, Client, Credential, Expected, Request, Response};
use super::origin::OciOrigin;
use super::out::Out;
use super::remote::{News, Remote};
use super::unpack;
use crate::base::files;

/// Registries refuse larger ones themselves.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// A repository in a registry.
pub struct Registry<'a> {
    client: &'a Client,
    remote: &'a Remote,
    name: Name,
}

impl<'a> Registry<'a> {
    pub fn new(client: &'a Client, remote: &'a Remote, origin: &OciOrigin) -> Result<Registry<'a>, FetchError> {
        let name = Name::parse(&origin.reference).map_err(|why| OciError::Name { text: origin.reference.clone(), why })?;
        Ok(Registry { client, remote, name })
    }

    /// The digest that the tag stands for now.
    pub fn resolve(&self) -> Result<String, FetchError> {
        let (digest, _, _) = self.manifest(&self.name.reference)?;
        Ok(digest)
    }

    /// Fetches what a digest stands for and puts it where [`tree`] says.
    pub fn materialise(&self, origin: &OciOrigin, digest: &str, blobs: Blobs) -> Result<PathBuf, FetchError> {
        let (manifest, login) = self.single(digest)?;
        let layers = manifest.layers(origin.path.as_deref())?;
        let size_bytes = layers.iter().map(|layer| layer.size_bytes).fold(0, u64::saturating_add);
        refuse_too_large(self.client, &origin.reference, size_bytes)?;
        self.client.hear(&News::Sized { files: layers.len(), size_bytes });
        let here = Mutex::new(vec![PathBuf::new(); layers.len()]);
        let wanted = |index: usize| Ok(self.wanted(&layers[index], login.as_ref()));
        let fetched = |index: usize, blob: PathBuf| {
            here.lock().unwrap_or_else(|broken| broken.into_inner())[index] = blob;
            Ok(())
        };
        blobs.fetch(self.client, layers.len(), size_bytes, wanted, fetched)?;
        let here = here.into_inner().unwrap_or_else(|broken| broken.into_inner());
        let tree = tree(origin, digest, blobs);
        blobs.build(&tree, |folder| {
            let mut out = Out::new(folder, self.client.limits());
            for (layer, blob) in layers.iter().zip(&here) {
                match &layer.path {
                    Some(path) => out.place(path, blob, false).map_err(OciError::from)?,
                    None => unpack::unpack(blob, &mut out).map_err(|error| OciError::Unpack(layer.digest.clone(), error))?,
                }
            }
            match &origin.path {
                Some(path) if !files::exists(&folder.join(path))? => Err(OciError::Path(path.clone()).into()),
                _ => Ok::<(), FetchError>(()),
            }
        })?;
        Ok(tree)
    }

    /// The manifest of one artifact, also from an index that lists nothing else; and the credential that was needed for it.
    fn single(&self, digest: &str) -> Result<(Manifest, Option<Credential>), FetchError> {
        let (_, bytes, login) = self.manifest(digest)?;
        let manifest = Manifest::parse(&bytes)?;
        let Some(inner) = manifest.inner()? else { return Ok((manifest, login)) };
        let (_, bytes, login) = self.manifest(inner)?;
        let manifest = Manifest::parse(&bytes)?;
        match manifest.inner()? {
            None => Ok((manifest, login)),
            Some(_) => Err(OciError::Nested.into()),
        }
    }

    fn manifest(&self, reference: &str) -> Result<(String, Vec<u8>, Option<Credential>), FetchError> {
        let address = self.address(&format!("manifests/{reference}"));
        let (response, login) = self.ask(&address)?;
        let told = response.header("docker-content-digest").map(str::to_string);
        let bytes = response.bytes(MAX_MANIFEST_BYTES)?;
        let digest = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
        let expected =
            if reference.starts_with("sha256:") { Some(reference.to_string()) } else { told.filter(|told| told.starts_with("sha256:")) };
        match expected {
            Some(expected) if expected != digest => Err(OciError::Digest { expected, found: digest }.into()),
            _ => Ok((digest, bytes, login)),
        }
    }

    /// Asks as nobody first, then with what the registry wants to see.
    fn ask(&self, address: &Address) -> Result<(Response, Option<Credential>), FetchError> {
        let request = |credential| Request::get(address.clone()).credential(credential).header("Accept", manifest::ACCEPTED.join(", "));
        let response = self.client.send(&request(None))?;
        // What another server asks for after a redirect is not the registry's question.
        if response.status != 401 || !response.address.is_same_origin(address) {
            return Ok((self.good(response, false, None)?, None));
        }
        let challenge = response.header("www-authenticate").unwrap_or_default().to_string();
        let login = login::login(self.client, self.remote, &self.name, &challenge)?;
        let response = self.client.send(&request(Some(login.credential.clone())))?;
        Ok((self.good(response, true, login.stranger)?, Some(login.credential)))
    }

    fn good(&self, response: Response, is_known: bool, stranger: Option<String>) -> Result<Response, FetchError> {
        match response.status {
            401 | 403 => Err(OciError::Refused { name: Box::new(self.name.clone()), is_known, stranger }.into()),
            404 => Err(OciError::Missing(Box::new(self.name.clone())).into()),
            _ => Ok(response.good()?),
        }
    }

    fn wanted(&self, layer: &Layer, login: Option<&Credential>) -> Wanted {
        let request = Request::get(self.address(&format!("blobs/{}", layer.digest))).credential(login.cloned());
        let expected = Expected::Sha256 { hex: layer.digest.trim_start_matches("sha256:").to_string(), size_bytes: Some(layer.size_bytes) };
        let name = layer.path.clone().unwrap_or_else(|| layer.digest.clone());
        Wanted { name, request, expected }
    }

    fn address(&self, rest: &str) -> Address {
        self.name.registry.below(&format!("/v2/{}/{rest}", self.name.repository))
    }
}

/// Where the files of a digest stand.
pub fn tree(origin: &OciOrigin, digest: &str, blobs: Blobs) -> PathBuf {
    blobs.tree(&["oci", digest, origin.path.as_deref().unwrap_or_default()])
}

/// Whether `path` is `of` or below it.
fn is_below(path: &str, of: &str) -> bool {
    Path::new(path).starts_with(of)
}
