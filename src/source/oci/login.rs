//! How a registry is shown who asks (distribution specification, "token authentication"): nobody, or who `docker login` has noted.
//!
//! A registry names the server that gives out tokens (its realm), and may name any. What is noted for the registry goes to that server only where it is
//! the registry itself, or one that belongs to it by [`TOKEN_SERVERS`] or by the user's word.

use serde::Deserialize;

use super::{Name, OciError};
use crate::source::error::FetchError;
use crate::source::http::address::escape;
use crate::source::http::{Address, Client, Credential, HttpError, Request, Secret, said};
use crate::source::noted;
use crate::source::remote::Remote;

const MAX_TOKEN_BYTES: u64 = 1 << 20;

/// Registries whose own token server has another name.
pub const TOKEN_SERVERS: [(&str, &str); 2] = [("registry-1.docker.io", "auth.docker.io"), ("registry.gitlab.com", "gitlab.com")];
/// Where the user names others.
pub const TOKEN_SERVERS_VARIABLE: &str = "SLMOPS_TOKEN_SERVERS";

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// What became of a registry's question.
pub struct Login {
    pub credential: Credential,
    /// A server that was not told what is noted for the registry.
    pub stranger: Option<String>,
}

/// The credential that a challenge (`WWW-Authenticate`) asks for.
pub fn login(client: &Client, remote: &Remote, name: &Name, challenge: &str) -> Result<Login, FetchError> {
    let unknown = || OciError::Login(name.registry.authority(), said::plain(challenge));
    let noted = noted(remote, name)?;
    let (scheme, rest) = challenge.split_once(' ').unwrap_or((challenge, ""));
    if scheme.eq_ignore_ascii_case("basic") {
        let credential = noted.map(|secret| Credential::new(secret, &name.registry));
        let refused = OciError::Refused { name: Box::new(name.clone()), is_known: false, stranger: None };
        return Ok(Login { credential: credential.ok_or(refused)?, stranger: None });
    }
    let realm = field(rest, "realm").filter(|_| scheme.eq_ignore_ascii_case("bearer")).ok_or_else(unknown)?;
    let realm = Address::parse(realm).map_err(|_| unknown())?;
    // A registry elsewhere has no business with servers on this machine.
    if !(realm.is_secure || realm.is_local() && name.registry.is_local()) {
        return Err(unknown().into());
    }
    let is_its_own = is_its_own(remote, &name.registry, &realm)?;
    let stranger = (noted.is_some() && !is_its_own).then(|| realm.authority());
    let credential = noted.filter(|_| is_its_own).map(|secret| Credential::new(secret, &realm));
    let is_known = credential.is_some();
    let response = client.send(&Request::get(ask(rest, name, realm)).credential(credential))?;
    if matches!(response.status, 400 | 401 | 403) {
        return Err(OciError::Refused { name: Box::new(name.clone()), is_known, stranger }.into());
    }
    let bytes = response.good()?.bytes(MAX_TOKEN_BYTES)?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|_| unknown())?;
    let token = token.token.or(token.access_token).and_then(|token| Secret::bearer(&token)).ok_or_else(unknown)?;
    Ok(Login { credential: Credential::new(token, &name.registry), stranger })
}

/// The address that a token is asked for at.
fn ask(challenge: &str, name: &Name, realm: Address) -> Address {
    let mut query = Vec::new();
    if let Some(service) = field(challenge, "service") {
        query.push(format!("service={}", escape(service)));
    }
    let scope = field(challenge, "scope").map_or_else(|| format!("repository:{}:pull", name.repository), str::to_string);
    query.push(format!("scope={}", escape(&scope)));
    let sign = if realm.path.contains('?') { '&' } else { '?' };
    Address { path: format!("{}{sign}{}", realm.path, query.join("&")), ..realm }
}

/// Whether a token server may see what is noted for the registry.
fn is_its_own(remote: &Remote, registry: &Address, realm: &Address) -> Result<bool, HttpError> {
    if realm.is_same_origin(registry) {
        return Ok(true);
    }
    let (of, to) = (registry.authority(), realm.authority());
    if realm.is_secure && TOKEN_SERVERS.contains(&(of.as_str(), to.as_str())) {
        return Ok(true);
    }
    for entry in remote.token_servers.iter().flat_map(|list| list.split(',')).map(str::trim).filter(|entry| !entry.is_empty()) {
        let Some((registry, server)) = entry.split_once('=') else {
            let why = format!("`{}` is not written as `registry.example=auth.example`", said::plain(entry));
            return Err(HttpError::Credentials { file: TOKEN_SERVERS_VARIABLE.to_string(), why });
        };
        if registry.trim().eq_ignore_ascii_case(&of) && server.trim().eq_ignore_ascii_case(&to) {
            return Ok(true);
        }
    }
    Ok(false)
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
fn noted(remote: &Remote, name: &Name) -> Result<Option<Secret>, HttpError> {
    let Some(path) = &remote.docker else { return Ok(None) };
    let Some(text) = noted::read(path)? else { return Ok(None) };
    // What serde says of a text may show some of it.
    let unusable = |why: &str| HttpError::Credentials { file: path.display().to_string(), why: why.to_string() };
    let config: serde_json::Value = serde_json::from_str(&text).map_err(|_| unusable("it is not JSON"))?;
    let Some(auths) = config.get("auths").and_then(|auths| auths.as_object()) else { return Ok(None) };
    let entry = name.login_names().into_iter().find_map(|name| auths.get(&name));
    // With a credential helper the entry is there and empty.
    let Some(auth) = entry.and_then(|entry| entry.get("auth")).and_then(|auth| auth.as_str()).filter(|auth| !auth.is_empty()) else {
        return Ok(None);
    };
    Secret::basic(auth).map(Some).ok_or_else(|| unusable("an `auth` in it is not Base64"))
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

    #[test]
    fn a_token_server_belongs_to_its_registry_by_name_or_by_the_users_word() {
        let remote =
            Remote { token_servers: Some("r.example:5000=auth.example, r2.example = auth2.example:8443 ,".into()), ..Remote::default() };
        let may =
            |registry: &str, realm: &str| is_its_own(&remote, &Address::parse(registry).unwrap(), &Address::parse(realm).unwrap()).unwrap();
        for (registry, realm) in [
            ("https://r.io", "https://r.io/token"),
            ("http://localhost:5000", "http://localhost:5000/token"),
            ("https://registry-1.docker.io", "https://auth.docker.io/token"),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth"),
            ("https://r.example:5000", "https://auth.example/token"),
            ("https://r2.example", "https://AUTH2.example:8443/token"),
        ] {
            assert!(may(registry, realm), "{registry} {realm}");
        }
        for (registry, realm) in [
            ("https://r.io", "https://auth.r.io/token"),
            ("https://r.io", "https://r.io:5001/token"),
            ("https://r.io:5000", "https://r.io/token"),
            ("https://r.io", "http://r.io/token"),
            ("https://a.r.io", "https://r.io/token"),
            ("https://r.io", "https://auth.docker.io/token"),
            ("https://auth.docker.io", "https://registry-1.docker.io/token"),
            ("https://registry-1.docker.io", "https://auth.docker.io.evil/token"),
            ("https://registry-1.docker.io", "https://auth.docker.io:8443/token"),
            ("http://localhost:5000", "http://localhost:5001/token"),
            ("https://r.example", "https://auth.example/token"),
            ("https://r2.example", "https://auth2.example/token"),
        ] {
            assert!(!may(registry, realm), "{registry} {realm}");
        }
        let remote = Remote { token_servers: Some("nonsense".into()), ..Remote::default() };
        assert!(is_its_own(&remote, &Address::parse("https://r.io").unwrap(), &Address::parse("https://q.io").unwrap()).is_err());
    }
}
