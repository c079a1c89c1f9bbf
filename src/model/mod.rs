//! The decoder, its tokenizer and its file formats.

pub mod gguf;
pub mod quant;
