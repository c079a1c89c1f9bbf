//! How a text file becomes text, in every reader alike: UTF-8, a byte order mark at the start is dropped, CRLF ends a line as LF does, and a NUL
//! byte is refused. It knows neither paths nor formats.

use std::borrow::Cow;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// UTF-16 and UTF-32, in either order of bytes, begin with one of these.
const WIDE_MARKS: [&[u8]; 3] = [b"\xFF\xFE", b"\xFE\xFF", b"\x00\x00\xFE\xFF"];

/// Why bytes are not a text. Lines and bytes are counted from 1, bytes within their line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct TextError {
    pub line: u64,
    pub why: String,
}

/// A whole file as text, its line ends as `\n`.
pub fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, TextError> {
    let bytes = without_mark(bytes).map_err(|why| TextError { line: 1, why })?;
    let text = plain(bytes).map_err(|fault| {
        let before = bytes.get(..fault.at).unwrap_or_default();
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        TextError { line: 1 + count_lines(before), why: fault.why(fault.at - line_start) }
    })?;
    Ok(if text.contains("\r\n") { Cow::Owned(text.replace("\r\n", "\n")) } else { Cow::Borrowed(text) })
}

/// One line of a file that is read line by line, without its line end. `number` counts from 1; an error is about that line.
pub fn decode_line(bytes: &[u8], number: u64) -> Result<&str, String> {
    let bytes = if number == 1 { without_mark(bytes)? } else { bytes };
    let text = plain(bytes).map_err(|fault| fault.why(fault.at))?;
    if number > 1 && text.starts_with('\u{feff}') {
        return Err("a byte order mark stands inside the file: were files joined?".to_string());
    }
    let text = text.strip_suffix('\n').unwrap_or(text);
    Ok(text.strip_suffix('\r').unwrap_or(text))
}

fn without_mark(bytes: &[u8]) -> Result<&[u8], String> {
    if WIDE_MARKS.iter().any(|mark| bytes.starts_with(mark)) {
        return Err("the file is UTF-16 or UTF-32, not UTF-8: save it as UTF-8".to_string());
    }
    Ok(bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes))
}

/// What is wrong, and at which byte from 0.
struct Fault {
    at: usize,
    is_nul: bool,
}

impl Fault {
    /// `at` is the byte's place in its line, from 0.
    fn why(&self, at: usize) -> String {
        match self.is_nul {
            true => format!("byte {} is NUL: is this a binary file, or UTF-16?", at + 1),
            false => format!("byte {} is not UTF-8", at + 1),
        }
    }
}

fn plain(bytes: &[u8]) -> Result<&str, Fault> {
    let nul = bytes.iter().position(|byte| *byte == 0).map(|at| Fault { at, is_nul: true });
    match (std::str::from_utf8(bytes), nul) {
        (Ok(text), None) => Ok(text),
        (Ok(_), Some(nul)) => Err(nul),
        (Err(error), nul) => {
            let at = error.valid_up_to();
            Err(nul.filter(|nul| nul.at < at).unwrap_or(Fault { at, is_nul: false }))
        }
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_dropped_and_line_ends_are_one() {
        assert_eq!(decode(b"\xEF\xBB\xBFa\r\nb\rc\n").unwrap(), "a\nb\rc\n");
        assert_eq!(decode("x\u{2028}\u{feff}y".as_bytes()).unwrap(), "x\u{2028}\u{feff}y");
        assert_eq!(decode(b"").unwrap(), "");
        assert_eq!(decode_line(b"\xEF\xBB\xBF{}\r\n", 1).unwrap(), "{}");
        assert_eq!(decode_line(b"{}", 2).unwrap(), "{}");
    }

    #[test]
    fn what_is_no_text_is_refused_at_its_line() {
        let said = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
        assert_eq!(said(b"a\nbc\xFFd"), "line 2: byte 3 is not UTF-8");
        assert_eq!(said(b"a\nbc\x00\xFF"), "line 2: byte 3 is NUL: is this a binary file, or UTF-16?");
        assert_eq!(said(b"\xFF\x00"), "line 1: byte 1 is not UTF-8");
        // A surrogate, as CESU-8 has it, and an overlong form.
        assert_eq!(said(b"\xED\xA0\xBD"), "line 1: byte 1 is not UTF-8");
        assert_eq!(said(b"\xC0\xAF"), "line 1: byte 1 is not UTF-8");
        for wide in [&b"\xFF\xFEa\0"[..], b"\xFE\xFF\0a", b"\xFF\xFE\0\0a\0\0\0", b"\0\0\xFE\xFF\0\0\0a"] {
            assert!(said(wide).starts_with("line 1: the file is UTF-16 or UTF-32"), "{}", said(wide));
        }
        assert!(said(b"{\0\"\0").contains("NUL"));
        assert!(decode_line(b"\xEF\xBB\xBF{}", 2).unwrap_err().contains("byte order mark"));
        assert!(decode_line(b"\xFF\xFE", 1).unwrap_err().contains("UTF-16"));
        assert!(decode_line(b"a\xFF", 3).unwrap_err().contains("byte 2 is not UTF-8"));
    }
}
