//! The grammar of `xl.cfg`: text to settings, each with its place.
//!
//! ```text
//!   file    ::= { [ setting ] ( newline | ';' ) }        setting ::= key ( '=' | '+=' ) value
//!   value   ::= string | number | '[' [ value { ',' value } [ ',' ] ] ']'        newlines are spaces within a list
//!   string  ::= '...' | "..." with \\ \' \" \a \b \f \n \r \t \v \xHH \OOO       comments: from # to the end of the line
//! ```
//! As libxl reads it, number and string are the same but for the quotes; what they mean is for the key to say. An argument of
//! the command line may also leave the quotes out, which the shell has taken.

use std::ops::Range;

use super::diagnostic::{Diagnostic, Place, Severity, Source, Span};

/// What separates, but ends nothing.
const SPACE: [char; 3] = [' ', '\t', '\r'];
/// Lists within lists that are read; none of the keys needs more than two.
const MAX_DEPTH: usize = 16;

/// A value and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) span: Span,
    pub(super) content: Content,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A string or a number.
    Atom(String),
    /// A list.
    List(Vec<Value>),
}

/// `key = value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) key: String,
    pub(super) key_span: Span,
    /// `+=`: after what was there.
    pub(super) adds: bool,
    pub(super) value: Value,
}

/// Reads all the sources; what cannot be read is left out and complained about.
pub(super) fn parse(sources: &[Source<'_>], complaints: &mut Vec<Diagnostic>) -> Vec<Setting> {
    let mut settings = Vec::new();
    for index in 0..sources.len() {
        let mut parser = Parser { sources, index, at: 0, is_in_list: false, complaints };
        while let Some(result) = parser.statement() {
            match result {
                Ok(setting) => settings.push(setting),
                Err(Reported) => parser.skip_setting(),
            }
        }
    }
    settings
}

/// An argument as a line of a file: with quotes, if the shell has taken them.
pub fn as_line(argument: &str) -> String {
    let meaning = |source| {
        let settings = parse(&[source], &mut Vec::new());
        settings
            .into_iter()
            .map(|setting| (setting.key, setting.adds, setting.value.content))
            .collect::<Vec<_>>()
    };
    let Some((key, value)) = argument.split_once('=') else { return argument.to_owned() };
    if meaning(Source::file("", argument)) == meaning(Source::argument(argument)) {
        return argument.to_owned();
    }
    if argument.contains(';') {
        return argument.split(';').map(as_line).collect::<Vec<_>>().join(";");
    }
    let quoted = value.trim_matches(SPACE).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{key}=\"{quoted}\"")
}

/// An error that is among the complaints already.
struct Reported;

struct Parser<'a, 'b> {
    sources: &'a [Source<'a>],
    index: usize,
    at: usize,
    is_in_list: bool,
    complaints: &'b mut Vec<Diagnostic>,
}

impl<'a> Parser<'a, '_> {
    fn rest(&self) -> &'a str {
        &self.sources[self.index].text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn span(&self, bytes: Range<usize>) -> Span {
        Span { source: self.index, bytes }
    }

    fn fail<T>(&mut self, bytes: Range<usize>, message: impl Into<String>) -> Result<T, Reported> {
        let place = Place::new(self.sources, &self.span(bytes));
        let message = message.into();
        self.complaints.push(Diagnostic { severity: Severity::Error, message, place: Some(place) });
        Err(Reported)
    }

    /// Skips spaces and comments, and newlines if they mean nothing here.
    fn skip_space(&mut self, newlines: bool) {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start_matches(SPACE).len();
            match self.peek() {
                Some('#') if !self.sources[self.index].is_argument => {
                    self.at += self.rest().find('\n').unwrap_or(self.rest().len())
                }
                Some('\n') if newlines => self.at += 1,
                // The next token, or the end.
                _ => return,
            }
        }
    }

    /// Goes on after a mistake: at the next line, or, from within a list, at the next that begins a setting.
    fn skip_setting(&mut self) {
        loop {
            self.at += self.rest().find('\n').map_or(self.rest().len(), |at| at + 1);
            let line = self.rest().lines().next().unwrap_or("").trim_start();
            let after =
                line.trim_start_matches(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            let is_setting = after.len() < line.len() && after.trim_start().starts_with(['=', '+']);
            if !std::mem::take(&mut self.is_in_list) || is_setting || self.rest().is_empty() {
                return;
            }
            self.is_in_list = true;
        }
    }

    /// The next setting; `None` at the end.
    fn statement(&mut self) -> Option<Result<Setting, Reported>> {
        loop {
            self.skip_space(true);
            match self.peek()? {
                ';' => self.at += 1,
                _ => return Some(self.setting()),
            }
        }
    }

    /// The end of a run of characters that `accept` wants.
    fn run(&self, accept: impl Fn(char) -> bool) -> usize {
        let rest = self.rest();
        self.at + rest.find(|c| !accept(c)).unwrap_or(rest.len())
    }

    /// What stands here, for a message: a word, or one character.
    fn word(&self) -> Range<usize> {
        let end = self.run(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | '%' | ':'));
        self.at..if end > self.at { end } else { self.at + self.peek().map_or(0, char::len_utf8) }
    }

    fn text(&self, bytes: Range<usize>) -> &'a str {
        &self.sources[self.index].text[bytes]
    }

    fn setting(&mut self) -> Result<Setting, Reported> {
        let start = self.at;
        if !self.peek().is_some_and(|c| c.is_ascii_lowercase()) {
            let word = self.word();
            let message = match self.text(word.clone()).to_ascii_lowercase() {
                lower if lower.starts_with(|c: char| c.is_ascii_lowercase()) => {
                    format!("a key is in lower case; did you mean '{lower}'?")
                }
                _ => "here a line 'key = value' should begin".to_owned(),
            };
            return self.fail(word, message);
        }
        let end = self.run(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_'));
        let key = self.text(start..end).to_owned();
        self.at = end;
        self.skip_space(false);
        let adds = self.rest().starts_with("+=");
        if !adds && self.peek() != Some('=') {
            let word = self.word();
            let message = format!("'{key}' should be followed by '=' and a value{}", self.python_hint());
            return self.fail(word, message);
        }
        self.at += if adds { 2 } else { 1 };
        self.skip_space(false);
        let value = self.value(0)?;
        self.skip_space(false);
        if !matches!(self.peek(), None | Some('\n' | ';')) {
            let word = self.word();
            let message =
                format!("the value of '{key}' ends before this: a new line or ';' goes between settings");
            return self.fail(word, message);
        }
        Ok(Setting { key, key_span: self.span(start..end), adds, value })
    }

    /// xm's configuration files were Python programs.
    fn python_hint(&self) -> &'static str {
        match self.peek() {
            Some('(' | ')' | ':' | '.' | '+' | '-') => " (this is no Python)",
            _ => "",
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, Reported> {
        let start = self.at;
        let content = match self.peek() {
            Some('[') => self.list(depth)?,
            Some(quote @ ('\'' | '"')) => Content::Atom(self.string(quote)?),
            _ if depth == 0 && self.sources[self.index].is_argument => {
                self.at = self.run(|c| !matches!(c, '\n' | ';'));
                Content::Atom(self.text(start..self.at).trim_end_matches(SPACE).to_owned())
            }
            Some(c) if c.is_ascii_digit() => {
                self.at = self.run(|c| c.is_ascii_hexdigit() || matches!(c, 'x' | 'X'));
                let next = self.peek().filter(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ':'));
                if next.is_some() {
                    self.at = start;
                    let word = self.word();
                    let message =
                        format!("'{}' is no whole number; text needs quotes", self.text(word.clone()));
                    return self.fail(word, message);
                }
                Content::Atom(self.text(start..self.at).to_owned())
            }
            None | Some('\n' | ';' | '#' | ',' | ']') => {
                return self.fail(start..start, "a value is missing: a number, 'text' or [a list]");
            }
            Some(_) => {
                let word = self.word();
                let text = self.text(word.clone());
                let message = match text.starts_with(|c: char| c.is_alphanumeric() || c == '/') {
                    true => format!("text needs quotes: '{text}'"),
                    false => format!("this is no value{}", self.python_hint()),
                };
                return self.fail(word, message);
            }
        };
        Ok(Value { span: self.span(start..self.at), content })
    }

    fn list(&mut self, depth: usize) -> Result<Content, Reported> {
        let open = self.at..self.at + 1;
        if depth == MAX_DEPTH {
            return self.fail(open, "lists lie too deep in each other");
        }
        self.at += 1;
        self.is_in_list = true;
        let mut values = Vec::new();
        loop {
            self.skip_space(true);
            match self.peek() {
                Some(']') => break,
                None => return self.fail(open, "this list has no end: ']' is missing"),
                Some(_) => values.push(self.value(depth + 1)?),
            }
            self.skip_space(true);
            match self.peek() {
                Some(',') => self.at += 1,
                Some(']') => break,
                None => return self.fail(open, "this list has no end: ']' is missing"),
                Some(_) => {
                    let word = self.word();
                    return self.fail(word, "within a list, ',' or ']' should come here");
                }
            }
        }
        self.at += 1;
        self.is_in_list = depth > 0;
        Ok(Content::List(values))
    }

    fn string(&mut self, quote: char) -> Result<String, Reported> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            let at = self.at;
            match self.peek() {
                None | Some('\n') => {
                    return self.fail(start..at, format!("this text has no end: {quote} is missing"));
                }
                Some(c) if c == quote => {
                    self.at += 1;
                    return Ok(text);
                }
                Some('\\') => {
                    self.at += 1;
                    text.push(self.escape(at)?);
                }
                Some(c) => {
                    self.at += c.len_utf8();
                    text.push(c);
                }
            }
        }
    }

    /// What stands for one character after the backslash at `start`.
    fn escape(&mut self, start: usize) -> Result<char, Reported> {
        let Some(letter) = self.peek().filter(|c| *c != '\n') else {
            return self.fail(start..self.at, "a backslash at the end of the line");
        };
        if letter.is_digit(8) {
            let digits = self.run(|c| c.is_digit(8)).min(self.at + 3);
            return self.code(start, self.at..digits, 8);
        }
        self.at += letter.len_utf8();
        Ok(match letter {
            '\\' | '\'' | '"' => letter,
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            'x' => {
                let digits = self.run(|c| c.is_ascii_hexdigit()).min(self.at + 2);
                return self.code(start, self.at..digits, 16);
            }
            other => {
                let message = format!("'\\{other}' stands for nothing; a backslash is written \\\\");
                return self.fail(start..self.at, message);
            }
        })
    }

    fn code(&mut self, start: usize, digits: Range<usize>, radix: u32) -> Result<char, Reported> {
        self.at = digits.end;
        match u8::from_str_radix(self.text(digits), radix) {
            // Bytes above would have to make up UTF-8 together.
            Ok(code @ 1..=127) => Ok(char::from(code)),
            Ok(_) | Err(_) => self.fail(start..self.at, "no code of a character between 1 and 127"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(sources: &[Source<'_>]) -> (Vec<Setting>, Vec<String>) {
        let mut complaints = Vec::new();
        let settings = parse(sources, &mut complaints);
        let line = |complaint: &Diagnostic| {
            let place = complaint.place.as_ref().unwrap();
            format!("{}:{}: {}", place.line, place.column, complaint.message)
        };
        (settings, complaints.iter().map(line).collect())
    }

    fn shown(content: &Content) -> String {
        match content {
            Content::Atom(text) => format!("{text:?}"),
            Content::List(values) => {
                format!(
                    "[{}]",
                    values.iter().map(|value| shown(&value.content)).collect::<Vec<_>>().join(",")
                )
            }
        }
    }

    fn settings(text: &str) -> Vec<String> {
        let (settings, complaints) = parsed(&[Source::file("f", text)]);
        assert_eq!(complaints, [""; 0], "{text}");
        let line = |setting: &Setting| {
            format!(
                "{}{}{}",
                setting.key,
                if setting.adds { "+=" } else { "=" },
                shown(&setting.value.content)
            )
        };
        settings.iter().map(line).collect()
    }

    fn complaint(text: &str) -> String {
        let (_, complaints) = parsed(&[Source::file("f", text)]);
        assert_eq!(complaints.len(), 1, "{text}: {complaints:?}");
        complaints[0].clone()
    }

    #[test]
    fn everything_of_the_grammar_is_read() {
        assert_eq!(settings(""), [""; 0]);
        assert_eq!(settings("\n;;\n # only this"), [""; 0]);
        assert_eq!(
            settings("a=1;b = 0x1F # c\r\n\tc.d_2='x#\"y'\n"),
            ["a=\"1\"", "b=\"0x1F\"", "c.d_2=\"x#\\\"y\""]
        );
        assert_eq!(settings("a=[]\nb=[ ]\nc=[1,]"), ["a=[]", "b=[]", "c=[\"1\"]"]);
        assert_eq!(
            settings("a=[ 'x', # one\n\n  [\"y\",2],\n]\nb+=['z']"),
            ["a=[\"x\",[\"y\",\"2\"]]", "b+=[\"z\"]"]
        );
        assert_eq!(
            settings(r#"a='\'\"\\\a\b\f\n\r\t\v\x41\101\7'"#),
            ["a=\"'\\\"\\\\\\u{7}\\u{8}\\u{c}\\n\\r\\t\\u{b}AA\\u{7}\""]
        );
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        assert_eq!(complaint("a=1\nb = foo\nc=2"), "2:5: text needs quotes: 'foo'");
        assert_eq!(complaint("a="), "1:3: a value is missing: a number, 'text' or [a list]");
        assert_eq!(complaint("a 1"), "1:3: 'a' should be followed by '=' and a value");
        assert_eq!(
            complaint("import(os)"),
            "1:7: 'import' should be followed by '=' and a value (this is no Python)"
        );
        assert_eq!(complaint("Name='x'"), "1:1: a key is in lower case; did you mean 'name'?");
        assert_eq!(complaint("= 1"), "1:1: here a line 'key = value' should begin");
        assert_eq!(complaint("a=1.5"), "1:3: '1.5' is no whole number; text needs quotes");
        assert_eq!(complaint("a=-1"), "1:3: this is no value (this is no Python)");
        assert_eq!(
            complaint("a=1 b=2"),
            "1:5: the value of 'a' ends before this: a new line or ';' goes between settings"
        );
        assert_eq!(complaint("a='x\nb=1"), "1:3: this text has no end: ' is missing");
        assert_eq!(complaint("a=['x',\n"), "1:3: this list has no end: ']' is missing");
        assert_eq!(complaint("a=['x'"), "1:3: this list has no end: ']' is missing");
        assert_eq!(complaint("a=['x' 'y']"), "1:8: within a list, ',' or ']' should come here");
        assert_eq!(complaint("a=[,]"), "1:4: a value is missing: a number, 'text' or [a list]");
        assert_eq!(complaint(r"a='\q'"), r"1:4: '\q' stands for nothing; a backslash is written \\");
        assert_eq!(complaint(r"a='\x'"), "1:4: no code of a character between 1 and 127");
        assert_eq!(complaint(r"a='\000'"), "1:4: no code of a character between 1 and 127");
        assert_eq!(complaint(&format!("a={}", "[".repeat(1000))), "1:19: lists lie too deep in each other");
    }

    #[test]
    fn one_mistake_does_not_hide_the_next() {
        let (settings, complaints) = parsed(&[Source::file("f", "a=x\nb=1\nc=y\n")]);
        assert_eq!(settings.len(), 1);
        assert_eq!(complaints, ["1:3: text needs quotes: 'x'", "3:3: text needs quotes: 'y'"]);
        let text = "a=[ 'x',\n y,\n 'z=1',\n]\nb=2\nc=[]\nd e\n";
        let (settings, complaints) = parsed(&[Source::file("f", text)]);
        assert_eq!(settings.len(), 2);
        assert_eq!(
            complaints,
            ["2:2: text needs quotes: 'y'", "7:3: 'd' should be followed by '=' and a value"]
        );
    }

    #[test]
    fn an_argument_needs_no_quotes() {
        let sources = [
            Source::argument("name=foo bar "),
            Source::argument("memory=512;vcpus=2"),
            Source::argument("a='b'"),
        ];
        let (settings, complaints) = parsed(&sources);
        assert_eq!(complaints, [""; 0]);
        let values: Vec<String> = settings.iter().map(|setting| shown(&setting.value.content)).collect();
        assert_eq!(values, ["\"foo bar\"", "\"512\"", "\"2\"", "\"b\""]);
        for (argument, line) in [
            ("memory=512", "memory=512"),
            ("name='a b'", "name='a b'"),
            ("disk=['x']", "disk=['x']"),
            ("name=a b", "name=\"a b\""),
            ("extra=say \"x\" \\y", r#"extra="say \"x\" \\y""#),
            ("name=a;vcpus=2", "name=\"a\";vcpus=2"),
        ] {
            assert_eq!(as_line(argument), line);
        }
    }
}
