//! JSON that every reader understands alike, and nothing else. RFC 8259 lets readers differ about a name that an object has twice, about numbers
//! beyond their precision or range, about a surrogate without its partner and about depth; RFC 7493 (I-JSON) says what to avoid. Here such a text is
//! refused: a duplicate name at any depth, an integer beyond 64 bits, a number beyond the range of a double, an unpaired surrogate, more than
//! [`MAX_DEPTH`] levels. A number with a fraction or an exponent is the double nearest to it, unless it is read as [`Exact`].

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Number, Value};

use super::text;

/// Lists and objects within each other: serde_json's own limit.
pub const MAX_DEPTH: usize = 127;

/// Why a text is not JSON, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at line {line} column {column}")]
pub struct JsonError {
    pub what: String,
    /// From 1.
    pub line: usize,
    pub column: usize,
}

/// A value whose numbers are kept as they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exact<'t> {
    Null,
    Bool(bool),
    /// JSON's own spelling: `1`, `1.0`, `1e0`.
    Number(&'t str),
    String(String),
    Array(Vec<Exact<'t>>),
    Object(BTreeMap<String, Exact<'t>>),
}

/// The text as one value.
pub fn parse(text: &str) -> Result<Value, JsonError> {
    exact(text).map(Value::from)
}

/// The text as one value with its numbers as written.
pub fn exact(text: &str) -> Result<Exact<'_>, JsonError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let numbers = RefCell::new(Numbers { text, at: 0 });
    let value = Strict { numbers: &numbers }.deserialize(&mut deserializer).map_err(|error| JsonError::of(&error))?;
    deserializer.end().map_err(|error| JsonError::of(&error))?;
    Ok(value)
}

/// A file's bytes as a typed value: text as [`text::decode`] reads it, JSON as [`parse`] does.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    let text = text::decode(bytes).map_err(|error| {
        let line = usize::try_from(error.line).unwrap_or(usize::MAX);
        JsonError { what: error.why, line, column: 1 }
    })?;
    exact(&text)?;
    serde_json::from_str(&text).map_err(|error| JsonError::of(&error))
}

/// A file of a format that is not ours as a typed value. Its numbers are what serde_json makes of them, since Hugging Face's files hold integers of a
/// hundred bits that mean "no limit"; a duplicate name is refused all the same.
pub fn from_foreign_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    check_names(bytes)?;
    serde_json::from_slice(bytes).map_err(|error| JsonError::of(&error))
}

/// Refuses a duplicate name at any depth, and what is not JSON. Keeps nothing but the names of the objects that are open.
pub fn check_names(bytes: &[u8]) -> Result<(), JsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    Names.deserialize(&mut deserializer).map_err(|error| JsonError::of(&error))?;
    deserializer.end().map_err(|error| JsonError::of(&error))
}

impl JsonError {
    fn of(error: &serde_json::Error) -> JsonError {
        let text = error.to_string();
        // serde_json adds the place, which is kept apart here.
        let what = text.split(" at line ").next().unwrap_or(&text);
        let what = match error.classify() {
            Category::Data | Category::Io => what.to_string(),
            Category::Syntax | Category::Eof => format!("not JSON: {what}"),
        };
        JsonError { what, line: error.line(), column: error.column() }
    }
}

impl From<Exact<'_>> for Value {
    fn from(exact: Exact<'_>) -> Value {
        match exact {
            Exact::Null => Value::Null,
            Exact::Bool(value) => value.into(),
            // Checked when it was read.
            Exact::Number(text) => number(text).map_or(Value::Null, Value::Number),
            Exact::String(text) => text.into(),
            Exact::Array(items) => items.into_iter().map(Value::from).collect(),
            Exact::Object(entries) => Value::Object(entries.into_iter().map(|(key, value)| (key, value.into())).collect()),
        }
    }
}

/// Whether two values are equal: names in any order, numbers by their exact value, so that `1`, `1.0` and `10e-1` are equal and
/// `9007199254740993` and `9007199254740992.0` are not.
pub fn equal(a: &Exact, b: &Exact) -> bool {
    match (a, b) {
        (Exact::Number(a), Exact::Number(b)) => Decimal::of(a) == Decimal::of(b),
        (Exact::Array(a), Exact::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Exact::Object(a), Exact::Object(b)) => a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && equal(a, b)),
        (a, b) => a == b,
    }
}

/// A number's value: its digits without zeros at either end, times ten to the exponent. Zero has no digits.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: Vec<u8>,
    exponent: i128,
}

impl Decimal {
    fn of(text: &str) -> Decimal {
        let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).skip_while(|digit| *digit == b'0').collect();
        let kept = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
        if kept == 0 {
            return Decimal { is_negative: false, digits: Vec::new(), exponent: 0 };
        }
        // A text that long does not fit into memory, so the exponent of a number in range fits.
        let exponent = exponent.parse::<i128>().unwrap_or(i128::MAX / 2) - fraction.len() as i128 + (digits.len() - kept) as i128;
        Decimal { is_negative, digits: digits[..kept].to_vec(), exponent }
    }
}

/// A number without loss or a reason why there is none. `text` is a number of JSON.
fn number(text: &str) -> Result<Number, &'static str> {
    if text == "-0" {
        return Number::from_f64(-0.0).ok_or("not a number");
    }
    if text.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit()) {
        let parsed = text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from));
        return parsed.map_err(|_| "an integer beyond 64 bits, which readers would round: write it as a string");
    }
    let value: f64 = text.parse().map_err(|_| "not a number")?;
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    if value == 0.0 && mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9')) {
        return Err("a number that is too small for a double, and not zero");
    }
    Number::from_f64(value).ok_or("a number that is too large for a double")
}

/// The numbers of a well-formed text, in its order, which is also the order in which a visitor meets them.
struct Numbers<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Numbers<'t> {
    fn next(&mut self) -> Option<&'t str> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'"' => self.skip_string(),
                b'-' | b'0'..=b'9' => {
                    let start = self.at;
                    let belongs = |byte: &u8| byte.is_ascii_digit() || b"-+.eE".contains(byte);
                    self.at += bytes[start..].iter().take_while(|byte| belongs(byte)).count();
                    return self.text.get(start..self.at);
                }
                _ => self.at += 1,
            }
        }
        None
    }

    fn skip_string(&mut self) {
        let bytes = self.text.as_bytes();
        self.at += 1;
        while let Some(byte) = bytes.get(self.at) {
            self.at += if *byte == b'\\' { 2 } else { 1 };
            if *byte == b'"' {
                return;
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Strict<'a, 't> {
    numbers: &'a RefCell<Numbers<'t>>,
}

impl<'t> Strict<'_, 't> {
    fn number<E: serde::de::Error>(self) -> Result<Exact<'t>, E> {
        let text = self.numbers.borrow_mut().next().ok_or_else(|| E::custom("a number that cannot be found again"))?;
        number(text).map(|_| Exact::Number(text)).map_err(E::custom)
    }
}

impl<'de, 't> DeserializeSeed<'de> for Strict<'_, 't> {
    type Value = Exact<'t>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Exact<'t>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, 't> Visitor<'de> for Strict<'_, 't> {
    type Value = Exact<'t>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Exact<'t>, E> {
        Ok(Exact::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Exact<'t>, E> {
        Ok(Exact::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Exact<'t>, E> {
        self.number()
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Exact<'t>, E> {
        self.number()
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Exact<'t>, E> {
        self.number()
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Exact<'t>, E> {
        Ok(Exact::String(value.to_string()))
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Exact<'t>, E> {
        Ok(Exact::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Exact<'t>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Exact::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Exact<'t>, A::Error> {
        let mut map = BTreeMap::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(duplicate(&key));
            }
            let value = entries.next_value_seed(self)?;
            map.insert(key, value);
        }
        Ok(Exact::Object(map))
    }
}

struct Names;

impl<'de> DeserializeSeed<'de> for Names {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Names {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Names)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut names = BTreeSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            if names.contains(&key) {
                return Err(duplicate(&key));
            }
            names.insert(key);
            entries.next_value_seed(Names)?;
        }
        Ok(())
    }
}

fn duplicate<E: serde::de::Error>(key: &str) -> E {
    E::custom(format!("duplicate key `{}`", shown(key)))
}

/// A key as a message may show it: short and on one line.
pub fn shown(key: &str) -> String {
    key.chars().take(40).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_name_stands_once_at_every_depth() {
        assert_eq!(said(r#"{"a":1,"a":2}"#), "duplicate key `a` at line 1 column 10");
        for text in [r#"[{"a":{"b":1,"b":1}}]"#, r#"{"a":[[{"c":1,"x":{},"c":2}]]}"#, r#"{"\u0061":1,"a":1}"#] {
            assert!(said(text).starts_with("duplicate key"), "{text}");
        }
        // Unlike each other as code points: what a reader of JSON compares.
        assert!(parse("{\"é\":1,\"e\u{301}\":2}").is_ok());
    }

    #[test]
    fn numbers_are_what_they_say_or_refused() {
        for text in
            ["18446744073709551616", "-9223372036854775809", "[1,123456789012345678901234567890]", r#"{"a":{"b":99999999999999999999}}"#]
        {
            assert!(said(text).starts_with("an integer beyond 64 bits"), "{text}: {}", said(text));
        }
        assert_eq!(parse("18446744073709551615").unwrap(), Value::from(u64::MAX));
        assert_eq!(parse("-9223372036854775808").unwrap(), Value::from(i64::MIN));
        assert_eq!(parse("[-0, 0e99999999999999999999, 1e308, 5e-324]").unwrap()[3], Value::from(5e-324));
        for text in ["1e400", "-1e309", "[1e999999999999999999999]"] {
            assert!(said(text).contains("number out of range"), "{text}: {}", said(text));
        }
        for text in ["1e-400", "[0.1e-330]", "1e-99999999999999999999"] {
            assert!(said(text).starts_with("a number that is too small"), "{text}: {}", said(text));
        }
        // Digits within strings are no numbers, whatever stands before the quotes.
        let tricky = r#"{"1\\":"99999999999999999999","\"2":[3,"\\\"4",-5.5e+1]}"#;
        assert_eq!(parse(tricky).unwrap(), serde_json::from_str::<Value>(tricky).unwrap());
    }

    #[test]
    fn what_readers_would_differ_about_is_refused() {
        for text in [
            "{} {}",
            "{",
            "",
            "nul",
            "{'a':1}",
            "[1,]",
            "NaN",
            "\"\\ud800\"",
            "\"\\udc00\\ud800\"",
            "\"\u{1}\"",
            "01",
            "+1",
            "1.",
            "\u{feff}1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("\"\\ud83d\\ude00\"").unwrap(), Value::from("😀"));
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(MAX_DEPTH)).is_ok());
        assert!(said(&nested(MAX_DEPTH + 1)).contains("recursion limit"));
        assert!(parse(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn values_are_compared_by_what_they_mean() {
        let same = |a: &str, b: &str| equal(&exact(a).unwrap(), &exact(b).unwrap());
        for (a, b) in
            [("1", "1.0"), ("1", "1e0"), ("10e-1", "1"), ("-0.0", "0"), ("0e7", "0"), ("1.50", "15e-1"), ("1e2", "100"), ("1E+2", "100.00")]
        {
            assert!(same(a, b) && same(b, a), "{a} {b}");
        }
        for (a, b) in [
            ("9007199254740993", "9007199254740992.0"),
            ("9007199254740993.0", "9007199254740992"),
            ("0.1", "0.1000000000000000055511151231257827"),
            ("18446744073709551615", "18446744073709551616.0"),
            ("1", "-1"),
            ("1", "10"),
            ("1", "\"1\""),
            ("true", "1"),
            ("[1,2]", "[2,1]"),
            ("[1]", "[1,1]"),
            ("{}", "{\"a\":null}"),
            ("\"é\"", "\"e\u{301}\""),
        ] {
            assert!(!same(a, b) && !same(b, a), "{a} {b}");
        }
        assert!(same(r#"{"id": 4, "set": {"b": [1, 2.50], "a": null}}"#, r#"{"set":{"a":null,"b":[1.0,2.5]},"id":4e0}"#));
        assert!(same("\"\\u00e9\"", "\"é\""));
    }

    #[test]
    fn typed_values_are_held_to_the_same() {
        type Map = BTreeMap<String, u8>;
        assert_eq!(from_slice::<Map>(b"\xEF\xBB\xBF{\"a\":1}\r\n").unwrap()["a"], 1);
        let said = |bytes: &[u8]| from_slice::<Map>(bytes).unwrap_err().to_string();
        assert_eq!(said(b"{\"a\":1,\n\"a\":2}"), "duplicate key `a` at line 2 column 3");
        assert_eq!(said(b"{\"a\":300}"), "invalid value: integer `300`, expected u8 at line 1 column 8");
        assert_eq!(said(b"{\n\xFF}"), "byte 1 is not UTF-8 at line 2 column 1");
    }

    #[test]
    fn files_of_others_may_have_their_numbers_and_no_name_twice() {
        let text = br#"{"model_max_length":1000000000000000019884624838656,"list":[{"a":1},{"a":2}]}"#;
        assert!(from_foreign_slice::<Value>(text).is_ok());
        let said = |text: &str| from_foreign_slice::<Value>(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(said(r#"{"a":[{"b":1,"b":2}]}"#), "duplicate key `b` at line 1 column 16");
        assert!(said("{\"a\":1}{}").starts_with("not JSON: trailing characters"));
        assert!(check_names(&b"[".repeat(100_000)).is_err());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let list = prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from);
            let map = prop::collection::btree_map(any::<String>(), inner, 0..4);
            prop_oneof![list, map.prop_map(|map| Value::Object(map.into_iter().collect()))]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value in any_json()) {
            let (short, long) = (value.to_string(), serde_json::to_string_pretty(&value).unwrap());
            prop_assert_eq!(&parse(&short).unwrap(), &value);
            prop_assert!(equal(&exact(&short).unwrap(), &exact(&long).unwrap()));
        }

        #[test]
        fn whatever_is_accepted_serde_json_reads_the_same(text in "[-+0-9.eE\\[\\]{}\",:\\\\ua \n]{0,24}") {
            if let Ok(value) = parse(&text) {
                prop_assert_eq!(value, serde_json::from_str::<Value>(&text).unwrap());
            }
        }

        #[test]
        fn integers_are_equal_only_to_themselves(a: i64, b: i64, zeros in 0usize..4) {
            let padded = format!("{a}.{}", "0".repeat(zeros + 1));
            let (a_text, b_text) = (a.to_string(), b.to_string());
            prop_assert!(equal(&exact(&a_text).unwrap(), &exact(&padded).unwrap()));
            prop_assert_eq!(equal(&exact(&b_text).unwrap(), &exact(&padded).unwrap()), a == b);
        }
    }
}
