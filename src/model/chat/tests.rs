//! What templates make of conversations, and hostile ones.

use super::super::jinja::{MAX_TEMPLATE, MAX_TERMS};
use super::super::tokenizer::tests::bytes_only;
use super::*;

fn render(source: &str, messages: &[Message]) -> Result<String, ModelError> {
    ChatTemplate::new(source)?.render(&Conversation::of(messages.to_vec()), Ending::AwaitsAnswer, &bytes_only())
}

#[test]
fn the_default_is_a_line_and_an_answer() {
    let messages = [Message::user("open <b>"), Message::assistant("{}")];
    assert_eq!(render(DEFAULT, &messages[..1]).unwrap(), "open <b>\n");
    assert_eq!(render(DEFAULT, &messages).unwrap(), "open <b>\n{}<|endoftext|>");
}

#[test]
fn errors_name_what_is_at_fault() {
    let said = |source: &str| render(source, &[Message::user("x")]).unwrap_err().to_string();
    assert_eq!(
        said("{{ raise_exception('roles must alternate') }}"),
        "the chat template refuses the conversation: roles must alternate at line 1"
    );
    assert_eq!(said("\n{{ messages + 1 }}"), "the chat template fails: unsupported operand type(s) for +: 'list' and 'int' at line 2");
    assert_eq!(said("{% include 'x' %}"), "the chat template is not supported: `{% include %}` at line 1");
    assert_eq!(said("{% nothing %}"), "the chat template is malformed: unknown tag `nothing` at line 1");
    assert!(said("{% for").contains("it cannot be parsed"));
    let broken = ChatTemplate::of_model("{% for");
    assert_eq!(broken.source(), Some("{% for"));
    assert!(broken.render(&Conversation::default(), Ending::Complete, &bytes_only()).is_err());
}

#[test]
fn the_day_is_the_one_that_is_given() {
    let guarded = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}26 Jul 2024{% endif %}";
    assert_eq!(render(guarded, &[]).unwrap(), "26 Jul 2024");
    let dated = ChatTemplate::new(guarded).unwrap().at(Some(1_769_817_600));
    assert_eq!(dated.render(&Conversation::default(), Ending::Complete, &bytes_only()).unwrap(), "31 Jan 2026");
    let error = render("{{ strftime_now('%Y') }}", &[]).unwrap_err().to_string();
    assert!(error.contains("the project's `created`"), "{error}");
}

#[test]
fn what_a_message_holds_reaches_the_template_as_transformers_hands_it_over() {
    let message = |json: &str| {
        let Data::Table(fields) = serde_json::from_str(json).unwrap() else { panic!("a table") };
        Message::of(fields).unwrap()
    };
    let shown = |json: &str| render("{{ messages[0] | tojson }}", &[message(json)]).unwrap();
    assert_eq!(
        shown(r#"{"content": null, "role": "user", "b": 1.0, "a": [true, null]}"#),
        r#"{"role": "user", "b": 1.0, "a": [true, null]}"#
    );
    let thinks = shown(r#"{"role": "assistant", "reasoning_content": "hm", "content": "x"}"#);
    assert_eq!(thinks, r#"{"thinking": "hm", "role": "assistant", "reasoning_content": "hm", "content": "x"}"#);
    let parts = message(r#"{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}"#);
    assert_eq!(parts.text(), "ab");
    let wide = render("{{ messages[0].n }}", &[message(r#"{"role": "user", "n": 123456789012345678901234567890}"#)]).unwrap_err();
    assert!(wide.to_string().contains("not supported"), "{wide}");
}

#[test]
fn tools_have_a_template_of_their_own_if_there_is_one() {
    let chat = ChatTemplate::of_model("plain").with_others([("tool_use".to_string(), "{{ tools | length }} tools".to_string())]);
    let with_tools = Conversation { tools: Some(Data::List(vec![Data::Table(Vec::new())])), ..Conversation::default() };
    let text = |chat: &ChatTemplate, of: &Conversation| chat.render(of, Ending::Complete, &bytes_only());
    assert_eq!(text(&chat, &Conversation::default()).unwrap(), "plain");
    assert_eq!(text(&chat, &with_tools).unwrap(), "1 tools");
    let nameless = ChatTemplate::absent().with_others([("rag".to_string(), "x".to_string())]);
    assert!(text(&nameless, &with_tools).unwrap_err().to_string().contains("none called `default`"));
    assert_eq!(ChatTemplate::absent().source(), None);
    let asked = Conversation::of(vec![Message::user("q")]);
    assert_eq!(text(&ChatTemplate::absent(), &asked).unwrap(), "q\n");
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
            for part in ["+1", "~1", " and 1", ".x", "[0]", "|e", "|upper", " if 1", " is odd", "()", "{%elif 0%}", " < 1", "==x"] {
                let template = case.replace('@', &part.repeat(MAX_TERMS - 1));
                let _ = render(&template, &[]);
            }
        }
        for part in ["{% if 1 %}", "{%for x in [1]%}", "{{ [", "{{ not ", "{{ {1:", "{%set x%}", "{%filter e%}", "{{ -"] {
            let _ = render(&part.repeat(140), &[]);
        }
        let deep = "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(100) }}";
        let _ = render(deep, &[]);
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(render_all).unwrap().join().unwrap();
}

/// What begins so costs little, and Jinja2 renders it.
const HARMLESS: [&str; 16] = [
    "{{ nope }}",
    "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = {'a'",
    "{% for b in [1, 2] %}{{ loop.changed",
    "{{ 'abc'[0:2:-1] }}",
    "{{ range(1, 0,",
    "{% set a = 'y' * 100000000",
    "{% set a = 'z' in",
    "{{ 'a' ~ 10",
    "{% set x %}{% for i in range(90000)",
    "{{ range(100000) | select('in'",
    "{{ ['y', 'z'] | map(",
    "{% set s = 'y' %}{% set s = s * 4000000 %}{% set m",
    "{{ xxxx",
    "xxxx",
    "\n\n",
    "{{ [1,1,",
];

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
        let start = &case[..case.floor_char_boundary(200)];
        let begun = std::time::Instant::now();
        let result = render(case, &[Message::user("x")]);
        let took = begun.elapsed();
        assert!(took.as_secs() < 60, "{start}: {took:?}");
        match result {
            Err(error) => assert!(error.to_string().contains("chat template"), "{start}: {error}"),
            Ok(text) => assert!(HARMLESS.iter().any(|known| case.starts_with(known)) && text.len() < 1 << 20, "{start}"),
        }
    }
    assert!(ChatTemplate::new(&"x".repeat(MAX_TEMPLATE + 1)).is_err());
}
