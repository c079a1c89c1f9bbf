//! When two texts count as the same, for duplicates and leaks.

use std::borrow::Cow;

use caseless::Caseless;
use unicode_normalization::UnicodeNormalization;

use crate::base::{Digest, Hasher};

use super::record::{Line, Record};
use crate::model::Message;

/// A text without what a reader does not see or a typist may leave out: compatibility forms (width, ligatures, composed or not), case, characters
/// that show nothing, the kind of quotes and dashes, runs of white space, and `.,;:!?` and quotes at the edge of a word. Signs and the marks inside a
/// word stay, since `-5` is not `5` and `3.5` is not `35`; so do accents, which tell words apart.
///
/// Letters are compared as [`folded`] has them.
pub fn normalized(text: &str) -> String {
    let folded = folded(text);
    let words = folded.split_whitespace().map(|word| word.trim_matches(is_edge)).filter(|word| !word.is_empty());
    let mut out = String::with_capacity(folded.len());
    for word in words {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// Letters as the Unicode Standard's compatibility caseless match compares them (chapter 3.13, D146: decompose, fold, decompose, fold, decompose), but
/// composed at the end (NFKC), so that `cafe` is no part of `café`. Without characters that show nothing, and with a keyboard's quotes and dashes.
pub fn folded(text: &str) -> String {
    if text.is_ascii() {
        return text.chars().filter(|c| !is_unseen(*c)).map(|c| plain(c.to_ascii_lowercase())).collect();
    }
    let seen = text.chars().filter(|c| !is_unseen(*c));
    let folded = seen.nfd().default_case_fold().nfkd().default_case_fold().nfkc();
    folded.filter(|c| !is_unseen(*c)).map(plain).collect()
}

/// A text as it looks: composed (NFC), without characters that show nothing, in single spaces. Case, width and marks stay. Two choices that differ in
/// no more than that cannot be told apart.
pub fn as_shown(text: &str) -> String {
    let composed: String = text.chars().filter(|c| !is_unseen(*c)).nfc().collect();
    composed.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Default_Ignorable_Code_Point of Unicode 16 (DerivedCoreProperties.txt): zero-width characters, marks of direction, variation selectors, fillers.
const IGNORABLE: [(u32, u32); 17] = [
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
];

/// Shows nothing and separates nothing: ignorable characters, and controls that are no white space.
fn is_unseen(c: char) -> bool {
    let code = u32::from(c);
    if c.is_ascii() {
        return c.is_ascii_control() && !c.is_whitespace();
    }
    (c.is_control() && !c.is_whitespace()) || IGNORABLE.iter().any(|(first, last)| (*first..=*last).contains(&code))
}

/// Typographic quotes, apostrophes, dashes and minus signs as a keyboard has them.
fn plain(c: char) -> char {
    match c {
        '‘' | '’' | '‚' | '‛' | '′' | 'ʼ' | '‹' | '›' | '`' | '´' => '\'',
        '“' | '”' | '„' | '‟' | '″' | '«' | '»' => '"',
        '‐' | '‑' | '‒' | '–' | '−' => '-',
        '⁄' => '/',
        c => c,
    }
}

fn is_edge(c: char) -> bool {
    ".,;:!?\"'…¿¡。、「」『』".contains(c)
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
        Record::Messages(chat) => {
            hasher.part(b"messages");
            for message in &chat.messages {
                hasher.part(message.role().as_bytes());
                hasher.part(by(&message.text()).as_bytes());
                for (name, value) in message.fields().iter().filter(|(name, _)| name != "role" && name != "content") {
                    hasher.part(name.as_bytes());
                    hasher.part(value.sorted().to_string().as_bytes());
                }
            }
            for (name, data) in [("tools", &chat.tools), ("documents", &chat.documents)] {
                if let Some(data) = data {
                    hasher.part(name.as_bytes());
                    hasher.part(data.sorted().to_string().as_bytes());
                }
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
pub fn texts(line: &Line) -> Vec<Cow<'_, str>> {
    match &line.record {
        Record::Pair { prompt, completion } => {
            [Some(prompt.as_str()), completion.as_deref()].into_iter().flatten().map(Cow::Borrowed).collect()
        }
        Record::Messages(chat) => chat.messages.iter().map(Message::text).collect(),
        Record::Text(text) => vec![Cow::Borrowed(text)],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn marks_at_the_edge_go_and_signs_stay() {
        assert_eq!(normalized("  Set “Fridge”\tTwo, to -3.5 — please!?  "), "set fridge two to -3.5 — please");
        assert_ne!(normalized("minus -5"), normalized("minus 5"));
        assert_eq!(normalized("Don't ..."), "don't");
    }

    #[test]
    fn what_looks_the_same_is_the_same() {
        let forms = [
            ("café", "cafe\u{301}"),
            ("ｆｒｉｄｇｅ　１２", "fridge 12"),
            ("ﬁne", "FINE"),
            ("STRASSE", "straße"),
            ("ΣΊΣΥΦΟΣ", "σίσυφος"),
            ("fri\u{200b}dge\u{feff} \u{2060}2", "fridge 2"),
            ("\u{202e}fridge\u{202c}", "fridge"),
            ("soft\u{ad}hyphen", "softhyphen"),
            ("a\u{a0}b\u{2003}c\u{3000}d\u{2028}e\u{85}f", "a b c d e f"),
            ("don’t", "don't"),
            ("−5 °C", "-5 °c"),
            ("５．５", "5.5"),
            ("①②", "12"),
            ("x²", "x2"),
            ("ｱ", "ア"),
            ("カ\u{3099}", "ガ"),
            ("각", "\u{1100}\u{1161}\u{11a8}"),
            ("Å", "\u{212b}"),
            ("heart ❤\u{fe0f}", "heart ❤"),
            ("nul\u{1}l", "null"),
            ("Frage！", "frage"),
            ("¿qué?", "qué"),
            ("İ", "i\u{307}"),
        ];
        for (a, b) in forms {
            assert_eq!(normalized(a), normalized(b), "{a:?} {b:?}");
        }
        assert!(!folded("Cafe\u{301}").contains("cafe") && folded("ＣＡＦÉ!").contains(&folded("cafe\u{301}")));
        for (a, b) in [("résumé", "resume"), ("fridge2", "fridge 2"), ("а", "a"), ("1/2", "12"), ("3.5", "35")] {
            assert_ne!(normalized(a), normalized(b), "{a:?} {b:?}");
        }
        assert_eq!(as_shown(" e\u{301}\u{200b}  B\u{a0}c\n"), "é B c");
        assert_ne!(as_shown("Yes"), as_shown("yes"));
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own(text: String, marks in "[ .,;:!?'\"“”‘’«»\u{200b}\u{301}ﬁＡß\u{345}\u{3000}a-c-]{0,12}") {
            for text in [text.clone(), marks.clone(), format!("{text}{marks}")] {
                let once = normalized(&text);
                prop_assert_eq!(&normalized(&once), &once);
                prop_assert_eq!(normalized(&text.nfc().collect::<String>()), once.clone());
                prop_assert_eq!(normalized(&text.nfd().collect::<String>()), once.clone());
                let ascii: String = text.chars().filter(char::is_ascii).collect();
                let slowly: String = ascii.chars().nfd().default_case_fold().nfkd().filter(|c| !is_unseen(*c)).map(plain).collect();
                prop_assert_eq!(folded(&ascii), slowly);
                let shown = as_shown(&text);
                prop_assert_eq!(&as_shown(&shown), &shown);
            }
        }
    }

    #[test]
    fn records_of_different_shapes_never_look_alike() {
        let pair = |completion: Option<&str>| Record::Pair { prompt: "a".into(), completion: completion.map(String::from) };
        let records = [pair(None), pair(Some("")), pair(Some("b")), Record::Text("a".into()), Record::Text("ab".into())];
        let digests: std::collections::BTreeSet<_> = records.iter().map(exact_digest).collect();
        assert_eq!(digests.len(), records.len());
    }
}
