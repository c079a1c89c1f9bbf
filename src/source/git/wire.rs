//! Git's "smart" protocol over HTTP (gitprotocol-http, version 0), as a reader of single commits needs it: one commit without its history where
//! the server can give that, everything where it cannot.

use std::io::{BufReader, Read, Take, Write};

use git2::{Oid, Repository};

use super::pack::Scan;
use super::{GitError, commit};
use crate::base::units;
use crate::source::http::client::{MAX_SENT_BYTES, broken};
use crate::source::http::said::plain;
use crate::source::http::{Address, Client, Credential, Request, Response};
use crate::source::limits::Limits;
use crate::source::origin::Want;
use crate::source::remote::News;

const MAX_ADVERTISED_BYTES: u64 = 256 << 20;
/// A line of what is wanted.
const WANT_BYTES: u64 = 50;
const SERVICE: &str = "/info/refs?service=git-upload-pack";

/// What a server has, as far as it matters here.
struct Advertised {
    /// Where it says it lives, after redirects.
    base: Address,
    /// The branch, tag or commit that is wanted.
    tip: Option<Oid>,
    /// All of them, where the one that is wanted is a commit that may be behind any.
    tips: Vec<Oid>,
    capabilities: Vec<String>,
}

/// Brings what is wanted into the repository and tells the commit.
pub fn fetch(
    client: &Client,
    address: &Address,
    credential: Option<&Credential>,
    repository: &Repository,
    want: &Want,
) -> Result<Oid, GitError> {
    let advertised = advertise(client, address, credential, want)?;
    let missing = || GitError::NoRevision(want.text());
    let session = Session { client, credential, advertised: &advertised, repository };
    if let Some(tip) = advertised.tip {
        session.take(&[tip], Depth::One)?;
        return commit(repository, &tip.to_string())?.ok_or_else(missing);
    }
    let Want::Rev(rev) = want else { return Err(missing()) };
    if let (40, Ok(oid)) = (rev.len(), Oid::from_str(rev)) {
        let gives_any = ["allow-reachable-sha1-in-want", "allow-any-sha1-in-want"].iter().any(|word| advertised.can(word));
        if gives_any {
            match session.take(&[oid], Depth::One) {
                Ok(()) => return commit(repository, rev)?.ok_or_else(missing),
                Err(error @ GitError::TooMuch { .. }) => return Err(error),
                // Refused, or not there: it may still come with the rest.
                Err(_) => {}
            }
        }
    }
    session.take(&advertised.tips, Depth::All)?;
    commit(repository, rev)?.ok_or_else(missing)
}

fn advertise(client: &Client, address: &Address, credential: Option<&Credential>, want: &Want) -> Result<Advertised, GitError> {
    let response = client.send(&Request::get(address.below(SERVICE)).credential(credential.cloned()))?;
    let host = response.address.authority();
    if matches!(response.status, 401 | 403 | 404) {
        return Err(GitError::Refused { host, status: response.status });
    }
    let response = response.good()?;
    if response.header("content-type").is_none_or(|kind| !kind.starts_with("application/x-git-upload-pack-advertisement")) {
        let why = "there is no repository, or one that only offers files (the \"dumb\" protocol)".to_string();
        return Err(GitError::Protocol { host, why });
    }
    let end = response.address.clone();
    let base =
        end.path.strip_suffix(SERVICE).map(|path| Address { path: path.to_string(), ..end.clone() }).unwrap_or_else(|| address.clone());
    let body = response.into_body(Some(MAX_ADVERTISED_BYTES))?;
    let lines = Lines::new(body, MAX_ADVERTISED_BYTES, &host, client.limits());
    let mut refs = Refs { want, before: None, tip: None, tips: Vec::new(), capabilities: Vec::new() };
    refs.read(lines)?;
    Ok(Advertised { base, tip: refs.tip, tips: refs.tips, capabilities: refs.capabilities })
}

/// The branches and tags of a server, one line each. Only what is wanted is kept of them: there may be a million.
struct Refs<'a> {
    want: &'a Want,
    /// The name and the object of the line before: a tag's commit follows the tag.
    before: Option<(String, Oid)>,
    tip: Option<Oid>,
    tips: Vec<Oid>,
    capabilities: Vec<String>,
}

impl Refs<'_> {
    fn read<R: Read>(&mut self, mut lines: Lines<R>) -> Result<(), GitError> {
        let (mut ends, mut count) = (0, 0usize);
        while ends < 2 {
            let Some(line) = lines.next()? else {
                ends += 1;
                continue;
            };
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            if line.starts_with('#') {
                continue;
            }
            count += 1;
            if count > lines.limits.refs {
                return Err(GitError::TooMuch {
                    host: lines.host.to_string(),
                    why: format!("more than {} branches and tags", lines.limits.refs),
                });
            }
            let (line, capabilities) = line.split_once('\0').unwrap_or((line, ""));
            if count == 1 {
                self.capabilities.extend(capabilities.split(' ').map(str::to_string));
            }
            let named = line.split_once(' ').and_then(|(oid, name)| Some((name, Oid::from_str(oid).ok()?)));
            let (name, oid) = named.ok_or_else(|| lines.wrong("a branch without a commit"))?;
            if name != "capabilities^{}" {
                self.take(name, oid);
            }
        }
        self.tips.sort_unstable();
        self.tips.dedup();
        Ok(())
    }

    /// The object at the tip that is wanted: a commit, or the tag that leads to it.
    fn take(&mut self, name: &str, oid: Oid) {
        let peeled = name.strip_suffix("^{}");
        let is_meant = match self.want {
            Want::Head => name == "HEAD",
            Want::Branch(branch) => name.strip_prefix("refs/heads/") == Some(branch),
            Want::Tag(tag) => name.strip_prefix("refs/tags/") == Some(tag),
            Want::Rev(rev) => rev.len() == 40 && oid.to_string() == *rev,
        };
        if is_meant && self.tip.is_none() {
            let tag = self.before.as_ref().filter(|(before, _)| peeled == Some(before)).map(|(_, oid)| *oid);
            self.tip = Some(tag.unwrap_or(oid));
        }
        if matches!(self.want, Want::Rev(_)) && peeled.is_none() {
            self.tips.push(oid);
        }
        self.before = Some((name.to_string(), oid));
    }
}

impl Advertised {
    fn can(&self, word: &str) -> bool {
        self.capabilities.iter().any(|capability| capability == word)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    One,
    All,
}

struct Session<'a> {
    client: &'a Client,
    credential: Option<&'a Credential>,
    advertised: &'a Advertised,
    repository: &'a Repository,
}

impl Session<'_> {
    /// Fetches objects with all that they need into the repository's store.
    fn take(&self, wants: &[Oid], depth: Depth) -> Result<(), GitError> {
        let base = &self.advertised.base;
        if wants.is_empty()
            || wants.iter().all(|oid| matches!(commit(self.repository, &oid.to_string()), Ok(Some(_)))) && depth == Depth::One
        {
            return Ok(());
        }
        if !self.advertised.can("side-band-64k") {
            return Err(self.wrong("it knows no `side-band-64k`"));
        }
        if wants.len() as u64 > MAX_SENT_BYTES / WANT_BYTES {
            return Err(self.too_much(format!("{} branches and tags, which would all have to be fetched for one commit", wants.len())));
        }
        let request = Request {
            body: Some(self.request(wants, depth)),
            ..Request::get(base.below("/git-upload-pack"))
                .credential(self.credential.cloned())
                .header("Content-Type", "application/x-git-upload-pack-request")
                .header("Accept", "application/x-git-upload-pack-result")
        };
        let response = self.client.send(&request)?.good()?;
        self.receive(response)
    }

    fn request(&self, wants: &[Oid], depth: Depth) -> Vec<u8> {
        let words: Vec<&str> = ["side-band-64k", "ofs-delta", "no-progress"].into_iter().filter(|word| self.advertised.can(word)).collect();
        let mut body = Vec::new();
        for (index, oid) in wants.iter().enumerate() {
            let words = if index == 0 { format!(" {}", words.join(" ")) } else { String::new() };
            line(&mut body, &format!("want {oid}{words}\n"));
        }
        if depth == Depth::One && self.advertised.can("shallow") {
            line(&mut body, "deepen 1\n");
        }
        body.extend_from_slice(b"0000");
        line(&mut body, "done\n");
        body
    }

    fn receive(&self, response: Response) -> Result<(), GitError> {
        let host = response.address.authority();
        let limits = self.client.limits();
        let body = response.into_body(None)?;
        let mut lines = Lines::new(body, limits.source_bytes, &host, limits);
        let mut aside_bytes = 0u64;
        let mut aside = |line: &[u8]| {
            aside_bytes += line.len() as u64 + 4;
            if aside_bytes > limits.aside_bytes { Err(self.too_much("it talks without an end".to_string())) } else { Ok(()) }
        };
        loop {
            let line = lines.next()?.unwrap_or_default();
            match line.strip_prefix(b"ERR ") {
                Some(why) => return Err(self.wrong(&String::from_utf8_lossy(why))),
                None if line.starts_with(b"NAK") || line.starts_with(b"ACK") => break,
                None => aside(&line)?,
            }
        }
        let store = self.repository.odb()?;
        let mut pack = store.packwriter()?;
        let mut scan = Scan::new(limits);
        while let Some(line) = lines.next()? {
            match line.split_first() {
                Some((1, bytes)) => {
                    scan.take(bytes).map_err(|why| self.too_much(why))?;
                    pack.write_all(bytes).map_err(|_| self.wrong("its pack of objects is damaged"))?;
                    self.client.hear(&News::Fetched { bytes: bytes.len() as u64 });
                }
                Some((3, why)) => return Err(self.wrong(&String::from_utf8_lossy(why))),
                _ => aside(&line)?,
            }
        }
        pack.commit().map_err(|error| self.wrong(&format!("its pack of objects is damaged: {}", error.message())))?;
        Ok(())
    }

    fn wrong(&self, why: &str) -> GitError {
        let why = self.credential.map_or_else(|| why.to_string(), |sent| sent.scrub(why));
        GitError::Protocol { host: self.advertised.base.authority(), why: plain(&why) }
    }

    fn too_much(&self, why: String) -> GitError {
        GitError::TooMuch { host: self.advertised.base.authority(), why }
    }
}

/// A line behind its length in four hex digits.
fn line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(format!("{:04x}{text}", text.len() + 4).as_bytes());
}

/// The lines of an answer.
struct Lines<'a, R> {
    inner: BufReader<Take<R>>,
    limit_bytes: u64,
    host: &'a str,
    limits: &'a Limits,
}

impl<'a, R: Read> Lines<'a, R> {
    fn new(inner: R, limit_bytes: u64, host: &'a str, limits: &'a Limits) -> Lines<'a, R> {
        Lines { inner: BufReader::with_capacity(1 << 17, inner.take(limit_bytes)), limit_bytes, host, limits }
    }

    /// The next line; none stands for the mark between two groups.
    fn next(&mut self) -> Result<Option<Vec<u8>>, GitError> {
        let mut digits = [0u8; 4];
        self.fill(&mut digits)?;
        let length = std::str::from_utf8(&digits).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        match length {
            Some(0..=3) => Ok(None),
            Some(length) => {
                let mut line = vec![0u8; length - 4];
                self.fill(&mut line)?;
                Ok(Some(line))
            }
            None => Err(self.wrong("a line without a length")),
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), GitError> {
        let read = self.inner.read_exact(bytes);
        read.map_err(|error| match self.inner.get_ref().limit() {
            0 => GitError::TooMuch { host: self.host.to_string(), why: format!("more than {}", units::show_size(self.limit_bytes)) },
            _ => broken(self.host, &error, self.limits).into(),
        })
    }

    fn wrong(&self, why: &str) -> GitError {
        GitError::Protocol { host: self.host.to_string(), why: why.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_back() {
        let mut bytes = Vec::new();
        line(&mut bytes, "want x\n");
        bytes.extend_from_slice(b"0000");
        line(&mut bytes, "");
        assert_eq!(&bytes[..4], b"000b");
        let limits = Limits::default();
        let lines = |inner| Lines::new(inner, 1 << 20, "h", &limits);
        let mut first = lines(bytes.as_slice());
        assert_eq!(first.next().unwrap().as_deref(), Some(&b"want x\n"[..]));
        assert_eq!(first.next().unwrap(), None);
        assert_eq!(first.next().unwrap().as_deref(), Some(&b""[..]));
        assert!(first.next().is_err());
        assert!(lines(&b"zzzz"[..]).next().is_err());
        assert!(lines(&b"00ffab"[..]).next().is_err());
    }
}
