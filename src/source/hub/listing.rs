//! What the Hub's interface answers: the commit of a revision, the files of a commit. Nothing in it is believed before it is checked.

use serde::Deserialize;

use super::HubError;
use crate::source::entry;
use crate::source::http::Expected;
use crate::source::http::download::hex;
use crate::source::http::said::plain;
use crate::source::out::OutError;

/// A file of a commit. A listing may have many: the digests stand in it as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub path: String,
    pub size_bytes: u64,
    pub content: Content,
}

/// What a file is checked by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Its git blob.
    Small([u8; 20]),
    /// The SHA-256 of what Git LFS keeps.
    Large([u8; 32]),
}

#[derive(Debug, Default)]
pub struct Page {
    pub entries: Vec<Entry>,
    pub folders: usize,
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    oid: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Large>,
}

#[derive(Deserialize)]
struct Large {
    oid: String,
    size: u64,
}

/// The commit in an answer about a revision.
pub fn commit(bytes: &[u8]) -> Result<String, String> {
    let revision: Revision = serde_json::from_slice(bytes).map_err(|error| plain(&format!("its answer names no commit: {error}")))?;
    match bytes_of::<20>(&revision.sha) {
        Some(_) => Ok(revision.sha),
        None => Err(format!("`{}` is not a commit", plain(&revision.sha))),
    }
}

impl Page {
    /// The files and folders, each with a path that may be used.
    pub fn parse(bytes: &[u8]) -> Result<Page, PageError> {
        let items: Vec<Item> =
            serde_json::from_slice(bytes).map_err(|error| PageError::Nonsense(plain(&format!("its listing cannot be read: {error}"))))?;
        let mut page = Page::default();
        for item in items {
            match item.kind.as_str() {
                "directory" => page.folders += 1,
                "file" => page.entries.push(item.entry()?),
                other => {
                    let why = format!("`{}` is a {}, which a source cannot hold", plain(&item.path), plain(other));
                    return Err(PageError::Nonsense(why));
                }
            }
        }
        Ok(page)
    }
}

/// What is wrong with a page.
#[derive(Debug)]
pub enum PageError {
    Nonsense(String),
    Out(OutError),
}

impl Item {
    fn entry(self) -> Result<Entry, PageError> {
        let content = match &self.lfs {
            Some(large) => bytes_of(large.oid.strip_prefix("sha256:").unwrap_or(&large.oid)).map(Content::Large),
            None => bytes_of(&self.oid).map(Content::Small),
        };
        let content = content.ok_or_else(|| PageError::Nonsense(format!("`{}` is listed without a digest", plain(&self.path))))?;
        if let Err(why) = entry::safe(&self.path) {
            return Err(PageError::Out(OutError::Name { name: self.path, why }));
        }
        let size_bytes = self.lfs.map_or(self.size, |large| large.size);
        Ok(Entry { path: self.path, size_bytes, content })
    }
}

impl Entry {
    pub fn expected(&self) -> Expected {
        match &self.content {
            Content::Small(sha1) => Expected::GitBlob { hex: hex(sha1), size_bytes: self.size_bytes },
            Content::Large(sha256) => Expected::Sha256 { hex: hex(sha256), size_bytes: Some(self.size_bytes) },
        }
    }
}

/// The address of the next page in a `Link` header.
pub fn next(header: &str) -> Option<&str> {
    let link = header.split(',').find(|link| link.contains("rel=\"next\""))?;
    link.split_once('<')?.1.split_once('>').map(|(address, _)| address)
}

/// Sorted, each once.
pub fn checked(mut entries: Vec<Entry>) -> Result<Vec<Entry>, HubError> {
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    match entries.windows(2).find(|pair| pair[0].path == pair[1].path) {
        Some(pair) => Err(OutError::Twice(pair[0].path.clone()).into()),
        None => Ok(entries),
    }
}

/// The bytes of lower-case hex digits.
fn bytes_of<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0u8; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_as_the_hub_gives_it() {
        let text = format!(
            r#"[{{"type":"directory","oid":"{a}","size":0,"path":"onnx"}},
                {{"type":"file","oid":"{a}","size":704,"path":"config.json"}},
                {{"type":"file","oid":"{a}","size":269060552,"lfs":{{"oid":"{b}","size":269060552,"pointerSize":134}},"xetHash":"{b}","path":"model.safetensors"}}]"#,
            a = "0a".repeat(20),
            b = "0b".repeat(32)
        );
        let page = Page::parse(text.as_bytes()).unwrap();
        assert_eq!(page.entries[0], Entry { path: "config.json".into(), size_bytes: 704, content: Content::Small([10; 20]) });
        let expected = Expected::Sha256 { hex: "0b".repeat(32), size_bytes: Some(269060552) };
        assert_eq!((page.entries[1].expected(), page.folders), (expected, 1));
        for bad in [
            "",
            "{}",
            "[1]",
            r#"[{"type":"file","path":"a"}]"#,
            r#"[{"type":"link","path":"a"}]"#,
            r#"[{"type":"file","path":"a","size":-1}]"#,
        ] {
            assert!(Page::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Page::parse(text.replace("0b0b", "0B0b").as_bytes()).is_err());
        assert_eq!(commit(format!(r#"{{"id":"x","sha":"{}"}}"#, "0a".repeat(20)).as_bytes()).unwrap(), "0a".repeat(20));
        assert!(commit(br#"{"sha":"../../x"}"#).is_err());
    }

    #[test]
    fn pages_follow_each_other() {
        let header = "<https://h/api/x?cursor=a>; rel=\"next\", <https://h/first>; rel=\"first\"";
        assert_eq!(next(header), Some("https://h/api/x?cursor=a"));
        assert_eq!(next("<https://h/first>; rel=\"first\""), None);
    }

    #[test]
    fn names_that_lead_outside_are_refused() {
        let page = |path: &str| {
            Page::parse(format!(r#"[{{"type":"file","oid":"{}","path":{}}}]"#, "0a".repeat(20), serde_json::Value::from(path)).as_bytes())
        };
        for bad in ["../x", "/etc/passwd", "a/../../x", "a//b", "", ".git/config", &"x/".repeat(100), &"x".repeat(5000)] {
            assert!(matches!(page(bad), Err(PageError::Out(OutError::Name { name, .. })) if name == bad));
        }
        let entry = |path: &str| page(path).unwrap().entries.remove(0);
        assert_eq!(checked(vec![entry("b"), entry("a")]).unwrap()[0].path, "a");
        assert!(matches!(checked(vec![entry("a"), entry("a")]), Err(HubError::Out(OutError::Twice(_)))));
    }
}
