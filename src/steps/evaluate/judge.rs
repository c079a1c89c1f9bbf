//! What can be read off an answer: whether it is the expected one, matches a pattern, is JSON, follows a schema. It knows no model.

use super::metric::MetricKind;
use super::report::Item;
use super::sets::Set;
use crate::steps::json::{self, Schema};
use crate::steps::pattern::{Extract, Extractor, Pattern};
use crate::steps::{Failure, Io};

/// What answers are held against.
pub struct Judge {
    /// Asked for by exact match and flips.
    compares: bool,
    json_valid: bool,
    json_schema_valid: bool,
    json_exact_match: bool,
    regex: Option<Pattern>,
    extractor: Option<Extractor>,
    schema: Option<Schema>,
}

impl Judge {
    pub fn new(metrics: &[MetricKind], regex: Option<&str>, extract: Option<&Extract>, io: &Io) -> Result<Judge, Failure> {
        let has = |metric| metrics.contains(&metric);
        // Patterns were tried when the manifest was checked.
        let bug = |why: String| Failure::bug(format!("a pattern that was checked is refused: {why}"));
        let regex = regex.filter(|_| has(MetricKind::RegexMatch));
        Ok(Judge {
            compares: has(MetricKind::ExactMatch) || has(MetricKind::Flips),
            json_valid: has(MetricKind::JsonValid),
            json_schema_valid: has(MetricKind::JsonSchemaValid),
            json_exact_match: has(MetricKind::JsonExactMatch),
            regex: regex.map(Pattern::new).transpose().map_err(bug)?,
            extractor: extract.map(Extractor::new).transpose().map_err(bug)?,
            schema: io.maybe("json_schema").map(Schema::open).transpose()?,
        })
    }

    /// Fills in what the model's answer comes to.
    pub fn answer(&self, set: &Set, index: usize, output: &str, item: &mut Item) -> Result<(), Failure> {
        let answer = self.extracted(output);
        item.output = Some(output.to_string());
        item.extracted = self.extractor.as_ref().and(answer).map(str::to_string);
        item.exact_match = self.is_exact(set, index, answer)?;
        // As it always was: one JSON value of RFC 8259 and nothing after it.
        item.json_valid = self.json_valid.then(|| answer.is_some_and(is_json));
        item.regex_match = self.regex.as_ref().map(|regex| answer.is_some_and(|answer| regex.is_match(answer)));
        if self.json_schema_valid || self.json_exact_match {
            let value = answer.and_then(json::parse);
            let allowed = |schema: &Schema| value.as_ref().is_some_and(|value| schema.allows(value));
            item.json_schema_valid = self.schema.as_ref().filter(|_| self.json_schema_valid).map(allowed);
            if self.json_exact_match {
                let expected = json::parse(set.expected(index)?).ok_or_else(|| set.wrong(index, "has a completion that is not JSON"))?;
                item.json_exact_match = Some(value.is_some_and(|value| json::equal(&value, &expected)));
            }
        }
        Ok(())
    }

    /// Fills in whether the reference's answer is right.
    pub fn reference_answer(&self, set: &Set, index: usize, output: &str, item: &mut Item) -> Result<(), Failure> {
        item.reference_exact_match = self.is_exact(set, index, self.extracted(output))?;
        Ok(())
    }

    fn extracted<'a>(&self, output: &'a str) -> Option<&'a str> {
        match &self.extractor {
            Some(extractor) => extractor.extract(output),
            None => Some(output),
        }
    }

    fn is_exact(&self, set: &Set, index: usize, answer: Option<&str>) -> Result<Option<bool>, Failure> {
        if !self.compares {
            return Ok(None);
        }
        let expected = set.expected(index)?.trim();
        Ok(Some(answer.is_some_and(|answer| answer.trim() == expected)))
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_one_value() {
        for good in ["{\"a\": 1}", " [1, 2]\n", "null", "\"x\""] {
            assert!(is_json(good), "{good}");
        }
        for bad in ["", "{", "{} {}", "{'a': 1}", "nul", "{\"a\": NaN}"] {
            assert!(!is_json(bad), "{bad}");
        }
        assert!(!is_json(&"[".repeat(100_000)));
    }
}
