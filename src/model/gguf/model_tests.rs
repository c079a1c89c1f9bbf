//! Whole models: what is saved is loaded again, and what we cannot run is named.

use std::ops::ControlFlow;

use super::*;
use crate::model::config::tests::tiny;
use crate::model::config::{RopeScaling, Yarn};
use crate::model::quant::BlockType;
use crate::model::tokenizer::tests::bytes_only;
use crate::model::{Activation, ChatTemplate, Config, Model, Weights};

fn model(config: Config) -> Model {
    let mut weights = Weights::zeros(&config).unwrap();
    weights.data.iter_mut().enumerate().for_each(|(i, value)| *value = (i % 61) as f32 / 64.0 - 0.4);
    Model { config, weights, tokenizer: bytes_only(), chat: ChatTemplate::new("{{ messages[0].content }}?\n").unwrap() }
}

fn small() -> Config {
    Config { vocab_size: 260, hidden_size: 32, intermediate_size: 64, head_dim: 8, ..tiny() }
}

fn saved(model: &Model, ty: BlockType) -> (tempfile::TempDir, std::path::PathBuf) {
    let space = tempfile::tempdir().unwrap();
    let path = space.path().join("model.gguf");
    let types: Vec<_> = model.weights.iter().map(|(_, shape, _)| if shape.len() > 1 { ty } else { BlockType::F32 }).collect();
    save(&path, model, 0, &types, &mut |_| ControlFlow::Continue(())).unwrap();
    (space, path)
}

#[test]
fn an_f32_file_loads_as_the_same_model() {
    for tied in [true, false] {
        let model = model(Config { tie_word_embeddings: tied, ..small() });
        let (_space, path) = saved(&model, BlockType::F32);
        let read = Model::load(&path).unwrap();
        assert_eq!(read.config, model.config);
        assert_eq!(read.weights.data, model.weights.data);
        assert_eq!(read.chat.source(), model.chat.source());
        assert_eq!((&read.tokenizer.bos, &read.tokenizer.eos), (&model.tokenizer.bos, &model.tokenizer.eos));
        for text in ["it's 12 below  zero\n", "naïve<|endoftext|>x", " 冷蔵庫"] {
            assert_eq!(read.tokenizer.encode(text).unwrap(), model.tokenizer.encode(text).unwrap());
        }
    }
}

/// Wide enough for a tokenizer of bytes; a Phi-3's heads are as wide as its stream.
fn of_each_family() -> Vec<Config> {
    crate::model::config::tests::of_each_family().into_iter().map(|config| Config { vocab_size: 260, ..config }).collect()
}

#[test]
fn every_family_loads_opens_and_is_saved_the_same() {
    for config in of_each_family() {
        let model = model(config);
        let (_space, path) = saved(&model, BlockType::F32);
        let read = Model::load(&path).unwrap();
        assert_eq!(read.config, model.config);
        assert_eq!(read.weights.data, model.weights.data, "{:?}", model.config.family);
        assert_eq!(Model::open(&path).unwrap().config, model.config);
        let (_other, again) = saved(&read, BlockType::F32);
        assert_eq!(std::fs::read(path).unwrap(), std::fs::read(again).unwrap(), "{:?}", model.config.family);
    }
}

#[test]
fn every_tensor_of_every_family_is_needed() {
    for config in of_each_family() {
        let model = model(config);
        let (_space, path) = saved(&model, BlockType::F32);
        let header = Header::parse(&std::fs::read(&path).unwrap()).unwrap();
        let said = |change: &dyn Fn(&mut Vec<TensorPlan>)| {
            let space = tempfile::tempdir().unwrap();
            let path = space.path().join("x.gguf");
            let of = |tensor: &TensorInfo| TensorPlan { name: tensor.name.clone(), shape: tensor.shape.clone(), ty: tensor.ty };
            let mut plans = header.tensors.iter().map(of).collect();
            change(&mut plans);
            let mut writer = Writer::create(&path, &header.metadata, &plans).unwrap();
            plans.iter().for_each(|plan| writer.tensor(&1.0f32.to_le_bytes().repeat(plan.size_bytes().unwrap() / 4)).unwrap());
            writer.finish().unwrap();
            Model::load(&path).map(|_| ()).unwrap_err().to_string()
        };
        for (i, tensor) in header.tensors.iter().enumerate() {
            let name = tensor.name.as_str();
            // Without a head of its own the embedding is the head; without factors there are none.
            if name != "output.weight" && name != "rope_freqs.weight" {
                let error = said(&|plans| drop(plans.remove(i)));
                assert!(error.contains(name) && (error.contains("missing") || error.contains("it has one of")), "{name}: {error}");
            }
            let error = said(&|plans| plans[i].shape[0] *= 2);
            assert!(error.contains("has shape"), "{name}: {error}");
            assert!(said(&|plans| plans[i].name = "stranger".to_string()).contains("`"), "{name}");
        }
    }
}

#[test]
fn what_llama_cpp_takes_for_granted_is_refused_where_it_does_not_hold() {
    let said = |change: &dyn Fn(&mut Config), index: usize| {
        let mut config = of_each_family().remove(index);
        change(&mut config);
        let model = model(config);
        llama::metadata(&model, 0).unwrap_err().to_string()
    };
    let scaled = |scaling: RopeScaling| move |config: &mut Config| config.features.rope_scaling = scaling.clone();
    let linear = RopeScaling::Linear { factor: 2.0 };
    let yarn = |attention_factor| Yarn { factor: 4.0, original: 32, attention_factor, beta_fast: 32.0, beta_slow: 1.0 };
    let llama3 = of_each_family()[1].features.rope_scaling.clone();
    type Change<'a> = &'a dyn Fn(&mut Config);
    let cases: [(usize, Change, &str); 13] = [
        (0, &|config| config.sliding_window = Some(9), "sliding window"),
        (0, &|config| config.hidden_act = Activation::GeluTanh, "GeLU"),
        (3, &|config| config.sliding_window = Some(9), "sliding window"),
        (3, &scaled(llama3), "rope_scaling"),
        (4, &scaled(RopeScaling::Yarn(yarn(9.0))), "rope_scaling"),
        (5, &|config| config.features.full_layers = vec![1], "layer_types"),
        (5, &|config| config.features.rope_local_theta = Some(2e4), "rope_local_base_freq"),
        (5, &|config| config.features.query_pre_attn_scalar = Some(5.0), "query_pre_attn_scalar"),
        (5, &|config| config.hidden_act = Activation::Silu, "SiLU"),
        (5, &|config| config.sliding_window = None, "sliding_window"),
        (6, &|config| config.head_dim = 8, "heads of 32"),
        (6, &scaled(linear), "rope_scaling"),
        (8, &|config| config.features.unturned_layers = vec![2], "no_rope_layers"),
    ];
    for (index, change, expected) in cases {
        let error = said(change, index);
        assert!(error.contains(expected) && error.contains("llama.cpp's `"), "{expected}: {error}");
    }
}

#[test]
fn parts_of_one_tensor_have_one_type() {
    let model = model(of_each_family().remove(6));
    let types: Vec<_> =
        model.weights.iter().map(|(name, ..)| if name.ends_with("k_proj.weight") { BlockType::F16 } else { BlockType::F32 }).collect();
    let space = tempfile::tempdir().unwrap();
    let error = save(&space.path().join("x.gguf"), &model, 0, &types, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().contains("more than one type in `model.layers.0.self_attn.qkv_proj.weight`"), "{error}");
}

#[test]
fn ends_of_turns_are_known_by_their_names() {
    let mut model = model(small());
    let mut json: serde_json::Value = serde_json::from_slice(model.tokenizer.json()).unwrap();
    let mut token = json["added_tokens"][0].clone();
    (token["id"], token["content"]) = (257.into(), "<end_of_turn>".into());
    json["model"]["vocab"]["<end_of_turn>"] = 257.into();
    json["added_tokens"].as_array_mut().unwrap().push(token);
    model.tokenizer = crate::model::Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
    model.tokenizer.eos = model.tokenizer.special("<|endoftext|>");
    let ends = |model: &Model| {
        let (_space, path) = saved(model, BlockType::F32);
        Model::load(&path).unwrap().config.end_tokens().collect::<Vec<_>>()
    };
    // The folder says so, or it does not.
    assert_eq!(ends(&model), [0]);
    model.config.add_end(257);
    assert_eq!(ends(&model), [0, 257]);
}

#[test]
fn what_is_loaded_is_saved_as_the_same_bytes() {
    let (_one, first) = saved(&model(small()), BlockType::F32);
    let (_two, second) = saved(&Model::load(&first).unwrap(), BlockType::F32);
    assert_eq!(std::fs::read(first).unwrap(), std::fs::read(second).unwrap());
}

/// What is put together from a file's parts is what its `tokenizer.json` makes, to the last field.
#[test]
fn a_tokenizer_in_parts_is_that_of_its_json() {
    let mut model = model(Config { vocab_size: 300, ..small() });
    let mut json: serde_json::Value = serde_json::from_slice(model.tokenizer.json()).unwrap();
    for (i, (left, right)) in [("t", "h"), ("th", "e"), ("Ġ", "the"), ("1", "2")].into_iter().enumerate() {
        json["model"]["vocab"][format!("{left}{right}")] = (257 + i).into();
        json["model"]["merges"].as_array_mut().unwrap().push(serde_json::json!([left, right]));
    }
    // A second special token, and one that is searched for but is not special.
    for (id, text, special) in [(270, "<|im_start|>", true), (271, "the end", false)] {
        let mut token = json["added_tokens"][0].clone();
        (token["id"], token["content"], token["special"]) = (id.into(), text.into(), special.into());
        json["model"]["vocab"][text] = id.into();
        json["added_tokens"].as_array_mut().unwrap().push(token);
    }
    model.tokenizer = crate::model::Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
    let (_space, path) = saved(&model, BlockType::F32);
    let read = Model::load(&path).unwrap().tokenizer;
    let again = crate::model::Tokenizer::from_json(read.json()).unwrap();
    assert_eq!(read.inner().to_string(false).unwrap(), again.inner().to_string(false).unwrap());
    assert_eq!(read.vocab_size(), again.vocab_size());
    for text in ["the other the end of 12<|im_start|>the", "it's 12 below  zero\n", "naïve<|endoftext|>x 冷蔵庫"] {
        let tokens = read.encode(text).unwrap();
        assert_eq!(tokens, again.encode(text).unwrap());
        assert_eq!(tokens, model.tokenizer.encode(text).unwrap());
        assert_eq!(read.decode(&tokens).unwrap(), model.tokenizer.decode(&tokens).unwrap());
    }
}

#[test]
fn query_rows_are_neighbours_in_the_file() {
    // Two heads of four rows: 0 and 2 are turned together, so they stand together.
    let config = Config { hidden_size: 1, head_dim: 4, ..tiny() };
    let rows: Vec<f32> = (0..8u8).map(f32::from).collect();
    let name = "model.layers.0.self_attn.q_proj.weight";
    assert_eq!(*llama::rows_for_file(name, &rows, &config), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
    assert_eq!(*llama::rows_for_file("model.layers.0.self_attn.v_proj.weight", &rows, &config), rows);
}

#[test]
fn quantized_weights_come_back_close() {
    let model = model(small());
    let (_space, path) = saved(&model, BlockType::Q8_0);
    let read = Model::load(&path).unwrap();
    let worst = model.weights.data.iter().zip(&read.weights.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst > 0.0 && worst < 0.005, "{worst}");
}

#[test]
fn what_we_cannot_run_is_named() {
    let model = model(small());
    type Change<'a> = &'a dyn Fn(&mut Vec<(String, Value)>);
    let said = |change: Change| {
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join("x.gguf");
        let mut metadata = llama::metadata(&model, 0).unwrap();
        change(&mut metadata);
        let plans: Vec<_> =
            model.weights.iter().map(|(name, shape, _)| llama::plan(&model.config, name, shape, BlockType::F32).unwrap()).collect();
        let mut writer = Writer::create(&path, &metadata, &plans).unwrap();
        for plan in &plans {
            writer.tensor(&vec![0; plan.size_bytes().unwrap()]).unwrap();
        }
        writer.finish().unwrap();
        Model::load(&path).map(|_| ()).map_err(|error| error.to_string())
    };
    let set = |key: &'static str, value: Value| {
        move |metadata: &mut Vec<(String, Value)>| {
            metadata.retain(|(name, _)| name != key);
            metadata.push((key.to_string(), value.clone()));
        }
    };
    assert_eq!(said(&|_| ()), Ok(()));
    let cases: [(&'static str, Value, &str); 12] = [
        ("general.architecture", Value::from("mamba\u{1b}[2J"), "mamba\\u{1b}"),
        ("llama.block_count", Value::U32(3), "`blk.2.attn_norm.weight` is missing"),
        ("llama.block_count", Value::U32(1), "blk.1"),
        ("llama.block_count", Value::U64(u64::MAX), "num_hidden_layers"),
        ("llama.embedding_length", Value::U32(64), "shape"),
        ("llama.rope.scaling.type", Value::from("su"), "rope.scaling.type `su`"),
        ("llama.rope.dimension_count", Value::U32(4), "rope.dimension_count"),
        ("llama.expert_count", Value::U32(8), "expert_count"),
        ("tokenizer.ggml.model", Value::from("llama"), "scores is missing"),
        ("tokenizer.ggml.pre", Value::from("viking"), "viking"),
        ("tokenizer.ggml.eos_token_id", Value::U32(9999), "x.gguf` is malformed: tokenizer.ggml.eos_token_id is 9999"),
        ("tokenizer.ggml.merges", Value::Array(Array::String(vec!["nomerge".into()])), "merge"),
    ];
    for (key, value, expected) in cases {
        let error = said(&set(key, value)).unwrap_err();
        assert!(error.contains(expected), "{key}: {error}");
    }
    for key in crate::model::keys::File::Gguf.keys().iter().filter(|key| key.fate == crate::model::keys::Fate::Refused) {
        let name: &'static str = Box::leak(key.name.replace("{arch}", "llama").into_boxed_str());
        let error = said(&set(name, Value::F32(7.0))).unwrap_err();
        assert!(error.contains(name), "{error}");
    }
    assert!(said(&|metadata| metadata.retain(|(name, _)| name != "tokenizer.ggml.tokens")).unwrap_err().contains("tokens is missing"));
    assert!(
        said(&|metadata| metadata.retain(|(name, _)| name != "llama.context_length")).unwrap_err().contains("context_length is missing")
    );
}

/// What llama.cpp makes of where positions are stretched, found by asking it (`tests/peers/model_keys.py`).
#[test]
fn older_and_missing_keys_of_positions_mean_what_they_mean_in_llama_cpp() {
    let model = model(small());
    let said = |entries: &[(&str, Value)]| {
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join("x.gguf");
        let mut metadata = llama::metadata(&model, 0).unwrap();
        metadata.extend(entries.iter().map(|(key, value)| (format!("llama.rope.{key}"), value.clone())));
        let plans: Vec<_> =
            model.weights.iter().map(|(name, shape, _)| llama::plan(&model.config, name, shape, BlockType::F32).unwrap()).collect();
        let mut writer = Writer::create(&path, &metadata, &plans).unwrap();
        plans.iter().for_each(|plan| writer.tensor(&vec![0; plan.size_bytes().unwrap()]).unwrap());
        writer.finish().unwrap();
        Model::load(&path).map(|model| model.config.features.rope_scaling).map_err(|error| error.to_string())
    };
    let (four, kind) = (Value::F32(4.0), |kind: &str| ("scaling.type", Value::from(kind)));
    let linear = || Ok(RopeScaling::Linear { factor: 4.0 });
    let none = || Ok(RopeScaling::None);
    assert_eq!(said(&[("scaling.factor", four.clone())]), linear());
    assert_eq!(said(&[("scale_linear", four.clone())]), linear());
    assert_eq!(said(&[kind("linear"), ("scaling.factor", four.clone()), ("scale_linear", Value::F32(2.0))]), linear());
    assert_eq!(said(&[("scaling.factor", Value::F32(0.0)), ("scale_linear", four.clone())]), none());
    assert_eq!(said(&[kind("none"), ("scaling.factor", four.clone())]), none());
    assert_eq!(said(&[kind("linear")]), none());
    let yarn = Yarn { factor: 4.0, original: 64, attention_factor: Yarn::default_attention_factor(4.0), beta_fast: 32.0, beta_slow: 1.0 };
    assert_eq!(said(&[kind("yarn"), ("scale_linear", four.clone())]), Ok(RopeScaling::Yarn(yarn)));
    for (key, value) in [("scaling.attn_factor", 2.0), ("scaling.yarn_beta_fast", 8.0), ("scaling.yarn_ext_factor", 0.0)] {
        let error = said(&[kind("yarn"), ("scaling.factor", four.clone()), (key, Value::F32(value))]).unwrap_err();
        assert!(error.contains(key), "{error}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    /// Mostly the head is hit: the tensors behind it are only numbers.
    #[test]
    fn a_mangled_model_is_an_error_and_never_a_panic(
        changes in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>()), 1..4),
        cut in proptest::option::of(proptest::prelude::any::<proptest::sample::Index>()),
    ) {
        let (_space, path) = saved(&model(small()), BlockType::Q8_0);
        let mut bytes = std::fs::read(&path).unwrap();
        let head = Header::parse(&bytes).unwrap().tensors[0].bytes.start;
        for (at, byte) in changes {
            bytes[at.index(head)] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(read) = Model::load(&path) {
            proptest::prop_assert!(read.weights.data.iter().all(|value| value.is_finite()));
            let _ = read.tokenizer.encode("it's 12 below");
        }
    }
}
