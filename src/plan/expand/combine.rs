//! The combinations of one step: what its references reach, fanned out, paired on the axes that they share, and one declaration for the kind
//! from each.

use std::collections::BTreeMap;

use super::actions::Extras;
use super::{Planner, Step};
use crate::base::{Diagnostic, Place};
use crate::manifest::{Reference, Table};
use crate::plan::MAX_STEPS;
use crate::plan::check::{self, RawPort};
use crate::plan::declare::Cell;
use crate::plan::lineage::{self, Lesson, Overlap};
use crate::plan::node::{InputRef, Node, Plan};
use crate::plan::resolve::{self, AxisInfo, Coordinate, Found, Variant};
use crate::plan::template::Words;
use crate::steps::{Arity, Artifact, CREATED, Declared, Input, InputId, Params, Port, Problem};

/// A port's references, each resolved on its own.
type Resolved<'k> = Vec<Vec<Found<'k>>>;

/// One step to be: its coordinates, and for every port that fans out the input that was chosen.
#[derive(Clone)]
struct Spread<'k> {
    at: Vec<Coordinate>,
    chosen: Vec<(usize, Found<'k>)>,
    devices: Vec<usize>,
}

impl Planner<'_> {
    /// One combination of the matrix. False if it makes no sense to go on with the step.
    pub(super) fn cell(&mut self, step: &mut Step, cell: Cell, at: Vec<Coordinate>) -> bool {
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
        if self.plan.nodes.len() >= MAX_STEPS {
            let message = format!("the manifest makes more than {MAX_STEPS} steps");
            if self.diagnostics.last().is_none_or(|last| last.message != message) {
                self.diagnostics
                    .push(Diagnostic::error(message).at(&declaration.key.place, "too many").help("name fewer inputs, or fewer values"));
            }
            return;
        }
        let mut inputs = Vec::new();
        let Some(mut ports) = self.ports(cell, resolved, &spread, &mut inputs) else { return };
        let judged: Vec<Port> = ports.iter().filter(|port| declaration.kind.judges(&port.name)).cloned().collect();
        for port in &judged {
            let tests = ports.iter().filter(|port| declaration.kind.tests_on(&port.name));
            let lessons = self.lessons(port, tests, cell, &mut inputs);
            ports.extend(lessons);
        }
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
            Ok(mut parts) => {
                if let (true, Some(created)) = (declaration.kind.renders_chats(), &declared.project.created) {
                    parts.iter_mut().for_each(|part| drop(part.task.params.insert(CREATED.to_string(), created.clone().into())));
                }
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

    /// The data that a judged model learned from, as a port of its own. Warns of tests that are among it.
    fn lessons<'p>(
        &mut self,
        judged: &Port,
        tests: impl Iterator<Item = &'p Port>,
        cell: &Cell,
        inputs: &mut Vec<InputRef>,
    ) -> Option<Port> {
        let model = judged.inputs.first().and_then(|input| inputs.get(input.id.0 as usize))?.node;
        let lessons = self.lineage.of(&self.plan, model);
        for port in tests {
            let Some(place) = cell.checked.ports.iter().find(|raw| raw.name == port.name).map(|raw| &raw.place) else { continue };
            for (input, test) in port.inputs.iter().filter_map(|input| Some((input, inputs.get(input.id.0 as usize)?))) {
                let found = lessons.iter().find_map(|lesson| Some((lesson, lineage::overlap(&self.plan, test, &lesson.data)?)));
                if let Some((lesson, overlap)) = found {
                    let warning = seen_before(&self.plan, &input.label, place, lesson, overlap);
                    self.plan.warnings.push(warning);
                }
            }
        }
        let mut of_port = Vec::with_capacity(lessons.len());
        for lesson in lessons {
            let id = InputId(u32::try_from(inputs.len()).unwrap_or(u32::MAX));
            let label = self.plan.node(lesson.data.node).name().to_string();
            of_port.push(Input { id, label, artifact: Artifact::Dataset });
            inputs.push(lesson.data.clone());
        }
        (!of_port.is_empty()).then(|| Port { name: format!("lessons.{}", judged.name), inputs: of_port })
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
}

fn seen_before(plan: &Plan, test: &str, place: &Place, lesson: &Lesson, overlap: Overlap) -> Diagnostic {
    let learner = plan.node(lesson.by);
    let data = plan.node(lesson.data.node).name();
    let label = match overlap {
        Overlap::Same => format!("`{}` of `{}` is the same data", lesson.port, learner.name()),
        Overlap::TestPassedOn => format!("`{}` of `{}` is `{data}`, which is made from it", lesson.port, learner.name()),
        Overlap::LessonPassedOn => format!("it is made from `{data}`, the `{}` of `{}`", lesson.port, learner.name()),
    };
    let warning = Diagnostic::warning(format!("`{test}` tests a model that learned from it")).at(place, label);
    let warning = match learner {
        Node::Action(action) => warning.at(&action.place, "learns here"),
        Node::Source(_) => warning,
    };
    warning.help("figures on it say little about new data: split the data with a `dataset` step, or keep the test out with `disjoint_from`")
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

fn told(problem: Problem, layers: &[&Table], step: &Place) -> Diagnostic {
    let place = check::locate(layers, &problem.path).unwrap_or_else(|| step.clone());
    Diagnostic::error(problem.message).at(&place, problem.label).maybe_help(problem.help)
}
