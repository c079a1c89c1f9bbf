//! `~/.netrc`, where git and curl look for passwords: each is told to the host that it names, over an encrypted connection or to this machine.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::http::Address;
use super::remote::{Remote, Secret};

/// The `Authorization` for a host, if the file has one.
pub fn secret(remote: &Remote, address: &Address) -> Option<Secret> {
    if !address.is_secure && !address.is_local() {
        return None;
    }
    let text = std::fs::read_to_string(remote.netrc.as_ref()?).ok()?;
    let (login, password) = find(&text, &address.host)?;
    Secret::basic(&STANDARD.encode(format!("{login}:{password}")))
}

fn find(text: &str, host: &str) -> Option<(String, String)> {
    // A macro runs to the next empty line and may hold any word.
    let lines = text.split("\n\n").map(|block| block.split("macdef").next().unwrap_or_default());
    let words: Vec<&str> =
        lines.flat_map(str::lines).filter(|line| !line.trim_start().starts_with('#')).flat_map(str::split_whitespace).collect();
    let mut words = words.into_iter();
    let (mut is_meant, mut login, mut password) = (false, None, None);
    while let Some(word) = words.next() {
        match word {
            "machine" | "default" => {
                if is_meant && password.is_some() {
                    break;
                }
                is_meant = word == "machine" && words.next() == Some(host);
                (login, password) = (None, None);
            }
            "login" => login = words.next(),
            "password" => password = words.next(),
            _ => {}
        }
    }
    is_meant.then_some(())?;
    Some((login?.to_string(), password?.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_its_own() {
        let text = "# mine\nmachine a.example login x password y\nmachine b.example\n  login u\n  password v\nmacdef z\n machine c.example login q password q\n\ndefault login d password e\n";
        assert_eq!(find(text, "a.example"), Some(("x".into(), "y".into())));
        assert_eq!(find(text, "b.example"), Some(("u".into(), "v".into())));
        assert_eq!(find(text, "c.example"), None);
        assert_eq!(find("machine a login x", "a"), None);
        assert_eq!(find("machine", "a"), None);
    }
}
