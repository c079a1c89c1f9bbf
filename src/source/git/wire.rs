//! Git's "smart" protocol over HTTP (gitprotocol-http, version 0), as a reader of single commits needs it: one commit without its history where
//! the server can give that, everything where it cannot.

use std::io::{Read, Write};

use git2::{Oid, Repository};

use super::{GitError, commit};
use crate::source::http::{Address, Client, HttpError, Request, Response};
use crate::source::origin::Want;
use crate::source::remote::{News, Secret};

const MAX_ADVERTISED_BYTES: u64 = 256 << 20;
const SERVICE: &str = "/info/refs?service=git-upload-pack";

/// What a server has.
struct Advertised {
    /// Where it says it lives, after redirects.
    base: Address,
    /// Name and object, as they came.
    refs: Vec<(String, Oid)>,
    capabilities: Vec<String>,
}

/// Brings what is wanted into the repository and tells the commit.
pub fn fetch(client: &Client, address: &Address, secret: Option<&Secret>, repository: &Repository, want: &Want) -> Result<Oid, GitError> {
    let advertised = advertise(client, address, secret)?;
    let missing = || GitError::NoRevision(want.text());
    let session = Session { client, secret, advertised: &advertised, repository };
    if let Some(tip) = advertised.tip(want) {
        session.take(&[tip], Depth::One)?;
        return commit(repository, &tip.to_string()).ok_or_else(missing);
    }
    let Want::Rev(rev) = want else { return Err(missing()) };
    if let (40, Ok(oid)) = (rev.len(), Oid::from_str(rev)) {
        let gives_any = ["allow-reachable-sha1-in-want", "allow-any-sha1-in-want"].iter().any(|word| advertised.can(word));
        // Refused, or not there: it may still come with the rest.
        if gives_any && session.take(&[oid], Depth::One).is_ok() {
            return commit(repository, rev).ok_or_else(missing);
        }
    }
    let mut tips: Vec<Oid> = advertised.refs.iter().filter(|(name, _)| !name.ends_with("^{}")).map(|(_, oid)| *oid).collect();
    tips.sort_unstable();
    tips.dedup();
    session.take(&tips, Depth::All)?;
    commit(repository, rev).ok_or_else(missing)
}

fn advertise(client: &Client, address: &Address, secret: Option<&Secret>) -> Result<Advertised, GitError> {
    let response = client.send(&Request::get(address.below(SERVICE)).secret(secret.cloned()))?;
    let host = response.address.authority();
    if matches!(response.status, 401 | 403 | 404) {
        return Err(GitError::Refused { host, status: response.status });
    }
    let response = response.good()?;
    let wrong = |why: &str| GitError::Protocol { host: host.clone(), why: why.to_string() };
    if response.header("content-type").is_none_or(|kind| !kind.starts_with("application/x-git-upload-pack-advertisement")) {
        return Err(wrong("there is no repository, or one that only offers files (the \"dumb\" protocol)"));
    }
    let end = response.address.clone();
    let base =
        end.path.strip_suffix(SERVICE).map(|path| Address { path: path.to_string(), ..end.clone() }).unwrap_or_else(|| address.clone());
    let bytes = response.bytes(MAX_ADVERTISED_BYTES)?;
    let mut lines = Lines(bytes.as_slice());
    let mut advertised = Advertised { base, refs: Vec::new(), capabilities: Vec::new() };
    let mut ends = 0;
    while ends < 2 {
        let Some(line) = lines.next().map_err(|why| wrong(&why))? else {
            ends += 1;
            continue;
        };
        let line = String::from_utf8_lossy(&line).trim_end().to_string();
        if line.starts_with('#') {
            continue;
        }
        let (line, capabilities) = line.split_once('\0').unwrap_or((&line, ""));
        advertised.capabilities.extend(capabilities.split(' ').map(str::to_string));
        let named = line.split_once(' ').and_then(|(oid, name)| Some((name.to_string(), Oid::from_str(oid).ok()?)));
        let (name, oid) = named.ok_or_else(|| wrong("a branch without a commit"))?;
        if name != "capabilities^{}" {
            advertised.refs.push((name, oid));
        }
    }
    Ok(advertised)
}

impl Advertised {
    fn can(&self, word: &str) -> bool {
        self.capabilities.iter().any(|capability| capability == word)
    }

    fn find(&self, name: &str) -> Option<Oid> {
        self.refs.iter().find(|(known, _)| known == name).map(|(_, oid)| *oid)
    }

    /// The object at the tip that is wanted: a commit, or the tag that leads to it.
    fn tip(&self, want: &Want) -> Option<Oid> {
        match want {
            Want::Head => self.find("HEAD"),
            Want::Branch(name) => self.find(&format!("refs/heads/{name}")),
            Want::Tag(name) => self.find(&format!("refs/tags/{name}")),
            Want::Rev(rev) => {
                let oid = Oid::from_str(rev).ok().filter(|_| rev.len() == 40)?;
                let (name, _) = self.refs.iter().find(|(_, known)| *known == oid)?;
                self.find(name.trim_end_matches("^{}"))
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    One,
    All,
}

struct Session<'a> {
    client: &'a Client,
    secret: Option<&'a Secret>,
    advertised: &'a Advertised,
    repository: &'a Repository,
}

impl Session<'_> {
    /// Fetches objects with all that they need into the repository's store.
    fn take(&self, wants: &[Oid], depth: Depth) -> Result<(), GitError> {
        let base = &self.advertised.base;
        if wants.is_empty() || wants.iter().all(|oid| commit(self.repository, &oid.to_string()).is_some()) && depth == Depth::One {
            return Ok(());
        }
        if !self.advertised.can("side-band-64k") {
            return Err(self.wrong("it knows no `side-band-64k`"));
        }
        let request = Request {
            body: Some(self.request(wants, depth)),
            ..Request::get(base.below("/git-upload-pack"))
                .secret(self.secret.cloned())
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
        let broken = |why: String| GitError::Http(HttpError::Broken { host: host.clone(), attempts: 1, why });
        let mut lines = Lines(std::io::BufReader::with_capacity(1 << 17, response.body));
        loop {
            let Some(line) = lines.next().map_err(broken)? else { continue };
            match line.strip_prefix(b"ERR ") {
                Some(why) => return Err(self.wrong(&String::from_utf8_lossy(why))),
                None if line.starts_with(b"NAK") || line.starts_with(b"ACK") => break,
                None => {}
            }
        }
        let store = self.repository.odb()?;
        let mut pack = store.packwriter()?;
        while let Some(line) = lines.next().map_err(broken)? {
            match line.split_first() {
                Some((1, bytes)) => {
                    pack.write_all(bytes).map_err(|_| self.wrong("its pack of objects is damaged"))?;
                    self.client.hear(&News::Fetched { bytes: bytes.len() as u64 });
                }
                Some((3, why)) => return Err(self.wrong(&String::from_utf8_lossy(why))),
                _ => {}
            }
        }
        pack.commit().map_err(|error| self.wrong(&format!("its pack of objects is damaged: {}", error.message())))?;
        Ok(())
    }

    fn wrong(&self, why: &str) -> GitError {
        GitError::Protocol {
            host: self.advertised.base.authority(),
            why: why.trim().chars().filter(|c| !c.is_control()).take(200).collect(),
        }
    }
}

/// A line behind its length in four hex digits.
fn line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(format!("{:04x}{text}", text.len() + 4).as_bytes());
}

struct Lines<R>(R);

impl<R: Read> Lines<R> {
    /// The next line; none stands for the mark between two groups.
    fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        let mut digits = [0u8; 4];
        self.0.read_exact(&mut digits).map_err(|error| error.to_string())?;
        let length = std::str::from_utf8(&digits).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        match length {
            Some(0..=3) => Ok(None),
            Some(length) => {
                let mut line = vec![0u8; length - 4];
                self.0.read_exact(&mut line).map_err(|error| error.to_string())?;
                Ok(Some(line))
            }
            None => Err("a line without a length".to_string()),
        }
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
        let mut lines = Lines(bytes.as_slice());
        assert_eq!(lines.next().unwrap().as_deref(), Some(&b"want x\n"[..]));
        assert_eq!(lines.next().unwrap(), None);
        assert_eq!(lines.next().unwrap().as_deref(), Some(&b""[..]));
        assert!(lines.next().is_err());
        assert!(Lines(&b"zzzz"[..]).next().is_err());
        assert!(Lines(&b"00ffab"[..]).next().is_err());
    }
}
