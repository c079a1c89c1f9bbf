//! Kinds with the shapes of the real ones and nothing behind them: what the plan does must not hang on what steps do.

use std::collections::BTreeMap;

use slmops::steps::*;

pub static KINDS: &[&dyn Kind] = &[&DATASET, &TOKENIZER, &TRAIN, &DISTILL, &QUANTIZE, &EVALUATE, &BUNDLE, &POOL];

pub struct Shape {
    name: &'static str,
    fields: &'static [Field],
    expand: fn(&Declared) -> Result<Vec<Part>, Vec<Problem>>,
}

static ARCH: &[Field] =
    &[Field::required("hidden_size", Type::Int(1, 4096), "Width."), Field::default("num_hidden_layers", Type::Int(1, 100), "2", "Depth.")];

static DATASET: Shape = Shape {
    name: "dataset",
    fields: &[
        Field::required("data", Type::Ref(Arity::All, &[Artifact::Dataset]), "What to read."),
        Field::default("split", Type::Map(&Type::Float(0.0, 1.0)), "{}", "Shares by name."),
        Field::optional("limit", Type::Int(1, i64::MAX), "At most so many records."),
    ],
    expand: |declared| {
        let outputs = match declared.params.get("split") {
            Some(serde_json::Value::Object(split)) => split.keys().map(|name| (name.clone(), Artifact::Dataset)).collect(),
            _ => Vec::new(),
        };
        Ok(vec![Part { outputs, ..part(declared, "", "dataset", Artifact::Dataset, &["data"]) }])
    },
};

static TOKENIZER: Shape = Shape {
    name: "tokenizer",
    fields: &[
        Field::required("data", Type::Ref(Arity::All, &[Artifact::Dataset]), "What to learn from."),
        Field::default("vocab_size", Type::Int(256, 1 << 20), "512", "Entries."),
    ],
    expand: |declared| Ok(vec![part(declared, "", "tokenizer", Artifact::Tokenizer, &["data"])]),
};

static TRAIN: Shape = Shape {
    name: "train",
    fields: &[
        Field::required("tokenizer", Type::Ref(Arity::One, &[Artifact::Tokenizer]), "How text becomes numbers."),
        Field::required("data", Type::Ref(Arity::All, &[Artifact::Dataset]), "What to learn from."),
        Field::required("arch", Type::Table(ARCH), "The model's shape."),
        Field::required("max_steps", Type::Int(1, 1_000_000_000), "Updates of the weights."),
        Field::default("learning_rate", Type::Float(0.0, 10.0), "3e-3", "At its peak."),
        Field::default("schedule", Type::Choice(&["constant", "cosine", "linear"]), "\"cosine\"", "How it falls."),
        Field::default("seed", Type::Int(0, i64::MAX), "0", "Of all randomness."),
        Field::optional("prompt", Type::Template, "A text."),
    ],
    expand: |declared| Ok(vec![part(declared, "", "train", Artifact::Model, &["tokenizer", "data"])]),
};

static DISTILL: Shape = Shape {
    name: "distill",
    fields: &[
        Field::required("teacher", Type::Ref(Arity::One, &[Artifact::Model]), "Whom to learn from."),
        Field::required("data", Type::Ref(Arity::All, &[Artifact::Dataset]), "Prompts."),
        Field::default("validation", Type::Ref(Arity::All, &[Artifact::Dataset]), "[]", "For early stopping."),
        Field::required("arch", Type::Table(ARCH), "The student's shape."),
        Field::required("max_steps", Type::Int(1, 1_000_000_000), "Updates of the weights."),
        Field::default("seed", Type::Int(0, i64::MAX), "0", "Of all randomness."),
        Field::default("baseline", Type::Bool, "false", "A twin without teacher."),
    ],
    expand: |declared| {
        let labels = Part { hidden: true, ..part(declared, "labels", "labels", Artifact::Labels, &["teacher", "data"]) };
        let mut student = part(declared, "", "train", Artifact::Model, &["data", "validation"]);
        student.inputs.push(PartPort::part("labels", 0));
        let mut parts = vec![labels, student];
        if declared.params.get("baseline") == Some(&true.into()) {
            parts.push(part(declared, "baseline", "twin", Artifact::Model, &["data", "validation"]));
        }
        Ok(parts)
    },
};

static QUANTIZE: Shape = Shape {
    name: "quantize",
    fields: &[
        Field::required("model", Type::Ref(Arity::Each, &[Artifact::Model]), "What to quantize."),
        Field::required("type", Type::Choice(&["F16", "Q8_0", "Q4_0", "Q4_K_M"]), "The block type."),
    ],
    expand: |declared| Ok(vec![part(declared, "", "quantize", Artifact::Quantized, &["model"])]),
};

static GATE: &[Field] = &[
    Field::required("metric", Type::String, "Which figure."),
    Field::required("on", Type::String, "Which set."),
    Field::optional("min", Type::Float(f64::NEG_INFINITY, f64::INFINITY), "At least."),
    Field::optional("max_drop", Type::Float(0.0, f64::INFINITY), "Below the other model."),
    Field::optional("versus", Type::Ref(Arity::One, &[Artifact::Model, Artifact::Quantized]), "The other model."),
];

static EVALUATE: Shape = Shape {
    name: "evaluate",
    fields: &[
        Field::required("model", Type::Ref(Arity::Each, &[Artifact::Model, Artifact::Quantized]), "One evaluation for each."),
        Field::required("data", Type::NamedRefs(&[Artifact::Dataset]), "Test sets by name."),
        Field::default("metrics", Type::List(&Type::Choice(&["exact_match", "perplexity"])), "[\"exact_match\"]", "Figures."),
        Field::optional("reference", Type::Ref(Arity::One, &[Artifact::Model]), "To compare with."),
        Field::default("gate", Type::List(&Type::Table(GATE)), "[]", "What must hold."),
        Field::default("budget", Type::Size, "\"1 MiB\"", "Bytes."),
        Field::default("patience", Type::Duration, "\"10 min\"", "Time."),
    ],
    expand: |declared| {
        let data: Vec<&str> = declared.ports.iter().map(|port| port.name.as_str()).filter(|name| name.starts_with("data.")).collect();
        let mut params = declared.params.clone();
        let gates = params.remove("gate");
        let report = |suffix, hidden, model: &str| {
            let mut report = Part { hidden, ..part(declared, suffix, "evaluate", Artifact::Report, &data) };
            report.task.params = params.clone();
            report.inputs.push(PartPort { name: "model".to_string(), ..PartPort::pass(declared, model) });
            report
        };
        let mut parts = vec![report("", false, "model")];
        let mut verdict =
            Part { task: Task { action: "gate", params: Params::new() }, ..part(declared, "gate", "gate", Artifact::Verdict, &[]) };
        verdict.task.params.extend(gates.clone().map(|gates| ("gate".to_string(), gates)));
        verdict.inputs.push(PartPort::part("report", 0));
        let mut problems = Vec::new();
        for (i, gate) in gates.iter().flat_map(|gates| gates.as_array().into_iter().flatten()).enumerate() {
            let versus = format!("gate.{i}.versus");
            if declared.port(&versus).is_some() {
                parts.push(report("versus", true, &versus));
                verdict.inputs.push(PartPort::part(&versus, parts.len() - 1));
            } else if gate.get("max_drop").is_some() {
                problems.push(Problem::at(format!("gate.{i}.max_drop"), "`max_drop` needs `versus`").label("against what?"));
            }
        }
        if gates.is_some_and(|gates| gates.as_array().is_some_and(|gates| !gates.is_empty())) {
            parts.push(verdict);
        }
        if problems.is_empty() { Ok(parts) } else { Err(problems) }
    },
};

static BUNDLE: Shape = Shape {
    name: "bundle",
    fields: &[
        Field::required("device", Type::Device(Arity::Each), "One bundle for each."),
        Field::required("model", Type::Ref(Arity::All, &[Artifact::Model, Artifact::Quantized]), "Candidates."),
        Field::default("require", Type::Ref(Arity::All, &[Artifact::Verdict]), "[]", "Gates."),
    ],
    expand: |declared| Ok(vec![part(declared, "", "bundle", Artifact::Bundle, &["model", "require"])]),
};

/// Takes several models that were trained apart, one by one and together.
static POOL: Shape = Shape {
    name: "pool",
    fields: &[
        Field::optional("left", Type::Ref(Arity::Each, &[Artifact::Model, Artifact::Quantized]), "One by one."),
        Field::optional("right", Type::Ref(Arity::Each, &[Artifact::Model, Artifact::Quantized]), "One by one."),
        Field::optional("one", Type::Ref(Arity::One, &[Artifact::Model]), "Exactly one."),
        Field::optional("all", Type::Ref(Arity::All, &[Artifact::Files]), "Together."),
        Field::optional("shares", Type::Map(&Type::Float(0.0, 1.0)), "By name."),
    ],
    expand: |declared| Ok(vec![part(declared, "", "pool", Artifact::Files, &["left", "right", "one", "all"])]),
};

fn part(declared: &Declared, suffix: &'static str, action: &'static str, artifact: Artifact, ports: &[&str]) -> Part {
    let ports = ports.iter().filter(|name| declared.port(name).is_some());
    Part {
        suffix,
        hidden: false,
        artifact,
        outputs: Vec::new(),
        task: Task { action, params: declared.params.clone() },
        inputs: ports.map(|name| PartPort::pass(declared, name)).collect(),
        resources: Resources::default(),
    }
}

impl Kind for Shape {
    fn name(&self) -> &'static str {
        self.name
    }

    fn revision(&self) -> u32 {
        1
    }

    fn summary(&self) -> &'static str {
        "A shape."
    }

    fn help(&self) -> &'static str {
        "A shape."
    }

    fn fields(&self) -> &'static [Field] {
        self.fields
    }

    fn expand(&self, declared: &Declared) -> Result<Vec<Part>, Vec<Problem>> {
        (self.expand)(declared)
    }

    fn run(&self, _: &Task, _: &mut Io) -> Result<(), Failure> {
        Err(Failure::new("a shape does not run"))
    }
}

/// A plan as text: one line a node, its names, its task and its inputs.
pub fn show(plan: &slmops::plan::Plan) -> String {
    use slmops::plan::Node;
    let mut out = String::new();
    for node in &plan.nodes {
        match node {
            Node::Source(source) => {
                out += &format!("{} = {}\n", source.name, source.path.strip_prefix(&plan.root).unwrap_or(&source.path).display())
            }
            Node::Action(action) => {
                let hidden = if action.hidden { " (hidden)" } else { "" };
                out += &format!("{}{hidden}: {} {}\n", action.names.join(" = "), action.kind.name(), action.task.action);
                let params: BTreeMap<_, _> = action.task.params.iter().collect();
                out += &format!("    {}\n", serde_json::to_string(&params).unwrap());
                for (port, refs) in &action.inputs {
                    let refs: Vec<String> = refs
                        .iter()
                        .map(|input| match &input.output {
                            Some(output) => format!("{}/{output}", plan.node(input.node).name()),
                            None => plan.node(input.node).name().to_string(),
                        })
                        .collect();
                    out += &format!("    {port} <- {}\n", refs.join(", "));
                }
                if let Some(description) = &action.description {
                    out += &format!("    # {description}\n");
                }
                if action.timeout.is_some() || !action.tags.is_empty() || action.resources != Resources::default() {
                    out += &format!("    {:?} {:?} {:?}\n", action.timeout, action.tags, action.resources);
                }
            }
        }
    }
    let actions = plan.nodes.iter().filter(|node| matches!(node, Node::Action(_))).count();
    out + &format!("{} combinations, {actions} distinct steps\n", plan.combinations)
}
