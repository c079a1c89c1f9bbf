//! Chat templates: messages → the text that a model was trained on. Rendered by minijinja as transformers would render them.
//!
//! A template comes with a model and may be hostile: its size, loops, recursion and output are bounded, and so is what it makes on the way (`limits`); it sees nothing but
//! the messages and the special tokens.

mod limits;

use std::sync::Arc;

use minijinja::value::{Value, from_args};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, context};
use serde::{Deserialize, Serialize};

use super::{ModelError, Tokenizer};

/// Published templates are below 20 KiB.
const MAX_TEMPLATE: usize = 256 << 10;
/// Of one conversation; a training example of this size would not fit a model.
const MAX_OUTPUT: usize = 4 << 20;
const MAX_DEPTH: usize = 32;

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

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    pub role: String,
    pub content: String,
}

impl Message {
    pub fn user(content: impl Into<String>) -> Message {
        Message { role: "user".to_string(), content: content.into() }
    }

    pub fn assistant(content: impl Into<String>) -> Message {
        Message { role: "assistant".to_string(), content: content.into() }
    }
}

/// Whether the text ends where an assistant is to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Complete,
    AwaitsAnswer,
}

#[derive(Clone)]
pub struct ChatTemplate {
    source: Arc<str>,
    /// As the engine takes it.
    plain: Arc<str>,
    environment: Arc<Environment<'static>>,
    /// What it says beyond what is supported.
    unsupported: Option<Arc<str>>,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ChatTemplate").field(&self.source).finish()
    }
}

impl ChatTemplate {
    pub fn new(source: &str) -> Result<ChatTemplate, ModelError> {
        let chat = ChatTemplate::of_model(source)?;
        chat.supported()?;
        Ok(chat)
    }

    /// A model is of use without conversations: what its template says beyond what is supported is told when one is to be rendered.
    pub fn of_model(source: &str) -> Result<ChatTemplate, ModelError> {
        let (size, limit) = (source.len() as u64, MAX_TEMPLATE as u64);
        if size > limit {
            return Err(ModelError::TooLarge { what: "the chat template".to_string(), size, limit });
        }
        let plain = without_generation(source);
        let unsupported = match limits::check(&plain) {
            Err(error) if error.kind() == ErrorKind::InvalidOperation => Some(why(&error).into()),
            checked => checked.map(|()| None).map_err(wrong)?,
        };
        let mut environment = environment();
        environment.set_fuel(Some(limits::MAX_INSTRUCTIONS));
        Ok(ChatTemplate { source: source.into(), plain: plain.into(), environment: Arc::new(environment), unsupported })
    }

    fn supported(&self) -> Result<(), ModelError> {
        self.unsupported.as_ref().map_or(Ok(()), |why| Err(ModelError::unsupported("the chat template", why)))
    }

    /// As written.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn render(&self, messages: &[Message], ending: Ending, tokenizer: &Tokenizer) -> Result<String, ModelError> {
        self.supported()?;
        let text = |special: &Option<super::tokenizer::Special>| special.as_ref().map_or(String::new(), |s| s.text.clone());
        let context = context! {
            messages => messages,
            add_generation_prompt => ending == Ending::AwaitsAnswer,
            bos_token => text(&tokenizer.bos),
            eos_token => text(&tokenizer.eos),
            pad_token => text(&tokenizer.pad),
            tools => Value::from(()),
            documents => Value::from(()),
        };
        let text = limits::render(&self.environment, &self.plain, context).map_err(wrong)?;
        let (size, limit) = (text.len() as u64, MAX_OUTPUT as u64);
        if size > limit {
            return Err(ModelError::TooLarge { what: "the chat template's output".to_string(), size, limit });
        }
        Ok(text)
    }
}

impl Default for ChatTemplate {
    #[expect(clippy::expect_used, reason = "a constant that the tests render")]
    fn default() -> ChatTemplate {
        ChatTemplate::new(DEFAULT).expect("the default chat template is well-formed")
    }
}

fn wrong(error: Error) -> ModelError {
    ModelError::malformed("the chat template", why(&error))
}

fn why(error: &Error) -> String {
    let line = error.line().map_or(String::new(), |line| format!(" at line {line}"));
    let detail: String = error.detail().map_or_else(|| error.kind().to_string(), |detail| detail.chars().take(1000).collect());
    // Not defined, so that templates which ask whether it is take a date of their own.
    let date = if detail.contains("strftime_now") { "; it would give today's date, and other results from day to day" } else { "" };
    format!("{detail}{date}{line}")
}

/// As transformers sets jinja up (`limits` strips blocks), plus the limits.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_recursion_limit(MAX_DEPTH);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(limits::method);
    limits::limit(&mut environment);
    environment
}

/// transformers marks what an assistant says with `{% generation %}`, which changes no text.
fn without_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag)) = rest.split_once("{%") {
        let Some((inner, after)) = tag.split_once("%}") else { break };
        let same = match inner.trim_matches(['-', '+']).trim() {
            "generation" => inner.replace("generation", "if true"),
            "endgeneration" => inner.replace("endgeneration", "endif"),
            _ => inner.to_string(),
        };
        out.extend([before, "{%", same.as_str(), "%}"]);
        rest = after;
    }
    out + rest
}

/// The methods of Python's strings that templates use.
pub fn string_method(_: &State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let unknown = || Error::new(ErrorKind::UnknownMethod, format!("{} has no method named {method}", value.kind()));
    let text = value.as_str().ok_or_else(unknown)?;
    let characters = |args: &[Value]| -> Result<Option<String>, Error> { from_args::<(Option<String>,)>(args).map(|(set,)| set) };
    let stripped = |set: Option<String>, start: usize, end: usize| {
        let strip = |c: char| set.as_ref().map_or(c.is_whitespace(), |set| set.contains(c));
        let text = if start == 1 { text.trim_start_matches(strip) } else { text };
        Value::from(if end == 1 { text.trim_end_matches(strip) } else { text })
    };
    match method {
        "strip" => Ok(stripped(characters(args)?, 1, 1)),
        "lstrip" => Ok(stripped(characters(args)?, 1, 0)),
        "rstrip" => Ok(stripped(characters(args)?, 0, 1)),
        "upper" => from_args::<()>(args).map(|()| Value::from(text.to_uppercase())),
        "lower" => from_args::<()>(args).map(|()| Value::from(text.to_lowercase())),
        "startswith" => from_args::<(&str,)>(args).map(|(start,)| Value::from(text.starts_with(start))),
        "endswith" => from_args::<(&str,)>(args).map(|(end,)| Value::from(text.ends_with(end))),
        "split" => from_args::<(&str,)>(args).map(|(at,)| {
            let parts: Vec<Value> = if at.is_empty() { vec![Value::from(text)] } else { text.split(at).map(Value::from).collect() };
            Value::from(parts)
        }),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tokenizer::tests::bytes_only;
    use super::limits::MAX_TERMS;
    use super::*;

    fn render(source: &str, messages: &[Message]) -> Result<String, ModelError> {
        ChatTemplate::new(source)?.render(messages, Ending::AwaitsAnswer, &bytes_only())
    }

    #[test]
    fn the_default_is_a_line_and_an_answer() {
        let messages = [Message::user("open <b>"), Message::assistant("{}")];
        assert_eq!(render(DEFAULT, &messages[..1]).unwrap(), "open <b>\n");
        assert_eq!(render(DEFAULT, &messages).unwrap(), "open <b>\n{}<|endoftext|>");
    }

    #[test]
    fn published_templates_render() {
        let chatml = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' + '\\n'}}\
            {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}{% if tools %}x{% endif %}";
        assert_eq!(render(chatml, &[Message::user(" hi ")]).unwrap(), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
        let methods = "{{ messages[0]['content'].strip().upper() }}{{ 'a-b'.split('-')[1] }}{{ 'xax'.strip('x') }}";
        assert_eq!(render(methods, &[Message::user(" hi ")]).unwrap(), "HIba");
    }

    #[test]
    fn what_the_assistant_says_may_be_marked() {
        let marked = "{% for m in messages %}{%- generation -%} {{ m.content }}\n{% endgeneration %}|{%endgeneration_%}{% endfor %}";
        assert!(render(marked, &[Message::user("x")]).is_err());
        let marked = marked.replace("{%endgeneration_%}", "");
        assert_eq!(render(&marked, &[Message::user("x")]).unwrap(), "x\n|");
        assert_eq!(without_generation("a {% b %} {% c"), "a {% b %} {% c");
    }

    /// What is weighed is made as ever.
    #[test]
    fn the_limits_change_no_text() {
        let mut plain = Environment::new();
        plain.set_trim_blocks(true);
        plain.set_lstrip_blocks(true);
        plain.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        plain.set_unknown_method_callback(string_method);
        let long = "y".repeat(3000);
        let messages: Vec<Message> = (0..200).map(|i| Message::user(format!("{i} {long}"))).collect();
        let cases = [
            "{{ 1 + 2 }}{{ 2 * 3 }}{{ 1.5 + 1 }}{{ 'a' + 'b' }}{{ 'a' ~ 1 ~ none }}{{ [1] + [2, 'c'] }}{% set t = 'ab' %}{{ t * 3 }}{% set l = [1, [2]] %}{{ l * 2 }}",
            "{{ 1 == 1 }}{{ 'a' != 'b' }}{{ 1 < 2 }}{{ 'b' <= 'a' }}{{ 2 > 1 }}{{ 2 >= 3 }}{{ [1] == [1] }}{{ {'a': 1} == {'a': 2} }}{{ none == none }}",
            "{{ 'a' in 'ba' }}{{ 'role' in messages[0] }}{{ 1 in [1] }}{{ [1] in [[1]] }}{{ 'x' not in ['y'] }}{{ messages[0] in messages }}",
            "{{ {'b': [1, 2], 'a': {'c': none}} }}{{ [1, 'a', [true]] }}{{ (1, 2) }}{% set a, b = 1, [2] %}{{ a }}{{ b }}",
            "{% for m in messages %}{% if loop.index0 == messages | length - 1 and m['role'] == 'user' %}{{ m.content | trim }}{% endif %}{% endfor %}",
            "{{ [3, 1, 2] | sort | join(', ') }}{{ ['a', 'B'] | map('upper') | list }}{{ messages | map(attribute='role') | unique | join }}",
            "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ 'a-b' | replace('-', '+') }}{{ 'a\nb' | indent(2, true) }}",
            "{% set ns = namespace(n=0, t='') %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% set ns.t = ns.t + m.role %}{% endfor %}{{ ns.n }}{{ ns.t }}",
            "{% set x %}a{{ 1 }}\n{% endset %}{{ x }}{% filter upper %}b{{ 'c' }}{% endfilter %}{% macro f(a, b='d') %}<{{ a ~ b }}>{% endmacro %}{{ f(1) }}{{ f(1, b=2) }}",
            "{{ 'x' if nope is defined else 'y' }}{{ nope | default('z') }}{{ 1 is eq 1 }}{{ 2 is in [1, 2] }}{{ 3 is odd }}{{ {'a': 1} | items | list }}{{ {'b': 1, 'a': 2} | dictsort }}",
            "  {% if true %}\n  a\n  {% endif %}\nb {%- if 1 %} c{% endif %}\n",
            "{{ messages[1:3] }}{{ messages[-1].role }}{{ 'abc'[::-1] }}{{ 'abc'[1] }}{{ [1, 2, 3][:2] }}{{ messages[0]['nope'] is defined }}{{ (messages | reverse | list)[0].role }}",
            "{% for c in 'abc' %}{{ c }}{% else %}x{% endfor %}{{ [][1:] }}{{ 'ab'[0:1] }}{{ [1, 2][::-1] }}",
            "{% for m in messages[:9] %}{% if loop.index == 2 %}{% continue %}{% elif loop.index == 4 %}{% break %}{% endif %}{{ loop.index }}{% endfor %}",
            "{% for m in messages[:3] %}{% if m.role == 'a' %}b{% elif m.role == 'user' %}c{% else %}d{% endif %}{{ loop.previtem is defined }}{{ loop.last }}{% endfor %}",
            "{% macro g(a=2) %}({{ a }}){% endmacro %}{{ g() ~ g(a=3) }}{% for k in {'a': 1, 'b': 2} %}{{ k }}{% endfor %}{% for k, v in {'a': 1} | items %}{{ k }}{{ v }}{% endfor %}",
            "{{ 'a-b'.split('-') | last }}{{ dict(a=1).a }}{{ namespace(b=[2]).b[0] }}{{ messages | map(attribute='content') | first | length }}{{ [1, 2] | sum }}{{ '7' | int + 1 }}",
            "b{{ 1 if 2 is in [2] and not 3 == 4 or false }}<b>{{ '<' }}{% raw %}{{ x }}{% endraw %}{{ 'a\nb' | indent(width=2) }}{{ 'a\nb' | indent(first=true) }}{{ 'a  b' | split | length }}",
            "{% set ns = namespace(seen=[]) %}{% for m in messages[:3] %}{% set ns.seen = ns.seen + [m.role] %}{% endfor %}{{ ns.seen }}{{ messages is iterable }}{{ ' xa ' | trim(' x') }}",
        ];
        for case in cases {
            let expected = plain.render_str(case, context! { messages => messages }).unwrap();
            assert_eq!(render(case, &messages).unwrap(), expected, "{case}");
        }
        for case in [
            "{{ nope + 1 }}",
            "{{ nope ~ 'a' }}",
            "{{ 1 == nope }}",
            "{{ nope < 1 }}",
            "{{ 1 + 'a' }}",
            "{{ [1] + 1 }}",
            "{{ 1 in 2 }}",
            "{{ 1\n + [] }}",
        ] {
            let expected = wrong(plain.render_str(case, context! {}).unwrap_err()).to_string();
            assert_eq!(render(case, &[]).unwrap_err().to_string(), expected, "{case}");
        }
    }

    #[test]
    fn a_model_s_template_is_refused_when_it_is_used() {
        let chat = ChatTemplate::of_model("\n{% call f() %}x{% endcall %}").unwrap();
        let error = chat.render(&[], Ending::Complete, &bytes_only()).unwrap_err();
        assert!(error.to_string().ends_with("is not supported: `{% call %}` at line 2"), "{error}");
        assert!(ChatTemplate::new(chat.source()).is_err() && ChatTemplate::of_model("{% for").is_err());
    }

    #[test]
    fn a_date_is_the_template_s_own() {
        let llama = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}26 Jul 2024{% endif %}";
        assert_eq!(render(llama, &[]).unwrap(), "26 Jul 2024");
        assert!(render("{{ strftime_now('%Y') }}", &[]).unwrap_err().to_string().contains("from day to day"));
    }

    /// A long text goes through an expression 81 million times.
    fn long(expression: &str) -> String {
        let texts = "{% set x = 'y' %}{% set x = x * 4000000 %}{% set y = x ~ '' %}{% set z = {y: 1} %}";
        texts.to_string() + "{% for i in range(9000) %}{% for j in range(9000) %}{% set w = " + expression + " %}{% endfor %}{% endfor %}"
    }

    /// At the limits, on a small stack.
    #[test]
    fn long_expressions_fit_the_stack() {
        let render_all = || {
            for case in ["{{ 1@ }}", "{{ x@ }}", "{{ 'x'@ }}", "{% if 0 %}@{% endif %}"] {
                for part in ["+1", "~1", " and 1", ".x", "[0]", "|e", "|upper", " if 1", " is odd", "()", "{%elif 0%}"] {
                    let template = case.replace('@', &part.repeat(MAX_TERMS - 1));
                    let _ = render(&template, &[]);
                }
            }
            for part in ["{% if 1 %}", "{%for x in [1]%}", "{{ [", "{{ not ", "{{ {1:"] {
                let _ = render(&part.repeat(140), &[]);
            }
        };
        std::thread::Builder::new().stack_size(1 << 20).spawn(render_all).unwrap().join().unwrap();
    }

    #[test]
    fn hostile_templates_end_in_an_error() {
        let cases = [
            "{{ nope }}",
            "{% for i in range(1000000000) %}x{% endfor %}",
            "{% for i in range(9000) %}{% for j in range(9000) %}xxxxxxxxxxxx{% endfor %}{% endfor %}",
            "{% for i in range(9000) %}{% for j in range(9000) %}{% endfor %}{% endfor %}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "{% include 'chat' %}",
            "{% include '/etc/passwd' %}",
            "{{ raise_exception('no') }}",
            "{{ strftime_now('%Y') }}",
            "{{ messages[0].content.__class__ }}",
            "{% for",
            // Texts that double, in every way that there is.
            "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
            "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x * 2 %}{% endfor %}",
            "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
            "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}",
            "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x | replace('x', 'xx') %}{% endfor %}",
            "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = [ns.x] | map('replace', 'x', 'xx') | first %}{% endfor %}",
            "{% set ns = namespace(x=['x']) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x | length }}",
            "{% set ns = namespace(x='x') %}{% for i in range(9000) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
            "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}{{ ns.x == ns.x }}",
            "{% set a = namespace(x='x') %}{% set a.x = a %}{{ a }}",
            "{% set a = namespace(x='x') %}{% set a.x = a %}{{ a | string }}",
            "{% set a = namespace(x='x') %}{% set a.x = a %}{{ a ~ a }}",
            "{% set a = namespace(x='x') %}{% set b = namespace(x='x') %}{% set a.x = a %}{% set b.x = b %}{{ a == b }}",
            "{% set a = namespace(x='x') %}{% set a.x = a %}{{ debug(a) }}",
            "{{ '%999999999d' | format(1) }}",
            "{{ 'x\nx' | indent(9999999999) }}",
            "{{ [1] | batch(9999999999, 'x') | list }}",
            "{{ 'x' * 9999999999 }}",
            "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = f(ns.x) %}{% endfor %}",
            "{% set x = 'y' %}{% set x = x * 4000000 %}{{ [x, x] | map('upper') | join | split('Y') | length }}{% set x = x * 20 %}{{ x.split('y') | length }}",
            // What contains itself, or lies deep in what is asked of it.
            "{% set a = namespace(x='x') %}{% set b = namespace(x='x') %}{% set a.x = a %}{% set b.x = b %}{{ a == b == a }}",
            "{% set a = namespace(x='x') %}{% set b = namespace(x='x') %}{% set a.x = a %}{% set b.x = b %}{{ [a] | select('eq', b) | list }}",
            "{% set a = namespace(x='x') %}{% set a.x = a %}{% for b in [a, a] %}{{ loop.changed(b) }}{% endfor %}",
            "{% for b in [1, 2] %}{{ loop.changed(b) }}{% endfor %}",
            "{% set c = namespace(p=1) %}{% for i in range(90000) %}{% set n = namespace(x=0) %}{% set p = c.p %}{% set p.x = n %}{% set c.p = n %}{% endfor %}",
            "{% set ns = namespace(x=0) %}{% for i in range(90000) %}{% for y in [ns.x] %}{% set ns.x = loop %}{% break %}{% endfor %}{% endfor %}",
            "{% macro f(n) %}{% macro g() %}{% endmacro %}{% set n.g = g %}{% endmacro %}{% set ns = namespace(g=0) %}{% set x = f(ns) %}{{ ns.g() }}",
            "{% macro g() %}{% endmacro %}{% set ns = namespace(g=0) %}{% set ns.g = g %}",
            "{% set a = namespace(x=0) %}{% set a.x = [{'a': a}] %}",
            "{% set a = namespace(x=0) %}{% set b = namespace(x=a) %}",
            "{% for i in [1] %}{{ loop.cycle() }}{% endfor %}",
            "{% for i in [1] %}{% set x = 0 %}{% set x = loop.cycle(a=loop.cycle(a=x)) %}{% endfor %}",
            "{{ 1 is divisibleby 0 }}",
            "{{ [1] | select('divisibleby', 0) | list }}",
            "{{ 'abc'[0:2:-1] }}",
            "{{ range(1, 0, -9223372036854775808) }}",
            "{% for i in [1] %}{% with %}{% break %}{% endwith %}{% endfor %}",
            "{% set ns = namespace(l=0) %}{% block b %}{% for x in [1] recursive %}{% set ns.l = loop %}{% endfor %}{% endblock %}{% set l = ns.l %}{% set y = l([1]) %}",
            "{{ ([{'a': {'b': 1}}, {'a': {'b': 0}}, {}] + [{}]) | sort(attribute='a.b') }}",
            "{{ ([0] * 1000000 * 1000000) | last }}",
            "{{ ([0] * 576460752303423488) | list }}",
            "{{ '' | indent(18446744073709551615) }}",
            "{{ '' | indent(9999999999) }}",
            "{% set s = 'y' %}{% set s = s * 1000000 %}{{ [s] | replace('y', s) }}",
            "{% set s = 'y' %}{% set s = s * 1000000 %}{{ s | replace('y', [s]) }}",
            "{% set s = 'y' %}{% set s = s * 1000000 %}{{ range(100000) | join([s]) }}",
            "{% set a = 'y' * 100000000 %}",
            "{% set a = 'z' in ('y' * 100000000) %}",
            "{{ 'a' ~ 10 * ('y' ~ 'z') }}",
            "{% set a, b = [0] * 1000000000 %}",
            "{% autoescape true %}x{% endautoescape %}",
            "{% set s = '\x7f' %}{% set s = s * 20000000 %}{% set x %}{% for i in range(12) %}{{ [s] }}{% endfor %}{% endset %}",
            "{% set x %}{% for i in range(90000) %}{{ 5e-324 }}{{ 5e-324 }}{{ 5e-324 }}{{ 5e-324 }}{{ 5e-324 }}{{ 5e-324 }}{{ 5e-324 }}{{ 5e-324 }}{% endfor %}{% endset %}",
            "{% for i in range(300) %}{% macro m() %}{% endmacro %}{% endfor %}",
            "{% set r = range(100000) %}{% for i in range(1000) %}{% set x = f(*r) %}{% endfor %}",
            "{% set d = {} %}{% set x = f(**d, **d) %}",
            "{{ range(100000) | select('in', range(100000, 200000)) | list | length }}",
            "{% set p = 'a,' %}{{ range(10000) | sort(attribute=p * 100000) | length }}",
            "{{ ['y', 'z'] | map(attribute='0.0.0') | list }}",
            "{% set s = 'y' %}{% set s = s * 4000000 %}{{ s | trim(s) }}",
            "{% set s = 'y' %}{% set s = s * 4000000 %}{{ s.strip(s) }}",
            &long("x is iterable"),
            "{% set r = range(100000) %}{% for i in r %}{% for j in r %}{% set x = r[99999:] %}{% endfor %}{% endfor %}",
            "{% set r = range(100000) %}{% for i in r %}{% for j in r %}{% set x = r | last %}{% endfor %}{% endfor %}",
            "{% set r = range(100000) %}{% for i in r %}{% for j in r %}{% set x = r[99999] %}{% endfor %}{% endfor %}",
            "{% set s = 'y' %}{% set s = s * 4000000 %}{% set m = {s ~ 1: 1, s ~ 2: 1, s ~ 3: 1} %}{% set ns = namespace(m=0) %}{% for i in range(90000) %}{% set ns.m = m %}{% endfor %}",
            "{% include messages[0].content ignore missing %}",
            "{% set a = namespace(x=0) %}{% set a.x = a %}{{ raise_exception(a) }}",
            &format!("{{% set n = namespace({}) %}}", (0..100).map(|i| format!("a{i}=0")).collect::<Vec<_>>().join(",")),
            &format!("{{% set n = namespace() %}}{}", (0..100).map(|i| format!("{{% set n.a{i} = 0 %}}")).collect::<String>()),
            &format!("{{{{ {} }}}}", "x".repeat(100)),
            &"{% for i in [1] %}".repeat(9),
            &"\n".repeat(70_000),
            &format!("{} {{{{ x }}}}", "x".repeat(70_000)),
            &format!("{{{{ [{}] }}}}", "1,".repeat(70_000)),
            "{% set a = namespace(x='x') %}{% set a.x = a %}{{ a | lower }}",
            "{% set a = namespace(x='x') %}{% set a.x = a %}{{ {a: 1}[a] }}",
            "{% set a = namespace(x=0) %}{% for i in range(90000) %}{% set n = namespace(x=0) %}{% set n.x = a.x %}{% set a.x = n %}{% endfor %}",
            "{% set a = namespace(x=0) %}{% for i in range(90000) %}{% set a.x = namespace(x=a.x) %}{% endfor %}",
            "{% set a = namespace(x=0) %}{% for i in range(90000) %}{% set a.x = dict(x=a.x) %}{% endfor %}",
            "{% block a %}{{ self.a() }}{% endblock %}",
            "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
            // Texts read again and again.
            &long("x[1:]"),
            &long("x[3000000]"),
            &long("x | length"),
            &long("'z' in x"),
            &long("x == y"),
            &long("x is lower"),
            &long("x is endingwith(y)"),
            &long("x | float"),
            &long("x.strip('y')"),
            &long("x.startswith(y)"),
            &long("{x: 1}"),
            &long("z[x]"),
            &long("x * 1"),
            &long("[x, y] | min"),
            "{% set x = 'y' %}{% set x = x * 4000000 %}{% for i in range(9000) %}{% for j in range(9000) %}{% for c in x %}{% break %}{% endfor %}{% endfor %}{% endfor %}",
            "{% for i in range(9000) %}{% for j in range(9000) %}{% set x = messages | sort(attribute='content') %}{% endfor %}{% endfor %}",
            "{% for i in range(9000) %}{% for j in range(9000) %}{% set x = 1 + 1 == 2 and 'a' in 'ab' %}{% endfor %}{% endfor %}",
            // Terms by the thousand.
            &format!("{{{{ 1{} }}}}", "+1".repeat(100_000)),
            &format!("{{{{ 1{} }}}}", " if 1".repeat(40_000)),
            &format!("{{{{ x{} }}}}", ".x".repeat(100_000)),
            &format!("{{{{ x{} }}}}", "[0]".repeat(80_000)),
            &format!("{{{{ x{} }}}}", "()".repeat(100_000)),
            &format!("{{{{ 'x'{} }}}}", "|e".repeat(100_000)),
            &format!("{{{{ 1{} }}}}", " and 1".repeat(40_000)),
            &format!("{{{{ {}1 }}}}", "not ".repeat(60_000)),
            &format!("{{{{ {}1 }}}}", "-".repeat(60_000)),
            &format!("{{{{ {} }}}}", "[".repeat(100_000)),
            &format!("{{{{ {} }}}}", "{1:".repeat(80_000)),
            &format!("{{% if 0 %}}{}{{% endif %}}", "{%elif 0%}".repeat(20_000)),
            &"{% if 1 %}".repeat(20_000),
            &"{%if 1%}{%else%}".repeat(15_000),
            &"{%for x in [1]%}".repeat(15_000),
            &"{%set x%}".repeat(25_000),
            &"{%filter e%}".repeat(20_000),
        ];
        for case in cases {
            let error = render(case, &[Message::user("x")]).unwrap_err().to_string();
            let start = &case[..case.floor_char_boundary(200)];
            assert!(error.contains("chat template"), "{start}: {error}");
        }
        assert!(matches!(ChatTemplate::new(&"x".repeat(MAX_TEMPLATE + 1)), Err(ModelError::TooLarge { .. })));
    }
}
