//! Jinja2 as Python runs it, on minijinja. minijinja parses, compiles and runs a template; what stands between its words means here what it means in Python: each operator, filter, test,
//! attribute and call of the parsed template becomes a call of this folder's functions ([`lower`]), which know Python's values and how Python prints them. What would come out otherwise is refused
//! by name. It knows nothing of chats.

mod access;
mod call;
mod date;
mod engine;
mod filters;
mod format;
mod json;
mod letters;
mod lower;
mod methods;
mod operate;
mod path;
mod print;
mod run;
mod source;
mod stream;
#[path = "tests.rs"]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::Arc;

use minijinja::value::Value;
use minijinja::{Error, ErrorKind};

pub use call::Function;
pub use run::Undefined;
pub use source::{MAX_TEMPLATE, MAX_TERMS};
pub use value::{Dict, Py, list, py, unsure};

/// Encloses what a `{% generation %}` block has made, if that is asked for: two of Unicode's noncharacters.
pub const MARKS: [char; 2] = ['\u{fdd0}', '\u{fdd1}'];

/// Whether line ends and indentation around blocks are cut off, and the last line end: as transformers sets Jinja2 up, or as Jinja2 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spaces {
    Trimmed,
    Kept,
}

/// How a template is read and run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    pub spaces: Spaces,
    pub undefined: Undefined,
}

/// A template, or an expression, ready to run.
#[derive(Clone)]
pub struct Program {
    code: Arc<engine::Code>,
    undefined: Undefined,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").field("undefined", &self.undefined).finish_non_exhaustive()
    }
}

impl Program {
    pub fn template(source: &str, style: Style) -> Result<Program, Problem> {
        let code = engine::on_a_large_stack(|| engine::Code::template(source, style.spaces))?;
        Ok(Program { code: Arc::new(code), undefined: style.undefined })
    }

    pub fn expression(source: &str, style: Style) -> Result<Program, Problem> {
        let code = engine::on_a_large_stack(|| engine::Code::expression(source, style.spaces))?;
        Ok(Program { code: Arc::new(code), undefined: style.undefined })
    }

    /// Whether the template asks for this name.
    pub fn names(&self, name: &str) -> bool {
        self.code.names.contains_key(name)
    }

    /// Whether parts of it are marked as what a model says.
    pub fn has_generation(&self) -> bool {
        self.code.has_generation
    }

    pub fn render(&self, context: &BTreeMap<&str, Value>) -> Result<String, Problem> {
        engine::guarded(|| run::fresh(self.undefined, false, || self.code.render(context)))
    }

    /// With [`MARKS`] around what `{% generation %}` blocks make.
    pub fn render_marked(&self, context: &BTreeMap<&str, Value>) -> Result<String, Problem> {
        engine::guarded(|| run::fresh(self.undefined, true, || self.code.render(context)))
    }

    pub fn evaluate(&self, context: &BTreeMap<&str, Value>) -> Result<Value, Problem> {
        engine::guarded(|| run::fresh(self.undefined, false, || self.code.evaluate(context)))
    }
}

/// Makes the values that a template is given, with an allowance of their own.
pub fn making<T>(make: impl FnOnce() -> T) -> T {
    run::fresh(Undefined::Lenient, false, make)
}

/// Why a template makes no text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}{}", .line.map_or(String::new(), |line| format!(" at line {line}")))]
pub struct Problem {
    pub class: Class,
    pub why: String,
    pub line: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Jinja2 cannot read it either.
    Malformed,
    /// The engine's parser cannot read it; Jinja2's may.
    Unparsed,
    /// The template itself refuses: `raise_exception`.
    Raised,
    /// Python raises an error, too.
    Failed,
    /// Jinja2 has it, this has not.
    Unsupported,
    /// A limit.
    TooMuch,
    /// The machine lacks something.
    Machine,
}

impl Problem {
    fn new(class: Class, why: impl Into<String>) -> Problem {
        Problem { class, why: why.into(), line: None }
    }

    pub(crate) fn malformed(why: impl Into<String>) -> Problem {
        Problem::new(Class::Malformed, why)
    }

    pub(crate) fn unsupported(why: impl Into<String>) -> Problem {
        Problem::new(Class::Unsupported, why)
    }

    pub(crate) fn too_much(why: impl Into<String>) -> Problem {
        Problem::new(Class::TooMuch, why)
    }

    fn of_machine(why: impl Into<String>) -> Problem {
        Problem::new(Class::Machine, why)
    }

    fn at(self, line: usize) -> Problem {
        Problem { line: self.line.or(Some(line)), ..self }
    }

    /// The engine's parser knows less than Jinja2's.
    fn of_parser(error: &Error) -> Problem {
        let why = match error.kind() {
            ErrorKind::SyntaxError => error.detail().unwrap_or("it has a syntax error").to_string(),
            kind => error.detail().map_or_else(|| kind.to_string(), str::to_string),
        };
        Problem { class: Class::Unparsed, why, line: error.line() }
    }

    /// Of values that are handed to a template.
    pub fn of_value(error: &Error) -> Problem {
        Problem::of_run(error)
    }

    fn of_run(error: &Error) -> Problem {
        let line = error.line();
        let fault = error.source().and_then(|source| source.downcast_ref::<run::Fault>());
        let (class, why) = match (fault, error.kind()) {
            (Some(run::Fault::Raised(why)), _) => (Class::Raised, why.clone()),
            (Some(run::Fault::Python(why)), _) => (Class::Failed, why.clone()),
            (Some(run::Fault::Unsupported(why)), _) => (Class::Unsupported, why.clone()),
            (Some(run::Fault::TooMuch(why)), _) => (Class::TooMuch, why.clone()),
            (None, ErrorKind::OutOfFuel) => (Class::TooMuch, "it takes too many steps".to_string()),
            (None, _) if error.detail().is_some_and(|detail| detail.contains("recursion limit")) => {
                (Class::TooMuch, "macros call each other too deeply".to_string())
            }
            (None, kind) => (Class::Failed, error.detail().map_or_else(|| kind.to_string(), str::to_string)),
        };
        Problem { class, why, line }
    }
}
