//! Multiple choice by likelihood, as lm-evaluation-harness does it (`output_type: multiple_choice`). The action `choices`: one model's
//! log-likelihood of every choice of every document, `SET.jsonl` each, shared by every evaluation that needs them. What a document asks is in
//! `task`, how it becomes tokens in `pair`.

mod pair;
mod task;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::task::{FIELDS, Task};

use self::pair::{Pair, Pairs};
use self::task::{Compiled, Question, Shots};
use super::metric::MetricKind;
use super::report::Item;
use super::score::log_sums;
use super::sets::{self, lines_path, read_lines, write_lines};
use crate::model::{Model, Scored, Stored};
use crate::steps::dataset::record;
use crate::steps::{Failure, Io, Params, typed};

/// Documents between two looks at whether to stop.
const CHUNK: usize = 64;

/// One line of `SET.jsonl`: the choices of one document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    pub loglikelihoods: Vec<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconditional: Option<Vec<f64>>,
    /// Of each choice, in Unicode code points and in bytes of UTF-8.
    pub characters: Vec<u64>,
    pub bytes: Vec<u64>,
    /// The places of the right ones.
    pub targets: Vec<usize>,
}

pub fn run(params: &Params, io: &Io) -> Result<(), Failure> {
    let task: Task = typed(params)?;
    let compiled = compiled(&task)?;
    record::warn_of_skipped(io, "fewshot_split")?;
    let examples = record::read_objects(io.all("fewshot_split"))?;
    let mut shots = Shots::new(&examples);
    let model = sets::open(io.one("model")?)?;
    for (port, paths) in &io.inputs {
        let Some(set) = port.strip_prefix("data.") else { continue };
        record::warn_of_skipped(io, port)?;
        let documents = record::read_objects(paths)?;
        if documents.is_empty() {
            return Err(Failure::new(format!("set `{set}` is empty")));
        }
        let wrong = |index: usize, why: String| Failure::new(format!("document {index} of set `{set}` {why}"));
        let mut ask = |(index, document)| compiled.question(document, &mut shots).map_err(|why| wrong(index, why));
        let questions: Vec<Question> = documents.iter().enumerate().map(&mut ask).collect::<Result<_, _>>()?;
        sets::warn_of_copies(set, questions.iter().map(|question| question.identity), io);
        let mut lines = Vec::with_capacity(questions.len());
        for chunk in questions.chunks(CHUNK) {
            io.check_cancelled()?;
            let start = lines.len();
            lines.extend(answer(&model, chunk, task.unconditional, &|place, why| wrong(start + place, why))?);
            io.progress(lines.len() as u64, questions.len() as u64, "documents", set);
        }
        write_lines(&lines_path(&io.out, set), &lines)?;
        io.say(format!(
            "{set}: {} documents with {} choices",
            lines.len(),
            lines.iter().map(|line| line.loglikelihoods.len()).sum::<usize>()
        ));
    }
    Ok(())
}

/// A task that the plan has checked.
pub fn compiled(task: &Task) -> Result<Compiled<'_>, Failure> {
    task.compile().map_err(|wrong| Failure::bug(format!("a template that was checked is refused: {wrong:?}")))
}

fn answer(
    model: &Model<Stored>,
    questions: &[Question],
    unconditional: bool,
    wrong: &dyn Fn(usize, String) -> Failure,
) -> Result<Vec<Line>, Failure> {
    let mut pairs = Pairs::new(model).map_err(|why| wrong(0, why))?;
    for (place, question) in questions.iter().enumerate() {
        for continuation in &question.continuations {
            pairs.push(&question.context, continuation).map_err(|why| wrong(place, why))?;
        }
        for continuation in question.continuations.iter().filter(|_| unconditional) {
            pairs.push("", continuation).map_err(|why| wrong(place, why))?;
        }
    }
    let sums = loglikelihoods(model, &pairs.pairs, &pairs.sequences)?;
    let mut sums = sums.into_iter();
    let mut lines = Vec::with_capacity(questions.len());
    for (place, question) in questions.iter().enumerate() {
        let mut take = || -> Result<Vec<f64>, Failure> {
            let each = sums.by_ref().take(question.continuations.len());
            each.map(|sum| sum.ok_or_else(|| wrong(place, "gives logits that are not finite numbers".to_string()))).collect()
        };
        lines.push(Line {
            loglikelihoods: take()?,
            unconditional: if unconditional { Some(take()?) } else { None },
            characters: question.choices.iter().map(|choice| choice.chars().count() as u64).collect(),
            bytes: question.choices.iter().map(|choice| choice.len() as u64).collect(),
            targets: question.targets.clone(),
        });
    }
    Ok(lines)
}

/// ln P of each pair's continuation, in the pairs' order; nothing where a logit is not finite. Pairs that read the same tokens share a pass.
fn loglikelihoods(model: &Model<Stored>, pairs: &[Pair], sequences: &[Scored]) -> Result<Vec<Option<f64>>, Failure> {
    let vocab = model.config.vocab_size;
    let mut by_sequence: Vec<Vec<usize>> = vec![Vec::new(); sequences.len()];
    for (index, pair) in pairs.iter().enumerate() {
        by_sequence[pair.sequence].push(index);
    }
    let mut sums = vec![None; pairs.len()];
    let scored = model.score(sequences, &mut |sequence, logits| {
        let of_rows = log_sums(logits, vocab);
        for index in by_sequence.get(sequence).into_iter().flatten() {
            let rows = logits.chunks_exact(vocab).zip(&of_rows).zip(&pairs[*index].targets);
            let logs = rows.map(|((row, sum), target)| Some(f64::from(*row.get(*target as usize)?) - (*sum)?));
            sums[*index] = logs.sum();
        }
    });
    scored.map_err(|error| Failure::model("score the choices", &error))?;
    Ok(sums)
}

/// Reads back what the model and the reference chose, and fills in the items.
pub fn items(set: &str, metrics: &[MetricKind], io: &Io) -> Result<Vec<Item>, Failure> {
    let lines = |folder: &Path| read_lines::<Line>(&lines_path(folder, set));
    let ours = lines(io.one("choices")?)?;
    let theirs = io.maybe("reference_choices").map(lines).transpose()?;
    if let Some(theirs) = theirs.as_ref().filter(|theirs| theirs.len() != ours.len()) {
        return Err(Failure::new(format!("set `{set}` has {} documents and {} of the reference", ours.len(), theirs.len())));
    }
    let has = |metric| metrics.contains(&metric);
    let item = |(index, line): (usize, Line)| {
        let right = |scores: Vec<f64>| argmax(&scores).map(|best| line.targets.contains(&best));
        let by_length = |lengths: &[u64]| line.loglikelihoods.iter().zip(lengths).map(|(log, length)| log / *length as f64).collect();
        let without =
            |unconditional: &Vec<f64>| line.loglikelihoods.iter().zip(unconditional).map(|(with, without)| with - without).collect();
        let reference = theirs.as_ref().and_then(|theirs| theirs.get(index));
        Item {
            index: index as u64,
            acc: right(line.loglikelihoods.clone()),
            acc_norm: if has(MetricKind::AccNorm) { right(by_length(&line.characters)) } else { None },
            acc_bytes: if has(MetricKind::AccBytes) { right(by_length(&line.bytes)) } else { None },
            acc_mutual_info: line.unconditional.as_ref().and_then(|unconditional| right(without(unconditional))),
            reference_acc: reference.and_then(|line| argmax(&line.loglikelihoods).map(|best| line.targets.contains(&best))),
            targets: Some(line.targets.clone()),
            loglikelihoods: Some(line.loglikelihoods.clone()),
            unconditional_loglikelihoods: line.unconditional.clone(),
            ..Item::default()
        }
    };
    Ok(ours.into_iter().enumerate().map(item).collect())
}

/// The first of the largest.
fn argmax(scores: &[f64]) -> Option<usize> {
    let mut best = 0;
    for (place, score) in scores.iter().enumerate() {
        if *score > *scores.get(best)? {
            best = place;
        }
    }
    (!scores.is_empty()).then_some(best)
}
