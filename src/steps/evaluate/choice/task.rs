//! What a document asks, in the words of lm-evaluation-harness's task files: `doc_to_text`, `doc_to_choice` and `doc_to_target` are names of
//! the document's fields or Jinja templates of them. It knows no tokens.

use std::collections::BTreeMap;

use minijinja::value::{Value as Any, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::chat::string_method;

/// Names of the fields that make up a task, as the manifest and the action's parameters have them.
pub const FIELDS: &[&str] =
    &["doc_to_text", "doc_to_choice", "doc_to_target", "task_description", "target_delimiter", "fewshot_delimiter", "num_fewshot"];

/// A document: one line of a set.
pub type Document = BTreeMap<String, Value>;

/// The parameters of the action `choices`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    pub doc_to_text: String,
    /// One is the name of a field or an expression; several are the choices themselves.
    pub doc_to_choice: Vec<String>,
    pub doc_to_target: String,
    #[serde(default)]
    pub task_description: String,
    pub target_delimiter: String,
    pub fewshot_delimiter: String,
    pub num_fewshot: usize,
    /// Whether the choices are scored without their context, too.
    #[serde(default)]
    pub unconditional: bool,
}

/// What is wrong with a field of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongTemplate {
    pub field: &'static str,
    pub why: String,
}

/// What a model is asked about one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub context: String,
    pub choices: Vec<String>,
    /// The choices with the delimiter before them.
    pub continuations: Vec<String>,
    pub targets: Vec<usize>,
}

impl Task {
    pub fn compile(&self) -> Result<Compiled<'_>, WrongTemplate> {
        let environment = environment();
        let source = |field, text| Source::new(&environment, text).map_err(|why| WrongTemplate { field, why });
        let task_description = source("task_description", self.task_description.as_str())?;
        let (text, target) = (source("doc_to_text", self.doc_to_text.as_str())?, source("doc_to_target", self.doc_to_target.as_str())?);
        let choice = match self.doc_to_choice.as_slice() {
            [one] => match source("doc_to_choice", one.as_str())? {
                Source::Template(_) => {
                    let why = "it must be one expression, as in `{{choices.text}}`, the name of a field, or a list".to_string();
                    return Err(WrongTemplate { field: "doc_to_choice", why });
                }
                source => Choices::Of(source),
            },
            [] => return Err(WrongTemplate { field: "doc_to_choice", why: "there is no choice".to_string() }),
            several => Choices::Fixed(several),
        };
        Ok(Compiled { task: self, environment, task_description, text, choice, target })
    }
}

/// A task whose templates are well-formed.
#[derive(Debug)]
pub struct Compiled<'a> {
    task: &'a Task,
    environment: Environment<'static>,
    task_description: Source<'a>,
    text: Source<'a>,
    choice: Choices<'a>,
    target: Source<'a>,
}

#[derive(Debug)]
enum Choices<'a> {
    Fixed(&'a [String]),
    Of(Source<'a>),
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source<'a> {
    /// Plain words: the name of a field, or, if the document has none of that name, themselves.
    Words(&'a str),
    /// A single `{{ … }}`: what stands in it, and the whole text, which may have white space around it.
    Expression(&'a str, &'a str),
    Template(&'a str),
}

impl<'a> Source<'a> {
    fn new(environment: &Environment, text: &'a str) -> Result<Source<'a>, String> {
        if !["{{", "{%", "{#"].iter().any(|mark| text.contains(mark)) {
            return Ok(Source::Words(text));
        }
        environment.template_from_str(text).map_err(|error| in_words(&error))?;
        let inner = text.trim().strip_prefix("{{").and_then(|inner| inner.strip_suffix("}}"));
        let inner = inner.map(|inner| inner.trim_matches('-').trim());
        match inner.filter(|inner| !inner.contains("}}") && environment.compile_expression(inner).is_ok()) {
            Some(inner) => Ok(Source::Expression(inner, text)),
            None => Ok(Source::Template(text)),
        }
    }
}

impl Compiled<'_> {
    /// What is asked about a document, after `num_fewshot` of the examples, itself not among them. An error goes on after "document 3 of set
    /// `easy`".
    pub fn question(&self, document: &Document, examples: &[Document]) -> Result<Question, String> {
        let mut context = match self.task_description {
            Source::Words(text) if !document.contains_key(text) => text.to_string(),
            source => self.text_of("task_description", source, document)?,
        };
        let shown: Vec<&Document> = examples.iter().filter(|example| *example != document).take(self.task.num_fewshot).collect();
        if shown.len() < self.task.num_fewshot {
            return Err(format!("can be shown {} of {} examples: `fewshot_split` has no more", shown.len(), self.task.num_fewshot));
        }
        for example in shown {
            let told = self.example(example).map_err(|why| format!("is shown an example that {why}"))?;
            context.extend([told.as_str(), &self.task.fewshot_delimiter]);
        }
        context += &self.text_of("doc_to_text", self.text, document)?;
        let choices = self.choices(document)?;
        let continuations = choices.iter().map(|choice| format!("{}{choice}", self.task.target_delimiter)).collect();
        let targets = self.targets(document, &choices)?;
        Ok(Question { context, choices, continuations, targets })
    }

    fn example(&self, document: &Document) -> Result<String, String> {
        let choices = self.choices(document)?;
        let targets = self.targets(document, &choices)?;
        let right = targets.first().and_then(|target| choices.get(*target)).ok_or("has no right choice")?;
        Ok(format!("{}{}{right}", self.text_of("doc_to_text", self.text, document)?, self.task.target_delimiter))
    }

    fn choices(&self, document: &Document) -> Result<Vec<String>, String> {
        let choices = match &self.choice {
            Choices::Fixed(choices) => choices.to_vec(),
            Choices::Of(source) => {
                let value = self.value_of("doc_to_choice", *source, document)?;
                let list = value.as_array().ok_or_else(|| format!("has no list of choices: `doc_to_choice` gives {}", noun(&value)))?;
                let text = |choice: &Value| choice.as_str().map(str::to_string).ok_or_else(|| noun(choice));
                list.iter().map(text).collect::<Result<_, _>>().map_err(|noun| format!("has a choice that is {noun}, not a text"))?
            }
        };
        match choices.len() {
            0 | 1 => Err(format!("has {} choices: there is nothing to choose", choices.len())),
            _ if choices.iter().any(String::is_empty) => Err("has an empty choice".to_string()),
            _ => Ok(choices),
        }
    }

    /// A number is a place, counted from 0, and so are digits that a template gives; any other text is a choice. A list has several right ones.
    fn targets(&self, document: &Document, choices: &[String]) -> Result<Vec<usize>, String> {
        let value = self.value_of("doc_to_target", self.target, document)?;
        let is_field = matches!(self.target, Source::Words(name) if document.contains_key(name));
        let place = |value: &Value| {
            let place = match value {
                Value::Number(number) => number.as_u64().and_then(|place| usize::try_from(place).ok()),
                Value::String(text) if !is_field && is_digits(text) => text.parse().ok(),
                Value::String(text) => choices.iter().position(|choice| choice == text),
                _ => None,
            };
            let place = place.filter(|place| *place < choices.len());
            place.ok_or_else(|| format!("has {} choices, and `doc_to_target` gives {value}", choices.len()))
        };
        match &value {
            Value::Array(targets) if targets.is_empty() => Err("has no right choice: `doc_to_target` gives an empty list".to_string()),
            Value::Array(targets) => targets.iter().map(place).collect(),
            target => place(target).map(|place| vec![place]),
        }
    }

    fn text_of(&self, field: &str, source: Source, document: &Document) -> Result<String, String> {
        match source {
            Source::Expression(_, text) | Source::Template(text) => self.render(text, document).map_err(|error| of_field(field, &error)),
            Source::Words(name) => match document.get(name) {
                Some(Value::String(text)) => Ok(text.clone()),
                Some(other) => Err(format!("has {} in `{name}`, where `{field}` wants a text", noun(other))),
                None => Err(missing(field, name, document)),
            },
        }
    }

    fn value_of(&self, field: &str, source: Source, document: &Document) -> Result<Value, String> {
        match source {
            Source::Words(name) => match document.get(name) {
                Some(value) => Ok(value.clone()),
                // A constant place.
                None if field == "doc_to_target" && is_digits(name) => Ok(name.into()),
                None => Err(missing(field, name, document)),
            },
            Source::Expression(text, _) => {
                let value = self.environment.compile_expression(text).and_then(|expression| expression.eval(document));
                let value = value.map_err(|error| of_field(field, &error))?;
                if value.is_undefined() {
                    return Err(format!("has nothing where `{field}` looks: `{text}`"));
                }
                serde_json::to_value(&value).map_err(|error| format!("has no use for `{field}`: {error}"))
            }
            Source::Template(text) => self.render(text, document).map(Value::String).map_err(|error| of_field(field, &error)),
        }
    }

    fn render(&self, template: &str, document: &Document) -> Result<String, Error> {
        self.environment.render_str(template, document)
    }
}

fn of_field(field: &str, error: &Error) -> String {
    format!("cannot fill in `{field}`: {}", in_words(error))
}

fn in_words(error: &Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()))
}

fn missing(field: &str, name: &str, document: &Document) -> String {
    let known: Vec<&str> = document.keys().take(20).map(String::as_str).collect();
    let known = if known.is_empty() { "none".to_string() } else { crate::base::suggest::listed(&known) };
    format!("has no field `{name}`, which `{field}` names; it has {known}")
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn noun(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

/// As the harness sets Jinja up: strict, and a line end at the end stays.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_keep_trailing_newline(true);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_recursion_limit(64);
    environment.set_unknown_method_callback(method);
    environment.set_formatter(|out, state, value| match value.kind() {
        // As Python writes them.
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" }).map_err(Error::from),
        ValueKind::None => out.write_str("None").map_err(Error::from),
        _ => minijinja::escape_formatter(out, state, value),
    });
    environment
}

/// The methods of Python's lists and strings that task files use.
fn method(state: &State, value: &Any, name: &str, args: &[Any]) -> Result<Any, Error> {
    match (name, value.as_str()) {
        ("index", None) => {
            let (wanted,) = from_args::<(Any,)>(args)?;
            let place = value.try_iter()?.position(|item| item == wanted);
            place.map(Any::from).ok_or_else(|| Error::new(ErrorKind::InvalidOperation, format!("{wanted} is not in the list")))
        }
        ("replace", Some(text)) => from_args::<(&str, &str)>(args).map(|(from, to)| Any::from(text.replace(from, to))),
        ("capitalize", Some(text)) => {
            let mut letters = text.chars();
            let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
            Ok(Any::from(first + &letters.as_str().to_lowercase()))
        }
        _ => string_method(state, value, name, args),
    }
}

#[cfg(test)]
mod tests;
