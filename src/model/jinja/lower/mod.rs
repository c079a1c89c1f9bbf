//! A parsed template → the same template in which operators, attributes, filters, tests and calls are calls of this folder's functions, and names are numbers. What minijinja does otherwise than Jinja2
//! with names and scopes is evened out here (`statements`, `scopes`); what cannot be is refused by name.

mod expressions;
mod literal;
mod scopes;
mod statements;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use minijinja::machinery::{Span, ast};
use minijinja::value::Value;

use super::Problem;
use super::operate::{Operator, Relation};
use super::{filters, tests};

pub type Expr = ast::Expr<'static>;
pub type Stmt = ast::Stmt<'static>;

/// Names in one template.
const MAX_NAMES: usize = 4096;

/// Words for the engine: they outlive every template, so that what is compiled can, too.
pub struct Slots {
    pub names: Vec<String>,
    pub filters: Vec<String>,
    pub tests: Vec<String>,
}

pub static SLOTS: LazyLock<Slots> = LazyLock::new(|| Slots {
    names: (0..MAX_NAMES).map(|slot| slot.to_string()).collect(),
    filters: (0..filters::count()).map(|place| format!("|{place}")).collect(),
    tests: (0..tests::count()).map(|place| format!("is:{place}")).collect(),
});

pub const OPERATORS: &[(&str, Operator)] = &[
    ("+", Operator::Add),
    ("-", Operator::Sub),
    ("*", Operator::Mul),
    ("/", Operator::Div),
    ("//", Operator::FloorDiv),
    ("%", Operator::Rem),
    ("**", Operator::Pow),
];

pub const RELATIONS: &[(&str, Relation)] = &[
    ("==", Relation::Eq),
    ("!=", Relation::Ne),
    ("<", Relation::Lt),
    ("<=", Relation::Le),
    (">", Relation::Gt),
    (">=", Relation::Ge),
    ("in", Relation::In),
    ("not-in", Relation::NotIn),
];

/// Further functions of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Attribute,
    Item,
    Slice,
    CallMethod,
    Call,
    Negate,
    Concatenate,
    List,
    Tuple,
    Dict,
    Named,
    Spread,
    Iterate,
    Unpack,
    SetAttribute,
    Macro,
    IsGiven,
    Chain,
    Generation,
    Flag,
    Raise,
    Refuse,
}

impl Op {
    /// No filter of a template is called so.
    pub const fn name(self) -> &'static str {
        match self {
            Op::Attribute => ".",
            Op::Item => "[]",
            Op::Slice => "[:]",
            Op::CallMethod => ".()",
            Op::Call => "()",
            Op::Negate => "-:",
            Op::Concatenate => "~",
            Op::List => "[,]",
            Op::Tuple => "(,)",
            Op::Dict => "{,}",
            Op::Named => "=,",
            Op::Spread => "*,",
            Op::Iterate => "for:",
            Op::Unpack => "set:",
            Op::SetAttribute => ".=",
            Op::Macro => "macro:",
            Op::IsGiven => "given:",
            Op::Chain => "<<",
            Op::Generation => "generation:",
            Op::Flag => "flag:",
            Op::Raise => "raise:",
            Op::Refuse => "refuse:",
        }
    }
}

/// What is given to the engine's compiler.
pub struct Lowered {
    pub statements: Vec<Stmt>,
    pub expression: Option<Expr>,
    pub names: BTreeMap<String, usize>,
    pub has_generation: bool,
}

impl Lowered {
    pub fn template(source: &str, parsed: &ast::Stmt) -> Result<Lowered, Problem> {
        let mut lower = Lower::new(source);
        let ast::Stmt::Template(template) = parsed else { return Err(Problem::malformed("it is no template")) };
        let statements = lower.scope(&template.children, &[])?;
        Ok(lower.finish(statements, None))
    }

    pub fn expression(source: &str, parsed: &ast::Expr) -> Result<Lowered, Problem> {
        let mut lower = Lower::new(source);
        let expression = lower.expr(parsed)?;
        Ok(lower.finish(Vec::new(), Some(expression)))
    }
}

/// What encloses a statement, from outside to inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Around {
    Loop {
        recursive: bool,
    },
    /// Names that are set within are gone behind it.
    Scope,
    Macro,
    /// The body of a `{% call %}`.
    Caller,
}

struct Lower<'s> {
    source: &'s str,
    names: BTreeMap<String, usize>,
    around: Vec<Around>,
    /// The names that each enclosing scope knows.
    levels: Vec<std::collections::BTreeSet<String>>,
    /// Whether what is unknown may be an error only when it is reached.
    is_soft: bool,
    has_generation: bool,
}

impl<'s> Lower<'s> {
    fn new(source: &'s str) -> Lower<'s> {
        Lower { source, names: BTreeMap::new(), around: Vec::new(), levels: Vec::new(), is_soft: false, has_generation: false }
    }

    fn finish(self, statements: Vec<Stmt>, expression: Option<Expr>) -> Lowered {
        Lowered { statements, expression, names: self.names, has_generation: self.has_generation }
    }

    /// The number of a name.
    fn slot(&mut self, name: &str, span: Span) -> Result<&'static str, Problem> {
        let next = self.names.len();
        let place = *self.names.entry(name.to_string()).or_insert(next);
        match SLOTS.names.get(place) {
            Some(slot) => Ok(slot),
            None => Err(Problem::too_much(format!("it has more than {MAX_NAMES} names")).at(line(span))),
        }
    }

    /// A name that no template can write.
    fn temporary(&mut self, span: Span) -> Result<&'static str, Problem> {
        let name = format!(" {}", self.names.len());
        self.slot(&name, span)
    }

    fn text(&self, span: Span) -> &'s str {
        self.source.get(span.start_offset as usize..span.end_offset as usize).unwrap_or_default()
    }

    /// Whether the template's text at a place begins with this letter.
    fn begins_with(&self, span: Span, letter: char) -> bool {
        self.source.get(span.start_offset as usize..).is_some_and(|text| text.starts_with(letter))
    }

    /// Whether `loop` is the engine's here.
    fn has_loop(&self) -> bool {
        let is_loop = |around: &Around| matches!(around, Around::Loop { .. });
        self.around.iter().rev().take_while(|around| **around != Around::Macro).any(is_loop)
    }

    fn unsupported<T>(&self, what: impl Into<String>, span: Span) -> Result<T, Problem> {
        Err(Problem::unsupported(what).at(line(span)))
    }
}

fn line(span: Span) -> usize {
    usize::from(span.start_line)
}

fn spanned<T>(node: T, span: Span) -> ast::Spanned<T> {
    ast::Spanned::new(node, span)
}

fn constant(value: impl Into<Value>, span: Span) -> Expr {
    ast::Expr::Const(spanned(ast::Const { value: value.into() }, span))
}

fn variable(slot: &'static str, span: Span) -> Expr {
    ast::Expr::Var(spanned(ast::Var { id: slot }, span))
}

fn items(items: Vec<Expr>, span: Span) -> Expr {
    ast::Expr::List(spanned(ast::List { items }, span))
}

/// A call of one of the engine's functions.
fn apply(name: &'static str, of: Expr, args: Vec<Expr>, span: Span) -> Expr {
    let args = args.into_iter().map(ast::CallArg::Pos).collect();
    ast::Expr::Filter(spanned(ast::Filter { name, expr: Some(of), args }, span))
}
