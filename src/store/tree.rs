//! A folder as a canonical list: sorted paths, each with its content's digest, size and whether it may be executed. The digest of the list names
//! the folder, so renaming, swapping or `chmod +x` change it. Empty folders, owners and times are not part of it.

use crate::base::{Digest, Hasher};

use super::error::{Result, StoreError};

const FORMAT: &str = "slmops tree 1";

/// More files than any step writes; a longer list is refused before it is allocated.
pub const MAX_ENTRIES: usize = 4_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    Plain,
    Executable,
}

impl Mode {
    /// From the bits of `stat`: executable if anybody may execute it.
    pub fn of(bits: u32) -> Mode {
        if bits & 0o111 == 0 { Mode::Plain } else { Mode::Executable }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative, `/` between its parts.
    pub path: String,
    pub digest: Digest,
    pub size_bytes: u64,
    pub mode: Mode,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    entries: Vec<Entry>,
    digest: Digest,
}

impl Tree {
    /// Sorts the entries and refuses paths that would not make a folder.
    pub fn new(mut entries: Vec<Entry>) -> Result<Tree> {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        check(&entries)?;
        Ok(Tree::of_checked(entries))
    }

    fn of_checked(entries: Vec<Entry>) -> Tree {
        // A list of a million files is long: it is hashed as it is made.
        let mut hasher = Hasher::new();
        write(&entries, |text| hasher.update(text.as_bytes()));
        Tree { entries, digest: hasher.finish() }
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn size_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.size_bytes).fold(0, u64::saturating_add)
    }

    /// The tree of a subfolder; empty if there is none.
    pub fn sub(&self, folder: &str) -> Tree {
        let prefix = format!("{folder}/");
        let inner = |entry: &Entry| {
            let path = entry.path.strip_prefix(&prefix)?.to_string();
            Some(Entry { path, ..entry.clone() })
        };
        Tree::of_checked(self.entries.iter().filter_map(inner).collect())
    }

    pub fn encode(&self) -> String {
        encode(&self.entries)
    }

    pub fn parse(text: &str) -> Option<Tree> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != FORMAT {
            return None;
        }
        let entries: Vec<Entry> = lines.map(parse_entry).collect::<Option<_>>()?;
        let tree = Tree::new(entries).ok()?;
        // Canonical means that there is one text for one tree.
        (tree.encode() == text).then_some(tree)
    }
}

fn encode(entries: &[Entry]) -> String {
    let mut text = String::with_capacity(16 + entries.len() * 96);
    write(entries, |line| text.push_str(line));
    text
}

/// The list, line by line.
fn write(entries: &[Entry], mut line: impl FnMut(&str)) {
    line(FORMAT);
    line("\n");
    for Entry { path, digest, size_bytes, mode } in entries {
        let mode = match mode {
            Mode::Plain => '-',
            Mode::Executable => 'x',
        };
        line(&format!("{mode} {digest} {size_bytes} {path}\n"));
    }
}

fn parse_entry(line: &str) -> Option<Entry> {
    let mut parts = line.splitn(4, ' ');
    let mode = match parts.next()? {
        "-" => Mode::Plain,
        "x" => Mode::Executable,
        _ => return None,
    };
    let digest = parts.next()?.parse().ok()?;
    let size_bytes = parts.next()?.parse().ok()?;
    Some(Entry { path: parts.next()?.to_string(), digest, size_bytes, mode })
}

/// Paths, which are sorted, must be relative, plain, distinct, and none may be both a file and a folder.
fn check(entries: &[Entry]) -> Result<()> {
    if entries.len() > MAX_ENTRIES {
        return Err(StoreError::refused("", format!("holds more than {MAX_ENTRIES} files")));
    }
    let refuse = |path: &str, why: &str| Err(StoreError::refused(path, why));
    for (index, entry) in entries.iter().enumerate() {
        let path = entry.path.as_str();
        if path.chars().any(char::is_control) {
            return refuse(path, "has a control character in its name");
        }
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return refuse(path, "is not a plain relative path");
        }
        if index > 0 && entries[index - 1].path == path {
            return refuse(path, "is listed twice");
        }
    }
    let mut last = None;
    for entry in entries {
        let mut folder = entry.path.as_str();
        // Most files follow one of the same folder.
        let inside = folder.rsplit_once('/').map(|(parent, _)| parent);
        if last.replace(inside) == Some(inside) {
            continue;
        }
        while let Some((parent, _)) = folder.rsplit_once('/') {
            if entries.binary_search_by(|other| other.path.as_str().cmp(parent)).is_ok() {
                return refuse(parent, "is both a file and a folder");
            }
            folder = parent;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, content: &str) -> Entry {
        Entry { path: path.into(), digest: Digest::of(content.as_bytes()), size_bytes: content.len() as u64, mode: Mode::Plain }
    }

    #[test]
    fn names_swaps_and_modes_change_the_digest_and_order_does_not() {
        let tree = |entries: &[Entry]| Tree::new(entries.to_vec()).unwrap().digest();
        let base = tree(&[entry("a", "1"), entry("b", "2")]);
        assert_eq!(base, tree(&[entry("b", "2"), entry("a", "1")]));
        assert_ne!(base, tree(&[entry("a", "2"), entry("b", "1")]), "swapped");
        assert_ne!(base, tree(&[entry("a", "1"), entry("c", "2")]), "renamed");
        assert_ne!(base, tree(&[entry("a", "1"), Entry { mode: Mode::Executable, ..entry("b", "2") }]), "chmod");
        assert_ne!(base, tree(&[entry("a", "1"), entry("d/b", "2")]), "moved");
    }

    #[test]
    fn it_reads_back_and_subfolders_stand_alone() {
        let tree = Tree::new(vec![entry("train/data.jsonl", "x"), entry("test/data.jsonl", "y"), entry("train-x", "z")]).unwrap();
        assert_eq!(Tree::parse(&tree.encode()), Some(tree.clone()));
        assert_eq!(tree.sub("train"), Tree::new(vec![entry("data.jsonl", "x")]).unwrap());
        assert!(tree.sub("none").entries().is_empty());
    }

    #[test]
    fn paths_that_reach_out_or_clash_are_refused() {
        for path in ["../a", "/a", "a//b", "./a", "", "a/..", "a\nb", "a/"] {
            assert!(Tree::new(vec![entry(path, "")]).is_err(), "{path:?}");
        }
        assert!(Tree::new(vec![entry("a", ""), entry("a-b", ""), entry("a/b", "")]).is_err());
        assert!(Tree::new(vec![entry("a", ""), entry("a", "")]).is_err());
    }

    #[test]
    fn a_text_that_is_not_canonical_is_no_tree() {
        let digest = Digest::of(b"");
        assert!(Tree::parse(&format!("slmops tree 1\n- {digest} 0 b\n- {digest} 0 a\n")).is_none());
        assert!(Tree::parse(&format!("slmops tree 1\n- {digest} +0 a\n")).is_none());
        assert!(Tree::parse("slmops tree 2\n").is_none());
        assert!(Tree::parse("slmops tree 1").is_none());
        assert_eq!(Tree::parse("slmops tree 1\n").unwrap().entries().len(), 0);
    }
}
