//! What can go wrong between here and a server.

use std::io;

use crate::base::units;

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("`{text}` is not a valid web address: {why}")]
    Address { text: String, why: &'static str },
    #[error("the address holds a user or a password, which would be written to slmops.lock")]
    Secret,
    #[error("{0} leads to an address that holds a user or a password")]
    ForeignSecret(String),
    #[error("cannot reach {host}: {why}")]
    Unreachable { host: String, why: String },
    #[error("the connection to {host} broke {attempts} times: {why}")]
    Broken { host: String, attempts: u32, why: String },
    #[error("{host} is too slow: {why}")]
    TooSlow { host: String, why: String },
    #[error("{host} answers {status}{}", said(.message))]
    Status { host: String, status: u16, code: Option<String>, message: String },
    #[error("{0} redirects more than {MAX_REDIRECTS} times")]
    Redirects(String),
    #[error("{from} redirects to {to}, which is not encrypted")]
    Downgrade { from: String, to: String },
    #[error("{host} sends something else than was announced: {why}")]
    Nonsense { host: String, why: String },
    #[error("`{name}` is not what it should be: its {algorithm} is {found}, not {expected}")]
    Digest { name: String, algorithm: &'static str, expected: String, found: String },
    #[error("`{name}` has more than the {limit_bytes} bytes that it should have")]
    TooLong { name: String, limit_bytes: u64 },
    #[error("`{name}` has {}: a source has at most {}", units::show_size(*.size_bytes), units::show_size(*.limit_bytes))]
    TooLarge { name: String, size_bytes: u64, limit_bytes: u64 },
    #[error("the certificates in `{file}` cannot be used: {why}")]
    Certificates { file: String, why: String },
    #[error("the credentials in `{file}` cannot be used: {why}")]
    Credentials { file: String, why: String },
    #[error("the proxy `{address}` of {variable} cannot be used: {why}")]
    Proxy { variable: &'static str, address: String, why: &'static str },
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// More than any honest server needs.
pub const MAX_REDIRECTS: usize = 10;

const RESUMES: &str = "run the command again: it goes on with what has arrived";

impl HttpError {
    pub fn help(&self) -> Option<String> {
        let help = match self {
            HttpError::Unreachable { .. } => {
                "check the network; behind a proxy set HTTPS_PROXY, behind one that reads along SSL_CERT_FILE. What has been fetched before needs no network"
            }
            HttpError::Broken { .. } | HttpError::TooSlow { .. } => RESUMES,
            HttpError::Status { status: 429, .. } => "too many requests: run the command again later; it goes on with what has arrived",
            HttpError::Status { status: 500.., .. } => {
                "the server is at fault: run the command again later; it goes on with what has arrived"
            }
            HttpError::Secret => "write the address without them; ~/.netrc is the place for a password",
            HttpError::Digest { .. } => "the server, or somebody on the way, sends other content: nothing of it was kept",
            _ => return None,
        };
        Some(help.to_string())
    }

    /// Whether the manifest is not to blame.
    pub fn is_environment(&self) -> bool {
        let is_manifest = matches!(
            self,
            HttpError::Address { .. } | HttpError::Secret | HttpError::TooLarge { .. } | HttpError::Status { status: 400..=428 | 430..=499, .. }
        );
        !is_manifest
    }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}
