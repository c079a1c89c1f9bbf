//! Learns a byte-level BPE vocabulary. The pair that occurs most is merged, of equals the one with the lower tokens: nothing here depends on
//! threads or on the order of a hash, which the trainer of the `tokenizers` crate does not promise. What it learns is written as that
//! crate's `tokenizer.json`, and the crate does the encoding.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use rayon::prelude::*;
use serde_json::{Value, json};
use tokenizers::{OffsetReferential, OffsetType, PreTokenizer};

use super::bytes;
use super::{ModelError, Tokenizer};

/// Texts that are split by one task.
const GROUP: usize = 256;
/// A run of letters longer than this is no word; what a merge costs grows with it.
const MAX_WORD: usize = 4096;

type Pair = (u32, u32);

/// What to learn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub vocab_size: usize,
    /// A pair that occurs less often is not merged.
    pub min_frequency: u64,
    /// Ends a text, and pads. The first token.
    pub eos: String,
    /// Further special tokens, in order behind it.
    pub specials: Vec<String>,
}

impl Plan {
    /// The tokenizer before anything is learned: special tokens and bytes.
    pub fn base(&self) -> Result<Tokenizer, ModelError> {
        self.tokenizer(&Learned::start(self))
    }

    /// Learns from texts. `progress` hears how many tokens there are and may stop the work.
    pub fn learn(&self, texts: &[String], progress: &mut dyn FnMut(usize) -> ControlFlow<()>) -> Result<Tokenizer, ModelError> {
        let mut learned = Learned::start(self);
        let words = count_words(&self.base()?, texts)?;
        let mut merging = Merging::new(&words, &learned);
        while learned.texts.len() < self.vocab_size {
            if progress(learned.texts.len()).is_break() {
                return Err(ModelError::Stopped);
            }
            let Some((pair, count)) = merging.most_frequent() else { break };
            if count < self.min_frequency {
                break;
            }
            match learned.merge(pair) {
                Some(token) => merging.merge(pair, token),
                None => merging.forbid(pair),
            }
        }
        self.tokenizer(&learned)
    }

    fn tokenizer(&self, learned: &Learned) -> Result<Tokenizer, ModelError> {
        let vocab: serde_json::Map<String, Value> = learned.texts.iter().enumerate().map(|(id, text)| (text.clone(), json!(id))).collect();
        let merges: Vec<Value> = learned.merges.iter().map(|(a, b)| json!([learned.text(*a), learned.text(*b)])).collect();
        let added: Vec<Value> = (0..learned.first_byte)
            .map(|id| {
                json!({"id": id, "content": learned.text(id), "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true})
            })
            .collect();
        // The pre-tokenizer of GPT-2, which llama.cpp knows under that name.
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true});
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "added_tokens": added,
            "pre_tokenizer": byte_level, "post_processor": byte_level, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": merges},
        });
        let mut tokenizer = Tokenizer::from_json(json.to_string().as_bytes())?.canonical()?;
        let eos = tokenizer.special(&self.eos);
        (tokenizer.bos, tokenizer.eos, tokenizer.pad) = (eos.clone(), eos.clone(), eos);
        Ok(tokenizer)
    }
}

/// How often each word occurs, special tokens left out. Words are in the byte-level alphabet.
fn count_words(tokenizer: &Tokenizer, texts: &[String]) -> Result<BTreeMap<String, u64>, ModelError> {
    let refused = |error: tokenizers::Error| ModelError::Input(format!("the tokenizer refuses a text: {error}"));
    let inner = tokenizer.inner();
    let (added, splitter) = (inner.get_added_vocabulary(), inner.get_pre_tokenizer());
    let groups: Vec<BTreeMap<String, u64>> = texts
        .par_chunks(GROUP)
        .map(|texts| {
            let mut words = BTreeMap::new();
            for text in texts {
                let mut split = added.extract_and_normalize(inner.get_normalizer(), text);
                if let Some(splitter) = splitter {
                    splitter.pre_tokenize(&mut split).map_err(refused)?;
                }
                for (word, _, tokens) in split.get_splits(OffsetReferential::Original, OffsetType::Byte) {
                    if tokens.is_none() && word.len() <= MAX_WORD {
                        *words.entry(word.to_string()).or_insert(0) += 1;
                    }
                }
            }
            Ok(words)
        })
        .collect::<Result<_, ModelError>>()?;
    let mut words = BTreeMap::new();
    for (word, count) in groups.into_iter().flatten() {
        *words.entry(word).or_insert(0) += count;
    }
    Ok(words)
}

/// The vocabulary so far.
struct Learned {
    /// By token: special tokens, bytes, merged ones.
    texts: Vec<String>,
    by_text: BTreeMap<String, u32>,
    merges: Vec<Pair>,
    /// How many special tokens there are, and the first byte's token.
    first_byte: u32,
}

impl Learned {
    fn start(plan: &Plan) -> Learned {
        let mut learned = Learned { texts: Vec::new(), by_text: BTreeMap::new(), merges: Vec::new(), first_byte: 0 };
        for special in std::iter::once(&plan.eos).chain(&plan.specials) {
            if !learned.by_text.contains_key(special) {
                learned.push(special.clone());
            }
        }
        learned.first_byte = learned.texts.len() as u32;
        for letter in bytes::alphabet() {
            learned.push(letter.to_string());
        }
        learned
    }

    fn push(&mut self, text: String) -> u32 {
        let id = self.texts.len() as u32;
        self.by_text.insert(text.clone(), id);
        self.texts.push(text);
        id
    }

    fn text(&self, id: u32) -> &str {
        self.texts.get(id as usize).map_or("", String::as_str)
    }

    /// The token of a merged pair, which may be spelled as another pair already was; none if it would spell a special token.
    fn merge(&mut self, pair: Pair) -> Option<u32> {
        let text = format!("{}{}", self.text(pair.0), self.text(pair.1));
        let token = match self.by_text.get(&text) {
            Some(id) if *id < self.first_byte => return None,
            Some(id) => *id,
            None => self.push(text),
        };
        self.merges.push(pair);
        Some(token)
    }
}

#[derive(Default)]
struct Occurrences {
    count: u64,
    words: BTreeSet<usize>,
}

/// All words as tokens, and where each pair occurs.
struct Merging {
    words: Vec<(Vec<u32>, u64)>,
    pairs: BTreeMap<Pair, Occurrences>,
    queue: BTreeSet<(Reverse<u64>, Pair)>,
    forbidden: BTreeSet<Pair>,
}

impl Merging {
    fn new(words: &BTreeMap<String, u64>, learned: &Learned) -> Merging {
        let token = |letter: char| learned.by_text.get(letter.encode_utf8(&mut [0; 4]) as &str).copied();
        let words: Vec<(Vec<u32>, u64)> = words.iter().map(|(word, count)| (word.chars().filter_map(token).collect(), *count)).collect();
        let mut pairs: BTreeMap<Pair, Occurrences> = BTreeMap::new();
        for (index, (tokens, count)) in words.iter().enumerate() {
            for pair in tokens.windows(2) {
                let occurrences = pairs.entry((pair[0], pair[1])).or_default();
                occurrences.count += count;
                occurrences.words.insert(index);
            }
        }
        let queue = pairs.iter().map(|(pair, occurrences)| (Reverse(occurrences.count), *pair)).collect();
        Merging { words, pairs, queue, forbidden: BTreeSet::new() }
    }

    fn most_frequent(&self) -> Option<(Pair, u64)> {
        self.queue.first().map(|(Reverse(count), pair)| (*pair, *count))
    }

    fn forbid(&mut self, pair: Pair) {
        if let Some(occurrences) = self.pairs.remove(&pair) {
            self.queue.remove(&(Reverse(occurrences.count), pair));
        }
        self.forbidden.insert(pair);
    }

    fn merge(&mut self, pair: Pair, token: u32) {
        let Some(occurrences) = self.pairs.remove(&pair) else { return };
        self.queue.remove(&(Reverse(occurrences.count), pair));
        let mut changes: BTreeMap<Pair, (i64, BTreeSet<usize>)> = BTreeMap::new();
        for index in occurrences.words {
            let Some((tokens, count)) = self.words.get_mut(index) else { continue };
            let count = *count as i64;
            for old in tokens.windows(2) {
                changes.entry((old[0], old[1])).or_default().0 -= count;
            }
            replace(tokens, pair, token);
            for new in tokens.windows(2) {
                let change = changes.entry((new[0], new[1])).or_default();
                change.0 += count;
                change.1.insert(index);
            }
        }
        changes.remove(&pair);
        for (changed, (difference, words)) in changes {
            if !self.forbidden.contains(&changed) {
                self.change(changed, difference, words);
            }
        }
    }

    /// A word in which a pair no longer occurs may stay listed under it; it then changes nothing.
    fn change(&mut self, pair: Pair, difference: i64, words: BTreeSet<usize>) {
        let occurrences = self.pairs.entry(pair).or_default();
        self.queue.remove(&(Reverse(occurrences.count), pair));
        occurrences.count = occurrences.count.saturating_add_signed(difference);
        occurrences.words.extend(words);
        if occurrences.count > 0 {
            self.queue.insert((Reverse(occurrences.count), pair));
        } else {
            self.pairs.remove(&pair);
        }
    }
}

/// Merges a pair wherever it occurs, from left to right.
fn replace(tokens: &mut Vec<u32>, pair: Pair, token: u32) {
    let (mut read, mut write) = (0, 0);
    while read < tokens.len() {
        let merged = tokens[read] == pair.0 && tokens.get(read + 1) == Some(&pair.1);
        tokens[write] = if merged { token } else { tokens[read] };
        read += if merged { 2 } else { 1 };
        write += 1;
    }
    tokens.truncate(write);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(vocab_size: usize) -> Plan {
        Plan { vocab_size, min_frequency: 1, eos: "<|endoftext|>".to_string(), specials: vec!["<|user|>".to_string()] }
    }

    fn texts() -> Vec<String> {
        let words = ["set", "fridge", "two", "to", "minus", "four", "no", "sorry", "freezer", "naïve", "  ", "42", "it's", "\n"];
        (0..600).map(|i| (0..7).map(|j| words[(i * 31 + j * j * 7 + i * j) % words.len()]).collect::<Vec<_>>().join(" ")).collect()
    }

    fn learn(plan: &Plan, texts: &[String]) -> Tokenizer {
        plan.learn(texts, &mut |_| ControlFlow::Continue(())).unwrap()
    }

    #[test]
    fn frequent_words_become_one_token_and_everything_comes_back() {
        let tokenizer = learn(&plan(320), &texts());
        assert!(tokenizer.vocab_size() <= 320 && tokenizer.vocab_size() > 290);
        assert_eq!(tokenizer.eos.as_ref().map(|eos| eos.id), Some(0));
        assert_eq!(tokenizer.special("<|user|>").map(|user| user.id), Some(1));
        assert_eq!(tokenizer.encode(" fridge").unwrap().len(), 1);
        for text in ["set fridge two", "unseen ☃ words\u{0}", " it's\n\n 42 "] {
            assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()).unwrap(), text);
        }
    }

    /// The `tokenizers` crate learns the same on data where its own order of equals is defined.
    #[test]
    fn the_crate_s_trainer_agrees() {
        use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
        use tokenizers::pre_tokenizers::byte_level::ByteLevel;
        use tokenizers::{AddedToken, Trainer};
        let (plan, texts) = (plan(330), texts());
        let ours = learn(&plan, &texts);
        let specials = vec![AddedToken::from("<|endoftext|>", true), AddedToken::from("<|user|>", true)];
        let mut trainer = BpeTrainerBuilder::new()
            .show_progress(false)
            .vocab_size(330)
            .min_frequency(1)
            .special_tokens(specials)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let mut model = BPE::default();
        let base = plan.base().unwrap();
        let words = count_words(&base, &texts).unwrap();
        let all: Vec<&String> = words.iter().flat_map(|(word, count)| std::iter::repeat_n(word, *count as usize)).collect();
        trainer.feed(all.into_iter(), |word| Ok(vec![word.to_string()])).unwrap();
        trainer.train(&mut model).unwrap();
        for (text, id) in model.get_vocab() {
            assert_eq!(ours.token(id).as_ref(), Some(&text));
        }
    }

    #[test]
    fn threads_change_no_byte() {
        let texts = texts();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| learn(&plan(400), &texts).json().to_vec())
        };
        let expected = run(1);
        assert_eq!(run(2), expected);
        assert_eq!(run(3), expected);
    }

    #[test]
    fn special_tokens_are_never_learned_from_or_spelled() {
        let mut plan = plan(300);
        plan.specials = vec!["fridge".to_string()];
        let tokenizer = learn(&plan, &["abc abc abc <|endoftext|> <|endoftext|> fridges".to_string()]);
        let vocab: Vec<String> = (0..tokenizer.vocab_size() as u32).filter_map(|id| tokenizer.token(id)).collect();
        assert!(!vocab.iter().any(|text| text == "endoftext" || text.contains("fri") && text != "fridge"), "{vocab:?}");
        let spelled = learn(&Plan { specials: vec!["abc".to_string()], ..plan.clone() }, &["xabc xabc xabc".to_string()]);
        assert_eq!(spelled.special("abc").map(|abc| abc.id), Some(1));
    }

    #[test]
    fn it_stops_when_asked_and_when_nothing_is_left() {
        let stopped = plan(400).learn(&texts(), &mut |_| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(ModelError::Stopped)));
        assert_eq!(learn(&plan(4000), &["ab".to_string()]).vocab_size(), 2 + 256 + 1);
        let rare = Plan { min_frequency: 2, ..plan(4000) };
        assert_eq!(learn(&rare, &["ab".to_string()]).vocab_size(), 2 + 256);
        assert_eq!(learn(&plan(4000), &[]).vocab_size(), 2 + 256);
    }
}
