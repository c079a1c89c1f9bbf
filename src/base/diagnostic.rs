//! What is wrong with a user's file, and where. Collected, never thrown one at a time; drawn in one place.

use std::fmt::Display;
use std::io;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::trouble::{self, Blame};

/// Bytes from start to end of a [`SourceText`].
pub type Span = Range<usize>;

/// A text that diagnostics point into. `name` is the path as the user would type it.
#[derive(Clone, Debug)]
pub struct SourceText {
    pub name: Arc<str>,
    pub text: Arc<str>,
    /// Where each line begins, found at the first question.
    lines: OnceLock<Vec<usize>>,
}

impl SourceText {
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> SourceText {
        SourceText { name: name.into(), text: text.into(), lines: OnceLock::new() }
    }

    /// Line and column of a byte offset, both from 1; the column counts characters.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let mut end = offset.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let line = self.line(end);
        (line + 1, self.text[self.lines()[line]..end].chars().count() + 1)
    }

    /// The number of the line that holds a byte, from 0.
    fn line(&self, offset: usize) -> usize {
        self.lines().partition_point(|start| *start <= offset) - 1
    }

    /// The first one begins at 0.
    fn lines(&self) -> &[usize] {
        let after = |(at, _): (usize, &str)| at + 1;
        self.lines.get_or_init(|| std::iter::once(0).chain(self.text.match_indices('\n').map(after)).collect())
    }

    /// The whole lines in which a span lies: the number of the first, from 0, and their bytes.
    fn around(&self, span: &Span) -> (usize, Span) {
        let (first, last) = (self.line(span.start), self.line(span.end.max(span.start + 1) - 1));
        let end = self.lines().get(last + 1).copied().unwrap_or(self.text.len());
        (first, self.lines()[first]..end)
    }
}

/// Texts are what they say.
impl PartialEq for SourceText {
    fn eq(&self, other: &SourceText) -> bool {
        self.name == other.name && self.text == other.text
    }
}

impl Eq for SourceText {}

/// Problems that are shown one by one; of more than these only the number is told. Whoever has ten thousand has made one mistake.
pub const MAX_SHOWN: usize = 100;

/// Where something stands in a user's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub source: Arc<SourceText>,
    pub span: Span,
}

impl Place {
    pub fn new(source: &Arc<SourceText>, span: Span) -> Place {
        Place { source: source.clone(), span }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// Problems of one kind that are kept; what is behind them is counted at most.
pub const MAX_KEPT: usize = 10_000;

/// A place and what to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub place: Place,
    pub text: String,
}

/// One finding: what was expected, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub message: String,
    /// The first label is the place; more of them show what it clashes with.
    pub labels: Vec<Label>,
    pub helps: Vec<String>,
    /// Whether the user's file is right and the world around it is not: a network, a disk.
    pub is_environment: bool,
}

impl Diagnostic {
    pub fn error(message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Error, message: message.into(), labels: Vec::new(), helps: Vec::new(), is_environment: false }
    }

    pub fn warning(message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(message) }
    }

    /// `{what}: {error}`, with whose fault it is and what helps.
    pub fn io(what: impl Display, error: &io::Error) -> Diagnostic {
        let diagnostic = Diagnostic::error(format!("{what}: {error}")).maybe_help(trouble::hint(error).map(str::to_string));
        match trouble::blame(error) {
            Blame::User => diagnostic,
            Blame::Environment => diagnostic.of_environment(),
        }
    }

    #[must_use]
    pub fn at(mut self, place: &Place, label: impl Into<String>) -> Diagnostic {
        self.labels.push(Label { place: place.clone(), text: label.into() });
        self
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.helps.push(help.into());
        self
    }

    #[must_use]
    pub fn of_environment(self) -> Diagnostic {
        Diagnostic { is_environment: true, ..self }
    }

    #[must_use]
    pub fn maybe_help(self, help: Option<String>) -> Diagnostic {
        match help {
            Some(help) => self.help(help),
            None => self,
        }
    }

    /// As rustc would show it. `color` asks for ANSI colours; the text is the same without.
    pub fn render(&self, color: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(self.message.as_str()));
        for (i, label) in self.labels.iter().enumerate() {
            let kind = if i == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
            let Place { source, span } = &label.place;
            let end = span.end.min(source.text.len());
            let start = span.start.min(end);
            // Only the lines that are shown: the whole text for each problem would cost its length as often as there are problems.
            let (first, lines) = source.around(&(start..end));
            let text = source.text.get(lines.clone()).unwrap_or_default();
            let annotation = kind.span(start - lines.start..end - lines.start);
            let annotation = annotation.label((!label.text.is_empty()).then_some(label.text.as_str()));
            group = group.element(Snippet::source(text).line_start(first + 1).path(&*source.name).annotation(annotation));
        }
        for help in &self.helps {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }

    /// The place, its line and column, and the words, for `--json`.
    pub fn to_json(&self) -> serde_json::Value {
        let labels: Vec<_> = self
            .labels
            .iter()
            .map(|label| {
                let Place { source, span } = &label.place;
                let (line, column) = source.line_column(span.start);
                serde_json::json!({"file": &*source.name, "line": line, "column": column,
                    "start": span.start, "end": span.end, "text": label.text})
            })
            .collect();
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        serde_json::json!({"severity": severity, "message": self.message, "labels": labels, "helps": self.helps})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_points_at_the_place() {
        let source = Arc::new(SourceText::new("slmops.toml", "[quantize.small]\ntype = \"Q4_KM\"\n"));
        let shown = Diagnostic::error("unknown quantization type `Q4_KM`")
            .at(&Place::new(&source, 24..31), "no such type")
            .help("did you mean `Q4_K_M`?")
            .render(false);
        assert!(shown.contains("slmops.toml:2:8"), "{shown}");
        assert!(shown.contains("^^^^^^^ no such type"), "{shown}");
        assert!(shown.contains("= help: did you mean `Q4_K_M`?"), "{shown}");
    }

    #[test]
    fn a_span_beyond_the_text_is_drawn_all_the_same() {
        let source = Arc::new(SourceText::new("a", "x"));
        assert!(Diagnostic::error("cut").at(&Place::new(&source, 7..9), "").render(false).contains("cut"));
        assert_eq!(source.line_column(99), (1, 2));
    }
}
