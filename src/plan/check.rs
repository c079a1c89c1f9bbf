//! Values against a kind's fields: what comes out are parameters by value, with every default filled in, and the references that are left to
//! resolve. It knows no kind and no step but the one before it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use super::value;
use crate::base::diagnostic::{MAX_KEPT, MAX_SHOWN};
use crate::base::{Diagnostic, Place, SourceText, suggest};
use crate::manifest::{Data, Reference, Table, Value, names, read};
use crate::steps::{Arity, Artifact, Field, Need, Params, Type};

/// What a table came to.
#[derive(Debug, Default)]
pub struct Checked {
    pub params: Params,
    /// In the order of the fields.
    pub ports: Vec<RawPort>,
    /// Device fields that fan out.
    pub devices: Vec<RawDevice>,
    /// Texts in `params` that are still to be rendered.
    pub templates: Vec<RawTemplate>,
}

/// References of one port, not yet resolved.
#[derive(Debug)]
pub struct RawPort {
    pub name: String,
    pub place: Place,
    pub arity: Arity,
    pub accepts: &'static [Artifact],
    pub refs: Vec<Reference>,
    /// Written as a list: fanning out over it is an axis of its own.
    pub listed: bool,
}

#[derive(Debug)]
pub struct RawDevice {
    /// Of the field in the parameters.
    pub path: Vec<String>,
    pub place: Place,
    /// Their names and whole tables.
    pub devices: Vec<(String, Json)>,
}

#[derive(Debug)]
pub struct RawTemplate {
    pub path: Vec<String>,
    pub place: Place,
}

/// The devices of a manifest: `None` for one that is declared but wrong.
pub type Devices = BTreeMap<String, Option<Json>>;

/// What belongs to whom, for messages: `[train.teacher]` and its place.
#[derive(Clone, Copy)]
pub struct Owner<'a> {
    pub what: &'a str,
    pub place: &'a Place,
}

/// Defaults as they come out of the check, by the field's address: each is parsed once a run, not once a step.
#[derive(Default)]
pub struct Defaults(BTreeMap<usize, Option<Json>>);

pub struct Checker<'a> {
    pub devices: &'a Devices,
    pub defaults: &'a mut Defaults,
    pub diagnostics: &'a mut Vec<Diagnostic>,
    path: Vec<Cow<'static, str>>,
    checked: Checked,
}

impl<'a> Checker<'a> {
    pub fn new(devices: &'a Devices, defaults: &'a mut Defaults, diagnostics: &'a mut Vec<Diagnostic>) -> Checker<'a> {
        Checker { devices, defaults, diagnostics, path: Vec::new(), checked: Checked::default() }
    }

    /// Checks a table's fields. The first of `layers` that has a field gives its value; what none has is filled in or missing. Unknown names
    /// are not looked for: see [`unknown`].
    pub fn check(mut self, fields: &'static [Field], layers: &[&Table], owner: Owner) -> Checked {
        let params = self.fields(fields, layers, owner);
        self.checked.params = params;
        self.checked
    }

    /// Checks only what is there, as `[defaults.KIND]` gives it.
    pub fn check_given(mut self, fields: &'static [Field], table: &Table, owner: Owner) {
        for (key, value) in table.iter() {
            let Some(field) = fields.iter().find(|field| field.name == key.text) else { continue };
            self.path.push(Cow::Borrowed(field.name));
            match (&field.ty, &value.data) {
                (Type::Table(inner), Data::Table(table)) => self.partial(inner, table),
                _ => drop(self.field(field, value, &[table], owner)),
            }
            self.path.pop();
        }
    }

    fn partial(&mut self, fields: &'static [Field], table: &Table) {
        unknown(fields.iter().map(|field| field.name), table, &self.place_word(), self.diagnostics);
        for (key, value) in table.iter() {
            if let Some(field) = fields.iter().find(|field| field.name == key.text) {
                self.field(field, value, &[table], Owner { what: "these defaults", place: &value.place });
            }
        }
    }

    fn fields(&mut self, fields: &'static [Field], layers: &[&Table], owner: Owner) -> Params {
        let mut params = Params::new();
        for field in fields {
            self.path.push(Cow::Borrowed(field.name));
            let found = layers.iter().find_map(|layer| layer.get(field.name));
            let json = match found {
                Some(value) => self.field(field, value, layers, owner),
                // A slip of the pen is one mistake: the unknown field's message names this one.
                None if field.need == Need::Required && self.diagnostics.len() < MAX_SHOWN && is_misspelt(field.name, fields, layers) => {
                    None
                }
                None => self.absent(field, owner),
            };
            self.path.pop();
            if let Some(json) = json {
                params.insert(field.name.to_string(), json);
            }
        }
        params
    }

    fn field(&mut self, field: &'static Field, value: &Value, layers: &[&Table], owner: Owner) -> Option<Json> {
        match (&field.ty, &value.data) {
            (Type::Table(inner), Data::Table(first)) => {
                let below = layers.iter().filter_map(|layer| match layer.get(field.name).map(|value| &value.data) {
                    Some(Data::Table(table)) => Some(table),
                    _ => None,
                });
                let below: Vec<&Table> = below.collect();
                unknown(inner.iter().map(|field| field.name), first, &self.place_word(), self.diagnostics);
                let what = format!("{} of {}", self.place_word(), owner.what);
                Some(Json::Object(self.fields(inner, &below, Owner { what: &what, place: &value.place })))
            }
            (Type::Ref(..) | Type::Device(_), Data::List(items)) if items.is_empty() && field.need == Need::Required => {
                self.wrong(&value.place, format!("`{}` names nothing", self.shown()), "name at least one".to_string())
            }
            _ => self.value(&field.ty, value, owner),
        }
    }

    fn absent(&mut self, field: &'static Field, owner: Owner) -> Option<Json> {
        match field.need {
            Need::Optional => None,
            Need::Required => {
                self.diagnostics.push(
                    Diagnostic::error(format!("{} needs `{}`", owner.what, field.name))
                        .at(owner.place, format!("`{}` is missing", field.name))
                        .help(field.doc),
                );
                None
            }
            Need::Default(text) => self.default(field, text, owner),
        }
    }

    fn default(&mut self, field: &'static Field, text: &'static str, owner: Owner) -> Option<Json> {
        let cached = is_plain(&field.ty);
        let address = std::ptr::from_ref(field) as usize;
        if cached && let Some(known) = self.defaults.0.get(&address) {
            return known.clone();
        }
        let source = Arc::new(SourceText::new(format!("default of {}", field.name), format!("value = {text}")));
        let (table, errors) = read::parse(&source);
        self.diagnostics.extend(errors);
        let json = match table.get("value") {
            Some(value) => match (&field.ty, &value.data) {
                (Type::Table(inner), Data::Table(table)) => Some(Json::Object(self.fields(inner, &[table], owner))),
                _ => self.value(&field.ty, value, owner),
            },
            None => None,
        };
        if cached {
            self.defaults.0.insert(address, json.clone());
        }
        json
    }

    fn value(&mut self, ty: &'static Type, value: &Value, owner: Owner) -> Option<Json> {
        match ty {
            Type::List(inner) => Some(Json::Array(self.list(inner, value, owner))),
            Type::Table(inner) => match &value.data {
                Data::Table(table) => {
                    unknown(inner.iter().map(|field| field.name), table, &self.place_word(), self.diagnostics);
                    let what = format!("{} of {}", self.place_word(), owner.what);
                    Some(Json::Object(self.fields(inner, &[table], Owner { what: &what, place: &value.place })))
                }
                other => self.mismatch(&value.place, "a table", other),
            },
            Type::Map(inner) => match &value.data {
                Data::Table(table) => Some(Json::Object(self.map(inner, table, owner))),
                other => self.mismatch(&value.place, "a table", other),
            },
            Type::Template => {
                let json = value::plain(&Type::String, value).map_err(|fault| self.fault(&value.place, fault)).ok()?;
                if let Json::String(text) = &json
                    && ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark))
                {
                    self.checked.templates.push(RawTemplate { path: self.owned_path(), place: value.place.clone() });
                }
                Some(json)
            }
            Type::Ref(arity, accepts) => {
                self.references(*arity, accepts, value);
                None
            }
            Type::NamedRefs(accepts) => {
                self.named(accepts, value);
                None
            }
            Type::Device(arity) => self.device(*arity, value),
            plain => value::plain(plain, value).map_err(|fault| self.fault(&value.place, fault)).ok(),
        }
    }

    fn list(&mut self, inner: &'static Type, value: &Value, owner: Owner) -> Vec<Json> {
        let single = std::slice::from_ref(value);
        let items = match &value.data {
            Data::List(items) => items.as_slice(),
            _ => single,
        };
        let mut out = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            self.path.push(Cow::Owned(i.to_string()));
            out.extend(self.value(inner, item, owner));
            self.path.pop();
        }
        out
    }

    fn map(&mut self, inner: &'static Type, table: &Table, owner: Owner) -> Params {
        let mut out = Params::new();
        for (key, value) in table.iter() {
            self.path.push(Cow::Owned(key.text.clone()));
            if let Some(json) = self.value(inner, value, owner) {
                out.insert(key.text.clone(), json);
            }
            self.path.pop();
        }
        out
    }

    fn references(&mut self, arity: Arity, accepts: &'static [Artifact], value: &Value) {
        let single = std::slice::from_ref(value);
        let (items, listed) = match &value.data {
            Data::List(items) => (items.as_slice(), true),
            _ => (single, false),
        };
        if arity == Arity::One && items.len() != 1 {
            let message = format!("`{}` takes exactly one, not {}", self.shown(), items.len());
            return drop(self.wrong(&value.place, message, "name one step or source".to_string()));
        }
        let refs: Vec<Reference> = items.iter().filter_map(|item| self.reference(item)).collect();
        // A wrong one has been told; the rest is resolved all the same, to find what else is wrong.
        let name = self.path.join(".");
        self.checked.ports.push(RawPort { name, place: value.place.clone(), arity, accepts, refs, listed });
    }

    fn reference(&mut self, value: &Value) -> Option<Reference> {
        let Data::String(text) = &value.data else {
            return self.mismatch(&value.place, "the name of a step or source", &value.data).and(None);
        };
        match names::reference(text, &value.place) {
            Ok(reference) => Some(reference),
            Err(fault) => self.wrong(&value.place, format!("`{text}` is no reference"), fault).and(None),
        }
    }

    /// `{ seen = "test_seen" }`, or a list that names each by itself.
    fn named(&mut self, accepts: &'static [Artifact], value: &Value) {
        let mut entries: Vec<(String, &Place, Reference)> = Vec::new();
        match &value.data {
            Data::Table(table) => {
                for (key, value) in table.iter() {
                    if let Some(fault) = names::path_fault(&key.text) {
                        self.wrong(&key.place, format!("`{}` cannot be a name here", key.text), fault);
                        continue;
                    }
                    self.path.push(Cow::Owned(key.text.clone()));
                    entries.extend(self.reference(value).map(|reference| (key.text.clone(), &value.place, reference)));
                    self.path.pop();
                }
            }
            Data::List(items) => {
                let found =
                    items.iter().filter_map(|item| self.reference(item).map(|reference| (own_name(&reference), &item.place, reference)));
                entries.extend(found.collect::<Vec<_>>());
            }
            _ => entries.extend(self.reference(value).map(|reference| (own_name(&reference), &value.place, reference))),
        }
        let mut seen: Vec<&str> = Vec::new();
        for (name, place, _) in &entries {
            if seen.contains(&name.as_str()) {
                self.wrong(place, format!("`{name}` stands twice in `{}`", self.shown()), "name each: `{ a = …, b = … }`".to_string());
            }
            seen.push(name);
        }
        let prefix = self.path.join(".");
        for (name, place, reference) in entries {
            let port = RawPort {
                name: format!("{prefix}.{name}"),
                place: place.clone(),
                arity: Arity::One,
                accepts,
                refs: vec![reference],
                listed: false,
            };
            self.checked.ports.push(port);
        }
    }

    fn device(&mut self, arity: Arity, value: &Value) -> Option<Json> {
        let single = std::slice::from_ref(value);
        let (items, listed) = match &value.data {
            Data::List(items) => (items.as_slice(), true),
            _ => (single, false),
        };
        let mut found: Vec<(String, Json)> = Vec::new();
        for item in items {
            let Data::String(name) = &item.data else { return self.mismatch(&item.place, "the name of a device", &item.data) };
            match self.devices.get(name) {
                Some(Some(device)) => found.push((name.clone(), device.clone())),
                Some(None) => {}
                None => {
                    let help = suggest::help(name, self.devices.keys().map(String::as_str))
                        .unwrap_or_else(|| format!("declare it: `[device.{name}]`"));
                    self.wrong(&item.place, format!("there is no device `{name}`"), help);
                }
            }
        }
        if found.len() < items.len() {
            return None;
        }
        match (arity, listed) {
            (Arity::All, _) => Some(Json::Array(found.into_iter().map(|(_, device)| device).collect())),
            (Arity::Each, true) => {
                self.checked.devices.push(RawDevice { path: self.owned_path(), place: value.place.clone(), devices: found });
                // The place is kept; each of the steps puts its own device there.
                Some(Json::Null)
            }
            _ if found.len() == 1 => found.pop().map(|(_, device)| device),
            _ => self.wrong(
                &value.place,
                format!("`{}` takes exactly one device, not {}", self.shown(), items.len()),
                "name one".to_string(),
            ),
        }
    }

    /// The path of the field at hand, as a person would write it: `gate.versus`.
    fn shown(&self) -> String {
        let words: Vec<&str> = self.path.iter().map(AsRef::as_ref).filter(|part| part.parse::<usize>().is_err()).collect();
        words.join(".")
    }

    fn owned_path(&self) -> Vec<String> {
        self.path.iter().map(|part| part.to_string()).collect()
    }

    fn place_word(&self) -> String {
        format!("`{}`", self.shown())
    }

    fn mismatch(&mut self, place: &Place, wanted: &str, found: &Data) -> Option<Json> {
        let message = format!("`{}` takes {wanted}, not {}", self.shown(), found.noun());
        self.diagnostics.push(Diagnostic::error(message).at(place, format!("expected {wanted}")));
        None
    }

    fn wrong(&mut self, place: &Place, message: String, help: String) -> Option<Json> {
        self.diagnostics.push(Diagnostic::error(message).at(place, "").help(help));
        None
    }

    fn fault(&mut self, place: &Place, fault: value::Fault) {
        let message = format!("`{}` {}", self.shown(), fault.message);
        self.diagnostics.push(Diagnostic::error(message).at(place, fault.label).maybe_help(fault.help));
    }
}

/// The name that a reference has in a list: `split.train@seed=1` → `split.train`.
fn own_name(reference: &Reference) -> String {
    reference.base()
}

/// Tells every name in a table that is not among `known`.
pub fn unknown<'n>(known: impl Iterator<Item = &'n str> + Clone, table: &Table, what: &str, diagnostics: &mut Vec<Diagnostic>) {
    let mut left_out = 0usize;
    for (key, _) in table.iter().filter(|(key, _)| !known.clone().any(|name| name == key.text)) {
        if diagnostics.len() >= MAX_KEPT {
            left_out += 1;
            continue;
        }
        // What is not shown needs no suggestion.
        let help = if diagnostics.len() < MAX_SHOWN { suggest::help(&key.text, known.clone()) } else { None };
        let message = format!("unknown field `{}` of {what}", shortened(&key.text));
        diagnostics.push(Diagnostic::error(message).at(&key.place, "no such field").maybe_help(help));
    }
    if left_out > 0 {
        diagnostics.push(Diagnostic::error(format!("{left_out} more unknown fields of {what}")));
    }
}

/// A name as a message may quote it.
fn shortened(name: &str) -> Cow<'_, str> {
    const MOST: usize = 100;
    match name.char_indices().nth(MOST) {
        Some((end, _)) => Cow::Owned(format!("{}…", &name[..end])),
        None => Cow::Borrowed(name),
    }
}

/// Whether an unknown field was written where this one is missing.
fn is_misspelt(name: &str, fields: &[Field], layers: &[&Table]) -> bool {
    let known = || fields.iter().map(|field| field.name);
    let names = layers.iter().flat_map(|layer| layer.names().take(MAX_SHOWN));
    let mut unknown = names.filter(|written| !known().any(|name| name == *written));
    unknown.any(|written| suggest::nearest(written, known()) == Some(name))
}

/// Whether a value of this type is the same wherever it stands.
fn is_plain(ty: &Type) -> bool {
    match ty {
        Type::List(inner) | Type::Map(inner) => is_plain(inner),
        Type::Table(_) | Type::Template | Type::Ref(..) | Type::NamedRefs(_) | Type::Device(_) => false,
        _ => true,
    }
}

/// Where a path such as `gate.1.versus` stands, or what is nearest above it.
pub fn locate(layers: &[&Table], path: &str) -> Option<Place> {
    let mut parts = path.split('.').filter(|part| !part.is_empty());
    let first = parts.next()?;
    let mut value = layers.iter().find_map(|layer| layer.get(first))?;
    for part in parts {
        let below = match &value.data {
            Data::Table(table) => table.get(part),
            Data::List(items) => part.parse::<usize>().ok().and_then(|i| items.get(i)),
            _ => None,
        };
        match below {
            Some(below) => value = below,
            None => break,
        }
    }
    Some(value.place.clone())
}

/// Puts a value where a path leads. A path that leads nowhere changes nothing.
pub fn put(params: &mut Params, path: &[String], json: Json) {
    let Some((first, rest)) = path.split_first() else { return };
    let Some(mut slot) = params.get_mut(first) else { return };
    for part in rest {
        let below = match slot {
            Json::Object(map) => map.get_mut(part),
            Json::Array(items) => part.parse::<usize>().ok().and_then(|i| items.get_mut(i)),
            _ => None,
        };
        let Some(below) = below else { return };
        slot = below;
    }
    *slot = json;
}

/// The value to which a path leads.
pub fn get<'p>(params: &'p Params, path: &[String]) -> Option<&'p Json> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(params.get(first)?, |value, part| match value {
        Json::Object(map) => map.get(part),
        Json::Array(items) => part.parse::<usize>().ok().and_then(|i| items.get(i)),
        _ => None,
    })
}
