//! Settings by key, and what they mean as text, numbers, switches and lists.

use std::ops::RangeInclusive;

use super::diagnostic::{Diagnostic, Place, Severity, Source, Span};
use super::keys::{self, Treatment};
use super::nearest::suggestion;
use super::syntax::{self, Content, Setting, Value};

/// What was set, each key once; and the complaints so far.
pub(super) struct Settings<'a> {
    sources: &'a [Source<'a>],
    settings: Vec<Setting>,
    complaints: Vec<Diagnostic>,
}

/// Whether a value asks for nothing: 0, no text, an empty list.
fn is_nothing(content: &Content) -> bool {
    match content {
        Content::Atom(text) => matches!(text.as_str(), "" | "0" | "none"),
        Content::List(values) => values.is_empty(),
    }
}

/// A number as C reads it: decimal, 0x… or, with a 0 before it, octal.
fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    // from_str_radix would also take a sign.
    if digits.starts_with('+') { None } else { u64::from_str_radix(digits, radix).ok() }
}

impl<'a> Settings<'a> {
    /// Reads the sources one after the other; what comes later takes the place of what came before.
    pub(super) fn new(sources: &'a [Source<'a>]) -> Self {
        let mut complaints = Vec::new();
        let all = syntax::parse(sources, &mut complaints);
        let mut new = Self { sources, settings: Vec::new(), complaints };
        for setting in all {
            new.add(setting);
        }
        new
    }

    fn add(&mut self, mut setting: Setting) {
        let old = self.settings.iter().position(|old| old.key == setting.key);
        let old = old.map(|index| self.settings.remove(index));
        if let Some(old) = old.filter(|_| setting.adds) {
            setting.value.content = match (old.value.content, setting.value.content) {
                (Content::Atom(old), Content::Atom(new)) => Content::Atom(old + &new),
                (Content::List(mut old), Content::List(new)) => {
                    old.extend(new);
                    Content::List(old)
                }
                (_, new) => {
                    let message = format!("'{}': a list and text cannot be added", setting.key);
                    self.error(&setting.value.span, message);
                    new
                }
            };
        }
        self.settings.push(setting);
    }

    pub(super) fn complain(&mut self, severity: Severity, span: Option<&Span>, message: String) {
        let place = span.map(|span| Place::new(self.sources, span));
        self.complaints.push(Diagnostic { severity, message, place });
    }

    pub(super) fn error(&mut self, span: &Span, message: impl Into<String>) {
        self.complain(Severity::Error, Some(span), message.into());
    }

    pub(super) fn warn(&mut self, span: &Span, message: impl Into<String>) {
        self.complain(Severity::Warning, Some(span), message.into());
    }

    /// Everything that was complained about, by place.
    pub(super) fn into_complaints(self) -> Vec<Diagnostic> {
        self.complaints
    }

    /// Complains about keys that are not served, and such as nobody knows.
    pub(super) fn check_keys(&mut self) {
        for Setting { key, key_span, value, .. } in self.settings.clone() {
            match keys::treatment(&key) {
                Some(Treatment::Served) => {}
                Some(Treatment::Refused(_) | Treatment::Ignored(_)) if is_nothing(&value.content) => {}
                Some(Treatment::Refused(why)) => {
                    self.error(&key_span, format!("'{key}' cannot be served: {why}"));
                }
                Some(Treatment::Ignored(why)) => {
                    self.warn(&key_span, format!("'{key}' is ignored: {why}"));
                }
                None => match suggestion(&key, keys::all()) {
                    near if near.is_empty() => {
                        self.warn(&key_span, format!("'{key}' is ignored: there is no such key"));
                    }
                    near => self.error(&key_span, format!("there is no key '{key}'{near}")),
                },
            }
        }
    }

    pub(super) fn value(&self, key: &str) -> Option<Value> {
        debug_assert!(keys::treatment(key) == Some(Treatment::Served), "{key}");
        self.settings.iter().find(|setting| setting.key == key).map(|setting| setting.value.clone())
    }

    /// A key's text and its place.
    pub(super) fn text(&mut self, key: &str) -> Option<(String, Span)> {
        let value = self.value(key)?;
        self.atom(&format!("'{key}'"), &value).map(|text| (text, value.span))
    }

    /// The text that `what` has to be.
    pub(super) fn atom(&mut self, what: &str, value: &Value) -> Option<String> {
        match &value.content {
            Content::Atom(text) => Some(text.clone()),
            Content::List(_) => {
                self.error(&value.span, format!("{what} is one value, no list"));
                None
            }
        }
    }

    /// A key's number, within `range`.
    pub(super) fn number(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<(u64, Span)> {
        let (text, span) = self.text(key)?;
        match number(&text) {
            Some(value) if range.contains(&value) => Some((value, span)),
            Some(value) => {
                let (low, high) = range.into_inner();
                self.error(&span, format!("'{key}' is from {low} to {high}, not {value}"));
                None
            }
            None => {
                self.error(&span, format!("'{key}' is a whole number, not '{text}'"));
                None
            }
        }
    }

    /// A key that is 0 or 1.
    pub(super) fn switch(&mut self, key: &str) -> Option<bool> {
        let (text, span) = self.text(key)?;
        match number(&text) {
            Some(value) => Some(value != 0),
            None => {
                self.error(&span, format!("'{key}' is 0 or 1, not '{text}'"));
                None
            }
        }
    }

    /// A key that is one of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let (text, span) = self.text(key)?;
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text));
        if found.is_none() {
            let near = suggestion(&text, words.iter().map(|(word, _)| *word));
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.error(&span, format!("'{key}' is {}, not '{text}'{near}", all.join(" or ")));
        }
        found.map(|(_, value)| *value)
    }

    /// A key's list of text, each with its place.
    pub(super) fn list(&mut self, key: &str) -> Vec<(String, Span)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Content::List(values) = value.content else {
            self.error(&value.span, format!("'{key}' is a list: [ '…', '…' ]"));
            return Vec::new();
        };
        let what = format!("each entry of '{key}'");
        values
            .iter()
            .filter_map(|value| self.atom(&what, value).map(|text| (text, value.span.clone())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_cs() {
        for (text, value) in [
            ("0", Some(0)),
            ("256", Some(256)),
            ("0x1F", Some(31)),
            ("010", Some(8)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("0x", None),
            ("09", None),
            ("1f", None),
            ("+1", None),
            ("0x+1", None),
            ("-1", None),
        ] {
            assert_eq!(number(text), value, "{text}");
        }
    }
}
