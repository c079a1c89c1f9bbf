//! What can be called: macros, methods, and the functions that transformers gives to templates; and how their arguments are bound, as Python binds them.

use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr, Value};
use minijinja::{Error, State};

use super::methods;
use super::print::str;
use super::run::{self, Fault, VALUE, raise, unsupported};
use super::value::{Dict, Namespace, Py, Range, length, py, tuple, walk};

/// The arguments of one call.
#[derive(Debug, Default)]
pub struct Args {
    pub positional: Vec<Value>,
    pub named: Vec<(String, Value)>,
}

/// Named arguments on their way to a call.
#[derive(Debug)]
struct Named(Vec<(String, Value)>);

/// All arguments of a call that has `*list` or `**dict` among them.
#[derive(Debug)]
struct Spread(Args);

impl Object for Named {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

impl Object for Spread {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// How an argument is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passing {
    Plain,
    Named,
    List,
    Dict,
}

impl Passing {
    pub const ALL: [Passing; 4] = [Passing::Plain, Passing::Named, Passing::List, Passing::Dict];
}

/// `[name, value, …]` → named arguments.
pub fn named(parts: &[Value]) -> Result<Value, Error> {
    let pair = |pair: &[Value]| match pair {
        [name, value] => name.as_str().map(|name| (name.to_string(), value.clone())),
        _ => None,
    };
    let pairs: Vec<(String, Value)> = parts.chunks(2).filter_map(pair).collect();
    run::make(2 * VALUE * pairs.len())?;
    Ok(Value::from_object(Named(pairs)))
}

/// `[passing, name, value, …]` → all arguments.
pub fn spread(state: &State, parts: &[Value]) -> Result<Value, Error> {
    let mut args = Args::default();
    for part in parts.chunks(3) {
        let [passing, name, value] = part else { continue };
        let passing = passing.as_usize().and_then(|passing| Passing::ALL.get(passing)).copied().unwrap_or(Passing::Plain);
        match passing {
            Passing::Plain => args.positional.push(value.clone()),
            Passing::Named => args.add(name.as_str().unwrap_or_default(), value.clone())?,
            Passing::List => args.positional.extend(walk(state, value)?),
            Passing::Dict => {
                let Py::Dict(dict) = py(value) else { return raise("argument after ** must be a mapping") };
                run::make(2 * VALUE * dict.entries().len())?;
                for (key, value) in dict.entries() {
                    let Some(key) = key.as_str() else { return raise("keywords must be strings") };
                    args.add(key, value.clone())?;
                }
            }
        }
    }
    Ok(Value::from_object(Spread(args)))
}

impl Args {
    /// Of what the engine hands to a function.
    pub fn of(values: &[Value]) -> Args {
        match values.split_last() {
            Some((last, rest)) => {
                if let Some(Spread(args)) = last.downcast_object_ref() {
                    return Args { positional: args.positional.clone(), named: args.named.clone() };
                }
                if let Some(Named(named)) = last.downcast_object_ref() {
                    return Args { positional: rest.to_vec(), named: named.clone() };
                }
                Args { positional: values.to_vec(), named: Vec::new() }
            }
            None => Args::default(),
        }
    }

    fn add(&mut self, name: &str, value: Value) -> Result<(), Error> {
        if self.named.iter().any(|(known, _)| known == name) {
            return raise(format!("got multiple values for keyword argument '{name}'"));
        }
        self.named.push((name.to_string(), value));
        Ok(())
    }

    /// The arguments of the parameters `names`, of which the first `required` must be given. One whose name is empty is given by its place alone.
    pub fn bind<const N: usize>(self, function: &str, names: [&str; N], required: usize) -> Result<[Option<Value>; N], Error> {
        let mut bound = [const { None }; N];
        let count = self.positional.len();
        if count > N {
            return raise(format!("{function}() takes at most {N} arguments ({count} given)"));
        }
        for (slot, value) in bound.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            let Some(place) = names.iter().position(|known| !name.is_empty() && *known == name) else {
                return raise(format!("{function}() got an unexpected keyword argument '{name}'"));
            };
            match bound.get_mut(place) {
                Some(slot) if slot.is_none() => *slot = Some(value),
                _ => return raise(format!("{function}() got multiple values for argument '{name}'")),
            }
        }
        if bound.iter().take(required).any(Option::is_none) {
            return raise(format!("{function}() needs {required} arguments"));
        }
        Ok(bound)
    }

    /// Calls without arguments.
    pub fn none(self, function: &str) -> Result<(), Error> {
        self.bind::<0>(function, [], 0).map(drop)
    }
}

/// A macro, or the body of a `{% call %}`.
#[derive(Debug)]
pub struct Macro {
    pub name: Option<String>,
    /// The engine's, which takes all parameters, then `caller`, `varargs` and `kwargs`, each by its place.
    inner: Value,
    parameters: Vec<String>,
    takes: Takes,
}

/// Which of a macro's special names its body uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Takes {
    pub caller: bool,
    pub varargs: bool,
    pub kwargs: bool,
}

impl Takes {
    pub fn bits(self) -> u32 {
        u32::from(self.caller) | u32::from(self.varargs) << 1 | u32::from(self.kwargs) << 2
    }

    pub fn of_bits(bits: usize) -> Takes {
        Takes { caller: bits & 1 != 0, varargs: bits & 2 != 0, kwargs: bits & 4 != 0 }
    }
}

/// Stands for a parameter that was not given.
#[derive(Debug)]
struct Missing;

impl Object for Missing {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

pub fn is_given(value: &Value) -> bool {
    value.downcast_object_ref::<Missing>().is_none()
}

impl Macro {
    pub fn value(name: Option<String>, inner: Value, parameters: Vec<String>, takes: Takes) -> Result<Value, Error> {
        // It keeps a closure of its own.
        run::make(32 * VALUE)?;
        Ok(Value::from_object(Macro { name, inner, parameters, takes }))
    }

    fn call(&self, state: &State, args: Args) -> Result<Value, Error> {
        let Args { positional, named } = args;
        let name = self.name.as_deref().unwrap_or("caller");
        let count = self.parameters.len();
        let mut named: Vec<(String, Option<Value>)> = named.into_iter().map(|(name, value)| (name, Some(value))).collect();
        let mut take =
            |wanted: &str| named.iter_mut().find(|(name, value)| name == wanted && value.is_some()).and_then(|(_, value)| value.take());
        let missing = || Value::from_object(Missing);
        let mut values: Vec<Value> = positional.iter().take(count).cloned().collect();
        for parameter in self.parameters.iter().skip(values.len()) {
            values.push(take(parameter).unwrap_or_else(missing));
        }
        let caller = if self.takes.caller { take("caller") } else { None };
        let left: Vec<(String, Value)> = named.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect();
        let extra = positional.get(count..).unwrap_or_default();
        if let (Some((unknown, _)), false) = (left.first(), self.takes.kwargs) {
            return raise(format!("macro '{name}' takes no keyword argument '{unknown}'"));
        }
        if !extra.is_empty() && !self.takes.varargs {
            return raise(format!("macro '{name}' takes not more than {count} argument(s)"));
        }
        values.push(caller.unwrap_or(Value::UNDEFINED));
        values.push(if self.takes.varargs { tuple(extra.to_vec())? } else { Value::UNDEFINED });
        values.push(if self.takes.kwargs { dict_of(left)? } else { Value::UNDEFINED });
        run::make(VALUE * values.len())?;
        let text = self.inner.call(state, &values)?;
        run::make(text.as_str().map_or(0, str::len))?;
        Ok(text)
    }
}

impl Object for Macro {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

fn dict_of(pairs: Vec<(String, Value)>) -> Result<Value, Error> {
    Ok(Value::from_object(Dict::of_texts(pairs.into_iter().map(|(name, value)| (Value::from(name), value)).collect())?))
}

/// `text.upper`, not called yet.
#[derive(Debug)]
pub struct Method {
    pub of: Value,
    pub name: String,
}

impl Method {
    pub fn bound(of: &Value, name: &str) -> Value {
        Value::from_object(Method { of: of.clone(), name: name.to_string() })
    }
}

impl Object for Method {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// What transformers gives to every template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    Range,
    Dict,
    Namespace,
    RaiseException,
    /// Seconds since 1970, UTC.
    StrftimeNow(i64),
    Unsupported(&'static str),
}

impl Function {
    /// Those of every environment of Jinja2.
    pub const COMMON: &[(&'static str, Function)] = &[
        ("range", Function::Range),
        ("dict", Function::Dict),
        ("namespace", Function::Namespace),
        ("lipsum", Function::Unsupported("`lipsum`, which draws random numbers")),
        ("cycler", Function::Unsupported("`cycler`")),
        ("joiner", Function::Unsupported("`joiner`")),
    ];

    fn call(self, state: &State, args: Args) -> Result<Value, Error> {
        match self {
            Function::Range => range(args),
            Function::Dict => dict(state, args).map(Value::from_object),
            Function::Namespace => {
                let namespace = Namespace::default();
                run::make(8 * VALUE)?;
                for (name, value) in pairs(state, args)? {
                    let Some(name) = name.as_str() else { return unsupported("a namespace with names that are not texts") };
                    namespace.set(name, value)?;
                }
                Ok(Value::from_object(namespace))
            }
            Function::RaiseException => {
                let [message] = args.bind("raise_exception", ["message"], 1)?;
                let message = message.map_or_else(|| Ok(String::new()), |message| str(&message))?;
                Err(Fault::Raised(message.chars().take(500).collect()).into())
            }
            Function::StrftimeNow(seconds) => {
                let [format] = args.bind("strftime_now", ["format"], 1)?;
                let format = format.as_ref().and_then(Value::as_str).map_or_else(|| raise("strftime_now() wants a text"), Ok)?;
                super::value::text(super::date::strftime(seconds, format)?)
            }
            Function::Unsupported(what) => unsupported(what),
        }
    }
}

impl Object for Function {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// A sandbox has none that is longer.
const MAX_RANGE: usize = 100_000;

fn range(args: Args) -> Result<Value, Error> {
    let [first, second, step] = args.bind("range", ["", "", ""], 1)?;
    let number = |value: &Value| match py(value).int() {
        // Nothing is lost: longer ones are refused.
        Some(number) if number.unsigned_abs() < 1 << 100 => Ok(number),
        Some(_) => unsupported("a range of such numbers"),
        None => raise(format!("'{}' object cannot be interpreted as an integer", py(value).noun())),
    };
    let first = first.as_ref().map_or(Ok(0), number)?;
    let (start, stop) = match &second {
        Some(stop) => (first, number(stop)?),
        None => (0, first),
    };
    let step = step.as_ref().map_or(Ok(1), number)?;
    if step == 0 {
        return raise("range() arg 3 must not be zero");
    }
    let range = Range { start, stop, step };
    if range.len() > MAX_RANGE {
        return raise(format!("Range too big. The sandbox blocks ranges larger than MAX_RANGE ({MAX_RANGE})."));
    }
    Ok(Value::from_object(range))
}

fn dict(state: &State, args: Args) -> Result<Dict, Error> {
    Dict::new(pairs(state, args)?)
}

/// The pairs that `dict(…)` is given.
fn pairs(state: &State, args: Args) -> Result<Vec<(Value, Value)>, Error> {
    let mut pairs = Vec::new();
    if args.positional.len() > 1 {
        return raise(format!("dict expected at most 1 argument, got {}", args.positional.len()));
    }
    if let Some(of) = args.positional.first() {
        match py(of) {
            Py::Dict(dict) => {
                run::make(2 * VALUE * dict.entries().len())?;
                pairs.extend(dict.entries().iter().cloned());
            }
            Py::Undefined => return unsupported("`dict` of something undefined"),
            Py::Namespace(_) => return unsupported("`dict` of a namespace"),
            _ => {
                for item in walk(state, of)? {
                    match <[Value; 2]>::try_from(walk(state, &item)?) {
                        Ok([key, value]) => pairs.push((key, value)),
                        Err(_) => return raise("dictionary update sequence element has not the length 2"),
                    }
                }
            }
        }
    }
    pairs.extend(args.named.into_iter().map(|(name, value)| (Value::from(name), value)));
    Ok(pairs)
}

/// `callee(…)`.
pub fn call(state: &State, callee: &Value, args: Args) -> Result<Value, Error> {
    match py(callee) {
        Py::Macro(made) => made.call(state, args),
        Py::Method(method) => call_method(state, &method.of, &method.name, args),
        Py::Function(function) => function.call(state, args),
        Py::Undefined => raise("what is called is undefined"),
        Py::Loop(_) => unsupported("a loop that is called in an expression, or not in its own body"),
        other => raise(format!("'{}' object is not callable", other.noun())),
    }
}

/// `of.name(…)` where `name` is known to be a method.
fn call_method(state: &State, of: &Value, name: &str, args: Args) -> Result<Value, Error> {
    match py(of) {
        Py::Loop(looped) => match name {
            "cycle" => {
                let index = looped.get_attr("index0")?.as_usize().unwrap_or(0);
                match args.positional.len() {
                    0 => raise("no items for cycling given"),
                    count => Ok(args.positional.get(index % count).cloned().unwrap_or_default()),
                }
            }
            _ => changed(state, looped, &args),
        },
        _ => methods::call(state, of, name, args),
    }
}

/// The engine compares what it is given with what it was given last: the keys, since equal values have equal ones.
fn changed(state: &State, looped: &Value, args: &Args) -> Result<Value, Error> {
    let keys: Vec<super::value::Key> = args.positional.iter().map(super::value::Key::of).collect::<Result<_, _>>()?;
    let key = format!("{keys:?}");
    run::make(key.len())?;
    looped.call_method(state, "changed", &[Value::from(key)])
}

/// `of.name(…)`.
pub fn call_attribute(state: &State, of: &Value, name: &str, args: Args) -> Result<Value, Error> {
    if let (Py::Str(_), methods::Attribute::Method) = (py(of), methods::find(py(of), name)) {
        return methods::call(state, of, name, args);
    }
    if let (Py::Dict(_), methods::Attribute::Method) = (py(of), methods::find(py(of), name)) {
        return methods::call(state, of, name, args);
    }
    let callee = super::access::attribute(of, name)?;
    if callee.is_undefined() {
        return raise(format!("a {} has no method `{name}`", py(of).noun()));
    }
    call(state, &callee, args)
}

/// A list of names as the engine keeps it.
pub fn texts(value: &Value) -> Vec<String> {
    let items = value.try_iter().into_iter().flatten();
    items.filter_map(|item| item.as_str().map(str::to_string)).collect()
}

/// `len(…)`, which not everything has.
pub fn length_of(value: &Value) -> Result<usize, Error> {
    match length(value)? {
        Some(length) => Ok(length),
        None => raise(format!("object of type '{}' has no len()", py(value).noun())),
    }
}
