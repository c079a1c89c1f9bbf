//! A context and what may follow it, as tokens. Cut as lm-evaluation-harness cuts them: both are encoded together, and what is beyond the
//! context's own tokens belongs to the continuation. White space at the context's end goes to the continuation first.

use std::collections::BTreeMap;

use crate::model::tokenizer::Special;
use crate::model::{Model, ModelError, Scored, Stored};

/// What is read before, and which tokens follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Its place among the sequences.
    pub sequence: usize,
    pub targets: Vec<u32>,
}

/// Pairs in the making. Choices of one token each after the same context read the same: their sequence stands here once.
pub struct Pairs<'a> {
    model: &'a Model<Stored>,
    /// Stands before a text where the tokenizer wants it to.
    bos: Option<&'a Special>,
    /// Stands before what has nothing else before it.
    prefix: u32,
    pub pairs: Vec<Pair>,
    pub sequences: Vec<Scored>,
    /// By the tokens that are read and the first one to foretell.
    known: BTreeMap<(Vec<u32>, usize), usize>,
}

impl<'a> Pairs<'a> {
    /// An error goes on after "document 3 of set `easy`".
    pub fn new(model: &'a Model<Stored>) -> Result<Pairs<'a>, String> {
        let tokenizer = &model.tokenizer;
        let prefix = tokenizer.bos.as_ref().or(tokenizer.eos.as_ref()).map(|special| special.id);
        let prefix = prefix.ok_or("cannot be scored: the model's tokenizer has no token that begins or ends a text")?;
        let bos = tokenizer.bos.as_ref().filter(|_| tokenizer.adds_bos());
        Ok(Pairs { model, bos, prefix, pairs: Vec::new(), sequences: Vec::new(), known: BTreeMap::new() })
    }

    pub fn push(&mut self, context: &str, continuation: &str) -> Result<(), String> {
        let (mut tokens, from) = self.encode(context, continuation).map_err(|error| error.to_string())?;
        let targets = tokens.split_off(from);
        if targets.is_empty() {
            return Err(format!("has a choice without a token of its own: {continuation:?}"));
        }
        tokens.extend_from_slice(&targets[..targets.len() - 1]);
        let (read, limit) = (tokens.len(), self.model.config.max_position_embeddings);
        if read > limit {
            return Err(format!("has {read} tokens to read with one of its choices; the model takes {limit}"));
        }
        let last = targets[targets.len() - 1];
        let sequence = *self.known.entry((tokens, from)).or_insert_with_key(|(read, from)| {
            // The last token is foretold and never read, so any will do.
            self.sequences.push(Scored { tokens: [read.as_slice(), &[last]].concat(), from: *from });
            self.sequences.len() - 1
        });
        self.pairs.push(Pair { sequence, targets });
        Ok(())
    }

    /// All tokens, and where the continuation's begin: never before 1.
    fn encode(&self, context: &str, continuation: &str) -> Result<(Vec<u32>, usize), ModelError> {
        let tokenizer = &self.model.tokenizer;
        if context.is_empty() {
            let mut tokens = tokenizer.encode(continuation)?;
            if tokens.first() != Some(&self.prefix) {
                tokens.insert(0, self.prefix);
            }
            return Ok((tokens, 1));
        }
        let kept = context.trim_end();
        let text = |end: &str| {
            let text = format!("{kept}{end}");
            let bos = self.bos.filter(|bos| !text.starts_with(&bos.text));
            let mut tokens: Vec<u32> = bos.map(|bos| bos.id).into_iter().collect();
            tokens.extend(tokenizer.encode(&text)?);
            Ok::<_, ModelError>(tokens)
        };
        let mut tokens = text(&format!("{}{continuation}", &context[kept.len()..]))?;
        let mut from = text("")?.len().min(tokens.len());
        if from == 0 {
            tokens.insert(0, self.prefix);
            from = 1;
        }
        Ok((tokens, from))
    }
}
