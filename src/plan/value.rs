//! One plain value against one plain type: numbers by value, sizes in bytes, durations in milliseconds.

use serde_json::{Number, Value as Json};

use crate::base::{suggest, units};
use crate::manifest::{Data, Value};
use crate::steps::Type;

/// Whole numbers that a float holds exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// What is wrong; `message` follows the field's name.
pub struct Fault {
    pub message: String,
    pub label: String,
    pub help: Option<String>,
}

impl Fault {
    fn new(message: String, label: &str) -> Fault {
        Fault { message, label: label.to_string(), help: None }
    }

    fn mismatch(wanted: &str, found: &Data) -> Fault {
        Fault::new(format!("takes {wanted}, not {}", found.noun()), &format!("expected {wanted}"))
    }

    fn help(mut self, help: impl Into<String>) -> Fault {
        self.help = Some(help.into());
        self
    }
}

/// Types that hold others or refer to something are not plain; asking for one is refused as a mismatch.
pub fn plain(ty: &Type, value: &Value) -> Result<Json, Fault> {
    match (ty, &value.data) {
        (Type::Bool, Data::Bool(value)) => Ok(Json::Bool(*value)),
        (Type::Bool, other) => Err(Fault::mismatch("`true` or `false`", other)),
        (Type::Int(min, max), Data::Int(value)) => int(*value, *min, *max),
        (Type::Int(min, max), Data::Float(value)) if value.fract() == 0.0 && value.abs() <= EXACT => int(*value as i64, *min, *max),
        (Type::Int(..), other) => Err(Fault::mismatch("an integer", other)),
        (Type::Float(min, max), Data::Float(value)) => float(*value, *min, *max),
        (Type::Float(min, max), Data::Int(value)) => float(*value as f64, *min, *max),
        (Type::Float(..), other) => Err(Fault::mismatch("a number", other)),
        (Type::String, Data::String(text)) => Ok(Json::String(text.clone())),
        (Type::Choice(known), Data::String(text)) => choice(known, text),
        (Type::Size, data) => size(data),
        (Type::Duration, data) => duration(data),
        (_, other) => Err(Fault::mismatch("a string", other)),
    }
}

fn int(value: i64, min: i64, max: i64) -> Result<Json, Fault> {
    if (min..=max).contains(&value) {
        return Ok(Json::from(value));
    }
    let low = (min > i64::MIN).then(|| min.to_string());
    let high = (max < i64::MAX).then(|| max.to_string());
    Err(outside(&value.to_string(), low, high))
}

fn float(value: f64, min: f64, max: f64) -> Result<Json, Fault> {
    if value >= min && value <= max {
        // Minus zero is zero: equal values have equal keys.
        let value = if value == 0.0 { 0.0 } else { value };
        if let Some(number) = Number::from_f64(value) {
            return Ok(Json::Number(number));
        }
    }
    if !value.is_finite() {
        return Err(Fault::new("takes a finite number".to_string(), ""));
    }
    let bound = |bound: f64| (bound.is_finite() && bound.abs() < f64::MAX).then(|| bound.to_string());
    Err(outside(&value.to_string(), bound(min), bound(max)))
}

fn outside(value: &str, low: Option<String>, high: Option<String>) -> Fault {
    let range = match (low, high) {
        (Some(low), Some(high)) => format!("goes from {low} to {high}"),
        (Some(low), None) => format!("is at least {low}"),
        (None, Some(high)) => format!("is at most {high}"),
        (None, None) => "is out of range".to_string(),
    };
    Fault::new(format!("{range}, not {value}"), "out of range")
}

fn choice(known: &[&str], text: &str) -> Result<Json, Fault> {
    if known.contains(&text) {
        return Ok(Json::from(text));
    }
    let mut fault = Fault::new(format!("cannot be `{text}`"), "no such choice");
    fault.help = suggest::help(text, known.iter().copied());
    Err(fault)
}

fn size(data: &Data) -> Result<Json, Fault> {
    let help = "write `\"1.5 MiB\"`, `\"16 MB\"` or a number of bytes";
    match data {
        Data::Int(bytes) => u64::try_from(*bytes).map(Json::from).map_err(|_| Fault::new("cannot be negative".to_string(), "").help(help)),
        Data::String(text) => {
            units::parse_size(text).map(Json::from).ok_or_else(|| Fault::new(format!("is a size, not `{text}`"), "no size").help(help))
        }
        other => Err(Fault::mismatch("a size", other).help(help)),
    }
}

fn duration(data: &Data) -> Result<Json, Fault> {
    let help = "write `\"90 s\"`, `\"10 min\"`, `\"2 h\"` or a number of seconds";
    let text = match data {
        Data::String(text) => text.clone(),
        Data::Int(seconds) => seconds.to_string(),
        Data::Float(seconds) => seconds.to_string(),
        other => return Err(Fault::mismatch("a duration", other).help(help)),
    };
    let milliseconds = units::parse_duration(&text).and_then(|duration| u64::try_from(duration.as_millis()).ok());
    milliseconds.map(Json::from).ok_or_else(|| Fault::new(format!("is a duration, not `{text}`"), "no duration").help(help))
}
