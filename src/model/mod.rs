//! The decoder, its tokenizer and its file formats.
//!
//! A [`Model`] is everything that turns text into text: a [`Config`] (shapes), [`Weights`] (numbers), a [`Tokenizer`] and a [`ChatTemplate`].
//! Its weights are either f32 in memory, which is what training and quantizing want, or [`Stored`]: as the file has them, which is what answers.
//! [`example`] turns records into tokens, [`decoder`] runs and trains, [`generate`] and [`score`] are what others call.

mod added;
pub mod bpe;
pub mod bytes;
pub mod chat;
pub mod config;
pub mod cut;
pub mod decoder;
pub mod ends;
mod error;
pub mod example;
pub mod folder;
pub mod generate;
pub mod gguf;
pub mod hessian;
pub mod imatrix;
pub mod init;
pub mod jinja;
pub mod keys;
pub mod lora;
pub mod mapped;
mod pickle;
pub mod quant;
pub mod safetensors;
pub mod sample;
pub mod score;
pub mod sparse;
pub mod stored;
pub mod tokenizer;
mod turns;
pub mod weights;

use std::path::Path;

pub use chat::{ChatTemplate, Conversation, Message};
pub use config::{Activation, Config, Family, Features, RopeScaling};
pub use error::{ModelError, is_there, read_limited};
pub use example::{Encoder, Example};
pub use generate::{Answer, Decode, Generate};
pub use imatrix::Imatrix;
pub use lora::{Adapter, Lora};
pub use sample::Sampling;
pub use score::Scored;
pub use stored::Stored;
pub use tokenizer::Tokenizer;
pub use weights::Weights;

#[derive(Clone, Debug)]
pub struct Model<W = Weights> {
    pub config: Config,
    pub weights: W,
    pub tokenizer: Tokenizer,
    pub chat: ChatTemplate,
}

impl Model {
    /// A Hugging Face folder, a GGUF file, or a folder with exactly one GGUF file; its weights are widened to f32, each checked to be finite.
    pub fn load(path: &Path) -> Result<Model, ModelError> {
        match folder::gguf_file(path)? {
            Some(file) => gguf::load(&file),
            None => folder::load(path),
        }
    }

    /// Fills a folder with `config.json`, `model.safetensors`, `generation_config.json`, `tokenizer.json`, `tokenizer_config.json` and
    /// `chat_template.jinja`: the same bytes for the same model.
    pub fn save(&self, folder: &Path) -> Result<(), ModelError> {
        folder::save(self, folder)
    }
}

impl Model<Stored> {
    /// The same, to run it: the weights stay in their files, which must not change meanwhile.
    pub fn open(path: &Path) -> Result<Model<Stored>, ModelError> {
        match folder::gguf_file(path)? {
            Some(file) => gguf::open_model(&file),
            None => folder::open(path),
        }
    }
}

impl<W> Model<W> {
    /// With a day that its chat template may ask for: seconds since 1970.
    #[must_use]
    pub fn at(self, now: Option<i64>) -> Model<W> {
        Model { chat: self.chat.at(now), ..self }
    }

    pub fn encoder(&self) -> Encoder<'_> {
        Encoder { tokenizer: &self.tokenizer, chat: &self.chat }
    }
}
