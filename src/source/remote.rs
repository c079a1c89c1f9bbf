//! What fetching needs to know of the world: addresses, secrets, proxies, and who watches. The environment tells it; `cli` asks the environment.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub const HUB: &str = "https://huggingface.co";

/// How the network is reached.
#[derive(Clone)]
pub struct Remote {
    /// Of the Hugging Face Hub.
    pub hub: String,
    pub hub_token: Option<Secret>,
    pub proxy: Option<ureq::Proxy>,
    /// Certificates to trust instead of Mozilla's: a PEM file.
    pub certificates: Option<PathBuf>,
    /// `~/.netrc`, which holds passwords of servers.
    pub netrc: Option<PathBuf>,
    /// Docker's `config.json`, which holds credentials of registries.
    pub docker: Option<PathBuf>,
    pub watch: Arc<dyn Watch>,
    /// Before the second attempt; twice as long before each further one.
    pub pause: Duration,
}

impl Default for Remote {
    fn default() -> Remote {
        Remote {
            hub: HUB.to_string(),
            hub_token: None,
            proxy: None,
            certificates: None,
            netrc: None,
            docker: None,
            watch: Arc::new(Nobody),
            pause: Duration::from_secs(1),
        }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("hub", &self.hub).field("hub_token", &self.hub_token).finish_non_exhaustive()
    }
}

/// A header's value that nobody prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A token, if it can stand in a header at all.
    pub fn bearer(token: &str) -> Option<Secret> {
        let token = token.trim();
        let is_plain = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        is_plain.then(|| Secret(format!("Bearer {token}")))
    }

    /// `user:password` in Base64.
    pub fn basic(encoded: &str) -> Option<Secret> {
        let is_plain = !encoded.is_empty() && encoded.bytes().all(|b| b.is_ascii_graphic());
        is_plain.then(|| Secret(format!("Basic {encoded}")))
    }

    /// A whole `Authorization`, as a server gives it for another.
    pub fn raw(value: &str) -> Option<Secret> {
        let is_plain = !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        is_plain.then(|| Secret(value.to_string()))
    }

    pub fn header(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What happens while a source is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News<'a> {
    Begins {
        source: &'a str,
        from: &'a str,
    },
    /// What is to come, as far as it is known.
    Sized {
        files: usize,
        size_bytes: u64,
    },
    /// Of a file that is here already, in part or whole.
    Found {
        bytes: u64,
    },
    Fetched {
        bytes: u64,
    },
    /// What is not fetched, though it is there.
    LeftOut {
        files: &'a [String],
    },
    Waits {
        seconds: u64,
        why: &'a str,
    },
    Ends {
        source: &'a str,
    },
}

/// Somebody who hears of it; from several threads at once.
pub trait Watch: Send + Sync {
    fn hear(&self, news: &News);
}

/// Nobody does.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl Watch for Nobody {
    fn hear(&self, _: &News) {}
}
