//! The decoder, its tokenizer and its file formats.

pub mod quant;
