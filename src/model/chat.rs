//! Chat templates: messages → the text that a model was trained on, as transformers' `apply_chat_template` renders them. What the templates' language means is in `jinja`.
//!
//! A template comes with a model and may be hostile: it sees nothing but the conversation and the special tokens, and what it makes and reads is bounded.

mod data;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::value::Value;

use super::jinja::{self, Class, Function, Problem, Program, Spaces, Style, Undefined};
use super::{ModelError, Tokenizer};

pub use data::{Data, table};

/// A user's content and a line break; an assistant's content and the end-of-text token.
pub const DEFAULT: &str = "\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{ message['content'] + eos_token }}
{%- else -%}
{{ message['content'] + '\\n' }}
{%- endif -%}
{%- endfor -%}
";

/// As transformers sets Jinja2 up.
const STYLE: Style = Style { spaces: Spaces::Trimmed, undefined: Undefined::Lenient };
/// Where a message may hold what a model thinks. The first is the one that templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// One turn of a conversation: its fields, in the order in which they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    fields: Vec<(String, Data)>,
}

/// What is rendered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    pub messages: Vec<Message>,
    /// Tables that describe functions.
    pub tools: Option<Data>,
    /// Tables with a `title` and a `text`.
    pub documents: Option<Data>,
}

impl Message {
    pub fn new(role: &str, content: &str) -> Message {
        Message { fields: vec![("role".to_string(), role.into()), ("content".to_string(), content.into())] }
    }

    pub fn user(content: impl AsRef<str>) -> Message {
        Message::new("user", content.as_ref())
    }

    pub fn assistant(content: impl AsRef<str>) -> Message {
        Message::new("assistant", content.as_ref())
    }

    /// None without a role, which is a text.
    pub fn of(fields: Vec<(String, Data)>) -> Option<Message> {
        let message = Message { fields };
        message.get("role").and_then(Data::text).is_some().then_some(message)
    }

    pub fn fields(&self) -> &[(String, Data)] {
        &self.fields
    }

    pub fn get(&self, name: &str) -> Option<&Data> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub fn role(&self) -> &str {
        self.get("role").and_then(Data::text).unwrap_or_default()
    }

    pub fn is_assistant(&self) -> bool {
        self.role() == "assistant"
    }

    /// The content as one text; of a list, its parts that are texts.
    pub fn text(&self) -> Cow<'_, str> {
        match self.get("content") {
            Some(Data::Text(text)) => Cow::Borrowed(text),
            Some(Data::List(parts)) => {
                parts.iter().filter_map(|part| part.get("text").and_then(Data::text)).collect::<Vec<_>>().concat().into()
            }
            _ => Cow::Borrowed(""),
        }
    }

    /// The same message with another content and nothing else that it could say.
    pub fn saying(&self, content: &str) -> Message {
        let is_other = |name: &str| !["content", "tool_calls"].contains(&name) && !REASONING.contains(&name);
        let mut fields: Vec<(String, Data)> = self.fields.iter().filter(|(name, _)| is_other(name)).cloned().collect();
        fields.push(("content".to_string(), content.into()));
        Message { fields }
    }

    /// As a template sees it: without fields that are null, and with what the model thinks under the name that templates read.
    fn value(&self) -> Result<Value, minijinja::Error> {
        let mut fields: Vec<(&str, &Data)> = self.fields.iter().map(|(name, value)| (name.as_str(), value)).collect();
        fields.retain(|(_, value)| **value != Data::Null);
        let reasoning = REASONING.iter().find_map(|name| fields.iter().find(|(known, _)| known == name)).map(|(_, value)| *value);
        if let Some(reasoning) = reasoning {
            if !fields.iter().any(|(name, _)| *name == "thinking") {
                fields.insert(0, ("thinking", reasoning));
            } else if let Some(at) = fields.iter().position(|(name, _)| *name == "thinking") {
                // A dict that begins with `thinking` keeps it there.
                let thinking = fields.remove(at);
                fields.insert(0, thinking);
            }
            match fields.iter_mut().find(|(name, _)| *name == "reasoning_content") {
                Some(field) => field.1 = reasoning,
                None => fields.push(("reasoning_content", reasoning)),
            }
        }
        table(fields.into_iter())
    }
}

impl Conversation {
    pub fn of(messages: Vec<Message>) -> Conversation {
        Conversation { messages, tools: None, documents: None }
    }

    /// Bytes of all texts in it, about: what it takes in memory.
    pub fn bytes(&self) -> usize {
        let fields = self.messages.iter().flat_map(Message::fields).map(|(name, value)| name.len() + value.bytes());
        fields.sum::<usize>() + [&self.tools, &self.documents].into_iter().flatten().map(Data::bytes).sum::<usize>()
    }

    /// Its first messages.
    pub fn first(&self, count: usize) -> Conversation {
        Conversation { messages: self.messages.iter().take(count).cloned().collect(), ..self.clone() }
    }

    /// What comes before the assistant's last message, or all of it.
    pub fn question(&self) -> Conversation {
        self.first(self.messages.iter().rposition(Message::is_assistant).unwrap_or(self.messages.len()))
    }
}

/// Whether the text ends where an assistant is to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Complete,
    AwaitsAnswer,
}

/// The template of a model; or its templates, since some have one for conversations with tools.
#[derive(Clone)]
pub struct ChatTemplate {
    own: Option<Compiled>,
    /// By name, besides `default`.
    others: Arc<BTreeMap<String, Compiled>>,
    /// Special tokens besides those of the tokenizer: name and text.
    tokens: Arc<Vec<(String, String)>>,
    /// What `strftime_now` takes for now: seconds since 1970.
    now: Option<i64>,
}

#[derive(Clone)]
struct Compiled {
    source: Arc<str>,
    /// A model is of use without conversations: what is wrong with its template is told when one is to be rendered.
    program: Result<Program, Problem>,
}

impl Compiled {
    fn new(source: &str) -> Compiled {
        Compiled { source: source.into(), program: Program::template(source, STYLE) }
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("source", &self.source()).field("others", &self.others.keys()).finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// A template that is made here: an error, if it cannot be used.
    pub fn new(source: &str) -> Result<ChatTemplate, ModelError> {
        let chat = ChatTemplate::of_model(source);
        match chat.own.as_ref().map(|own| &own.program) {
            Some(Err(problem)) => Err(refused(problem, None)),
            _ => Ok(chat),
        }
    }

    /// What a model has.
    pub fn of_model(source: &str) -> ChatTemplate {
        ChatTemplate { own: Some(Compiled::new(source)), ..ChatTemplate::absent() }
    }

    /// Of a model that has none. Prompts reach it as [`DEFAULT`] has them, but it stays without.
    pub fn absent() -> ChatTemplate {
        ChatTemplate { own: None, others: Arc::default(), tokens: Arc::default(), now: None }
    }

    /// With further templates by name.
    pub fn with_others(self, others: impl IntoIterator<Item = (String, String)>) -> ChatTemplate {
        let others = others.into_iter().map(|(name, source)| (name, Compiled::new(&source))).collect();
        ChatTemplate { others: Arc::new(others), ..self }
    }

    /// Whether a name may become a file's: a model's files come from anyone.
    pub fn is_name(name: &str) -> bool {
        !name.is_empty() && name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    }

    /// With further special tokens, as `unk_token`.
    pub fn with_tokens(self, tokens: Vec<(String, String)>) -> ChatTemplate {
        ChatTemplate { tokens: Arc::new(tokens), ..self }
    }

    /// The text of a special token such as `unk_token` that a template names.
    pub fn asks_for(&self, name: &str) -> Option<&str> {
        let (_, text) = self.tokens.iter().find(|(known, _)| known == name)?;
        let names = |template: &Compiled| template.source.contains(name);
        (self.own.as_ref().is_some_and(names) || self.others.values().any(names)).then_some(text)
    }

    /// With a day that `strftime_now` gives.
    pub fn at(self, now: Option<i64>) -> ChatTemplate {
        ChatTemplate { now, ..self }
    }

    /// As written, if the model has one.
    pub fn source(&self) -> Option<&str> {
        self.own.as_ref().map(|own| own.source.as_ref())
    }

    /// The templates besides the one for all conversations.
    pub fn others(&self) -> impl Iterator<Item = (&str, &str)> {
        self.others.iter().map(|(name, template)| (name.as_str(), template.source.as_ref()))
    }

    /// What a model that learns conversations learns them as.
    pub fn or_default(self) -> ChatTemplate {
        match self.own {
            Some(_) => self,
            None => ChatTemplate { own: ChatTemplate::default().own, ..self },
        }
    }

    pub fn render(&self, chat: &Conversation, ending: Ending, tokenizer: &Tokenizer) -> Result<String, ModelError> {
        self.rendered(chat, ending, tokenizer, false)
    }

    /// With [`jinja::MARKS`] around what the template itself marks as an assistant's, if it marks anything.
    pub fn render_marked(&self, chat: &Conversation, tokenizer: &Tokenizer) -> Result<Option<String>, ModelError> {
        let marks = self.compiled(chat)?.program.as_ref().is_ok_and(Program::has_generation);
        marks.then(|| self.rendered(chat, Ending::Complete, tokenizer, true)).transpose()
    }

    fn rendered(&self, chat: &Conversation, ending: Ending, tokenizer: &Tokenizer, marked: bool) -> Result<String, ModelError> {
        let program = match &self.compiled(chat)?.program {
            Ok(program) => program,
            Err(problem) => return Err(refused(problem, None)),
        };
        let context = jinja::making(|| self.context(chat, ending, tokenizer))
            .map_err(|error| ModelError::unsupported("this conversation", Problem::of_value(&error)))?;
        let text = if marked { program.render_marked(&context) } else { program.render(&context) };
        text.map_err(|problem| refused(&problem, (self.now.is_none() && program.names(STRFTIME)).then_some(STRFTIME)))
    }

    /// The template for a conversation.
    fn compiled(&self, chat: &Conversation) -> Result<&Compiled, ModelError> {
        if let (true, Some(with_tools)) = (chat.tools.is_some(), self.others.get("tool_use")) {
            return Ok(with_tools);
        }
        match &self.own {
            Some(own) => Ok(own),
            None if self.others.is_empty() => Ok(plain()),
            None => {
                let names: Vec<&str> = self.others.keys().map(String::as_str).collect();
                Err(ModelError::unsupported("the chat template", format!("the model has {}, and none called `default`", names.join(", "))))
            }
        }
    }

    fn context(&self, chat: &Conversation, ending: Ending, tokenizer: &Tokenizer) -> Result<BTreeMap<&str, Value>, minijinja::Error> {
        let optional = |data: &Option<Data>| data.as_ref().map_or_else(|| Ok(Value::from(())), Data::value);
        let messages = chat.messages.iter().map(Message::value).collect::<Result<Vec<_>, _>>()?;
        let mut context = BTreeMap::from([
            ("messages", jinja::list(messages)?),
            ("tools", optional(&chat.tools)?),
            ("documents", optional(&chat.documents)?),
            ("add_generation_prompt", Value::from(ending == Ending::AwaitsAnswer)),
            ("raise_exception", Value::from_object(Function::RaiseException)),
        ]);
        context.extend(self.tokens.iter().map(|(name, text)| (name.as_str(), Value::from(text.as_str()))));
        for (name, token) in [("bos_token", &tokenizer.bos), ("eos_token", &tokenizer.eos), ("pad_token", &tokenizer.pad)] {
            context.extend(token.as_ref().map(|token| (name, Value::from(token.text.as_str()))));
        }
        // Not defined without a day, so that templates which ask whether it is take a date of their own.
        context.extend(self.now.map(|now| (STRFTIME, Value::from_object(Function::StrftimeNow(now)))));
        Ok(context)
    }
}

const STRFTIME: &str = "strftime_now";

/// [`DEFAULT`], compiled once.
fn plain() -> &'static Compiled {
    static PLAIN: std::sync::LazyLock<Compiled> = std::sync::LazyLock::new(|| Compiled::new(DEFAULT));
    &PLAIN
}

impl Default for ChatTemplate {
    fn default() -> ChatTemplate {
        ChatTemplate { own: Some(plain().clone()), ..ChatTemplate::absent() }
    }
}

/// Names what is at fault: the template, the conversation, or this program.
fn refused(problem: &Problem, lacks: Option<&str>) -> ModelError {
    match problem.class {
        Class::Malformed => ModelError::malformed("the chat template", problem),
        Class::Unparsed => ModelError::unsupported("the chat template", format!("it cannot be parsed: {problem}")),
        Class::Raised => ModelError::Input(format!("the chat template refuses the conversation: {problem}")),
        Class::Failed if lacks.is_some() && problem.why.contains("undefined") => ModelError::Input(format!(
            "the chat template fails: {problem}; it asks for the day with `strftime_now`, which is the project's `created`: set it in [project]"
        )),
        Class::Failed => ModelError::Input(format!("the chat template fails: {problem}")),
        Class::Unsupported | Class::TooMuch => ModelError::unsupported("the chat template", problem),
        Class::Machine => ModelError::Machine(problem.why.clone()),
    }
}

#[cfg(test)]
mod tests;
