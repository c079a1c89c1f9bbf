//! One TOML text → a [`Table`] with places. All syntax errors at once; what is too large or too deep is refused before it costs anything.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::value::{Data, Key, Table, Value};
use crate::base::diagnostic::MAX_KEPT;
use crate::base::{Diagnostic, Place, SourceText, files, memory, text};

/// A manifest of 100,000 steps is about 10 MiB.
pub const MAX_BYTES: u64 = 64 << 20;
/// What a byte of the text takes at most once it is parsed, in bytes: `a=1` and a line end become an entry with two places.
const MEMORY_PER_BYTE: u64 = 120;
/// Tables and lists within each other. Nothing that slmops knows goes deeper than 10.
pub const MAX_DEPTH: usize = 32;

/// Reads a file into a text that diagnostics name `name`.
pub fn text(path: &Path, name: &str) -> Result<Arc<SourceText>, Diagnostic> {
    let failed = |error: std::io::Error| Diagnostic::io(format!("cannot read `{name}`"), &error);
    let mut bytes = Vec::new();
    files::open(path).map_err(failed)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Diagnostic::error(format!("`{name}` is too large: at most {MAX_BYTES} bytes are read")));
    }
    // Where it must have been read to be refused, all that it is made into is not there yet.
    if let Err(shortage) = memory::check((bytes.len() as u64).saturating_mul(MEMORY_PER_BYTE), &format!("`{name}`")) {
        return Err(Diagnostic::error(shortage.to_string()).of_environment());
    }
    match text::decode(&bytes) {
        Ok(text) => Ok(Arc::new(SourceText::new(name, text.into_owned()))),
        Err(error) => Err(Diagnostic::error(format!("`{name}` is not a text: {error}")).help("save the file as UTF-8")),
    }
}

/// Parses a text. Whatever could be understood comes back beside the errors.
pub fn parse(source: &Arc<SourceText>) -> (Table, Vec<Diagnostic>) {
    let (document, errors) = DeTable::parse_recoverable(&source.text);
    let mut reader = Reader { source, diagnostics: Vec::new() };
    let mut told_to = 0;
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        // After a slip the parser stumbles on; the first error of a line is the one that means something.
        if span.start >= told_to && reader.diagnostics.len() < MAX_KEPT {
            let line_end = source.text.get(span.start..).and_then(|rest| rest.find('\n'));
            told_to = line_end.map_or(source.text.len(), |end| span.start + end + 1);
            reader.diagnostics.push(Diagnostic::error(error.message().trim().to_string()).at(&Place::new(source, span), ""));
        }
    }
    let table = reader.table(document.into_inner(), 1);
    (table, reader.diagnostics)
}

struct Reader<'a> {
    source: &'a Arc<SourceText>,
    diagnostics: Vec<Diagnostic>,
}

impl Reader<'_> {
    /// The parser sorts by key; the order of the text is the order of the spans.
    fn table(&mut self, table: DeTable<'_>, depth: usize) -> Table {
        let mut entries: Vec<(Key, Value)> = Vec::with_capacity(table.len());
        for (key, value) in table {
            let place = Place::new(self.source, key.span());
            let text = key.into_inner().into_owned();
            let Some(value) = self.value(value, depth) else { continue };
            entries.push((Key { text, place }, value));
        }
        entries.sort_by_key(|(key, _)| key.place.span.start);
        Table::new(entries)
    }

    fn value(&mut self, value: Spanned<DeValue<'_>>, depth: usize) -> Option<Value> {
        let place = Place::new(self.source, value.span());
        let value = value.into_inner();
        if depth >= MAX_DEPTH && matches!(value, DeValue::Array(_) | DeValue::Table(_)) {
            self.refuse(&place, "this is nested too deeply", format!("at most {MAX_DEPTH} levels are read"));
            dismantle(value);
            return None;
        }
        let data = match value {
            DeValue::String(text) => Data::String(text.into_owned()),
            DeValue::Boolean(value) => Data::Bool(value),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(value) => Data::Int(value),
                Err(_) => return self.refuse(&place, "this integer is out of range", "64 bits hold −2⁶³ to 2⁶³ − 1".to_string()),
            },
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(value) if value.is_finite() => Data::Float(value),
                _ => return self.refuse(&place, "this is not a finite number", "`nan` and `inf` are refused everywhere".to_string()),
            },
            DeValue::Datetime(_) => Data::String(self.source.text.get(place.span.clone()).unwrap_or_default().to_string()),
            DeValue::Array(items) => Data::List(items.into_iter().filter_map(|item| self.value(item, depth + 1)).collect()),
            DeValue::Table(table) => Data::Table(self.table(table, depth + 1)),
        };
        Some(Value { place, data })
    }

    fn refuse(&mut self, place: &Place, message: &str, help: String) -> Option<Value> {
        if self.diagnostics.len() >= MAX_KEPT {
            return None;
        }
        self.diagnostics.push(Diagnostic::error(message).at(place, "").help(help));
        None
    }
}

/// Takes a value apart without recursion: dotted keys within inline tables may be nested thousands deep.
fn dismantle(value: DeValue<'_>) {
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        match value {
            DeValue::Array(items) => open.extend(items.into_iter().map(Spanned::into_inner)),
            DeValue::Table(table) => open.extend(table.into_iter().map(|(_, value)| value.into_inner())),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Table, Vec<Diagnostic>) {
        parse(&Arc::new(SourceText::new("slmops.toml", text)))
    }

    #[test]
    fn keys_keep_their_order_and_their_places() {
        let (table, errors) = read("[train.b]\nx = 1\n[train.a]\ny = 0x10\n[eval]\nz = [1.5, \"s\"]\n");
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(table.names().collect::<Vec<_>>(), ["train", "eval"]);
        let Some(Value { data: Data::Table(train), .. }) = table.get("train") else { panic!() };
        assert_eq!(train.names().collect::<Vec<_>>(), ["b", "a"]);
        let (key, value) = train.entry("a").unwrap();
        assert_eq!(key.place.source.line_column(key.place.span.start), (3, 8));
        let Data::Table(a) = &value.data else { panic!() };
        assert!(matches!(a.get("y").unwrap().data, Data::Int(16)));
    }

    #[test]
    fn numbers_beyond_reason_are_refused_where_they_stand() {
        let (_, errors) = read("a = nan\nb = inf\nc = 99999999999999999999\nd = 1e999\ne = 1\n");
        let lines: Vec<usize> = errors.iter().map(|e| e.labels[0].place.source.line_column(e.labels[0].place.span.start).0).collect();
        assert_eq!(lines, [1, 2, 3, 4]);
    }

    #[test]
    fn several_syntax_errors_are_all_found() {
        let (_, errors) = read("a = \nb = [1,\nc = \"x\n[t\n");
        assert!(errors.len() >= 2, "{errors:?}");
    }

    #[test]
    fn depth_is_limited_without_overflow() {
        let deep = format!("{}x = 1{}", "{ a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t.u.v = ".repeat(70), "}".repeat(70));
        let deep = deep.replacen("{ ", "", 1);
        let deep = &deep[..deep.len() - 1];
        let (_, errors) = read(&deep.replace("= x = 1", "= 1"));
        assert!(!errors.is_empty());
        let (_, errors) = read(&format!("a = {}", "[".repeat(100_000)));
        assert!(!errors.is_empty());
        let (_, errors) = read(&format!("a{} = 1", ".a".repeat(100_000)));
        assert!(!errors.is_empty());
    }
}
