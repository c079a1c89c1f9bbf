//! What a manifest declares, checked: its project, devices and steps. References are read here and resolved in `expand`.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::check::{self, Checked, Checker, Defaults, Devices, Owner};
use super::common;
use crate::base::diagnostic::MAX_SHOWN;
use crate::base::{Diagnostic, Place, suggest};
use crate::manifest::matrix::{self, Axis, Target};
use crate::manifest::{Data, Key, Manifest, Table, Value, names};
use crate::steps::{Kind, Project, Type, device};

/// A declared step, one cell for each combination of its matrix.
pub struct Declaration<'m> {
    pub key: &'m Key,
    pub kind: &'static dyn Kind,
    pub is_bundle: bool,
    pub table: &'m Table,
    pub defaults: Option<&'m Table>,
    pub axes: Vec<Axis>,
    pub excludes: Vec<Exclude>,
    pub cells: Vec<Cell>,
    /// Nothing wrong was found in it; only then it is expanded.
    pub is_good: bool,
}

pub struct Cell {
    /// One value of each axis.
    pub picked: Vec<usize>,
    /// The step's table with those values in it; `None` if there is no matrix.
    pub table: Option<Table>,
    pub checked: Checked,
    /// The fields that every step has.
    pub common: Checked,
}

/// Values that do not go together.
pub struct Exclude {
    pub place: Place,
    /// Axis, label, and where it stands.
    pub values: Vec<(String, String, Place)>,
}

impl Declaration<'_> {
    pub fn name(&self) -> &str {
        &self.key.text
    }

    /// The tables in which a cell's fields are looked for.
    pub fn layers<'a>(&'a self, table: Option<&'a Table>) -> Vec<&'a Table> {
        [Some(table.unwrap_or(self.table)), self.defaults].into_iter().flatten().collect()
    }
}

/// What a manifest may still grow to.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub combinations: usize,
    pub copies: usize,
}

impl Room {
    /// Takes the combinations of a step, if there is room for them.
    fn take(&mut self, count: usize, table: &Table) -> Option<()> {
        // What has no matrix is not copied.
        let copies = if count == 1 { 0 } else { count.saturating_mul(values(table)) };
        let left = Room { combinations: self.combinations.checked_sub(count)?, copies: self.copies.checked_sub(copies)? };
        *self = left;
        Some(())
    }
}

/// How many values a table holds, at every depth.
fn values(table: &Table) -> usize {
    fn of(value: &Value) -> usize {
        1 + match &value.data {
            Data::List(items) => items.iter().map(of).sum(),
            Data::Table(table) => values(table),
            _ => 0,
        }
    }
    table.iter().map(|(_, value)| of(value)).sum()
}

pub struct Reader<'a, 'm> {
    pub manifest: &'m Manifest,
    pub kinds: &'a [&'static dyn Kind],
    pub max_combinations: usize,
    /// Combinations, and values in their tables, that there may still be.
    pub room: Room,
    pub defaults: &'a mut Defaults,
    pub diagnostics: &'a mut Vec<Diagnostic>,
}

impl<'m> Reader<'_, 'm> {
    pub fn project(&mut self) -> Project {
        let Some(table) = self.manifest.section("project") else {
            let diagnostic = match self.manifest.table.get("project") {
                Some(value) => Diagnostic::error("`project` is a table").at(&value.place, ""),
                None => Diagnostic::error("the manifest has no `[project]`").at(&self.manifest.start(), ""),
            };
            self.diagnostics.push(diagnostic.help("write `[project]` with `name = \"…\"`: bundles are named after it"));
            return Project::default();
        };
        let place = self.manifest.table.entry("project").map_or_else(|| self.manifest.start(), |(key, _)| key.place.clone());
        check::unknown(common::PROJECT.iter().map(|field| field.name), table, "`[project]`", self.diagnostics);
        let before = self.diagnostics.len();
        let owner = Owner { what: "`[project]`", place: &place };
        let params = Checker::new(&Devices::new(), self.defaults, self.diagnostics).check(common::PROJECT, &[table], owner).params;
        if self.diagnostics.len() > before {
            return Project::default();
        }
        let text = |name: &str| params.get(name).and_then(Json::as_str).map(str::to_string);
        let authors = params.get("authors").and_then(Json::as_array).into_iter().flatten();
        let project = Project {
            name: text("name").unwrap_or_default(),
            version: text("version").unwrap_or_default(),
            description: text("description"),
            authors: authors.filter_map(Json::as_str).map(str::to_string).collect(),
            license: text("license"),
            created: text("created"),
        };
        self.project_words(&project, table);
        project
    }

    /// The name and version become a part of a path.
    fn project_words(&mut self, project: &Project, table: &Table) {
        let mut wrong = |field: &str, message: String, help: &str| {
            let place = table.get(field).map_or_else(|| self.manifest.start(), |value| value.place.clone());
            self.diagnostics.push(Diagnostic::error(message).at(&place, "").help(help));
        };
        if let Some(fault) = names::entry_fault(&project.name) {
            wrong("name", format!("`{}` cannot name a project", project.name), &fault);
        }
        if let Some(fault) = names::entry_fault(&project.version.replace('+', "_")) {
            wrong("version", format!("`{}` cannot be a version", project.version), &fault);
        }
        if let Some(created) = &project.created
            && !is_time(created)
        {
            wrong("created", format!("`{created}` is not a time"), "write it as RFC 3339 has it: `2026-01-31T12:00:00Z`");
        }
    }

    pub fn devices(&mut self) -> Devices {
        let mut devices = Devices::new();
        for (key, value) in self.entries("device") {
            self.name(key, "a device");
            let Some(table) = self.table(key, value, "device") else {
                devices.insert(key.text.clone(), None);
                continue;
            };
            let what = format!("`[device.{}]`", key.text);
            let before = self.diagnostics.len();
            check::unknown(device::FIELDS.iter().map(|field| field.name), table, &what, self.diagnostics);
            let owner = Owner { what: &what, place: &key.place };
            let checker = Checker::new(&devices, self.defaults, self.diagnostics);
            let mut params = checker.check(device::FIELDS, &[table], owner).params;
            params.insert("name".to_string(), Json::from(key.text.as_str()));
            let is_good = self.diagnostics.len() == before;
            devices.insert(key.text.clone(), is_good.then_some(Json::Object(params)));
        }
        devices
    }

    /// Every step and bundle, in the order of the text, without looking into them.
    pub fn declared(&mut self) -> Vec<(&'m Key, &'static dyn Kind, &'m Table)> {
        let mut found = Vec::new();
        for (key, value) in self.manifest.table.iter() {
            let name = key.text.as_str();
            let Some(kind) = self.kinds.iter().copied().find(|kind| kind.name() == name) else {
                self.no_kind(key);
                continue;
            };
            let Data::Table(steps) = &value.data else {
                let message = format!("`{name}` is a kind of step, and this is {}", value.data.noun());
                self.diagnostics.push(Diagnostic::error(message).at(&value.place, "").help(format!("write `[{name}.NAME]`")));
                continue;
            };
            for (step, value) in steps.iter() {
                self.name(step, "a step");
                if let Some(table) = self.table(step, value, name) {
                    found.push((step, kind, table));
                }
            }
        }
        found
    }

    fn no_kind(&mut self, key: &Key) {
        let name = key.text.as_str();
        if common::RESERVED.contains(&name) {
            let message = format!("`{name}` is reserved for a later edition of slmops");
            self.diagnostics.push(Diagnostic::error(message).at(&key.place, "not understood yet"));
        } else if name == "bundle" || !common::TOP.iter().any(|(top, _)| *top == name) {
            let known: Vec<&str> = self.kinds.iter().map(|kind| kind.name()).chain(common::TOP.iter().map(|(top, _)| *top)).collect();
            let help = if self.diagnostics.len() < MAX_SHOWN { suggest::help(name, known.iter().copied()) } else { None };
            self.diagnostics
                .push(Diagnostic::error(format!("unknown kind of step `{name}`")).at(&key.place, "no such kind").maybe_help(help));
        }
    }

    /// Checks one step, each combination of its matrix by itself: what one value leaves out another may set.
    pub fn step(&mut self, (key, kind, table): (&'m Key, &'static dyn Kind, &'m Table), devices: &Devices) -> Declaration<'m> {
        let before = self.diagnostics.len();
        let defaults = self.manifest.section("defaults").and_then(|defaults| match &defaults.get(kind.name())?.data {
            Data::Table(table) => Some(table),
            _ => None,
        });
        let axes = self.axes(kind, table);
        let excludes = table.get("exclude").map_or_else(Vec::new, |value| self.excludes(value));
        let mut declaration = Declaration {
            key,
            kind,
            is_bundle: kind.name() == "bundle",
            table,
            defaults,
            axes,
            excludes,
            cells: Vec::new(),
            is_good: true,
        };
        let mut has_room = true;
        let count = match matrix::combinations(&declaration.axes) {
            Some(count) if count <= self.max_combinations => match self.room.take(count, table) {
                Some(()) => count,
                None => {
                    // Told once; the steps behind it would say the same.
                    if self.room.combinations > 0 {
                        let message =
                            format!("the manifest has more than {} steps, or too many values in the combinations of one", super::MAX_STEPS);
                        self.diagnostics
                            .push(Diagnostic::error(message).at(&key.place, "too many").help("leave out values of its matrices"));
                    }
                    self.room = Room { combinations: 0, copies: 0 };
                    has_room = false;
                    0
                }
            },
            _ => {
                let place = table.entry("matrix").map_or(&key.place, |(key, _)| &key.place);
                let message = format!("`{}` has more than {} combinations", key.text, self.max_combinations);
                self.diagnostics.push(Diagnostic::error(message).at(place, "too many").help("leave out values, or split the step"));
                0
            }
        };
        for index in 0..count {
            let picked = matrix::combination(&declaration.axes, index);
            let cell = self.cell(&declaration, picked, devices);
            declaration.cells.push(cell);
        }
        declaration.is_good = has_room && self.diagnostics.len() == before;
        declaration
    }

    fn cell(&mut self, declaration: &Declaration, picked: Vec<usize>, devices: &Devices) -> Cell {
        let Declaration { key, kind, axes, table, .. } = declaration;
        let what = format!("`[{}.{}]`", kind.name(), key.text);
        let values = axes.iter().zip(&picked).map(|(axis, value)| &axis.values[*value]);
        let own = (!axes.is_empty()).then(|| matrix::substitute(table, values));
        let table = own.as_ref().unwrap_or(table);
        let known = kind.fields().iter().chain(common::of(*kind)).map(|field| field.name).chain(common::STEP_WORDS);
        check::unknown(known, table, &what, self.diagnostics);
        let layers = declaration.layers(Some(table));
        let owner = Owner { what: &what, place: &key.place };
        let common = Checker::new(devices, self.defaults, self.diagnostics).check(common::of(*kind), &layers, owner);
        let checked = Checker::new(devices, self.defaults, self.diagnostics).check(kind.fields(), &layers, owner);
        Cell { picked, table: own, checked, common }
    }

    fn axes(&mut self, kind: &'static dyn Kind, table: &Table) -> Vec<Axis> {
        let Some(value) = table.get("matrix") else { return Vec::new() };
        let target = |name: &str| match kind.fields().iter().find(|field| field.name == name).map(|field| &field.ty) {
            Some(Type::Table(_)) => Target::TableField,
            Some(_) => Target::Field,
            None => Target::NoField,
        };
        let fields: Vec<&str> = kind.fields().iter().map(|field| field.name).collect();
        let axes = matrix::axes(value, &target, &fields, self.diagnostics);
        for (path, _) in axes.iter().flat_map(|axis| &axis.values).flat_map(|value| &value.sets) {
            let Some((first, rest)) = path.split_first() else { continue };
            let Some((own, value)) = table.entry(&first.text) else { continue };
            let twice = match (rest.first(), &value.data) {
                (None, _) => Some(own),
                (Some(entry), Data::Table(inner)) => inner.entry(&entry.text).map(|(key, _)| key),
                (Some(_), _) => None,
            };
            if let Some(own) = twice {
                self.diagnostics.push(
                    Diagnostic::error(format!("`{}` is set by the step and by its matrix", matrix::joined(path)))
                        .at(&own.place, "set here")
                        .at(&first.place, "and here")
                        .help("remove one of them"),
                );
            }
        }
        axes
    }

    fn excludes(&mut self, value: &Value) -> Vec<Exclude> {
        let single = std::slice::from_ref(value);
        let items = match &value.data {
            Data::List(items) => items.as_slice(),
            _ => single,
        };
        let mut found = Vec::new();
        for item in items {
            match &item.data {
                Data::Table(table) if !table.is_empty() => {
                    let mut values = Vec::new();
                    flatten(table, "", &mut values);
                    found.push(Exclude { place: item.place.clone(), values });
                }
                other => self.diagnostics.push(
                    Diagnostic::error(format!("`exclude` takes tables of values, not {}", other.noun()))
                        .at(&item.place, "")
                        .help("write `exclude = [{ type = \"Q4_0\" }]`"),
                ),
            }
        }
        found
    }

    /// Checks `[defaults.KIND]` and the names in profiles by themselves: a slip there must not wait for a step or a run that meets it.
    pub fn spares(&mut self, devices: &Devices) {
        for (key, value) in self.entries("defaults") {
            let Some(kind) = self.kinds.iter().copied().find(|kind| kind.name() == key.text) else {
                self.no_kind_in(key, "defaults");
                continue;
            };
            let Some(table) = self.table(key, value, "defaults") else { continue };
            let what = format!("`[defaults.{}]`", key.text);
            let fields = || kind.fields().iter().chain(common::of(kind));
            check::unknown(fields().map(|field| field.name), table, &what, self.diagnostics);
            let owner = Owner { what: &what, place: &key.place };
            Checker::new(devices, self.defaults, self.diagnostics).check_given(kind.fields(), table, owner);
            Checker::new(devices, self.defaults, self.diagnostics).check_given(common::of(kind), table, owner);
        }
        for (profile, value) in self.entries("profile") {
            let Data::Table(kinds) = &value.data else { continue };
            for (kind, value) in kinds.iter() {
                self.profile(&profile.text, kind, value);
            }
        }
    }

    fn profile(&mut self, profile: &str, key: &Key, value: &Value) {
        // A kind of which nothing is declared is told where the profile is tried on the manifest.
        let Some(kind) = self.kinds.iter().copied().find(|kind| kind.name() == key.text) else { return };
        let Data::Table(steps) = &value.data else { return };
        for (step, value) in steps.iter() {
            if let Data::Table(table) = &value.data {
                let known = kind.fields().iter().chain(common::of(kind)).map(|field| field.name).chain(common::STEP_WORDS);
                check::unknown(known, table, &format!("`[profile.{profile}.{}.{}]`", key.text, step.text), self.diagnostics);
            }
        }
    }

    fn no_kind_in(&mut self, key: &Key, section: &str) {
        let known: Vec<&str> = self.kinds.iter().map(|kind| kind.name()).collect();
        let help = if self.diagnostics.len() < MAX_SHOWN { suggest::help(&key.text, known.iter().copied()) } else { None };
        self.diagnostics.push(
            Diagnostic::error(format!("unknown kind of step `{}` in `[{section}]`", key.text))
                .at(&key.place, "no such kind")
                .maybe_help(help),
        );
    }

    /// The entries of a top-level table; what is no table is told.
    fn entries(&mut self, section: &str) -> Vec<(&'m Key, &'m Value)> {
        match self.manifest.table.get(section) {
            None => Vec::new(),
            Some(Value { data: Data::Table(table), .. }) => table.iter().collect(),
            Some(value) => {
                self.diagnostics.push(Diagnostic::error(format!("`{section}` is a table, not {}", value.data.noun())).at(&value.place, ""));
                Vec::new()
            }
        }
    }

    fn table(&mut self, key: &Key, value: &'m Value, section: &str) -> Option<&'m Table> {
        match &value.data {
            Data::Table(table) => Some(table),
            other => {
                self.diagnostics.push(
                    Diagnostic::error(format!("`{section}.{}` is a table, not {}", key.text, other.noun())).at(&value.place, "").help(
                        match section {
                            "defaults" => format!("write `[defaults.KIND]` and below it `{} = …`", key.text),
                            _ => format!("write `[{section}.NAME]` and below it `{} = …`", key.text),
                        },
                    ),
                );
                None
            }
        }
    }

    fn name(&mut self, key: &Key, what: &str) {
        if let Some(fault) = names::fault(&key.text) {
            self.diagnostics.push(Diagnostic::error(format!("`{}` cannot name {what}", key.text)).at(&key.place, "").help(fault));
        }
    }
}

/// `{ type = "Q4_0", arch = { hidden_size = 32 } }` → `type`, `arch.hidden_size`
fn flatten(table: &Table, prefix: &str, values: &mut Vec<(String, String, Place)>) {
    for (key, value) in table.iter() {
        let name = format!("{prefix}{}", key.text);
        match &value.data {
            Data::Table(inner) => flatten(inner, &format!("{name}."), values),
            Data::String(text) => values.push((name, text.clone(), value.place.clone())),
            _ => values.push((name, matrix::label(value, 0), value.place.clone())),
        }
    }
}

/// Declared names and where: steps and sources share one name space, bundles have their own.
pub fn clashes<'m>(sources: &[(&'m str, &'m Place)], steps: &[Declaration<'m>], diagnostics: &mut Vec<Diagnostic>) {
    let mut first: BTreeMap<&str, &Place> = BTreeMap::new();
    let own = steps.iter().filter(|step| !step.is_bundle).map(|step| (step.key.text.as_str(), &step.key.place));
    for (name, place) in sources.iter().copied().chain(own) {
        if let Some(known) = first.insert(name, place) {
            diagnostics.push(
                Diagnostic::error(format!("`{name}` is declared twice"))
                    .at(place, "again here")
                    .at(known, "first here")
                    .help("steps and sources share one name space"),
            );
        }
    }
}

/// RFC 3339: `2026-01-31T12:00:00Z`, with a fraction or an offset if need be.
fn is_time(text: &str) -> bool {
    let number = |range: std::ops::Range<usize>| {
        text.get(range).filter(|t| t.bytes().all(|b| b.is_ascii_digit())).and_then(|t| t.parse::<u32>().ok())
    };
    let at = |i: usize, marks: &str| text.as_bytes().get(i).is_some_and(|b| marks.as_bytes().contains(b));
    let (Some(year), Some(month), Some(day)) = (number(0..4), number(5..7), number(8..10)) else { return false };
    let (Some(hour), Some(minute), Some(second)) = (number(11..13), number(14..16), number(17..19)) else { return false };
    let days = match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let marks = at(4, "-") && at(7, "-") && at(10, "Tt ") && at(13, ":") && at(16, ":");
    let rest = text.get(19..).unwrap_or_default();
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            if zone.len() == fraction.len() {
                return false;
            }
            zone
        }
        None => rest,
    };
    let zone = matches!(rest, "Z" | "z") || {
        let digits = |range: std::ops::Range<usize>, max: u32| {
            rest.get(range).filter(|t| t.bytes().all(|b| b.is_ascii_digit())).and_then(|t| t.parse::<u32>().ok()).is_some_and(|n| n <= max)
        };
        rest.len() == 6 && rest.starts_with(['+', '-']) && digits(1..3, 23) && rest.get(3..4) == Some(":") && digits(4..6, 59)
    };
    marks && (1..=12).contains(&month) && (1..=days).contains(&day) && hour < 24 && minute < 60 && second <= 60 && zone
}

#[cfg(test)]
mod tests {
    use super::is_time;

    #[test]
    fn times() {
        for good in ["2026-01-31T12:00:00Z", "2024-02-29T23:59:60.123+05:30", "2026-01-31 12:00:00-00:00"] {
            assert!(is_time(good), "{good}");
        }
        for bad in [
            "",
            "2026-01-31",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12:00:00",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00+5:30",
            "２026-01-31T12:00:00Z",
        ] {
            assert!(!is_time(bad), "{bad}");
        }
    }
}
