//! Declared steps → actions: combinations, pairing, the kind's own parts, and equal actions made one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value as Json;

use super::check::{self, Defaults, RawPort};
use super::declare::{self, Cell, Declaration, Exclude};
use super::node::{Action, InputRef, Node, NodeId, Plan, Source};
use super::resolve::{self, Axes, AxisId, AxisInfo, Coordinate, Found, Known, PartInfo, Variant};
use super::template::{Templates, Words};
use super::{Options, order};
use crate::base::{Diagnostic, Digest, Hasher, Place, suggest};
use crate::manifest::matrix::Axis;
use crate::manifest::workspace::Member;
use crate::manifest::{Data, Lock, Reference};
use crate::source;
use crate::steps::{Arity, Artifact, Declared, Input, InputId, Kind, Params, Part, PartInput, Port, Problem, Project, Resources};

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

/// A port's references, each resolved on its own.
type Resolved<'k> = Vec<Vec<Found<'k>>>;

/// One step to be: its coordinates, and for every port that fans out the input that was chosen.
#[derive(Clone)]
struct Spread<'k> {
    at: Vec<Coordinate>,
    chosen: Vec<(usize, Found<'k>)>,
    devices: Vec<usize>,
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
        for spec in source::spec::specs(&member.manifest, &member.prefix, &mut self.diagnostics) {
            match source::locate(&spec, self.lock, self.cache, self.options.fetch) {
                Ok(path) => {
                    let node = self.add(Node::Source(Source { name: spec.name.clone(), place: spec.place, path }));
                    let part = PartInfo { suffix: "", node, artifact: Artifact::Files, outputs: Vec::new() };
                    let name = spec.name.strip_prefix(&member.prefix).unwrap_or(&spec.name).to_string();
                    scope.known.insert(name, Known { noun: "source", variants: Some(vec![Variant { at: Vec::new(), parts: vec![part] }]) });
                }
                Err(diagnostic) => self.diagnostics.push(diagnostic),
            }
        }
    }

    fn steps(&mut self, declarations: Vec<Declaration>, scope: &mut Scope) {
        let order = {
            let name = |i: usize| declarations.get(i).map_or(String::new(), |step| format!("{}{}", scope.prefix, step.name()));
            order::order(&edges(&declarations), &name, &mut self.diagnostics)
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

    /// One combination of the matrix. False if it makes no sense to go on with the step.
    fn cell(&mut self, step: &mut Step, cell: Cell, at: Vec<Coordinate>) -> bool {
        let Some(resolved) = self.resolve(step, &cell.checked.ports) else {
            step.is_blocked = true;
            return true;
        };
        if !step.declaration.is_good {
            return true;
        }
        let Some(spreads) = self.spread(step, &cell, &resolved, at) else { return false };
        let mut cell = cell;
        let count = spreads.len();
        for (i, spread) in spreads.into_iter().enumerate() {
            // The last one may have the parameters, the others copy them: most steps are one.
            let (params, common) = match i + 1 == count {
                true => (std::mem::take(&mut cell.checked.params), std::mem::take(&mut cell.common.params)),
                false => (cell.checked.params.clone(), cell.common.params.clone()),
            };
            self.combination(step, &cell, &resolved, spread, params, common);
        }
        true
    }

    /// Every reference on its own, all problems at once. `None` if one of them is wrong, here or where it leads.
    fn resolve<'k>(&mut self, step: &Step<'_, 'k>, ports: &[RawPort]) -> Option<Vec<Resolved<'k>>> {
        let mut all = Vec::with_capacity(ports.len());
        let mut is_good = true;
        for port in ports {
            let mut of_port = Vec::with_capacity(port.refs.len());
            for reference in &port.refs {
                let takes_bundle = port.accepts.contains(&Artifact::Bundle) && !step.scope.known.contains_key(&reference.name);
                let known = if takes_bundle { &step.scope.bundles } else { &step.scope.known };
                match resolve::resolve(reference, port.accepts, &port.name, known, &self.axes, &self.patience) {
                    Ok(Some(found)) => of_port.push(found),
                    Ok(None) => is_good = false,
                    Err(diagnostic) => {
                        is_good = false;
                        self.diagnostics.push(diagnostic);
                    }
                }
            }
            all.push(of_port);
        }
        is_good.then_some(all)
    }

    /// Fans out over devices and over every port that takes one at a time; inputs that share an axis are paired on it.
    fn spread<'k>(
        &mut self,
        step: &mut Step<'_, 'k>,
        cell: &Cell,
        resolved: &[Resolved<'k>],
        at: Vec<Coordinate>,
    ) -> Option<Vec<Spread<'k>>> {
        let mut open = vec![Spread { at, chosen: Vec::new(), devices: Vec::new() }];
        for (index, port) in cell.checked.ports.iter().enumerate().filter(|(_, port)| port.arity == Arity::Each) {
            let labels = labels(&port.refs);
            let mut options: Vec<(Option<Coordinate>, &Found)> = Vec::new();
            for (found, label) in resolved[index].iter().zip(&labels) {
                let own = port.listed.then(|| self.fan(step, &port.name, label));
                options.extend(found.iter().map(|found| (own, found)));
            }
            let mut next = Vec::new();
            for spread in &open {
                for (own, found) in options.iter().filter(|(_, found)| resolve::agrees(found, &spread.at)) {
                    self.room(step, next.len(), &port.place)?;
                    let mut at = spread.at.clone();
                    at.extend(own);
                    let inherited = found.at.iter().filter(|(axis, _)| !spread.at.iter().any(|(known, _)| known == axis));
                    at.extend(inherited);
                    let mut chosen = spread.chosen.clone();
                    chosen.push((index, (*found).clone()));
                    next.push(Spread { at, chosen, devices: spread.devices.clone() });
                }
            }
            if next.is_empty() {
                let message = format!("nothing that `{}` names goes together with the step's other inputs", port.name);
                self.diagnostics.push(Diagnostic::error(message).at(&port.place, "no pair has the same values of their matrix"));
                return None;
            }
            open = next;
        }
        for device in &cell.checked.devices {
            let field = device.path.join(".");
            let own: Vec<Coordinate> = device.devices.iter().map(|(name, _)| self.fan(step, &field, name)).collect();
            let mut next = Vec::new();
            for spread in &open {
                for (i, coordinate) in own.iter().enumerate() {
                    self.room(step, next.len(), &device.place)?;
                    let mut spread = spread.clone();
                    spread.at.push(*coordinate);
                    spread.devices.push(i);
                    next.push(spread);
                }
            }
            open = next;
        }
        Some(open)
    }

    fn room(&mut self, step: &Step, more: usize, place: &Place) -> Option<()> {
        let max = self.options.max_combinations;
        if step.variants.len() + more < max {
            return Some(());
        }
        let message = format!("`{}` has more than {max} combinations", step.declaration.name());
        self.diagnostics.push(Diagnostic::error(message).at(place, "too many").help("name fewer inputs, or split the step"));
        None
    }

    /// The coordinate of a value of a list over which a field fans out.
    fn fan(&mut self, step: &mut Step, field: &str, label: &str) -> Coordinate {
        let axes = &mut self.axes;
        let id = *step.fans.entry(field.to_string()).or_insert_with(|| {
            axes.add(AxisInfo {
                step: step.declaration.name().to_string(),
                field: field.to_string(),
                labels: Vec::new(),
                values: Vec::new(),
            })
        });
        (id, axes.index_of(id, label))
    }

    /// One step at last: its declaration for the kind, and the actions that the kind makes of it.
    fn combination(&mut self, step: &mut Step, cell: &Cell, resolved: &[Resolved], spread: Spread, mut params: Params, mut common: Params) {
        let declaration = step.declaration;
        if self.is_excluded(step, &spread.at) {
            return;
        }
        let mut inputs = Vec::new();
        let Some(ports) = self.ports(cell, resolved, &spread, &mut inputs) else { return };
        for (device, index) in cell.checked.devices.iter().zip(&spread.devices) {
            if let Some((_, json)) = device.devices.get(*index) {
                check::put(&mut params, &device.path, json.clone());
            }
        }
        let before = self.diagnostics.len();
        if !cell.checked.templates.is_empty() || !cell.common.templates.is_empty() {
            let matrix =
                spread.at.iter().map(|coordinate| (self.axes.info(coordinate.0).field.as_str(), self.axes.value(*coordinate))).collect();
            let words = Words { project: &step.scope.project, step: declaration.name(), kind: declaration.kind.name(), matrix };
            self.templates.render(&mut params, &cell.checked.templates, &words, &mut self.diagnostics);
            self.templates.render(&mut common, &cell.common.templates, &words, &mut self.diagnostics);
        }
        if self.diagnostics.len() > before {
            return;
        }
        let declared = Declared { name: declaration.name().to_string(), params, ports, project: step.scope.project.clone() };
        match declaration.kind.expand(&declared) {
            Ok(parts) => {
                let shown = self.axes.shown(&spread.at, declaration.name());
                let extras = Extras {
                    name: format!("{}{}", step.scope.prefix, declaration.name()),
                    shown,
                    place: &declaration.key.place,
                    common: &common,
                };
                let parts = self.parts(declaration.kind, parts, &inputs, &extras);
                step.variants.push(Variant { at: spread.at, parts });
            }
            Err(problems) => {
                let layers = declaration.layers(cell.table.as_ref());
                self.diagnostics.extend(problems.into_iter().map(|problem| told(problem, &layers, &declaration.key.place)));
            }
        }
    }

    fn ports(&mut self, cell: &Cell, resolved: &[Resolved], spread: &Spread, inputs: &mut Vec<InputRef>) -> Option<Vec<Port>> {
        let mut ports = Vec::with_capacity(cell.checked.ports.len());
        let mut is_good = true;
        for (index, (port, resolved)) in cell.checked.ports.iter().zip(resolved).enumerate() {
            let mut of_port = Vec::new();
            let mut push = |found: &Found| {
                of_port.push(Input {
                    id: InputId(u32::try_from(inputs.len()).unwrap_or(u32::MAX)),
                    label: found.label.clone(),
                    artifact: found.artifact,
                });
                inputs.push(found.input.clone());
            };
            match port.arity {
                Arity::Each => spread.chosen.iter().filter(|(of, _)| *of == index).for_each(|(_, found)| push(found)),
                Arity::All => resolved.iter().flatten().filter(|found| resolve::agrees(found, &spread.at)).for_each(push),
                Arity::One => {
                    let found: Vec<&Found> = resolved.iter().flatten().filter(|found| resolve::agrees(found, &spread.at)).collect();
                    match (found.as_slice(), port.refs.first()) {
                        ([one], _) => push(one),
                        (_, Some(reference)) => {
                            is_good = false;
                            self.diagnostics.push(resolve::not_one(reference, &port.name, &found));
                        }
                        (_, None) => is_good = false,
                    }
                }
            }
            ports.push(Port { name: port.name.clone(), inputs: of_port });
        }
        is_good.then_some(ports)
    }

    fn parts(&mut self, kind: &'static dyn Kind, parts: Vec<Part>, inputs: &[InputRef], extras: &Extras) -> Vec<PartInfo> {
        let mut infos: Vec<PartInfo> = Vec::with_capacity(parts.len());
        for part in parts {
            let refs = |input: &PartInput| match input {
                PartInput::Declared(id) => inputs.get(id.0 as usize).cloned(),
                PartInput::Part(index) => infos.get(*index).map(|info| InputRef { node: info.node, output: None }),
            };
            let ports: Option<Vec<(String, Vec<InputRef>)>> = part
                .inputs
                .iter()
                .map(|port| Some((port.name.clone(), port.inputs.iter().map(refs).collect::<Option<Vec<_>>>()?)))
                .collect();
            let Some(ports) = ports else {
                let message = format!("the kind `{}` uses an input that there is not: this is a bug in slmops", kind.name());
                self.diagnostics.push(Diagnostic::error(message).at(extras.place, ""));
                return infos;
            };
            let again = infos.iter().filter(|info| info.suffix == part.suffix).count();
            let name = extras.part_name(part.suffix, again);
            let (suffix, artifact, outputs) = (part.suffix, part.artifact, part.outputs.clone());
            let node = self.action(kind, part, ports, name, extras);
            infos.push(PartInfo { suffix, node, artifact, outputs });
        }
        infos
    }

    /// Adds an action, or a name to an equal one.
    fn action(
        &mut self,
        kind: &'static dyn Kind,
        part: Part,
        inputs: Vec<(String, Vec<InputRef>)>,
        name: String,
        extras: &Extras,
    ) -> NodeId {
        self.plan.combinations += 1;
        let identity = identity(kind, &part, &inputs);
        if let Some(id) = self.equal.get(&identity).copied() {
            if let Some(Node::Action(action)) = self.plan.nodes.get_mut(id.index()) {
                extras.join(action, &part, name);
            }
            return id;
        }
        let action = Action {
            names: vec![name],
            place: extras.place.clone(),
            kind,
            resources: extras.resources(part.resources),
            timeout: extras.timeout(),
            tags: extras.tags(),
            description: extras.description(),
            task: part.task,
            inputs,
            artifact: part.artifact,
            outputs: part.outputs,
            hidden: part.hidden,
        };
        let id = self.add(Node::Action(action));
        self.equal.insert(identity, id);
        id
    }

    fn add(&mut self, node: Node) -> NodeId {
        let id = NodeId(u32::try_from(self.plan.nodes.len()).unwrap_or(u32::MAX));
        self.plan.nodes.push(node);
        id
    }

    fn is_excluded(&self, step: &mut Step, at: &[Coordinate]) -> bool {
        let mut excluded = false;
        for (exclude, hit) in step.declaration.excludes.iter().zip(&mut step.hit) {
            let matches = |(axis, label, _): &(String, String, Place)| {
                at.iter().any(|coordinate| self.axes.is_named(coordinate.0, axis) && self.axes.label(*coordinate) == label)
            };
            if exclude.values.iter().all(matches) {
                *hit = true;
                excluded = true;
            }
        }
        excluded
    }

    /// An entry of `exclude` that leaves nothing out is a slip.
    fn useless(&self, exclude: &Exclude, declaration: &Declaration, variants: &[Variant]) -> Diagnostic {
        let mut labels: Vec<&str> = declaration.axes.iter().flat_map(|axis| axis.values.iter().map(|value| value.label.as_str())).collect();
        labels.extend(variants.iter().take(1000).flat_map(|variant| variant.at.iter().map(|coordinate| self.axes.label(*coordinate))));
        labels.sort_unstable();
        labels.dedup();
        let axes: Vec<&str> = declaration.axes.iter().map(|axis| axis.name.as_str()).collect();
        let mut diagnostic = Diagnostic::error("this excludes nothing").at(&exclude.place, "no combination has these values");
        for (axis, label, _) in &exclude.values {
            if !labels.contains(&label.as_str()) {
                diagnostic = diagnostic.maybe_help(suggest::help(label, labels.iter().copied()));
            } else if !axes.contains(&axis.as_str()) {
                diagnostic = diagnostic.maybe_help(suggest::help(axis, axes.iter().copied()));
            }
        }
        diagnostic
    }
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

/// What an action has from its step and not from its kind.
struct Extras<'e> {
    name: String,
    /// `@type=Q8_0`
    shown: String,
    place: &'e Place,
    common: &'e Params,
}

impl Extras<'_> {
    fn part_name(&self, suffix: &str, again: usize) -> String {
        let dot = if suffix.is_empty() { "" } else { "." };
        let number = if again == 0 { String::new() } else { format!("~{}", again + 1) };
        format!("{}{dot}{suffix}{number}{}", self.name, self.shown)
    }

    /// The name of a visible part goes before those of hidden ones.
    fn join(&self, action: &mut Action, part: &Part, name: String) {
        if action.names.contains(&name) {
            return;
        }
        if action.hidden && !part.hidden {
            action.names.insert(0, name);
            action.hidden = false;
            action.place = self.place.clone();
            action.outputs.clone_from(&part.outputs);
            action.resources = self.resources(part.resources);
            action.timeout = self.timeout();
            action.tags = self.tags();
            action.description = self.description();
        } else {
            action.names.push(name);
        }
    }

    fn resources(&self, kind: Resources) -> Resources {
        let own = |name: &str| self.common.get("resources").and_then(|resources| resources.get(name)).and_then(Json::as_u64);
        let small = |name: &str, kind: u32| own(name).and_then(|n| u32::try_from(n).ok()).unwrap_or(kind);
        Resources { cpu: small("cpu", kind.cpu), memory_bytes: own("memory").unwrap_or(kind.memory_bytes), gpu: small("gpu", kind.gpu) }
    }

    fn timeout(&self) -> Option<Duration> {
        self.common.get("timeout").and_then(Json::as_u64).map(Duration::from_millis)
    }

    fn tags(&self) -> Vec<String> {
        let tags = self.common.get("tags").and_then(Json::as_array).into_iter().flatten();
        tags.filter_map(Json::as_str).map(str::to_string).collect()
    }

    fn description(&self) -> Option<String> {
        self.common.get("description").and_then(Json::as_str).map(str::to_string)
    }
}

fn edges<'d>(declarations: &'d [Declaration]) -> Vec<order::Edges<'d>> {
    let index = |is_bundle: bool| -> BTreeMap<&str, usize> {
        declarations.iter().enumerate().filter(|(_, step)| step.is_bundle == is_bundle).map(|(i, step)| (step.name(), i)).collect()
    };
    let (steps, bundles) = (index(false), index(true));
    let mut edges = Vec::with_capacity(declarations.len());
    for step in declarations {
        let mut needs: order::Edges = Vec::new();
        for port in step.cells.iter().flat_map(|cell| &cell.checked.ports) {
            let bundle = |name: &str| if port.accepts.contains(&Artifact::Bundle) { bundles.get(name) } else { None };
            for reference in &port.refs {
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

/// How the entries of a list are called in names: by what they refer to, and where two are the same but for what they pick, with that.
fn labels(refs: &[Reference]) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    refs.iter().for_each(|reference| *counts.entry(reference.base()).or_default() += 1);
    let label = |reference: &Reference| match counts.get(&reference.base()) {
        Some(1) => reference.base(),
        _ => reference.text.replace(',', "+"),
    };
    refs.iter().map(label).collect()
}

fn told(problem: Problem, layers: &[&crate::manifest::Table], step: &Place) -> Diagnostic {
    let place = check::locate(layers, &problem.path).unwrap_or_else(|| step.clone());
    Diagnostic::error(problem.message).at(&place, problem.label).maybe_help(problem.help)
}

/// Equal kind, task and inputs: one action.
fn identity(kind: &'static dyn Kind, part: &Part, inputs: &[(String, Vec<InputRef>)]) -> Digest {
    let mut hasher = Hasher::new();
    hasher.part(kind.name().as_bytes());
    hasher.part(&kind.revision().to_le_bytes());
    hasher.part(part.task.action.as_bytes());
    params(&mut hasher, &part.task.params);
    for (name, refs) in inputs {
        hasher.part(name.as_bytes());
        hasher.update(&(refs.len() as u64).to_le_bytes());
        for input in refs {
            hasher.update(&input.node.0.to_le_bytes());
            hasher.part(input.output.as_deref().unwrap_or_default().as_bytes());
        }
    }
    hasher.finish()
}

fn params(hasher: &mut Hasher, params: &Params) {
    hasher.update(&(params.len() as u64).to_le_bytes());
    let mut sorted: Vec<(&String, &Json)> = params.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    for (name, value) in sorted {
        hasher.part(name.as_bytes());
        match value {
            Json::Object(inner) => {
                hasher.part(b"object");
                self::params(hasher, inner);
            }
            other => hasher.part(other.to_string().as_bytes()),
        }
    }
}
