//! Files and folders on this machine.

use std::path::{Path, PathBuf};

use crate::base::{Diagnostic, Place, files, suggest};
use crate::manifest::include::normal;

use super::origin::Origin;
use super::spec::Spec;

/// Names beside a missing file among which the one that was meant is looked for.
const MAX_SIBLINGS: usize = 2000;

/// Where a `{ path = … }` is, or why it cannot be used.
pub fn locate(spec: &Spec, path: &str, place: &Place) -> Result<PathBuf, Diagnostic> {
    let full = normal(&spec.folder.join(path));
    match std::fs::metadata(&full) {
        Ok(found) if found.is_file() => Ok(full),
        Ok(found) if found.is_dir() => folder(spec, path, place, full),
        Ok(_) => Err(Diagnostic::error(format!("`{path}` is neither a file nor a folder")).at(place, "")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(missing(path, place)),
        Err(error) => Err(Diagnostic::io(format!("cannot read `{path}`"), &error).at(place, "")),
    }
}

/// A source that holds the manifest's folder would hold the cache and the bundles: it would change with every build.
fn folder(spec: &Spec, path: &str, place: &Place, full: PathBuf) -> Result<PathBuf, Diagnostic> {
    let (Ok(real), Ok(root)) = (full.canonicalize(), spec.root.canonicalize()) else { return Ok(full) };
    if root.starts_with(&real) {
        let message = format!("the source `{path}` holds the manifest itself, its cache and its bundles");
        return Err(Diagnostic::error(message).at(place, "changes with every build").help("put the data into a folder of its own"));
    }
    Ok(full)
}

fn missing(path: &str, place: &Place) -> Diagnostic {
    Diagnostic::error(format!("there is no file or folder `{path}`")).at(place, "not found")
}

/// What may be meant by a path that leads nowhere. It lists a folder, so it is asked only for what is shown.
pub fn help(spec: &Spec) -> Option<String> {
    let Origin::Path { path } = &spec.origin else { return None };
    let full = &normal(&spec.folder.join(path));
    if !matches!(files::kind(full), Ok(None)) {
        return None;
    }
    if path.starts_with('~') {
        return Some("`~` is not expanded: write a path relative to the manifest".to_string());
    }
    // The first folder on the way that is not there is the one to look beside.
    let mut wrong: &Path = full;
    while let Some(parent) = wrong.parent() {
        if parent.as_os_str().is_empty() || files::is_folder(parent).unwrap_or(false) {
            break;
        }
        wrong = parent;
    }
    let parent = match wrong.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let names = files::few_names(parent, MAX_SIBLINGS).unwrap_or_default();
    let siblings: Vec<&str> = names.iter().filter_map(|name| name.to_str()).collect();
    let slip = wrong.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match suggest::nearest(slip, siblings) {
        Some(name) => Some(format!("did you mean `{}`?", path.replacen(slip, name, 1))),
        None => Some("paths are relative to the file that names them".to_string()),
    }
}
