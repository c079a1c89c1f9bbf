//! Repositories on the Hugging Face Hub, spoken to in the Hub's own protocol: `api/models/NAME/revision/REV` names the commit,
//! `api/models/NAME/tree/COMMIT` lists its files with their digests, `NAME/resolve/COMMIT/FILE` holds each.
//!
//! The token goes to the Hub's address and to no other: the servers that the Hub redirects to get none. Nor does the Hub itself where its address is
//! not encrypted.

mod error;
mod listing;
mod pick;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

pub use error::HubError;
use error::TokenUse;
use listing::{Entry, Page, PageError};

use super::blobs::{Blobs, Wanted, refuse_too_large};
use super::entry;
use super::error::FetchError;
use super::http::address::{escape, escape_path};
use super::http::{Address, Client, Credential, HttpError, Request, Response};
use super::origin::{Holds, HubOrigin};
use super::out::Out;
use super::remote::{News, Remote};
use crate::base::Digest;

/// A page of a listing holds a thousand files.
const MAX_PAGE_BYTES: u64 = 16 << 20;
const MAX_NAME: usize = 96;

/// A repository at the Hub.
pub struct Hub<'a> {
    client: &'a Client,
    endpoint: Address,
    token: Option<Credential>,
    origin: &'a HubOrigin,
}

impl<'a> Hub<'a> {
    pub fn new(client: &'a Client, remote: &'a Remote, origin: &'a HubOrigin) -> Result<Hub<'a>, FetchError> {
        let endpoint = Address::parse(&remote.hub)?;
        let token = match &remote.hub_token {
            Some(token) => token.secret()?.map(|secret| Credential::new(secret, &endpoint)),
            None => None,
        };
        Ok(Hub { client, endpoint, token, origin })
    }

    /// The commit that the revision is now.
    pub fn commit(&self) -> Result<String, FetchError> {
        let address = self.api(&format!("/revision/{}", escape(&self.origin.revision)));
        let bytes = self.ask(address)?.bytes(MAX_PAGE_BYTES)?;
        Ok(listing::commit(&bytes).map_err(|why| self.nonsense(why))?)
    }

    /// Fetches the files of a commit and puts them where [`Hub::tree`] says.
    pub fn materialise(&self, commit: &str, blobs: Blobs) -> Result<PathBuf, FetchError> {
        let entries = self.list(commit)?;
        let picked = pick::pick(&entries, self.origin)?;
        if !picked.left_out.is_empty() {
            self.client.hear(&News::LeftOut { files: &picked.left_out });
        }
        let size_bytes = picked.files.iter().map(|entry| entry.size_bytes).fold(0, u64::saturating_add);
        refuse_too_large(self.client, &self.origin.repository, size_bytes)?;
        self.client.hear(&News::Sized { files: picked.files.len(), size_bytes });
        let tree = self.tree(commit, blobs);
        blobs.build(&tree, |folder| {
            let out = Mutex::new(Out::new(folder, self.client.limits()));
            let wanted = |index: usize| Ok(self.wanted(commit, picked.files[index]));
            let fetched = |index: usize, blob: PathBuf| {
                let mut out = out.lock().unwrap_or_else(|broken| broken.into_inner());
                Ok(out.place(&self.within(picked.files[index]), &blob, false).map_err(HubError::from)?)
            };
            blobs.fetch(self.client, picked.files.len(), size_bytes, wanted, fetched).map_err(|error| self.explained(error))
        })?;
        Ok(tree)
    }

    /// Where the files of a commit stand.
    pub fn tree(&self, commit: &str, blobs: Blobs) -> PathBuf {
        tree(self.origin, commit, blobs)
    }

    fn list(&self, commit: &str) -> Result<Vec<Entry>, FetchError> {
        let limits = self.client.limits();
        let mut next = Some(self.api(&format!("/tree/{commit}?recursive=true")));
        let mut entries: Vec<Entry> = Vec::new();
        let (mut folders, mut seen, start) = (0, BTreeSet::new(), Instant::now());
        while let Some(address) = next {
            if !seen.insert(Digest::of(address.url().as_bytes())) {
                return Err(self.nonsense("its listing leads back to a page that was read before".to_string()).into());
            }
            if seen.len() > limits.pages || start.elapsed() > limits.source {
                return Err(self.nonsense(format!("its listing does not end within {} pages or in time", limits.pages)).into());
            }
            let response = self.ask(address)?;
            let link = response.header("link").and_then(listing::next).map(str::to_string);
            let at = response.address.clone();
            let page = Page::parse(&response.bytes(MAX_PAGE_BYTES)?).map_err(|error| match error {
                PageError::Nonsense(why) => self.nonsense(why),
                PageError::Out(error) => HubError::Out(error),
            })?;
            let is_empty = page.entries.is_empty() && page.folders == 0;
            entries.extend(page.entries);
            folders += page.folders;
            if entries.len() > limits.listed || folders > limits.listed {
                return Err(HubError::Files(limits.listed).into());
            }
            next = match link {
                Some(link) if !is_empty => Some(at.join(&link)?),
                _ => None,
            };
            if next.as_ref().is_some_and(|next| !next.is_same_origin(&self.endpoint)) {
                return Err(self.nonsense("its listing goes on at another host".to_string()).into());
            }
        }
        Ok(listing::checked(entries)?)
    }

    /// Where a file stands in the tree.
    fn within(&self, entry: &Entry) -> String {
        match &self.origin.path {
            None => entry.path.clone(),
            Some(path) => {
                let rest = entry.path.strip_prefix(path.as_str()).unwrap_or_default();
                format!("{}{rest}", entry::file_name(path))
            }
        }
    }

    fn wanted(&self, commit: &str, entry: &Entry) -> Wanted {
        let prefix = match self.origin.holds {
            Holds::Model => "",
            Holds::Dataset => "/datasets",
        };
        let address = format!("{prefix}/{}/resolve/{commit}/{}", self.origin.repository, escape_path(&entry.path));
        let request = Request::get(self.endpoint.below(&address)).credential(self.token.clone());
        Wanted { name: entry.path.clone(), request, expected: entry.expected() }
    }

    fn api(&self, rest: &str) -> Address {
        let kind = match self.origin.holds {
            Holds::Model => "models",
            Holds::Dataset => "datasets",
        };
        self.endpoint.below(&format!("/api/{kind}/{}{rest}", self.origin.repository))
    }

    fn ask(&self, address: Address) -> Result<Response, FetchError> {
        let response = self.client.send(&Request::get(address).credential(self.token.clone()))?;
        if (200..300).contains(&response.status) {
            return Ok(response);
        }
        Err(self.refused(response.refusal()).into())
    }

    fn explained(&self, error: FetchError) -> FetchError {
        match error {
            FetchError::Http(error @ HttpError::Status { .. }) => self.refused(error).into(),
            other => other,
        }
    }

    /// What a refusal means here.
    fn refused(&self, error: HttpError) -> HubError {
        let HttpError::Status { status, code, message, .. } = &error else { return HubError::Http(error) };
        let code = code.as_deref();
        let who = Box::new(error::Who {
            noun: self.origin.holds.noun(),
            repository: self.origin.repository.clone(),
            hub: self.endpoint.clone(),
            page: self.page(),
            token: match &self.token {
                None => TokenUse::None,
                Some(token) if token.is_for(&self.endpoint) => TokenUse::Sent,
                Some(_) => TokenUse::Withheld,
            },
        });
        let is_gated = code == Some("GatedRepo") || message.contains("gated") || message.contains("restricted");
        match (code, status) {
            (Some("RevisionNotFound"), _) => HubError::Revision { who, revision: self.origin.revision.clone() },
            (_, 401 | 403) if is_gated => HubError::Gated(who),
            (_, 401) if who.token == TokenUse::Sent && code.is_none() => HubError::Token(who),
            (Some("RepoNotFound"), _) | (_, 401 | 404) => HubError::Missing(who),
            (_, 403) => HubError::Gated(who),
            _ => HubError::Http(error),
        }
    }

    fn page(&self) -> String {
        let prefix = match self.origin.holds {
            Holds::Model => "/",
            Holds::Dataset => "/datasets/",
        };
        self.endpoint.below(&format!("{prefix}{}", self.origin.repository)).to_string()
    }

    fn nonsense(&self, why: String) -> HubError {
        HubError::Http(HttpError::Nonsense { host: self.endpoint.authority(), why })
    }
}

/// Where the files of a commit stand.
pub fn tree(origin: &HubOrigin, commit: &str, blobs: Blobs) -> PathBuf {
    let patterns = [origin.include.join(" "), origin.exclude.join(" ")];
    let path = origin.path.as_deref().unwrap_or_default();
    blobs.tree(&["hf", origin.holds.noun(), &origin.repository, commit, path, &patterns[0], &patterns[1]])
}

/// What is wrong with the name of a repository.
pub fn name_fault(name: &str) -> Option<&'static str> {
    let is_good = |part: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c == '-' || c == '.');
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !edge(part.chars().next())
            && !edge(part.chars().last())
            && !part.contains("..")
            && !part.contains("--")
    };
    if name.contains("://") {
        Some("it is an address")
    } else if name.len() > MAX_NAME {
        Some("it is too long")
    } else if name.split('/').count() > 2 {
        Some("it has more than one slash")
    } else if !name.split('/').all(is_good) {
        Some("it consists of letters, digits, `-`, `_` and `.`")
    } else {
        None
    }
}

/// What is wrong with a revision.
pub fn revision_fault(revision: &str) -> Option<&'static str> {
    let is_good = |c: char| c.is_ascii_graphic() && !"~^:?*[\\".contains(c);
    match revision {
        _ if revision.len() > 255 => Some("it is too long"),
        _ if revision.contains("..") || revision.starts_with('-') => Some("it is neither a branch nor a tag nor a commit"),
        _ if !revision.chars().all(is_good) => Some("no branch, tag or commit is called so"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_hub_gives() {
        for good in ["gpt2", "HuggingFaceTB/SmolLM2-135M-Instruct", "a/b_c.d", "mistralai/Mistral-7B-v0.1"] {
            assert_eq!(name_fault(good), None, "{good}");
        }
        for bad in ["", "a/", "/a", "a/b/c", "https://huggingface.co/a/b", "../a", "a/..", "a b", "a/-b", "a/b?c", "a/b%2F", "a/b--c"] {
            assert!(name_fault(bad).is_some(), "{bad}");
        }
        for good in ["main", "v1.0", "refs/pr/7", "feature/x", "0123abc"] {
            assert_eq!(revision_fault(good), None, "{good}");
        }
        for bad in ["a..b", "-x", "a b", "a\nb", "x?y"] {
            assert!(revision_fault(bad).is_some(), "{bad}");
        }
    }
}
