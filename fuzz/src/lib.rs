//! What the fuzz targets share: a scratch folder in memory, and a model small enough that a file of it is mangled often.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use slmops::model::Tokenizer;
use slmops::model::{Config, Model};

/// A folder of this process, in memory where there is such a place.
pub fn scratch() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let make = || tempfile::Builder::new().prefix("slmops-fuzz-").tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    FOLDER.get_or_init(|| make().expect("a scratch folder")).path()
}

/// A file of these bytes.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = scratch().join(name);
    std::fs::write(&path, bytes).expect("a scratch file");
    path
}

/// Uses a model as `run` does, if it is small enough for the fuzzer's patience.
pub fn answer<W: slmops::model::decoder::Tensors>(model: &Model<W>) {
    let config = &model.config;
    if config.hidden_size * config.num_hidden_layers * config.vocab_size > 1 << 20 {
        return;
    }
    let scored = [slmops::model::Scored { tokens: vec![0, 1 % config.vocab_size as u32], from: 1 }];
    let _ = model.score(&scored, &mut |_, _| ());
}

pub fn bytes_only() -> Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    let json = include_bytes!("../corpus/tokenizer/bytes.json");
    TOKENIZER.get_or_init(|| Tokenizer::from_json(json).expect("a tokenizer")).clone()
}

pub fn tiny() -> Config {
    Config::from_json(include_bytes!("../corpus/config/llama.json")).expect("a configuration")
}
