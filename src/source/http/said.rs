//! Words of servers, made fit for a terminal, a log and a person: short, on one line, without characters that do something.

/// Longer than any message that helps.
const MAX_CHARS: usize = 200;

/// The text without control characters and without those that change the direction of writing, cut to what a line holds.
pub fn plain(text: &str) -> String {
    let mut out: String = text.chars().filter(|c| !acts(*c)).take(MAX_CHARS + 1).collect();
    if out.chars().count() > MAX_CHARS {
        out.pop();
        out.push('…');
    }
    out.trim().to_string()
}

/// The same for a whole message of ours with words of a server in it, which may be longer.
pub fn message(text: &str) -> String {
    const MAX_CHARS: usize = 2000;
    text.chars().filter(|c| !acts(*c)).take(MAX_CHARS).collect()
}

fn acts(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// An address without what may be secret: user, password and query.
pub fn address(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let (path, query) = rest.split_at(end);
    // A password may have any character in it, written as it should be or not.
    let rest = text.rsplit_once('@').map_or(path, |(_, host)| host.split(['?', '#']).next().unwrap_or_default());
    let user = if text.contains('@') { "…@" } else { "" };
    let sign = if scheme.is_empty() { "" } else { "://" };
    let query = if query.starts_with('?') { "?…" } else { "" };
    plain(&format!("{scheme}{sign}{user}{rest}{query}"))
}

/// Whether an address names a password, or, over HTTP, a user, which is often one.
pub fn holds_password(text: &str) -> bool {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    match authority.rsplit_once('@') {
        Some((user, _)) => is_http || user.contains(':'),
        // `https://user:pass/word@host`: what stands before the slash looks like a host with a strange port.
        None => {
            let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|_| !authority.ends_with(']'));
            is_http && rest.contains('@') && port.is_some_and(|port| port.parse::<u16>().is_err())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_servers_do_nothing() {
        assert_eq!(plain("a\u{1b}[2Jb\r\nc\u{202e}d\u{200b}"), "a[2Jbcd");
        assert_eq!(plain("grün 漢字"), "grün 漢字");
        assert_eq!(plain(&"x".repeat(500)).chars().count(), 201);
    }

    #[test]
    fn addresses_are_shown_without_secrets() {
        for (text, shown) in [
            ("https://h/a/b?token=x#y", "https://h/a/b?…"),
            ("https://user:pw@h/a", "https://…@h/a"),
            ("ftp://user:p@w@h/a?q", "ftp://…@h/a?…"),
            ("https://user:pa/ss@h/a", "https://…@h/a"),
            ("https://user:pa?ss@h/a", "https://…@h/a?…"),
            ("user:pw@h/a", "…@h/a"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(address(text), shown, "{text}");
        }
        for text in ["https://u:p@h/", "https://token@h/", "http://u@h", "ssh://u:p@h/x", "u:p@h/x", "HTTPS://u@h", "https://u:a/b@h/"] {
            assert!(holds_password(text), "{text}");
        }
        for text in [
            "https://h/@a/b",
            "git@h:a/b",
            "ssh://git@h/a",
            "r.io/a@sha256:00",
            "https://h:80/a@b",
            "https://[::1]:80/@",
            "https://[::1]/@",
            "data/a@b",
        ] {
            assert!(!holds_password(text), "{text}");
        }
    }
}
