//! What runs from its file gives the bits of what was widened first; what is quantized depends on nobody's company; what is not finite is found.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::super::config::tests::tiny;
use super::super::decoder::Tensors;
use super::super::quant::{BlockType, quantize};
use super::super::tokenizer::tests::bytes_only;
use super::super::{ChatTemplate, Config, Generate, Model, ModelError, Scored, Stored, Weights, gguf};
use crate::kernels::rng;

fn config(tied: bool) -> Config {
    // Wide enough for the K types, two chunks of a product, grouped heads.
    Config {
        vocab_size: 257,
        hidden_size: 512,
        intermediate_size: 256,
        head_dim: 128,
        eos_token_id: None,
        tie_word_embeddings: tied,
        ..tiny()
    }
}

fn model(config: Config) -> Model {
    let mut weights = Weights::random(&config, 3).unwrap();
    weights.data.iter_mut().for_each(|w| *w *= 3.0);
    Model { config, weights, tokenizer: bytes_only(), chat: ChatTemplate::default() }
}

fn save_gguf(model: &Model, ty: BlockType, folder: &Path) -> PathBuf {
    let path = folder.join(format!("{ty}.gguf"));
    std::fs::remove_file(&path).ok();
    let types: Vec<_> = model.weights.iter().map(|(_, shape, _)| if shape.len() > 1 { ty } else { BlockType::F32 }).collect();
    gguf::save(&path, model, 0, &types, &mut |_| ControlFlow::Continue(())).unwrap();
    path
}

/// A Hugging Face folder whose tensors, norms included, are of one type.
fn save_folder(model: &Model, ty: BlockType, name: &str, folder: &Path) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir(&path).unwrap();
    model.save(&path).unwrap();
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name_, shape, values) in model.weights.iter() {
        let start = data.len();
        data.extend(quantize(ty, values, values.len()).unwrap());
        header.insert(name_.to_string(), serde_json::json!({"dtype": name, "shape": shape, "data_offsets": [start, data.len()]}));
    }
    // A header of odd length, so that nothing is aligned.
    let mut header = serde_json::Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(' ', 1 - header.len() % 2));
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(path.join("model.safetensors"), bytes).unwrap();
    path
}

fn prompts(count: u64) -> Vec<Vec<u32>> {
    (0..count).map(|p| (0..1 + rng::below(1, p, 0, 20)).map(|i| rng::below(2, p, i, 257) as u32).collect()).collect()
}

fn answers<W: Tensors>(model: &Model<W>, prompts: &[Vec<u32>]) -> Vec<Vec<u32>> {
    model.generate(prompts, &Generate { max_new_tokens: 6 }, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn logits<W: Tensors>(model: &Model<W>, prompts: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let sequences: Vec<Scored> = prompts.iter().map(|tokens| Scored { tokens: tokens.clone(), from: 1 }).collect();
    let mut all = Vec::new();
    model.score(&sequences, &mut |_, logits| all.push(logits.iter().map(|x| x.to_bits()).collect())).unwrap();
    all
}

#[test]
fn unquantized_files_give_the_bits_of_widened_weights() {
    let space = tempfile::tempdir().unwrap();
    let prompts = prompts(9);
    for tied in [true, false] {
        let model = model(config(tied));
        let folder = tempfile::tempdir_in(space.path()).unwrap();
        for ty in [BlockType::F32, BlockType::F16, BlockType::Bf16] {
            for path in [save_gguf(&model, ty, folder.path()), save_folder(&model, ty, ty.name(), folder.path())] {
                let (widened, stored) = (Model::load(&path).unwrap(), Model::open(&path).unwrap());
                assert_eq!(stored.config, widened.config);
                assert_eq!(stored.weights.parameters(), widened.weights.parameters());
                let expected = logits(&widened, &prompts);
                assert!(expected.iter().flatten().any(|bits| *bits != 0));
                assert!(expected == logits(&stored, &prompts), "{}: other bits", path.display());
                assert_eq!(answers(&widened, &prompts), answers(&stored, &prompts));
            }
        }
    }
}

#[test]
fn quantized_rows_do_not_depend_on_their_company() {
    let space = tempfile::tempdir().unwrap();
    let model = model(config(true));
    let prompts = prompts(40);
    for ty in [BlockType::Q8_0, BlockType::Q4_0, BlockType::Q4K, BlockType::Q6K] {
        let stored = Model::open(&save_gguf(&model, ty, space.path())).unwrap();
        let (all_logits, all_answers) = (logits(&stored, &prompts), answers(&stored, &prompts));
        // Those that share a beginning have it read once.
        let beginning: Vec<u32> = (0..20).map(|i| rng::below(3, 0, i, 257) as u32).collect();
        let longer: Vec<Vec<u32>> = prompts.iter().map(|prompt| [beginning.as_slice(), prompt].concat()).collect();
        let longer_answers = answers(&stored, &longer);
        for (i, prompt) in prompts.iter().enumerate().step_by(5) {
            let alone = std::slice::from_ref(prompt);
            assert!(all_logits[i] == logits(&stored, alone)[0], "{ty}: prompt {i}");
            assert_eq!(all_answers[i], answers(&stored, alone)[0], "{ty}: prompt {i}");
            assert_eq!(longer_answers[i], answers(&stored, &longer[i..=i])[0], "{ty}: longer prompt {i}");
        }
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for threads in [1, 3] {
            assert!(pool(threads).install(|| logits(&stored, &prompts)) == all_logits, "{ty}: {threads} threads");
        }
    }
}

/// Close to the unpacked weights' own answer: only the activations are rounded on the way, by half a percent a product, which random weights amplify.
#[test]
fn quantized_products_are_near_the_unpacked_ones() {
    let space = tempfile::tempdir().unwrap();
    let model = model(config(true));
    let prompts = prompts(9);
    for ty in BlockType::ALL {
        let path = save_gguf(&model, ty, space.path());
        let (exact, found) = (logits(&Model::load(&path).unwrap(), &prompts), logits(&Model::open(&path).unwrap(), &prompts));
        let values = |rows: &[Vec<u32>]| rows.iter().flatten().map(|bits| f64::from(f32::from_bits(*bits))).collect::<Vec<_>>();
        let (exact, found) = (values(&exact), values(&found));
        let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
        let error = (square(&mut exact.iter().zip(&found).map(|(a, b)| a - b)) / square(&mut exact.iter().copied())).sqrt();
        assert!(error < 0.15, "{ty}: relative error {error}");
    }
}

#[test]
fn what_is_not_finite_is_an_error_and_no_answer() {
    let space = tempfile::tempdir().unwrap();
    let model = model(config(true));
    for ty in [BlockType::F16, BlockType::Q8_0, BlockType::Q4K] {
        for part in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"] {
            let path = save_gguf(&model, ty, space.path());
            let at = gguf::open(&path).unwrap().tensor(&format!("blk.0.{part}.weight")).unwrap().bytes.start;
            let mut bytes = std::fs::read(&path).unwrap();
            // An f16 NaN: a value of F16, the first block's scale of the others.
            bytes[at..at + 2].copy_from_slice(&[0, 0x7e]);
            std::fs::write(&path, bytes).unwrap();
            assert!(Model::load(&path).is_err());
            let stored = Model::open(&path).unwrap();
            let found = stored.generate(&[vec![1, 2, 3]], &Generate { max_new_tokens: 2 }, &mut |_| ControlFlow::Continue(()));
            assert!(matches!(found, Err(ModelError::NotFinite(_))), "{ty} {part}: {found:?}");
        }
    }
    let path = save_gguf(&model, BlockType::Q8_0, space.path());
    let at = gguf::open(&path).unwrap().tensor("blk.1.ffn_norm.weight").unwrap().bytes.start;
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at..at + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let error = Model::open(&path).unwrap_err().to_string();
    assert!(error.contains("post_attention_layernorm") && error.contains("inf"), "{error}");
}

#[test]
fn a_file_that_does_not_hold_what_it_promises_is_refused() {
    let space = tempfile::tempdir().unwrap();
    let model = model(config(false));
    for path in [save_gguf(&model, BlockType::Q8_0, space.path()), save_folder(&model, BlockType::F16, "F16", space.path())] {
        let file = if path.is_dir() { path.join("model.safetensors") } else { path.clone() };
        let bytes = std::fs::read(&file).unwrap();
        for length in [0, 3, 8, 100, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&file, &bytes[..length]).unwrap();
            assert!(Model::<Stored>::open(&path).is_err(), "{length} bytes of {}", path.display());
        }
    }
}
