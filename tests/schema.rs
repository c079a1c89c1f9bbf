//! Files that are written from the kinds' descriptions are as they would be written now. `UPDATE=1` writes them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use slmops::plan::{common, reference, schema};
use slmops::steps::{Field, KINDS, Type};

#[test]
fn the_schema_is_up_to_date() {
    same("schemas/slmops.schema.json", &schema::text(KINDS));
}

#[test]
fn the_reference_is_up_to_date() {
    same("docs/reference.md", &reference::text(KINDS));
}

#[expect(clippy::disallowed_methods, reason = "a test may ask how it was called")]
fn same(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var("UPDATE").is_ok_and(|value| value == "1") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let line = text.lines().zip(found.lines()).position(|(new, old)| new != old).unwrap_or(text.lines().count().min(found.lines().count()));
    assert!(found == text, "{name} is out of date from line {}: `UPDATE=1 cargo test --test schema` writes it", line + 1);
}

#[test]
fn kinds_and_their_fields_are_described_well() {
    let mut names = BTreeSet::new();
    for kind in KINDS {
        assert!(names.insert(kind.name()), "two kinds are called {}", kind.name());
        let is_other =
            common::RESERVED.contains(&kind.name()) || common::TOP.iter().any(|(top, _)| *top == kind.name() && *top != "bundle");
        assert!(!is_other, "`{}` means something else at the top level", kind.name());
        assert!(!kind.summary().is_empty() && !kind.help().is_empty(), "{}", kind.name());
        described(kind.name(), kind.fields());
        let taken = common::of(*kind).iter().map(|field| field.name).chain(common::STEP_WORDS);
        let twice: Vec<&str> = taken.filter(|word| kind.fields().iter().any(|field| field.name == *word)).collect();
        assert!(twice.is_empty(), "{}: every step has {twice:?}", kind.name());
    }
    for fields in [common::STEP, common::PROJECT, common::DEVICE, common::SOURCE] {
        described("common", fields);
    }
}

fn described(of: &str, fields: &[Field]) {
    let mut names = BTreeSet::new();
    for field in fields {
        assert!(names.insert(field.name), "{of}: `{}` stands twice", field.name);
        assert!(field.doc.ends_with(['.', ')']), "{of}: `{}` has no sentence: {:?}", field.name, field.doc);
        match &field.ty {
            Type::Table(inner) | Type::List(Type::Table(inner)) => described(&format!("{of}.{}", field.name), inner),
            _ => {}
        }
    }
}

/// Every default is a value that the field itself would take.
#[test]
fn defaults_pass_their_own_check() {
    use slmops::base::{Place, SourceText};
    use slmops::manifest::Table;
    use slmops::plan::check::{Checker, Defaults, Devices, Owner};
    use slmops::steps::Need;
    let place = Place::new(&std::sync::Arc::new(SourceText::new("t", "")), 0..0);
    for (name, fields) in KINDS.iter().map(|kind| (kind.name(), kind.fields())).chain([("step", common::STEP), ("device", common::DEVICE)])
    {
        let (devices, mut defaults, mut diagnostics) = (Devices::new(), Defaults::default(), Vec::new());
        let checked = Checker::new(&devices, &mut defaults, &mut diagnostics).check(
            fields,
            &[&Table::default()],
            Owner { what: "it", place: &place },
        );
        diagnostics.retain(|diagnostic| !diagnostic.message.starts_with("it needs"));
        assert!(diagnostics.is_empty(), "{name}: {diagnostics:?}");
        for field in fields.iter().filter(|field| matches!(field.need, Need::Default(_))) {
            if matches!(field.ty, Type::NamedRefs(_)) {
                continue; // A table of no references is nothing.
            }
            let is_there = checked.params.contains_key(field.name) || checked.ports.iter().any(|port| port.name == field.name);
            assert!(is_there, "{name}: the default of `{}` comes to nothing", field.name);
        }
    }
}
