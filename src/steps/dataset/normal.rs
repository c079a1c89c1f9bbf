//! When two texts count as the same, for duplicates and leaks.

use crate::base::{Digest, Hasher};

use super::record::{Line, Record};

/// Lower case, single spaces, and without the marks that a typist may leave out: `.,;:!?` and quotes at the edge of a word. Signs and the marks
/// inside a word stay, since `-5` is not `5` and `3.5` is not `35`.
pub fn normalized(text: &str) -> String {
    let lower = text.to_lowercase();
    let words = lower.split_whitespace().map(|word| word.trim_matches(|c| ".,;:!?\"'“”‘’…".contains(c)));
    let mut out = String::with_capacity(lower.len());
    for word in words.filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// The prompt, normalized: what leak checks compare.
pub fn prompt_digest(record: &Record) -> Digest {
    Digest::of(normalized(&record.prompt()).as_bytes())
}

/// The whole record as it stands, without its extra keys.
pub fn exact_digest(record: &Record) -> Digest {
    digest(record, &|text| text.to_string())
}

/// The whole record, normalized.
pub fn normalized_digest(record: &Record) -> Digest {
    digest(record, &normalized)
}

fn digest(record: &Record, by: &dyn Fn(&str) -> String) -> Digest {
    let mut hasher = Hasher::new();
    match record {
        Record::Pair { prompt, completion } => {
            hasher.part(b"pair");
            hasher.part(by(prompt).as_bytes());
            if let Some(completion) = completion {
                hasher.part(by(completion).as_bytes());
            }
        }
        Record::Messages(messages) => {
            hasher.part(b"messages");
            for message in messages {
                hasher.part(message.role.as_bytes());
                hasher.part(by(&message.content).as_bytes());
            }
        }
        Record::Text(text) => {
            hasher.part(b"text");
            hasher.part(by(text).as_bytes());
        }
    }
    hasher.finish()
}

/// A number that depends on the seed, what it is for and the record's own content: never on its neighbours.
pub fn lot(seed: u64, purpose: &str, content: &[u8]) -> u64 {
    let mut hasher = Hasher::new();
    hasher.part(&seed.to_le_bytes());
    hasher.part(purpose.as_bytes());
    hasher.part(content);
    let mut first = [0u8; 8];
    first.copy_from_slice(&hasher.finish().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// The words of a line that filters look through.
pub fn texts(line: &Line) -> Vec<&str> {
    match &line.record {
        Record::Pair { prompt, completion } => [Some(prompt.as_str()), completion.as_deref()].into_iter().flatten().collect(),
        Record::Messages(messages) => messages.iter().map(|message| message.content.as_str()).collect(),
        Record::Text(text) => vec![text],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_at_the_edge_go_and_signs_stay() {
        assert_eq!(normalized("  Set “Fridge”\tTwo, to -3.5 — please!?  "), "set fridge two to -3.5 — please");
        assert_ne!(normalized("minus -5"), normalized("minus 5"));
        assert_eq!(normalized("Don't ..."), "don't");
    }

    #[test]
    fn records_of_different_shapes_never_look_alike() {
        let pair = |completion: Option<&str>| Record::Pair { prompt: "a".into(), completion: completion.map(String::from) };
        let records = [pair(None), pair(Some("")), pair(Some("b")), Record::Text("a".into()), Record::Text("ab".into())];
        let digests: std::collections::BTreeSet<_> = records.iter().map(exact_digest).collect();
        assert_eq!(digests.len(), records.len());
    }
}
