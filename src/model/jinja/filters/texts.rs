//! Filters that make texts.

use minijinja::value::Value;
use minijinja::{Error, State};

use crate::model::jinja::call::Args;
use crate::model::jinja::format::percent;
use crate::model::jinja::letters::{self, is_space};
use crate::model::jinja::methods::{pad, replaced, stripped};
use crate::model::jinja::path::Path;
use crate::model::jinja::print::{str, write_str};
use crate::model::jinja::run::{self, VALUE, raise, unsupported};
use crate::model::jinja::value::{Dict, Py, markup, py, text, tuple, walk};

/// `soft_str`: the text itself, or the value as one.
fn soft(value: &Value) -> Result<String, Error> {
    match py(value) {
        Py::Markup(_) => unsupported("a text that is marked as safe, in this filter"),
        _ => str(value),
    }
}

pub fn cased(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    case("lower", &value, args)
}

/// `upper`, `lower` and `capitalize`.
pub fn case(name: &str, value: &Value, args: Args) -> Result<Value, Error> {
    args.none(name)?;
    let of = soft(value)?;
    run::make(2 * of.len())?;
    text(match name {
        "upper" => of.to_uppercase(),
        "lower" => of.to_lowercase(),
        _ => letters::capitalized(&of)?,
    })
}

/// Words begin with a capital and have no other; unlike the method, this knows hyphens and brackets.
pub fn title(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    args.none("title")?;
    let of = soft(&value)?;
    run::make(2 * of.len())?;
    let is_between = |letter: char| is_space(letter) || "-({[<".contains(letter);
    let mut out = String::new();
    let mut rest = of.as_str();
    while !rest.is_empty() {
        let word = rest.find(is_between).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(word);
        if let Some(first) = word.chars().next() {
            out.extend(first.to_uppercase());
            out.push_str(&word[first.len_utf8()..].to_lowercase());
        }
        let end = behind.find(|letter| !is_between(letter)).unwrap_or(behind.len());
        out.push_str(&behind[..end]);
        rest = &behind[end..];
    }
    text(out)
}

pub fn trim(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    let [letters] = args.bind("trim", ["chars"], 0)?;
    if let Py::Str(of) = py(&value) {
        return text(stripped(of, "strip", letters.as_ref())?);
    }
    text(stripped(&soft(&value)?, "strip", letters.as_ref())?)
}

pub fn center(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    let [width] = args.bind("center", ["width"], 0)?;
    let width = width.map_or(Ok(80), |width| py(&width).int().map_or_else(|| raise("a width is a number"), Ok))?;
    text(pad(&soft(&value)?, "center", usize::try_from(width.max(0)).unwrap_or(usize::MAX), ' ')?)
}

pub fn replace(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    let [Some(old), Some(new), count] = args.bind("replace", ["old", "new", "count"], 2)? else {
        return raise("replace() needs 2 arguments");
    };
    let count = match count.as_ref().map(py) {
        None | Some(Py::None) => -1,
        Some(count) => count.int().map_or_else(|| raise("a count is a number"), Ok)?,
    };
    text(replaced(&str(&value)?, &str(&old)?, &str(&new)?, count)?)
}

pub fn join(state: &State, value: Value, args: Args) -> Result<Value, Error> {
    let [separator, attribute] = args.bind("join", ["d", "attribute"], 0)?;
    let separator = separator.map_or_else(|| Ok(String::new()), |separator| str(&separator))?;
    let attribute = attribute.filter(|attribute| !attribute.is_none());
    let path = Path::new(attribute.as_ref())?;
    let mut out = String::new();
    for (i, item) in walk(state, &value)?.iter().enumerate() {
        if i > 0 {
            run::make(separator.len())?;
            out.push_str(&separator);
        }
        write_str(&mut out, &path.get(item)?)?;
    }
    text(out)
}

pub fn string(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    args.none("string")?;
    match py(&value) {
        Py::Str(_) | Py::Markup(_) => Ok(value),
        _ => text(str(&value)?),
    }
}

pub fn format(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    let given = match (args.positional.is_empty(), args.named.is_empty()) {
        (false, false) => return raise("can't handle positional and keyword arguments at the same time"),
        (_, true) => tuple(args.positional)?,
        (true, false) => {
            Value::from_object(Dict::of_texts(args.named.into_iter().map(|(name, value)| (Value::from(name), value)).collect())?)
        }
    };
    text(percent(&soft(&value)?, &given)?)
}

/// All lines but the first get spaces in front.
pub fn indent(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    let [width, first, blank] = args.bind("indent", ["width", "first", "blank"], 0)?;
    let of = match py(&value) {
        Py::Str(of) => format!("{of}\n"),
        Py::Markup(_) => return unsupported("`indent` of a text that is marked as safe"),
        other => return raise(format!("`indent` of a {}", other.noun())),
    };
    let lines = letters::lines(&of, false);
    let indention = match width.as_ref().map(py) {
        None => "    ".to_string(),
        Some(Py::Str(indention)) => indention.to_string(),
        Some(other) => match other.int() {
            Some(width) => {
                let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
                run::make(width.saturating_mul(lines.len()))?;
                " ".repeat(width)
            }
            None => return raise("a width is a number or a text"),
        },
    };
    run::make(of.len().saturating_add(indention.len().saturating_mul(lines.len())))?;
    let of_blank = blank.is_some_and(|blank| blank.is_true());
    let mut out = String::new();
    for (i, line) in lines.iter().enumerate() {
        let is_indented = if i == 0 { first.as_ref().is_some_and(Value::is_true) } else { of_blank || !line.is_empty() };
        out.extend([if i == 0 { "" } else { "\n" }, if is_indented { &indention } else { "" }, line]);
    }
    text(out)
}

pub fn truncate(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    let [length, killwords, end, leeway] = args.bind("truncate", ["length", "killwords", "end", "leeway"], 0)?;
    let number = |value: Option<Value>, default: i128| match value {
        Some(value) if !value.is_none() => py(&value).int().map_or_else(|| raise("a length is a number"), Ok),
        _ => Ok(default),
    };
    let (length, leeway) = (number(length, 255)?, number(leeway, 5)?);
    let end = end.map_or_else(|| Ok("...".to_string()), |end| soft(&end))?;
    let Py::Str(of) = py(&value) else { return unsupported(format!("`truncate` of a {}", py(&value).noun())) };
    let (letters, end_letters) = (of.chars().count() as i128, end.chars().count() as i128);
    if length < end_letters || leeway < 0 {
        return raise(format!("expected length >= {end_letters} and leeway >= 0, got {length} and {leeway}"));
    }
    if letters <= length.saturating_add(leeway) {
        return Ok(value);
    }
    let kept: String = of.chars().take(usize::try_from(length - end_letters).unwrap_or(usize::MAX)).collect();
    let kept = match killwords.is_some_and(|killwords| killwords.is_true()) {
        true => kept.as_str(),
        false => kept.rsplit_once(' ').map_or(kept.as_str(), |(before, _)| before),
    };
    text(format!("{kept}{end}"))
}

/// Runs of letters, digits and underscores.
pub fn wordcount(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    args.none("wordcount")?;
    let of = soft(&value)?;
    let (mut count, mut inside) = (0_usize, false);
    for letter in of.chars() {
        let is_word = letter == '_' || letters::is_all(letter.encode_utf8(&mut [0; 4]), "isalnum")?;
        count += usize::from(is_word && !inside);
        inside = is_word;
    }
    Ok(Value::from(count))
}

fn escaped(of: &str) -> Result<String, Error> {
    run::make(5 * of.len())?;
    let mut out = String::with_capacity(of.len());
    for letter in of.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '>' => out.push_str("&gt;"),
            '<' => out.push_str("&lt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            _ => out.push(letter),
        }
    }
    Ok(out)
}

/// What is marked as safe stays.
fn escape_of(value: &Value) -> Result<String, Error> {
    match py(value) {
        Py::Markup(of) => Ok(of.to_string()),
        _ => escaped(&str(value)?),
    }
}

pub fn escape(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    args.none("escape")?;
    markup(escape_of(&value)?)
}

pub fn forceescape(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    args.none("forceescape")?;
    markup(escaped(&str(&value)?)?)
}

pub fn safe(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    args.none("safe")?;
    markup(str(&value)?)
}

fn quoted(of: &str, keeps: &[u8]) -> Result<String, Error> {
    run::make(3 * of.len())?;
    let quote = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => char::from(byte).to_string(),
        _ if keeps.contains(&byte) => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    Ok(of.bytes().map(quote).collect())
}

pub fn urlencode(state: &State, value: Value, args: Args) -> Result<Value, Error> {
    args.none("urlencode")?;
    match py(&value) {
        Py::Items(_) | Py::Dict(_) | Py::View(_) | Py::Stream(_) | Py::Range(_) | Py::Undefined => {}
        _ => return text(quoted(&str(&value)?, b"/")?),
    }
    let pairs: Vec<(Value, Value)> = match py(&value) {
        Py::Dict(dict) => dict.entries().to_vec(),
        _ => {
            let pair = |item: Value| match <[Value; 2]>::try_from(walk(state, &item)?) {
                Ok([key, value]) => Ok((key, value)),
                Err(_) => raise("a pair has two parts"),
            };
            walk(state, &value)?.into_iter().map(pair).collect::<Result<_, _>>()?
        }
    };
    run::make(VALUE * pairs.len())?;
    let part = |value: &Value| Ok::<_, Error>(quoted(&str(value)?, b"")?.replace("%20", "+"));
    let parts = pairs.iter().map(|(key, value)| Ok(format!("{}={}", part(key)?, part(value)?)));
    text(parts.collect::<Result<Vec<String>, Error>>()?.join("&"))
}

pub fn xmlattr(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    let [autospace] = args.bind("xmlattr", ["autospace"], 0)?;
    let Py::Dict(dict) = py(&value) else { return raise("`xmlattr` of what is no dict") };
    let mut out = String::new();
    for (key, value) in dict.entries() {
        if value.is_none() || value.is_undefined() {
            continue;
        }
        let Some(name) = key.as_str() else { return raise("expected string or bytes-like object") };
        if name.contains(|letter: char| letter.is_ascii_whitespace() || "\x0b/>=".contains(letter)) {
            return raise(format!("Invalid character in attribute name: '{name}'"));
        }
        let part = format!("{}=\"{}\"", escape_of(key)?, escape_of(value)?);
        out.extend([if out.is_empty() { "" } else { " " }, &part]);
    }
    let has_space = autospace.is_none_or(|autospace| autospace.is_true()) && !out.is_empty();
    text(if has_space { format!(" {out}") } else { out })
}
