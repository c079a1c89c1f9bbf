//! The action `labels`: prompts and answers → `data.jsonl`, of the answers that hold up, and `teacher_labels.json`, which counts the others by
//! what they lack.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ask::{FILE, Given};
use crate::base::{files, json};
use crate::model::Message;
use crate::steps::dataset::record::{self, Line, Record};
use crate::steps::json::Schema;
use crate::steps::pattern::Pattern;
use crate::steps::{Failure, Io};

/// More than a teacher writes in a year.
const MAX_ANSWERS: u64 = 64 << 30;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keeping {
    max_dropped: f64,
    regex: Option<String>,
    min_confidence: Option<f64>,
}

/// `teacher_labels.json`: counts, and no word of the data.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// 1
    pub format: u32,
    pub prompts: u64,
    /// Answers that were asked for.
    pub asked: u64,
    pub kept: u64,
    /// By the first thing that an answer lacks: `prompt_too_long`, `unfinished`, `regex`, `json`, `json_schema`, `min_confidence`.
    pub dropped: BTreeMap<String, u64>,
    /// Prompts of which no answer was kept.
    pub prompts_without_label: u64,
    /// Of the answers that were kept.
    pub mean_confidence: f64,
}

struct Demands {
    regex: Option<Pattern>,
    schema: Option<Schema>,
    min_confidence: Option<f64>,
}

pub fn run(keeping: &Keeping, io: &Io) -> Result<(), Failure> {
    let mut prompts: Vec<Line> = Vec::new();
    record::read_lines(io.all("prompts"), &mut |line| {
        prompts.push(line);
        Ok(())
    })?;
    let given = read(io)?;
    let regex = keeping.regex.as_deref().map(Pattern::new).transpose();
    let regex = regex.map_err(|why| Failure::bug(format!("a pattern that was checked is refused: {why}")))?;
    let schema = io.maybe("json_schema").map(Schema::open).transpose()?;
    let demands = Demands { regex, schema, min_confidence: keeping.min_confidence };
    let mut ledger = Ledger { format: 1, prompts: prompts.len() as u64, asked: given.len() as u64, ..Ledger::default() };
    let has_samples = given.iter().any(|given| given.sample > 0);
    let path = io.out.join("data.jsonl");
    let mut out = File::create(&path).map(BufWriter::new).map_err(|error| Failure::file("write", &path, &error))?;
    let (mut sum, mut last_kept) = (0.0, None);
    for given in &given {
        match demands.refuse(given) {
            Some(reason) => *ledger.dropped.entry(reason.to_string()).or_default() += 1,
            None => {
                let line = prompts.get(given.prompt).ok_or_else(|| Failure::bug("an answer without a prompt"))?;
                let line = labelled(line, given, has_samples);
                record::write(&mut out, &line).map_err(|error| Failure::file("write", &path, &error))?;
                ledger.kept += 1;
                sum += given.confidence;
                if last_kept != Some(given.prompt) {
                    ledger.prompts_without_label += 1;
                    last_kept = Some(given.prompt);
                }
            }
        }
    }
    out.flush().map_err(|error| Failure::file("write", &path, &error))?;
    ledger.prompts_without_label = ledger.prompts - ledger.prompts_without_label;
    ledger.mean_confidence = sum / ledger.kept.max(1) as f64;
    finish(keeping, &ledger, io)
}

fn read(io: &Io) -> Result<Vec<Given>, Failure> {
    let path = io.one("answers")?.join(FILE);
    let text = files::read_text(&path, MAX_ANSWERS).map_err(|error| Failure::file("read", &path, &error))?;
    text.lines().map(|line| serde_json::from_str(line).map_err(|error| Failure::new(format!("`{}`: {error}", path.display())))).collect()
}

impl Demands {
    /// The first thing that an answer lacks.
    fn refuse(&self, given: &Given) -> Option<&'static str> {
        let Some(output) = &given.output else { return Some("prompt_too_long") };
        if !given.ended {
            return Some("unfinished");
        }
        if self.regex.as_ref().is_some_and(|regex| !regex.is_match(output)) {
            return Some("regex");
        }
        if let Some(schema) = &self.schema {
            match json::parse(output) {
                Err(_) => return Some("json"),
                Ok(value) if !schema.allows(&value) => return Some("json_schema"),
                Ok(_) => {}
            }
        }
        let least = self.min_confidence.filter(|least| given.confidence < *least);
        least.map(|_| "min_confidence")
    }
}

/// The prompt's record with the teacher's answer as its completion. Its other keys stay.
fn labelled(line: &Line, given: &Given, has_samples: bool) -> Line {
    let completion = given.output.clone().unwrap_or_default();
    let record = match &line.record {
        Record::Messages(turns) => {
            let mut chat = turns.question();
            chat.messages.push(Message::assistant(completion));
            Record::Messages(chat)
        }
        other => Record::Pair { prompt: other.prompt(), completion: Some(completion) },
    };
    let mut extra = line.extra.clone();
    extra.insert("confidence".to_string(), json!(given.confidence));
    if has_samples {
        extra.insert("sample".to_string(), Value::from(given.sample));
    }
    Line { record, extra }
}

fn finish(keeping: &Keeping, ledger: &Ledger, io: &Io) -> Result<(), Failure> {
    let path = io.out.join("teacher_labels.json");
    let text = serde_json::to_string_pretty(ledger).map_err(|error| Failure::bug(error.to_string()))?;
    files::write_atomic(&path, format!("{text}\n").as_bytes()).map_err(|error| Failure::file("write", &path, &error))?;
    let reasons: Vec<String> = ledger.dropped.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let dropped = ledger.asked - ledger.kept;
    let why = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    io.say(format!("{} of {} answers kept, {dropped} dropped{why}", ledger.kept, ledger.asked));
    if ledger.kept == 0 {
        let help = "see which reason it is; `unfinished` answers need a larger `max_new_tokens`, or a teacher that has learned to end";
        return Err(Failure::new(format!("no answer is left{why}")).help(help));
    }
    if dropped as f64 > keeping.max_dropped * ledger.asked as f64 {
        let message =
            format!("{dropped} of {} answers were dropped{why}, more than `max_dropped` = {} allows", ledger.asked, keeping.max_dropped);
        return Err(Failure::new(message).help("the answers stay in the cache: change `validate` or `max_dropped` and build again"));
    }
    Ok(())
}
