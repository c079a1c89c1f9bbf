//! Holds the code to its layout: rooms import only rooms above them, every file says what it owns, `async` stays in the engine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room and the rooms that it may import, besides itself.
const ROOMS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("manifest", &["base"]),
    ("source", &["base", "manifest"]),
    ("kernels", &[]),
    ("model", &["base", "kernels"]),
    ("store", &["base"]),
    ("bundle", &["base", "model", "store"]),
    ("sandbox", &["base"]),
    ("steps", &["base", "manifest", "kernels", "model", "bundle", "sandbox"]),
    ("plan", &["base", "manifest", "source", "steps"]),
    ("key", &["base", "kernels", "steps", "plan"]),
    ("engine", &["base", "source", "store", "steps", "plan", "key"]),
    ("deploy", &["base", "store", "bundle", "steps", "plan", "engine"]),
    ("report", &["base", "bundle", "plan", "key", "engine", "steps"]),
    (
        "cli",
        &[
            "base", "manifest", "source", "kernels", "model", "store", "bundle", "sandbox", "steps", "plan", "key", "engine", "deploy",
            "report",
        ],
    ),
];

#[test]
fn rooms_import_only_rooms_above_them() {
    let allowed: BTreeMap<&str, &[&str]> = ROOMS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let Some(room) = room_of(&path) else { continue };
        let Some(may) = allowed.get(room.as_str()) else {
            wrong.push(format!("{}: room `{room}` is not in the list of rooms", path.display()));
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for imported in imports(line) {
                if imported != room && allowed.contains_key(imported) && !may.contains(&imported) {
                    wrong.push(format!("{}:{}: `{room}` may not import `{imported}`", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_order_of_rooms_is_the_order_of_imports() {
    for (i, (room, may)) in ROOMS.iter().enumerate() {
        for other in *may {
            let place = ROOMS.iter().position(|(name, _)| name == other).expect("a listed room");
            assert!(place < i, "`{room}` imports `{other}`, which stands below it");
        }
    }
}

#[test]
fn every_file_opens_by_saying_what_it_owns() {
    let silent: Vec<_> = sources().into_iter().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path).collect();
    assert!(silent.is_empty(), "no `//!` on top of {silent:?}");
}

#[test]
fn async_stays_in_the_engine() {
    let found: Vec<_> = sources()
        .into_iter()
        .filter(|(path, text)| {
            room_of(path).as_deref() != Some("engine")
                && text.lines().any(|l| !comment(l) && (l.contains("async ") || l.contains("tokio::")))
        })
        .map(|(path, _)| path)
        .collect();
    assert!(found.is_empty(), "async outside of the engine: {found:?}");
}

#[test]
fn a_bare_allow_is_nowhere() {
    let found: Vec<_> = sources().into_iter().filter(|(_, text)| text.contains("#[allow(")).map(|(path, _)| path).collect();
    assert!(found.is_empty(), "use #[expect(lint, reason = \"…\")] in {found:?}");
}

#[test]
fn unsafe_stays_in_the_innermost_kernels() {
    let found: Vec<_> = sources()
        .into_iter()
        .filter(|(path, text)| {
            // Outside of the kernels: mapping a file, handling signals, refusing memory, settings of libgit2, and system calls that no crate offers as safe functions.
            let innermost = [
                "crates/kernels/",
                "src/model/mapped.rs",
                "src/base/process.rs",
                "src/base/allocator.rs",
                "src/sandbox/kernel.rs",
                "src/store/stamp.rs",
                "src/source/git/mod.rs",
            ];
            let innermost = innermost.iter().any(|place| path.starts_with(place));
            !innermost && text.lines().any(|line| !comment(line) && (line.contains("unsafe {") || line.contains("unsafe fn")))
        })
        .map(|(path, _)| path)
        .collect();
    assert!(found.is_empty(), "unsafe outside of the kernels: {found:?}");
}

fn comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// The rooms named on a line as `crate::ROOM`, also within `use crate::{a, b::c}`.
fn imports(line: &str) -> Vec<&str> {
    if comment(line) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for part in line.split("crate::").skip(1) {
        match part.strip_prefix('{') {
            None => found.push(word(part)),
            Some(list) => found.extend(list.split(',').map(|item| word(item.trim_start()))),
        }
    }
    found
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

/// `src/steps/train/mod.rs` → `steps`, `crates/kernels/src/rope.rs` → `kernels`; the files of the crate's root belong to no room.
fn room_of(path: &Path) -> Option<String> {
    let inner = path.strip_prefix("src").or_else(|_| path.strip_prefix("crates")).ok()?;
    let first = inner.components().next()?.as_os_str().to_str()?;
    (!first.ends_with(".rs")).then(|| first.to_string())
}

#[expect(clippy::disallowed_methods, reason = "the order of findings is sorted below")]
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open = vec![root.join("src"), root.join("crates")];
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a source folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                found.push((path.strip_prefix(root).expect("below the root").to_path_buf(), text));
            }
        }
    }
    found.sort();
    found
}
