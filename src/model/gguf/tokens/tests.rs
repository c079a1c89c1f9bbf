//! What goes into a file comes out as the same tokenizer, whichever of the known kinds it is.

use serde_json::{Value as Json, json};

use super::*;
use crate::model::config::tests::tiny;
use crate::model::tokenizer::tests::bytes_only;
use crate::model::{Config, Weights};

const TEXTS: [&str; 8] = [
    "it's 12345 below  zero\n\n x",
    "naïve <|endoftext|>x<s> 冷蔵庫",
    " the other THE'LL",
    "",
    "\t\r\n  \r\n.../// ok",
    "the<unk>the",
    "Übergrößenträger123",
    "a  b   c",
];

/// A byte-level BPE with a few merges that cuts texts by the rule of this name.
fn ruled(name: &str) -> Tokenizer {
    let mut json: Json = serde_json::from_slice(bytes_only().json()).unwrap();
    for (i, (left, right)) in
        [("t", "h"), ("th", "e"), ("Ġ", "the"), ("1", "2"), ("12", "3"), ("Ċ", "Ċ"), ("'", "l")].into_iter().enumerate()
    {
        json["model"]["vocab"][format!("{left}{right}")] = (257 + i).into();
        json["model"]["merges"].as_array_mut().unwrap().push(json!([left, right]));
    }
    let rule = rules::named(name).unwrap();
    json["pre_tokenizer"] = rule.pre_tokenizer;
    json["normalizer"] = rule.normalizer;
    json["model"]["ignore_merges"] = rule.ignore_merges;
    Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
}

/// A SentencePiece model as Hugging Face has it.
fn pieced(prefix: Prefix) -> Tokenizer {
    let mut json = pieces::frame(prefix, Some("<unk>"));
    let mut add = |text: &str| {
        let next = json["model"]["vocab"].as_object().unwrap().len();
        json["model"]["vocab"][text] = next.into();
    };
    ["<unk>", "<s>", "</s>"].iter().for_each(|text| add(text));
    (0..256).for_each(|byte| add(&format!("<0x{byte:02X}>")));
    let merges = [("t", "h"), ("▁", "the"), ("th", "e"), ("▁t", "he"), ("h", "e"), ("▁", "▁"), ("▁", "t"), ("1", "2")];
    "▁abcdefghijklmnopqrstuvwxyzTHELü1234567890'.".chars().for_each(|letter| add(&letter.to_string()));
    ["th", "▁the", "the", "he", "▁▁", "▁t", "12"].iter().for_each(|text| add(text));
    json["model"]["merges"] = merges.iter().map(|(left, right)| json!([left, right])).collect();
    for (id, text) in ["<unk>", "<s>", "</s>"].iter().enumerate() {
        json["added_tokens"].as_array_mut().unwrap().push(json!({"id": id, "content": text, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}));
    }
    let mut tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
    (tokenizer.bos, tokenizer.eos) = (tokenizer.special("<s>"), tokenizer.special("</s>"));
    tokenizer
}

fn holding(tokenizer: &Tokenizer, vocab_size: usize) -> Model {
    let config = Config { vocab_size, bos_token_id: None, eos_token_id: Some(0), pad_token_id: None, ..tiny() };
    let weights = Weights::zeros(&config).unwrap();
    Model { config, weights, tokenizer: tokenizer.clone(), chat: ChatTemplate::default() }.with_ends().unwrap()
}

fn through_a_file(tokenizer: &Tokenizer, vocab_size: usize) -> (Header, Tokenizer) {
    let model = holding(tokenizer, vocab_size);
    let metadata = write(&model).unwrap().into_iter().map(|(key, value)| (key.to_string(), value)).collect();
    let header = Arc::new(Header { version: 3, metadata, tensors: Vec::new() });
    let read = read(&header, Path::new("x.gguf")).unwrap().0;
    (Arc::unwrap_or_clone(header), read)
}

fn assert_same(one: &Tokenizer, other: &Tokenizer, name: &str) {
    for text in TEXTS {
        let tokens = one.encode(text).unwrap();
        assert_eq!(other.encode(text).unwrap(), tokens, "{name}: {text:?}");
        assert_eq!(other.decode(&tokens).unwrap(), one.decode(&tokens).unwrap(), "{name}: {text:?}");
    }
}

#[test]
fn every_rule_goes_in_and_comes_out() {
    for name in ["gpt-2", "smollm", "llama-bpe", "smaug-bpe", "qwen2", "gpt-4o", "tekken"] {
        let tokenizer = ruled(name);
        let (header, read) = through_a_file(&tokenizer, 270);
        assert_eq!(header.get("tokenizer.ggml.pre"), Some(&Value::from(name)));
        assert_same(&tokenizer, &read, name);
        assert_same(&tokenizer, &Tokenizer::from_json(read.json()).unwrap(), name);
        let again = Tokenizer::from_json(read.json()).unwrap();
        assert_eq!(read.inner().to_string(false).unwrap(), again.inner().to_string(false).unwrap(), "{name}");
    }
}

#[test]
fn rules_cut_differently() {
    let count = |name: &str, text: &str| ruled(name).encode(text).unwrap().len();
    assert_eq!((count("gpt-2", "1234"), count("smollm", "1234"), count("llama-bpe", "1234"), count("qwen2", "1234")), (2, 4, 2, 4));
    assert_eq!((count("gpt-2", "THE'LL"), count("llama-bpe", "i'l"), count("gpt-4o", "i'l")), (6, 2, 2));
}

#[test]
fn pieces_go_in_and_come_out() {
    for prefix in [Prefix::Space, Prefix::Nothing] {
        let tokenizer = pieced(prefix);
        let (header, read) = through_a_file(&tokenizer, 320);
        assert_eq!(header.get("tokenizer.ggml.model"), Some(&Value::from("llama")));
        assert_eq!(header.get("tokenizer.ggml.add_space_prefix"), Some(&Value::Bool(prefix == Prefix::Space)));
        let types = header.get("tokenizer.ggml.token_type").unwrap().as_i32s().unwrap();
        assert_eq!((&types[..5], types[319]), (&[UNKNOWN, CONTROL, CONTROL, BYTE, BYTE][..], UNUSED));
        assert_same(&tokenizer, &read, &format!("{prefix:?}"));
        assert_same(&tokenizer, &Tokenizer::from_json(read.json()).unwrap(), "by its JSON");
        // "▁the" is made of "▁" and "the" although "▁t" and "he" would do, too.
        assert_eq!(read.encode("a the").unwrap().last().map(|id| read.token(*id)), Some(Some("▁the".to_string())));
    }
}

/// As transformers writes it since 4.40.
#[test]
fn metaspace_with_a_prefix_is_refused() {
    let mut json: Json = serde_json::from_slice(pieced(Prefix::Space).json()).unwrap();
    json["normalizer"] = Json::Null;
    json["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    let refused = |json: &Json| {
        let model = Model { tokenizer: Tokenizer::from_json(json.to_string().as_bytes()).unwrap(), ..holding(&pieced(Prefix::Space), 320) };
        write(&model).map(|_| ()).unwrap_err().to_string()
    };
    for scheme in ["first", "always"] {
        json["pre_tokenizer"]["prepend_scheme"] = scheme.into();
        assert!(refused(&json).contains(&format!("\"prepend_scheme\":\"{scheme}\"")), "{}", refused(&json));
    }
    json["pre_tokenizer"]["prepend_scheme"] = "never".into();
    assert_eq!(pieces::prefix(&json), Some(Prefix::Nothing));
    json["pre_tokenizer"]["split"] = true.into();
    assert_eq!(pieces::prefix(&json), None);
}

#[test]
fn the_beginning_is_remembered_but_never_encoded() {
    for begins in [true, false] {
        let mut json: Json = serde_json::from_slice(pieced(Prefix::Space).json()).unwrap();
        let bos = Special { id: 1, text: "<s>".to_string() };
        json["post_processor"] = if begins { post_processor(Some(&bos), None) } else { Json::Null };
        let mut tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
        tokenizer.bos = Some(bos);
        let (header, read) = through_a_file(&tokenizer, 320);
        assert_eq!(header.get("tokenizer.ggml.add_bos_token"), Some(&Value::Bool(begins)));
        assert_eq!((tokenizer.adds_bos(), read.adds_bos()), (begins, begins));
        assert_eq!(read.encode("the").unwrap().len(), 1);
    }
}

#[test]
fn what_has_no_name_is_refused() {
    let changed = |change: &dyn Fn(&mut Json)| {
        let mut json: Json = serde_json::from_slice(ruled("llama-bpe").json()).unwrap();
        change(&mut json);
        let config = Config { vocab_size: 270, ..tiny() };
        let tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
        let model = Model { weights: Weights::zeros(&config).unwrap(), config, tokenizer, chat: ChatTemplate::default() };
        write(&model).map(|_| ()).unwrap_err().to_string()
    };
    let no_name = "preparing texts";
    assert!(changed(&|json| json["normalizer"] = json!({"type": "NFC"})).contains(no_name));
    assert!(changed(&|json| json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "x".into()).contains(no_name));
    assert!(changed(&|json| json["model"]["byte_fallback"] = true.into()).contains(no_name));
    for flag in ["lstrip", "rstrip", "single_word"] {
        let error = changed(&|json| json["added_tokens"][0][flag] = true.into());
        assert!(error.contains(flag) && error.contains("<|endoftext|>"), "{error}");
    }
}

#[test]
fn mangled_pieces_are_errors() {
    let (header, _) = through_a_file(&pieced(Prefix::Space), 320);
    let said = |key: &str, value: Option<Value>| {
        let mut metadata: Vec<_> = header.metadata.iter().filter(|(name, _)| name != key).cloned().collect();
        metadata.extend(value.map(|value| (key.to_string(), value)));
        read(&Arc::new(Header { metadata, ..header.clone() }), Path::new("x.gguf")).map(|_| ()).map_err(|error| error.to_string())
    };
    assert!(said("tokenizer.ggml.scores", None).unwrap_err().contains("scores is missing"));
    assert!(said("tokenizer.ggml.scores", Some(Value::Array(Array::F32(vec![0.0; 3])))).unwrap_err().contains("differ in length"));
    assert!(said("tokenizer.ggml.scores", Some(Value::from("x"))).unwrap_err().contains("is not a list of f32"));
    assert_eq!(said("tokenizer.ggml.scores", Some(Value::Array(Array::F32(vec![f32::NAN; 320])))), Ok(()));
    assert!(said("tokenizer.ggml.model", Some(Value::from("t5"))).unwrap_err().contains("`t5`"));
    let mut tokens = header.get("tokenizer.ggml.tokens").unwrap().as_strings().unwrap().to_vec();
    tokens[300] = "x".repeat(5000);
    assert!(said("tokenizer.ggml.tokens", Some(Value::Array(Array::String(tokens)))).unwrap_err().contains("piece 300"));
}

/// As Phi-3 has them: all special tokens swallow the spaces behind them, but for three.
#[test]
fn a_phi3_is_known_by_its_name() {
    let mut json: Json = serde_json::from_slice(pieced(Prefix::Space).json()).unwrap();
    let mut token = json["added_tokens"][0].clone();
    json["model"]["vocab"]["<|endoftext|>"] = 310.into();
    for (id, text, rstrip) in [(310, "<|endoftext|>", false), (311, "<|end|>", true), (312, "<|user|>", true)] {
        (token["id"], token["content"], token["rstrip"]) = (id.into(), text.into(), rstrip.into());
        json["added_tokens"].as_array_mut().unwrap().push(token.clone());
    }
    let of = |json: &Json| {
        let mut tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
        tokenizer.eos = tokenizer.special("<|endoftext|>");
        tokenizer
    };
    // `</s>` keeps its spaces: no rule of llama.cpp's.
    let error = write(&holding(&of(&json), 320)).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("<|end|>") && error.contains("rstrip"), "{error}");
    json["added_tokens"][2]["rstrip"] = true.into();
    let (header, read) = through_a_file(&of(&json), 320);
    assert_eq!(header.get("general.name"), Some(&Value::from("Phi-3")));
    for text in ["<|user|> the<|end|>\n<|user|>\n  the", "<s> the</s> the", "<|endoftext|> the <|end|>"] {
        assert_eq!(read.encode(text).unwrap(), of(&json).encode(text).unwrap(), "{text:?}");
        assert_eq!(Tokenizer::from_json(read.json()).unwrap().encode(text).unwrap(), of(&json).encode(text).unwrap(), "{text:?}");
    }
    assert_eq!(read.encode("<|user|> \n<|end|>").unwrap().len(), 2);
}

/// Gemma 3's runs of spaces are added tokens and are merged to.
#[test]
fn runs_of_spaces_are_merged() {
    let mut json: Json = serde_json::from_slice(pieced(Prefix::Nothing).json()).unwrap();
    let mut token = json["added_tokens"][0].clone();
    let id = json["model"]["vocab"]["▁▁"].clone();
    (token["id"], token["content"], token["special"]) = (id.clone(), "▁▁".into(), false.into());
    json["added_tokens"].as_array_mut().unwrap().push(token);
    let mut tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
    (tokenizer.bos, tokenizer.eos) = (tokenizer.special("<s>"), tokenizer.special("</s>"));
    let (_, read) = through_a_file(&tokenizer, 320);
    assert_same(&tokenizer, &read, "runs of spaces");
    assert!(read.encode("a  b").unwrap().contains(&(id.as_u64().unwrap() as u32)));
    json["added_tokens"][3]["normalized"] = true.into();
    let tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
    assert!(write(&holding(&tokenizer, 320)).map(|_| ()).unwrap_err().to_string().contains("normalized"));
}

#[test]
fn merges_may_be_ignored_where_that_changes_nothing() {
    let with = |name: &str, ignore: bool, piece: Option<&str>| {
        let mut json: Json = serde_json::from_slice(ruled(name).json()).unwrap();
        json["model"]["ignore_merges"] = ignore.into();
        if let Some(piece) = piece {
            json["model"]["vocab"][piece] = 269.into();
        }
        let tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
        write(&holding(&tokenizer, 270)).map(|entries| entries.into_iter().find(|(key, _)| *key == "tokenizer.ggml.pre").unwrap().1)
    };
    for (name, ignore) in [("gpt-4o", true), ("qwen2", true), ("tekken", false)] {
        assert_eq!(with(name, ignore, None).unwrap(), Value::from(name), "{name}");
        let error = with(name, ignore, Some("xyz")).unwrap_err().to_string();
        assert!(error.contains("xyz") && error.contains("ignore_merges"), "{error}");
    }
}

/// Another spelling of the same cut.
#[test]
fn what_is_kept_is_what_is_not_removed() {
    let mut json: Json = serde_json::from_slice(ruled("gpt-4o").json()).unwrap();
    let split = &mut json["pre_tokenizer"]["pretokenizers"][0];
    (split["behavior"], split["invert"]) = ("Removed".into(), true.into());
    let tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
    let (header, read) = through_a_file(&tokenizer, 270);
    assert_eq!(header.get("tokenizer.ggml.pre"), Some(&Value::from("gpt-4o")));
    assert_same(&tokenizer, &read, "removed");
}

/// What a folder and its file say of ends and of special tokens.
#[test]
fn all_ends_go_in_and_come_out() {
    let tokenizer = crate::model::tokenizer::tests::with_specials(&["<e1>", "<e2>", "<e3>", "<|im_end|>", "<|fim_pad|>"]);
    let of = |ids: &[u32], eos: Option<&str>| {
        let mut tokenizer = tokenizer.clone();
        tokenizer.eos = eos.and_then(|text| tokenizer.special(text));
        let mut config = Config { vocab_size: 270, bos_token_id: None, eos_token_id: None, pad_token_id: None, ..tiny() };
        ids.iter().for_each(|id| config.add_end(*id));
        let weights = Weights::zeros(&config).unwrap();
        Model { config, weights, tokenizer, chat: ChatTemplate::absent() }.with_ends().unwrap()
    };
    let cases: [(&[u32], Option<&str>); 6] = [
        (&[0], Some("<|endoftext|>")),
        (&[0, 257], Some("<|endoftext|>")),
        (&[257, 258, 0], Some("<e1>")),
        (&[258, 260], None),
        (&[0], Some("<e3>")),
        (&[260], Some("<|im_end|>")),
    ];
    for (ids, eos) in cases {
        let model = of(ids, eos);
        let metadata = write(&model).unwrap().into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        let header = Arc::new(Header { version: 3, metadata, tensors: Vec::new() });
        let found: BTreeSet<u32> = ends::read(&header).unwrap().into_iter().collect();
        assert_eq!(found, model.config.end_tokens().collect(), "{ids:?} {eos:?}");
        let read = read(&header, Path::new("x.gguf")).unwrap().0;
        assert_eq!(
            (&read.bos, &read.eos, &read.pad),
            (&model.tokenizer.bos, &model.tokenizer.eos, &model.tokenizer.pad),
            "{ids:?} {eos:?}"
        );
        // llama.cpp knows two of them by their text and cannot be told otherwise.
        let alone = ends::of_llama_cpp_alone(&model).unwrap();
        assert_eq!(alone.iter().any(|text| text.contains("<|fim_pad|>")), !ids.contains(&261), "{alone:?}");
    }
    let lost = write(&of(&[0, 257, 258, 259, 10], Some("<|im_end|>"))).map(|_| ()).unwrap_err().to_string();
    assert!(lost.contains("<e3>") || lost.contains("(10)"), "{lost}");
    let none = write(&of(&[], None)).map(|_| ()).unwrap_err().to_string();
    assert!(none.contains("eos_token_id") && none.contains("(11)"), "{none}");
}

/// Found by `tests/model_keys.rs`: llama.cpp takes all these otherwise than what a file or a tokenizer says alone.
#[test]
fn what_llama_cpp_decides_by_texts_is_read_or_refused() {
    let (header, _) = through_a_file(&ruled("gpt-2"), 270);
    let changed = |changes: &[(&str, Value)]| {
        let mut metadata: Vec<_> = header.metadata.iter().filter(|(name, _)| changes.iter().all(|(key, _)| name != key)).cloned().collect();
        metadata.extend(changes.iter().map(|(key, value)| (key.to_string(), value.clone())));
        metadata.retain(|(name, _)| name != "tokenizer.ggml.bos_token_id");
        Arc::new(Header { metadata, ..header.clone() })
    };
    let types = || header.get("tokenizer.ggml.token_type").unwrap().as_i32s().unwrap().to_vec();
    // A special token by its text, and one that is looked up though it is called unused.
    let mut others = types();
    (others[0], others[usize::from(b'x')]) = (NORMAL, UNUSED);
    let odd = changed(&[("tokenizer.ggml.token_type", Value::Array(Array::I32(others)))]);
    let (tokenizer, _) = read(&odd, Path::new("x.gguf")).unwrap();
    assert_eq!(tokenizer.encode("x<|endoftext|>").unwrap(), ruled("gpt-2").encode("x<|endoftext|>").unwrap());
    // A beginning that no key names, for a template that asks.
    let asks = changed(&[("tokenizer.chat_template", Value::from("{{ bos_token }}"))]);
    assert_eq!(read(&asks, Path::new("x.gguf")).unwrap().0.bos.map(|bos| bos.id), Some(11));
    assert_eq!(read(&changed(&[]), Path::new("x.gguf")).unwrap().0.bos, None);
    // Of a folder that has none, none comes out.
    let mut tokenizer = ruled("gpt-2");
    tokenizer.bos = None;
    let mut model = holding(&tokenizer, 270);
    model.chat = ChatTemplate::of_model("{{ bos_token }}{{ messages[0].content }}");
    let metadata = write(&model).unwrap().into_iter().map(|(key, value)| (key.to_string(), value)).collect();
    let again = Arc::new(Header { version: 3, metadata, tensors: Vec::new() });
    assert_eq!(read(&again, Path::new("x.gguf")).unwrap().0.bos, None);
    // A token of the vocabulary that texts never become, and llama.cpp's would.
    let mut json: Json = serde_json::from_slice(ruled("gpt-2").json()).unwrap();
    json["model"]["vocab"]["<|im_end|>"] = 264.into();
    let tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
    let error = write(&holding(&tokenizer, 270)).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("<|im_end|>") && error.contains("added_tokens"), "{error}");
}

/// llama.cpp joins pieces by their scores alone.
#[test]
fn merges_that_scores_cannot_say_are_refused() {
    let refused = |change: &dyn Fn(&mut Json)| {
        let mut json: Json = serde_json::from_slice(pieced(Prefix::Space).json()).unwrap();
        change(&mut json);
        let tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
        write(&holding(&tokenizer, 320)).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(refused(&|_| ()), Ok(()));
    // A piece that nothing is merged to.
    let error = refused(&|json| json["model"]["vocab"]["▁▁▁"] = 312.into()).unwrap_err();
    assert!(error.contains("merges") && error.contains("▁▁▁"), "{error}");
    let error = refused(&|json| json["added_tokens"][0]["special"] = false.into()).unwrap_err();
    assert!(error.contains("unk_token") && error.contains("special"), "{error}");
}
