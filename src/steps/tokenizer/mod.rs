//! `[tokenizer.NAME]`: learns a byte-level BPE vocabulary from texts as the chat template renders them. How it learns is in `model::bpe`.

use std::ops::ControlFlow;

use rayon::prelude::*;
use serde::Deserialize;

use super::dataset::record::{self, Record};
use super::io::on_threads;
use super::{Arity, Artifact, Declared, Failure, Field, Io, Kind, Part, PartPort, Problem, Resources, Task, Type, typed};
use crate::base::memory;
use crate::model::chat::{self, Ending};
use crate::model::{ChatTemplate, Conversation, Encoder, Message, ModelError, bpe, folder};

#[derive(Debug)]
pub struct Tokenizer;

static TEXT: Type = Type::String;

static FIELDS: &[Field] = &[
    Field::required(
        "data",
        Type::Ref(Arity::All, &[Artifact::Dataset, Artifact::Files]),
        "Texts to learn from: prompts and completions as the chat template renders them.",
    ),
    Field::required("vocab_size", Type::Int(257, 1 << 20), "Most tokens in all: special tokens, 256 bytes, and the merged ones."),
    Field::default("min_frequency", Type::Int(1, i64::MAX), "2", "A pair that occurs less often does not become a token."),
    Field::default("eos_token", Type::String, "\"<|endoftext|>\"", "The special token that ends a text, and pads. It is token 0."),
    Field::default("special_tokens", Type::List(&TEXT), "[]", "Further special tokens, such as those that the chat template writes."),
    Field::optional(
        "chat_template",
        Type::String,
        "A jinja chat template. Without one: the prompt and a line break, the answer and `eos_token`.",
    ),
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    vocab_size: usize,
    min_frequency: u64,
    eos_token: String,
    special_tokens: Vec<String>,
    chat_template: Option<String>,
}

impl Kind for Tokenizer {
    fn name(&self) -> &'static str {
        "tokenizer"
    }

    fn revision(&self) -> u32 {
        2
    }

    fn summary(&self) -> &'static str {
        "Learns a byte-level BPE vocabulary from data"
    }

    fn help(&self) -> &'static str {
        include_str!("help.md")
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn renders_chats(&self) -> bool {
        true
    }

    fn expand(&self, declared: &Declared) -> Result<Vec<Part>, Vec<Problem>> {
        let bug = |failure: Failure| vec![Problem::at("", failure.message)];
        let settings: Settings = typed(&declared.params).map_err(bug)?;
        let problems = settings.problems();
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(vec![Part {
            suffix: "",
            hidden: false,
            artifact: Artifact::Tokenizer,
            outputs: Vec::new(),
            task: Task { action: "tokenizer", params: declared.params.clone() },
            inputs: vec![PartPort::pass(declared, "data")],
            resources: Resources::default(),
        }])
    }

    fn run(&self, task: &Task, io: &mut Io) -> Result<(), Failure> {
        let settings: Settings = typed(&task.params)?;
        on_threads(io, |io| settings.run(io))
    }
}

impl Settings {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.eos_token.is_empty() {
            problems.push(Problem::at("eos_token", "`eos_token` is empty"));
        }
        if let Some(i) = self.special_tokens.iter().position(String::is_empty) {
            problems.push(Problem::at(format!("special_tokens.{i}"), "a special token is empty"));
        }
        let least = 257 + self.special_tokens.len();
        if self.vocab_size < least {
            let message = format!("a vocabulary of {} has no room for the special tokens and 256 bytes", self.vocab_size);
            problems.push(Problem::at("vocab_size", message).label(format!("must be at least {least}")));
        }
        if let Some(Err(error)) = self.chat_template.as_deref().map(ChatTemplate::new) {
            problems.push(Problem::at("chat_template", error.to_string()));
        }
        problems
    }

    fn run(&self, io: &mut Io) -> Result<(), Failure> {
        let plan = bpe::Plan {
            vocab_size: self.vocab_size,
            min_frequency: self.min_frequency,
            eos: self.eos_token.clone(),
            specials: self.special_tokens.clone(),
        };
        let chat = ChatTemplate::new(self.chat_template.as_deref().unwrap_or(chat::DEFAULT))?.at(io.now);
        let records = record::of_port(io, "data")?;
        // The rendered texts, and the words that they consist of.
        let text: u64 = records.iter().map(Record::text_bytes).sum();
        memory::check(text.saturating_mul(3), "what the vocabulary is learned from")?;
        let base = plan.base()?;
        let encoder = Encoder { tokenizer: &base, chat: &chat };
        let texts = records.par_iter().enumerate().map(|(i, record)| texts(record, encoder).map_err(|error| records.wrong(i, error)));
        let texts = texts.collect::<Result<Vec<_>, Failure>>()?.concat();
        let total = self.vocab_size as u64;
        let learned = plan.learn(&texts, &mut |tokens| {
            io.progress(tokens as u64, total, "tokens", "");
            if io.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        folder::save_encoder(&learned, &chat, None, &io.out)?;
        let short = if learned.vocab_size() < self.vocab_size { "; no other pair is frequent enough" } else { "" };
        io.say(format!("{} tokens from {} records{short}", learned.vocab_size(), records.len()));
        Ok(())
    }
}

/// A record as the texts that will each be encoded on their own.
fn texts(record: &Record, encoder: Encoder) -> Result<Vec<String>, ModelError> {
    let pieces = |chat: &Conversation| Ok(encoder.pieces(chat)?.into_iter().map(|piece| piece.text).collect());
    match record {
        Record::Pair { prompt, completion: Some(completion) } => {
            pieces(&Conversation::of(vec![Message::user(prompt), Message::assistant(completion)]))
        }
        Record::Pair { prompt, completion: None } => {
            Ok(vec![encoder.chat.render(&Conversation::of(vec![Message::user(prompt)]), Ending::AwaitsAnswer, encoder.tokenizer)?])
        }
        Record::Messages(chat) => pieces(chat),
        Record::Text(text) => Ok(vec![text.clone()]),
    }
}

#[cfg(test)]
mod tests;
