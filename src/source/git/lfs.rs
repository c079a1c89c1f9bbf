//! Git LFS: a small file in the repository stands for a large one elsewhere. The pointer's text is never taken for the data.
//!
//! Repositories on this machine keep content in `lfs/objects`; servers are asked by the batch interface (git-lfs `docs/api/batch.md`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Git, GitError, Place};
use crate::source::blobs::{Blobs, Placed, Wanted};
use crate::source::error::FetchError;
use crate::source::http::{Address, Expected, Request};
use crate::source::remote::{News, Secret};

/// A pointer is no longer than this.
const MAX_POINTER_BYTES: usize = 1024;
const MAX_ANSWER_BYTES: u64 = 16 << 20;
/// Objects that are asked for at once, as git-lfs does.
const BATCH: usize = 100;
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
    pub path: PathBuf,
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

/// Fetches what the pointers point to.
pub fn fetch(git: &Git, stands: &[Stand], blobs: Blobs) -> Result<Vec<Placed>, FetchError> {
    match &git.place {
        Place::Here(origin) => stands.iter().map(|stand| here(origin, stand, blobs)).collect(),
        Place::Web(address) => {
            let size_bytes = stands.iter().map(|stand| stand.pointer.size_bytes).fold(0, u64::saturating_add);
            git.client.hear(&News::Sized { files: stands.len(), size_bytes });
            let mut wanted = Vec::with_capacity(stands.len());
            for batch in stands.chunks(BATCH) {
                wanted.extend(ask(git, address, batch)?);
            }
            blobs.fetch(git.client, &wanted)
        }
    }
}

fn here(origin: &Path, stand: &Stand, blobs: Blobs) -> Result<Placed, FetchError> {
    let hex = &stand.pointer.sha256;
    let (first, second) = (hex.get(..2).unwrap_or_default(), hex.get(2..4).unwrap_or_default());
    let inner = Path::new("lfs/objects").join(first).join(second).join(hex);
    let found = [origin.join(".git").join(&inner), origin.join(&inner)].into_iter().find(|path| path.is_file());
    let missing = |why: &str| GitError::Large { name: stand.path.display().to_string(), why: why.to_string() };
    let found = found.ok_or_else(|| missing("the repository has it only as a pointer"))?;
    let expected = Expected::Sha256 { hex: hex.clone(), size_bytes: Some(stand.pointer.size_bytes) };
    let blob = blobs.adopt(&found, hex, &expected)?.ok_or_else(|| missing("the repository's copy is damaged"))?;
    Ok(Placed { path: stand.path.clone(), blob, is_executable: stand.is_executable })
}

fn ask(git: &Git, address: &Address, stands: &[Stand]) -> Result<Vec<Wanted>, FetchError> {
    let objects = stands.iter().map(|stand| Object { oid: &stand.pointer.sha256, size: stand.pointer.size_bytes }).collect();
    let batch = Batch { operation: "download", transfers: ["basic"], objects, hash_algo: "sha256" };
    let body = serde_json::to_vec(&batch).map_err(std::io::Error::other)?;
    let base =
        if address.path.ends_with(".git") { address.clone() } else { Address { path: format!("{}.git", address.path), ..address.clone() } };
    let request = Request::get(base.below("/info/lfs/objects/batch"))
        .secret(git.secret.clone())
        .header("Content-Type", MEDIA_TYPE)
        .header("Accept", MEDIA_TYPE);
    let response = git.client.send(&Request { body: Some(body), ..request })?;
    let first = stands.first().map(|stand| stand.path.display().to_string()).unwrap_or_default();
    if matches!(response.status, 401 | 403 | 404) {
        let why = format!("{} answers {} when asked for it", response.address.authority(), response.status);
        return Err(GitError::Large { name: first, why }.into());
    }
    let bytes = response.good()?.bytes(MAX_ANSWER_BYTES)?;
    let answer: Answer = serde_json::from_slice(&bytes)
        .map_err(|error| GitError::Large { name: first, why: format!("the server's answer cannot be read: {error}") })?;
    let offers: BTreeMap<String, Offer> = answer.objects.into_iter().map(|offer| (offer.oid.clone(), offer)).collect();
    stands.iter().map(|stand| wanted(stand, offers.get(&stand.pointer.sha256))).collect()
}

fn wanted(stand: &Stand, offer: Option<&Offer>) -> Result<Wanted, FetchError> {
    let name = stand.path.display().to_string();
    let refused = |why: String| GitError::Large { name: name.clone(), why };
    let offer = offer.ok_or_else(|| refused("the server says nothing of it".to_string()))?;
    if let Some(error) = &offer.error {
        return Err(refused(format!("the server says {} {}", error.code, error.message)).into());
    }
    let download = offer.actions.as_ref().and_then(|actions| actions.download.as_ref());
    let download = download.ok_or_else(|| refused("the server offers no address for it".to_string()))?;
    let mut request = Request::get(Address::parse(&download.href)?);
    for (name, value) in &download.header {
        match name.eq_ignore_ascii_case("authorization") {
            true => request.secret = Secret::raw(value),
            false => request.private.push((name.clone(), value.clone())),
        }
    }
    let expected = Expected::Sha256 { hex: stand.pointer.sha256.clone(), size_bytes: Some(stand.pointer.size_bytes) };
    Ok(Wanted { path: stand.path.clone(), name: name.clone(), request, expected, is_executable: stand.is_executable })
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
