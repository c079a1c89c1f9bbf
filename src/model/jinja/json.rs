//! `tojson` as transformers has it: Python's `json.dumps`.

use minijinja::Error;
use minijinja::value::Value;

use super::call::Args;
use super::operate::{less, sort};
use super::print::float;
use super::run::{self, VALUE, raise, unsupported};
use super::value::{Dict, Items, Py, py, text};

struct Dump {
    ascii: bool,
    /// What a level is indented by.
    indent: Option<String>,
    between_items: String,
    behind_keys: String,
    sorted: bool,
    out: String,
}

/// `value|tojson(…)`.
pub fn filter(value: &Value, args: Args) -> Result<Value, Error> {
    let [ascii, indent, separators, sorted] = args.bind("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"], 0)?;
    let is_set = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let indent = match indent.as_ref().map(py) {
        None | Some(Py::None) => None,
        Some(Py::Str(indent)) => Some(indent.to_string()),
        Some(other) => match other.int() {
            Some(width) => {
                let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
                run::make(width)?;
                Some(" ".repeat(width))
            }
            None => return raise("an indent is a number or a text"),
        },
    };
    let (mut between_items, mut behind_keys) = (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string());
    match separators.as_ref().map(py) {
        None | Some(Py::None) => {}
        Some(Py::Items(Items { items, .. })) => match items.iter().map(Value::as_str).collect::<Vec<_>>()[..] {
            [Some(items), Some(keys)] => (between_items, behind_keys) = (items.to_string(), keys.to_string()),
            _ => return raise("separators are two texts"),
        },
        Some(other) => return unsupported(format!("separators that are a {}", other.noun())),
    }
    let mut dump = Dump { ascii: is_set(ascii), indent, between_items, behind_keys, sorted: is_set(sorted), out: String::new() };
    dump.value(value, 0)?;
    text(dump.out)
}

impl Dump {
    fn push(&mut self, text: &str) -> Result<(), Error> {
        run::make(text.len())?;
        self.out.push_str(text);
        Ok(())
    }

    fn value(&mut self, value: &Value, level: usize) -> Result<(), Error> {
        run::make(VALUE)?;
        match py(value) {
            Py::None => self.push("null"),
            Py::Bool(bool) => self.push(if bool { "true" } else { "false" }),
            Py::Int(int) => self.push(&int.to_string()),
            Py::Float(number) => self.push(&number_text(number)),
            Py::Str(text) | Py::Markup(text) => self.text(text),
            Py::Items(items) => self.items(&items.items, level),
            Py::Dict(dict) => self.dict(dict, level),
            other => raise(format!("Object of type {} is not JSON serializable", other.noun())),
        }
    }

    fn line(&mut self, level: usize) -> Result<(), Error> {
        let Some(indent) = self.indent.clone() else { return Ok(()) };
        run::make(indent.len().saturating_mul(level))?;
        let line = format!("\n{}", indent.repeat(level));
        self.push(&line)
    }

    fn items(&mut self, items: &[Value], level: usize) -> Result<(), Error> {
        if items.is_empty() {
            return self.push("[]");
        }
        self.push("[")?;
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.push(&self.between_items.clone())?;
            }
            self.line(level + 1)?;
            self.value(item, level + 1)?;
        }
        self.line(level)?;
        self.push("]")
    }

    fn dict(&mut self, dict: &Dict, level: usize) -> Result<(), Error> {
        let mut entries: Vec<&(Value, Value)> = dict.entries().iter().collect();
        run::make(VALUE * entries.len())?;
        if entries.is_empty() {
            return self.push("{}");
        }
        if self.sorted {
            entries = sort(entries, &mut |a, b| less(&a.0, &b.0))?;
        }
        self.push("{")?;
        for (i, (key, value)) in entries.into_iter().enumerate() {
            if i > 0 {
                self.push(&self.between_items.clone())?;
            }
            self.line(level + 1)?;
            let key = match py(key) {
                Py::Str(key) | Py::Markup(key) => key.to_string(),
                Py::None => "null".to_string(),
                Py::Bool(key) => if key { "true" } else { "false" }.to_string(),
                Py::Int(key) => key.to_string(),
                Py::Float(key) => number_text(key),
                other => return raise(format!("keys must be str, int, float, bool or None, not {}", other.noun())),
            };
            self.text(&key)?;
            self.push(&self.behind_keys.clone())?;
            self.value(value, level + 1)?;
        }
        self.line(level)?;
        self.push("}")
    }

    fn text(&mut self, text: &str) -> Result<(), Error> {
        // At worst each byte becomes `\u001f`.
        run::make(6 * text.len() + 2)?;
        self.out.push('"');
        for letter in text.chars() {
            match letter {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\x08' => self.out.push_str("\\b"),
                '\x0c' => self.out.push_str("\\f"),
                _ if letter < ' ' || self.ascii && !(' '..='~').contains(&letter) => {
                    let mut units = [0; 2];
                    for unit in letter.encode_utf16(&mut units) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                _ => self.out.push(letter),
            }
        }
        self.out.push('"');
        Ok(())
    }
}

fn number_text(number: f64) -> String {
    match number {
        _ if number.is_nan() => "NaN".to_string(),
        _ if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.to_string(),
        _ => float(number),
    }
}
