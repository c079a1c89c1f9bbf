//! What servers list: repositories on the Hub, manifests of registries, trees and packs of git. Too much of it, the wrong of it, and what must not be
//! written to a disk. The limits are those of `hostile::small`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use sha1_of_packs::sha1;

use crate::git::{backend, commit, git, pointer, repository};
use crate::hostile::refused;
use crate::hub::{Hub, NAME};
use crate::server::{Answer, Asked, Server};
use crate::space::{Space, files, noise, sha256};

/// Packs end with a SHA-1 of themselves, which git itself makes for us.
mod sha1_of_packs {
    pub fn sha1(bytes: &[u8]) -> [u8; 20] {
        use std::io::Write;
        use std::process::{Command, Stdio};
        let mut child =
            Command::new("openssl").args(["dgst", "-sha1", "-binary"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        child.wait_with_output().unwrap().stdout.try_into().unwrap()
    }
}

fn entry(path: &str) -> String {
    format!("{{\"type\": \"file\", \"oid\": \"{}\", \"size\": 4, \"path\": {}}}", "0a".repeat(20), serde_json::Value::from(path))
}

fn large(path: &str, size_bytes: u64) -> String {
    let (oid, path) = ("0a".repeat(32), serde_json::Value::from(path));
    format!("{{\"type\": \"file\", \"lfs\": {{\"oid\": \"{oid}\", \"size\": {size_bytes}}}, \"path\": {path}}}")
}

/// A Hub whose listing is what `page` makes of the number of the page, each leading to the next that `next` names.
fn listed(
    page: impl Fn(usize) -> String + Send + Sync + 'static,
    next: impl Fn(usize) -> Option<String> + Send + Sync + 'static,
) -> Server {
    Server::start(move |asked: &Asked| {
        if asked.path.contains("/revision/") {
            return Answer::of(200, format!("{{\"sha\": \"{}\"}}", "0b".repeat(20)));
        }
        if !asked.path.contains("/tree/") {
            return Answer::of(200, "data");
        }
        let number = asked.path.rsplit_once("cursor=").map_or(0, |(_, number)| number.parse().unwrap());
        let answer = Answer::of(200, page(number));
        match next(number) {
            Some(next) => answer.header("Link", format!("<{}?cursor={next}>; rel=\"next\"", asked.path.split('?').next().unwrap())),
            None => answer,
        }
    })
}

#[test]
fn listings_of_the_hub_end_and_are_checked() {
    let one = |text: String| move |_: usize| format!("[{text}]");
    let last = |_: usize| None;
    let many = |count: usize| (0..count).map(|i| entry(&format!("f{i}"))).collect::<Vec<_>>().join(", ");
    let folders =
        |count: usize| (0..count).map(|i| format!("{{\"type\": \"directory\", \"path\": \"d{i}\"}}")).collect::<Vec<_>>().join(", ");
    let cases: Vec<(&str, Server, bool, &str)> = vec![
        (
            "pages without an end",
            listed(|n| format!("[{}]", entry(&format!("f{n}"))), |n| Some((n + 1).to_string())),
            true,
            "does not end within 6 pages",
        ),
        ("the same page again", listed(|n| format!("[{}]", entry(&format!("f{n}"))), |_| Some("1".to_string())), true, "read before"),
        (
            "two pages in a circle",
            listed(|n| format!("[{}]", entry(&format!("f{n}"))), |n| Some((1 + n % 2).to_string())),
            true,
            "read before",
        ),
        ("too many files", listed(one(many(21)), last), false, "more than 20 files"),
        ("too many folders", listed(one(folders(21)), last), false, "more than 20 files"),
        ("a page that is too long", listed(|_| format!("[{}]", " ".repeat(17 << 20)), last), true, "more than the 16777216 bytes"),
        ("a file twice", listed(one([entry("a"), entry("a")].join(", ")), last), false, "`a` is in it twice"),
        ("a file that is a folder", listed(one([entry("a.json"), entry("a.json/b")].join(", ")), last), true, ""),
        ("a way out", listed(one(entry("../a")), last), false, "`../a` is not a plain relative path"),
        ("a root", listed(one(entry("/a")), last), false, "not a plain relative path"),
        ("git's own folder", listed(one(entry("a/.git/config")), last), false, "as git calls its own folder"),
        ("a name of another terminal", listed(one(entry("a\u{1b}[2J")), last), false, "`a[2J` has a control character"),
        ("a deep folder", listed(one(entry(&vec!["d"; 65].join("/"))), last), false, "more than 64 folders"),
        ("a long name", listed(one(entry(&"n".repeat(5000))), last), false, "longer than 1024 bytes"),
        ("no digest", listed(one("{\"type\": \"file\", \"path\": \"a\"}".into()), last), true, "without a digest"),
        ("a link", listed(one("{\"type\": \"symlink\", \"path\": \"a\"}".into()), last), true, "a source cannot hold"),
        ("deep JSON", listed(|_| "[".repeat(100_000), last), true, "cannot be read"),
        (
            "words in place of a number",
            listed(one(format!("{{\"type\": \"file\", \"path\": \"a\", \"size\": \"\\u001b]0;x\\u0007{}\"}}", "x".repeat(9000))), last),
            true,
            "cannot be read",
        ),
        (
            "a file beyond the limit",
            listed(one(large("a.json", (1 << 20) + 1)), last),
            false,
            "`a.json` has 1.0 MiB: a source has at most 1.0 MiB",
        ),
        (
            "files beyond the limit",
            listed(one([large("a.json", 1 << 20), large("b.json", 1 << 20), large("c.json", 1)].join(", ")), last),
            false,
            "a source has at most 2.0 MiB",
        ),
        (
            "sizes beyond all",
            listed(one([large("a.json", u64::MAX), large("b.json", u64::MAX)].join(", ")), last),
            false,
            "a source has at most 2.0 MiB",
        ),
        ("another size", listed(one(large("a.json", 3)), last), true, "more than the 3 bytes"),
        ("another content", listed(one(large("a.json", 4)), last), true, "its SHA-256 is"),
        ("another small content", listed(one(entry("a.json")), last), true, "its git digest is"),
    ];
    for (name, server, is_network, message) in cases {
        let mut space = Space::new(&format!("{{ hf = \"{NAME}\" }}"));
        space.remote.hub = server.url.clone();
        let error = refused(&mut space, name);
        assert!(error.message.contains(message), "{name}: {error:?}");
        assert_eq!(error.is_environment, is_network, "{name}: {error:?}");
        let trees = space.path().join("cache/sources/trees");
        assert!(!trees.exists() || slmops::base::files::names(&trees).unwrap().is_empty(), "{name}");
    }
    // A revision that is none.
    for answer in ["{\"sha\": \"../../x\"}", "{\"sha\": 1}", "[]", "\u{1b}[2J"] {
        let server = Server::start(move |_| Answer::of(200, answer));
        let mut space = Space::new(&format!("{{ hf = \"{NAME}\" }}"));
        space.remote.hub = server.url.clone();
        assert!(refused(&mut space, answer).is_environment);
    }
}

#[test]
fn a_source_as_a_whole_has_its_time() {
    // Each file is quick enough; twenty of them one after the other are not.
    let many = (0..20).map(|i| large(&format!("f{i}.json"), 4).replace("0a0a", &format!("{:04x}", i + 16))).collect::<Vec<_>>().join(", ");
    let listing = listed(move |_| format!("[{many}]"), |_| None);
    let inner = listing.url.clone();
    let slow = Server::start(move |asked| {
        if asked.path.contains("/resolve/") {
            std::thread::sleep(std::time::Duration::from_millis(350));
            return Answer::of(503, "").header("Retry-After", "1");
        }
        Answer::of(307, "").header("Location", format!("{inner}{}", asked.path))
    });
    let mut space = Space::new(&format!("{{ hf = \"{NAME}\" }}"));
    space.remote.hub = slow.url.clone();
    assert!(refused(&mut space, "slow files").is_environment);
}

type Layers = Vec<(&'static str, &'static str, Vec<u8>)>;

fn registry(manifest: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static, blobs: Vec<Vec<u8>>) -> Server {
    Server::start(move |asked| {
        if let Some((_, reference)) = asked.path.split_once("/manifests/") {
            return Answer::of(200, manifest(reference));
        }
        let digest = asked.path.rsplit("sha256:").next().unwrap();
        match blobs.iter().find(|blob| sha256(blob) == digest) {
            Some(blob) => Answer::ranged(asked, blob),
            None => Answer::of(404, ""),
        }
    })
}

fn manifest(layers: &[(&str, &str, Vec<u8>)]) -> Vec<u8> {
    let layers: Vec<serde_json::Value> = layers
        .iter()
        .map(|(kind, path, bytes)| {
            let annotations = if path.is_empty() { serde_json::json!({}) } else { serde_json::json!({"org.cncf.model.filepath": path}) };
            serde_json::json!({"mediaType": kind, "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len(), "annotations": annotations})
        })
        .collect();
    serde_json::json!({"schemaVersion": 2, "layers": layers}).to_string().into_bytes()
}

const RAW: &str = "application/vnd.cncf.model.weight.v1.raw";
const TAR: &str = "application/vnd.cncf.model.weight.v1.tar";

fn tar(names: &[&str], size_bytes: usize) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for name in names {
        let mut header = tar::Header::new_gnu();
        header.set_size(size_bytes as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, vec![7; size_bytes].as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn artifacts_of_registries_are_checked() {
    let file = |path: &'static str| (RAW, path, b"x".to_vec());
    let index = |digest: String| {
        format!("{{\"manifests\": [{{\"mediaType\": \"x\", \"digest\": \"sha256:{digest}\", \"size\": 1}}]}}").into_bytes()
    };
    let names: Vec<String> = (0..21).map(|i| format!("f{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let two: Vec<String> = (0..11).map(|i| format!("g{i}")).collect();
    let two: Vec<&str> = two.iter().map(String::as_str).collect();
    let artifacts: Vec<(&str, Layers, bool, &str)> = vec![
        ("a way out", vec![file("../x")], false, "`../x` is not a plain relative path"),
        ("git's own folder", vec![file(".git/hooks/x")], false, "as git calls its own folder"),
        ("a name twice", vec![file("x"), file("x")], false, "`x` is in it twice"),
        ("a file that is a folder", vec![file("x"), file("x/y")], false, "`x/y` is in it twice"),
        ("a file of an archive that is another layer", vec![file("f0"), (TAR, "", tar(&["f0"], 1))], false, "`f0` is in it twice"),
        ("an archive that writes through another layer", vec![file("f0"), (TAR, "", tar(&["f0/x"], 1))], false, "`f0/x` is in it twice"),
        ("too many files in an archive", vec![(TAR, "", tar(&names, 0))], false, "more than 20 files"),
        ("too many files in two archives", vec![(TAR, "", tar(&names[..10], 0)), (TAR, "", tar(&two, 0))], false, "more than 20 files"),
        ("too many files in all", (0..21).map(|i| (RAW, ["a", "b"][i % 2], vec![i as u8])).collect(), false, "is in it twice"),
        ("too large an archive", vec![(TAR, "", tar(&["x"], 3 << 20))], false, "a source has at most"),
        ("no archive", vec![(TAR, "", vec![b'x'; 2000])], false, "cannot be unpacked"),
    ];
    for (name, layers, is_network, message) in artifacts {
        let (bytes, blobs) = (manifest(&layers), layers.into_iter().map(|(_, _, bytes)| bytes).collect());
        let server = registry(move |_| bytes.clone(), blobs);
        let mut space = Space::new(&format!("{{ oci = \"{}/team/model:1\" }}", server.authority));
        let error = refused(&mut space, name);
        assert!(error.message.contains(message), "{name}: {error:?}");
        assert_eq!(error.is_environment, is_network, "{name}: {error:?}");
    }
    let inner = index(sha256(&manifest(&[file("x")])));
    let outer = index(sha256(&inner));
    let nested = {
        let (inner, digest) = (inner.clone(), sha256(&inner));
        move |reference: &str| if reference.ends_with(&digest) { inner.clone() } else { outer.clone() }
    };
    let layer = |size_bytes: u64| {
        format!("{{\"layers\": [{{\"mediaType\": \"{RAW}\", \"digest\": \"sha256:{}\", \"size\": {size_bytes}, \"annotations\": {{\"org.cncf.model.filepath\": \"x\"}}}}]}}", sha256(b"x")).into_bytes()
    };
    let cases: Vec<(&str, Server, bool, &str)> = vec![
        ("a manifest that is too long", registry(|_| vec![b' '; 5 << 20], Vec::new()), true, "more than the 4194304 bytes"),
        ("a manifest of nothing", registry(|_| b"{}".to_vec(), Vec::new()), false, "lists nothing"),
        ("deep JSON", registry(|_| "[".repeat(100_000).into_bytes(), Vec::new()), false, "cannot be used"),
        (
            "too many layers",
            registry(
                move |_| {
                    format!(
                        "{{\"layers\": [{}]}}",
                        vec![format!("{{\"mediaType\": \"x\", \"digest\": \"sha256:{}\", \"size\": 1}}", "0a".repeat(32)); 10_001]
                            .join(",")
                    )
                    .into_bytes()
                },
                Vec::new(),
            ),
            false,
            "more than 10000 layers",
        ),
        ("an index within an index", registry(nested, Vec::new()), false, "an index within an index"),
        ("an index of what is not there", registry(move |_| inner.clone(), Vec::new()), true, "the manifest is not the one"),
        ("a layer beyond the limit", registry(move |_| layer(1 << 40), vec![b"x".to_vec()]), false, "a source has at most"),
        ("a layer of another size", registry(move |_| layer(2), vec![b"x".to_vec()]), true, ""),
        ("a layer of no size", registry(move |_| layer(0), vec![b"x".to_vec()]), true, "its SHA-256 is"),
    ];
    for (name, server, is_network, message) in cases {
        let mut space = Space::new(&format!("{{ oci = \"{}/team/model:1\" }}", server.authority));
        let error = refused(&mut space, name);
        assert!(error.message.contains(message), "{name}: {error:?}");
        assert_eq!(error.is_environment, is_network, "{name}: {error:?}");
    }
}

/// A line of git's protocol.
fn line(bytes: &[u8]) -> Vec<u8> {
    [format!("{:04x}", bytes.len() + 4).as_bytes(), bytes].concat()
}

/// A server that offers one branch and sends `pack` for it, whatever that is.
fn sends(advertised: Vec<u8>, pack: Vec<u8>) -> Server {
    Server::start(move |asked| match asked.method.as_str() {
        "GET" => Answer::of(200, advertised.clone()).header("Content-Type", "application/x-git-upload-pack-advertisement"),
        _ => Answer::of(200, pack.clone()),
    })
}

const OID: &str = "0123456789012345678901234567890123456789";

fn refs(lines: &[String]) -> Vec<u8> {
    let mut all = [line(b"# service=git-upload-pack\n"), b"0000".to_vec()].concat();
    for (index, text) in lines.iter().enumerate() {
        let capabilities = if index == 0 { "\0side-band-64k ofs-delta shallow" } else { "" };
        all.extend(line(format!("{text}{capabilities}\n").as_bytes()));
    }
    all.extend(b"0000");
    all
}

fn head() -> Vec<u8> {
    refs(&[format!("{OID} HEAD"), format!("{OID} refs/heads/main")])
}

/// A pack of objects in side band 1.
fn banded(objects: u32, content: &[u8]) -> Vec<u8> {
    let mut pack = [b"PACK".as_slice(), &2u32.to_be_bytes(), &objects.to_be_bytes(), content].concat();
    pack.extend(sha1(&pack));
    let mut all = line(b"NAK\n");
    for piece in pack.chunks(60_000) {
        all.extend(line(&[&[1], piece].concat()));
    }
    all.extend(b"0000");
    all
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An object as a pack holds it: its type and size, what a delta stands on, its content.
fn object(kind: u8, size_bytes: usize, base: &[u8], content: &[u8]) -> Vec<u8> {
    let mut first = kind << 4 | (size_bytes & 15) as u8;
    let mut left = size_bytes >> 4;
    let mut out = Vec::new();
    while left > 0 {
        out.push(first | 0x80);
        first = (left & 0x7f) as u8;
        left >>= 7;
    }
    out.push(first);
    [out.as_slice(), base, &zlib(content)].concat()
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// The first bytes of a delta from so many bytes to so many.
fn sizes(from: usize, to: usize) -> Vec<u8> {
    [varint(from), varint(to)].concat()
}

#[test]
fn what_git_servers_send_is_measured_before_it_is_unpacked() {
    let blob = |size_bytes: usize| object(3, size_bytes, &[], &vec![0; size_bytes]);
    // Each delta stands on the object right in front of it.
    let chain = |length: usize| {
        let mut all = blob(8);
        let mut last = all.len();
        for _ in 0..length {
            let delta = [sizes(8, 8), vec![0x90, 8]].concat();
            let next = object(6, delta.len(), &[last as u8], &delta);
            last = next.len();
            all.extend(next);
        }
        all
    };
    let delta = |to: usize| [blob(8), object(6, sizes(8, to).len(), &[blob(8).len() as u8], &sizes(8, to))].concat();
    let named = |count: u8| (0..count).flat_map(|i| object(7, 2, &[i; 20], &sizes(8, 8))).collect::<Vec<u8>>();
    let aside = |band: u8, bytes: usize| {
        let mut all = line(b"NAK\n");
        for _ in 0..bytes / 60_000 {
            all.extend(line(&[&[band][..], &[b'x'; 60_000]].concat()));
        }
        all
    };
    let many: Vec<String> = (0..21).map(|i| format!("{OID} refs/heads/b{i}")).collect();
    // No objects, and more than the sum of them behind.
    let beyond = [b"PACK\0\0\0\x02\0\0\0\0".as_slice(), &[0; 60]].concat();
    type Case<'a> = (&'a str, Vec<u8>, Vec<u8>, bool, &'a str);
    let cases: Vec<Case> = vec![
        ("too many branches", refs(&many), Vec::new(), false, "more than 20 branches and tags"),
        ("a branch without a commit", refs(&["x HEAD".to_string()]), Vec::new(), true, "a branch without a commit"),
        ("a line without a length", b"zzzz".to_vec(), Vec::new(), true, "a line without a length"),
        ("a line that is cut", b"00ffab".to_vec(), Vec::new(), true, "127.0.0.1"),
        ("branches without an end", [&head()[..head().len() - 4], line(b"").as_slice()].concat(), Vec::new(), true, "127.0.0.1"),
        ("an error with commands", head(), line(b"ERR \x1b[2Jno\x07\n"), true, "[2Jno"),
        ("an error in its band", head(), [line(b"NAK\n"), line(b"\x03\x1b[2Jno\n")].concat(), true, "[2Jno"),
        ("talk without an end", head(), aside(2, 1 << 20), false, "it talks without an end"),
        ("marks without an end", head(), b"0000".repeat(1 << 18), false, "it talks without an end"),
        (
            "a pack that goes on behind its end",
            head(),
            [line(b"NAK\n"), line(&[b"\x01".as_slice(), &beyond].concat())].concat(),
            false,
            "something follows",
        ),
        ("no pack", head(), [line(b"NAK\n"), line(b"\x01HELLO, THIS IS NO PACK"), b"0000".to_vec()].concat(), false, "no pack of objects"),
        ("too many objects", head(), banded(31, b""), false, "its pack has 31 objects"),
        ("as many objects as can be", head(), banded(u32::MAX, b""), false, "its pack has 4294967295 objects"),
        ("too large a file", head(), banded(1, &blob((64 << 10) + 1)), false, "larger ones belong into Git LFS"),
        ("a file that is larger than it says", head(), banded(1, &object(3, 8, &[], &[0; 9])), false, "larger than it says"),
        ("a file that is smaller than it says", head(), banded(1, &object(3, 8, &[], &[0; 7])), false, "smaller than it says"),
        ("too large a delta", head(), banded(2, &delta(65 << 10)), false, "larger ones belong into Git LFS"),
        ("a delta as large as memory", head(), banded(2, &delta(1 << 40)), false, "larger ones belong into Git LFS"),
        (
            "a delta beyond all sizes",
            head(),
            banded(2, &[blob(8), object(6, 20, &[blob(8).len() as u8], &[0xff; 20])].concat()),
            false,
            "no sizes",
        ),
        ("too many deltas on each other", head(), banded(7, &chain(6)), false, "more than 4 deltas"),
        ("too many deltas by name", head(), banded(3, &named(3)), false, "more than 2 deltas by name"),
        (
            "too much in all",
            head(),
            banded(20, &(0..20).flat_map(|_| blob(64 << 10)).collect::<Vec<u8>>()),
            false,
            "its objects come to more than 1.0 MiB",
        ),
        ("a base in front of the pack", head(), banded(1, &object(6, 2, &[0x7f], &sizes(8, 8))), false, "is damaged"),
        ("an unknown kind", head(), banded(1, &object(5, 1, &[], b"x")), false, "is damaged"),
        ("what is not compressed", head(), banded(1, &[0x31, b'x', b'y', b'z', 0, 0, 0, 0]), false, "is damaged"),
        ("something behind it", head(), banded(1, &[blob(8), blob(8), blob(8)].concat()), false, "something follows"),
        (
            "a pack that is cut",
            head(),
            [line(b"NAK\n"), line(&[&[1][..], b"PACK\0\0\0\x02\0\0\0\x01"].concat()), b"0000".to_vec()].concat(),
            true,
            "damaged",
        ),
        (
            "a wrong sum",
            head(),
            {
                let mut all = banded(1, &blob(8));
                let end = all.len() - 5;
                all[end] ^= 1;
                all
            },
            true,
            "damaged",
        ),
        ("another commit", head(), banded(1, &blob(8)), false, "has no head"),
    ];
    for (name, advertised, pack, is_network, message) in cases {
        let server = sends(advertised, pack);
        let mut space = Space::new(&format!("{{ git = \"{}/data.git\" }}", server.url));
        let error = refused(&mut space, name);
        assert!(error.message.contains(message), "{name}: {error:?}");
        assert_eq!(error.is_environment, is_network, "{name}: {error:?}");
    }
}

/// Stores an object that git itself would not make, and makes it the branch's tree.
fn tree(folder: &Path, entries: &[(&str, &[u8], &str)]) -> String {
    let mut bytes = Vec::new();
    for (mode, name, oid) in entries {
        bytes.extend_from_slice(format!("{mode} ").as_bytes());
        bytes.extend_from_slice(name);
        bytes.push(0);
        bytes.extend(git2::Oid::from_str(oid).unwrap().as_bytes());
    }
    store(folder, "tree", &bytes)
}

fn store(folder: &Path, kind: &str, bytes: &[u8]) -> String {
    use std::io::Write;
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(["hash-object", "-w", "--literally", "-t", kind, "--stdin"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_string()
}

fn branch(folder: &Path, tree: &str) {
    let commit = git(folder, &["commit-tree", "-m", "m", tree]);
    git(folder, &["update-ref", "refs/heads/main", &commit]);
}

#[test]
fn trees_of_git_are_checked() {
    let origin = Space::new("{ path = \"slmops.toml\" }");
    let folder = repository(&origin);
    commit(&folder, &[("x", b"one")]);
    let root = origin.path().join("origin");
    let server = Server::start(move |asked| backend(&root, asked));
    let blob = store(&folder, "blob", b"text");
    let empty = tree(&folder, &[]);
    let wide = |leaf: &str, count: usize| {
        let names: Vec<String> = (0..count).map(|i| format!("d{i:02}")).collect();
        let entries: Vec<(&str, &[u8], &str)> = names.iter().map(|name| ("40000", name.as_bytes(), leaf)).collect();
        tree(&folder, &entries)
    };
    // Ten trees that each name the one below ten times: ten thousand million folders in ten objects.
    let bomb = (0..10).fold(empty.clone(), |below, _| wide(&below, 10));
    let files_bomb = (0..4).fold(tree(&folder, &[("100644", b"f", &blob)]), |below, _| wide(&below, 3));
    let deep = (0..70).fold(tree(&folder, &[("100644", b"f", &blob)]), |below, _| tree(&folder, &[("40000", b"d", &below)]));
    let many: Vec<String> = (0..21).map(|i| format!("f{i:02}")).collect();
    let many: Vec<(&str, &[u8], &str)> = many.iter().map(|name| ("100644", name.as_bytes(), blob.as_str())).collect();
    let pointers: Vec<(String, String)> = (0..21).map(|i| (format!("p{i:02}"), store(&folder, "blob", &pointer(&[i])))).collect();
    let pointers: Vec<(&str, &[u8], &str)> = pointers.iter().map(|(name, oid)| ("100644", name.as_bytes(), oid.as_str())).collect();
    let vast = store(
        &folder,
        "blob",
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 99999999999999\n", "0a".repeat(32)).as_bytes(),
    );
    let cases: Vec<(&str, String, &str)> = vec![
        ("folders of folders", bomb, "more than 10 folders"),
        ("folders of files", files_bomb, "more than 10 folders"),
        ("a deep folder", deep, "more than"),
        ("too many files", tree(&folder, &many), "more than 20 files"),
        ("too many pointers", tree(&folder, &pointers), "more than 20 files in Git LFS"),
        ("a pointer to too much", tree(&folder, &[("100644", b"p", &vast)]), "a source has at most"),
        (
            "git's own folder",
            tree(&folder, &[("40000", b".git", &tree(&folder, &[("100644", b"config", &blob)]))]),
            "as git calls its own folder",
        ),
        ("git's own folder in capitals", tree(&folder, &[("40000", b".GIT", &empty)]), "as git calls its own folder"),
        ("a way out", tree(&folder, &[("100644", b"..", &blob)]), "is not a plain relative path"),
        ("a slash", tree(&folder, &[("100644", b"a/../../x", &blob)]), "a slash in its name"),
        ("a name twice", tree(&folder, &[("100644", b"a", &blob), ("100644", b"a", &blob)]), "`a` is in it twice"),
        (
            "a file that is a folder",
            tree(&folder, &[("100644", b"a", &blob), ("40000", b"a", &tree(&folder, &[("100644", b"b", &blob)]))]),
            "is in it twice",
        ),
        ("a control character", tree(&folder, &[("100644", b"a\x1b[2J", &blob)]), "has a control character"),
        ("a name that is no text", tree(&folder, &[("100644", b"a\xff", &blob)]), "not text"),
        ("a link", tree(&folder, &[("120000", b"a", &blob)]), "symbolic link"),
        ("another repository", tree(&folder, &[("160000", b"a", OID)]), "submodule"),
    ];
    for (name, tree, message) in cases {
        branch(&folder, &tree);
        for url in [format!("{}/data.git", server.url), format!("{}", folder.display())] {
            let mut space = Space::new(&format!("{{ git = \"{url}\" }}"));
            let error = refused(&mut space, name);
            assert!(error.message.contains(message), "{name}, {url}: {error:?}");
        }
    }
    // A file that is too large, in a repository on this machine, where no pack is looked at.
    let large = store(&folder, "blob", &vec![0; (64 << 10) + 1]);
    branch(&folder, &tree(&folder, &[("100644", b"large", &large)]));
    let mut space = Space::new(&format!("{{ git = \"{}\" }}", folder.display()));
    assert!(refused(&mut space, "large").message.contains("`large` has 64.0 KiB: in git a file has at most 64.0 KiB"));
}

#[test]
fn real_packs_pass() {
    let origin = Space::new("{ path = \"slmops.toml\" }");
    let folder = repository(&origin);
    let mut text: Vec<u8> = noise(20_000);
    for round in 0..30 {
        text.extend(format!("line {round}\n").into_bytes());
        commit(&folder, &[("grows.txt", &text), (&format!("d/{round}.txt"), format!("{round}").as_bytes())]);
    }
    git(&folder, &["gc", "-q", "--aggressive"]);
    let first = git(&folder, &["rev-list", "--max-parents=0", "HEAD"]);
    let root = origin.path().join("origin");
    let server = Server::start(move |asked| backend(&root, asked));
    let space = Space::new(&format!("{{ git = \"{}/data.git\" }}", server.url));
    space.lock().unwrap();
    assert_eq!(files(&space.fetched()).len(), 31);
    // All of the history, with its deltas: the server gives no commit by its name.
    git(&folder, &["config", "uploadpack.allowReachableSHA1InWant", "false"]);
    space.manifest(&format!("{{ git = \"{}/data.git\", rev = \"{first}\" }}", server.url));
    space.lock().unwrap();
    assert_eq!(files(&space.fetched()).len(), 2);
    assert!(fs::read(space.fetched().join("grows.txt")).unwrap().ends_with(b"line 0\n"));
}

#[test]
fn the_hub_and_its_peers_still_work_with_small_limits() {
    let hub = Hub::of_models();
    hub.commit("main", &[("config.json", b"{}"), ("model.safetensors", &noise(5000))]);
    let mut space = Space::new(&format!("{{ hf = \"{NAME}\" }}"));
    space.remote.hub = hub.server.url.clone();
    space.remote.limits = crate::hostile::small();
    space.lock().unwrap();
    assert_eq!(files(&space.fetched()).len(), 2);
}
