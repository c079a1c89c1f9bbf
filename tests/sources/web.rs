//! `url = "https://…"`: one file, pinned to its digest.

use std::fs;
use std::io::Write;
use std::sync::{Arc, Mutex};

use slmops::source::Fetch;

use crate::server::{Answer, Asked, Server};
use crate::space::{Space, files, noise, sha256};

/// A server whose answers can be changed.
fn server(first: Answer) -> (Server, Arc<Mutex<Vec<Answer>>>) {
    let next = Arc::new(Mutex::new(vec![first]));
    let answers = next.clone();
    let server = Server::start(move |asked: &Asked| {
        let mut answers = answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        match (answer.status, answer.cut) {
            (200, None) => Answer { headers: answer.headers, ..Answer::ranged(asked, &answer.body) },
            _ => answer,
        }
    });
    (server, next)
}

#[test]
fn a_file_is_pinned_to_what_it_is() {
    let (server, answers) = server(Answer::of(200, "{\"text\":\"a\"}\n"));
    let space = Space::new(&format!("{{ url = \"{}/data/train%20set.jsonl?x=1\" }}", server.url));
    assert!(space.plan(Fetch::Pinned).unwrap_err().message.contains("not pinned yet"));
    let lock = space.lock().unwrap();
    assert_eq!(lock.sources["a"].rev, sha256(b"{\"text\":\"a\"}\n"));
    let path = space.plan(Fetch::Never).unwrap();
    assert!(path.ends_with("train set.jsonl"), "{path:?}");
    assert_eq!(fs::read(&path).unwrap(), b"{\"text\":\"a\"}\n");
    server.asked();
    space.fetched();
    space.check().unwrap();
    assert!(server.asked().is_empty());

    // The address holds something else: the pin stays, and whoever has nothing yet is told.
    *answers.lock().unwrap() = vec![Answer::of(200, "other")];
    space.fetched();
    space.forget();
    let error = space.plan(Fetch::Pinned).unwrap_err();
    assert!(error.message.contains(&sha256(b"other")) && error.message.contains(&lock.sources["a"].rev), "{error:?}");
    assert!(error.helps[0].contains("slmops lock") && space.blobs().is_empty(), "{error:?} {:?}", space.blobs());
    assert_eq!(space.lock().unwrap().sources["a"].rev, sha256(b"other"));
}

#[test]
fn a_digest_in_the_manifest_is_heeded() {
    let (server, _) = server(Answer::of(200, "data"));
    let space = Space::new(&format!("{{ url = \"{}/a.txt\", sha256 = \"{}\" }}", server.url, sha256(b"date")));
    let error = space.lock_fails();
    assert!(error.message.contains(&sha256(b"data")) && error.message.contains(&sha256(b"date")), "{error:?}");
    space.manifest(&format!("{{ url = \"{}/a.txt\", sha256 = \"{}\" }}", server.url, sha256(b"data").to_uppercase()));
    space.lock().unwrap();
    server.asked();
    space.lock().unwrap();
    assert!(server.asked().is_empty());
    space.manifest(&format!("{{ url = \"{}/a.txt\", sha256 = \"{}\" }}", server.url, sha256(b"date")));
    assert!(space.check().unwrap_err()[0].message.contains("has changed since it was pinned"));
}

#[test]
fn an_unknown_file_goes_on_only_as_the_same_version() {
    let bytes = noise(40_000);
    let tagged = |answer: Answer, tag: &str| answer.header("ETag", format!("\"{tag}\""));
    // Cut, then continued: the server still has the same version.
    let rest = Answer::of(206, &bytes[15_000..]).header("Content-Range", "bytes 15000-39999/40000");
    let (server, answers) = server(tagged(Answer::of(200, bytes.clone()).cut(15_000), "one"));
    answers.lock().unwrap().extend([rest, tagged(Answer::of(404, ""), "x")]);
    let space = Space::new(&format!("{{ url = \"{}/w.bin\" }}", server.url));
    assert_eq!(space.lock().unwrap().sources["a"].rev, sha256(&bytes));
    let asked = server.asked();
    assert_eq!((asked[1].header("range"), asked[1].header("if-range")), (Some("bytes=15000-"), Some("\"one\"")));

    // Cut, and it is another version by now: all of it.
    let other = noise(41_000);
    *answers.lock().unwrap() = vec![
        tagged(Answer::of(200, bytes.clone()).cut(15_000), "one"),
        Answer { cut: Some(41_000), ..tagged(Answer::of(200, other.clone()), "two") },
    ];
    assert_eq!(space.lock().unwrap().sources["a"].rev, sha256(&other));

    // Cut, and the server names no versions: from the start.
    *answers.lock().unwrap() = vec![Answer::of(200, bytes.clone()).cut(15_000), Answer::of(200, bytes.clone())];
    server.asked();
    assert_eq!(space.lock().unwrap().sources["a"].rev, sha256(&bytes));
    assert!(server.asked().iter().all(|asked| asked.header("range").is_none()));
    assert!(space.blobs().iter().all(|name| !name.ends_with(".part") && !name.ends_with(".version")), "{:?}", space.blobs());
}

#[test]
fn an_archive_is_unpacked() {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in [("set/train.jsonl", "one"), ("set/test.jsonl", "two")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes.as_bytes()).unwrap();
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&builder.into_inner().unwrap()).unwrap();
    let gzip = gzip.finish().unwrap();
    let (server, _) = server(Answer::of(200, gzip.clone()));
    let space = Space::new(&format!("{{ url = \"{}/set.tar.gz\", unpack = true }}", server.url));
    assert_eq!(space.lock().unwrap().sources["a"].rev, sha256(&gzip));
    assert_eq!(
        files(&space.fetched()),
        [("set/test.jsonl".to_string(), b"two".to_vec()), ("set/train.jsonl".to_string(), b"one".to_vec())]
    );
    space.manifest(&format!("{{ url = \"{}/set.tar.gz\", unpack = true, path = \"set/train.jsonl\" }}", server.url));
    space.lock().unwrap();
    assert_eq!(fs::read(space.fetched()).unwrap(), b"one");
    space.manifest(&format!("{{ url = \"{}/set.tar.gz\", unpack = true, path = \"set/none\" }}", server.url));
    assert!(space.lock_fails().message.contains("no file or folder `set/none`"));
}

#[test]
fn other_answers_are_told() {
    let (server, answers) = server(Answer::of(404, "gone fishing"));
    let space = Space::new(&format!("{{ url = \"{}/a.txt\" }}", server.url));
    let error = space.lock_fails();
    assert!(error.message.contains("answers 404: gone fishing") && !error.is_environment, "{error:?}");
    *answers.lock().unwrap() = vec![Answer::of(302, "").header("Location", "/again")];
    assert!(space.lock_fails().message.contains("redirects more than"));
    *answers.lock().unwrap() = vec![Answer::of(200, "x"), Answer::of(302, "").header("Location", "ftp://x/")];
    space.lock().unwrap();
    space.manifest("{ url = \"https://user:word@example.org/x\" }");
    assert!(space.lock_fails().message.contains("holds a user or a password"));
}

#[test]
fn a_password_comes_from_netrc() {
    let server = Server::start(|asked| match asked.header("authorization") {
        Some("Basic bWU6c2VjcmV0") => Answer::of(200, "data"),
        _ => Answer::of(401, ""),
    });
    let mut space = Space::new(&format!("{{ url = \"{}/a.txt\" }}", server.url));
    assert!(space.lock_fails().message.contains("answers 401"));
    fs::write(space.path().join("netrc"), "machine 127.0.0.1 login me password secret\n").unwrap();
    space.remote.netrc = Some(space.path().join("netrc"));
    space.lock().unwrap();
    assert!(!fs::read_to_string(space.path().join("slmops.lock")).unwrap().contains("secret"));
}
