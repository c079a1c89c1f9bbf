//! The methods of Python's texts, lists, tuples, dicts and numbers.

use minijinja::value::Value;
use minijinja::{Error, State};

use super::call::Args;
use super::format::{self, Given};
use super::letters::{self, is_space};
use super::operate::{equal, is};
use super::run::{self, VALUE, raise, unsupported};
use super::value::{Dict, Part, Py, Shape, View, int, list, py, text, tuple, walk};

/// What an attribute of one of Python's types is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    Method,
    /// The sandbox does not let it out.
    Unsafe,
    Unsupported,
    Absent,
}

#[rustfmt::skip]
const TEXT: &[&str] = &[
    "capitalize", "casefold", "center", "count", "endswith", "expandtabs", "find", "format", "format_map", "index", "isalnum", "isalpha",
    "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle", "isupper", "join",
    "ljust", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition", "rsplit",
    "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper", "zfill",
];
const TEXT_UNSUPPORTED: &[&str] = &["encode", "maketrans", "translate"];
const MARKUP_UNSUPPORTED: &[&str] = &["escape", "striptags", "unescape"];
const DICT: &[&str] = &["copy", "get", "items", "keys", "values"];
const DICT_UNSAFE: &[&str] = &["clear", "pop", "popitem", "setdefault", "update"];
const LIST: &[&str] = &["copy", "count", "index"];
const LIST_UNSAFE: &[&str] = &["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"];
const TUPLE: &[&str] = &["count", "index"];
const GROUP_UNSUPPORTED: &[&str] = &["_asdict", "_field_defaults", "_fields", "_make", "_replace"];
#[rustfmt::skip]
const NUMBER_UNSUPPORTED: &[&str] = &[
    "as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator", "from_bytes", "fromhex", "hex", "imag", "is_integer",
    "numerator", "real", "to_bytes",
];
const RANGE_UNSUPPORTED: &[&str] = &["count", "index", "start", "step", "stop"];
const VIEW_UNSUPPORTED: &[&str] = &["isdisjoint", "mapping"];
#[rustfmt::skip]
const STREAM_UNSUPPORTED: &[&str] =
    &["close", "gi_code", "gi_frame", "gi_running", "gi_suspended", "gi_yieldfrom", "send", "throw"];

/// What `getattr(of, name)` is.
pub fn find(of: Py, name: &str) -> Attribute {
    if name.starts_with("__") && name.ends_with("__") && name.len() > 4 {
        return Attribute::Unsupported;
    }
    let (methods, forbidden, missing): (&[&str], &[&str], &[&str]) = match of {
        Py::Str(_) => (TEXT, &[], TEXT_UNSUPPORTED),
        Py::Markup(_) => {
            let is_known = [TEXT, TEXT_UNSUPPORTED, MARKUP_UNSUPPORTED].iter().any(|names| names.contains(&name));
            return if is_known { Attribute::Unsupported } else { Attribute::Absent };
        }
        Py::Dict(_) => (DICT, DICT_UNSAFE, &["fromkeys"]),
        Py::Items(items) if items.shape == Shape::List => (LIST, LIST_UNSAFE, &[]),
        Py::Items(items) if items.shape == Shape::Group => (TUPLE, &[], GROUP_UNSUPPORTED),
        Py::Items(_) => (TUPLE, &[], &[]),
        Py::Int(_) | Py::Float(_) | Py::Bool(_) => (&[], &[], NUMBER_UNSUPPORTED),
        Py::Range(_) => (&[], &[], RANGE_UNSUPPORTED),
        Py::View(_) => (&[], &[], VIEW_UNSUPPORTED),
        Py::Stream(_) => (&[], &[], STREAM_UNSUPPORTED),
        Py::Method(_) | Py::Function(_) | Py::Other => return Attribute::Unsupported,
        _ => return Attribute::Absent,
    };
    match name {
        _ if methods.contains(&name) => Attribute::Method,
        _ if forbidden.contains(&name) => Attribute::Unsafe,
        _ if missing.contains(&name) => Attribute::Unsupported,
        _ => Attribute::Absent,
    }
}

/// `of.name(…)`, a method that [`find`] knows.
pub fn call(state: &State, of: &Value, name: &str, args: Args) -> Result<Value, Error> {
    match py(of) {
        Py::Str(of) => of_text(state, of, name, args),
        Py::Dict(dict) => of_dict(of, dict, name, args),
        Py::Items(items) => match name {
            "copy" => args.none(name).map(|()| of.clone()),
            "count" => {
                let [Some(wanted)] = args.bind(name, [""], 1)? else { return raise("count() needs an argument") };
                let mut count = 0;
                for item in &items.items {
                    count += i128::from(is(item, &wanted) || equal(item, &wanted)?);
                }
                int(Some(count))
            }
            _ => {
                let [Some(wanted), None, None] = args.bind(name, ["", "", ""], 1)? else {
                    return unsupported("`index` of a list from a place on");
                };
                for (place, item) in items.items.iter().enumerate() {
                    if is(item, &wanted) || equal(item, &wanted)? {
                        return Ok(Value::from(place));
                    }
                }
                raise(format!("{} is not in the list", super::print::str(&wanted)?))
            }
        },
        other => unsupported(format!("the method `{name}` of a {}", other.noun())),
    }
}

fn of_dict(of: &Value, dict: &Dict, name: &str, args: Args) -> Result<Value, Error> {
    let view = |part| Ok(Value::from_object(View { dict: of.clone(), part }));
    match name {
        "get" => {
            let [Some(key), default] = args.bind(name, ["", ""], 1)? else { return raise("get() needs an argument") };
            Ok(dict.get(&key)?.cloned().unwrap_or(default.unwrap_or(Value::from(()))))
        }
        "items" => args.none(name).and_then(|()| view(Part::Items)),
        "keys" => args.none(name).and_then(|()| view(Part::Keys)),
        "values" => args.none(name).and_then(|()| view(Part::Values)),
        _ => args.none(name).map(|()| of.clone()),
    }
}

/// A text as an argument.
fn wanted<'a>(name: &str, value: &'a Value) -> Result<&'a str, Error> {
    match py(value) {
        Py::Str(text) => Ok(text),
        Py::Markup(_) => unsupported("a text that is marked as safe as an argument"),
        other => raise(format!("{name}() argument must be str, not {}", other.noun())),
    }
}

fn whole(value: &Value) -> Result<i128, Error> {
    match py(value).int() {
        Some(number) => Ok(number),
        None => raise(format!("'{}' object cannot be interpreted as an integer", py(value).noun())),
    }
}

fn of_text(state: &State, of: &str, name: &str, args: Args) -> Result<Value, Error> {
    run::read(of.len())?;
    match name {
        "strip" | "lstrip" | "rstrip" => strip(of, name, args),
        "split" | "rsplit" => split(of, name, args),
        "splitlines" => {
            let [keeps_ends] = args.bind(name, ["keepends"], 0)?;
            let keeps_ends = keeps_ends.is_some_and(|value| value.is_true());
            texts(letters::lines(of, keeps_ends))
        }
        "startswith" | "endswith" => affix(of, name, args).map(Value::from),
        "removeprefix" | "removesuffix" => {
            let [Some(part)] = args.bind(name, [""], 1)? else { return raise("an argument is missing") };
            let part = wanted(name, &part)?;
            text(if name == "removeprefix" { of.strip_prefix(part) } else { of.strip_suffix(part) }.unwrap_or(of))
        }
        "replace" => {
            let [Some(old), Some(new), count] = args.bind(name, ["", "", ""], 2)? else { return raise("replace() needs 2 arguments") };
            let count = count.as_ref().map_or(Ok(-1), whole)?;
            text(replaced(of, wanted(name, &old)?, wanted(name, &new)?, count)?)
        }
        "join" => {
            let [Some(parts)] = args.bind(name, [""], 1)? else { return raise("join() needs an argument") };
            let parts = walk(state, &parts)?;
            let mut out = String::new();
            for (i, part) in parts.iter().enumerate() {
                let Py::Str(part) = py(part) else {
                    return match py(part) {
                        Py::Markup(_) => unsupported("`join` of texts that are marked as safe"),
                        other => raise(format!("sequence item {i}: expected str instance, {} found", other.noun())),
                    };
                };
                let between = if i == 0 { "" } else { of };
                run::make(between.len() + part.len())?;
                out.extend([between, part]);
            }
            text(out)
        }
        "find" | "rfind" | "index" | "rindex" | "count" => look(of, name, args),
        "partition" | "rpartition" => {
            let [Some(at)] = args.bind(name, [""], 1)? else { return raise("an argument is missing") };
            let at = wanted(name, &at)?;
            if at.is_empty() {
                return raise("empty separator");
            }
            let parts = match (name == "partition", if name == "partition" { of.split_once(at) } else { of.rsplit_once(at) }) {
                (_, Some((before, after))) => [before, at, after],
                (true, None) => [of, "", ""],
                (false, None) => ["", "", of],
            };
            tuple(parts.into_iter().map(text).collect::<Result<_, _>>()?)
        }
        "format" => text(format::braces(of, &Given { positional: &args.positional, named: &args.named })?),
        "format_map" => unsupported("`format_map`"),
        "center" | "ljust" | "rjust" | "zfill" => padded(of, name, args),
        "expandtabs" => unsupported("`expandtabs`"),
        _ => plain(of, name, args),
    }
}

/// Those without arguments.
fn plain(of: &str, name: &str, args: Args) -> Result<Value, Error> {
    args.none(name)?;
    run::make(2 * of.len())?;
    match name {
        "upper" => text(of.to_uppercase()),
        "lower" => text(of.to_lowercase()),
        "capitalize" => text(letters::capitalized(of)?),
        "title" => text(letters::titled(of)?),
        "swapcase" if of.contains('Σ') => unsupported("`swapcase` of a sigma"),
        "swapcase" => text(letters::swapped(of)),
        "casefold" if of.is_ascii() => text(of.to_ascii_lowercase()),
        "casefold" => unsupported("`casefold` of letters beyond ASCII"),
        _ => letters::is_all(of, name).map(Value::from),
    }
}

fn texts(parts: Vec<&str>) -> Result<Value, Error> {
    list(parts.into_iter().map(text).collect::<Result<_, _>>()?)
}

fn strip(of: &str, name: &str, args: Args) -> Result<Value, Error> {
    let [letters] = args.bind(name, [""], 0)?;
    text(stripped(of, name, letters.as_ref())?)
}

/// `strip`, `lstrip` or `rstrip`, of the letters given or of spaces.
pub fn stripped<'a>(of: &'a str, name: &str, letters: Option<&Value>) -> Result<&'a str, Error> {
    let set = match letters {
        None => None,
        Some(letters) if letters.is_none() => None,
        Some(letters) => Some(wanted(name, letters)?),
    };
    // Each letter is compared with each of the set.
    run::read(of.len().saturating_mul(set.map_or(1, str::len)))?;
    let is_cut = |letter: char| set.map_or_else(|| is_space(letter), |set| set.contains(letter));
    let of = if name == "rstrip" { of } else { of.trim_start_matches(is_cut) };
    Ok(if name == "lstrip" { of } else { of.trim_end_matches(is_cut) })
}

fn split(of: &str, name: &str, args: Args) -> Result<Value, Error> {
    let [separator, most] = args.bind(name, ["sep", "maxsplit"], 0)?;
    let most = most.as_ref().map_or(Ok(-1), whole)?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let from_left = name == "split";
    let parts = match separator.as_ref().filter(|separator| !separator.is_none()) {
        None if from_left => words(of, most),
        None => words_from_right(of, most),
        Some(separator) => match wanted(name, separator)? {
            "" => return raise("empty separator"),
            separator if from_left => of.splitn(most.saturating_add(1), separator).collect(),
            separator => {
                let mut parts: Vec<&str> = of.rsplitn(most.saturating_add(1), separator).collect();
                parts.reverse();
                parts
            }
        },
    };
    run::make(VALUE * parts.len())?;
    texts(parts)
}

fn words(of: &str, most: usize) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = of.trim_start_matches(is_space);
    while !rest.is_empty() {
        if words.len() == most {
            words.push(rest);
            break;
        }
        let end = rest.find(is_space).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        words.push(word);
        rest = behind.trim_start_matches(is_space);
    }
    // The last word ends where the text does, unless it holds the rest.
    words
}

fn words_from_right(of: &str, most: usize) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = of.trim_end_matches(is_space);
    while !rest.is_empty() {
        if words.len() == most {
            words.push(rest);
            break;
        }
        let start = rest.rfind(is_space).map_or(0, |at| at + rest[at..].chars().next().map_or(0, char::len_utf8));
        let (before, word) = rest.split_at(start);
        words.push(word);
        rest = before.trim_end_matches(is_space);
    }
    words.reverse();
    words
}

/// `old` becomes `new`, at most `count` times; a negative count is no limit.
pub fn replaced(of: &str, old: &str, new: &str, count: i128) -> Result<String, Error> {
    let most = usize::try_from(count).unwrap_or(usize::MAX);
    run::read(of.len() + old.len())?;
    if old.is_empty() {
        return between_letters(of, new, most);
    }
    let found = of.matches(old).count().min(most);
    run::make(of.len().saturating_add(found.saturating_mul(new.len())))?;
    Ok(of.replacen(old, new, found))
}

/// An empty text stands before each letter and at the end.
fn between_letters(of: &str, new: &str, most: usize) -> Result<String, Error> {
    let places = of.chars().count().saturating_add(1).min(most);
    run::make(of.len().saturating_add(places.saturating_mul(new.len())))?;
    let mut out = String::new();
    for (i, letter) in of.chars().enumerate() {
        out.push_str(if i < places { new } else { "" });
        out.push(letter);
    }
    if of.chars().count() < places {
        out.push_str(new);
    }
    Ok(out)
}

/// The part of a text between two of its places, as `find` and its kind count them, and the letters before it. None if it begins behind its end.
fn part<'a>(of: &'a str, start: Option<&Value>, end: Option<&Value>) -> Result<Option<(&'a str, usize)>, Error> {
    let length = if of.is_ascii() { of.len() } else { of.chars().count() } as i128;
    let place = |value: Option<&Value>, default: i128| -> Result<i128, Error> {
        match value {
            Some(value) if !value.is_none() => {
                let place = whole(value)?;
                Ok(if place < 0 { (place.saturating_add(length)).max(0) } else { place })
            }
            _ => Ok(default),
        }
    };
    let (start, end) = (place(start, 0)?, place(end, length)?.min(length));
    if start > end {
        return Ok(None);
    }
    let (start, end) = (usize::try_from(start).unwrap_or(0), usize::try_from(end).unwrap_or(0));
    let byte = |place: usize| of.char_indices().nth(place).map_or(of.len(), |(at, _)| at);
    Ok(Some((of.get(byte(start)..byte(end)).unwrap_or_default(), start)))
}

fn look(of: &str, name: &str, args: Args) -> Result<Value, Error> {
    let [Some(sought), start, end] = args.bind(name, ["", "", ""], 1)? else { return raise("an argument is missing") };
    let sought = wanted(name, &sought)?;
    run::read(of.len())?;
    let Some((part, before)) = part(of, start.as_ref(), end.as_ref())? else {
        return match name {
            "count" => int(Some(0)),
            "find" | "rfind" => int(Some(-1)),
            _ => raise("substring not found"),
        };
    };
    if name == "count" {
        let count = if sought.is_empty() { part.chars().count() + 1 } else { part.matches(sought).count() };
        return Ok(Value::from(count));
    }
    let found = if name.starts_with('r') { part.rfind(sought) } else { part.find(sought) };
    match found {
        Some(at) => Ok(Value::from(before + part[..at].chars().count())),
        None if name.ends_with("find") => int(Some(-1)),
        None => raise("substring not found"),
    }
}

fn affix(of: &str, name: &str, args: Args) -> Result<bool, Error> {
    let [Some(affix), start, end] = args.bind(name, ["", "", ""], 1)? else { return raise("an argument is missing") };
    let Some((part, _)) = part(of, start.as_ref(), end.as_ref())? else { return Ok(false) };
    let holds = |affix: &str| if name == "startswith" { part.starts_with(affix) } else { part.ends_with(affix) };
    match py(&affix) {
        Py::Items(items) if items.shape != Shape::List => {
            for affix in &items.items {
                if holds(wanted(name, affix)?) {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => wanted(name, &affix).map(holds),
    }
}

fn padded(of: &str, name: &str, args: Args) -> Result<Value, Error> {
    let [Some(width), fill] = args.bind(name, ["", ""], 1)? else { return raise("an argument is missing") };
    let width = usize::try_from(whole(&width)?.max(0)).unwrap_or(usize::MAX);
    let fill = match (&fill, name) {
        (None, "zfill") => '0',
        (None, _) => ' ',
        (Some(_), "zfill") => return raise("zfill() takes exactly one argument"),
        (Some(fill), _) => {
            let mut letters = wanted(name, fill)?.chars();
            match (letters.next(), letters.next()) {
                (Some(letter), None) => letter,
                _ => return raise("The fill character must be exactly one character long"),
            }
        }
    };
    text(pad(of, name, width, fill)?)
}

/// `center`, `ljust`, `rjust` and `zfill`.
pub fn pad(of: &str, name: &str, width: usize, fill: char) -> Result<String, Error> {
    let missing = width.saturating_sub(of.chars().count());
    run::make(of.len().saturating_add(missing.saturating_mul(4)))?;
    let run = |count: usize| std::iter::repeat_n(fill, count).collect::<String>();
    // CPython's way to share what cannot be halved.
    let left = missing / 2 + (missing & width & 1);
    Ok(match name {
        "ljust" => format!("{of}{}", run(missing)),
        "rjust" => format!("{}{of}", run(missing)),
        "zfill" => match of.strip_prefix(['+', '-']) {
            Some(digits) => format!("{}{}{digits}", &of[..1], run(missing)),
            None => format!("{}{of}", run(missing)),
        },
        _ => format!("{}{of}{}", run(left), run(missing - left)),
    })
}
