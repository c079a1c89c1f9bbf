//! The sets of a running evaluation: which records, which files. Shared by answering and measuring.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::{Digest, files};
use crate::model::{Encoder, Example, Message, Model, ModelError, Stored};
use crate::steps::dataset::record::{self, Record, Records};
use crate::steps::{Failure, Io};

/// More than any evaluation writes.
const MAX_LINES: u64 = 64 << 30;

/// A named set of records, in the data's order.
pub struct Set {
    pub name: String,
    pub records: Records,
}

/// The sets behind the ports `data.NAME`. An empty one is an error: no figure could be made of it.
pub fn read(io: &Io) -> Result<Vec<Set>, Failure> {
    let mut sets = Vec::new();
    for (port, _) in &io.inputs {
        let Some(name) = port.strip_prefix("data.") else { continue };
        let records = record::of_port(io, port)?;
        if records.is_empty() {
            return Err(Failure::new(format!("set `{name}` is empty")));
        }
        sets.push(Set { name: name.to_string(), records });
    }
    Ok(sets)
}

/// Items are counted as if each were drawn anew: copies make every interval narrower than it should be.
pub fn warn_of_copies(set: &str, items: impl Iterator<Item = Digest>, io: &Io) {
    let mut seen = BTreeSet::new();
    let (mut copies, mut all) = (0u64, 0u64);
    for item in items {
        all += 1;
        copies += u64::from(!seen.insert(item));
    }
    if copies > 0 {
        io.warn(format!("{copies} of {all} records of set `{set}` are copies of others: its intervals are too narrow (a `dataset` step with `dedup` drops them)"));
    }
}

/// The sets' names, in the plan's order.
pub fn names<'a>(io: &'a Io) -> impl Iterator<Item = &'a str> {
    io.inputs.iter().filter_map(|(port, _)| port.strip_prefix("data."))
}

impl Set {
    /// The tokens that a model is asked with; an error names the item.
    pub fn prompt(&self, model: &Model<Stored>, index: usize) -> Result<Vec<u32>, Failure> {
        let encoder = model.encoder();
        let tokens = match self.records.get(index) {
            Some(Record::Pair { prompt, .. }) => encoder.prompt(prompt),
            Some(Record::Messages(messages)) => encoder.question(&messages.question()),
            _ => return Err(self.wrong(index, "is a plain text: there is no prompt to answer")),
        };
        let tokens = tokens.map_err(|error| self.unrendered(index, &error))?;
        let limit = model.config.max_position_embeddings;
        match tokens.len() {
            0 => Err(self.wrong(index, "has an empty prompt")),
            n if n > limit => Err(self.wrong(index, &format!("has a prompt of {n} tokens; the model takes {limit}"))),
            _ => Ok(tokens),
        }
    }

    /// What the answer should be.
    pub fn expected(&self, index: usize) -> Result<std::borrow::Cow<'_, str>, Failure> {
        let expected = self.records.get(index).and_then(Record::completion);
        expected.ok_or_else(|| self.wrong(index, "has no completion to compare an answer with"))
    }

    /// What is scored: each record, or, with `n_ctx`, windows of the texts.
    pub fn examples(&self, model: &Model<Stored>, n_ctx: Option<usize>) -> Result<Vec<Example>, Failure> {
        match n_ctx {
            None => (0..self.records.len()).map(|index| self.example(model, index)).collect(),
            Some(n_ctx) => self.windows(model, n_ctx),
        }
    }

    /// The texts, joined by line ends, as windows of `n_ctx` tokens of which the second half is scored, given the first; what is left over is dropped.
    /// This is the protocol of llama.cpp's `perplexity`: there, too, BOS takes the place of a window's first token if the tokenizer adds one.
    fn windows(&self, model: &Model<Stored>, n_ctx: usize) -> Result<Vec<Example>, Failure> {
        let limit = model.config.max_position_embeddings;
        if n_ctx > limit {
            return Err(Failure::new(format!("`n_ctx` is {n_ctx}; the model takes {limit} tokens")));
        }
        let mut joined = String::new();
        for (index, record) in self.records.iter().enumerate() {
            let Record::Text(text) = record else {
                return Err(self
                    .wrong(index, "is not a plain text")
                    .help("with `n_ctx`, texts are joined and cut into windows; conversations cannot be"));
            };
            joined.push_str(if index == 0 { "" } else { "\n" });
            joined.push_str(text);
        }
        let bos = model.tokenizer.bos.as_ref().map(|bos| bos.id).filter(|_| model.tokenizer.adds_bos());
        let mut tokens: Vec<u32> = bos.into_iter().collect();
        tokens.extend(
            model.tokenizer.encode(&joined).map_err(|error| Failure::model(&format!("read the texts of set `{}`", self.name), &error))?,
        );
        let windows: Vec<Example> = tokens
            .chunks_exact(n_ctx)
            .map(|window| {
                let mut tokens = window.to_vec();
                tokens.iter_mut().take(1).zip(bos).for_each(|(first, bos)| *first = bos);
                Example { tokens, scored: std::iter::once(n_ctx / 2 + 1..n_ctx).collect() }
            })
            .collect();
        if windows.is_empty() {
            return Err(Failure::new(format!("set `{}` has {} tokens, less than one window of {n_ctx}", self.name, tokens.len())));
        }
        Ok(windows)
    }

    /// The tokens to score.
    fn example(&self, model: &Model<Stored>, index: usize) -> Result<Example, Failure> {
        let encoder: Encoder = model.encoder();
        let example = match self.records.get(index) {
            Some(Record::Pair { prompt, completion: Some(completion) }) => encoder.pair(prompt, completion),
            Some(Record::Messages(chat)) if chat.messages.iter().any(Message::is_assistant) => encoder.conversation(chat),
            Some(Record::Text(text)) => encoder.text(text),
            _ => return Err(self.wrong(index, "has no completion to score")),
        };
        let example = example.map_err(|error| self.unrendered(index, &error))?;
        let (read, limit) = (example.tokens.len().saturating_sub(1), model.config.max_position_embeddings);
        if read > limit {
            return Err(self.wrong(index, &format!("has {read} tokens to read; the model takes {limit}")));
        }
        Ok(example)
    }

    /// With the record's place: templates refuse what stands there.
    fn unrendered(&self, index: usize, error: &ModelError) -> Failure {
        let Failure { message, .. } = self.wrong(index, &format!("cannot be read by the model: {error} ({})", self.records.place(index)));
        Failure { message, ..Failure::model("read", error) }
    }

    pub fn wrong(&self, index: usize, why: &str) -> Failure {
        Failure::new(format!("item {index} of set `{}` {why}", self.name))
    }
}

pub fn lines_path(folder: &Path, set: &str) -> PathBuf {
    folder.join(format!("{set}.jsonl"))
}

pub fn write_lines<T: Serialize>(path: &Path, lines: &[T]) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut bytes, line).map_err(|error| Failure::bug(error.to_string()))?;
        bytes.push(b'\n');
    }
    let written = std::fs::File::create_new(path).and_then(|mut file| file.write_all(&bytes));
    written.map_err(|error| Failure::file("write", path, &error))
}

/// Our own lines, read back.
pub fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, Failure> {
    let text = files::read_text(path, MAX_LINES).map_err(|error| Failure::file("read", path, &error))?;
    text.lines()
        .enumerate()
        .map(|(i, line)| serde_json::from_str(line).map_err(|error| Failure::new(format!("`{}`, line {}: {error}", path.display(), i + 1))))
        .collect()
}

pub fn open(path: &Path) -> Result<Model<Stored>, Failure> {
    Model::open(path).map_err(|error| Failure::model("open the model", &error))
}
