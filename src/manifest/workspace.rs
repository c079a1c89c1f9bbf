//! `[workspace] members = ["a", "b/*"]`: one root manifest that builds many. Each member is a manifest of its own; its names stand behind its
//! folder: `fridge/student`.

use std::io;
use std::path::{Path, PathBuf};

use super::load::{self, Loaded, Manifest, Overrides};
use super::value::{Data, Value};
use super::{FILE_NAME, names};
use crate::base::{Diagnostic, Place, files};

/// A manifest and what stands before its names: `` for the root, `member/` for a member.
#[derive(Debug)]
pub struct Member {
    pub prefix: String,
    pub manifest: Manifest,
}

/// The root manifest and its members, as far as they can be read. All that is wrong goes to `diagnostics`.
pub fn load(path: &Path, overrides: &Overrides, diagnostics: &mut Vec<Diagnostic>) -> Vec<Member> {
    let file = match load::file_of(path) {
        Ok(file) => file,
        Err(error) => {
            diagnostics.push(Diagnostic::io(format!("cannot read `{}`", path.display()), &error));
            return Vec::new();
        }
    };
    let name = file.file_name().map_or_else(|| FILE_NAME.to_string(), |name| name.to_string_lossy().into_owned());
    // What is there but cannot be read is told when it is opened.
    let wrong = match files::exists(&file) {
        Ok(true) => None,
        Ok(false) => {
            Some(Diagnostic::error(format!("there is no manifest `{}`", file.display())).help("`slmops init` writes one that builds"))
        }
        Err(error) => Some(Diagnostic::io(format!("cannot read `{}`", file.display()), &error)),
    };
    if let Some(wrong) = wrong {
        diagnostics.push(wrong);
        return Vec::new();
    }
    let Some(root) = load::load(&file, &name, overrides, diagnostics) else { return Vec::new() };
    let members = members(&root.manifest, diagnostics);
    let mut loaded = vec![(String::new(), root)];
    for (folder, place) in members {
        let path = loaded[0].1.manifest.root.join(&folder).join(FILE_NAME);
        let mut found = Vec::new();
        match load::load(&path, &format!("{folder}/{FILE_NAME}"), overrides, &mut found) {
            Some(member) => {
                if let Some((key, _)) = member.manifest.table.entry("workspace") {
                    found.push(
                        Diagnostic::error("a member of a workspace cannot be a workspace").at(&key.place, "").at(&place, "named here"),
                    );
                }
                loaded.push((format!("{folder}/"), member));
            }
            None if found.iter().all(|d| d.labels.is_empty()) => found.iter_mut().for_each(|d| *d = d.clone().at(&place, "named here")),
            None => {}
        }
        diagnostics.extend(found);
    }
    settle(loaded, overrides, diagnostics)
}

/// An override must change something in at least one member.
fn settle(loaded: Vec<(String, Loaded)>, overrides: &Overrides, diagnostics: &mut Vec<Diagnostic>) -> Vec<Member> {
    // A root that declares nothing itself does not count.
    let counts = |l: &Loaded| l.manifest.section("workspace").is_none() || l.manifest.section("project").is_some();
    for index in 0..=overrides.set.len() {
        let mut counted = loaded.iter().filter(|(_, l)| counts(l)).peekable();
        if counted.peek().is_some()
            && counted.all(|(_, l)| l.misses.iter().any(|(i, _)| *i == index))
            && let Some(miss) = loaded.iter().filter(|(_, l)| counts(l)).flat_map(|(_, l)| &l.misses).find(|(i, _)| *i == index)
        {
            diagnostics.push(miss.1.clone());
        }
    }
    loaded
        .into_iter()
        .map(|(prefix, loaded)| {
            diagnostics.extend(loaded.diagnostics);
            Member { prefix, manifest: loaded.manifest }
        })
        .collect()
}

/// The members' folders relative to the root, sorted within each pattern.
fn members(root: &Manifest, diagnostics: &mut Vec<Diagnostic>) -> Vec<(String, Place)> {
    let Some(value) = root.table.get("workspace") else { return Vec::new() };
    let Data::Table(table) = &value.data else {
        diagnostics
            .push(Diagnostic::error("`workspace` is a table").at(&value.place, "").help("write `[workspace] members = [\"a\", \"b/*\"]`"));
        return Vec::new();
    };
    let mut found: Vec<(String, Place)> = Vec::new();
    for (key, value) in table.iter() {
        if key.text != "members" {
            diagnostics.push(
                Diagnostic::error(format!("unknown field `{}` of `workspace`", key.text)).at(&key.place, "").help("it has `members`"),
            );
            continue;
        }
        let Data::List(items) = &value.data else {
            diagnostics.push(Diagnostic::error(format!("`members` is a list of folders, not {}", value.data.noun())).at(&value.place, ""));
            continue;
        };
        for item in items {
            for folder in member(root, item, diagnostics) {
                if !found.iter().any(|(known, _)| *known == folder) {
                    found.push((folder, item.place.clone()));
                }
            }
        }
    }
    found
}

/// A folder, or `folder/*`: every folder in it that has a manifest.
fn member(root: &Manifest, item: &Value, diagnostics: &mut Vec<Diagnostic>) -> Vec<String> {
    let mut wrong = |message: String| {
        diagnostics.push(Diagnostic::error(message).at(&item.place, "").help("a member is a folder below the root, or `folder/*`"));
        Vec::new()
    };
    let Data::String(text) = &item.data else { return wrong(format!("a member is a folder, not {}", item.data.noun())) };
    let text = text.trim_end_matches('/');
    let (folder, every) = match text.strip_suffix("/*") {
        Some(folder) => (folder, true),
        None if text == "*" => ("", true),
        None => (text, false),
    };
    let parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    // The folder becomes a part of names, so it is made of names itself.
    if text.starts_with('/') || parts.iter().any(|part| names::entry_fault(part).is_some()) || (!every && parts.is_empty()) {
        return wrong(format!("`{text}` cannot be a member"));
    }
    let folder = parts.join("/");
    if !every {
        return match files::exists(&root.root.join(&folder).join(FILE_NAME)) {
            Ok(false) => wrong(format!("`{folder}` has no `{FILE_NAME}`")),
            // What keeps it from being read is told when it is opened.
            Ok(true) | Err(_) => vec![folder],
        };
    }
    let below = root.root.join(&folder);
    let entries = match files::names(&below) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return wrong(format!("cannot list `{folder}`: {error}"));
        }
        Err(error) => {
            diagnostics.push(Diagnostic::io(format!("cannot list `{folder}`"), &error).at(&item.place, ""));
            return Vec::new();
        }
    };
    let paths: Vec<PathBuf> = entries.iter().map(|name| Path::new(&folder).join(name)).collect();
    let found: Vec<String> = paths
        .iter()
        .filter(|path| files::exists(&root.root.join(path).join(FILE_NAME)).unwrap_or(true))
        .filter_map(|path| path.to_str().map(str::to_string))
        .filter(|path| path.split('/').all(|part| names::entry_fault(part).is_none()))
        .collect();
    if found.is_empty() { wrong(format!("no folder in `{folder}` has a `{FILE_NAME}`")) } else { found }
}
