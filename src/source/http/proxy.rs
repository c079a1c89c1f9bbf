//! Which proxy a server is spoken to through. Servers on this machine never are: what is meant for them would leave it.

use ureq::ProxyProtocol;

use super::{Address, HttpError, said};

/// As the environment names them; checked when the network is used.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// For `https://` addresses.
    pub secure: Option<Named>,
    /// For `http://` addresses.
    pub plain: Option<Named>,
    /// Hosts that are spoken to directly, as `NO_PROXY` lists them.
    pub except: Vec<String>,
}

/// A proxy and the variable that names it.
#[derive(Clone)]
pub struct Named {
    pub variable: &'static str,
    pub address: String,
}

impl std::fmt::Debug for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Named").field("variable", &self.variable).finish_non_exhaustive()
    }
}

/// How an address is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    Direct,
    Secure,
    Plain,
}

impl Proxies {
    pub fn route(&self, address: &Address) -> Route {
        let named = if address.is_secure { &self.secure } else { &self.plain };
        if named.is_none() || address.is_local() || self.except.iter().any(|entry| covers(entry, &address.host)) {
            return Route::Direct;
        }
        if address.is_secure { Route::Secure } else { Route::Plain }
    }

    pub fn proxy(&self, route: Route) -> Result<Option<ureq::Proxy>, HttpError> {
        let named = match route {
            Route::Direct => None,
            Route::Secure => self.secure.as_ref(),
            Route::Plain => self.plain.as_ref(),
        };
        named.map(Named::parse).transpose()
    }
}

impl Named {
    fn parse(&self) -> Result<ureq::Proxy, HttpError> {
        let wrong = |why| HttpError::Proxy { variable: self.variable, address: said::address(&self.address), why };
        let proxy = ureq::Proxy::new(self.address.trim()).map_err(|_| wrong("it is not the address of a proxy"))?;
        if proxy.host().is_empty() {
            return Err(wrong("it names no host"));
        }
        match proxy.protocol() {
            ProxyProtocol::Http | ProxyProtocol::Https => Ok(proxy),
            _ => Err(wrong("slmops has no SOCKS: it speaks to proxies over http and https")),
        }
    }
}

/// `*`, `example.org` and `.example.org` (both also for what is below them), as curl reads them.
fn covers(entry: &str, host: &str) -> bool {
    let entry = entry.trim().to_ascii_lowercase();
    if entry == "*" {
        return true;
    }
    let entry = entry.trim_start_matches("*.").trim_start_matches('.');
    let host = host.trim_start_matches('[').trim_end_matches(']');
    !entry.is_empty() && (host == entry || host.strip_suffix(entry).is_some_and(|rest| rest.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scheme_has_its_proxy_and_this_machine_has_none() {
        let named = |address: &str| Some(Named { variable: "X", address: address.to_string() });
        let proxies = Proxies {
            secure: named("http://user:word@p.example:3128"),
            plain: None,
            except: vec!["b.example".into(), " .c.example".into(), "::2".into()],
        };
        let route = |text: &str| proxies.route(&Address::parse(text).unwrap());
        assert_eq!(route("https://a.example/"), Route::Secure);
        assert_eq!(route("http://a.example/"), Route::Direct);
        for direct in [
            "https://localhost/",
            "https://127.0.0.1:1/",
            "https://[::1]/",
            "https://b.example/",
            "https://x.b.example/",
            "https://x.c.example",
            "https://[::2]/",
        ] {
            assert_eq!(route(direct), Route::Direct, "{direct}");
        }
        assert_eq!(route("https://ab.example/"), Route::Secure);
        assert!(!covers("", "a.example") && !covers(" ", "a.example") && covers("*.A.example", "x.a.example"));
        assert!(proxies.proxy(Route::Secure).unwrap().is_some() && proxies.proxy(Route::Direct).unwrap().is_none());
        assert!(!format!("{proxies:?}").contains("word"));
        assert_eq!(Proxies { except: vec!["*".into()], ..proxies }.route(&Address::parse("https://a.example/").unwrap()), Route::Direct);
        for bad in ["socks5://user:word@p.example", "ftp://p.example", "http://", "user:word@:x"] {
            let error = Proxies { secure: named(bad), ..Proxies::default() }.proxy(Route::Secure).unwrap_err().to_string();
            assert!(!error.contains("word"), "{error}");
        }
    }
}
