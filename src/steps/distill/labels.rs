//! A teacher's labels on disk: `labels.bin` (the examples), `logits.bin` (a row of equal size for each scored token, read where it is
//! needed) and `labels.json` (what they are). Little-endian throughout.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::base::{files, memory};
use crate::model::{Example, ModelError, read_limited};
use crate::steps::Failure;

const MAGIC: &[u8; 16] = b"slmops-label-01\n";
const MAX_EXAMPLES: u64 = 8 << 30;

/// `labels.json`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// 2
    pub format: u32,
    pub vocab_size: usize,
    /// Of each row so many tokens (u32), their logits (f32), and ln Σ exp(logit / T) over all other tokens (f32); absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    pub examples: u64,
    /// Scored tokens.
    pub rows: u64,
    /// Prompts that the teacher did not come to an end with.
    pub unfinished: u64,
    pub too_long: u64,
    /// Mean of the teacher's probability that the kept logits have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_mass: Option<f64>,
}

/// Numbers of four bytes in a row.
pub fn width(top_k: usize) -> usize {
    2 * top_k + 1
}

/// Labels in the making.
pub struct Writer {
    logits: BufWriter<File>,
}

impl Writer {
    pub fn create(folder: &Path) -> std::io::Result<Writer> {
        Ok(Writer { logits: BufWriter::with_capacity(1 << 20, File::create(folder.join("logits.bin"))?) })
    }

    pub fn top(&mut self, ids: &[u32], logits: &[f32], log_rest: f32) -> std::io::Result<()> {
        ids.iter().try_for_each(|id| self.logits.write_all(&id.to_le_bytes()))?;
        logits.iter().chain(&[log_rest]).try_for_each(|number| self.logits.write_all(&number.to_le_bytes()))
    }

    pub fn finish(mut self, folder: &Path, examples: &[Example], facts: &Facts) -> std::io::Result<()> {
        self.logits.flush()?;
        let mut out = BufWriter::new(File::create(folder.join("labels.bin"))?);
        out.write_all(MAGIC)?;
        let mut number = |number: usize| {
            let number = u32::try_from(number).map_err(std::io::Error::other)?;
            out.write_all(&number.to_le_bytes())
        };
        for example in examples {
            number(example.tokens.len())?;
            number(example.scored.len())?;
            example.scored.iter().try_for_each(|scored| number(scored.start).and_then(|()| number(scored.end)))?;
            example.tokens.iter().try_for_each(|token| number(*token as usize))?;
        }
        out.flush()?;
        files::write_atomic(&folder.join("labels.json"), format!("{}\n", serde_json::to_string_pretty(facts)?).as_bytes())
    }
}

/// Labels to learn from.
pub struct Labels {
    pub facts: Facts,
    pub examples: Vec<Example>,
    /// The row of each example's first scored token.
    pub first_rows: Vec<u64>,
    pub rows: u64,
    logits: File,
}

impl Labels {
    pub fn open(folder: &Path, vocab_size: usize) -> Result<Labels, Failure> {
        let wrong = |why: String| Failure::new(format!("the labels are malformed: {why}"));
        let facts: Facts =
            serde_json::from_slice(&read_limited(&folder.join("labels.json"), 1 << 20)?).map_err(|error| wrong(error.to_string()))?;
        if facts.format != 2 || facts.vocab_size != vocab_size {
            return Err(wrong(format!("format {}, {} tokens", facts.format, facts.vocab_size)));
        }
        let bytes = read_limited(&folder.join("labels.bin"), MAX_EXAMPLES)?;
        memory::check(bytes.len() as u64 * 2, "the teacher's examples")?;
        let examples = parse(&bytes, vocab_size).ok_or_else(|| wrong("`labels.bin` is cut or mangled".to_string()))?;
        let mut rows = 0;
        let mut first_rows = Vec::with_capacity(examples.len());
        for example in &examples {
            first_rows.push(rows);
            rows += example.scored_tokens() as u64;
        }
        let path = folder.join("logits.bin");
        let logits = files::open(&path).map_err(|error| Failure::file("open", &path, &error))?;
        let size = logits.metadata().map_err(|error| Failure::file("read", &path, &error))?.len();
        let width = facts.top_k.map_or(0, |top_k| top_k.saturating_mul(2).saturating_add(1));
        if Some(size) != rows.checked_mul(width as u64).and_then(|numbers| numbers.checked_mul(4))
            || rows != facts.rows
            || examples.len() as u64 != facts.examples
        {
            return Err(wrong(format!("{rows} scored tokens have {size} bytes of logits")));
        }
        if examples.is_empty() {
            return Err(wrong("there are none".to_string()));
        }
        Ok(Labels { facts, examples, first_rows, rows, logits })
    }

    /// The numbers of some rows behind each other, into `bytes`.
    pub fn read(&self, first_row: u64, bytes: &mut [u8], width: usize) -> Result<(), ModelError> {
        let wrong = |error| ModelError::Io { doing: "read", path: "logits.bin".into(), error };
        self.logits.read_exact_at(bytes, first_row * width as u64 * 4).map_err(wrong)
    }
}

fn parse(bytes: &[u8], vocab_size: usize) -> Option<Vec<Example>> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let mut examples = Vec::new();
    while !rest.is_empty() {
        let tokens = number(&mut rest)?;
        let ranges = number(&mut rest)?;
        // Each range takes eight bytes and each token four: nothing is allocated that is not there.
        if rest.len() < ranges.checked_mul(8)?.checked_add(tokens.checked_mul(4)?)? {
            return None;
        }
        let mut scored: Vec<std::ops::Range<usize>> = Vec::with_capacity(ranges);
        for _ in 0..ranges {
            let range = number(&mut rest)?..number(&mut rest)?;
            let after = scored.last().map_or(1, |before| before.end);
            if range.start < after || range.is_empty() || range.end > tokens {
                return None;
            }
            scored.push(range);
        }
        let tokens: Vec<u32> = (0..tokens).map(|_| number(&mut rest).map(|token| token as u32)).collect::<Option<_>>()?;
        if scored.is_empty() || tokens.iter().any(|token| *token as usize >= vocab_size) {
            return None;
        }
        examples.push(Example { tokens, scored });
    }
    Some(examples)
}

fn number(rest: &mut &[u8]) -> Option<usize> {
    let (bytes, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<Example> {
        let conversation = Example { tokens: vec![5, 1, 2, 3, 4], scored: vec![1..2, 3..5] };
        vec![Example::of(vec![1, 2], &[3, 0]), conversation]
    }

    fn facts(top_k: Option<usize>) -> Facts {
        Facts { format: 2, vocab_size: 6, top_k, examples: 2, rows: 5, unfinished: 0, too_long: 0, kept_mass: None }
    }

    #[test]
    fn they_come_back_and_rows_are_found() {
        let space = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(space.path()).unwrap();
        for row in 0..5u32 {
            writer.top(&[row, 5], &[row as f32, -1.0], 0.5).unwrap();
        }
        writer.finish(space.path(), &examples(), &facts(Some(2))).unwrap();
        let labels = Labels::open(space.path(), 6).unwrap();
        assert_eq!(labels.examples, examples());
        assert_eq!((labels.first_rows.as_slice(), labels.rows), (&[0, 2][..], 5));
        let mut bytes = [0; 20];
        labels.read(3, &mut bytes, 5).unwrap();
        assert_eq!(bytes[..4], 3u32.to_le_bytes());
        assert_eq!(bytes[8..12], 3f32.to_le_bytes());
        assert_eq!(bytes[16..], 0.5f32.to_le_bytes());
        assert!(labels.read(5, &mut bytes, 5).is_err());
        assert!(Labels::open(space.path(), 7).is_err());
        std::fs::write(space.path().join("logits.bin"), [0; 99]).unwrap();
        assert!(Labels::open(space.path(), 6).is_err());
    }

    #[test]
    fn cut_and_mangled_examples_are_refused() {
        let space = tempfile::tempdir().unwrap();
        Writer::create(space.path()).unwrap().finish(space.path(), &examples(), &facts(None)).unwrap();
        let bytes = std::fs::read(space.path().join("labels.bin")).unwrap();
        assert_eq!(parse(&bytes, 6).unwrap(), examples());
        assert!(parse(&bytes, 5).is_none());
        let whole = [MAGIC.len(), MAGIC.len() + 4 * (2 + 2 + 4), bytes.len()];
        for length in 0..bytes.len() {
            assert_eq!(parse(&bytes[..length], 6).is_some(), whole.contains(&length), "{length}");
        }
        let mut huge = bytes.clone();
        huge[16..24].fill(0xff);
        assert!(parse(&huge, 6).is_none());
    }
}
