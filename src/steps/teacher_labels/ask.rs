//! The action `answers`: prompts → `answers.jsonl`, one line an answer, in the order of prompts and samples. Works off some answers at a time, each
//! kept in the checkpoint: since an answer depends on nothing but its prompt and its stream of random numbers, going on gives the same bytes.

use std::ops::ControlFlow;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::base::{Digest, files};
use crate::kernels::math::exp64;
use crate::model::{Decode, Encoder, Generate, Model, Sampling, Stored};
use crate::steps::dataset::record::{self, Record, Records};
use crate::steps::{Failure, Io};

/// The output's file.
pub const FILE: &str = "answers.jsonl";
/// Answers of one piece of the checkpoint: several times as many as run side by side.
const PIECE: usize = 512;
/// Of a piece's answers, as they are kept in case the step is killed.
const MAX_PIECE: u64 = 4 << 30;
/// A prompt's samples have streams of random numbers behind each other.
const SAMPLES: u64 = 1 << 16;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asking {
    max_new_tokens: usize,
    /// Of sampling, as everything below; greedy without it.
    temperature: Option<f64>,
    #[serde(default = "one")]
    num_samples: u64,
    #[serde(default)]
    seed: u64,
    top_k: Option<usize>,
    top_p: Option<f64>,
}

fn one() -> u64 {
    1
}

/// One line of `answers.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// The prompt's place, from 0.
    pub prompt: usize,
    /// Which of its answers, from 0.
    pub sample: u64,
    /// Nothing if the prompt is longer than the teacher takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// The geometric mean of the probabilities of its tokens, the end included.
    #[serde(default)]
    pub confidence: f64,
    /// Whether the teacher ended it, or it was cut.
    #[serde(default)]
    pub ended: bool,
}

/// A prompt and the number of the sample that is to be drawn.
struct Question<'a> {
    prompt: usize,
    tokens: &'a [u32],
    sample: u64,
}

pub fn run(asking: &Asking, io: &Io) -> Result<(), Failure> {
    let records = record::of_port(io, "prompts")?;
    if records.is_empty() {
        return Err(Failure::new("there are no prompts").help("`prompts` is JSON lines: {\"prompt\": …} or {\"messages\": […]}"));
    }
    let teacher = Model::open(io.one("teacher")?)?.at(io.now);
    let prompts: Vec<Vec<u32>> = (0..records.len()).map(|index| encode(&records, index, teacher.encoder())).collect::<Result<_, _>>()?;
    let question = |prompt: usize| (0..asking.num_samples).map(move |sample| (prompt, sample));
    let questions: Vec<Question> =
        (0..prompts.len()).flat_map(question).map(|(prompt, sample)| Question { prompt, tokens: &prompts[prompt], sample }).collect();
    std::fs::create_dir_all(&io.checkpoint).map_err(|error| Failure::file("create", &io.checkpoint, &error))?;
    let mut all = Vec::new();
    for (number, questions_of) in questions.chunks(PIECE).enumerate() {
        let path = io.checkpoint.join(format!("{number:08}.jsonl"));
        let lines = match restored(&path) {
            Some(lines) => lines,
            None => {
                let lines = answer(asking, &teacher, questions_of, number * PIECE, questions.len(), io)?;
                store(&path, &lines)?;
                lines
            }
        };
        all.extend(lines);
    }
    let out = io.out.join(FILE);
    std::fs::write(&out, all).map_err(|error| Failure::file("write", &out, &error))?;
    io.say(format!("{} answers to {} prompts", questions.len(), prompts.len()));
    Ok(())
}

/// Up to where the teacher is to speak.
fn encode(records: &Records, index: usize, encoder: Encoder) -> Result<Vec<u32>, Failure> {
    let wrong = |why: String| Failure::new(format!("prompt {index} {why}"));
    let tokens = match &records[index] {
        Record::Pair { prompt, .. } => encoder.prompt(prompt),
        Record::Messages(turns) => encoder.question(&turns.question()),
        Record::Text(_) => return Err(wrong("is a plain text: there is nothing to answer".to_string())),
    };
    let tokens = tokens.map_err(|error| wrong(format!("cannot be asked: {error} ({})", records.place(index))))?;
    if tokens.is_empty() { Err(wrong("is empty".to_string())) } else { Ok(tokens) }
}

/// The lines of some questions. `before` and `total` are for the progress.
fn answer(
    asking: &Asking,
    teacher: &Model<Stored>,
    questions: &[Question],
    before: usize,
    total: usize,
    io: &Io,
) -> Result<Vec<u8>, Failure> {
    let reach = teacher.config.max_position_embeddings;
    let can_ask = |question: &&Question| question.tokens.len() <= reach;
    let prompts: Vec<Vec<u32>> = questions.iter().filter(can_ask).map(|question| question.tokens.to_vec()).collect();
    let stream = |question: &Question| question.prompt as u64 * SAMPLES + question.sample;
    let streams: Vec<u64> = questions.iter().filter(can_ask).map(stream).collect();
    let sampling =
        asking.temperature.map(|temperature| Sampling { temperature, top_k: asking.top_k, top_p: asking.top_p, seed: asking.seed });
    let decode = sampling.as_ref().map_or(Decode::Greedy, |sampling| Decode::Sample(sampling, &streams));
    let options = Generate { max_new_tokens: asking.max_new_tokens };
    let answers = teacher.answer(&prompts, &options, decode, &mut |done| {
        io.progress((before + done) as u64, total as u64, "answers", "");
        if io.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let mut answers = answers?.into_iter();
    let mut lines = Vec::new();
    for question in questions {
        let mut given = Given { prompt: question.prompt, sample: question.sample, output: None, confidence: 0.0, ended: false };
        if can_ask(&question) {
            let answer = answers.next().ok_or_else(|| Failure::bug("a prompt has no answer"))?;
            let chosen = answer.tokens.len() + usize::from(answer.end.is_some());
            given.confidence = exp64(answer.log_probability / chosen.max(1) as f64);
            given.ended = answer.end.is_some();
            given.output = Some(teacher.tokenizer.decode(&answer.tokens)?);
        }
        serde_json::to_writer(&mut lines, &given).map_err(|error| Failure::bug(error.to_string()))?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// A piece is its digest, a line end and its lines: one that is damaged is asked for again.
fn store(path: &Path, lines: &[u8]) -> Result<(), Failure> {
    let bytes = [format!("{}\n", Digest::of(lines).hex()).as_bytes(), lines].concat();
    files::write_atomic(path, &bytes).map_err(|error| Failure::file("write", path, &error))
}

fn restored(path: &Path) -> Option<Vec<u8>> {
    let bytes = files::read(path, MAX_PIECE).ok()?;
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (digest, lines) = (bytes.get(..end)?, bytes.get(end + 1..)?);
    (Digest::of(lines).hex().as_bytes() == digest).then(|| lines.to_vec())
}
