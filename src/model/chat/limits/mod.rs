//! A template comes with a model, from anyone. minijinja counts instructions, but a single one can double a text, compare lists whose parts are shared a thousand times over, or go as deep as
//! the stack. So a template says only what templates for chats need to say ([`subset`]), and what instructions, filters and tests make or read is weighed against an allowance first: the
//! template is compiled, and those of its instructions that make, keep or read values become calls ([`rewrite`]) of functions ([`library`]) whose names no template can write.

mod library;
mod rewrite;
mod subset;
mod weigh;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use minijinja::machinery::{CompiledTemplate, TemplateConfig, Vm, WhitespaceConfig, make_string_output};
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind};

pub use library::{limit, method};
#[cfg(test)]
pub use subset::MAX_TERMS;

/// Instructions of the template engine, some hundred a message: about a second.
pub const MAX_INSTRUCTIONS: u64 = 5_000_000;

/// As transformers sets jinja up.
const WHITESPACE: WhitespaceConfig = WhitespaceConfig { keep_trailing_newline: false, lstrip_blocks: true, trim_blocks: true };

pub fn check(source: &str) -> Result<(), Error> {
    guarded(|| {
        subset::says(source)?;
        subset::does(&compile(source)?)
    })
}

/// `environment` must have been [`limit`]ed, `source` [`check`]ed.
pub fn render(environment: &Environment, source: &str, context: Value) -> Result<String, Error> {
    guarded(|| {
        let mut template = compile(source)?;
        template.instructions = rewrite::weighed(&template.instructions)?;
        let mut text = String::new();
        let mut out = make_string_output(&mut text);
        Vm::new(environment).eval(&template.instructions, context, &template.blocks, &mut out, AutoEscape::None)?;
        Ok(text)
    })
}

/// Where the engine panics the template is at fault, too.
fn guarded<T>(run: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(refused("the template engine cannot cope with it".to_string())))
}

fn compile(source: &str) -> Result<CompiledTemplate<'_>, Error> {
    let default_auto_escape = Arc::new(|_: &str| AutoEscape::None);
    CompiledTemplate::new("chat", source, &TemplateConfig { syntax_config: Default::default(), ws_config: WHITESPACE, default_auto_escape })
}

fn refused(why: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, why)
}
