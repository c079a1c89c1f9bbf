//! The record of an action that ended well: what it made, what it said, what its key was made of. One file with a checksum over all of it.

use std::time::Duration;

use crate::base::Digest;

use super::tree::{Entry, Tree};

const FORMAT: &str = "slmops action 1";

/// A record is a list of names; one of this size is not ours.
pub const MAX_RECORD_BYTES: u64 = 1 << 30;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: Digest,
    pub tree: Tree,
    /// The step's log and its size, if it said anything.
    pub log: Option<(Digest, u64)>,
    /// What went into the key, as text: `explain` compares it with the next one.
    pub key_text: String,
    /// How long the step itself took.
    pub duration: Duration,
    /// The slmops that wrote it, for people.
    pub producer: String,
}

impl Record {
    /// Digest and size of every object that a hit needs.
    pub fn objects(&self) -> impl Iterator<Item = (Digest, u64)> {
        self.tree.entries().iter().map(|Entry { digest, size_bytes, .. }| (*digest, *size_bytes)).chain(self.log)
    }

    pub fn encode(&self) -> String {
        let log = self.log.map_or("-".to_string(), |(digest, size)| format!("{digest} {size}"));
        let tree = self.tree.encode();
        let mut text = format!(
            "{FORMAT}\nkey {}\nproducer {}\nduration_us {}\nlog {log}\ntree {}\n{tree}made-of {}\n{}",
            self.key,
            self.producer,
            self.duration.as_micros(),
            tree.len(),
            self.key_text.len(),
            self.key_text,
        );
        let checksum = Digest::of(text.as_bytes());
        text.push_str(&format!("checksum {checksum}\n"));
        text
    }

    /// The record, or why it cannot be trusted.
    pub fn parse(bytes: &[u8]) -> Result<Record, &'static str> {
        let text = std::str::from_utf8(bytes).map_err(|_| "is not text")?;
        if !text.starts_with("slmops action ") {
            return Err("is cut or overwritten");
        }
        if text.lines().next() != Some(FORMAT) {
            return Err("has an unknown format");
        }
        let end = text.rfind("checksum ").ok_or("is cut")?;
        let (body, checksum) = text.split_at(end);
        if checksum != format!("checksum {}\n", Digest::of(body.as_bytes())) {
            return Err("does not match its checksum");
        }
        parse_body(body).ok_or("is malformed")
    }
}

fn parse_body(body: &str) -> Option<Record> {
    let rest = body.strip_prefix(FORMAT)?.strip_prefix('\n')?;
    let (key, rest) = line(rest, "key ")?;
    let (producer, rest) = line(rest, "producer ")?;
    let (duration, rest) = line(rest, "duration_us ")?;
    let (log, rest) = line(rest, "log ")?;
    let (tree, rest) = block(rest, "tree ")?;
    let (key_text, rest) = block(rest, "made-of ")?;
    let log = match log {
        "-" => None,
        log => {
            let (digest, size) = log.split_once(' ')?;
            Some((digest.parse().ok()?, size.parse().ok()?))
        }
    };
    rest.is_empty().then_some(())?;
    Some(Record {
        key: key.parse().ok()?,
        tree: Tree::parse(tree)?,
        log,
        key_text: key_text.to_string(),
        duration: Duration::from_micros(duration.parse().ok()?),
        producer: producer.to_string(),
    })
}

/// `NAME VALUE\n` and what follows.
fn line<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    text.strip_prefix(name)?.split_once('\n')
}

/// `NAME LENGTH\n`, so many bytes, and what follows.
fn block<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let (length, rest) = line(text, name)?;
    rest.split_at_checked(length.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::super::tree::Mode;
    use super::*;

    fn record() -> Record {
        let content = Digest::of(b"x");
        let entry = Entry { path: "checksum me".into(), digest: content, size_bytes: 1, mode: Mode::Executable };
        Record {
            key: Digest::of(b"key"),
            tree: Tree::new(vec![entry]).unwrap(),
            log: Some((Digest::of(b"log"), 3)),
            key_text: "kind\ttrain\n".into(),
            duration: Duration::from_micros(1234),
            producer: "slmops 0.1.0".into(),
        }
    }

    #[test]
    fn it_reads_back() {
        assert_eq!(Record::parse(record().encode().as_bytes()), Ok(record()));
        let bare = Record { log: None, key_text: String::new(), tree: Tree::new(vec![]).unwrap(), ..record() };
        assert_eq!(Record::parse(bare.encode().as_bytes()), Ok(bare));
    }

    #[test]
    fn any_cut_and_any_flipped_bit_is_noticed() {
        let text = record().encode().into_bytes();
        for cut in 0..text.len() {
            assert!(Record::parse(&text[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut flipped = text.clone();
                flipped[at] ^= 1 << bit;
                assert!(Record::parse(&flipped).is_err(), "bit {bit} of byte {at}");
            }
        }
    }
}
