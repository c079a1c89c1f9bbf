//! One request and its answer: redirects, credentials, retries, limits of time.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ureq::http::{self, HeaderMap, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::{Connector, DefaultConnector};

use super::error::MAX_REDIRECTS;
use super::pace::{Meter, PaceConnector, TOO_SLOW};
use super::proxy::{Proxies, Route};
use super::resolve::Names;
use super::{Address, Credential, HttpError, said};
use crate::base::{files, units};
use crate::source::limits::Limits;
use crate::source::remote::{News, Remote, Watch};

/// Of one request, the first included.
pub const ATTEMPTS: u32 = 5;
/// To a host that does not answer at all.
const ATTEMPTS_UNREACHABLE: u32 = 3;
/// The longest that a server may ask us to wait.
const MAX_PAUSE_S: u64 = 120;
/// A system's own list has some 200 KiB.
const MAX_CERTIFICATES: u64 = 16 << 20;
const MAX_ERROR_BYTES: u64 = 8 << 10;
/// What is sent: a list of objects or of branches.
pub const MAX_SENT_BYTES: u64 = 8 << 20;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    pub address: Address,
    pub headers: Vec<(&'static str, String)>,
    /// Sent to its own server only, and no longer once a redirect has led elsewhere.
    pub credential: Option<Credential>,
    /// What is sent along: a POST.
    pub body: Option<Vec<u8>>,
}

/// An answer whose status is not one to try again for.
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    /// Of the last redirect.
    pub address: Address,
    body: Box<dyn Read + Send>,
    meter: Arc<Meter>,
    limits: Limits,
    credential: Option<Credential>,
}

/// Speaks to servers, one request at a time; [`Client::lane`] makes another one that speaks at the same time.
pub struct Client {
    setup: Arc<Setup>,
    agents: Mutex<BTreeMap<Route, ureq::Agent>>,
    meter: Arc<Meter>,
    paused: Mutex<Duration>,
}

struct Setup {
    tls: TlsConfig,
    proxies: Proxies,
    limits: Limits,
    watch: Arc<dyn Watch>,
    pause: Duration,
}

impl Request {
    pub fn get(address: Address) -> Request {
        Request { address, headers: Vec::new(), credential: None, body: None }
    }

    #[must_use]
    pub fn credential(self, credential: Option<Credential>) -> Request {
        Request { credential, ..self }
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

/// The body of an answer, read no longer than its length and the lowest speed allow.
pub struct Body {
    inner: Box<dyn Read + Send>,
    meter: Arc<Meter>,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        self.meter.arrived(bytes);
        Ok(bytes)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body. `size_bytes` is what it should come to, as far as that is known; whoever reads cuts it there.
    pub fn into_body(self, size_bytes: Option<u64>) -> Result<Body, HttpError> {
        if let Some(encoding) = self.encoding() {
            let why = format!("its answer is packed (`{}`), which was not asked for", said::plain(encoding));
            return Err(HttpError::Nonsense { host: self.address.authority(), why });
        }
        self.meter.begin(size_bytes.is_none().then_some(self.limits.unsized_body));
        Ok(Body { inner: self.body, meter: self.meter })
    }

    /// How the body is packed. A file that is packed itself is often announced so.
    fn encoding(&self) -> Option<&str> {
        let encoding = self.header("content-encoding").filter(|encoding| !encoding.eq_ignore_ascii_case("identity"))?;
        let (path, _) = self.address.path.split_once('?').unwrap_or((&self.address.path, ""));
        let is_its_own = [".gz", ".tgz"].iter().any(|end| path.ends_with(end)) && ["gzip", "x-gzip"].contains(&encoding);
        (!is_its_own).then_some(encoding)
    }

    /// The whole body, if it is no longer than it may be.
    pub fn bytes(self, limit_bytes: u64) -> Result<Vec<u8>, HttpError> {
        let (host, name, limits) = (self.address.authority(), self.address.to_string(), self.limits.clone());
        let mut bytes = Vec::new();
        let body = self.into_body(Some(limit_bytes))?;
        body.take(limit_bytes + 1).read_to_end(&mut bytes).map_err(|error| broken(&host, &error, &limits))?;
        if bytes.len() as u64 > limit_bytes {
            return Err(HttpError::TooLong { name, limit_bytes });
        }
        Ok(bytes)
    }

    /// The answer of a server that refuses.
    pub fn refusal(self) -> HttpError {
        let (host, status) = (self.address.authority(), self.status);
        let credential = self.credential.clone();
        let said = |text: &str| {
            // First what is shown, then what of it is secret: a secret in pieces would be whole afterwards.
            let text = said::message(text);
            said::plain(&credential.as_ref().map_or_else(|| text.clone(), |credential| credential.scrub(&text)))
        };
        let code = self.header("x-error-code").map(said);
        let message = self.header("x-error-message").map(str::to_string);
        let message = said(&message.unwrap_or_else(|| first_words(self)));
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
                let text = files::read(file, MAX_CERTIFICATES).map_err(|error| unusable(error.to_string()))?;
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
        Ok(Client::of(Arc::new(Setup {
            tls: TlsConfig::builder().root_certs(roots).build(),
            proxies: remote.proxies.clone(),
            limits: remote.limits.clone(),
            watch: remote.watch.clone(),
            pause: remote.pause,
        })))
    }

    fn of(setup: Arc<Setup>) -> Client {
        let meter = Arc::new(Meter::new(&setup.limits));
        Client { setup, agents: Mutex::default(), meter, paused: Mutex::default() }
    }

    /// Another client of the same kind, with connections of its own.
    pub fn lane(&self) -> Client {
        Client::of(self.setup.clone())
    }

    pub fn limits(&self) -> &Limits {
        &self.setup.limits
    }

    /// How long this client has waited between attempts so far.
    pub fn paused(&self) -> Duration {
        *self.paused.lock().unwrap_or_else(|broken| broken.into_inner())
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
        self.setup.watch.hear(news);
    }

    /// Waits before another attempt.
    pub fn rest(&self, attempt: u32, asked: Option<Duration>, error: &HttpError) {
        let wait = asked.unwrap_or_else(|| self.setup.pause * 2u32.pow(attempt.min(6) - 1));
        self.hear(&News::Waits { seconds: wait.as_secs(), why: &said::message(&error.to_string()) });
        std::thread::sleep(wait);
        *self.paused.lock().unwrap_or_else(|broken| broken.into_inner()) += wait;
    }

    fn once(&self, request: &Request) -> Result<Response, HttpError> {
        let start = Instant::now();
        let mut address = request.address.clone();
        let mut body = request.body.as_deref();
        let mut is_home = true;
        for _ in 0..=MAX_REDIRECTS {
            let credential = request.credential.as_ref().filter(|_| is_home);
            let answer = self.ask(request, &address, credential, body)?;
            let Some(next) = redirect(&address, &answer)? else { return Ok(self.response(answer, address, request)) };
            if start.elapsed() > self.limits().answer {
                let why = "its redirects took too long".to_string();
                return Err(HttpError::Unreachable { host: request.address.authority(), why });
            }
            if !matches!(answer.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
                body = None;
            }
            // Whoever is asked elsewhere has chosen what is asked here afterwards.
            is_home = is_home && next.is_same_origin(&address);
            address = next;
        }
        Err(HttpError::Redirects(request.address.authority()))
    }

    fn response(&self, answer: http::Response<ureq::Body>, address: Address, request: &Request) -> Response {
        let (parts, body) = answer.into_parts();
        Response {
            status: parts.status.as_u16(),
            headers: parts.headers,
            address,
            body: Box::new(body.into_reader()),
            meter: self.meter.clone(),
            limits: self.limits().clone(),
            credential: request.credential.clone(),
        }
    }

    fn ask(
        &self,
        request: &Request,
        address: &Address,
        credential: Option<&Credential>,
        body: Option<&[u8]>,
    ) -> Result<http::Response<ureq::Body>, HttpError> {
        let method = if body.is_some() { "POST" } else { "GET" };
        let mut builder = http::Request::builder().method(method).uri(address.url());
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        for (name, value) in credential.iter().flat_map(|credential| credential.headers_for(address)) {
            builder = builder.header(name, value);
        }
        let wrong = |error: http::Error| HttpError::Nonsense { host: address.authority(), why: error.to_string() };
        let agent = self.agent(address)?;
        self.meter.begin(None);
        let answer = match body {
            Some(body) => agent.run(builder.body(body).map_err(wrong)?),
            None => agent.run(builder.body(()).map_err(wrong)?),
        };
        answer.map_err(|error| failed(address, error))
    }

    /// Whoever speaks to the server of an address: directly or through a proxy.
    fn agent(&self, address: &Address) -> Result<ureq::Agent, HttpError> {
        let setup = &self.setup;
        let route = setup.proxies.route(address);
        let mut agents = self.agents.lock().unwrap_or_else(|broken| broken.into_inner());
        if let Some(agent) = agents.get(&route) {
            return Ok(agent.clone());
        }
        let limits = &setup.limits;
        let config = ureq::Agent::config_builder()
            .tls_config(setup.tls.clone())
            .proxy(setup.proxies.proxy(route)?)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("slmops/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_resolve(Some(limits.connect))
            .timeout_connect(Some(limits.connect))
            .timeout_send_request(Some(limits.head))
            .timeout_send_body(Some(limits.time_for(MAX_SENT_BYTES)))
            .timeout_recv_response(Some(limits.head))
            .timeout_per_read(Some(limits.silence))
            .timeout_per_write(Some(limits.silence))
            .build();
        let connector = DefaultConnector::default().chain(PaceConnector(self.meter.clone()));
        let agent = ureq::Agent::with_parts(config, connector, Names);
        agents.insert(route, agent.clone());
        Ok(agent)
    }
}

/// Where an answer leads, if it leads elsewhere.
fn redirect(address: &Address, answer: &http::Response<ureq::Body>) -> Result<Option<Address>, HttpError> {
    let location = answer.headers().get(http::header::LOCATION).and_then(|value| value.to_str().ok());
    let (301 | 302 | 303 | 307 | 308, Some(location)) = (answer.status().as_u16(), location) else { return Ok(None) };
    let next = address.join(location).map_err(|error| match error {
        HttpError::Secret => HttpError::ForeignSecret(address.authority()),
        // The server has written it, not the user.
        HttpError::Address { text, why } => {
            HttpError::Nonsense { host: address.authority(), why: format!("it redirects to `{text}`: {why}") }
        }
        other => other,
    })?;
    if address.is_secure && !next.is_secure {
        return Err(HttpError::Downgrade { from: address.to_string(), to: next.to_string() });
    }
    Ok(Some(next))
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

/// What an error while a body was read means.
pub fn broken(host: &str, error: &io::Error, limits: &Limits) -> HttpError {
    let host = host.to_string();
    match error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
        Some(ureq::Error::Timeout(reason)) if *reason == TOO_SLOW => {
            let least = units::show_size(limits.slowest_bytes_per_s);
            HttpError::TooSlow { host, why: format!("less than {least} arrive in a second") }
        }
        Some(ureq::Error::Timeout(_)) => HttpError::Broken { host, attempts: 1, why: "nothing has arrived in time".to_string() },
        _ => HttpError::Broken { host, attempts: 1, why: said::plain(&error.to_string()) },
    }
}

fn failed(address: &Address, error: ureq::Error) -> HttpError {
    let host = address.authority();
    let unreachable = |why: String| HttpError::Unreachable { host: host.clone(), why: said::plain(&why) };
    match error {
        ureq::Error::HostNotFound => unreachable("no such host, or no network".to_string()),
        ureq::Error::ConnectProxyFailed(why) => unreachable(format!("the proxy refuses: {why}")),
        ureq::Error::InvalidProxyUrl => unreachable("the proxy's address is no address".to_string()),
        ureq::Error::Timeout(_) => unreachable("no answer in time".to_string()),
        ureq::Error::ConnectionFailed => unreachable("no connection".to_string()),
        ureq::Error::Rustls(error) => unreachable(format!("no encrypted connection: {error}")),
        ureq::Error::Io(error) if is_timeout(&error) => unreachable("no answer in time".to_string()),
        ureq::Error::Io(error) if is_cut(&error) => HttpError::Broken { host, attempts: 1, why: said::plain(&error.to_string()) },
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => unreachable(format!("no encrypted connection: {error}")),
        ureq::Error::Io(error) => unreachable(error.to_string()),
        ureq::Error::BadUri(_) => HttpError::Nonsense { host, why: "its address cannot be asked for".to_string() },
        other => HttpError::Nonsense { host, why: said::plain(&other.to_string()) },
    }
}

fn is_timeout(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    error.kind() == io::ErrorKind::TimedOut || matches!(inner, Some(ureq::Error::Timeout(_)))
}

fn is_cut(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

/// What a server says about its refusal: the `error` or the `message` of a JSON body, or the first line of a text.
fn first_words(response: Response) -> String {
    let is_page = response.header("content-type").is_some_and(|kind| kind.contains("html"));
    let mut bytes = Vec::new();
    let body = response.into_body(Some(MAX_ERROR_BYTES));
    let got = body.map_err(io::Error::other).and_then(|body| body.take(MAX_ERROR_BYTES).read_to_end(&mut bytes));
    if is_page || got.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let told = serde_json::from_slice::<serde_json::Value>(&bytes).ok().and_then(|json| {
        let first = json.pointer("/errors/0/message").or_else(|| json.get("error")).or_else(|| json.get("message"))?;
        first.as_str().map(str::to_string)
    });
    told.unwrap_or_else(
        || {
            if text.starts_with(['{', '[', '<']) { String::new() } else { text.lines().next().unwrap_or_default().to_string() }
        },
    )
}
