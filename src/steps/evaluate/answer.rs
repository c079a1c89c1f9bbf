//! The action `answers`: one model's greedy answers to every prompt of the sets, `SET.jsonl` each. Shared by every evaluation that needs them.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::sets::{self, lines_path, write_lines};
use crate::model::Generate;
use crate::steps::{Failure, Io, Params, typed};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    max_new_tokens: usize,
}

/// One line of `SET.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// As decoded, special tokens left out.
    pub output: String,
    /// How many tokens it took, the end-of-text token not counted.
    pub tokens: u64,
}

pub fn run(params: &Params, io: &Io) -> Result<(), Failure> {
    let fields: Fields = typed(params)?;
    let options = Generate { max_new_tokens: fields.max_new_tokens };
    let sets = sets::read(io)?;
    let model = sets::open(io.one("model")?)?.at(io.now);
    let total: usize = sets.iter().map(|set| set.records.len()).sum();
    let mut before = 0;
    for set in &sets {
        let prompts = (0..set.records.len()).map(|index| set.prompt(&model, index)).collect::<Result<Vec<_>, _>>()?;
        let answers = model.generate(&prompts, &options, &mut |done| {
            io.progress((before + done) as u64, total as u64, "items", &set.name);
            if io.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let answers = answers.map_err(|error| Failure::model("answer the prompts", &error))?;
        let answers: Vec<Answer> = answers
            .iter()
            .map(|tokens| Ok(Answer { output: model.tokenizer.decode(tokens)?, tokens: tokens.len() as u64 }))
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::model("decode an answer", &error))?;
        write_lines(&lines_path(&io.out, &set.name), &answers)?;
        before += set.records.len();
    }
    io.say(format!("{total} prompts answered"));
    Ok(())
}
