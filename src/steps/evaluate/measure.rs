//! The action `measure`: answers and probabilities → items, figures with intervals, the comparison with the reference.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::answer::Answer;
use super::metric::MetricKind;
use super::report::{Comparison, Item, ModelFacts, Report, SetReport};
use super::score::Scores;
use super::sets::{self, Set, lines_path, read_lines, write_lines};
use super::statistics::{Resampling, Terms, mcnemar, metric};
use super::{facts, score};
use crate::base::files;
use crate::model::{Model, Stored};
use crate::steps::{Failure, Io, Params, typed};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    metrics: Vec<String>,
    resamples: u64,
    seed: u64,
    n_ctx: Option<usize>,
}

/// As llama.cpp lists them.
const PERCENTILES: [f64; 11] = [0.0, 0.1, 1.0, 5.0, 10.0, 50.0, 90.0, 95.0, 99.0, 99.9, 100.0];

pub fn run(params: &Params, io: &Io) -> Result<(), Failure> {
    let fields: Fields = typed(params)?;
    let metrics: Vec<MetricKind> = fields.metrics.iter().filter_map(|name| MetricKind::from_name(name)).collect();
    let by = Resampling { resamples: fields.resamples, seed: fields.seed };
    let scored = metrics.iter().any(|metric| metric.needs_scores());
    let model = if scored { Some(sets::open(io.one("model")?)?) } else { None };
    let reference = io.maybe("reference").map(sets::open).transpose()?;
    let folder = io.out.join("items");
    std::fs::create_dir(&folder).map_err(|error| Failure::file("create", &folder, &error))?;
    let mut reports = BTreeMap::new();
    for set in sets::read(io)? {
        let scores = match &model {
            Some(model) => Some((model, set.examples(model, fields.n_ctx)?)),
            None => None,
        };
        let count = scores.as_ref().map_or(set.records.len(), |(_, examples)| examples.len());
        let mut items: Vec<Item> = (0..count).map(|index| Item { index: index as u64, ..Item::default() }).collect();
        judge_answers(&set, &metrics, io, &mut items)?;
        if let Some((model, examples)) = scores {
            score::score(&Scores { set: &set, examples, n_ctx: fields.n_ctx }, model, reference.as_ref(), &mut items, io)?;
        }
        if !metrics.iter().any(|metric| metric.percentile().is_some()) {
            items.iter_mut().for_each(|item| item.token_kl_divergences = None);
        }
        write_lines(&lines_path(&folder, &set.name), &items)?;
        let report = summarize(&set, &metrics, &items, by)?;
        say(&set, &report, io);
        reports.insert(set.name, report);
    }
    let report = Report { format: 1, model: model_facts(io.one("model")?, model.as_ref())?, sets: reports };
    write_json(&io.out.join("report.json"), &report)
}

pub fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::bug(error.to_string()))?;
    files::write_atomic(path, format!("{text}\n").as_bytes()).map_err(|error| Failure::file("write", path, &error))
}

/// Fills in what can be read off the answers.
fn judge_answers(set: &Set, metrics: &[MetricKind], io: &Io, items: &mut [Item]) -> Result<(), Failure> {
    let answers = |port: &str| io.maybe(port).map(|folder| read_lines::<Answer>(&lines_path(folder, &set.name))).transpose();
    let (answers, reference) = (answers("answers")?, answers("reference_answers")?);
    let compares = metrics.iter().any(|metric| matches!(metric, MetricKind::ExactMatch | MetricKind::Flips));
    let mut read = [&answers, &reference].into_iter().flatten();
    if let Some(answers) = read.find(|answers| answers.len() != items.len()) {
        return Err(Failure::new(format!("set `{}` has {} items and {} answers", set.name, items.len(), answers.len())));
    }
    for (index, item) in items.iter_mut().enumerate() {
        let expected = if compares { Some(set.expected(index)?.trim()) } else { None };
        let right = |answer: &Answer| expected.map(|expected| answer.output.trim() == expected);
        if let Some(answer) = answers.as_ref().and_then(|answers| answers.get(index)) {
            item.exact_match = right(answer);
            item.json_valid = metrics.contains(&MetricKind::JsonValid).then(|| is_json(&answer.output));
            item.output = Some(answer.output.clone());
        }
        item.reference_exact_match = reference.as_ref().and_then(|answers| answers.get(index)).and_then(right);
    }
    Ok(())
}

/// One JSON value of RFC 8259 and nothing after it.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(text).is_ok()
}

fn summarize(set: &Set, kinds: &[MetricKind], items: &[Item], by: Resampling) -> Result<SetReport, Failure> {
    let (mut metrics, mut kl_percentiles) = (BTreeMap::new(), BTreeMap::new());
    for kind in kinds {
        let terms = Terms::of(*kind, items);
        let terms = terms.ok_or_else(|| Failure::new(format!("set `{}` has nothing to measure {} on", set.name, kind.name())))?;
        metrics.insert(kind.name().to_string(), metric(&terms, by));
        if let Terms::Percentile(tokens) = terms {
            let at = |percent: f64| Some((percent.to_string(), tokens.at(percent / 100.0)?));
            kl_percentiles = PERCENTILES.into_iter().filter_map(at).collect();
        }
    }
    Ok(SetReport { items: items.len() as u64, metrics, comparison: comparison(items), kl_percentiles })
}

/// Where the reference was asked the same.
fn comparison(items: &[Item]) -> Option<Comparison> {
    let (mut gained, mut lost) = (0, 0);
    for item in items {
        match (item.exact_match?, item.reference_exact_match?) {
            (true, false) => gained += 1,
            (false, true) => lost += 1,
            _ => {}
        }
    }
    Some(Comparison { gained, lost, p_value: mcnemar(gained, lost) })
}

fn say(set: &Set, report: &SetReport, io: &Io) {
    for (name, metric) in &report.metrics {
        io.say(format!("{}: {name} {:.4} [{:.4}, {:.4}]", set.name, metric.value, metric.low, metric.high));
    }
    if let Some(Comparison { gained, lost, p_value }) = report.comparison {
        io.say(format!("{}: against the reference {gained} gained, {lost} lost, p = {p_value:.2e}", set.name));
    }
}

fn model_facts(path: &Path, model: Option<&Model<Stored>>) -> Result<ModelFacts, Failure> {
    facts::facts(path, model.map(|model| model.weights.parameters() as u64)).map_err(|error| sets::cannot("open the model", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_one_value() {
        for good in ["{\"a\": 1}", " [1, 2]\n", "null", "\"x\""] {
            assert!(is_json(good), "{good}");
        }
        for bad in ["", "{", "{} {}", "{'a': 1}", "nul", "{\"a\": NaN}"] {
            assert!(!is_json(bad), "{bad}");
        }
        assert!(!is_json(&"[".repeat(100_000)));
    }

    #[test]
    fn a_comparison_counts_both_ways() {
        let item = |ours, theirs| Item { exact_match: Some(ours), reference_exact_match: Some(theirs), ..Item::default() };
        let items = [item(true, false), item(true, false), item(false, true), item(true, true), item(false, false)];
        let found = comparison(&items).unwrap();
        assert_eq!((found.gained, found.lost, found.p_value), (2, 1, 1.0));
        assert!(comparison(&[Item::default()]).is_none());
    }
}
