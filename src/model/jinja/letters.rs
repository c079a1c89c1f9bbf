//! What Python knows of letters: spaces, cases, digits, and where lines end.

use minijinja::Error;
use unicode_general_category::{GeneralCategory as Category, get_general_category};

use super::print::is_printable;
use super::run::unsupported;

/// `str.isspace`: Unicode's white space, and four separators besides.
pub fn is_space(letter: char) -> bool {
    letter.is_whitespace() || ('\x1c'..='\x1f').contains(&letter)
}

fn ends_line(letter: char) -> bool {
    matches!(letter, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// `str.splitlines(keepends)`.
pub fn lines(text: &str, keeps_ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(ends_line) {
        let (line, end) = rest.split_at(at);
        let length = match end.strip_prefix("\r\n") {
            Some(_) => 2,
            None => end.chars().next().map_or(0, char::len_utf8),
        };
        lines.push(if keeps_ends { &rest[..line.len() + length] } else { line });
        rest = &end[length..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// One letter at the beginning of a word.
fn title_letter(letter: char) -> Result<char, Error> {
    let mut upper = letter.to_uppercase();
    match (letter, upper.next(), upper.next()) {
        ('Ǆ' | 'ǅ' | 'ǆ', _, _) => Ok('ǅ'),
        ('Ǉ' | 'ǈ' | 'ǉ', _, _) => Ok('ǈ'),
        ('Ǌ' | 'ǋ' | 'ǌ', _, _) => Ok('ǋ'),
        ('Ǳ' | 'ǲ' | 'ǳ', _, _) => Ok('ǲ'),
        // Georgian has capitals, and no titles.
        ('\u{10d0}'..='\u{10ff}', _, _) => Ok(letter),
        (_, Some(upper), None) => Ok(upper),
        _ => unsupported(format!("the title case of `{letter}`")),
    }
}

fn is_title(letter: char) -> bool {
    !letter.is_ascii() && get_general_category(letter) == Category::TitlecaseLetter
}

fn is_cased(letter: char) -> bool {
    letter.is_lowercase() || letter.is_uppercase() || is_title(letter)
}

/// `str.capitalize`.
pub fn capitalized(text: &str) -> Result<String, Error> {
    let Some(first) = text.chars().next() else { return Ok(String::new()) };
    // Of the whole: whether a sigma ends a word depends on what stands before it.
    let lower = text.to_lowercase();
    let length: usize = first.to_lowercase().map(char::len_utf8).sum();
    Ok(format!("{}{}", title_letter(first)?, lower.get(length..).unwrap_or_default()))
}

/// `str.title`: each letter that follows none is a capital.
pub fn titled(text: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(text.len());
    let mut after_cased = false;
    for (at, letter) in text.char_indices() {
        if !after_cased {
            out.push(title_letter(letter)?);
        } else if letter == 'Σ' {
            out.push(if ends_word(text, at) { 'ς' } else { 'σ' });
        } else {
            out.extend(letter.to_lowercase());
        }
        after_cased = is_cased(letter);
    }
    Ok(out)
}

/// Whether a sigma at this place is a final one; a cased letter stands before it.
fn ends_word(text: &str, at: usize) -> bool {
    text[at..].to_lowercase().chars().count() == 1 || !text[at..].chars().nth(1).is_some_and(is_cased)
}

pub fn swapped(text: &str) -> String {
    let swap = |letter: char| -> String {
        if letter.is_uppercase() {
            letter.to_lowercase().collect()
        } else if letter.is_lowercase() {
            letter.to_uppercase().collect()
        } else {
            letter.to_string()
        }
    };
    text.chars().map(swap).collect()
}

/// `str.isalpha` and its kind. An empty text is nothing of the kind.
pub fn is_all(text: &str, class: &str) -> Result<bool, Error> {
    match class {
        "islower" => return Ok(text.chars().any(char::is_lowercase) && !text.chars().any(|c| c.is_uppercase() || is_title(c))),
        "isupper" => return Ok(text.chars().any(char::is_uppercase) && !text.chars().any(|c| c.is_lowercase() || is_title(c))),
        "istitle" => return Ok(is_titled(text)),
        "isascii" => return Ok(text.is_ascii()),
        "isprintable" => return Ok(text.chars().all(is_printable)),
        "isidentifier" if !text.is_ascii() => return unsupported("`isidentifier` of letters beyond ASCII"),
        "isidentifier" => {
            let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            return Ok(starts && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
        }
        _ => {}
    }
    for letter in text.chars() {
        if !is_of(letter, class)? {
            return Ok(false);
        }
    }
    Ok(!text.is_empty())
}

fn is_of(letter: char, class: &str) -> Result<bool, Error> {
    let category = get_general_category(letter);
    let is_letter = matches!(
        category,
        Category::UppercaseLetter
            | Category::LowercaseLetter
            | Category::TitlecaseLetter
            | Category::ModifierLetter
            | Category::OtherLetter
    );
    let is_number = matches!(category, Category::DecimalNumber | Category::LetterNumber | Category::OtherNumber);
    // Ideographs are letters, and some of them numbers.
    let is_ideograph = matches!(letter, '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}');
    match class {
        "isspace" => Ok(is_space(letter)),
        "isalpha" => Ok(is_letter),
        "isdecimal" => Ok(category == Category::DecimalNumber),
        "isdigit" if category == Category::OtherNumber => unsupported(format!("`isdigit` of `{letter}`")),
        "isdigit" => Ok(category == Category::DecimalNumber),
        "isnumeric" if is_ideograph => unsupported(format!("`isnumeric` of `{letter}`")),
        "isnumeric" => Ok(is_number),
        _ => Ok(is_letter || is_number),
    }
}

fn is_titled(text: &str) -> bool {
    let (mut after_cased, mut any) = (false, false);
    for letter in text.chars() {
        if letter.is_uppercase() || is_title(letter) {
            if after_cased {
                return false;
            }
            (after_cased, any) = (true, true);
        } else if letter.is_lowercase() {
            if !after_cased {
                return false;
            }
            any = true;
        } else {
            after_cased = false;
        }
    }
    any
}
