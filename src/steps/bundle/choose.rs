//! Which candidates may be bundled, and which of them is. Every reason against one is kept for the log.

use std::collections::BTreeMap;
use std::fmt;

use super::candidate::{Candidate, Format};
use super::memory::{self, Shape};
use crate::base::suggest;
use crate::base::units::show_size;
use crate::bundle::description::{Figure, Memory};
use crate::steps::Problem;
use crate::steps::device::Device;
use crate::steps::evaluate::metric::{self, MetricKind};
use crate::steps::evaluate::report::{Check, Verdict};

/// The field `choose`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choose {
    Smallest,
    Best { metric: MetricKind, on: Option<String> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Better {
    Higher,
    Lower,
}

fn better(metric: MetricKind) -> Better {
    match metric {
        MetricKind::Perplexity | MetricKind::KlDivergence | MetricKind::KlDivergenceP99 | MetricKind::Flips => Better::Lower,
        MetricKind::ExactMatch | MetricKind::RegexMatch | MetricKind::Top1Agreement => Better::Higher,
        MetricKind::JsonValid | MetricKind::JsonSchemaValid | MetricKind::JsonExactMatch => Better::Higher,
        MetricKind::Acc | MetricKind::AccNorm | MetricKind::AccBytes | MetricKind::AccMutualInfo => Better::Higher,
    }
}

impl Choose {
    pub fn parse(text: &str) -> Result<Choose, Problem> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            ["smallest"] => Ok(Choose::Smallest),
            ["best", metric] => Choose::best(metric, None),
            ["best", metric, "on", set] => Choose::best(metric, Some(set.to_string())),
            ["fastest"] => Err(Problem::at("choose", "`fastest` needs measurements on the device, which this version does not make")
                .label("cannot be decided")
                .help("choose `smallest`, or `best METRIC`")),
            _ => Err(Problem::at("choose", format!("cannot choose by `{text}`"))
                .label("expected `smallest`, `best METRIC` or `best METRIC on SET`")
                .help("for example `choose = \"best exact_match on seen\"`")),
        }
    }

    fn best(metric: &str, on: Option<String>) -> Result<Choose, Problem> {
        if let Some(metric) = MetricKind::from_name(metric) {
            return Ok(Choose::Best { metric, on });
        }
        let help = suggest::help(metric, metric::NAMES.iter().copied());
        Err(Problem { help, ..Problem::at("choose", format!("unknown metric `{metric}`")).label("no such metric") })
    }
}

/// Why a candidate is not bundled.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    Format {
        runtime: String,
        format: Format,
    },
    Context {
        wanted: u64,
        has: u64,
    },
    Storage {
        needed_bytes: u64,
        limit_bytes: u64,
    },
    Memory {
        needed: Memory,
        limit_bytes: u64,
    },
    /// The place of the evaluation in `require`, from 0.
    NotEvaluated {
        evaluation: usize,
    },
    GateFailed {
        check: Check,
    },
    /// It failed, and its verdict does not say at what.
    Rejected {
        evaluation: usize,
    },
    NoFigure {
        metric: MetricKind,
        on: Option<String>,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Format { runtime, format } => write!(f, "{runtime} does not read {}", format.name()),
            Reason::Context { wanted, has } => write!(f, "made for {has} tokens of context; the device asks for {wanted}"),
            Reason::Storage { needed_bytes, limit_bytes } => {
                write!(f, "takes {} of storage; the device has {}", show_size(*needed_bytes), show_size(*limit_bytes))
            }
            Reason::Memory { needed, limit_bytes } => write!(
                f,
                "takes {} of memory (weights {}, cache {}, activations {}); the device has {}",
                show_size(needed.total_bytes()),
                show_size(needed.weights_bytes),
                show_size(needed.cache_bytes),
                show_size(needed.activations_bytes),
                show_size(*limit_bytes)
            ),
            Reason::NotEvaluated { evaluation } => write!(f, "required evaluation {} did not evaluate it", evaluation + 1),
            Reason::GateFailed { check } => write!(
                f,
                "gate failed: {} on {} is {}, {} is {}",
                check.metric,
                check.on,
                Figure::from(check.metric()),
                check.condition,
                check.limit
            ),
            Reason::Rejected { evaluation } => write!(f, "required evaluation {} rejected it", evaluation + 1),
            Reason::NoFigure { metric, on: Some(set) } => write!(f, "no evaluation gives {} on {set}", metric.name()),
            Reason::NoFigure { metric, on: None } => write!(f, "no evaluation gives {}", metric.name()),
        }
    }
}

/// A candidate with all that decides about it.
#[derive(Debug)]
pub struct Judged {
    pub candidate: Candidate,
    pub memory: Memory,
    pub context_length: u64,
    /// Of all files of its bundle.
    pub storage_bytes: u64,
    /// One for each required evaluation, in order; absent where it was not evaluated.
    pub verdicts: Vec<Option<Verdict>>,
    pub reasons: Vec<Reason>,
}

impl Judged {
    /// `Q8_0, 143.0 KiB`: inputs have no names here, so that renaming a step changes no bundle.
    pub fn label(&self) -> String {
        format!("{}, {}", self.candidate.facts.file_type, show_size(self.storage_bytes))
    }
}

/// Picks each evaluation's verdict on this very model, by the digest of its weights. Where there are several (the same weights behind two
/// tokenizers, say) one that failed counts.
pub fn verdicts_on(candidate: &Candidate, required: &[Vec<Verdict>]) -> Vec<Option<Verdict>> {
    let weights = &candidate.facts.weights;
    let of_it = |verdicts: &Vec<Verdict>| {
        let mut found = verdicts.iter().filter(|verdict| verdict.model.weights == *weights);
        found.clone().find(|verdict| !verdict.passed).or_else(|| found.next()).cloned()
    };
    required.iter().map(of_it).collect()
}

/// What the model takes of the device's memory at its context length.
pub fn memory_on(device: &Device, candidate: &Candidate) -> (Memory, u64) {
    let Shape { context, .. } = candidate.shape;
    let context = device.context_length.unwrap_or(context);
    // llama.cpp keeps weights packed and its cache in f16; slmops unpacks everything to f32; transformers keeps weights as they are stored.
    let (weights_bytes, cache_value_bytes) = match device.runtime.as_str() {
        "llama.cpp" => (candidate.facts.size_bytes, 2),
        "slmops" => (candidate.facts.parameters.saturating_mul(4), 4),
        _ => (candidate.facts.size_bytes, 4),
    };
    (memory::estimate(&candidate.shape, weights_bytes, cache_value_bytes, context), context)
}

/// Whether the device's runtime opens the format.
pub fn reads(runtime: &str, format: Format) -> bool {
    match runtime {
        "llama.cpp" => format == Format::Gguf,
        "transformers" => format == Format::Safetensors,
        _ => true,
    }
}

/// All that speaks against a candidate.
pub fn reasons_against(device: &Device, choose: &Choose, judged: &Judged) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let candidate = &judged.candidate;
    if !reads(&device.runtime, candidate.format) {
        reasons.push(Reason::Format { runtime: device.runtime.clone(), format: candidate.format });
    }
    if judged.context_length > candidate.shape.context {
        reasons.push(Reason::Context { wanted: judged.context_length, has: candidate.shape.context });
    }
    if let Some(limit_bytes) = device.storage.filter(|limit| judged.storage_bytes > *limit) {
        reasons.push(Reason::Storage { needed_bytes: judged.storage_bytes, limit_bytes });
    }
    if let Some(limit_bytes) = device.memory.filter(|limit| judged.memory.total_bytes() > *limit) {
        reasons.push(Reason::Memory { needed: judged.memory, limit_bytes });
    }
    for (evaluation, verdict) in judged.verdicts.iter().enumerate() {
        match verdict {
            None => reasons.push(Reason::NotEvaluated { evaluation }),
            Some(verdict) => {
                let failed: Vec<_> = verdict.checks.iter().filter(|check| !check.passed).cloned().collect();
                if failed.is_empty() && !verdict.passed {
                    reasons.push(Reason::Rejected { evaluation });
                }
                reasons.extend(failed.into_iter().map(|check| Reason::GateFailed { check }));
            }
        }
    }
    if let Choose::Best { metric, on } = choose
        && figure(judged, *metric, on.as_deref()).is_none()
    {
        reasons.push(Reason::NoFigure { metric: *metric, on: on.clone() });
    }
    reasons
}

/// The index of the one to bundle among those that nothing speaks against. Between equals the smaller, then the first.
pub fn choose(choose: &Choose, candidates: &[Judged]) -> Option<usize> {
    let mut fitting: Vec<usize> =
        candidates.iter().enumerate().filter(|(_, judged)| judged.reasons.is_empty()).map(|(index, _)| index).collect();
    let at = |index: usize| candidates.get(index);
    fitting.sort_by_key(|index| at(*index).map(|judged| judged.storage_bytes));
    if let Choose::Best { metric, on } = choose {
        let sign = match better(*metric) {
            Better::Lower => 1.0,
            Better::Higher => -1.0,
        };
        let key = |index: usize| at(index).and_then(|judged| figure(judged, *metric, on.as_deref())).unwrap_or(f64::NAN) * sign;
        fitting.sort_by(|a, b| key(*a).total_cmp(&key(*b)));
    }
    fitting.first().copied()
}

/// The metric on one set, or its mean over all sets of all required evaluations that give it.
fn figure(judged: &Judged, metric: MetricKind, on: Option<&str>) -> Option<f64> {
    let sets: BTreeMap<(usize, &str), f64> = judged
        .verdicts
        .iter()
        .enumerate()
        .flat_map(|(i, verdict)| {
            verdict.iter().flat_map(move |verdict| verdict.metrics.iter().map(move |(set, metrics)| ((i, set.as_str()), metrics)))
        })
        .filter(|((_, set), _)| on.is_none_or(|on| on == *set))
        .filter_map(|(place, metrics)| metrics.get(metric.name()).map(|metric| (place, metric.value)))
        .collect();
    (!sets.is_empty()).then(|| sets.values().sum::<f64>() / sets.len() as f64)
}
