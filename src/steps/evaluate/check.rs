//! What is wrong with a declared evaluation, apart from its gates: metrics without what they need, fields that nothing heeds, patterns and
//! templates that are none.

use super::choice;
use super::expand::Fields;
use super::metric::MetricKind;
use crate::steps::pattern::{Extractor, Pattern};
use crate::steps::{Declared, Problem};

pub fn check(declared: &Declared, fields: &Fields, metrics: &[MetricKind]) -> Vec<Problem> {
    let mut problems = Vec::new();
    if metrics.is_empty() {
        problems.push(Problem::at("metrics", "no metric is asked for").label("an empty list"));
    }
    if sets(declared).next().is_none() {
        problems.push(Problem::at("data", "there is no data to evaluate on").label("no set"));
    }
    for set in sets(declared).filter(|set| !is_file_name(set)) {
        let why = "a set's name is a file's name: letters, digits and `_-.@=,` only, not starting with a dot";
        problems.push(Problem::at(format!("data.{set}"), format!("`{set}` cannot be the name of a set")).help(why));
    }
    if declared.inputs("reference").is_empty() {
        for metric in metrics.iter().filter(|metric| metric.needs_reference()) {
            let message = format!("`{}` compares with another model, and there is no `reference`", metric.name());
            problems.push(Problem::at("metrics", message).help("add `reference = \"…\"`, the model to compare with"));
        }
    }
    match metrics.iter().find(|metric| metric.is_of_choices()) {
        Some(first) => check_choices(declared, fields, metrics, *first, &mut problems),
        None => check_answers(declared, fields, metrics, &mut problems),
    }
    problems
}

/// The names of the data's sets.
pub fn sets(declared: &Declared) -> impl Iterator<Item = &str> {
    declared.ports.iter().filter_map(|port| port.name.strip_prefix("data."))
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.@=,".contains(c))
}

fn is_given(declared: &Declared, field: &str) -> bool {
    declared.params.contains_key(field) || declared.port(field).is_some()
}

/// Answers and texts.
fn check_answers(declared: &Declared, fields: &Fields, metrics: &[MetricKind], problems: &mut Vec<Problem>) {
    if let Some(metric) = metrics.iter().find(|metric| fields.n_ctx.is_some() && metric.needs_answers()) {
        let message = format!("`{}` needs answers, and windows of plain texts have none", metric.name());
        let help = "leave `n_ctx` out, or measure answers in an evaluation of their own";
        problems.push(Problem::at("n_ctx", message).help(help));
    }
    for field in choice::FIELDS.iter().chain(&["fewshot_split"]).filter(|field| is_given(declared, field)) {
        let message = format!("`{field}` belongs to multiple choice, and no such metric is asked for");
        problems.push(Problem::at(*field, message).help("add `acc`, `acc_norm`, `acc_bytes` or `acc_mutual_info` to `metrics`"));
    }
    for (field, metric) in [("regex", MetricKind::RegexMatch), ("json_schema", MetricKind::JsonSchemaValid)] {
        match (is_given(declared, field), metrics.contains(&metric)) {
            (true, false) => {
                let message = format!("`{field}` is what `{}` holds answers against, and it is not asked for", metric.name());
                problems.push(Problem::at(field, message).help(format!("add `{}` to `metrics`", metric.name())));
            }
            (false, true) => {
                let message = format!("`{}` needs something to hold answers against", metric.name());
                problems.push(Problem::at("metrics", message).help(format!("add `{field} = \"…\"`")));
            }
            _ => {}
        }
    }
    if fields.extract.is_some() && !metrics.iter().any(|metric| metric.needs_answers()) {
        problems.push(Problem::at("extract", "there is no answer to take something out of").help("ask for `exact_match`, for example"));
    }
    let wrong = |path: &str, why: String| Problem::at(path, format!("not a regular expression: {why}"));
    if let Some(Err(why)) = fields.regex.as_deref().map(Pattern::new) {
        problems.push(wrong("regex", why));
    }
    if let Some(Err(why)) = fields.extract.as_ref().map(Extractor::new) {
        problems.push(wrong("extract.regex_pattern", why));
    }
}

/// Documents with choices, which are neither answered nor scored as texts.
fn check_choices(declared: &Declared, fields: &Fields, metrics: &[MetricKind], first: MetricKind, problems: &mut Vec<Problem>) {
    let others = metrics.iter().filter(|metric| !metric.is_of_choices() && **metric != MetricKind::Flips);
    for other in others {
        let message = format!("`{}` is not a metric of multiple choice, as `{}` is", other.name(), first.name());
        problems.push(Problem::at("metrics", message).help("measure it in an evaluation of its own"));
    }
    for field in ["n_ctx", "regex", "extract", "json_schema"].into_iter().filter(|field| is_given(declared, field)) {
        let message = format!("`{field}` has no meaning in multiple choice, which `{}` is", first.name());
        problems.push(Problem::at(field, message).help("leave it out, or move it to an evaluation of its own"));
    }
    if fields.num_fewshot.is_some() && declared.inputs("fewshot_split").is_empty() {
        let help = "add `fewshot_split = \"…\"`, a set with solved documents that is not tested on";
        problems.push(Problem::at("num_fewshot", "there is nothing to take examples from").help(help));
    }
    for field in ["fewshot_split", "fewshot_delimiter"] {
        if fields.num_fewshot.is_none() && is_given(declared, field) {
            let help = "add `num_fewshot = 5`, say, or leave it out";
            problems.push(Problem::at(field, format!("`{field}` is about examples, and none is to be shown")).help(help));
        }
    }
    if let Err(wrong) = fields.task(metrics).compile() {
        problems.push(Problem::at(wrong.field, format!("`{}` cannot be used: {}", wrong.field, wrong.why)));
    }
}
