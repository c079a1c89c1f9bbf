//! A small HTTP server on a port of this machine, in a thread; what it answers is a closure's business. It remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Lower-case names.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Closes the connection after so many bytes of the body.
    pub cut: Option<usize>,
}

impl Answer {
    pub fn of(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status, body: body.into(), ..Answer::default() }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.to_string(), value.into()));
        self
    }

    pub fn cut(self, after: usize) -> Answer {
        Answer { cut: Some(after), ..self }
    }

    /// The bytes, or those of them that a `Range` asks for.
    pub fn ranged(asked: &Asked, bytes: &[u8]) -> Answer {
        let from = asked.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        match from {
            None => Answer::of(200, bytes),
            Some(from) if from >= bytes.len() => Answer::of(416, ""),
            Some(from) => {
                let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                Answer::of(206, &bytes[from..]).header("Content-Range", range)
            }
        }
    }
}

/// What a connection that a request came over does with it.
type Handler = dyn Fn(&Asked, &mut dyn Write) -> std::io::Result<()> + Send + Sync;

#[derive(Clone)]
pub struct Server {
    pub url: String,
    pub authority: String,
    log: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub fn start(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Server {
        Server::raw(move |asked, stream| handler(asked).send(stream))
    }

    /// A server that writes bytes as it likes; the connection is closed behind them.
    pub fn raw(handler: impl Fn(&Asked, &mut dyn Write) -> std::io::Result<()> + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let server = Server { url: format!("http://{authority}"), authority, log: log.clone() };
        let handler: Arc<Handler> = Arc::new(handler);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (handler, log) = (handler.clone(), log.clone());
                // Whoever hangs up early is no matter of the server's.
                std::thread::spawn(move || stream.and_then(|stream| serve(stream, &*handler, &log)));
            }
        });
        server
    }

    /// What was asked since the last time.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

impl Answer {
    pub fn send(&self, stream: &mut dyn Write) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} Whatever\r\nConnection: close\r\nContent-Length: {}\r\n", self.status, self.body.len());
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        let sent = self.cut.unwrap_or(self.body.len()).min(self.body.len());
        stream.write_all(&self.body[..sent])?;
        stream.flush()
    }
}

/// One request, as it came.
pub fn read(stream: &mut dyn BufRead) -> std::io::Result<Option<Asked>> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let mut asked = Asked { method: method.to_string(), path: path.to_string(), headers: BTreeMap::new(), body: Vec::new() };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        asked.headers.insert(name.to_lowercase(), value.trim().to_string());
    }
    let length = asked.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0u64);
    stream.take(length).read_to_end(&mut asked.body)?;
    Ok(Some(asked))
}

fn serve(mut stream: TcpStream, handler: &Handler, log: &Mutex<Vec<Asked>>) -> std::io::Result<()> {
    let Some(asked) = read(&mut BufReader::new(stream.try_clone()?))? else { return Ok(()) };
    log.lock().unwrap().push(asked.clone());
    handler(&asked, &mut stream)
}
