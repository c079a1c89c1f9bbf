//! A credential and the one server that it is sent to. Nothing else in slmops puts a secret into a request.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Address;

/// Shorter ones are words of any message.
const MIN_SCRUBBED_BYTES: usize = 4;

/// A header's value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A token, if it can stand in a header at all.
    pub fn bearer(token: &str) -> Option<Secret> {
        let token = token.trim();
        let is_plain = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        is_plain.then(|| Secret(format!("Bearer {token}")))
    }

    pub fn login(user: &str, password: &str) -> Secret {
        Secret(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }

    /// `user:password` in Base64.
    pub fn basic(encoded: &str) -> Option<Secret> {
        let is_plain = !encoded.is_empty() && encoded.bytes().all(|b| b.is_ascii_graphic());
        is_plain.then(|| Secret(format!("Basic {encoded}")))
    }

    /// A whole value, as a server gives it for another.
    pub fn raw(value: &str) -> Option<Secret> {
        let is_plain = !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        is_plain.then(|| Secret(value.to_string()))
    }

    /// What a server would repeat if it repeated it.
    fn words(&self) -> Vec<String> {
        let word = self.0.split_once(' ').map_or(self.0.as_str(), |(_, word)| word);
        let decoded = STANDARD.decode(word).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let password = decoded.as_deref().and_then(|text| text.split_once(':')).map(|(_, password)| password.to_string());
        [Some(self.0.clone()), Some(word.to_string()), decoded, password].into_iter().flatten().collect()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Secret headers and the server that they are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    home: Address,
    headers: Vec<(String, Secret)>,
}

impl Credential {
    /// An `Authorization` for the server of an address.
    pub fn new(secret: Secret, home: &Address) -> Credential {
        Credential::of_headers(vec![("Authorization".to_string(), secret)], home)
    }

    pub fn of_headers(headers: Vec<(String, Secret)>, home: &Address) -> Credential {
        Credential { home: home.clone(), headers }
    }

    /// Whether it may be sent to an address: to the same scheme, host and port, encrypted or within this machine.
    pub fn is_for(&self, address: &Address) -> bool {
        self.home.is_same_origin(address) && address.is_private()
    }

    /// The headers for an address; none if it is not meant for it.
    pub fn headers_for(&self, address: &Address) -> impl Iterator<Item = (&str, &str)> {
        let headers = if self.is_for(address) { self.headers.as_slice() } else { &[] };
        headers.iter().map(|(name, secret)| (name.as_str(), secret.0.as_str()))
    }

    /// The text without the secrets, should a server have put them into its answer.
    pub fn scrub(&self, text: &str) -> String {
        let mut text = text.to_string();
        for word in self.headers.iter().flat_map(|(_, secret)| secret.words()).filter(|word| word.len() >= MIN_SCRUBBED_BYTES) {
            text = text.replace(&word, "…");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn a_credential_goes_to_its_own_server_only() {
        let credential = Credential::new(Secret::bearer("tok").unwrap(), &at("https://a.example/x"));
        assert!(credential.is_for(&at("https://a.example/y?z")));
        assert!(credential.is_for(&at("https://A.example:443/")));
        for other in
            ["http://a.example/x", "https://a.example:8443/x", "https://b.a.example/", "https://a.example.evil/", "http://localhost/"]
        {
            assert!(!credential.is_for(&at(other)), "{other}");
            assert_eq!(credential.headers_for(&at(other)).count(), 0);
        }
        // Unencrypted it goes nowhere but to this machine.
        assert!(!Credential::new(Secret::bearer("tok").unwrap(), &at("http://a.example/x")).is_for(&at("http://a.example/x")));
        assert!(Credential::new(Secret::bearer("tok").unwrap(), &at("http://localhost:1/")).is_for(&at("http://localhost:1/x")));
        assert!(!Credential::new(Secret::bearer("tok").unwrap(), &at("http://localhost:1/")).is_for(&at("http://127.0.0.1:1/x")));
    }

    #[test]
    fn a_secret_is_neither_printed_nor_repeated() {
        let credential = Credential::new(Secret::login("me", "pass word"), &at("https://a.example/"));
        assert!(!format!("{credential:?}").contains("pass"));
        let encoded = STANDARD.encode("me:pass word");
        let said = credential.scrub(&format!("bad `Basic {encoded}`, {encoded}, me:pass word, pass word!"));
        assert_eq!(said, "bad `…`, …, …, …!");
        assert_eq!(Credential::new(Secret::bearer("abc").unwrap(), &at("https://a.example/")).scrub("abc"), "abc");
        assert_eq!(Secret::bearer("a b"), None);
        assert_eq!(Secret::bearer("ä"), None);
        assert_eq!(Secret::raw("a\r\nb"), None);
    }
}
