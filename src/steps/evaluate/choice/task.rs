//! What a document asks, in the words of lm-evaluation-harness's task files: `doc_to_text`, `doc_to_choice` and `doc_to_target` are names of
//! the document's fields or Jinja templates of them. It knows no tokens.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::value::Value as Any;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::{Digest, Hasher};
use crate::model::jinja::{Problem, Program, Py, Spaces, Style, Undefined, making, py};
use crate::steps::dataset::normal::{as_shown, normalized};
use crate::steps::dataset::record::Fields;

/// As the harness sets Jinja up: strict, and a line end at the end stays.
const STYLE: Style = Style { spaces: Spaces::Kept, undefined: Undefined::Strict };

/// Names of the fields that make up a task, as the manifest and the action's parameters have them.
pub const FIELDS: &[&str] =
    &["doc_to_text", "doc_to_choice", "doc_to_target", "task_description", "target_delimiter", "fewshot_delimiter", "num_fewshot"];

/// A document: one line of a set.
pub type Document = Fields;

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
    /// Of the rendered document, normalized.
    pub identity: Digest,
}

impl Task {
    pub fn compile(&self) -> Result<Compiled<'_>, WrongTemplate> {
        let source = |field, text| Source::new(text).map_err(|problem| WrongTemplate { field, why: problem.to_string() });
        let task_description = source("task_description", self.task_description.as_str())?;
        let (text, target) = (source("doc_to_text", self.doc_to_text.as_str())?, source("doc_to_target", self.doc_to_target.as_str())?);
        let choice = match self.doc_to_choice.as_slice() {
            [one] => match source("doc_to_choice", one.as_str())? {
                Source::Template(..) => {
                    let why = "it must be one expression, as in `{{choices.text}}`, the name of a field, or a list".to_string();
                    return Err(WrongTemplate { field: "doc_to_choice", why });
                }
                source => Choices::Of(source),
            },
            [] => return Err(WrongTemplate { field: "doc_to_choice", why: "there is no choice".to_string() }),
            several => {
                check_choices(several).map_err(|why| WrongTemplate { field: "doc_to_choice", why: format!("it {why}") })?;
                Choices::Fixed(several)
            }
        };
        Ok(Compiled { task: self, task_description, text, choice, target })
    }
}

/// A task whose templates are well-formed.
#[derive(Debug)]
pub struct Compiled<'a> {
    task: &'a Task,
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
#[derive(Clone, Debug)]
enum Source<'a> {
    /// Plain words: the name of a field, or, if the document has none of that name, themselves.
    Words(&'a str),
    /// A single `{{ … }}`: what stands in it, as written and compiled, and the whole text, which may have white space around it.
    Expression(&'a str, Program, Program),
    Template(Program),
}

impl<'a> Source<'a> {
    fn new(text: &'a str) -> Result<Source<'a>, Problem> {
        if !["{{", "{%", "{#"].iter().any(|mark| text.contains(mark)) {
            return Ok(Source::Words(text));
        }
        let template = Program::template(text, STYLE)?;
        let inner = text.trim().strip_prefix("{{").and_then(|inner| inner.strip_suffix("}}"));
        let inner = inner.map(|inner| inner.trim_matches('-').trim()).filter(|inner| !inner.contains("}}"));
        match inner.and_then(|inner| Some((inner, Program::expression(inner, STYLE).ok()?))) {
            Some((inner, expression)) => Ok(Source::Expression(inner, expression, template)),
            None => Ok(Source::Template(template)),
        }
    }
}

/// A document as it is rendered, with its right choices.
struct Solved {
    text: String,
    choices: Vec<String>,
    targets: Vec<usize>,
    face: Face,
}

/// What a reader of a rendered document sees, normalized: by this, and not by keys that no model sees, two documents are the same question.
#[derive(Debug)]
struct Face {
    text: String,
    choices: BTreeSet<String>,
    right: BTreeSet<String>,
}

impl Face {
    fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.part(self.text.as_bytes());
        for list in [&self.choices, &self.right] {
            hasher.update(&(list.len() as u64).to_le_bytes());
            list.iter().for_each(|choice| hasher.part(choice.as_bytes()));
        }
        hasher.finish()
    }

    /// The same text with the same choices, in whatever order, or with the same right answer.
    fn is_same(&self, other: &Face) -> bool {
        self.text == other.text && (self.choices == other.choices || !self.right.is_disjoint(&other.right))
    }
}

/// The documents of `fewshot_split`, rendered as they are needed. Of several that are the same question the first is shown.
#[derive(Debug)]
pub struct Shots<'a> {
    documents: std::slice::Iter<'a, Document>,
    rendered: Vec<(String, Face)>,
}

impl<'a> Shots<'a> {
    pub fn new(documents: &'a [Document]) -> Shots<'a> {
        Shots { documents: documents.iter(), rendered: Vec::new() }
    }

    /// The first `num_fewshot` that are not the question itself.
    fn before(&mut self, question: &Face, compiled: &Compiled) -> Result<Vec<&str>, String> {
        let wanted = compiled.task.num_fewshot;
        let mut chosen = Vec::new();
        let mut place = 0;
        while chosen.len() < wanted {
            if place == self.rendered.len() && !self.render_another(compiled)? {
                let help = "`fewshot_split` has no more that differ from it and from each other";
                return Err(format!("can be shown {} of {wanted} examples: {help}", chosen.len()));
            }
            if self.rendered.get(place).is_some_and(|(_, face)| !face.is_same(question)) {
                chosen.push(place);
            }
            place += 1;
        }
        Ok(chosen.into_iter().filter_map(|place| self.rendered.get(place)).map(|(text, _)| text.as_str()).collect())
    }

    /// Renders the next document that is not the same question as an earlier one; false if there is none.
    fn render_another(&mut self, compiled: &Compiled) -> Result<bool, String> {
        for document in self.documents.by_ref() {
            let solved = compiled.solved(document).map_err(|why| format!("is shown an example that {why}"))?;
            if self.rendered.iter().any(|(_, face)| face.is_same(&solved.face)) {
                continue;
            }
            let right = solved.targets.first().and_then(|target| solved.choices.get(*target));
            let right = right.ok_or("is shown an example that has no right choice")?;
            self.rendered.push((format!("{}{}{right}", solved.text, compiled.task.target_delimiter), solved.face));
            return Ok(true);
        }
        Ok(false)
    }
}

/// Choices that look the same have no right one among them.
fn check_choices(choices: &[String]) -> Result<(), String> {
    if choices.len() < 2 {
        return Err(format!("has {} choices: there is nothing to choose", choices.len()));
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (place, choice) in choices.iter().enumerate() {
        let shown = as_shown(choice);
        if shown.is_empty() {
            return Err("has an empty choice".to_string());
        }
        if let Some(before) = seen.insert(shown, place) {
            return Err(format!("has two equal choices, {before} and {place} (counted from 0): {choice:?}"));
        }
    }
    Ok(())
}

impl Compiled<'_> {
    /// What is asked about a document, after `num_fewshot` of the examples, itself not among them. An error goes on after "document 3 of set
    /// `easy`".
    pub fn question(&self, document: &Document, shots: &mut Shots) -> Result<Question, String> {
        let mut context = match &self.task_description {
            Source::Words(text) if document.get(text).is_none() => text.to_string(),
            source => text_of("task_description", source, document)?,
        };
        let solved = self.solved(document)?;
        for told in shots.before(&solved.face, self)? {
            context.extend([told, &self.task.fewshot_delimiter]);
        }
        context += &solved.text;
        let continuations = solved.choices.iter().map(|choice| format!("{}{choice}", self.task.target_delimiter)).collect();
        Ok(Question { context, choices: solved.choices, continuations, targets: solved.targets, identity: solved.face.digest() })
    }

    /// A document's text, alone and with each of its right choices.
    pub fn rendered(&self, document: &Document) -> Result<Vec<String>, String> {
        let Solved { text, choices, targets, .. } = self.solved(document)?;
        let right = targets.iter().filter_map(|target| choices.get(*target));
        let answered = right.map(|choice| format!("{text}{}{choice}", self.task.target_delimiter)).collect::<Vec<_>>();
        Ok(std::iter::once(text.clone()).chain(answered).collect())
    }

    /// A document as it is rendered.
    fn solved(&self, document: &Document) -> Result<Solved, String> {
        let text = text_of("doc_to_text", &self.text, document)?;
        let choices = self.choices(document)?;
        let targets = self.targets(document, &choices)?;
        let right = targets.iter().filter_map(|target| choices.get(*target));
        let face = Face {
            text: normalized(&text),
            right: right.map(|choice| normalized(choice)).collect(),
            choices: choices.iter().map(|choice| normalized(choice)).collect(),
        };
        Ok(Solved { text, choices, targets, face })
    }

    fn choices(&self, document: &Document) -> Result<Vec<String>, String> {
        let choices = match &self.choice {
            Choices::Fixed(choices) => choices.to_vec(),
            Choices::Of(source) => {
                let value = value_of("doc_to_choice", source, document)?;
                let list = value.as_array().ok_or_else(|| format!("has no list of choices: `doc_to_choice` gives {}", noun(&value)))?;
                let text = |choice: &Value| choice.as_str().map(str::to_string).ok_or_else(|| noun(choice));
                list.iter().map(text).collect::<Result<_, _>>().map_err(|noun| format!("has a choice that is {noun}, not a text"))?
            }
        };
        check_choices(&choices).map(|()| choices)
    }

    /// A number is a place, counted from 0, and so are digits that a template gives; any other text is a choice. A list has several right ones.
    fn targets(&self, document: &Document, choices: &[String]) -> Result<Vec<usize>, String> {
        let value = value_of("doc_to_target", &self.target, document)?;
        let is_field = matches!(self.target, Source::Words(name) if document.get(name).is_some());
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
}

fn text_of(field: &str, source: &Source, document: &Document) -> Result<String, String> {
    match source {
        Source::Expression(_, _, template) | Source::Template(template) => render(field, template, document),
        Source::Words(name) => match document.get(name).map(|value| value.sorted()) {
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(format!("has {} in `{name}`, where `{field}` wants a text", noun(&other))),
            None => Err(missing(field, name, document)),
        },
    }
}

fn value_of(field: &str, source: &Source, document: &Document) -> Result<Value, String> {
    match source {
        Source::Words(name) => match document.get(name) {
            Some(value) => Ok(value.sorted()),
            // A constant place.
            None if field == "doc_to_target" && is_digits(name) => Ok((*name).into()),
            None => Err(missing(field, name, document)),
        },
        Source::Expression(text, expression, _) => {
            let value = expression.evaluate(&names(field, document)?).map_err(|problem| of_field(field, &problem))?;
            if value.is_undefined() {
                return Err(format!("has nothing where `{field}` looks: `{text}`"));
            }
            json(&value).ok_or_else(|| format!("has no use for `{field}`, which gives a {}", py(&value).noun()))
        }
        Source::Template(template) => render(field, template, document).map(Value::String),
    }
}

fn render(field: &str, template: &Program, document: &Document) -> Result<String, String> {
    template.render(&names(field, document)?).map_err(|problem| of_field(field, &problem))
}

/// The document's fields, as a template sees them.
fn names<'d>(field: &str, document: &'d Document) -> Result<BTreeMap<&'d str, Any>, String> {
    let fields = document.0.iter().map(|(name, data)| Ok((name.as_str(), data.value()?)));
    making(|| fields.collect::<Result<_, minijinja::Error>>()).map_err(|error| of_field(field, &Problem::of_value(&error)))
}

/// What the harness would read from the text of a value.
fn json(value: &Any) -> Option<Value> {
    Some(match py(value) {
        Py::None => Value::Null,
        Py::Bool(bool) => Value::Bool(bool),
        Py::Int(int) => Value::from(i64::try_from(int).ok()?),
        Py::Float(float) => Value::from(float),
        Py::Str(text) => Value::from(text),
        Py::Items(items) => Value::Array(items.items.iter().map(json).collect::<Option<_>>()?),
        Py::Dict(dict) => {
            let entries = dict.entries().iter().map(|(key, value)| Some((key.as_str()?.to_string(), json(value)?)));
            Value::Object(entries.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

fn of_field(field: &str, problem: &Problem) -> String {
    format!("cannot fill in `{field}`: {}", problem.why)
}

fn missing(field: &str, name: &str, document: &Document) -> String {
    let known: Vec<&str> = document.0.iter().take(20).map(|(name, _)| name.as_str()).collect();
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

#[cfg(test)]
mod tests;
