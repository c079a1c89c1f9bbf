//! Declared steps → actions. Here is the way through a manifest: its sources, then its steps, each behind what it needs. [`combine`] makes the
//! combinations of one step, [`actions`] what a kind makes of each.

mod actions;
mod combine;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::check::Defaults;
use super::declare::{self, Declaration, Exclude};
use super::lineage::Lineage;
use super::node::{Node, NodeId, Plan, Source};
use super::resolve::{self, Axes, AxisId, AxisInfo, Known, PartInfo, Variant};
use super::template::Templates;
use super::{MAX_COPIES, MAX_STEPS, Options, order};
use crate::base::diagnostic::MAX_SHOWN;
use crate::base::{Diagnostic, Digest, Place, suggest};
use crate::manifest::matrix::Axis;
use crate::manifest::workspace::Member;
use crate::manifest::{Data, Lock};
use crate::source;
use crate::steps::{Artifact, Project};

pub struct Planner<'a> {
    options: &'a Options<'a>,
    lock: &'a Lock,
    cache: &'a Path,
    plan: Plan,
    /// Actions by what they do.
    equal: BTreeMap<Digest, NodeId>,
    defaults: Defaults,
    templates: Templates,
    axes: Axes,
    patience: std::cell::Cell<usize>,
    lineage: Lineage,
    pub diagnostics: Vec<Diagnostic>,
}

/// What the steps of one manifest share.
struct Scope<'m> {
    prefix: &'m str,
    project: Project,
    /// Steps and sources by name.
    known: BTreeMap<String, Known>,
    bundles: BTreeMap<String, Known>,
}

/// A step while its combinations are made.
struct Step<'d, 'k> {
    declaration: &'d Declaration<'d>,
    scope: &'k Scope<'k>,
    /// Axes of the lists over which its fields fan out.
    fans: BTreeMap<String, AxisId>,
    variants: Vec<Variant>,
    /// Which excludes have left something out.
    hit: Vec<bool>,
    /// It refers to something that is wrong, here or there: told already.
    is_blocked: bool,
}

impl<'a> Planner<'a> {
    pub fn new(options: &'a Options<'a>, lock: &'a Lock, cache: &'a Path, root: PathBuf) -> Planner<'a> {
        Planner {
            options,
            lock,
            cache,
            plan: Plan { root, ..Plan::default() },
            equal: BTreeMap::new(),
            defaults: Defaults::default(),
            templates: Templates::default(),
            axes: Axes::default(),
            patience: std::cell::Cell::new(resolve::PATIENCE),
            lineage: Lineage::default(),
            diagnostics: Vec::new(),
        }
    }

    pub fn finish(self) -> Plan {
        self.plan
    }

    /// Adds one manifest's sources and steps.
    pub fn member(&mut self, member: &Member) {
        let manifest = &member.manifest;
        let mut reader = declare::Reader {
            manifest,
            kinds: self.options.kinds,
            max_combinations: self.options.max_combinations,
            room: declare::Room { combinations: MAX_STEPS, copies: MAX_COPIES },
            defaults: &mut self.defaults,
            diagnostics: &mut self.diagnostics,
        };
        let project = reader.project();
        let devices = reader.devices();
        reader.spares(&devices);
        let found = reader.declared();
        let declarations: Vec<Declaration> = found.into_iter().map(|step| reader.step(step, &devices)).collect();
        let mut scope = Scope { prefix: &member.prefix, project, known: BTreeMap::new(), bundles: BTreeMap::new() };
        let sources: Vec<(&str, &Place)> =
            manifest.section("source").into_iter().flat_map(|table| table.iter()).map(|(key, _)| (key.text.as_str(), &key.place)).collect();
        declare::clashes(&sources, &declarations, &mut self.diagnostics);
        self.sources(member, &mut scope);
        self.steps(declarations, &mut scope);
    }

    fn sources(&mut self, member: &Member, scope: &mut Scope) {
        for (key, _) in member.manifest.section("source").into_iter().flat_map(|table| table.iter()) {
            self.diagnostics.extend(source::spec::name_fault(key));
            scope.known.insert(key.text.clone(), Known { noun: "source", variants: None });
        }
        let reach = source::Reach { cache: self.cache, fetch: self.options.fetch, remote: &self.options.remote };
        for spec in source::spec::specs(&member.manifest, &member.prefix, &mut self.diagnostics) {
            match source::locate(&spec, self.lock, reach) {
                Ok(path) => {
                    let node = self.add(Node::Source(Source { name: spec.name.clone(), place: spec.place, path }));
                    let part = PartInfo { suffix: "", node, artifact: Artifact::Files, outputs: Vec::new() };
                    let name = spec.name.strip_prefix(&member.prefix).unwrap_or(&spec.name).to_string();
                    scope.known.insert(name, Known { noun: "source", variants: Some(vec![Variant { at: Vec::new(), parts: vec![part] }]) });
                }
                Err(diagnostic) => {
                    let help = if self.diagnostics.len() < MAX_SHOWN { source::local::help(&spec) } else { None };
                    self.diagnostics.push(diagnostic.maybe_help(help));
                }
            }
        }
    }

    fn steps(&mut self, declarations: Vec<Declaration>, scope: &mut Scope) {
        let order = {
            let name = |i: usize| declarations.get(i).map_or(String::new(), |step| format!("{}{}", scope.prefix, step.name()));
            order::order(&edges(&declarations, &scope.known), &name, &mut self.diagnostics)
        };
        for step in &declarations {
            let names = if step.is_bundle { &mut scope.bundles } else { &mut scope.known };
            names.insert(step.name().to_string(), Known { noun: step.kind.name(), variants: None });
        }
        let mut declarations: Vec<Option<Declaration>> = declarations.into_iter().map(Some).collect();
        for index in order {
            let Some(declaration) = declarations.get_mut(index).and_then(Option::take) else { continue };
            let name = declaration.name().to_string();
            let (noun, is_bundle) = (declaration.kind.name(), declaration.is_bundle);
            // Within a circle each step refers to one that is not known yet, so none of them is expanded.
            let variants = self.step(declaration, scope);
            let names = if is_bundle { &mut scope.bundles } else { &mut scope.known };
            names.insert(name, Known { noun, variants });
        }
    }

    /// One declared step with all its combinations; `None` if something in it is wrong.
    fn step(&mut self, mut declaration: Declaration, scope: &Scope) -> Option<Vec<Variant>> {
        let cells = std::mem::take(&mut declaration.cells);
        let own = self.own_axes(&declaration);
        let mut step = Step {
            declaration: &declaration,
            scope,
            fans: BTreeMap::new(),
            variants: Vec::new(),
            hit: vec![false; declaration.excludes.len()],
            is_blocked: false,
        };
        let before = self.diagnostics.len();
        for cell in cells {
            let at = own.iter().zip(&cell.picked).map(|(axis, value)| (*axis, u32::try_from(*value).unwrap_or(u32::MAX))).collect();
            if !self.cell(&mut step, cell, at) {
                break;
            }
        }
        let (variants, hit) = (step.variants, step.hit);
        if !declaration.is_good || step.is_blocked || self.diagnostics.len() > before {
            return None;
        }
        for (exclude, hit) in declaration.excludes.iter().zip(hit) {
            if !hit {
                self.diagnostics.push(self.useless(exclude, &declaration, &variants));
            }
        }
        if variants.is_empty() && self.diagnostics.len() == before {
            let message = format!("`{}` has no combination left", declaration.name());
            self.diagnostics.push(Diagnostic::error(message).at(&declaration.key.place, "everything is excluded"));
        }
        (self.diagnostics.len() == before).then_some(variants)
    }

    fn own_axes(&mut self, declaration: &Declaration) -> Vec<AxisId> {
        let value = |axis: &Axis, i: usize| match axis.values.get(i).map(|value| (value.sets.as_slice(), &value.label)) {
            Some(([(_, value)], label)) => match &value.data {
                Data::Bool(value) => Json::from(*value),
                Data::Int(value) => Json::from(*value),
                Data::Float(value) => Json::from(*value),
                _ => Json::from(label.as_str()),
            },
            Some((_, label)) => Json::from(label.as_str()),
            None => Json::Null,
        };
        let mut ids = Vec::with_capacity(declaration.axes.len());
        for axis in &declaration.axes {
            ids.push(self.axes.add(AxisInfo {
                step: declaration.name().to_string(),
                field: axis.name.clone(),
                labels: axis.values.iter().map(|value| value.label.clone()).collect(),
                values: (0..axis.values.len()).map(|i| value(axis, i)).collect(),
            }));
        }
        ids
    }

    /// An entry of `exclude` that leaves nothing out is a slip.
    fn useless(&self, exclude: &Exclude, declaration: &Declaration, variants: &[Variant]) -> Diagnostic {
        let mut diagnostic = Diagnostic::error("this excludes nothing").at(&exclude.place, "no combination has these values");
        if self.diagnostics.len() >= MAX_SHOWN {
            return diagnostic;
        }
        let mut labels: Vec<&str> = declaration.axes.iter().flat_map(|axis| axis.values.iter().map(|value| value.label.as_str())).collect();
        labels.extend(variants.iter().take(1000).flat_map(|variant| variant.at.iter().map(|coordinate| self.axes.label(*coordinate))));
        labels.sort_unstable();
        labels.dedup();
        let axes: Vec<&str> = declaration.axes.iter().map(|axis| axis.name.as_str()).collect();
        for (axis, label, _) in &exclude.values {
            if !labels.contains(&label.as_str()) {
                diagnostic = diagnostic.maybe_help(suggest::help(label, labels.iter().copied()));
            } else if !axes.contains(&axis.as_str()) {
                diagnostic = diagnostic.maybe_help(suggest::help(axis, axes.iter().copied()));
            }
        }
        diagnostic
    }

    fn add(&mut self, node: Node) -> NodeId {
        let id = NodeId(u32::try_from(self.plan.nodes.len()).unwrap_or(u32::MAX));
        self.plan.nodes.push(node);
        id
    }
}

/// What each step names. A name that is a source's too was told already and leads nowhere.
fn edges<'d>(declarations: &'d [Declaration], sources: &BTreeMap<String, Known>) -> Vec<order::Edges<'d>> {
    let index = |is_bundle: bool| -> BTreeMap<&str, usize> {
        declarations.iter().enumerate().filter(|(_, step)| step.is_bundle == is_bundle).map(|(i, step)| (step.name(), i)).collect()
    };
    let (steps, bundles) = (index(false), index(true));
    let mut edges = Vec::with_capacity(declarations.len());
    for step in declarations {
        let mut needs: order::Edges = Vec::new();
        for port in step.cells.iter().flat_map(|cell| &cell.checked.ports) {
            let bundle = |name: &str| if port.accepts.contains(&Artifact::Bundle) { bundles.get(name) } else { None };
            for reference in port.refs.iter().filter(|reference| !sources.contains_key(&reference.name)) {
                if let Some(need) = steps.get(reference.name.as_str()).or_else(|| bundle(&reference.name)) {
                    needs.push((*need, &reference.place));
                }
            }
        }
        if step.cells.len() > 1 {
            // Every cell names mostly the same; the first place of each is enough.
            let mut seen = std::collections::BTreeSet::new();
            needs.retain(|(need, _)| seen.insert(*need));
        }
        edges.push(needs);
    }
    edges
}
