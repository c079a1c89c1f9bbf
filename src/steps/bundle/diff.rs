//! What differs between two bundles, or two evaluations: figures with their intervals, sizes, files, types of tensors. It compares and
//! answers with a structure; [`table`] is that structure for people.

mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::tensors::{self, Tensor};
use super::{FILE_MAX_BYTES, evaluation};
use crate::base::files;
use crate::base::json;
use crate::bundle::description::{Evaluation, Figure, Gate};
use crate::bundle::{self, Finding, Role, Summary, oci};
use crate::model::{ModelError, gguf, is_there, read_limited};
use crate::steps::Failure;
use crate::steps::evaluate::report::{ModelFacts, Report, Verdict};

pub use show::table;

/// Something that can be compared.
#[derive(Clone, Debug)]
pub struct Subject {
    pub side: Side,
    /// What is equal or not as a word: device, runtime, file type …
    facts: BTreeMap<&'static str, String>,
    /// Bytes, or numbers of things.
    sizes: BTreeMap<&'static str, u64>,
    evaluations: Vec<Evaluation>,
    /// Path → SHA-256 and size.
    files: BTreeMap<String, (String, u64)>,
    /// Name → type and shape.
    tensors: BTreeMap<String, String>,
}

/// Which of the two, as its file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// `bundle`, `report` or `verdict`
    pub kind: &'static str,
    pub name: String,
    /// Of a bundle.
    pub digest: Option<String>,
}

/// All differences; nothing that is equal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    pub format: u32,
    pub a: Side,
    pub b: Side,
    pub facts: Vec<FactChange>,
    pub sizes: Vec<SizeChange>,
    /// Here equal figures stand too: that nothing changed is what one wants to know.
    pub metrics: Vec<MetricChange>,
    pub gates: Vec<GateChange>,
    pub files: Vec<FileChange>,
    pub tensors: Vec<TensorChange>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FactChange {
    pub fact: &'static str,
    pub a: Option<String>,
    pub b: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SizeChange {
    pub size: &'static str,
    pub a: Option<u64>,
    pub b: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricChange {
    /// The place of the evaluation among those that a bundle required, from 0.
    pub evaluation: usize,
    pub set: String,
    pub metric: String,
    pub a: Option<Figure>,
    pub b: Option<Figure>,
    /// b − a
    pub delta: Option<f64>,
    /// Whether the 95 % intervals do not even touch; nothing where that is unknown. Intervals that do touch prove nothing: for that, see the evaluation's own comparison.
    pub apart: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GateChange {
    pub gate: String,
    pub a: Option<bool>,
    pub b: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileChange {
    pub path: String,
    pub a_bytes: Option<u64>,
    pub b_bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorChange {
    pub name: String,
    /// Type and shape: `Q4_0 [64, 512]`.
    pub a: Option<String>,
    pub b: Option<String>,
}

impl Diff {
    /// Whether nothing differs that both have.
    pub fn is_empty(&self) -> bool {
        let equal_figures = self.metrics.iter().all(|change| change.a == change.b);
        let lists = [self.facts.is_empty(), self.sizes.is_empty(), self.gates.is_empty(), self.files.is_empty(), self.tensors.is_empty()];
        equal_figures && lists.into_iter().all(|empty| empty)
    }
}

/// Opens a bundle, or the report or verdict of an evaluation: the file, or the folder that holds it.
pub fn open(path: &Path) -> Result<Subject, Failure> {
    if is_there(&path.join(oci::LAYOUT_FILE))? {
        return of_bundle(path);
    }
    let (report, verdict) = (path.join("report.json"), path.join("verdict.json"));
    let named = |name: &str| path.file_name().is_some_and(|file| file == name);
    if is_there(&report)? {
        of_report(&report)
    } else if is_there(&verdict)? {
        of_verdict(&verdict)
    } else if files::is_folder(path).is_ok_and(|is_folder| !is_folder) {
        if named("verdict.json") { of_verdict(path) } else { of_report(path) }
    } else {
        Err(Failure::new(format!("`{}` is neither a bundle nor an evaluation", path.display()))
            .help("give a bundle's folder, or what `slmops out` copied of an `evaluate` step"))
    }
}

fn of_bundle(path: &Path) -> Result<Subject, Failure> {
    let summary = bundle::open(path).map_err(|findings| damaged(path, &findings))?;
    let description = &summary.description;
    let name = format!("{} {} for {}", description.name, description.version, description.device.name);
    let device = &description.device;
    let mut facts = BTreeMap::from([
        ("name", description.name.clone()),
        ("version", description.version.clone()),
        ("device", device.name.clone()),
        ("arch", device.arch.clone()),
        ("runtime", device.runtime.clone()),
        ("format", description.model.format.clone()),
        ("file type", description.model.file_type.clone()),
        ("choose", description.choose.clone()),
        ("context length", description.model.context_length.to_string()),
    ]);
    facts.extend(
        description
            .chat_template
            .as_ref()
            .map(|text| ("chat template", text.lines().next().unwrap_or_default().chars().take(60).collect())),
    );
    let sizes = BTreeMap::from([
        ("bundle", summary.size_bytes),
        ("memory", description.memory.total_bytes()),
        ("parameters", description.model.parameters),
    ]);
    let tensors = bundled_tensors(path, &summary).map_err(|error| Failure::model("read the bundle's weights", &error))?;
    let files = description.files.iter().map(|file| (file.path.clone(), (file.sha256.clone(), file.size_bytes)));
    Ok(Subject {
        side: Side { kind: "bundle", name, digest: Some(summary.digest.clone()) },
        facts,
        sizes,
        evaluations: description.evaluations.clone(),
        files: files.collect(),
        tensors: tensors.into_iter().map(|tensor| (tensor.name, format!("{} {:?}", tensor.ty, tensor.shape))).collect(),
    })
}

/// Of all weight files; formats that we do not know hold none.
fn bundled_tensors(path: &Path, summary: &Summary) -> Result<Vec<Tensor>, ModelError> {
    let mut found = Vec::new();
    for layer in summary.layers.iter().filter(|layer| layer.role == Role::Weights) {
        let blob = path.join(layer.blob());
        if layer.path.ends_with(".safetensors") {
            found.extend(tensors::of_safetensors(&blob)?);
        } else if layer.path.ends_with(".gguf") {
            found.extend(tensors::of_gguf(&gguf::open(&blob)?));
        }
    }
    Ok(found)
}

fn damaged(path: &Path, findings: &[Finding]) -> Failure {
    if let Some(cause) = bundle::cause(findings) {
        return Failure::file("read the bundle", path, &cause);
    }
    let lines: Vec<String> = findings.iter().map(|finding| format!("\n  {finding}")).collect();
    Failure::new(format!("`{}` is a damaged bundle:{}", path.display(), lines.concat()))
}

fn of_report(path: &Path) -> Result<Subject, Failure> {
    let report: Report = read(path)?;
    let sets = report
        .sets
        .iter()
        .map(|(set, facts)| (set.clone(), facts.metrics.iter().map(|(name, metric)| (name.clone(), Figure::from(*metric))).collect()));
    let evaluation = Evaluation { gates: Vec::new(), metrics: sets.collect(), in_training: BTreeMap::new() };
    Ok(of_evaluation("report", path, &report.model, evaluation))
}

fn of_verdict(path: &Path) -> Result<Subject, Failure> {
    let verdict: Verdict = read(path)?;
    Ok(of_evaluation("verdict", path, &verdict.model, evaluation(&verdict)))
}

fn of_evaluation(kind: &'static str, path: &Path, model: &ModelFacts, evaluation: Evaluation) -> Subject {
    Subject {
        side: Side { kind, name: path.display().to_string(), digest: None },
        facts: BTreeMap::from([("file type", model.file_type.clone())]),
        sizes: BTreeMap::from([("parameters", model.parameters), ("weights", model.size_bytes)]),
        evaluations: vec![evaluation],
        files: BTreeMap::new(),
        tensors: BTreeMap::new(),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let bytes = read_limited(path, FILE_MAX_BYTES).map_err(|error| Failure::model("read what is to be compared", &error))?;
    json::from_slice(&bytes).map_err(|error| Failure::new(format!("`{}` is not what an evaluation writes: {error}", path.display())))
}

/// Compares. Where one of the two is an evaluation, only what both have is compared: a report has no files that could be missing.
pub fn diff(a: &Subject, b: &Subject) -> Diff {
    let both_bundles = a.side.kind == b.side.kind && a.side.kind == "bundle";
    let facts = changes(&a.facts, &b.facts, both_bundles).map(|(fact, a, b)| FactChange { fact, a: a.cloned(), b: b.cloned() });
    let sizes = changes(&a.sizes, &b.sizes, both_bundles).map(|(size, a, b)| SizeChange { size, a: a.copied(), b: b.copied() });
    let files = changes(&a.files, &b.files, both_bundles);
    let tensors = changes(&a.tensors, &b.tensors, both_bundles);
    Diff {
        format: 1,
        a: a.side.clone(),
        b: b.side.clone(),
        facts: facts.collect(),
        sizes: sizes.collect(),
        metrics: metric_changes(&figures(&a.evaluations), &figures(&b.evaluations)),
        gates: gate_changes(&gates(&a.evaluations), &gates(&b.evaluations)),
        files: files.map(|(path, a, b)| FileChange { path, a_bytes: a.map(|file| file.1), b_bytes: b.map(|file| file.1) }).collect(),
        tensors: tensors.map(|(name, a, b)| TensorChange { name, a: a.cloned(), b: b.cloned() }).collect(),
    }
}

type Pair<'a, K, V> = (K, Option<&'a V>, Option<&'a V>);

/// Unequal entries in the order of their keys; those that only one has count only if all entries can be compared.
fn changes<'a, K: Ord + Clone, V: PartialEq>(
    a: &'a BTreeMap<K, V>,
    b: &'a BTreeMap<K, V>,
    comparable: bool,
) -> impl Iterator<Item = Pair<'a, K, V>> {
    let keys: BTreeSet<&K> = a.keys().chain(b.keys()).collect();
    let pairs = keys.into_iter().map(move |key| (key.clone(), a.get(key), b.get(key)));
    pairs.filter(move |(_, a, b)| a != b && (comparable || (a.is_some() && b.is_some())))
}

type FigureKey = (usize, String, String);

fn figures(evaluations: &[Evaluation]) -> BTreeMap<FigureKey, Figure> {
    let mut found = BTreeMap::new();
    for (number, evaluation) in evaluations.iter().enumerate() {
        for (set, metrics) in &evaluation.metrics {
            found.extend(metrics.iter().map(|(metric, figure)| ((number, set.clone(), metric.clone()), *figure)));
        }
    }
    found
}

fn metric_changes(a: &BTreeMap<FigureKey, Figure>, b: &BTreeMap<FigureKey, Figure>) -> Vec<MetricChange> {
    let keys: BTreeSet<&FigureKey> = a.keys().chain(b.keys()).collect();
    let change = |key: &FigureKey| {
        let (evaluation, set, metric) = key.clone();
        let (a, b) = (a.get(key).copied(), b.get(key).copied());
        let both = a.zip(b);
        MetricChange {
            evaluation,
            set,
            metric,
            a,
            b,
            delta: both.map(|(a, b)| b.value - a.value),
            apart: both.and_then(|(a, b)| apart(&a, &b)),
        }
    };
    keys.into_iter().map(change).collect()
}

/// Nothing where an end that would decide is unknown.
fn apart(a: &Figure, b: &Figure) -> Option<bool> {
    let below = |a: &Figure, b: &Figure| Some(a.high? < b.low?);
    match (below(a, b), below(b, a)) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

fn gates(evaluations: &[Evaluation]) -> BTreeMap<String, bool> {
    let name = |gate: &Gate| format!("{} on {}: {} {}", gate.metric, gate.on, gate.condition, gate.limit);
    evaluations.iter().flat_map(|evaluation| &evaluation.gates).map(|gate| (name(gate), gate.passed)).collect()
}

fn gate_changes(a: &BTreeMap<String, bool>, b: &BTreeMap<String, bool>) -> Vec<GateChange> {
    let comparable = !a.is_empty() && !b.is_empty();
    changes(a, b, comparable).map(|(gate, a, b)| GateChange { gate, a: a.copied(), b: b.copied() }).collect()
}
