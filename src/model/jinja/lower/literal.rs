//! Constants as Python reads them.

use minijinja::machinery::{Span, ast};
use minijinja::value::{Value, ValueKind};

use super::{Expr, Lower, constant, line};
use crate::model::jinja::Problem;

impl Lower<'_> {
    pub fn constant(&self, constant_: &ast::Spanned<ast::Const>) -> Result<Expr, Problem> {
        let span = constant_.span();
        let value = match constant_.value.kind() {
            ValueKind::String => Value::from(self.string(span, constant_.value.as_str().unwrap_or_default())?),
            ValueKind::Number if constant_.value.is_integer() && i128::try_from(constant_.value.clone()).is_err() => {
                return self.unsupported("an integer of more than 127 bits", span);
            }
            _ => constant_.value.clone(),
        };
        Ok(constant(value, span))
    }

    /// The texts in quotes at a place, which are one text: the engine knows other escapes than Python does.
    fn string(&self, span: Span, parsed: &str) -> Result<String, Problem> {
        let written = self.text(span);
        if !written.contains('\\') {
            return Ok(parsed.to_string());
        }
        let mut out = String::new();
        let mut rest = written.trim_start();
        while let Some(quote) = rest.chars().next() {
            let mut escaped = false;
            let is_end = |(_, letter): &(usize, char)| {
                let ends = !escaped && *letter == quote;
                escaped = !escaped && *letter == '\\';
                ends
            };
            let Some((end, _)) = rest[1..].char_indices().find(is_end) else {
                return Err(Problem::malformed("a text has no end").at(line(span)));
            };
            out += &unescaped(&rest[1..=end]).map_err(|problem| problem.at(line(span)))?;
            rest = rest[end + 2..].trim_start();
        }
        Ok(out)
    }
}

/// Python's `unicode-escape`, of a text whose letters beyond ASCII have become escapes before.
fn unescaped(text: &str) -> Result<String, Problem> {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        let Some(escape) = letters.next() else { return Err(Problem::malformed("\\ at the end of a text")) };
        match escape {
            '\n' => {}
            '\\' | '\'' | '"' => out.push(escape),
            'a' => out.push('\x07'),
            'b' => out.push('\x08'),
            'f' => out.push('\x0c'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\x0b'),
            '0'..='7' => {
                let mut code = escape.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    let Some(digit) = letters.clone().next().and_then(|letter| letter.to_digit(8)) else { break };
                    letters.next();
                    code = code * 8 + digit;
                }
                out.extend(char::from_u32(code));
            }
            'x' => out.push(coded(&mut letters, 2)?),
            'u' => out.push(coded(&mut letters, 4)?),
            'U' => out.push(coded(&mut letters, 8)?),
            'N' => return Err(Problem::unsupported("`\\N` in a text")),
            _ if escape.is_ascii() => out.extend(['\\', escape]),
            // The backslash is that of the escape which the letter has become.
            _ => {
                out += &match u32::from(escape) {
                    code @ 0..=0xff => format!("\\x{code:02x}"),
                    code @ 0x100..=0xffff => format!("\\u{code:04x}"),
                    code => format!("\\U{code:08x}"),
                }
            }
        }
    }
    Ok(out)
}

fn coded(letters: &mut std::str::Chars, digits: usize) -> Result<char, Problem> {
    let code: String = letters.by_ref().take(digits).collect();
    if code.len() != digits || !code.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Problem::malformed("an escape in a text is cut"));
    }
    match u32::from_str_radix(&code, 16) {
        Ok(0xd800..=0xdfff) => Err(Problem::unsupported("half a surrogate pair in a text")),
        Ok(code) => char::from_u32(code).ok_or_else(|| Problem::malformed("an escape in a text is no letter")),
        Err(_) => Err(Problem::malformed("an escape in a text is cut")),
    }
}
