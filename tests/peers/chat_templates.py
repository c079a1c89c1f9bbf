"""What transformers renders: random templates, made of what published ones are made of, or templates that are given.

usage: chat_templates.py random SEED COUNT    a case a line: {"template", "context", "text" or "error"}
       chat_templates.py render CASES         the same for a file of cases {"template", "context"}
       chat_templates.py apply CASES          with apply_chat_template: {"template", "special", "messages", "tools", "add_generation_prompt"}

The day is 2026-01-31, UTC. Of Jinja2's own optimizer and of Python's addresses nothing is left in a text: a case that shows one has the error "Address".
"""

import datetime
import json
import random
import re
import sys

import transformers.utils.chat_template_utils as templates


class Now(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 31, 12, 30, 0)


templates.datetime = Now

TEXTS = ["", "a", "Hello", "hello world", " padded ", "\n lines\nof  text\n", "Ünïcödé ß", "日本語 😀", "<think>\nhm\n</think>\n\nyes", "</think>", "a,b;c", "x=1 y=2",
         "it's", 'say "hi"', "it's \"both\"", "tab\there", "1", "42", " 7 ", "3.5", "-2", "1e3", "%s and %d", "{} and {}", "{0}{1}", "<b>&amp;</b>", "ABC", "aBc dEf",
         "user", "assistant", "system", "/no_think", "word " * 12, "cr\r\nlf", "[INST]", "a-b_c.d", "é", "True", "none"]
NUMBERS = ["0", "1", "2", "3", "7", "10", "-1", "-3", "100", "0x1f", "1_000", "123456789012"]
FLOATS = ["0.5", "1.0", "2.25", "-1.5", "1e3", "1.5e-7", "1e16", "123456.789", "0.1"]
KEYS = ["role", "content", "name", "a", "b", "type", "text", "items", "keys", "x"]
TEXT_FILTERS = ["upper", "lower", "title", "capitalize", "trim", "string", "indent", "indent(2)", "indent(2, true)", "indent(width=3, blank=true)", "indent('> ')", "replace('a', 'bb')",
                "replace('l', 'L', 1)", "replace('', '.')", "center(12)", "truncate(9)", "truncate(7, true, '..')", "truncate(10, leeway=0)", "urlencode", "trim('a ')", "reverse", "default('d')",
                "default('d', true)", "d", "e", "escape", "safe", "forceescape", "format(1, 'a')", "format('x')", "format(s=1)", "tojson", "tojson(ensure_ascii=true)", "first", "last"]
LIST_FILTERS = ["list", "reverse | list", "sort", "sort(reverse=true)", "unique | list", "select | list", "reject | list", "select('string') | list", "reject('none') | list", "select('equalto', 'a') | list",
                "map('upper') | list", "map('string') | list", "map('trim') | list", "map('default', '-') | list", "batch(2) | list", "batch(3, 'f') | list", "slice(2) | list", "slice(3, 'x') | list",
                "map('length') | list", "map('first') | list", "map('replace', 'a', 'b') | list", "select('in', ['a', 1]) | list", "sort(case_sensitive=true)", "map('tojson') | list"]
MESSAGE_FILTERS = ["map(attribute='role') | list", "map(attribute='content') | list", "map(attribute='x', default='?') | list", "selectattr('role', 'equalto', 'user') | list", "selectattr('content') | list",
                   "rejectattr('role', 'eq', 'system') | list", "selectattr('role', 'defined') | list", "selectattr('x', 'undefined') | list", "groupby('role')", "groupby('role') | map('first') | list",
                   "groupby('role') | map(attribute='list') | map('length') | list", "sort(attribute='role')", "sort(attribute='role,content')", "unique(attribute='role') | list",
                   "selectattr('role', 'in', ['user', 'tool']) | map(attribute='content') | list", "rejectattr('name', 'defined') | list"]
LIST_TEXT = ["join", "join(', ')", "join('-')", "tojson", "tojson(indent=2)", "tojson(indent=4)", "tojson(separators=(',', ':'))", "string", "tojson(sort_keys=true)", "tojson(indent='\\t')", "first", "last"]
DICT_FILTERS = ["items | list", "dictsort", "dictsort(true)", "dictsort(by='value')", "dictsort(reverse=true)", "list", "length", "tojson", "tojson(indent=2)", "tojson(sort_keys=true, indent=1)", "string", "xmlattr",
                "urlencode", "first", "last", "items | map('first') | list", "default({})", "attr('items') is callable"]
NUMBER_FILTERS = ["abs", "int", "float", "round", "round(1)", "round(2, 'floor')", "round(1, 'ceil')", "string", "filesizeformat", "default(1)", "tojson", "int(3)"]
FILTERS = sorted({*TEXT_FILTERS, *LIST_FILTERS, *MESSAGE_FILTERS, *LIST_TEXT, *DICT_FILTERS, *NUMBER_FILTERS, "length", "count", "wordcount", "sum", "min", "max", "int(0, 16)", "float(1.5)", "sum(start=5)",
                  "min(attribute='role')", "max(attribute='content')", "map('upper')", "select", "reverse", "unique", "batch(2)", "sum(attribute='n')", "nofilter", "pprint", "list | length"})
TESTS = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true", "false", "mapping", "sequence", "iterable", "callable", "odd", "even", "lower", "upper",
         "divisibleby 2", "divisibleby(3)", "eq 1", "eq('a')", "equalto 'user'", "ne 2", "gt 1", "lt 5", "ge 2", "le 2", "in ['a', 'user', 1]", "in 'abc'", "sameas none", "sameas true", "escaped",
         "filter", "test", "notest"]
TEXT_METHODS = [".upper()", ".lower()", ".title()", ".capitalize()", ".strip()", ".lstrip()", ".rstrip()", ".strip('a ')", ".rstrip('\\n')", ".lstrip('\\n')", ".split('</think>')[-1]",
                ".split('</think>')[0].rstrip('\\n')", ".replace('a', 'b')", ".replace('l', 'L', 1)", ".replace('', '-')", ".replace('', '-', 2)", ".replace('a', '', 0)", ".join(['x', 'y'])", ".join(w)", ".join('ab')",
                ".format('x', 1)", ".format(a='x')", ".center(9)", ".center(10, '*')", ".ljust(8)", ".rjust(8, '.')", ".zfill(6)", ".removeprefix('H')", ".removesuffix('o')", ".swapcase()", ".casefold()",
                "[0]", "[-1]", "[1:]", "[:2]", "[::-1]", "[-2:]", "[1:-1]", "[::2]", "[5:1:-2]", "[:]", "[none:2]", "[99:]", "[-99:3]", "[3:1]", "[n:]", "[:n]"]
TEXT_LISTS = [".split()", ".split(' ')", ".split('</think>')", ".split('a', 1)", ".split(maxsplit=1)", ".split(None, 2)", ".rsplit(' ', 1)", ".rsplit()", ".rsplit(None, 1)", ".splitlines()", ".splitlines(true)",
              ".partition(' ')", ".rpartition('a')", ".split(sep=',')", ".split('\\n')", " | list"]
TEXT_NUMBERS = [".find('l')", ".find('l', 3)", ".rfind('l')", ".find('z')", ".count('l')", ".count('')", ".count('o', 2, -1)", ".find('', 99)", " | length", " | wordcount", " | int", " | float", " | int(-1)",
                " | int(0, 16)"]
TEXT_BOOLS = [".startswith('a')", ".startswith(('a', 'H'))", ".endswith('d')", ".endswith(('</think>', 'x'))", ".startswith('e', 1)", ".isdigit()", ".isalpha()", ".isalnum()", ".isspace()", ".isupper()",
              ".islower()", ".istitle()", ".isnumeric()", ".isdecimal()", ".isascii()", ".isprintable()"]
DICT_METHODS = [".get('role')", ".get('nope')", ".get('nope', 'd')", ".get('a', 1)", ".items()", ".keys()", ".values()", ".items() | list", ".keys() | list", ".values() | list", ".copy()", ".role", ".content",
                ".a", ".b", ".name", "['role']", "['content']", "['a']", "['items']", "['nope']", ".items", ".keys", ".get", "[n]", "[none]", "[1.0]", ".items() | length", ".keys() | join(',')", ".pop", "['pop']"]
LIST_METHODS = ["[0]", "[-1]", "[1]", "[99]", "[n]", "['nope']", "[1:]", "[:2]", "[::-1]", "[-2:]", "[1:-1]", "[::2]", ".count(1)", ".count('a')", ".copy()", ".0", "[true]", ".nope", ".index", "[5:1:-2]", "[none:2]"]
METHODS = sorted({*TEXT_METHODS, *TEXT_LISTS, *TEXT_NUMBERS, *TEXT_BOOLS, *DICT_METHODS, *LIST_METHODS, ".append(1)", ".pop()", ".update({})", ".nope()", ".__class__", ".real", ".encode()", ".index('b')",
                  "[0].role", "[0]['content']", "[-1].content", ".index('a')"})
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]


class Maker:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.in_loop = 0
        self.macros = []
        self.names = []

    def one(self, of):
        return self.random.choice(of)

    def chance(self, p):
        return self.random.random() < p

    # Data.

    def value(self, depth=2):
        kinds = ["text"] * 4 + ["int", "float", "bool", "none"] + (["list", "dict"] if depth else [])
        kind = self.one(kinds)
        if kind == "text":
            return self.one(TEXTS)
        if kind == "int":
            return self.one([0, 1, 2, 3, 7, -1, 42, 12345678901234567890, -5])
        if kind == "float":
            return self.one([0.5, 1.0, -2.5, 1e20, 1e-5, 3.14159, 100.0])
        if kind == "bool":
            return self.chance(0.5)
        if kind == "none":
            return None
        if kind == "list":
            return [self.value(depth - 1) for _ in range(self.random.randrange(4))]
        return {self.one(KEYS): self.value(depth - 1) for _ in range(self.random.randrange(4))}

    def message(self):
        role = self.one(["user", "assistant", "system", "tool", "user", "assistant"])
        message = {"role": role, "content": self.one(TEXTS)}
        if self.chance(0.1):
            message["content"] = [{"type": "text", "text": self.one(TEXTS)} for _ in range(self.random.randrange(3))]
        if role == "assistant" and self.chance(0.3):
            call = {"name": "f", "arguments": self.one([{"b": 1, "a": "ü"}, "{\"x\": 1}", {}])}
            message["tool_calls"] = [self.one([call, {"id": "c123456789"[:9], "type": "function", "function": call}])]
        if role == "assistant" and self.chance(0.2):
            message["reasoning_content"] = self.one(TEXTS)
        if self.chance(0.1):
            message["name"] = "n"
        if self.chance(0.1):
            message["extra"] = self.value()
        if self.chance(0.1):
            message = dict(reversed(list(message.items())))
        return message

    def context(self):
        tool = {"type": "function", "function": {"name": "get", "description": "d\"q", "parameters": {"type": "object", "properties": {
            "city": {"type": "string", "description": "über"}, "n": {"type": "integer", "enum": [1, 2]}}, "required": ["city"]}}}
        context = {"messages": [self.message() for _ in range(self.random.randrange(1, 5))], "tools": self.one([None, None, [tool], [tool, tool], []]),
                   "documents": None, "add_generation_prompt": self.chance(0.5), "bos_token": "<s>", "s": self.one(TEXTS), "n": self.one([0, 1, 2, 3, -2, 5]),
                   "f": self.one([0.5, 2.0, -1.25]), "b": self.chance(0.5), "z": None, "l": [self.value(1) for _ in range(self.random.randrange(4))],
                   "d": {self.one(KEYS): self.value(1) for _ in range(self.random.randrange(4))}, "w": ["b", "a", "C", "a"], "v": self.value()}
        if self.chance(0.7):
            context["eos_token"] = "</s>"
        return context

    # Expressions.

    def literal(self):
        kind = self.random.randrange(8)
        if kind < 3:
            text = self.one(TEXTS)
            quote = self.one("'\"")
            written = text.replace("\\", "\\\\").replace("\r", "\\r").replace("\t", "\\t").replace(quote, "\\" + quote)
            written = written.replace("\n", "\\n") if self.chance(0.8) else written
            if self.chance(0.05):
                written += self.one(["\\x41", "\\u00e9", "\\d", "\\101", "\\/", "\\\\", "\\a"])
            return quote + written + quote
        if kind == 3:
            return self.one(NUMBERS)
        if kind == 4:
            return self.one(FLOATS)
        return self.one(["true", "false", "none", "True", "None"])

    def name(self):
        names = ["messages", "messages[0]", "messages[-1]", "tools", "add_generation_prompt", "bos_token", "eos_token", "s", "n", "f", "b", "z", "l", "d", "w", "v", "nope", "documents"] + self.names
        names += ["loop.index", "loop.index0", "loop.first", "loop.last", "loop.length", "loop.previtem", "loop.nextitem", "loop.revindex", "m", "m.role", "m['content']"] * min(self.in_loop, 1)
        return self.one(names)

    def atom(self, depth):
        kind = self.random.randrange(10)
        if kind < 5 or depth <= 0:
            return self.name()
        if kind < 8:
            return self.literal()
        if kind == 8:
            items = ", ".join(self.expr(depth - 1) for _ in range(self.random.randrange(3)))
            return self.one(["[%s]", "[%s]", "(%s)", "(%s,)"]) % items if items else self.one(["[]", "()", "{}"])
        return "{" + ", ".join(f"'{self.one(KEYS)}': {self.expr(depth - 1)}" for _ in range(self.random.randrange(3))) + "}"

    def expr(self, depth=2):
        """Mostly of sense."""
        if self.chance(0.12):
            return self.wild(depth)
        return self.one([self.text, self.text, self.text, self.number, self.boolean, self.sequence, self.table, self.choice])(depth)

    def choice(self, depth):
        if depth <= 0:
            return self.one(["nope", "v", "z", "tools"])
        kind = self.random.randrange(6)
        if kind == 0:
            return f"{self.expr(depth - 1)} if {self.boolean(depth - 1)}" + (f" else {self.expr(depth - 1)}" if self.chance(0.7) else "")
        if kind == 1:
            return f"{self.expr(depth - 1)} {self.one(['or', 'and'])} {self.expr(depth - 1)}"
        if kind == 2:
            return f"{self.one(['nope', 'z', 'v', 'messages[0].nope', 'd.nope', 'tools'])} | default({self.expr(depth - 1)}{self.one(['', ', true'])})"
        if kind == 3:
            return self.one(["d", "messages[0]", "messages[-1]"]) + self.one(DICT_METHODS)
        return f"({self.expr(depth - 1)})"

    def text(self, depth):
        names = ["s", "bos_token", "messages[0].role", "messages[0]['role']", "messages[-1].role", "w[0]"] + ["messages[0].content", "messages[-1]['content']"] * 2
        names += ["m.role", "m.content", "m['content']"] * min(self.in_loop, 1)
        kind = self.random.randrange(12) if depth > 0 else self.random.randrange(3)
        if kind < 2:
            return self.one(names)
        if kind == 2:
            return self.literal() if self.chance(0.1) else self.quoted()
        if kind < 5:
            return f"{self.one(['%s', '(%s)']) % self.text(depth - 1) if depth > 1 else self.text(0)}" + self.one(TEXT_METHODS) if self.chance(0.5) else f"({self.text(depth - 1)}){self.one(TEXT_METHODS)}"
        if kind < 7:
            return f"{self.text(depth - 1)} | {self.one(TEXT_FILTERS)}"
        if kind == 7:
            return f"{self.text(depth - 1)} + {self.text(depth - 1)}"
        if kind == 8:
            return f"{self.expr(depth - 1)} ~ {self.expr(depth - 1)}"
        if kind == 9:
            return f"{self.sequence(depth - 1)} | {self.one(LIST_TEXT)}"
        if kind == 10:
            return self.one(["'%s|%d' % (s, n)", "'%5.2f' % f", "'%-4s|' % s", "'%03d' % n", "'%(a)s' % {'a': s}", "'%s' % l", "'%r' % s", "'%s' % nope", "'{:>5}|{:<4}'.format(s, n)", "'{:,}'.format(1234567)",
                             "'{:.2f}'.format(f)", "'{0!r} {1}'.format(s, d)", "'{a[0]} {b.role}'.format(a=w, b=messages[0])", "'{:03d}|{:x}'.format(n, 255)", "'%x %o %e %g' % (255, 8, f, f)", "'%c%%' % 'x'", "'%s' % (l,)",
                             "'{:^9}|{:+d}'.format('ab', n)", "'{{}}'.format()", "'%i %5s' % (n, b)", "'{:%}'.format(0.25)", "'{:e}'.format(12345.678)"])
        if self.macros and self.chance(0.7):
            name, count = self.one(self.macros)
            args = [self.expr(depth - 1) for _ in range(self.random.randrange(count + 1))]
            if len(args) < count and self.chance(0.5):
                args.append(f"p{count - 1}={self.expr(depth - 1)}")
            return f"{name}({', '.join(args)})"
        return f"{self.text(depth - 1)} * {self.one(['2', '3', '0', 'n', '-1'])}"

    def quoted(self):
        text, quote = self.one(TEXTS), self.one("'\"")
        text = text.replace("\\", "\\\\").replace("\r", "\\r").replace(quote, "\\" + quote)
        return quote + (text.replace("\n", "\\n") if self.chance(0.8) else text) + quote

    def number(self, depth):
        names = ["n", "f", "messages | length", "b", "1", "2", "0.5"] + ["loop.index", "loop.index0", "loop.length", "loop.revindex", "loop.depth"] * min(self.in_loop, 1)
        kind = self.random.randrange(9) if depth > 0 else self.random.randrange(3)
        if kind < 2:
            return self.one(names)
        if kind == 2:
            return self.one(NUMBERS + FLOATS)
        if kind < 5:
            return f"({self.number(depth - 1)} {self.one(['+', '-', '*', '/', '//', '%', '+', '-', '**'])} {self.number(depth - 1)})"
        if kind == 5:
            return f"({self.number(depth - 1)}) | {self.one(NUMBER_FILTERS)}"
        if kind == 6:
            return f"{self.text(0)}{self.one(TEXT_NUMBERS)}"
        if kind == 7:
            return f"{self.sequence(depth - 1)} | {self.one(['length', 'count', 'list | length'])}"
        return f"{self.one(['[1, 2.5, 3]', '[n, f]', 'range(4)', '[3, 1, 2]', '[true, 2]'])} | {self.one(['sum', 'min', 'max', 'first', 'last', 'sum(start=1)'])}"

    def boolean(self, depth):
        kind = self.random.randrange(12) if depth > 0 else self.random.randrange(3)
        if kind == 0:
            return self.one(["true", "false", "b", "add_generation_prompt", "tools", "nope", "loop.first" if self.in_loop else "z", "loop.last" if self.in_loop else "d"])
        if kind < 3:
            return f"{self.one(['nope', 'tools', 's', 'n', 'd', 'l', 'messages', 'z', 'messages[0].name', 'messages[0].content', 'v', 'eos_token', 'f', 'b'])} is {self.one(['', 'not '])}{self.one(TESTS)}"
        if kind < 5:
            return f"{self.text(depth - 1)} {self.one(['==', '!=', 'in', 'not in', '<', '>='])} {self.text(depth - 1)}"
        if kind == 5:
            return f"{self.number(depth - 1)} {self.one(['==', '!=', '<', '<=', '>', '>='])} {self.number(depth - 1)}"
        if kind == 6:
            return f"{self.text(0)}{self.one(TEXT_BOOLS)}"
        if kind == 7:
            return f"{self.one(['not ', ''])}({self.boolean(depth - 1)}) {self.one(['and', 'or'])} {self.boolean(depth - 1)}"
        if kind == 8:
            return f"{self.expr(depth - 1)} {self.one(['in', 'not in'])} {self.one(['w', 'l', 'messages[0]', 'd', '[1, 2.0, none, s]', 'nope', 'messages', 'range(3)', 'd.keys()', 'd.values()'])}"
        if kind == 9:
            return f"{self.number(depth - 1)} {self.one(['<', '<=', '=='])} {self.number(depth - 1)} {self.one(['<', '<=', '!='])} {self.number(depth - 1)}"
        if kind == 10:
            return f"{self.expr(depth - 1)} == {self.expr(depth - 1)}"
        return "not " + self.one(["nope", "z", "tools", "s", "l", "n", "messages[0].name"])

    def sequence(self, depth):
        kind = self.random.randrange(8) if depth > 0 else self.random.randrange(2)
        if kind == 0:
            return self.one(["w", "w", "l", "messages", "[1, 2, 3]", "['b', 'A', 'c']", "(1, 'a')", "[]", "range(3)", "messages[1:]"])
        if kind == 1:
            return self.one(["w", "[s, n, f]", "[none, true, 1.0, 'a']", "[[1], (2,), {}]", "['it\\'s', \"q\"]", "[s]", "(s,)", "[nope]"])
        if kind == 2:
            return "[" + ", ".join(self.expr(depth - 1) for _ in range(self.random.randrange(4))) + "]"
        if kind == 3:
            return f"{self.sequence(depth - 1)} | {self.one(LIST_FILTERS)}"
        if kind == 4:
            return f"messages | {self.one(MESSAGE_FILTERS)}"
        if kind == 5:
            return f"({self.text(depth - 1)}){self.one(TEXT_LISTS)}"
        if kind == 6:
            return f"({self.sequence(depth - 1)}){self.one(LIST_METHODS)}"
        return f"({self.sequence(depth - 1)} | list + {self.sequence(depth - 1)} | list)" if self.chance(0.5) else f"{self.one(['d.items()', 'd | dictsort', 'd | items', 'd.keys()', 'd.values()'])} | list"

    def table(self, depth):
        kind = self.random.randrange(6)
        if kind < 2 or depth <= 0:
            return self.one(["d", "messages[0]", "messages[-1]", "{}", "{'b': 1, 'a': [s]}", "dict(a=1, b=s)", "{1: 'x', 'y': none}"])
        if kind == 2:
            return "{" + ", ".join(f"'{self.one(KEYS)}': {self.expr(depth - 1)}" for _ in range(self.random.randrange(4))) + "}"
        if kind == 3:
            return f"({self.table(depth - 1)}){self.one(DICT_METHODS)}"
        return f"{self.table(depth - 1)} | {self.one(DICT_FILTERS)}"

    def wild(self, depth):
        kind = self.random.randrange(22)
        if depth <= 0 or kind < 4:
            return self.atom(depth)
        if kind < 8:
            return f"{self.atom(depth - 1)}{self.one(METHODS)}"
        if kind < 12:
            return f"{self.wild(depth - 1)} | {self.one(FILTERS)}"
        if kind < 14:
            return f"{self.wild(depth - 1)} {self.one(OPERATORS)} {self.wild(depth - 1)}"
        if kind == 14:
            return f"({self.wild(depth - 1)} {self.one(OPERATORS)} {self.wild(depth - 1)}) {self.one(OPERATORS)} {self.wild(depth - 1)}"
        if kind == 15:
            return f"{self.atom(depth - 1)} is {self.one(['', 'not '])}{self.one(TESTS)}"
        if kind == 16:
            return f"{self.wild(depth - 1)} if {self.wild(depth - 1)}" + (f" else {self.wild(depth - 1)}" if self.chance(0.7) else "")
        if kind == 17:
            return self.one(["not ", "-", "- ", "not not "]) + self.atom(depth - 1)
        if kind == 18:
            return self.one([f"range({self.one(NUMBERS)})", f"range(1, {self.one(NUMBERS)}) | list", f"range(5, 0, -2) | list", "dict(a=1, b='x')", f"dict({self.atom(depth - 1)})", "namespace(a=1, b=[2])",
                             f"dict(d, c={self.atom(0)})", "strftime_now('%d %b %Y')", "strftime_now('%Y-%m-%d')", "raise_exception('stop')", "range(10**6)", "joiner()"])
        if kind == 19:
            return f"{self.atom(depth - 1)} {self.one(['<', '==', '<=', '!=', 'in'])} {self.atom(depth - 1)} {self.one(['<', '==', '>', 'not in'])} {self.atom(depth - 1)}"
        if kind == 20 and self.macros:
            name, count = self.one(self.macros)
            args = [self.wild(depth - 1) for _ in range(self.random.randrange(count + 2))]
            if self.chance(0.3):
                args.append(f"{self.one(['p0', 'p1', 'q'])}={self.wild(depth - 1)}")
            if self.chance(0.1):
                args.append("*w")
            return f"{name}({', '.join(args)})"
        return f"({self.wild(depth - 1)}){self.one(METHODS)}"

    # Statements.

    def space(self):
        return self.one(["", "", "", " ", "\n", "\n\n", "  \n", "\n  ", "text", " text ", "\ntext\n", "\t"])

    def tag(self, inner):
        left, right = self.one(["{%", "{%-", "{%-", "{%+"]), self.one(["%}", "-%}", "-%}", "+%}"])
        return f"{left} {inner} {right}"

    def block(self, depth):
        return "".join(self.space() + self.statement(depth) for _ in range(self.random.randrange(1, 4))) + self.space()

    def statement(self, depth):
        kind = self.random.randrange(20)
        if depth <= 0 or kind < 6:
            left, right = self.one(["{{", "{{", "{{-"]), self.one(["}}", "}}", "-}}"])
            return f"{left} {self.expr(2)} {right}"
        if kind < 9:
            text = self.tag(f"if {self.expr(2)}") + self.block(depth - 1)
            if self.chance(0.3):
                text += self.tag(f"elif {self.expr(1)}") + self.block(depth - 1)
            if self.chance(0.5):
                text += self.tag("else") + self.block(depth - 1)
            return text + self.tag("endif")
        if kind < 13:
            over = self.one(["messages", "messages", "messages", "l", "w", "d", "d.items()", "s", "range(3)", "tools", "nope", "messages[1:]", "messages | selectattr('role', 'equalto', 'user')",
                             "d | items", "d | dictsort", "messages | reverse", "w | batch(2)", self.expr(1)])
            target = "k, m" if "items" in over or "dictsort" in over else "m"
            if self.chance(0.05):
                target = self.one(["(k, m)", "a, m", "m"])
            condition = f" if {self.expr(1)}" if self.chance(0.15) else ""
            self.in_loop += 1
            body = self.block(depth - 1)
            if self.chance(0.2):
                body += self.tag(f"if {self.expr(1)}") + self.tag(self.one(["break", "continue"])) + self.tag("endif") + self.block(0)
            self.in_loop -= 1
            other = self.tag("else") + self.block(0) if self.chance(0.15) else ""
            return self.tag(f"for {target} in {over}{condition}") + body + other + self.tag("endfor")
        if kind < 16:
            name = self.one(["x", "y", "ns.a", "x", "s", "tools"])
            if self.chance(0.1):
                name = "x, y"
            value = self.expr(2)
            if name == "ns.a" and "ns" not in self.names:
                name = "ns"
                value = self.one(["namespace()", "namespace(a='')", "namespace(a=0, b=none)"])
            for part in name.split(", "):
                if "." not in part and part not in self.names:
                    self.names.append(part)
            if self.chance(0.15) and "," not in name:
                return self.tag(f"set {name}") + self.block(depth - 1) + self.tag("endset")
            return self.tag(f"set {name} = {value}")
        if kind == 16:
            return self.tag(f"filter {self.one(['upper', 'trim', 'replace(' + repr('a') + ', ' + repr('b') + ')', 'indent'])}") + self.block(depth - 1) + self.tag("endfilter")
        if kind == 17 and not self.in_loop:
            name, count = f"f{len(self.macros)}", self.random.randrange(3)
            params = [f"p{i}" + (f"={self.expr(1)}" if i and self.chance(0.6) else "") for i in range(count)]
            known, self.names = self.names, self.names + [f"p{i}" for i in range(count)] + self.one([[], [], ["varargs"], ["kwargs"]])
            body = self.block(depth - 1) + (self.one(["{{ caller() }}", "{{ caller('c') }}", "{% if caller %}{{ caller() }}{% endif %}"]) if self.chance(0.2) else "")
            self.names = known
            self.macros.append((name, count))
            return self.tag(f"macro {name}({', '.join(params)})") + body + self.tag("endmacro")
        if kind == 18 and self.macros:
            name, count = self.one(self.macros)
            args = ", ".join(self.expr(1) for _ in range(count))
            return self.tag(f"call{self.one(['', '(c)'])} {name}({args})") + self.block(depth - 1) + self.tag("endcall")
        if kind == 19:
            return self.one([self.tag("generation") + self.block(depth - 1) + self.tag("endgeneration"), "{# a comment #}", "{#- a comment -#}\n", "{#+ x +#}", "{% raw %} {{ x }} {% endraw %}",
                             "{%- raw -%}\n {% if %}\n{%- endraw -%}", self.tag(f"with x = {self.expr(1)}, y = {self.one(['x', '1'])}") + self.block(depth - 1) + self.tag("endwith")])
        return "{{ " + self.expr(2) + " }}"

    def template(self):
        kind = self.random.randrange(10)
        if kind < 4:
            return "{{ " + self.expr(self.one([1, 2, 2, 3])) + " }}"
        if kind < 5:
            return "|".join("{{ " + self.expr(1) + " }}" for _ in range(3))
        text = "".join(self.space() + self.statement(self.one([1, 2, 3])) for _ in range(self.random.randrange(1, 6))) + self.space()
        return text.replace("\n", "\r\n") if self.chance(0.05) else text


def rendered(template, context):
    try:
        text = templates._cached_compile_jinja_template(template).render(**context)
    except Exception as error:
        return {"error": type(error).__name__, "why": str(error)[:200]}
    if re.search(r"at 0x[0-9a-f]{6}|_MagicContext", text):
        return {"error": "Address", "why": text[:200]}
    try:
        text.encode()
    except UnicodeEncodeError:
        return {"error": "Surrogate", "why": ""}
    return {"text": text}


def applied(case):
    """As a tokenizer does it: see `apply_chat_template` of transformers."""
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    class Tokenizer:
        special_tokens_map = case["special"]
        chat_template = case["template"]
        get_chat_template = PreTrainedTokenizerBase.get_chat_template

    try:
        text = PreTrainedTokenizerBase.apply_chat_template(Tokenizer(), case["messages"], tools=case.get("tools"), documents=case.get("documents"), tokenize=False,
                                                           add_generation_prompt=case["add_generation_prompt"])
    except Exception as error:
        return {"error": type(error).__name__, "why": str(error)[:200]}
    return {"text": text}


def main():
    if sys.argv[1] == "random":
        seed, count = int(sys.argv[2]), int(sys.argv[3])
        for i in range(count):
            maker = Maker(f"{seed}/{i}")
            case = {"template": maker.template(), "context": maker.context()}
            print(json.dumps(case | rendered(case["template"], case["context"])))
        return
    with open(sys.argv[2], encoding="utf-8") as file:
        cases = json.load(file)
    for case in cases:
        print(json.dumps(case | (rendered(case["template"], case["context"]) if sys.argv[1] == "render" else applied(case))))


main()
