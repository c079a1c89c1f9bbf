//! What is wrong with a user's file, and where. Collected, never thrown one at a time; drawn in one place.

use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Bytes from start to end of a [`SourceText`].
pub type Span = Range<usize>;

/// A text that diagnostics point into. `name` is the path as the user would type it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceText {
    pub name: Arc<str>,
    pub text: Arc<str>,
}

impl SourceText {
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> SourceText {
        SourceText { name: name.into(), text: text.into() }
    }

    /// Line and column of a byte offset, both from 1; the column counts characters.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let mut end = offset.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &self.text[..end];
        let start = before.rfind('\n').map_or(0, |i| i + 1);
        (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
    }
}

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
            let annotation = kind.span(start..end).label((!label.text.is_empty()).then_some(label.text.as_str()));
            group = group.element(Snippet::source(&*source.text).path(&*source.name).annotation(annotation));
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
