//! The JSON schema of a manifest, for editors: `#:schema https://…/slmops.schema.json` on its first line makes Taplo and Even Better TOML
//! complete kinds and fields.
//!
//! It is draft 7, which those editors read. It says less than `check` does: a field that a step needs may come from `[defaults]`, a profile or
//! a matrix, so the schema demands none, and its description tells.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::common;
use crate::base::SourceText;
use crate::manifest::{Data, Value, read};
use crate::steps::{Arity, Field, Kind, Need, Type};

/// A table in the schema: whose fields may be left to others, and whose must all be here.
#[derive(Clone, Copy, PartialEq)]
enum Fill {
    Elsewhere,
    Here,
}

pub fn manifest(kinds: &[&'static dyn Kind]) -> Json {
    let mut definitions = Map::new();
    let mut properties = Map::new();
    let mut defaults = Map::new();
    let mut changes = Map::new();
    definitions.insert("source".into(), table(common::SOURCE, Fill::Here));
    definitions.insert("device".into(), table(common::DEVICE, Fill::Elsewhere));
    for (name, doc) in common::TOP {
        properties.insert(name.into(), json!({"description": doc}));
    }
    set(&mut properties, "slmops", json!({"type": "integer", "enum": [crate::manifest::load::EDITION]}));
    definitions.insert("project".into(), table(common::PROJECT, Fill::Elsewhere));
    set(&mut properties, "project", to("project"));
    for section in ["source", "device"] {
        let named = named(section);
        set(&mut properties, section, named.clone());
        changes.insert(section.into(), named);
    }
    for kind in kinds {
        let name = kind.name();
        definitions.insert(name.into(), step(*kind));
        let mut own = named(name);
        own["description"] = Json::from(format!("{} ([{name}.NAME])", kind.summary()));
        changes.insert(name.into(), own.clone());
        properties.insert(name.into(), own);
        defaults.insert(name.into(), table_of(kind.fields().iter().chain(common::of(*kind)), Fill::Elsewhere));
    }
    definitions.insert("defaults".into(), object(defaults));
    for section in ["defaults", "project"] {
        changes.insert(section.into(), to(section));
    }
    set(&mut properties, "defaults", to("defaults"));
    set(&mut properties, "profile", json!({"type": "object", "additionalProperties": object(changes)}));
    set(&mut properties, "include", json!({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}));
    set(
        &mut properties,
        "workspace",
        object(Map::from_iter([("members".to_string(), json!({"type": "array", "items": {"type": "string"}}))])),
    );
    let mut schema = object(properties);
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!("slmops manifest");
    schema["description"] = json!("slmops.toml: how small language models are made, tested and bundled.");
    schema["definitions"] = Json::Object(definitions);
    schema
}

/// As the file in `schemas/` holds it.
pub fn text(kinds: &[&'static dyn Kind]) -> String {
    format!("{:#}\n", manifest(kinds))
}

fn set(properties: &mut Map<String, Json>, name: &str, schema: Json) {
    let mut schema = schema;
    if let Some(known) = properties.get(name).and_then(|known| known.get("description")) {
        schema["description"] = known.clone();
    }
    properties.insert(name.into(), schema);
}

/// Draft 7 heeds nothing beside a `$ref`; within `allOf` a description may stand beside it.
fn to(definition: &str) -> Json {
    json!({"allOf": [{"$ref": format!("#/definitions/{definition}")}]})
}

/// A table of named things.
fn named(definition: &str) -> Json {
    json!({"type": "object", "additionalProperties": {"$ref": format!("#/definitions/{definition}")}})
}

fn object(properties: Map<String, Json>) -> Json {
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

fn step(kind: &dyn Kind) -> Json {
    let mut schema = table_of(kind.fields().iter().chain(common::of(kind)), Fill::Elsewhere);
    let axis = |field: &Field| {
        let value = with_doc(of(&field.ty, Fill::Elsewhere), field);
        let values = json!({"type": "array", "items": value, "minItems": 1});
        (field.name.to_string(), json!({"description": field.doc, "anyOf": [values, {"type": "object"}]}))
    };
    let axes: Map<String, Json> = kind.fields().iter().map(axis).collect();
    schema["description"] = Json::from(kind.summary());
    schema["properties"]["matrix"] =
        json!({"description": common::MATRIX_DOC, "type": "object", "properties": axes, "additionalProperties": {"type": "object"}});
    schema["properties"]["exclude"] = json!({"description": common::EXCLUDE_DOC, "type": "array", "items": {"type": "object"}});
    schema
}

fn table(fields: &[Field], fill: Fill) -> Json {
    table_of(fields.iter(), fill)
}

fn table_of<'f>(fields: impl Iterator<Item = &'f Field>, fill: Fill) -> Json {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in fields {
        properties.insert(field.name.into(), with_doc(of(&field.ty, fill), field));
        if fill == Fill::Here && field.need == Need::Required {
            required.push(Json::from(field.name));
        }
    }
    let mut schema = object(properties);
    if !required.is_empty() {
        schema["required"] = Json::Array(required);
    }
    schema
}

fn with_doc(mut schema: Json, field: &Field) -> Json {
    let needed = if field.need == Need::Required { " Required." } else { "" };
    schema["description"] = Json::from(format!("{}{needed}", field.doc));
    if let Need::Default(text) = field.need
        && let Some(default) = default(text)
    {
        schema["default"] = default;
    }
    schema
}

fn of(ty: &Type, fill: Fill) -> Json {
    let string = || json!({"type": "string"});
    let or_list = |one: Json| json!({"anyOf": [one, {"type": "array", "items": one}]});
    match ty {
        Type::Bool => json!({"type": "boolean"}),
        Type::Int(min, max) => {
            let mut schema = json!({"type": "integer"});
            bound(&mut schema, "minimum", (*min > i64::MIN).then(|| Json::from(*min)));
            bound(&mut schema, "maximum", (*max < i64::MAX).then(|| Json::from(*max)));
            schema
        }
        Type::Float(min, max) => {
            let finite = |bound: f64| (bound.is_finite() && bound.abs() < f64::MAX).then(|| Json::from(bound));
            let mut schema = json!({"type": "number"});
            bound(&mut schema, "minimum", finite(*min));
            bound(&mut schema, "maximum", finite(*max));
            schema
        }
        Type::String | Type::Template => string(),
        Type::Choice(known) => json!({"type": "string", "enum": known}),
        Type::Size => json!({"type": ["string", "integer"]}),
        Type::Duration => json!({"type": ["string", "number"]}),
        // What stands in a list is whole: no default, profile or matrix reaches into it.
        Type::List(inner) => {
            let inner = of(inner, Fill::Here);
            json!({"anyOf": [{"type": "array", "items": inner}, inner]})
        }
        Type::Table(fields) => table(fields, fill),
        Type::Map(inner) => json!({"type": "object", "additionalProperties": of(inner, Fill::Here)}),
        Type::Ref(Arity::One, _) | Type::Device(Arity::One) => string(),
        Type::Ref(..) | Type::Device(_) => or_list(string()),
        Type::NamedRefs(_) => {
            json!({"anyOf": [{"type": "object", "additionalProperties": string()}, {"type": "array", "items": string()}, string()]})
        }
    }
}

fn bound(schema: &mut Json, name: &str, bound: Option<Json>) {
    if let Some(bound) = bound {
        schema[name] = bound;
    }
}

/// A default as it would be written.
fn default(text: &str) -> Option<Json> {
    let (table, _) = read::parse(&Arc::new(SourceText::new("default", format!("value = {text}"))));
    table.get("value").map(plain)
}

fn plain(value: &Value) -> Json {
    match &value.data {
        Data::Bool(value) => Json::from(*value),
        Data::Int(value) => Json::from(*value),
        Data::Float(value) => Json::from(*value),
        Data::String(text) => Json::from(text.as_str()),
        Data::List(items) => items.iter().map(plain).collect(),
        Data::Table(table) => Json::Object(table.iter().map(|(key, value)| (key.text.clone(), plain(value))).collect()),
    }
}
