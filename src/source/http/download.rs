//! A file over HTTP: kept while it is incomplete, continued where it stopped, checked before it is called complete.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::client::{ATTEMPTS, broken};
use super::{Client, HttpError, Request, Response};
use crate::source::remote::News;

/// What the file must come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    Sha256 {
        hex: String,
        size_bytes: Option<u64>,
    },
    /// The SHA-1 that git names a blob by.
    GitBlob {
        hex: String,
        size_bytes: u64,
    },
    /// Whatever the address holds now.
    Anything,
}

impl Expected {
    pub fn size_bytes(&self) -> Option<u64> {
        match self {
            Expected::Sha256 { size_bytes, .. } => *size_bytes,
            Expected::GitBlob { size_bytes, .. } => Some(*size_bytes),
            Expected::Anything => None,
        }
    }

    /// Whether a file on disk is it.
    pub fn is_met_by(&self, path: &Path) -> io::Result<bool> {
        let mut file = File::open(path)?;
        let size_bytes = file.metadata()?.len();
        if self.size_bytes().is_some_and(|expected| expected != size_bytes) {
            return Ok(false);
        }
        let mut state = State::default();
        io::copy(&mut file, &mut state)?;
        Ok(state.check(self, path, "").is_ok())
    }
}

/// The digest of what has arrived, and how much that is.
#[derive(Default)]
struct State {
    sha256: Sha256,
    size_bytes: u64,
}

impl Write for State {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sha256.update(bytes);
        self.size_bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl State {
    /// The SHA-256, if the file is what was expected.
    fn check(&self, expected: &Expected, path: &Path, name: &str) -> Result<String, HttpError> {
        let sha256 = hex(&self.sha256.clone().finalize());
        let (algorithm, wanted, found) = match expected {
            Expected::Sha256 { hex, .. } => ("SHA-256", hex, sha256.clone()),
            Expected::GitBlob { hex, .. } => ("git digest", hex, git_digest(path)?),
            Expected::Anything => return Ok(sha256),
        };
        if *wanted == found {
            return Ok(sha256);
        }
        Err(HttpError::Digest { name: name.to_string(), algorithm, expected: wanted.clone(), found })
    }
}

/// Fetches into `file`, which may hold the beginning already, and checks it. Returns the SHA-256. `part` is where the file stands; whoever calls
/// has locked it.
pub fn download(
    client: &Client,
    request: &Request,
    name: &str,
    expected: &Expected,
    part: &Path,
    file: &mut File,
) -> Result<String, HttpError> {
    let limit_bytes = client.limits().file_bytes;
    if let Some(size_bytes) = expected.size_bytes().filter(|size_bytes| *size_bytes > limit_bytes) {
        return Err(HttpError::TooLarge { name: name.to_string(), size_bytes, limit_bytes });
    }
    let clock = Clock { client, start: Instant::now(), paused: client.paused() };
    let mut load = Load { client, request, name, expected, part, file, state: State::default(), validator: None, clock };
    let mut was_begun = load.take_up()?;
    load.clock.start = Instant::now();
    loop {
        let ended = load.fetch().and_then(|()| {
            load.file.sync_all()?;
            load.state.check(expected, part, name)
        });
        match ended {
            // The beginning may be from another time: once more, all of it.
            Err(HttpError::Digest { .. } | HttpError::TooLong { .. }) if was_begun => {
                was_begun = false;
                load.restart()?;
            }
            Err(error @ (HttpError::Digest { .. } | HttpError::TooLong { .. } | HttpError::TooLarge { .. })) => {
                std::fs::remove_file(part)?;
                return Err(error);
            }
            other => return other,
        }
    }
}

/// The time that a download has taken, over all its connections.
struct Clock<'a> {
    client: &'a Client,
    start: Instant,
    /// What the client had waited before.
    paused: Duration,
}

impl Clock<'_> {
    /// Whether it is time to give up, with so many bytes here.
    fn is_over(&self, size_bytes: u64) -> bool {
        let (limits, paused) = (self.client.limits(), self.client.paused().saturating_sub(self.paused));
        paused > limits.pauses || self.start.elapsed().saturating_sub(paused) > limits.time_for(size_bytes)
    }
}

/// One download under way.
struct Load<'a> {
    client: &'a Client,
    request: &'a Request,
    name: &'a str,
    expected: &'a Expected,
    part: &'a Path,
    file: &'a mut File,
    state: State,
    /// What the server calls this version of the file, where no digest tells versions apart.
    validator: Option<String>,
    clock: Clock<'a>,
}

impl Load<'_> {
    /// Takes up what an earlier run has left. Tells whether it was anything.
    fn take_up(&mut self) -> Result<bool, HttpError> {
        if self.file.metadata()?.len() == 0 {
            return Ok(false);
        }
        if *self.expected == Expected::Anything {
            self.validator = std::fs::read_to_string(self.note()).ok();
            if self.validator.is_none() {
                self.restart()?;
                return Ok(false);
            }
        }
        self.file.seek(SeekFrom::Start(0))?;
        io::copy(self.file, &mut self.state)?;
        self.client.hear(&News::Found { bytes: self.state.size_bytes });
        Ok(true)
    }

    /// Appends until the file is as long as it should be, however often the connection breaks, as long as enough arrives in between.
    fn fetch(&mut self) -> Result<(), HttpError> {
        let size_bytes = self.expected.size_bytes();
        let limit_bytes = size_bytes.unwrap_or(self.client.limits().file_bytes);
        let mut failures = 0;
        loop {
            if size_bytes == Some(self.state.size_bytes) {
                return Ok(());
            }
            if self.state.size_bytes > limit_bytes {
                return Err(self.too_long(limit_bytes));
            }
            let before = self.state.size_bytes;
            let response = self.client.send(&self.ranged())?;
            let host = response.address.authority();
            if response.status == 416 && before > 0 {
                self.restart()?;
                self.still_in_time(&host, 0)?;
                continue;
            }
            let response = self.whole_or_rest(response, before)?;
            self.note_validator(&response)?;
            let more = response.header("content-length").and_then(|text| text.parse::<u64>().ok());
            let whole = size_bytes.or(more.and_then(|more| more.checked_add(self.state.size_bytes)));
            if let (None, Some(whole)) = (size_bytes, whole.filter(|whole| *whole > limit_bytes)) {
                return Err(HttpError::TooLarge { name: self.name.to_string(), size_bytes: whole, limit_bytes });
            }
            let why = match self.append(response, whole, limit_bytes) {
                Ok(()) if whole.is_none_or(|whole| self.state.size_bytes == whole) => return Ok(()),
                Ok(()) => "it ended early".to_string(),
                Err(HttpError::Broken { why, .. }) => why,
                Err(other) => return Err(other),
            };
            // Without a version nothing tells whether the rest would be of the same file.
            let is_lost = *self.expected == Expected::Anything && self.validator.is_none();
            failures = if self.state.size_bytes > before && !is_lost { 1 } else { failures + 1 };
            let error = HttpError::Broken { host: host.clone(), attempts: failures, why };
            if failures >= ATTEMPTS {
                return Err(error);
            }
            if is_lost {
                self.restart()?;
            }
            self.still_in_time(&host, self.state.size_bytes)?;
            self.client.rest(failures, None, &error);
        }
    }

    /// The answer, if it is the file from its start or from where we stopped.
    fn whole_or_rest(&mut self, response: Response, before: u64) -> Result<Response, HttpError> {
        let response = response.good()?;
        if !matches!(response.status, 200 | 206) {
            let why = format!("{} instead of a file", response.status);
            return Err(HttpError::Nonsense { host: response.address.authority(), why });
        }
        if continues(&response, before) {
            return Ok(response);
        }
        if response.status == 206 {
            let why = "another part of the file than was asked for".to_string();
            return Err(HttpError::Nonsense { host: response.address.authority(), why });
        }
        if before > 0 {
            // The file is another one by now, or the server knows no ranges: it sends everything.
            self.restart()?;
        }
        Ok(response)
    }

    /// A server that sends a little and breaks off, again and again, does not get more time for it.
    fn still_in_time(&self, host: &str, size_bytes: u64) -> Result<(), HttpError> {
        if self.clock.is_over(size_bytes) {
            let why = format!("`{}` is not here in the time that it may take", self.name);
            return Err(HttpError::TooSlow { host: host.to_string(), why });
        }
        Ok(())
    }

    fn ranged(&self) -> Request {
        let request = self.request.clone();
        if self.state.size_bytes == 0 {
            return request;
        }
        let request = request.header("Range", format!("bytes={}-", self.state.size_bytes));
        match &self.validator {
            Some(validator) => request.header("If-Range", validator.clone()),
            None => request,
        }
    }

    fn append(&mut self, response: Response, whole: Option<u64>, limit_bytes: u64) -> Result<(), HttpError> {
        let host = response.address.authority();
        let mut body = response.into_body(whole)?;
        let mut buffer = vec![0u8; 1 << 17];
        loop {
            let n = match body.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(&host, &error, self.client.limits())),
            };
            let bytes = buffer.get(..n).unwrap_or_default();
            if self.state.size_bytes + n as u64 > limit_bytes {
                return Err(self.too_long(limit_bytes));
            }
            self.file.write_all(bytes)?;
            self.state.write_all(bytes)?;
            self.client.hear(&News::Fetched { bytes: n as u64 });
        }
    }

    /// Where no digest is known, a part is worth something only with its version beside it; without a version it cannot be continued.
    fn note_validator(&mut self, response: &Response) -> io::Result<()> {
        if *self.expected != Expected::Anything || response.status == 206 {
            return Ok(());
        }
        let strong = response.header("etag").filter(|tag| !tag.starts_with("W/"));
        self.validator = strong.or(response.header("last-modified")).map(str::to_string);
        match &self.validator {
            Some(validator) => std::fs::write(self.note(), validator),
            None => remove_if_there(&self.note()),
        }
    }

    fn note(&self) -> PathBuf {
        self.part.with_extension("version")
    }

    fn too_long(&self, limit_bytes: u64) -> HttpError {
        HttpError::TooLong { name: self.name.to_string(), limit_bytes }
    }

    fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.state = State::default();
        self.validator = None;
        Ok(())
    }
}

/// Whether an answer is a part that goes on where we stopped.
fn continues(response: &Response, from: u64) -> bool {
    let start = response.header("content-range").and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
    response.status == 206 && start == Some(from)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn git_digest(path: &Path) -> Result<String, HttpError> {
    let digest = git2::Oid::hash_file(git2::ObjectType::Blob, path).map_err(io::Error::other)?;
    Ok(digest.to_string())
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
