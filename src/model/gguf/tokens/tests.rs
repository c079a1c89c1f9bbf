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

fn through_a_file(tokenizer: &Tokenizer, vocab_size: usize) -> (Header, Tokenizer) {
    let config = Config { vocab_size, bos_token_id: None, eos_token_id: None, pad_token_id: None, ..tiny() };
    let weights = Weights::zeros(&config).unwrap();
    let model = Model { config, weights, tokenizer: tokenizer.clone(), chat: ChatTemplate::default() };
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
    for name in ["gpt-2", "smollm", "llama-bpe", "smaug-bpe", "qwen2", "gpt-4o"] {
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
fn metaspace_is_a_prefix_too() {
    let mut json: Json = serde_json::from_slice(pieced(Prefix::Space).json()).unwrap();
    json["normalizer"] = Json::Null;
    json["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    assert_eq!(pieces::prefix(&json), Some(Prefix::Space));
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
        json["post_processor"] = if begins { post_processor(&bos) } else { Json::Null };
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
    assert!(changed(&|json| json["added_tokens"][0]["lstrip"] = true.into()).contains("swallows spaces"));
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
    assert!(said("tokenizer.ggml.scores", Some(Value::from("x"))).unwrap_err().contains("no list of numbers"));
    assert_eq!(said("tokenizer.ggml.scores", Some(Value::Array(Array::F32(vec![f32::NAN; 320])))), Ok(()));
    assert!(said("tokenizer.ggml.model", Some(Value::from("t5"))).unwrap_err().contains("`t5`"));
    let mut tokens = header.get("tokenizer.ggml.tokens").unwrap().as_strings().unwrap().to_vec();
    tokens[300] = "x".repeat(5000);
    assert!(said("tokenizer.ggml.tokens", Some(Value::Array(Array::String(tokens)))).unwrap_err().contains("piece 300"));
}
