//! `~/.netrc`, where git and curl look for passwords: each is told to the host that it names, over an encrypted connection or to this machine. An entry
//! `default` names no host and is not used.

use super::http::{Address, Credential, HttpError, Secret};
use super::noted;
use super::remote::Remote;

/// The credential for the server of an address, if the file has one for its host.
pub fn credential(remote: &Remote, address: &Address) -> Result<Option<Credential>, HttpError> {
    let Some(path) = remote.netrc.as_ref().filter(|_| address.is_private()) else { return Ok(None) };
    let Some(text) = noted::read(path)? else { return Ok(None) };
    let found = find(&text, &address.host);
    Ok(found.map(|(login, password)| Credential::new(Secret::login(&login, &password), address)))
}

fn find(text: &str, host: &str) -> Option<(String, String)> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut words = Words(text);
    let (mut is_meant, mut login, mut password) = (false, None, None);
    while let Some(word) = words.next() {
        match word.as_str() {
            "machine" | "default" => {
                if is_meant && password.is_some() {
                    break;
                }
                is_meant = word == "machine" && words.next().is_some_and(|name| name.eq_ignore_ascii_case(host));
                (login, password) = (None, None);
            }
            "login" => login = words.next(),
            "password" => password = words.next(),
            "account" => drop(words.next()),
            "macdef" => words.skip_macro(),
            comment if comment.starts_with('#') => words.skip_line(),
            _ => {}
        }
    }
    if is_meant { Some((login?, password?)) } else { None }
}

/// Words between spaces; one in double quotes may hold spaces, and a backslash before a quote.
struct Words<'t>(&'t str);

impl Words<'_> {
    fn next(&mut self) -> Option<String> {
        self.0 = self.0.trim_start();
        let mut rest = self.0.char_indices();
        if !self.0.starts_with('"') {
            let end = rest.find(|(_, c)| c.is_whitespace()).map_or(self.0.len(), |(at, _)| at);
            let (word, rest) = self.0.split_at(end);
            self.0 = rest;
            return (!word.is_empty()).then(|| word.to_string());
        }
        let mut word = String::new();
        rest.next();
        while let Some((at, c)) = rest.next() {
            match c {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Some(word);
                }
                '\\' => word.extend(rest.next().map(|(_, c)| c)),
                c => word.push(c),
            }
        }
        self.0 = "";
        None
    }

    fn skip_line(&mut self) {
        self.0 = self.0.find('\n').map_or("", |at| &self.0[at..]);
    }

    /// A macro runs to the next empty line and may hold any word.
    fn skip_macro(&mut self) {
        self.0 = self.0.find("\n\n").map_or("", |at| &self.0[at..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_its_own() {
        let text = "# mine machine c.example\nmachine a.example login x password y # z\nmachine B.example\n  account q login u\n  password v\nmacdef z\n machine c.example login q password q\n\nmachine ::1 login \"a b\" password \"c \\\"macdef\\\\\"\nmachine d.example login x password #y\ndefault login d password e\n";
        let found = |host| find(text, host);
        assert_eq!(found("a.example"), Some(("x".into(), "y".into())));
        assert_eq!(found("b.example"), Some(("u".into(), "v".into())));
        assert_eq!(found("[::1]"), Some(("a b".into(), "c \"macdef\\".into())));
        assert_eq!(found("d.example"), Some(("x".into(), "#y".into())));
        for none in ["c.example", "example", "x.a.example", "a.example.evil", "default", "", "machine"] {
            assert_eq!(found(none), None, "{none}");
        }
        for (text, host) in
            [("machine a login x", "a"), ("machine", "a"), ("machine a login \"x", "a"), ("default login x password y", "a")]
        {
            assert_eq!(find(text, host), None, "{text}");
        }
        assert_eq!(find("machine a login x password y machine a login u password v", "a"), Some(("x".into(), "y".into())));
    }

    #[test]
    fn a_password_is_not_for_unencrypted_servers() {
        let space = tempfile::tempdir().unwrap();
        let netrc = space.path().join("netrc");
        std::fs::write(&netrc, "machine a.example login x password y\nmachine localhost login x password y\n").unwrap();
        let remote = Remote { netrc: Some(netrc.clone()), ..Remote::default() };
        let has = |text: &str| credential(&remote, &Address::parse(text).unwrap()).unwrap().is_some();
        assert!(has("https://a.example/") && has("https://a.example:99/") && has("http://localhost:1/"));
        assert!(!has("http://a.example/") && !has("https://b.example/"));
        std::fs::remove_file(&netrc).unwrap();
        assert!(!has("https://a.example/"));
        std::fs::create_dir(&netrc).unwrap();
        assert!(credential(&remote, &Address::parse("https://a.example/").unwrap()).is_err());
    }
}
