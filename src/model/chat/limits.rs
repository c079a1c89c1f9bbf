//! What a template may make. minijinja counts instructions, but a single one can double a text, or compare lists whose parts are shared a thousand times over. So what instructions and filters
//! make is weighed against an allowance before it is made: the template is compiled, and those of its instructions that make or compare values become calls of the functions below, whose
//! names no template can write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use minijinja::machinery::{CompiledTemplate, Instruction, Instructions, TemplateConfig, Vm, WhitespaceConfig, make_string_output};
use minijinja::value::{Object, ObjectRepr, Rest, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Expression, State, UndefinedBehavior, context};

/// Bytes of all values together that one conversation may make; most are gone again soon.
const ALLOWANCE: u64 = 256 << 20;
/// Of a value, beside its text.
const VALUE: u64 = 32;
const MAX_NESTED: usize = 32;
/// Instructions of the template engine, some hundred a message: about a second.
const MAX_INSTRUCTIONS: u64 = 20_000_000;
/// Bytes of the template's own text that may be repeated.
const MAX_REPEATED: u64 = 1 << 30;

/// Filters whose work grows with what they are given, and those that only make something of about its size.
const HEAVY: [&str; 11] = ["dictsort", "join", "map", "max", "min", "replace", "sort", "string", "sum", "unique", "groupby"];
const MAKING: [&str; 18] = [
    "capitalize",
    "indent",
    "items",
    "lines",
    "list",
    "lower",
    "reject",
    "rejectattr",
    "reverse",
    "select",
    "selectattr",
    "split",
    "title",
    "trim",
    "upper",
    "escape",
    "e",
    "first",
];
/// What `map` may call.
const MAPPED: [&str; 10] = ["capitalize", "first", "int", "last", "length", "lower", "string", "title", "trim", "upper"];
/// They can fill memory with one call, and no template needs them.
const REFUSED: [&str; 6] = ["batch", "chain", "format", "pprint", "slice", "zip"];
const COMPARING: [&str; 16] =
    ["eq", "equalto", "==", "ne", "!=", "lt", "lessthan", "<", "le", "<=", "gt", "greaterthan", ">", "ge", ">=", "in"];

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
        self.weigh_nested(value, 0)
    }

    fn weigh_nested(&self, value: &Value, depth: usize) -> Result<u64, Error> {
        if depth > MAX_NESTED {
            return Err(refused(format!("its values are nested more than {MAX_NESTED} deep")));
        }
        let mut weight = VALUE + value.as_str().map_or(0, str::len) as u64;
        self.add(weight)?;
        let Some(object) = value.as_object() else { return Ok(weight) };
        match object.repr() {
            ObjectRepr::Map => {
                for key in value.try_iter()? {
                    weight += self.weigh_nested(&key, depth + 1)? + self.weigh_nested(&value.get_item(&key)?, depth + 1)?;
                }
            }
            ObjectRepr::Seq | ObjectRepr::Iterable => {
                for item in value.try_iter()? {
                    weight += self.weigh_nested(&item, depth + 1)?;
                }
            }
            _ => {}
        }
        Ok(weight)
    }
}

fn refused(why: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, why)
}

/// Compiles a template; how many instructions it may run.
pub fn check(source: &str) -> Result<u64, Error> {
    let template = compile(source)?;
    let parts = std::iter::once(&template.instructions).chain(template.blocks.values());
    let texts = parts.flat_map(|part| (0..part.len() as u32).filter_map(|at| part.get(at))).map(|instruction| match instruction {
        Instruction::EmitRaw(text) => text.len() as u64,
        _ => 1,
    });
    Ok(MAX_INSTRUCTIONS.min(MAX_REPEATED / texts.max().unwrap_or(1).max(1)))
}

/// `environment` must have been [`limit`]ed.
pub fn render(environment: &Environment, source: &str, context: Value) -> Result<String, Error> {
    let mut template = compile(source)?;
    std::iter::once(&mut template.instructions).chain(template.blocks.values_mut()).for_each(weighed);
    let mut text = String::new();
    let mut out = make_string_output(&mut text);
    Vm::new(environment).eval(&template.instructions, context, &template.blocks, &mut out, AutoEscape::None)?;
    Ok(text)
}

fn compile(source: &str) -> Result<CompiledTemplate<'_>, Error> {
    // As transformers sets jinja up.
    let ws_config = WhitespaceConfig { keep_trailing_newline: false, lstrip_blocks: true, trim_blocks: true };
    let config = TemplateConfig { syntax_config: Default::default(), ws_config, default_auto_escape: Arc::new(|_| AutoEscape::None) };
    CompiledTemplate::new("chat", source, &config)
}

/// Each call takes as much from the stack as the instruction in whose place it stands, and leaves one value.
fn weighed(instructions: &mut Instructions) {
    for at in 0..instructions.len() as u32 {
        let Some(instruction) = instructions.get_mut(at) else { return };
        let (name, arguments) = match instruction {
            Instruction::StringConcat => (" ~", 2),
            Instruction::Add => (" +", 2),
            Instruction::Mul => (" *", 2),
            Instruction::Eq => (" ==", 2),
            Instruction::Ne => (" !=", 2),
            Instruction::Lt => (" <", 2),
            Instruction::Lte => (" <=", 2),
            Instruction::Gt => (" >", 2),
            Instruction::Gte => (" >=", 2),
            Instruction::In => (" in", 2),
            Instruction::BuildList(Some(count)) => (" list", *count),
            Instruction::BuildMap(pairs) => (" map", 2 * *pairs),
            _ => continue,
        };
        // Longer literals keep their instruction: the template has room for few of them.
        if let Ok(arguments) = u16::try_from(arguments) {
            *instruction = Instruction::CallFunction(name, Some(arguments));
        }
    }
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
            weigh(&Made::of(state), &a, &b)?;
            match &*PLAINLY {
                // The place is that of the call.
                Ok(expression) => expression.eval(context! { a, b }).map_err(|error| match error.detail() {
                    Some(detail) => Error::new(error.kind(), detail.to_string()),
                    None => Error::from(error.kind()),
                }),
                Err(error) => Err(refused(error.to_string())),
            }
        });
    }};
}

/// Gives an environment the functions that stand for instructions, and filters and tests that weigh.
pub fn limit(environment: &mut Environment) {
    operation!(environment, "~", both);
    operation!(environment, "+", sum);
    operation!(environment, "*", product);
    operation!(environment, "==", lists);
    operation!(environment, "!=", lists);
    operation!(environment, "<", lists);
    operation!(environment, "<=", lists);
    operation!(environment, ">", lists);
    operation!(environment, ">=", lists);
    operation!(environment, "in", lists);
    environment.add_function(" list", |state: &State, items: Rest<Value>| -> Result<Value, Error> {
        let list = Value::from(items.0);
        Made::of(state).weigh(&list)?;
        Ok(list)
    });
    environment.add_function(" map", |state: &State, pairs: Rest<Value>| -> Result<Value, Error> {
        let made = Made::of(state);
        pairs.iter().try_for_each(|value| made.weigh(value).map(drop))?;
        Ok(pairs.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
    });
    environment.set_formatter(|out, state, value| {
        Made::of(state).weigh(value)?;
        minijinja::escape_formatter(out, state, value)
    });
    for name in REFUSED {
        environment.remove_filter(name);
    }
    environment.remove_global("debug");
    for name in HEAVY.into_iter().chain(MAKING) {
        environment.add_filter(name, move |state: &State, arguments: Rest<Value>| -> Result<Value, Error> {
            let made = Made::of(state);
            if HEAVY.contains(&name) {
                arguments.iter().try_for_each(|value| made.weigh(value).map(drop))?;
            }
            before(name, &made, &arguments)?;
            let result = PLAIN.empty_state().apply_filter(name, &arguments)?;
            made.weigh(&result)?;
            Ok(result)
        });
    }
    for name in COMPARING {
        environment.add_test(name, move |state: &State, arguments: Rest<Value>| -> Result<bool, Error> {
            let made = Made::of(state);
            arguments.iter().filter(|value| value.as_object().is_some()).try_for_each(|value| made.weigh(value).map(drop))?;
            PLAIN.empty_state().perform_test(name, &arguments)
        });
    }
}

fn both(made: &Made, a: &Value, b: &Value) -> Result<(), Error> {
    made.weigh(a)?;
    made.weigh(b).map(drop)
}

/// Numbers make nothing.
fn sum(made: &Made, a: &Value, b: &Value) -> Result<(), Error> {
    if a.is_number() && b.is_number() { Ok(()) } else { both(made, a, b) }
}

fn product(made: &Made, a: &Value, b: &Value) -> Result<(), Error> {
    let (many, of) = if a.is_number() { (a, b) } else { (b, a) };
    if of.is_number() {
        return Ok(());
    }
    let weight = made.weigh(of)?;
    made.add(weight.saturating_mul(many.as_usize().unwrap_or(1) as u64))
}

/// A text or a number is told apart from a list at once.
fn lists(made: &Made, a: &Value, b: &Value) -> Result<(), Error> {
    if a.as_object().is_some() { both(made, a, b) } else { Ok(()) }
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
        "map" if arguments.len() > 1 && arguments[1].as_str().is_some_and(|filter| !MAPPED.contains(&filter)) => {
            Err(refused(format!("`map` of `{}` is not supported", text(1).chars().take(40).collect::<String>())))
        }
        _ => Ok(()),
    }
}
