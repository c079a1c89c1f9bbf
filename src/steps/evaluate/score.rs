//! Probabilities of given texts: negative log-likelihood, divergence from a reference, agreement on the likeliest token. Logits come from the
//! kernels; what is made of them here is f64, row by row and in order.

use rayon::prelude::*;

use super::report::Item;
use super::sets::Set;
use crate::kernels::math::{exp64, ln64};
use crate::model::generate::argmax;
use crate::model::{Example, Model, ModelError, Scored, Stored};
use crate::steps::{Failure, Io};

/// Logits of a chunk that are held at once (64 MiB), unless one sequence has more.
const CHUNK_LOGITS: usize = 16 << 20;

/// What is scored of a set, and how its texts are cut.
pub struct Scores<'a> {
    pub set: &'a Set,
    pub examples: Vec<Example>,
    pub n_ctx: Option<usize>,
}

/// Fills in `nll` and `tokens` of the examples' items, and, with a reference, their divergences and `top1_agree`.
pub fn score(
    scores: &Scores,
    model: &Model<Stored>,
    reference: Option<&Model<Stored>>,
    items: &mut [Item],
    io: &Io,
) -> Result<(), Failure> {
    let Scores { set, examples, n_ctx } = scores;
    if let Some(reference) = reference {
        check_same_tokens(set, model, reference, examples, *n_ctx)?;
    }
    let mut start = 0;
    while start < examples.len() {
        io.check_cancelled()?;
        let end = chunk_end(examples, start, model.config.vocab_size);
        chunk(set, model, reference, &examples[start..end], &mut items[start..end])?;
        start = end;
        io.progress(start as u64, examples.len() as u64, "items", &set.name);
    }
    Ok(())
}

fn chunk_end(examples: &[Example], start: usize, vocab: usize) -> usize {
    let mut logits = 0usize;
    let fits = examples[start..].iter().take_while(|example| {
        logits = logits.saturating_add(rows(example).saturating_mul(vocab));
        logits <= CHUNK_LOGITS
    });
    start + fits.count().max(1)
}

/// Logits are made from the first scored token on.
fn rows(example: &Example) -> usize {
    example.scored.first().map_or(0, |first| example.tokens.len() - first.start)
}

fn chunk(
    set: &Set,
    model: &Model<Stored>,
    reference: Option<&Model<Stored>>,
    examples: &[Example],
    items: &mut [Item],
) -> Result<(), Failure> {
    let sequences: Vec<Scored> = examples
        .iter()
        .map(|example| {
            let from = example.scored.first().map_or(example.tokens.len(), |first| first.start);
            // An example without a scored token asks for no logits, but still starts behind its first token.
            Scored { tokens: example.tokens.clone(), from: from.max(1) }
        })
        .collect();
    let failed = |error: ModelError| Failure::model(&format!("score set `{}`", set.name), &error);
    let mut theirs: Vec<Vec<f32>> = Vec::new();
    if let Some(reference) = reference {
        reference.score(&sequences, &mut |_, logits| theirs.push(logits.to_vec())).map_err(failed)?;
    }
    let vocab = model.config.vocab_size;
    let mut bad = None;
    model
        .score(&sequences, &mut |index, logits| {
            let (Some(example), Some(item)) = (examples.get(index), items.get_mut(index)) else { return };
            match tokens(example, logits, theirs.get(index).map(Vec::as_slice), vocab) {
                Some(tokens) => fill(item, &tokens, reference.is_some()),
                None => bad = bad.or(Some(item.index)),
            }
        })
        .map_err(failed)?;
    match bad {
        Some(index) => Err(set.wrong(index as usize, "gives logits that are not finite numbers")),
        None => Ok(()),
    }
}

/// A scored token.
#[derive(Clone, Copy)]
struct Token {
    nll: f64,
    kl: f64,
    agrees: bool,
}

fn fill(item: &mut Item, tokens: &[Token], compared: bool) {
    item.tokens = Some(tokens.len() as u64);
    item.nll = Some(tokens.iter().map(|token| token.nll).sum());
    item.kl_divergence = compared.then(|| tokens.iter().map(|token| token.kl).sum());
    item.top1_agree = compared.then(|| tokens.iter().filter(|token| token.agrees).count() as u64);
    item.token_kl_divergences = compared.then(|| tokens.iter().map(|token| token.kl).collect());
}

/// `None` if a logit is not finite.
fn tokens(example: &Example, logits: &[f32], theirs: Option<&[f32]>, vocab: usize) -> Option<Vec<Token>> {
    let from = example.tokens.len() - rows(example);
    let places: Vec<usize> = example.scored.iter().cloned().flatten().collect();
    let row = |place: usize| (place - from) * vocab..(place - from + 1) * vocab;
    // Through a list, so that the first error is that of the first token.
    let each: Vec<Option<Token>> = places
        .par_iter()
        .map(|&place| {
            let target = *example.tokens.get(place)? as usize;
            let ours = logits.get(row(place))?;
            match theirs {
                Some(theirs) => token(ours, Some(theirs.get(row(place))?), target),
                None => token(ours, None, target),
            }
        })
        .collect();
    each.into_iter().collect()
}

fn token(ours: &[f32], theirs: Option<&[f32]>, target: usize) -> Option<Token> {
    let best = argmax(ours)?;
    let our_log = log_sum_exp(ours);
    let nll = our_log - f64::from(*ours.get(target)?);
    let Some(theirs) = theirs else { return Some(Token { nll, kl: 0.0, agrees: false }) };
    let agrees = argmax(theirs)? == best;
    let their_log = log_sum_exp(theirs);
    let kl: f64 = theirs
        .iter()
        .zip(ours)
        .map(|(&t, &o)| {
            let log_p = f64::from(t) - their_log;
            exp64(log_p) * (log_p - (f64::from(o) - our_log))
        })
        .sum();
    // Rounding can leave a zero divergence a hair below zero.
    Some(Token { nll, kl: kl.max(0.0), agrees })
}

/// ln Σ exp of each row; nothing for a row with a logit that is not finite.
pub fn log_sums(logits: &[f32], vocab: usize) -> Vec<Option<f64>> {
    logits.par_chunks_exact(vocab).map(|row| argmax(row).map(|_| log_sum_exp(row))).collect()
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let most = f64::from(logits.iter().fold(f32::MIN, |most, &value| most.max(value)));
    most + ln64(logits.iter().map(|&value| exp64(f64::from(value) - most)).sum())
}

/// Divergences are of distributions over the same tokens of the same texts.
fn check_same_tokens(
    set: &Set,
    model: &Model<Stored>,
    reference: &Model<Stored>,
    examples: &[Example],
    n_ctx: Option<usize>,
) -> Result<(), Failure> {
    let help = "kl_divergence and top1_agreement need a reference with the same tokenizer and chat template";
    if model.config.vocab_size != reference.config.vocab_size {
        let (ours, theirs) = (model.config.vocab_size, reference.config.vocab_size);
        return Err(Failure::new(format!("the model has {ours} tokens and the reference {theirs}")).help(help));
    }
    let theirs = set.examples(reference, n_ctx)?;
    if let Some(index) = examples.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs) {
        return Err(set.wrong(index, "is not the same tokens for the model and the reference").help(help));
    }
    if examples.len() != theirs.len() {
        return Err(Failure::new(format!("set `{}` is not the same tokens for the model and the reference", set.name)).help(help));
    }
    let differs = |id: &u32| model.tokenizer.token(*id) != reference.tokenizer.token(*id);
    match (0..model.config.vocab_size as u32).find(differs) {
        Some(id) => Err(Failure::new(format!("token {id} is not the same for the model and the reference")).help(help)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_divergence_is_that_of_the_textbook() {
        let (ours, theirs) = ([0.0f32, 1.0, -1.0], [0.5f32, 0.5, 0.0]);
        let found = token(&ours, Some(&theirs), 1).unwrap();
        // p = softmax(theirs), q = softmax(ours), by Python's math in doubles.
        assert!((found.nll - 0.407_605_964_444_380).abs() < 1e-12, "{}", found.nll);
        assert!((found.kl - 0.182_282_414_116_245).abs() < 1e-12, "{}", found.kl);
        assert!(!found.agrees);
        let same = token(&ours, Some(&ours), 1).unwrap();
        assert_eq!((same.kl, same.agrees), (0.0, true));
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        assert!(token(&[0.0, f32::NAN], None, 0).is_none());
        assert!(token(&[0.0, 1.0], Some(&[f32::INFINITY, 0.0]), 0).is_none());
        assert!(token(&[0.0, 1.0], None, 2).is_none());
    }

    #[test]
    fn a_long_sequence_runs_alone() {
        let example = |n: usize| Example::of(vec![0], &vec![0; n]);
        let examples = [example(10), example(CHUNK_LOGITS), example(10), example(10)];
        assert_eq!(chunk_end(&examples, 0, 2), 1);
        assert_eq!(chunk_end(&examples, 1, 2), 2);
        assert_eq!(chunk_end(&examples, 2, 2), 4);
    }
}
