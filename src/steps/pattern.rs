//! Patterns for answers: one that an answer must match, one that takes the answer out of its surroundings as the `regex` filter of
//! lm-evaluation-harness does. Matching takes time in proportion to the answer, whatever the pattern.

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// Of a compiled pattern.
const MAX_BYTES: usize = 4 << 20;

/// A pattern that can be asked.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    /// An error is one line.
    pub fn new(source: &str) -> Result<Pattern, String> {
        let built = RegexBuilder::new(source).size_limit(MAX_BYTES).build();
        built.map(Pattern).map_err(|error| {
            let text = error.to_string();
            // The crate draws the pattern; the manifest's own line is drawn already.
            let last = text.lines().last().unwrap_or_default();
            last.strip_prefix("error: ").unwrap_or(last).to_string()
        })
    }

    /// Anywhere in the text: `^` and `$` tie it down.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

/// `extract = { regex_pattern, group_select }`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extract {
    pub regex_pattern: String,
    /// Which of the matches: 0 is the first, -1 the last.
    pub group_select: i64,
}

/// Takes out what a pattern captures.
#[derive(Clone, Debug)]
pub struct Extractor {
    pattern: Pattern,
    group_select: i64,
}

impl Extractor {
    pub fn new(extract: &Extract) -> Result<Extractor, String> {
        Ok(Extractor { pattern: Pattern::new(&extract.regex_pattern)?, group_select: extract.group_select })
    }

    /// Of the chosen match the first group that is not empty, or all of it if the pattern has no group; without white space at its ends.
    pub fn extract<'a>(&self, text: &'a str) -> Option<&'a str> {
        let captures = self.pattern.0.captures_iter(text);
        let chosen = match usize::try_from(self.group_select) {
            Ok(place) => captures.into_iter().nth(place)?,
            Err(_) => {
                let all: Vec<_> = captures.collect();
                let from_behind = usize::try_from(self.group_select.unsigned_abs()).ok()?;
                all.into_iter().rev().nth(from_behind.checked_sub(1)?)?
            }
        };
        let found = match chosen.len() {
            1 => chosen.get(0),
            // Python's `findall` gives a single group even where it is empty.
            2 => return Some(chosen.get(1).map_or("", |group| group.as_str()).trim()),
            _ => chosen.iter().skip(1).flatten().find(|group| !group.is_empty()),
        };
        found.map(|found| found.as_str().trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extract<'a>(pattern: &str, group_select: i64, text: &'a str) -> Option<&'a str> {
        Extractor::new(&Extract { regex_pattern: pattern.to_string(), group_select }).unwrap().extract(text)
    }

    /// What Python's `re.findall` and the filter around it give.
    #[test]
    fn a_match_is_taken_out_as_the_harness_does() {
        let text = "so 4 + 4 = 8\n#### 8 apples, or #### -1,024 of them";
        assert_eq!(extract(r"#### (-?[0-9.,]+)", 0, text), Some("8"));
        assert_eq!(extract(r"#### (-?[0-9.,]+)", -1, text), Some("-1,024"));
        assert_eq!(extract(r"#### (-?[0-9.,]+)", 1, text), Some("-1,024"));
        assert_eq!(extract(r"#### (-?[0-9.,]+)", 2, text), None);
        assert_eq!(extract(r"#### (-?[0-9.,]+)", -3, text), None);
        assert_eq!(extract(r"\d \+ \d", 0, text), Some("4 + 4"));
        assert_eq!(extract(r"(\d) apples|(\d) \+", 0, text), Some("4"));
        assert_eq!(extract(r"(?s)```json\s(.*?)```", 0, "Sure:\n```json\n {\"a\": 1} \n```"), Some("{\"a\": 1}"));
        assert_eq!(extract("x(y?)", 0, "x"), Some(""));
        assert_eq!(extract("x(y?)(z?)", 0, "x"), None);
        assert_eq!(extract("nothing", 0, text), None);
    }

    #[test]
    fn a_wrong_pattern_is_told_in_one_line() {
        for (pattern, said) in [
            ("(a", "unclosed group"),
            ("a(?=b)", "look-around, including look-ahead and look-behind, is not supported"),
            (r"(a)\1", "backreferences are not supported"),
            (r"\w{1000}{1000}", "Compiled regex exceeds size limit of 4194304 bytes."),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap_err(), said);
        }
        assert!(Pattern::new("^[ab]+$").unwrap().is_match("abba"));
    }
}
