//! A template's text before it is parsed: line ends as Jinja2 reads them, `{% generation %}` as a block that the engine knows, and bounds on what the parser and the compiler would
//! follow to the end of the stack.

use minijinja::machinery::{Token, WhitespaceConfig, tokenize};

use super::{Problem, Spaces};

/// Published templates are below 20 KiB.
pub const MAX_TEMPLATE: usize = 256 << 10;
/// Operators, dots, pipes and brackets in one tag, and `elif`s in a template: the engine goes one call deeper for each.
pub const MAX_TERMS: usize = 500;
/// Loops within each other: names are looked up in each.
const MAX_LOOPS: usize = 16;
/// The name of the filter that marks a block of `{% generation %}`.
pub const GENERATION: &str = "generation";

const STATEMENTS: [&str; 17] = [
    "break",
    "call",
    "continue",
    "elif",
    "else",
    "endcall",
    "endfilter",
    "endfor",
    "endif",
    "endmacro",
    "endset",
    "endwith",
    "filter",
    "for",
    "if",
    "macro",
    "set",
];
/// Jinja2 knows them.
const UNSUPPORTED: [&str; 8] = ["autoescape", "block", "endautoescape", "endblock", "extends", "from", "import", "include"];

pub fn whitespace(spaces: Spaces) -> WhitespaceConfig {
    let trims = spaces == Spaces::Trimmed;
    // The last line end is gone already where it goes.
    WhitespaceConfig { keep_trailing_newline: true, lstrip_blocks: trims, trim_blocks: trims }
}

/// The text that the engine parses.
pub fn prepared(source: &str, spaces: Spaces) -> Result<String, Problem> {
    if source.len() > MAX_TEMPLATE {
        return Err(Problem::too_much(format!("it has {} bytes, more than {MAX_TEMPLATE}", source.len())));
    }
    let mut text = source.replace("\r\n", "\n").replace('\r', "\n");
    if spaces == Spaces::Trimmed && text.ends_with('\n') {
        text.pop();
    }
    let edits = Scan::default().edits(&text, spaces)?;
    for (place, word) in edits.into_iter().rev() {
        text.replace_range(place, word);
    }
    Ok(text)
}

#[derive(Default)]
struct Scan {
    loops: usize,
    elifs: usize,
    terms: usize,
    /// How far `x is` has got.
    test: Test,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Test {
    #[default]
    None,
    Is,
    Named,
}

impl Scan {
    /// Where a word must become another one.
    fn edits(mut self, text: &str, spaces: Spaces) -> Result<Vec<(std::ops::Range<usize>, &'static str)>, Problem> {
        let mut edits = Vec::new();
        let mut begins = false;
        for token in tokenize(text, false, Default::default(), whitespace(spaces)) {
            let (token, span) = token.map_err(|error| Problem::of_parser(&error))?;
            let line = usize::from(span.start_line);
            if let (true, Token::Ident(word)) = (begins, &token) {
                let replacement = match *word {
                    GENERATION => Some("filter generation"),
                    "endgeneration" => Some("endfilter"),
                    word => self.statement(word).map_err(|problem| problem.at(line)).map(|()| None)?,
                };
                edits.extend(replacement.map(|word| (span.start_offset as usize..span.end_offset as usize, word)));
            }
            begins = matches!(token, Token::BlockStart);
            let written = text.get(span.start_offset as usize..span.end_offset as usize).unwrap_or_default();
            self.token(&token, written).map_err(|problem| problem.at(line))?;
        }
        Ok(edits)
    }

    fn statement(&mut self, word: &str) -> Result<(), Problem> {
        match word {
            "for" => self.loops += 1,
            "endfor" => self.loops = self.loops.saturating_sub(1),
            "elif" => self.elifs += 1,
            "with" => {}
            _ if STATEMENTS.contains(&word) => {}
            _ if UNSUPPORTED.contains(&word) => return Err(Problem::unsupported(format!("`{{% {word} %}}`"))),
            _ => return Err(Problem::malformed(format!("unknown tag `{}`", word.chars().take(40).collect::<String>()))),
        }
        if self.loops > MAX_LOOPS {
            return Err(Problem::too_much(format!("there are more than {MAX_LOOPS} loops within each other")));
        }
        Ok(())
    }

    fn token(&mut self, token: &Token, written: &str) -> Result<(), Problem> {
        self.tests(token)?;
        match token {
            Token::VariableStart | Token::BlockStart => self.terms = 0,
            Token::Ident("and" | "or" | "not" | "in" | "is" | "if" | "else") => self.terms += 1,
            Token::Int(_) | Token::Int128(_) => {
                let is_padded = written.len() > 1 && written.starts_with('0') && written.bytes().all(|b| b.is_ascii_digit() || b == b'_');
                if is_padded && written.bytes().any(|byte| matches!(byte, b'1'..=b'9')) {
                    return Err(Problem::malformed(format!("`{written}` is not a number")));
                }
            }
            Token::Ident(_) | Token::Float(_) | Token::Str(_) | Token::String(_) => {}
            Token::TemplateData(_) | Token::VariableEnd | Token::BlockEnd => {}
            // They separate what is beside each other.
            Token::Comma
            | Token::Colon
            | Token::Assign
            | Token::BracketClose
            | Token::ParenClose
            | Token::BraceClose
            | Token::BraceOpen => {}
            _ => self.terms += 1,
        }
        if self.terms.max(self.elifs) > MAX_TERMS {
            let what = format!("an expression has more than {MAX_TERMS} operators, or the template as many `elif`s");
            return Err(Problem::too_much(what));
        }
        Ok(())
    }

    /// The engine reads more behind a test's name than Jinja2 does.
    fn tests(&mut self, token: &Token) -> Result<(), Problem> {
        self.test = match (self.test, token) {
            (Test::Is, Token::Ident("not")) => Test::Is,
            (Test::Is, Token::Ident(_)) => Test::Named,
            (Test::Named, Token::Minus | Token::Plus) => {
                return Err(Problem::unsupported("a sign behind a test without brackets"));
            }
            (Test::Named, Token::Ident("is")) => return Err(Problem::malformed("tests cannot be chained with `is`")),
            (_, Token::Ident("is")) => Test::Is,
            _ => Test::None,
        };
        Ok(())
    }
}
