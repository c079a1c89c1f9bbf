//! Texts that may use `project`, `step` and `matrix`. Strict about names that are not there; without files, environment or clock.

use std::collections::BTreeMap;

use minijinja::{Environment, UndefinedBehavior, context};
use serde_json::Value as Json;

use super::check::{self, RawTemplate};
use crate::base::Diagnostic;
use crate::steps::{Params, Project};

const MAX_BYTES: usize = 1 << 20;

pub struct Templates {
    environment: Environment<'static>,
}

/// What a template may use.
pub struct Words<'a> {
    pub project: &'a Project,
    pub step: &'a str,
    pub kind: &'a str,
    /// By the axis's name.
    pub matrix: BTreeMap<&'a str, &'a Json>,
}

impl Default for Templates {
    fn default() -> Templates {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_keep_trailing_newline(true);
        Templates { environment }
    }
}

impl Templates {
    /// Renders the texts of `params` in place.
    pub fn render(&self, params: &mut Params, raw: &[RawTemplate], words: &Words, diagnostics: &mut Vec<Diagnostic>) {
        for template in raw {
            let Some(Json::String(text)) = check::get(params, &template.path) else { continue };
            match self.text(text, words) {
                Ok(rendered) => check::put(params, &template.path, Json::String(rendered)),
                Err(why) => diagnostics.push(
                    Diagnostic::error(format!("cannot render this text: {why}"))
                        .at(&template.place, "")
                        .help("a text may use `project`, `step` and `matrix`, as in `{{ project.name }}`"),
                ),
            }
        }
    }

    fn text(&self, text: &str, words: &Words) -> Result<String, String> {
        let context = context! {
            project => words.project,
            step => context! { name => words.step, kind => words.kind },
            matrix => &words.matrix,
        };
        let rendered = self.environment.render_str(text, context).map_err(|error| {
            let line = error.line().filter(|_| text.contains('\n')).map_or(String::new(), |line| format!(" (line {line} of the text)"));
            let place = error.range().and_then(|range| text.get(range)).map_or(String::new(), |place| format!(" `{place}`"));
            match error.detail() {
                Some(detail) => format!("{}: {detail}{line}", error.kind()),
                None => format!("{}{place}{line}", error.kind()),
            }
        })?;
        if rendered.len() > MAX_BYTES {
            return Err(format!("it becomes {} bytes long, at most {MAX_BYTES} are kept", rendered.len()));
        }
        Ok(rendered)
    }
}
