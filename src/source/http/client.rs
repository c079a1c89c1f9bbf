//! One request and its answer: redirects, secrets, retries, time-outs.

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{self, HeaderMap, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::error::MAX_REDIRECTS;
use super::{Address, HttpError};
use crate::source::remote::{News, Remote, Secret, Watch};

/// Of one request, the first included.
pub const ATTEMPTS: u32 = 5;
/// To a host that does not answer at all.
const ATTEMPTS_UNREACHABLE: u32 = 3;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Without a single byte.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest that a server may ask us to wait.
const MAX_PAUSE_S: u64 = 120;
const MAX_ERROR_BYTES: u64 = 8 << 10;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    pub address: Address,
    pub headers: Vec<(&'static str, String)>,
    /// The `Authorization`, told to the address's own origin and nobody else.
    pub secret: Option<Secret>,
    /// Headers that are told to the address's own origin and nobody else.
    pub private: Vec<(String, String)>,
    /// What is sent along: a POST.
    pub body: Option<Vec<u8>>,
}

/// An answer whose status is not one to try again for.
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    /// Of the last redirect.
    pub address: Address,
    pub body: Box<dyn Read + Send>,
}

#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    watch: Arc<dyn Watch>,
    pause: Duration,
}

impl Request {
    pub fn get(address: Address) -> Request {
        Request { address, headers: Vec::new(), secret: None, private: Vec::new(), body: None }
    }

    #[must_use]
    pub fn secret(self, secret: Option<Secret>) -> Request {
        Request { secret, ..self }
    }

    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Request {
        self.headers.push((name, value.into()));
        self
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).field("address", &self.address).finish_non_exhaustive()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The whole body, if it is no longer than it may be.
    pub fn bytes(self, limit_bytes: u64) -> Result<Vec<u8>, HttpError> {
        let mut bytes = Vec::new();
        let host = self.address.authority();
        let broken = |error: std::io::Error| HttpError::Broken { host, attempts: 1, why: error.to_string() };
        self.body.take(limit_bytes + 1).read_to_end(&mut bytes).map_err(broken)?;
        if bytes.len() as u64 > limit_bytes {
            return Err(HttpError::TooLong { name: self.address.to_string(), limit_bytes });
        }
        Ok(bytes)
    }

    /// The answer of a server that refuses.
    pub fn refusal(self) -> HttpError {
        let (host, status) = (self.address.authority(), self.status);
        let header = |name| self.header(name).map(str::to_string);
        let (code, message) = (header("x-error-code"), header("x-error-message"));
        let message = message.unwrap_or_else(|| first_words(self));
        HttpError::Status { host, status, code, message }
    }

    pub fn good(self) -> Result<Response, HttpError> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(self.refusal()) }
    }
}

impl Client {
    pub fn new(remote: &Remote) -> Result<Client, HttpError> {
        let roots = match &remote.certificates {
            None => RootCerts::WebPki,
            Some(file) => {
                let unusable = |why: String| HttpError::Certificates { file: file.display().to_string(), why };
                let text = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
                let found: Vec<Certificate<'static>> = parse_pem(&text)
                    .filter_map(|item| match item {
                        Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
                        Ok(_) => None,
                        Err(error) => Some(Err(unusable(error.to_string()))),
                    })
                    .collect::<Result<_, _>>()?;
                if found.is_empty() {
                    return Err(unusable("there is none in it".to_string()));
                }
                RootCerts::from(found)
            }
        };
        let agent = ureq::Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .proxy(remote.proxy.clone())
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("slmops/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(SILENCE_TIMEOUT))
            .timeout_per_write(Some(SILENCE_TIMEOUT))
            .build()
            .new_agent();
        Ok(Client { agent, watch: remote.watch.clone(), pause: remote.pause })
    }

    /// The answer, after redirects. Tries again while the server is too busy, broken or out of reach.
    pub fn send(&self, request: &Request) -> Result<Response, HttpError> {
        let mut attempt = 1;
        loop {
            let (error, wait) = match self.once(request) {
                Ok(response) if is_passing(response.status) => {
                    let wait = asked_pause(&response.headers);
                    (response.refusal(), wait)
                }
                Err(error @ (HttpError::Unreachable { .. } | HttpError::Broken { .. })) => (error, None),
                other => return other,
            };
            let limit = if matches!(error, HttpError::Unreachable { .. }) { ATTEMPTS_UNREACHABLE } else { ATTEMPTS };
            if attempt >= limit {
                return Err(match error {
                    HttpError::Broken { host, why, .. } => HttpError::Broken { host, attempts: attempt, why },
                    error => error,
                });
            }
            self.rest(attempt, wait, &error);
            attempt += 1;
        }
    }

    pub fn hear(&self, news: &News) {
        self.watch.hear(news);
    }

    /// Waits before another attempt.
    pub fn rest(&self, attempt: u32, asked: Option<Duration>, error: &HttpError) {
        let wait = asked.unwrap_or_else(|| self.pause * 2u32.pow(attempt.min(6) - 1));
        self.watch.hear(&News::Waits { seconds: wait.as_secs(), why: &error.to_string() });
        std::thread::sleep(wait);
    }

    fn once(&self, request: &Request) -> Result<Response, HttpError> {
        let mut address = request.address.clone();
        let mut body = request.body.as_deref();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.ask(request, &address, body)?;
            let status = answer.status();
            let location = answer.headers().get(http::header::LOCATION).and_then(|value| value.to_str().ok());
            let (true, Some(location)) = (status.is_redirection(), location) else {
                let (parts, body) = answer.into_parts();
                return Ok(Response { status: status.as_u16(), headers: parts.headers, address, body: Box::new(body.into_reader()) });
            };
            let next = address.join(location)?;
            if address.is_secure && !next.is_secure {
                return Err(HttpError::Downgrade { from: address.to_string(), to: next.to_string() });
            }
            if !matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
                body = None;
            }
            address = next;
        }
        Err(HttpError::Redirects(request.address.authority()))
    }

    fn ask(&self, request: &Request, address: &Address, body: Option<&[u8]>) -> Result<http::Response<ureq::Body>, HttpError> {
        let method = if body.is_some() { "POST" } else { "GET" };
        let mut builder = http::Request::builder().method(method).uri(address.to_string());
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if address.is_same_origin(&request.address) {
            for (name, value) in &request.private {
                builder = builder.header(name, value);
            }
            if let Some(secret) = &request.secret {
                builder = builder.header(http::header::AUTHORIZATION, secret.header());
            }
        }
        let wrong = |error: http::Error| HttpError::Nonsense { host: address.authority(), why: error.to_string() };
        let answer = match body {
            Some(body) => self.agent.run(builder.body(body).map_err(wrong)?),
            None => self.agent.run(builder.body(()).map_err(wrong)?),
        };
        answer.map_err(|error| failed(address, error))
    }
}

/// Statuses that mean "later".
fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504 | 520..=529)
}

/// `Retry-After: 3`, or the Hub's `RateLimit: "api";r=0;t=3`.
fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let after = text("retry-after").and_then(|value| value.trim().parse::<u64>().ok());
    let reset = || text("ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t=")?.parse::<u64>().ok());
    after.or_else(reset).map(|seconds| Duration::from_secs(seconds.min(MAX_PAUSE_S)))
}

fn failed(address: &Address, error: ureq::Error) -> HttpError {
    let host = address.authority();
    match error {
        ureq::Error::HostNotFound => HttpError::Unreachable { host, why: "no such host, or no network".to_string() },
        ureq::Error::ConnectProxyFailed(why) => HttpError::Unreachable { host, why: format!("the proxy refuses: {why}") },
        ureq::Error::InvalidProxyUrl => HttpError::Unreachable { host, why: "the proxy's address is no address".to_string() },
        ureq::Error::Timeout(_) => HttpError::Unreachable { host, why: "no answer in time".to_string() },
        ureq::Error::ConnectionFailed => HttpError::Unreachable { host, why: "no connection".to_string() },
        ureq::Error::Rustls(error) => HttpError::Unreachable { host, why: format!("no encrypted connection: {error}") },
        ureq::Error::Io(error) if is_cut(&error) => HttpError::Broken { host, attempts: 1, why: error.to_string() },
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            HttpError::Unreachable { host, why: format!("no encrypted connection: {error}") }
        }
        ureq::Error::Io(error) => HttpError::Unreachable { host, why: error.to_string() },
        other => HttpError::Nonsense { host, why: other.to_string() },
    }
}

fn is_cut(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

/// What a server says about its refusal: the `error` or the `message` of a JSON body, or the first line of a text.
fn first_words(response: Response) -> String {
    let is_page = response.header("content-type").is_some_and(|kind| kind.contains("html"));
    let mut bytes = Vec::new();
    let got = response.body.take(MAX_ERROR_BYTES).read_to_end(&mut bytes);
    if is_page || got.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let told = serde_json::from_slice::<serde_json::Value>(&bytes).ok().and_then(|json| {
        let first = json.pointer("/errors/0/message").or_else(|| json.get("error")).or_else(|| json.get("message"))?;
        first.as_str().map(str::to_string)
    });
    let line = told.unwrap_or_else(|| {
        if text.starts_with(['{', '[', '<']) { String::new() } else { text.lines().next().unwrap_or_default().to_string() }
    });
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}
