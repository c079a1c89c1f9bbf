//! One file at a web address, pinned to its SHA-256.

use std::path::PathBuf;

use super::blobs::Blobs;
use super::error::FetchError;
use super::http::{Address, Client, Expected, HttpError, Request};
use super::netrc;
use super::origin::WebOrigin;
use super::out::{Out, OutError};
use super::remote::Remote;
use super::unpack::{self, UnpackError};
use crate::base::files;

/// What a file is called whose address does not say.
const NAMELESS: &str = "file";

#[derive(Debug, thiserror::Error)]
pub enum WebError {
    #[error("it is not the file that was pinned: its SHA-256 is {found}, not {expected}")]
    Changed { expected: String, found: String },
    #[error("it cannot be unpacked: {0}")]
    Unpack(#[from] UnpackError),
    #[error("the archive has no file or folder `{0}`")]
    Path(String),
    #[error(transparent)]
    Out(#[from] OutError),
}

impl WebError {
    pub fn help(&self) -> Option<String> {
        let help = match self {
            WebError::Changed { .. } => {
                "the address holds another file now; nothing of it was kept. If the change is meant, take `sha256` out or correct it, and run `slmops lock`"
            }
            WebError::Unpack(UnpackError::Format(_)) => "leave out `unpack` to take the file as it is",
            _ => return None,
        };
        Some(help.to_string())
    }

    /// Whether the manifest is not to blame.
    pub fn is_environment(&self) -> bool {
        matches!(self, WebError::Out(OutError::Io(_)) | WebError::Unpack(UnpackError::Io(_)))
    }
}

/// The SHA-256 of what the address holds now; the file is kept.
pub fn resolve(client: &Client, remote: &Remote, origin: &WebOrigin, blobs: Blobs) -> Result<String, FetchError> {
    let expected = match &origin.sha256 {
        Some(hex) => Expected::Sha256 { hex: hex.clone(), size_bytes: None },
        None => Expected::Anything,
    };
    let blob = obtain(client, remote, origin, &expected, blobs)?;
    let name = blob.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(name.trim_start_matches("sha256-").to_string())
}

/// Fetches what was pinned and puts it where [`tree`] says.
pub fn materialise(client: &Client, remote: &Remote, origin: &WebOrigin, sha256: &str, blobs: Blobs) -> Result<PathBuf, FetchError> {
    let blob = obtain(client, remote, origin, &Expected::Sha256 { hex: sha256.to_string(), size_bytes: None }, blobs)?;
    let tree = tree(origin, sha256, blobs);
    blobs.build(&tree, |folder| {
        let mut out = Out::new(folder, client.limits());
        if !origin.unpack {
            return Ok(out.place(&name(origin), &blob, false).map_err(WebError::from)?);
        }
        unpack::unpack(&blob, &mut out).map_err(WebError::from)?;
        match &origin.path {
            Some(path) if !files::exists(&folder.join(path))? => Err(FetchError::from(WebError::Path(path.clone()))),
            _ => Ok(()),
        }
    })?;
    Ok(tree)
}

/// Where the file of a pin stands, or what it was unpacked to.
pub fn tree(origin: &WebOrigin, sha256: &str, blobs: Blobs) -> PathBuf {
    blobs.tree(&["url", &name(origin), sha256, if origin.unpack { "unpacked" } else { "" }])
}

/// What the file is called in its tree.
pub fn name(origin: &WebOrigin) -> String {
    Address::parse(&origin.url).ok().and_then(|address| address.file_name()).unwrap_or_else(|| NAMELESS.to_string())
}

fn obtain(client: &Client, remote: &Remote, origin: &WebOrigin, expected: &Expected, blobs: Blobs) -> Result<PathBuf, FetchError> {
    let address = Address::parse(&origin.url)?;
    let credential = netrc::credential(remote, &address)?;
    match blobs.obtain(client, &Request::get(address).credential(credential), &name(origin), expected) {
        Err(HttpError::Digest { expected, found, .. }) => Err(WebError::Changed { expected, found }.into()),
        other => Ok(other?),
    }
}
