//! Parameters as fields: one for each leaf, named by its path, its value written in one way only.

use serde_json::{Number, Value};

use super::Sink;
use crate::steps::Params;

/// An open value and its path; a stack of them instead of recursion, since parameters may be nested as deep as their parser allowed.
type Open<'a> = (String, &'a Value);

/// All parameters but those that are named.
pub fn walk_params(params: &Params, without: &[&str], sink: &mut dyn Sink) {
    let mut open: Vec<Open> = Vec::new();
    push_table("param", params, &mut open);
    open.retain(|(path, _)| without.iter().all(|name| path.strip_prefix("param.") != Some(name)));
    while let Some((path, value)) = open.pop() {
        match value {
            Value::Object(table) if table.is_empty() => sink.field(&path, "{}"),
            Value::Object(table) => push_table(&path, table, &mut open),
            Value::Array(list) if list.is_empty() => sink.field(&path, "[]"),
            Value::Array(list) => {
                let items = list.iter().enumerate().rev();
                open.extend(items.map(|(index, item)| (format!("{path}[{index}]"), item)));
            }
            Value::Number(n) => sink.field(&path, &number(n)),
            // Strings stay quoted: "3" is not 3.
            leaf => sink.field(&path, &leaf.to_string()),
        }
    }
}

/// Sorted by name, whatever order the map keeps.
fn push_table<'a>(path: &str, table: &'a Params, open: &mut Vec<Open<'a>>) {
    let mut entries: Vec<(&String, &Value)> = table.iter().collect();
    entries.sort_by_key(|(name, _)| *name);
    open.extend(entries.into_iter().rev().map(|(name, value)| (format!("{path}.{}", component(name)), value)));
}

/// A name as part of a path: bare if it is plain, else quoted, so that `a.b` is one name and `a` then `b` are two.
pub fn component(name: &str) -> String {
    let is_plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if is_plain { name.to_string() } else { Value::from(name).to_string() }
}

/// A port's name: its dots are its own, since ports have no parts.
pub fn port(name: &str) -> String {
    if name.split('.').all(|part| component(part) == part) { name.to_string() } else { Value::from(name).to_string() }
}

/// A number by its value: whole ones as integers however they were written, others as the shortest digits that read back as the same double.
fn number(n: &Number) -> String {
    if let Some(value) = n.as_f64().filter(|_| n.is_f64()) {
        if value == value.trunc() && value.abs() < 18_446_744_073_709_551_616.0 {
            return format!("{}", value as i128);
        }
        return format!("{value:?}");
    }
    n.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_by_value() {
        let text = |text: &str| number(&serde_json::from_str(text).unwrap());
        for (a, b) in [("3", "3.0"), ("0", "-0.0"), ("3e-3", "0.003"), ("1e3", "1000"), ("1e18", "1000000000000000000")] {
            assert_eq!(text(a), text(b));
        }
        assert_eq!(text("18446744073709551615"), "18446744073709551615");
        assert_eq!(text("-9223372036854775808"), text("-9223372036854775808.0"));
        assert_ne!(text("0.1"), text("0.10000000000000002"));
        assert_ne!(text("9007199254740993"), text("9007199254740992.0"));
        assert_eq!(text("1e300"), "1e300");
    }
}
