//! Generation: many prompts at once, each answered as if it were alone. Greedy, or drawn as `sample` draws.

use std::ops::ControlFlow;

use rayon::prelude::*;

use super::decoder::cache::Cache;
use super::decoder::{Batch, Decoder, Tensors};
use super::sample::{Sampling, log_probability};
use super::{Model, ModelError};

/// Memory for keys and values; fewer sequences run side by side when they are long.
const CACHE_BYTES: usize = 256 << 20;
const MAX_SLOTS: usize = 128;
/// Rows of one prefill.
const PREFILL_ROWS: usize = 4096;
/// A beginning that all prompts share is read once if it has this many tokens.
const MIN_SHARED: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generate {
    /// An answer without end is cut here.
    pub max_new_tokens: usize,
}

/// How each next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decode<'a> {
    /// The likeliest, the lowest of equals.
    Greedy,
    /// Drawn; each prompt has a stream of its own.
    Sample(&'a Sampling, &'a [u64]),
}

/// What follows a prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Without the token that ends it.
    pub tokens: Vec<u32>,
    /// ln P of all that was chosen, the end included, as the model has it: at temperature 1, among all tokens.
    pub log_probability: f64,
    /// The token that ended it; none, if it was cut.
    pub end: Option<u32>,
}

impl<W: Tensors> Model<W> {
    /// The tokens that follow each prompt, up to the end-of-text token, which is not among them. Answers do not depend on which prompts run
    /// together. `progress` hears how many prompts are answered and may stop the work.
    pub fn generate(
        &self,
        prompts: &[Vec<u32>],
        options: &Generate,
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<Vec<u32>>, ModelError> {
        let answers = self.greedy(prompts, options, progress)?;
        Ok(answers.into_iter().map(|answer| answer.tokens).collect())
    }

    /// The same with the tokens that end the answers. Their probability stays unknown.
    pub fn greedy(
        &self,
        prompts: &[Vec<u32>],
        options: &Generate,
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<Answer>, ModelError> {
        self.run(prompts, options, None, progress)
    }

    /// The same, with the choice of tokens left to the caller and their probability told.
    pub fn answer(
        &self,
        prompts: &[Vec<u32>],
        options: &Generate,
        decode: Decode,
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<Answer>, ModelError> {
        match decode {
            Decode::Sample(_, streams) if streams.len() != prompts.len() => {
                Err(ModelError::Input(format!("{} prompts have {} streams of random numbers", prompts.len(), streams.len())))
            }
            _ => self.run(prompts, options, Some(decode), progress),
        }
    }

    /// Without `decode` the likeliest tokens, their probability unknown.
    fn run(
        &self,
        prompts: &[Vec<u32>],
        options: &Generate,
        decode: Option<Decode>,
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<Answer>, ModelError> {
        let mut answers = vec![Answer::default(); prompts.len()];
        let limit = self.config.max_position_embeddings;
        for prompt in prompts {
            if prompt.is_empty() || prompt.len() > limit {
                return Err(ModelError::Input(format!("a prompt has {} tokens; the model takes 1 to {limit}", prompt.len())));
            }
        }
        if options.max_new_tokens == 0 || prompts.is_empty() {
            return Ok(answers);
        }
        // Prompts of like length run together: less waiting for the longest.
        let mut order: Vec<usize> = (0..prompts.len()).collect();
        order.sort_by_key(|index| prompts[*index].len());
        let longest = order.last().map_or(0, |index| prompts[*index].len());
        let capacity = limit.min(longest.saturating_add(options.max_new_tokens));
        let slots = (CACHE_BYTES / (capacity * Cache::token_bytes(&self.config))).clamp(1, MAX_SLOTS).min(prompts.len());
        let decoder = Decoder::new(&self.config)?;
        // What was read at one pace is of no use to a prompt at the other.
        let shared = Some(shared_tokens(prompts)).filter(|shared| longest <= decoder.switch() || *shared > decoder.switch()).unwrap_or(0);
        let mut run = Run {
            model: self,
            decoder,
            cache: Cache::new(&self.config, slots + usize::from(shared > 0), capacity)?,
            shared,
            holder: slots,
            batch: Batch::default(),
            free: (0..slots).rev().collect(),
            active: Vec::new(),
            chosen: Vec::new(),
            places: Vec::new(),
            decode,
            slots: Vec::new(),
            max_new_tokens: options.max_new_tokens,
        };
        if let Some(prompt) = prompts.first().filter(|_| shared > 0) {
            rayon::scope(|_| run.read_shared(&prompt[..shared]))?;
        }
        let mut waiting = order.as_slice();
        while !waiting.is_empty() || !run.active.is_empty() {
            // On a worker thread, so that the many small kernels of a token need no way to another thread and back.
            waiting = rayon::scope(|_| {
                let waiting = run.admit(prompts, waiting, &mut answers)?;
                run.advance(prompts, &mut answers)?;
                Ok::<_, ModelError>(waiting)
            })?;
            let answered = prompts.len() - waiting.len() - run.active.len();
            if progress(answered).is_break() {
                return Err(ModelError::Stopped);
            }
        }
        Ok(answers)
    }
}

struct Run<'a, W> {
    model: &'a Model<W>,
    decoder: Decoder,
    cache: Cache,
    /// How many tokens all prompts begin with, and the slot that holds them.
    shared: usize,
    holder: usize,
    batch: Batch,
    free: Vec<usize>,
    active: Vec<Active>,
    chosen: Vec<Choice>,
    /// Of each row, for which prompt's which token it is.
    places: Vec<(usize, usize)>,
    decode: Option<Decode<'a>>,
    slots: Vec<usize>,
    max_new_tokens: usize,
}

/// A sequence that goes on: its last token is not in the cache yet.
#[derive(Clone, Copy, Debug)]
struct Active {
    prompt: usize,
    slot: usize,
    length: usize,
    last: Choice,
}

/// A token and ln P of it.
type Choice = (u32, f64);

impl<W: Tensors> Run<'_, W> {
    /// Reads what all prompts begin with.
    fn read_shared(&mut self, tokens: &[u32]) -> Result<(), ModelError> {
        self.batch.clear();
        self.batch.push_rest(tokens, 0);
        self.decoder.prefill(&self.model.weights, &self.batch, &mut self.cache, &[self.holder])
    }

    /// Starts as many of the waiting prompts as there are free slots, once enough are free to make a pass worth its while.
    fn admit<'w>(&mut self, prompts: &[Vec<u32>], waiting: &'w [usize], answers: &mut [Answer]) -> Result<&'w [usize], ModelError> {
        if !self.active.is_empty() && self.free.len() < (self.free.len() + self.active.len()).div_ceil(4) {
            return Ok(waiting);
        }
        let mut taken = 0;
        self.batch.clear();
        self.slots.clear();
        self.places.clear();
        for index in waiting {
            let prompt = &prompts[*index][self.shared..];
            if taken > 0 && self.batch.rows() + prompt.len() > PREFILL_ROWS {
                break;
            }
            let Some(slot) = self.free.pop() else { break };
            self.batch.push_rest(prompt, self.shared as u32);
            self.slots.push(slot);
            self.places.push((*index, 0));
            taken += 1;
        }
        if taken == 0 {
            return Ok(waiting);
        }
        if self.shared > 0 {
            self.slots.iter().for_each(|slot| self.cache.copy(self.holder, *slot, self.shared));
            self.decoder.advance(&self.model.weights, &self.batch, &mut self.cache, &self.slots)?;
        } else {
            self.decoder.prefill(&self.model.weights, &self.batch, &mut self.cache, &self.slots)?;
        }
        self.choose()?;
        let (started, rest) = waiting.split_at(taken);
        for ((index, slot), token) in started.iter().zip(&self.slots).zip(&self.chosen) {
            let active = Active { prompt: *index, slot: *slot, length: prompts[*index].len(), last: *token };
            if self.goes_on(active, answers) {
                self.active.push(active);
            } else {
                self.free.push(*slot);
            }
        }
        Ok(rest)
    }

    /// One more token for every active sequence; those that end make room. One that has just become so long that its positions turn at another pace is
    /// read again.
    fn advance(&mut self, prompts: &[Vec<u32>], answers: &mut [Answer]) -> Result<(), ModelError> {
        if self.active.is_empty() {
            return Ok(());
        }
        self.batch.clear();
        self.slots.clear();
        self.places.clear();
        for active in &self.active {
            if active.length == self.decoder.switch() {
                let whole = prompts[active.prompt].iter().chain(&answers[active.prompt].tokens);
                self.batch.push_rest(&whole.copied().collect::<Vec<_>>(), 0);
            } else {
                self.batch.push_next(active.last.0, active.length as u32);
            }
            self.slots.push(active.slot);
            self.places.push((active.prompt, answers[active.prompt].tokens.len()));
        }
        self.decoder.advance(&self.model.weights, &self.batch, &mut self.cache, &self.slots)?;
        self.choose()?;
        let mut kept = 0;
        for i in 0..self.active.len() {
            let before = self.active[i];
            let after = Active { length: before.length + 1, last: self.chosen[i], ..before };
            if self.goes_on(after, answers) {
                self.active[kept] = after;
                kept += 1;
            } else {
                self.free.push(after.slot);
            }
        }
        self.active.truncate(kept);
        Ok(())
    }

    /// Writes the newest token down, unless it ends the answer; whether there is to be another.
    fn goes_on(&self, active: Active, answers: &mut [Answer]) -> bool {
        let (answer, (token, log_probability)) = (&mut answers[active.prompt], active.last);
        answer.log_probability += log_probability;
        answer.end = Some(token).filter(|token| self.model.config.ends(*token));
        if answer.end.is_some() {
            return false;
        }
        answer.tokens.push(token);
        answer.tokens.len() < self.max_new_tokens && active.length < self.model.config.max_position_embeddings
    }

    /// A token for each row.
    fn choose(&mut self) -> Result<(), ModelError> {
        let (vocab, chosen, places, decode) = (self.model.config.vocab_size, &mut self.chosen, &self.places, self.decode);
        chosen.clear();
        let finite = |choice: Option<Choice>| choice.ok_or_else(|| ModelError::NotFinite("a logit".to_string()));
        self.decoder.logits(&self.model.weights, &mut |rows, logits| {
            let Some(decode) = decode else {
                for row in logits.chunks_exact(vocab) {
                    chosen.push(finite(argmax(row).map(|token| (token, 0.0)))?);
                }
                return Ok(());
            };
            let each = logits.par_chunks_exact(vocab).zip(&places[rows]);
            let drawn: Vec<Option<Choice>> = each.map(|(row, place)| decode.choose(row, *place)).collect();
            for choice in drawn {
                chosen.push(finite(choice)?);
            }
            Ok(())
        })
    }
}

impl Decode<'_> {
    fn choose(self, logits: &[f32], (prompt, place): (usize, usize)) -> Option<Choice> {
        let token = match self {
            Decode::Greedy => argmax(logits)?,
            Decode::Sample(sampling, streams) => sampling.draw(logits, *streams.get(prompt)?, place as u64)?,
        };
        Some((token, log_probability(logits, token)?))
    }
}

/// How many tokens all prompts begin with, if reading them once is worth its while. Each prompt keeps at least one token of its own.
fn shared_tokens(prompts: &[Vec<u32>]) -> usize {
    let [first, others @ ..] = prompts else { return 0 };
    if others.is_empty() {
        return 0;
    }
    let most = prompts.iter().map(|prompt| prompt.len() - 1).min().unwrap_or(0);
    let alike = |prompt: &Vec<u32>| prompt.iter().zip(first).take_while(|(a, b)| a == b).count();
    let shared = others.iter().map(alike).min().unwrap_or(0).min(most);
    if shared < MIN_SHARED { 0 } else { shared }
}

/// The place of the largest number, the first of equals; nothing if one is not finite.
pub fn argmax(row: &[f32]) -> Option<u32> {
    let mut best = 0;
    for (i, value) in row.iter().enumerate() {
        if !value.is_finite() {
            return None;
        }
        if *value > row[best] {
            best = i;
        }
    }
    (!row.is_empty()).then_some(best as u32)
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::tiny;
    use super::super::tokenizer::tests::bytes_only;
    use super::super::{ChatTemplate, Config, Scored, Weights};
    use super::*;
    use crate::kernels::rng;

    fn model(eos: Option<u32>) -> Model {
        let config = Config { vocab_size: 257, eos_token_id: eos, ..tiny() };
        let mut weights = Weights::random(&config, 3).unwrap();
        weights.data.iter_mut().for_each(|w| *w *= 9.0);
        Model { config, weights, tokenizer: bytes_only(), chat: ChatTemplate::default() }
    }

    fn prompts(n: u64) -> Vec<Vec<u32>> {
        (0..n).map(|p| (0..1 + rng::below(1, p, 0, 20)).map(|i| rng::below(2, p, i, 257) as u32).collect()).collect()
    }

    fn all(model: &Model, prompts: &[Vec<u32>], max_new_tokens: usize) -> Vec<Vec<u32>> {
        model.generate(prompts, &Generate { max_new_tokens }, &mut |_| ControlFlow::Continue(())).unwrap()
    }

    /// Token by token, each time the whole sequence from the start.
    fn slowly(model: &Model, prompt: &[u32], max_new_tokens: usize) -> Vec<u32> {
        let mut tokens = prompt.to_vec();
        while tokens.len() - prompt.len() < max_new_tokens && tokens.len() <= model.config.max_position_embeddings {
            let from = tokens.len();
            let mut next = None;
            let scored = Scored { tokens: [tokens.as_slice(), &[0]].concat(), from };
            model.score(&[scored], &mut |_, logits| next = argmax(logits)).unwrap();
            if next == model.config.eos_token_id {
                break;
            }
            tokens.extend(next);
        }
        tokens.split_off(prompt.len())
    }

    #[test]
    fn answers_are_those_of_one_prompt_alone_without_a_cache() {
        let open = model(None);
        let prompts = prompts(150);
        let first = all(&open, &prompts, 12);
        // A token that really occurs ends some answers early and not others.
        let eos = first[0][3];
        let model = Model { config: Config { eos_token_id: Some(eos), ..open.config.clone() }, ..open };
        let answers = all(&model, &prompts, 12);
        assert!(answers.iter().any(|a| a.len() < 12) && answers.iter().any(|a| a.len() == 12));
        for (prompt, answer) in prompts.iter().zip(&answers).step_by(7) {
            assert_eq!(*answer, slowly(&model, prompt, 12));
            assert_eq!(*answer, all(&model, std::slice::from_ref(prompt), 12)[0]);
        }
    }

    #[test]
    fn answers_tell_their_probability_and_their_end() {
        let open = model(None);
        let prompts = prompts(40);
        let eos = all(&open, &prompts, 12)[0][3];
        let model = Model { config: Config { eos_token_id: Some(eos), ..open.config.clone() }, ..open };
        let options = Generate { max_new_tokens: 12 };
        let answers = model.answer(&prompts, &options, Decode::Greedy, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(answers.iter().map(|answer| answer.tokens.clone()).collect::<Vec<_>>(), all(&model, &prompts, 12));
        assert!(answers.iter().any(|answer| answer.end.is_some()) && answers.iter().any(|answer| answer.end.is_none()));
        for (prompt, answer) in prompts.iter().zip(&answers) {
            assert_eq!(answer.end.is_some(), answer.tokens.len() < 12);
            let mut tokens = [prompt.as_slice(), &answer.tokens].concat();
            tokens.extend(answer.end);
            let (mut sum, vocab) = (0.0, model.config.vocab_size);
            let scored = Scored { tokens: tokens.clone(), from: prompt.len() };
            let each = model.score(&[scored], &mut |_, logits| {
                for (row, token) in logits.chunks_exact(vocab).zip(&tokens[prompt.len()..]) {
                    sum += log_probability(row, *token).unwrap();
                }
            });
            each.unwrap();
            assert!((answer.log_probability - sum).abs() < 1e-5, "{} {sum}", answer.log_probability);
        }
    }

    #[test]
    fn what_is_drawn_does_not_depend_on_company_or_threads() {
        let model = model(None);
        let prompts = prompts(150);
        let streams: Vec<u64> = (0..150).map(|i| i * 3).collect();
        let sampling = Sampling { temperature: 1.3, top_k: Some(40), top_p: Some(0.9), seed: 5 };
        let draw = |prompts: &[Vec<u32>], streams: &[u64]| {
            model.answer(prompts, &Generate { max_new_tokens: 8 }, Decode::Sample(&sampling, streams), &mut |_| ControlFlow::Continue(()))
        };
        let together = draw(&prompts, &streams).unwrap();
        assert_ne!(together[0].tokens, all(&model, &prompts[..1], 8)[0]);
        let three = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(three.install(|| draw(&prompts, &streams)).unwrap(), together);
        for i in (0..150).step_by(13) {
            assert_eq!(draw(&prompts[i..=i], &streams[i..=i]).unwrap()[0], together[i]);
        }
        let others = draw(&vec![prompts[0].clone(); 4], &[0, 1, 2, 3]).unwrap();
        assert!(others[0] == together[0] && others.iter().any(|other| other.tokens != others[0].tokens));
        assert!(draw(&prompts, &streams[1..]).is_err());
    }

    #[test]
    fn a_shared_beginning_changes_no_answer() {
        let model = model(None);
        let beginning: Vec<u32> = (0..30).map(|i| rng::below(7, 0, i, 257) as u32).collect();
        let prompts: Vec<Vec<u32>> = prompts(150).iter().map(|rest| [beginning.as_slice(), rest].concat()).collect();
        assert!(shared_tokens(&prompts) >= 30);
        let answers = all(&model, &prompts, 5);
        for (prompt, answer) in prompts.iter().zip(&answers).step_by(11) {
            assert_eq!(*answer, slowly(&model, prompt, 5));
        }
        // Equal prompts keep a token of their own; short ones share nothing.
        assert_eq!(shared_tokens(&[beginning.clone(), beginning.clone()]), 29);
        assert_eq!(shared_tokens(&[vec![1], beginning.clone()]), 0);
        let twice = all(&model, &[beginning.clone(), beginning.clone()], 5);
        assert_eq!(twice[0], slowly(&model, &beginning, 5));
        assert_eq!(twice[0], twice[1]);
    }

    #[test]
    fn the_model_s_reach_ends_an_answer() {
        let model = model(None);
        let prompt = prompts(1).remove(0);
        let answer = all(&model, std::slice::from_ref(&prompt), 1000).remove(0);
        assert_eq!(prompt.len() + answer.len(), model.config.max_position_embeddings + 1);
        assert_eq!(answer, slowly(&model, &prompt, 1000));
        let long = vec![1; model.config.max_position_embeddings + 1];
        assert!(model.generate(&[long], &Generate { max_new_tokens: 1 }, &mut |_| ControlFlow::Continue(())).is_err());
        assert!(model.generate(&[vec![]], &Generate { max_new_tokens: 1 }, &mut |_| ControlFlow::Continue(())).is_err());
    }

    #[test]
    fn it_stops_when_asked_and_says_when_the_arithmetic_fails() {
        let mut model = model(None);
        let stopped = model.generate(&prompts(3), &Generate { max_new_tokens: 9 }, &mut |_| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(ModelError::Stopped)));
        model.weights.data[300] = f32::NAN;
        model.weights.data[5] = f32::NAN;
        let broken = model.generate(&[vec![0]], &Generate { max_new_tokens: 9 }, &mut |_| ControlFlow::Continue(()));
        assert!(matches!(broken, Err(ModelError::NotFinite(_))), "{broken:?}");
    }

    #[test]
    fn scores_do_not_depend_on_their_company() {
        let model = model(None);
        let sequences: Vec<Scored> = prompts(40).into_iter().map(|tokens| Scored { from: tokens.len().div_ceil(2), tokens }).collect();
        let mut together = Vec::new();
        model.score(&sequences, &mut |index, logits| together.push((index, logits.to_vec()))).unwrap();
        assert_eq!(together.len(), sequences.len());
        for (i, scored) in sequences.iter().enumerate() {
            let mut alone = Vec::new();
            model.score(std::slice::from_ref(scored), &mut |_, logits| alone = logits.to_vec()).unwrap();
            assert_eq!(together[i], (i, alone));
        }
        assert!(model.score(&[Scored { tokens: vec![1, 2], from: 0 }], &mut |_, _| {}).is_err());
    }
}
