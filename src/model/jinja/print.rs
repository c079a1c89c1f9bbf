//! How Python writes values: `str` and `repr`.

use minijinja::Error;
use minijinja::value::Value;
use unicode_general_category::{GeneralCategory as Category, get_general_category};

use super::call::Macro;
use super::run::{self, VALUE, raise, unsupported};
use super::value::{Items, Namespace, Part, Py, Range, Shape, View, py};

/// `str(value)`.
pub fn str(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    write_str(&mut out, value)?;
    Ok(out)
}

pub fn repr(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    write_repr(&mut out, value)?;
    Ok(out)
}

pub fn write_str(out: &mut String, value: &Value) -> Result<(), Error> {
    match py(value) {
        Py::Undefined if run::is_strict() => raise("an undefined value is written"),
        Py::Undefined => Ok(()),
        Py::Str(text) | Py::Markup(text) => push(out, text),
        _ => write_repr(out, value),
    }
}

pub fn write_repr(out: &mut String, value: &Value) -> Result<(), Error> {
    run::make(VALUE)?;
    match py(value) {
        Py::Undefined => push(out, "Undefined"),
        Py::None => push(out, "None"),
        Py::Bool(true) => push(out, "True"),
        Py::Bool(false) => push(out, "False"),
        Py::Int(int) => push(out, &int.to_string()),
        Py::Float(number) => push(out, &float(number)),
        Py::Str(text) => write_quoted(out, text),
        Py::Markup(text) => {
            push(out, "Markup(")?;
            write_quoted(out, text)?;
            push(out, ")")
        }
        Py::Items(items) => write_items(out, items),
        Py::Dict(dict) => write_pairs(out, dict.entries().iter().map(|(key, value)| (key, value))),
        Py::View(view) => write_view(out, view),
        Py::Range(range) => push(out, &range_text(range)),
        Py::Namespace(namespace) => write_namespace(out, namespace),
        Py::Macro(Macro { name: Some(name), .. }) => {
            push(out, "<Macro ")?;
            write_quoted(out, name)?;
            push(out, ">")
        }
        Py::Macro(_) => push(out, "<Macro anonymous>"),
        Py::Loop(looped) => {
            let (index, length) = (looped.get_attr("index")?, looped.get_attr("length")?);
            push(out, &format!("<LoopContext {index}/{length}>"))
        }
        // Python writes the address.
        other @ (Py::Stream(_) | Py::Method(_) | Py::Function(_) | Py::Other) => unsupported(format!("a {} as text", other.noun())),
    }
}

fn push(out: &mut String, text: &str) -> Result<(), Error> {
    run::make(text.len())?;
    out.push_str(text);
    Ok(())
}

fn write_items(out: &mut String, Items { shape, items, .. }: &Items) -> Result<(), Error> {
    let (open, close) = match shape {
        Shape::List => ("[", "]"),
        _ if items.len() == 1 => ("(", ",)"),
        _ => ("(", ")"),
    };
    push(out, open)?;
    write_joined(out, items)?;
    push(out, close)
}

fn write_joined<'a>(out: &mut String, items: impl IntoIterator<Item = &'a Value>) -> Result<(), Error> {
    for (i, item) in items.into_iter().enumerate() {
        push(out, if i == 0 { "" } else { ", " })?;
        write_repr(out, item)?;
    }
    Ok(())
}

fn write_pairs<'a>(out: &mut String, pairs: impl Iterator<Item = (&'a Value, &'a Value)>) -> Result<(), Error> {
    push(out, "{")?;
    for (i, (key, value)) in pairs.enumerate() {
        push(out, if i == 0 { "" } else { ", " })?;
        write_repr(out, key)?;
        push(out, ": ")?;
        write_repr(out, value)?;
    }
    push(out, "}")
}

fn write_view(out: &mut String, view: &View) -> Result<(), Error> {
    push(
        out,
        match view.part {
            Part::Keys => "dict_keys([",
            Part::Values => "dict_values([",
            Part::Items => "dict_items([",
        },
    )?;
    write_joined(out, &view.items()?)?;
    push(out, "])")
}

fn write_namespace(out: &mut String, namespace: &Namespace) -> Result<(), Error> {
    let entries = namespace.entries();
    let pairs: Vec<(Value, Value)> = entries.into_iter().map(|(name, value)| (Value::from(name), value)).collect();
    push(out, "<Namespace ")?;
    write_pairs(out, pairs.iter().map(|(name, value)| (name, value)))?;
    push(out, ">")
}

fn range_text(range: &Range) -> String {
    match range.step {
        1 => format!("range({}, {})", range.start, range.stop),
        step => format!("range({}, {}, {step})", range.start, range.stop),
    }
}

/// The shortest digits that read back as the same number, as Python lays them out.
pub fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_string();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_string();
    }
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
    let plain = number.to_string();
    if plain.contains('.') { plain } else { plain + ".0" }
}

/// A text as Python quotes it within a list.
fn write_quoted(out: &mut String, text: &str) -> Result<(), Error> {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    // At worst each byte becomes `\x7f`, and each letter is looked up.
    run::make(12 * text.len() + 2)?;
    out.push(quote);
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if letter == quote => out.extend(['\\', quote]),
            _ if is_printable(letter) => out.push(letter),
            _ => out.push_str(&match u32::from(letter) {
                code @ 0..=0xff => format!("\\x{code:02x}"),
                code @ 0x100..=0xffff => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            }),
        }
    }
    out.push(quote);
    Ok(())
}

pub fn is_printable(letter: char) -> bool {
    if letter.is_ascii() {
        return (' '..='~').contains(&letter);
    }
    !matches!(
        get_general_category(letter),
        Category::Control
            | Category::Format
            | Category::Surrogate
            | Category::PrivateUse
            | Category::Unassigned
            | Category::LineSeparator
            | Category::ParagraphSeparator
            | Category::SpaceSeparator
    )
}
