//! `[source]`: what the manifest says about where its data comes from.

use std::path::PathBuf;

use crate::base::{Diagnostic, Place, suggest};
use crate::manifest::{Data, Key, Manifest, Table, Value, names};

/// Every field of a source. `plan::common` describes them for the schema.
pub const FIELDS: [&str; 6] = ["path", "git", "branch", "tag", "rev", "description"];
/// Origins that are promised for later.
const LATER: [&str; 5] = ["hf", "http", "https", "url", "oci"];

#[derive(Clone, Debug)]
pub struct Spec {
    /// Behind its member in a workspace: `member/vendor`.
    pub name: String,
    /// Of the name.
    pub place: Place,
    pub origin: Origin,
    /// What relative paths start from.
    pub folder: PathBuf,
    /// The folder of the member's manifest.
    pub root: PathBuf,
}

#[derive(Clone, Debug)]
pub enum Origin {
    Path { path: String, place: Place },
    Git { url: String, place: Place, want: Want, path: Option<String> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    Head,
    Branch(String),
    Tag(String),
    Rev(String),
}

impl Want {
    /// As the lock file keeps it: `branch main`.
    pub fn text(&self) -> String {
        match self {
            Want::Head => "head".to_string(),
            Want::Branch(name) => format!("branch {name}"),
            Want::Tag(name) => format!("tag {name}"),
            Want::Rev(rev) => format!("rev {rev}"),
        }
    }
}

/// The sources of a manifest, as far as they make sense. Names that are no names are the plan's to tell.
pub fn specs(manifest: &Manifest, prefix: &str, diagnostics: &mut Vec<Diagnostic>) -> Vec<Spec> {
    let Some(value) = manifest.table.get("source") else { return Vec::new() };
    let Data::Table(table) = &value.data else {
        diagnostics.push(Diagnostic::error(format!("`source` is a table of sources, not {}", value.data.noun())).at(&value.place, ""));
        return Vec::new();
    };
    let mut found = Vec::with_capacity(table.0.len());
    for (key, value) in table.iter() {
        let Some(origin) = origin(key, value, diagnostics) else { continue };
        let folder = manifest.folder_of(&value.place).to_path_buf();
        found.push(Spec { name: format!("{prefix}{}", key.text), place: key.place.clone(), origin, folder, root: manifest.root.clone() });
    }
    found
}

fn origin(key: &Key, value: &Value, diagnostics: &mut Vec<Diagnostic>) -> Option<Origin> {
    let Data::Table(table) = &value.data else {
        let help = match &value.data {
            Data::String(path) => format!("write `{} = {{ path = \"{path}\" }}`", key.text),
            _ => format!("write `{} = {{ path = \"data.jsonl\" }}`", key.text),
        };
        let message = format!("a source is a table, not {}", value.data.noun());
        diagnostics.push(Diagnostic::error(message).at(&value.place, "").help(help));
        return None;
    };
    let mut reader = Reader { diagnostics, good: true };
    reader.known(table);
    let path = reader.text(table, "path");
    let git = reader.text(table, "git");
    reader.text(table, "description");
    let wants: Vec<(&str, String, Place)> =
        ["branch", "tag", "rev"].into_iter().filter_map(|name| reader.text(table, name).map(|(text, place)| (name, text, place))).collect();
    if !reader.good {
        return None;
    }
    match git {
        Some((url, place)) => reader.git(url, place, wants, path),
        None => reader.path(key, path, &wants),
    }
}

struct Reader<'a> {
    diagnostics: &'a mut Vec<Diagnostic>,
    good: bool,
}

impl Reader<'_> {
    fn wrong<T>(&mut self, diagnostic: Diagnostic) -> Option<T> {
        self.diagnostics.push(diagnostic);
        self.good = false;
        None
    }

    fn known(&mut self, table: &Table) {
        for (key, _) in table.iter() {
            let name = key.text.as_str();
            if LATER.contains(&name) {
                self.wrong::<()>(
                    Diagnostic::error(format!("this version of slmops does not fetch `{name}` sources yet"))
                        .at(&key.place, "")
                        .help("download the files and use `{ path = … }`, or put them into a git repository and use `{ git = … }`"),
                );
            } else if !FIELDS.contains(&name) {
                self.wrong::<()>(
                    Diagnostic::error(format!("unknown field `{name}` of a source"))
                        .at(&key.place, "no such field")
                        .maybe_help(suggest::help(name, FIELDS)),
                );
            }
        }
    }

    fn text(&mut self, table: &Table, name: &str) -> Option<(String, Place)> {
        let value = table.get(name)?;
        match &value.data {
            Data::String(text) if text.trim().is_empty() || text.contains('\0') => {
                self.wrong(Diagnostic::error(format!("`{name}` may not be empty")).at(&value.place, ""))
            }
            Data::String(text) => Some((text.clone(), value.place.clone())),
            other => self.wrong(Diagnostic::error(format!("`{name}` is a string, not {}", other.noun())).at(&value.place, "")),
        }
    }

    fn git(&mut self, url: String, place: Place, wants: Vec<(&str, String, Place)>, path: Option<(String, Place)>) -> Option<Origin> {
        if let [(first, ..), (second, _, place), ..] = wants.as_slice() {
            return self.wrong(Diagnostic::error(format!("a git source has `{first}` or `{second}`, not both")).at(place, ""));
        }
        if let Some((path, place)) = &path
            && path.split('/').any(|part| part.is_empty() || part == ".." || part == ".")
        {
            let help = "write it as `data/train.jsonl`, relative to the repository's root";
            return self.wrong(Diagnostic::error(format!("`{path}` is no path within the repository")).at(place, "").help(help));
        }
        let want = match wants.into_iter().next() {
            None => Want::Head,
            Some(("branch", name, _)) => Want::Branch(name),
            Some(("tag", name, _)) => Want::Tag(name),
            Some((_, rev, place)) => {
                if rev.len() < 7 || rev.len() > 40 || !rev.bytes().all(|b| b.is_ascii_hexdigit()) {
                    let message = format!("`{rev}` is not a commit: 7 to 40 hex digits");
                    return self.wrong(Diagnostic::error(message).at(&place, "").help("`branch = …` and `tag = …` take names"));
                }
                Want::Rev(rev.to_lowercase())
            }
        };
        Some(Origin::Git { url, place, want, path: path.map(|(path, _)| path) })
    }

    fn path(&mut self, key: &Key, path: Option<(String, Place)>, wants: &[(&str, String, Place)]) -> Option<Origin> {
        if let Some((name, _, place)) = wants.first() {
            return self.wrong(Diagnostic::error(format!("`{name}` belongs to a git source")).at(place, "").help("add `git = \"URL\"`"));
        }
        let Some((path, place)) = path else {
            let help = format!("write `{} = {{ path = \"data.jsonl\" }}`", key.text);
            return self
                .wrong(Diagnostic::error(format!("the source `{}` does not say where it is", key.text)).at(&key.place, "").help(help));
        };
        Some(Origin::Path { path, place })
    }
}

/// What is wrong with a source's name.
pub fn name_fault(key: &Key) -> Option<Diagnostic> {
    names::fault(&key.text).map(|fault| Diagnostic::error(format!("`{}` cannot name a source", key.text)).at(&key.place, "").help(fault))
}
