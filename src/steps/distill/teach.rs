//! What the teacher says: its greedy answers, and its largest logits on every token that the student is taught on. Made once and cached,
//! however many students learn from it.

use std::ops::ControlFlow;

use rayon::prelude::*;
use serde::Deserialize;

use super::labels::{Facts, Writer, width};
use crate::kernels::loss::top_k_row;
use crate::kernels::math::exp64;
use crate::model::decoder::{Decoder, Keep};
use crate::model::{Encoder, Example, Generate, Message, Model, ModelError, Stored};
use crate::steps::dataset::record::{self, Record};
use crate::steps::train::data;
use crate::steps::train::run::Rows;
use crate::steps::{Failure, Io};

/// Cached logits may not fill the disk unawares.
const MAX_LOGITS: u64 = 16 << 30;
/// Rows of one pass of the teacher; a longer sequence runs alone.
const TEACHER_ROWS: usize = 4096;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Teaching {
    completions: Completions,
    max_new_tokens: usize,
    /// The teacher's reach, if it is absent.
    max_length: Option<usize>,
    /// Absent if only the completions are wanted.
    top_k: Option<usize>,
    temperature: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Completions {
    Teacher,
    Data,
}

/// A record, as the teacher meets it.
enum Lesson {
    /// It answers.
    Ask(Vec<u32>),
    /// It reads: a completion of the data, or a text.
    Read(Vec<Example>),
}

pub fn run(teaching: &Teaching, io: &Io) -> Result<(), Failure> {
    let teacher = Model::open(io.one("teacher")?)?.at(io.now);
    let records = record::of_port(io, "data")?;
    let reach = teacher.config.max_position_embeddings;
    let limit = teaching.max_length.unwrap_or(reach).min(reach);
    let lesson = |record: &Record| lesson(record, teacher.encoder(), teaching.completions, limit);
    let lessons = records.par_iter().enumerate().map(|(index, record)| lesson(record).map_err(|error| records.wrong(index, error)));
    let lessons = lessons.collect::<Result<Vec<Lesson>, Failure>>()?;
    let mut made = Made::default();
    made.answer(&teacher, &lessons, teaching.max_new_tokens, limit, io)?;
    if made.examples.is_empty() {
        let help = "raise `max_new_tokens` or `max_length`, or train the teacher longer";
        let counts = format!("{} answers have no end, {} examples are too long", made.unfinished, made.too_long);
        return Err(Failure::new(format!("the teacher has nothing to teach: {counts}")).help(help));
    }
    made.write(&teacher, teaching, io)
}

fn lesson(record: &Record, encoder: Encoder, completions: Completions, max_length: usize) -> Result<Lesson, ModelError> {
    let read = |example: Example| Lesson::Read(vec![example]);
    match record {
        Record::Pair { prompt, completion: Some(completion) } if completions == Completions::Data => {
            encoder.pair(prompt, completion).map(read)
        }
        Record::Pair { prompt, .. } => encoder.prompt(prompt).map(Lesson::Ask),
        Record::Messages(chat) if completions == Completions::Data && chat.messages.iter().any(Message::is_assistant) => {
            encoder.conversation(chat).map(read)
        }
        Record::Messages(chat) => encoder.question(&chat.question()).map(Lesson::Ask),
        Record::Text(text) => Ok(Lesson::Read(data::pieces(encoder.text(text)?, max_length).collect())),
    }
}

#[derive(Default)]
struct Made {
    examples: Vec<Example>,
    unfinished: u64,
    too_long: u64,
}

impl Made {
    /// Has the teacher answer what it is asked; examples come out in the records' order.
    fn answer(&mut self, teacher: &Model<Stored>, lessons: &[Lesson], max_new_tokens: usize, limit: usize, io: &Io) -> Result<(), Failure> {
        let asked = |lesson: &Lesson| match lesson {
            Lesson::Ask(prompt) if !prompt.is_empty() && prompt.len() < limit => Some(prompt.clone()),
            _ => None,
        };
        let prompts: Vec<Vec<u32>> = lessons.iter().filter_map(asked).collect();
        let total = prompts.len() as u64;
        let answers = teacher.greedy(&prompts, &Generate { max_new_tokens }, &mut |done| {
            io.progress(done as u64, total, "answers", "");
            if io.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let mut answers = answers.into_iter();
        for lesson in lessons {
            match lesson {
                Lesson::Read(examples) => examples.iter().for_each(|example| self.keep(example.clone(), limit)),
                Lesson::Ask(prompt) if asked(lesson).is_some() => {
                    let answer = answers.next().unwrap_or_default();
                    let Some(end) = answer.end else {
                        self.unfinished += 1;
                        continue;
                    };
                    let completion = [answer.tokens.as_slice(), &[end]].concat();
                    self.keep(Example::of(prompt.clone(), &completion), limit);
                }
                Lesson::Ask(_) => self.too_long += 1,
            }
        }
        Ok(())
    }

    fn keep(&mut self, example: Example, limit: usize) {
        if example.tokens.len() > limit {
            self.too_long += 1;
        } else if !example.scored.is_empty() {
            self.examples.push(example);
        }
    }

    fn write(&self, teacher: &Model<Stored>, teaching: &Teaching, io: &Io) -> Result<(), Failure> {
        let file = |error| Failure::file("write to", &io.out, &error);
        let vocab_size = teacher.config.vocab_size;
        let top_k = teaching.top_k.map(|top_k| top_k.min(vocab_size));
        let rows: u64 = self.examples.iter().map(|example| example.scored_tokens() as u64).sum();
        let size = rows.saturating_mul(top_k.map_or(0, width) as u64 * 4);
        if size > MAX_LOGITS {
            let message = format!("the teacher's logits on {rows} tokens take {size} bytes, over the limit of {MAX_LOGITS}");
            let help = "keep fewer of them with `top_k`, or all without storing them with `top_k = 0`";
            return Err(Failure::new(message).help(help));
        }
        let mut writer = Writer::create(&io.out).map_err(file)?;
        let mut kept_mass = None;
        if let Some(top_k) = top_k {
            kept_mass = Some(self.logits(teacher, top_k, teaching.temperature.unwrap_or(1.0) as f32, &mut writer, io)? / rows as f64);
        }
        let facts = Facts {
            format: 2,
            vocab_size,
            top_k,
            examples: self.examples.len() as u64,
            rows,
            unfinished: self.unfinished,
            too_long: self.too_long,
            kept_mass,
        };
        writer.finish(&io.out, &self.examples, &facts).map_err(file)?;
        let kept = kept_mass.map_or(String::new(), |mass| format!("; the kept logits have {:.2} % of the probability", mass * 100.0));
        let (examples, unfinished, too_long) = (facts.examples, facts.unfinished, facts.too_long);
        io.say(format!("{examples} examples, {rows} tokens; left out: {unfinished} without an end, {too_long} too long{kept}"));
        Ok(())
    }

    /// The teacher's largest logits on every scored token, in order; the sum of the kept probabilities. Of all logits only those of one piece of the
    /// head are there at a time.
    fn logits(&self, teacher: &Model<Stored>, top_k: usize, temperature: f32, writer: &mut Writer, io: &Io) -> Result<f64, Failure> {
        let mut decoder = Decoder::new(&teacher.config)?;
        let mut piece =
            Piece { vocab_size: teacher.config.vocab_size, temperature, ids: Vec::new(), logits: Vec::new(), log_rest: Vec::new() };
        let (mut rows, mut mass, mut next) = (Rows::default(), 0.0, 0);
        while next < self.examples.len() {
            io.check_cancelled()?;
            rows.clear();
            while let Some(example) = self.examples.get(next) {
                if rows.batch.rows() > 0 && rows.batch.rows() + example.tokens.len() > TEACHER_ROWS {
                    break;
                }
                rows.push(example);
                next += 1;
            }
            decoder.forward(&teacher.weights, &rows.batch, Keep::Nothing)?;
            let mut outcome = Ok(());
            decoder.logits(&teacher.weights, &mut |_, logits| {
                if outcome.is_ok() {
                    outcome = piece.write(logits, top_k, writer, io).map(|kept| mass += kept);
                }
                Ok(())
            })?;
            outcome?;
            io.progress(next as u64, self.examples.len() as u64, "examples", "");
        }
        Ok(mass)
    }
}

/// The largest logits of some rows.
struct Piece {
    vocab_size: usize,
    temperature: f32,
    ids: Vec<u32>,
    logits: Vec<f32>,
    log_rest: Vec<f32>,
}

impl Piece {
    /// Writes rows of `top_k`; the sum of their probabilities.
    fn write(&mut self, logits: &[f32], top_k: usize, writer: &mut Writer, io: &Io) -> Result<f64, Failure> {
        let (vocab_size, temperature) = (self.vocab_size, self.temperature);
        let rows = logits.len() / vocab_size;
        self.ids.resize(rows * top_k, 0);
        self.logits.resize(rows * top_k, 0.0);
        self.log_rest.resize(rows, 0.0);
        let found = self.ids.par_chunks_exact_mut(top_k).zip(self.logits.par_chunks_exact_mut(top_k)).zip(&mut self.log_rest);
        let finite = found.zip(logits.par_chunks_exact(vocab_size)).all(|(((ids, top), log_rest), row)| {
            let is_finite = row.iter().all(|logit| logit.is_finite());
            if is_finite {
                *log_rest = top_k_row(row, temperature, ids, top);
            }
            is_finite
        });
        if !finite {
            return Err(Failure::new("the teacher's logits are not finite numbers"));
        }
        let mut mass = 0.0;
        for ((ids, top), log_rest) in self.ids.chunks_exact(top_k).zip(self.logits.chunks_exact(top_k)).zip(&self.log_rest) {
            mass += kept(top, temperature, *log_rest);
            writer.top(ids, top, *log_rest).map_err(|error| Failure::file("write to", &io.out, &error))?;
        }
        Ok(mass)
    }
}

/// The share of the probability that the kept logits have.
fn kept(top: &[f32], temperature: f32, log_rest: f32) -> f64 {
    let scaled = |logit: &f32| f64::from(*logit) / f64::from(temperature);
    let max = top.first().map_or(0.0, scaled);
    let kept: f64 = top.iter().map(|logit| exp64(scaled(logit) - max)).sum();
    kept / (kept + exp64(f64::from(log_rest) - max))
}
