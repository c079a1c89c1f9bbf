//! Every kind of change to every file of a bundle, thousands of them from a fixed seed: none is accepted.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::tests::{blob_path, put, with_manifest, written};
use super::*;
use crate::base::files;

const SEED: u64 = 0x5eed;
/// Byte changes of each file.
const ROUNDS: usize = 320;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

#[derive(Default)]
struct Tally {
    tried: usize,
    accepted: Vec<String>,
}

impl Tally {
    fn count(&mut self, bundle: &Path, what: impl FnOnce() -> String) {
        self.tried += 1;
        if verify(bundle).is_ok() {
            self.accepted.push(what());
        }
    }
}

/// One change of some bytes, and its name.
fn change_bytes(random: &mut Random, bytes: &mut Vec<u8>) -> &'static str {
    let at = random.below(bytes.len());
    match random.below(11) {
        0 | 1 => {
            bytes[at] ^= 1 << random.below(8);
            "bit flipped"
        }
        2 => {
            bytes[at] = random.next() as u8;
            "byte replaced"
        }
        3 => {
            bytes.insert(at, random.next() as u8);
            "byte inserted"
        }
        4 => {
            bytes.insert(at, b' ');
            "space inserted"
        }
        5 => {
            bytes.remove(at);
            "byte removed"
        }
        6 => {
            bytes.truncate(at);
            "cut"
        }
        7 => {
            let other = random.below(bytes.len());
            bytes.swap(at, other);
            "bytes swapped"
        }
        8 => {
            let tail = *random.pick(&[&b"\n"[..], b" ", b"\0", b"{}", b"\r\n"]);
            bytes.extend_from_slice(tail);
            "something appended"
        }
        9 => {
            let end = at + random.below(bytes.len() - at);
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
            "range doubled"
        }
        _ => {
            let end = at + random.below(bytes.len() - at);
            bytes.drain(at..end);
            "range removed"
        }
    }
}

/// The same document, or one with a member that says nothing, in other bytes.
fn respell(random: &mut Random, text: &str) -> (String, &'static str) {
    let ends: Vec<usize> = text.match_indices(['{', '}', ',', ':']).filter(|(i, _)| !is_inside_string(text, *i)).map(|(i, _)| i).collect();
    let at = *random.pick(&ends);
    let objects: Vec<usize> = ends.iter().copied().filter(|i| text.as_bytes()[*i] == b'{').collect();
    let start = *random.pick(&objects) + 1;
    let is_empty = text.as_bytes()[start] == b'}';
    let comma = if is_empty { "" } else { "," };
    match random.below(7) {
        0 => (format!("{} {}", &text[..at], &text[at..]), "white space"),
        1 => (format!("{}\n{}", &text[..=at], &text[at + 1..]), "white space"),
        2 => (
            format!("{}\"x-unknown\":{}{comma}{}", &text[..start], random.pick(&["1", "null", "{}", "[]", "\"\""]), &text[start..]),
            "an unknown member",
        ),
        3 => (reversed(text), "members in another order"),
        4 if !is_empty => {
            let member = first_member(&text[start..]);
            (format!("{}{member},{}", &text[..start], &text[start..]), "a member twice")
        }
        5 => match text[at..].find('"').map(|i| at + i + 1).filter(|i| text.as_bytes()[*i].is_ascii_alphanumeric()) {
            Some(i) => (format!("{}\\u{:04x}{}", &text[..i], text.as_bytes()[i], &text[i + 1..]), "a character escaped"),
            None => (format!("{text}\n"), "a line end"),
        },
        _ => (format!("\u{feff}{text}"), "a byte order mark"),
    }
}

fn is_inside_string(text: &str, end: usize) -> bool {
    let mut is_inside = false;
    let mut is_escaped = false;
    for byte in text.as_bytes()[..end].iter() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => is_inside = !is_inside,
            _ => {}
        }
    }
    is_inside
}

/// `"name":value` at the beginning of an object's inside.
fn first_member(inside: &str) -> &str {
    let mut depth = 0;
    for (i, byte) in inside.bytes().enumerate() {
        match byte {
            b'{' | b'[' if !is_inside_string(inside, i) => depth += 1,
            b',' | b'}' if depth == 0 && !is_inside_string(inside, i) => return &inside[..i],
            b'}' | b']' if !is_inside_string(inside, i) => depth -= 1,
            _ => {}
        }
    }
    inside
}

/// The members of the outermost object, backwards; a space where there is only one.
fn reversed(text: &str) -> String {
    let mut members = Vec::new();
    let mut rest = &text[1..];
    loop {
        let member = first_member(rest);
        members.push(member);
        match rest.as_bytes().get(member.len()) {
            Some(b',') => rest = &rest[member.len() + 1..],
            _ => break,
        }
    }
    if members.len() == 1 {
        return format!("{{ {}}}", members[0]);
    }
    members.reverse();
    format!("{{{}}}", members.join(","))
}

#[test]
fn no_byte_of_any_file_can_change() {
    let mut random = Random(SEED);
    let (_space, bundle) = written();
    let mut tally = Tally::default();
    for file in files::walk(&bundle).unwrap() {
        let path = bundle.join(&file);
        let good = fs::read(&path).unwrap();
        for _ in 0..ROUNDS {
            let mut bytes = good.clone();
            let what = change_bytes(&mut random, &mut bytes);
            if bytes != good {
                fs::write(&path, &bytes).unwrap();
                tally.count(&bundle, || format!("{}: {what}", file.display()));
            }
        }
        fs::write(&path, good).unwrap();
        verify(&bundle).unwrap();
    }
    println!("{} changes of bytes, {} accepted", tally.tried, tally.accepted.len());
    assert_eq!(tally.accepted, Vec::<String>::new());
    assert!(tally.tried >= 2000, "{}", tally.tried);
}

/// Gives the documents other bytes, without or with right digests all the way up: a careful forger's.
#[test]
fn a_document_has_one_spelling() {
    let mut random = Random(SEED);
    let mut tally = Tally::default();
    for round in 0..300 {
        let (_space, bundle) = written();
        let summary = open(&bundle).unwrap();
        let document = random.below(5);
        let mut what = "";
        let mut change = |text: &str| {
            let (text, kind) = respell(&mut random, text);
            what = kind;
            text
        };
        match document {
            0 | 1 => {
                let path = bundle.join([oci::INDEX_FILE, oci::LAYOUT_FILE][document]);
                let text = change(&fs::read_to_string(&path).unwrap());
                fs::write(path, text).unwrap();
            }
            2 => forge_manifest(&bundle, &mut change),
            3 => forge_config(&bundle, &mut change),
            _ => {
                let layer = summary.layers.last().unwrap();
                let text = change(&fs::read_to_string(bundle.join(layer.blob())).unwrap());
                fs::remove_file(bundle.join(layer.blob())).unwrap();
                let blob = put(&bundle, text.as_bytes());
                let (old, new) = (format!("sha256:{}", layer.sha256), blob.digest());
                let last = summary.layers.len() - 1;
                with_manifest(&bundle, |manifest| manifest["layers"][last]["size"] = json!(blob.size_bytes));
                forge_config(&bundle, &mut |text| text.replace(&old, &new));
                forge_manifest(&bundle, &mut |text| text.replace(&old, &new));
            }
        }
        tally.count(&bundle, || format!("round {round}, document {document}: {what}"));
    }
    println!("{} spellings, {} accepted", tally.tried, tally.accepted.len());
    assert_eq!(tally.accepted, Vec::<String>::new());
}

fn index_of(bundle: &Path) -> Value {
    serde_json::from_slice(&fs::read(bundle.join(oci::INDEX_FILE)).unwrap()).unwrap()
}

/// Changes the manifest's text, and names the new one in a canonical index.
fn forge_manifest(bundle: &Path, change: &mut dyn FnMut(&str) -> String) {
    let mut index = index_of(bundle);
    let old = blob_path(bundle, index["manifests"][0]["digest"].as_str().unwrap());
    let text = change(&fs::read_to_string(&old).unwrap());
    fs::remove_file(old).unwrap();
    let blob = put(bundle, text.as_bytes());
    index["manifests"][0]["digest"] = json!(blob.digest());
    index["manifests"][0]["size"] = json!(blob.size_bytes);
    fs::write(bundle.join(oci::INDEX_FILE), canonical::to_bytes(&index).unwrap()).unwrap();
}

fn forge_config(bundle: &Path, change: &mut dyn FnMut(&str) -> String) {
    let manifest = blob_path(bundle, index_of(bundle)["manifests"][0]["digest"].as_str().unwrap());
    let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    let old = blob_path(bundle, manifest["config"]["digest"].as_str().unwrap());
    let text = change(&fs::read_to_string(&old).unwrap());
    fs::remove_file(old).unwrap();
    let blob = put(bundle, text.as_bytes());
    with_manifest(bundle, |manifest| {
        manifest["config"]["digest"] = json!(blob.digest());
        manifest["config"]["size"] = json!(blob.size_bytes);
    });
}

/// The forger's tools themselves change nothing.
#[test]
fn a_forgery_that_changes_nothing_is_a_bundle() {
    let (_space, bundle) = written();
    let digest = verify(&bundle).unwrap().digest;
    forge_manifest(&bundle, &mut |text| text.to_string());
    forge_config(&bundle, &mut |text| text.to_string());
    assert_eq!(verify(&bundle).unwrap().digest, digest);
}

#[test]
fn what_a_manifest_says_is_said_in_one_way() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 14] = [
        ("layers in another order", |m| m["layers"].as_array_mut().unwrap().swap(0, 1)),
        ("the description not last", |m| m["layers"].as_array_mut().unwrap().swap(3, 4)),
        ("a note on a layer", |m| m["layers"][0]["annotations"]["note"] = json!("x")),
        ("a layer tested", |m| m["layers"][0]["annotations"][oci::UNTESTED] = json!("true")),
        ("no word of tests", |m| drop(m["layers"][0]["annotations"].as_object_mut().unwrap().remove(oci::UNTESTED))),
        ("another role of the description", |m| m["layers"][4]["mediaType"] = json!(Role::Code.media_type())),
        ("an artifact type of a layer", |m| m["layers"][0]["artifactType"] = json!("x")),
        ("notes on the config", |m| m["config"]["annotations"] = json!({"a": "b"})),
        ("a note", |m| m["annotations"]["note"] = json!("x")),
        ("another version", |m| m["annotations"][oci::VERSION] = json!("0.2.0")),
        ("another title", |m| m["annotations"][oci::TITLE] = json!("other")),
        ("another time", |m| m["annotations"][oci::CREATED] = json!("2020-01-01T00:00:00Z")),
        ("no version", |m| drop(m["annotations"].as_object_mut().unwrap().remove(oci::VERSION))),
        ("no notes", |m| drop(m.as_object_mut().unwrap().remove("annotations"))),
    ];
    for (what, change) in changes {
        let (_space, bundle) = written();
        with_manifest(&bundle, change);
        assert!(verify(&bundle).is_err(), "{what}");
        assert!(open(&bundle).is_err(), "{what}");
    }
    type ChangeIndex = fn(&mut Value);
    let changes: [(&str, ChangeIndex); 8] = [
        ("no media type", |i| drop(i.as_object_mut().unwrap().remove("mediaType"))),
        ("another media type", |i| i["mediaType"] = json!("x")),
        ("a note", |i| i["annotations"] = json!({"a": "b"})),
        ("another name", |i| i["manifests"][0]["annotations"][oci::REF_NAME] = json!("latest")),
        ("no name", |i| drop(i["manifests"][0].as_object_mut().unwrap().remove("annotations"))),
        ("another artifact", |i| i["manifests"][0]["artifactType"] = json!("x")),
        ("a platform", |i| i["manifests"][0]["platform"] = json!({"architecture": "amd64", "os": "linux"})),
        ("a link", |i| i["manifests"][0]["urls"] = json!(["https://example.org"])),
    ];
    for (what, change) in changes {
        let (_space, bundle) = written();
        let mut index = index_of(&bundle);
        change(&mut index);
        fs::write(bundle.join(oci::INDEX_FILE), canonical::to_bytes(&index).unwrap()).unwrap();
        assert!(verify(&bundle).is_err(), "{what}");
        assert!(open(&bundle).is_err(), "{what}");
    }
}

/// Files and folders that come, go, move or turn into something else.
#[test]
fn no_file_can_come_go_or_move() {
    let mut tally = Tally::default();
    let (_space, bundle) = written();
    let all = files::walk(&bundle).unwrap();
    let folders = ["", "blobs", "blobs/sha256"];
    let mut change = |what: String, act: &dyn Fn(&Path)| {
        let (_space, bundle) = written();
        act(&bundle);
        tally.count(&bundle, || what);
    };
    for folder in folders {
        for name in [".hidden", "x", "INDEX.JSON", " ", "-", &"0".repeat(64), &"a".repeat(200)] {
            change(format!("`{name}` in `{folder}`"), &|b| fs::write(b.join(folder).join(name), "").unwrap());
            change(format!("folder `{name}` in `{folder}`"), &|b| fs::create_dir(b.join(folder).join(name)).unwrap());
            change(format!("link `{name}` in `{folder}`"), &|b| symlink("/etc/hostname", b.join(folder).join(name)).unwrap());
        }
        let odd = PathBuf::from(std::ffi::OsString::from_vec(vec![0xff, 0xfe]));
        change(format!("a name that is not UTF-8 in `{folder}`"), &|b| fs::write(b.join(folder).join(&odd), "").unwrap());
    }
    change("one more blob".to_string(), &|b| drop(put(b, b"more")));
    for file in &all {
        let name = file.display();
        let (copy, longer) = (PathBuf::from("copy"), PathBuf::from(format!("{name}~")));
        change(format!("{name} removed"), &|b| fs::remove_file(b.join(file)).unwrap());
        change(format!("{name} renamed"), &|b| fs::rename(b.join(file), b.join(&longer)).unwrap());
        change(format!("{name} moved"), &|b| fs::rename(b.join(file), b.join(&copy)).unwrap());
        change(format!("{name} doubled"), &|b| {
            fs::copy(b.join(file), b.join(&longer)).unwrap();
        });
        change(format!("{name} under a second name"), &|b| fs::hard_link(b.join(file), b.join(&longer)).unwrap());
        change(format!("{name} emptied"), &|b| fs::write(b.join(file), "").unwrap());
        change(format!("{name} as a link"), &|b| {
            fs::rename(b.join(file), b.with_file_name("away")).unwrap();
            symlink(b.with_file_name("away"), b.join(file)).unwrap();
        });
        change(format!("{name} as a folder"), &|b| {
            fs::remove_file(b.join(file)).unwrap();
            fs::create_dir(b.join(file)).unwrap();
        });
        change(format!("{name} as a pipe"), &|b| {
            use rustix::fs::{CWD, FileType, Mode, mknodat};
            fs::remove_file(b.join(file)).unwrap();
            mknodat(CWD, b.join(file), FileType::Fifo, Mode::RUSR, 0).unwrap();
        });
        change(format!("{name} as zeros"), &|b| {
            fs::remove_file(b.join(file)).unwrap();
            symlink("/dev/zero", b.join(file)).unwrap();
        });
        for other in all.iter().filter(|other| *other > file) {
            change(format!("{name} and {} swapped", other.display()), &|b| {
                fs::rename(b.join(file), b.join("x")).unwrap();
                fs::rename(b.join(other), b.join(file)).unwrap();
                fs::rename(b.join("x"), b.join(other)).unwrap();
            });
        }
    }
    for folder in ["blobs", "blobs/sha256"] {
        change(format!("{folder} as a link"), &|b| {
            fs::rename(b.join(folder), b.with_file_name("away")).unwrap();
            symlink(b.with_file_name("away"), b.join(folder)).unwrap();
        });
        change(format!("{folder} renamed"), &|b| fs::rename(b.join(folder), b.join(format!("{folder}.old"))).unwrap());
        change(format!("{folder} removed"), &|b| fs::remove_dir_all(b.join(folder)).unwrap());
    }
    println!("{} changes of files, {} accepted", tally.tried, tally.accepted.len());
    assert_eq!(tally.accepted, Vec::<String>::new());
}
