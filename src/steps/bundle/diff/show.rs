//! A difference as plain text in columns: the same on a terminal and in a pipe, no colour.

use std::fmt::Write;

use super::{Diff, MetricChange, Side, SizeChange};
use crate::base::units::show_size;
use crate::bundle::description::Figure;

/// Tensors beyond these are counted, not listed; the JSON has them all.
const TENSORS_SHOWN: usize = 20;
const NONE: &str = "-";

pub fn table(diff: &Diff) -> String {
    let mut text = String::new();
    for (letter, side) in [("A", &diff.a), ("B", &diff.b)] {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{letter}  {}", head(side));
    }
    if diff.is_empty() {
        text.push_str("\nno difference\n");
    }
    section(&mut text, &["", "A", "B"], diff.facts.iter().map(|fact| vec![fact.fact.to_string(), word(&fact.a), word(&fact.b)]));
    section(&mut text, &["size", "A", "B", "change"], diff.sizes.iter().map(size_row));
    section(&mut text, &["set", "metric", "A", "B", "change"], diff.metrics.iter().map(metric_row));
    if diff.metrics.iter().any(|change| change.apart == Some(true)) {
        text.push_str("* the 95 % intervals do not touch\n");
    }
    let passed = |passed: Option<bool>| passed.map_or(NONE, |passed| if passed { "passed" } else { "failed" }).to_string();
    section(&mut text, &["gate", "A", "B"], diff.gates.iter().map(|gate| vec![gate.gate.clone(), passed(gate.a), passed(gate.b)]));
    let bytes = |bytes: Option<u64>| bytes.map_or(NONE.to_string(), show_size);
    section(
        &mut text,
        &["file", "A", "B"],
        diff.files.iter().map(|file| vec![file.path.clone(), bytes(file.a_bytes), bytes(file.b_bytes)]),
    );
    let shown = diff.tensors.iter().take(TENSORS_SHOWN);
    section(&mut text, &["tensor", "A", "B"], shown.map(|tensor| vec![tensor.name.clone(), word(&tensor.a), word(&tensor.b)]));
    if diff.tensors.len() > TENSORS_SHOWN {
        let _ = writeln!(text, "… and {} more tensors", diff.tensors.len() - TENSORS_SHOWN);
    }
    text
}

fn head(side: &Side) -> String {
    match &side.digest {
        Some(digest) => format!("{}  {digest}", side.name),
        None => format!("{} {}", side.kind, side.name),
    }
}

fn word(text: &Option<String>) -> String {
    text.clone().unwrap_or_else(|| NONE.to_string())
}

fn size_row(change: &SizeChange) -> Vec<String> {
    let show = |size: Option<u64>| match (change.size, size) {
        (_, None) => NONE.to_string(),
        ("parameters", Some(count)) => count.to_string(),
        (_, Some(bytes)) => show_size(bytes),
    };
    let percent = match (change.a, change.b) {
        (Some(a), Some(b)) if a > 0 => format!("{:+.1} %", (b as f64 / a as f64 - 1.0) * 100.0),
        _ => NONE.to_string(),
    };
    vec![change.size.to_string(), show(change.a), show(change.b), percent]
}

fn metric_row(change: &MetricChange) -> Vec<String> {
    let show = |figure: Option<Figure>| figure.map_or(NONE.to_string(), |figure| figure.to_string());
    let star = if change.apart == Some(true) { " *" } else { "" };
    let delta = change.delta.map_or(NONE.to_string(), |delta| format!("{delta:+.4}{star}"));
    vec![change.set.clone(), change.metric.clone(), show(change.a), show(change.b), delta]
}

/// A blank line, the heads, the rows; nothing without rows. Every column but the last is as wide as its widest cell.
fn section(text: &mut String, heads: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let mut lines = vec![heads.iter().map(ToString::to_string).collect::<Vec<_>>()];
    lines.extend(rows);
    if lines.len() == 1 {
        return;
    }
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    text.push('\n');
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
}
