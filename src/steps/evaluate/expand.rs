//! From one declared evaluation to its actions: greedy answers (hidden, shared by all evaluations that need the same ones), the measurement, and
//! the gates. Gates are in the gate's task alone, so changing one measures nothing again.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::check::{check, sets};
use super::choice;
use super::metric::MetricKind;
use super::{ANSWERS, CHOICES, GATE, MEASURE, OVERLAP};
use crate::steps::pattern::Extract;
use crate::steps::{Artifact, Declared, InputId, Params, Part, PartInput, PartPort, Problem, Resources, Task};

/// A declared evaluation, apart from what it refers to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    pub metrics: Vec<String>,
    max_new_tokens: u64,
    pub n_ctx: Option<u64>,
    pub regex: Option<String>,
    pub extract: Option<Extract>,
    pub doc_to_text: Option<String>,
    pub doc_to_choice: Option<Vec<String>>,
    pub doc_to_target: Option<String>,
    pub task_description: Option<String>,
    pub target_delimiter: Option<String>,
    pub num_fewshot: Option<usize>,
    pub fewshot_delimiter: Option<String>,
    bootstrap: u64,
    seed: u64,
    #[serde(default)]
    gate: Vec<GateFields>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateFields {
    metric: String,
    on: Option<String>,
    min: Option<f64>,
    max: Option<f64>,
    max_drop: Option<f64>,
    max_rise: Option<f64>,
    fatal: bool,
}

impl Fields {
    /// The task of a multiple choice.
    pub fn task(&self, metrics: &[MetricKind]) -> choice::Task {
        let or = |given: &Option<String>, default: &str| given.clone().unwrap_or_else(|| default.to_string());
        choice::Task {
            doc_to_text: or(&self.doc_to_text, "question"),
            doc_to_choice: self.doc_to_choice.clone().unwrap_or_else(|| vec!["choices".to_string()]),
            doc_to_target: or(&self.doc_to_target, "answer"),
            task_description: or(&self.task_description, ""),
            target_delimiter: or(&self.target_delimiter, " "),
            fewshot_delimiter: or(&self.fewshot_delimiter, "\n\n"),
            num_fewshot: self.num_fewshot.unwrap_or(0),
            unconditional: metrics.contains(&MetricKind::AccMutualInfo),
        }
    }
}

/// One condition of one gate, as the gate's task holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    pub metric: String,
    pub on: String,
    /// `min`, `max`, `max_drop` or `max_rise`
    pub condition: String,
    pub limit: f64,
    pub fatal: bool,
    /// The port of the report to compare with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versus: Option<String>,
}

pub fn expand(declared: &Declared) -> Result<Vec<Part>, Vec<Problem>> {
    let fields: Fields = serde_json::from_value(Value::Object(declared.params.clone()))
        .map_err(|error| vec![Problem::at("", format!("evaluate does not understand its own fields: {error}"))])?;
    let mut metrics: Vec<MetricKind> = fields.metrics.iter().filter_map(|name| MetricKind::from_name(name)).collect();
    metrics.sort();
    metrics.dedup();
    let mut problems = check(declared, &fields, &metrics);
    let conditions = conditions(declared, &fields.gate, &metrics, &mut problems);
    let [model] = declared.inputs("model") else {
        problems.push(Problem::at("model", "an evaluation is of one model"));
        return Err(problems);
    };
    if !problems.is_empty() {
        return Err(problems);
    }
    let of_choices = metrics.iter().any(|metric| metric.is_of_choices());
    let mut parts = Parts { declared, fields: &fields, metrics, of_choices, parts: Vec::new() };
    let report = parts.measured(model.id, "model", Role::Own);
    if !conditions.is_empty() {
        parts.gate(report, model.id, &conditions);
    }
    Ok(parts.parts)
}

fn conditions(declared: &Declared, gates: &[GateFields], metrics: &[MetricKind], problems: &mut Vec<Problem>) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for (index, gate) in gates.iter().enumerate() {
        let path = |field: &str| format!("gate.{index}.{field}");
        if !metrics.iter().any(|metric| metric.name() == gate.metric) {
            let known = metrics.iter().map(|metric| metric.name());
            let help = crate::base::suggest::help(&gate.metric, known.collect::<Vec<_>>());
            let message = format!("`{}` is not among the metrics of this evaluation", gate.metric);
            problems.push(Problem { help, ..Problem::at(path("metric"), message).label("not measured") });
        }
        let on = set_of(declared, gate, &path, problems);
        let versus = declared.inputs(&path("versus")).first().map(|_| path("versus"));
        let given = [("min", gate.min), ("max", gate.max), ("max_drop", gate.max_drop), ("max_rise", gate.max_rise)];
        let given: Vec<(&str, f64)> = given.iter().filter_map(|(name, limit)| Some((*name, (*limit)?))).collect();
        if given.is_empty() {
            let help = "give at least one of `min`, `max`, `max_drop`, `max_rise`";
            problems.push(Problem::at(format!("gate.{index}"), "this gate has no condition, so it would always pass").help(help));
        }
        let compares = |name: &str| name == "max_drop" || name == "max_rise";
        if versus.is_some() && !given.iter().any(|(name, _)| compares(name)) {
            let help = "`versus` is what `max_drop` and `max_rise` compare with";
            problems.push(Problem::at(path("versus"), "no condition of this gate compares with another model").help(help));
        }
        for (name, limit) in given {
            if compares(name) && versus.is_none() {
                let help = "add `versus = \"…\"`, the model to compare with";
                problems
                    .push(Problem::at(path(name), format!("`{name}` compares with another model, and there is no `versus`")).help(help));
            }
            let versus = versus.clone().filter(|_| compares(name));
            let (metric, condition) = (gate.metric.clone(), name.to_string());
            conditions.push(Condition { metric, on: on.clone(), condition, limit, fatal: gate.fatal, versus });
        }
    }
    conditions
}

/// The set that a gate is about: the only one, if it names none.
fn set_of(declared: &Declared, gate: &GateFields, path: &dyn Fn(&str) -> String, problems: &mut Vec<Problem>) -> String {
    let known: Vec<&str> = sets(declared).collect();
    match (&gate.on, known.as_slice()) {
        (Some(on), known) if known.contains(&on.as_str()) => on.clone(),
        (Some(on), known) => {
            let help = crate::base::suggest::help(on, known.iter().copied());
            let message = format!("`{on}` is not among the sets of this evaluation's data");
            problems.push(Problem { help, ..Problem::at(path("on"), message).label("no such set") });
            String::new()
        }
        (None, [only]) => only.to_string(),
        (None, known) => {
            let help = format!("add `on = \"…\"` with one of {}", crate::base::suggest::listed(known));
            problems.push(Problem::at(path("metric"), "this gate does not say which set it is about").help(help));
            String::new()
        }
    }
}

/// Whose report it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Own,
    Versus,
}

struct Parts<'a> {
    declared: &'a Declared,
    fields: &'a Fields,
    metrics: Vec<MetricKind>,
    /// Multiple choice, not answers and texts.
    of_choices: bool,
    parts: Vec<Part>,
}

impl Parts<'_> {
    /// The part that measures the model of a field, with the parts before it that it needs.
    fn measured(&mut self, model: InputId, field: &str, role: Role) -> usize {
        let reference = self.declared.inputs("reference").first().map(|input| input.id);
        let mut inputs = vec![one("model", model)];
        if self.of_choices {
            let suffix = if role == Role::Own { "choices" } else { "versus-choices" };
            inputs.push(PartPort::part("choices", self.choices(model, suffix)));
            if let Some(reference) = reference {
                inputs.push(PartPort::part("reference_choices", self.choices(reference, "reference-choices")));
            }
            inputs.extend(self.overlap(field, role));
            return self.measure(inputs, role);
        }
        let any = |needs: fn(MetricKind) -> bool| self.metrics.iter().any(|metric| needs(*metric));
        let (answers, scores) = (any(MetricKind::needs_answers), any(MetricKind::needs_reference_scores));
        let compares_answers = any(|metric| matches!(metric, MetricKind::ExactMatch | MetricKind::Flips));
        if let Some(reference) = reference.filter(|_| scores) {
            inputs.push(one("reference", reference));
        }
        if answers {
            let suffix = if role == Role::Own { "answers" } else { "versus-answers" };
            inputs.push(PartPort::part("answers", self.answers(model, suffix)));
        }
        if let Some(reference) = reference.filter(|_| compares_answers) {
            inputs.push(PartPort::part("reference_answers", self.answers(reference, "reference-answers")));
        }
        if self.metrics.contains(&MetricKind::JsonSchemaValid) {
            inputs.push(PartPort::pass(self.declared, "json_schema"));
        }
        inputs.extend(self.overlap(field, role));
        self.measure(inputs, role)
    }

    /// Where the plan knows what the model learned from.
    fn overlap(&mut self, field: &str, role: Role) -> Option<PartPort> {
        let lessons = PartPort::pass(self.declared, &format!("lessons.{field}"));
        if lessons.inputs.is_empty() {
            return None;
        }
        let inputs = std::iter::once(PartPort { name: "lessons".to_string(), ..lessons }).chain(self.data()).collect();
        let mut params = Params::new();
        if self.of_choices {
            // How examples are shown does not matter.
            let task = choice::Task { num_fewshot: 0, unconditional: false, ..self.fields.task(&self.metrics) };
            params.insert("task".to_string(), json!(task));
        }
        let suffix = if role == Role::Own { "overlap" } else { "versus-overlap" };
        Some(PartPort::part("overlap", self.push(suffix, true, Artifact::Files, Task { action: OVERLAP, params }, inputs)))
    }

    fn measure(&mut self, mut inputs: Vec<PartPort>, role: Role) -> usize {
        inputs.extend(self.data());
        let names: Vec<&str> = self.metrics.iter().map(|metric| metric.name()).collect();
        let mut params = object(json!({"metrics": names, "resamples": self.fields.bootstrap, "seed": self.fields.seed}));
        if let Some(n_ctx) = self.fields.n_ctx {
            params.insert("n_ctx".to_string(), json!(n_ctx));
        }
        if let Some(regex) = &self.fields.regex {
            params.insert("regex".to_string(), json!(regex));
        }
        if let Some(extract) = &self.fields.extract {
            params.insert("extract".to_string(), json!(extract));
        }
        let (suffix, hidden) = if role == Role::Own { ("", false) } else { ("versus", true) };
        self.push(suffix, hidden, Artifact::Report, Task { action: MEASURE, params }, inputs)
    }

    fn answers(&mut self, model: InputId, suffix: &'static str) -> usize {
        let mut inputs = vec![one("model", model)];
        inputs.extend(self.data());
        let params = object(json!({"max_new_tokens": self.fields.max_new_tokens}));
        self.push(suffix, true, Artifact::Files, Task { action: ANSWERS, params }, inputs)
    }

    fn choices(&mut self, model: InputId, suffix: &'static str) -> usize {
        let mut inputs = vec![one("model", model)];
        inputs.extend(self.fields.num_fewshot.map(|_| PartPort::pass(self.declared, "fewshot_split")));
        inputs.extend(self.data());
        let params = object(json!(self.fields.task(&self.metrics)));
        self.push(suffix, true, Artifact::Files, Task { action: CHOICES, params }, inputs)
    }

    fn gate(&mut self, report: usize, model: InputId, conditions: &[Condition]) {
        let mut inputs = vec![PartPort::part("report", report)];
        for port in conditions.iter().filter_map(|condition| condition.versus.as_deref()) {
            let Some(versus) = self.declared.inputs(port).first() else { continue };
            if inputs.iter().all(|input| input.name != port) {
                let other = if versus.id == model { report } else { self.measured(versus.id, port, Role::Versus) };
                inputs.push(PartPort::part(port, other));
            }
        }
        let params = object(json!({"conditions": conditions, "resamples": self.fields.bootstrap, "seed": self.fields.seed}));
        self.push("gate", false, Artifact::Verdict, Task { action: GATE, params }, inputs);
    }

    fn data(&self) -> Vec<PartPort> {
        sets(self.declared).map(|set| PartPort::pass(self.declared, &format!("data.{set}"))).collect()
    }

    /// Parts that do the same are one part.
    fn push(&mut self, suffix: &'static str, hidden: bool, artifact: Artifact, task: Task, inputs: Vec<PartPort>) -> usize {
        let same_inputs = |part: &Part| {
            part.inputs.len() == inputs.len() && part.inputs.iter().zip(&inputs).all(|(a, b)| a.name == b.name && a.inputs == b.inputs)
        };
        if let Some(index) = self.parts.iter().position(|part| part.task == task && same_inputs(part)) {
            return index;
        }
        let resources = Resources { cpu: if matches!(task.action, GATE | OVERLAP) { 1 } else { 0 }, ..Resources::default() };
        self.parts.push(Part { suffix, hidden, artifact, outputs: Vec::new(), task, inputs, resources });
        self.parts.len() - 1
    }
}

fn one(name: &str, id: InputId) -> PartPort {
    PartPort { name: name.to_string(), inputs: vec![PartInput::Declared(id)] }
}

fn object(value: Value) -> Params {
    match value {
        Value::Object(map) => map,
        _ => Params::new(),
    }
}
