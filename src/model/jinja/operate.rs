//! Python's operators.

use std::cmp::Ordering;

use minijinja::value::Value;
use minijinja::{Error, State};

use super::format;
use super::print::write_str;
use super::run::{self, VALUE, raise, unsupported};
use super::value::{Items, Py, Range, Shape, exact, int, list, markup, py, sequence, text, walk};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Rem,
    Pow,
}

impl Operator {
    fn sign(self) -> &'static str {
        match self {
            Operator::Add => "+",
            Operator::Sub => "-",
            Operator::Mul => "*",
            Operator::Div => "/",
            Operator::FloorDiv => "//",
            Operator::Rem => "%",
            Operator::Pow => "**",
        }
    }
}

pub fn binary(operator: Operator, left: &Value, right: &Value) -> Result<Value, Error> {
    let (a, b) = (py(left), py(right));
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return calculate(operator, a, b);
    }
    match (operator, a, b) {
        (_, Py::Undefined, _) => undefined(left),
        // `'%s' % undefined` is a text.
        (Operator::Rem, Py::Str(pattern), _) => text(format::percent(pattern, right)?),
        (_, _, Py::Undefined) => undefined(right),
        (Operator::Add, Py::Str(a), Py::Str(b)) => {
            run::make(VALUE + a.len() + b.len())?;
            Ok(Value::from([a, b].concat()))
        }
        (Operator::Add, Py::Items(a), Py::Items(b)) if (a.shape == Shape::List) == (b.shape == Shape::List) => {
            run::make(VALUE * (a.items.len() + b.items.len()))?;
            let shape = if a.shape == Shape::List { Shape::List } else { Shape::Tuple };
            sequence(shape, a.items.iter().chain(&b.items).cloned().collect())
        }
        (Operator::Mul, _, _) => repeat(left, right),
        _ if markups(a) || markups(b) => unsupported(format!("`{}` of a text that is marked as safe", operator.sign())),
        _ => mismatch(operator, a, b),
    }
}

fn markups(value: Py) -> bool {
    matches!(value, Py::Markup(_))
}

fn mismatch<T>(operator: Operator, a: Py, b: Py) -> Result<T, Error> {
    raise(format!("unsupported operand type(s) for {}: '{}' and '{}'", operator.sign(), a.noun(), b.noun()))
}

pub fn undefined<T>(_: &Value) -> Result<T, Error> {
    raise("a value is undefined")
}

/// A number, as arithmetic takes it.
#[derive(Clone, Copy)]
enum Number {
    Int(i128),
    Float(f64),
}

fn number(value: Py) -> Option<Number> {
    match value {
        Py::Float(float) => Some(Number::Float(float)),
        other => other.int().map(Number::Int),
    }
}

impl Number {
    fn float(self) -> Result<f64, Error> {
        match self {
            Number::Float(float) => Ok(float),
            Number::Int(int) => float_of(int),
        }
    }
}

/// Rounds as Python does: to the nearest, halves to even.
pub fn float_of(int: i128) -> Result<f64, Error> {
    Ok(int as f64)
}

fn calculate(operator: Operator, a: Number, b: Number) -> Result<Value, Error> {
    if let (Number::Int(a), Number::Int(b)) = (a, b) {
        match operator {
            Operator::Add => return int(a.checked_add(b)),
            Operator::Sub => return int(a.checked_sub(b)),
            Operator::Mul => return int(a.checked_mul(b)),
            Operator::FloorDiv | Operator::Rem if b == 0 => return raise("division by zero"),
            // The quotient is rounded down, and the rest has the divisor's sign.
            Operator::FloorDiv => return int(a.checked_div_euclid(b).map(|q| if b < 0 && a.rem_euclid(b) != 0 { q - 1 } else { q })),
            Operator::Rem => return int(a.checked_rem(b).map(|rest| if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })),
            Operator::Pow if b >= 0 => return int(u32::try_from(b).ok().and_then(|b| power(a, b))),
            Operator::Div if b == 0 => return raise("division by zero"),
            // Both are exact as floats, so that the quotient is rounded once.
            Operator::Div if a.unsigned_abs() > 1 << 53 || b.unsigned_abs() > 1 << 53 => return unsupported("`/` of large integers"),
            Operator::Div | Operator::Pow => {}
        }
    }
    let (a, b) = (a.float()?, b.float()?);
    Ok(Value::from(match operator {
        Operator::Add => a + b,
        Operator::Sub => a - b,
        Operator::Mul => a * b,
        Operator::Div | Operator::FloorDiv | Operator::Rem if b == 0.0 => return raise("float division by zero"),
        Operator::Div => a / b,
        Operator::FloorDiv => floor_div(a, b).0,
        Operator::Rem => floor_div(a, b).1,
        // The system's `pow` differs between machines.
        Operator::Pow => return unsupported("`**` that is not of whole numbers"),
    }))
}

fn power(a: i128, b: u32) -> Option<i128> {
    match a {
        0 | 1 => Some(if b == 0 { 1 } else { a }),
        -1 => Some(if b.is_multiple_of(2) { 1 } else { -1 }),
        _ => a.checked_pow(b),
    }
}

/// CPython's `float_divmod`.
fn floor_div(a: f64, b: f64) -> (f64, f64) {
    let mut rest = a % b;
    let mut quotient = (a - rest) / b;
    if rest != 0.0 {
        if (b < 0.0) != (rest < 0.0) {
            rest += b;
            quotient -= 1.0;
        }
    } else {
        rest = 0f64.copysign(b);
    }
    if quotient == 0.0 {
        return (0f64.copysign(a / b), rest);
    }
    let floor = quotient.floor();
    (if quotient - floor > 0.5 { floor + 1.0 } else { floor }, rest)
}

fn repeat(left: &Value, right: &Value) -> Result<Value, Error> {
    let (what, times) = match (py(left).int(), py(right).int()) {
        (None, Some(times)) => (left, times),
        (Some(times), None) => (right, times),
        _ => {
            let undefined_one = [left, right].into_iter().find(|value| value.is_undefined());
            return undefined_one.map_or_else(|| mismatch(Operator::Mul, py(left), py(right)), undefined);
        }
    };
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    match py(what) {
        Py::Str(part) => {
            run::make(VALUE.saturating_add(part.len().saturating_mul(times)))?;
            Ok(Value::from(part.repeat(times)))
        }
        Py::Markup(part) => {
            run::make(VALUE.saturating_add(part.len().saturating_mul(times)))?;
            markup(part.repeat(times))
        }
        Py::Items(items) => {
            run::make(VALUE.saturating_mul(items.items.len().saturating_mul(times)))?;
            let shape = if items.shape == Shape::List { Shape::List } else { Shape::Tuple };
            sequence(shape, std::iter::repeat_n(&items.items, times).flatten().cloned().collect())
        }
        Py::Undefined => undefined(what),
        _ => mismatch(Operator::Mul, py(left), py(right)),
    }
}

pub fn negate(value: &Value) -> Result<Value, Error> {
    match py(value) {
        Py::Undefined => undefined(value),
        Py::Float(float) => Ok(Value::from(-float)),
        other => match other.int() {
            Some(number) => int(number.checked_neg()),
            None => raise(format!("bad operand type for unary -: '{}'", other.noun())),
        },
    }
}

/// `~`: all as text.
pub fn concatenate(parts: &[Value]) -> Result<Value, Error> {
    let mut out = String::new();
    for part in parts {
        write_str(&mut out, part)?;
    }
    text(out)
}

pub fn equal(a: &Value, b: &Value) -> Result<bool, Error> {
    run::read(VALUE)?;
    Ok(match (py(a), py(b)) {
        (Py::Undefined, _) | (_, Py::Undefined) if run::is_strict() => return raise("an undefined value is compared"),
        (Py::Undefined, Py::Undefined) | (Py::None, Py::None) => true,
        (Py::Str(a) | Py::Markup(a), Py::Str(b) | Py::Markup(b)) => {
            run::read(a.len().min(b.len()))?;
            a == b
        }
        (Py::Items(a), Py::Items(b)) => (a.shape == Shape::List) == (b.shape == Shape::List) && same(&a.items, &b.items)?,
        (Py::Dict(a), Py::Dict(b)) => {
            if a.entries().len() != b.entries().len() {
                return Ok(false);
            }
            for (key, value) in a.entries() {
                match b.get(key)? {
                    Some(other) if is(value, other) || equal(value, other)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Py::Range(a), Py::Range(b)) => a.len() == b.len() && (a.len() == 0 || a.start == b.start && (a.len() == 1 || a.step == b.step)),
        (Py::View(_), Py::View(_)) => return unsupported("a comparison of views of dicts"),
        (left, right) => match (number(left), number(right)) {
            (Some(a), Some(b)) => order(a, b) == Some(Ordering::Equal),
            (None, None) => is(a, b),
            _ => false,
        },
    })
}

fn same(a: &[Value], b: &[Value]) -> Result<bool, Error> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for (a, b) in a.iter().zip(b) {
        if !is(a, b) && !equal(a, b)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether it is the same object.
pub fn is(a: &Value, b: &Value) -> bool {
    use std::ptr::eq;
    match (py(a), py(b)) {
        (Py::Items(a), Py::Items(b)) => eq(a, b),
        (Py::Dict(a), Py::Dict(b)) => eq(a, b),
        (Py::View(a), Py::View(b)) => eq(a, b),
        (Py::Range(a), Py::Range(b)) => eq(a, b),
        (Py::Stream(a), Py::Stream(b)) => eq(a, b),
        (Py::Namespace(a), Py::Namespace(b)) => eq(a, b),
        (Py::Macro(a), Py::Macro(b)) => eq(a, b),
        (Py::Function(a), Py::Function(b)) => a == b,
        _ => false,
    }
}

/// An integer may have more digits than a float.
fn order(a: Number, b: Number) -> Option<Ordering> {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
        (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b),
        (Number::Int(a), Number::Float(b)) => order_mixed(a, b),
        (Number::Float(a), Number::Int(b)) => order_mixed(b, a).map(Ordering::reverse),
    }
}

fn order_mixed(a: i128, b: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    match exact(b.floor()) {
        Some(floor) if a == floor => Some(if b > b.floor() { Ordering::Less } else { Ordering::Equal }),
        Some(floor) => Some(a.cmp(&floor)),
        None => Some(if b > 0.0 { Ordering::Less } else { Ordering::Greater }),
    }
}

/// Python's `<`, `<=`, `>` and `>=`: nothing is in order with a nan, and not all values are in order with each other.
pub fn compare(a: &Value, b: &Value) -> Result<Option<Ordering>, Error> {
    run::read(VALUE)?;
    match (py(a), py(b)) {
        (Py::Undefined, _) => undefined(a),
        (_, Py::Undefined) => undefined(b),
        (Py::Str(a) | Py::Markup(a), Py::Str(b) | Py::Markup(b)) => {
            run::read(a.len().min(b.len()))?;
            Ok(Some(a.cmp(b)))
        }
        (Py::Items(a), Py::Items(b)) if (a.shape == Shape::List) == (b.shape == Shape::List) => lexical(&a.items, &b.items),
        (Py::View(_), Py::View(_)) => unsupported("a comparison of views of dicts"),
        (left, right) => match (number(left), number(right)) {
            (Some(a), Some(b)) => Ok(order(a, b)),
            _ => raise(format!("'{}' and '{}' are not in order with each other", left.noun(), right.noun())),
        },
    }
}

pub fn lexical(a: &[Value], b: &[Value]) -> Result<Option<Ordering>, Error> {
    for (a, b) in a.iter().zip(b) {
        if !is(a, b) && !equal(a, b)? {
            return compare(a, b);
        }
    }
    Ok(Some(a.len().cmp(&b.len())))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}

pub fn holds(state: &State, a: &Value, relation: Relation, b: &Value) -> Result<bool, Error> {
    Ok(match relation {
        Relation::Eq => equal(a, b)?,
        Relation::Ne => !equal(a, b)?,
        Relation::Lt => compare(a, b)? == Some(Ordering::Less),
        Relation::Le => matches!(compare(a, b)?, Some(Ordering::Less | Ordering::Equal)),
        Relation::Gt => compare(a, b)? == Some(Ordering::Greater),
        Relation::Ge => matches!(compare(a, b)?, Some(Ordering::Greater | Ordering::Equal)),
        Relation::In => contains(state, b, a)?,
        Relation::NotIn => !contains(state, b, a)?,
    })
}

pub fn contains(state: &State, container: &Value, item: &Value) -> Result<bool, Error> {
    match py(container) {
        Py::Str(text) | Py::Markup(text) => match py(item).text() {
            Some(part) => {
                run::read(text.len() + part.len())?;
                Ok(text.contains(part))
            }
            None if item.is_undefined() && run::is_strict() => undefined(item),
            None => raise(format!("'in <string>' requires string as left operand, not {}", py(item).noun())),
        },
        Py::Dict(dict) => Ok(dict.get(item)?.is_some()),
        Py::Range(range) => match py(item) {
            Py::Float(float) => Ok(exact(float).is_some_and(|int| in_range(range, int))),
            other => Ok(other.int().is_some_and(|int| in_range(range, int))),
        },
        Py::View(view) if view.part == super::value::Part::Keys => contains(state, &view.dict, item),
        Py::Stream(stream) => {
            while let Some(other) = stream.next(state)? {
                if is(item, &other) || equal(&other, item)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Py::Items(items) => any_equal(&items.items, item),
        Py::View(_) | Py::Undefined => any_equal(&walk(state, container)?, item),
        other @ (Py::Loop(_) | Py::Other) => unsupported(format!("`in` a {}", other.noun())),
        other => raise(format!("argument of type '{}' is not iterable", other.noun())),
    }
}

fn any_equal(items: &[Value], item: &Value) -> Result<bool, Error> {
    for other in items {
        if is(item, other) || equal(other, item)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn in_range(range: &Range, number: i128) -> bool {
    let inside = if range.step > 0 { (range.start..range.stop).contains(&number) } else { number <= range.start && number > range.stop };
    inside && (number - range.start) % range.step == 0
}

/// Stable. Python compares with `<` alone.
pub fn sort<T>(items: Vec<T>, less: &mut dyn FnMut(&T, &T) -> Result<bool, Error>) -> Result<Vec<T>, Error> {
    if items.len() < 2 {
        return Ok(items);
    }
    run::make(items.len() * VALUE)?;
    let mut left = items;
    let right = left.split_off(left.len() / 2);
    let (left, right) = (sort(left, less)?, sort(right, less)?);
    let mut out = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let next = if less(b, a)? { right.next() } else { left.next() };
        out.extend(next);
    }
    out.extend(left.chain(right));
    Ok(out)
}

/// `<` for sorting, where a nan would make the order depend on the algorithm.
pub fn less(a: &Value, b: &Value) -> Result<bool, Error> {
    match compare(a, b)? {
        Some(order) => Ok(order == Ordering::Less),
        None => unsupported("nan in a sorted list"),
    }
}

/// `of[start:stop:step]`.
pub fn slice(of: &Value, start: &Value, stop: &Value, step: &Value) -> Result<Value, Error> {
    let bounds = Bounds { start: bound(start)?, stop: bound(stop)?, step: bound(step)?.unwrap_or(1) };
    match py(of) {
        Py::Str(text) | Py::Markup(text) => {
            run::read(text.len())?;
            let part = bounds.text(text)?;
            if of.is_safe() { markup(part) } else { super::value::text(part) }
        }
        Py::Items(Items { shape, items, .. }) => {
            let places = bounds.places(items.len())?;
            run::make(VALUE * places.len())?;
            let part = places.filter_map(|place| items.get(place).cloned()).collect();
            if *shape == Shape::List { list(part) } else { sequence(Shape::Tuple, part) }
        }
        Py::Undefined => undefined(of),
        Py::Range(_) => unsupported("a slice of a range"),
        other => raise(format!("'{}' object has no slices", other.noun())),
    }
}

struct Bounds {
    start: Option<i128>,
    stop: Option<i128>,
    step: i128,
}

fn bound(value: &Value) -> Result<Option<i128>, Error> {
    match py(value) {
        Py::None => Ok(None),
        other => match other.int() {
            Some(int) => Ok(Some(int)),
            None => raise("slice indices must be integers or None"),
        },
    }
}

/// Places to take, first to last.
struct Places {
    next: i128,
    left: usize,
    step: i128,
}

impl Places {
    fn len(&self) -> usize {
        self.left
    }
}

impl Iterator for Places {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let place = self.next;
        self.next = place.saturating_add(self.step);
        usize::try_from(place).ok()
    }
}

impl Bounds {
    /// CPython's `PySlice_AdjustIndices`.
    fn places(&self, length: usize) -> Result<Places, Error> {
        let (length, step) = (length as i128, self.step);
        if step == 0 {
            return raise("slice step cannot be zero");
        }
        let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
        let place = |bound: i128| if bound < 0 { (bound.saturating_add(length)).max(low) } else { bound.min(high) };
        let start = self.start.map_or(if step > 0 { low } else { high }, place);
        let stop = self.stop.map_or(if step > 0 { high } else { low }, place);
        let left = match step > 0 {
            true if start < stop => (stop - start - 1) / step + 1,
            false if stop < start => (start - stop - 1) / step.saturating_neg() + 1,
            _ => 0,
        };
        Ok(Places { next: start, left: usize::try_from(left).unwrap_or(0), step })
    }

    fn text(&self, text: &str) -> Result<String, Error> {
        let letters = if text.is_ascii() { text.len() } else { text.chars().count() };
        let places = self.places(letters)?;
        if self.step == 1 {
            let first = usize::try_from(places.next).unwrap_or(0);
            return Ok(text.chars().skip(first).take(places.left).collect());
        }
        run::make(4 * letters)?;
        let letters: Vec<char> = text.chars().collect();
        Ok(places.filter_map(|place| letters.get(place)).collect())
    }
}
