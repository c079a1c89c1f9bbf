//! Files that are none: FIFOs that nobody writes to, sockets, devices without an end, folders, the kernel's own files, endless ones. They stand wherever a
//! user may name a file.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use super::{Space, built, copy, ends};

/// Puts something in a file's place that is no file.
fn replace(path: &Path, what: &str) {
    let _none = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir_all(path));
    match what {
        "fifo" => assert!(Command::new("mkfifo").arg(path).status().is_ok_and(|status| status.success())),
        // It stays where it is when the listener has gone. Its path must be short, so that it is bound in its folder.
        "socket" => {
            let short = tempfile::tempdir().unwrap();
            drop(UnixListener::bind(short.path().join("s")).unwrap());
            std::fs::rename(short.path().join("s"), path).or_else(|_| std::fs::copy(short.path().join("s"), path).map(drop)).unwrap();
        }
        "folder" => std::fs::create_dir(path).unwrap(),
        "sparse" => std::fs::File::create(path).unwrap().set_len(1 << 30).unwrap(),
        "loop" => std::os::unix::fs::symlink(path.file_name().unwrap(), path).unwrap(),
        device => std::os::unix::fs::symlink(device, path).unwrap(),
    }
}

const KINDS: &[&str] = &[
    "fifo",
    "socket",
    "folder",
    "sparse",
    "loop",
    "/dev/zero",
    "/dev/full",
    "/dev/stdin",
    "/dev/tty",
    "/dev/null",
    "/proc/self/mem",
    "/proc/kmsg",
    "/proc/self/environ",
    "/proc/self/cmdline",
    "/sys/kernel/mm/transparent_hugepage/enabled",
];

fn run(space: &Space, arguments: &[&str]) -> super::Ran {
    ends(space.command(arguments))
}

#[test]
fn a_model_s_folder_may_hold_anything() {
    let built = built();
    let files =
        ["config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja"];
    for file in files {
        for kind in KINDS {
            let space = copy(built.path());
            replace(&space.join("model").join(file), kind);
            // A file that is empty or absent may be none that is needed.
            let ran = run(&space, &["run", "model", "hello"]);
            ran.ends_with(&[0, 2, 3]);
            assert!(ran.code == Some(0) || ran.err.contains(file), "{file} {kind}: {}", ran.err);
            if ["fifo", "folder", "/dev/zero", "/dev/full", "loop"].contains(kind)
                && ["config.json", "model.safetensors", "tokenizer.json"].contains(&file)
            {
                ran.ends_with(&[2]);
            }
        }
    }
}

#[test]
fn a_gguf_file_and_a_path_may_be_anything() {
    let built = built();
    for kind in KINDS {
        let space = copy(built.path());
        replace(&space.join("packed/model.gguf"), kind);
        for path in ["packed", "packed/model.gguf"] {
            run(&space, &["run", path, "hello"]).ends_with(&[2, 3]);
        }
        replace(&space.join("thing"), kind);
        for arguments in [&["run", "thing", "hello"][..], &["verify", "thing"], &["diff", "thing", "thing"]] {
            run(&space, arguments).ends_with(&[2, 3]);
        }
        // It may be a stream, which ends when it ends.
        if !["fifo", "/dev/tty", "/dev/stdin", "/proc/kmsg"].contains(kind) {
            run(&space, &["cache", "import", "thing"]).ends_with(&[2, 3]);
        }
    }
    let space = copy(built.path());
    for path in ["/proc", "/dev", "/sys/kernel", "/dev/zero", "/proc/self/fd"] {
        run(&space, &["run", path, "hello"]).ends_with(&[2, 3]);
    }
}

#[test]
fn a_bundle_s_files_may_be_anything() {
    let built = built();
    let blobs: Vec<String> = slmops::base::files::names(&built.join("dist/lights-0.1.0-switch/blobs/sha256"))
        .unwrap()
        .iter()
        .map(|name| format!("blobs/sha256/{}", name.to_string_lossy()))
        .collect();
    for file in ["oci-layout", "index.json"].into_iter().chain(blobs.iter().map(String::as_str)) {
        for kind in ["fifo", "socket", "folder", "sparse", "loop", "/dev/zero", "/proc/kmsg"] {
            let space = copy(built.path());
            replace(&space.join("dist/lights-0.1.0-switch").join(file), kind);
            run(&space, &["verify", "dist/lights-0.1.0-switch"]).ends_with(&[1, 2, 3]);
            run(&space, &["run", "dist/lights-0.1.0-switch", "hello"]).ends_with(&[2, 3]);
            if file != "oci-layout" {
                run(&space, &["diff", "dist/lights-0.1.0-switch", "dist/lights-0.1.0-switch"]).ends_with(&[0, 2, 3]);
            }
        }
    }
}

#[test]
fn what_a_manifest_names_may_be_anything() {
    let built = built();
    built.write("common.toml", "");
    built.replace("slmops.toml", "slmops = 1", "slmops = 1\ninclude = [\"common.toml\"]");
    for kind in KINDS {
        for file in ["slmops.toml", "common.toml", "slmops.lock", "data/train.jsonl", "data/test.jsonl", ".netrc", "cache/CACHEDIR.TAG"] {
            let space = copy(built.path());
            replace(&space.join(file), kind);
            for arguments in [&["check"][..], &["plan"], &["build"]] {
                let ran = run(&space, arguments);
                ran.ends_with(&[0, 1, 2, 3]);
                if ["fifo", "/dev/zero"].contains(kind) && file.ends_with(".toml") {
                    ran.ends_with(&[2]).says(&[file.rsplit('/').next().unwrap()]);
                }
            }
        }
    }
}

#[test]
fn a_model_that_is_cut_while_it_is_mapped_is_told() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::Stdio;
    let space = built();
    let mut command = space.command(&["run", "packed/model.gguf"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    stdin.write_all(b"turn on the kitchen light\n").unwrap();
    let mut line = String::new();
    answers.read_line(&mut line).unwrap();
    assert!(!line.is_empty());
    std::fs::OpenOptions::new().write(true).open(space.join("packed/model.gguf")).unwrap().set_len(100).unwrap();
    stdin.write_all(b"turn off the kitchen light\n").unwrap();
    drop(stdin);
    let ended = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(3) && err.contains("packed/model.gguf") && err.contains("was cut"), "{:?} {err}", ended.status);
}
