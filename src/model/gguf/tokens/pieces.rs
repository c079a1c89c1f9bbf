//! SentencePiece's BPE, which GGUF keeps as pieces with scores and Hugging Face as merges: of two neighbours, llama.cpp joins those whose piece has the
//! highest score, `tokenizers` those whose merge stands first. Spaces are U+2581, unknown characters are spelled in bytes.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::NORMAL;
use crate::model::ModelError;

/// The longest of real models are runs of spaces, below 100 bytes. Every place where a piece can be cut is looked at.
const MAX_PIECE_BYTES: usize = 1024;

/// What SentencePiece writes for a space.
const SPACE: &str = "\u{2581}";

/// Whether a text begins with a space that was not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    Space,
    Nothing,
}

/// How a tokenizer treats spaces, if it is one of SentencePiece's kind.
pub fn prefix(tokenizer: &Json) -> Option<Prefix> {
    if tokenizer["model"]["byte_fallback"] != true {
        return None;
    }
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let prepend = json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace]});
    let (normalizer, pre) = (&tokenizer["normalizer"], &tokenizer["pre_tokenizer"]);
    // Behind the replacement there is no space left to split at: Gemma's rule does nothing.
    let is_idle = pre.is_null() || (pre["type"] == "Split" && pre["pattern"]["String"] == " ");
    match pre["prepend_scheme"].as_str() {
        _ if is_idle && *normalizer == prepend => Some(Prefix::Space),
        _ if is_idle && *normalizer == replace => Some(Prefix::Nothing),
        Some(scheme) if normalizer.is_null() && pre["type"] == "Metaspace" && pre["replacement"] == SPACE && pre["split"] == false => {
            Some(if scheme == "never" { Prefix::Nothing } else { Prefix::Space })
        }
        _ => None,
    }
}

/// A score for each of `count` numbers: the place of the first merge that makes the piece. Pieces that nothing is merged to are below all others.
pub fn scores<'a>(count: usize, numbers: &BTreeMap<&str, usize>, merges: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<f32> {
    let mut scores: Vec<Option<f32>> = vec![None; count];
    let mut place = 0.0;
    for (left, right) in merges {
        place -= 1.0;
        if let Some(score) = numbers.get(format!("{left}{right}").as_str()).and_then(|number| scores.get_mut(*number)) {
            score.get_or_insert(place);
        }
    }
    scores.into_iter().map(|score| score.unwrap_or(place - 1.0)).collect()
}

/// Every way to join two pieces to a third, in the order of the scores, as transformers makes merges of SentencePiece's files.
pub fn merges<'a>(tokens: &'a [String], types: &[i32], scores: &[f32]) -> Result<Vec<(&'a str, &'a str)>, ModelError> {
    let is_normal = |id: usize| types.get(id).copied().unwrap_or(NORMAL) == NORMAL;
    let numbers: BTreeMap<&str, usize> =
        tokens.iter().enumerate().filter(|(id, _)| is_normal(*id)).map(|(id, text)| (text.as_str(), id)).collect();
    let mut found = Vec::new();
    for (id, text) in tokens.iter().enumerate().filter(|(id, _)| is_normal(*id)) {
        if text.len() > MAX_PIECE_BYTES {
            return Err(ModelError::TooLarge { what: format!("piece {id}"), size: text.len() as u64, limit: MAX_PIECE_BYTES as u64 });
        }
        let score = scores.get(id).copied().unwrap_or(0.0);
        let halves = text.char_indices().skip(1).filter_map(|(at, _)| text.split_at_checked(at));
        let mut ways: Vec<_> = halves.filter_map(|(left, right)| Some((*numbers.get(left)?, *numbers.get(right)?, left, right))).collect();
        ways.sort_unstable_by_key(|(left, right, ..)| (*left, *right));
        let length = |text: &str| text.chars().count();
        found.extend(ways.into_iter().map(|(.., left, right)| (score, length(left), length(right), left, right)));
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| (b.1, b.2).cmp(&(a.1, a.2))));
    Ok(found.into_iter().map(|(.., left, right)| (left, right)).collect())
}

/// `tokenizer.json` but for pieces, merges and added tokens.
pub fn frame(prefix: Prefix, unknown: Option<&str>) -> Json {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    let normalizer = match prefix {
        Prefix::Nothing => replace,
        Prefix::Space => {
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
            json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace]})
        }
    };
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": true, "ignore_merges": false, "vocab": {}, "merges": []},
    })
}
