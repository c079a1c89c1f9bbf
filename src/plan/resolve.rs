//! References → outputs of nodes: parts by name, variants by their coordinates, artifacts by what the field accepts.

use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::node::{InputRef, NodeId};
use crate::base::{Diagnostic, suggest};
use crate::manifest::Reference;
use crate::manifest::names::Pick;
use crate::steps::Artifact;

/// How many variants a message lists.
const LISTED: usize = 8;

/// How many names are compared for "did you mean" in all; a thousand wrong names among ten thousand steps would take minutes.
pub const PATIENCE: usize = 200_000;

/// An axis is known by the step that declares it and the field over which it runs: matrices that merely share a name are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AxisId(u32);

#[derive(Debug)]
pub struct AxisInfo {
    pub step: String,
    pub field: String,
    pub labels: Vec<String>,
    /// For templates: scalars as they are, everything else by its label.
    pub values: Vec<Json>,
}

#[derive(Debug, Default)]
pub struct Axes(Vec<AxisInfo>);

/// A value (by its index) of an axis.
pub type Coordinate = (AxisId, u32);

impl Axes {
    pub fn add(&mut self, info: AxisInfo) -> AxisId {
        self.0.push(info);
        AxisId(u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX))
    }

    pub fn info(&self, id: AxisId) -> &AxisInfo {
        &self.0[id.0 as usize]
    }

    /// The place of a label on an axis that grows while its step is expanded.
    pub fn index_of(&mut self, id: AxisId, label: &str) -> u32 {
        let info = &mut self.0[id.0 as usize];
        let at = info.labels.iter().position(|known| known == label).unwrap_or_else(|| {
            info.labels.push(label.to_string());
            info.values.push(Json::from(label));
            info.labels.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    pub fn label(&self, (id, value): Coordinate) -> &str {
        self.info(id).labels.get(value as usize).map_or("", String::as_str)
    }

    pub fn value(&self, (id, value): Coordinate) -> &Json {
        self.info(id).values.get(value as usize).unwrap_or(&Json::Null)
    }

    /// `@model=small,type=Q8_0`; nothing for a step without axes. An inherited axis that shares its name with another is told with its step.
    pub fn shown(&self, at: &[Coordinate], step: &str) -> String {
        let mut out = String::new();
        for coordinate in at {
            let info = self.info(coordinate.0);
            out.push(if out.is_empty() { '@' } else { ',' });
            if info.step != step && at.iter().filter(|other| self.info(other.0).field == info.field).count() > 1 {
                out += &info.step;
                out.push('.');
            }
            out += &info.field;
            out.push('=');
            out += self.label(*coordinate);
        }
        out
    }

    pub fn is_named(&self, id: AxisId, name: &str) -> bool {
        let info = self.info(id);
        name == info.field || name.strip_prefix(&*info.step).is_some_and(|rest| rest.strip_prefix('.') == Some(&info.field))
    }
}

/// What a name stands for.
#[derive(Debug)]
pub struct Known {
    /// `source` or the kind's name.
    pub noun: &'static str,
    /// `None` if it is declared but wrong: whoever refers to it is not told again.
    pub variants: Option<Vec<Variant>>,
}

#[derive(Debug)]
pub struct Variant {
    pub at: Vec<Coordinate>,
    pub parts: Vec<PartInfo>,
}

#[derive(Debug)]
pub struct PartInfo {
    pub suffix: &'static str,
    pub node: NodeId,
    pub artifact: Artifact,
    pub outputs: Vec<(String, Artifact)>,
}

/// One output that a reference reaches.
#[derive(Clone, Debug)]
pub struct Found<'k> {
    pub input: InputRef,
    pub artifact: Artifact,
    pub at: &'k [Coordinate],
    /// Axes that the reference picks by itself: they are free of pairing.
    pub picked: Vec<AxisId>,
    pub label: String,
}

/// Everything that a reference reaches, in the order of the variants. `patience` is what is left of [`PATIENCE`]. `Ok(None)`: it refers to something that is wrong itself.
pub fn resolve<'k>(
    reference: &Reference,
    accepts: &[Artifact],
    field: &str,
    known: &'k BTreeMap<String, Known>,
    axes: &Axes,
    patience: &Cell<usize>,
) -> Result<Option<Vec<Found<'k>>>, Diagnostic> {
    let Some(target) = known.get(&reference.name) else { return Err(stranger(reference, known, patience)) };
    let Some(variants) = &target.variants else { return Ok(None) };
    let mut open: Vec<(&Variant, Vec<AxisId>)> = variants.iter().map(|variant| (variant, Vec::new())).collect();
    for pick in &reference.picks {
        open = narrow(open, pick, reference, axes)?;
    }
    let mut found = Vec::with_capacity(open.len());
    for (variant, picked) in open {
        let (part, output) = output(reference, variant, accepts)?;
        let artifact = output.map_or(part.artifact, |(_, artifact)| *artifact);
        if !fits(accepts, artifact) {
            return Err(misfit(reference, artifact, accepts, field));
        }
        let output = output.map(|(name, _)| name.clone());
        let label = format!("{}{}", reference.base(), axes.shown(&variant.at, &reference.name));
        found.push(Found { input: InputRef { node: part.node, output }, artifact, at: &variant.at, picked, label });
    }
    Ok(Some(found))
}

fn stranger(reference: &Reference, known: &BTreeMap<String, Known>, patience: &Cell<usize>) -> Diagnostic {
    let diagnostic = Diagnostic::error(format!("there is no step or source `{}`", reference.name)).at(&reference.place, "not declared");
    match patience.get().checked_sub(known.len()) {
        Some(left) => {
            patience.set(left);
            diagnostic.maybe_help(suggest::help(&reference.name, known.keys().map(String::as_str)))
        }
        None => diagnostic,
    }
}

type Narrowed<'k> = Vec<(&'k Variant, Vec<AxisId>)>;

fn narrow<'k>(open: Narrowed<'k>, pick: &Pick, reference: &Reference, axes: &Axes) -> Result<Narrowed<'k>, Diagnostic> {
    let named = |coordinate: &&Coordinate| pick.axis.as_ref().is_none_or(|axis| axes.is_named(coordinate.0, axis));
    let mut labels: Vec<String> = Vec::new();
    let mut has_axis = false;
    let mut kept: Narrowed<'k> = Vec::new();
    for (variant, mut picked) in open {
        has_axis |= variant.at.iter().any(|coordinate| named(&coordinate));
        for coordinate in variant.at.iter().filter(named) {
            if labels.len() < 100 && !labels.iter().any(|label| label == axes.label(*coordinate)) {
                labels.push(axes.label(*coordinate).to_string());
            }
        }
        if let Some((axis, _)) = variant.at.iter().filter(named).find(|coordinate| axes.label(**coordinate) == pick.value) {
            picked.push(*axis);
            kept.push((variant, picked));
        }
    }
    if !kept.is_empty() {
        return Ok(kept);
    }
    let name = reference.base();
    let diagnostic = match &pick.axis {
        Some(axis) if !has_axis => {
            Diagnostic::error(format!("`{name}` has no matrix over `{axis}`")).at(&reference.place, "nothing to pick from")
        }
        None if !has_axis => Diagnostic::error(format!("`{name}` has no matrix")).at(&reference.place, "nothing to pick from"),
        _ => Diagnostic::error(format!("`{name}` has no variant `{pick}`")).at(&reference.place, "no such variant"),
    };
    let help = suggest::help(&pick.value, labels.iter().map(String::as_str));
    Err(diagnostic.maybe_help(help.filter(|_| has_axis)))
}

type Output<'k> = (&'k PartInfo, Option<&'k (String, Artifact)>);

fn output<'k>(reference: &Reference, variant: &'k Variant, accepts: &[Artifact]) -> Result<Output<'k>, Diagnostic> {
    let main = variant.parts.iter().find(|part| part.suffix.is_empty());
    let Some(wanted) = &reference.part else {
        // A bare name means the step's own output; where that does not fit and one other does, it means that one (a report's verdict).
        let fitting: Vec<&PartInfo> = variant.parts.iter().filter(|part| !part.suffix.is_empty() && fits(accepts, part.artifact)).collect();
        return match (main, fitting.as_slice()) {
            (Some(main), [only]) if !fits(accepts, main.artifact) => Ok((only, None)),
            (Some(main), _) => Ok((main, None)),
            (None, [only]) => Ok((only, None)),
            (None, _) => Err(Diagnostic::error(format!("`{}` has no output of its own", reference.name))
                .at(&reference.place, "")
                .maybe_help(suggest::help("", variant.parts.iter().map(|part| part.suffix)))),
        };
    };
    if let Some(part) = variant.parts.iter().find(|part| part.suffix == wanted) {
        return Ok((part, None));
    }
    for part in &variant.parts {
        let inner = if part.suffix.is_empty() {
            Some(wanted.as_str())
        } else {
            wanted.strip_prefix(part.suffix).and_then(|rest| rest.strip_prefix('.'))
        };
        if let Some(output) = inner.and_then(|inner| part.outputs.iter().find(|(name, _)| name == inner)) {
            return Ok((part, Some(output)));
        }
    }
    let main_outputs = main.iter().flat_map(|part| &part.outputs).map(|(name, _)| name.as_str());
    let names: Vec<&str> = variant.parts.iter().map(|part| part.suffix).filter(|suffix| !suffix.is_empty()).chain(main_outputs).collect();
    let help = match names.is_empty() {
        true => Some(format!("it has one output: write `{}`", reference.name)),
        false => suggest::help(wanted, names.iter().copied()),
    };
    let message = format!("`{}` has no output `{wanted}`", reference.name);
    Err(Diagnostic::error(message).at(&reference.place, "no such output").maybe_help(help))
}

/// Files are anything whose content shows, when it is read, what it is; a verdict, a bundle or cached labels must have been made by a step of
/// that kind.
pub fn fits(accepts: &[Artifact], artifact: Artifact) -> bool {
    let only_made = |a: &Artifact| matches!(a, Artifact::Labels | Artifact::Verdict | Artifact::Bundle);
    accepts.contains(&artifact) || accepts.contains(&Artifact::Files) || (artifact == Artifact::Files && !accepts.iter().all(only_made))
}

fn misfit(reference: &Reference, artifact: Artifact, accepts: &[Artifact], field: &str) -> Diagnostic {
    let wanted: Vec<&str> = accepts.iter().map(|artifact| artifact.noun()).collect();
    let has_no_gate = artifact == Artifact::Report && accepts == [Artifact::Verdict];
    Diagnostic::error(format!("`{}` is {}; `{field}` takes {}", reference.text, artifact.noun(), wanted.join(" or ")))
        .at(&reference.place, format!("this is {}", artifact.noun()))
        .maybe_help(has_no_gate.then(|| format!("`{}` has no `gate`: add one to it", reference.base())))
}

/// A field that takes exactly one met none or several: how to pick one.
pub fn not_one(reference: &Reference, field: &str, found: &[&Found]) -> Diagnostic {
    if found.is_empty() {
        return Diagnostic::error(format!("no variant of `{}` goes together with the step's other inputs", reference.text))
            .at(&reference.place, "no pair has the same values of their matrix");
    }
    let mut names: Vec<String> = found.iter().take(LISTED).map(|found| format!("`{}`", found.label)).collect();
    if found.len() > LISTED {
        names.push("…".to_string());
    }
    Diagnostic::error(format!("`{}` is {} steps; `{field}` takes exactly one", reference.text, found.len()))
        .at(&reference.place, "a matrix reaches this field")
        .help(format!("pick one: {}", names.join(", ")))
}

/// Whether an output belongs to a combination: they agree on every axis that both have, but for those that the reference picks by itself.
pub fn agrees(found: &Found, at: &[Coordinate]) -> bool {
    found.at.iter().all(|(axis, value)| found.picked.contains(axis) || at.iter().all(|(other, chosen)| other != axis || chosen == value))
}
