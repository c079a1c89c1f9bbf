//! Encrypted connections, against OpenSSL's server with certificates of our own.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::space::Space;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().expect("this test needs `openssl`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A server of the folder's files, whose certificate an authority of ours has signed.
fn serve(folder: &Path) -> (Server, u16) {
    let request = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    openssl(folder, &[&request[..], &["-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ours", "-days", "30"]].concat());
    openssl(folder, &[&request[..], &["-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"]].concat());
    fs::write(folder.join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    let sign = ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30"];
    openssl(folder, &[&sign[..], &["-extfile", "names", "-out", "server.pem"]].concat());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new("openssl");
    command.args(["s_server", "-quiet", "-WWW", "-accept", &format!("127.0.0.1:{port}"), "-cert", "server.pem", "-key", "server.key"]);
    let child = command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let server = Server(child);
    for _ in 0..200 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    (server, port)
}

#[test]
fn a_certificate_is_trusted_only_if_its_authority_is() {
    let mut space = Space::new("{ path = \"slmops.toml\" }");
    let folder = space.path().join("served");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("data.txt"), "data").unwrap();
    let (_server, port) = serve(&folder);
    space.manifest(&format!("{{ url = \"https://localhost:{port}/data.txt\" }}"));
    let error = space.lock_fails();
    assert!(error.message.contains("no encrypted connection") && error.helps[0].contains("SSL_CERT_FILE"), "{error:?}");
    space.remote.certificates = Some(folder.join("ca.pem"));
    space.lock().unwrap();
    assert_eq!(fs::read(space.fetched()).unwrap(), b"data");
    space.remote.certificates = Some(folder.join("ca.key"));
    assert!(space.lock_fails().message.contains("there is none in it"));
}
