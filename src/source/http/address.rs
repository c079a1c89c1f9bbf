//! An `http://` or `https://` URL.

use std::fmt;
use std::net::IpAddr;

use ureq::http::Uri;

use super::{HttpError, said};

/// Without user, password and fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub is_secure: bool,
    /// Lower case.
    pub host: String,
    pub port: u16,
    /// With its slash, its query and its escapes.
    pub path: String,
}

impl Address {
    pub fn parse(text: &str) -> Result<Address, HttpError> {
        let wrong = |why| HttpError::Address { text: said::address(text), why };
        if said::holds_password(text) {
            return Err(HttpError::Secret);
        }
        let (text, _) = text.split_once('#').unwrap_or((text, ""));
        let uri: Uri = text.parse().map_err(|_| wrong("it is not written as one"))?;
        let is_secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("it begins with neither `https://` nor `http://`")),
        };
        let authority = uri.authority().ok_or(wrong("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(HttpError::Secret);
        }
        let host = authority.host().to_ascii_lowercase();
        if host.is_empty() {
            return Err(wrong("it names no host"));
        }
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str().rsplit_once(':').is_some_and(|(_, port)| port.is_empty() || is_number(port)) => {
                return Err(wrong("its port is no port"));
            }
            None => default_port(is_secure),
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
        Ok(Address { is_secure, host, port, path })
    }

    /// Where a `Location` leads from here.
    pub fn join(&self, location: &str) -> Result<Address, HttpError> {
        let scheme = self.scheme();
        if location.starts_with("//") {
            return Address::parse(&format!("{scheme}:{location}"));
        }
        if location.split_once("://").is_some_and(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphanumeric())) {
            return Address::parse(location);
        }
        let path = if location.starts_with('/') {
            location.to_string()
        } else {
            let (path, _) = self.path.split_once('?').unwrap_or((&self.path, ""));
            let (folder, _) = path.rsplit_once('/').unwrap_or(("", ""));
            format!("{folder}/{location}")
        };
        Address::parse(&format!("{scheme}://{}{path}", self.authority()))
    }

    /// Below this address's path.
    #[must_use]
    pub fn below(&self, path: &str) -> Address {
        Address { path: format!("{}{path}", self.path.trim_end_matches('/')), ..self.clone() }
    }

    /// Whether a secret meant for the one may be told to the other.
    pub fn is_same_origin(&self, other: &Address) -> bool {
        (self.is_secure, &self.host, self.port) == (other.is_secure, &other.host, other.port)
    }

    /// Whether the host is this machine.
    pub fn is_local(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Whether nobody on the way can read along.
    pub fn is_private(&self) -> bool {
        self.is_secure || self.is_local()
    }

    /// All of it, as a request needs it. Messages show an address without its query, which may be a signature.
    pub fn url(&self) -> String {
        format!("{}://{}{}", self.scheme(), self.authority(), self.path)
    }

    fn scheme(&self) -> &'static str {
        if self.is_secure { "https" } else { "http" }
    }

    /// The host, with its port where it is not the usual one.
    pub fn authority(&self) -> String {
        if self.port == default_port(self.is_secure) { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// The path's last part, as a file may be called.
    pub fn file_name(&self) -> Option<String> {
        let (path, _) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let name = unescape(path.rsplit('/').next()?)?;
        crate::source::entry::safe(&name).ok().filter(|safe| safe.components().count() == 1).map(|_| name)
    }
}

/// For messages.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, query) = self.path.split_once('?').map_or((self.path.as_str(), ""), |(path, _)| (path, "?…"));
        write!(f, "{}://{}{}{query}", self.scheme(), self.authority(), said::plain(path))
    }
}

/// A path's part with everything escaped that is neither letter, digit, `-`, `.`, `_` nor `~`.
pub fn escape(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

/// The same for each part of a path.
pub fn escape_path(path: &str) -> String {
    path.split('/').map(escape).collect::<Vec<_>>().join("/")
}

fn unescape(part: &str) -> Option<String> {
    let mut bytes = part.bytes();
    let mut out = Vec::with_capacity(part.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn default_port(is_secure: bool) -> u16 {
    if is_secure { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart_and_joined() {
        let at = Address::parse("https://Hub.Example:8443/a/b.json?x=1#f").unwrap();
        assert_eq!((at.host.as_str(), at.port, at.path.as_str()), ("hub.example", 8443, "/a/b.json?x=1"));
        assert_eq!(at.url(), "https://hub.example:8443/a/b.json?x=1");
        assert_eq!(at.to_string(), "https://hub.example:8443/a/b.json?…");
        assert_eq!(at.join("/c").unwrap().to_string(), "https://hub.example:8443/c");
        assert_eq!(at.join("c?y=http://z").unwrap().url(), "https://hub.example:8443/a/c?y=http://z");
        assert_eq!(at.join("//other/c").unwrap().to_string(), "https://other/c");
        assert_eq!(at.join("http://other:80/").unwrap().to_string(), "http://other/");
        assert!(at.is_same_origin(&at.join("/c").unwrap()) && !at.is_same_origin(&at.join("http://hub.example:8443").unwrap()));
        assert_eq!(Address::parse("http://[::1]:99").unwrap().authority(), "[::1]:99");
        for local in ["http://127.0.0.1:1", "http://127.9.9.9", "http://[::1]", "http://LOCALHOST:80/x"] {
            assert!(Address::parse(local).unwrap().is_local(), "{local}");
        }
        for remote in [
            "http://127.0.0.1.example",
            "http://localhost.example",
            "http://10.0.0.1",
            "http://0.0.0.0",
            "http://2130706433",
            "http://[::2]",
        ] {
            assert!(!Address::parse(remote).unwrap().is_private(), "{remote}");
        }
        assert_eq!(at.file_name().as_deref(), Some("b.json"));
        assert_eq!(Address::parse("https://h/a%20b.txt").unwrap().file_name().as_deref(), Some("a b.txt"));
        for none in ["https://h", "https://h/a/", "https://h/..%2Fa", "https://h/..", "https://h/%zz"] {
            assert_eq!(Address::parse(none).unwrap().file_name(), None, "{none}");
        }
        for bad in ["", "x", "ftp://h/x", "https://", "https:///x", "https://h:99999/", "https://u:p@h/", "https://u@h/", "https://h h/"] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(escape_path("a b/c%ü"), "a%20b/c%25%C3%BC");
    }
}
