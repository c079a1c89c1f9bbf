//! The action `overlap`: which records of the test sets are among the data that the model learned from. Prompts are compared as leak checks compare them;
//! of multiple choice the rendered question is, alone and with its right answer. It knows no model.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::choice::{self, Task};
use super::measure::write_json;
use super::sets;
use crate::base::{Digest, json};
use crate::model::read_limited;
use crate::steps::dataset::normal::normalized;
use crate::steps::dataset::record::{self, Record};
use crate::steps::{Failure, Io, Params, typed};

/// The output's file.
const FILE: &str = "overlap.json";
/// Of a file that holds a few numbers for each set.
const FILE_MAX_BYTES: u64 = 16 << 20;
/// How many records are named.
const MAX_NAMED: usize = 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    /// Of multiple choice: how a document is rendered.
    task: Option<Task>,
}

/// `overlap.json`
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlaps {
    /// 1
    format: u32,
    pub sets: BTreeMap<String, Overlap>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlap {
    pub records: u64,
    /// How many of them the model learned from.
    pub in_training: u64,
    /// The places of the first of them, from 0.
    first: Vec<usize>,
}

/// Where prompts stand: the set and the record's place in it.
type Places = BTreeMap<Digest, Vec<(String, usize)>>;

pub fn run(params: &Params, io: &Io) -> Result<(), Failure> {
    let fields: Fields = typed(params)?;
    let mut overlaps = Overlaps { format: 1, ..Overlaps::default() };
    let asked = match &fields.task {
        Some(task) => documents(task, io, &mut overlaps)?,
        None => records(io, &mut overlaps)?,
    };
    let mut found: BTreeSet<&(String, usize)> = BTreeSet::new();
    record::read_lines(io.all("lessons"), &mut |line| {
        io.check_cancelled()?;
        for text in learned(&line.record, fields.task.is_some()) {
            found.extend(asked.get(&Digest::of(normalized(&text).as_bytes())).into_iter().flatten());
        }
        Ok(())
    })?;
    for (set, place) in found {
        let Some(overlap) = overlaps.sets.get_mut(set) else { continue };
        overlap.in_training += 1;
        if overlap.first.len() < MAX_NAMED {
            overlap.first.push(*place);
        }
    }
    overlaps.sets.iter().for_each(|(set, overlap)| overlap.warn(set, io));
    write_json(&io.out.join(FILE), &overlaps)
}

/// What an evaluation was told of its model's data; nothing if that is unknown.
pub fn read(io: &Io) -> Result<Option<Overlaps>, Failure> {
    let Some(folder) = io.maybe("overlap") else { return Ok(None) };
    let path = folder.join(FILE);
    let bytes = read_limited(&path, FILE_MAX_BYTES)?;
    json::from_slice(&bytes).map(Some).map_err(|error| Failure::new(format!("`{}`: {error}", path.display())))
}

impl Overlap {
    fn warn(&self, set: &str, io: &Io) {
        let Overlap { records, in_training, first } = self;
        if *in_training == 0 {
            return;
        }
        let more = if *in_training > first.len() as u64 { ", …" } else { "" };
        let named = first.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        io.warn(format!(
            "{in_training} of {records} records of set `{set}` are in the data that the model learned from (records {named}{more}, counted from 0): \
             figures on them say little about new data"
        ));
    }
}

fn records(io: &Io, overlaps: &mut Overlaps) -> Result<Places, Failure> {
    let mut places = Places::new();
    for set in sets::names(io) {
        let records = record::read(io.all(&format!("data.{set}")))?;
        for (place, record) in records.iter().enumerate() {
            add(&mut places, &record.prompt(), set, place);
        }
        overlaps.sets.insert(set.to_string(), Overlap { records: records.len() as u64, ..Overlap::default() });
    }
    Ok(places)
}

fn documents(task: &Task, io: &Io, overlaps: &mut Overlaps) -> Result<Places, Failure> {
    let compiled = choice::compiled(task)?;
    let mut places = Places::new();
    for set in sets::names(io) {
        let documents = record::read_objects(io.all(&format!("data.{set}")))?;
        for (place, document) in documents.iter().enumerate() {
            let rendered = compiled.rendered(document).map_err(|why| Failure::new(format!("document {place} of set `{set}` {why}")))?;
            rendered.iter().for_each(|text| add(&mut places, text, set, place));
        }
        overlaps.sets.insert(set.to_string(), Overlap { records: documents.len() as u64, ..Overlap::default() });
    }
    Ok(places)
}

fn add(places: &mut Places, text: &str, set: &str, place: usize) {
    let normal = normalized(text);
    // An empty question is every empty question.
    if !normal.is_empty() {
        places.entry(Digest::of(normal.as_bytes())).or_default().push((set.to_string(), place));
    }
}

/// All that a model learned to answer by a record: each turn of a conversation was a prompt. With `answered`, the answers stand behind, too.
fn learned(record: &Record, answered: bool) -> Vec<String> {
    let mut texts = match record {
        Record::Messages(chat) => {
            let turns = chat.messages.iter().enumerate().filter(|(_, message)| message.is_assistant()).map(|(place, _)| place);
            let before = |end: usize| chat.messages.iter().take(end).map(|message| message.text()).collect::<Vec<_>>().join("\n");
            turns.map(before).collect()
        }
        other => vec![other.prompt()],
    };
    if answered && let Some(completion) = record.completion() {
        texts.push(format!("{} {completion}", record.prompt()));
    }
    texts
}
