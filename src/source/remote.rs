//! What fetching needs to know of the world: addresses, secrets, proxies, and who watches. The environment tells it; `cli` asks the environment.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::http::{HttpError, Proxies, Secret};
use super::limits::Limits;
use super::noted;

pub const HUB: &str = "https://huggingface.co";

/// How the network is reached.
#[derive(Clone)]
pub struct Remote {
    /// Of the Hugging Face Hub.
    pub hub: String,
    pub hub_token: Option<Token>,
    pub proxies: Proxies,
    /// Certificates to trust instead of Mozilla's: a PEM file.
    pub certificates: Option<PathBuf>,
    /// `~/.netrc`, which holds passwords of servers.
    pub netrc: Option<PathBuf>,
    /// Docker's `config.json`, which holds credentials of registries.
    pub docker: Option<PathBuf>,
    /// Servers that a registry's credentials may go to besides the registry: `registry=server,…`.
    pub token_servers: Option<String>,
    pub limits: Limits,
    pub watch: Arc<dyn Watch>,
    /// Before the second attempt; twice as long before each further one.
    pub pause: Duration,
}

impl Default for Remote {
    fn default() -> Remote {
        Remote {
            hub: HUB.to_string(),
            hub_token: None,
            proxies: Proxies::default(),
            certificates: None,
            netrc: None,
            docker: None,
            token_servers: None,
            limits: Limits::default(),
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

/// The token of the Hub, or where it stands. It is read when the Hub is asked.
#[derive(Clone)]
pub enum Token {
    Given { variable: &'static str, text: String },
    File(PathBuf),
}

impl Token {
    /// The token, if there is one.
    pub fn secret(&self) -> Result<Option<Secret>, HttpError> {
        let (file, text) = match self {
            Token::Given { variable, text } => (variable.to_string(), Some(text.clone())),
            Token::File(path) => (path.display().to_string(), noted::read(path)?),
        };
        let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
        let why = "a token is one word of ASCII letters, digits and signs".to_string();
        Secret::bearer(&text).map(Some).ok_or(HttpError::Credentials { file, why })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
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
