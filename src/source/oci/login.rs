//! How a registry is shown who asks (distribution specification, "token authentication"): nobody, or who `docker login` has noted.

use serde::Deserialize;

use super::{Name, OciError};
use crate::source::error::FetchError;
use crate::source::http::address::escape;
use crate::source::http::{Address, Client, Request};
use crate::source::remote::{Remote, Secret};

const MAX_TOKEN_BYTES: u64 = 1 << 20;

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// The secret that a challenge (`WWW-Authenticate`) asks for.
pub fn secret(client: &Client, remote: &Remote, name: &Name, challenge: &str) -> Result<Secret, FetchError> {
    let unknown = || OciError::Login(name.registry.authority(), challenge.chars().take(100).collect());
    let noted = noted(remote, name);
    let (scheme, rest) = challenge.split_once(' ').unwrap_or((challenge, ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return noted.ok_or_else(|| OciError::Refused { name: Box::new(name.clone()), is_known: false }.into());
    }
    let realm = field(rest, "realm").filter(|_| scheme.eq_ignore_ascii_case("bearer")).ok_or_else(unknown)?;
    let realm = Address::parse(realm)?;
    if !realm.is_secure && !realm.is_local() {
        return Err(unknown().into());
    }
    let mut query = Vec::new();
    if let Some(service) = field(rest, "service") {
        query.push(format!("service={}", escape(service)));
    }
    let scope = field(rest, "scope").map_or_else(|| format!("repository:{}:pull", name.repository), str::to_string);
    query.push(format!("scope={}", escape(&scope)));
    let sign = if realm.path.contains('?') { '&' } else { '?' };
    let address = Address { path: format!("{}{sign}{}", realm.path, query.join("&")), ..realm };
    let is_known = noted.is_some();
    let response = client.send(&Request::get(address).secret(noted))?;
    if matches!(response.status, 400 | 401 | 403) {
        return Err(OciError::Refused { name: Box::new(name.clone()), is_known }.into());
    }
    let bytes = response.good()?.bytes(MAX_TOKEN_BYTES)?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|_| unknown())?;
    let token = token.token.or(token.access_token).and_then(|token| Secret::bearer(&token));
    Ok(token.ok_or_else(unknown)?)
}

/// `name="value"` in a challenge.
fn field<'c>(challenge: &'c str, name: &str) -> Option<&'c str> {
    let mut rest = challenge;
    while let Some((key, tail)) = rest.split_once('=') {
        let tail = tail.trim_start();
        let (value, after) = match tail.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => tail.split_once(',').unwrap_or((tail, "")),
        };
        if key.trim_matches([' ', ',']).eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = after;
    }
    None
}

/// What `docker login` has written down for a registry.
fn noted(remote: &Remote, name: &Name) -> Option<Secret> {
    let text = std::fs::read(remote.docker.as_ref()?).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let auths = config.get("auths")?.as_object()?;
    let entry = name.login_names().into_iter().find_map(|name| auths.get(&name))?;
    Secret::basic(entry.get("auth")?.as_str()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_taken_apart() {
        let text = "realm=\"https://auth.io/token?a=b\",service=\"r.io\", scope=\"repository:a/b:pull,push\"";
        assert_eq!(field(text, "realm"), Some("https://auth.io/token?a=b"));
        assert_eq!(field(text, "scope"), Some("repository:a/b:pull,push"));
        assert_eq!(field("realm=x,service=y", "service"), Some("y"));
        assert_eq!(field("realm=\"x", "service"), None);
        assert_eq!(field("", "realm"), None);
    }
}
