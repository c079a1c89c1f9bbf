//! Differential fuzzing: random legal variations of model folders against transformers, their GGUF files and random variations of those against llama.cpp. Each case gives the same tokens,
//! prompts, ends and logits, or is refused by the name of what was varied, or told in a warning. What is packed stays the same model.
//!
//! More cases than the tests run: `CASES=5000 SEED=7 cargo test --test model_keys -- --ignored --nocapture`.

#![expect(clippy::disallowed_methods, reason = "a test knows what it has made, and may ask how many cases it is to try")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value as Json, json};
use slmops::kernels::rng;
use slmops::model::chat::{Conversation, Data, Ending, Message};
use slmops::model::decoder::Tensors;
use slmops::model::gguf::{self, Array, Gguf, TensorPlan, Value, Writer};
use slmops::model::quant::BlockType;
use slmops::model::{Config, Family, Generate, Model, RopeScaling, Scored, Stored, keys};

/// Of the largest logit.
const TOLERANCE: f64 = 1e-4;
/// 2026-01-31T12:30:00Z, the day of tests/peers/model_keys.py.
const NOW: i64 = 1_769_862_600;
/// Logits of so many last tokens are compared.
const LAST: usize = 3;
/// Variations of each GGUF file.
const VARIATIONS: u64 = 2;
/// Cases that lie on the disk at a time.
const AT_A_TIME: u64 = 60;

#[derive(Deserialize)]
struct Made {
    family: String,
    /// Names of what was varied; one of them is in each refusal.
    varied: Vec<String>,
    /// Fields of which there must be a warning.
    told: Vec<String>,
    texts: Vec<String>,
    sequences: Vec<Vec<u32>>,
    conversations: Vec<Talk>,
    model: Attempt<OfModel>,
    tokenizer: Attempt<OfTokenizer>,
}

#[derive(Deserialize)]
struct Talk {
    messages: String,
    tools: Option<String>,
    awaits: bool,
}

#[derive(Deserialize)]
struct Attempt<T> {
    ok: Option<T>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct OfModel {
    logits: Vec<Vec<Vec<f64>>>,
    ends: Vec<i64>,
    config_ends: Vec<i64>,
}

#[derive(Deserialize)]
struct OfTokenizer {
    tokens: Vec<Vec<u32>>,
    decoded: Vec<String>,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
    begins: bool,
    finishes: bool,
    prompts: Vec<Attempt<String>>,
    /// Tokens that close an answer where a template writes them.
    closing: Vec<String>,
    /// What the template writes behind an answer.
    behind: String,
    template: bool,
    class: String,
}

#[derive(Deserialize)]
struct OfLlama {
    tokens: Vec<Vec<u32>>,
    ends: Vec<u32>,
    begins: bool,
    bos: i64,
    eos: i64,
    template: Option<String>,
    logits: Vec<Vec<Vec<f64>>>,
}

/// What became of the cases.
#[derive(Default)]
struct Tally {
    counts: BTreeMap<&'static str, usize>,
    /// By what was refused where; with the first one's words.
    refusals: BTreeMap<String, (usize, String)>,
    different: Vec<String>,
}

impl Tally {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn differs(&mut self, case: &str, what: String) {
        self.count("silent differences");
        self.different.push(format!("{case}: {what}"));
    }

    fn says(&mut self, what: String, words: &str) {
        let entry = self.refusals.entry(what).or_insert_with(|| (0, words.chars().take(140).collect()));
        entry.0 += 1;
    }

    /// A refusal says what it refuses.
    fn refused(&mut self, case: &str, place: &'static str, varied: &[String], error: &str) {
        self.count(place);
        let error = error.replace('\n', " ");
        match varied.iter().filter(|name| error.contains(name.as_str())).max_by_key(|name| name.len()) {
            Some(name) => self.says(format!("{place}: {name}"), &error),
            None => self.differs(case, format!("{place}, but not by the name of what was varied ({}): {error}", varied.join(", "))),
        }
    }
}

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers")
}

fn python(arguments: &[&str]) -> Json {
    let output = Command::new(peers().join("venv/bin/python"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/model_keys.py"))
        .args(arguments)
        .env("LD_LIBRARY_PATH", peers().join("stand-ins"))
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .expect("python");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}", &errors[errors.len().saturating_sub(4000)..]);
    // Libraries may have spoken before.
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().rfind(|line| line.starts_with('[')).unwrap_or_default()).expect("JSON")
}

fn last_logits<W: Tensors>(model: &Model<W>, tokens: &[u32]) -> Result<Vec<Vec<f64>>, String> {
    let from = tokens.len() + 1 - LAST.min(tokens.len());
    let scored = [Scored { tokens: [tokens, &[0]].concat(), from }];
    let mut rows = Vec::new();
    let each = &mut |_, logits: &[f32]| {
        rows.extend(logits.chunks(model.config.vocab_size).map(|row| row.iter().map(|x| f64::from(*x)).collect()));
    };
    model.score(&scored, each).map_err(|error| error.to_string())?;
    Ok(rows)
}

/// Relative to the largest of theirs.
fn distance(ours: &[Vec<f64>], theirs: &[Vec<f64>]) -> f64 {
    if ours.len() != theirs.len() || ours.iter().zip(theirs).any(|(ours, theirs)| ours.len() != theirs.len()) {
        return f64::INFINITY;
    }
    let pairs = || ours.iter().flatten().zip(theirs.iter().flatten());
    let scale = pairs().fold(1e-9f64, |scale, (_, theirs)| scale.max(theirs.abs()));
    pairs().fold(0.0f64, |far, (ours, theirs)| far.max((ours - theirs).abs())) / scale
}

fn talk(talk: &Talk) -> Conversation {
    let data = |text: &str| serde_json::from_str::<Data>(text).expect("JSON");
    let Data::List(messages) = data(&talk.messages) else { panic!("a list") };
    let message = |message: Data| match message {
        Data::Table(fields) => Message::of(fields).expect("a role"),
        _ => panic!("a table"),
    };
    let messages = messages.into_iter().map(message).collect();
    Conversation { messages, tools: talk.tools.as_deref().map(data), documents: None }
}

fn prompts<W>(model: &Model<W>, made: &Made) -> Vec<Result<String, String>> {
    let ending = |awaits| if awaits { Ending::AwaitsAnswer } else { Ending::Complete };
    let render = |one: &Talk| model.chat.render(&talk(one), ending(one.awaits), &model.tokenizer).map_err(|error| error.to_string());
    made.conversations.iter().map(render).collect()
}

fn ends<W>(model: &Model<W>) -> BTreeSet<u32> {
    model.config.end_tokens().collect()
}

/// A folder of transformers', as we read it.
fn judge_folder(case: &str, made: &Made, model: &Model<Stored>, told: &[String], tally: &mut Tally) {
    let before = tally.different.len();
    for name in &made.told {
        if !told.iter().any(|line| line.contains(name.as_str())) {
            tally.differs(case, format!("no warning of {name}"));
        }
    }
    match (&made.model.ok, &made.model.error) {
        (Some(theirs), _) => judge_model(case, made, model, theirs, is_rebuilt(told), tally),
        (_, error) => {
            tally.count("folders that transformers alone refuses");
            let error = error.as_deref().unwrap_or_default().replace('\n', " ");
            tally.says(format!("transformers alone: {}", error.chars().take(70).collect::<String>()), "");
        }
    }
    match &made.tokenizer.ok {
        // A warning says that transformers puts the tokenizer together otherwise.
        Some(_) if is_rebuilt(told) => tally.count("folders with a warning of tokenizer_class"),
        Some(theirs) => judge_tokenizer(case, made, model, theirs, tally),
        None => tally.count("tokenizers that transformers alone refuses"),
    }
    if tally.different.len() == before {
        tally.count("folders equal");
    }
}

/// A warning says that transformers puts the tokenizer together otherwise.
fn is_rebuilt(told: &[String]) -> bool {
    told.iter().any(|line| line.contains("tokenizer_class"))
}

fn judge_model(case: &str, made: &Made, model: &Model<Stored>, theirs: &OfModel, rebuilt: bool, tally: &mut Tally) {
    for (tokens, theirs) in made.sequences.iter().zip(&theirs.logits) {
        match last_logits(model, tokens) {
            Ok(ours) => {
                let far = distance(&ours, theirs);
                if far.is_nan() || far > TOLERANCE {
                    return tally.differs(case, format!("logits of {} tokens are {far:e} apart ({})", tokens.len(), made.family));
                }
            }
            Err(error) => return tally.differs(case, format!("no logits: {error}")),
        }
    }
    let found = |ids: &[i64]| ids.iter().filter_map(|id| u32::try_from(*id).ok()).collect::<BTreeSet<u32>>();
    let size = model.config.vocab_size as u32;
    let mut expected: BTreeSet<u32> = &found(&theirs.ends) | &found(&theirs.config_ends);
    if rebuilt {
        if !expected.is_subset(&ends(model)) {
            tally.differs(case, format!("ends {:?}, expected also {expected:?}", ends(model)));
        }
    } else if let Some(tokenizer) = &made.tokenizer.ok {
        let behind = tokenizer.behind.trim_start();
        let closing = tokenizer.closing.iter().filter(|text| behind.starts_with(text.as_str())).max_by_key(|text| text.len());
        let special = closing.and_then(|text| model.tokenizer.special(text)).map(|special| special.id);
        expected.extend(tokenizer.eos.into_iter().chain(special).filter(|id| *id < size));
        if ends(model) != expected {
            tally.differs(case, format!("ends {:?}, expected {expected:?} (generate: {:?})", ends(model), theirs.ends));
        }
    }
}

fn judge_tokenizer(case: &str, made: &Made, model: &Model<Stored>, theirs: &OfTokenizer, tally: &mut Tally) {
    let tokenizer = &model.tokenizer;
    let id = |special: &Option<slmops::model::tokenizer::Special>| special.as_ref().map(|special| special.id);
    let size = model.config.vocab_size as u32;
    let pad = theirs.pad.filter(|id| *id < size);
    let specials = [(id(&tokenizer.bos), theirs.bos, "bos"), (id(&tokenizer.eos), theirs.eos, "eos"), (id(&tokenizer.pad), pad, "pad")];
    for (ours, theirs, name) in specials {
        if ours != theirs {
            tally.differs(case, format!("{name} is {ours:?}, theirs {theirs:?}"));
        }
    }
    if (tokenizer.adds_bos(), tokenizer.adds_eos()) != (theirs.begins, theirs.finishes) {
        tally.differs(
            case,
            format!("adds {:?}, theirs {:?}", (tokenizer.adds_bos(), tokenizer.adds_eos()), (theirs.begins, theirs.finishes)),
        );
    }
    for ((text, expected), decoded) in made.texts.iter().zip(&theirs.tokens).zip(&theirs.decoded) {
        match tokenizer.encode(text) {
            Ok(ours) if ours != *expected => {
                return tally.differs(case, format!("{text:?} is {ours:?}, theirs {expected:?} ({}, {})", made.family, theirs.class));
            }
            Ok(ours) => {
                let ours = tokenizer.decode(&ours);
                if ours.as_ref().ok() != Some(decoded) {
                    return tally.differs(case, format!("{expected:?} is read as {ours:?}, theirs {decoded:?} ({})", theirs.class));
                }
            }
            // Tokens beyond the model's.
            Err(_) if expected.iter().any(|id| *id >= size) => tally.count("texts refused for a token beyond the vocabulary"),
            Err(error) => return tally.differs(case, format!("{text:?}: {error}")),
        }
    }
    for (number, (ours, theirs_one)) in prompts(model, made).iter().zip(&theirs.prompts).enumerate() {
        match (ours, &theirs_one.ok) {
            (Ok(ours), Some(theirs)) if ours == theirs => tally.count("prompts equal"),
            (Ok(ours), Some(theirs)) => return tally.differs(case, format!("prompt {number} is {ours:?}, theirs {theirs:?}")),
            (Err(_), None) => tally.count("prompts that both refuse"),
            (Err(error), Some(_)) => {
                tally.count("prompts refused");
                tally.says(format!("prompts: {}", error.chars().take(90).collect::<String>()), "");
            }
            // A model without a template gets slmops' own.
            (Ok(_), None) if !theirs.template => {}
            (Ok(ours), None) => return tally.differs(case, format!("prompt {number} is {ours:?}, theirs fails: {:?}", theirs_one.error)),
        }
    }
}

fn save(model: &Model, path: &Path, ty: BlockType) -> Result<(), String> {
    let types: Vec<_> = model.weights.iter().map(|(_, shape, _)| if shape.len() > 1 { ty } else { BlockType::F32 }).collect();
    let file_type = if ty == BlockType::F16 { 1 } else { 0 };
    gguf::save(path, model, file_type, &types, &mut |_| ControlFlow::Continue(())).map_err(|error| error.to_string())
}

/// The folder's model and its F16 file are one model.
fn judge_packing(case: &str, made: &Made, one: &Model, file: &Path, tally: &mut Tally) {
    let before = tally.different.len();
    let other = match Model::open(file) {
        Ok(other) => other.at(Some(NOW)),
        Err(error) => return tally.differs(case, format!("our own file is refused: {error}")),
    };
    let ids = |tokenizer: &slmops::model::Tokenizer| [tokenizer.bos.clone(), tokenizer.eos.clone(), tokenizer.pad.clone()];
    if ids(&one.tokenizer) != ids(&other.tokenizer) || one.tokenizer.adds_bos() != other.tokenizer.adds_bos() {
        tally.differs(case, format!("packed: special tokens {:?} become {:?}", ids(&one.tokenizer), ids(&other.tokenizer)));
    }
    if ends(one) != ends(&other) {
        tally.differs(case, format!("packed: ends {:?} become {:?}", ends(one), ends(&other)));
    }
    for text in &made.texts {
        let (ours, packed) = (one.tokenizer.encode(text).ok(), other.tokenizer.encode(text).ok());
        if ours != packed {
            tally.differs(case, format!("packed: {text:?} becomes {packed:?}, was {ours:?}"));
            break;
        }
        let read = |tokenizer: &slmops::model::Tokenizer| ours.as_ref().and_then(|tokens| tokenizer.decode(tokens).ok());
        if read(&one.tokenizer) != read(&other.tokenizer) {
            tally.differs(case, format!("packed: {ours:?} is read as {:?}, was {:?}", read(&other.tokenizer), read(&one.tokenizer)));
            break;
        }
    }
    if prompts(one, made) != prompts(&other, made) {
        tally.differs(case, format!("packed: prompts {:?} become {:?}", prompts(one, made), prompts(&other, made)));
    }
    let answers = |given: Result<Vec<slmops::model::Answer>, slmops::model::ModelError>| given.map_err(|error| error.to_string());
    let options = Generate { max_new_tokens: 6 };
    let (ours, packed) = (
        answers(one.greedy(&made.sequences, &options, &mut |_| ControlFlow::Continue(()))),
        answers(other.greedy(&made.sequences, &options, &mut |_| ControlFlow::Continue(()))),
    );
    if ours != packed {
        tally.differs(case, format!("packed: answers {ours:?} become {packed:?}"));
    }
    if tally.different.len() == before {
        tally.count("packed equal");
    }
}

/// Random choices of one variation.
struct Dice {
    seed: u64,
    case: u64,
    drawn: u64,
}

impl Dice {
    fn below(&mut self, count: u64) -> u64 {
        self.drawn += 1;
        rng::below(self.seed, self.case, self.drawn, count)
    }

    fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize].clone()
    }
}

type Entries = Vec<(String, Value)>;

fn get<'a>(entries: &'a Entries, key: &str) -> Option<&'a Value> {
    entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
}

fn set(entries: &mut Entries, key: &str, value: Value) {
    match entries.iter_mut().find(|(name, _)| name == key) {
        Some((_, found)) => *found = value,
        None => entries.push((key.to_string(), value)),
    }
}

/// Another type of the same number.
fn retyped(dice: &mut Dice, value: &Value) -> Option<Value> {
    if let Some(n) = value.as_u64() {
        let n = n as u32;
        return Some(dice.pick(&[
            Value::U64(n.into()),
            Value::I32(n as i32),
            Value::U16(n as u16),
            Value::F32(n as f32),
            Value::I64(n.into()),
            Value::String(n.to_string()),
        ]));
    }
    value.as_f32().map(|x| dice.pick(&[Value::F64(x.into()), Value::U32(x as u32), Value::String(x.to_string())]))
}

/// Keys that files may lack.
const OPTIONAL: [&str; 22] = [
    "{arch}.attention.head_count_kv",
    "{arch}.attention.key_length",
    "{arch}.attention.value_length",
    "{arch}.rope.freq_base",
    "{arch}.rope.dimension_count",
    "{arch}.vocab_size",
    "{arch}.attention.sliding_window",
    "{arch}.rope.scaling.type",
    "{arch}.rope.scaling.original_context_length",
    "{arch}.rope.scaling.attn_factor",
    "general.type",
    "general.file_type",
    "general.name",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_space_prefix",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.scores",
    "tokenizer.chat_template",
];
const RETYPED: [&str; 14] = [
    "{arch}.block_count",
    "{arch}.context_length",
    "{arch}.embedding_length",
    "{arch}.feed_forward_length",
    "{arch}.attention.head_count",
    "{arch}.attention.head_count_kv",
    "{arch}.attention.layer_norm_rms_epsilon",
    "{arch}.attention.key_length",
    "{arch}.rope.freq_base",
    "{arch}.rope.dimension_count",
    "{arch}.attention.sliding_window",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.bos_token_id",
    "{arch}.vocab_size",
];
const PRE: [&str; 19] = [
    "gpt-2",
    "smollm",
    "llama-bpe",
    "llama3",
    "llama-v3",
    "smaug-bpe",
    "qwen2",
    "deepseek-r1-qwen",
    "gpt-4o",
    "tekken",
    "falcon3",
    "default",
    "starcoder",
    "deepseek-llm",
    "chatglm-bpe",
    "phi-2",
    "pixtral",
    "lfm2",
    "exaone4",
];

/// Keys with a value that is not their default, mostly.
fn added(dice: &mut Dice, layers: u32) -> (&'static str, Value) {
    let (f, n) = (|x: f32| Value::F32(x), |x: u32| Value::U32(x));
    let s = |x: &str| Value::from(x);
    let all = [
        ("{arch}.rope.scaling.type", s("none")),
        ("{arch}.rope.scaling.type", s("linear")),
        ("{arch}.rope.scaling.type", s("yarn")),
        ("{arch}.rope.scaling.type", s("longrope")),
        ("{arch}.rope.scaling.type", s("su")),
        ("{arch}.rope.scaling.factor", f(4.0)),
        ("{arch}.rope.scaling.factor", f(1.0)),
        ("{arch}.rope.scaling.factor", f(0.0)),
        ("{arch}.rope.scale_linear", f(2.0)),
        ("{arch}.rope.scaling.original_context_length", n(16)),
        ("{arch}.rope.scaling.attn_factor", f(1.5)),
        ("{arch}.rope.scaling.finetuned", Value::Bool(true)),
        ("{arch}.rope.scaling.yarn_log_multiplier", f(0.1)),
        ("{arch}.rope.scaling.yarn_ext_factor", f(0.5)),
        ("{arch}.rope.scaling.yarn_attn_factor", f(0.5)),
        ("{arch}.rope.scaling.yarn_beta_fast", f(16.0)),
        ("{arch}.rope.scaling.yarn_beta_slow", f(2.0)),
        ("{arch}.rope.dimension_count", n(8)),
        ("{arch}.rope.dimension_count_swa", n(8)),
        ("{arch}.rope.freq_base", f(123.0)),
        ("{arch}.rope.freq_base_swa", f(123.0)),
        ("{arch}.attention.sliding_window", n(4)),
        ("{arch}.attention.sliding_window", n(0)),
        ("{arch}.attention.sliding_window_pattern", n(2)),
        ("{arch}.attention.sliding_window_pattern", n(6)),
        ("{arch}.attention.sliding_window_pattern", Value::Array(Array::Bool((0..layers).map(|i| i % 2 == 0).collect()))),
        ("{arch}.attention.scale", f(0.3)),
        ("{arch}.attention.causal", Value::Bool(false)),
        ("{arch}.attention.clamp_kqv", f(0.5)),
        ("{arch}.attention.max_alibi_bias", f(8.0)),
        ("{arch}.attention.layer_norm_epsilon", f(0.5)),
        ("{arch}.attention.layer_norm_rms_epsilon", f(0.1)),
        ("{arch}.attention.value_length_swa", n(8)),
        ("{arch}.attn_logit_softcapping", f(5.0)),
        ("{arch}.final_logit_softcapping", f(5.0)),
        ("{arch}.logit_scale", f(0.5)),
        ("{arch}.residual_scale", f(0.5)),
        ("{arch}.embedding_scale", f(2.0)),
        ("{arch}.expert_count", n(2)),
        ("{arch}.expert_used_count", n(1)),
        ("{arch}.nextn_predict_layers", n(1)),
        ("{arch}.leading_dense_block_count", n(1)),
        ("{arch}.use_parallel_residual", Value::Bool(true)),
        ("{arch}.pooling_type", n(1)),
        ("{arch}.tensor_data_layout", s("Meta AI original pth")),
        ("{arch}.attention.shared_kv_layers", n(1)),
        ("general.name", s("My Phi-3 mini")),
        ("general.type", s("adapter")),
        ("general.alignment", n(32)),
        ("general.sampling.temp", f(0.5)),
        ("tokenizer.ggml.eot_token_id", n(5)),
        ("tokenizer.ggml.eom_token_id", n(6)),
        ("tokenizer.ggml.eos_token_id", n(3)),
        ("tokenizer.ggml.bos_token_id", n(7)),
        ("tokenizer.ggml.eot_token_id", n(100_000)),
        ("tokenizer.ggml.fim_pad_token_id", n(8)),
        ("tokenizer.ggml.fim_rep_token_id", n(7)),
        ("tokenizer.ggml.fim_sep_token_id", n(6)),
        ("tokenizer.ggml.fim_pre_token_id", n(5)),
        ("tokenizer.ggml.prefix_token_id", n(4)),
        ("tokenizer.ggml.unknown_token_id", n(2)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(true)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
        ("tokenizer.ggml.add_eos_token", Value::Bool(true)),
        ("tokenizer.ggml.add_space_prefix", Value::Bool(true)),
        ("tokenizer.ggml.add_space_prefix", Value::Bool(false)),
        ("tokenizer.ggml.remove_extra_whitespaces", Value::Bool(true)),
        ("tokenizer.ggml.precompiled_charsmap", Value::Array(Array::U8(vec![1, 2, 3]))),
        ("tokenizer.ggml.normalizer.lowercase", Value::Bool(true)),
        ("tokenizer.ggml.model", s("llama")),
        ("tokenizer.ggml.model", s("gpt2")),
        ("tokenizer.ggml.model", s("bert")),
        ("tokenizer.ggml.token_type_count", n(2)),
        ("tokenizer.ggml.suppress_tokens", Value::Array(Array::I32(vec![3]))),
    ];
    dice.pick(&all)
}

/// One change of a file's metadata. Returns the names of what was changed.
fn vary(dice: &mut Dice, entries: &mut Entries, arch: &str) -> Option<Vec<String>> {
    let named = |key: &str| key.replace("{arch}", arch);
    let layers = get(entries, &named("{arch}.block_count")).and_then(Value::as_u64).unwrap_or(2) as u32;
    match dice.below(20) {
        0..=4 => {
            let key = named(dice.pick(&OPTIONAL));
            let place = entries.iter().position(|(name, _)| *name == key)?;
            entries.remove(place);
            Some(vec![key])
        }
        5..=6 => {
            let key = named(dice.pick(&RETYPED));
            let value = retyped(dice, get(entries, &key)?)?;
            set(entries, &key, value);
            Some(vec![key])
        }
        7..=8 => {
            // Of each layer a number, as newer files have it.
            let key = named(dice.pick(&["{arch}.attention.head_count", "{arch}.attention.head_count_kv", "{arch}.feed_forward_length"]));
            let n = get(entries, &key)?.as_u64()? as u32;
            let list = |n: u32| (0..layers).map(|_| n).collect::<Vec<_>>();
            let value = dice.pick(&[
                Array::U32(list(n)),
                Array::I32(list(n).iter().map(|n| *n as i32).collect()),
                Array::U32(list(n).into_iter().skip(1).collect()),
            ]);
            set(entries, &key, Value::Array(value));
            Some(vec![key])
        }
        9..=10 => {
            get(entries, "tokenizer.ggml.merges")?;
            set(entries, "tokenizer.ggml.pre", Value::from(dice.pick(&PRE)));
            Some(vec!["tokenizer.ggml.pre".to_string(), "the rule".to_string(), "cut".to_string()])
        }
        11..=12 => {
            let mut types = get(entries, "tokenizer.ggml.token_type")?.as_i32s()?.to_vec();
            let place = if dice.below(2) == 0 { dice.below(12) } else { dice.below(types.len() as u64) } as usize;
            types[place] = dice.pick(&[0, 1, 2, 3, 4, 5, 6]);
            set(entries, "tokenizer.ggml.token_type", Value::Array(Array::I32(types)));
            Some(vec!["tokenizer.ggml.token_type".to_string()])
        }
        13 => {
            let mut scores = get(entries, "tokenizer.ggml.scores")?.as_f32s()?.to_vec();
            let place = scores.len() - 1 - dice.below(14) as usize;
            scores[place] = dice.pick(&[0.0, -1.0, -3.5, -1000.0]);
            set(entries, "tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
            Some(vec!["tokenizer.ggml.scores".to_string()])
        }
        _ => {
            let (key, value) = added(dice, layers);
            let key = named(key);
            set(entries, &key, value);
            Some(vec![key])
        }
    }
}

/// A file like `source` with other metadata, and the names of what differs.
fn variation(dice: &mut Dice, source: &Gguf, path: &Path) -> Option<Vec<String>> {
    let mut entries = source.header.metadata.clone();
    // What slmops alone reads would go over what is varied.
    entries.retain(|(name, _)| !name.starts_with("slmops."));
    let arch = get(&entries, "general.architecture")?.as_str()?.to_string();
    let mut names = Vec::new();
    let wanted = 1 + dice.below(3).saturating_sub(1);
    for _ in 0..8 {
        if names.len() < wanted as usize {
            names.extend(vary(dice, &mut entries, &arch).map(|names| names.join("\n")));
        }
    }
    let plan = |tensor: &gguf::TensorInfo| TensorPlan { name: tensor.name.clone(), shape: tensor.shape.clone(), ty: tensor.ty };
    let plans: Vec<_> = source.header.tensors.iter().map(plan).collect();
    let mut writer = Writer::create(path, &entries, &plans).expect("a file");
    source.header.tensors.iter().for_each(|tensor| writer.tensor(source.bytes(tensor)).expect("a tensor"));
    writer.finish().expect("a file");
    Some(names.iter().flat_map(|names| names.split('\n')).map(str::to_string).collect())
}

/// A GGUF file that llama.cpp is to be asked about.
struct Asked {
    case: String,
    file: PathBuf,
    /// Nothing of our own files.
    varied: Option<Vec<String>>,
    /// Ends of answers that llama.cpp may have besides, where a file says so.
    model: Result<Model<Stored>, String>,
    texts: Vec<String>,
    sequences: Vec<Vec<u32>>,
}

/// Sequences of which llama.cpp has the same logits by design.
fn comparable(config: &Config, sequences: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let is_comparable = |tokens: &&Vec<u32>| match (&config.features.rope_scaling, config.family) {
        // llama.cpp decides by the room for tokens (256 here) whether they are many.
        (RopeScaling::LongRope { original, .. }, Family::Phi3) => (*original < 256) == (tokens.len() > *original),
        _ => true,
    };
    // It sees all tokens in a Phi-3.
    let is_seen = |tokens: &&Vec<u32>| config.family != Family::Phi3 || config.sliding_window.is_none_or(|window| tokens.len() <= window);
    sequences.iter().filter(is_comparable).filter(is_seen).cloned().collect()
}

fn judge_llama(asked: &Asked, answer: &Attempt<OfLlama>, tally: &mut Tally) {
    let (case, before) = (asked.case.as_str(), tally.different.len());
    let own = asked.varied.is_none();
    let (model, theirs) = match (&asked.model, &answer.ok, &asked.varied) {
        (Err(error), Some(_), Some(varied)) => return tally.refused(case, "GGUF files refused", varied, error),
        (Err(_), None, _) => return tally.count("GGUF files that both refuse"),
        (Err(error), Some(_), None) => return tally.differs(case, format!("our own file is refused: {error}")),
        (Ok(_), None, None) => return tally.differs(case, "llama.cpp refuses our file".to_string()),
        (Ok(_), None, Some(varied)) => {
            tally.count("GGUF files that llama.cpp alone refuses");
            tally.says(format!("llama.cpp alone: {}", varied.join(", ")), "");
            return;
        }
        (Ok(model), Some(theirs), _) => (model, theirs),
    };
    let mut differs = |what: String| tally.differs(case, format!("{what} (varied: {:?}, {:?})", asked.varied, model.config.family));
    for (text, theirs) in asked.texts.iter().zip(&theirs.tokens) {
        let ours = model.tokenizer.encode(text);
        if ours.as_ref().ok() != Some(theirs) {
            differs(format!("{text:?} is {ours:?}, llama.cpp's {theirs:?}"));
            break;
        }
    }
    let found: BTreeSet<u32> = theirs.ends.iter().copied().collect();
    if own {
        let lost: Vec<_> = ends(model).difference(&found).copied().collect();
        if !lost.is_empty() {
            differs(format!("llama.cpp goes on at {lost:?}"));
        }
    } else if ends(model) != &found | &model.chat.source().and_then(|_| turn_end(model)).into_iter().collect() {
        differs(format!("ends {:?}, llama.cpp's {found:?}", ends(model)));
    }
    if model.tokenizer.adds_bos() != theirs.begins && (model.tokenizer.bos.is_some() || own) {
        differs(format!("adds_bos {}, llama.cpp's {}", model.tokenizer.adds_bos(), theirs.begins));
    }
    let id = |special: &Option<slmops::model::tokenizer::Special>| special.as_ref().map_or(-1, |special| i64::from(special.id));
    for (name, ours, theirs_one) in [("bos_token", &model.tokenizer.bos, theirs.bos), ("eos_token", &model.tokenizer.eos, theirs.eos)] {
        // Only templates see it.
        let asks = theirs.template.as_deref().is_some_and(|source| source.contains(name));
        if !own && asks && id(ours) != theirs_one {
            differs(format!("{name} is {ours:?}, llama.cpp's {theirs_one}"));
        }
    }
    if model.chat.source() != theirs.template.as_deref() {
        differs(format!("template {:?}, llama.cpp's {:?}", model.chat.source(), theirs.template));
    }
    for (tokens, theirs) in asked.sequences.iter().zip(&theirs.logits) {
        match last_logits(model, tokens) {
            Ok(ours) => {
                let far = distance(&ours, theirs);
                // llama.cpp has GELU in a table of 16-bit numbers.
                let tolerance = if model.config.family == Family::Gemma3 { 10.0 * TOLERANCE } else { TOLERANCE };
                if far.is_nan() || far > tolerance {
                    differs(format!("logits of {} tokens are {far:e} apart", tokens.len()));
                    break;
                }
            }
            Err(error) => differs(format!("no logits: {error}")),
        }
    }
    if tally.different.len() == before {
        tally.count(if own { "our GGUF files equal" } else { "varied GGUF files equal" });
    }
}

/// The token with which the template closes a turn: an end here, whatever the file's keys say.
fn turn_end(model: &Model<Stored>) -> Option<u32> {
    slmops::model::ends::turn_end(model.encoder()).ok().flatten().map(|special| special.id)
}

fn judge_case(seed: u64, number: u64, space: &Path, tally: &mut Tally) -> Vec<Asked> {
    let case = format!("seed {seed} case {number}");
    let made: Made = serde_json::from_slice(&std::fs::read(space.join(format!("{number}.json"))).expect("a file")).expect("JSON");
    let folder = space.join(number.to_string());
    tally.count("folders");
    let told = keys::remarks(&folder).unwrap_or_default();
    let model = match Model::open(&folder) {
        Ok(model) => model.at(Some(NOW)),
        Err(error) if made.model.ok.is_some() && made.tokenizer.ok.is_some() => {
            tally.refused(&case, "folders refused", &made.varied, &error.to_string());
            return Vec::new();
        }
        Err(_) => {
            tally.count("folders that both refuse");
            return Vec::new();
        }
    };
    judge_folder(&case, &made, &model, &told, tally);
    let whole = match Model::load(&folder) {
        Ok(whole) => whole.at(Some(NOW)),
        Err(error) => {
            tally.differs(&case, format!("opened, but not loaded: {error}"));
            return Vec::new();
        }
    };
    let (half, full) = (space.join(format!("{number}.f16.gguf")), space.join(format!("{number}.gguf")));
    if let Err(error) = save(&whole, &half, BlockType::F16) {
        tally.refused(&case, "packing refused", &made.varied, &error);
        return Vec::new();
    }
    judge_packing(&case, &made, &whole, &half, tally);
    save(&whole, &full, BlockType::F32).expect("as F16");
    let texts: Vec<String> = made.texts.iter().filter(|text| whole.tokenizer.encode(text).is_ok()).cloned().collect();
    let ask = |case: String, file: PathBuf, varied: Option<Vec<String>>| {
        let model = Model::open(&file).map_err(|error| error.to_string());
        let sequences = model.as_ref().map(|model| comparable(&model.config, &made.sequences)).unwrap_or_default();
        Asked { case, file, varied, model, texts: texts.clone(), sequences }
    };
    let source = Gguf::open(&full).expect("our own file");
    let mut asked = vec![ask(format!("{case} as GGUF"), full, None)];
    for i in 0..VARIATIONS {
        let path = space.join(format!("{number}.{i}.gguf"));
        let mut dice = Dice { seed, case: number * VARIATIONS + i, drawn: 0 };
        if let Some(varied) = variation(&mut dice, &source, &path) {
            tally.count("GGUF files varied");
            asked.push(ask(format!("{case} GGUF variation {i}"), path, Some(varied)));
        }
    }
    asked
}

fn fuzz(seed: u64, first: u64, cases: u64) -> Tally {
    assert!(peers().join("venv/.done-torch-2").exists(), "PEER MISSING: transformers; run: bash tests/peers/install.sh");
    assert!(peers().join("llama.cpp").exists(), "PEER MISSING: llama.cpp; run: bash tests/peers/install.sh");
    let mut tally = Tally::default();
    for start in (first..first + cases).step_by(AT_A_TIME as usize) {
        let count = AT_A_TIME.min(first + cases - start);
        let space = tempfile::tempdir().expect("a folder");
        let folder = space.path().to_str().expect("UTF-8");
        python(&["make", folder, &seed.to_string(), &start.to_string(), &count.to_string()]);
        let asked: Vec<Asked> = (start..start + count).flat_map(|number| judge_case(seed, number, space.path(), &mut tally)).collect();
        let list: Vec<Json> = asked
            .iter()
            .map(|asked| json!({"file": asked.file, "texts": asked.texts, "sequences": asked.sequences, "last": LAST}))
            .collect();
        let list_path = space.path().join("asked.json");
        std::fs::write(&list_path, Json::from(list).to_string()).expect("a file");
        let libraries = peers().join("llama.cpp");
        let answers = python(&["gguf", libraries.to_str().expect("UTF-8"), list_path.to_str().expect("UTF-8")]);
        let answers: Vec<Attempt<OfLlama>> = serde_json::from_value(answers).expect("answers");
        asked.iter().zip(&answers).for_each(|(asked, answer)| judge_llama(asked, answer, &mut tally));
    }
    tally
}

fn report(tally: &Tally) {
    for (what, count) in &tally.counts {
        println!("{count:6} {what}");
    }
    for (what, (count, words)) in &tally.refusals {
        println!("{count:6}   {what}   {words}");
    }
    for what in &tally.different {
        println!("DIFFERENT {what}");
    }
}

#[test]
fn variations_of_model_files_are_read_as_others_read_them() {
    let tally = fuzz(1, 0, 120);
    report(&tally);
    assert!(tally.different.is_empty(), "{} silent differences:\n{}", tally.different.len(), tally.different.join("\n"));
    let count = |what: &str| tally.counts.get(what).copied().unwrap_or(0);
    assert!(
        count("folders equal") >= 40 && count("packed equal") >= 20 && count("varied GGUF files equal") >= 10,
        "the cases say nothing: {:?}",
        tally.counts
    );
}

#[expect(clippy::disallowed_methods, reason = "a test's own switch, not the product's")]
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().expect("a number"))
}

#[test]
#[ignore = "takes long: CASES=5000 SEED=7 cargo test --test model_keys -- --ignored --nocapture"]
fn many_variations() {
    let (seed, first) = (number("SEED", 7), number("FIRST", 0));
    let tally = fuzz(seed, first, number("CASES", 5000));
    report(&tally);
    assert!(tally.different.is_empty(), "{} silent differences", tally.different.len());
}
