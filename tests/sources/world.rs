//! A small internet: servers of many names behind one proxy, encrypted and not, and a record of who was told what. A host exists if its name ends in
//! `.example` or if a test names it.

use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use slmops::source::http::Proxies;
use slmops::source::http::proxy::Named;

use crate::server::{self, Answer, Asked};
use crate::space::Space;

/// The names that the certificate is for.
const NAMES: [&str; 12] = [
    "hub.example",
    "store.example",
    "evil.example",
    "data.example",
    "a.data.example",
    "git.example",
    "registry.example",
    "auth.example",
    "registry-1.docker.io",
    "auth.docker.io",
    "registry.gitlab.com",
    "gitlab.com",
];

/// A request and whom it reached.
#[derive(Clone, Debug)]
pub struct Told {
    /// `https://host:port`, the port always written.
    pub server: String,
    pub asked: Asked,
}

impl Told {
    /// Whether a text is anywhere in the request, also in Base64.
    pub fn holds(&self, secret: &str) -> bool {
        use base64::Engine;
        let decoded = |value: &str| {
            let word = value.rsplit(' ').next().unwrap_or_default();
            base64::engine::general_purpose::STANDARD
                .decode(word)
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .unwrap_or_default()
        };
        let headers = self.asked.headers.values().any(|value| value.contains(secret) || decoded(value).contains(secret));
        headers || self.asked.path.contains(secret) || String::from_utf8_lossy(&self.asked.body).contains(secret)
    }
}

type Handler = dyn Fn(&Told) -> Answer + Send + Sync;

pub struct World {
    proxy: String,
    told: Arc<Mutex<Vec<Told>>>,
    /// What the proxy was asked, before it connects.
    pub connects: Arc<Mutex<Vec<Asked>>>,
    folder: tempfile::TempDir,
}

impl World {
    pub fn start(handler: impl Fn(&Told) -> Answer + Send + Sync + 'static) -> World {
        let folder = tempfile::tempdir().unwrap();
        let tls = certificates(folder.path());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = listener.local_addr().unwrap().to_string();
        let world = World { proxy, told: Arc::default(), connects: Arc::default(), folder };
        let (told, connects, handler): (_, _, Arc<Handler>) = (world.told.clone(), world.connects.clone(), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (told, connects, handler, tls) = (told.clone(), connects.clone(), handler.clone(), tls.clone());
                std::thread::spawn(move || stream.and_then(|stream| serve(stream, tls, &told, &connects, &*handler)));
            }
        });
        world
    }

    /// Has a project's network lead here. `userinfo` is what stands before the proxy's address: `user:password@`.
    pub fn reach(&self, space: &mut Space, userinfo: &str) {
        let proxy = |variable| Some(Named { variable, address: format!("http://{userinfo}{}", self.proxy) });
        space.remote.proxies = Proxies { secure: proxy("HTTPS_PROXY"), plain: proxy("HTTP_PROXY"), except: Vec::new() };
        space.remote.certificates = Some(self.folder.path().join("ca.pem"));
        space.remote.hub = "https://hub.example".to_string();
    }

    /// What was asked since the last time.
    pub fn told(&self) -> Vec<Told> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

fn serve(
    mut stream: TcpStream,
    tls: Arc<ServerConfig>,
    told: &Mutex<Vec<Told>>,
    connects: &Mutex<Vec<Asked>>,
    handler: &Handler,
) -> io::Result<()> {
    let Some(connect) = read_connect(&mut stream)? else { return Ok(()) };
    connects.lock().unwrap().push(connect.clone());
    if connect.method != "CONNECT" {
        return Answer::of(405, "").send(&mut stream);
    }
    if connect.path.starts_with("none.example") {
        return Answer::of(407, "the proxy says no").send(&mut stream);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let mut first = [0u8; 1];
    stream.peek(&mut first)?;
    let answer = |scheme: &str, both: &mut dyn ReadWrite| {
        // One request after the other, as long as the client keeps the connection.
        let Some(asked) = server::read(&mut BufReader::with_capacity(1, &mut *both))? else { return Ok(()) };
        let request = Told { server: format!("{scheme}://{}", connect.path), asked };
        told.lock().unwrap().push(request.clone());
        handler(&request).send(both)
    };
    match first {
        // The start of a handshake.
        [0x16] => {
            let session = ServerConnection::new(tls).map_err(io::Error::other)?;
            let mut both = StreamOwned::new(session, stream);
            let result = answer("https", &mut both);
            both.conn.send_close_notify();
            both.flush()?;
            result
        }
        _ => answer("http", &mut stream),
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// Byte by byte: what follows the head belongs to somebody else.
fn read_connect(stream: &mut TcpStream) -> io::Result<Option<Asked>> {
    let mut head = Vec::new();
    let mut byte = [0u8; 1];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    server::read(&mut head.as_slice())
}

/// An authority of ours in `ca.pem`, and what the servers show.
fn certificates(folder: &Path) -> Arc<ServerConfig> {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(folder).output().expect("this test needs `openssl`");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let request = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    openssl(&[&request[..], &["-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ours", "-days", "30"]].concat());
    openssl(&[&request[..], &["-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=servers"]].concat());
    let names: Vec<String> = NAMES.iter().map(|name| format!("DNS:{name}")).collect();
    fs::write(folder.join("names"), format!("subjectAltName={}\nbasicConstraints=CA:FALSE\n", names.join(","))).unwrap();
    let sign = ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30"];
    openssl(&[&sign[..], &["-extfile", "names", "-out", "server.pem"]].concat());
    let chain = vec![CertificateDer::from_pem_file(folder.join("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
}
