//! A manifest ready for planning: includes read, edition checked, profile and `--set` laid over it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::overlay::{self, Miss};
use super::value::{Data, Table, Value};
use super::{FILE_NAME, include};
use crate::base::{Diagnostic, Place, SourceText, files, suggest};

/// The edition that this program reads.
pub const EDITION: i64 = 1;

/// What the command line changes.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub profile: Option<String>,
    /// `train.teacher.max_steps=50`
    pub set: Vec<String>,
}

/// One manifest, merged.
#[derive(Debug)]
pub struct Manifest {
    /// Its folder.
    pub root: PathBuf,
    /// Its own text, without what it includes.
    pub file: Arc<SourceText>,
    pub table: Table,
    folders: BTreeMap<String, PathBuf>,
}

/// A manifest, what is wrong with it, and overrides that found nothing to change (by number: the profile is 0, then each `--set`).
pub struct Loaded {
    pub manifest: Manifest,
    pub diagnostics: Vec<Diagnostic>,
    pub misses: Vec<(usize, Diagnostic)>,
}

impl Manifest {
    /// The folder of the file in which a place lies: paths are relative to it.
    pub fn folder_of(&self, place: &Place) -> &Path {
        self.folders.get(&*place.source.name).unwrap_or(&self.root)
    }

    /// A top-level table.
    pub fn section(&self, name: &str) -> Option<&Table> {
        match &self.table.get(name)?.data {
            Data::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The start of the manifest, for what is missing from it.
    pub fn start(&self) -> Place {
        Place::new(&self.file, 0..0)
    }
}

/// `path` is a manifest or a folder with an `slmops.toml`.
pub fn file_of(path: &Path) -> std::io::Result<PathBuf> {
    Ok(if files::is_folder(path)? { path.join(FILE_NAME) } else { path.to_path_buf() })
}

/// Reads a manifest; `None` if there is no making sense of it. `name` is how diagnostics call the file.
pub fn load(path: &Path, name: &str, overrides: &Overrides, diagnostics: &mut Vec<Diagnostic>) -> Option<Loaded> {
    let before = diagnostics.len();
    let included = include::read(path, name, diagnostics)?;
    if diagnostics.len() > before {
        // A text that is not TOML, or half of the tables: what else is wrong cannot be told from what is missing.
        return None;
    }
    let root = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let mut manifest = Manifest { root, file: included.file, table: included.table, folders: included.folders };
    let mut found = Vec::new();
    edition(&manifest, &mut found);
    let misses = apply(&mut manifest, overrides, &mut found);
    Some(Loaded { manifest, diagnostics: found, misses })
}

fn edition(manifest: &Manifest, diagnostics: &mut Vec<Diagnostic>) {
    let Some(Value { place, data }) = manifest.table.get("slmops") else {
        diagnostics.push(
            Diagnostic::error("the manifest does not say which edition it is written for")
                .at(&manifest.start(), "")
                .help(format!("begin it with `slmops = {EDITION}`")),
        );
        return;
    };
    match data {
        Data::Int(EDITION) => {}
        Data::Int(newer) if *newer > EDITION => diagnostics.push(
            Diagnostic::error(format!("the manifest is written for edition {newer}; this slmops reads edition {EDITION}"))
                .at(place, "newer than this program")
                .help("install a newer slmops"),
        ),
        _ => diagnostics.push(Diagnostic::error(format!("`slmops` is the edition of the manifest: {EDITION}")).at(place, "")),
    }
}

fn apply(manifest: &mut Manifest, overrides: &Overrides, diagnostics: &mut Vec<Diagnostic>) -> Vec<(usize, Diagnostic)> {
    let mut misses = Vec::new();
    if let Some(name) = &overrides.profile {
        match profile(manifest, name) {
            // What is wrong with it is told by `check_profiles`, which looks at all of them.
            Ok(over) => drop(overlay::apply(&mut manifest.table, over, &format!("the profile `{name}`"), &mut Vec::new())),
            Err(diagnostic) => misses.push((0, diagnostic)),
        }
    }
    for (i, text) in overrides.set.iter().enumerate() {
        match overlay::parse_set(text) {
            Ok(over) => {
                let missed = overlay::apply(&mut manifest.table, over, "`--set`", diagnostics);
                misses.extend(missed.into_iter().map(|Miss(diagnostic)| (i + 1, diagnostic)));
            }
            Err(errors) => diagnostics.extend(errors),
        }
    }
    misses
}

fn profile(manifest: &Manifest, name: &str) -> Result<Table, Diagnostic> {
    let profiles = manifest.section("profile");
    match profiles.and_then(|profiles| profiles.get(name)) {
        Some(Value { data: Data::Table(table), .. }) => Ok(table.clone()),
        Some(value) => Err(Diagnostic::error(format!("the profile `{name}` is not a table")).at(&value.place, "")),
        None => {
            let help = match profiles {
                Some(profiles) => suggest::help(name, profiles.names()),
                None => Some(format!("the manifest declares no profile; `[profile.{name}.KIND.STEP]` would")),
            };
            Err(Diagnostic::error(format!("there is no profile `{name}`")).maybe_help(help))
        }
    }
}

/// Checks every profile, chosen or not, against what the manifest declares.
pub fn check_profiles(manifest: &Manifest, diagnostics: &mut Vec<Diagnostic>) {
    let Some(profiles) = manifest.section("profile") else { return };
    let mut copy = skeleton(&manifest.table);
    for (name, value) in profiles.iter() {
        let Data::Table(over) = &value.data else {
            diagnostics.push(Diagnostic::error(format!("`profile.{}` is a table of changes", name.text)).at(&value.place, ""));
            continue;
        };
        let what = format!("the profile `{}`", name.text);
        let misses = overlay::apply(&mut copy, over.clone(), &what, diagnostics);
        diagnostics.extend(misses.into_iter().map(|Miss(diagnostic)| diagnostic));
    }
}

/// Only which steps there are: enough to try a profile on.
fn skeleton(table: &Table) -> Table {
    let empty = |place: &Place| Value { place: place.clone(), data: Data::Table(Table::default()) };
    let inner = |value: &Value| match &value.data {
        Data::Table(steps) => steps.iter().map(|(key, value)| (key.clone(), empty(&value.place))).collect(),
        _ => Table::default(),
    };
    let keep = |(key, value): (&super::Key, &Value)| (key.clone(), Value { place: value.place.clone(), data: Data::Table(inner(value)) });
    table.iter().filter(|(key, _)| key.text != "profile").map(keep).collect()
}
