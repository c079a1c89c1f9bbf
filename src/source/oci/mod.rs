//! Artifacts in OCI registries, by the distribution specification: ModelPack artifacts as slmops and KitOps push them, and files as ORAS does.
//!
//! A layer that is one file goes where its annotation says; a layer that is an archive is unpacked. Container images are refused.

mod error;
mod login;
mod manifest;
mod name;

use std::path::{Path, PathBuf};

pub use error::OciError;
use manifest::{Layer, Manifest};
pub use name::Name;
use sha2::{Digest as _, Sha256};

use super::blobs::{self, Blobs, Wanted};
use super::entry;
use super::error::FetchError;
use super::http::download::hex;
use super::http::{Address, Client, Expected, Request, Response};
use super::origin::OciOrigin;
use super::remote::{News, Remote, Secret};
use super::unpack;

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
        let (manifest, secret) = self.single(digest)?;
        let layers = manifest.layers(origin.path.as_deref())?;
        let size_bytes = layers.iter().map(|layer| layer.size_bytes).fold(0, u64::saturating_add);
        self.client.hear(&News::Sized { files: layers.len(), size_bytes });
        let wanted = layers.iter().map(|layer| self.wanted(layer, secret.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let placed = blobs.fetch(self.client, &wanted)?;
        let tree = tree(origin, digest, blobs);
        blobs.build(&tree, |out| {
            for (layer, placed) in layers.iter().zip(&placed) {
                if layer.is_archive {
                    unpack::unpack(&placed.blob, out).map_err(|error| OciError::Unpack(layer.digest.clone(), error))?;
                } else {
                    blobs::lay(std::slice::from_ref(placed), out)?;
                }
            }
            match &origin.path {
                Some(path) if !out.join(path).exists() => Err(OciError::Path(path.clone()).into()),
                _ => Ok::<(), FetchError>(()),
            }
        })?;
        Ok(tree)
    }

    /// The manifest of one artifact, also from an index that lists nothing else; and the secret that was needed for it.
    fn single(&self, digest: &str) -> Result<(Manifest, Option<Secret>), FetchError> {
        let (_, bytes, secret) = self.manifest(digest)?;
        let manifest = Manifest::parse(&bytes)?;
        match manifest.inner()? {
            None => Ok((manifest, secret)),
            Some(inner) => {
                let (_, bytes, secret) = self.manifest(inner)?;
                Ok((Manifest::parse(&bytes)?, secret))
            }
        }
    }

    fn manifest(&self, reference: &str) -> Result<(String, Vec<u8>, Option<Secret>), FetchError> {
        let address = self.address(&format!("manifests/{reference}"));
        let (response, secret) = self.ask(&address)?;
        let told = response.header("docker-content-digest").map(str::to_string);
        let bytes = response.bytes(MAX_MANIFEST_BYTES)?;
        let digest = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
        let expected =
            if reference.starts_with("sha256:") { Some(reference.to_string()) } else { told.filter(|told| told.starts_with("sha256:")) };
        match expected {
            Some(expected) if expected != digest => Err(OciError::Digest { expected, found: digest }.into()),
            _ => Ok((digest, bytes, secret)),
        }
    }

    /// Asks as nobody first, then with what the registry wants to see.
    fn ask(&self, address: &Address) -> Result<(Response, Option<Secret>), FetchError> {
        let request = |secret| Request::get(address.clone()).secret(secret).header("Accept", manifest::ACCEPTED.join(", "));
        let response = self.client.send(&request(None))?;
        if response.status != 401 {
            return Ok((self.good(response, false)?, None));
        }
        let challenge = response.header("www-authenticate").unwrap_or_default().to_string();
        let secret = login::secret(self.client, self.remote, &self.name, &challenge)?;
        let response = self.client.send(&request(Some(secret.clone())))?;
        Ok((self.good(response, true)?, Some(secret)))
    }

    fn good(&self, response: Response, is_known: bool) -> Result<Response, FetchError> {
        match response.status {
            401 | 403 => Err(OciError::Refused { name: Box::new(self.name.clone()), is_known }.into()),
            404 => Err(OciError::Missing(Box::new(self.name.clone())).into()),
            _ => Ok(response.good()?),
        }
    }

    fn wanted(&self, layer: &Layer, secret: Option<&Secret>) -> Result<Wanted, FetchError> {
        let request = Request::get(self.address(&format!("blobs/{}", layer.digest))).secret(secret.cloned());
        let expected = Expected::Sha256 { hex: layer.digest.trim_start_matches("sha256:").to_string(), size_bytes: Some(layer.size_bytes) };
        let path = match &layer.path {
            Some(path) => entry::safe(path).ok_or_else(|| OciError::Inside(path.clone()))?,
            None => PathBuf::new(),
        };
        let name = layer.path.clone().unwrap_or_else(|| layer.digest.clone());
        Ok(Wanted { path, name, request, expected, is_executable: false })
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
