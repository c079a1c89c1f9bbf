//! Filters that make numbers.

use minijinja::value::Value;
use minijinja::{Error, State};

use crate::model::jinja::call::Args;
use crate::model::jinja::letters::is_space;
use crate::model::jinja::operate::{self, float_of};
use crate::model::jinja::print::str;
use crate::model::jinja::run::{raise, unsupported};
use crate::model::jinja::value::{self, Py, py, text};

pub fn abs(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    args.none("abs")?;
    match py(&value) {
        Py::Float(float) => Ok(Value::from(float.abs())),
        other => match other.int() {
            Some(number) => value::int(number.checked_abs()),
            None => raise(format!("bad operand type for abs(): '{}'", other.noun())),
        },
    }
}

/// `int(float)`: towards zero.
pub fn truncated(float: f64) -> Result<i128, Error> {
    match float.abs() < 2f64.powi(126) {
        true => Ok(float.trunc() as i128),
        false => unsupported("an integer of more than 128 bits"),
    }
}

pub fn int(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    let [default, base] = args.bind("int", ["default", "base"], 0)?;
    let default = default.unwrap_or(Value::from(0));
    match py(&value) {
        Py::Undefined => raise("a value is undefined"),
        Py::Str(of) => {
            let base = base.map_or(Ok(10), |base| py(&base).int().map_or_else(|| raise("a base is a number"), Ok))?;
            match integer(of, base)? {
                Some(number) => value::int(Some(number)),
                // "42.23" is 42.
                None => match real(of)? {
                    Some(float) if float.is_finite() => value::int(Some(truncated(float)?)),
                    _ => Ok(default),
                },
            }
        }
        Py::Float(float) if float.is_nan() => Ok(default),
        Py::Float(float) if float.is_infinite() => raise("cannot convert float infinity to integer"),
        Py::Float(float) => value::int(Some(truncated(float)?)),
        Py::Markup(_) => unsupported("`int` of a text that is marked as safe"),
        other => Ok(other.int().map_or(Ok(default), |number| value::int(Some(number)))?),
    }
}

/// Python's `int(text, base)`, none where it fails.
fn integer(of: &str, base: i128) -> Result<Option<i128>, Error> {
    let base = match base {
        2 | 8 | 10 | 16 => base as u32,
        _ => return unsupported(format!("`int` of base {base}")),
    };
    let of = of.trim_matches(is_space);
    let (is_negative, digits) = match of.strip_prefix(['+', '-']) {
        Some(digits) => (of.starts_with('-'), digits),
        None => (false, of),
    };
    let prefix = match base {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        _ => "",
    };
    let has_prefix = !prefix.is_empty() && digits.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    let digits = if has_prefix { digits[2..].strip_prefix('_').unwrap_or(&digits[2..]) } else { digits };
    if digits.chars().any(|letter| !letter.is_ascii() && letter.is_numeric()) {
        return unsupported("digits beyond ASCII");
    }
    let is_whole = !digits.is_empty() && digits.split('_').all(|part| !part.is_empty() && part.chars().all(|digit| digit.is_digit(base)));
    if !is_whole {
        return Ok(None);
    }
    match i128::from_str_radix(&digits.replace('_', ""), base) {
        Ok(number) => Ok(Some(if is_negative { -number } else { number })),
        Err(_) => unsupported("an integer of more than 128 bits"),
    }
}

pub fn float(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    let [default] = args.bind("float", ["default"], 0)?;
    let default = default.unwrap_or(Value::from(0.0));
    match py(&value) {
        Py::Undefined => raise("a value is undefined"),
        Py::Str(of) => Ok(real(of)?.map_or(default, Value::from)),
        Py::Float(_) => Ok(value),
        Py::Markup(_) => unsupported("`float` of a text that is marked as safe"),
        other => match other.int() {
            Some(number) => Ok(Value::from(float_of(number)?)),
            None => Ok(default),
        },
    }
}

/// Python's `float(text)`, none where it fails.
fn real(of: &str) -> Result<Option<f64>, Error> {
    let of = of.trim_matches(is_space);
    if of.chars().any(|letter| !letter.is_ascii() && letter.is_numeric()) {
        return unsupported("digits beyond ASCII");
    }
    // Only between digits.
    let bytes = of.as_bytes();
    let is_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let well_placed = bytes.iter().enumerate().all(|(at, byte)| *byte != b'_' || is_digit(at.checked_sub(1)) && is_digit(Some(at + 1)));
    if !well_placed {
        return Ok(None);
    }
    Ok(of.replace('_', "").parse().ok())
}

pub fn round(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    let [precision, method] = args.bind("round", ["precision", "method"], 0)?;
    let precision = precision.map_or(Ok(0), |precision| py(&precision).int().map_or_else(|| raise("a precision is a number"), Ok))?;
    let Some(precision) = usize::try_from(precision).ok().filter(|precision| *precision <= 22) else {
        return unsupported(format!("`round` to {precision} places"));
    };
    let method = method.map_or_else(|| Ok("common".to_string()), |method| str(&method))?;
    match (method.as_str(), py(&value)) {
        ("common", Py::Float(float)) if float.is_finite() => {
            // Exact: ties are those of the number as it is, and go to the even digit.
            let rounded = format!("{float:.precision$}").parse().unwrap_or(float);
            Ok(Value::from(rounded))
        }
        ("common", Py::Float(_)) => Ok(value),
        ("common", other) => match other.int() {
            Some(number) => value::int(Some(number)),
            None => raise(format!("type {} doesn't define __round__ method", other.noun())),
        },
        (method @ ("ceil" | "floor"), other) => {
            let scale = value::int(10i128.checked_pow(precision as u32))?;
            if !matches!(other, Py::Float(_)) && other.int().is_none() {
                return raise(format!("must be real number, not {}", other.noun()));
            }
            let scaled = operate::binary(operate::Operator::Mul, &value, &scale)?;
            let whole = match py(&scaled) {
                Py::Float(float) if !float.is_finite() => return raise("cannot convert float infinity or NaN to integer"),
                Py::Float(float) => value::int(Some(truncated(if method == "ceil" { float.ceil() } else { float.floor() })?))?,
                _ => scaled,
            };
            operate::binary(operate::Operator::Div, &whole, &scale)
        }
        _ => raise("method must be common, ceil or floor"),
    }
}

pub fn filesizeformat(_: &State, value: Value, args: Args) -> Result<Value, Error> {
    let [binary] = args.bind("filesizeformat", ["binary"], 0)?;
    let bytes = match py(&value) {
        Py::Float(float) => Some(float),
        Py::Str(of) => real(of)?,
        other => other.int().map(float_of).transpose()?,
    };
    let Some(bytes) = bytes.filter(|bytes| bytes.is_finite()) else { return raise("could not convert to a size") };
    let (base, names) = match binary.is_some_and(|binary| binary.is_true()) {
        true => (1024.0, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"]),
        false => (1000.0, ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"]),
    };
    if bytes == 1.0 {
        return text("1 Byte");
    }
    if bytes < base {
        return text(format!("{} Bytes", truncated(bytes)?));
    }
    // Powers of the base are exact up to here.
    let mut unit: f64 = base;
    for (i, name) in names.iter().enumerate() {
        unit *= base;
        if bytes < unit || i + 1 == names.len() {
            return text(format!("{:.1} {name}", base * bytes / unit));
        }
    }
    unsupported("such a size")
}
