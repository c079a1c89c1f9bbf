//! `include = ["common.toml"]`: tables of several files laid side by side. What two files both declare is an error that shows both places.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::read;
use super::value::{Data, Key, Table, Value};
use crate::base::{Diagnostic, Place, SourceText};

const MAX_FILES: usize = 1000;

/// A manifest's text with all that it includes.
pub struct Included {
    pub table: Table,
    pub file: Arc<SourceText>,
    /// The folder of each file, by the name that its places carry.
    pub folders: BTreeMap<String, PathBuf>,
}

/// Reads `path` and what it includes. `name` is how diagnostics call it.
pub fn read(path: &Path, name: &str, diagnostics: &mut Vec<Diagnostic>) -> Option<Included> {
    let file = read::text(path, name).map_err(|diagnostic| diagnostics.push(diagnostic)).ok()?;
    let root = path.parent().unwrap_or(Path::new(".")).to_path_buf();
    let mut reader = Reader { shown: prefix(name), root, folders: BTreeMap::new(), done: Vec::new(), diagnostics };
    let mut table = Table::default();
    let mut open = vec![reader.open(path, &file)];
    // Each open file is a table whose includes are read first; a stack of them is the chain that a cycle would close.
    while let Some(top) = open.last_mut() {
        let Some((relative, place)) = top.includes.pop() else {
            if let Some(finished) = open.pop() {
                merge_all(&mut table, finished.table, reader.diagnostics);
                reader.done.push(finished.path);
            }
            continue;
        };
        let path = normal(&top.path.parent().unwrap_or(Path::new(".")).join(&relative));
        if let Some(next) = reader.include(&open, path, &place) {
            open.push(next);
        }
    }
    Some(Included { table, file, folders: reader.folders })
}

struct Reader<'a> {
    /// What stands before a path below the root in the names of files: `` or `member/`.
    shown: String,
    root: PathBuf,
    folders: BTreeMap<String, PathBuf>,
    done: Vec<PathBuf>,
    diagnostics: &'a mut Vec<Diagnostic>,
}

struct Open {
    path: PathBuf,
    table: Table,
    /// The last one is read next.
    includes: Vec<(String, Place)>,
}

impl Reader<'_> {
    fn open(&mut self, path: &Path, file: &Arc<SourceText>) -> Open {
        let (mut table, errors) = read::parse(file);
        self.diagnostics.extend(errors);
        self.folders.insert(file.name.to_string(), path.parent().unwrap_or(Path::new(".")).to_path_buf());
        let mut includes = Vec::new();
        if let Some(value) = table.remove("include") {
            includes = self.listed(value);
            includes.reverse();
        }
        Open { path: normal(path), table, includes }
    }

    fn listed(&mut self, value: Value) -> Vec<(String, Place)> {
        let items = match value.data {
            Data::List(items) => items,
            _ => vec![value],
        };
        let mut paths = Vec::new();
        for item in items {
            match item.data {
                Data::String(path) if !path.is_empty() => paths.push((path, item.place)),
                other => self
                    .diagnostics
                    .push(Diagnostic::error(format!("`include` takes paths of TOML files, not {}", other.noun())).at(&item.place, "")),
            }
        }
        paths
    }

    /// `None` if it is read already (a file may be reached twice) or cannot be read.
    fn include(&mut self, open: &[Open], path: PathBuf, place: &Place) -> Option<Open> {
        if open.iter().any(|file| file.path == path) {
            let mut chain: Vec<String> = open.iter().skip_while(|file| file.path != path).map(|file| self.name(&file.path)).collect();
            chain.push(self.name(&path));
            let message = format!("files include each other: {}", chain.join(" → "));
            self.diagnostics.push(Diagnostic::error(message).at(place, "closes the circle"));
            return None;
        }
        if self.done.contains(&path) {
            return None;
        }
        if self.folders.len() >= MAX_FILES {
            self.diagnostics.push(Diagnostic::error(format!("more than {MAX_FILES} files are included")).at(place, ""));
            return None;
        }
        match read::text(&path, &self.name(&path)) {
            Ok(file) => Some(self.open(&path, &file)),
            Err(diagnostic) => {
                self.diagnostics.push(diagnostic.at(place, "included here"));
                None
            }
        }
    }

    fn name(&self, path: &Path) -> String {
        let below = path.strip_prefix(normal(&self.root)).unwrap_or(path);
        format!("{}{}", self.shown, below.display())
    }
}

fn prefix(name: &str) -> String {
    name.rfind('/').map_or(String::new(), |end| name[..=end].to_string())
}

/// Without `.` and, where it is plain, `..`, so that one file has one path.
pub fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            _ => out.push(part),
        }
    }
    out
}

/// How many levels below a top-level name belong to nobody: `[train.NAME]` is one step, `[defaults.train]` may be filled from several files.
fn shared_levels(name: &str) -> usize {
    match name {
        "slmops" => 0,
        "defaults" => 2,
        "profile" => read::MAX_DEPTH,
        _ => 1,
    }
}

fn merge_all(base: &mut Table, other: Table, diagnostics: &mut Vec<Diagnostic>) {
    for (key, value) in other {
        let Some(known) = base.entry_mut(&key.text) else {
            base.push(key, value);
            continue;
        };
        // Every file may say which edition it is written for; `load` compares them.
        if key.text != "slmops" {
            let levels = shared_levels(&key.text);
            merge_entry(known, key, value, levels, diagnostics);
        } else if let (Data::Int(a), Data::Int(b)) = (&known.1.data, &value.data)
            && a != b
        {
            clash(known.0, &key, diagnostics);
        }
    }
}

fn merge_entry((known, base): (&Key, &mut Value), key: Key, value: Value, levels: usize, diagnostics: &mut Vec<Diagnostic>) {
    match (&mut base.data, value.data) {
        (Data::Table(into), Data::Table(from)) if levels > 0 => merge_tables(into, from, levels - 1, diagnostics),
        _ => clash(known, &key, diagnostics),
    }
}

fn merge_tables(into: &mut Table, from: Table, levels: usize, diagnostics: &mut Vec<Diagnostic>) {
    for (key, value) in from {
        match into.entry_mut(&key.text) {
            Some(entry) => merge_entry(entry, key, value, levels, diagnostics),
            None => into.push(key, value),
        }
    }
}

fn clash(first: &Key, second: &Key, diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.push(
        Diagnostic::error(format!("`{}` is declared in two files", second.text))
            .at(&second.place, "declared again here")
            .at(&first.place, "first declared here")
            .help("keep one of them; `[profile.NAME]` changes fields for one kind of run"),
    );
}
