//! Git LFS: a small file in the repository stands for a large one elsewhere. The pointer's text is never taken for the data.
//!
//! Repositories on this machine keep content in `lfs/objects`; servers are asked by the batch interface (git-lfs `docs/api/batch.md`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::{Git, GitError, Place};
use crate::base::files;
use crate::source::blobs::{Blobs, Wanted, refuse_too_large};
use crate::source::error::FetchError;
use crate::source::http::said::plain;
use crate::source::http::{Address, Credential, Expected, HttpError, Request, Secret};
use crate::source::out::Out;
use crate::source::remote::News;

/// A pointer is no longer than this.
const MAX_POINTER_BYTES: usize = 1024;
const MAX_ANSWER_BYTES: u64 = 16 << 20;
/// Objects that are asked for at once, as git-lfs does.
const BATCH: usize = 100;
/// Headers that a server may not have us send: they say how a request is framed and to whom it goes, or what part of the file is meant.
const FORBIDDEN: [&str; 12] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "if-range",
    "keep-alive",
    "proxy-authorization",
    "range",
    "te",
    "transfer-encoding",
    "upgrade",
];
const MAX_HEADERS: usize = 32;
const MAX_HEADER_BYTES: usize = 16 << 10;
const MEDIA_TYPE: &str = "application/vnd.git-lfs+json";

/// What a pointer points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    pub sha256: String,
    pub size_bytes: u64,
}

/// A pointer in a tree.
#[derive(Clone, Debug)]
pub struct Stand {
    pub path: String,
    pub pointer: Pointer,
    pub is_executable: bool,
}

#[derive(Serialize)]
struct Batch<'a> {
    operation: &'static str,
    transfers: [&'static str; 1],
    objects: Vec<Object<'a>>,
    hash_algo: &'static str,
}

#[derive(Serialize)]
struct Object<'a> {
    oid: &'a str,
    size: u64,
}

#[derive(Deserialize)]
struct Answer {
    objects: Vec<Offer>,
}

#[derive(Deserialize)]
struct Offer {
    oid: String,
    actions: Option<Actions>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Actions {
    download: Option<Download>,
}

#[derive(Deserialize)]
struct Download {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Refusal {
    code: u16,
    #[serde(default)]
    message: String,
}

/// Whether a file is a pointer, and if so what it says; a pointer that says nothing useful is an error.
pub fn pointer(bytes: &[u8]) -> Option<Result<Pointer, &'static str>> {
    if !bytes.starts_with(b"version https://git-lfs.github.com/spec/") || bytes.len() > MAX_POINTER_BYTES {
        return None;
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return Some(Err("its pointer is damaged")) };
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let sha256 =
        field("oid sha256:").filter(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
    let size_bytes = field("size ").and_then(|size| size.parse().ok());
    Some(match (sha256, size_bytes) {
        (Some(sha256), Some(size_bytes)) => Ok(Pointer { sha256: sha256.to_string(), size_bytes }),
        _ => Err("its pointer is damaged"),
    })
}

/// Fetches what the pointers point to and puts it into the tree.
pub fn fetch(git: &Git, stands: &[Stand], blobs: Blobs, out: &mut Out) -> Result<(), FetchError> {
    if stands.is_empty() {
        return Ok(());
    }
    let size_bytes = stands.iter().map(|stand| stand.pointer.size_bytes).fold(0, u64::saturating_add);
    refuse_too_large(git.client, git.url, size_bytes)?;
    let address = match &git.place {
        Place::Here(origin) => {
            for stand in stands {
                let blob = here(origin, stand, blobs)?;
                out.place(&stand.path, &blob, stand.is_executable).map_err(GitError::from)?;
            }
            return Ok(());
        }
        Place::Web(address) => address,
    };
    git.client.hear(&News::Sized { files: stands.len(), size_bytes });
    let out = Mutex::new(out);
    for batch in stands.chunks(BATCH) {
        let offers = ask(git, address, batch)?;
        let size_bytes = batch.iter().map(|stand| stand.pointer.size_bytes).fold(0, u64::saturating_add);
        let wanted = |index: usize| wanted(address, &batch[index], offers.get(&batch[index].pointer.sha256));
        let fetched = |index: usize, blob: PathBuf| {
            let (stand, mut out) = (&batch[index], out.lock().unwrap_or_else(|broken| broken.into_inner()));
            Ok(out.place(&stand.path, &blob, stand.is_executable).map_err(GitError::from)?)
        };
        blobs.fetch(git.client, batch.len(), size_bytes, wanted, fetched)?;
    }
    Ok(())
}

fn here(origin: &Path, stand: &Stand, blobs: Blobs) -> Result<PathBuf, FetchError> {
    let hex = &stand.pointer.sha256;
    let (first, second) = (hex.get(..2).unwrap_or_default(), hex.get(2..4).unwrap_or_default());
    let inner = Path::new("lfs/objects").join(first).join(second).join(hex);
    let mut found = None;
    for path in [origin.join(".git").join(&inner), origin.join(&inner)] {
        if found.is_none() && files::is_file(&path)? {
            found = Some(path);
        }
    }
    let missing = |why: &str| GitError::Large { name: stand.path.clone(), why: why.to_string() };
    let found = found.ok_or_else(|| missing("the repository has it only as a pointer"))?;
    let expected = Expected::Sha256 { hex: hex.clone(), size_bytes: Some(stand.pointer.size_bytes) };
    Ok(blobs.adopt(&found, hex, &expected)?.ok_or_else(|| missing("the repository's copy is damaged"))?)
}

fn ask(git: &Git, address: &Address, stands: &[Stand]) -> Result<BTreeMap<String, Offer>, FetchError> {
    let objects = stands.iter().map(|stand| Object { oid: &stand.pointer.sha256, size: stand.pointer.size_bytes }).collect();
    let batch = Batch { operation: "download", transfers: ["basic"], objects, hash_algo: "sha256" };
    let body = serde_json::to_vec(&batch).map_err(std::io::Error::other)?;
    let base =
        if address.path.ends_with(".git") { address.clone() } else { Address { path: format!("{}.git", address.path), ..address.clone() } };
    let request = Request::get(base.below("/info/lfs/objects/batch"))
        .credential(git.credential.clone())
        .header("Content-Type", MEDIA_TYPE)
        .header("Accept", MEDIA_TYPE);
    let response = git.client.send(&Request { body: Some(body), ..request })?;
    let first = stands.first().map(|stand| stand.path.clone()).unwrap_or_default();
    if matches!(response.status, 401 | 403 | 404) {
        let why = format!("{} answers {} when asked for it", response.address.authority(), response.status);
        return Err(GitError::Large { name: first, why }.into());
    }
    let bytes = response.good()?.bytes(MAX_ANSWER_BYTES)?;
    let answer: Answer = serde_json::from_slice(&bytes)
        .map_err(|error| GitError::Large { name: first, why: plain(&format!("the server's answer cannot be read: {error}")) })?;
    let mut offers: BTreeMap<String, Offer> = answer.objects.into_iter().map(|offer| (offer.oid.clone(), offer)).collect();
    // A server may say too much, and it may repeat what it was sent.
    for offer in offers.values_mut() {
        if let Some(error) = &mut offer.error {
            let message = git.credential.as_ref().map_or_else(|| error.message.clone(), |sent| sent.scrub(&error.message));
            error.message = plain(&message);
        }
    }
    Ok(offers)
}

/// The request that a server's offer asks for. `asked` is the repository.
fn wanted(asked: &Address, stand: &Stand, offer: Option<&Offer>) -> Result<Wanted, FetchError> {
    let refused = |why: String| GitError::Large { name: stand.path.clone(), why };
    let offer = offer.ok_or_else(|| refused("the server says nothing of it".to_string()))?;
    if let Some(error) = &offer.error {
        return Err(refused(format!("the server says {} {}", error.code, error.message)).into());
    }
    let download = offer.actions.as_ref().and_then(|actions| actions.download.as_ref());
    let download = download.ok_or_else(|| refused("the server offers no address for it".to_string()))?;
    let address = Address::parse(&download.href).map_err(|error| match error {
        HttpError::Secret => HttpError::ForeignSecret(asked.authority()).into(),
        other => FetchError::from(refused(format!("the server's address for it is none: {other}"))),
    })?;
    if asked.is_secure && !address.is_secure {
        return Err(HttpError::Downgrade { from: asked.to_string(), to: address.to_string() }.into());
    }
    let credential = action(download, &address).map_err(refused)?;
    let expected = Expected::Sha256 { hex: stand.pointer.sha256.clone(), size_bytes: Some(stand.pointer.size_bytes) };
    Ok(Wanted { name: stand.path.clone(), request: Request::get(address).credential(credential), expected })
}

/// The headers that the server gives along, for its own address alone. What the user has noted is not among them.
fn action(download: &Download, address: &Address) -> Result<Option<Credential>, String> {
    let size_bytes: usize = download.header.iter().map(|(name, value)| name.len() + value.len()).sum();
    if download.header.len() > MAX_HEADERS || size_bytes > MAX_HEADER_BYTES {
        return Err("the server gives more headers for it than a request may have".to_string());
    }
    let mut headers = Vec::with_capacity(download.header.len());
    for (name, value) in &download.header {
        if FORBIDDEN.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden)) {
            return Err(format!("the server wants a header `{}` sent, which is not its to set", plain(name)));
        }
        let secret = Secret::raw(value).ok_or_else(|| format!("the server gives a header `{}` that no request can have", plain(name)))?;
        headers.push((name.clone(), secret));
    }
    if !headers.is_empty() && !address.is_private() {
        return Err(format!("the server wants credentials sent to {}, which is not encrypted", address.authority()));
    }
    Ok((!headers.is_empty()).then(|| Credential::of_headers(headers, address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_told_from_files() {
        let hex = "0a".repeat(32);
        let text = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{hex}\nsize 12345\n");
        assert_eq!(pointer(text.as_bytes()), Some(Ok(Pointer { sha256: hex, size_bytes: 12345 })));
        assert_eq!(pointer(b"version 2"), None);
        assert_eq!(pointer(b""), None);
        for broken in [
            text.replace("sha256:0a", "sha256:0A"),
            text.replace("size 12345", "size x"),
            text.replace("oid", "oid2"),
            text[..43].to_string(),
        ] {
            assert!(matches!(pointer(broken.as_bytes()), Some(Err(_))), "{broken}");
        }
    }
}
