//! What the Hub's interface answers: the commit of a revision, the files of a commit. Nothing in it is believed before it is checked.

use serde::Deserialize;

use super::HubError;
use crate::source::entry;

/// A file of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub path: String,
    pub size_bytes: u64,
    /// Of its git blob: for a large file, of the pointer.
    pub oid: String,
    /// Of a large file's content.
    pub sha256: Option<String>,
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
    let revision: Revision = serde_json::from_slice(bytes).map_err(|error| format!("its answer names no commit: {error}"))?;
    if is_hex(&revision.sha, 40) { Ok(revision.sha) } else { Err(format!("`{}` is no commit", revision.sha)) }
}

impl Page {
    pub fn parse(bytes: &[u8]) -> Result<Page, String> {
        let items: Vec<Item> = serde_json::from_slice(bytes).map_err(|error| format!("its listing cannot be read: {error}"))?;
        let mut page = Page::default();
        for item in items {
            match item.kind.as_str() {
                "directory" => page.folders += 1,
                "file" => page.entries.push(item.entry()?),
                other => return Err(format!("`{}` is a {other}, which a source cannot hold", item.path)),
            }
        }
        Ok(page)
    }
}

impl Item {
    fn entry(self) -> Result<Entry, String> {
        let large = self.lfs.map(|large| (large.oid.strip_prefix("sha256:").unwrap_or(&large.oid).to_string(), large.size));
        match large {
            Some((sha256, size_bytes)) if is_hex(&sha256, 64) => {
                Ok(Entry { path: self.path, size_bytes, oid: self.oid, sha256: Some(sha256) })
            }
            None if is_hex(&self.oid, 40) => Ok(Entry { path: self.path, size_bytes: self.size, oid: self.oid, sha256: None }),
            _ => Err(format!("`{}` is listed without a digest", self.path)),
        }
    }
}

/// The address of the next page in a `Link` header.
pub fn next(header: &str) -> Option<&str> {
    let link = header.split(',').find(|link| link.contains("rel=\"next\""))?;
    link.split_once('<')?.1.split_once('>').map(|(address, _)| address)
}

/// Sorted, each once, each below the folder that it will stand in.
pub fn checked(mut entries: Vec<Entry>) -> Result<Vec<Entry>, HubError> {
    if let Some(entry) = entries.iter().find(|entry| entry::safe(&entry.path).is_none()) {
        return Err(HubError::Name(entry.path.clone()));
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    match entries.windows(2).find(|pair| pair[0].path == pair[1].path) {
        Some(pair) => Err(HubError::Twice(pair[0].path.clone())),
        None => Ok(entries),
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
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
        assert_eq!(page.entries[0], Entry { path: "config.json".into(), size_bytes: 704, oid: "0a".repeat(20), sha256: None });
        assert_eq!((page.entries[1].sha256.as_deref(), page.folders), (Some("0b".repeat(32).as_str()), 1));
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
        let entry = |path: &str| Entry { path: path.into(), size_bytes: 1, oid: "0a".repeat(20), sha256: None };
        assert_eq!(checked(vec![entry("b"), entry("a")]).unwrap()[0].path, "a");
        for bad in ["../x", "/etc/passwd", "a/../../x", "a//b", ""] {
            assert!(matches!(checked(vec![entry("a"), entry(bad)]), Err(HubError::Name(name)) if name == bad));
        }
        assert!(matches!(checked(vec![entry("a"), entry("a")]), Err(HubError::Twice(_))));
    }
}
