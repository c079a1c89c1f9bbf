//! SentencePiece's BPE, which GGUF keeps as pieces with scores and Hugging Face as merges: of two neighbours, llama.cpp joins those whose piece has the
//! highest score, `tokenizers` those whose merge stands first. Spaces are U+2581, unknown characters are spelled in bytes.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use tokenizers::Model as _;
use tokenizers::models::bpe::{BPE, Vocab};

use super::{NORMAL, UNUSED, USER_DEFINED};
use crate::model::{ModelError, Tokenizer};

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
        // llama.cpp puts a space before every text, also of one that begins with a space or stands behind a special token: no other scheme does.
        Some("never") if normalizer.is_null() && pre["type"] == "Metaspace" && pre["replacement"] == SPACE && pre["split"] == false => {
            Some(Prefix::Nothing)
        }
        _ => None,
    }
}

/// An added token that is looked for behind the normalizer, where llama.cpp does not look.
pub fn normalized(tokenizer: &Json, prefix: Prefix) -> Option<&Json> {
    let added = tokenizer["added_tokens"].as_array()?;
    let changes = |token: &&Json| prefix == Prefix::Space || token["content"].as_str().is_some_and(|text| text.contains([' ', '\u{2581}']));
    added.iter().find(|token| token["normalized"] == true && changes(token))
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
    // llama.cpp merges to pieces of any type. Runs of spaces of a Gemma are such that texts are searched for, too. What the converter fills gaps with is left out.
    let is_normal = |id: usize| types.get(id) != Some(&UNUSED) || tokens.get(id).is_some_and(|text| *text != format!("[PAD{id}]"));
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

/// Pieces behind which so many others are tried.
const NEIGHBOURS: usize = 1 << 18;

/// llama.cpp joins any two pieces whose text is a third, the one with the highest score first, whatever the merges say. Where that gives another piece's text other
/// tokens than the tokenizer does, alone or in front of another piece, the file would be another tokenizer.
pub fn refuse_other_merges(tokenizer: &Tokenizer, tokens: &[String], types: &[i32], scores: &[f32]) -> Result<(), ModelError> {
    let tokenizers::ModelWrapper::BPE(own) = tokenizer.inner().get_model() else { return Ok(()) };
    let again = merges(tokens, types, scores)?.into_iter().map(|(left, right)| (left.to_string(), right.to_string())).collect();
    let vocab = own.get_vocab();
    let builder = BPE::builder()
        .vocab_and_merges(vocab.into_iter().collect::<Vocab>(), again)
        .fuse_unk(own.fuse_unk)
        .byte_fallback(own.byte_fallback);
    let builder = match &own.unk_token {
        Some(unknown) => builder.unk_token(unknown.clone()),
        None => builder,
    };
    let again = builder.build().map_err(|error| ModelError::malformed("tokenizer.json", error))?;
    let ids = |bpe: &BPE, text: &str| bpe.tokenize(text).map(|found| found.into_iter().map(|token| token.id).collect::<Vec<u32>>()).ok();
    let refuse = |text: &str| {
        let why = format!("of merges that llama.cpp finds anew from the pieces' scores; {text:?} would become other tokens");
        Err(ModelError::unsupported("a GGUF file of these merges", why))
    };
    // Added tokens are found before anything is merged, but for those that texts get only then.
    let is_merged = |id: usize, text: &str| match types.get(id).copied().unwrap_or(NORMAL) {
        NORMAL => true,
        USER_DEFINED => text.contains(SPACE),
        _ => false,
    };
    let pieces = tokens.iter().enumerate().filter(|(id, text)| is_merged(*id, text) && text.chars().nth(1).is_some());
    let texts: Vec<&str> = pieces.map(|(_, text)| text.as_str()).collect();
    if let Some(text) = texts.iter().find(|text| ids(own, text) != ids(&again, text)) {
        return refuse(text);
    }
    let behind = (NEIGHBOURS / texts.len().max(1)).min(texts.len());
    for (i, text) in texts.iter().enumerate() {
        for other in (i..i + behind).filter_map(|j| texts.get(j % texts.len())) {
            for pair in [format!("{text}{other}"), format!("{other}{text}")] {
                if ids(own, &pair) != ids(&again, &pair) {
                    return refuse(&pair);
                }
            }
        }
    }
    Ok(())
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
