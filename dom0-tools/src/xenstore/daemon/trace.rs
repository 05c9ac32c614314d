//! What is asked and answered, in a file, for whoever looks for a mistake.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use pv_abi::xs_wire::{MessageType, SockMsg};

use crate::xenstore::store::ClientId;

/// The trace.
#[derive(Debug, Default)]
pub struct Trace {
    path: Option<PathBuf>,
    file: Option<File>,
    /// Other messages also go to standard error.
    foreground: bool,
}

impl Trace {
    /// One that goes to `path`, if that is given.
    pub fn new(path: Option<PathBuf>, foreground: bool) -> Self {
        let mut trace = Self { path, file: None, foreground };
        trace.reopen();
        trace
    }

    /// Opens the file anew: it may have been moved away.
    pub fn reopen(&mut self) {
        let open = |path: &PathBuf| OpenOptions::new().append(true).create(true).open(path);
        match self.path.as_ref().map(open).transpose() {
            Ok(file) => self.file = file,
            Err(error) => eprintln!("xenstored: cannot trace: {error}"),
        }
    }

    /// Obeys a control command.
    pub fn obey(&mut self, command: &str, arguments: &[String]) {
        match (command, arguments) {
            ("log", [word]) if word == "on" => self.reopen(),
            ("log", [word]) if word == "off" => self.file = None,
            ("logfile", [path]) => {
                self.path = Some(path.into());
                self.reopen();
            }
            ("print", [text]) => self.text(text),
            // Refused before.
            _ => {}
        }
    }

    fn line(&mut self, line: &str) {
        if let Some(file) = &mut self.file {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            // A trace that cannot be written is no reason to stop.
            let _ = writeln!(file, "{}.{:06} {line}", now.as_secs(), now.subsec_micros());
        }
    }

    /// A message to the administrator.
    pub fn text(&mut self, text: &str) {
        if self.foreground {
            eprintln!("xenstored: {text}");
        }
        self.line(text);
    }

    /// A message of the protocol.
    pub fn message(&mut self, direction: &str, client: ClientId, header: SockMsg, payload: &[u8]) {
        if self.file.is_none() {
            return;
        }
        let kind = match MessageType::try_from(header.r#type) {
            Ok(kind) => format!("{kind:?}"),
            Err(_) => header.r#type.to_string(),
        };
        let mut line = format!("{direction} {client} {kind} tx {} (", header.tx_id);
        for &byte in payload {
            match byte {
                0 => line.push(' '),
                b' '..=b'~' => line.push(char::from(byte)),
                _ => {
                    let _ = write!(line, "\\x{byte:02x}");
                }
            }
        }
        line.push(')');
        self.line(&line);
    }
}
