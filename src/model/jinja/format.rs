//! Python's two ways to fill a pattern: `'%d items' % n` and `'{} items'.format(n)`.

use minijinja::Error;
use minijinja::value::Value;

use super::access;
use super::print::{float, repr, str};
use super::run::{self, raise, unsupported};
use super::value::{Py, Shape, py};

/// No text needs to be padded further; a width counts before anything is made.
const MAX_WIDTH: usize = 1 << 16;

/// How a value is laid out.
#[derive(Clone, Debug, Default)]
struct Spec {
    fill: Option<char>,
    align: Option<Align>,
    sign: Option<char>,
    alternate: bool,
    zeros: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Align {
    Left,
    Right,
    Center,
    /// Between the sign and the digits.
    Inside,
}

/// `pattern % arguments`.
pub fn percent(pattern: &str, arguments: &Value) -> Result<String, Error> {
    let mut percent = Percent { arguments, next: 0, out: String::new() };
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('%') {
        percent.push(before)?;
        rest = percent.conversion(after)?;
    }
    percent.push(rest)?;
    let tuple = tuple_of(arguments);
    let left = match (tuple, py(arguments)) {
        (Some(items), _) => percent.next < items.len(),
        // What can be asked for keys may have more of them.
        (None, Py::Dict(_) | Py::Items(_) | Py::Undefined | Py::Range(_)) => false,
        (None, _) => percent.next == 0,
    };
    if left {
        return raise("not all arguments converted during string formatting");
    }
    Ok(percent.out)
}

fn tuple_of(value: &Value) -> Option<&[Value]> {
    match py(value) {
        Py::Items(items) if items.shape != Shape::List => Some(&items.items),
        _ => None,
    }
}

struct Percent<'a> {
    arguments: &'a Value,
    next: usize,
    out: String,
}

impl<'a> Percent<'a> {
    fn push(&mut self, text: &str) -> Result<(), Error> {
        run::make(text.len())?;
        self.out.push_str(text);
        Ok(())
    }

    fn argument(&mut self) -> Result<&'a Value, Error> {
        let argument = match tuple_of(self.arguments) {
            Some(items) => items.get(self.next),
            None => (self.next == 0).then_some(self.arguments),
        };
        self.next += 1;
        argument.map_or_else(|| raise("not enough arguments for format string"), Ok)
    }

    /// After the `%`; returns what follows.
    fn conversion<'p>(&mut self, after: &'p str) -> Result<&'p str, Error> {
        let mut rest = after;
        let mut named = None;
        if let Some(inner) = rest.strip_prefix('(') {
            let Some((key, behind)) = inner.split_once(')') else { return raise("incomplete format key") };
            let Py::Dict(dict) = py(self.arguments) else { return raise("format requires a mapping") };
            named = Some(dict.get_text(key)?.map_or_else(|| raise(format!("KeyError: '{key}'")), Ok)?);
            rest = behind;
        }
        let mut spec = Spec::default();
        rest = flags(rest, &mut spec);
        (spec.width, rest) = self.number(rest)?.unwrap_or((0, rest));
        if let Some(behind) = rest.strip_prefix('.') {
            let (precision, behind) = self.number(behind)?.unwrap_or((0, behind));
            (spec.precision, rest) = (Some(precision), behind);
        }
        rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
        let mut letters = rest.chars();
        let Some(kind) = letters.next() else { return raise("incomplete format") };
        if kind == '%' {
            self.push("%")?;
            return Ok(letters.as_str());
        }
        let value = match named {
            Some(value) => value,
            None => self.argument()?,
        };
        let text = spec.percent(kind, value)?;
        self.push(&text)?;
        Ok(letters.as_str())
    }

    fn number<'p>(&mut self, text: &'p str) -> Result<Option<(usize, &'p str)>, Error> {
        if let Some(rest) = text.strip_prefix('*') {
            let Some(number) = py(self.argument()?).int() else { return raise("* wants int") };
            return match usize::try_from(number) {
                Ok(number) => Ok(Some((within(number)?, rest))),
                Err(_) => unsupported("a negative `*` in a format"),
            };
        }
        digits(text)
    }
}

fn flags<'p>(text: &'p str, spec: &mut Spec) -> &'p str {
    let mut rest = text;
    loop {
        let mut letters = rest.chars();
        match letters.next() {
            Some('-') => spec.align = Some(Align::Left),
            Some('+') => spec.sign = Some('+'),
            Some(' ') => spec.sign = spec.sign.or(Some(' ')),
            Some('0') => spec.zeros = true,
            Some('#') => spec.alternate = true,
            _ => return rest,
        }
        rest = letters.as_str();
    }
}

/// Digits at the start, if there are any, and what follows.
fn digits(text: &str) -> Result<Option<(usize, &str)>, Error> {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(end);
    if digits.is_empty() {
        return Ok(None);
    }
    Ok(Some((within(digits.parse().unwrap_or(usize::MAX))?, rest)))
}

fn within(number: usize) -> Result<usize, Error> {
    if number > MAX_WIDTH { unsupported(format!("a width of more than {MAX_WIDTH}")) } else { Ok(number) }
}

impl Spec {
    fn percent(&mut self, kind: char, value: &Value) -> Result<String, Error> {
        let numeric = match kind {
            's' | 'r' | 'a' => {
                let text = match kind {
                    's' => str(value)?,
                    'r' => repr(value)?,
                    _ => ascii(&repr(value)?),
                };
                let text = self.precision.map_or(text.clone(), |most| text.chars().take(most).collect());
                return Ok(self.pad("", &text, Align::Right, ' '));
            }
            'c' => {
                let text = match (py(value).text(), py(value).int()) {
                    (Some(text), _) if text.chars().count() == 1 => text.to_string(),
                    (None, Some(code)) => match u32::try_from(code).ok().and_then(char::from_u32) {
                        Some(letter) => letter.to_string(),
                        None => return raise("%c arg not in range(0x110000)"),
                    },
                    _ => return raise("%c requires int or char"),
                };
                return Ok(self.pad("", &text, Align::Right, ' '));
            }
            'd' | 'i' | 'u' => {
                let number = match py(value) {
                    Py::Float(float) if float.is_finite() => super::filters::truncated(float)?,
                    other => match other.int() {
                        Some(int) => int,
                        None => return raise(format!("%{kind} format: a real number is required, not {}", other.noun())),
                    },
                };
                self.integer(number, 10, "")?
            }
            'x' | 'X' | 'o' => {
                let Some(number) = py(value).int() else {
                    return raise(format!("%{kind} format: an integer is required, not {}", py(value).noun()));
                };
                let prefix = match (self.alternate, kind) {
                    (false, _) => "",
                    (true, 'o') => "0o",
                    (true, 'x') => "0x",
                    (true, _) => "0X",
                };
                let (sign, digits) = self.integer(number, if kind == 'o' { 8 } else { 16 }, prefix)?;
                (sign, if kind == 'X' { digits.to_uppercase() } else { digits })
            }
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
                let number = match py(value) {
                    Py::Float(float) => float,
                    other => match other.int() {
                        Some(int) => super::operate::float_of(int)?,
                        None => return raise(format!("must be real number, not {}", other.noun())),
                    },
                };
                self.real(number, kind, self.precision.unwrap_or(6))?
            }
            other => return raise(format!("unsupported format character '{other}'")),
        };
        let (sign, digits) = numeric;
        Ok(self.pad(&sign, &digits, Align::Right, ' '))
    }

    /// Sign and digits.
    fn integer(&self, number: i128, base: u32, prefix: &str) -> Result<(String, String), Error> {
        let size = number.unsigned_abs();
        let digits = match base {
            2 => format!("{size:b}"),
            8 => format!("{size:o}"),
            16 => format!("{size:x}"),
            _ => size.to_string(),
        };
        let least = if self.kind.is_none() { self.precision.unwrap_or(0) } else { 0 };
        let digits = format!("{}{digits}", "0".repeat(least.saturating_sub(digits.len())));
        Ok((format!("{}{prefix}", self.sign_of(number < 0)), digits))
    }

    fn sign_of(&self, is_negative: bool) -> &'static str {
        match (is_negative, self.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            (false, _) => "",
        }
    }

    fn real(&self, number: f64, kind: char, precision: usize) -> Result<(String, String), Error> {
        if self.alternate {
            return unsupported("`#` in the format of a number");
        }
        let sign = self.sign_of(number.is_sign_negative() && !number.is_nan()).to_string();
        let size = number.abs();
        let digits = if size.is_nan() {
            "nan".to_string()
        } else if size.is_infinite() {
            "inf".to_string()
        } else {
            match kind {
                'f' | 'F' => format!("{size:.precision$}"),
                'e' | 'E' => scientific(size, precision),
                _ => general(size, precision.max(1)),
            }
        };
        Ok((sign, if kind.is_ascii_uppercase() { digits.to_uppercase() } else { digits }))
    }

    /// Sign, digits and what fills the width.
    fn pad(&self, sign: &str, text: &str, align: Align, fill: char) -> String {
        let length = sign.chars().count() + text.chars().count();
        let missing = self.width.saturating_sub(length);
        let zeros = self.zeros
            && self.align.is_none()
            && self.fill.is_none()
            && (!sign.is_empty() || text.starts_with(|c: char| c.is_ascii_digit()));
        let (align, fill) = if zeros { (Align::Inside, '0') } else { (self.align.unwrap_or(align), self.fill.unwrap_or(fill)) };
        let run = |count: usize| std::iter::repeat_n(fill, count).collect::<String>();
        match align {
            Align::Left => format!("{sign}{text}{}", run(missing)),
            Align::Right => format!("{}{sign}{text}", run(missing)),
            Align::Center => format!("{}{sign}{text}{}", run(missing / 2), run(missing - missing / 2)),
            Align::Inside => format!("{sign}{}{text}", run(missing)),
        }
    }
}

/// C's `%e`: at least two digits of exponent.
fn scientific(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
}

/// C's `%g`.
fn general(number: f64, precision: usize) -> String {
    let text = format!("{number:.*e}", precision - 1);
    let exponent: i32 = text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    let trimmed = |digits: &str| match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => digits.to_string(),
    };
    if exponent < -4 || exponent >= precision as i32 {
        let text = scientific(number, precision - 1);
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
        return format!("{}e{exponent}", trimmed(mantissa));
    }
    let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
    trimmed(&format!("{number:.decimals$}"))
}

/// Python's `ascii`, of a `repr`.
fn ascii(text: &str) -> String {
    text.chars()
        .map(|letter| match u32::from(letter) {
            0..=0x7f => letter.to_string(),
            code @ 0x80..=0xff => format!("\\x{code:02x}"),
            code @ 0x100..=0xffff => format!("\\u{code:04x}"),
            code => format!("\\U{code:08x}"),
        })
        .collect()
}

/// What `str.format` is given.
pub struct Given<'a> {
    pub positional: &'a [Value],
    pub named: &'a [(String, Value)],
}

/// `pattern.format(…)`.
pub fn braces(pattern: &str, given: &Given) -> Result<String, Error> {
    Braces { given, automatic: None }.fill(pattern, 2)
}

struct Braces<'a> {
    given: &'a Given<'a>,
    /// The next number of a `{}`; `Err` where fields have numbers of their own.
    automatic: Option<Result<usize, ()>>,
}

impl Braces<'_> {
    fn fill(&mut self, pattern: &str, levels: usize) -> Result<String, Error> {
        if levels == 0 {
            return raise("Max string recursion exceeded");
        }
        let mut out = String::new();
        let mut rest = pattern;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            run::make(before.len() + 1)?;
            out.push_str(before);
            if let Some(behind) = brace.strip_prefix("{{") {
                out.push('{');
                rest = behind;
            } else if let Some(behind) = brace.strip_prefix("}}") {
                out.push('}');
                rest = behind;
            } else if let Some(inner) = brace.strip_prefix('{') {
                let (field, behind) = closed(inner)?;
                let text = self.field(field, levels)?;
                run::make(text.len())?;
                out.push_str(&text);
                rest = behind;
            } else {
                return raise("Single '}' encountered in format string");
            }
        }
        run::make(rest.len())?;
        Ok(out + rest)
    }

    fn field(&mut self, field: &str, levels: usize) -> Result<String, Error> {
        let (head, spec) = match field.find(':') {
            Some(at) if !field[..at].contains('[') => (&field[..at], &field[at + 1..]),
            Some(_) if field.contains('[') => return unsupported("a key with `:` in a format"),
            _ => (field, ""),
        };
        let (name, conversion) = match head.split_once('!') {
            Some((name, conversion)) => (name, Some(conversion)),
            None => (head, None),
        };
        let value = self.value(name)?;
        let value = match conversion {
            None => value,
            Some("s") => super::value::text(str(&value)?)?,
            Some("r") => super::value::text(repr(&value)?)?,
            Some("a") => super::value::text(ascii(&repr(&value)?))?,
            Some(_) => return raise("unknown conversion in a format"),
        };
        let spec = self.fill(spec, levels - 1)?;
        formatted(&value, &spec)
    }

    fn value(&mut self, name: &str) -> Result<Value, Error> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut path) = name.split_at(end);
        let mut value = self.first(first)?;
        while !path.is_empty() {
            if let Some(rest) = path.strip_prefix('.') {
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                let (attribute, behind) = rest.split_at(end);
                if attribute.is_empty() {
                    return raise("Empty attribute in format string");
                }
                (value, path) = (access::attribute(&value, attribute)?, behind);
            } else {
                let Some((key, behind)) = path.trim_start_matches('[').split_once(']') else {
                    return raise("Missing ']' in format string");
                };
                let key = match key.parse::<usize>() {
                    Ok(number) => Value::from(number),
                    Err(_) => Value::from(key),
                };
                (value, path) = (access::item(&value, &key)?, behind);
                if !path.is_empty() && !path.starts_with(['.', '[']) {
                    return raise("Only '.' or '[' may follow ']' in format field specifier");
                }
            }
        }
        Ok(value)
    }

    fn first(&mut self, name: &str) -> Result<Value, Error> {
        let place = if name.is_empty() {
            let Ok(place) = self.automatic.unwrap_or(Ok(0)) else {
                return raise("cannot switch from manual field specification to automatic field numbering");
            };
            self.automatic = Some(Ok(place + 1));
            place
        } else if name.bytes().all(|byte| byte.is_ascii_digit()) {
            if matches!(self.automatic, Some(Ok(_))) {
                return raise("cannot switch from automatic field numbering to manual field specification");
            }
            self.automatic = Some(Err(()));
            name.parse().unwrap_or(usize::MAX)
        } else {
            let found = self.given.named.iter().find(|(known, _)| known == name);
            return found.map_or_else(|| raise(format!("KeyError: '{name}'")), |(_, value)| Ok(value.clone()));
        };
        match self.given.positional.get(place) {
            Some(value) => Ok(value.clone()),
            None => raise(format!("Replacement index {place} out of range for positional args tuple")),
        }
    }
}

/// Up to the brace that closes a field, and what follows.
fn closed(inner: &str) -> Result<(&str, &str), Error> {
    let mut open = 1;
    for (at, letter) in inner.char_indices() {
        match letter {
            '{' => open += 1,
            '}' if open == 1 => return Ok((&inner[..at], &inner[at + 1..])),
            '}' => open -= 1,
            _ => {}
        }
    }
    raise("expected '}' before end of string")
}

/// `format(value, spec)`.
fn formatted(value: &Value, spec: &str) -> Result<String, Error> {
    if spec.is_empty() {
        return str(value);
    }
    let mut spec = parsed(spec)?;
    match py(value) {
        Py::Str(text) => {
            if spec.kind.is_some_and(|kind| kind != 's')
                || spec.sign.is_some()
                || spec.grouping.is_some()
                || spec.align == Some(Align::Inside)
            {
                return raise("this format is not one of a text");
            }
            if spec.zeros {
                return unsupported("`0` in the format of a text");
            }
            let text = spec.precision.map_or(text.to_string(), |most| text.chars().take(most).collect());
            Ok(spec.pad("", &text, Align::Left, ' '))
        }
        Py::Float(number) => spec.float(number),
        Py::Markup(_) => unsupported("the format of a text that is marked as safe"),
        other => match other.int() {
            Some(number) => spec.int(number),
            None => raise(format!("unsupported format string passed to {}.__format__", other.noun())),
        },
    }
}

impl Spec {
    fn int(&mut self, number: i128) -> Result<String, Error> {
        let kind = self.kind.unwrap_or('d');
        if "eEfFgG%".contains(kind) {
            return self.float(super::operate::float_of(number)?);
        }
        if self.precision.is_some() {
            return raise("Precision not allowed in integer format specifier");
        }
        let (base, prefix) = match kind {
            'd' => (10, ""),
            'b' => (2, "0b"),
            'o' => (8, "0o"),
            'x' | 'X' => (16, if kind == 'x' { "0x" } else { "0X" }),
            'c' | 'n' => return unsupported(format!("the format `{kind}` of a number")),
            other => return raise(format!("Unknown format code '{other}' for object of type 'int'")),
        };
        self.kind = Some(kind);
        let (sign, digits) = self.integer(number, base, if self.alternate { prefix } else { "" })?;
        let digits = if kind == 'X' { digits.to_uppercase() } else { digits };
        self.grouped(&sign, &digits, if base == 10 { 3 } else { 4 })
    }

    fn float(&mut self, number: f64) -> Result<String, Error> {
        let (sign, digits) = match self.kind {
            None if self.precision.is_none() => {
                let text = float(number.abs());
                (self.sign_of(number.is_sign_negative() && !number.is_nan()).to_string(), text)
            }
            None | Some('n') => return unsupported("this format of a number"),
            Some('%') => {
                let (sign, digits) = self.real(number * 100.0, 'f', self.precision.unwrap_or(6))?;
                (sign, digits + "%")
            }
            Some(kind) if "eEfFgG".contains(kind) => self.real(number, kind, self.precision.unwrap_or(6))?,
            Some(other) => return raise(format!("Unknown format code '{other}' for object of type 'float'")),
        };
        self.grouped(&sign, &digits, 3)
    }

    fn grouped(&self, sign: &str, digits: &str, every: usize) -> Result<String, Error> {
        let Some(separator) = self.grouping else { return Ok(self.pad(sign, digits, Align::Right, ' ')) };
        if self.zeros {
            return unsupported("`0` and a separator of thousands in one format");
        }
        let whole = digits.bytes().take_while(u8::is_ascii_hexdigit).count();
        if digits.contains('e') && every == 3 {
            return unsupported("a separator of thousands in this format");
        }
        let (whole, rest) = digits.split_at(whole);
        let mut out = String::new();
        for (i, digit) in whole.chars().enumerate() {
            if i > 0 && (whole.len() - i).is_multiple_of(every) {
                out.push(separator);
            }
            out.push(digit);
        }
        Ok(self.pad(sign, &(out + rest), Align::Right, ' '))
    }
}

/// `[[fill]align][sign][#][0][width][grouping][.precision][type]`
fn parsed(text: &str) -> Result<Spec, Error> {
    let align_of = |letter: char| match letter {
        '<' => Some(Align::Left),
        '>' => Some(Align::Right),
        '^' => Some(Align::Center),
        '=' => Some(Align::Inside),
        _ => None,
    };
    let mut spec = Spec::default();
    let letters: Vec<char> = text.chars().take(2).collect();
    let mut rest = text;
    if let Some(align) = letters.get(1).and_then(|letter| align_of(*letter)) {
        (spec.fill, spec.align) = (letters.first().copied(), Some(align));
        rest = letters.iter().fold(rest, |rest, letter| &rest[letter.len_utf8()..]);
    } else if let Some(align) = letters.first().and_then(|letter| align_of(*letter)) {
        spec.align = Some(align);
        rest = &rest[1..];
    }
    if let Some(sign) = rest.chars().next().filter(|letter| "+- ".contains(*letter)) {
        (spec.sign, rest) = (Some(sign), &rest[1..]);
    }
    if rest.starts_with('z') {
        return unsupported("`z` in a format");
    }
    if let Some(behind) = rest.strip_prefix('#') {
        (spec.alternate, rest) = (true, behind);
    }
    if let Some(behind) = rest.strip_prefix('0') {
        (spec.zeros, rest) = (true, behind);
    }
    (spec.width, rest) = digits(rest)?.unwrap_or((0, rest));
    if let Some(separator) = rest.chars().next().filter(|letter| ",_".contains(*letter)) {
        (spec.grouping, rest) = (Some(separator), &rest[1..]);
    }
    if let Some(behind) = rest.strip_prefix('.') {
        let Some((precision, behind)) = digits(behind)? else { return raise("Format specifier missing precision") };
        (spec.precision, rest) = (Some(precision), behind);
    }
    let mut letters = rest.chars();
    spec.kind = letters.next();
    if letters.next().is_some() {
        return raise("Invalid format specifier");
    }
    Ok(spec)
}
