//! Why an action runs: one list of reasons with their old and new values, said in one place.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::KeyRecord;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// Nothing of this name was ever built here.
    FirstBuild,
    /// It was built, but its last result is no longer in the store: nothing to compare with.
    Forgotten,
    FormatChanged {
        old: String,
        new: String,
    },
    KindChanged {
        old: String,
        new: String,
    },
    RevisionRaised {
        old: String,
        new: String,
    },
    NumericsRaised {
        old: String,
        new: String,
    },
    ActionChanged {
        old: String,
        new: String,
    },
    ParameterChanged {
        name: String,
        old: Option<String>,
        new: Option<String>,
    },
    /// `port[index]` holds other files now.
    InputChanged {
        port: String,
        old: Option<String>,
        new: Option<String>,
    },
    /// Part of its result was damaged or lost: what and how.
    Damaged {
        what: String,
    },
    /// The user asked to run it whatever the cache holds.
    Asked,
}

/// Every field in which two keys differ, in the order of the walk; what is gone comes last.
pub fn changes(old: &KeyRecord, new: &KeyRecord) -> Vec<Reason> {
    let before: BTreeMap<&str, &str> = fields(old).collect();
    let after: BTreeMap<&str, &str> = fields(new).collect();
    let changed = fields(new).filter(|(name, value)| before.get(name) != Some(value));
    let mut reasons: Vec<Reason> = changed.map(|(name, value)| reason(name, before.get(name).copied(), Some(value))).collect();
    let gone = fields(old).filter(|(name, _)| !after.contains_key(name));
    reasons.extend(gone.map(|(name, value)| reason(name, Some(value), None)));
    reasons
}

fn fields(record: &KeyRecord) -> impl Iterator<Item = (&str, &str)> {
    record.fields().iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

fn reason(name: &str, old: Option<&str>, new: Option<&str>) -> Reason {
    let or_none = |value: Option<&str>| value.unwrap_or("none").to_string();
    let (was, is) = (or_none(old), or_none(new));
    let (old, new) = (old.map(str::to_string), new.map(str::to_string));
    match name.split_once('.') {
        Some(("param", name)) => Reason::ParameterChanged { name: name.to_string(), old, new },
        Some(("input", port)) => Reason::InputChanged { port: port.to_string(), old, new },
        _ => match name {
            "format" => Reason::FormatChanged { old: was, new: is },
            "kind" => Reason::KindChanged { old: was, new: is },
            "revision" => Reason::RevisionRaised { old: was, new: is },
            "numerics" => Reason::NumericsRaised { old: was, new: is },
            "action" => Reason::ActionChanged { old: was, new: is },
            name => Reason::ParameterChanged { name: name.to_string(), old, new },
        },
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::FirstBuild => write!(f, "never built here"),
            Reason::Forgotten => write!(f, "its last result is no longer in the cache"),
            Reason::FormatChanged { old, new } => write!(f, "this slmops makes keys differently: {old} → {new}"),
            Reason::KindChanged { old, new } => write!(f, "its kind: {old} → {new}"),
            Reason::RevisionRaised { old, new } => write!(f, "this slmops has another revision of its kind: {old} → {new}"),
            Reason::NumericsRaised { old, new } => write!(f, "this slmops computes differently: numerics {old} → {new}"),
            Reason::ActionChanged { old, new } => write!(f, "what it does: {old} → {new}"),
            Reason::ParameterChanged { name, old: Some(old), new: Some(new) } => write!(f, "{name}: {old} → {new}"),
            Reason::ParameterChanged { name, old: None, new } => write!(f, "{name}: not set → {}", shown(new)),
            Reason::ParameterChanged { name, old, new: None } => write!(f, "{name}: {} → not set", shown(old)),
            Reason::InputChanged { port, old: Some(old), new: Some(new) } => {
                write!(f, "input {port} changed: {} → {}", content(old), content(new))
            }
            Reason::InputChanged { port, old: None, .. } => write!(f, "input {port} is new"),
            Reason::InputChanged { port, .. } => write!(f, "input {port} is gone"),
            Reason::Damaged { what } => write!(f, "its last result is damaged: {what}"),
            Reason::Asked => write!(f, "asked to run without the cache"),
        }
    }
}

fn shown(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or("not set")
}

/// `folder:DIGEST` cut to what an eye can compare.
fn content(text: &str) -> String {
    let digest = text.split_once(':').map_or(text, |(_, digest)| digest);
    digest.chars().take(12).collect()
}
