//! A command's words as lines of bounded length and number: whatever it prints, nothing fills the memory or moves a terminal's cursor.

use std::io::{ErrorKind, Read};

/// Longer lines are cut.
const LINE_MAX_BYTES: usize = 4096;
/// Of each stream; what comes after is read and forgotten.
const LINES_MAX: usize = 20_000;

/// Reads to the end, passing on each line without its end, for as long as somebody takes them.
pub fn forward(mut stream: impl Read, pass: &mut dyn FnMut(String) -> bool) {
    let mut splitter = Splitter::default();
    let mut buffer = [0u8; 8192];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                for byte in buffer.iter().take(n) {
                    if let Some(line) = splitter.push(*byte)
                        && !pass(line)
                    {
                        return;
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    if let Some(line) = splitter.rest() {
        pass(line);
    }
}

#[derive(Default)]
struct Splitter {
    line: Vec<u8>,
    cut: usize,
    count: usize,
}

impl Splitter {
    fn push(&mut self, byte: u8) -> Option<String> {
        match byte {
            b'\n' => self.take(),
            _ if self.line.len() < LINE_MAX_BYTES => {
                self.line.push(byte);
                None
            }
            _ => {
                self.cut += 1;
                None
            }
        }
    }

    fn rest(&mut self) -> Option<String> {
        if self.line.is_empty() { None } else { self.take() }
    }

    fn take(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        let cut = std::mem::take(&mut self.cut);
        self.count = self.count.saturating_add(1);
        match self.count.cmp(&LINES_MAX) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => return Some(format!("… further lines are left out (more than {LINES_MAX})")),
            std::cmp::Ordering::Greater => return None,
        }
        let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line));
        let mut text: String = text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
        if cut > 0 {
            text.push_str(&format!("… ({cut} more bytes)"));
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        forward(bytes, &mut |line| {
            lines.push(line);
            true
        });
        lines
    }

    #[test]
    fn lines_come_one_by_one() {
        assert_eq!(lines(b"a\r\n\nb"), ["a", "", "b"]);
        assert_eq!(lines(b""), [""; 0]);
    }

    #[test]
    fn nothing_odd_gets_through() {
        assert_eq!(lines(b"\x1b[2J\xff\tx"), ["\u{fffd}[2J\u{fffd}\tx"]);
        let long = lines(&[b'x'; 10_000]);
        assert_eq!(long.len(), 1);
        assert!(long[0].ends_with("x… (5904 more bytes)"), "{}", &long[0][4090..]);
        let many = lines("\n".repeat(30_000).as_bytes());
        assert_eq!(many.len(), LINES_MAX);
        assert!(many[LINES_MAX - 1].contains("left out"));
    }
}
