//! minijinja's virtual machine, with this folder's functions for all that a value can do.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use minijinja::machinery::{CodeGenerator, Instructions, Vm, make_string_output, parse, parse_expr};
use minijinja::value::{Object, Rest, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State};

use super::call::{Args, Function, Macro, Takes, call, call_attribute, is_given, named, spread, texts};
use super::lower::{Lowered, OPERATORS, Op, RELATIONS, SLOTS};
use super::operate::{binary, concatenate, holds, negate, slice};
use super::run::{self, Undefined, raise, unsupported};
use super::source::{prepared, whitespace};
use super::value::{Dict, Namespace, Py, Shape, py, sequence, walk};
use super::{MARKS, Problem, Spaces, access, filters, print, tests};

/// Instructions of the engine, some hundred a message: about a second.
const MAX_INSTRUCTIONS: u64 = 5_000_000;
/// Of macros and loops within each other.
const MAX_RECURSION: usize = 120;
/// Of one rendering; a training example of this size would not fit a model.
const MAX_OUTPUT: usize = 4 << 20;

/// What a template was compiled to. All names in it are numbers.
pub struct Code {
    instructions: Instructions<'static>,
    pub names: BTreeMap<String, usize>,
    pub has_generation: bool,
}

/// Where the engine panics the template is at fault, too.
pub fn guarded<T>(run: impl FnOnce() -> Result<T, Problem>) -> Result<T, Problem> {
    let refused = || Err(Problem::unsupported("something that the template engine cannot cope with"));
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| refused())
}

/// Enough for parsing and compiling what `source` lets through.
const COMPILER_STACK: usize = 64 << 20;

/// The parser and the compiler call themselves for each term.
pub fn on_a_large_stack<T: Send>(compile: impl FnOnce() -> Result<T, Problem> + Send) -> Result<T, Problem> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(COMPILER_STACK).spawn_scoped(scope, || guarded(compile));
        let refused = || Err(Problem::unsupported("something that the template engine cannot cope with"));
        match thread {
            Ok(thread) => thread.join().unwrap_or_else(|_| refused()),
            Err(error) => Err(Problem::of_machine(format!("no thread can be started that compiles the chat template: {error}"))),
        }
    })
}

impl Code {
    pub fn template(source: &str, spaces: Spaces) -> Result<Code, Problem> {
        let source = prepared(source, spaces)?;
        let parsed = parse(&source, "template", Default::default(), whitespace(spaces)).map_err(|error| Problem::of_parser(&error))?;
        let lowered = Lowered::template(&source, &parsed)?;
        Ok(Code::of(&lowered))
    }

    /// An expression, whose value is what is left when it has run.
    pub fn expression(source: &str, spaces: Spaces) -> Result<Code, Problem> {
        let tag = prepared(&format!("{{{{ {source} }}}}"), spaces)?;
        let expression = tag.trim_start_matches("{{").trim_end_matches("}}");
        let parsed = parse_expr(expression).map_err(|error| Problem::of_parser(&error))?;
        let lowered = Lowered::expression(expression, &parsed)?;
        Ok(Code::of(&lowered))
    }

    fn of(lowered: &Lowered) -> Code {
        let mut generator = CodeGenerator::new("template", "");
        for statement in &lowered.statements {
            generator.compile_stmt(statement);
        }
        if let Some(expression) = &lowered.expression {
            generator.compile_expr(expression);
        }
        let (instructions, _) = generator.finish();
        Code { instructions, names: lowered.names.clone(), has_generation: lowered.has_generation }
    }

    fn run(&self, context: &BTreeMap<&str, Value>, out: &mut Output) -> Result<Option<Value>, Problem> {
        let mut values = vec![None; self.names.len()];
        for (name, value) in Function::COMMON.iter().map(|(name, function)| (*name, Value::from_object(*function))) {
            self.give(&mut values, name, value);
        }
        for (name, value) in context {
            self.give(&mut values, name, value.clone());
        }
        let root = Value::from_object(Root(values));
        let blocks = BTreeMap::new();
        let environment: &Environment = match run::is_strict() {
            true => &STRICT,
            false => &LENIENT,
        };
        let value = Vm::new(environment).eval(&self.instructions, root, &blocks, out, AutoEscape::None);
        value.map(|(value, _)| value).map_err(|error| Problem::of_run(&error))
    }

    fn give(&self, values: &mut [Option<Value>], name: &str, value: Value) {
        if let Some(slot) = self.names.get(name).and_then(|slot| values.get_mut(*slot)) {
            *slot = Some(value);
        }
    }

    pub fn render(&self, context: &BTreeMap<&str, Value>) -> Result<String, Problem> {
        let mut text = String::new();
        self.run(context, &mut make_string_output(&mut text))?;
        if text.len() > MAX_OUTPUT {
            return Err(Problem::too_much(format!("it makes a text of {} bytes, more than {MAX_OUTPUT}", text.len())));
        }
        Ok(text)
    }

    pub fn evaluate(&self, context: &BTreeMap<&str, Value>) -> Result<Value, Problem> {
        let mut text = String::new();
        let value = self.run(context, &mut make_string_output(&mut text))?;
        Ok(value.unwrap_or_default())
    }
}

/// The values of a template's names, by number.
#[derive(Debug)]
struct Root(Vec<Option<Value>>);

impl Object for Root {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.0.get(key.parse::<usize>().ok()?)?.clone()
    }
}

static LENIENT: LazyLock<Environment<'static>> = LazyLock::new(|| environment(Undefined::Lenient));
static STRICT: LazyLock<Environment<'static>> = LazyLock::new(|| environment(Undefined::Strict));

fn environment(undefined: Undefined) -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_debug(false);
    environment.set_fuel(Some(MAX_INSTRUCTIONS));
    environment.set_recursion_limit(MAX_RECURSION);
    environment.set_undefined_behavior(match undefined {
        Undefined::Lenient => minijinja::UndefinedBehavior::Lenient,
        Undefined::Strict => minijinja::UndefinedBehavior::Strict,
    });
    environment.set_formatter(|out, _, value| {
        if let Some(text) = value.as_str() {
            run::make(text.len())?;
            return out.write_str(text).map_err(Error::from);
        }
        out.write_str(&print::str(value)?).map_err(Error::from)
    });
    for (name, operator) in OPERATORS {
        let operator = *operator;
        environment.add_filter(*name, move |a: Value, b: Value| binary(operator, &a, &b));
    }
    for (name, relation) in RELATIONS {
        let relation = *relation;
        environment.add_filter(*name, move |state: &State, a: Value, b: Value| holds(state, &a, relation, &b));
    }
    for place in 0..filters::count() {
        environment.add_filter(SLOTS.filters[place].as_str(), move |state: &State, args: Rest<Value>| {
            let (value, rest) = subject(&args)?;
            read_texts(&args)?;
            filters::apply_at(state, place, value.clone(), Args::of(rest))
        });
    }
    for place in 0..tests::count() {
        environment.add_filter(SLOTS.tests[place].as_str(), move |state: &State, args: Rest<Value>| {
            let (value, rest) = subject(&args)?;
            read_texts(&args)?;
            tests::perform_at(state, place, value, Args::of(rest))
        });
    }
    add_operations(&mut environment);
    environment
}

fn subject(args: &[Value]) -> Result<(&Value, &[Value]), Error> {
    args.split_first().ok_or_else(|| Error::new(ErrorKind::MissingArgument, "a value is missing"))
}

/// What has no name of its own in a template.
/// Whatever a filter or a test does with texts, it may read them.
fn read_texts(values: &[Value]) -> Result<(), Error> {
    values.iter().filter_map(Value::as_str).try_for_each(|text| run::read(text.len()))
}

fn add_operations(environment: &mut Environment<'static>) {
    let mut add = |op: Op, function: fn(&State, &Value, &[Value]) -> Result<Value, Error>| {
        environment.add_filter(op.name(), move |state: &State, args: Rest<Value>| {
            let (value, rest) = subject(&args)?;
            function(state, value, rest)
        });
    };
    add(Op::Attribute, |_, of, args| access::attribute(of, first_text(args)));
    add(Op::Item, |_, of, args| access::item(of, args.first().unwrap_or(&Value::UNDEFINED)));
    add(Op::Slice, |_, of, args| match args {
        [start, stop, step] => slice(of, start, stop, step),
        _ => raise("a slice has three bounds"),
    });
    add(Op::CallMethod, |state, of, args| match args.split_first() {
        Some((name, args)) => call_attribute(state, of, name.as_str().unwrap_or_default(), Args::of(args)),
        None => raise("a method has a name"),
    });
    add(Op::Call, |state, callee, args| call(state, callee, Args::of(args)));
    add(Op::Negate, |_, value, _| negate(value));
    add(Op::Concatenate, |_, first, rest| concatenate(&[std::slice::from_ref(first), rest].concat()));
    add(Op::List, |_, items, _| sequence(Shape::List, plain(items)));
    add(Op::Tuple, |_, items, _| sequence(Shape::Tuple, plain(items)));
    add(Op::Dict, |_, items, _| {
        let pair = |pair: &[Value]| match pair {
            [key, value] => Some((key.clone(), value.clone())),
            _ => None,
        };
        Ok(Value::from_object(Dict::new(plain(items).chunks(2).filter_map(pair).collect())?))
    });
    add(Op::Named, |_, parts, _| named(&plain(parts)));
    add(Op::Spread, |state, parts, _| spread(state, &plain(parts)));
    add(Op::Iterate, iterate);
    add(Op::Unpack, |state, value, args| unpack(state, value, args.first().unwrap_or(&Value::UNDEFINED)));
    add(Op::SetAttribute, |_, namespace, args| match (py(namespace), args) {
        (Py::Namespace(namespace), [name, value]) => {
            namespace.set(name.as_str().unwrap_or_default(), value.clone())?;
            Ok(Value::UNDEFINED)
        }
        _ => raise("cannot assign attribute on non-namespace object"),
    });
    add(Op::Macro, |_, inner, args| match args {
        [name, parameters, takes] => {
            let takes = Takes::of_bits(takes.as_usize().unwrap_or(0));
            Macro::value(name.as_str().map(str::to_string), inner.clone(), texts(parameters), takes)
        }
        _ => raise("a macro has a name"),
    });
    add(Op::IsGiven, |_, value, _| Ok(Value::from(is_given(value))));
    add(Op::Chain, |state, first, rest| {
        let mut left = first;
        for part in rest.chunks(2) {
            let [relation, right] = part else { return raise("a comparison has two sides") };
            let relation = relation.as_usize().and_then(|place| RELATIONS.get(place)).map(|(_, relation)| *relation);
            let Some(relation) = relation else { return raise("no such comparison") };
            if !holds(state, left, relation, right)? {
                return Ok(Value::from(false));
            }
            left = right;
        }
        Ok(Value::from(true))
    });
    add(Op::Generation, |_, text, _| match (run::is_marked(), text.as_str()) {
        (true, Some(text)) => super::value::text(format!("{}{text}{}", MARKS[0], MARKS[1])),
        _ => Ok(text.clone()),
    });
    add(Op::Flag, |_, _, _| Ok(Value::from_object(Namespace::default())));
    add(Op::Raise, |_, why, _| raise(why.as_str().unwrap_or_default()));
    add(Op::Refuse, |_, what, _| unsupported(what.as_str().unwrap_or_default()));
}

fn first_text(args: &[Value]) -> &str {
    args.first().and_then(Value::as_str).unwrap_or_default()
}

/// A list of the engine's own.
fn plain(items: &Value) -> Vec<Value> {
    match items.downcast_object_ref::<Vec<Value>>() {
        Some(items) => items.clone(),
        None => items.try_iter().into_iter().flatten().collect(),
    }
}

/// What a loop walks over, all of it; items that are to be unpacked are.
fn iterate(state: &State, over: &Value, args: &[Value]) -> Result<Value, Error> {
    let items = match py(over) {
        Py::Stream(stream) => stream.looped(state)?,
        Py::Items(_) if args.is_empty() => return Ok(over.clone()),
        _ => walk(state, over)?,
    };
    let items = match args.first() {
        Some(pattern) => items.iter().map(|item| unpack(state, item, pattern)).collect::<Result<_, _>>()?,
        None => items,
    };
    Ok(Value::from(items))
}

/// A value as the list of parts that a pattern has names for: a number for a name, a list for several.
fn unpack(state: &State, value: &Value, pattern: &Value) -> Result<Value, Error> {
    let Some(patterns) = pattern.downcast_object_ref::<Vec<Value>>() else { return Ok(value.clone()) };
    let parts = walk(state, value)?;
    if parts.len() != patterns.len() {
        return raise(format!("{} values to unpack, not {}", parts.len(), patterns.len()));
    }
    let parts = parts.iter().zip(patterns).map(|(part, pattern)| unpack(state, part, pattern)).collect::<Result<Vec<_>, _>>()?;
    Ok(Value::from(parts))
}
