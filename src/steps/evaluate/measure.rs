//! The action `measure`: answers and probabilities → items, figures with intervals, the comparison with the reference.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::answer::Answer;
use super::choice;
use super::judge::Judge;
use super::metric::{MetricKind, Shape};
use super::report::{Comparison, Item, ModelFacts, Report, SetReport};
use super::score::Scores;
use super::sets::{self, Set, lines_path, read_lines, write_lines};
use super::statistics::{Resampling, Terms, mcnemar, metric};
use super::{facts, overlap, score};
use crate::base::files;
use crate::bundle::description::Figure;
use crate::model::{Model, Stored};
use crate::steps::dataset::normal::normalized_digest;
use crate::steps::pattern::Extract;
use crate::steps::{Failure, Io, Params, typed};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    metrics: Vec<String>,
    resamples: u64,
    seed: u64,
    n_ctx: Option<usize>,
    regex: Option<String>,
    extract: Option<Extract>,
}

/// As llama.cpp lists them.
const PERCENTILES: [f64; 11] = [0.0, 0.1, 1.0, 5.0, 10.0, 50.0, 90.0, 95.0, 99.0, 99.9, 100.0];

pub fn run(params: &Params, io: &Io) -> Result<(), Failure> {
    let fields: Fields = typed(params)?;
    let metrics: Vec<MetricKind> = fields.metrics.iter().filter_map(|name| MetricKind::from_name(name)).collect();
    let by = Resampling { resamples: fields.resamples, seed: fields.seed };
    let scored = metrics.iter().any(|metric| metric.needs_scores());
    let model = if scored { Some(sets::open(io.one("model")?)?.at(io.now)) } else { None };
    let folder = io.out.join("items");
    std::fs::create_dir(&folder).map_err(|error| Failure::file("create", &folder, &error))?;
    let overlaps = overlap::read(io)?;
    let mut reports = BTreeMap::new();
    let mut each = |set: &str, items: &[Item]| {
        write_lines(&lines_path(&folder, set), items)?;
        let mut report = summarize(set, &metrics, items, by)?;
        report.in_training = overlaps.as_ref().and_then(|overlaps| overlaps.sets.get(set)).map(|overlap| overlap.in_training);
        say(set, &report, io);
        reports.insert(set.to_string(), report);
        Ok::<_, Failure>(())
    };
    if metrics.iter().any(|metric| metric.is_of_choices()) {
        for set in sets::names(io) {
            each(set, &choice::items(set, &metrics, io)?)?;
        }
    } else {
        let reference = io.maybe("reference").map(sets::open).transpose()?;
        let judge = Judge::new(&metrics, fields.regex.as_deref(), fields.extract.as_ref(), io)?;
        for set in sets::read(io)? {
            sets::warn_of_copies(&set.name, set.records.iter().map(normalized_digest), io);
            let models = model.as_ref().map(|model| (model, reference.as_ref()));
            each(&set.name, &items(&set, &metrics, fields.n_ctx, models, &judge, io)?)?;
        }
    }
    let report = Report { format: 1, model: model_facts(io.one("model")?, model.as_ref())?, sets: reports };
    write_json(&io.out.join("report.json"), &report)
}

pub fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::bug(error.to_string()))?;
    files::write_atomic(path, format!("{text}\n").as_bytes()).map_err(|error| Failure::file("write", path, &error))
}

/// The items of a set of records: their answers judged, and, with a model, their texts scored.
fn items(
    set: &Set,
    metrics: &[MetricKind],
    n_ctx: Option<usize>,
    models: Option<(&Model<Stored>, Option<&Model<Stored>>)>,
    judge: &Judge,
    io: &Io,
) -> Result<Vec<Item>, Failure> {
    let examples = models.map(|(model, _)| set.examples(model, n_ctx)).transpose()?;
    let count = examples.as_ref().map_or(set.records.len(), Vec::len);
    let mut items: Vec<Item> = (0..count).map(|index| Item { index: index as u64, ..Item::default() }).collect();
    judge_answers(set, judge, io, &mut items)?;
    if let (Some((model, reference)), Some(examples)) = (models, examples) {
        score::score(&Scores { set, examples, n_ctx }, model, reference, &mut items, io)?;
    }
    if !metrics.iter().any(|metric| matches!(metric.shape(), Shape::Percentile(_))) {
        items.iter_mut().for_each(|item| item.token_kl_divergences = None);
    }
    Ok(items)
}

/// Fills in what can be read off the answers.
fn judge_answers(set: &Set, judge: &Judge, io: &Io, items: &mut [Item]) -> Result<(), Failure> {
    let answers = |port: &str| io.maybe(port).map(|folder| read_lines::<Answer>(&lines_path(folder, &set.name))).transpose();
    let (answers, reference) = (answers("answers")?, answers("reference_answers")?);
    let mut read = [&answers, &reference].into_iter().flatten();
    if let Some(answers) = read.find(|answers| answers.len() != items.len()) {
        return Err(Failure::new(format!("set `{}` has {} items and {} answers", set.name, items.len(), answers.len())));
    }
    for (index, item) in items.iter_mut().enumerate() {
        if let Some(answer) = answers.as_ref().and_then(|answers| answers.get(index)) {
            judge.answer(set, index, &answer.output, item)?;
        }
        if let Some(answer) = reference.as_ref().and_then(|answers| answers.get(index)) {
            judge.reference_answer(set, index, &answer.output, item)?;
        }
    }
    Ok(())
}

fn summarize(set: &str, kinds: &[MetricKind], items: &[Item], by: Resampling) -> Result<SetReport, Failure> {
    let (mut metrics, mut kl_percentiles) = (BTreeMap::new(), BTreeMap::new());
    for kind in kinds {
        let terms = Terms::of(*kind, items);
        let terms = terms.ok_or_else(|| Failure::new(format!("set `{set}` has nothing to measure {} on", kind.name())))?;
        let figure = metric(&terms, by).ok_or_else(|| Failure::new(format!("set `{set}`: {} is too large to be a number", kind.name())))?;
        metrics.insert(kind.name().to_string(), figure);
        if let Terms::Percentile(tokens) = terms {
            let at = |percent: f64| Some((percent.to_string(), tokens.at(percent / 100.0)?));
            kl_percentiles = PERCENTILES.into_iter().filter_map(at).collect();
        }
    }
    Ok(SetReport { items: items.len() as u64, metrics, comparison: comparison(items), in_training: None, kl_percentiles })
}

/// Where the reference was asked the same.
fn comparison(items: &[Item]) -> Option<Comparison> {
    let (mut gained, mut lost) = (0, 0);
    for item in items {
        match (item.is_right()?, item.was_right()?) {
            (true, false) => gained += 1,
            (false, true) => lost += 1,
            _ => {}
        }
    }
    Some(Comparison { gained, lost, p_value: mcnemar(gained, lost) })
}

fn say(set: &str, report: &SetReport, io: &Io) {
    for (name, metric) in &report.metrics {
        io.say(format!("{set}: {name} {}", Figure::from(*metric)));
    }
    if let Some(Comparison { gained, lost, p_value }) = report.comparison {
        io.say(format!("{set}: against the reference {gained} gained, {lost} lost, p = {p_value:.2e}"));
    }
    if let Some(count) = report.in_training.filter(|count| *count > 0) {
        io.say(format!("{set}: the model learned from {count} of its records"));
    }
}

fn model_facts(path: &Path, model: Option<&Model<Stored>>) -> Result<ModelFacts, Failure> {
    facts::facts(path, model.map(|model| model.weights.parameters() as u64)).map_err(|error| Failure::model("open the model", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_counts_both_ways() {
        let item = |ours, theirs| Item { exact_match: Some(ours), reference_exact_match: Some(theirs), ..Item::default() };
        let items = [item(true, false), item(true, false), item(false, true), item(true, true), item(false, false)];
        let found = comparison(&items).unwrap();
        assert_eq!((found.gained, found.lost, found.p_value), (2, 1, 1.0));
        assert!(comparison(&[Item::default()]).is_none());
    }
}
