//! A little of everything that computes, each result as a digest: learned tokens, trained weights, logits, packed blocks, products with
//! them, answers and scores of stored models. `tests/digests.rs` compares them between instruction sets, numbers of threads,
//! compilers and processors; `tests/digests/elsewhere` is a program that prints them.

use std::ops::ControlFlow;
use std::path::Path;

use slmops::base::Digest;
use slmops::kernels::packed::{BlockType, Packed, matmul_packed};
use slmops::kernels::{AdamW, Divergence, NotFinite, Teacher, Write, adamw, cross_entropy, distill, rng, sum_squares};
use slmops::model::decoder::{Batch, Decoder, Keep};
use slmops::model::{
    Activation, ChatTemplate, Config, Family, Features, Generate, Model, ModelError, Scored, Tokenizer, Weights, bpe, gguf, quant,
};

/// Tells `each` the name and the digest of each result. `space` is an empty folder.
pub fn all(space: &Path, each: &mut dyn FnMut(&str, Digest)) {
    let mut add = |name: &str, bytes: &[u8]| each(name, Digest::of(bytes));
    let tokenizer = tokenizer();
    add("tokenizer", tokenizer.json());
    let model = trained(tokenizer);
    add("trained weights", &bytes(&model.weights.data));
    add("logits", &bytes(&logits(&model)));
    for ty in BlockType::ALL {
        let packed = quant::quantize(ty, &random(36 * 256, 5), 256).expect("whole blocks");
        add(&format!("{ty} blocks"), &packed);
        let importance: Vec<f32> = random(256, 7).iter().map(|x| x * x).collect();
        let mut heeded = Vec::new();
        quant::quantize_into(ty, &random(35 * 256, 5), 256, Some(&importance), &mut heeded).expect("whole blocks");
        add(&format!("{ty} blocks with an importance"), &heeded);
        let weights = Packed::new(ty, 36, 256, &packed);
        for rows in [1, 3, 20] {
            let mut y = vec![0.0; rows * 36];
            matmul_packed(&random(rows * 256, 6), weights, &mut y, Write::Set);
            add(&format!("{ty} product of {rows} rows"), &bytes(&y));
        }
    }
    for ty in [BlockType::F16, BlockType::Q8_0, BlockType::Q4_0] {
        let path = space.join(format!("{ty}.gguf"));
        let types: Vec<_> = model.weights.iter().map(|(_, shape, _)| if shape.len() > 1 { ty } else { BlockType::F32 }).collect();
        gguf::save(&path, &model, 0, &types, &mut |_| ControlFlow::Continue(())).expect("a file");
        add(&format!("{ty} file"), &std::fs::read(&path).expect("a file"));
        let (answers, scores) = evaluated(&path);
        add(&format!("{ty} answers"), &answers);
        add(&format!("{ty} scores"), &scores);
    }
}

fn random(len: usize, stream: u64) -> Vec<f32> {
    (0..len as u64).map(|i| rng::normal(11, stream, i)).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_bits().to_le_bytes()).collect()
}

fn texts() -> Vec<String> {
    let rooms = ["hall", "kitchen", "cellar", "attic"];
    let say = |i: usize| format!("set the light of the {} to {} percent, please", rooms[i % 4], i * 37 % 101);
    (0..64).map(say).collect()
}

fn tokenizer() -> Tokenizer {
    let plan = bpe::Plan { vocab_size: 300, min_frequency: 2, eos: "<|end|>".to_string(), specials: Vec::new() };
    plan.learn(&texts(), &mut |_| ControlFlow::Continue(())).expect("a tokenizer")
}

/// Grouped heads, a size of feed-forward that is no multiple of a vector, and, with every other batch, a teacher.
fn trained(tokenizer: Tokenizer) -> Model {
    let config = Config {
        family: Family::Llama,
        vocab_size: tokenizer.vocab_size(),
        hidden_size: 64,
        intermediate_size: 160,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 16,
        max_position_embeddings: 96,
        hidden_act: Activation::Silu,
        sliding_window: None,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        tie_word_embeddings: true,
        bos_token_id: None,
        eos_token_id: tokenizer.eos.as_ref().map(|end| end.id),
        pad_token_id: None,
        features: Features::default(),
    };
    let mut weights = Weights::random(&config, 3).expect("a model");
    let mut decoder = Decoder::new(&config).expect("a decoder");
    let sequences: Vec<Vec<u32>> = texts().iter().map(|text| tokenizer.encode(text).expect("tokens")).collect();
    let mut gradients = vec![0.0; weights.data.len()];
    let (mut first, mut second) = (gradients.clone(), gradients.clone());
    for step in 1..=8 {
        let mut batch = Batch::default();
        let mut targets = Vec::new();
        for tokens in sequences.iter().skip(step * 3 % 60).take(4) {
            batch.push(&tokens[..tokens.len() - 1], 0..tokens.len() - 1);
            targets.extend_from_slice(&tokens[1..]);
        }
        let weight = 1.0 / targets.len() as f32;
        let teacher = random(targets.len() * config.vocab_size, step as u64);
        decoder.forward(&weights, &batch, Keep::All).expect("a pass");
        let finite = |error: NotFinite| ModelError::Input(error.to_string());
        let loss = decoder.backward(&weights.data, &batch, &mut gradients, &mut |rows, logits| {
            let mut losses = vec![0.0; rows.len()];
            let vocab = config.vocab_size;
            if step % 2 == 0 {
                cross_entropy(logits, vocab, &targets[rows], weight, &mut losses).map_err(finite)?;
            } else {
                let teacher = Teacher::Dense(&teacher[rows.start * vocab..rows.end * vocab]);
                distill(logits, vocab, &teacher, Divergence::Jsd { beta: 0.3 }, 1.7, weight, &mut losses).map_err(finite)?;
            }
            Ok(losses.iter().map(|loss| f64::from(*loss)).sum())
        });
        assert!(loss.expect("a loss").is_finite());
        let gradient_scale = (1.0 / sum_squares(&gradients).sqrt().max(1.0)) as f32;
        let rule = AdamW { learning_rate: 3e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, gradient_scale };
        adamw(&mut weights.data, &gradients, &mut first, &mut second, step as u64, &rule);
    }
    Model { config, weights, tokenizer, chat: ChatTemplate::default() }
}

fn logits(model: &Model) -> Vec<f32> {
    let mut decoder = Decoder::new(&model.config).expect("a decoder");
    let mut batch = Batch::default();
    for text in texts().iter().take(5) {
        let tokens = model.tokenizer.encode(text).expect("tokens");
        batch.push(&tokens, 0..tokens.len());
    }
    decoder.forward(&model.weights, &batch, Keep::Nothing).expect("a pass");
    let mut all = Vec::new();
    let each = decoder.logits(&model.weights, &mut |_, logits| {
        all.extend_from_slice(logits);
        Ok(())
    });
    each.expect("logits");
    all
}

/// Greedy answers and scores of a stored model. Company must not matter, so prompts run alone first and then together.
fn evaluated(path: &Path) -> (Vec<u8>, Vec<u8>) {
    let model = Model::open(path).expect("the file just written");
    let prompts: Vec<Vec<u32>> = texts().iter().take(5).map(|text| model.tokenizer.encode(&text[..20]).expect("tokens")).collect();
    let options = Generate { max_new_tokens: 6 };
    let answer = |prompts: &[Vec<u32>]| model.generate(prompts, &options, &mut |_| ControlFlow::Continue(())).expect("answers");
    let alone: Vec<Vec<u32>> = prompts.iter().flat_map(|prompt| answer(std::slice::from_ref(prompt))).collect();
    assert_eq!(alone, answer(&prompts), "answers depend on company");
    let sequences: Vec<Scored> = prompts.iter().map(|tokens| Scored { tokens: tokens.clone(), from: 1 }).collect();
    let score = |sequences: &[Scored]| {
        let mut all = Vec::new();
        model.score(sequences, &mut |_, logits| all.extend(bytes(logits))).expect("scores");
        all
    };
    let together = score(&sequences);
    assert!(together == sequences.chunks(2).flat_map(score).collect::<Vec<_>>(), "scores depend on company");
    (alone.iter().flatten().flat_map(|token| token.to_le_bytes()).collect(), together)
}
