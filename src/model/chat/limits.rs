//! What a template may make and read. minijinja counts instructions, but a single one can double a text, or compare lists whose parts are shared a thousand times over. So what instructions,
//! filters and tests make or read is weighed against an allowance first: the template is compiled, and those of its instructions that make, keep or read values become calls of the functions
//! below, whose names no template can write. What is too deep for the stack is refused: nested values, and expressions of too many terms.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use minijinja::machinery::{
    CompiledTemplate, Instruction, Instructions, TemplateConfig, Token, Vm, WhitespaceConfig, make_string_output, tokenize,
};
use minijinja::value::{Object, ObjectRepr, Rest, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Expression, State, UndefinedBehavior, context};

/// Bytes of all values together that one conversation may make; most are gone again soon.
const ALLOWANCE: u64 = 256 << 20;
/// Of a value, beside its text.
const VALUE: u64 = 32;
/// Bytes read for one that is made.
const READING: u64 = 16;
const MAX_NESTED: usize = 32;
/// Instructions of the template engine, some hundred a message: about a second.
const MAX_INSTRUCTIONS: u64 = 5_000_000;
/// Bytes of a name, times how often it may be looked up.
const MAX_NAMES: u64 = 1 << 30;
/// Operators, dots, pipes and brackets in one tag, and `elif`s in a template: the engine goes one call deeper for each.
pub const MAX_TERMS: usize = 500;

/// Filters that go through all of what they are given.
const DEEP: [&str; 28] = [
    "capitalize",
    "dictsort",
    "e",
    "escape",
    "groupby",
    "indent",
    "join",
    "lines",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "safe",
    "select",
    "selectattr",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "trim",
    "unique",
    "upper",
    "int",
    "float",
];
/// And those that look at the outside, or the text.
const FLAT: [&str; 13] = ["abs", "attr", "bool", "count", "d", "default", "first", "items", "last", "length", "list", "reverse", "round"];
/// What `map` may call.
const MAPPED: [&str; 10] = ["capitalize", "first", "int", "last", "length", "lower", "string", "title", "trim", "upper"];
/// They can fill memory with one call, and no template needs them.
const REFUSED: [&str; 6] = ["batch", "chain", "format", "pprint", "slice", "zip"];
const COMPARING: [&str; 21] = [
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
    "le",
    "lessthan",
    "lower",
    "lt",
    "ne",
    "sameas",
    "startingwith",
    "upper",
];

/// How much a conversation has made so far.
#[derive(Debug, Default)]
struct Made(AtomicU64);

impl Object for Made {}

impl Made {
    fn of(state: &State) -> Arc<Made> {
        state.get_or_set_temp_object(" made", Made::default)
    }

    fn add(&self, weight: u64) -> Result<(), Error> {
        let before = self.0.fetch_add(weight, Ordering::Relaxed);
        if before.saturating_add(weight) > ALLOWANCE {
            return Err(refused(format!("it makes more than {} MiB of texts and lists", ALLOWANCE >> 20)));
        }
        Ok(())
    }

    /// Counts a value and all that is in it, what is shared as often as it stands there; returns the weight.
    fn weigh(&self, value: &Value) -> Result<u64, Error> {
        self.weigh_nested(value, 0, |text| text.len() as u64)
    }

    /// Texts in lists are shared, not made.
    fn shape(&self, value: &Value) -> Result<u64, Error> {
        self.weigh_nested(value, 0, |_| 0)
    }

    fn read(&self, value: &Value) -> Result<(), Error> {
        match value.as_str() {
            Some(text) => self.add(text.len() as u64 / READING),
            None => self.weigh_nested(value, 0, |text| text.len() as u64 / READING).map(drop),
        }
    }

    fn weigh_nested(&self, value: &Value, depth: usize, text: fn(&str) -> u64) -> Result<u64, Error> {
        if depth > MAX_NESTED {
            return Err(refused(format!("its values are nested more than {MAX_NESTED} deep")));
        }
        let mut weight = VALUE + value.as_str().map_or(0, text);
        self.add(weight)?;
        let Some(object) = value.as_object() else { return Ok(weight) };
        match object.repr() {
            ObjectRepr::Map => {
                for key in value.try_iter()? {
                    weight += self.weigh_nested(&key, depth + 1, text)? + self.weigh_nested(&value.get_item(&key)?, depth + 1, text)?;
                }
            }
            ObjectRepr::Seq | ObjectRepr::Iterable => {
                for item in value.try_iter()? {
                    weight += self.weigh_nested(&item, depth + 1, text)?;
                }
            }
            // A macro holds what it was made with, however deep that is.
            _ => return Err(refused("a macro, a function or a loop is used as a value".to_string())),
        }
        Ok(weight)
    }

    /// What the engine would make anew each time that it is looked at is made once.
    fn made(&self, value: Value) -> Result<Value, Error> {
        match value.as_str() {
            Some(_) => self.weigh(&value)?,
            None => self.shape(&value)?,
        };
        match value.as_object().map(|object| object.repr()) {
            Some(ObjectRepr::Iterable) => Ok(value.try_iter()?.collect()),
            _ => Ok(value),
        }
    }
}

fn refused(why: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, why)
}

/// Compiles a template; how many instructions it may run.
pub fn check(source: &str) -> Result<u64, Error> {
    let (mut terms, mut elifs, mut name) = (0, 0, 1);
    for token in tokenize(source, false, Default::default(), WHITESPACE) {
        match token?.0 {
            Token::VariableStart | Token::BlockStart => terms = 0,
            Token::Ident(word) => {
                name = name.max(word.len() as u64);
                match word {
                    "elif" => elifs += 1,
                    "and" | "or" | "not" | "in" | "is" | "if" | "else" => terms += 1,
                    _ => {}
                }
            }
            Token::TemplateData(_) | Token::VariableEnd | Token::BlockEnd => {}
            // They separate what is beside each other.
            Token::Comma | Token::Colon | Token::Assign | Token::Str(_) | Token::String(_) => {}
            Token::Int(_) | Token::Int128(_) | Token::Float(_) => {}
            Token::BracketClose | Token::ParenClose | Token::BraceClose | Token::BraceOpen => {}
            _ => terms += 1,
        }
        if terms.max(elifs) > MAX_TERMS {
            return Err(refused(format!("an expression has more than {MAX_TERMS} operators, or the template as many `elif`s")));
        }
    }
    let template = compile(source)?;
    for part in std::iter::once(&template.instructions).chain(template.blocks.values()) {
        for at in 0..part.len() as u32 {
            match part.get(at) {
                Some(Instruction::CompareAndPreserve(_)) => {
                    return Err(refused("comparisons in a row, such as `a < b < c`, are not supported".to_string()));
                }
                Some(Instruction::CallMethod("changed", _)) => return Err(refused("`changed` is not supported".to_string())),
                _ => {}
            }
        }
    }
    Ok(MAX_INSTRUCTIONS.min(MAX_NAMES / name))
}

/// `environment` must have been [`limit`]ed.
pub fn render(environment: &Environment, source: &str, context: Value) -> Result<String, Error> {
    let mut template = compile(source)?;
    for part in std::iter::once(&mut template.instructions).chain(template.blocks.values_mut()) {
        *part = weighed(part)?;
    }
    let mut text = String::new();
    let mut out = make_string_output(&mut text);
    Vm::new(environment).eval(&template.instructions, context, &template.blocks, &mut out, AutoEscape::None)?;
    Ok(text)
}

/// As transformers sets jinja up.
const WHITESPACE: WhitespaceConfig = WhitespaceConfig { keep_trailing_newline: false, lstrip_blocks: true, trim_blocks: true };

fn compile(source: &str) -> Result<CompiledTemplate<'_>, Error> {
    let config =
        TemplateConfig { syntax_config: Default::default(), ws_config: WHITESPACE, default_auto_escape: Arc::new(|_| AutoEscape::None) };
    CompiledTemplate::new("chat", source, &config)
}

/// Each call takes as much from the stack as the instruction in whose place it stands, and leaves one value.
fn weighed<'source>(instructions: &Instructions<'source>) -> Result<Instructions<'source>, Error> {
    let all = || (0..instructions.len() as u32).map_while(|at| instructions.get(at).map(|instruction| (at, instruction)));
    // Where each instruction comes to stand, and the end.
    let mut places = Vec::with_capacity(instructions.len() + 1);
    let mut place = 0;
    for (_, instruction) in all() {
        places.push(place);
        place += match instruction {
            Instruction::EmitRaw(_) | Instruction::PushLoop(_) | Instruction::CallFunction("loop", Some(1)) => 2,
            Instruction::SetAttr(_) => 4,
            _ => 1,
        };
    }
    places.push(place);
    let moved = |target: u32| places.get(target as usize).copied().ok_or_else(|| refused("a jump leads nowhere".to_string()));
    let mut out = Instructions::new(instructions.name(), instructions.source());
    for (at, instruction) in all() {
        let mut add = |instruction| match instructions.get_span(at) {
            Some(span) => out.add_with_span(instruction, span),
            None => match instructions.get_line(at).and_then(|line| u16::try_from(line).ok()) {
                Some(line) => out.add_with_line(instruction, line),
                None => out.add(instruction),
            },
        };
        let call = |name, arguments| Instruction::CallFunction(name, Some(arguments));
        let made = match instruction {
            Instruction::StringConcat => call(" ~", 2),
            Instruction::Add => call(" +", 2),
            Instruction::Mul => call(" *", 2),
            Instruction::Eq => call(" ==", 2),
            Instruction::Ne => call(" !=", 2),
            Instruction::Lt => call(" <", 2),
            Instruction::Lte => call(" <=", 2),
            Instruction::Gt => call(" >", 2),
            Instruction::Gte => call(" >=", 2),
            Instruction::In => call(" in", 2),
            Instruction::GetItem => call(" []", 2),
            Instruction::Slice => call(" [:]", 4),
            // Longer literals keep their instruction: the template has room for few of them.
            Instruction::BuildList(Some(count)) if *count < 60_000 => call(" list", *count as u16),
            Instruction::BuildMap(pairs) if *pairs < 30_000 => call(" map", 2 * *pairs as u16),
            Instruction::EmitRaw(text) => {
                add(Instruction::LoadConst(Value::from_safe_string((*text).to_string())));
                Instruction::Emit
            }
            Instruction::PushLoop(_) | Instruction::CallFunction("loop", Some(1)) => {
                add(call(" loop", 1));
                instruction.clone()
            }
            Instruction::SetAttr(name) => {
                // The namespace lies above the value.
                add(Instruction::Swap);
                add(call(" kept", 1));
                add(Instruction::Swap);
                Instruction::SetAttr(name)
            }
            Instruction::Iterate(target) => Instruction::Iterate(moved(*target)?),
            Instruction::Jump(target) => Instruction::Jump(moved(*target)?),
            Instruction::JumpIfFalse(target) => Instruction::JumpIfFalse(moved(*target)?),
            Instruction::JumpIfFalseOrPop(target) => Instruction::JumpIfFalseOrPop(moved(*target)?),
            Instruction::JumpIfTrueOrPop(target) => Instruction::JumpIfTrueOrPop(moved(*target)?),
            Instruction::BuildMacro(name, target, flags) => Instruction::BuildMacro(name, moved(*target)?, *flags),
            other => other.clone(),
        };
        add(made);
    }
    Ok(out)
}

/// minijinja without limits, for what has been weighed.
static PLAIN: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment
});

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

/// Gives an environment the functions that stand for instructions, and filters, tests and functions that weigh.
pub fn limit(environment: &mut Environment) {
    operation!(environment, "~", both);
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
        outside(&made, &of)?;
        outside(&made, &key)?;
        if key.as_object().is_some() {
            made.read(&key)?;
        }
        of.get_item(&key)
    });
    environment.add_function(" [:]", |state: &State, of: Value, start: Value, stop: Value, step: Value| -> Result<Value, Error> {
        static PLAINLY: LazyLock<Result<Expression<'static, 'static>, Error>> =
            LazyLock::new(|| PLAIN.compile_expression("of[start:stop:step]"));
        let made = Made::of(state);
        outside(&made, &of)?;
        made.made(plainly(&PLAINLY, context! { of, start, stop, step })?)
    });
    environment.add_function(" kept", |state: &State, value: Value| -> Result<Value, Error> {
        Made::of(state).shape(&value)?;
        Ok(value)
    });
    environment.add_function(" loop", |state: &State, over: Value| -> Result<Value, Error> {
        outside(&Made::of(state), &over)?;
        Ok(over)
    });
    environment
        .add_function(" list", |state: &State, items: Rest<Value>| -> Result<Value, Error> { Made::of(state).made(Value::from(items.0)) });
    environment.add_function(" map", |state: &State, pairs: Rest<Value>| -> Result<Value, Error> {
        let made = Made::of(state);
        pairs.iter().step_by(2).try_for_each(|key| made.read(key))?;
        made.made(pairs.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
    });
    environment.set_formatter(|out, state, value| {
        Made::of(state).weigh(value)?;
        minijinja::escape_formatter(out, state, value)
    });
    for name in REFUSED {
        environment.remove_filter(name);
    }
    environment.remove_global("debug");
    for name in ["dict", "namespace"] {
        environment.add_function(name, move |state: &State, arguments: Rest<Value>| -> Result<Value, Error> {
            let made = Made::of(state);
            arguments.iter().try_for_each(|value| made.shape(value).map(drop))?;
            let plain = PLAIN.empty_state();
            plain.lookup(name).ok_or_else(|| refused(format!("{name} is unknown")))?.call(&plain, &arguments)
        });
    }
    for name in DEEP.into_iter().chain(FLAT) {
        environment.add_filter(name, move |state: &State, arguments: Rest<Value>| -> Result<Value, Error> {
            let made = Made::of(state);
            let weigh = if DEEP.contains(&name) { |made: &Made, value: &Value| made.weigh(value).map(drop) } else { outside };
            arguments.iter().try_for_each(|value| weigh(&made, value))?;
            before(name, &made, &arguments)?;
            made.made(PLAIN.empty_state().apply_filter(name, &arguments)?)
        });
    }
    for name in COMPARING {
        environment.add_test(name, move |state: &State, arguments: Rest<Value>| -> Result<bool, Error> {
            let made = Made::of(state);
            // Letters are folded, which is no faster than making them.
            let fold = ["lower", "upper"].contains(&name);
            arguments.iter().try_for_each(|value| if fold { made.weigh(value).map(drop) } else { made.read(value) })?;
            PLAIN.empty_state().perform_test(name, &arguments)
        });
    }
}

/// Before a text's method makes something of it.
pub fn method(state: &State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let made = Made::of(state);
    made.weigh(value)?;
    arguments.iter().try_for_each(|value| made.read(value))?;
    before(name, &made, &[std::slice::from_ref(value), arguments].concat())?;
    made.made(super::string_method(state, value, name, arguments)?)
}

fn both(made: &Made, a: &Value, b: &Value) -> Result<(), Error> {
    made.weigh(a)?;
    made.weigh(b).map(drop)
}

/// A text is gone through, a list or a table only asked for one of its values.
fn outside(made: &Made, value: &Value) -> Result<(), Error> {
    if value.as_str().is_some() { made.read(value) } else { Ok(()) }
}

/// Numbers make nothing.
fn sum(made: &Made, a: &Value, b: &Value) -> Result<(), Error> {
    match (a.as_str(), b.as_str()) {
        (Some(_), Some(_)) => both(made, a, b),
        _ => made.shape(a).and(made.shape(b)).map(drop),
    }
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
    made.read(a)?;
    made.read(b)
}

/// What comes out longer than what went in.
fn before(name: &str, made: &Made, arguments: &[Value]) -> Result<(), Error> {
    let text = |at: usize| arguments.get(at).and_then(Value::as_str).unwrap_or_default();
    match name {
        "replace" => {
            let found = if text(1).is_empty() { text(0).len() + 1 } else { text(0).matches(text(1)).count() };
            made.add((found as u64).saturating_mul(text(2).len() as u64))
        }
        "join" => {
            let items = arguments.first().map(Value::try_iter).transpose()?.map_or(0, Iterator::count);
            made.add((items as u64).saturating_mul(text(1).len() as u64))
        }
        "indent" => {
            let width = arguments.get(1).map_or(4, |width| width.as_usize().unwrap_or(usize::MAX));
            made.add((text(0).lines().count() as u64).saturating_mul(width as u64))
        }
        "split" => {
            let parts = if text(1).is_empty() { text(0).len() } else { text(0).matches(text(1)).count() };
            made.add((parts as u64).saturating_mul(VALUE))
        }
        "lines" => made.add((text(0).lines().count() as u64).saturating_mul(VALUE)),
        "list" | "reverse" | "items" => made.add(arguments.first().and_then(Value::len).unwrap_or(0) as u64 * VALUE),
        "map" if arguments.len() > 1 && arguments[1].as_str().is_some_and(|filter| !MAPPED.contains(&filter)) => {
            Err(refused(format!("`map` of `{}` is not supported", text(1).chars().take(40).collect::<String>())))
        }
        _ => Ok(()),
    }
}
