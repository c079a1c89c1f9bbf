//! Servers that mean harm: slow ones, endless ones, ones that lie. Each case must end with its message, with the exit code of its kind, within its time
//! and without a panic. The limits are small here, so that reaching them takes milliseconds.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use slmops::base::Diagnostic;
use slmops::source::Limits;

use crate::server::{Answer, Asked, Server};
use crate::space::Space;

/// The longest that a case may take; the slowest machine of a continuous integration included.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn small() -> Limits {
    Limits {
        connect: Duration::from_millis(400),
        head: Duration::from_millis(400),
        answer: Duration::from_millis(600),
        silence: Duration::from_millis(300),
        grace: Duration::from_millis(400),
        slowest_bytes_per_s: 100_000,
        unsized_body: Duration::from_millis(800),
        pauses: Duration::from_millis(400),
        source: Duration::from_secs(2),
        per_file: Duration::from_millis(10),
        files: 20,
        folders: 10,
        file_bytes: 1 << 20,
        source_bytes: 2 << 20,
        listed: 20,
        pages: 6,
        ratio: 20,
        ratio_from_bytes: 4 << 10,
        tar_header_bytes: 4 << 10,
        refs: 20,
        aside_bytes: 64 << 10,
        pack_objects: 30,
        git_object_bytes: 64 << 10,
        pack_bytes: 1 << 20,
        delta_depth: 4,
        named_deltas: 2,
    }
}

/// Pins the source, which must fail: in time, and without a pin.
pub fn refused(space: &mut Space, name: &str) -> Diagnostic {
    space.remote.limits = small();
    let start = Instant::now();
    let error = match space.lock() {
        Err(mut errors) if errors.len() == 1 => errors.remove(0),
        other => panic!("{name}: {other:?}"),
    };
    assert!(start.elapsed() < PATIENCE, "{name}: {:?}", start.elapsed());
    assert!(!space.path().join("slmops.lock").exists(), "{name}");
    let shown = error.render(false);
    assert!(!shown.contains('\u{1b}') && shown.len() < 4000, "{name}: {shown:?}");
    error
}

/// Who is to blame: exit code 3, the network; 2, what the manifest names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    Network,
    Manifest,
}

use Blame::{Manifest, Network};

type Handler = fn(&Asked, &mut dyn Write) -> io::Result<()>;

fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// Bytes again and again, until the client hangs up or the test is long over.
fn forever(out: &mut dyn Write, bytes: &[u8], milliseconds: u64) -> io::Result<()> {
    let start = Instant::now();
    while start.elapsed() < 3 * PATIENCE {
        out.write_all(bytes)?;
        out.flush()?;
        if milliseconds > 0 {
            pause(milliseconds);
        }
    }
    Ok(())
}

/// Nothing more comes.
fn silent() -> io::Result<()> {
    pause(30_000);
    Ok(())
}

fn head(out: &mut dyn Write, headers: &str) -> io::Result<()> {
    write!(out, "HTTP/1.1 200 OK\r\n{headers}\r\n\r\n")
}

const CASES: [(&str, Handler, Blame, &str); 41] = [
    ("no answer", |_, _| silent(), Network, "no answer in time"),
    ("a head, byte by byte", |_, out| forever(out, b"H", 20), Network, "127.0.0.1"),
    (
        "headers without an end, slowly",
        |_, out| {
            write!(out, "HTTP/1.1 200 OK\r\n")?;
            forever(out, b"X: y\r\n", 20)
        },
        Network,
        "no answer in time",
    ),
    (
        "headers without an end",
        |_, out| {
            write!(out, "HTTP/1.1 200 OK\r\n")?;
            forever(out, format!("X: {}\r\n", "y".repeat(500)).as_bytes(), 0)
        },
        Network,
        "127.0.0.1",
    ),
    (
        "a header of megabytes",
        |_, out| {
            write!(out, "HTTP/1.1 200 OK\r\nX: ")?;
            forever(out, &[b'y'; 1 << 16], 0)
        },
        Network,
        "127.0.0.1",
    ),
    ("interim answers", |_, out| forever(out, b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n", 0), Network, "127.0.0.1"),
    ("interim answers, slowly", |_, out| forever(out, b"HTTP/1.1 102 Processing\r\n\r\n", 20), Network, "no answer in time"),
    ("100 Continue", |_, out| forever(out, b"HTTP/1.1 100 Continue\r\n\r\n", 0), Network, "127.0.0.1"),
    ("101 Switching Protocols", |_, out| write!(out, "HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n"), Network, "101"),
    ("a circle", |_, out| Answer::of(302, "").header("Location", "/a.txt").send(out), Network, "redirects more than 10 times"),
    (
        "a long way",
        |asked, out| Answer::of(307, "").header("Location", format!("{}x", asked.path)).send(out),
        Network,
        "redirects more than 10 times",
    ),
    (
        "a slow way",
        |asked, out| {
            pause(150);
            Answer::of(302, "").header("Location", format!("{}x", asked.path)).send(out)
        },
        Network,
        "redirects took too long",
    ),
    ("a way to nowhere", |_, out| Answer::of(302, "").header("Location", "http://[::1").send(out), Network, "redirects to"),
    (
        "a body that stops",
        |_, out| {
            head(out, "Content-Length: 1000")?;
            out.write_all(b"x")?;
            out.flush()?;
            silent()
        },
        Network,
        "127.0.0.1",
    ),
    (
        "a body, byte by byte",
        |_, out| {
            head(out, "Content-Length: 1000000")?;
            forever(out, b"x", 20)
        },
        Network,
        "too slow",
    ),
    (
        "a body of unknown length, byte by byte",
        |_, out| {
            head(out, "Connection: close")?;
            forever(out, b"x", 20)
        },
        Network,
        "too slow",
    ),
    (
        "a body that breaks off after each byte",
        |_, out| {
            head(out, "Content-Length: 100000\r\nETag: \"a\"")?;
            out.write_all(b"x")
        },
        Network,
        "127.0.0.1",
    ),
    (
        "a body that goes on, byte by byte",
        |asked, out| {
            let from: u64 = asked.header("range").map_or(0, |range| range[6..range.len() - 1].parse().unwrap());
            let status = if from == 0 { 200 } else { 206 };
            write!(
                out,
                "HTTP/1.1 {status} X\r\nETag: \"a\"\r\nContent-Range: bytes {from}-99999/100000\r\nContent-Length: {}\r\n\r\nx",
                100_000 - from
            )
        },
        Network,
        "in the time that it may take",
    ),
    (
        "a body that begins anew again and again",
        |asked, out| match asked.header("range") {
            Some(_) => Answer::of(416, "").send(out),
            None => Answer::of(200, vec![b'x'; 1000]).header("ETag", "\"a\"").cut(10).send(out),
        },
        Network,
        "in the time that it may take",
    ),
    (
        "a body without an end",
        |_, out| {
            head(out, "Connection: close")?;
            forever(out, &[b'x'; 1 << 16], 0)
        },
        Network,
        "more than the 1048576 bytes",
    ),
    (
        "chunks without an end",
        |_, out| {
            head(out, "Transfer-Encoding: chunked")?;
            forever(out, format!("10000\r\n{}\r\n", "x".repeat(1 << 16)).as_bytes(), 0)
        },
        Network,
        "more than the 1048576 bytes",
    ),
    (
        "chunks of one byte, slowly",
        |_, out| {
            head(out, "Transfer-Encoding: chunked")?;
            forever(out, b"1\r\nx\r\n", 20)
        },
        Network,
        "too slow",
    ),
    (
        "trailers without an end",
        |_, out| {
            head(out, "Transfer-Encoding: chunked")?;
            out.write_all(b"4\r\ndata\r\n0\r\n")?;
            forever(out, b"X: y\r\n", 0)
        },
        Network,
        "too slow",
    ),
    (
        "trailers, slowly",
        |_, out| {
            head(out, "Transfer-Encoding: chunked")?;
            out.write_all(b"4\r\ndata\r\n0\r\n")?;
            forever(out, b"X: y\r\n", 20)
        },
        Network,
        "too slow",
    ),
    (
        "one trailer without an end",
        |_, out| {
            head(out, "Transfer-Encoding: chunked")?;
            out.write_all(b"4\r\ndata\r\n0\r\nX: ")?;
            forever(out, &[b'y'; 1 << 12], 0)
        },
        Network,
        "127.0.0.1",
    ),
    (
        "a chunk's length without an end",
        |_, out| {
            head(out, "Transfer-Encoding: chunked")?;
            forever(out, b"0", 0)
        },
        Network,
        "127.0.0.1",
    ),
    (
        "a chunk that is no chunk",
        |_, out| {
            head(out, "Transfer-Encoding: chunked")?;
            out.write_all(b"zz\r\nx\r\n0\r\n\r\n")
        },
        Network,
        "127.0.0.1",
    ),
    (
        "a chunk as large as memory",
        |_, out| {
            head(out, "Transfer-Encoding: chunked")?;
            out.write_all(b"ffffffffffffffff\r\nx")
        },
        Network,
        "127.0.0.1",
    ),
    (
        "more than it says, in chunks and by length",
        |_, out| {
            head(out, "Content-Length: 1\r\nContent-Length: 2")?;
            out.write_all(b"xy")
        },
        Network,
        "127.0.0.1",
    ),
    ("a length that is none", |_, out| head(out, "Content-Length: -1"), Network, "127.0.0.1"),
    ("a length beyond all", |_, out| head(out, "Content-Length: 18446744073709551615"), Manifest, "a source has at most 1.0 MiB"),
    ("a length beyond the limit", |_, out| head(out, "Content-Length: 1048577"), Manifest, "a source has at most 1.0 MiB"),
    ("a packed answer", |_, out| Answer::of(200, "x").header("Content-Encoding", "gzip").send(out), Network, "which was not asked for"),
    (
        "a part that was not asked for",
        |_, out| Answer::of(206, "x").header("Content-Range", "bytes 5-5/9").send(out),
        Network,
        "another part",
    ),
    ("a part of nothing", |_, out| Answer::of(206, "x").send(out), Network, "another part"),
    ("nothing", |_, out| Answer::of(204, "").send(out), Network, "204 instead of a file"),
    ("later", |_, out| Answer::of(202, "wait").send(out), Network, "202 instead of a file"),
    ("busy for ever", |_, out| Answer::of(429, "\u{1b}[2Jcalm down").header("Retry-After", "0").send(out), Network, "429: [2Jcalm down"),
    (
        "an error without an end",
        |_, out| {
            write!(out, "HTTP/1.1 403 X\r\n\r\n")?;
            forever(out, b"no ", 0)
        },
        Manifest,
        "answers 403",
    ),
    ("another protocol", |_, out| out.write_all(b"SSH-2.0-OpenSSH_9.0\r\n"), Network, "127.0.0.1"),
    ("a head of garbage", |_, out| out.write_all(&[0x80; 5000]), Network, "127.0.0.1"),
];

#[test]
fn transfers_end() {
    std::thread::scope(|scope| {
        // In lanes: most cases wait.
        for lane in 0..4 {
            scope.spawn(move || {
                for (name, handler, blame, message) in CASES.iter().skip(lane).step_by(4) {
                    let server = Server::raw(*handler);
                    let mut space = Space::new(&format!("{{ url = \"{}/a.txt\" }}", server.url));
                    let error = refused(&mut space, name);
                    assert!(error.message.contains(message), "{name}: {error:?}");
                    assert_eq!(error.is_environment, *blame == Network, "{name}: {error:?}");
                    // A server that gives a byte a time is asked for as long as its time lasts, with a pause in between that is short in these tests.
                    assert!(server.asked().len() <= 5_000, "{name}");
                }
            });
        }
    });
}

#[test]
fn handshakes_end() {
    for (name, handler) in [
        ("no handshake", (|_| pause(30_000)) as fn(&mut std::net::TcpStream)),
        ("a handshake, byte by byte", |stream| drop(forever(stream, &[0x16], 20))),
        ("a handshake of garbage", |stream| drop(stream.write_all(&[b'x'; 1000]))),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let authority = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || handler(&mut stream));
            }
        });
        let mut space = Space::new(&format!("{{ url = \"https://{authority}/a.txt\" }}"));
        let error = refused(&mut space, name);
        assert!(error.message.contains("cannot reach") && error.is_environment, "{name}: {error:?}");
    }
}

#[test]
fn a_slow_server_is_served_as_long_as_it_is_fast_enough() {
    // Longer than all the grace, at twice the lowest speed.
    let server = Server::raw(|_, out| {
        head(out, "Content-Length: 240000")?;
        for _ in 0..60 {
            out.write_all(&[b'x'; 4000])?;
            out.flush()?;
            pause(20);
        }
        Ok(())
    });
    let mut space = Space::new(&format!("{{ url = \"{}/a.txt\" }}", server.url));
    space.remote.limits = small();
    let start = Instant::now();
    space.lock().unwrap();
    assert!(start.elapsed() > 2 * small().grace);
}
