//! Where a student begins: a new model of some shape with the teacher's vocabulary, or one that is there, with the same vocabulary and perhaps with zeros to keep.

use std::path::Path;

use serde::Deserialize;

use crate::model::sparse::Mask;
use crate::model::{ChatTemplate, Config, Model, Tokenizer, Weights, folder, read_limited};
use crate::steps::train::Student;
use crate::steps::train::settings::{Training, pruned, shaped, within};
use crate::steps::{Failure, Io, Params, typed};

pub struct Beginning {
    settings: Training,
    config: Config,
    tokenizer: Tokenizer,
    chat: ChatTemplate,
    /// Of a model that is there.
    weights: Option<Weights>,
    mask: Option<Mask>,
}

/// `vocabulary.json`: what a student needs of the teacher besides its tokenizer.
#[derive(Deserialize)]
struct Said {
    vocab_size: usize,
    /// All tokens that end an answer.
    eos_token_id: Vec<u32>,
}

impl Beginning {
    pub fn of(params: &Params, io: &Io) -> Result<Beginning, Failure> {
        let vocabulary = io.one("vocabulary")?;
        let (tokenizer, chat) = folder::load_encoder(vocabulary)?;
        let said: Said = serde_json::from_slice(&read_limited(&vocabulary.join("vocabulary.json"), 1 << 16)?)
            .map_err(|error| Failure::new(format!("`vocabulary.json`: {error}")))?;
        let mut beginning = match io.maybe("model") {
            Some(model) => Beginning::there(params, said.vocab_size, &tokenizer, model)?,
            None => {
                let (arch, settings) = shaped(params)?;
                let config = arch.of(said.vocab_size, &tokenizer);
                Beginning { settings, config, tokenizer, chat, weights: None, mask: None }
            }
        };
        // Its answers end where those that it learns from do.
        said.eos_token_id.into_iter().for_each(|end| beginning.config.add_end(end));
        Ok(beginning)
    }

    fn there(params: &Params, vocab_size: usize, theirs: &Tokenizer, model: &Path) -> Result<Beginning, Failure> {
        let (Model { config, weights, tokenizer, chat }, mask) = pruned(params, model)?;
        let differs = |id: &u32| tokenizer.token(*id) != theirs.token(*id);
        let tokens = u32::try_from(vocab_size).unwrap_or(u32::MAX);
        if config.vocab_size != vocab_size || (0..tokens).any(|id| differs(&id)) {
            let message = format!("the model's vocabulary of {} is not the teacher's of {vocab_size}", config.vocab_size);
            return Err(Failure::new(message).help("a student learns the teacher's distribution over tokens: both need the same ones"));
        }
        let mut training = params.clone();
        training.remove("mask");
        let settings: Training = typed(&within(&training, &config)?)?;
        Ok(Beginning { settings, config, tokenizer, chat, weights: Some(weights), mask })
    }

    pub fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    /// Hands over the student and, if it is there already, its weights.
    pub fn student<T>(self, work: impl FnOnce(Student, Option<Weights>) -> Result<T, Failure>) -> Result<T, Failure> {
        let Beginning { settings, config, tokenizer, chat, weights, mask } = self;
        work(Student { settings: &settings, config, tokenizer, chat, mask }, weights)
    }
}
