//! Which records stay: filters, duplicates, leaks, sample and limit. It drops and counts; it changes no record.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::normal::{exact_digest, folded, lot, normalized_digest, prompt_digest, texts};
use super::record::{self, Line};
use super::{Counts, OnLeak, Settings};
use crate::base::{Digest, json};
use crate::steps::{Failure, Io};

/// A record that stays.
#[derive(Debug)]
pub struct Kept {
    /// The how-manieth it was when read, from 1: for messages, which must not show the data itself.
    pub number: u64,
    pub prompt: Digest,
    pub line: Line,
    /// Index of its split; 0 without splits.
    pub split: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dedup {
    None,
    Exact,
    Normalized,
    Prompt,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    min_chars: Option<u64>,
    max_chars: Option<u64>,
    has_completion: Option<bool>,
    json_completion: Option<bool>,
    contains: Option<Vec<String>>,
    excludes: Option<Vec<String>>,
}

impl Counts {
    pub fn drop(&mut self, reason: &str, count: u64) {
        if count > 0 {
            *self.dropped.entry(reason.to_string()).or_default() += count;
        }
    }
}

/// Reads the data and keeps what may stay, in the order of reading.
pub fn kept(settings: &Settings, io: &Io, counts: &mut Counts) -> Result<Vec<Kept>, Failure> {
    let filter = settings.filter.folded();
    record::warn_of_skipped(io, "data")?;
    record::warn_of_skipped(io, "disjoint_from")?;
    let held_out = held_out(io)?;
    let (mut kept, mut seen, mut leaks) = (Vec::new(), BTreeSet::new(), Leaks::default());
    record::read_lines(io.all("data"), &mut |line| {
        io.check_cancelled()?;
        counts.read += 1;
        for key in line.extra.keys() {
            *counts.other_keys.entry(key.clone()).or_default() += 1;
        }
        let prompt = prompt_digest(&line.record);
        if let Some(reason) = filter.reason_to_drop(&line) {
            counts.drop(reason, 1);
        } else if settings.dedup.digest(&line, prompt).is_some_and(|digest| !seen.insert(digest)) {
            counts.drop("duplicate", 1);
        } else if held_out.contains(&prompt) {
            leaks.add(counts.read);
        } else {
            kept.push(Kept { number: counts.read, prompt, line, split: 0 });
        }
        Ok(())
    })?;
    leaks.settle(settings.on_leak, "is in `disjoint_from` too", counts)?;
    sample(settings, &mut kept, counts);
    if let Some(limit) = settings.limit {
        let before = kept.len();
        kept.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        counts.drop("limit", (before - kept.len()) as u64);
    }
    Ok(kept)
}

/// An order that the seed and each record's own content decide; equal records stay as they were.
pub fn shuffle(seed: u64, lines: &mut [Kept]) {
    lines.sort_by_cached_key(|kept| lot(seed, "shuffle", exact_digest(&kept.line.record).as_bytes()));
}

fn held_out(io: &Io) -> Result<BTreeSet<Digest>, Failure> {
    let mut prompts = BTreeSet::new();
    record::read_lines(io.all("disjoint_from"), &mut |line| {
        io.check_cancelled()?;
        prompts.insert(prompt_digest(&line.record));
        Ok(())
    })?;
    Ok(prompts)
}

/// Keeps the records with the lowest lots, so that a larger sample holds the smaller one.
fn sample(settings: &Settings, kept: &mut Vec<Kept>, counts: &mut Counts) {
    let Some(size) = settings.sample.map(|size| usize::try_from(size).unwrap_or(usize::MAX)).filter(|size| *size < kept.len()) else {
        return;
    };
    let mut lots: Vec<(u64, u64)> =
        kept.iter().map(|kept| (lot(settings.seed, "sample", exact_digest(&kept.line.record).as_bytes()), kept.number)).collect();
    lots.sort_unstable();
    let chosen: BTreeSet<u64> = lots[..size].iter().map(|(_, number)| *number).collect();
    counts.drop("sample", (kept.len() - size) as u64);
    kept.retain(|kept| chosen.contains(&kept.number));
}

impl Dedup {
    fn digest(self, line: &Line, prompt: Digest) -> Option<Digest> {
        match self {
            Dedup::None => None,
            Dedup::Exact => Some(exact_digest(&line.record)),
            Dedup::Normalized => Some(normalized_digest(&line.record)),
            Dedup::Prompt => Some(prompt),
        }
    }
}

impl Filter {
    /// With its strings as `reason_to_drop` looks for them.
    fn folded(&self) -> Filter {
        let fold = |strings: &Option<Vec<String>>| strings.as_ref().map(|list| list.iter().map(|text| folded(text)).collect());
        Filter { contains: fold(&self.contains), excludes: fold(&self.excludes), ..*self }
    }

    fn reason_to_drop(&self, line: &Line) -> Option<&'static str> {
        let completion = line.record.completion();
        let is_json = || completion.as_deref().is_some_and(|text| json::exact(text).is_ok());
        let chars = || texts(line).iter().map(|text| text.chars().count() as u64).sum::<u64>();
        let has_any = |strings: &[String]| {
            let all: Vec<String> = texts(line).iter().map(|text| folded(text)).collect();
            strings.iter().any(|wanted| all.iter().any(|text| text.contains(wanted)))
        };
        match self {
            _ if self.has_completion.is_some_and(|wanted| wanted != completion.is_some()) => Some("filter.has_completion"),
            _ if self.min_chars.is_some_and(|min| chars() < min) => Some("filter.min_chars"),
            _ if self.max_chars.is_some_and(|max| chars() > max) => Some("filter.max_chars"),
            _ if self.json_completion.is_some_and(|wanted| wanted != is_json()) => Some("filter.json_completion"),
            _ if self.contains.as_ref().is_some_and(|strings| !has_any(strings)) => Some("filter.contains"),
            _ if self.excludes.as_ref().is_some_and(|strings| has_any(strings)) => Some("filter.excludes"),
            _ => None,
        }
    }
}

/// Leaked records, by number.
#[derive(Debug, Default)]
pub struct Leaks {
    count: u64,
    first: Vec<String>,
}

impl Leaks {
    pub fn add(&mut self, number: u64) {
        self.count += 1;
        if self.first.len() < 10 {
            self.first.push(number.to_string());
        }
    }

    /// Fails, or counts them as dropped. `what` completes "the prompt of record 3 …".
    pub fn settle(self, on_leak: OnLeak, what: &str, counts: &mut Counts) -> Result<(), Failure> {
        if self.count == 0 || on_leak == OnLeak::Drop {
            counts.drop("leak", self.count);
            return Ok(());
        }
        let Leaks { count, first } = self;
        let more = if count > first.len() as u64 { ", …" } else { "" };
        let records = if count == 1 { "record" } else { "records" };
        Err(Failure::new(format!(
            "leak: {count} {records} whose prompt {what} ({records} {}{more}, counted from 1 as read)",
            first.join(", ")
        ))
        .help("remove them from the data, or leave them out with on_leak = \"drop\""))
    }
}
