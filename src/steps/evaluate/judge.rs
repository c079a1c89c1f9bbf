//! What can be read off an answer: whether it is the expected one, matches a pattern, is JSON, follows a schema. It knows no model.

use serde_json::Value;

use super::metric::MetricKind;
use super::report::Item;
use super::sets::Set;
use crate::base::json;
use crate::steps::json::Schema;
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
        // One reading serves all metrics: what is no JSON for one is none for the others.
        let reads_json = self.json_valid || self.json_schema_valid || self.json_exact_match;
        let value = answer.filter(|_| reads_json).and_then(|answer| json::exact(answer).ok());
        item.json_valid = self.json_valid.then_some(value.is_some());
        item.regex_match = self.regex.as_ref().map(|regex| answer.is_some_and(|answer| regex.is_match(answer)));
        if self.json_exact_match {
            let expected = set.expected(index)?;
            let expected = json::exact(&expected);
            let expected =
                expected.map_err(|error| set.wrong(index, &format!("has a completion that cannot be compared as JSON: {error}")))?;
            item.json_exact_match = Some(value.as_ref().is_some_and(|value| json::equal(value, &expected)));
        }
        if let Some(schema) = self.schema.as_ref().filter(|_| self.json_schema_valid) {
            item.json_schema_valid = Some(value.map(Value::from).is_some_and(|value| schema.allows(&value)));
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
        let expected = set.expected(index)?;
        Ok(Some(answer.is_some_and(|answer| answer.trim() == expected.trim())))
    }
}
