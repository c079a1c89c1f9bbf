//! What a template may say: no more than published ones do, and nothing whose cost or depth cannot be told beforehand.

use std::collections::BTreeSet;

use minijinja::Error;
use minijinja::machinery::{CompiledTemplate, Instruction, Token, tokenize};

use super::{WHITESPACE, refused};

/// Operators, dots, pipes and brackets in one tag, and `elif`s in a template: the engine goes one call deeper for each.
pub const MAX_TERMS: usize = 500;
/// Letters of a name: it is compared with others at every look.
const MAX_NAME: usize = 64;
/// Loops within each other: names are looked up in each.
const MAX_LOOPS: usize = 8;
const MAX_MACROS: usize = 64;
/// Names that are set in namespaces.
pub const MAX_FIELDS: usize = 64;
/// Places are counted in 16 bits.
const MAX_LINE: usize = 60_000;
/// Of a list or table that is written out.
const MAX_LITERAL: usize = 10_000;
const STATEMENTS: [&str; 14] =
    ["break", "continue", "elif", "else", "endfilter", "endfor", "endif", "endmacro", "endset", "filter", "for", "if", "macro", "set"];

/// Reads the words, before anything is made of them.
pub fn says(source: &str) -> Result<(), Error> {
    let lines = source.split('\n');
    if lines.clone().count() > MAX_LINE || lines.map(str::len).max() > Some(MAX_LINE) {
        return Err(refused(format!("it has more than {MAX_LINE} lines, or a line of more bytes")));
    }
    let (mut elifs, mut loops, mut macros) = (0, 0_usize, 0);
    let (mut in_macro, mut begins, mut tag) = (false, false, Tag::default());
    for token in tokenize(source, false, Default::default(), WHITESPACE) {
        let (token, span) = token?;
        let wrong = |why: String| Err(refused(format!("{why} at line {}", span.start_line)));
        if let (true, Token::Ident(word)) = (begins, &token) {
            if !STATEMENTS.contains(word) {
                return wrong(format!("`{{% {} %}}`", word.chars().take(40).collect::<String>()));
            }
            match *word {
                "for" => loops += 1,
                "endfor" => loops = loops.saturating_sub(1),
                "macro" if in_macro || loops > 0 => return wrong("a macro is made in another one or in a loop".to_string()),
                "macro" => (in_macro, macros) = (true, macros + 1),
                "endmacro" => in_macro = false,
                "elif" => elifs += 1,
                _ => {}
            }
        }
        begins = matches!(token, Token::BlockStart);
        match token {
            Token::VariableStart | Token::BlockStart => tag = Tag::default(),
            Token::TemplateData(_) | Token::VariableEnd | Token::BlockEnd => {}
            Token::Ident(word) if word.len() > MAX_NAME => return wrong(format!("a name has more than {MAX_NAME} letters")),
            Token::Ident("and" | "or" | "not" | "in" | "is" | "if" | "else") => tag.terms += 1,
            Token::Ident(_) | Token::Int(_) | Token::Int128(_) | Token::Float(_) => {}
            // They separate what is beside each other.
            Token::Comma | Token::Colon | Token::Assign | Token::BracketClose | Token::ParenClose | Token::BraceClose => {}
            Token::Str(_) | Token::String(_) | Token::BraceOpen => tag.literals = true,
            Token::BracketOpen => (tag.literals, tag.terms) = (true, tag.terms + 1),
            Token::Mul => (tag.products, tag.terms) = (true, tag.terms + 1),
            _ => tag.terms += 1,
        }
        if tag.terms.max(elifs) > MAX_TERMS {
            return wrong(format!("an expression has more than {MAX_TERMS} operators, or the template as many `elif`s"));
        }
        // The engine works out what it can when it compiles.
        if tag.products && tag.literals {
            return wrong("a text or a list stands beside `*`".to_string());
        }
        if loops > MAX_LOOPS || macros > MAX_MACROS {
            return wrong(format!("there are more than {MAX_LOOPS} loops within each other, or more than {MAX_MACROS} macros"));
        }
    }
    Ok(())
}

#[derive(Default)]
struct Tag {
    terms: usize,
    products: bool,
    literals: bool,
}

/// Reads what it was compiled to.
pub fn does(template: &CompiledTemplate) -> Result<(), Error> {
    let instructions = &template.instructions;
    let mut fields = BTreeSet::new();
    for at in 0..instructions.len() as u32 {
        let why = match instructions.get(at) {
            Some(Instruction::CompareAndPreserve(_)) => "comparisons in a row, such as `a < b < c`",
            Some(Instruction::CallMethod("changed" | "cycle", _)) => "`changed` or `cycle` of a loop",
            Some(Instruction::UnpackLists(_) | Instruction::MergeKwargs(_)) => "`*` or `**` before an argument",
            // The second bit.
            Some(Instruction::PushLoop(flags)) if flags & 2 != 0 => "a recursive loop",
            Some(Instruction::FastRecurse) => "a recursive loop",
            Some(Instruction::BuildList(Some(count)) | Instruction::BuildMap(count)) if *count > MAX_LITERAL => {
                "a list or table is too long"
            }
            Some(Instruction::SetAttr(name)) if fields.insert(*name) && fields.len() > MAX_FIELDS => "namespaces have too many names",
            _ => continue,
        };
        let line = instructions.get_line(at).map_or(String::new(), |line| format!(" at line {line}"));
        return Err(refused(format!("{why}{line}")));
    }
    Ok(())
}
