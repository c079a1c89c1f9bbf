//! The action `gate`: reports and conditions → a verdict. It measures nothing.

use std::path::Path;

use serde::Deserialize;

use super::expand::Condition;
use super::measure::write_json;
use super::metric::MetricKind;
use super::report::{Check, Item, Metric, Report, SetReport, Verdict};
use super::sets::{lines_path, read_lines};
use super::statistics::{Resampling, Terms, difference};
use crate::base::json;
use crate::bundle::description::Figure;
use crate::model::read_limited;
use crate::steps::{Failure, Io, Params, typed};

/// Of figures; the items are in files of their own.
const MAX_REPORT: u64 = 1 << 30;
/// A drop of exactly the limit must pass although 0.9 − 0.885 is a hair more than 0.015 in doubles.
const ROUNDING: f64 = 1e-12;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    conditions: Vec<Condition>,
    resamples: u64,
    seed: u64,
}

pub fn run(params: &Params, io: &Io) -> Result<(), Failure> {
    let fields: Fields = typed(params)?;
    let by = Resampling { resamples: fields.resamples, seed: fields.seed };
    let folder = io.one("report")?;
    let report = read_report(folder)?;
    let mut checks = Vec::new();
    for condition in &fields.conditions {
        let seen = match &condition.versus {
            None => figure(&report, condition)?,
            Some(port) => change(folder, io.one(port)?, condition, by)?,
        };
        let check = check(condition, seen);
        io.say(format!("{}: {}", if check.passed { "passed" } else { "failed" }, in_words(&check)));
        checks.push(check);
    }
    let fatal: Vec<String> = checks.iter().filter(|check| check.fatal && !check.passed).map(in_words).collect();
    if !fatal.is_empty() {
        return Err(Failure::new(format!("a fatal gate failed: {}", fatal.join("; "))));
    }
    let passed = checks.iter().all(|check| check.passed);
    let seen = |set: &SetReport| set.in_training.filter(|count| *count > 0);
    let in_training = report.sets.iter().filter_map(|(set, report)| Some((set.clone(), seen(report)?))).collect();
    let metrics = report.sets.into_iter().map(|(set, report)| (set, report.metrics)).collect();
    let verdict = Verdict { format: 1, model: report.model, passed, checks, metrics, in_training };
    write_json(&io.out.join("verdict.json"), &verdict)
}

fn check(condition: &Condition, seen: Metric) -> Check {
    let passed = match condition.condition.as_str() {
        "min" => seen.value >= condition.limit - ROUNDING,
        _ => seen.value <= condition.limit + ROUNDING,
    };
    Check {
        metric: condition.metric.clone(),
        on: condition.on.clone(),
        condition: condition.condition.clone(),
        limit: condition.limit,
        value: seen.value,
        low: seen.low,
        high: seen.high,
        passed,
        fatal: condition.fatal,
    }
}

/// `exact_match on seen is 0.7120 [0.6840, 0.7410], min 0.75`
fn in_words(check: &Check) -> String {
    let Check { metric, on, condition, limit, .. } = check;
    let verb = match condition.as_str() {
        "max_drop" => "dropped by",
        "max_rise" => "rose by",
        _ => "is",
    };
    format!("{metric} on {on} {verb} {}, {condition} {limit}", Figure::from(check.metric()))
}

fn read_report(folder: &Path) -> Result<Report, Failure> {
    let path = folder.join("report.json");
    let bytes = read_limited(&path, MAX_REPORT)?;
    json::from_slice(&bytes).map_err(|error| Failure::new(format!("`{}`: {error}", path.display())))
}

fn figure(report: &Report, condition: &Condition) -> Result<Metric, Failure> {
    let metric = report.sets.get(&condition.on).and_then(|set| set.metrics.get(&condition.metric));
    metric.copied().ok_or_else(|| missing(condition))
}

/// How far the model lies below (for a drop) or above (for a rise) the other one, paired item by item.
fn change(ours: &Path, theirs: &Path, condition: &Condition, by: Resampling) -> Result<Metric, Failure> {
    let kind = MetricKind::from_name(&condition.metric).ok_or_else(|| missing(condition))?;
    let terms = |folder: &Path| {
        let items: Vec<Item> = read_lines(&lines_path(&folder.join("items"), &condition.on))?;
        Terms::of(kind, &items).ok_or_else(|| missing(condition))
    };
    let (ours, theirs) = (terms(ours)?, terms(theirs)?);
    let change = if condition.condition == "max_drop" { difference(&theirs, &ours, by) } else { difference(&ours, &theirs, by) };
    change.ok_or_else(|| Failure::new(format!("the two reports on `{}` are not of the same items", condition.on)))
}

fn missing(condition: &Condition) -> Failure {
    Failure::new(format!("the report has no {} on `{}`", condition.metric, condition.on))
}
