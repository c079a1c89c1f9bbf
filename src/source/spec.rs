//! `[source]`: what the manifest says about where its data comes from.

use std::path::PathBuf;

use super::http::{Address, HttpError, said};
use super::oci::Name;
use super::origin::{Holds, HubOrigin, OciOrigin, Origin, Want, WebOrigin};
use super::{entry, hub};
use crate::base::{Diagnostic, Place, suggest};
use crate::manifest::{Data, Key, Manifest, Protocol, Table, Value, names};

/// Every field of a source. `plan::common` describes them for the schema.
pub const FIELDS: [&str; 15] = [
    "path",
    "git",
    "branch",
    "tag",
    "rev",
    "hf",
    "revision",
    "repo_type",
    "include",
    "exclude",
    "url",
    "sha256",
    "unpack",
    "oci",
    "description",
];
/// What somebody may write for `url`.
const URLS: [&str; 2] = ["http", "https"];
const DEFAULT_REVISION: &str = "main";

#[derive(Clone, Debug)]
pub struct Spec {
    /// Behind its member in a workspace: `member/vendor`.
    pub name: String,
    /// Of the name.
    pub place: Place,
    pub origin: Origin,
    /// Of the address within the origin.
    pub address_place: Place,
    /// What relative paths start from.
    pub folder: PathBuf,
    /// The folder of the member's manifest.
    pub root: PathBuf,
}

/// The sources of a manifest, as far as they make sense. Names that are no names are the plan's to tell.
pub fn specs(manifest: &Manifest, prefix: &str, diagnostics: &mut Vec<Diagnostic>) -> Vec<Spec> {
    let Some(value) = manifest.table.get("source") else { return Vec::new() };
    let Data::Table(table) = &value.data else {
        diagnostics.push(Diagnostic::error(format!("`source` is a table of sources, not {}", value.data.noun())).at(&value.place, ""));
        return Vec::new();
    };
    let mut found = Vec::with_capacity(table.len());
    for (key, value) in table.iter() {
        let Some((origin, address_place)) = origin(key, value, diagnostics) else { continue };
        let folder = manifest.folder_of(&value.place).to_path_buf();
        let (name, place) = (format!("{prefix}{}", key.text), key.place.clone());
        found.push(Spec { name, place, origin, address_place, folder, root: manifest.root.clone() });
    }
    found
}

fn origin(key: &Key, value: &Value, diagnostics: &mut Vec<Diagnostic>) -> Option<(Origin, Place)> {
    let Data::Table(table) = &value.data else {
        let help = match &value.data {
            Data::String(path) => format!("write `{} = {{ path = \"{path}\" }}`", key.text),
            _ => format!("write `{} = {{ path = \"data.jsonl\" }}`", key.text),
        };
        let message = format!("a source is a table, not {}", value.data.noun());
        diagnostics.push(Diagnostic::error(message).at(&value.place, "").help(help));
        return None;
    };
    let mut reader = Reader { table, diagnostics, good: true };
    reader.known();
    reader.text("description");
    let protocol = reader.protocol();
    let path = reader.text("path");
    if !reader.good {
        return None;
    }
    let Some((protocol, address, place)) = protocol else {
        reader.only(None)?;
        return reader.local(key, path);
    };
    reader.only(Some(protocol))?;
    let path = match path {
        Some((path, place)) => Some(reader.inner(path, &place)?),
        None => None,
    };
    let origin = match protocol {
        Protocol::Git => Origin::Git { url: address, want: reader.want()?, path },
        Protocol::Hub => Origin::Hub(reader.hub(address, &place, path)?),
        Protocol::Url => Origin::Web(reader.web(address, &place, path)?),
        Protocol::Oci => Origin::Oci(reader.oci(address, &place, path)?),
    };
    reader.good.then_some((origin, place))
}

struct Reader<'a> {
    table: &'a Table,
    diagnostics: &'a mut Vec<Diagnostic>,
    good: bool,
}

impl Reader<'_> {
    fn wrong<T>(&mut self, diagnostic: Diagnostic) -> Option<T> {
        self.diagnostics.push(diagnostic);
        self.good = false;
        None
    }

    fn known(&mut self) {
        for (key, _) in self.table.iter() {
            let name = key.text.as_str();
            if URLS.contains(&name) {
                self.wrong::<()>(
                    Diagnostic::error(format!("unknown field `{name}` of a source"))
                        .at(&key.place, "no such field")
                        .help(format!("write `url = \"{name}://…\"`")),
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

    /// The remote origin that the source names, if any.
    fn protocol(&mut self) -> Option<(Protocol, String, Place)> {
        let mut found: Option<(Protocol, String, Place)> = None;
        for protocol in Protocol::ALL {
            let Some((address, place)) = self.text(protocol.field()) else { continue };
            if said::holds_password(&address) {
                return self.wrong(secret(protocol, &place));
            }
            match &found {
                None => found = Some((protocol, address, place)),
                Some((first, ..)) => {
                    let message = format!("a source has `{}` or `{}`, not both", first.field(), protocol.field());
                    return self.wrong(Diagnostic::error(message).at(&place, ""));
                }
            }
        }
        found
    }

    /// Refuses fields of other origins.
    fn only(&mut self, protocol: Option<Protocol>) -> Option<()> {
        for (key, value) in self.table.iter() {
            let name = key.text.as_str();
            let owners = owners(name);
            if owners.is_empty() || protocol.is_some_and(|protocol| owners.contains(&protocol)) {
                continue;
            }
            let nouns: Vec<&str> = owners.iter().map(|owner| noun(*owner)).collect();
            let help = match protocol {
                Some(Protocol::Hub) if matches!(name, "branch" | "tag" | "rev") => {
                    "a branch, tag or commit of the Hub is `revision = …`".to_string()
                }
                Some(other) => format!("leave it out: {} has no `{name}`", noun(other)),
                None => format!("add `{}`", owners.iter().map(|owner| example(*owner)).collect::<Vec<_>>().join("` or `")),
            };
            let message = format!("`{name}` belongs to {}", nouns.join(" or "));
            return self.wrong(Diagnostic::error(message).at(&value.place, "").help(help));
        }
        Some(())
    }

    fn text(&mut self, name: &str) -> Option<(String, Place)> {
        let value = self.table.get(name)?;
        self.string(name, value)
    }

    fn string(&mut self, name: &str, value: &Value) -> Option<(String, Place)> {
        match &value.data {
            Data::String(text) if text.trim().is_empty() || text.contains('\0') => {
                self.wrong(Diagnostic::error(format!("`{name}` may not be empty")).at(&value.place, ""))
            }
            Data::String(text) => Some((text.clone(), value.place.clone())),
            other => self.wrong(Diagnostic::error(format!("`{name}` is a string, not {}", other.noun())).at(&value.place, "")),
        }
    }

    /// A pattern or several.
    fn patterns(&mut self, name: &str) -> Option<Vec<String>> {
        let Some(value) = self.table.get(name) else { return Some(Vec::new()) };
        let items = match &value.data {
            Data::List(items) => items.iter().collect(),
            _ => vec![value],
        };
        let mut found = Vec::with_capacity(items.len());
        for item in items {
            let (text, place) = self.string(name, item)?;
            // Patterns stand in the lock with spaces between them.
            if text.chars().any(char::is_whitespace) {
                let help = "write `?` in its place";
                return self.wrong(Diagnostic::error("a pattern has no spaces").at(&place, "").help(help));
            }
            found.push(text);
        }
        Some(found)
    }

    fn inner(&mut self, path: String, place: &Place) -> Option<String> {
        if let Err(why) = entry::safe(&path) {
            let help = "write it as `data/train.jsonl`, relative to the repository's root";
            return self.wrong(Diagnostic::error(format!("`{path}` {why}")).at(place, "").help(help));
        }
        Some(path)
    }

    fn want(&mut self) -> Option<Want> {
        let wants: Vec<(&str, String, Place)> =
            ["branch", "tag", "rev"].into_iter().filter_map(|name| self.text(name).map(|(text, place)| (name, text, place))).collect();
        if let [(first, ..), (second, _, place), ..] = wants.as_slice() {
            return self.wrong(Diagnostic::error(format!("a git source has `{first}` or `{second}`, not both")).at(place, ""));
        }
        match wants.into_iter().next() {
            None => Some(Want::Head),
            Some(("branch", name, _)) => Some(Want::Branch(name)),
            Some(("tag", name, _)) => Some(Want::Tag(name)),
            Some((_, rev, place)) => {
                if rev.len() < 7 || rev.len() > 40 || !rev.bytes().all(|b| b.is_ascii_hexdigit()) {
                    let message = format!("`{rev}` is not a commit: 7 to 40 hex digits");
                    return self.wrong(Diagnostic::error(message).at(&place, "").help("`branch = …` and `tag = …` take names"));
                }
                Some(Want::Rev(rev.to_lowercase()))
            }
        }
    }

    fn hub(&mut self, repository: String, place: &Place, path: Option<String>) -> Option<HubOrigin> {
        if let Some(fault) = hub::name_fault(&repository) {
            let message = format!("`{repository}` is no repository of the Hub: {fault}");
            return self.wrong(Diagnostic::error(message).at(place, "").help("write it as `hf = \"HuggingFaceTB/SmolLM2-135M-Instruct\"`"));
        }
        let holds = match self.text("repo_type") {
            None => Holds::Model,
            Some((text, place)) => match text.as_str() {
                "model" => Holds::Model,
                "dataset" => Holds::Dataset,
                other => {
                    let message = format!("`repo_type` is `model` or `dataset`, not `{other}`");
                    return self.wrong(Diagnostic::error(message).at(&place, ""));
                }
            },
        };
        let revision = match self.text("revision") {
            None => DEFAULT_REVISION.to_string(),
            Some((text, place)) => match hub::revision_fault(&text) {
                None => text,
                Some(fault) => return self.wrong(Diagnostic::error(format!("`{text}` is no revision: {fault}")).at(&place, "")),
            },
        };
        let (include, exclude) = (self.patterns("include")?, self.patterns("exclude")?);
        if path.is_some()
            && let Some(value) = ["include", "exclude"].into_iter().find_map(|name| self.table.get(name))
        {
            let message = "a source has `path` or patterns, not both";
            return self.wrong(Diagnostic::error(message).at(&value.place, "").help("`include` takes paths as well"));
        }
        self.good.then_some(HubOrigin { repository, holds, revision, path, include, exclude })
    }

    fn web(&mut self, url: String, place: &Place, path: Option<String>) -> Option<WebOrigin> {
        if let Err(error) = Address::parse(&url) {
            return self.wrong(Diagnostic::error(error.to_string()).at(place, "").maybe_help(error.help()));
        }
        let sha256 = match self.text("sha256") {
            None => None,
            Some((text, place)) => {
                let hex = text.strip_prefix("sha256:").unwrap_or(&text).to_lowercase();
                if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
                    let help = "`sha256sum FILE` prints it; without it, `slmops lock` pins what the address holds then";
                    return self.wrong(Diagnostic::error("`sha256` is 64 hex digits").at(&place, "").help(help));
                }
                Some(hex)
            }
        };
        let unpack = match self.table.get("unpack") {
            None => false,
            Some(value) => match &value.data {
                Data::Bool(unpack) => *unpack,
                other => {
                    let message = format!("`unpack` is `true` or `false`, not {}", other.noun());
                    return self.wrong(Diagnostic::error(message).at(&value.place, ""));
                }
            },
        };
        if let (Some(_), false, Some(value)) = (&path, unpack, self.table.get("path")) {
            let help = "`unpack = true` unpacks a tar archive; then `path` is a file or folder in it";
            return self.wrong(Diagnostic::error("an address holds one file, which has no paths").at(&value.place, "").help(help));
        }
        self.good.then_some(WebOrigin { url, sha256, unpack, path })
    }

    fn oci(&mut self, reference: String, place: &Place, path: Option<String>) -> Option<OciOrigin> {
        if let Err(why) = Name::parse(&reference) {
            let help = "write it as `registry.example/team/model:1.0`";
            return self.wrong(Diagnostic::error(format!("`{reference}` names nothing in a registry: {why}")).at(place, "").help(help));
        }
        Some(OciOrigin { reference, path })
    }

    fn local(&mut self, key: &Key, path: Option<(String, Place)>) -> Option<(Origin, Place)> {
        let Some((path, place)) = path else {
            let help = format!("write `{} = {{ path = \"data.jsonl\" }}`", key.text);
            return self
                .wrong(Diagnostic::error(format!("the source `{}` does not say where it is", key.text)).at(&key.place, "").help(help));
        };
        Some((Origin::Path { path }, place))
    }
}

/// A password in a manifest. The place is named and not shown: the line has the password in it.
fn secret(protocol: Protocol, place: &Place) -> Diagnostic {
    let (line, column) = place.source.line_column(place.span.start);
    let message = format!("{}:{line}:{column}: in `{}`: {}", place.source.name, protocol.field(), HttpError::Secret);
    Diagnostic::error(message).maybe_help(HttpError::Secret.help())
}

/// The origins that a field belongs to; none if it belongs to every source or names the origin.
fn owners(field: &str) -> &'static [Protocol] {
    match field {
        "branch" | "tag" | "rev" => &[Protocol::Git],
        "revision" | "repo_type" | "include" | "exclude" => &[Protocol::Hub],
        "sha256" | "unpack" => &[Protocol::Url],
        _ => &[],
    }
}

fn noun(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Git => "a git source",
        Protocol::Hub => "a source of the Hub",
        Protocol::Url => "a `url` source",
        Protocol::Oci => "a source of a registry",
    }
}

fn example(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Git => "git = \"URL\"",
        Protocol::Hub => "hf = \"org/name\"",
        Protocol::Url => "url = \"https://…\"",
        Protocol::Oci => "oci = \"registry/name:tag\"",
    }
}

/// What is wrong with a source's name.
pub fn name_fault(key: &Key) -> Option<Diagnostic> {
    names::fault(&key.text).map(|fault| Diagnostic::error(format!("`{}` cannot name a source", key.text)).at(&key.place, "").help(fault))
}
