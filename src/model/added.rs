//! Tokens that the other files of a folder add to `tokenizer.json`: `tokenizer_config.json`, or the older `special_tokens_map.json` and `added_tokens.json`.
//! The rules are those of transformers 5 (`PreTrainedTokenizerBase._from_pretrained`, `TokenizersBackend.__init__`). Knows no tokenizer.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::ModelError;
use super::error::{is_there, read_limited};
use crate::base::json;

/// The largest published ones list a few hundred thousand tokens.
const MAX_FILE: u64 = 128 << 20;

/// Fields of `tokenizer_config.json` that hold one token. Models have more of the form `NAME_token`.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What the files say, in the order in which the tokens are added.
#[derive(Clone, Debug, Default)]
pub struct AddedTokens {
    /// `added_tokens_decoder` or `added_tokens.json`: the numbers that the tokens must get.
    numbered: BTreeMap<u32, AddedToken>,
    /// Whether `added_tokens_decoder` is there, which then goes over the tokens of `tokenizer.json`.
    has_decoder: bool,
    /// `padding` of `tokenizer.json` names the token where no field does, not even as null.
    silent_on_pad: bool,
    /// `bos_token` and its like.
    named: BTreeMap<String, AddedToken>,
    /// `additional_special_tokens`, `extra_special_tokens`.
    extra: Vec<AddedToken>,
}

impl AddedTokens {
    /// Files that are missing say nothing.
    pub fn of_folder(folder: &Path) -> Result<AddedTokens, ModelError> {
        let mut fields = object(folder, "tokenizer_config.json")?.unwrap_or_default();
        let mut found = AddedTokens::default();
        if let Some(table) = fields.get("added_tokens_decoder") {
            found.numbered = numbered(table)?;
            found.has_decoder = true;
        } else {
            let older = object(folder, "special_tokens_map.json")?.unwrap_or_default();
            fields.extend(older.into_iter().filter(|(_, value)| !value.is_null()));
        }
        found.silent_on_pad = !fields.contains_key("pad_token");
        found.named = named(&fields)?;
        found.extra = extra(&fields)?;
        if !found.has_decoder {
            let listed = object(folder, "added_tokens.json")?.unwrap_or_default();
            found.numbered = found.listed(&listed)?;
        }
        Ok(found)
    }

    /// The token of a field such as `eos_token`.
    pub fn name(&self, field: &str) -> Option<&str> {
        self.named.get(field).map(|token| token.content.as_str())
    }

    pub fn is_silent_on_pad(&self) -> bool {
        self.silent_on_pad
    }

    /// The numbers that the files promise.
    pub fn promised(&self) -> impl Iterator<Item = (u32, &str)> {
        self.numbered.iter().map(|(id, token)| (*id, token.content.as_str()))
    }

    /// What is to be added to a tokenizer that has the added tokens `known` already, in this order.
    pub fn missing(&self, known: &BTreeMap<u32, AddedToken>) -> Vec<AddedToken> {
        let is_named = |text: &str| self.named.values().any(|token| token.content == text);
        let mut numbered = self.numbered.clone();
        if !self.has_decoder {
            // transformers takes those of `tokenizer.json` up once more, over what `added_tokens.json` says of the same numbers.
            numbered.extend(known.iter().map(|(id, token)| (*id, token.clone())));
        }
        let mut missing: Vec<AddedToken> = Vec::new();
        for token in numbered.into_values() {
            // A token that a field names is special, whatever else is said of it.
            let token = AddedToken { special: token.special || is_named(&token.content), ..token };
            if !known.values().any(|other| *other == token) {
                missing.push(token);
            }
        }
        let mut texts: Vec<String> = known.values().chain(&missing).map(|token| token.content.clone()).collect();
        for token in self.in_order() {
            if !texts.contains(&token.content) {
                texts.push(token.content.clone());
                missing.push(token.clone());
            }
        }
        missing
    }

    /// Named tokens in the order of transformers' attributes, then the model's own, then the extra ones.
    fn in_order(&self) -> impl Iterator<Item = &AddedToken> {
        let own = self.named.iter().filter(|(name, _)| !NAMED.contains(&name.as_str())).map(|(_, token)| token);
        NAMED.iter().filter_map(|name| self.named.get(*name)).chain(own).chain(&self.extra)
    }

    /// `added_tokens.json`: text → number.
    fn listed(&self, fields: &Map<String, Value>) -> Result<BTreeMap<u32, AddedToken>, ModelError> {
        let mut found = BTreeMap::new();
        for (text, id) in fields {
            let special = self.in_order().any(|token| token.content == *text);
            let token = AddedToken::from(text.as_str(), special).normalized(!special);
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let id =
                id.ok_or_else(|| ModelError::malformed("added_tokens.json", format!("the id of `{}` is not a token id", shown(text))))?;
            if let Some(other) = found.insert(id, token) {
                let why = format!("`{}` and `{}` both have the id {id}", shown(&other.content), shown(text));
                return Err(ModelError::malformed("added_tokens.json", why));
            }
        }
        Ok(found)
    }
}

/// A file's table, if there is such a file.
fn object(folder: &Path, name: &str) -> Result<Option<Map<String, Value>>, ModelError> {
    let path = folder.join(name);
    if !is_there(&path)? {
        return Ok(None);
    }
    match json::from_foreign_slice(&read_limited(&path, MAX_FILE)?) {
        Ok(Value::Object(fields)) => Ok(Some(fields)),
        Ok(_) => Err(ModelError::malformed(name, "it is not a JSON object")),
        Err(error) => Err(ModelError::malformed(name, error)),
    }
}

fn numbered(table: &Value) -> Result<BTreeMap<u32, AddedToken>, ModelError> {
    let wrong = |why: String| ModelError::malformed("tokenizer_config.json", why);
    let table = table.as_object().ok_or_else(|| wrong("`added_tokens_decoder` is not an object".to_string()))?;
    let mut found = BTreeMap::new();
    for (id, value) in table {
        // As `AddedToken` has it in Python, a token is not special by default.
        let token = value.is_object().then(|| token_or(value, false)).flatten();
        match (id.parse::<u32>(), token) {
            (Ok(id), Some(token)) => drop(found.insert(id, token)),
            _ => return Err(wrong(format!("`added_tokens_decoder.{}` is not a token", shown(id)))),
        }
    }
    Ok(found)
}

/// `bos_token` and its like, and the model's own of the form `image_token`.
fn named(fields: &Map<String, Value>) -> Result<BTreeMap<String, AddedToken>, ModelError> {
    let mut found = BTreeMap::new();
    let own = |name: &str, value: &Value| name.ends_with("_token") && (value.is_string() || value.get("content").is_some());
    for (name, value) in fields.iter().filter(|(name, value)| NAMED.contains(&name.as_str()) || own(name, value)) {
        if value.is_null() {
            continue;
        }
        let token = token(value).ok_or_else(|| ModelError::malformed("tokenizer_config.json", format!("`{name}` is not a token")))?;
        found.insert(name.clone(), token);
    }
    if let Some(Value::Object(table)) = fields.get("extra_special_tokens") {
        for (name, value) in table {
            let token = token(value).ok_or_else(|| {
                ModelError::malformed("tokenizer_config.json", format!("`extra_special_tokens.{}` is not a token", shown(name)))
            })?;
            found.insert(name.clone(), token);
        }
    }
    Ok(found)
}

fn extra(fields: &Map<String, Value>) -> Result<Vec<AddedToken>, ModelError> {
    // A table names tokens one by one, and the older list counts beside it.
    let says_something =
        |value: &&Value| !matches!(value, Value::Null | Value::Object(_)) && value.as_array().is_none_or(|list| !list.is_empty());
    let name = if fields.get("extra_special_tokens").filter(says_something).is_some() {
        "extra_special_tokens"
    } else {
        "additional_special_tokens"
    };
    let wrong = |why: &str| ModelError::malformed("tokenizer_config.json", format!("`{name}` {why}"));
    match fields.get(name) {
        None | Some(Value::Null | Value::Object(_)) => Ok(Vec::new()),
        Some(Value::Array(list)) => {
            list.iter().map(|value| token(value).ok_or_else(|| wrong("holds something that is not a token"))).collect()
        }
        Some(_) => Err(wrong("is not a list of tokens")),
    }
}

/// A text, or an object as transformers writes an `AddedToken`. A bare text is special, and so matched as it stands.
fn token(value: &Value) -> Option<AddedToken> {
    token_or(value, true)
}

/// `special` is what an object that does not say so is.
fn token_or(value: &Value, special: bool) -> Option<AddedToken> {
    if let Some(text) = value.as_str() {
        return Some(AddedToken::from(text, true).normalized(false));
    }
    let flag = |name: &str, default: bool| match value.get(name) {
        None | Some(Value::Null) => Some(default),
        Some(flag) => flag.as_bool(),
    };
    let special = flag("special", special)?;
    Some(AddedToken {
        content: value.get("content")?.as_str()?.to_string(),
        single_word: flag("single_word", false)?,
        lstrip: flag("lstrip", false)?,
        rstrip: flag("rstrip", false)?,
        normalized: flag("normalized", !special)?,
        special,
    })
}

fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}
