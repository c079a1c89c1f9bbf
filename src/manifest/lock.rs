//! `slmops.lock`: what remote sources came to, and what was chosen by measurement. Checked in beside the root manifest.
//!
//! ```toml
//! version = 1
//!
//! [[source]]
//! name = "phrases"
//! git = "https://example.org/phrases.git"
//! want = "branch main"
//! rev = "0b7c…"
//! tree = "5f1d…"          # digest of the files
//!
//! [[source]]
//! name = "base"
//! hf = "org/name"
//! want = "revision main"
//! rev = "12fd…"
//! tree = "c01a…"
//!
//! [[choice]]
//! bundle = "release@device=fridge"
//! chosen = "small@type=Q8_0"
//! measurement = "9a0e…"
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::LOCK_NAME;
use super::read;
use super::value::{Data, Table, Value};
use crate::base::output::Existing;
use crate::base::{Diagnostic, Digest, Place, SourceText, output};

const VERSION: i64 = 1;
const RESTORE: &str = "take `slmops.lock` from version control again, or delete it and run `slmops lock`, which pins everything anew";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// By the source's name, behind its member in a workspace: `member/phrases`.
    pub sources: BTreeMap<String, Pin>,
    /// By the bundle's name: `release@device=fridge`.
    pub choices: BTreeMap<String, Choice>,
}

/// One remote source at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    pub protocol: Protocol,
    /// As written in the manifest: a URL, or a repository's name.
    pub address: String,
    /// What of it, as written: `branch main`, `tag v1`, `rev 0b7c`, `head`; empty where there is nothing to choose.
    pub want: String,
    /// Below the root, if not all of it.
    pub path: Option<String>,
    /// What it came to: a commit or a digest.
    pub rev: String,
    /// Of the files.
    pub tree: Digest,
}

/// How a remote source is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Git,
    Hub,
    Url,
    Oci,
}

impl Protocol {
    pub const ALL: [Protocol; 4] = [Protocol::Git, Protocol::Hub, Protocol::Url, Protocol::Oci];

    /// The field that holds the address, in the manifest and in the lock.
    pub fn field(self) -> &'static str {
        match self {
            Protocol::Git => "git",
            Protocol::Hub => "hf",
            Protocol::Url => "url",
            Protocol::Oci => "oci",
        }
    }

    /// The lock's field for what the source came to.
    pub fn revision_field(self) -> &'static str {
        match self {
            Protocol::Git | Protocol::Hub => "rev",
            Protocol::Url => "sha256",
            Protocol::Oci => "digest",
        }
    }

    fn is_revision(self, text: &str) -> bool {
        let hex = |text: &str, digits| text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match self {
            Protocol::Git | Protocol::Hub => hex(text, 40),
            Protocol::Url => hex(text, 64),
            Protocol::Oci => text.strip_prefix("sha256:").is_some_and(|digits| hex(digits, 64)),
        }
    }

    fn revision_noun(self) -> &'static str {
        match self {
            Protocol::Git | Protocol::Hub => "the commit of",
            Protocol::Url | Protocol::Oci => "the digest of",
        }
    }
}

/// A candidate that was chosen by something that no digest covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub chosen: String,
    pub measurement: Digest,
}

impl Lock {
    /// The lock beside a root manifest; empty if there is none yet.
    pub fn load(root: &Path) -> Result<Lock, Vec<Diagnostic>> {
        let path = root.join(LOCK_NAME);
        match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lock::default()),
            Err(error) => return Err(vec![Diagnostic::io(format!("cannot read `{LOCK_NAME}`"), &error)]),
            Ok(_) => {}
        }
        let source = read::text(&path, LOCK_NAME).map_err(|diagnostic| vec![diagnostic.help(RESTORE)])?;
        Lock::parse(&source)
    }

    pub fn parse(source: &Arc<SourceText>) -> Result<Lock, Vec<Diagnostic>> {
        let (table, errors) = read::parse(source);
        if !errors.is_empty() {
            // What a parser makes of conflict marks helps nobody.
            if let Some(line) = source.text.lines().find(|line| line.starts_with("<<<<<<<") || line.starts_with(">>>>>>>")) {
                let start = source.text.find(line).unwrap_or(0);
                let place = Place::new(source, start..start + line.len());
                return Err(vec![Diagnostic::error("the lock file holds an unresolved merge").at(&place, "").help(RESTORE)]);
            }
            let broken = |d: Diagnostic| Diagnostic { message: format!("the lock file is damaged: {}", d.message), ..d }.help(RESTORE);
            return Err(errors.into_iter().map(broken).collect());
        }
        let mut reader = Reader { source, diagnostics: Vec::new() };
        let lock = reader.lock(&table);
        if reader.diagnostics.is_empty() { Ok(lock) } else { Err(reader.diagnostics) }
    }

    /// Writes it whole or not at all; an unchanged one is left alone.
    pub fn store(&self, root: &Path) -> io::Result<()> {
        let text = self.to_toml();
        let output = output::file(root, Path::new(LOCK_NAME), Existing::Replace).map_err(io::Error::other)?;
        // A lock is read, so it is a file. Through a link, it is written where the link leads.
        if output.holds(text.as_bytes()) { Ok(()) } else { output.write_all(text.as_bytes()).map_err(io::Error::other) }
    }

    pub fn to_toml(&self) -> String {
        let mut out = format!("# Written by slmops; check it in. It pins what is not in this repository.\nversion = {VERSION}\n");
        let line = |key: &str, value: &str| format!("{key} = {}\n", quoted(value));
        for (name, pin) in &self.sources {
            out += "\n[[source]]\n";
            out += &line("name", name);
            out += &line(pin.protocol.field(), &pin.address);
            if !pin.want.is_empty() {
                out += &line("want", &pin.want);
            }
            if let Some(path) = &pin.path {
                out += &line("path", path);
            }
            out += &line(pin.protocol.revision_field(), &pin.rev);
            out += &line("tree", &pin.tree.hex());
        }
        for (bundle, choice) in &self.choices {
            out += "\n[[choice]]\n";
            out += &line("bundle", bundle);
            out += &line("chosen", &choice.chosen);
            out += &line("measurement", &choice.measurement.hex());
        }
        out
    }
}

struct Reader<'a> {
    source: &'a Arc<SourceText>,
    diagnostics: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn lock(&mut self, table: &Table) -> Lock {
        let mut lock = Lock::default();
        match table.get("version").map(|value| (&value.data, &value.place)) {
            Some((Data::Int(VERSION), _)) => {}
            Some((Data::Int(newer), place)) if *newer > VERSION => {
                let message = format!("the lock file has version {newer}; this slmops reads version {VERSION}");
                self.diagnostics.push(Diagnostic::error(message).at(place, "").help("install a newer slmops"));
                return lock;
            }
            found => {
                let place = found.map_or_else(|| Place::new(self.source, 0..0), |(_, place)| place.clone());
                self.damaged::<()>(&place, "it has no version");
                return lock;
            }
        }
        for (key, value) in table.iter() {
            match key.text.as_str() {
                "version" => {}
                "source" => self.entries(value, |reader, entry, place| {
                    let (name, pin) = reader.pin(entry, place)?;
                    if lock.sources.insert(name, pin).is_some() { reader.damaged(place, "a source is pinned twice") } else { Some(()) }
                }),
                "choice" => self.entries(value, |reader, entry, place| {
                    let (name, choice) = reader.choice(entry, place)?;
                    if lock.choices.insert(name, choice).is_some() { reader.damaged(place, "a bundle has two choices") } else { Some(()) }
                }),
                other => {
                    self.damaged::<()>(&key.place, &format!("`{other}` is not known"));
                }
            }
        }
        lock
    }

    fn entries(&mut self, value: &Value, mut read: impl FnMut(&mut Self, &Table, &Place) -> Option<()>) {
        let Data::List(items) = &value.data else {
            self.damaged::<()>(&value.place, "this is not a list");
            return;
        };
        for item in items {
            match &item.data {
                Data::Table(table) => {
                    read(self, table, &item.place);
                }
                _ => {
                    self.damaged::<()>(&item.place, "this is not a table");
                }
            }
        }
    }

    fn pin(&mut self, table: &Table, place: &Place) -> Option<(String, Pin)> {
        let Some(protocol) = Protocol::ALL.into_iter().find(|protocol| table.get(protocol.field()).is_some()) else {
            return self.damaged(place, "a source does not say where it is");
        };
        self.only(table, &["name", protocol.field(), "want", "path", protocol.revision_field(), "tree"])?;
        let name = self.text(table, place, "name")?;
        let rev = self.text(table, place, protocol.revision_field())?;
        if !protocol.is_revision(&rev) {
            return self.damaged(place, &format!("{} `{name}` is not written in hex digits", protocol.revision_noun()));
        }
        let want = self.maybe_text(table, place, "want")?;
        if want.is_none() && protocol == Protocol::Git {
            return self.damaged(place, "an entry has no `want`");
        }
        let pin = Pin {
            protocol,
            address: self.text(table, place, protocol.field())?,
            want: want.unwrap_or_default(),
            path: self.maybe_text(table, place, "path")?,
            rev,
            tree: self.digest(table, place, "tree")?,
        };
        Some((name, pin))
    }

    fn choice(&mut self, table: &Table, place: &Place) -> Option<(String, Choice)> {
        self.only(table, &["bundle", "chosen", "measurement"])?;
        let choice = Choice { chosen: self.text(table, place, "chosen")?, measurement: self.digest(table, place, "measurement")? };
        Some((self.text(table, place, "bundle")?, choice))
    }

    fn only(&mut self, table: &Table, known: &[&str]) -> Option<()> {
        match table.iter().find(|(key, _)| !known.contains(&key.text.as_str())) {
            Some((key, _)) => self.damaged(&key.place, &format!("`{}` is not known", key.text)),
            None => Some(()),
        }
    }

    fn text(&mut self, table: &Table, place: &Place, name: &str) -> Option<String> {
        match table.get(name).map(|value| &value.data) {
            Some(Data::String(text)) => Some(text.clone()),
            _ => self.damaged(place, &format!("an entry has no `{name}`")),
        }
    }

    fn maybe_text(&mut self, table: &Table, place: &Place, name: &str) -> Option<Option<String>> {
        match table.get(name) {
            Some(_) => self.text(table, place, name).map(Some),
            None => Some(None),
        }
    }

    fn digest(&mut self, table: &Table, place: &Place, name: &str) -> Option<Digest> {
        let text = self.text(table, place, name)?;
        match text.parse() {
            Ok(digest) => Some(digest),
            Err(error) => self.damaged(place, &error.to_string()),
        }
    }

    fn damaged<T>(&mut self, place: &Place, why: &str) -> Option<T> {
        self.diagnostics.push(Diagnostic::error(format!("the lock file is damaged: {why}")).at(place, "").help(RESTORE));
        None
    }
}

/// A TOML basic string. JSON's escapes are TOML's, but for DEL, which TOML wants escaped too.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Lock {
        let pin = Pin {
            protocol: Protocol::Git,
            address: "file:///a \"b\"\n\u{7f}\u{1}".into(),
            want: "branch main".into(),
            path: Some("data".into()),
            rev: "0123456789012345678901234567890123456789".into(),
            tree: Digest::of(b"x"),
        };
        let others = Protocol::ALL.map(|protocol| {
            let rev = match protocol {
                Protocol::Git | Protocol::Hub => "0123456789".repeat(4),
                Protocol::Url => "0a".repeat(32),
                Protocol::Oci => format!("sha256:{}", "0a".repeat(32)),
            };
            let want = if protocol == Protocol::Git { "head" } else { "" }.to_string();
            (format!("by-{}", protocol.field()), Pin { protocol, rev, want, path: None, ..pin.clone() })
        });
        let choice = Choice { chosen: "small@type=Q8_0".into(), measurement: Digest::of(b"y") };
        let sources = others.into_iter().chain([("phrases".to_string(), pin)]).collect();
        Lock { sources, choices: [("release@device=fridge".to_string(), choice)].into() }
    }

    fn parse(text: &str) -> Result<Lock, Vec<Diagnostic>> {
        Lock::parse(&Arc::new(SourceText::new(LOCK_NAME, text)))
    }

    #[test]
    fn what_is_written_reads_back() {
        assert_eq!(parse(&example().to_toml()).unwrap(), example());
        let space = tempfile::tempdir().unwrap();
        assert_eq!(Lock::load(space.path()).unwrap(), Lock::default());
        example().store(space.path()).unwrap();
        assert_eq!(Lock::load(space.path()).unwrap(), example());
    }

    #[test]
    fn damage_is_told_and_says_what_to_do() {
        let good = example().to_toml();
        for (cut, _) in good.char_indices().filter(|(i, _)| *i % 7 == 0) {
            if let Err(errors) = parse(&good[..cut]) {
                assert!(errors.iter().all(|e| e.helps.iter().any(|h| h.contains("slmops lock"))), "{errors:?}");
            }
        }
        for (from, to) in [
            ("version = 1", "version = 2"),
            ("tree = \"", "tree = \"z"),
            ("rev = \"0", "rev = \"g"),
            ("digest = \"sha256:", "digest = \"sha512:"),
            ("\nsha256 = \"", "\nsha256 = \"0"),
            ("[[source]]", "[source]"),
            ("want", "wont"),
        ] {
            assert!(parse(&good.replacen(from, to, 1)).is_err(), "{from}");
        }
        assert!(parse("<<<<<<< ours\nversion = 1\n").unwrap_err()[0].message.contains("unresolved merge"));
        assert!(parse("").is_err());
    }
}
