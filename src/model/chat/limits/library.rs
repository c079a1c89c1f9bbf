//! The functions that stand for instructions, and filters, tests and methods that weigh.

use std::sync::LazyLock;

use minijinja::value::{Kwargs, Rest, Value};
use minijinja::{Environment, Error, Expression, State, UndefinedBehavior, context};

use super::super::string_method;
use super::refused;
use super::subset::MAX_FIELDS;
use super::weigh::{Made, READING, VALUE};

/// Filters that make a text of what they are given.
const TEXTS: [&str; 17] = [
    "capitalize",
    "e",
    "escape",
    "float",
    "indent",
    "int",
    "join",
    "lines",
    "lower",
    "map",
    "replace",
    "safe",
    "split",
    "string",
    "title",
    "trim",
    "upper",
];
/// Those that go through all of it, and those that look at a list's outside.
const DEEP: [&str; 11] = ["attr", "dictsort", "max", "min", "reject", "rejectattr", "select", "selectattr", "sort", "sum", "unique"];
const FLAT: [&str; 12] = ["abs", "bool", "count", "d", "default", "first", "items", "last", "length", "list", "reverse", "round"];
/// What `map` may call.
const MAPPED: [&str; 10] = ["capitalize", "first", "int", "last", "length", "lower", "string", "title", "trim", "upper"];
/// One call of them can fill the memory, or there is no need of them.
const REFUSED: [&str; 7] = ["batch", "chain", "format", "groupby", "pprint", "slice", "zip"];
/// Tests that read what they are given.
const TESTS: [&str; 22] = [
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "endingwith",
    "eq",
    "equalto",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "ne",
    "sameas",
    "startingwith",
    "upper",
];
/// Bytes of the name by which `sort` and its kind choose: a path is gone again for each item.
const MAX_ATTRIBUTE: usize = 64;
const MAX_RANGE: i64 = 1 << 30;

/// minijinja without limits, for what has been weighed.
static PLAIN: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    // By zero it panics.
    environment.remove_test("divisibleby");
    environment
});

/// The operator is applied in `PLAIN`.
macro_rules! operation {
    ($environment:expr, $operator:literal, $weigh:expr) => {{
        static PLAINLY: LazyLock<Result<Expression<'static, 'static>, Error>> =
            LazyLock::new(|| PLAIN.compile_expression(concat!("a ", $operator, " b")));
        $environment.add_function(concat!(" ", $operator), |state: &State, a: Value, b: Value| -> Result<Value, Error> {
            let weigh: fn(&Made, &Value, &Value) -> Result<(), Error> = $weigh;
            let made = Made::of(state);
            weigh(&made, &a, &b)?;
            made.made(plainly(&PLAINLY, context! { a, b })?)
        });
    }};
}

/// An error's place is that of the call.
fn plainly(expression: &Result<Expression, Error>, context: Value) -> Result<Value, Error> {
    match expression {
        Ok(expression) => expression.eval(context).map_err(|error| match error.detail() {
            Some(detail) => Error::new(error.kind(), detail.to_string()),
            None => Error::from(error.kind()),
        }),
        Err(error) => Err(refused(error.to_string())),
    }
}

/// Gives an environment all of them.
pub fn limit(environment: &mut Environment) {
    operation!(environment, "~", |made, a, b| made.write(a).and(made.write(b)).map(drop));
    operation!(environment, "+", sum);
    operation!(environment, "*", product);
    operation!(environment, "==", reads);
    operation!(environment, "!=", reads);
    operation!(environment, "<", reads);
    operation!(environment, "<=", reads);
    operation!(environment, ">", reads);
    operation!(environment, ">=", reads);
    operation!(environment, "in", reads);
    environment.add_function(" []", |state: &State, of: Value, key: Value| -> Result<Value, Error> {
        let made = Made::of(state);
        made.ask(&of)?;
        made.read(&key)?;
        of.get_item(&key)
    });
    environment.add_function(" [:]", slice);
    environment.add_function(" loop", |state: &State, over: Value| -> Result<Value, Error> { Made::of(state).ask(&over).map(|_| over) });
    environment
        .add_function(" kept", |state: &State, value: Value| -> Result<Value, Error> { Made::of(state).keep(&value).map(|_| value) });
    environment
        .add_function(" list", |state: &State, items: Rest<Value>| -> Result<Value, Error> { Made::of(state).made(Value::from(items.0)) });
    environment.add_function(" map", |state: &State, pairs: Rest<Value>| -> Result<Value, Error> {
        let made = Made::of(state);
        pairs.iter().step_by(2).try_for_each(|key| made.read(key).map(drop))?;
        made.made(pairs.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
    });
    environment.set_formatter(|out, state, value| {
        Made::of(state).write(value)?;
        minijinja::escape_formatter(out, state, value)
    });
    functions(environment);
    filters(environment);
    environment.remove_test("divisibleby");
    for name in TESTS {
        environment.add_test(name, move |state: &State, arguments: Rest<Value>| -> Result<bool, Error> {
            let made = Made::of(state);
            // Letters are folded, which is no faster than making them.
            let fold = ["lower", "upper"].contains(&name);
            arguments.iter().try_for_each(|value| if fold { made.weigh(value) } else { made.read(value) }.map(drop))?;
            PLAIN.empty_state().perform_test(name, &arguments)
        });
    }
}

fn functions(environment: &mut Environment) {
    environment.remove_global("debug");
    environment.add_function("raise_exception", |state: &State, text: Value| -> Result<Value, Error> {
        Made::of(state).write(&text)?;
        Err(refused(text.to_string().chars().take(500).collect()))
    });
    for name in ["dict", "namespace", "range"] {
        environment.add_function(name, move |state: &State, arguments: Rest<Value>| -> Result<Value, Error> {
            let made = Made::of(state);
            // Beside their values they are hash tables and locks.
            made.add(32 * VALUE)?;
            for value in arguments.iter() {
                made.keep(value)?;
                if value.as_i64().is_some_and(|number| number.abs_diff(0) > MAX_RANGE as u64)
                    || value.len() > Some(MAX_FIELDS) && name == "namespace"
                {
                    return Err(refused(format!("too much for `{name}`")));
                }
            }
            let plain = PLAIN.empty_state();
            let result = plain.lookup(name).ok_or_else(|| refused(format!("{name} is unknown")))?.call(&plain, &arguments)?;
            if name == "range" { made.made(result) } else { Ok(result) }
        });
    }
}

fn filters(environment: &mut Environment) {
    for name in REFUSED {
        environment.remove_filter(name);
    }
    for name in TEXTS.into_iter().chain(DEEP).chain(FLAT) {
        environment.add_filter(name, move |state: &State, arguments: Rest<Value>| -> Result<Value, Error> {
            let made = Made::of(state);
            let weigh = if TEXTS.contains(&name) {
                Made::write
            } else if DEEP.contains(&name) {
                Made::read
            } else {
                Made::ask
            };
            arguments.iter().try_for_each(|value| weigh(&made, value).map(drop))?;
            before(name, &made, &arguments)?;
            made.made(PLAIN.empty_state().apply_filter(name, &arguments)?)
        });
    }
}

/// Before a text's method makes something of it.
pub fn method(state: &State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let made = Made::of(state);
    made.weigh(value)?;
    arguments.iter().try_for_each(|value| made.read(value).map(drop))?;
    if value.as_str().is_some() {
        before(name, &made, &[std::slice::from_ref(value), arguments].concat())?;
    }
    made.made(string_method(state, value, name, arguments)?)
}

/// Backwards only the whole: of an empty one the engine takes what is not there.
fn slice(state: &State, of: Value, start: Value, stop: Value, step: Value) -> Result<Value, Error> {
    static PLAINLY: LazyLock<Result<Expression<'static, 'static>, Error>> =
        LazyLock::new(|| PLAIN.compile_expression("of[start:stop:step]"));
    let made = Made::of(state);
    made.ask(&of)?;
    // The engine goes to the first item one by one.
    made.add(of.as_object().and(of.len()).unwrap_or(0) as u64 * VALUE)?;
    if step.as_i64().is_some_and(|step| step < 0) {
        if !start.is_none() || !stop.is_none() {
            return Err(refused("a part is taken backwards; only the whole can be: `[::-1]`".to_string()));
        }
        if of.len() == Some(0) {
            return Ok(of);
        }
    }
    made.made(plainly(&PLAINLY, context! { of, start, stop, step })?)
}

/// Numbers make nothing.
fn sum(made: &Made, a: &Value, b: &Value) -> Result<(), Error> {
    let texts = a.as_str().is_some() && b.as_str().is_some();
    [a, b].into_iter().try_for_each(|value| if texts { made.weigh(value) } else { made.shape(value) }.map(drop))
}

fn product(made: &Made, a: &Value, b: &Value) -> Result<(), Error> {
    let (many, of) = if a.is_number() { (a, b) } else { (b, a) };
    if of.is_number() {
        return Ok(());
    }
    let weight = if of.as_str().is_some() { made.weigh(of)? } else { made.shape(of)? };
    made.add(weight.saturating_mul(many.as_usize().unwrap_or(1) as u64))
}

fn reads(made: &Made, a: &Value, b: &Value) -> Result<(), Error> {
    made.read(a).and(made.read(b)).map(drop)
}

/// Where more comes out than went in, or it takes longer than reading.
fn before(name: &str, made: &Made, arguments: &[Value]) -> Result<(), Error> {
    let text = |at: usize| arguments.get(at).and_then(Value::as_str).unwrap_or_default();
    let bytes = |at: usize| text(at).len() as u64;
    let items = || arguments.first().and_then(Value::len).unwrap_or(0) as u64;
    match name {
        "replace" | "join" => {
            if arguments.iter().skip(1).any(|value| value.as_object().is_some())
                || name == "replace" && arguments.first().is_some_and(|value| value.as_object().is_some())
            {
                return Err(refused(format!("`{name}` is given a list or a table instead of a text")));
            }
            let (found, by) = match name {
                "join" => (items(), bytes(1)),
                _ if text(1).is_empty() => (bytes(0) + 1, bytes(2)),
                _ => (text(0).matches(text(1)).count() as u64, bytes(2)),
            };
            made.add(found.saturating_mul(by))
        }
        "indent" => {
            let given = |value: &Value| match Kwargs::try_from(value.clone()) {
                Ok(named) => named.peek::<Option<u64>>("width").ok().flatten(),
                Err(_) => value.as_usize().map(|width| width as u64),
            };
            let width = arguments.iter().skip(1).find_map(given).unwrap_or(4);
            made.add((text(0).lines().count() as u64 + 1).saturating_mul(width))
        }
        "split" => {
            let parts = if text(1).is_empty() { text(0).split_whitespace().count() } else { text(0).matches(text(1)).count() };
            made.add((parts as u64 + 1).saturating_mul(VALUE))
        }
        "lines" => made.add((text(0).lines().count() as u64).saturating_mul(VALUE)),
        "list" | "reverse" | "items" | "last" => made.add(items().saturating_mul(VALUE)),
        // Each letter is compared with each of these.
        "trim" | "strip" | "lstrip" | "rstrip" => made.add(bytes(0).saturating_mul(bytes(1)) / READING),
        "select" | "reject" | "selectattr" | "rejectattr" => {
            chosen(name, arguments)?;
            let weight = arguments.iter().skip(1).try_fold(0, |sum, value| Ok::<_, Error>(sum + made.read(value)?))?;
            made.add(items().saturating_mul(weight) / READING)
        }
        "sort" | "unique" | "min" | "max" | "sum" | "dictsort" => chosen(name, arguments),
        "map" => {
            chosen(name, arguments)?;
            match arguments.get(1).and_then(Value::as_str) {
                Some(filter) if !MAPPED.contains(&filter) => {
                    Err(refused(format!("`map` of `{}` is not supported", filter.chars().take(40).collect::<String>())))
                }
                Some(_) if arguments.len() > 2 => Err(refused("`map` of a filter with arguments is not supported".to_string())),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// By what items are chosen: one name, not a path.
fn chosen(name: &str, arguments: &[Value]) -> Result<(), Error> {
    let path = |value: &Value| value.as_str().is_some_and(|text| text.len() > MAX_ATTRIBUTE || text.contains(['.', ',']));
    let named = arguments.last().and_then(|value| Kwargs::try_from(value.clone()).ok());
    let attribute = named.and_then(|named| named.peek::<Value>("attribute").ok());
    if attribute.is_some_and(|value| path(&value) || value.as_object().is_some())
        || ["selectattr", "rejectattr"].contains(&name) && arguments.get(1).is_some_and(path)
    {
        return Err(refused(format!("`{name}` by a path or a long name is not supported")));
    }
    Ok(())
}
