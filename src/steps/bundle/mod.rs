//! `[bundle.NAME]`: chooses a model for a device and writes the bundle. What a bundle's bytes are is [`crate::bundle`]'s business.

mod candidate;
mod choose;
pub mod diff;
mod memory;
mod readme;
mod tensors;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use self::candidate::{Candidate, Format};
use self::choose::{Choose, Judged};
use super::device::Device;
use super::evaluate::report::Verdict;
use super::{
    Arity, Artifact, Declared, Failure, Field, Io, Kind, Params, Part, PartInput, PartPort, Problem, Project, Resources, Task, Type, typed,
};
use crate::base::units::show_size;
use crate::base::{files, json, rfc3339};
use crate::bundle::description::{self, Description, Entry, Evaluation, Figure, Gate};
use crate::bundle::modelpack::{self, Capabilities, General, Technical};
use crate::bundle::{self, Content, Draft, DraftFile, Role, WriteError, paths};
use crate::model::read_limited;

pub static KIND: BundleKind = BundleKind;

#[derive(Debug)]
pub struct BundleKind;

/// Of a report or verdict, which hold a few dozen figures.
const FILE_MAX_BYTES: u64 = 16 << 20;

static FIELDS: &[Field] = &[
    Field::required("device", Type::Device(Arity::Each), "The device, or devices: one bundle for each."),
    Field::required(
        "model",
        Type::Ref(Arity::All, &[Artifact::Quantized, Artifact::Model]),
        "The candidates: quantized or plain models. One of them is bundled.",
    ),
    Field::optional(
        "require",
        Type::Ref(Arity::All, &[Artifact::Verdict]),
        "Names of `evaluate` steps. A candidate needs a passing verdict from each of them.",
    ),
    Field::default(
        "choose",
        Type::String,
        "\"smallest\"",
        "Among candidates that pass and fit: `smallest`, `best METRIC` or `best METRIC on SET`.",
    ),
    Field::optional(
        "files",
        Type::NamedRefs(&[Artifact::Files]),
        "More files for the device: path in the bundle = source or step. A folder's files go below the path.",
    ),
    Field::optional("readme", Type::Template, "The text of `README.md` in the bundle. Without it, one is written from the results."),
];

/// What the action is told; the inputs say the rest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    device: Device,
    choose: String,
    readme: Option<String>,
    project: Project,
}

impl Kind for BundleKind {
    fn name(&self) -> &'static str {
        "bundle"
    }

    fn revision(&self) -> u32 {
        3
    }

    fn summary(&self) -> &'static str {
        "Choose a model that passes and fits a device, and bundle it"
    }

    fn help(&self) -> &'static str {
        include_str!("help.md")
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn expand(&self, declared: &Declared) -> Result<Vec<Part>, Vec<Problem>> {
        let problems = problems(declared);
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut params = Params::new();
        for name in ["device", "choose", "readme"] {
            if let Some(value) = declared.params.get(name) {
                params.insert(name.to_string(), value.clone());
            }
        }
        params.insert("project".to_string(), serde_json::to_value(&declared.project).unwrap_or(Value::Null));
        let mut inputs = vec![PartPort::pass(declared, "model")];
        inputs.extend(required_ports(declared));
        inputs
            .extend(declared.ports.iter().filter(|port| port.name.starts_with("files.")).map(|port| PartPort::pass(declared, &port.name)));
        Ok(vec![Part {
            suffix: "",
            hidden: false,
            artifact: Artifact::Bundle,
            outputs: Vec::new(),
            task: Task { action: "bundle", params },
            inputs,
            resources: Resources::default(),
        }])
    }

    fn run(&self, task: &Task, io: &mut Io) -> Result<(), Failure> {
        let order: Order = typed(&task.params)?;
        let rule = Choose::parse(&order.choose).map_err(|problem| Failure::bug(problem.message))?;
        let required = read_verdicts(io)?;
        let extra = extra_files(io)?;
        let mut judged = Vec::new();
        for (number, path) in io.all("model").iter().enumerate() {
            io.check_cancelled()?;
            judged.push(judge(&order, &rule, path, &required, &extra).map_err(|failure| of_candidate(number, failure))?);
        }
        say_reasons(io, &judged);
        let Some(chosen) = choose::choose(&rule, &judged).and_then(|index| judged.get(index)) else {
            return Err(none_left(&order.device, &judged));
        };
        io.say(format!("bundled for {}: {} ({})", order.device.name, chosen.label(), order.choose));
        bundle::write(&io.out, draft(&order, chosen, &extra), &io.cancel).map_err(|error| write_failure(error, io))?;
        Ok(())
    }
}

/// All that can be wrong before anything was built.
fn problems(declared: &Declared) -> Vec<Problem> {
    let mut problems = Vec::new();
    let text = |name: &str| declared.params.get(name).and_then(Value::as_str).unwrap_or_default();
    match Choose::parse(text("choose")) {
        Ok(Choose::Best { .. }) if declared.inputs("require").is_empty() => {
            problems
                .push(Problem::at("choose", "`best METRIC` needs an evaluation to read the metric from").label("no `require` is given"));
        }
        Ok(_) => {}
        Err(problem) => problems.push(problem),
    }
    match Device::from_params(&declared.params, "device") {
        Ok(device) => {
            problems.extend(device.problems("device"));
            problems.extend(unreadable(declared, &device));
        }
        // A device that was refused itself is told where it stands.
        Err(_) if !declared.params.contains_key("device") => {}
        Err(problem) => problems.push(problem),
    }
    let extra: Vec<&str> = declared.ports.iter().filter_map(|port| port.name.strip_prefix("files.")).collect();
    for path in &extra {
        if let Err(why) = paths::check(path) {
            problems.push(Problem::at(format!("files.{path}"), format!("`{path}` is no path in a bundle: it {why}")));
        }
    }
    let written = [description::FILE, readme::FILE];
    for (first, second) in paths::clashes(extra.iter().copied().chain(written)) {
        let help = "the text of README.md is given by `readme`; slmops-bundle.json is written by slmops";
        problems.push(Problem::at("files", format!("`{first}` and `{second}` cannot lie in one folder")).help(help));
    }
    if let Some(created) = declared.project.created.as_deref().filter(|text| rfc3339::parse(text).is_none()) {
        problems.push(
            Problem::at("", format!("the project's `created` is `{created}`, which is not an RFC 3339 time"))
                .help("for example 2026-01-31T12:00:00Z"),
        );
    }
    problems
}

/// A device whose runtime reads none of the candidates is found before they are trained.
fn unreadable(declared: &Declared, device: &Device) -> Option<Problem> {
    let format = |artifact| match artifact {
        Artifact::Quantized => Some(Format::Gguf),
        Artifact::Model => Some(Format::Safetensors),
        _ => None,
    };
    let inputs = declared.inputs("model");
    let useless = |artifact| format(artifact).is_some_and(|format| !choose::reads(&device.runtime, format));
    if inputs.is_empty() || !inputs.iter().all(|input| useless(input.artifact)) {
        return None;
    }
    let help = match device.runtime.as_str() {
        "llama.cpp" => "llama.cpp reads GGUF: add a `[quantize.NAME]` step (type `F16` keeps nearly all of the precision) and bundle that",
        _ => "transformers reads Hugging Face folders: bundle the trained model itself",
    };
    let label = format!("device `{}` runs {}", device.name, device.runtime);
    Some(Problem::at("model", "no candidate can run on the device").label(label).help(help))
}

/// One port for each required evaluation, since a candidate must pass every one. Which verdict belongs to which is seen from the labels'
/// part before the `@` (`commands@model=small`); the names themselves go no further.
fn required_ports(declared: &Declared) -> Vec<PartPort> {
    let mut groups: Vec<(&str, Vec<PartInput>)> = Vec::new();
    for input in declared.inputs("require") {
        let name = input.label.split('@').next().unwrap_or_default();
        match groups.iter_mut().find(|(group, _)| *group == name) {
            Some((_, inputs)) => inputs.push(PartInput::Declared(input.id)),
            None => groups.push((name, vec![PartInput::Declared(input.id)])),
        }
    }
    groups.into_iter().enumerate().map(|(i, (_, inputs))| PartPort { name: format!("require.{i}"), inputs }).collect()
}

fn read_verdicts(io: &Io) -> Result<Vec<Vec<Verdict>>, Failure> {
    let ports = (0..).map(|i| io.all(&format!("require.{i}"))).take_while(|paths| !paths.is_empty());
    ports.map(|paths| paths.iter().map(|path| read_verdict(&path.join("verdict.json"))).collect()).collect()
}

fn read_verdict(path: &Path) -> Result<Verdict, Failure> {
    let bytes = read_limited(path, FILE_MAX_BYTES).map_err(|error| Failure::model("read a verdict", &error))?;
    let verdict: Verdict =
        json::from_slice(&bytes).map_err(|error| Failure::new(format!("`{}` is not a verdict: {error}", path.display())))?;
    match verdict.format {
        1 => Ok(verdict),
        format => Err(Failure::new(format!("`{}` has format {format}; this slmops reads format 1", path.display()))),
    }
}

fn extra_files(io: &Io) -> Result<Vec<DraftFile>, Failure> {
    let mut found = Vec::new();
    for (port, inputs) in &io.inputs {
        let Some(name) = port.strip_prefix("files.") else { continue };
        for input in inputs {
            if !files::is_folder(input).map_err(|error| Failure::file("read", input, &error))? {
                found.push(extra_file(name.to_string(), input.clone()));
                continue;
            }
            for path in files::walk(input).map_err(|error| Failure::file("read", input, &error))? {
                let below =
                    path.to_str().ok_or_else(|| Failure::new(format!("`{}` is not UTF-8, as a bundle's paths are", path.display())))?;
                found.push(extra_file(format!("{name}/{below}"), input.join(&path)));
            }
        }
    }
    Ok(found)
}

fn extra_file(path: String, from: PathBuf) -> DraftFile {
    DraftFile { role: Role::of_extra_file(&path), path, content: Content::File(from) }
}

fn judge(order: &Order, rule: &Choose, path: &Path, required: &[Vec<Verdict>], extra: &[DraftFile]) -> Result<Judged, Failure> {
    let candidate = Candidate::read(path).map_err(|error| Failure::model("read a candidate", &error))?;
    let (memory, context_length) = choose::memory_on(&order.device, &candidate);
    let verdicts = choose::verdicts_on(&candidate, required);
    let mut judged = Judged { candidate, memory, context_length, storage_bytes: 0, verdicts, reasons: Vec::new() };
    judged.storage_bytes = bundle::size_bytes(&draft(order, &judged, extra)).map_err(|error| Failure::environment(error.to_string()))?;
    judged.reasons = choose::reasons_against(&order.device, rule, &judged);
    Ok(judged)
}

fn draft(order: &Order, judged: &Judged, extra: &[DraftFile]) -> Draft {
    let Order { device, choose, readme, project } = order;
    let candidate = &judged.candidate;
    let description = Description {
        format: description::FORMAT,
        name: project.name.clone(),
        version: project.version.clone(),
        device: description::Device {
            name: device.name.clone(),
            description: device.description.clone(),
            arch: device.arch.clone(),
            runtime: device.runtime.clone(),
            storage_bytes: device.storage,
            memory_bytes: device.memory,
        },
        model: description::Model {
            format: candidate.format.name().to_string(),
            file_type: candidate.facts.file_type.clone(),
            parameters: candidate.facts.parameters,
            bits_per_weight: candidate.facts.bits_per_weight,
            context_length: judged.context_length,
        },
        memory: judged.memory,
        choose: choose.clone(),
        evaluations: judged.verdicts.iter().flatten().map(evaluation).collect(),
        files: Vec::new(),
        entry: Entry { model: candidate.model.clone(), tokenizer: candidate.tokenizer.map(str::to_string) },
        chat_template: candidate.chat_template.clone(),
    };
    let readme = readme.clone().unwrap_or_else(|| readme::write(project, &description));
    let mut files = candidate.files.clone();
    files.push(DraftFile { path: readme::FILE.to_string(), role: Role::Document, content: Content::Bytes(readme.into_bytes()) });
    files.extend_from_slice(extra);
    Draft {
        created: project.created.clone().unwrap_or_else(|| bundle::EPOCH.to_string()),
        general: general(project),
        technical: technical(candidate),
        description,
        files,
    }
}

fn general(project: &Project) -> General {
    General {
        authors: project.authors.clone(),
        family: Some("llama".to_string()),
        name: Some(project.name.clone()),
        version: Some(project.version.clone()),
        description: project.description.clone(),
        licenses: project.license.iter().cloned().collect(),
        ..General::default()
    }
}

/// The specification's list of precisions has no type below eight bits: those are told by `quantization` alone.
fn technical(candidate: &Candidate) -> Technical {
    let precision = match candidate.facts.file_type.as_str() {
        "F32" => Some("float32"),
        "F16" => Some("float16"),
        "BF16" => Some("bfloat16"),
        "Q8_0" => Some("int8"),
        _ => None,
    };
    let is_plain = matches!(candidate.facts.file_type.as_str(), "F32" | "F16" | "BF16");
    Technical {
        architecture: Some("transformer".to_string()),
        format: Some(candidate.format.name().to_string()),
        param_size: Some(modelpack::param_size(candidate.facts.parameters)),
        precision: precision.map(str::to_string),
        quantization: (!is_plain).then(|| candidate.facts.file_type.to_lowercase()),
        capabilities: Some(Capabilities::text()),
    }
}

fn evaluation(verdict: &Verdict) -> Evaluation {
    let gates = verdict.checks.iter().map(|check| Gate {
        metric: check.metric.clone(),
        on: check.on.clone(),
        condition: check.condition.clone(),
        limit: check.limit,
        figure: check.metric().into(),
        passed: check.passed,
    });
    let metrics = verdict
        .metrics
        .iter()
        .map(|(set, metrics)| (set.clone(), metrics.iter().map(|(name, metric)| (name.clone(), Figure::from(*metric))).collect()));
    Evaluation { gates: gates.collect(), metrics: metrics.collect(), in_training: verdict.in_training.clone() }
}

fn say_reasons(io: &Io, judged: &[Judged]) {
    for (number, candidate) in judged.iter().enumerate() {
        let memory = show_size(candidate.memory.total_bytes());
        match candidate.reasons.as_slice() {
            [] => io.say(format!("candidate {}: {}, {memory} of memory: passes and fits", number + 1, candidate.label())),
            reasons => {
                for reason in reasons {
                    io.say(format!("candidate {}: {}: dropped: {reason}", number + 1, candidate.label()));
                }
            }
        }
    }
}

fn none_left(device: &Device, judged: &[Judged]) -> Failure {
    let mut message = format!("no candidate passes and fits device `{}`", device.name);
    for (number, candidate) in judged.iter().enumerate() {
        for reason in &candidate.reasons {
            message.push_str(&format!("\n  candidate {} ({}): {reason}", number + 1, candidate.label()));
        }
    }
    Failure::new(message)
        .help("candidates are numbered in the order of `model`; quantize smaller, loosen a gate or give the device more room")
}

fn of_candidate(number: usize, failure: Failure) -> Failure {
    Failure { message: format!("candidate {}: {}", number + 1, failure.message), ..failure }
}

fn write_failure(error: WriteError, io: &Io) -> Failure {
    match error {
        _ if io.cancel.is_cancelled() => Failure::cancelled(),
        WriteError::File { doing, path, error } => Failure::file(doing, &path, &error),
        WriteError::Json(_) => Failure::bug(error.to_string()),
        _ => Failure::new(error.to_string()),
    }
}
