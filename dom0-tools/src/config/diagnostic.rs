//! What is wrong with a configuration, and where: file, line, column, and the line itself with a mark under it.

use std::fmt;
use std::ops::Range;

/// One piece of configuration: a file, or an argument of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source<'a> {
    /// How messages name it.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
    /// Whether the shell has read it before, and so may have taken the quotes.
    pub is_argument: bool,
}

impl<'a> Source<'a> {
    /// A configuration file.
    pub fn file(name: &'a str, text: &'a str) -> Self {
        Self { name, text, is_argument: false }
    }

    /// `key=value` on the command line.
    pub fn argument(text: &'a str) -> Self {
        Self { name: "command line", text, is_argument: true }
    }
}

/// A range of bytes in one of the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Which source.
    pub(super) source: usize,
    /// Where in its text.
    pub(super) bytes: Range<usize>,
}

/// Whether something stops the domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It is left out, or read in another way than it was perhaps meant.
    Warning,
    /// There is no configuration.
    Error,
}

/// One complaint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, and how to put it right.
    pub message: String,
    /// Where; `None` for what is missing altogether.
    pub place: Option<Place>,
}

/// Where something is, in a form that outlives the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The source's name.
    pub source: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The line.
    pub text: String,
    /// How many characters are meant, within the line; at least 1.
    pub width: usize,
}

impl Place {
    pub(super) fn new(sources: &[Source<'_>], span: &Span) -> Self {
        let Source { name, text, .. } = sources[span.source];
        let start = span.bytes.start.min(text.len());
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = span.bytes.end.clamp(start, line_end);
        Self {
            source: name.to_owned(),
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            text: text[line_start..line_end].trim_end_matches('\r').to_owned(),
            width: text[start..end].chars().count().max(1),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        let Some(Place { source, line, column, text, width }) = &self.place else {
            return write!(out, "{severity}: {}", self.message);
        };
        writeln!(out, "{source}:{line}:{column}: {severity}: {}", self.message)?;
        // Tabs stay tabs in both lines, so that the mark is under what it means; other controls stay out of the terminal.
        let shown: String = text.chars().map(|c| if c.is_control() && c != '\t' { '?' } else { c }).collect();
        let indent: String =
            shown.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        write!(out, "    {shown}\n    {indent}^{}", "~".repeat(width - 1))
    }
}

/// Why there is no configuration: at least one error, and the warnings that came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl fmt::Display for Diagnostics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(out, "{separator}{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, bytes: Range<usize>) -> String {
        let place = Place::new(&[Source::file("f.cfg", text)], &Span { source: 0, bytes });
        Diagnostic { severity: Severity::Error, message: "bad".into(), place: Some(place) }.to_string()
    }

    #[test]
    fn a_line_is_quoted_with_a_mark() {
        assert_eq!(shown("a=1\nb = 2\nc", 4..5), "f.cfg:2:1: error: bad\n    b = 2\n    ^");
        assert_eq!(shown("\tä = 27\n", 6..8), "f.cfg:1:6: error: bad\n    \tä = 27\n    \t    ^~");
        assert_eq!(shown("a=1\n", 4..4), "f.cfg:2:1: error: bad\n    \n    ^");
        assert_eq!(shown("x='\u{1b}[2J\r\n'", 2..9), "f.cfg:1:3: error: bad\n    x='?[2J\n    \u{20} ^~~~~~");
    }
}
